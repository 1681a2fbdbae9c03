/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring and a control region in which everything that others can write is whatever they like: readers and workers get
 * messages that lie in the ring, or an error, and come to an end.
 */
#include <sys/mman.h>
#include "base/atomic.h"
#include "base/base.h"
#include "fuzz.h"
#include "mem/layout.h"
#include "mem/region.h"
#include "ring/group.h"

enum { CAPACITY = 4096, BLOCK = 4096, BLOCKS = 2, SLOTS = 4, TRIES = 64 };

static struct leat_region *ring_region, *ctrl_region;
static struct leat__geometry rg, cg;
static unsigned char *view;
static struct leat__ring_shm *ring;
static struct leat__ctrl_shm *ctrl;

static void setup(void)
{
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD};

	must(leat__ring_geometry(&rg, CAPACITY, BLOCK, BLOCKS, 0, leat__page_size()) == 0);
	o.size = rg.total;
	must(leat_region_create(&o, &ring_region) == 0);
	must(leat__region_view(ring_region, rg.data_off, rg.capacity, &view) == 0);
	must(leat__ctrl_geometry(&cg, 2, SLOTS, leat__page_size()) == 0);
	o.size = cg.total;
	must(leat_region_create(&o, &ctrl_region) == 0);
	ring = leat_region_addr(ring_region);
	ctrl = leat_region_addr(ctrl_region);
}

static int never_gone(void *arg, uint32_t slot)
{
	return *(const unsigned *)arg >> slot & 1;
}

/* It lies where messages lie, and can be read. */
static void look_at(const struct leat__msg *m)
{
	const unsigned char *base = leat_region_addr(ring_region), *at = m->data;
	int in_view = at >= view && at + m->size <= view + 2 * CAPACITY;
	int in_blocks = at >= base + rg.blocks_off && at + m->size <= base + rg.total;

	must(m->block < BLOCKS && (in_view || in_blocks));
	must(m->size <= (m->block >= 0 ? BLOCK : CAPACITY));
	leat__hash(at, (size_t)m->size);
}

/* A position: any, or (@tame) one that might be meant. */
static uint64_t position(struct input *in, int tame)
{
	return tame ? (uint64_t)next8(in) * 8 + (next8(in) & 3) * CAPACITY : next64(in);
}

static void heads(struct input *in)
{
	struct leat__head head;
	struct leat__geometry g;
	uint8_t *p = (uint8_t *)&head;

	for (size_t i = 0; i < sizeof(head); i++)
		p[i] = next8(in);
	if (next8(in) & 1) { /* as it must be, but for what the input says otherwise */
		memcpy(head.magic, LEAT__MAGIC_RING, 8);
		head.layout = LEAT__LAYOUT;
		head.check = leat__hash(&head, offsetof(struct leat__head, check));
	}
	if (leat__head_read(&head, LEAT__MAGIC_RING, next64(in), &g) == 0)
		must(g.data_off + g.capacity <= g.total && g.capacity >= g.page);
	leat__head_read(&head, LEAT__MAGIC_CTRL, next64(in), &g);
	leat__head_this_boot(&head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};
	struct leat__hand hand;
	struct leat__reader r;
	struct leat__line *lines;
	struct leat__msg msg;
	unsigned gone;
	int e, mode, tame;

	if (!ring)
		setup();
	mode = next8(&in);
	if (mode & 0x80) {
		heads(&in);
		return 0;
	}
	lines = leat__ctrl_lines(ctrl, &cg, 0);
	gone = next8(&in);
	tame = next8(&in) & 3;
	ring->tail = position(&in, tame);
	ring->last = position(&in, tame);
	ring->sent = position(&in, tame & 2);
	ring->intent = position(&in, tame);
	ring->limit = position(&in, tame);
	ring->closed = next8(&in) & 3;
	ring->moving = next8(&in) & 3;
	ring->began = next64(&in);
	for (int i = 0; i < LEAT__MARKS; i++)
		ring->marks[i] = position(&in, tame);
	for (int i = 0; i < BLOCKS; i++)
		leat__block_words(ring)[i] = position(&in, tame & 2);
	for (int i = 0; i < SLOTS; i++)
		lines[i] = (struct leat__line){.cursor = position(&in, tame) | (next8(&in) & 3),
					       .state = LEAT__WORD(tame ? 1 : next8(&in), next64(&in) & 0xffffff),
					       .count = next8(&in)};
	memset(view, 0, CAPACITY);
	if (in.at < in.end)
		memcpy(view, in.at, (size_t)(in.end - in.at) < CAPACITY ? (size_t)(in.end - in.at) : CAPACITY);
	leat__reader_init(&r, ring, view, &rg, 1, &lines[0], &ctrl->space_bell);
	if (mode & 32) /* a worker */
		leat__reader_start(&r, 1);
	else if ((mode & 7) < 3)
		leat__reader_join(&r, LEAT__WORD(1, 0), mode & 8, (enum leat_from)(mode & 7));
	else if ((mode & 7) == 3)
		leat__reader_begin(&r, LEAT__WORD(1, 0), mode & 8);
	else
		leat__reader_resume(&r, next64(&in) & ~UINT64_C(7), next64(&in), mode & 8 ? LEAT__KNOWN : LEAT__ADOPT);
	if (leat__reader_latest(&r, &msg))
		look_at(&msg);
	for (int i = 0; i < TRIES; i++) {
		struct leat__group g = {.lines = lines, .slots = leat__ctrl_slots(ctrl, &cg), .n_slots = SLOTS, .group = 0,
					.me = 1, .id = 1, .ended = mode & 16, .gone = never_gone, .arg = &gone};

		if (mode & 32)
			e = i & 1 ? leat__group_adopt(&g, &r, &msg, &hand) : leat__group_claim(&g, &r, &msg, &hand);
		else
			e = leat__reader_next(&r, &msg);
		if (e < 0)
			break;
		if (e > 0) {
			look_at(&msg);
			if (mode & 32)
				leat__hand_over(&hand, mode & 64);
			else if (leat__reader_intact(&r, &msg))
				leat__reader_advance(&r, &msg);
			else
				leat__reader_skip(&r, &msg);
		}
		leat__group_quiet(&g);
		leat__group_over(&g, &r);
		leat__reader_ended(&r, mode & 16);
	}
	leat__reader_leave(&r);
	return 0;
}
