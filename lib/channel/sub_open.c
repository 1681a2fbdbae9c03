/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Subscribers: opening, closing, counting. The broker is asked for a slot and the rings there are, and
 * told when the slot is free again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/base.h"
#include "channel/channel.h"

#define OPEN_NS  INT64_C(5000000000)
#define PAST_MAX 16 /* seats of brokers that died before we had seen all */

static void sub_forked(struct leat__handle *h)
{
	struct leat_sub *s = leat__container(h, struct leat_sub, handle);

	s->gone = 1;
	s->quick = NULL;
	s->retry_at = 1; /* nothing goes the short way any more */
	s->pollable = NULL;
}

struct leat_sub *leat__sub_new(const struct leat_sub_opts *o)
{
	struct leat_sub *s = calloc(1, sizeof(*s));

	if (!s) {
		leat__say(-ENOMEM, "open subscriber: no memory");
		return NULL;
	}
	s->from = o->from;
	s->flags = o->flags;
	s->mode = o->flags & LEAT_OBSERVE ? LEAT__OBSERVING : LEAT__WAITING;
	s->budget = s->turn = LEAT__TURN;
	s->epoch_now = &s->epoch;
	leat__spin_init(&s->spin, o->spin_ns);
	leat__handle_add(&s->handle, sub_forked);
	return s;
}

void leat__sub_free(struct leat_sub *s)
{
	for (int k = 0; k < LEAT__HELD; k++)
		if (s->held[k].a)
			leat_drop(s, s->held[k].msg.data);
	s->peeked = NULL;
	if (s->l) {
		leat__errand_drop(s->l, &s->asked);
		leat__errand_drop(s->l, &s->fetched);
	}
	while (s->n)
		leat__sub_detach(s, s->n - 1);
	if (!s->gone)
		leat__handle_remove(&s->handle);
	leat__seat_put(s->seat, s->gone);
	while (s->past) {
		struct leat__seat *seat = s->past;

		s->past = seat->next;
		leat__seat_put(seat, s->gone);
	}
	free(s->rings);
	free(s->name);
	free(s);
}

int leat__sub_options(struct leat_sub_opts *o, const struct leat_sub_opts *opts)
{
	int e = leat__opts(o, sizeof(*o), opts, "open subscriber");

	if (e < 0)
		return e;
	if ((unsigned)o->from > LEAT_LATEST)
		return leat__fail(-EINVAL, "open subscriber: unknown start %d", (int)o->from);
	if (o->flags & ~(unsigned)(LEAT_OBSERVE | LEAT_UNTIL_ENDED))
		return leat__fail(-EINVAL, "open subscriber: unknown flags 0x%x", o->flags);
	if (o->spin_ns < -1)
		return leat__say(-EINVAL, "open subscriber: a negative time");
	return 0;
}

struct leat__seat *leat__seat_new(struct leat_sub *s)
{
	struct leat__seat *seat = calloc(1, sizeof(*seat));

	if (!seat) {
		leat__say(-ENOMEM, "open subscriber: no memory");
		return NULL;
	}
	seat->refs = 1;
	seat->l = s->l;
	return seat;
}

void leat__seat_put(struct leat__seat *seat, int gone)
{
	if (!seat || --seat->refs)
		return;
	if (gone && seat->control)
		seat->control->addr = NULL;
	leat_region_close(seat->control);
	if (seat->l)
		leat__untie(seat->l, seat->tie);
	free(seat);
}

/* Ask the broker for a seat; the packet brings rings, too, and is the caller's to close. */
static int take_seat(struct leat_sub *s, uint32_t n_rings, uint32_t n_slots, int64_t ns, struct leat__packet *pkt,
		     struct leat__in *in, struct leat__seat **ret)
{
	struct leat__seat *seat = leat__seat_new(s);
	struct leat__out out;
	int e;

