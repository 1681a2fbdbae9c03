/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer: claim, commit, refresh. Called by publishers and by rings made by hand. On the way of
 * one message there is no system call, no locked instruction and no fence, unless somebody sleeps or
 * the ring's next sixteenth begins.
 *
 * tail is the only commit point. limit is the permission: bytes [limit-capacity, tail) are intact,
 * so the writer stores only below limit, raises it before it uses it, and never lowers it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/base.h"
#include "mem/region.h"
#include "ring/writer.h"

#define TOUCH_NOW (UINT64_C(256) << 20)

int leat__writer_init(struct leat__writer *w, struct leat__ring_shm *ring, unsigned char *data,
		      const struct leat__geometry *g, struct leat__ctrl_shm *ctrl,
		      const struct leat__geometry *cg, uint32_t entry, uint64_t id)
{
	w->ring = ring;
	w->data = data;
	w->g = *g;
	w->mask = g->capacity - 1;
	w->limit = g->capacity;
	w->max_inline = g->capacity / 8;
	w->strict = (g->flags & LEAT__STRICT) != 0;
	w->block = -1;
	w->id = id;
	w->n_slots = cg->n_slots;
	w->bury_ns = LEAT__BURY_NS;
	w->lines = leat__ctrl_lines(ctrl, cg, entry);
	w->slots = leat__ctrl_slots(ctrl, cg);
	w->data_bell = &ctrl->data_bell;
	w->space_bell = &ctrl->space_bell;
	w->blocks_at = (unsigned char *)ring + g->blocks_off;
	if (g->n_blocks) {
		w->blocks = calloc(g->n_blocks, sizeof(*w->blocks));
		if (!w->blocks)
			return leat__say(-ENOMEM, "no memory for a publisher's table of blocks");
		/* Reserved, but not mapped: a first touch costs microseconds a page. Now, while that does
		 * not take long; else when a block is first used. */
		if (g->n_blocks * g->block_size <= TOUCH_NOW &&
		    leat__prefault(w->blocks_at, g->n_blocks * g->block_size, 1) == 0)
			for (uint32_t i = 0; i < g->n_blocks; i++)
				w->blocks[i].touched = 1;
	}
	if (w->grace_ns) {
		w->laggards = calloc(w->n_slots, sizeof(*w->laggards));
		if (!w->laggards)
			return leat__say(-ENOMEM, "no memory for a publisher's table of readers");
	}
	leat__store_relaxed(&ring->intent, g->capacity);
	leat__store_release(&ring->limit, g->capacity);
	return 0; /* stop is 0: the first message goes the long way, for its mark */
}

/* After the long way of anything: how far the short way may go now. */
static void settle(struct leat__writer *w)
{
	w->stop = w->strict || w->n_pending || w->block >= 0 ? 0 : leat__min(w->limit, w->next_mark);
	if (w->stretch && w->stop > w->tail + w->stretch)
		w->stop = w->tail + w->stretch;
}

int leat__writer_wake(struct leat__writer *w)
{
	w->stop = 0;
	return leat__bell_notify(w->data_bell);
}

void leat__writer_deinit(struct leat__writer *w)
{
	free(w->blocks);
	free(w->laggards);
	w->blocks = NULL;
	w->laggards = NULL;
}

void leat__writer_copy(const struct leat__writer *w, struct leat__ring_shm *ring, unsigned char *data)
{
	const struct leat__ring_shm *old = w->ring;

	memcpy(data, w->data, (size_t)w->g.capacity);
	memcpy(ring->marks, old->marks, sizeof(ring->marks));
	leat__store_relaxed(&ring->tail, w->tail); /* some look already, for began */
	ring->last = old->last;
	ring->sent = old->sent;
	ring->bytes = old->bytes;
	ring->intent = ring->limit = w->limit;
	ring->waits = old->waits;
	ring->evicted = old->evicted;
	for (uint32_t i = 0; i < w->g.n_blocks; i++) {
		size_t at = (size_t)(i * w->g.block_size);

		leat__block_words(ring)[i] = w->blocks[i].gen;
		if (w->blocks[i].state != LEAT__B_FREE)
			memcpy((char *)ring + w->g.blocks_off + at, w->blocks_at + at, (size_t)w->g.block_size);
	}
}

