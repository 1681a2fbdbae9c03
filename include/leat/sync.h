/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_SYNC_H
#define LEAT_SYNC_H
/*
 * Synchronisation for your own data in a region that several processes map read-write: an event
 * count (bell), a counting semaphore, a mutex whose owner may die.
 * All of it is plain memory: zeroed bytes are a valid bell, a semaphore of value 0, a free mutex.
 * Manual: leat_bell(3), leat_sem(3), leat_mutex(3).
 */
#include <leat/base.h>
#include <leat/region.h>

LEAT_BEGIN_DECLS

struct leat_bell {
	uint32_t word; /* bit 0: somebody sleeps; the rest counts */
	uint32_t reserved;
};

struct leat_sem {
	uint32_t value;
	uint32_t sleepers;
};

struct leat_mutex {
	uint32_t owner; /* 0 free; else the owner's life, bit 31: somebody sleeps */
	uint32_t state; /* 1: an owner died and nobody has repaired it */
};

/*
 * Begin to listen: what to hand to leat_bell_wait() if the condition turns out to be false. Look at
 * the condition between the two calls.
 */
LEAT_API uint32_t leat_bell_listen(struct leat_bell *bell);

/*
 * Sleep until the bell rings after @heard was taken, at most @timeout_ns nanoseconds (-1: for ever).
 * 0 rung (or awake for no reason: look again), -ETIMEDOUT, -EAGAIN when @timeout_ns is 0.
 */
LEAT_API int leat_bell_wait(struct leat_bell *bell, uint32_t heard, int64_t timeout_ns);

/* Wake everybody who listens. No system call when nobody does. Always 0. */
LEAT_API int leat_bell_ring(struct leat_bell *bell);

/* Set a semaphore up with @value. -EINVAL above 2^31-1. */
LEAT_API int leat_sem_init(struct leat_sem *sem, uint32_t value);

/* Add one and wake one sleeper. -EOVERFLOW at 2^31-1. */
LEAT_API int leat_sem_post(struct leat_sem *sem);

/* Take one, waiting at most @timeout_ns nanoseconds. -EAGAIN (timeout 0), -ETIMEDOUT. */
LEAT_API int leat_sem_wait(struct leat_sem *sem, int64_t timeout_ns);

/* Set a mutex up, free. Always 0. */
LEAT_API int leat_mutex_init(struct leat_mutex *mutex);

/*
 * Lock @mutex, which lies in @region, within @timeout_ns nanoseconds. The owner is the process.
 * -EOWNERDEAD: locked, but its owner died: repair the data, then leat_mutex_repair(), or unlock to
 * make it -ENOTRECOVERABLE for everybody. -EAGAIN (timeout 0), -ETIMEDOUT, -EINVAL not in @region.
 */
LEAT_API int leat_mutex_lock(struct leat_region *region, struct leat_mutex *mutex,
			     int64_t timeout_ns);

/* The data is whole again. -EPERM not the owner. */
LEAT_API int leat_mutex_repair(struct leat_region *region, struct leat_mutex *mutex);

/* Let go. -EPERM not the owner. */
LEAT_API int leat_mutex_unlock(struct leat_region *region, struct leat_mutex *mutex);

LEAT_END_DECLS
#endif
