/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publishers: make a ring, have the broker announce it, and pass every message straight to its
 * writer. The broker is asked when opening and closing, never in between.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/base.h"
#include "channel/channel.h"

#define CONTROL_NS  INT64_C(5000000000)
#define STRETCH_MIN 4096 /* bytes of messages until the first look at the time */

static int ring_init(void *addr, uint64_t size, void *arg)
{
	(void)size;
	leat__head_write(addr, LEAT__MAGIC_RING, arg);
	((struct leat__ring_shm *)addr)->pid = (uint32_t)getpid();
	return 0;
}

int leat__pub_options(struct leat_pub_opts *o, const struct leat_pub_opts *opts,
		      struct leat__geometry *g, uint64_t page)
{
	int e = leat__opts(o, sizeof(*o), opts, "open publisher");
	uint64_t capacity, block = 0;

	if (e < 0)
		return e;
	if (o->policy != LEAT_WAIT && o->policy != LEAT_OVERWRITE)
		return leat__fail(-EINVAL, "open publisher: unknown policy %d", (int)o->policy);
	if (o->grace_ns < 0 || o->spin_ns < -1)
		return leat__say(-EINVAL, "open publisher: a negative time");
	e = leat__ring_geometry(g, o->capacity, 0, 0, 0, page);
	if (e < 0)
		return e;
	capacity = g->capacity;
	if (o->max_size > capacity / 8)
		block = o->max_size;
	return leat__ring_geometry(g, capacity, block, block ? (o->blocks ? o->blocks : 4) : 0,
				   (o->policy == LEAT_OVERWRITE ? LEAT__OVERWRITE : 0) |
					   (o->strict ? LEAT__STRICT : 0) | (o->retain ? LEAT__RETAIN : 0),
				   page);
}

void leat__pub_setup(struct leat_pub *p, const struct leat_pub_opts *o)
{
	p->w.grace_ns = o->policy == LEAT_WAIT ? (uint64_t)o->grace_ns : 0;
	leat__spin_init(&p->w.spin, o->spin_ns);
}

void leat__pub_forked(struct leat__handle *h)
{
	struct leat_pub *p = leat__container(h, struct leat_pub, handle);

	p->gone = 1;
	p->w.stop = 0; /* nothing goes the short way any more */
}

/* Make the region with the ring in it, mapped for writing, and sealed against everybody else. */
int leat__pub_make_ring(struct leat__geometry *g, struct leat_region **ret, unsigned char **view)
{
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD,
				     .name = "leat-ring", .size = g->total, .init = ring_init,
				     .init_arg = g};
	int e = leat_region_create(&o, ret);

	if (e < 0)
		return e;
	e = leat__region_view(*ret, g->data_off, g->capacity, view);
	if (e == 0)
		e = leat__seal_ring(leat_region_fd(*ret));
	if (e < 0) {
		leat_region_close(*ret);
		*ret = NULL;
	}
	return e;
}

static void add_group(struct leat__out *out, const struct leat__slot *slot)
{
	char name[sizeof(slot->name)];

	memcpy(name, slot->name, sizeof(name)); /* others write there */
	name[sizeof(name) - 1] = 0;
	if (leat__load_acquire(&slot->mode) == LEAT__GROUP && leat__group_check(name) == 0)
		leat__wire_text(out, LEAT__T_GROUP, name);
}

int leat__pub_announce(struct leat_pub *p, struct leat_region *ring, const struct leat__geometry *g,
		       uint32_t n_rings, uint32_t n_slots, uint64_t origin, int64_t ns,
		       struct leat__place *ret)
{
	struct leat__place at = {0};
	struct leat__packet pkt;
	struct leat__out out;
	struct leat__in in;
	int e;

	leat__wire_begin(&out, LEAT__PUB_OPEN, 0, 0);
	leat__wire_text(&out, LEAT__T_NAME, p->name);
	leat__wire_u32(&out, LEAT__T_MAX_RINGS, n_rings);
	leat__wire_u32(&out, LEAT__T_MAX_SLOTS, n_slots);
	leat__wire_geometry(&out, LEAT__T_GEOMETRY, g);
	if (origin)
		leat__wire_u64(&out, LEAT__T_ORIGIN, origin);
	if (origin) /* it may be that none of their workers is left to tell the broker of them */
		for (uint32_t i = 0; i < p->at.cg.n_slots; i++)
			add_group(&out, &leat__ctrl_slots(p->ctrl, &p->at.cg)[i]);
	e = leat__errand(p->l, &p->announced, &out, leat_region_fd(ring), &pkt, &in, ns, &at.tie);
	if (e < 0)
		return e;
	at.object = in.head.object;
	e = leat__wire_get(&in, LEAT__T_RING_ID, &at.id, sizeof(at.id));
	if (e == 0)
		e = leat__wire_get(&in, LEAT__T_ENTRY, &at.entry, sizeof(at.entry));
	if (e == 0)
		e = leat__map_control(&pkt, &in, &at.control, &at.cg);
	if (e == 0 && at.entry >= at.cg.n_rings)
		e = leat__say(-EPROTO, "the broker named an impossible ring table entry");
	leat__packet_close(&pkt);
	if (e < 0)
		leat__place_leave(p->l, &at);
	else
		*ret = at;
	return e;
}