int leat__writer_switch(struct leat__writer *w, struct leat__ring_shm *ring, unsigned char *data,
			struct leat__ctrl_shm *ctrl, const struct leat__geometry *cg, uint32_t entry,
			uint64_t id)
{
	struct leat__laggard *laggards = NULL;

	if (w->grace_ns) {
		laggards = calloc(cg->n_slots, sizeof(*laggards));
		if (!laggards)
			return leat__say(-ENOMEM, "no memory for a publisher's table of readers");
		free(w->laggards);
		w->laggards = laggards;
	}
	for (uint32_t i = 0; i < w->g.n_blocks; i++) {
		/* Who retains a block does so in the old ring. */
		if (w->blocks[i].state == LEAT__B_CLOSING)
			w->blocks[i].state = LEAT__B_LIVE;
		w->blocks[i].touched = w->blocks[i].state != LEAT__B_FREE;
	}
	w->ring = ring;
	w->data = data;
	w->id = id;
	w->n_slots = cg->n_slots;
	w->bury_ns = LEAT__BURY_NS;
	w->lines = leat__ctrl_lines(ctrl, cg, entry);
	w->slots = leat__ctrl_slots(ctrl, cg);
	w->data_bell = &ctrl->data_bell;
	w->space_bell = &ctrl->space_bell;
	w->blocks_at = (unsigned char *)ring + w->g.blocks_off;
	/* Whoever sees this sees all that was copied, and may go on here. */
	leat__store_release(&ring->began, w->tail + 1);
	leat__bell_toll(w->data_bell);
	return 0;
}

/* A reader that blocks us under an unchanged word and cursor for longer than its grace: out. */
static int evict(struct leat__writer *w, uint32_t slot, uint64_t state, uint64_t cursor)
{
	struct leat__laggard *l = &w->laggards[slot];
	uint64_t now = leat__now();

	if (l->state != state || l->cursor != cursor || !l->since) {
		*l = (struct leat__laggard){state, cursor, now};
		return 0;
	}
	if (now - l->since < w->grace_ns)
		return 0;
	/* The exact word that was scanned: a newcomer's differs in its grant or rejoin number. */
	if (!leat__cas(&w->lines[slot].state, state, (state & ~UINT64_C(0xf)) | LEAT__EVICTED))
		return 0;
	leat__store_relaxed(&w->ring->evicted, ++w->evicted);
	return 1;
}

uint64_t leat__writer_scan(struct leat__writer *w, uint64_t need)
{
	uint64_t least = w->tail - w->batch;

	for (uint32_t i = 0; i < w->n_slots; i++) {
		/* Pair with the release stores of cursor and state in join and advance (reader.c). */
		uint64_t s = leat__load_acquire(&w->lines[i].state);
		uint64_t c;

		if (!LEAT__IN(s, LEAT__WAITED_FOR) || LEAT__RING_ID(s) != w->id)
			continue;
		c = leat__load_acquire(&w->lines[i].cursor) & ~UINT64_C(7);
		/* Below limit - capacity: a joiner that will see intent and go on, or garbage. */
		if (c >= least || c + w->g.capacity < w->limit)
			continue;
		if (need && w->grace_ns && LEAT__STATE(s) == LEAT__ACTIVE && c + w->g.capacity < w->tail + need && evict(w, i, s, c))
			continue;
		least = c;
	}
	return least;
}

/* Raise limit so that @need more bytes fit; 1 they do, 0 not yet. Nothing is pending here. */
static int refresh(struct leat__writer *w, uint64_t need)
{
	uint64_t cap = w->g.capacity;
	uint64_t want = leat__min(w->tail + need + cap / 16, w->tail - w->batch + cap);
	uint64_t to = want;

	if (!(w->g.flags & LEAT__OVERWRITE)) {
		leat__store_relaxed(&w->ring->intent, want);
		/* Pairs with the fence of a joiner (reader.c): either we see its cursor, or it sees
		 * our intent. */
		leat__fence();
		to = leat__min(want, leat__writer_scan(w, need) + cap);
	}
	if (to > w->limit) {
		w->limit = to;
		leat__store_relaxed(&w->ring->limit, to);
		/* limit before the data below it, non-temporal stores included; pairs with the
		 * acquire fence before a reader's last look at limit. */
		leat__fence();
	}
	return w->tail + need <= w->limit;
}

