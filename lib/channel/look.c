/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at channels, and tidying them, without taking part: names and numbers from the broker, counters from the
 * shared memory they live in.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/base.h"
#include "channel/channel.h"

static void facts(struct leat_stat *st, const struct leat__wire_channel *w)
{
	st->bytes = w->bytes;
	st->publishers = w->publishers;
	st->draining = w->draining;
	st->subscribers = w->subscribers;
	st->max_publishers = w->max_publishers;
	st->max_subscribers = w->max_subscribers;
}

int leat__list_page(struct leat *l, struct leat__errand *r, int64_t ns, const struct leat__listing *what,
		    struct leat__page *page, const char *prefix, void *arg, int *stop)
{
	const unsigned char *at = NULL;
	struct leat__packet pkt;
	struct leat__out out;
	struct leat__in in;
	size_t size;
	int e;

	leat__wire_begin(&out, (uint16_t)what->request, 0, 0);
	leat__wire_text(&out, LEAT__T_NAME, page->after);
	if (page->more)
		leat__wire_u32(&out, LEAT__T_MORE, 1);
	if (prefix && strlen(prefix) <= LEAT__NAME_MAX)
		leat__wire_text(&out, LEAT__T_PREFIX, prefix);
	e = leat__errand(l, r, &out, -1, &pkt, &in, ns, NULL);
	if (e < 0)
		return e;
	leat__packet_close(&pkt);
	while ((at = leat__wire_next(&in, what->tag, at, &size))) {
		if (size <= what->size || size - what->size > LEAT__NAME_MAX)
			return leat__say(-EPROTO, "the broker's list of names is malformed");
		memcpy(page->after, at + what->size, size - what->size);
		page->after[size - what->size] = 0;
		if (prefix && strncmp(page->after, prefix, strlen(prefix)) != 0)
			continue;
		*stop = what->each(at, page->after, arg);
		if (*stop)
			return 0;
	}
	if (leat__wire_get(&in, LEAT__T_MORE, &page->more, sizeof(page->more)) < 0)
		page->more = 0;
	return page->more != 0;
}

int leat__list(struct leat *l, const struct leat__listing *what, const char *prefix, void *arg)
{
	struct leat__page page = {"", 0};
	struct leat__errand once = {0};
	int e, stop = 0;

	do
		e = leat__list_page(l, &once, LEAT__REQUEST_NS, what, &page, prefix, arg, &stop);
	while (e > 0);
	leat__errand_drop(l, &once);
	return stop ? stop : e;
}

struct told {
	leat_list_fn *fn;
	void *arg;
};

static int tell(const void *record, const char *name, void *arg)
{
	struct leat_stat st = {.struct_size = sizeof(st)};
	const struct told *to = arg;
	struct leat__wire_channel w;

	memcpy(&w, record, sizeof(w));
	facts(&st, &w);
	strcpy(st.name, name);
	return to->fn(&st, to->arg);
}

int leat_list(struct leat *l, const char *prefix, leat_list_fn *fn, void *arg)
{
	static const struct leat__listing channels = {LEAT__LIST, LEAT__T_CHANNEL, sizeof(struct leat__wire_channel), tell};
	struct told to = {fn, arg};

	return leat__list(l, &channels, prefix, &to);
}

/* What clients and users are listed with: in pages, each asking for those after the last one. */
struct walk {
	leat_who_fn *on_client;
	leat_quota_fn *on_user;
	void *arg;
	uint64_t after; /* that client, or uid */
	int begun, stop;
};

static int one_client(struct walk *k, const unsigned char *at)
{
	struct leat__wire_who w;
	struct leat_who who;

	memcpy(&w, at, sizeof(w));
	who = (struct leat_who){sizeof(who), w.client, w.pid, w.uid, w.publishers, w.subscribers, w.shares, w.watches,
				w.bytes, ""};
	memcpy(who.program, w.program, sizeof(who.program) - 1);
	k->after = w.client;
	return k->on_client(&who, k->arg);
}

static int one_user(struct walk *k, const unsigned char *at)
{
	struct leat__wire_quota w;
	struct leat_quota q;

	memcpy(&w, at, sizeof(w));
#define AMOUNT(what) {w.used[what], w.limit[what]}
	q = (struct leat_quota){sizeof(q), w.uid, w.clients, AMOUNT(LEAT__Q_MEMORY), AMOUNT(LEAT__Q_CHANNELS),
				AMOUNT(LEAT__Q_PUBLISHERS), AMOUNT(LEAT__Q_SUBSCRIBERS), AMOUNT(LEAT__Q_CLIENTS),
				AMOUNT(LEAT__Q_DESCRIPTORS), AMOUNT(LEAT__Q_WATCHES)};
#undef AMOUNT
	k->after = w.uid;
	return k->on_user(&q, k->arg);
}

