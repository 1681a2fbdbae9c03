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
#define ASK_NS INT64_C(2000000) /* receiving is held up so long at most by a broker that does not answer */
/* Then, more and more seldom, we look for its answer, or, refused, ask again. */
#define PAUSE_NS UINT64_C(5000000)
#define LOOK_MOST UINT64_C(40000000)
#define ASK_MOST UINT64_C(320000000)
#define LOOK_NS   UINT64_C(50000000) /* so often at most, where no broker tells, who is dead */

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
	leat__seat_put(a->seat, gone);
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
	s->strays -= a->seat != s->seat;
	s->n--;
	s->detached++;
	memmove(&s->rings[i], &s->rings[i + 1], (s->n - i) * sizeof(struct leat__attached *));
	if (s->cur > i)
		s->cur--;
	if (s->cur >= s->n)
		s->cur = 0;
	s->budget = s->turn;
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
	a->seat = s->seat;
	s->seat->refs++;
	a->r.g = *g;
	s->rings[s->n++] = a;
	*ret = a;
	return 0;
}

/* A ring that we do not read after all still has a line that the broker waits for. */
static void decline(struct leat_sub *s, const struct leat__wire_ring *w)
{
	struct leat__line *line;

	if (w->entry >= s->seat->cg.n_rings)
		return;
	line = &leat__ctrl_lines(s->seat->ctrl, &s->seat->cg, w->entry)[s->seat->slot_index];
	if (s->mode == LEAT__WAITING || s->mode == LEAT__WORKER)
		leat__store_release(&line->state,
				    LEAT__WORD(w->id, s->seat->grant << 12 | LEAT__DONE));
}

/* Map ring @w: it came along in the packet (@p), or is asked for. */
static int fetch(struct leat_sub *s, const struct leat__wire_ring *w, struct leat__packet *p,
		 const struct leat__in *in, int opening, struct leat_region **ret,
		 struct leat__wire_brought *b, struct leat__geometry *g)
{
	struct leat__packet pkt;
	struct leat__out out;
	struct leat__in answer;
	int e = leat__map_ring(p, in, w->id, ret, b, g);

	if (e != -ENOENT)
		return e;
	if (s->fetched_id != w->id)
		leat__errand_drop(s->l, &s->fetched);
	s->fetched_id = w->id;
	leat__wire_begin(&out, LEAT__RING, 0, s->seat->object);
	leat__wire_u64(&out, LEAT__T_RING_ID, w->id);
	e = leat__errand(s->l, &s->fetched, &out, -1, &pkt, &answer,
			 opening ? OPEN_NS : s->fetched.serial ? 0 : ASK_NS, NULL);
	if (e < 0)
		return e;
	e = leat__map_ring(&pkt, &answer, w->id, ret, b, g);
	leat__packet_close(&pkt);
	return e == -ENOENT ? leat__say(-EPROTO, "the broker's answer lacks the ring") : e;
}

/*
 * The ring that we read already and this one goes on from. Its publisher's own word for it is needed
 * (moving): another cannot claim to be its successor.
 */
static struct leat__attached *predecessor(const struct leat_sub *s, const struct leat__attached *of)
{
	for (uint32_t i = 0; i < s->n; i++) {
		struct leat__attached *a = s->rings[i];

		if (a != of && !a->pending && !a->left && a->origin == of->origin && a->pid == of->pid && a->uid == of->uid &&
		    leat__load_acquire(&a->r.ring->moving))
			return a;
	}
	return NULL;
}

/* The oldest ring of @a's publisher that we came to and have not gone over to, and that is older than @a; NULL. */
static struct leat__attached *passed_over(const struct leat_sub *s, const struct leat__attached *a)
{
	struct leat__attached *oldest = NULL;

	for (uint32_t i = 0; i < s->n; i++) {
		struct leat__attached *b = s->rings[i];

		if (b->pending && b->origin == a->origin && b->r.id < (oldest ? oldest->r.id : a->r.id))
			oldest = b;
	}
	return oldest;
}

static void detach(struct leat_sub *s, const struct leat__attached *a)
{
	for (uint32_t i = 0; i < s->n; i++)
		if (s->rings[i] == a) {
			leat__sub_detach(s, i);
			return;
		}
}

/*
 * A ring that goes on from one of before the broker died: come to it, so that its publisher may, too, and so
 * that it waits for us where we are.
 */
