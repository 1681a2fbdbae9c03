/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work that more than two take part in, or that only some can do: many readers, many publishers,
 * overwriting, the latest value, attaching, registering; and the loads of real users. Each is a peer with
 * a run function of its own.
 */
#include <leat.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench.h"

#define SEC  INT64_C(1000000000)
#define MANY 256
enum { ALL = 1 << SPIN | 1 << SLEEP | 1 << DEFAULT };

static struct leat *l;
static struct leat_pub *pub;
static struct leat_sub *sub;

/* Open what @c's side does; says why not. */
static int setup(struct cell *c, int e)
{
	if (e < 0)
		bench_fail(c, "%s", leat_why());
	return e;
}

static int open_pub(struct cell *c, const char *name, struct leat_pub_opts o)
{
	o.struct_size = sizeof(o);
	o.spin_ns = c->wait == SPIN ? SEC : c->wait == SLEEP ? -1 : 0;
	if (!l && setup(c, leat_open(NULL, &l)) < 0)
		return -1;
	return setup(c, leat_pub_open(l, name, &o, &pub));
}

static int open_sub(struct cell *c, const char *name, struct leat_sub_opts o)
{
	o.struct_size = sizeof(o);
	o.spin_ns = c->wait == SPIN ? SEC : c->wait == SLEEP ? -1 : 0;
	if (!l && setup(c, leat_open(NULL, &l)) < 0)
		return -1;
	return setup(c, leat_sub_open(l, name, &o, &sub));
}

static uint64_t counted(struct cell *c)
{
	return __atomic_load_n(&c->sh->counted, __ATOMIC_ACQUIRE);
}

static void add(struct cell *c, uint64_t n)
{
	__atomic_add_fetch(&c->sh->counted, n, __ATOMIC_ACQ_REL);
}

static int stopped(struct cell *c)
{
	return __atomic_load_n(&c->sh->stop, __ATOMIC_ACQUIRE) || bench_failed(c);
}

static void stop(struct cell *c)
{
	__atomic_store_n(&c->sh->stop, 1, __ATOMIC_RELEASE);
}

/* ---- one publisher, many readers: bursts of half a ring, all catch up in between ---- */

static void fanout_reader(struct cell *c, int readers)
{
	uint64_t seq = 0, told = 0;

	if (open_sub(c, c->name, (struct leat_sub_opts){.max_subscribers = MANY}) < 0)
		return;
	bench_meet(c);
	while (!stopped(c)) {
		const void *at;

		if (leat_peek(sub, &at, NULL, 0) == 0) {
			if (*(const uint64_t *)at != seq || bench_sum(at, c->size) != bench_expect(c->size, seq))
				bench_fail(c, "wrong message");
			seq++;
			leat_release(sub);
			continue;
		}
		if (seq != told) {
			add(c, seq - told);
			told = seq;
		}
		if (readers > 1)
			sched_yield();
	}
}

static void fanout(struct cell *c, int side)
{
	uint64_t burst = c->capacity / 2 / ((c->size + 15) & ~7u), seq = 0, cpu = 0, wall, began;
	int readers = c->sides - 1, bursts = readers > 16 ? 2 : 8;
	unsigned char out[4096];

	if (side) {
		fanout_reader(c, readers);
		bench_meet(c);
		return;
	}
	if (open_pub(c, c->name, (struct leat_pub_opts){.capacity = c->capacity, .max_subscribers = MANY}) < 0)
		return;
	bench_meet(c);
	setup(c, leat_wait_subscribers(pub, (unsigned)readers, 20 * SEC));
	began = bench_now();
	for (int b = -1; b < bursts && !bench_failed(c); b++) { /* the first warms up: pages, caches */
		if (b == 0)
			began = bench_now();
		wall = bench_cpu();
		for (uint64_t i = 0; i < burst; i++, seq++) {
			bench_fill(out, c->size, seq);
			if (leat_send(pub, out, c->size, -1) < 0)
				bench_fail(c, "%s", leat_why());
		}
		if (b >= 0)
			cpu += bench_cpu() - wall;
		while (counted(c) < seq * (uint64_t)readers && !bench_failed(c))
			sched_yield();
	}
	c->sh->result.count = burst * (uint64_t)bursts;
	c->sh->result.ns = c->sh->result.cpu_ns = (double)cpu / (double)(burst * (uint64_t)bursts);
	c->sh->result.extra[0] = (double)(burst * (uint64_t)bursts * (uint64_t)readers) /
				 (double)(bench_now() - began) * 1e3; /* M delivered/s */
	stop(c);
	bench_meet(c);
}

