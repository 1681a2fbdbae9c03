/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work queues: a worker is a subscriber of another mode. It comes to rings and back to brokers as one
 * (sub_open.c, sub_rings.c), and takes messages as ring/group.c says. One idle worker of a group sleeps on the
 * channel's bell, the watcher; the others on their group's, and whoever leaves the watch wakes one of them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/base.h"
#include "channel/channel.h"
#include <leat/queue.h>

#define SLICE_NS UINT64_C(100000000) /* an idle worker that nobody woke looks after things */
#define LOOK_NS  UINT64_C(50000000)  /* a busy one does; and after dead ones where no broker tells */
#define TURN     64                  /* messages of one ring before the next is looked at */
#define DEAD     "/dead"
#define DEAD_NS  INT64_C(1000000000) /* for the subscribers of NAME/dead to make room */

struct leat_queue {
	struct leat_sub *s;
	char group[LEAT__GROUP_NAME + 1];
	uint32_t max_deliveries;
	/* in hand: */
	struct leat__attached *at; /* NULL: nothing */
	struct leat__msg msg;
	struct leat__hand hand;
	void *copy; /* of one that might be overwritten */
	struct leat_pub *dead;
	uint32_t parked;    /* of the group's slot, when we last looked */
	enum { NOT, WATCHING, PARKED } listening; /* leat__queue_listen(): on watch, or at the group's bell */
	uint64_t looked_at; /* when that was */
	uint64_t last_id;   /* and the newest ring then */
	struct leat_queue_stat st;
};

const char *leat__queue_group(const struct leat_queue *q)
{
	return q->group;
}

/* ---- rings ---- */

static int is_gone_at(const struct leat__seat *seat, uint32_t slot)
{
	uint64_t client = leat__load_acquire(&leat__ctrl_slots(seat->ctrl, &seat->cg)[slot].client);

	/* The broker's word; or, where there is none, the life's. */
	return !client || (!leat__tied(seat->l, seat->tie) && leat__tie_dead(seat->tie, client));
}

static int is_gone(void *seat, uint32_t slot)
{
	return is_gone_at(seat, slot);
}

static struct leat__group view(const struct leat__attached *a)
{
	const struct leat__seat *seat = a->seat;

	return (struct leat__group){.lines = a->lines, .slots = leat__ctrl_slots(seat->ctrl, &seat->cg),
				    .n_slots = seat->cg.n_slots, .group = seat->group, .me = seat->slot_index,
				    .id = a->r.id, .ended = a->dead || leat__load_acquire(&a->r.ring->closed),
				    .gone = is_gone, .arg = a->seat};
}

int leat__queue_wants(const struct leat_sub *s, const struct leat__wire_ring *w)
{
	uint64_t state;

	if (w->entry >= s->seat->cg.n_rings)
		return 0;
	state = leat__load_acquire(&leat__ctrl_lines(s->seat->ctrl, &s->seat->cg, w->entry)[s->seat->slot_index].state);
	return !(LEAT__RING_ID(state) == w->id && LEAT__STATE(state) == LEAT__DONE);
}

int leat__queue_over(struct leat_sub *s, struct leat__attached *a)
{
	struct leat__group g = view(a);

	(void)s;
	if (a->left || leat__load_acquire(&a->r.ring->moving) == LEAT__HAS_MOVED)
		return leat__group_quiet(&g);
	if (a->dead) /* it was about to go on elsewhere, and never got there */
		leat__group_thaw(&a->lines[a->seat->group]);
	/* Its end, then what is there: nothing comes after it. */
	return (a->dead || leat__load_acquire(&a->r.ring->closed)) && leat__group_over(&g, &a->r);
}

/* ---- waiting ---- */

static struct leat__slot *group_slot(const struct leat_queue *q)
{
	const struct leat__seat *seat = q->s->seat;

	return &leat__ctrl_slots(seat->ctrl, &seat->cg)[seat->group];
}

/* Without a look at the broker. */
static int has_work(const struct leat_queue *q)
{
	struct leat_sub *s = q->s;

	for (uint32_t i = 0; i < s->n; i++) {
		struct leat__group g = view(s->rings[i]);

		if (s->rings[i]->pending ? leat__load_relaxed(&s->rings[i]->r.ring->began) != 0
					 : leat__group_ready(&g, &s->rings[i]->r) ||
						   (leat__load_relaxed(&s->rings[i]->r.ring->closed) &&
						    leat__group_quiet(&g)))
			return 1;
	}
	return leat__load_relaxed(&group_slot(q)->parked) != q->parked;
}

int leat__queue_ready(void *queue)
{
	struct leat_queue *q = queue;

	return leat__queue_due(q) || leat__sub_stirs(q->s);
}

