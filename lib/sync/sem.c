/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leat_sem: a counting semaphore in the user's own region. A poster that dies cannot hold anything;
 * a taker that dies has taken: who counts resources per process keeps a ledger of its own.
 */
#include <errno.h>
#include <limits.h>
#include <leat/sync.h>
#include "base/base.h"
#include "sync/bell.h"

#define SLICE_NS UINT64_C(100000000)

int leat_sem_init(struct leat_sem *sem, uint32_t value)
{
	if (value > INT_MAX)
		return leat__fail(-EINVAL, "semaphore of value %u: at most %d", value, INT_MAX);
	sem->value = value;
	sem->sleepers = 0;
	return 0;
}

int leat_sem_post(struct leat_sem *sem)
{
	uint32_t v;

	do {
		v = leat__load_relaxed(&sem->value);
		if (v >= INT_MAX)
			return leat__say(-EOVERFLOW, "the semaphore is at its largest value");
	} while (!__atomic_compare_exchange_n(&sem->value, &v, v + 1, 0, __ATOMIC_SEQ_CST,
					      __ATOMIC_RELAXED));
	/* Pairs with the fetch_add in leat_sem_wait(): value then sleepers here, the other way round
	 * there, both sequentially consistent. */
	if (__atomic_load_n(&sem->sleepers, __ATOMIC_SEQ_CST))
		leat__word_wake(&sem->value, 1);
	return 0;
}

static int take(struct leat_sem *sem)
{
	uint32_t v = leat__load_relaxed(&sem->value);

	while (v)
		if (__atomic_compare_exchange_n(&sem->value, &v, v - 1, 0, __ATOMIC_SEQ_CST,
						__ATOMIC_RELAXED))
			return 1;
	return 0;
}

int leat_sem_wait(struct leat_sem *sem, int64_t timeout_ns)
{
	uint64_t deadline;
	int r = -ETIMEDOUT;

	if (take(sem))
		return 0;
	if (!timeout_ns)
		return leat__say(-EAGAIN, "the semaphore is at zero");
	deadline = leat__deadline(timeout_ns);
	/* A sleeper that is killed leaves this count too high: a spare wake per post, no more. */
	leat__fetch_add(&sem->sleepers, 1u);
	for (;;) {
		uint64_t now = leat__now();

		if (take(sem)) {
			r = 0;
			break;
		}
		if (now >= deadline)
			break;
		leat__word_wait(&sem->value, 0, leat__min(deadline - now, SLICE_NS));
	}
	__atomic_fetch_sub(&sem->sleepers, 1u, __ATOMIC_SEQ_CST);
	return r ? leat__say(r, "the semaphore stayed at zero") : 0;
}
