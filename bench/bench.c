/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench: every row (a piece of work of one size) is done in turn by every peer, round after round, so
 * that whatever this machine does meanwhile happens to all of them. Virtual processors move between
 * cores: a bare cache line is bounced between the two before and after each cell, and a cell that began
 * and ended in different places, or while the host took the processor away, is thrown out. A row goes on
 * until every peer has been measured often enough in one and the same place. Prints one JSON object per cell that counts; report.py makes the
 * tables. usage: bench [--quick] [--rows TEXT] [--peers TEXT] [--rounds N] [--span-ms N] [--out FILE]
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "bench.h"
#include "rows.h"

#define LEAST_ROUNDS 9
#define PATIENCE     4 /* times the rounds asked for */
#define STEAL        0.12
#define PROBES       1000

enum place { NEAR, FAR, SIBLINGS, ANYWHERE, PLACES };
static const char *const place_names[] = {"near", "far", "siblings", "any"};

static struct {
	int quick, rounds, cells, discarded;
	int64_t span_ns;
	const char *rows, *peers;
	FILE *out;
	char dir[64];
} run = {.rounds = LEAST_ROUNDS, .span_ns = 60000000};

uint64_t bench_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t bench_cpu(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

double bench_tick_ns(void)
{
	static double tick;
	uint64_t t, n;

	if (tick == 0) {
		t = bench_ticks();
		n = bench_now();
		while (bench_now() - n < 20000000)
			;
		tick = (double)(bench_now() - n) / (double)(bench_ticks() - t);
	}
	return tick;
}

void bench_fail(struct cell *c, const char *fmt, ...)
{
	char text[sizeof(c->sh->result.why)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!bench_failed(c)) /* the first reason is the reason */
		memcpy(c->sh->result.why, text, sizeof(text));
}

int bench_failed(const struct cell *c)
{
	return *(volatile char *)c->sh->result.why != 0;
}

void bench_meet(struct cell *c)
{
	uint32_t n = __atomic_add_fetch(&c->sh->here, 1, __ATOMIC_SEQ_CST);
	uint32_t want = (n + (uint32_t)c->sides - 1) / (uint32_t)c->sides * (uint32_t)c->sides;

	for (int i = 0; __atomic_load_n(&c->sh->here, __ATOMIC_ACQUIRE) < want; i++) {
		if (bench_failed(c))
			return;
		if (i > 1000 || c->sides > 2)
			sched_yield();
	}
}

void bench_registered(struct cell *c, int side, uint64_t start)
{
	uint64_t n = (uint64_t)c->sides * BENCH_BURST;

	if (side == 0) {
		c->sh->result.count = n;
		c->sh->result.ns = (double)(bench_now() - start) / (double)n;
	}
	bench_meet(c);
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

void bench_quantiles(struct result *r, uint32_t *samples, size_t n, double unit)
{
	if (!n)
		return;
	qsort(samples, n, sizeof(*samples), by_value);
	r->count = n;
	r->ns = r->p50 = samples[n / 2] * unit;
	r->p99 = samples[n - 1 - n / 100] * unit;
	r->p999 = samples[n - 1 - n / 1000] * unit;
	r->p9999 = samples[n - 1 - n / 10000] * unit;
	r->max = samples[n - 1] * unit;
}

void bench_trips_init(struct bench_trips *t)
{
	static uint32_t each[BENCH_SAMPLES], block[BENCH_SAMPLES];

	*t = (struct bench_trips){.each = each, .block = block};
	memset(each, 1, sizeof(each)); /* touch them now */
	memset(block, 1, sizeof(block));
	t->at = t->block_at = bench_ticks();
}

void bench_trips_result(struct bench_trips *t, struct result *r)
{
	size_t each = t->n < BENCH_SAMPLES ? t->n : BENCH_SAMPLES;
	size_t blocks = t->n / BENCH_TRIPS < BENCH_SAMPLES ? t->n / BENCH_TRIPS : BENCH_SAMPLES - 1;
	double ns = 0, half = bench_tick_ns() / 2;

	if (blocks) {
		bench_quantiles(r, t->block + 1, blocks, half / BENCH_TRIPS);
		ns = r->ns;
	}
	bench_quantiles(r, t->each, each, half);
	if (blocks)
		r->ns = ns;
}

/* ---- one cell ---- */

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* The bare line between sides 0 and 1: ns of half a round trip, in the best of ten tries. */
static double probe(struct cell *c, int side)
{
	uint64_t start = 0, best = UINT64_MAX;

	bench_meet(c);
	for (uint64_t i = 1; i <= PROBES; i++) {
		if (i % (PROBES / 10) == 1) {
			uint64_t now = bench_now();

			if (start && now - start < best)
				best = now - start;
			start = now;
		}
		if (side == 0)
			__atomic_store_n(&c->sh->ping, i, __ATOMIC_RELEASE);
		while (__atomic_load_n(side ? &c->sh->ping : &c->sh->pong, __ATOMIC_ACQUIRE) != i) {
			if (bench_failed(c))
				return 0;
			bench_pause();
		}
		if (side == 1)
			__atomic_store_n(&c->sh->pong, i, __ATOMIC_RELEASE);
	}
	bench_meet(c);
	c->sh->ping = c->sh->pong = 0;
	bench_meet(c);
	return (double)best / (PROBES / 10) / 2;
}

static void side(struct cell *c, const struct peer *p, int pinned, int n)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* Opening and closing wander; what is measured does not. */
	if (pinned)
		pin(n ? 1 : 0);
	if (n < 2 && c->sides == 2) {
		double ns = probe(c, n);

		if (n == 0)
			c->sh->probe[0] = ns;
	}
	p->run(c, n);
	if (n < 2 && c->sides == 2) {
		double ns = probe(c, n);

		if (n == 0)
			c->sh->probe[1] = ns;
	}
	exit(0);
}

static enum place place_of(double ns)
{
	return ns < 42 ? SIBLINGS : ns < 120 ? NEAR : FAR;
}

static double steal(void)
{
	static unsigned long long before[2];
	unsigned long long v[8], all = 0, part;
	FILE *f = fopen("/proc/stat", "re");
	double r;

	if (!f || fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", v, v + 1, v + 2, v + 3, v + 4,
			 v + 5, v + 6, v + 7) != 8) {
		if (f)
			fclose(f);
		return 0;
	}
	fclose(f);
	for (int i = 0; i < 8; i++)
		all += v[i];
	part = v[7] - before[1];
	r = all > before[0] ? (double)part / (double)(all - before[0]) : 0;
	before[0] = all;
	before[1] = v[7];
	return r;
}

