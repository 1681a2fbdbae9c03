/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The broker's worker is killed, wherever it is, and nobody notices but by a delay: what is asked is answered, once,
 * by the next one, and what there was is there.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include "base/atomic.h"
#include "harness.h"

#define MOST (SEC / 2) /* what a request may take when the worker is killed under it */

/* ---- a client, one step at a time ---- */

struct client {
	char domain[200], name[64];
	struct leat *l;
	struct leat_pub *p;
	struct leat_sub *s;
	struct leat_queue *q;
	struct leat_watch *w;
	struct leat_region *region;
	struct leat_share *share;
};

static void close_all(struct client *c)
{
	leat_pub_close(c->p);
	leat_sub_close(c->s);
	leat_queue_close(c->q);
	leat_watch_close(c->w);
	leat_region_unshare(c->share);
	leat_region_close(c->region);
	c->p = NULL;
	c->s = NULL;
	c->q = NULL;
	c->w = NULL;
	c->share = NULL;
	c->region = NULL;
}

static int open_domain(struct client *c)
{
	struct leat *l;
	int e = leat_open(c->domain, &l);

	leat_close(e < 0 ? NULL : l);
	return e;
}

static int open_pub(struct client *c)
{
	return leat_pub_open(c->l, c->name, OPTS(leat_pub_opts, .capacity = 65536), &c->p);
}

static int open_sub(struct client *c)
{
	return leat_sub_open(c->l, c->name, NULL, &c->s);
}

static int open_worker(struct client *c)
{
	return leat_queue_open(c->l, c->name, "g", NULL, &c->q);
}

static int close_pub(struct client *c)
{
	struct leat_stat st = {.struct_size = sizeof(st)};

	leat_pub_close(c->p);
	c->p = NULL;
	return leat_stat(c->l, c->name, &st, NULL, NULL);
}

static int close_sub(struct client *c)
{
	struct leat_stat st = {.struct_size = sizeof(st)};

	leat_sub_close(c->s);
	c->s = NULL;
	return leat_stat(c->l, c->name, &st, NULL, NULL);
}

static int open_watch(struct client *c)
{
	struct leat_event ev = {.struct_size = sizeof(ev)};
	int e = leat_watch(c->l, c->name, &c->w);

	return e < 0 ? e : leat_watch_next(c->w, &ev, 5 * SEC);
}

static int share(struct client *c)
{
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD, .size = 4096};
	int e = leat_region_create(&o, &c->region);

	return e < 0 ? e : leat_region_share(c->l, c->name, c->region, 0, &c->share);
}

static int look(struct client *c)
{
	struct leat_stat st = {.struct_size = sizeof(st)};

	return leat_stat(c->l, c->name, &st, NULL, NULL);
}

static int remove_kept(struct client *c)
{
	return leat_remove(c->l, c->name);
}

/* What is done, and what others have to see of the channel then: how many publish, how many subscribe; -1: none is. */
static const struct op {
	const char *name;
	int (*before)(struct client *);
	int (*fn)(struct client *);
	int pubs, subs;
} ops[] = {
	{"open a domain", NULL, open_domain, -1, -1},
	{"publish", NULL, open_pub, 1, 0},
	{"subscribe", NULL, open_sub, 0, 1},
	{"work", NULL, open_worker, 0, 1},
	{"subscribe to a publisher's", open_pub, open_sub, 1, 1},
	{"publish to a subscriber", open_sub, open_pub, 1, 1},
	{"stop publishing", open_pub, close_pub, 0, 0},
	{"stop subscribing", open_sub, close_sub, 0, 0},
	{"watch", open_pub, open_watch, 1, 0},
	{"share", NULL, share, -1, -1},
	{"look", open_pub, look, 1, 0},
	{"forget", open_pub, remove_kept, 1, 0},
};
enum { OPS = sizeof(ops) / sizeof(ops[0]) };

struct answer {
	int result;
	uint64_t ns;
	char why[200];
};

/* Waits to be told which operation; prepares; says so; waits; does it; answers; waits; cleans up. */
struct puppet {
	pid_t pid;
	int to, from;
	struct client *c;
};

static void perform(int to, int from, struct client *c)
{
	uint8_t which;

	ok(leat_open(c->domain, &c->l));
	while (read(to, &which, 1) == 1) {
		const struct op *op = &ops[which];
		struct answer a = {0};
		uint64_t start;

		if (read(to, c->name, sizeof(c->name)) != sizeof(c->name))
			break;
		if (op->before)
			ok(op->before(c));
		must(write(from, "p", 1) == 1 && read(to, &which, 1) == 1, "the test is gone");
		start = leat__now();
		a.result = op->fn(c);
		a.ns = leat__now() - start;
		snprintf(a.why, sizeof(a.why), "%.190s", a.result < 0 ? leat_why() : "");
		must(write(from, &a, sizeof(a)) == sizeof(a) && read(to, &which, 1) == 1, "the test is gone");
		close_all(c);
		ok(leat_ping(c->l, NULL)); /* it has heard that by now */
		must(write(from, "c", 1) == 1, "the test is gone");
	}
	leat_close(c->l);
}

static struct puppet puppet_start(void)
{
	struct puppet u = {.pid = 0};
	int to[2], from[2];
	struct client c = {.l = NULL};