	if (!seat)
		return -ENOMEM;
	leat__wire_begin(&out, LEAT__SUB_OPEN, 0, 0);
	leat__wire_text(&out, LEAT__T_NAME, s->name);
	leat__wire_u32(&out, LEAT__T_MODE, s->mode);
	leat__wire_u32(&out, LEAT__T_MAX_RINGS, n_rings);
	leat__wire_u32(&out, LEAT__T_MAX_SLOTS, n_slots);
	if (s->queue)
		leat__wire_text(&out, LEAT__T_GROUP, leat__queue_group(s->queue));
	e = leat__errand(s->l, &s->asked, &out, -1, pkt, in, ns, &seat->tie);
	if (e < 0) {
		leat__seat_put(seat, 0);
		return e;
	}
	seat->object = in->head.object;
	e = leat__wire_get(in, LEAT__T_SLOT, &seat->slot_index, sizeof(seat->slot_index));
	if (e == 0)
		e = leat__wire_get(in, LEAT__T_GRANT, &seat->grant, sizeof(seat->grant));
	if (e == 0)
		e = leat__wire_get(in, LEAT__T_RING_ID, &seat->newest, sizeof(seat->newest));
	if (e == 0 && s->queue)
		e = leat__wire_get(in, LEAT__T_GROUP_SLOT, &seat->group, sizeof(seat->group));
	if (e == 0)
		e = leat__map_control(pkt, in, &seat->control, &seat->cg);
	if (e == 0 && (seat->slot_index >= seat->cg.n_slots || seat->group >= seat->cg.n_slots))
		e = leat__say(-EPROTO, "the broker named an impossible slot");
	if (e < 0) {
		leat__packet_close(pkt);
		leat__request_close(s->l, seat->object);
		leat__seat_put(seat, 0);
		return e;
	}
	seat->ctrl = leat_region_addr(seat->control);
	seat->slot = &leat__ctrl_slots(seat->ctrl, &seat->cg)[seat->slot_index];
	*ret = seat;
	return 0;
}

/* From now on the seat is ours: what its answer lists was there when our slot was granted; later rings begin
 * at 0 for us, and have moved the epoch since. */
static void sit(struct leat_sub *s, struct leat__seat *seat, const struct leat__in *in)
{
	s->seat = seat;
	s->slot = seat->slot;
	s->epoch_now = &seat->ctrl->epoch;
	if (leat__wire_get(in, LEAT__T_EPOCH, &s->epoch, sizeof(s->epoch)) < 0)
		s->retry_at = 1;
}

static int subscribe(struct leat_sub *s, const struct leat_sub_opts *o)
{
	struct leat__seat *seat;
	struct leat__packet pkt;
	struct leat__in in;
	int e = take_seat(s, o->max_publishers, o->max_subscribers, OPEN_NS, &pkt, &in, &seat);

	if (e < 0)
		return e;
	sit(s, seat, &in);
	s->since = seat->newest;
	seat->how = OPENING;
	e = leat__sub_take_rings(s, &pkt, &in, OPENING);
	leat__packet_close(&pkt);
	return e < 0 ? e : leat__sub_take_more(s, &in, OPENING, OPEN_NS);
}

/* We sit elsewhere now: publishers that wait for this before they follow may do so. After our lines in the new
 * control region were granted, which was before the broker's answer. */
static void say_moved(struct leat__seat *seat, uint64_t instance)
{
	leat__store_release(&seat->slot->moved, instance);
	leat__bell_toll(&seat->ctrl->space_bell);
}

/* Leave the seat; but remember it when there are rings that we could not map before the broker died: their
 * publishers will want to know where we are. */
static void leave(struct leat_sub *s, struct leat__seat *old, int unseen)
{
	unsigned n = 0;

	if (!unseen) {
		leat__seat_put(old, 0);
		return;
	}
	old->next = s->past;
	s->past = old;
	for (struct leat__seat **at = &s->past; *at; at = &(*at)->next)
		if (++n > PAST_MAX) {
			leat__seat_put(*at, 0);
			*at = NULL;
			break;
		}
}