/* 1: there is more. */
static int walk_page(struct leat *l, struct walk *k)
{
	const unsigned char *at = NULL;
	struct leat__packet pkt;
	struct leat__out out;
	struct leat__in in;
	uint32_t more;
	size_t size;
	int e;

	leat__wire_begin(&out, k->on_client ? LEAT__WHO : LEAT__QUOTA, 0, 0);
	if (k->begun && k->on_user)
		leat__wire_u32(&out, LEAT__T_UID, (uint32_t)k->after);
	else if (k->begun)
		leat__wire_u64(&out, LEAT__T_CLIENT, k->after);
	e = leat__request(l, &out, -1, &pkt, &in);
	if (e < 0)
		return e;
	leat__packet_close(&pkt);
	while (!k->stop && (at = leat__wire_next(&in, k->on_client ? LEAT__T_WHO : LEAT__T_QUOTA, at, &size))) {
		if (size != (k->on_client ? sizeof(struct leat__wire_who) : sizeof(struct leat__wire_quota)))
			return leat__say(-EPROTO, "the broker's list of clients is malformed");
		k->begun = 1;
		k->stop = k->on_client ? one_client(k, at) : one_user(k, at);
	}
	return !k->stop && leat__wire_get(&in, LEAT__T_MORE, &more, sizeof(more)) == 0;
}

static int walk(struct leat *l, struct walk k)
{
	int e;

	do
		e = walk_page(l, &k);
	while (e > 0);
	return k.stop ? k.stop : e;
}

int leat_who(struct leat *l, leat_who_fn *fn, void *arg)
{
	return walk(l, (struct walk){.on_client = fn, .arg = arg});
}

int leat_quota(struct leat *l, leat_quota_fn *fn, void *arg)
{
	return walk(l, (struct walk){.on_user = fn, .arg = arg});
}

int leat_kick(struct leat *l, uint64_t client)
{
	struct leat__packet pkt;
	struct leat__out out;
	struct leat__in in;
	int e;

	leat__wire_begin(&out, LEAT__KICK, 0, 0);
	leat__wire_u64(&out, LEAT__T_CLIENT, client);
	e = leat__request(l, &out, -1, &pkt, &in);
	if (e == 0)
		leat__packet_close(&pkt);
	return e;
}

/* ---- one channel ---- */

struct seen_ring {
	struct leat__wire_ring w;
	uint64_t sent, tail;
	int mapped;
};

struct seen {
	struct leat_region *control;
	struct leat__geometry cg;
	struct seen_ring *rings;
	uint32_t n, room;
};

/* A page of the channel's rings; *after is the last one, 0 when there are no more. */
static int see_rings(struct seen *s, const struct leat__in *in, uint64_t *after)
{
	const unsigned char *at = NULL;
	size_t size;

	while ((at = leat__wire_next(in, LEAT__T_RING, at, &size))) {
		if (size != sizeof(s->rings[0].w))
			return leat__say(-EPROTO, "the broker's list of rings is malformed");
		if (s->n == s->room) {
			struct seen_ring *more = realloc(s->rings, (s->room * 2 + 16) * sizeof(*more));

			if (!more)
				return leat__say(-ENOMEM, "look at a channel: no memory");
			s->rings = more;
			s->room = s->room * 2 + 16;
		}
		s->rings[s->n] = (struct seen_ring){.mapped = 0};
		memcpy(&s->rings[s->n++].w, at, size);
	}
	if (leat__wire_get(in, LEAT__T_AFTER, after, sizeof(*after)) < 0)
		*after = 0;
	return 0;
}

static int see_more_rings(struct leat *l, uint64_t object, struct seen *s, uint64_t *after)
{
	struct leat__packet pkt;
	struct leat__out out;
	struct leat__in in;
	int e;

	leat__wire_begin(&out, LEAT__RINGS, 0, object);
	leat__wire_u64(&out, LEAT__T_AFTER, *after);
	e = leat__request(l, &out, -1, &pkt, &in);
	if (e < 0)
		return e;
	leat__packet_close(&pkt);
	return see_rings(s, &in, after);
}

static void see_ring(struct leat *l, uint64_t object, struct seen_ring *r)
{
	const struct leat__ring_shm *ring;
	struct leat_region *region;
	struct leat__wire_brought b;
	struct leat__geometry g;
	struct leat__packet pkt;
	struct leat__out out;
	struct leat__in in;

	leat__wire_begin(&out, LEAT__RING, 0, object);
	leat__wire_u64(&out, LEAT__T_RING_ID, r->w.id);
	if (leat__request(l, &out, -1, &pkt, &in) < 0)
		return; /* it went away meanwhile */
	if (leat__map_ring(&pkt, &in, r->w.id, &region, &b, &g) == 0) {
		ring = leat_region_addr(region);
		r->tail = leat__load_acquire(&ring->tail);
		r->sent = leat__load_relaxed(&ring->sent);
		r->mapped = 1;
		leat_region_close(region);
	}
	leat__packet_close(&pkt);
}

