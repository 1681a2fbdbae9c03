/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sleeping and waking. Called by rings, channels, semaphores and mutexes. Never blocks without a
 * deadline inside: a sleep is a slice of 100 ms, and for who goes on sleeping of at most 400 ms.
 */
#include <errno.h>
#include <limits.h>
#include <unistd.h>
#include <leat/sync.h>
#include "base/base.h"
#include "sync/bell.h"

#define SLICE_NS   UINT64_C(100000000)
#define LOOK_NS    UINT64_C(4000)
#define STEP_NS    UINT64_C(5000000) /* a timer below the kernel's tick costs 3.5 us of 17 here */
#define LONGEST_NS UINT64_C(400000000) /* waking from idle costs 70 us here: ten a second are too many */
#define SPIN_NS    UINT64_C(20000)
#define ALONE_NS   UINT64_C(1000000) /* one word stands for all where several cannot be slept on: look so often */
#define MISSES     64 /* a window that does not pay is tried again after so many sleeps */

#ifndef LEAT__FIRST_SLEEP_NS /* a test builds this file without the first, short sleep */
#define LEAT__FIRST_SLEEP_NS UINT64_C(50000)
#endif

/* Sleep on one word, or on several where that is possible, else for a moment. */
static int sleep_on(uint32_t *const *bells, const uint32_t *seen, unsigned n, uint64_t ns)
{
	struct leat__waitv v[LEAT__WAITV_MAX];
	int r;

	if (n == 1)
		return leat__word_wait(bells[0], seen[0], ns);
	for (unsigned i = 0; i < n; i++)
		v[i] = leat__waitv(bells[i], seen[i]);
	r = leat__words_wait(v, n, ns);
	return r == -ENOSYS ? leat__word_wait(bells[0], seen[0], leat__min(ns, ALONE_NS)) : r;
}

int leat__bell_wake(uint32_t *bell, uint32_t seen)
{
	/* +1 clears bit 0 and adds 2. Losing means that somebody else woke them, or that the word
	 * moved and its sleepers do not sleep: nothing to do again. */
	if (leat__cas(bell, seen, seen + 1))
		leat__word_wake(bell, INT_MAX);
	return 0;
}

void leat__bell_toll(uint32_t *bell)
{
	/* A victim may have cleared bit 0 and died before it woke anyone. */
	leat__fetch_add(bell, 2u);
	leat__word_wake(bell, INT_MAX);
}

void leat__spin_init(struct leat__spin *spin, int64_t option_ns)
{
	static long online; /* asking reads a file */

	/* The machine's, not those we are pinned to: the other side may be pinned to another. */
	if (!leat__load_relaxed(&online))
		leat__store_relaxed(&online, sysconf(_SC_NPROCESSORS_ONLN));
	spin->alone = leat__load_relaxed(&online) < 2;
	spin->max_ns = option_ns < 0 ? 0 : option_ns ? (uint64_t)option_ns : SPIN_NS;
	if (option_ns == 0 && spin->alone)
		spin->max_ns = 0;
	spin->skip = spin->missed = 0;
}

/* 1 as soon as @cond holds, 0 when the window is over. */
static int spin_for(struct leat__spin *spin, leat__cond_fn *cond, void *arg, uint64_t deadline)
{
	uint64_t until;
	int r;

	if (!spin || !spin->max_ns)
		return 0;
	if (spin->skip) {
		spin->skip--;
		return 0;
	}
	until = leat__min(leat__now() + spin->max_ns, deadline);
	do {
		for (int i = 0; i < 32; i++) {
			r = cond(arg);
			if (r) {
				spin->missed = 0;
				return r;
			}
			leat__pause();
		}
	} while (leat__now() < until);
	spin->missed = spin->missed * 2 + 1 < MISSES ? spin->missed * 2 + 1 : MISSES;
	spin->skip = spin->missed;
	return 0;
}

__thread uint64_t leat__bell_late;

/* 1 as soon as @cond holds, 0 when it has not for LOOK_NS. The last looks come after the time was
 * found to be over: who was interrupted for that long has not looked meanwhile. */
