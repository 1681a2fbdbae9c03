/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads of real users, as benches with names: video, ticks, log, state, tensors; and how much memory a
 * broker and its channels take. (A sixth, calls between a client and a server, waits for leat to have them.)
 */
#include <leat.h>
#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench.h"
#include "rows.h"

#define SEC INT64_C(1000000000)

static struct leat *l;

static int good(struct cell *c, int e)
{
	if (e < 0)
		bench_fail(c, "%s", leat_why());
	return e;
}

/* ---- video: 4K frames at 60 Hz to four readers that sleep; old frames are dropped ---- */

enum { FRAMES = 60 };

static void video(struct cell *c, int side)
{
	struct leat_pub_opts po = {.struct_size = sizeof(po), .policy = LEAT_OVERWRITE, .max_size = c->size,
				   .blocks = 8};
	struct leat_sub_opts so = {.struct_size = sizeof(so), .flags = LEAT_OBSERVE | LEAT_UNTIL_ENDED};
	static uint32_t took[FRAMES], woke[FRAMES];
	struct leat_sub_stat st = {.struct_size = sizeof(st)};
	struct leat_pub *p;
	struct leat_sub *s;
	struct result r = {0};
	uint64_t next;
	size_t n = 0;

	if (good(c, leat_open(NULL, &l)) < 0)
		return;
	if (side) {
		const void *at;

		if (good(c, leat_sub_open(l, c->name, &so, &s)) < 0)
			return;
		bench_meet(c);
		while (leat_peek(s, &at, NULL, 5 * SEC) == 0) {
			if (n < FRAMES)
				woke[n++] = (uint32_t)(bench_now() - *(const uint64_t *)at);
			leat_release(s);
		}
		leat_sub_stat(s, &st);
		__atomic_add_fetch(&c->sh->counted, st.lost, __ATOMIC_ACQ_REL);
		if (side == 1) {
			bench_quantiles(&r, woke, n, 1);
			c->sh->result.extra[0] = r.p50;
			c->sh->result.extra[1] = r.p99;
		}
		bench_meet(c);
		return;
	}
	if (good(c, leat_pub_open(l, c->name, &po, &p)) < 0)
		return;
	bench_meet(c);
	good(c, leat_wait_subscribers(p, (unsigned)c->sides - 1, 5 * SEC));
	next = bench_now();
	for (int i = 0; i < FRAMES && !bench_failed(c); i++) {
		uint64_t start, filled;
		void *at;

		next += 16666667;
		while (bench_now() < next)
			usleep(500);
		start = bench_now();
		good(c, leat_claim(p, c->size, &at, -1));
		took[n] = (uint32_t)(bench_now() - start);
		memset(at, i, c->size); /* the camera */
		filled = bench_now();
		memcpy(at, &filled, sizeof(filled));
		leat_commit(p, c->size, 0);
		took[n++] += (uint32_t)(bench_now() - filled);
	}
	leat_pub_close(p);
	bench_quantiles(&r, took, n, 1);
	c->sh->result.ns = r.ns;
	c->sh->result.p50 = r.p50;
	c->sh->result.p99 = r.p99;
	c->sh->result.max = r.max;
	c->sh->result.count = n;
	bench_meet(c);
	c->sh->result.extra[2] = (double)c->sh->counted; /* lost, all readers together */
}

/* ---- ticks: 64, 128 and 256 bytes to eight readers as fast as they go ---- */

