/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings by hand: the publisher and subscriber handles on a ring in any region, without a broker. What
 * the broker does for channels is done here by locks on the region's own file: one writer at a time,
 * and the slots of dead readers freed. A region without a file (ANON, SYSV) goes by process ids.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <leat/ring.h>
#include "base/base.h"
#include "channel/channel.h"

#define WRITER   UINT32_C(0x80000000) /* the byte whose lock makes a process the writer */
#define LOOK_NS  UINT64_C(100000000)

static int plan(const struct leat_pub_opts *opts, uint64_t page, struct leat_pub_opts *o,
		struct leat__geometry *g, struct leat__geometry *cg)
{
	int e = leat__pub_options(o, opts, g, page);

	if (e == 0 && o->retain)
		e = leat__say(-EINVAL, "ring by hand: retain is the broker's; a ring stays as long as its region");
	return e < 0 ? e : leat__ctrl_geometry(cg, 1, o->max_subscribers, page);
}

int leat_ring_plan(const struct leat_pub_opts *opts, uint64_t *ret_data, uint64_t *ret_control)
{
	struct leat__geometry g, cg;
	struct leat_pub_opts o;
	int e = plan(opts, leat__page_size(), &o, &g, &cg);

	if (e < 0)
		return e;
	*ret_data = g.total;
	*ret_control = cg.total;
	return 0;
}

static int writable(const struct leat_region *r)
{
	return !(r->flags & (LEAT_RDONLY | LEAT_PRIVATE));
}

/* ---- the writer ---- */

static int dead_writer(struct leat_region *where, const struct leat__ctrl_shm *ctrl)
{
	uint32_t owner = leat__load_acquire(&ctrl->writer);

	if (!owner)
		return 1;
	return where->fd >= 0 ? leat__life_dead(where->fd, WRITER)
			      : leat__region_life_dead(where, owner);
}

/* Become the one writer: by the kernel's lock where there is a file, else by the word. */
static int become_writer(struct leat_pub *p, struct leat_region *where, struct leat__ctrl_shm *ctrl)
{
	uint32_t me = (uint32_t)getpid(), old;
	int e = 0;

	if (where->fd >= 0) {
		e = leat__life_begin_at(&p->writing, where->fd, WRITER);
		if (e == 0)
			leat__store_release(&ctrl->writer, me);
	} else {
		old = leat__load_acquire(&ctrl->writer);
		if ((old && !leat__region_life_dead(where, old)) || !leat__cas(&ctrl->writer, old, me))
			e = -EBUSY;
	}
	if (e == -EBUSY)
		return leat__fail(-EBUSY, "create ring: process %u writes this one already",
				  leat__load_acquire(&ctrl->writer));
	return e;
}

/* A slot whose reader is dead: nobody waits for it, nothing is held by it. */
static int bury(void *arg)
{
	struct leat_pub *p = arg;
	struct leat_region *where = p->at.control;
	struct leat__slot *slots = leat__ctrl_slots(p->ctrl, &p->at.cg);

	for (uint32_t i = 0; i < p->at.cg.n_slots; i++) {
		uint64_t owner = leat__load_acquire(&slots[i].client);
		struct leat__line *line = &p->w.lines[i];

		if (!owner || !leat__region_life_dead(where, (uint32_t)owner))
			continue;
		leat__store_release(&line->state, LEAT__WORD(p->w.id, LEAT__DONE));
		for (int k = 0; k < LEAT__HELD; k++)
			leat__store_release(&slots[i].held[k], UINT64_C(0));
		leat__cas(&slots[i].client, owner, UINT64_C(0));
	}
	return 0;
}

static void clear_ring(struct leat__ring_shm *ring, const struct leat__geometry *g)
{
	memset((char *)ring + sizeof(ring->head), 0, g->head_size - sizeof(ring->head));
	ring->pid = (uint32_t)getpid();
	leat__head_write(&ring->head, LEAT__MAGIC_RING, g);
}

/* Put the control region right for another ring, which is not LIVE yet; its id. */
static uint64_t next_ring(struct leat__ctrl_shm *ctrl, const struct leat__geometry *cg, uint64_t room)
{
	struct leat__geometry old;
	uint64_t id;

	/* Readers of an earlier ring keep their slots; their lines name its id and mean nothing. */
	if (leat__head_read(&ctrl->head, LEAT__MAGIC_CTRL, room, &old) < 0 ||
	    old.n_slots != cg->n_slots || old.page != cg->page)
		leat__head_write(&ctrl->head, LEAT__MAGIC_CTRL, cg);
	id = leat__load_relaxed(&ctrl->ring_id) + 1;
	id = id > LEAT__ID_MAX ? 1 : id;
	leat__store_release(&leat__ctrl_entries(ctrl)->word, UINT64_C(0));
	leat__store_relaxed(&ctrl->ring_id, id);
	return id;
}

