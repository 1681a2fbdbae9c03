/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_SYNC_BELL_H
#define LEAT_SYNC_BELL_H
/*
 * The bell: a futex event count. Bit 0 says that somebody sleeps (or is about to), the rest counts.
 * Whoever changes a condition stores it, then notifies; whoever waits sets bit 0, then looks again.
 */
#include <stdint.h>
#include "base/atomic.h"
#include "sync/word.h"

/* Where waiting looks for its condition: 1 true, 0 not yet, negative: give up with that. */
typedef int leat__cond_fn(void *arg);

/* A handle's patience before it sleeps: a window that did not pay is left out more and more often. */
struct leat__spin {
	uint64_t max_ns; /* the window; 0: never spins */
	uint32_t skip;   /* windows to leave out now */
	uint32_t missed; /* how many were left out before the last one */
	int alone;       /* one CPU: whoever we would spin for cannot run */
};

/* From an option: 0 = 20 us (0 on one CPU), -1 = never. */
void leat__spin_init(struct leat__spin *spin, int64_t option_ns);

/*
 * Wait for @cond until @deadline (leat__now() scale): spin, then sleep on @bell in slices, looking
 * at @cond after 100 ms, later at least every 400 ms. 0, -ETIMEDOUT, or what @cond gave up with.
 */
int leat__bell_wait(uint32_t *bell, struct leat__spin *spin, leat__cond_fn *cond, void *arg,
		    uint64_t deadline);

/* How often on this thread a whole slice, or a step after a look, ran out although its condition had come true: a wake-up that
 * was lost, or whose notifier has not got to it yet. */
extern __thread uint64_t leat__bell_late;

/* Wake all, whether or not anyone seems to sleep: after a death, and for rare events. */
void leat__bell_toll(uint32_t *bell);

/* The part of notify that is not on the hot path. Always 0. */
int leat__bell_wake(uint32_t *bell, uint32_t seen);

/*
 * The condition has been stored (release): wake who sleeps. No fence: this load may run ahead of
 * that store, but not for longer than a store buffer takes to drain, and a sleeper's first, short
 * sleep outlasts that. Pairs with the fetch_or in leat__bell_wait().
 * Always 0, so that it can be the last thing a function does.
 */
static inline int leat__bell_notify(uint32_t *bell)
{
	uint32_t v = leat__load_relaxed(bell);

	if (__builtin_expect(v & 1, 0))
		return leat__bell_wake(bell, v);
	return 0;
}

/* The same on several bells at once, of which any may ring; at most LEAT__WAITV_MAX. */
int leat__bells_wait(uint32_t *const *bells, unsigned n, struct leat__spin *spin, leat__cond_fn *cond,
		     void *arg, uint64_t deadline);

#endif