/* Fork the sides, wait for them; those that hang are killed. */
static void cell_run(struct cell *c, const struct peer *p, int pinned)
{
	uint64_t deadline = bench_now() + (uint64_t)c->span_ns * 30 + 20000000000u;
	pid_t pids[256];
	int left = c->sides;

	for (int i = 0; i < c->sides; i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			side(c, p, pinned, i);
	}
	while (left) {
		int status, hung = bench_now() > deadline;
		pid_t pid = waitpid(-1, &status, WNOHANG);

		for (int i = 0; i < c->sides; i++) {
			if (pid > 0 && pids[i] == pid) {
				pids[i] = 0;
				left--;
				if (!WIFEXITED(status) || WEXITSTATUS(status))
					bench_fail(c, "side %d ended with status 0x%x", i,
						   (unsigned)status);
			}
			if ((hung || bench_failed(c)) && pids[i])
				kill(pids[i], SIGKILL);
		}
		if (hung)
			bench_fail(c, "hung");
		if (pid <= 0)
			usleep(500);
	}
}

static void emit(const struct row *row, const struct peer *p, const struct cell *c, enum place place)
{
	const struct result *r = &c->sh->result;

	fprintf(run.out,
		"{\"row\":\"%s\",\"group\":\"%s\",\"size\":%zu,\"sides\":%d,\"peer\":\"%s\",\"kind\":\"%s\","
		"\"place\":\"%s\",\"count\":%llu,\"ns\":%.4f,\"p50\":%.1f,\"p99\":%.1f,\"p999\":%.1f,"
		"\"p9999\":%.1f,\"max\":%.1f,\"cpu_ns\":%.4f,\"extra\":[%.4f,%.4f,%.4f,%.4f],"
		"\"probe\":%.1f}\n",
		row->name, row->group, row->size, row->sides, p->name, p->kind, place_names[place],
		(unsigned long long)r->count, r->ns, r->p50, r->p99, r->p999, r->p9999, r->max,
		r->cpu_ns, r->extra[0], r->extra[1], r->extra[2], r->extra[3], c->sh->probe[0]);
	fflush(run.out);
}