static void ticks(struct cell *c, int side)
{
	struct leat_pub_opts po = {.struct_size = sizeof(po), .capacity = 16 << 20};
	struct leat_sub_opts so = {.struct_size = sizeof(so), .flags = LEAT_UNTIL_ENDED};
	static const size_t sizes[] = {64, 128, 64, 256};
	uint64_t n = 1000000, start, buf[32], cpu;
	struct leat_pub *p;
	struct leat_sub *s;

	if (good(c, leat_open(NULL, &l)) < 0)
		return;
	if (side) {
		struct leat_info info;
		uint64_t seq = 0;
		int e;

		if (good(c, leat_sub_open(l, c->name, &so, &s)) < 0)
			return;
		bench_meet(c);
		for (; (e = leat_recv(s, buf, sizeof(buf), &info, 20 * SEC)) == 0; seq++)
			if (buf[0] != seq || bench_sum(buf, info.size) != bench_expect(info.size, seq))
				bench_fail(c, "wrong message");
		if (e != -ENODATA || seq != n)
			bench_fail(c, "%llu of %llu came", (unsigned long long)seq, (unsigned long long)n);
		bench_meet(c);
		return;
	}
	if (good(c, leat_pub_open(l, c->name, &po, &p)) < 0)
		return;
	bench_meet(c);
	good(c, leat_wait_subscribers(p, (unsigned)c->sides - 1, 5 * SEC));
	start = bench_now();
	cpu = bench_cpu();
	for (uint64_t i = 0; i < n; i++) {
		bench_fill(buf, sizes[i % 4], i);
		good(c, leat_send(p, buf, sizes[i % 4], -1));
	}
	c->sh->result.cpu_ns = (double)(bench_cpu() - cpu) / (double)n;
	leat_pub_close(p);
	bench_meet(c); /* all have all */
	c->sh->result.count = n;
	c->sh->result.ns = (double)(bench_now() - start) / (double)n;
	c->sh->result.extra[0] = (double)(c->sides - 1) * 1e3 / c->sh->result.ns;
}

/* ---- log: 16 programs write 50 to 500 bytes and never wait; one reads ---- */

static void logs(struct cell *c, int side)
{
	struct leat_pub_opts po = {.struct_size = sizeof(po), .policy = LEAT_OVERWRITE, .max_publishers = 32};
	struct leat_sub_opts so = {.struct_size = sizeof(so), .flags = LEAT_OBSERVE, .max_publishers = 32};
	static uint32_t took[BENCH_SAMPLES];
	struct leat_sub_stat st = {.struct_size = sizeof(st)};
	static char buf[512];
	struct leat_pub *p;
	struct leat_sub *s;
	uint64_t end;
	size_t n = 0;

	if (good(c, leat_open(NULL, &l)) < 0)
		return;
	if (side == 0) {
		if (good(c, leat_sub_open(l, c->name, &so, &s)) < 0)
			return;
		bench_meet(c);
		end = bench_now() + 5 * (uint64_t)c->span_ns;
		while (bench_now() < end)
			leat_recv(s, buf, sizeof(buf), NULL, 1000000);
		__atomic_store_n(&c->sh->stop, 1, __ATOMIC_RELEASE);
		leat_sub_stat(s, &st);
		c->sh->result.extra[0] = (double)(st.received + st.lost) * 1e3 /
					 (5 * (double)c->span_ns); /* M/s written */
		c->sh->result.extra[1] = (double)st.lost * 100 / (double)(st.received + st.lost + 1);
		bench_meet(c);
		return;
	}
	if (good(c, leat_pub_open(l, c->name, &po, &p)) < 0)
		return;
	bench_meet(c);
	for (uint32_t i = 0; !__atomic_load_n(&c->sh->stop, __ATOMIC_ACQUIRE); i++) {
		uint64_t start = bench_now();

		leat_send(p, buf, 50 + i * 37 % 450, 0);
		took[n++ % BENCH_SAMPLES] = (uint32_t)(bench_now() - start);
		if (i % 64 == 0)
			sched_yield(); /* programs that log do something else, too */
	}
	if (side == 1) {
		struct result r = {0};

		bench_quantiles(&r, took, n < BENCH_SAMPLES ? n : BENCH_SAMPLES, 1);
		c->sh->result.count = n;
		c->sh->result.ns = c->sh->result.p50 = r.p50;
		c->sh->result.p99 = r.p99;
		c->sh->result.p999 = r.p999;
		c->sh->result.max = r.max;
	}
	bench_meet(c);
}

/* ---- state: 500 topics, latest value; the reader comes late ---- */

enum { TOPICS = 500 };

