/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Subscribers: opening, closing, counting. The broker is asked for a slot and the rings there are, and
 * told when the slot is free again.
 */
#include <errno.h>
#include <stdlib.h>
#include "base/base.h"
#include "channel/channel.h"

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
	s->budget = LEAT__TURN;
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
	while (s->n)
		leat__sub_detach(s, s->n - 1);
	if (!s->gone)
		leat__handle_remove(&s->handle);
	free(s->rings);
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

static int subscribe(struct leat_sub *s, const char *name, const struct leat_sub_opts *o)
{
	struct leat__packet pkt;
	struct leat__out out;
	struct leat__in in;
	int e;

	leat__wire_begin(&out, LEAT__SUB_OPEN, 0, 0);
	leat__wire_text(&out, LEAT__T_NAME, name);
	leat__wire_u32(&out, LEAT__T_MODE, s->mode);
	leat__wire_u32(&out, LEAT__T_MAX_RINGS, o->max_publishers);
	leat__wire_u32(&out, LEAT__T_MAX_SLOTS, o->max_subscribers);
	e = leat__request(s->l, &out, -1, &pkt, &in);
	if (e < 0)
		return e;
	s->object = in.head.object;
	e = leat__wire_get(&in, LEAT__T_SLOT, &s->slot_index, sizeof(s->slot_index));
	if (e == 0)
		e = leat__wire_get(&in, LEAT__T_GRANT, &s->grant, sizeof(s->grant));
	if (e == 0)
		e = leat__map_control(&pkt, &in, &s->control, &s->cg);
	if (e == 0 && s->slot_index >= s->cg.n_slots)
		e = leat__say(-EPROTO, "the broker named an impossible slot");
	if (e == 0) {
		s->ctrl = leat_region_addr(s->control);
		s->epoch_now = &s->ctrl->epoch;
		s->slot = &leat__ctrl_slots(s->ctrl, &s->cg)[s->slot_index];
		/* What the answer lists was there when our slot was granted; later ones begin at 0 for us,
		 * and have moved the epoch since. */
		if (leat__wire_get(&in, LEAT__T_EPOCH, &s->epoch, sizeof(s->epoch)) < 0)
			s->retry_at = 1;
		e = leat__sub_take_rings(s, &pkt, &in, 1);
	}
	leat__packet_close(&pkt);
	return e;
}

int leat_sub_open(struct leat *l, const char *name, const struct leat_sub_opts *opts,
		  struct leat_sub **ret)
{
	struct leat_sub_opts o;
	struct leat_sub *s;
	int e = leat__name_check(name);

	if (e == 0)
		e = leat__sub_options(&o, opts);
	if (e < 0)
		return e;
	s = leat__sub_new(&o);
	if (!s)
		return -ENOMEM;
	s->l = l;
	pthread_mutex_lock(&l->list_lock);
	s->at = &l->subs;
	s->next = l->subs;
	if (s->next)
		s->next->at = &s->next;
	l->subs = s;
	pthread_mutex_unlock(&l->list_lock);
	e = subscribe(s, name, &o);
	if (e < 0) {
		leat_sub_close(s);
		return e;
	}
	leat__sub_look_around(s); /* for what came between the grant and now */
	*ret = s;
	return 0;
}

void leat_sub_close(struct leat_sub *s)
{
	struct leat_region *control;
	struct leat *l;
	uint64_t object;
	int gone;

	if (!s)
		return;
	if (!s->l) {
		leat__hand_sub_close(s);
		return;
	}
	leat__pollable_end(s);
	l = s->l;
	pthread_mutex_lock(&l->list_lock);
	*s->at = s->next;
	if (s->next)
		s->next->at = s->at;
	pthread_mutex_unlock(&l->list_lock);
	object = s->object;
	control = s->control;
	gone = s->gone;
	if (gone && control)
		control->addr = NULL;
	leat__sub_free(s); /* says DONE everywhere, then the slot may go to another */
	if (object && !gone)
		leat__request_close(l, object);
	leat_region_close(control);
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
