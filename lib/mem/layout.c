/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Geometry: works out where things lie, writes headers, reads and checks them. Pure but for the boot
 * id. Called by whoever makes or maps a ring or control region; never maps anything itself.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/atomic.h"
#include "base/base.h"
#include "mem/layout.h"

static int power_of_two(uint64_t n)
{
	return n && !(n & (n - 1));
}

static int same(const struct leat__geometry *a, const struct leat__geometry *b)
{
	return a->total == b->total && a->page == b->page && a->capacity == b->capacity &&
	       a->data_off == b->data_off && a->block_size == b->block_size &&
	       a->blocks_off == b->blocks_off && a->head_size == b->head_size &&
	       a->n_blocks == b->n_blocks && a->flags == b->flags && a->n_rings == b->n_rings &&
	       a->n_slots == b->n_slots;
}

int leat__ring_geometry(struct leat__geometry *g, uint64_t capacity, uint64_t block_size,
			uint32_t n_blocks, uint32_t flags, uint64_t page)
{
	uint64_t head;

	memset(g, 0, sizeof(*g));
	if (!capacity)
		capacity = UINT64_C(1) << 20;
	if (capacity > LEAT__MAX_CAPACITY || block_size > LEAT__MAX_CAPACITY)
		return leat__fail(-EINVAL, "a ring of %llu bytes with blocks of %llu: at most 2^40",
				  (unsigned long long)capacity, (unsigned long long)block_size);
	if (n_blocks > LEAT__MAX_BLOCKS)
		return leat__fail(-EINVAL, "%u blocks: at most %d", n_blocks, LEAT__MAX_BLOCKS);
	g->page = page;
	g->capacity = page;
	while (g->capacity < capacity)
		g->capacity <<= 1;
	head = leat__align(sizeof(struct leat__ring_shm) + (uint64_t)n_blocks * 8, page);
	g->head_size = (uint32_t)head;
	g->data_off = head;
	g->n_blocks = block_size ? n_blocks : 0;
	g->block_size = g->n_blocks ? leat__align(block_size, page) : 0;
	g->blocks_off = head + g->capacity;
	g->total = g->blocks_off + g->block_size * g->n_blocks;
	g->flags = flags;
	return 0;
}

int leat__ctrl_geometry(struct leat__geometry *g, uint32_t n_rings, uint32_t n_slots, uint64_t page)
{
	memset(g, 0, sizeof(*g));
	n_rings = n_rings ? n_rings : 8;
	n_slots = n_slots ? n_slots : 32;
	if (n_rings > LEAT__MAX_RINGS || n_slots > LEAT__MAX_SLOTS || n_rings * n_slots > LEAT__MAX_LINES)
		return leat__fail(-EINVAL, "a channel for %u publishers and %u subscribers: at most %d and %d, and %d when "
					   "multiplied",
				  n_rings, n_slots, LEAT__MAX_RINGS, LEAT__MAX_SLOTS, LEAT__MAX_LINES);
	g->page = page;
	g->n_rings = n_rings;
	g->n_slots = n_slots;
	g->head_size = (uint32_t)(sizeof(struct leat__ctrl_shm) +
				  n_rings * sizeof(struct leat__entry) +
				  n_slots * sizeof(struct leat__slot));
	g->total = leat__align(g->head_size + (uint64_t)n_rings * n_slots * sizeof(struct leat__line),
			       page);
	return 0;
}

int leat__ring_check(const struct leat__geometry *g, uint64_t size)
{
	struct leat__geometry want;

	if (!power_of_two(g->page) || g->page < LEAT__PAGE_MIN || g->page > (1u << 30) ||
	    !power_of_two(g->capacity) || g->capacity < g->page ||
	    g->capacity > LEAT__MAX_CAPACITY || g->n_blocks > LEAT__MAX_BLOCKS ||
	    g->block_size > LEAT__MAX_CAPACITY)
		return leat__say(-EBADMSG, "the ring's header is damaged: impossible sizes");
	if (leat__ring_geometry(&want, g->capacity, g->block_size, g->n_blocks, g->flags, g->page) < 0)
		return -EBADMSG;
	if (!same(&want, g))
		return leat__say(-EBADMSG, "the ring's header is damaged: sizes do not fit together");
	if (g->total > size)
		return leat__say(-EBADMSG, "the ring's header names more memory than there is");
	return 0;
}

