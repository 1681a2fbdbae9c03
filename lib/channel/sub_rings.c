/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A subscriber's rings: they come when the broker says that a publisher has, and go when they have
 * ended and are read. Called by sub.c, when the ring table has moved or nothing is there to read. What
 * the control region says about a ring's end is believed only when the broker confirms it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/base.h"
#include "channel/channel.h"

#define OPEN_NS INT64_C(5000000000)
/* Receiving is held up by a broker that does not answer so long, longer each time, and for a twentieth of
 * the time at most. */
#define ASK_LEAST 1000000
#define ASK_MOST  25000000
#define REST      20

void leat__sub_put(struct leat__attached *a, int gone)
{
	if (--a->refs)
		return;
	if (a->owned) {
		if (gone)
			a->region->addr = a->region->view = NULL;
		leat_region_close(a->region);
	} else if (!gone) {
		leat__region_unview(a->region);
	}
	free(a);
}

void leat__sub_detach(struct leat_sub *s, uint32_t i)
{
	struct leat__attached *a = s->rings[i];

	if (s->pollable)
		leat__pollable_disarm(s); /* its thread must not look at what goes away */
	s->lost += a->r.lost;
	a->r.lost = 0;
	if (!s->gone)
		leat__reader_leave(&a->r);
	s->n--;
	memmove(&s->rings[i], &s->rings[i + 1], (s->n - i) * sizeof(struct leat__attached *));
	if (s->cur > i)
		s->cur--;
	if (s->cur >= s->n)
		s->cur = 0;
	s->budget = LEAT__TURN;
	s->quick = NULL;
	leat__sub_put(a, s->gone);
}

int leat__sub_attach(struct leat_sub *s, struct leat_region *region, int owned,
		     const struct leat__geometry *g, struct leat__attached **ret)
{
	struct leat__attached *a = calloc(1, sizeof(*a));

	if (a && s->n == s->room) {
		uint32_t room = s->room ? s->room * 2 : 8;
		struct leat__attached **rings = realloc(s->rings, room * sizeof(struct leat__attached *));

		if (rings) {
			s->rings = rings;
			s->room = room;
		} else {
			free(a);
			a = NULL;
		}
	}
	if (!a)
		return leat__say(-ENOMEM, "no memory for another publisher's ring");
	a->region = region;
	a->owned = owned;
	a->refs = 1;
	a->r.g = *g;
	s->rings[s->n++] = a;
	*ret = a;
	return 0;
}

/* A ring that we do not read after all still has a line that the broker waits for. */
static void decline(struct leat_sub *s, const struct leat__wire_ring *w)
{
	struct leat__line *line;

	if (w->entry >= s->cg.n_rings)
		return;
	line = &leat__ctrl_lines(s->ctrl, &s->cg, w->entry)[s->slot_index];
	if (s->mode == LEAT__WAITING)
		leat__store_release(&line->state,
				    LEAT__WORD(w->id, s->grant << 12 | LEAT__DONE));
}

/* Map ring @w: it came along in the packet (@p), or is asked for. */
static int fetch(struct leat_sub *s, const struct leat__wire_ring *w, struct leat__packet *p,
		 const struct leat__in *in, int opening, struct leat_region **ret, struct leat__geometry *g)
{
	struct leat__packet pkt;
	struct leat__out out;
	struct leat__in answer;
	int e = leat__map_ring(p, in, w->id, ret, g);

	if (e != -ENOENT)
		return e;
	leat__wire_begin(&out, LEAT__RING, 0, s->object);
	leat__wire_u64(&out, LEAT__T_RING_ID, w->id);
	e = leat__request_within(s->l, &out, -1, &pkt, &answer, opening ? OPEN_NS : s->ask_ns);
	if (e < 0)
		return e;
	e = leat__map_ring(&pkt, &answer, w->id, ret, g);
	leat__packet_close(&pkt);
	return e == -ENOENT ? leat__say(-EPROTO, "the broker's answer lacks the ring") : e;
}