static void arrive(struct leat_sub *s, struct leat__attached *a, uint64_t word, int waiting)
{
	struct leat__attached *was, *last;

	/* Another that we came to: its publisher went on there before it announced this one, or never did. */
	while ((last = passed_over(s, a))) {
		if (!leat__load_acquire(&last->r.ring->began))
			detach(s, last);
		else if (!leat__sub_follow(s, last))
			break; /* not yet: a message in the one before is being looked at */
	}
	was = predecessor(s, a);
	a->pending = 1;
	leat__reader_arrive(&a->r, word, waiting, was ? was->r.pos : 0);
	if (!last)
		last = was;
	if (last)
		last->r.twin = a->r.line;
}

int leat__sub_follow(struct leat_sub *s, struct leat__attached *a)
{
	struct leat__attached *was, *last = passed_over(s, a);
	uint64_t began;

	if (last)
		return leat__sub_follow(s, last);
	began = leat__load_acquire(&a->r.ring->began);
	was = predecessor(s, a);
	if (!began || (was && was == s->peeked))
		return 0;
	a->pending = 0;
	s->quick = NULL;
	if (was) { /* where we are in its last one: all that was there is here */
		a->r.lost = was->r.lost;
		was->r.lost = 0;
		leat__reader_resume(&a->r, was->r.pos, was->r.seq, was->r.counting);
		if (s->queue)
			was->left = 1; /* messages may be in hand there */
		else
			detach(s, was);
	} else if (a->origin > s->since) { /* it came after us: from its beginning */
		leat__reader_resume(&a->r, 0, 0, LEAT__KNOWN);
	} else { /* it was there before us, and comes only now to where we are */
		leat__reader_resume(&a->r, (began - 1) & ~UINT64_C(7), 0, LEAT__ADOPT);
	}
	return 1;
}

/* Does it say that it goes on from a ring whose publisher says no such thing, or is another? */
static int impostor(const struct leat_sub *s, const struct leat__wire_brought *b)
{
	for (uint32_t i = 0; i < s->n; i++) {
		const struct leat__attached *a = s->rings[i];

		if (a->origin == b->origin && (a->pid != b->pid || a->uid != b->uid ||
					       (!a->pending && !leat__load_acquire(&a->r.ring->moving))))
			return 1;
	}
	return 0;
}

/* Is ring @b one that we may read? Then it is among ours (@ret), which own @region from now on. */
static int admit(struct leat_sub *s, const struct leat__wire_brought *b, struct leat_region *region,
		 const struct leat__geometry *g, struct leat__attached **ret)
{
	int e;

	if (impostor(s, b))
		e = leat__say(-EBADMSG, "it claims to be another publisher's");
	else if (s->queue && (g->flags & LEAT__OVERWRITE))
		e = leat__say(-EBADMSG, "its publisher overwrites: not for a work queue");
	else
		e = leat__sub_attach(s, region, 1, g, ret);
	if (e < 0) {
		leat_region_close(region);
		return e;
	}
	(*ret)->origin = b->origin;
	(*ret)->client = b->client;
	(*ret)->pid = b->pid;
	(*ret)->uid = b->uid;
	return 0;
}

/* Where in it do we begin? */
static void start(struct leat_sub *s, struct leat__attached *a, int waiting, enum leat__taking how)
{
	uint64_t word = LEAT__WORD(a->r.id, s->seat->grant << 12);

	if (a->origin != a->r.id && (how != OPENING || !leat__load_acquire(&a->r.ring->began))) {
		arrive(s, a, word, waiting);
	} else if (s->queue) {
		leat__reader_start(&a->r, 1);
	} else if (how == OPENING) {
		leat__reader_join(&a->r, word, waiting, s->from);
	} else if (how == RETURNING) { /* it came before we came back */
		leat__reader_arrive(&a->r, word, waiting, 0);
		leat__reader_resume(&a->r, 0, 0, LEAT__KNOWN);
	} else {
		leat__reader_begin(&a->r, word, waiting);
	}
}