void leat__place_leave(struct leat *l, struct leat__place *place)
{
	if (place->object)
		leat__request_close(l, place->object);
	leat_region_close(place->control);
	leat__untie(l, place->tie);
	*place = (struct leat__place){0};
}

static void pub_free(struct leat_pub *p)
{
	leat__writer_deinit(&p->w);
	leat_region_close(p->data);
	leat_region_close(p->at.control);
	leat_region_close(p->next_data);
	leat_region_close(p->next_at.control);
	if (p->l) {
		leat__errand_drop(p->l, &p->announced);
		leat__untie(p->l, p->at.tie);
		leat__untie(p->l, p->next_at.tie);
	}
	free(p->name);
	free(p);
}

int leat_pub_open(struct leat *l, const char *name, const struct leat_pub_opts *opts, struct leat_pub **ret)
{
	return leat__pub_open(l, name, opts, CONTROL_NS, ret);
}

int leat__pub_open(struct leat *l, const char *name, const struct leat_pub_opts *opts, int64_t ns, struct leat_pub **ret)
{
	struct leat__geometry g;
	struct leat_pub_opts o;
	unsigned char *view = NULL;
	struct leat_pub *p;
	int e = leat__name_check(name);

	if (e == 0)
		e = leat__pub_options(&o, opts, &g, leat__page_size());
	if (e < 0)
		return e;
	p = calloc(1, sizeof(*p));
	if (p)
		p->name = strdup(name);
	if (!p || !p->name) {
		free(p);
		return leat__say(-ENOMEM, "open publisher: no memory");
	}
	p->l = l;
	leat__pub_setup(p, &o);
	e = leat__pub_make_ring(&g, &p->data, &view);
	if (e == 0)
		e = leat__pub_announce(p, p->data, &g, o.max_publishers, o.max_subscribers, 0,
				       ns, &p->at);
	if (e == 0) {
		leat__settle_region(p->data);
		p->ctrl = leat_region_addr(p->at.control);
		p->origin = p->at.id;
		p->w.bury = leat__pub_bury;
		p->w.bury_arg = p;
		p->w.stretch = STRETCH_MIN;
		e = leat__writer_init(&p->w, leat_region_addr(p->data), view, &g, p->ctrl, &p->at.cg, p->at.entry, p->at.id);
		if (e < 0)
			leat__request_close(l, p->at.object);
	}
	if (e < 0) {
		pub_free(p);
		return e;
	}
	leat__opened(l, &l->pubs, &p->node);
	leat__handle_add(&p->handle, leat__pub_forked);
	*ret = p;
	return 0;
}

void leat_pub_close(struct leat_pub *p)
{
	if (!p)
		return;
	if (p->l)
		leat__shut(p->l, &p->node);
	if (p->gone) {
		/* The maps stayed with the parent; at their addresses may be something else now. */
		if (p->l)
			p->data->addr = p->data->view = p->at.control->addr = NULL;
		if (p->next_at.control) /* else it was not settled yet, and is ours, too */
			p->next_data->addr = p->next_data->view = p->next_at.control->addr = NULL;
	} else {
		leat__handle_remove(&p->handle);
		leat__writer_close(&p->w);
		if (p->l) {
			leat__request_close(p->l, p->at.object);
			if (p->next_at.object)
				leat__request_close(p->l, p->next_at.object);
		} else {
			leat__hand_pub_close(p);
		}
	}
	if (!p->l)
		p->data = p->at.control = NULL; /* borrowed */
	pub_free(p);
}

static int parents(void)
{
	return leat__say(-ECHILD, "this publisher belongs to the parent process: open another");
}

/* With what has to be done first, and meanwhile: a publisher that waits for room goes over to another broker, too. */
static int claim(struct leat_pub *p, size_t size, void **ret, int64_t timeout_ns)
{
	uint64_t deadline = timeout_ns > 0 ? leat__deadline(timeout_ns) : LEAT__NEVER, now;
	int e;

	leat__pub_tend(p);
	while ((e = leat__writer_claim(&p->w, size, ret, timeout_ns)) > 0) {
		leat__pub_tend(p);
		now = leat__now();
		if (deadline != LEAT__NEVER)
			timeout_ns = deadline > now ? (int64_t)(deadline - now) : 1;
	}
	return e;
}