int leat__sub_return(struct leat_sub *s, int64_t ns)
{
	struct leat__seat *old = s->seat, *seat;
	int unseen = s->returning || leat__load_acquire(&old->ctrl->epoch) != s->epoch;
	struct leat__packet pkt;
	struct leat__in in;
	int e = take_seat(s, old->cg.n_rings, old->cg.n_slots, ns, &pkt, &in, &seat);

	if (e < 0)
		return e;
	if (s->pollable)
		leat__pollable_disarm(s); /* its thread looks at what changes now */
	seat->how = RETURNING;
	sit(s, seat, &in);
	s->last_id = 0; /* it has not listed any yet */
	s->strays = s->n;
	s->quick = NULL;
	leat__store_relaxed(&seat->slot->received, s->received);
	leat__store_relaxed(&seat->slot->lost, s->lost);
	s->returning = 1;
	leave(s, old, unseen);
	e = leat__sub_take_rings(s, &pkt, &in, RETURNING);
	leat__packet_close(&pkt);
	return e < 0 ? e : leat__sub_take_more(s, &in, RETURNING, ns);
}

void leat__sub_returned(struct leat_sub *s)
{
	uint64_t instance = s->seat->tie->instance;

	s->returning = 0;
	for (uint32_t i = 0; i < s->n; i++)
		if (s->rings[i]->seat != s->seat)
			say_moved(s->rings[i]->seat, instance);
	for (struct leat__seat *at = s->past; at; at = at->next)
		say_moved(at, instance);
}

int leat_sub_open(struct leat *l, const char *name, const struct leat_sub_opts *opts,
		  struct leat_sub **ret)
{
	struct leat_sub_opts o;
	int e = leat__name_check(name);

	if (e == 0)
		e = leat__sub_options(&o, opts);
	return e < 0 ? e : leat__sub_open(l, name, &o, NULL, ret);
}

int leat__sub_open(struct leat *l, const char *name, const struct leat_sub_opts *o, struct leat_queue *queue,
		   struct leat_sub **ret)
{
	struct leat_sub *s = leat__sub_new(o);
	int e;

	if (!s)
		return -ENOMEM;
	s->l = l;
	if (queue) {
		s->queue = queue;
		s->mode = LEAT__WORKER;
	}
	s->name = strdup(name);
	leat__opened(l, &l->subs, &s->node);
	e = s->name ? subscribe(s, o) : leat__say(-ENOMEM, "open subscriber: no memory");
	if (e < 0) {
		s->queue = NULL; /* not its to end */
		leat_sub_close(s);
		return e;
	}
	leat__sub_look_around(s); /* for what came between the grant and now */
	*ret = s;
	return 0;
}

void leat_sub_close(struct leat_sub *s)
{
	struct leat__seat *seat;
	struct leat *l;
	int gone;

	if (!s)
		return;
	if (!s->l) {
		leat__hand_sub_close(s);
		return;
	}
	leat__member_remove(s->member);
	leat__pollable_end(s);
	if (s->queue)
		leat__queue_end(s->queue);
	l = s->l;
	leat__shut(l, &s->node);
	seat = s->seat;
	gone = s->gone;
	if (seat)
		seat->refs++;
	leat__sub_free(s); /* says DONE everywhere, then the slot may go to another */
	if (seat && !gone) {
		leat__store_release(&seat->slot->moved, LEAT__LEFT); /* should the broker not be there */
		leat__bell_toll(&seat->ctrl->space_bell);
		leat__request_close(l, seat->object);
	}
	leat__seat_put(seat, gone);
}

int leat_sub_stat(struct leat_sub *s, struct leat_sub_stat *ret)
{
	struct leat_sub_stat st = {.struct_size = sizeof(st)};

	if (s->gone)
		return leat__say(-ECHILD, "this subscriber belongs to the parent process: open another");
	leat__sub_look_around(s);
	st.received = s->received;
	st.bytes = s->bytes;
	st.lost = s->lost;
	st.corrupt = s->corrupt;
	for (uint32_t i = 0; i < s->n; i++) {
		struct leat__attached *a = s->rings[i];

		st.lost += a->r.lost;
		if (a->dead || leat__load_acquire(&a->r.ring->closed))
			st.draining++;
		else
			st.publishers++;
	}
	return leat__give(ret, &st, sizeof(st), "subscriber's counters");
}
