/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_SYNC_WORD_H
#define LEAT_SYNC_WORD_H
/*
 * Sleeping until a shared word is another, and waking who does: by futex (word_futex.c), or, built with
 * -Dwait=semaphore, by POSIX semaphores (word_sem.c). Whoever sleeps looks at what it waits for when it wakes: it may be
 * woken for nothing.
 */
#include <stdint.h>

/* While @word holds @seen, at most @ns. 0, or -errno (-ETIMEDOUT, -EAGAIN, -EINTR). */
int leat__word_wait(uint32_t *word, uint32_t seen, uint64_t ns);
/* Wake @n of those who sleep on @word, or more. */
void leat__word_wake(uint32_t *word, int n);

/* A word to sleep on together with others: as futex_waitv() has it. */
struct leat__waitv {
	uint64_t value, address;
	uint32_t flags, reserved;
};
enum { LEAT__WAITV_MAX = 128 }; /* the kernel's */
static inline struct leat__waitv leat__waitv(const uint32_t *word, uint32_t seen)
{
	return (struct leat__waitv){seen, (uintptr_t)word, 2 /* FUTEX_32 */, 0};
}
/* While all of them hold what they were seen to. 0, or -errno; -ENOSYS where that cannot be done. */
int leat__words_wait(struct leat__waitv *v, unsigned n, uint64_t ns);

#endif