/* A ring that is full, a new sixteenth, a block, an error; and sizes that are better copied by memcpy. */
static __attribute__((noinline)) int send_long(struct leat_pub *p, const void *data, size_t size,
					       int64_t timeout_ns)
{
	unsigned char *quick = leat__writer_begin(&p->w, size);
	void *at;
	int e;

	if (quick) {
		if (size)
			memcpy(quick + sizeof(struct leat__record), data, size);
		leat__writer_finish(&p->w, quick, size);
		return leat__writer_publish(&p->w);
	}
	if (p->gone)
		return parents();
	e = claim(p, size, &at, timeout_ns);
	if (e < 0)
		return e;
	if (size)
		memcpy(at, data, size);
	return leat__writer_commit(&p->w, size, 0);
}

int leat_send(struct leat_pub *p, const void *data, size_t size, int64_t timeout_ns)
{
	struct leat__writer *w = &p->w;
	uint64_t tail = w->tail;
	unsigned char *at;

	if (__builtin_expect(!LEAT__SMALL(size) || w->claimed || w->batch ||
				     tail + leat__record_need(size) > w->stop,
			     0))
		return send_long(p, data, size, timeout_ns);
	at = w->data + (tail & w->mask);
	leat__copy_in(at + sizeof(struct leat__record), data, size);
	return leat__writer_put(w, at, tail, size);
}

static __attribute__((noinline)) int claim_long(struct leat_pub *p, size_t size, void **ret,
						int64_t timeout_ns)
{
	if (p->gone)
		return parents();
	return claim(p, size, ret, timeout_ns);
}

int leat_claim(struct leat_pub *p, size_t size, void **ret, int64_t timeout_ns)
{
	unsigned char *at = leat__writer_begin(&p->w, size);

	if (__builtin_expect(!at, 0))
		return claim_long(p, size, ret, timeout_ns);
	p->w.claimed = size + 1;
	*ret = at + sizeof(struct leat__record);
	return 0;
}

static __attribute__((noinline)) int commit_long(struct leat_pub *p, size_t size, unsigned flags)
{
	if (p->gone)
		return parents();
	if (flags & ~(unsigned)LEAT_MORE)
		return leat__fail(-EINVAL, "commit: unknown flags 0x%x", flags);
	return leat__writer_commit(&p->w, size, flags);
}

int leat_commit(struct leat_pub *p, size_t size, unsigned flags)
{
	struct leat__writer *w = &p->w;
	uint64_t tail = w->tail;
	unsigned char *at;

	/* Below stop: no mark is due here, and what is claimed is not a block. */
	if (__builtin_expect(size >= w->claimed || tail >= w->stop || flags > LEAT_MORE, 0))
		return commit_long(p, size, flags);
	at = w->data + (tail & w->mask);
	w->claimed = 0;
	if (!flags && !w->batch)
		return leat__writer_put(w, at, tail, size);
	leat__writer_finish(w, at, size);
	return flags ? 0 : leat__writer_publish(w);
}

int leat_abort(struct leat_pub *p)
{
	return p->gone ? parents() : leat__writer_abort(&p->w);
}

int leat_flush(struct leat_pub *p)
{
	if (p->gone)
		return parents();
	leat__writer_flush(&p->w);
	return 0;
}

static uint32_t attached(const struct leat_pub *p)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < p->w.n_slots; i++) {
		uint64_t s = leat__load_acquire(&p->w.lines[i].state);

		n += LEAT__RING_ID(s) == p->w.id &&
		     LEAT__IN(s, 1u << LEAT__ACTIVE | 1u << LEAT__WATCHES | 1u << LEAT__IDLE | LEAT__BUSY);
	}
	return n;
}

struct want_subscribers {
	const struct leat_pub *p;
	uint32_t n;
};

static int enough(void *arg)
{
	struct want_subscribers *want = arg;

	return attached(want->p) >= want->n;
}

int leat_wait_subscribers(struct leat_pub *p, unsigned n, int64_t timeout_ns)
{
	struct want_subscribers want = {p, n};

	if (p->gone)
		return parents();
	if (enough(&want))
		return 0;
	if (!timeout_ns)
		return leat__fail(-EAGAIN, "%u of %u subscribers are there", attached(p), n);
	/* Subscribers ring the space bell when they have joined. */
	if (leat__bell_wait(p->w.space_bell, NULL, enough, &want, leat__deadline(timeout_ns)) < 0)
		return leat__fail(-ETIMEDOUT, "only %u of %u subscribers came", attached(p), n);
	return 0;
}

int leat_pub_stat(struct leat_pub *p, struct leat_pub_stat *ret)
{
	struct leat_pub_stat st = {.struct_size = sizeof(st)};

	if (p->gone)
		return parents();
	st.sent = p->w.seq;
	st.bytes = leat__load_relaxed(&p->w.ring->bytes) + p->w.unsaid;
	st.waits = p->w.waits;
	st.evicted = p->w.evicted;
	st.capacity = p->w.g.capacity;
	st.subscribers = attached(p);
	st.blocks_held = leat__blocks_held(&p->w);
	return leat__give(ret, &st, sizeof(st), "publisher's counters");
}