static int descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = -3;

	if (!d)
		return 0;
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void state(struct cell *c, int side)
{
	struct leat_pub_opts po = {.struct_size = sizeof(po), .policy = LEAT_OVERWRITE, .capacity = 4096};
	struct leat_sub_opts so = {.struct_size = sizeof(so), .flags = LEAT_OBSERVE};
	static struct leat_pub *p[TOPICS];
	static struct leat_sub *s[TOPICS];
	uint64_t start, end, buf[8], n = 0;
	char name[80];
	int before = descriptors();

	if (good(c, leat_open(NULL, &l)) < 0)
		return;
	for (int i = 0; side == 0 && i < TOPICS; i++) {
		snprintf(name, sizeof(name), "%s/%d", c->name, i);
		if (good(c, leat_pub_open(l, name, &po, &p[i])) < 0)
			return;
		bench_fill(buf, 64, (uint64_t)i);
		leat_send(p[i], buf, 64, 0);
	}
	bench_meet(c);
	if (side == 0) {
		for (uint64_t k = 0; !__atomic_load_n(&c->sh->stop, __ATOMIC_ACQUIRE); k++) {
			for (int i = 0; i < TOPICS; i++) {
				bench_fill(buf, 64, k);
				leat_send(p[i], buf, 64, 0);
			}
			usleep(900);
		}
		bench_meet(c);
		return;
	}
	start = bench_now();
	for (int i = 0; i < TOPICS; i++) {
		snprintf(name, sizeof(name), "%s/%d", c->name, i);
		if (good(c, leat_sub_open(l, name, &so, &s[i])) < 0 ||
		    good(c, leat_latest(s[i], buf, sizeof(buf), NULL)) < 0)
			return;
	}
	c->sh->result.extra[0] = (double)(bench_now() - start) / 1e6; /* ms until all are known */
	c->sh->result.extra[1] = descriptors() - before;
	start = bench_now();
	end = start + (uint64_t)c->span_ns;
	while (bench_now() < end)
		for (int i = 0; i < TOPICS; i++, n++)
			if (leat_latest(s[i], buf, sizeof(buf), NULL) < 0 ||
			    bench_sum(buf, 64) != bench_expect(64, buf[0]))
				bench_fail(c, "missing or torn");
	c->sh->result.count = n;
	c->sh->result.ns = (double)(bench_now() - start) / (double)n;
	__atomic_store_n(&c->sh->stop, 1, __ATOMIC_RELEASE);
	bench_meet(c);
}

/* ---- tensors: 100 MB handed over in place and kept; how long until the other has it ---- */

static void tensors(struct cell *c, int side)
{
	struct leat_pub_opts po = {.struct_size = sizeof(po), .max_size = c->size, .blocks = 3, .spin_ns = SEC};
	struct leat_sub_opts so = {.struct_size = sizeof(so), .flags = LEAT_UNTIL_ENDED, .spin_ns = SEC};
	uint32_t took[16];
	struct leat_pub *p;
	struct leat_sub *s;
	struct rusage a, b;
	uint64_t fill = 0, start;
	size_t n = 0;

	if (good(c, leat_open(NULL, &l)) < 0)
		return;
	if (side) {
		const void *at, *kept = NULL;

		if (good(c, leat_sub_open(l, c->name, &so, &s)) < 0)
			return;
		bench_meet(c);
		for (int i = 0; leat_peek(s, &at, NULL, 20 * SEC) == 0; i++) {
			uint64_t sent = *(const uint64_t *)at, now = bench_now();

			if (kept)
				leat_drop(s, kept);
			good(c, leat_retain(s, &kept));
			if (i >= 4 && n < 16)
				took[n++] = (uint32_t)(now - sent);
		}
		bench_quantiles(&c->sh->result, took, n, 1);
		bench_meet(c);
		return;
	}
	if (good(c, leat_pub_open(l, c->name, &po, &p)) < 0)
		return;
	bench_meet(c);
	good(c, leat_wait_subscribers(p, 1, 5 * SEC));
	for (int i = 0; i < 12 && !bench_failed(c); i++) {
		void *at;

		if (i == 4)
			getrusage(RUSAGE_SELF, &a);
		good(c, leat_claim(p, c->size, &at, 20 * SEC));
		start = bench_now();
		memset(at, i, c->size);
		if (i >= 4)
			fill += bench_now() - start;
		start = bench_now();
		memcpy(at, &start, sizeof(start));
		leat_commit(p, c->size, 0);
	}
	getrusage(RUSAGE_SELF, &b);
	c->sh->result.extra[0] = (double)c->size * 8 / (double)fill; /* GB/s */
	c->sh->result.extra[1] = (double)(b.ru_minflt - a.ru_minflt);
	leat_pub_close(p);
	bench_meet(c);
}

