/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A publisher whose broker has died. It writes on: its ring and its readers are all it needs. When another
 * broker serves it announces a new ring there, which goes on from the first, and writes on in the old one until
 * every subscriber that is waited for has gone over to that broker and come to the new ring (or is dead, by its
 * life). Then it copies the old ring's contents, positions and all, and goes on in the new one; readers go on
 * there where they are, and one that never got to map the old one finds all of it in the new. Until that moment
 * nothing depends on the new broker, which may die like the first.
 */
#include <errno.h>
#include <string.h>
#include "base/base.h"
#include "channel/channel.h"

#define OFTEN_NS UINT64_C(25000000)  /* a publisher that sends slowly looks after its broker so often, */
#define MOVE_NS  INT64_C(5000000)    /* and waits so long for its answer before it goes on with its own work */
#define REST     20                  /* times as long as it was held up, it is not held up again */
#define STRETCH_MAX UINT64_C(16384) /* bytes until the next look at the time: 0.2 ns a message */
#define LATE_NS  UINT64_C(1000000000) /* for a subscriber that was being opened when the broker died */

/* A dead subscriber that no broker frees: nobody waits for it, nothing is held by it. What a worker has in hand
 * is for the others of its group to see to. */
static void bury_slot(struct leat_pub *p, uint32_t i)
{
	struct leat__slot *slot = &leat__ctrl_slots(p->ctrl, &p->at.cg)[i];

	if (leat__load_relaxed(&slot->mode) == LEAT__WORKER)
		return;
	leat__store_release(&p->w.lines[i].state, LEAT__WORD(p->w.id, LEAT__DONE));
	for (int k = 0; k < LEAT__HELD; k++)
		leat__store_release(&slot->held[k], UINT64_C(0));
	leat__store_release(&slot->moved, LEAT__LEFT);
}

int leat__pub_bury(void *arg)
{
	struct leat_pub *p = arg;
	const struct leat__slot *slots = leat__ctrl_slots(p->ctrl, &p->at.cg);

	leat__tend(p->l);
	if (leat__tied(p->l, p->at.tie))
		return 0; /* the broker sees to it */
	for (uint32_t i = 0; i < p->at.cg.n_slots; i++)
		if (leat__tie_dead(p->at.tie, leat__load_acquire(&slots[i].client)))
			bury_slot(p, i);
	return 1; /* those who would make room may be at another broker by now, and know of no ring of ours */
}

/* Is there anyone left under the old broker whom we must not leave? */
static int left_behind(struct leat_pub *p, uint64_t instance, uint64_t now)
{
	const struct leat__slot *slots = leat__ctrl_slots(p->ctrl, &p->at.cg);

	for (uint32_t i = 0; i < p->at.cg.n_slots; i++) {
		uint64_t moved = leat__load_acquire(&slots[i].moved);
		uint64_t state = leat__load_acquire(&p->w.lines[i].state);
		int here = LEAT__RING_ID(state) == p->w.id &&
			   (LEAT__STATE(state) == LEAT__ACTIVE || LEAT__STATE(state) == LEAT__GRANTED);

		if (!leat__load_acquire(&slots[i].client) || !here || moved == instance || moved == LEAT__LEFT)
			continue;
		/* Granted, and maybe nobody got to know. */
		if (LEAT__STATE(state) == LEAT__GRANTED && now - p->orphan_at > LATE_NS)
			continue;
		return 1;
	}
	return 0;
}

/* Have all that the broker knows come to our next ring? */
static int all_there(const struct leat_pub *p)
{
	struct leat__ctrl_shm *ctrl = leat_region_addr(p->next_at.control);
	const struct leat__line *lines = leat__ctrl_lines(ctrl, &p->next_at.cg, p->next_at.entry);

	for (uint32_t i = 0; i < p->next_at.cg.n_slots; i++) {
		uint64_t s = leat__load_acquire(&lines[i].state);

		/* As the broker wrote it: its reader has not come yet. */
		if (LEAT__RING_ID(s) == p->next_at.id && LEAT__STATE(s) == LEAT__ACTIVE && !LEAT__REJOIN(s))
			return 0;
	}
	return 1;
}

static void drop_next(struct leat_pub *p)
{
	leat_region_close(p->next_data);
	p->next_data = NULL;
}

/* Tell the broker of a ring to go on in; nothing is in it yet. -ETIMEDOUT: its answer is on the way. */
static int announce_next(struct leat_pub *p)
{
	struct leat__geometry g = p->w.g;
	int e = p->next_data ? 0 : leat__pub_make_ring(&g, &p->next_data, &p->next_view);

	if (e < 0)
		return e;
	/* Our word, which nobody else could give, that whoever goes on from here may be believed. */
	leat__store_release(&p->w.ring->moving, UINT64_C(1));
	e = leat__pub_announce(p, p->next_data, &g, p->at.cg.n_rings, p->at.cg.n_slots, p->origin,
			       p->announced.serial ? 0 : MOVE_NS, &p->next_at);
	if (e == 0)
		leat__settle_region(p->next_data);
	else if (e != -ETIMEDOUT)
		drop_next(p);
	return e;
}

