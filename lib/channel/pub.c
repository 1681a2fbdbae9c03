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
					   (o->strict ? LEAT__STRICT : 0),
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

/* Make the region with the ring in it, mapped for writing, then sealed against everybody else. */
static int make_ring(struct leat_pub *p, struct leat__geometry *g, unsigned char **view)
{
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD,
				     .name = "leat-ring", .size = g->total, .init = ring_init,
				     .init_arg = g};
	int e = leat_region_create(&o, &p->data);

	if (e == 0)
		e = leat__region_view(p->data, g->data_off, g->capacity, view);
	if (e == 0)
		e = leat__seal_ring(leat_region_fd(p->data));
	return e;
}

static int announce(struct leat_pub *p, const char *name, const struct leat_pub_opts *o,
		    const struct leat__geometry *g, uint64_t *id)
{
	struct leat__packet pkt;
	struct leat__out out;
	struct leat__in in;
	int e;

	leat__wire_begin(&out, LEAT__PUB_OPEN, 0, 0);
	leat__wire_text(&out, LEAT__T_NAME, name);
	leat__wire_u32(&out, LEAT__T_MAX_RINGS, o->max_publishers);
	leat__wire_u32(&out, LEAT__T_MAX_SLOTS, o->max_subscribers);
	leat__wire_geometry(&out, LEAT__T_GEOMETRY, g);
	e = leat__request(p->l, &out, leat_region_fd(p->data), &pkt, &in);
	if (e < 0)
		return e;
	p->object = in.head.object;
	e = leat__wire_get(&in, LEAT__T_RING_ID, id, sizeof(*id));
	if (e == 0)
		e = leat__wire_get(&in, LEAT__T_ENTRY, &p->entry, sizeof(p->entry));
	if (e == 0)
		e = leat__map_control(&pkt, &in, &p->control, &p->cg);
	if (e == 0 && p->entry >= p->cg.n_rings)
		e = leat__say(-EPROTO, "the broker named an impossible ring table entry");
	leat__packet_close(&pkt);
	if (e < 0)
		leat__request_close(p->l, p->object);
	return e;
}

static void pub_free(struct leat_pub *p)
{
	leat__writer_deinit(&p->w);
	leat_region_close(p->data);
	leat_region_close(p->control);
	free(p);
}

int leat_pub_open(struct leat *l, const char *name, const struct leat_pub_opts *opts,
		  struct leat_pub **ret)
{
	struct leat__geometry g;
	struct leat_pub_opts o;
	unsigned char *view = NULL;
	struct leat_pub *p;
	uint64_t id = 0;
	int e = leat__name_check(name);

	if (e == 0)
		e = leat__pub_options(&o, opts, &g, leat__page_size());
	if (e < 0)
		return e;
	p = calloc(1, sizeof(*p));
	if (!p)
		return leat__say(-ENOMEM, "open publisher: no memory");
	p->l = l;
	leat__pub_setup(p, &o);
	e = make_ring(p, &g, &view);
	if (e == 0)
		e = announce(p, name, &o, &g, &id);
	if (e == 0) {
		p->ctrl = leat_region_addr(p->control);
		leat__settle_region(p->data);
		e = leat__writer_init(&p->w, leat_region_addr(p->data), view, &g, p->ctrl, &p->cg,
				      p->entry, id);
		if (e < 0)
			leat__request_close(l, p->object);
	}
	if (e < 0) {
		pub_free(p);
		return e;
	}
	pthread_mutex_lock(&l->list_lock);
	p->at = &l->pubs;
	p->next = l->pubs;
	if (p->next)
		p->next->at = &p->next;
	l->pubs = p;
	pthread_mutex_unlock(&l->list_lock);
	leat__handle_add(&p->handle, leat__pub_forked);
	*ret = p;
	return 0;
}

void leat_pub_close(struct leat_pub *p)
{
	if (!p)
		return;
	if (p->l) {
		pthread_mutex_lock(&p->l->list_lock);
		*p->at = p->next;
		if (p->next)
			p->next->at = p->at;
		pthread_mutex_unlock(&p->l->list_lock);
	}
	if (p->gone) {
		/* The maps stayed with the parent; at their addresses may be something else now. */
		if (p->l)
			p->data->addr = p->data->view = p->control->addr = NULL;
	} else {
		leat__handle_remove(&p->handle);
		leat__writer_close(&p->w);
		if (p->l)
			leat__request_close(p->l, p->object);
		else
			leat__hand_pub_close(p);
	}
	if (!p->l)
		p->data = p->control = NULL; /* borrowed */
	pub_free(p);
}

static int parents(void)
{
	return leat__say(-ECHILD, "this publisher belongs to the parent process: open another");
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
	e = leat__writer_claim(&p->w, size, &at, timeout_ns);
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

int leat_claim(struct leat_pub *p, size_t size, void **ret, int64_t timeout_ns)
{
	unsigned char *at = leat__writer_begin(&p->w, size);

	if (__builtin_expect(!at, 0))
		return p->gone ? parents() : leat__writer_claim(&p->w, size, ret, timeout_ns);
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
		     (LEAT__STATE(s) == LEAT__ACTIVE || LEAT__STATE(s) == LEAT__WATCHES);
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