/* No longer on watch: let another be. */
static void leave_watch(struct leat_queue *q)
{
	struct leat__slot *slot = group_slot(q);
	uint32_t me = q->s->seat->slot_index + 1;

	if (leat__load_relaxed(&slot->watcher) != me || !leat__cas(&slot->watcher, me, 0u))
		return;
	if (leat__load_relaxed(&slot->sleepers)) {
		leat__fetch_add(&slot->bell, 2u);
		leat__word_wake(&slot->bell, 1);
	}
}

/* On watch, unless another is who lives. */
static int watch(struct leat_queue *q)
{
	struct leat__slot *slot = group_slot(q);
	const struct leat__seat *seat = q->s->seat;
	uint32_t me = seat->slot_index + 1, who = leat__load_acquire(&slot->watcher);

	if (who == me)
		return 1;
	if (who && who <= seat->cg.n_slots && !is_gone_at(seat, who - 1))
		return 0;
	return leat__cas(&slot->watcher, who, me);
}

int leat__queue_due(const struct leat_queue *q)
{
	const struct leat__seat *seat = q->s->seat;
	uint32_t who = q->listening == PARKED ? leat__load_acquire(&group_slot(q)->watcher) : 1;

	return has_work(q) || !who || (who <= seat->cg.n_slots && q->listening == PARKED && is_gone_at(seat, who - 1));
}

unsigned leat__queue_listen(struct leat_queue *q, uint32_t **bells)
{
	q->listening = watch(q) ? WATCHING : PARKED;
	if (q->listening == WATCHING)
		return leat__sub_bells(q->s, bells);
	leat__fetch_add(&group_slot(q)->sleepers, 1u);
	bells[0] = &group_slot(q)->bell;
	return 1;
}

void leat__queue_hush(struct leat_queue *q)
{
	if (q->listening == WATCHING)
		leave_watch(q);
	else if (q->listening == PARKED)
		leat__fetch_add(&group_slot(q)->sleepers, UINT32_MAX);
	q->listening = NOT;
}

struct leat_sub *leat__queue_sub(const struct leat_queue *q)
{
	return q->s;
}

/* 0 there may be something; -ETIMEDOUT. */
static int wait(struct leat_queue *q, uint64_t deadline)
{
	struct leat__slot *slot = group_slot(q);
	uint32_t *bells[LEAT__BELLS], seen;
	uint64_t now;
	unsigned n;
	int e = 0;

	if (watch(q)) {
		n = leat__sub_bells(q->s, bells);
		return leat__bells_wait(bells, n, &q->s->spin, leat__queue_ready, q, leat__min(deadline, leat__now() + SLICE_NS));
	}
	seen = leat__load_acquire(&slot->bell);
	leat__fetch_add(&slot->sleepers, 1u);
	now = leat__now();
	/* Whoever leaves the watch moves the bell, after it has left. */
	if (!leat__queue_ready(q) && !watch(q))
		e = now >= deadline ? -ETIMEDOUT : leat__word_wait(&slot->bell, seen, leat__min(deadline - now, SLICE_NS));
	leat__fetch_add(&slot->sleepers, UINT32_MAX);
	return e;
}

/* ---- taking ---- */

static int have(struct leat_queue *q, struct leat__attached *a)
{
	q->at = a;
	a->refs++;
	return 1;
}

static void let_go(struct leat_queue *q)
{
	leat__sub_put(q->at, q->s->gone);
	free(q->copy);
	q->copy = NULL;
	q->at = NULL;
}

/* A worker died while it claimed this: what is there now may be another. A copy that was whole is not. */
static int copy(struct leat_queue *q)
{
	int whole;

	q->copy = malloc((size_t)q->msg.size + 1);
	if (!q->copy) {
		leat__hand_over(&q->hand, 1);
		let_go(q);
		return leat__say(-ENOMEM, "take: no memory to copy a message of a dead worker's");
	}
	memcpy(q->copy, q->msg.data, (size_t)q->msg.size);
	whole = leat__reader_intact(&q->at->r, &q->msg);
	q->msg.data = q->copy;
	if (!whole) {
		leat__hand_over(&q->hand, 0);
		let_go(q);
	}
	return whole;
}

/* What others have left: 1 there was something. */
static int adopt(struct leat_queue *q)
{
	struct leat_sub *s = q->s;
	uint32_t parked = leat__load_acquire(&group_slot(q)->parked);
	uint64_t now = leat__now();

	if (parked == q->parked && s->last_id == q->last_id && now - q->looked_at < LOOK_NS)
		return 0;
	q->looked_at = now;
	q->last_id = s->last_id;
	for (uint32_t i = 0; i < s->n; i++) {
		struct leat__attached *a = s->rings[i];
		struct leat__group g = view(a);
		int e = a->pending ? 0 : leat__group_adopt(&g, &a->r, &q->msg, &q->hand);

		if (e < 0) {
			s->corrupt++;
			leat__sub_detach(s, i);
			return e;
		}
		if (e) {
			have(q, a);
			e = q->hand.perhaps ? copy(q) : 1;
			if (e)
				return e;
			i--; /* there may be more */
		}
	}
	q->parked = parked; /* as it was before we looked, and found nothing */
	return 0;
}

