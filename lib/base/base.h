/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_BASE_BASE_H
#define LEAT_BASE_BASE_H
/* Errors in words, the log, time, and small arithmetic. Knows nothing of shared memory. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <leat/base.h>

/* Record why, in one sentence, and return @err (negative). */
__attribute__((format(printf, 2, 3))) int leat__fail(int err, const char *fmt, ...);
/* The same with a text that never dies: no formatting, for errors that are part of normal work. */
int leat__say(int err, const char *text);
__attribute__((format(printf, 2, 3))) void leat__log(enum leat_log_level level, const char *fmt,
						     ...);

uint64_t leat__now(void); /* CLOCK_MONOTONIC, ns */

#define LEAT__NEVER UINT64_MAX
/* The moment @timeout_ns from now; negative: never; saturates. */
uint64_t leat__deadline(int64_t timeout_ns);

/* The struct of which @ptr is the member. */
#define leat__container(ptr, type, member)                                                         \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))

static inline uint64_t leat__align(uint64_t n, uint64_t to)
{
	return (n + to - 1) & ~(to - 1);
}

static inline uint64_t leat__min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* A size that leat__copy_in() and leat__copy_out() take; others are memcpy's. */
#define LEAT__SMALL(n) ((n) - 8 <= 56)

typedef uint64_t leat__word __attribute__((aligned(1), may_alias));

/*
 * Copy 8 to 64 bytes that have just been stored: word by word (volatile keeps it so), because a wide load
 * of what narrower stores have left in the store buffer waits until they drain: 5 ns here. From both
 * ends, which may overlap in the middle.
 */
static inline void leat__copy_in(void *to, const void *from, size_t n)
{
	volatile leat__word *t = to, *t_end = (void *)((char *)to + n);
	const volatile leat__word *f = from, *f_end = (const void *)((const char *)from + n);

	if (n > 16) {
		if (n > 32) {
			t[2] = f[2];
			t[3] = f[3];
			t_end[-4] = f_end[-4];
			t_end[-3] = f_end[-3];
		}
		t[1] = f[1];
		t_end[-2] = f_end[-2];
	}
	t[0] = f[0];
	t_end[-1] = f_end[-1];
}

/* Copy 8 to 64 bytes that come from far. */
static inline void leat__copy_out(void *to, const void *from, size_t n)
{
	unsigned char *t = to, *t_end = t + n;
	const unsigned char *f = from, *f_end = f + n;

	if (n < 16) {
		memcpy(t, f, 8);
		memcpy(t_end - 8, f_end - 8, 8);
		return;
	}
	if (n > 32) {
		memcpy(t + 16, f + 16, 16);
		memcpy(t_end - 32, f_end - 32, 16);
	}
	memcpy(t, f, 16);
	memcpy(t_end - 16, f_end - 16, 16);
}

/* FNV-1a, 64 bits: finds accidents, not attackers. */
uint64_t leat__hash(const void *data, size_t size);

/* Copy the caller's size-first options over zeroes: what an older caller lacks is the default. */
int leat__opts(void *ours, size_t our_size, const void *theirs, const char *what);

/* Give an answer in the caller's size-first struct. -EINVAL if its size is not set. */
int leat__give(void *theirs, const void *ours, size_t our_size, const char *what);

/* A small file (in /proc, say) as a string: its length, or -errno. */
int leat__read_file(const char *path, char *buf, size_t size);

/* Counts forks of this process: a handle made under another count is not ours. */
unsigned leat__forks(void);

#endif