/* ---- memory: a fresh broker, then with 1,000 channels ---- */

static long field(pid_t pid, const char *name)
{
	char path[64], line[256];
	long kib = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, name, strlen(name)) == 0)
			kib = atol(line + strlen(name) + 1);
	if (f)
		fclose(f);
	return kib;
}

/* Of keeper and worker. */
static long broker_field(pid_t pid, const char *name)
{
	char path[64];
	long worker = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	f = fopen(path, "re");
	if (!f || fscanf(f, "%ld", &worker) != 1)
		worker = 0;
	if (f)
		fclose(f);
	return field(pid, name) + (worker ? field((pid_t)worker, name) : 0);
}

static void memory(struct cell *c, int side)
{
	struct leat_pub_opts po = {.struct_size = sizeof(po), .capacity = 4096, .policy = LEAT_OVERWRITE};
	const char *leatd = getenv("LEAT_LEATD");
	char domain[120], name[80];
	struct leat_pub *p;
	struct leat_stat st = {.struct_size = sizeof(st)};
	struct leat *more;
	uint64_t rtt;
	long idle, before;
	pid_t pid;

	(void)side;
	snprintf(domain, sizeof(domain), "%s/%s.sock", c->dir, c->name);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execlp(leatd ? leatd : "leatd", "leatd", "--domain", domain, (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < 5000 && access(domain, F_OK) != 0; i++)
		usleep(1000);
	if (good(c, leat_open(domain, &l)) < 0)
		return;
	leat_ping(l, &rtt);
	idle = broker_field(pid, "VmRSS:");
	before = broker_field(pid, "RssAnon:");
	for (int i = 0; i < 1000 && !bench_failed(c); i++) {
		snprintf(name, sizeof(name), "m/%d", i);
		good(c, leat_pub_open(l, name, &po, &p));
	}
	c->sh->result.ns = (double)idle; /* KiB */
	c->sh->result.count = 1000;
	c->sh->result.extra[0] = (double)(broker_field(pid, "RssAnon:") - before) * 1024 / 1000; /* bytes a channel */
	c->sh->result.extra[1] = (double)broker_field(pid, "VmRSS:");
	before = broker_field(pid, "RssAnon:");
	for (int i = 0; i < 200 && !bench_failed(c); i++)
		good(c, leat_open(domain, &more));
	c->sh->result.extra[3] = (double)(broker_field(pid, "RssAnon:") - before) * 1024 / 200; /* bytes a client */
	good(c, leat_stat(l, "m/0", &st, NULL, NULL));
	c->sh->result.extra[2] = (double)st.bytes;
	leat_close(l);
	kill(pid, SIGTERM);
	waitpid(pid, NULL, 0);
}

static void run(struct cell *c, int side)
{
	static void (*const loads[])(struct cell *, int) = {
		[LOAD_VIDEO] = video, [LOAD_TICKS] = ticks,	[LOAD_LOG] = logs,
		[LOAD_STATE] = state, [LOAD_TENSORS] = tensors, [LOAD_MEMORY] = memory,
	};

	loads[c->variant](c, side);
}

const struct peer bench_loads = {.name = "leat", .kind = "leat", .works = 1 << WORKLOAD,
				 .waits = 1 << SPIN | 1 << SLEEP | 1 << DEFAULT, .run = run};