static int claim(struct leat_queue *q)
{
	struct leat_sub *s = q->s;

	for (uint32_t tried = 0; tried < s->n;) {
		struct leat__attached *a = s->rings[s->cur];
		struct leat__group g = view(a);
		int e;

		if (s->budget == 0) {
			s->budget = TURN;
			s->cur = s->cur + 1 == s->n ? 0 : s->cur + 1;
			leat__sub_look_around(s);
			continue;
		}
		if (a->pending && leat__sub_follow(s, a))
			continue;
		e = a->pending || a->left ? 0 : leat__group_claim(&g, &a->r, &q->msg, &q->hand);
		if (e == -ENOBUFS) /* the others have them all, for a moment */
			e = 0;
		if (e < 0) {
			s->corrupt++;
			leat__sub_detach(s, s->cur);
			return e;
		}
		if (e) {
			s->budget--;
			return have(q, a);
		}
		tried++;
		s->budget = TURN;
		s->cur = s->cur + 1 == s->n ? 0 : s->cur + 1;
	}
	return 0;
}

static int find_work(struct leat_queue *q)
{
	int e = adopt(q);

	return e ? e : claim(q);
}

static int ended(const struct leat_sub *s)
{
	return (s->flags & LEAT_UNTIL_ENDED) && s->had_publisher && !s->n && !s->retry_at;
}

static int next(struct leat_queue *q, int64_t timeout_ns)
{
	struct leat_sub *s = q->s;
	uint64_t deadline = 0;
	int e, over;

	for (;;) {
		e = find_work(q);
		if (e)
			return e;
		leat__sub_look_around(s);
		if (leat__sub_reap(s)) {
			s->retry_at = 1; /* ask: there may be ended ones for which there was no room */
			continue;
		}
		e = find_work(q); /* a new ring, or one that filled up meanwhile */
		if (e)
			return e;
		over = ended(s);
		if ((over || !timeout_ns) && s->pollable && leat__pollable_arm(s))
			continue;
		if (over)
			return leat__say(-ENODATA, "the publishers have ended and all their messages are done");
		if (!timeout_ns)
			return leat__say(-EAGAIN, "no message waits");
		if (!deadline)
			deadline = leat__deadline(timeout_ns);
		else if (leat__now() >= deadline)
			return leat__say(-ETIMEDOUT, "no message came in time");
		wait(q, deadline);
	}
}

/* It has been delivered too often: to NAME/dead with it, and then it is done here. */
static int bury(struct leat_queue *q)
{
	char name[LEAT__NAME_MAX + 1];
	int e = 0;

	if (q->dead && q->msg.size > q->dead->w.max_inline && q->msg.size > q->dead->w.g.block_size) {
		leat_pub_close(q->dead);
		q->dead = NULL;
	}
	if (!q->dead) {
		struct leat_pub_opts o = {.struct_size = sizeof(o), .max_size = q->msg.size, .capacity = 65536};

		snprintf(name, sizeof(name), "%s" DEAD, q->s->name);
		e = leat_pub_open(q->s->l, name, &o, &q->dead);
	}
	if (e == 0)
		e = leat_send(q->dead, q->msg.data, (size_t)q->msg.size, DEAD_NS);
	if (e == 0 && !q->copy && !leat__reader_intact(&q->at->r, &q->msg))
		leat__log(LEAT_LOG_WARNING, "queue %s: a message that went to %s" DEAD " was overwritten meanwhile",
			  q->s->name, q->s->name);
	if (e == 0)
		q->st.dead++;
	leat__hand_over(&q->hand, e < 0);
	let_go(q);
	return e;
}

static int parents(void)
{
	return leat__say(-ECHILD, "this queue belongs to the parent process: open another");
}

int leat_queue_take(struct leat_queue *q, const void **ret, struct leat_work *work, int64_t timeout_ns)
{
	int e;

	if (q->s->gone)
		return parents();
	if (q->at)
		return leat__say(-EBUSY, "take: a message is in hand already: ack or nack it first");
	if (q->s->pollable)
		leat__pollable_disarm(q->s);
	for (;;) {
		e = next(q, timeout_ns);
		leave_watch(q);
		if (e < 0)
			return e;
		if (q->hand.count <= q->max_deliveries)
			break;
		e = bury(q);
		if (e < 0)
			return e;
	}
	q->st.taken++;
	q->st.redelivered += q->hand.count > 1;
	if (work)
		*work = (struct leat_work){q->msg.size, q->msg.seq, q->at->origin, q->hand.count};
	*ret = q->msg.data;
	return 0;
}