static int look(leat__cond_fn *cond, void *arg)
{
	uint64_t until = leat__now() + LOOK_NS;
	int over, r;

	do {
		over = leat__now() >= until;
		for (int i = 0; i < 8; i++) {
			r = cond(arg);
			if (r)
				return r;
			leat__pause();
		}
	} while (!over);
	return 0;
}

int leat__bell_wait(uint32_t *bell, struct leat__spin *spin, leat__cond_fn *cond, void *arg,
		    uint64_t deadline)
{
	return leat__bells_wait(&bell, 1, spin, cond, arg, deadline);
}

int leat__bells_wait(uint32_t *const *bells, unsigned n, struct leat__spin *spin, leat__cond_fn *cond,
		     void *arg, uint64_t deadline)
{
	int r = spin_for(spin, cond, arg, deadline), f, busy = spin && !spin->alone;
	uint64_t slice = SLICE_NS;
	uint32_t armed = 0; /* the word under which we have slept already */
	uint32_t seen[LEAT__WAITV_MAX];

	while (!r) {
		uint64_t left, now, slept;
		/* Pairs with the load in leat__bell_notify(): either the notifier sees bit 0, or we
		 * see what it stored, or what follows outlasts its store buffer. */
		uint32_t v = 0;

		for (unsigned i = 0; i < n; i++) {
			seen[i] = leat__fetch_or(bells[i], 1u) | 1u;
			v = v * 31 + seen[i];
		}
		leat__fence();
		r = cond(arg);
		if (r)
			break;
		now = leat__now();
		if (now >= deadline)
			return -ETIMEDOUT;
		left = deadline - now;
		slept = now;
		/* Still the word of the last sleep: bit 0 has stood since, and is long seen. */
		if (LEAT__FIRST_SLEEP_NS && v != armed) {
			/* A store buffer drains in less than a microsecond. Whoever may spin looks for
			 * longer than that, and should that not have been enough wakes after a step;
			 * who may not sleeps a shorter one at once. */
			if (busy && (r = look(cond, arg)) != 0)
				break;
			f = sleep_on(bells, seen, n, leat__min(left, busy ? STEP_NS : LEAT__FIRST_SLEEP_NS));
			r = cond(arg);
			if (r) {
				leat__bell_late += busy && f == -ETIMEDOUT;
				goto woken;
			}
		}
		r = sleep_on(bells, seen, n, leat__min(left, slice));
		armed = v;
		slice = leat__min(slice * 2, LONGEST_NS);
		if (r == -ETIMEDOUT) {
			r = cond(arg);
			leat__bell_late += r > 0;
		} else {
			r = cond(arg);
		}
woken:
		/* Woken sooner than the window would have lasted: spinning would have paid. */
		if (r && spin && leat__now() - slept < spin->max_ns)
			spin->skip = spin->missed = 0;
	}
	return r < 0 ? r : 0;
}

/* ---- public: a bell in the user's own region ---- */

uint32_t leat_bell_listen(struct leat_bell *bell)
{
	uint32_t v = leat__fetch_or(&bell->word, 1u) | 1u;

	leat__fence(); /* pairs with the one in leat_bell_ring() */
	return v;
}

int leat_bell_wait(struct leat_bell *bell, uint32_t heard, int64_t timeout_ns)
{
	uint64_t deadline = leat__deadline(timeout_ns);

	for (;;) {
		uint64_t now;

		if (leat__load_acquire(&bell->word) != heard)
			return 0;
		if (!timeout_ns)
			return leat__say(-EAGAIN, "the bell has not rung");
		now = leat__now();
		if (now >= deadline)
			return leat__say(-ETIMEDOUT, "the bell did not ring in time");
		if (leat__word_wait(&bell->word, heard, leat__min(deadline - now, SLICE_NS)) == 0)
			return 0;
	}
}

int leat_bell_ring(struct leat_bell *bell)
{
	uint32_t v;

	/* The caller's stores may be anything, so this one does fence. */
	leat__fence();
	v = leat__load_relaxed(&bell->word);
	if (v & 1)
		leat__bell_wake(&bell->word, v);
	return 0;
}