static uint64_t lag_of(const struct seen *s, uint32_t slot)
{
	struct leat__ctrl_shm *ctrl = leat_region_addr(s->control);
	uint64_t lag = 0;

	for (uint32_t i = 0; i < s->n; i++) {
		const struct leat__line *line;
		uint64_t state, cursor;

		if (s->rings[i].w.entry >= s->cg.n_rings || !s->rings[i].mapped)
			continue;
		line = &leat__ctrl_lines(ctrl, &s->cg, s->rings[i].w.entry)[slot];
		state = leat__load_acquire(&line->state);
		cursor = leat__load_relaxed(&line->cursor);
		if (LEAT__RING_ID(state) == s->rings[i].w.id && LEAT__IN(state, 1u << LEAT__ACTIVE | 1u << LEAT__SHARED) &&
		    cursor <= s->rings[i].tail && s->rings[i].tail - cursor > lag)
			lag = s->rings[i].tail - cursor;
	}
	return lag;
}

static void see_peer(struct leat_peer *p, const struct leat__wire_peer *w, const struct seen *s)
{
	*p = (struct leat_peer){.struct_size = sizeof(*p), .id = w->id, .pid = w->pid, .uid = w->uid,
				.role = w->role, .alive = w->alive};
	memcpy(p->program, w->program, sizeof(p->program));
	p->program[sizeof(p->program) - 1] = 0;
	if (w->role == 1) {
		for (uint32_t i = 0; i < s->n; i++)
			if (s->rings[i].w.id == w->id)
				p->count = s->rings[i].sent;
	} else if (w->id < s->cg.n_slots) {
		const struct leat__slot *slot =
			&leat__ctrl_slots(leat_region_addr(s->control), &s->cg)[w->id];

		p->count = leat__load_relaxed(&slot->received);
		p->lost = leat__load_relaxed(&slot->lost);
		p->lag = lag_of(s, (uint32_t)w->id);
	}
}

/* All peers, page by page; adds up what the channel's facts want of them. */
static int see_peers(struct leat *l, uint64_t object, const struct seen *s, struct leat_stat *st,
		     leat_peer_fn *fn, void *arg)
{
	uint32_t more = 0;

	do {
		const unsigned char *at = NULL;
		struct leat__packet pkt;
		struct leat__out out;
		struct leat__in in;
		size_t size;
		int e;

		leat__wire_begin(&out, LEAT__PEERS, 0, object);
		leat__wire_u32(&out, LEAT__T_MORE, more);
		e = leat__request(l, &out, -1, &pkt, &in);
		if (e < 0)
			return e;
		leat__packet_close(&pkt);
		while ((at = leat__wire_next(&in, LEAT__T_PEER, at, &size))) {
			struct leat__wire_peer w;
			struct leat_peer p;

			if (size != sizeof(w))
				return leat__say(-EPROTO, "the broker's list of peers is malformed");
			memcpy(&w, at, sizeof(w));
			see_peer(&p, &w, s);
			if ((p.role == 2 || p.role == 4) && p.lag > st->lag_max)
				st->lag_max = p.lag;
			e = fn ? fn(&p, arg) : 0;
			if (e)
				return e;
		}
		if (leat__wire_get(&in, LEAT__T_MORE, &more, sizeof(more)) < 0)
			more = 0;
	} while (more);
	return 0;
}

int leat_stat(struct leat *l, const char *name, struct leat_stat *ret, leat_peer_fn *fn, void *arg)
{
	struct leat_stat st = {.struct_size = sizeof(st)};
	struct leat__wire_channel w;
	struct leat__packet pkt;
	struct leat__out out;
	struct leat__in in;
	struct seen *s;
	uint64_t object, after = 0;
	int e = leat__name_check(name);

	if (e < 0)
		return e;
	s = calloc(1, sizeof(*s));
	if (!s)
		return leat__say(-ENOMEM, "look at a channel: no memory");
	leat__wire_begin(&out, LEAT__LOOK, 0, 0);
	leat__wire_text(&out, LEAT__T_NAME, name);
	e = leat__request(l, &out, -1, &pkt, &in);
	if (e < 0) {
		free(s);
		return e;
	}
	object = in.head.object;
	e = leat__wire_get(&in, LEAT__T_CHANNEL, &w, sizeof(w));
	if (e == 0)
		e = see_rings(s, &in, &after);
	if (e == 0)
		e = leat__map_control(&pkt, &in, &s->control, &s->cg);
	leat__packet_close(&pkt);
	while (e == 0 && after)
		e = see_more_rings(l, object, s, &after);
	if (e == 0) {
		strcpy(st.name, name);
		facts(&st, &w);
		for (uint32_t i = 0; i < s->n; i++) {
			see_ring(l, object, &s->rings[i]);
			st.sent += s->rings[i].sent;
		}
		e = see_peers(l, object, s, &st, fn, arg);
	}
	leat__request_close(l, object);
	leat_region_close(s->control);
	free(s->rings);
	free(s);
	return e ? e : leat__give(ret, &st, sizeof(st), "look at a channel");
}

int leat_remove(struct leat *l, const char *name)
{
	struct leat__packet pkt;
	struct leat__out out;
	struct leat__in in;
	int e = leat__name_check(name);

	if (e < 0)
		return e;
	leat__wire_begin(&out, LEAT__REMOVE, 0, 0);
	leat__wire_text(&out, LEAT__T_NAME, name);
	e = leat__request(l, &out, -1, &pkt, &in);
	if (e == 0)
		leat__packet_close(&pkt);
	return e;
}
