/* SPDX-License-Identifier: Apache-2.0 */
/* Rings of other libraries: ck_ring (pointers to slots in shared memory) and libqb's (in place). */
#include <ck_ring.h>
#include <errno.h>
#include <qb/qbrb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bench.h"

enum { TWO_SIDED = 1 << PINGPONG | 1 << ONEWAY };

/* ---- ck_ring ---- */

struct ck_side {
	ck_ring_t ring;
	uint32_t slots;
	alignas(128) ck_ring_buffer_t buffer[];
};
static struct ck_side *to, *from;
static unsigned char *to_slots, *from_slots;
static uint32_t to_next;
static size_t slot_size;

/* One slot more than the ring holds, and one more that is being read. */
static size_t ck_layout(const struct cell *c, uint32_t *slots)
{
	*slots = 4;
	while (*slots * 2 * c->size <= c->capacity)
		*slots *= 2;
	return (sizeof(struct ck_side) + *slots * sizeof(ck_ring_buffer_t) + 4095) & ~(size_t)4095;
}

static int prepare_ck(struct cell *c)
{
	for (int i = 0; i < 2; i++) {
		struct ck_side *s = (void *)(c->memory + (size_t)i * c->memory_size / 2);

		ck_layout(c, &s->slots);
		ck_ring_init(&s->ring, s->slots);
	}
	return 0;
}

static int ck_open_(struct cell *c, int side)
{
	unsigned char *mine = c->memory + (side ? c->memory_size / 2 : 0);
	unsigned char *other = c->memory + (side ? 0 : c->memory_size / 2);
	uint32_t slots;
	size_t at = ck_layout(c, &slots);

	slot_size = c->size;
	to = (void *)mine;
	from = (void *)other;
	to_slots = mine + at;
	from_slots = other + at;
	return 0;
}

static void ck_close_(void)
{
}

static inline void *claim_(size_t size)
{
	(void)size;
	/* The ring holds slots - 1; the one after those may still be being read. */
	while (ck_ring_size(&to->ring) >= to->slots - 2)
		bench_pause();
	return to_slots + to_next * slot_size;
}

static inline int commit_(size_t size, int last)
{
	(void)size;
	(void)last;
	while (!ck_ring_enqueue_spsc(&to->ring, to->buffer, (void *)(uintptr_t)(to_next + 1)))
		bench_pause();
	to_next = to_next + 1 == to->slots ? 0 : to_next + 1;
	return 0;
}

static inline const void *peek_(void)
{
	void *p;

	while (!ck_ring_dequeue_spsc(&from->ring, from->buffer, &p))
		bench_pause();
	return from_slots + ((uintptr_t)p - 1) * slot_size;
}

static inline int release_(void)
{
	return 0;
}

#define LOOP(x) ck_##x
#define LOOPS_IN_PLACE
#define open_ ck_open_
#define close_ ck_close_
#include "loops.h"
#undef LOOP
#undef open_
#undef close_

const struct peer bench_ck = {.name = "ck_ring", .kind = "peer", .works = TWO_SIDED, .waits = 1 << SPIN,
			      .in_place = 1, .prepare = prepare_ck, .run = ck_run};

/* ---- libqb ---- */

static qb_ringbuffer_t *qb_to, *qb_from;
static int qb_wait;

static size_t qb_size(const struct cell *c)
{
	return c->capacity > 4 * (c->size + 64) ? c->capacity : 4 * (c->size + 64);
}

static qb_ringbuffer_t *qb_one(struct cell *c, const char *end, int create)
{
	uint32_t flags = QB_RB_FLAG_SHARED_PROCESS | (create ? QB_RB_FLAG_CREATE : 0) |
			 (c->wait == SPIN ? QB_RB_FLAG_NO_SEMAPHORE : 0);
	char name[80];

	snprintf(name, sizeof(name), "%s-%s", c->name, end);
	return qb_rb_open(name, qb_size(c), flags, 0);
}

/* Both are made before the sides part, and inherited. */
static int prepare_qb(struct cell *c)
{
	qb_to = qb_one(c, "there", 1);
	qb_from = qb_one(c, "back", 1);
	if (!qb_to || !qb_from)
		bench_fail(c, "qb_rb_open: %s", strerror(errno));
	return 0;
}

static void clean_qb(struct cell *c)
{
	(void)c;
	if (qb_to)
		qb_rb_close(qb_to);
	if (qb_from)
		qb_rb_close(qb_from);
}

static int qb_open_(struct cell *c, int side)
{
	qb_ringbuffer_t *t = qb_to;

	qb_wait = c->wait == SPIN ? 0 : -1;
	if (side) {
		qb_to = qb_from;
		qb_from = t;
	}
	return 0;
}

static void qb_close_(void)
{
}

static inline void *qb_claim_(size_t size)
{
	void *at;

	while (!(at = qb_rb_chunk_alloc(qb_to, size)))
		bench_pause();
	return at;
}

static inline int qb_commit_(size_t size, int last)
{
	(void)last;
	return qb_rb_chunk_commit(qb_to, size);
}

static inline const void *qb_peek_(void)
{
	void *at;
	ssize_t n;

	while ((n = qb_rb_chunk_peek(qb_from, &at, qb_wait)) <= 0)
		if (n < 0 && n != -EBADMSG && n != -EAGAIN && n != -ETIMEDOUT && n != -ENOMSG)
			return NULL;
		else
			bench_pause();
	return at;
}

static inline int qb_release_(void)
{
	qb_rb_chunk_reclaim(qb_from);
	return 0;
}

#define LOOP(x) qb_##x
#define open_ qb_open_
#define close_ qb_close_
#define claim_ qb_claim_
#define commit_ qb_commit_
#define peek_ qb_peek_
#define release_ qb_release_
#include "loops.h"

const struct peer bench_qb = {.name = "libqb ring", .kind = "peer", .works = TWO_SIDED,
			      .waits = 1 << SPIN | 1 << SLEEP, .in_place = 1, .prepare = prepare_qb,
			      .run = qb_run, .clean = clean_qb};
