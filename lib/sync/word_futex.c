/* SPDX-License-Identifier: Apache-2.0 */
/* Sleeping on words: what the kernel does best. */
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "base/base.h"
#include "sync/word.h"

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

#ifdef SYS_futex_time64
#define FUTEX_CALL SYS_futex_time64
struct futex_timespec {
	int64_t sec, nsec;
};
#else
#define FUTEX_CALL SYS_futex
struct futex_timespec {
	long sec, nsec;
};
#endif

int leat__word_wait(uint32_t *word, uint32_t seen, uint64_t ns)
{
	struct futex_timespec ts = {(int64_t)(ns / 1000000000u), (int64_t)(ns % 1000000000u)};
	int saved = errno;
	int r = (int)syscall(FUTEX_CALL, word, FUTEX_WAIT, seen, &ts, NULL, 0);

	r = r < 0 ? -errno : 0;
	errno = saved;
	return r;
}

int leat__words_wait(struct leat__waitv *v, unsigned n, uint64_t ns)
{
	uint64_t until = leat__now() + ns;
	struct {
		int64_t sec, nsec;
	} ts = {(int64_t)(until / 1000000000u), (int64_t)(until % 1000000000u)};
	int saved = errno;
	int r = (int)syscall(SYS_futex_waitv, v, n, 0, &ts, CLOCK_MONOTONIC);

	r = r >= 0 ? 0 : errno == EPERM ? -ENOSYS : -errno;
	errno = saved;
	return r;
}

void leat__word_wake(uint32_t *word, int n)
{
	int saved = errno;

	syscall(FUTEX_CALL, word, FUTEX_WAKE, n, NULL, NULL, 0);
	errno = saved;
}