const struct peer bench_fanout = {.name = "leat", .kind = "leat", .works = 1 << FANOUT, .waits = ALL,
				  .run = fanout};

/* ---- many publishers, one reader (side 0) ---- */

static void fanin(struct cell *c, int side)
{
	unsigned char out[4096], in[4096];
	uint64_t next[64] = {0}, from = 0, n = 0, began = 0, now;
	uint64_t ids[64] = {0};

	if (side) {
		if (open_pub(c, c->name, (struct leat_pub_opts){.max_publishers = 16}) < 0)
			return;
		bench_meet(c);
		setup(c, leat_wait_subscribers(pub, 1, 5 * SEC));
		for (uint64_t seq = 0; !stopped(c); seq++) {
			bench_fill(out, c->size, seq);
			leat_send(pub, out, c->size, SEC / 10);
		}
		bench_meet(c);
		return;
	}
	if (open_sub(c, c->name, (struct leat_sub_opts){.max_publishers = 16}) < 0)
		return;
	bench_meet(c);
	from = bench_now();
	for (;;) {
		struct leat_info info;
		int k = 0;

		if (leat_recv(sub, in, sizeof(in), &info, SEC) < 0) {
			bench_fail(c, "%s", leat_why());
			break;
		}
		while (k < 63 && ids[k] && ids[k] != info.publisher)
			k++;
		ids[k] = info.publisher;
		if (*(uint64_t *)(void *)in != next[k]++ ||
		    bench_sum(in, c->size) != bench_expect(c->size, next[k] - 1)) {
			bench_fail(c, "wrong message");
			break;
		}
		n++;
		if (n % 256)
			continue;
		now = bench_now();
		if (!began && now - from > (uint64_t)c->span_ns / 5) {
			began = now;
			from = now;
			n = 0;
		} else if (began && now - began > (uint64_t)c->span_ns) {
			c->sh->result.count = n;
			c->sh->result.ns = (double)(now - began) / (double)n;
			break;
		}
	}
	stop(c);
	bench_meet(c);
}

const struct peer bench_fanin = {.name = "leat", .kind = "leat", .works = 1 << FANIN, .waits = ALL, .run = fanin};

/* ---- one publisher, workers that share what it sends; the variant: ns of work for each ---- */

static void queue_worker(struct cell *c)
{
	struct leat_queue_opts o = {.struct_size = sizeof(o), .spin_ns = c->wait == SPIN ? SEC : 0};
	struct leat_queue *q;
	uint64_t n = 0;

	if (setup(c, leat_open(NULL, &l)) < 0 || setup(c, leat_queue_open(l, c->name, "bench", &o, &q)) < 0)
		return;
	bench_meet(c);
	while (!stopped(c)) {
		struct leat_work work;
		const void *at;
		int e = leat_queue_take(q, &at, &work, SEC / 10);

		if (e == -ETIMEDOUT)
			continue;
		if (e < 0 || bench_sum(at, c->size) != bench_expect(c->size, work.seq) || work.deliveries != 1)
			bench_fail(c, "a wrong message: %s", leat_why());
		for (uint64_t start = bench_now(); c->variant && bench_now() - start < (uint64_t)c->variant;)
			;
		leat_queue_ack(q);
		if (++n % 16 == 0)
			add(c, 16);
	}
	bench_meet(c);
}

static void queue(struct cell *c, int side)
{
	uint64_t seq = 0, from = 0, n = 0;
	unsigned char out[4096];

	if (side) {
		queue_worker(c);
		return;
	}
	if (open_pub(c, c->name, (struct leat_pub_opts){.capacity = c->capacity}) < 0)
		return;
	bench_meet(c);
	for (uint64_t start = bench_now(); !bench_failed(c); seq++) {
		bench_fill(out, c->size, seq);
		if (leat_send(pub, out, c->size, 5 * SEC) < 0)
			bench_fail(c, "%s", leat_why());
		if (seq % 64)
			continue;
		if (!from && bench_now() - start > (uint64_t)c->span_ns / 5) {
			from = bench_now();
			n = counted(c);
		} else if (from && bench_now() - from > (uint64_t)c->span_ns) {
			n = counted(c) - n;
			break;
		}
	}
	c->sh->result.count = n;
	c->sh->result.ns = n ? (double)(bench_now() - from) / (double)n : 0;
	stop(c);
	bench_meet(c);
}