int leat_ring_create(struct leat_region *data, struct leat_region *control,
		     const struct leat_pub_opts *opts, struct leat_pub **ret)
{
	struct leat_region *where = control ? control : data;
	struct leat__geometry g;
	struct leat__ctrl_shm *ctrl;
	struct leat_pub_opts o;
	unsigned char *view;
	struct leat_pub *p = calloc(1, sizeof(*p));
	uint64_t off, id;
	int e = p ? plan(opts, data->page, &o, &g, &p->at.cg) : leat__say(-ENOMEM, "no memory for a ring");

	if (e == 0 && (!writable(data) || !writable(where)))
		e = leat__say(-EROFS, "create ring: its regions must be mapped read-write and shared");
	off = control ? 0 : g.total;
	if (e == 0 && (data->size < g.total || where->size < off ||
		       where->size - off < p->at.cg.total))
		e = leat__fail(-ENOSPC, "create ring: it needs %llu bytes of data and %llu of control, the "
					"regions have %llu and %llu",
			       (unsigned long long)g.total, (unsigned long long)p->at.cg.total,
			       (unsigned long long)data->size,
			       (unsigned long long)(where->size - leat__min(off, where->size)));
	if (e < 0) {
		free(p);
		return e;
	}
	ctrl = (struct leat__ctrl_shm *)(void *)((char *)leat_region_addr(where) + off);
	e = become_writer(p, where, ctrl);
	if (e == 0)
		e = leat__region_view(data, g.data_off, g.capacity, &view);
	if (e < 0) {
		leat__life_end(&p->writing);
		free(p);
		return e;
	}
	p->data = data;
	p->at.control = where;
	p->ctrl = ctrl;
	id = next_ring(ctrl, &p->at.cg, where->size - off);
	clear_ring(leat_region_addr(data), &g);
	leat__pub_setup(p, &o);
	p->w.bury = bury;
	p->w.bury_arg = p;
	e = leat__writer_init(&p->w, leat_region_addr(data), view, &g, ctrl, &p->at.cg, 0, id);
	if (e < 0) {
		leat__region_unview(data);
		leat__life_end(&p->writing);
		leat__writer_deinit(&p->w);
		free(p);
		return e;
	}
	leat__store_release(&leat__ctrl_entries(ctrl)->word, LEAT__WORD(id, LEAT__LIVE));
	leat__bell_toll(&ctrl->data_bell);
	leat__handle_add(&p->handle, leat__pub_forked);
	*ret = p;
	return 0;
}

void leat__hand_pub_close(struct leat_pub *p)
{
	leat__store_release(&leat__ctrl_entries(p->ctrl)->word, LEAT__WORD(p->w.id, LEAT__ENDED));
	leat__store_release(&p->ctrl->writer, 0u);
	leat__bell_toll(&p->ctrl->data_bell);
	leat__region_unview(p->data);
	leat__life_end(&p->writing);
}

/* ---- readers ---- */

static uint64_t current_ring(const struct leat_sub *s)
{
	return LEAT__RING_ID(leat__load_acquire(&leat__ctrl_entries(s->seat->ctrl)->word));
}

int leat__hand_look(struct leat_sub *s)
{
	struct leat__attached *a = s->n ? s->rings[0] : NULL;
	uint64_t now;

	if (!a || a->dead || !s->seat->ctrl)
		return 0;
	if (current_ring(s) != a->r.id) {
		/* Its memory has a new ring in it: what we had not read is gone. */
		leat__reader_leave(&a->r);
		a->r.pos = a->r.seen = leat__load_acquire(&a->r.ring->tail);
		a->dead = 1;
		return 1;
	}
	now = leat__now();
	if (now - s->looked_at < LOOK_NS)
		return 0;
	s->looked_at = now;
	a->dead = dead_writer(s->hand_control, s->seat->ctrl);
	return a->dead;
}