int leat__ctrl_check(const struct leat__geometry *g, uint64_t size)
{
	struct leat__geometry want;

	if (!power_of_two(g->page) || g->page < LEAT__PAGE_MIN || g->page > (1u << 30) ||
	    !g->n_rings || !g->n_slots)
		return leat__say(-EBADMSG, "the control region's header is damaged: impossible sizes");
	if (leat__ctrl_geometry(&want, g->n_rings, g->n_slots, g->page) < 0)
		return -EBADMSG;
	if (!same(&want, g))
		return leat__say(-EBADMSG,
				 "the control region's header is damaged: sizes do not fit together");
	if (g->total > size)
		return leat__say(-EBADMSG, "the control region's header names more memory than there is");
	return 0;
}

/* The kernel's boot id as two numbers; zeroes where /proc is missing. */
static void boot_id(uint64_t id[2])
{
	static uint64_t known[3]; /* it outlives us; the last word says that the others are there */
	unsigned long long a = 0, b = 0;
	char text[64];
	unsigned p[5] = {0};
	unsigned long long q = 0;

	id[0] = id[1] = 0;
	if (leat__load_acquire(&known[2])) {
		id[0] = leat__load_relaxed(&known[0]);
		id[1] = leat__load_relaxed(&known[1]);
		return;
	}
	if (leat__read_file("/proc/sys/kernel/random/boot_id", text, sizeof(text)) < 0)
		return;
	if (sscanf(text, "%8x-%4x-%4x-%4x-%12llx", &p[0], &p[1], &p[2], &p[3], &q) != 5)
		return;
	a = (unsigned long long)p[0] << 32 | (unsigned long long)p[1] << 16 | p[2];
	b = (unsigned long long)p[3] << 48 | q;
	id[0] = a;
	id[1] = b;
	leat__store_relaxed(&known[0], id[0]);
	leat__store_relaxed(&known[1], id[1]);
	leat__store_release(&known[2], UINT64_C(1));
}

void leat__head_write(struct leat__head *head, const char *magic, const struct leat__geometry *g)
{
	struct leat__head h = {
		.layout = LEAT__LAYOUT,
		.head_size = g->head_size,
		.total = g->total,
		.page = g->page,
		.capacity = g->capacity,
		.data_off = g->data_off,
		.block_size = g->block_size,
		.blocks_off = g->blocks_off,
		.n_blocks = g->n_blocks,
		.flags = g->flags,
		.n_rings = g->n_rings,
		.n_slots = g->n_slots,
	};
	uint64_t m;

	memcpy(h.magic, magic, sizeof(h.magic));
	boot_id(h.boot);
	h.check = leat__hash(&h, offsetof(struct leat__head, check));
	memcpy(&m, h.magic, sizeof(m));
	memset(h.magic, 0, sizeof(h.magic));
	memcpy(head, &h, sizeof(h));
	/* Pairs with the acquire load in leat__head_read(): a header with a magic is whole. */
	leat__store_release((uint64_t *)(void *)head->magic, m);
}

int leat__head_read(const struct leat__head *head, const char *magic, uint64_t size,
		    struct leat__geometry *g)
{
	int ring = !memcmp(magic, LEAT__MAGIC_RING, 8);
	const char *what = ring ? "ring" : "control region";
	struct leat__head h;
	uint64_t m, want;

	if (size < sizeof(h))
		return leat__fail(-EBADMSG, "not a leat %s: only %llu bytes", what,
				  (unsigned long long)size);
	memcpy(&want, magic, sizeof(want));
	m = leat__load_acquire((const uint64_t *)(const void *)head->magic);
	if (m != want)
		return leat__fail(-EBADMSG, "not a leat %s: no magic at its beginning", what);
	memcpy(&h, head, sizeof(h)); /* one copy; everything below looks at the copy */
	memcpy(h.magic, &m, sizeof(m));
	if (h.layout != LEAT__LAYOUT)
		return leat__fail(-EPROTO, "this %s has layout %u, this leat reads layout %u", what,
				  h.layout, LEAT__LAYOUT);
	if (h.check != leat__hash(&h, offsetof(struct leat__head, check)))
		return leat__fail(-EBADMSG, "the header of this %s is damaged: its checksum is wrong",
				  what);
	*g = (struct leat__geometry){
		.total = h.total,
		.page = h.page,
		.capacity = h.capacity,
		.data_off = h.data_off,
		.block_size = h.block_size,
		.blocks_off = h.blocks_off,
		.head_size = h.head_size,
		.n_blocks = h.n_blocks,
		.flags = h.flags,
		.n_rings = h.n_rings,
		.n_slots = h.n_slots,
	};
	return ring ? leat__ring_check(g, size) : leat__ctrl_check(g, size);
}

int leat__head_this_boot(const struct leat__head *head)
{
	uint64_t now[2];

	boot_id(now);
	return head->boot[0] == now[0] && head->boot[1] == now[1];
}
