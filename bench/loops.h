/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same work with every peer. Included by a peer's file after it has defined, as static functions,
 *   int open_(struct cell *c, int side)          both directions; 0, or it said bench_fail()
 *   int send_(const void *data, size_t size)     waits as c->wait says; 0
 *   int recv_(void *buf, size_t size)            waits likewise; bytes
 *   void close_(void)
 * and for LOOPS_IN_PLACE also void *claim_(size), int commit_(size, last), const void *peek_(void), int
 * release_(void). LOOP(x) names what is made here, so that one file can hold several peers.
 */

#ifdef LOOPS_IN_PLACE
#define LOOPS_SEND(size, seq, last)                                                                \
	__extension__({                                                                            \
		void *at_ = claim_(size);                                                          \
		if (at_)                                                                           \
			bench_fill(at_, size, seq);                                                \
		at_ ? commit_(size, last) : -1;                                                    \
	})
#define LOOPS_RECV(size, first, sum)                                                               \
	__extension__({                                                                            \
		const void *at_ = peek_();                                                         \
		if (at_) {                                                                         \
			first = *(const uint64_t *)at_;                                            \
			sum = bench_sum(at_, size);                                                \
		}                                                                                  \
		at_ ? release_() : -1;                                                             \
	})
#else
#define LOOPS_SEND(size, seq, last) (bench_fill(out, size, seq), send_(out, size))
#define LOOPS_RECV(size, first, sum)                                                               \
	__extension__({                                                                            \
		int r_ = recv_(in, size);                                                          \
		first = *(const uint64_t *)in;                                                     \
		sum = bench_sum(in, size);                                                         \
		r_ < 0 || (size_t)r_ != size ? -1 : 0;                                             \
	})
#endif

static void LOOP(pingpong)(struct cell *c, int side, unsigned char *out, unsigned char *in)
{
	uint64_t end = bench_now() + (uint64_t)c->span_ns, first = 0, sum = 0, seq = 0;
	struct bench_trips trips;

	(void)out;
	(void)in;
	if (side == 1) {
		do {
			if (LOOPS_RECV(c->size, first, sum) < 0 || sum != bench_expect(c->size, first)) {
				bench_fail(c, "wrong message at %llu", (unsigned long long)seq);
				first = BENCH_END;
			}
			bench_think(c);
			if (LOOPS_SEND(c->size, first, 1) < 0) {
				bench_fail(c, "answer not sent");
				return;
			}
		} while (first != BENCH_END);
		return;
	}
	bench_trips_init(&trips);
	for (seq = 1;; seq++) {
		int last = seq % 64 == 0 && bench_now() >= end;
		uint64_t s = last ? BENCH_END : seq;

		bench_think(c);
		if (LOOPS_SEND(c->size, s, 1) < 0 || LOOPS_RECV(c->size, first, sum) < 0 ||
		    first != s || sum != bench_expect(c->size, s)) {
			bench_fail(c, "wrong answer to %llu", (unsigned long long)seq);
			return;
		}
		bench_trip(&trips, seq > 20); /* the first ones warm up */
		if (last)
			break;
	}
	bench_trips_result(&trips, &c->sh->result);
}

static void LOOP(oneway)(struct cell *c, int side, unsigned char *out, unsigned char *in)
{
	int large = c->size > 1000000;
	uint64_t seq = 0, first = 0, sum = 0, warm = 0, base = 0, began = 0, now;

	(void)out;
	(void)in;
	if (side == 0) {
		uint64_t end = bench_now() + (uint64_t)c->span_ns + (uint64_t)c->span_ns / 4;
		uint64_t per = c->size >= 65536 ? 1 : 64;

		for (;; seq++) {
			/* The first large ones fault their pages in. */
			int look = seq % per == 0 && bench_now() >= end && (!large || seq >= 36);

			if (LOOPS_SEND(c->size, look ? BENCH_END : seq,
				       look || (seq + 1) % (uint64_t)(c->batch ? c->batch : 1) == 0) < 0) {
				bench_fail(c, "message %llu not sent", (unsigned long long)seq);
				return;
			}
			if (look)
				return;
		}
	}
	for (;; seq++) {
		if (LOOPS_RECV(c->size, first, sum) < 0 || (first != seq && first != BENCH_END) ||
		    sum != bench_expect(c->size, first)) {
			bench_fail(c, "wrong message: %llu in place of %llu", (unsigned long long)first,
				   (unsigned long long)seq);
			return;
		}
		if (first == BENCH_END)
			break;
		if (!began && (large || seq % 16 == 0)) { /* the first fifth warms up */
			now = bench_now();
			if (!warm)
				warm = now;
			if (large ? seq >= 12 : now - warm > (uint64_t)c->span_ns / 5) {
				began = now;
				base = seq;
			}
		}
	}
	now = bench_now();
	c->sh->result.count = seq - base;
	if (!began || seq == base)
		bench_fail(c, "too few messages");
	else
		c->sh->result.ns = (double)(now - began) / (double)(seq - base);
}

static void LOOP(nobody)(struct cell *c, unsigned char *out)
{
	uint64_t seq = 0, start, n = c->size > 4096 ? 2000 : 1000000;

	(void)out;
	for (; seq < n / 4; seq++)
		if (LOOPS_SEND(c->size, seq, 1) < 0)
			return;
	start = bench_now();
	for (seq = 0; seq < n; seq++)
		if (LOOPS_SEND(c->size, seq, 1) < 0) {
			bench_fail(c, "not sent");
			return;
		}
	c->sh->result.count = n;
	c->sh->result.ns = (double)(bench_now() - start) / (double)n;
}

static void LOOP(run)(struct cell *c, int side)
{
	static unsigned char out_small[4096] __attribute__((aligned(128)));
	static unsigned char in_small[4096] __attribute__((aligned(128)));
	unsigned char *out = out_small, *in = in_small;

	if (c->size > sizeof(out_small)) {
		out = (unsigned char *)aligned_alloc(4096, (c->size + 4095) & ~(size_t)4095);
		in = (unsigned char *)aligned_alloc(4096, (c->size + 4095) & ~(size_t)4095);
		memset(out, 1, c->size);
		memset(in, 1, c->size);
	}
	if (open_(c, side) == 0 && !bench_failed(c)) {
		bench_meet(c);
		if (c->work == PINGPONG)
			LOOP(pingpong)(c, side, out, in);
		else if (c->work == ONEWAY)
			LOOP(oneway)(c, side, out, in);
		else if (side == 0)
			LOOP(nobody)(c, out);
	}
	bench_meet(c);
	close_();
}

#undef LOOPS_SEND
#undef LOOPS_RECV
