/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine allows: a bare cache line bounced, a ring written by hand for one producer, one
 * consumer and one record size, and two processes that wake each other with a futex.
 */
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "bench.h"

/* ---- a line ---- */

static void line(struct cell *c, int side)
{
	uint64_t end = bench_now() + (uint64_t)c->span_ns;
	struct bench_trips trips;
	uint64_t *mine = side ? &c->sh->pong : &c->sh->ping, *other = side ? &c->sh->ping : &c->sh->pong;

	bench_trips_init(&trips);
	bench_meet(c);
	for (uint64_t i = 1;; i++) {
		uint64_t got, say = i;

		if (side == 0) {
			if (i % 64 == 0 && bench_now() >= end)
				say = BENCH_END;
			__atomic_store_n(mine, say, __ATOMIC_RELEASE);
		}
		while ((got = __atomic_load_n(other, __ATOMIC_ACQUIRE)) != i && got != BENCH_END)
			bench_pause();
		if (side == 1)
			__atomic_store_n(mine, got, __ATOMIC_RELEASE);
		else
			bench_trip(&trips, i > 200);
		if (got == BENCH_END)
			break;
	}
	if (side == 0)
		bench_trips_result(&trips, &c->sh->result);
	bench_meet(c);
	if (side == 0)
		c->sh->ping = c->sh->pong = 0;
	bench_meet(c);
}

const struct peer bench_line = {.name = "bare cache line", .kind = "limit", .works = 1 << PINGPONG,
				.waits = 1 << SPIN | 1 << DEFAULT, .run = line};

/* ---- a ring by hand: head and tail on lines of their own, each side remembers the other's ---- */

struct hand_shared {
	alignas(128) uint64_t tail;
	alignas(128) uint64_t head;
	alignas(128) unsigned char slots[];
};

struct hand {
	struct hand_shared *sh;
	unsigned char *at, *first, *end; /* where the next message goes or comes from */
	uint64_t n, seen, slots;
	size_t stride;
};
static struct hand to, from;
static int nobody_reads;

static void hand_open(struct hand *h, struct cell *c, void *at)
{
	size_t record = (c->size + 8 + 7) & ~(size_t)7; /* as large as a record of leat's */

	if (c->size > c->capacity / 8) { /* a few large buffers, as leat has blocks */
		record = (c->size + 4095) & ~(size_t)4095;
		h->slots = 4;
	} else {
		h->slots = c->capacity / record;
	}
	h->stride = record;
	h->sh = at;
	h->first = h->at = h->sh->slots;
	h->end = h->first + h->slots * record;
	h->n = h->seen = 0;
}

static int open_(struct cell *c, int side)
{
	unsigned char *second = c->memory + c->memory_size / 2;

	nobody_reads = c->work == NOBODY;
	hand_open(&to, c, side ? second : c->memory);
	hand_open(&from, c, side ? c->memory : second);
	return 0;
}

static void close_(void)
{
}

static inline void *claim_(size_t size)
{
	(void)size;
	if (nobody_reads)
		to.seen = to.n;
	while (to.n - to.seen >= to.slots) {
		to.seen = __atomic_load_n(&to.sh->head, __ATOMIC_ACQUIRE);
		if (to.n - to.seen < to.slots)
			break;
		bench_pause();
	}
	return to.at;
}

static inline int commit_(size_t size, int last)
{
	(void)size;
	(void)last;
	to.at += to.stride;
	if (to.at == to.end)
		to.at = to.first;
	__atomic_store_n(&to.sh->tail, ++to.n, __ATOMIC_RELEASE);
	return 0;
}

static inline const void *peek_(void)
{
	while (from.n == from.seen) {
		from.seen = __atomic_load_n(&from.sh->tail, __ATOMIC_ACQUIRE);
		if (from.n != from.seen)
			break;
		bench_pause();
	}
	return from.at;
}

static inline int release_(void)
{
	from.at += from.stride;
	if (from.at == from.end)
		from.at = from.first;
	__atomic_store_n(&from.sh->head, ++from.n, __ATOMIC_RELEASE);
	return 0;
}

#define LOOP(x) hand_##x
#define LOOPS_IN_PLACE
#include "loops.h"

const struct peer bench_hand = {.name = "ring by hand", .kind = "limit",
				.works = 1 << PINGPONG | 1 << ONEWAY | 1 << NOBODY, .waits = 1 << SPIN,
				.run = hand_run};

/* ---- a futex ---- */

static void futex_wait_for(uint32_t *word, uint32_t value)
{
	static const struct timespec second = {1, 0}; /* this long costs nothing and heals what is lost */
	uint32_t v;

	while ((v = __atomic_load_n(word, __ATOMIC_ACQUIRE)) < value)
		syscall(SYS_futex, word, FUTEX_WAIT, v, &second, NULL, 0);
}

static void futex_tell(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void futex(struct cell *c, int side)
{
	uint64_t end = bench_now() + (uint64_t)c->span_ns;
	struct bench_trips trips;
	uint32_t *mine = c->sh->futex[side], *other = c->sh->futex[!side];

	bench_trips_init(&trips);
	bench_meet(c);
	for (uint32_t i = 1;; i++) {
		if (side == 0)
			bench_think(c);
		if (side == 0)
			futex_tell(mine, bench_now() < end ? i : UINT32_MAX);
		futex_wait_for(other, i);
		if (side == 1)
			bench_think(c);
		if (side == 1)
			futex_tell(mine, *(volatile uint32_t *)other);
		else
			bench_trip(&trips, i > 20);
		if (*(volatile uint32_t *)other == UINT32_MAX)
			break;
	}
	if (side == 0)
		bench_trips_result(&trips, &c->sh->result);
	bench_meet(c);
}

const struct peer bench_futex = {.name = "raw futex", .kind = "limit", .works = 1 << PINGPONG,
				 .waits = 1 << SLEEP, .run = futex};

/* ---- memcpy by one process, into the same number of recycled buffers; nobody reads ---- */

static void copy(struct cell *c, int side)
{
	struct hand h;
	unsigned char *from_here = c->memory + c->memory_size / 2;
	uint64_t n = 0, start, end;

	bench_meet(c);
	if (side == 0) {
		hand_open(&h, c, c->memory);
		memset(from_here, 1, c->size);
		start = bench_now();
		end = start + (uint64_t)c->span_ns;
		for (; n % 16 || bench_now() < end; n++) {
			memcpy(h.at, from_here, c->size);
			__asm__ volatile("" : : : "memory");
			h.at += h.stride;
			if (h.at == h.end)
				h.at = h.first;
		}
		c->sh->result.count = n;
		c->sh->result.ns = (double)(bench_now() - start) / (double)n;
	}
	bench_meet(c);
}

const struct peer bench_memcpy = {.name = "memcpy alone", .kind = "limit", .works = 1 << ONEWAY,
				  .waits = 1 << SPIN, .run = copy};