void leat__writer_flush(struct leat__writer *w)
{
	if (!w->batch)
		return;
	leat__writer_publish(w);
	if (w->n_pending) { /* marks name committed records only: after tail */
		for (uint32_t i = 0; i < w->n_pending; i++) {
			uint64_t p = w->pending[i];

			leat__store_release(&w->ring->marks[p / (w->g.capacity / LEAT__MARKS) %
							    LEAT__MARKS],
					    p);
		}
		w->n_pending = 0;
	}
	if (w->strict) {
		leat__fence();
		leat__bell_notify(w->data_bell);
	}
	settle(w);
}

struct want_room {
	struct leat__writer *w;
	uint64_t need;
};

static int has_room(void *arg)
{
	struct want_room *want = arg;

	return refresh(want->w, want->need);
}

static int has_block(void *arg)
{
	struct want_room *want = arg;
	int b = leat__blocks_get(want->w);

	if (b < 0)
		return 0;
	want->w->block = b;
	return 1;
}

/* See whether who holds us up is dead, not too often. 1: see bury in writer.h. */
static int bury(struct leat__writer *w)
{
	uint64_t now;

	if (!w->bury)
		return 0;
	now = leat__now();
	if (now - w->buried_at < w->bury_ns)
		return 0;
	w->buried_at = now;
	return w->bury(w->bury_arg);
}

/* Wait for @cond on the space bell, waking often enough to notice that a grace has run out. 1: see bury. */
static int wait_space(struct leat__writer *w, leat__cond_fn *cond, struct want_room *want,
		      uint64_t deadline)
{
	leat__store_relaxed(&w->ring->waits, ++w->waits);
	for (;;) {
		uint64_t until = deadline;
		int r;

		if (w->grace_ns)
			until = leat__min(deadline, leat__now() + w->grace_ns / 2 + 1);
		if (w->bury)
			until = leat__min(until, leat__now() + w->bury_ns);
		r = leat__bell_wait(w->space_bell, &w->spin, cond, want, until);
		if (r != -ETIMEDOUT || until == deadline)
			return r;
		if (bury(w)) {
			leat__store_relaxed(&w->ring->waits, --w->waits); /* it is not over yet */
			return 1;
		}
	}
}

/* Room for @need bytes at tail. */
static int room(struct leat__writer *w, uint64_t need, int64_t timeout_ns, uint64_t deadline)
{
	struct want_room want = {w, need};
	int r;

	leat__writer_flush(w); /* what waits for more must not wait for us */
	if (refresh(w, need))
		return 0;
	if (!timeout_ns) {
		bury(w);
		leat__store_relaxed(&w->ring->waits, ++w->waits);
		return leat__say(-EAGAIN, "the ring is full: its slowest subscriber has not read enough");
	}
	r = wait_space(w, has_room, &want, deadline);
	return r < 0 ? leat__say(-ETIMEDOUT, "the ring stayed full: its slowest subscriber does not read") : r;
}

static int block_room(struct leat__writer *w, int64_t timeout_ns, uint64_t deadline)
{
	struct want_room want = {w, 0};
	int b, r;

	leat__writer_flush(w);
	b = leat__blocks_get(w);
	if (b < 0 && timeout_ns) {
		r = wait_space(w, has_block, &want, deadline);
		if (r >= 0)
			return r;
	}
	if (b < 0) {
		b = leat__blocks_get(w); /* why not, now */
		if (b == -EAGAIN)
			return timeout_ns ? leat__say(-ETIMEDOUT, "every block stayed unread")
					  : leat__say(-EAGAIN, "every block waits to be read");
		if (b < 0)
			return b;
	}
	w->block = b;
	return 0;
}