const struct peer bench_queue = {.name = "leat", .kind = "leat", .works = 1 << QUEUE, .waits = ALL, .run = queue};

/* ---- calls: side 1 serves, side 0 measures, the others only call ---- */

static void rpc_server(struct cell *c, int64_t spin)
{
	struct leat_serve_opts o = {.struct_size = sizeof(o), .spin_ns = spin};
	struct leat_server *s;
	struct leat_request req;

	if (setup(c, leat_open(NULL, &l)) < 0 || setup(c, leat_serve(l, c->name, &o, &s)) < 0)
		return;
	bench_meet(c);
	while (!stopped(c) || (counted(c) + 2 < (uint64_t)c->sides && !bench_failed(c))) {
		int e = leat_accept(s, &req, SEC / 10);

		if (e == 0)
			e = leat_reply(s, &req, 0, req.data, (size_t)req.size);
		if (e < 0 && e != -ETIMEDOUT)
			bench_fail(c, "%s", leat_why());
	}
	bench_meet(c);
}

static void rpc(struct cell *c, int side)
{
	int64_t spin = c->wait == SPIN ? SEC : c->wait == SLEEP ? -1 : 0;
	struct leat_client_opts o = {.struct_size = sizeof(o), .spin_ns = spin};
	uint64_t seq = 0, began, warm;
	struct bench_trips trips;
	struct leat_client *k;
	unsigned char out[4096];
	struct leat_answer a;

	if (side == 1) {
		rpc_server(c, spin);
		return;
	}
	if (setup(c, leat_open(NULL, &l)) < 0 || setup(c, leat_client_open(l, c->name, &o, &k)) < 0)
		return;
	bench_trips_init(&trips);
	bench_meet(c);
	setup(c, leat_call(k, "", 0, &a, 10 * SEC)); /* they get to know each other */
	began = bench_now();
	warm = began + (uint64_t)c->span_ns / 5;
	for (uint64_t now = began; side ? !stopped(c) : !bench_failed(c) && now < warm + (uint64_t)c->span_ns;) {
		bench_fill(out, c->size, ++seq);
		if (leat_call(k, out, c->size, &a, 10 * SEC) < 0)
			bench_fail(c, "%s", leat_why());
		else if (a.size != c->size || bench_sum(a.data, c->size) != bench_expect(c->size, seq))
			bench_fail(c, "a wrong reply");
		if (seq % 64 == 0 || c->sides > 8)
			now = bench_now();
		bench_trip(&trips, now > warm);
	}
	if (!side) {
		bench_trips_result(&trips, &c->sh->result);
		stop(c);
	} else {
		add(c, 1); /* one less to be served */
	}
	bench_meet(c);
}

const struct peer bench_rpc = {.name = "leat", .kind = "leat", .works = 1 << RPC, .waits = ALL, .run = rpc};

/* ---- one of many: the variant is how many members; below 0, and a descriptor; 0: no set, but leat_recv() ---- */

enum { APART_NS = 60000, TIMES = 4096 };

static uint32_t times[TIMES];
static size_t n_times;

/* Since @from until the other side has answered @say: keep how long. */
static void time_answer(struct cell *c, uint64_t from, uint64_t say)
{
	while (__atomic_load_n(&c->sh->pong, __ATOMIC_ACQUIRE) != say && !bench_failed(c))
		bench_pause();
	times[n_times++ % TIMES] = (uint32_t)(bench_now() - from);
}

static void report_times(struct cell *c)
{
	bench_quantiles(&c->sh->result, times, n_times < TIMES ? n_times : TIMES, 1);
	c->sh->result.count = n_times;
}

static int set_of(struct cell *c, int n, struct leat_set **set)
{
	struct leat_sub_opts o = {.struct_size = sizeof(o), .max_publishers = 1, .max_subscribers = 1};
	char name[64];

	if (setup(c, leat_open(NULL, &l)) < 0 || setup(c, leat_set_open(set)) < 0)
		return -1;
	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s/%d", c->name, i);
		if (setup(c, leat_sub_open(l, name, &o, &sub)) < 0 || setup(c, leat_set_add_sub(*set, sub, sub)) < 0)
			return -1;
	}
	return 0;
}