/* That broker has died, too. */
static void give_up_next(struct leat_pub *p)
{
	drop_next(p);
	leat_region_close(p->next_at.control);
	leat__untie(p->l, p->next_at.tie);
	p->next_at = (struct leat__place){0};
}

/* Work queues: what is next for each group there is next in the ring that we go on in. */
static void take_groups_along(struct leat_pub *p, struct leat__ctrl_shm *new)
{
	struct leat__slot *from = leat__ctrl_slots(p->ctrl, &p->at.cg), *to = leat__ctrl_slots(new, &p->next_at.cg);
	struct leat__line *lines = leat__ctrl_lines(new, &p->next_at.cg, p->next_at.entry);

	for (uint32_t i = 0; i < p->at.cg.n_slots; i++) {
		uint64_t state = leat__load_acquire(&p->w.lines[i].state), next;

		if (leat__load_acquire(&from[i].mode) != LEAT__GROUP || LEAT__RING_ID(state) != p->w.id ||
		    LEAT__STATE(state) == LEAT__DONE)
			continue;
		next = leat__group_freeze(&p->w.lines[i]);
		for (uint32_t k = 0; k < p->next_at.cg.n_slots; k++) {
			if (leat__load_acquire(&to[k].mode) != LEAT__GROUP || memcmp(to[k].name, from[i].name, sizeof(to[k].name)))
				continue;
			leat__store_relaxed(&lines[k].cursor, next);
			leat__store_release(&lines[k].state,
					    LEAT__WORD(p->next_at.id, LEAT__STATE(state) == LEAT__SHARED
									      ? LEAT__SHARED : LEAT__GRANTED));
		}
	}
}

/* Everybody is there: go on in the next ring. */
static int move(struct leat_pub *p)
{
	struct leat__ring_shm *ring = leat_region_addr(p->next_data);
	struct leat__ctrl_shm *old = p->ctrl, *new = leat_region_addr(p->next_at.control);
	int e;

	leat__writer_flush(&p->w);
	leat__writer_copy(&p->w, ring, p->next_view);
	take_groups_along(p, new);
	e = leat__writer_switch(&p->w, ring, p->next_view, new, &p->next_at.cg, p->next_at.entry, p->next_at.id);
	if (e < 0) {
		for (uint32_t i = 0; i < p->w.n_slots; i++)
			leat__group_thaw(&p->w.lines[i]);
		return e;
	}
	/* Those that only look at what is newest look at this, too. */
	leat__fetch_add(&old->epoch, 1u);
	leat__bell_toll(&old->data_bell);
	leat_region_close(p->data);
	leat_region_close(p->at.control);
	leat__untie(p->l, p->at.tie);
	p->data = p->next_data;
	p->at = p->next_at;
	p->ctrl = new;
	p->next_data = NULL;
	p->next_at = (struct leat__place){0};
	return 0;
}

/* Not on the way of every message: adapt how many may go the short way to how quickly they come. */
static void pace(struct leat_pub *p, uint64_t now)
{
	uint64_t bytes = p->w.tail - p->tended_tail, ns = now - p->tended_at;

	if (ns < OFTEN_NS / 2)
		p->w.stretch = leat__min(p->w.stretch * 2, STRETCH_MAX);
	else if (ns > OFTEN_NS)
		p->w.stretch = ns / OFTEN_NS > bytes ? 1 : bytes / (ns / OFTEN_NS) + 1;
	p->tended_at = now;
	p->tended_tail = p->w.tail;
}

void leat__pub_tend(struct leat_pub *p)
{
	uint64_t now;
	int e;

	if (!p->l || p->w.claimed)
		return;
	now = leat__now();
	pace(p, now);
	if (leat__tend_due(p->l, now))
		leat__tend(p->l);
	if (leat__tied(p->l, p->at.tie)) {
		p->orphan_at = 0;
		p->w.bury_ns = LEAT__BURY_NS;
		return;
	}
	if (!p->orphan_at)
		p->orphan_at = now;
	if (now < p->move_at)
		return;
	p->move_at = now + OFTEN_NS / 5;
	p->w.bury_ns = OFTEN_NS / 5;
	leat__pub_bury(p);
	if (p->next_at.tie && !leat__tied(p->l, p->next_at.tie))
		give_up_next(p);
	if (leat__load_acquire(&p->l->lost))
		return;
	e = p->next_at.tie ? 0 : announce_next(p);
	if (e == 0 && !left_behind(p, p->next_at.tie->instance, now) && all_there(p))
		e = move(p);
	if (e < 0) {
		now = leat__now() - now;
		p->move_at = leat__now() + (now * REST > OFTEN_NS ? now * REST : OFTEN_NS);
		if (e != -ETIMEDOUT)
			leat__log(LEAT_LOG_WARNING, "publisher of %s: not yet back at the broker: %s", p->name, leat_why());
	}
}
