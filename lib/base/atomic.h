/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_BASE_ATOMIC_H
#define LEAT_BASE_ATOMIC_H
/*
 * Every access to a word that another process may touch goes through here, so that a test build can
 * put something else underneath. Words are plain uint32_t/uint64_t: the layout has no _Atomic.
 * 64-bit loads are lock-free everywhere we build and work on read-only pages.
 */
#include <stdint.h>

#ifdef LEAT__OTHER_ATOMICS /* the explorer's: tests/explore */
#include LEAT__OTHER_ATOMICS
#else
#define leat__load_relaxed(p)     __atomic_load_n((p), __ATOMIC_RELAXED)
#define leat__load_acquire(p)     __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define leat__store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define leat__store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define leat__fetch_or(p, v)      __atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST)
#define leat__fetch_add(p, v)     __atomic_fetch_add((p), (v), __ATOMIC_SEQ_CST)
#define leat__exchange(p, v)      __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)

/* Strong compare and swap; true when @p held @expected and now holds @v. */
#define leat__cas(p, expected, v)                                                                  \
	__extension__({                                                                            \
		__typeof__(*(p)) leat__e = (expected);                                             \
		__atomic_compare_exchange_n((p), &leat__e, (v), 0, __ATOMIC_ACQ_REL,               \
					    __ATOMIC_RELAXED);                                     \
	})

#if defined(__SANITIZE_THREAD__)
#define LEAT__TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LEAT__TSAN 1
#endif
#endif

#ifdef LEAT__TSAN
/* ThreadSanitizer does not know fences; a locked operation on one word is the nearest it knows. */
extern uint32_t leat__tsan_fence;
#define leat__fence()         ((void)__atomic_fetch_add(&leat__tsan_fence, 1, __ATOMIC_SEQ_CST))
#define leat__fence_acquire() leat__fence()
#else
#define leat__fence()         __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define leat__fence_acquire() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#endif
#endif

/* Be kind to the other hardware thread while spinning. */
static inline void leat__pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

#endif