static void sets(struct cell *c, int side)
{
	static struct leat_pub *pubs[1000];
	int n = c->variant < 0 ? -c->variant : c->variant ? c->variant : 1, e;
	uint64_t out[512], in[512], seq = 1, end, until;
	struct leat_pub_opts o = {.struct_size = sizeof(o), .capacity = 4096};
	struct leat_set *set;
	struct leat_ready ready;
	char name[64];
	int fds[2];

	if (side) {
		if (set_of(c, n, &set) < 0)
			return;
		if (c->variant < 0 && (pipe2(fds, O_CLOEXEC) < 0 || setup(c, leat_set_add_fd(set, fds[0], 1, NULL)) < 0))
			return;
		bench_meet(c);
		while (!stopped(c)) {
			e = c->variant ? leat_set_wait(set, &ready, 1, SEC / 10) : 0;
			while (e >= 0 && (e = leat_recv(c->variant ? ready.data : sub, in, sizeof(in), NULL, c->variant ? 0 : SEC / 10)) == 0)
				__atomic_store_n(&c->sh->pong, in[0], __ATOMIC_RELEASE);
			if (e != -EAGAIN && e != -ETIMEDOUT)
				bench_fail(c, "%s", leat_why());
		}
		bench_meet(c);
		return;
	}
	if (setup(c, leat_open(NULL, &l)) < 0)
		return;
	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s/%d", c->name, i);
		if (setup(c, leat_pub_open(l, name, &o, &pubs[i])) < 0)
			return;
	}
	bench_meet(c);
	end = bench_now() + (uint64_t)c->span_ns;
	for (; (seq <= 2 * (uint64_t)n || bench_now() < end) && !bench_failed(c); seq++) {
		if (seq == (uint64_t)n + 1) { /* the first one of each finds a new publisher: not what we are after */
			n_times = 0;
			end = bench_now() + (uint64_t)c->span_ns;
		}
		for (until = bench_now() + APART_NS; bench_now() < until;)
			;
		bench_fill(out, c->size, seq);
		until = bench_now();
		setup(c, leat_send(pubs[seq * 7 % (uint64_t)n], out, c->size, SEC));
		time_answer(c, until, seq);
	}
	report_times(c);
	stop(c);
	bench_meet(c);
}

const struct peer bench_sets = {.name = "leat", .kind = "leat", .works = 1 << SETS, .waits = ALL, .run = sets};

/* ---- what a broker is busy with meanwhile: clients that open and close channels as quickly as they are served ---- */

static void keep_busy(struct cell *c, int side)
{
	char name[80];

	snprintf(name, sizeof(name), "busy/%s/%d", c->name, side);
	if (setup(c, leat_open(NULL, &l)) < 0)
		return;
	bench_meet(c);
	while (!stopped(c) && open_pub(c, name, (struct leat_pub_opts){.capacity = 4096}) == 0)
		leat_pub_close(pub);
	bench_meet(c);
}

/* ---- names: from a publisher's opening until somebody who watches has been told ---- */

static void names(struct cell *c, int side)
{
	struct leat_event ev = {.struct_size = sizeof(ev)};
	struct leat_watch *w;
	uint64_t seq = 1, end, from;
	int e;

	if (side > 1) {
		keep_busy(c, side);
		return;
	}
	if (setup(c, leat_open(NULL, &l)) < 0)
		return;
	if (side) {
		if (setup(c, leat_watch(l, c->name, &w)) < 0)
			return;
		while (ev.kind != LEAT_SYNCED && setup(c, leat_watch_next(w, &ev, SEC)) == 0)
			;
		bench_meet(c);
		while (!stopped(c)) {
			e = leat_watch_next(w, &ev, SEC / 10);
			if (e == 0 && ev.kind == LEAT_CAME)
				__atomic_store_n(&c->sh->pong, ++seq, __ATOMIC_RELEASE);
			if (e < 0 && e != -ETIMEDOUT)
				bench_fail(c, "%s", leat_why());
		}
		bench_meet(c);
		return;
	}
	bench_meet(c);
	for (end = bench_now() + (uint64_t)c->span_ns; bench_now() < end && !bench_failed(c);) {
		from = bench_now();
		if (open_pub(c, c->name, (struct leat_pub_opts){.capacity = 4096}) < 0)
			break;
		time_answer(c, from, ++seq);
		leat_pub_close(pub);
		setup(c, leat_remove(l, c->name));
	}
	report_times(c);
	stop(c);
	bench_meet(c);
}

const struct peer bench_names = {.name = "leat", .kind = "leat", .works = 1 << NAMES, .waits = ALL, .run = names};

/* ---- overwriting, with observers that cannot keep up ---- */