int leat__writer_claim(struct leat__writer *w, uint64_t size, void **ret, int64_t timeout_ns)
{
	uint64_t need = leat__align(sizeof(struct leat__record) + size, 8);
	int large = size > w->max_inline;
	uint64_t deadline;
	int r;

	if (w->claimed)
		return leat__say(-EBUSY, "something is claimed already: commit or abort it first");
	if (large) {
		if (size > w->g.block_size)
			return leat__fail(-EMSGSIZE, "a message of %llu bytes never fits: this publisher "
						     "takes %llu; set max_size when opening it",
					  (unsigned long long)size,
					  (unsigned long long)(w->g.n_blocks ? w->g.block_size
									     : w->max_inline));
		need = sizeof(struct leat__record) + sizeof(struct leat__block_ref);
	}
	if (large || w->tail + need > w->limit) {
		deadline = timeout_ns > 0 ? leat__deadline(timeout_ns) : LEAT__NEVER;
		if (large) {
			r = block_room(w, timeout_ns, deadline);
			if (r != 0)
				return r;
		}
		if (w->tail + need > w->limit) {
			r = room(w, need, timeout_ns, deadline);
			if (r != 0) {
				if (large)
					leat__blocks_put(w, w->block);
				w->block = -1;
				return r;
			}
		}
	}
	w->claimed = size + 1;
	settle(w);
	*ret = large ? w->blocks_at + (uint64_t)w->block * w->g.block_size
		     : w->data + (w->tail & w->mask) + sizeof(struct leat__record);
	return 0;
}

/* The record at tail refers to the claimed block. */
static void refer(struct leat__writer *w, uint64_t size)
{
	struct leat__block *b = &w->blocks[w->block];
	struct leat__block_ref ref = {(uint32_t)w->block, 0, b->gen, size};
	struct leat__record rec = {LEAT__IN_BLOCK | (uint32_t)sizeof(ref), (uint32_t)w->seq};
	unsigned char *at = w->data + (w->tail & w->mask);

	memcpy(at, &rec, sizeof(rec));
	memcpy(at + sizeof(rec), &ref, sizeof(ref));
	b->pos = w->tail;
	b->state = LEAT__B_LIVE;
	w->block = -1;
	w->last = w->tail;
	w->tail += sizeof(rec) + sizeof(ref);
	w->batch += sizeof(rec) + sizeof(ref);
	w->unsaid += size;
	w->seq++;
}

int leat__writer_commit(struct leat__writer *w, uint64_t size, unsigned more)
{
	if (size >= w->claimed) /* also when nothing is: claimed is 0 then */
		return leat__say(-EINVAL, "commit: nothing claimed, or less than that");
	if (w->tail >= w->next_mark) {
		uint64_t sixteenth = w->g.capacity / LEAT__MARKS;

		w->pending[w->n_pending++] = w->tail;
		w->next_mark = (w->tail / sixteenth + 1) * sixteenth;
	}
	if (w->block >= 0)
		refer(w, size);
	else
		leat__writer_finish(w, w->data + (w->tail & w->mask), size);
	w->claimed = 0;
	/* A batch never spans more sixteenths than pending[] has room for: it fits in the ring. */
	if (!more || w->n_pending > LEAT__MARKS)
		leat__writer_flush(w);
	settle(w);
	return 0;
}

int leat__writer_abort(struct leat__writer *w)
{
	if (!w->claimed)
		return leat__say(-EINVAL, "abort: nothing is claimed");
	if (w->block >= 0)
		leat__blocks_put(w, w->block);
	w->block = -1;
	w->claimed = 0;
	settle(w);
	return 0;
}

void leat__writer_close(struct leat__writer *w)
{
	if (w->claimed)
		leat__writer_abort(w);
	leat__writer_flush(w);
	/* After the last tail store: pairs with the acquire load of closed in reader.c. */
	leat__store_release(&w->ring->closed, 1u);
	leat__bell_toll(w->data_bell);
}