/* A free slot, or one whose reader is dead. */
static int take_slot(struct leat_sub *s)
{
	struct leat__slot *slots = leat__ctrl_slots(s->seat->ctrl, &s->seat->cg);
	uint32_t me;
	int e = leat__region_life(s->hand_control, &me);

	if (e < 0)
		return e;
	for (uint32_t i = 0; i < s->seat->cg.n_slots; i++) {
		uint64_t owner = leat__load_acquire(&slots[i].client);

		if (owner && !leat__region_life_dead(s->hand_control, (uint32_t)owner))
			continue;
		if (!leat__cas(&slots[i].client, owner, (uint64_t)me))
			continue;
		for (int k = 0; k < LEAT__HELD; k++)
			leat__store_relaxed(&slots[i].held[k], UINT64_C(0));
		slots[i].mode = s->mode;
		slots[i].pid = (uint32_t)getpid();
		slots[i].received = slots[i].lost = 0;
		s->slot = s->seat->slot = &slots[i];
		s->seat->slot_index = i;
		return 0;
	}
	return leat__fail(-EUSERS, "open ring: all %u reader slots are taken, one by process %u",
			  s->seat->cg.n_slots, slots[0].pid);
}

/* Take part through a control region. */
static int take_part(struct leat_sub *s, struct leat_region *where, uint64_t off, uint64_t *id)
{
	int e;

	if (off >= where->size)
		return leat__say(-EBADMSG, "open ring: no control region follows it; give one, or map the "
					   "data read-only to observe");
	s->seat->ctrl = (struct leat__ctrl_shm *)(void *)((char *)leat_region_addr(where) + off);
	e = leat__head_read(&s->seat->ctrl->head, LEAT__MAGIC_CTRL, where->size - off, &s->seat->cg);
	if (e == 0 && s->seat->cg.n_rings != 1)
		e = leat__say(-EBADMSG, "open ring: that control region is a channel's");
	if (e == 0) {
		*id = LEAT__RING_ID(leat__load_acquire(&leat__ctrl_entries(s->seat->ctrl)->word));
		if (!*id)
			e = leat__say(-EBADMSG, "open ring: it is being made; try again");
	}
	s->hand_control = where;
	return e < 0 ? e : take_slot(s);
}

int leat_ring_open(struct leat_region *data, struct leat_region *control,
		   const struct leat_sub_opts *opts, struct leat_sub **ret)
{
	const struct leat__ring_shm *ring = leat_region_addr(data);
	int here = writable(data) || control;
	struct leat__line *line = NULL;
	struct leat__attached *a;
	struct leat__geometry g;
	struct leat_sub_opts o;
	unsigned char *view;
	struct leat_sub *s;
	uint64_t id = 1;
	int e = leat__head_read(&ring->head, LEAT__MAGIC_RING, data->size, &g);

	if (e == 0)
		e = leat__sub_options(&o, opts);
	if (e == 0 && control && !writable(control))
		e = leat__say(-EROFS, "open ring: its control region must be mapped read-write");
	if (e < 0)
		return e;
	/* Written before this machine booted: nobody is there to take part with. */
	if (!leat__head_this_boot(&ring->head))
		here = 0;
	s = leat__sub_new(&o);
	if (!s)
		return -ENOMEM;
	s->hand_data = data;
	s->seat = leat__seat_new(s);
	if (!s->seat)
		e = -ENOMEM;
	if (e == 0 && here)
		e = take_part(s, control ? control : data, control ? 0 : g.total, &id);
	if (e == 0)
		e = leat__region_view(data, g.data_off, g.capacity, &view);
	if (e == 0) {
		e = leat__sub_attach(s, data, 0, &g, &a);
		if (e < 0)
			leat__region_unview(data);
	}
	if (e < 0) {
		leat__hand_sub_close(s);
		return e;
	}
	if (here)
		line = &leat__ctrl_lines(s->seat->ctrl, &s->seat->cg, 0)[s->seat->slot_index];
	a->origin = id;
	leat__reader_init(&a->r, leat_region_addr(data), view, &g, id, line,
			  here ? &s->seat->ctrl->space_bell : (uint32_t *)(void *)&s->no_bell);
	a->dead = !leat__head_this_boot(&ring->head);
	leat__reader_join(&a->r, LEAT__WORD(id, ((uint64_t)getpid() & 0xfff) << 12),
			  here && s->mode == LEAT__WAITING, s->from);
	if (here)
		leat__bell_toll(&s->seat->ctrl->space_bell);
	*ret = s;
	return 0;
}

void leat__hand_sub_close(struct leat_sub *s)
{
	struct leat__slot *slot = s->gone ? NULL : s->slot;
	struct leat__ctrl_shm *ctrl = s->seat ? s->seat->ctrl : NULL;

	leat__sub_free(s); /* says DONE, drops what is held */
	if (slot) {
		leat__store_release(&slot->client, UINT64_C(0));
		leat__bell_toll(&ctrl->space_bell);
	}
}
