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
#define STRETCH_MAX UINT64_C(16384) /* bytes until the next look at the time: 0.2 ns a message */
#define LATE_NS  UINT64_C(1000000000) /* for a subscriber that was being opened when the broker died */
#define DONE_NS  UINT64_C(200000000)  /* for workers to be done with what they have in hand, */
#define HANDS_NS UINT64_C(2000000)    /* of which so much at a time: nobody gets work meanwhile */

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
	int e = 0;

	/* A broker that died before it answered may have listed the ring: readers who know it so would find in it what
	 * the next broker's think they are alone with. */
	if (p->next_data && !p->announced.serial)
		drop_next(p);
	if (!p->next_data)
		e = leat__pub_make_ring(&g, &p->next_data, &p->next_view);
	if (e < 0)
		return e;
	/* Our word, which nobody else could give, that whoever goes on from here may be believed. */
	leat__store_release(&p->w.ring->moving, (uint64_t)LEAT__IS_MOVING);
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

/* ---- work queues ---- */

/* The group of the same name as slot @i's, at the next broker: its slot; -1 there is none. */
static int group_there(const struct leat_pub *p, const struct leat__slot *group, struct leat__ctrl_shm *new)
{
	const struct leat__slot *to = leat__ctrl_slots(new, &p->next_at.cg);

	for (uint32_t k = 0; k < p->next_at.cg.n_slots; k++)
		if (leat__load_acquire(&to[k].mode) == LEAT__GROUP && !memcmp(to[k].name, group->name, sizeof(to[k].name)))
			return (int)k;
	return -1;
}

/* What is in line @i in hand of nobody who lives: to be delivered again. 1, and which state its line is in. */
static int is_orphan(const struct leat_pub *p, const struct leat__line *lines, uint64_t id, uint32_t i, uint64_t *seen)
{
	const struct leat__slot *slots = leat__ctrl_slots(p->ctrl, &p->at.cg);
	uint32_t holder;
	uint64_t client;

	*seen = leat__load_acquire(&lines[i].state);
	if (leat__load_acquire(&slots[i].mode) != LEAT__WORKER || LEAT__RING_ID(*seen) != id ||
	    !LEAT__IN(*seen, LEAT__BUSY) || LEAT__STATE(*seen) == LEAT__RESERVED) {
		*seen = 0; /* nothing */
		return 0;
	}
	holder = LEAT__HOLDER(*seen);
	client = holder < p->at.cg.n_slots ? leat__load_acquire(&slots[holder].client) : 0;
	return LEAT__STATE(*seen) == LEAT__PUT_BACK || !client || leat__tie_dead(p->at.tie, client);
}

/* The message at @pos is for whoever comes, there, too: 0 there is no line to note it in, yet. */
static int put_back(struct leat_pub *p, struct leat__ctrl_shm *new, uint32_t group, uint64_t pos, uint64_t count)
{
	struct leat__slot *to = leat__ctrl_slots(new, &p->next_at.cg);
	struct leat__line *lines = leat__ctrl_lines(new, &p->next_at.cg, p->next_at.entry), *free_one = NULL;
	uint64_t seen, idle = 0, word;
	uint32_t at = 0;

	for (uint32_t k = 0; k < p->next_at.cg.n_slots; k++) {
		if (leat__load_acquire(&to[k].mode) != LEAT__WORKER || leat__load_relaxed(&to[k].group) != group + 1)
			continue;
		seen = leat__load_acquire(&lines[k].state);
		if (LEAT__RING_ID(seen) != p->next_at.id)
			continue;
		if (LEAT__STATE(seen) == LEAT__PUT_BACK && leat__load_relaxed(&lines[k].cursor) == pos)
			return 1; /* a moment ago */
		if (LEAT__STATE(seen) == LEAT__IDLE && !free_one) {
			free_one = &lines[k];
			idle = seen;
			at = k;
		}
	}
	word = LEAT__HAND(p->next_at.id, at, LEAT__TURN_OF(idle) + 1, LEAT__PUT_BACK);
	if (!free_one || !leat__cas(&free_one->state, idle, (word & ~UINT64_C(0xf)) | LEAT__RESERVED))
		return 0;
	leat__store_relaxed(&free_one->cursor, pos);
	leat__store_relaxed(&free_one->count, count);
	leat__store_release(&free_one->state, word);
	leat__fetch_add(&to[group].parked, 1u);
	return 1;
}