/* Begin to read ring @w: from its beginning if it came after us, else where we asked. */
static int attach(struct leat_sub *s, const struct leat__wire_ring *w, struct leat__packet *p,
		  const struct leat__in *in, int opening)
{
	int waiting = s->mode == LEAT__WAITING && w->entry != LEAT__NO_ENTRY;
	struct leat__line *line = NULL;
	struct leat__attached *a;
	struct leat_region *region;
	struct leat__geometry g;
	uint64_t word = 0;
	int e = fetch(s, w, p, in, opening, &region, &g);

	if (e == 0) {
		e = leat__sub_attach(s, region, 1, &g, &a);
		if (e < 0)
			leat_region_close(region);
	}
	if (e < 0) {
		if (e == -EBADMSG || e == -EPROTO) {
			s->corrupt++;
			decline(s, w);
			leat__log(LEAT_LOG_WARNING, "ring %llu is left out: %s",
				  (unsigned long long)w->id, leat_why());
			return 0;
		}
		return e;
	}
	if (w->entry < s->cg.n_rings)
		line = &leat__ctrl_lines(s->ctrl, &s->cg, w->entry)[s->slot_index];
	leat__reader_init(&a->r, leat_region_addr(region), region->view, &g, w->id, line,
			  &s->ctrl->space_bell);
	a->dead = w->state == LEAT__ENDED;
	word = LEAT__WORD(w->id, s->grant << 12);
	if (opening)
		leat__reader_join(&a->r, word, waiting && line, s->from);
	else
		leat__reader_begin(&a->r, word, waiting && line);
	leat__bell_toll(&s->ctrl->space_bell); /* some publisher may wait for subscribers */
	if (!a->dead || s->from != LEAT_NEW || !opening)
		s->had_publisher = 1;
	return 0;
}

static struct leat__attached *find(const struct leat_sub *s, uint64_t id)
{
	for (uint32_t i = 0; i < s->n; i++)
		if (s->rings[i]->r.id == id)
			return s->rings[i];
	return NULL;
}

/* What the broker's list of rings means for us: some have ended, some are new. */
int leat__sub_take_rings(struct leat_sub *s, struct leat__packet *p, const struct leat__in *in,
			 int opening)
{
	const unsigned char *at = NULL;
	size_t size;

	while ((at = leat__wire_next(in, LEAT__T_RING, at, &size))) {
		struct leat__attached *a;
		struct leat__wire_ring w;
		int e;

		if (size != sizeof(w))
			return leat__say(-EPROTO, "the broker's list of rings is malformed");
		memcpy(&w, at, sizeof(w));
		a = find(s, w.id);
		if (a) {
			a->dead |= w.state == LEAT__ENDED;
			continue;
		}
		if (w.id <= s->last_id)
			continue; /* read to its end long ago */
		if (opening && w.entry == LEAT__NO_ENTRY && s->from == LEAT_NEW) {
			s->last_id = w.id;
			continue;
		}
		e = attach(s, &w, p, in, opening);
		if (e < 0 && e != -ENOENT) /* gone since it was listed: nothing of it was for us */
			return e;
		s->last_id = w.id;
	}
	return 0;
}

/* Has the ring table moved? Then ask. Failing is not fatal: what is attached goes on. */
void leat__sub_look_around(struct leat_sub *s)
{
	struct leat__packet pkt;
	struct leat__out out;
	struct leat__in in;
	uint32_t epoch;
	int e;

	if (!s->l)
		return;
	epoch = leat__load_acquire(&s->ctrl->epoch);
	if (s->retry_at ? leat__now() < s->retry_at : epoch == s->epoch)
		return;
	s->epoch = epoch;
	leat__wire_begin(&out, LEAT__RINGS, 0, s->object);
	leat__wire_u64(&out, LEAT__T_RING_ID, s->last_id);
	if (s->ask_ns < ASK_LEAST)
		s->ask_ns = ASK_LEAST;
	e = leat__request_within(s->l, &out, -1, &pkt, &in, s->ask_ns);
	if (e == 0) {
		e = leat__sub_take_rings(s, &pkt, &in, 0);
		leat__packet_close(&pkt);
	}
	/* Without a broker the table cannot change any more; one that is slow is asked again later. */
	s->retry_at = 0;
	if (e < 0 && e != -ECONNRESET) {
		s->retry_at = leat__now() + (uint64_t)s->ask_ns * REST;
		s->ask_ns = s->ask_ns < ASK_MOST / 2 ? s->ask_ns * 2 : ASK_MOST;
	} else {
		s->ask_ns = 0;
	}
}

/* Rings that have ended and are read to the end; 1 if any went. */
int leat__sub_reap(struct leat_sub *s)
{
	int any = 0;

	for (uint32_t i = 0; i < s->n;) {
		struct leat__attached *a = s->rings[i];

		if (a != s->peeked && leat__reader_ended(&a->r, a->dead)) {
			leat__sub_detach(s, i);
			any = 1;
		} else {
			i++;
		}
	}
	return any;
}