/* Begin to read ring @w: from its beginning if it came after us, else where we asked. */
static int attach(struct leat_sub *s, const struct leat__wire_ring *w, struct leat__packet *p,
		  const struct leat__in *in, enum leat__taking how)
{
	struct leat__line *line = NULL;
	struct leat__attached *a = NULL;
	struct leat__wire_brought b;
	struct leat_region *region;
	struct leat__geometry g;
	int e = fetch(s, w, p, in, how == OPENING, &region, &b, &g);

	if (e == 0)
		e = admit(s, &b, region, &g, &a);
	if (e == -EBADMSG || e == -EPROTO) {
		s->corrupt++;
		decline(s, w);
		leat__log(LEAT_LOG_WARNING, "ring %llu is left out: %s", (unsigned long long)w->id, leat_why());
		return 0;
	}
	if (e < 0)
		return e;
	if (w->entry < s->seat->cg.n_rings)
		line = &leat__ctrl_lines(s->seat->ctrl, &s->seat->cg, w->entry)[s->seat->slot_index];
	if (s->queue) { /* the group reads, and each may use all its lines */
		a->lines = line - s->seat->slot_index;
		line = NULL;
	}
	leat__reader_init(&a->r, leat_region_addr(region), region->view, &g, w->id, line, &s->seat->ctrl->space_bell);
	a->dead = w->state == LEAT__ENDED;
	/* Our line says whether its writer waits for us only in those that came after us. */
	start(s, a, s->mode == LEAT__WAITING && line, w->id > s->seat->newest ? LOOKING : s->seat->how);
	leat__bell_toll(&s->seat->ctrl->space_bell); /* some publisher may wait for subscribers */
	if (!a->dead || s->from != LEAT_NEW || how != OPENING)
		s->had_publisher = 1;
	return 0;
}

int leat__sub_reads(const struct leat_sub *s, uint64_t origin)
{
	for (uint32_t i = 0; i < s->n; i++)
		if (s->rings[i]->origin == origin)
			return 1;
	return 0;
}

static struct leat__attached *find(const struct leat_sub *s, uint64_t id)
{
	for (uint32_t i = 0; i < s->n; i++)
		if (s->rings[i]->r.id == id && s->rings[i]->seat == s->seat)
			return s->rings[i];
	return NULL;
}

/* What the broker's list of rings means for us: some have ended, some are new. */
int leat__sub_take_rings(struct leat_sub *s, struct leat__packet *p, const struct leat__in *in,
			 enum leat__taking how)
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
		if (s->queue ? !leat__queue_wants(s, &w) : w.id <= s->last_id)
			continue; /* read to its end long ago */
		if (how == OPENING && w.entry == LEAT__NO_ENTRY && s->from == LEAT_NEW) {
			s->last_id = w.id;
			continue;
		}
		e = attach(s, &w, p, in, how);
		if (e < 0 && e != -ENOENT) /* gone since it was listed: nothing of it was for us */
			return e;
		s->last_id = w.id;
	}
	return 0;
}

/* Is there something about the broker, or about rings of before it, to look after? */
static int astray(const struct leat_sub *s)
{
	return s->strays || !leat__tied(s->l, s->seat->tie);
}

int leat__sub_stirs(struct leat_sub *s)
{
	uint64_t now = leat__now();

	if (leat__tend_due(s->l, now))
		leat__tend(s->l);
	if (s->retry_at)
		return now >= s->retry_at;
	if (!leat__tied(s->l, s->seat->tie) && !leat__load_relaxed(&s->l->lost))
		return 1;
	if (astray(s) && now - s->looked_at >= LOOK_NS)
		return 1;
	return leat__load_relaxed(s->epoch_now) != s->epoch;
}

/* No broker tells of the end of rings that were announced to one that is gone: their publishers' lives do. */
static void find_dead(struct leat_sub *s, uint64_t now)
{
	if (now - s->looked_at < LOOK_NS)
		return;
	s->looked_at = now;
	for (uint32_t i = 0; i < s->n; i++) {
		struct leat__attached *a = s->rings[i];

		if (!leat__tied(s->l, a->seat->tie))
			a->dead |= leat__tie_dead(a->seat->tie, a->client);
	}
}