/* Where each group goes on. */
static void take_groups_along(struct leat_pub *p, struct leat__ctrl_shm *new, int open)
{
	const struct leat__slot *from = leat__ctrl_slots(p->ctrl, &p->at.cg);
	struct leat__line *lines = leat__ctrl_lines(new, &p->next_at.cg, p->next_at.entry);

	for (uint32_t i = 0; i < p->at.cg.n_slots; i++) {
		uint64_t state = leat__load_acquire(&p->w.lines[i].state);
		int k;

		if (leat__load_acquire(&from[i].mode) != LEAT__GROUP || LEAT__RING_ID(state) != p->w.id ||
		    LEAT__STATE(state) == LEAT__DONE)
			continue;
		k = group_there(p, &from[i], new);
		if (k >= 0 && open) {
			leat__store_release(&lines[k].state, LEAT__WORD(p->next_at.id, LEAT__STATE(state) == LEAT__SHARED
												   ? LEAT__SHARED : LEAT__GRANTED));
		} else if (k >= 0) {
			leat__store_relaxed(&lines[k].cursor, leat__load_acquire(&p->w.lines[i].cursor) & ~UINT64_C(7));
			leat__store_relaxed(&lines[k].count, leat__load_relaxed(&p->w.lines[i].count));
		}
	}
}

/* There are not as many workers of the group @k as had something in hand: then all comes again, from @pos on. */
static void go_back(struct leat_pub *p, struct leat__ctrl_shm *new, uint32_t k, uint64_t pos)
{
	const struct leat__slot *to = leat__ctrl_slots(new, &p->next_at.cg);
	struct leat__line *lines = leat__ctrl_lines(new, &p->next_at.cg, p->next_at.entry);
	uint64_t next = leat__load_relaxed(&lines[k].cursor);

	for (uint32_t i = 0; i < p->next_at.cg.n_slots; i++) {
		uint64_t word = leat__load_acquire(&lines[i].state);

		if (LEAT__RING_ID(word) != p->next_at.id || LEAT__STATE(word) != LEAT__PUT_BACK ||
		    leat__load_relaxed(&to[i].group) != k + 1)
			continue;
		pos = leat__min(pos, leat__load_relaxed(&lines[i].cursor));
		leat__store_release(&lines[i].state, (word & ~UINT64_C(0xf)) | LEAT__IDLE);
	}
	if (next > leat__load_relaxed(&lines[k].count))
		leat__store_relaxed(&lines[k].count, next);
	leat__store_relaxed(&lines[k].cursor, pos);
}

/*
 * What dead workers had in hand goes along: those who have it in the old ring may all die, and the others never see
 * that. 1 it does, and nothing else is in hand, or has been for too long (@late); 0 not yet. All groups are frozen.
 */
static int take_hands_along(struct leat_pub *p, struct leat__ctrl_shm *new, int late)
{
	const struct leat__slot *from = leat__ctrl_slots(p->ctrl, &p->at.cg);
	const struct leat__line *lines = leat__ctrl_lines(new, &p->next_at.cg, p->next_at.entry);

	take_groups_along(p, new, 0);
	for (uint32_t i = 0; i < p->at.cg.n_slots; i++) {
		uint32_t group = leat__load_relaxed(&from[i].group) - 1;
		uint64_t seen, pos;
		int orphan = is_orphan(p, p->w.lines, p->w.id, i, &seen), k;

		if (!seen || group >= p->at.cg.n_slots)
			continue;
		if (!orphan && !late)
			return 0;
		pos = leat__load_acquire(&p->w.lines[i].cursor);
		k = group_there(p, &from[group], new);
		/* Beyond what is next (noted, and not claimed) it comes anyway. */
		if (!orphan || k < 0 || pos % 8 || pos >= p->w.tail || p->w.tail - pos > p->w.g.capacity ||
		    pos >= leat__load_relaxed(&lines[k].cursor) ||
		    put_back(p, new, (uint32_t)k, pos, leat__load_relaxed(&p->w.lines[i].count)))
			continue;
		if (!late)
			return 0;
		go_back(p, new, (uint32_t)k, pos);
	}
	return 1;
}