	ck_assert(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
	snprintf(c.domain, sizeof(c.domain), "%s", broker_start("--linger", "0", NULL));
	fflush(NULL);
	u.pid = fork();
	if (u.pid == 0) {
		close(to[1]);
		close(from[0]);
		perform(to[0], from[1], &c);
		_exit(0);
	}
	close(to[0]);
	close(from[1]);
	u.to = to[1];
	u.from = from[0];
	return u;
}

static void puppet_end(struct puppet *u)
{
	close(u->to);
	child_ok(u->pid);
	close(u->from);
}

static char await(struct puppet *u)
{
	char c = 0;

	ck_assert(read(u->from, &c, 1) == 1);
	return c;
}

static void prepare(struct puppet *u, uint8_t which, const char *name)
{
	char text[64] = "";

	snprintf(text, sizeof(text), "%s", name);
	ck_assert(write(u->to, &which, 1) == 1 && write(u->to, text, sizeof(text)) == sizeof(text));
	ck_assert(await(u) == 'p');
}

static void go(struct puppet *u)
{
	ck_assert(write(u->to, "g", 1) == 1);
}

static int has_answered(const struct puppet *u)
{
	return poll(&(struct pollfd){u->from, POLLIN, 0}, 1, 0) > 0;
}

static struct answer get_answer(struct puppet *u)
{
	struct answer a;

	ck_assert(read(u->from, &a, sizeof(a)) == sizeof(a));
	return a;
}

static void clean(struct puppet *u)
{
	ck_assert(write(u->to, "x", 1) == 1);
	ck_assert(await(u) == 'c');
}

/* ---- stepping the worker ---- */

static pid_t hold_worker(void)
{
	pid_t w;
	int status;

	eventually((w = worker_pid()) > 0);
	ck_assert(ptrace(PTRACE_ATTACH, w, 0, 0) == 0);
	ck_assert(waitpid(w, &status, __WALL) == w && WIFSTOPPED(status));
	ck_assert(ptrace(PTRACE_SETOPTIONS, w, 0, PTRACE_O_EXITKILL) == 0);
	return w;
}

static void let_go(pid_t w)
{
	ck_assert(ptrace(PTRACE_DETACH, w, 0, 0) == 0);
}

/* At most @n instructions, or until the client has its answer. How many. */
static long step_worker(pid_t w, long n, const struct puppet *u)
{
	for (long i = 0; i < n; i++) {
		int status, stopped;

		if (i % 64 == 0 && has_answered(u))
			return i;
		ck_assert(ptrace(PTRACE_SINGLESTEP, w, 0, 0) == 0);
		while (!(stopped = waitpid(w, &status, __WALL | WNOHANG)))
			if (has_answered(u)) { /* it sleeps, maybe for ever */
				kill(w, SIGSTOP);
				stopped = waitpid(w, &status, __WALL);
				n = i;
				break;
			}
		must(stopped == w && WIFSTOPPED(status), "the worker has ended: %#x", (unsigned)status);
		must(WSTOPSIG(status) == SIGTRAP || WSTOPSIG(status) == SIGSTOP, "signal %d", WSTOPSIG(status));
	}
	return n;
}

static void check_state(struct leat *l, const struct op *op, const char *name, long n)
{
	struct leat_stat st = {.struct_size = sizeof(st)};
	int e = leat_stat(l, name, &st, NULL, NULL);

	if (op->pubs < 0)
		return;
	if (op->pubs == 0 && op->subs == 0 && e == -ENOENT)
		return;
	ck_assert_msg(e == 0 && (int)st.publishers == op->pubs && (int)st.subscribers == op->subs,
		      "%s, killed at %ld: %d publishers, %d subscribers (%s)", op->name, n, (int)st.publishers,
		      (int)st.subscribers, e < 0 ? leat_why() : "");
}

static int count_one(const struct leat_stat *st, void *arg)
{
	(void)st;
	++*(int *)arg;
	return 0;
}

static int n_channels(struct leat *l)
{
	int n = 0;

	ok(leat_list(l, NULL, count_one, &n));
	return n;
}

START_TEST(killed_at_any_instruction_it_is_not_noticed)
{
	const struct op *op = &ops[_i];
	struct puppet u = puppet_start();
	long total = 0, points = full() ? 1500 : 24, late = 0;
	uint64_t slowest = 0;
	struct leat *l = broker_open();
	const char *only = getenv("LEAT_POINT");
	int fds = 0;

	for (long k = -1; k < points; k++) {
		char name[64];
		struct answer a;
		pid_t w;
		long n;

		snprintf(name, sizeof(name), "%s", random_name());
		prepare(&u, (uint8_t)_i, name);
		w = hold_worker();
		go(&u);
		n = k < 0 ? 1L << 40 : (k * total + (long)(rnd() % (uint64_t)total)) / points;
		if (only && k >= 0)
			n = atol(only);
		n = step_worker(w, n, &u);
		if (k < 0) {
			total = n;
			let_go(w);
		} else {
			kill(w, SIGKILL);
			ck_assert(waitpid(w, NULL, __WALL) == w);
		}
		a = get_answer(&u);
		ck_assert_msg(a.result >= 0, "%s, killed at %ld of %ld: %d (%s)", op->name, n, total, a.result, a.why);
		check_state(l, op, name, n);
		if (k >= 0) {
			late += a.ns > (uint64_t)MOST + (uint64_t)n * 20000; /* stepping takes its time */
			slowest = a.ns > slowest ? a.ns : slowest;
		}
		clean(&u);
		if (k < 0)
			fds = broker_fds();
	}
	eventually(n_channels(l) == 0);
	eventually(broker_fds() <= fds);
	fprintf(stderr, "# %s: killed at %ld of %ld instructions; the slowest answer after %.0f ms\n", op->name, points,
		total, (double)slowest / 1e6);
	ck_assert_int_le(late * 8, points);
	puppet_end(&u);
	leat_close(l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("worker");
	TCase *tc = leak_checked(s, "worker", 0);

	tcase_add_loop_test(tc, killed_at_any_instruction_it_is_not_noticed, 0, OPS);
	return run_suite(s);
}