/* A page of the rings there are. 1 there is another. */
static int ask_page(struct leat_sub *s, enum leat__taking how, int64_t ns)
{
	struct leat__packet pkt;
	struct leat__out out;
	struct leat__in in;
	int e;

	leat__wire_begin(&out, LEAT__RINGS, 0, s->seat->object);
	leat__wire_u64(&out, LEAT__T_RING_ID, s->last_id);
	leat__wire_u64(&out, LEAT__T_AFTER, s->asked_after);
	e = leat__errand(s->l, &s->asked, &out, -1, &pkt, &in, ns, NULL);
	if (e < 0)
		return e;
	e = leat__sub_take_rings(s, &pkt, &in, how);
	leat__packet_close(&pkt);
	if (leat__wire_get(&in, LEAT__T_AFTER, &s->asked_after, sizeof(s->asked_after)) < 0 || e < 0)
		s->asked_after = 0;
	return e < 0 ? e : s->asked_after != 0;
}

int leat__sub_take_more(struct leat_sub *s, const struct leat__in *in, enum leat__taking how, int64_t ns)
{
	int e = leat__wire_get(in, LEAT__T_AFTER, &s->asked_after, sizeof(s->asked_after)) == 0;

	if (!e)
		s->asked_after = 0;
	while (e > 0)
		e = ask_page(s, how, ns);
	return e;
}

static int ask(struct leat_sub *s)
{
	int e;

	if (!s->asked.serial && !s->asked_after)
		s->asked_epoch = leat__load_acquire(s->epoch_now);
	do
		e = ask_page(s, LOOKING, s->asked.serial ? 0 : ASK_NS);
	while (e > 0);
	if (e == 0)
		s->epoch = s->asked_epoch; /* what came since is asked for next */
	return e;
}

/* Has the ring table moved, or the broker died? Then ask. Failing is not fatal: what is attached goes on. */
void leat__sub_look_around(struct leat_sub *s)
{
	uint64_t now;
	int e, tied;

	if (!s->l)
		return;
	now = leat__now();
	if (leat__tend_due(s->l, now))
		leat__tend(s->l);
	if (astray(s))
		find_dead(s, now);
	if (leat__load_acquire(&s->l->lost))
		s->retry_at = 0; /* there is nobody to ask, until tend() finds somebody */
	if (leat__load_acquire(&s->l->lost) || (s->retry_at && now < s->retry_at))
		return;
	tied = leat__tied(s->l, s->seat->tie);
	if (tied && !s->retry_at && leat__load_acquire(s->epoch_now) == s->epoch)
		return;
	e = tied ? ask(s) : leat__sub_return(s, s->asked.serial ? 0 : ASK_NS);
	if (e == 0 && s->returning)
		leat__sub_returned(s);
	s->retry_at = 0;
	if (e < 0 && !leat__load_acquire(&s->l->lost)) { /* slow, or without room: again, after a while */
		s->pause_ns = s->pause_ns ? leat__min(s->pause_ns * 2, e == -ETIMEDOUT ? LOOK_MOST : ASK_MOST) : PAUSE_NS;
		s->retry_at = leat__now() + s->pause_ns;
	} else {
		s->pause_ns = 0;
	}
}

unsigned leat__sub_bells(struct leat_sub *s, uint32_t **bells)
{
	unsigned n = 1;

	bells[0] = s->seat->ctrl ? &s->seat->ctrl->data_bell : (uint32_t *)(void *)&s->no_bell;
	for (uint32_t i = 0; s->strays && i < s->n && n < LEAT__BELLS; i++) {
		uint32_t *bell = &s->rings[i]->seat->ctrl->data_bell;
		unsigned k = 0;

		while (k < n && bells[k] != bell)
			k++;
		if (k == n)
			bells[n++] = bell;
	}
	return n;
}

static int is_over(struct leat_sub *s, struct leat__attached *a)
{
	if (a->pending) /* its publisher died on the way: what counts is in the one before */
		return a->dead && !leat__load_acquire(&a->r.ring->began);
	if (s->queue)
		return leat__queue_over(s, a);
	/* Where it may go on elsewhere we want to have been told. */
	return leat__reader_ended(&a->r, a->dead) && !(s->retry_at && leat__load_relaxed(&a->r.ring->moving));
}

/* Rings that have ended and are read to the end; 1 if any went. */
int leat__sub_reap(struct leat_sub *s)
{
	int any = 0;

	for (uint32_t i = 0; i < s->n;) {
		struct leat__attached *a = s->rings[i];

		if (a != s->peeked && is_over(s, a)) {
			leat__sub_detach(s, i);
			any = 1;
		} else {
			i++;
		}
	}
	return any;
}