static void overwrite(struct cell *c, int side)
{
	unsigned char out[4096], in[4096];
	struct leat_sub_stat st = {.struct_size = sizeof(st)};
	uint64_t n = 400000, cpu;

	if (side) {
		struct leat_info info = {0};
		int e;

		if (open_sub(c, c->name, (struct leat_sub_opts){.flags = LEAT_OBSERVE | LEAT_UNTIL_ENDED}) < 0)
			return;
		bench_meet(c);
		while ((e = leat_recv(sub, in, sizeof(in), &info, 5 * SEC)) == 0)
			if (bench_sum(in, c->size) != bench_expect(c->size, *(uint64_t *)(void *)in))
				bench_fail(c, "a torn message was returned as good");
		leat_sub_stat(sub, &st);
		if (e != -ENODATA || st.received + st.lost != n)
			bench_fail(c, "received %llu + lost %llu is not %llu",
				   (unsigned long long)st.received, (unsigned long long)st.lost,
				   (unsigned long long)n);
		c->sh->result.extra[0] = (double)st.lost * 100 / (double)n;
		bench_meet(c);
		return;
	}
	if (open_pub(c, c->name, (struct leat_pub_opts){.policy = LEAT_OVERWRITE}) < 0)
		return;
	bench_meet(c);
	setup(c, leat_wait_subscribers(pub, (unsigned)c->sides - 1, 5 * SEC));
	cpu = bench_cpu();
	for (uint64_t i = 0; i < n; i++) {
		bench_fill(out, c->size, i);
		leat_send(pub, out, c->size, -1);
	}
	c->sh->result.count = n;
	c->sh->result.ns = (double)(bench_cpu() - cpu) / (double)n;
	leat_pub_close(pub);
	bench_meet(c);
}

const struct peer bench_overwrite = {.name = "leat", .kind = "leat", .works = 1 << OVERWRITE, .waits = ALL,
				     .run = overwrite};

/* ---- the latest value: unchanged (variant 0), changed (variant 1) ---- */

static void latest(struct cell *c, int side)
{
	uint64_t end, buf[512], start;
	struct bench_trips trips;

	if (side ? open_sub(c, c->name, (struct leat_sub_opts){.flags = LEAT_OBSERVE})
		 : open_pub(c, c->name, (struct leat_pub_opts){.policy = LEAT_OVERWRITE}))
		return;
	bench_meet(c);
	bench_trips_init(&trips);
	end = bench_now() + (uint64_t)c->span_ns;
	if (side == 0) {
		bench_fill(buf, c->size, 1);
		leat_send(pub, buf, c->size, -1);
	}
	bench_meet(c);
	if (!c->variant) {
		if (side == 1) {
			uint64_t n = 0;

			for (int i = 0; i < 1000; i++)
				leat_latest(sub, buf, sizeof(buf), NULL);
			for (start = bench_now(); bench_now() < end; n += 1000)
				for (int i = 0; i < 1000; i++)
					if (leat_latest(sub, buf, sizeof(buf), NULL) < 0)
						bench_fail(c, "%s", leat_why());
			c->sh->result.count = n;
			c->sh->result.ns = (double)(bench_now() - start) / (double)(n ? n : 1);
		}
		bench_meet(c);
		return;
	}
	/* There by channel, back by a bare line: half of a line's own round trip comes off. */
	for (uint64_t i = 2;; i++) {
		if (side == 0) {
			uint64_t say = i % 64 == 0 && bench_now() >= end ? BENCH_END : i;

			bench_fill(buf, c->size, say);
			leat_send(pub, buf, c->size, -1);
			while (__atomic_load_n(&c->sh->pong, __ATOMIC_ACQUIRE) != say)
				bench_pause();
			bench_trip(&trips, i > 200);
			if (say == BENCH_END)
				break;
		} else {
			do {
				leat_latest(sub, buf, sizeof(buf), NULL);
			} while (buf[0] != i && buf[0] != BENCH_END);
			if (bench_sum(buf, c->size) != bench_expect(c->size, buf[0]))
				bench_fail(c, "torn");
			__atomic_store_n(&c->sh->pong, buf[0], __ATOMIC_RELEASE);
			if (buf[0] == BENCH_END)
				break;
		}
	}
	if (side == 0) {
		bench_trips_result(&trips, &c->sh->result);
		c->sh->result.ns = c->sh->result.ns * 2 - c->sh->probe[0];
		c->sh->result.p99 = c->sh->result.p99 * 2 - c->sh->probe[0];
	}
	bench_meet(c);
	c->sh->ping = c->sh->pong = 0;
	bench_meet(c);
}

const struct peer bench_latest = {.name = "leat", .kind = "leat", .works = 1 << LATEST, .waits = ALL,
				  .run = latest};

