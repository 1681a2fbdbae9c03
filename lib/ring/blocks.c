/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks: room for large messages beside the ring. Called by the writer only. Nothing is counted, so
 * nothing can leak: a block is free again when its record is behind every cursor that is waited for
 * and no slot says that it retains it.
 *
 * A block's word in the publisher's page: g live, g+1 closing, g+2 rewritten (the next g).
 */
#include <errno.h>
#include <stdio.h>
#include "base/base.h"
#include "mem/region.h"
#include "ring/writer.h"

static uint64_t *word_of(struct leat__writer *w, int block)
{
	return &leat__block_words(w->ring)[block];
}

/* Which slot retains the block, -1 none. */
static int holder(struct leat__writer *w, int block)
{
	uint64_t held = LEAT__WORD(w->id, (uint32_t)block + 1);

	for (uint32_t i = 0; i < w->n_slots; i++)
		for (int k = 0; k < LEAT__HELD; k++)
			if (leat__load_acquire(&w->slots[i].held[k]) == held)
				return (int)i;
	return -1;
}

/* Is its record behind everybody we wait for? */
static int passed(struct leat__writer *w, int block)
{
	return (w->g.flags & LEAT__OVERWRITE) || w->blocks[block].pos < leat__writer_scan(w, 0);
}

/* Try to make a live or closing block ours. */
static int take(struct leat__writer *w, int block)
{
	struct leat__block *b = &w->blocks[block];

	if (b->state == LEAT__B_LIVE) {
		leat__store_relaxed(word_of(w, block), b->gen + 1);
		b->state = LEAT__B_CLOSING;
	}
	/* Pairs with the fence in a reader's retain: it sees closing, or we see that it holds. The
	 * cursors are looked at again: a joiner with history may have come since. */
	leat__fence();
	if (holder(w, block) >= 0 || !passed(w, block))
		return 0;
	b->gen += 2;
	leat__store_relaxed(word_of(w, block), b->gen);
	/* The word before the first store into the block; pairs with a reader's acquire fence
	 * between its last use and its look at the word. */
	leat__fence();
	b->state = LEAT__B_CLAIMED;
	return 1;
}

int leat__blocks_get(struct leat__writer *w)
{
	int n = (int)w->g.n_blocks;
	int behind = 0, slot = -1;
	for (int i = 0; i < n; i++)
		if (w->blocks[i].state == LEAT__B_FREE) {
			if (!w->blocks[i].touched) /* its pages are reserved, and not mapped yet */
				leat__prefault(w->blocks_at + (uint64_t)i * w->g.block_size,
					       w->g.block_size, 1);
			w->blocks[i].touched = 1;
			w->blocks[i].state = LEAT__B_CLAIMED;
			return i;
		}
	for (int i = 0; i < n; i++)
		if (w->blocks[i].state == LEAT__B_CLOSING && take(w, i))
			return i;
	for (;;) { /* oldest first */
		int oldest = -1;

		for (int i = 0; i < n; i++)
			if (w->blocks[i].state == LEAT__B_LIVE &&
			    (oldest < 0 || w->blocks[i].pos < w->blocks[oldest].pos))
				oldest = i;
		if (oldest < 0)
			break;
		if (!passed(w, oldest)) {
			behind = 1;
			break;
		}
		if (take(w, oldest))
			return oldest;
	}
	if (behind)
		return -EAGAIN;
	for (int i = 0; i < n && slot < 0; i++)
		slot = holder(w, i);
	if (slot < 0)
		return -EAGAIN;
	return leat__fail(-ENOBUFS, "all %d blocks are retained, by process %u for one: drop some there, "
				    "or open the publisher with more blocks",
			  n, leat__load_relaxed(&w->slots[slot].pid));
}

void leat__blocks_put(struct leat__writer *w, int block)
{
	w->blocks[block].state = LEAT__B_FREE;
}

uint32_t leat__blocks_held(struct leat__writer *w)
{
	uint32_t n = 0;

	for (int i = 0; i < (int)w->g.n_blocks; i++)
		n += holder(w, i) >= 0;
	return n;
}
