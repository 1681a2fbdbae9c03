/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leat_mutex: a lock in the user's own region whose owner may be killed. The owner is a life on the
 * region's file (a process); in regions without a file (ANON, SYSV) it is a process id. No robust
 * list: a twin in another PID namespace could steal those, and unlocking one follows pointers that
 * lie in shared memory.
 */
#include <errno.h>
#include <leat/sync.h>
#include <signal.h>
#include <unistd.h>
#include "base/base.h"
#include "mem/region.h"
#include "sync/bell.h"

#define SLEEPERS UINT32_C(0x80000000)
#define SLICE_NS UINT64_C(100000000)

enum { WHOLE = 0, DIED = 1, LOST = 2 };

static int dead(struct leat_region *region, uint32_t owner)
{
	return leat__region_life_dead(region, owner & ~SLEEPERS);
}

int leat_mutex_init(struct leat_mutex *mutex)
{
	leat__store_relaxed(&mutex->state, (uint32_t)WHOLE);
	leat__store_release(&mutex->owner, 0u);
	return 0;
}

static int inside(const struct leat_region *region, const struct leat_mutex *mutex)
{
	uintptr_t base = (uintptr_t)leat_region_addr(region);

	return (uintptr_t)mutex >= base &&
	       (uintptr_t)mutex + sizeof(*mutex) <= base + leat_region_size(region);
}

/* We own it now: what state did we find? */
static int judge(struct leat_region *region, struct leat_mutex *mutex)
{
	switch (leat__load_relaxed(&mutex->state)) {
	case WHOLE:
		return 0;
	case DIED:
		return leat__say(-EOWNERDEAD, "the mutex is locked, but its last owner died holding it:"
					      " repair the data, then leat_mutex_repair()");
	default:
		leat_mutex_unlock(region, mutex);
		return leat__say(-ENOTRECOVERABLE, "an owner of the mutex died and the next one let go"
						   " without repairing: leat_mutex_init() starts anew");
	}
}

int leat_mutex_lock(struct leat_region *region, struct leat_mutex *mutex, int64_t timeout_ns)
{
	uint64_t deadline = LEAT__NEVER;
	uint32_t me = 0;
	int r;

	if (!inside(region, mutex))
		return leat__say(-EINVAL, "lock: the mutex does not lie in that region");
	r = leat__region_life(region, &me);
	if (r < 0)
		return r;
	if (leat__cas(&mutex->owner, 0u, me))
		return judge(region, mutex);
	if (timeout_ns > 0)
		deadline = leat__deadline(timeout_ns);
	for (;;) {
		uint32_t v = leat__load_acquire(&mutex->owner);
		uint64_t now;

		if (!v) {
			/* Others may sleep: keep the bit, at the price of one spare wake. */
			if (leat__cas(&mutex->owner, 0u, me | SLEEPERS))
				return judge(region, mutex);
			continue;
		}
		if (dead(region, v)) {
			if (leat__cas(&mutex->owner, v, me | SLEEPERS)) {
				if (leat__load_relaxed(&mutex->state) == WHOLE)
					leat__store_relaxed(&mutex->state, (uint32_t)DIED);
				return judge(region, mutex);
			}
			continue;
		}
		if (!timeout_ns)
			return leat__say(-EAGAIN, "the mutex is locked");
		now = leat__now();
		if (now >= deadline)
			return leat__say(-ETIMEDOUT, "the mutex stayed locked by a living owner");
		if (!(v & SLEEPERS) && !leat__cas(&mutex->owner, v, v | SLEEPERS))
			continue;
		leat__word_wait(&mutex->owner, v | SLEEPERS, leat__min(deadline - now, SLICE_NS));
	}
}

static int owned(struct leat_region *region, struct leat_mutex *mutex)
{
	uint32_t me = 0;

	return inside(region, mutex) && leat__region_life(region, &me) >= 0 &&
	       (leat__load_relaxed(&mutex->owner) & ~SLEEPERS) == me;
}

int leat_mutex_repair(struct leat_region *region, struct leat_mutex *mutex)
{
	if (!owned(region, mutex))
		return leat__say(-EPERM, "repair: this process does not hold the mutex");
	leat__store_relaxed(&mutex->state, (uint32_t)WHOLE);
	return 0;
}

int leat_mutex_unlock(struct leat_region *region, struct leat_mutex *mutex)
{
	if (!owned(region, mutex))
		return leat__say(-EPERM, "unlock: this process does not hold the mutex");
	if (leat__load_relaxed(&mutex->state) == DIED)
		leat__store_relaxed(&mutex->state, (uint32_t)LOST);
	if (leat__exchange(&mutex->owner, 0u) & SLEEPERS)
		leat__word_wake(&mutex->owner, 1);
	return 0;
}