/* ---- attach: from the call to the first message of an existing channel ---- */

/* The command leat sub, from its start until it has ended. */
static void attach_program(struct cell *c)
{
	uint32_t each[32];

	bench_meet(c);
	for (int i = 0; i < 32; i++) {
		uint64_t start = bench_now();
		int status = 0;
		const char *leat = getenv("LEAT_CMD");
		pid_t pid = fork();

		if (pid == 0) {
			dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), 1);
			execlp(leat ? leat : "leat", "leat", "sub", "--from", "oldest", "--count", "1", c->name,
			       (char *)NULL);
			_exit(127);
		}
		waitpid(pid, &status, 0);
		if (status)
			bench_fail(c, "the program ended with status 0x%x", (unsigned)status);
		each[i] = (uint32_t)(bench_now() - start);
	}
	bench_quantiles(&c->sh->result, each, 32, 1);
	bench_meet(c);
}

/* A channel that is not there yet. */
static void attach_new(struct cell *c)
{
	uint32_t each[200];
	char name[80];

	if (setup(c, leat_open(NULL, &l)) < 0)
		return;
	bench_meet(c);
	for (int i = 0; i < 200 && !bench_failed(c); i++) {
		uint64_t start;

		snprintf(name, sizeof(name), "%s/%d", c->name, i);
		start = bench_now();
		if (open_pub(c, name, (struct leat_pub_opts){.capacity = 4096}) < 0)
			break;
		each[i] = (uint32_t)(bench_now() - start);
		leat_pub_close(pub);
	}
	bench_quantiles(&c->sh->result, each, 200, 1);
	stop(c);
	bench_meet(c);
}

static void attach(struct cell *c, int side)
{
	uint64_t start, rtt = 0;
	uint32_t each[32], trips[32];
	char buf[4096];

	if (side > 1) {
		keep_busy(c, side);
		return;
	}
	if (side == 0) {
		if (open_pub(c, c->name, (struct leat_pub_opts){.capacity = 65536}) < 0)
			return;
		memset(buf, 0, sizeof(buf));
		leat_send(pub, buf, c->size, -1);
		bench_meet(c);
		bench_meet(c);
		return;
	}
	if (c->variant == 2) {
		attach_program(c);
		return;
	}
	if (c->variant == 3) {
		attach_new(c);
		return;
	}
	if (!c->variant && setup(c, leat_open(NULL, &l)) < 0) /* the domain is open already */
		return;
	bench_meet(c);
	for (int i = 0; i < 32; i++) {
		struct leat_sub_opts o = {.struct_size = sizeof(o), .from = LEAT_OLDEST};

		start = bench_now();
		if (c->variant && leat_open(NULL, &l) < 0)
			bench_fail(c, "%s", leat_why());
		if (leat_sub_open(l, c->name, &o, &sub) < 0 || leat_recv(sub, buf, sizeof(buf), NULL, SEC) < 0)
			bench_fail(c, "%s", leat_why());
		each[i] = (uint32_t)(bench_now() - start);
		if (bench_failed(c))
			break;
		leat_sub_close(sub);
		if (leat_ping(l, &rtt) == 0)
			trips[i] = (uint32_t)rtt;
		if (c->variant)
			leat_close(l);
	}
	bench_quantiles(&c->sh->result, trips, 32, 1);
	c->sh->result.extra[0] = c->sh->result.ns; /* a round trip to the broker */
	bench_quantiles(&c->sh->result, each, 32, 1);
	stop(c);
	bench_meet(c);
}

const struct peer bench_attach = {.name = "leat", .kind = "leat", .works = 1 << ATTACH, .waits = ALL,
				  .run = attach};

/* ---- registrations: 64 clients at once, each a burst with one request in flight ---- */

static void reg(struct cell *c, int side)
{
	struct leat_pub_opts o = {.struct_size = sizeof(o), .capacity = 4096};
	uint64_t start;
	char name[80];

	if (setup(c, leat_open(NULL, &l)) < 0)
		return;
	bench_meet(c);
	start = bench_now();
	for (int i = 0; i < BENCH_BURST; i++) {
		snprintf(name, sizeof(name), "%s/%d/%d", c->name, side, i);
		setup(c, leat_pub_open(l, name, &o, &pub));
	}
	bench_meet(c);
	bench_registered(c, side, start);
}

const struct peer bench_register = {.name = "leat", .kind = "leat", .works = 1 << REGISTER, .waits = ALL,
				    .run = reg};