/* Where it was done; -1: nowhere, or not well; -2: it failed. */
static int cell_once(const struct row *row, const struct peer *p)
{
	static int serial;
	struct cell c = {.work = row->work, .wait = row->wait, .size = row->size,
			 .capacity = row->capacity ? row->capacity : 1 << 20, .in_place = p->in_place,
			 .batch = p->batch, .sides = row->sides ? row->sides : 2,
			 .variant = row->variant, .span_ns = run.span_ns};
	int place = ANYWHERE;

	if (!(p->waits >> c.wait & 1))
		c.wait = SLEEP;
	snprintf(c.dir, sizeof(c.dir), "%s", run.dir);
	snprintf(c.name, sizeof(c.name), "b%d-%d", (int)getpid(), ++serial);
	c.sh = mmap(NULL, sizeof(*c.sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	/* By hand: two rings with their slots; a ring of four large ones. */
	c.memory_size = 2 * (2 * c.capacity + (row->work <= NOBODY ? 5 * c.size : 0) + 65536);
	if (row->work > NOBODY)
		c.memory_size = 4096;
	c.memory = mmap(NULL, c.memory_size, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (c.sh == MAP_FAILED || c.memory == MAP_FAILED) {
		fprintf(stderr, "bench: no memory\n");
		exit(1);
	}
	steal();
	run.cells++;
	if (p->prepare && p->prepare(&c) < 0)
		bench_fail(&c, "cannot prepare");
	if (!bench_failed(&c))
		cell_run(&c, p, !row->unpinned);
	if (p->clean)
		p->clean(&c);
	if (c.work == PINGPONG) {
		double *q = &c.sh->result.ns;

		for (int i = 0; i < 6; i++) /* ns, p50, p99, p999, p9999, max */
			q[i] -= c.variant;
	}
	if (bench_failed(&c)) {
		fprintf(stderr, "\n%s, %s: %s\n", row->name, p->name, c.sh->result.why);
		place = -2;
	} else {
		if (c.sides == 2 && !row->unpinned) {
			place = place_of(c.sh->probe[0]);
			if (place != (int)place_of(c.sh->probe[1]))
				place = -1;
		}
		if (steal() > STEAL)
			place = -1;
		if (place >= 0)
			emit(row, p, &c, (enum place)place);
		else
			run.discarded++;
	}
	munmap(c.sh, sizeof(*c.sh));
	munmap(c.memory, c.memory_size);
	return place;
}

static int wanted(const char *list, const char *name)
{
	char *copy, *save, *t;
	int r = 0;

	if (!list)
		return 1;
	copy = strdup(list);
	for (t = strtok_r(copy, ",", &save); t && !r; t = strtok_r(NULL, ",", &save))
		r = strstr(name, t) != NULL;
	free(copy);
	return r;
}

static int takes_part(const struct row *row, const struct peer *p)
{
	if (!(p->works >> row->work & 1))
		return 0;
	/* Where latency is not the matter, who cannot poll may block. */
	if (!(p->waits >> row->wait & 1) && row->work == PINGPONG)
		return 0;
	if (p->largest && row->size > p->largest)
		return 0;
	if (row->only && !wanted(row->only, p->name))
		return 0;
	return wanted(run.peers, p->name);
}

static int row_run(const struct row *row, int n, int of)
{
	uint64_t start = bench_now();
	int failed = 0, done = 0, least, have[64][PLACES] = {{0}}, bad[64] = {0};

	for (int round = 0; round < run.rounds * PATIENCE && !done; round++) {
		for (int i = 0; bench_peers[i]; i++) {
			int place;

			if (bad[i] || !takes_part(row, bench_peers[i]))
				continue;
			if (isatty(2))
				fprintf(stderr, "\r\033[K%d/%d %s: round %d, %s", n, of, row->name, round + 1,
					bench_peers[i]->name);
			place = cell_once(row, bench_peers[i]);
			if (place >= 0)
				have[i][place]++;
			if (place == -2) { /* no second chance: who fails is left out, and that is said */
				bad[i] = 1;
				failed++;
			}
		}
		for (int place = 0; place < PLACES && !done; place++) {
			least = INT_MAX;
			for (int i = 0; bench_peers[i]; i++)
				if (!bad[i] && takes_part(row, bench_peers[i]) && have[i][place] < least)
					least = have[i][place];
			done = least >= run.rounds;
		}
	}
	fprintf(stderr, "%s%d/%d %s: %.1f s%s\n", isatty(2) ? "\r\033[K" : "", n, of, row->name,
		(double)(bench_now() - start) / 1e9, done ? "" : ", not often enough in one place");
	return failed;
}

static void usage(int code)
{
	fprintf(code ? stderr : stdout,
		"usage: bench [--quick] [--list] [--rows TEXT,..] [--peers TEXT,..] [--rounds N] "
		"[--span-ms N] [--out FILE]\n"
		"Each row is done by each peer N times in turn (9), N ms a time (60).\n"
		"LEAT_LEATD names the broker to run, LEAT_CMD the command leat. One JSON object per cell goes to FILE.\n");
	exit(code);
}

static void options(int argc, char **argv)
{
	static const struct option o[] = {{"quick", 0, 0, 'q'}, {"rows", 1, 0, 'r'}, {"peers", 1, 0, 'p'},
					  {"rounds", 1, 0, 'n'}, {"span-ms", 1, 0, 's'},
					  {"out", 1, 0, 'o'}, {"help", 0, 0, 'h'}, {"list", 0, 0, 'l'},
					  {0}};
	int k;

	while ((k = getopt_long(argc, argv, "", o, NULL)) != -1) {
		if (k == 'q') {
			run.quick = 1;
			run.span_ns = 20000000;
		} else if (k == 'r') {
			run.rows = optarg;
		} else if (k == 'p') {
			run.peers = optarg;
		} else if (k == 'n') {
			run.rounds = atoi(optarg);
		} else if (k == 's') {
			run.span_ns = atoll(optarg) * 1000000;
		} else if (k == 'o') {
			run.out = fopen(optarg, "we");
			if (!run.out) {
				fprintf(stderr, "bench: open %s: %s\n", optarg, strerror(errno));
				exit(1);
			}
		} else if (k == 'l') {
			for (const struct row *r = bench_rows; r->name; r++)
				printf("%s\n", r->name);
			exit(0);
		} else {
			usage(k == 'h' ? 0 : 2);
		}
	}
	if (optind < argc || run.rounds < 1 || run.span_ns < 1)
		usage(2);
}

static pid_t start_broker(void)
{
	const char *leatd = getenv("LEAT_LEATD");
	char domain[128];
	pid_t pid;

	snprintf(domain, sizeof(domain), "%s/broker.sock", run.dir);
	setenv("LEAT_BROKER", domain, 1);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execlp(leatd ? leatd : "leatd", "leatd", "--domain", domain, (char *)NULL);
		fprintf(stderr, "bench: cannot run %s: %s: name the broker in LEAT_LEATD\n",
			leatd ? leatd : "leatd", strerror(errno));
		_exit(1);
	}
	for (int i = 0; i < 5000 && access(domain, F_OK) != 0; i++)
		usleep(1000);
	return pid;
}

int main(int argc, char **argv)
{
	int failed = 0, n = 0, of = 0;
	const char *tmp = getenv("TMPDIR");
	char command[128];
	pid_t broker;

	run.out = stdout;
	options(argc, argv);
	snprintf(run.dir, sizeof(run.dir), "%.30s/leat-bench.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(run.dir)) {
		fprintf(stderr, "bench: make %s: %s\n", run.dir, strerror(errno));
		return 1;
	}
	bench_tick_ns();
	broker = start_broker();
	for (const struct row *r = bench_rows; r->name; r++)
		of += wanted(run.rows, r->name) && (!run.quick || r->quick);
	for (const struct row *r = bench_rows; r->name; r++)
		if (wanted(run.rows, r->name) && (!run.quick || r->quick))
			failed += row_run(r, ++n, of);
	kill(broker, SIGTERM);
	waitpid(broker, NULL, 0);
	snprintf(command, sizeof(command), "rm -rf %s", run.dir);
	if (system(command) != 0)
		failed++;
	fprintf(stderr, "%d cells, %d thrown out (moved, or the host took the processor), %d failed\n",
		run.cells, run.discarded, failed);
	fprintf(run.out, "{\"cells\":%d,\"discarded\":%d,\"failed\":%d}\n", run.cells, run.discarded, failed);
	return failed != 0;
}