/* It is there, and not here any more: unless somebody has taken it over meanwhile, who then is the second. */
static void leave_hands(struct leat_pub *p, struct leat__line *lines, uint64_t id)
{
	for (uint32_t i = 0; i < p->at.cg.n_slots; i++) {
		uint64_t seen;

		if (is_orphan(p, lines, id, i, &seen))
			leat__cas(&lines[i].state, seen, (seen & ~UINT64_C(0xf)) | LEAT__IDLE);
	}
}

/* We stay here for now: all is as it was. */
static void thaw(struct leat_pub *p, struct leat__ctrl_shm *new)
{
	struct leat__line *lines = leat__ctrl_lines(new, &p->next_at.cg, p->next_at.entry);

	for (uint32_t k = 0; k < p->next_at.cg.n_slots; k++) {
		uint64_t word = leat__load_acquire(&lines[k].state);

		if (LEAT__RING_ID(word) == p->next_at.id && LEAT__STATE(word) == LEAT__PUT_BACK)
			leat__store_release(&lines[k].state, (word & ~UINT64_C(0xf)) | LEAT__IDLE);
	}
	for (uint32_t i = 0; i < p->w.n_slots; i++)
		leat__group_thaw(&p->w.lines[i]);
}

/* Nobody gets work here any more: 1; 0 not just now, and they do. */
static int freeze(struct leat_pub *p, struct leat__ctrl_shm *new, int late)
{
	const struct leat__slot *slots = leat__ctrl_slots(p->ctrl, &p->at.cg);
	const struct timespec nap = {0, 50000};
	uint64_t until = leat__now() + HANDS_NS;
	int any = 0;

	for (uint32_t i = 0; i < p->at.cg.n_slots; i++) {
		uint64_t state = leat__load_acquire(&p->w.lines[i].state);

		if (leat__load_acquire(&slots[i].mode) == LEAT__GROUP && LEAT__RING_ID(state) == p->w.id &&
		    LEAT__STATE(state) != LEAT__DONE) {
			leat__group_freeze(&p->w.lines[i]);
			any = 1;
		}
	}
	while (any && !take_hands_along(p, new, late)) {
		if (leat__now() >= until) {
			thaw(p, new);
			return 0;
		}
		nanosleep(&nap, NULL);
	}
	return 1;
}

/* ---- going over ---- */

/* Everybody is there: go on in the next ring. 1: we did; 0: workers have something in hand. */
static int move(struct leat_pub *p, int late)
{
	struct leat__ring_shm *ring = leat_region_addr(p->next_data), *was = p->w.ring;
	struct leat__ctrl_shm *old = p->ctrl, *new = leat_region_addr(p->next_at.control);
	struct leat__line *lines = p->w.lines;
	uint64_t id = p->w.id;
	int e;

	if (!freeze(p, new, late))
		return 0;
	leat__writer_flush(&p->w);
	leat__writer_copy(&p->w, ring, p->next_view);
	take_groups_along(p, new, 1);
	e = leat__writer_switch(&p->w, ring, p->next_view, new, &p->next_at.cg, p->next_at.entry, p->next_at.id);
	if (e < 0) {
		thaw(p, new);
		return e;
	}
	leave_hands(p, lines, id);
	/* Nothing is to be claimed there any more. */
	leat__store_release(&was->moving, (uint64_t)LEAT__HAS_MOVED);
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
	return 1;
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
	int e, done = 1;

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
		done = move(p, now - p->orphan_at > DONE_NS);
	if (e < 0 || done <= 0) {
		p->move_at = leat__now() + leat__rest(leat__now() - now, OFTEN_NS);
		e = e < 0 ? e : done;
		if (e < 0 && e != -ETIMEDOUT)
			leat__log(LEAT_LOG_WARNING, "publisher of %s: not yet back at the broker: %s", p->name, leat_why());
	}
}