/*
 * Is what is in hand worth waking a publisher for that waits for room? As for subscribers that is a sixteenth of the
 * ring: waking it for every message would cost more than the message. When we have held up more than that, or there is
 * no more work, it may be waiting for just this one.
 */
static int makes_room(const struct leat_queue *q)
{
	const struct leat__attached *a = q->at;
	uint64_t sixteenth = a->r.capacity / 16, pos = q->msg.pos;
	uint64_t claimed = leat__load_relaxed(&a->lines[a->seat->group].cursor) & ~UINT64_C(7);

	return q->msg.block >= 0 || pos / sixteenth != (pos + q->msg.need) / sixteenth || claimed - pos >= sixteenth ||
	       claimed == leat__load_relaxed(&a->r.ring->tail);
}

/* Done with what is in hand, or (@again) not. */
static int give(struct leat_queue *q, int again)
{
	int e;

	if (q->s->gone)
		return parents();
	if (!q->at)
		return leat__say(-EINVAL, "nothing is in hand: take a message first");
	e = q->copy || leat__reader_intact(&q->at->r, &q->msg) ? 0 : -ESTALE;
	if (leat__hand_over(&q->hand, again) < 0)
		e = -ESTALE;
	/* Who waits for room, and who for work. */
	if (makes_room(q))
		leat__bell_notify(&q->at->seat->ctrl->space_bell);
	if (again) {
		leat__fetch_add(&leat__ctrl_slots(q->at->seat->ctrl, &q->at->seat->cg)[q->at->seat->group].parked, 1u);
		leat__bell_notify(&q->at->seat->ctrl->data_bell);
	}
	let_go(q);
	return e < 0 ? leat__say(-ESTALE, "the message was overwritten, or given to another, while it was in hand")
		     : 0;
}

int leat_queue_ack(struct leat_queue *q)
{
	int e = give(q, 0);

	q->st.acked += e == 0;
	if (e == 0) {
		q->s->received++;
		leat__store_relaxed(&q->s->slot->received, q->s->received);
	}
	return e;
}

int leat_queue_nack(struct leat_queue *q)
{
	int e = give(q, 1);

	q->st.nacked += e == 0;
	return e;
}

int leat_queue_stat(struct leat_queue *q, struct leat_queue_stat *ret)
{
	q->st.struct_size = sizeof(q->st);
	q->st.corrupt = q->s->corrupt;
	return leat__give(ret, &q->st, sizeof(q->st), "worker's counters");
}

/* ---- opening and closing ---- */

int leat_queue_open(struct leat *l, const char *name, const char *group, const struct leat_queue_opts *opts,
		    struct leat_queue **ret)
{
	struct leat_sub_opts so = {.struct_size = sizeof(so), .from = LEAT_OLDEST};
	struct leat_queue_opts o;
	struct leat_queue *q;
	int e = leat__name_check(name);

	if (e == 0)
		e = leat__group_check(group);
	if (e == 0)
		e = leat__opts(&o, sizeof(o), opts, "open queue");
	if (e < 0)
		return e;
	if (o.flags & ~(unsigned)LEAT_UNTIL_ENDED)
		return leat__fail(-EINVAL, "open queue: unknown flags 0x%x", o.flags);
	if (o.spin_ns < -1)
		return leat__say(-EINVAL, "open queue: a negative time");
	if (o.max_deliveries != UINT32_MAX && strlen(name) + strlen(DEAD) > LEAT__NAME_MAX)
		return leat__fail(-EINVAL, "open queue: %s" DEAD " would be too long a name: set max_deliveries to "
					   "UINT32_MAX, or choose a shorter one",
				  name);
	q = calloc(1, sizeof(*q));
	if (!q)
		return leat__say(-ENOMEM, "open queue: no memory");
	strcpy(q->group, group);
	q->max_deliveries = o.max_deliveries ? o.max_deliveries : 5;
	so.flags = o.flags;
	so.max_publishers = o.max_publishers;
	so.max_subscribers = o.max_subscribers;
	so.spin_ns = o.spin_ns;
	e = leat__sub_open(l, name, &so, q, &q->s);
	if (e < 0) {
		free(q);
		return e;
	}
	*ret = q;
	return 0;
}

void leat__queue_end(struct leat_queue *q)
{
	if (q->at) {
		if (!q->s->gone)
			leat_queue_nack(q);
		else
			let_go(q);
	}
	if (!q->s->gone)
		leave_watch(q);
	leat_pub_close(q->dead);
	free(q);
}

int leat_queue_fd(struct leat_queue *q)
{
	return leat_sub_fd(q->s);
}

void leat_queue_close(struct leat_queue *q)
{
	if (q)
		leat_sub_close(q->s);
}
