/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_BENCH_BENCH_H
#define LEAT_BENCH_BENCH_H
/*
 * One cell is one peer doing one piece of work once, in processes of its own: forked, pinned, opened,
 * measured, gone. bench.c runs cells in turn; a peer says how to open, send and receive; loops.h does
 * the same work with each.
 */
#include <stdalign.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum wait { SPIN, SLEEP, DEFAULT }; /* poll; block at once; as the peer comes out of its box */
enum work { PINGPONG, ONEWAY, NOBODY, FANOUT, FANIN, QUEUE, RPC, SETS, NAMES, OVERWRITE, LATEST, ATTACH, REGISTER, WORKLOAD, FILES };

struct result {
	uint64_t count;
	double ns; /* per message: median of half round trips, or the time of all by their number */
	double p50, p99, p999, p9999, max;
	double cpu_ns;  /* the sender's, per message */
	double extra[4]; /* what this work counts besides */
	char why[160]; /* not empty: it failed */
};

struct cell {
	enum work work;
	enum wait wait;
	size_t size;     /* bytes of a message */
	size_t capacity; /* bytes of a ring; peers come as near as they can */
	int in_place;    /* build and read where the message lies, when the peer can */
	int batch;       /* messages published at once, when the peer can */
	int sides;       /* processes; side 0 measures unless its work says otherwise */
	int variant;     /* what LATEST, REGISTER and WORKLOAD mean by it */
	int64_t span_ns; /* to measure */
	char dir[64];    /* files of this cell, the broker's socket */
	char name[40];   /* unlike any other's */
	struct shared *sh;
	unsigned char *memory; /* fork-shared bytes for what is written by hand */
	size_t memory_size;
};

struct shared {
	alignas(128) uint64_t ping;
	alignas(128) uint64_t pong;
	alignas(128) uint32_t here; /* sides that are open */
	alignas(128) uint32_t stop;
	alignas(128) uint64_t counted; /* what sides add up */
	alignas(128) uint64_t more[8]; /* what a work wants to tell between its sides */
	alignas(128) uint32_t futex[2][32];
	alignas(128) struct result result;
	alignas(128) double probe[2]; /* ns of a bare line's half round trip, before and after */
};

struct peer {
	const char *name;
	const char *kind; /* "limit", "leat", "peer" */
	int works;        /* bit per enum work */
	int waits;        /* bit per enum wait */
	size_t largest;   /* message; 0: any */
	int in_place, batch; /* only then */
	int (*prepare)(struct cell *c); /* before the fork; may be NULL */
	void (*run)(struct cell *c, int side);
	void (*clean)(struct cell *c); /* after; may be NULL */
};

uint64_t bench_now(void);
/* CPU time of this process. */
uint64_t bench_cpu(void);
/* All sides are here: go on together. */
void bench_meet(struct cell *c);
void bench_fail(struct cell *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int bench_failed(const struct cell *c);

/*
 * Round trips: each one's time for the quantiles, and that of every sixteen together, whose median is
 * the figure that counts: the counter moves in steps of 10 ns.
 */
enum { BENCH_SAMPLES = 1 << 18, BENCH_TRIPS = 16 };
struct bench_trips {
	uint64_t at, block_at; /* ticks */
	uint64_t n;
	uint32_t *each, *block;
};
void bench_trips_init(struct bench_trips *t);
/* Half round trips, in ns, into @r. */
void bench_trips_result(struct bench_trips *t, struct result *r);
/* Quantiles of @n samples of @unit ns into the result. Sorts. */
void bench_quantiles(struct result *r, uint32_t *samples, size_t n, double unit);
/* ns of a tick, measured once, before the processes part. */
double bench_tick_ns(void);

/* Publishers that each of the clients registers: more than 512 at a time iceoryx does not have. */
enum { BENCH_BURST = 7 };
/* All sides have registered theirs since @start: ns for each. */
void bench_registered(struct cell *c, int side, uint64_t start);
#define BENCH_END (UINT64_C(1) << 62) /* number of the message after the last */

static inline uint64_t bench_ticks(void)
{
#if defined(__x86_64__) || defined(__i386__)
	unsigned cpu;

	return __builtin_ia32_rdtscp(&cpu); /* waits for the loads before it */
#else
	return bench_now();
#endif
}

/* A round trip is over, the next begins; @keep: count it. */
static inline void bench_trip(struct bench_trips *t, int keep)
{
	uint64_t now = bench_ticks();

	if (keep) {
		t->each[t->n % BENCH_SAMPLES] = (uint32_t)(now - t->at);
		if (++t->n % BENCH_TRIPS == 0) {
			t->block[t->n / BENCH_TRIPS % BENCH_SAMPLES] = (uint32_t)(now - t->block_at);
			t->block_at = now;
		}
	} else {
		t->block_at = now;
	}
	t->at = now;
}

/* Busy for c->variant ns, until the other side is surely asleep; bench.c takes it off the result. */
static inline void bench_think(const struct cell *c)
{
	if (c->variant) {
		uint64_t until = bench_now() + (uint64_t)c->variant;

		while (bench_now() < until)
			;
	}
}

static inline void bench_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

/* Every word of a message follows from its number; the sum of them all is what a reader checks. */
static inline void bench_fill(void *at, size_t size, uint64_t seq)
{
	uint64_t *w = (uint64_t *)at;

	for (size_t i = 0; i < size / 8; i++)
		w[i] = seq + i;
}

static inline uint64_t bench_sum(const void *at, size_t size)
{
	const uint64_t *w = (const uint64_t *)at;
	uint64_t sum = 0;

	for (size_t i = 0; i < size / 8; i++)
		sum += w[i];
	return sum;
}

static inline uint64_t bench_expect(size_t size, uint64_t seq)
{
	uint64_t n = size / 8;

	return n * seq + n * (n - 1) / 2;
}

#ifdef __cplusplus
}
#endif
#endif
