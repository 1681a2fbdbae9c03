/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The broker's worker is killed, wherever it is, and nobody notices but by a delay: what is asked is answered, once,
 * by the next one, and what there was is there.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
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

/* The channel may go with its last. */
static int ask(struct client *c)
{
	struct leat_stat st = {.struct_size = sizeof(st)};
	int e = leat_stat(c->l, c->name, &st, NULL, NULL);

	return e == -ENOENT ? 0 : e;
}

static int close_pub(struct client *c)
{
	leat_pub_close(c->p);
	c->p = NULL;
	return ask(c);
}

static int close_sub(struct client *c)
{
	leat_sub_close(c->s);
	c->s = NULL;
	return ask(c);
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
	uint64_t at;
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

		if (read(to, c->name, sizeof(c->name)) != sizeof(c->name))
			break;
		if (op->before)
			ok(op->before(c));
		must(write(from, "p", 1) == 1 && read(to, &which, 1) == 1, "the test is gone");
		a.result = op->fn(c);
		a.at = leat__now();
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
	kill(w, SIGCONT); /* one of our own may have been on its way */
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

/* Whoever watches is told of the channel, by whichever worker. */
static void see_it_come(struct leat_watch *watch, const char *name, long n)
{
	struct leat_event ev = {.struct_size = sizeof(ev)};

	do
		ck_assert_msg(leat_watch_next(watch, &ev, 2 * SEC) >= 0, "killed at %ld: nobody is told that %s is there: %s", n, name,
			      leat_why());
	while (ev.kind != LEAT_CAME || strcmp(ev.name, name) != 0);
}

START_TEST(killed_at_any_instruction_it_is_not_noticed)
{
	struct leat_event ev = {.struct_size = sizeof(ev)};
	struct leat_watch *watch;
	const struct op *op = &ops[_i];
	struct puppet u = puppet_start();
	long total = 0, points = full() ? 400 : 24, late = 0;
	uint64_t slowest = 0, killed = 0;
	struct leat *l = broker_open();
	const char *only = getenv("LEAT_POINT");
	int fds = 0;

	ok(leat_watch(l, NULL, &watch));
	for (long k = -1; k < points; k++) {
		char name[64];
		struct answer a;
		pid_t w;
		long n;

		snprintf(name, sizeof(name), "%s", random_name());
		prepare(&u, (uint8_t)_i, name);
		while (leat_watch_next(watch, &ev, 1000000) >= 0)
			; /* and then it waits for news */
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
			killed = leat__now();
			kill(w, SIGKILL);
			ck_assert(waitpid(w, NULL, __WALL) == w);
		}
		a = get_answer(&u);
		ck_assert_msg(a.result >= 0, "%s, killed at %ld of %ld: %d (%s)", op->name, n, total, a.result, a.why);
		check_state(l, op, name, n);
		if (!op->before && op->pubs >= 0)
			see_it_come(watch, name, n);
		if (k >= 0) {
			uint64_t took = a.at > killed ? a.at - killed : 0;

			late += took > (uint64_t)MOST;
			slowest = took > slowest ? took : slowest;
		}
		clean(&u);
		if (k < 0)
			fds = broker_fds();
	}
	eventually(n_channels(l) == 0);
	ck_assert(broker_fds_back(fds));
	leat_watch_close(watch);
	fprintf(stderr, "# %s: killed at %ld of %ld instructions; the slowest answer %.1f ms later\n", op->name, points,
		total, (double)slowest / 1e6);
	ck_assert_int_le(late * 8, points);
	puppet_end(&u);
	leat_close(l);
}
END_TEST

/* ---- what there was is there ---- */

static void kill_worker(void)
{
	pid_t w, next;

	eventually((w = worker_pid()) > 0);
	kill(w, SIGKILL);
	eventually((next = worker_pid()) > 0 && next != w);
}

START_TEST(what_there_was_is_there)
{
	struct leat *l = broker_open();
	char state[64], past[64], work[64], shared[64], buf[64];
	struct leat_info info;
	struct leat_region_opts ro = {.struct_size = sizeof(ro), .kind = LEAT_MEMFD, .size = 4096};
	struct leat_pub *p, *idle;
	struct leat_sub *s;
	struct leat_queue *q;
	struct leat_watch *w;
	struct leat_event ev;
	struct leat_region *r, *found;
	struct leat_share *sh;
	struct leat_work job;
	const void *at;
	int came = 0;

	strcpy(state, random_name());
	strcpy(past, random_name());
	strcpy(work, random_name());
	strcpy(shared, random_name());
	ok(leat_pub_open(l, past, NULL, &idle)); /* goes on all the time and says nothing */
	ok(leat_send(idle, "old", 3, SEC));
	ok(leat_watch(l, NULL, &w));
	do
		ok(leat_watch_next(w, (ev.struct_size = sizeof(ev), &ev), SEC));
	while (ev.kind != LEAT_SYNCED);
	kill_worker();
	ok(leat_pub_open(l, state, OPTS(leat_pub_opts, .retain = 1), &p));
	ok(leat_send(p, "value", 5, SEC));
	leat_pub_close(p);
	kill_worker();
	ok(leat_queue_open(l, work, "g", NULL, &q));
	ok(leat_pub_open(l, work, NULL, &p));
	ok(leat_send(p, "job", 3, SEC));
	leat_queue_close(q);
	leat_pub_close(p);
	kill_worker();
	ok(leat_region_create(&ro, &r));
	ok(leat_region_share(l, shared, r, 0, &sh));
	kill_worker();
	kill_worker();
	/* ... */
	ok(leat_sub_open(l, state, OPTS(leat_sub_opts, .from = LEAT_OLDEST), &s));
	ok(leat_recv(s, buf, sizeof(buf), &info, SEC));
	leat_sub_close(s);
	kill_worker();
	ok(leat_queue_open(l, work, "g", NULL, &q));
	ok(leat_queue_take(q, &at, &job, SEC));
	ck_assert(!memcmp(at, "job", 3));
	ok(leat_queue_ack(q));
	kill_worker();
	leat_queue_close(q);
	ok(leat_region_find(l, shared, 0, NULL, &found));
	leat_region_close(found);
	ok(leat_sub_open(l, past, OPTS(leat_sub_opts, .from = LEAT_OLDEST), &s));
	ok(leat_recv(s, buf, sizeof(buf), &info, SEC));
	kill_worker();
	ok(leat_send(idle, "new", 3, SEC));
	ok(leat_recv(s, buf, sizeof(buf), &info, SEC));
	ck_assert_uint_eq(info.lost, 0);
	/* The watch has heard what happened, and of nobody's end that is there. */
	kill_worker(); /* while it waits for news */
	ok(leat_pub_open(l, "z/last", NULL, &p));
	do {
		ev.struct_size = sizeof(ev);
		ok(leat_watch_next(w, &ev, SEC));
		ck_assert_msg(ev.kind != LEAT_GONE || strcmp(ev.name, past) != 0, "%s is gone", ev.name);
		came += ev.kind == LEAT_CAME && (!strcmp(ev.name, state) || !strcmp(ev.name, work));
	} while (ev.kind != LEAT_CAME || strcmp(ev.name, "z/last") != 0);
	ck_assert_int_eq(came, 2);
	leat_region_unshare(sh);
	leat_region_close(r);
	leat_sub_close(s);
	leat_close(l);
}
END_TEST

static void hold(void *arg)
{
	struct client *c = arg;

	ok(leat_open(c->domain, &c->l));
	ok(open_pub(c));
	ok(leat_send(c->p, "x", 1, SEC));
	if (c->w) { /* without a socket: alive all the same */
		close(leat_fd(c->l));
		ck_assert(open("/dev/null", O_RDONLY) >= 0);
	}
	pause();
}

static unsigned publishers(struct leat *l, const char *name)
{
	struct leat_stat st = {.struct_size = sizeof(st)};

	return leat_stat(l, name, &st, NULL, NULL) == 0 ? st.publishers : 0;
}

START_TEST(who_died_meanwhile_is_gone_and_who_lives_is_not)
{
	struct client c = {.w = _i ? (void *)&c : NULL};
	struct leat *l;
	pid_t pid, w;

	snprintf(c.domain, sizeof(c.domain), "%s", broker_start("--linger", "0", NULL));
	snprintf(c.name, sizeof(c.name), "%s", random_name());
	l = broker_open();
	pid = child(hold, &c);
	eventually(publishers(l, c.name) == 1);
	usleep(20000);
	kill_worker();
	ck_assert_uint_eq(publishers(l, c.name), 1);
	w = worker_pid();
	kill(w, SIGSTOP); /* so that it does not see it */
	child_kill(pid);
	kill(w, SIGKILL);
	eventually(publishers(l, c.name) == 0);
	leat_close(l);
}
END_TEST

START_TEST(killed_while_it_begins_the_next_one_begins)
{
	struct leat *l = broker_open();
	struct leat_pub *p[20];
	char name[20][64];
	pid_t w;

	for (int i = 0; i < 20; i++) {
		snprintf(name[i], sizeof(name[i]), "%s", random_name());
		ok(leat_pub_open(l, name[i], NULL, &p[i]));
	}
	for (int round = 0; round < (full() ? 200 : 12); round++) {
		for (int i = 0; i < 12; i++) {
			usleep((useconds_t)(rnd() % 3000));
			w = worker_pid();
			if (w > 0)
				kill(w, SIGKILL);
		}
		ck_assert_uint_eq(publishers(l, name[round % 20]), 1);
		usleep(60000); /* this one has not died at once */
	}
	for (int i = 0; i < 20; i++) {
		ck_assert_uint_eq(publishers(l, name[i]), 1);
		leat_pub_close(p[i]);
	}
	leat_close(l);
}
END_TEST

/* A broker's first worker, killed before its @k-th system call: 1; 0: it serves by then. */
static int kill_first(const char *path, long k)
{
	pid_t keeper = fork(), w;
	unsigned long child = 0;
	int status, serves = 0, fd;
	struct leat *l;
	char lock[320];

	if (keeper == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		execl(getenv("LEAT_LEATD"), "leatd", "--domain", path, "--ready-fd", "2", NULL);
		_exit(127);
	}
	ck_assert(waitpid(keeper, &status, 0) == keeper);
	ck_assert(ptrace(PTRACE_SETOPTIONS, keeper, NULL, PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE) == 0);
	do /* until it has a child, which is ours from its first instruction on */
		ck_assert(ptrace(PTRACE_CONT, keeper, NULL, NULL) == 0 && waitpid(keeper, &status, 0) == keeper && WIFSTOPPED(status));
	while (!(status >> 16) || status >> 8 == (SIGTRAP | PTRACE_EVENT_EXEC << 8));
	ck_assert(ptrace(PTRACE_GETEVENTMSG, keeper, NULL, &child) == 0 && ptrace(PTRACE_DETACH, keeper, NULL, NULL) == 0);
	w = (pid_t)child;
	ck_assert(waitpid(w, &status, __WALL) == w && ptrace(PTRACE_SETOPTIONS, w, NULL, PTRACE_O_EXITKILL) == 0);
	for (long n = 0; n < 2 * k && WIFSTOPPED(status) && !serves; n++) {
		uint64_t until = leat__now() + SEC / 2;

		ptrace(PTRACE_SYSCALL, w, NULL, NULL);
		while (waitpid(w, &status, __WALL | WNOHANG) == 0 && !serves)
			serves = leat__now() > until; /* it waits for clients */
	}
	kill(w, SIGKILL);
	waitpid(w, NULL, __WALL);
	eventually(leat_open(path, &l) == 0);
	ok(leat_ping(l, NULL));
	leat_close(l);
	snprintf(lock, sizeof(lock), "%s.lock", path);
	fd = open(lock, O_RDWR | O_CLOEXEC);
	ck_assert_msg(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK, "%ld: it serves without its lock", k);
	close(fd);
	kill(keeper, SIGTERM);
	ck_assert(waitpid(keeper, &status, 0) == keeper);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%ld: %#x", k, (unsigned)status);
	return !serves;
}

START_TEST(killed_while_the_first_begins_the_next_one_begins)
{
	char path[300];
	long k = 1;

	do
		snprintf(path, sizeof(path), "%s/first%ld", tmp_dir(), k);
	while (kill_first(path, k++));
	fprintf(stderr, "# before each of %ld system calls\n", k - 2);
	ck_assert_int_gt(k, 50);
}
END_TEST

/* Whatever numbers what it hands on happens to have. */
START_TEST(however_much_is_kept_the_next_one_begins)
{
	enum { MANY = 120 };
	struct leat *l = broker_open(), *c[MANY];

	for (int i = 0; i < MANY; i++) {
		ok(leat_open(leat_domain(l), &c[i]));
		kill_worker();
		ok(leat_ping(c[i], NULL));
	}
	ck_assert_int_gt(broker_fds(), 3 * MANY); /* more than LEATD_KEEPER_FD in the keeper alone */
	for (int i = 0; i < MANY; i++)
		leat_close(c[i]);
	leat_close(l);
}
END_TEST

START_TEST(a_request_that_kills_every_worker_is_cut_off)
{
	struct leat *l, *other;
	const char *name = random_name(), *poison = tmp_path("poison");
	struct leat_pub *p, *q;
	uint64_t start;
	char lib[300];
	int e, fd;

	snprintf(lib, sizeof(lib), "%s/tests/libpoison.so", getenv("LEAT_BUILD"));
	setenv("LD_PRELOAD", lib, 1);
	setenv("LEAT_POISON", poison, 1);
	ok(leat_open(broker_start(NULL), &l));
	unsetenv("LD_PRELOAD");
	ok(leat_open(broker_start(NULL), &other));
	ok(leat_pub_open(other, name, NULL, &p));
	fd = open(poison, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	start = leat__now();
	e = leat_pub_open(l, random_name(), NULL, &q);
	ck_assert_msg(e == -ECONNRESET, "%d: %s", e, leat_why());
	fprintf(stderr, "# cut off after %.0f ms\n", (double)(leat__now() - start) / 1e6);
	ck_assert_uint_eq(publishers(other, name), 1); /* the others are served, */
	ok(leat_pub_open(l, name, NULL, &q)); /* and so is it, with what can be done */
	ck_assert_uint_eq(publishers(other, name), 2);
	leat_pub_close(q);
	leat_pub_close(p);
	leat_close(other);
	leat_close(l);
	close(fd);
}
END_TEST

/* The broker's log, as the keeper has it. */
static int open_log(void)
{
	for (int fd = 3; fd < 4096; fd++) {
		char path[64], text[64] = "";

		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)broker_pid(), fd);
		if (readlink(path, text, sizeof(text) - 1) > 0 && strstr(text, "leat-log"))
			return open(path, O_RDWR | O_CLOEXEC);
	}
	return -1;
}

START_TEST(a_log_of_nonsense_is_as_good_as_none)
{
	struct leat *l = broker_open();
	const char *name = random_name();
	struct leat_pub *p;
	struct leat_sub *s;
	struct stat st;
	char buf[64];
	int log;

	ok(leat_pub_open(l, name, NULL, &p));
	ok(leat_sub_open(l, name, NULL, &s));
	ok(leat_send(p, "one", 3, SEC));
	log = open_log();
	ck_assert(log >= 0 && fstat(log, &st) == 0);
	for (int i = 0; i < 200; i++) { /* whatever it is that is wrong */
		uint64_t x = rnd();

		ck_assert(pwrite(log, &x, sizeof(x), _i ? (off_t)(rnd() % 500 * 8 + 4096) : (off_t)(i * 8)) == sizeof(x));
	}
	close(log);
	kill_worker();
	/* As if the whole broker had been killed: they come back, and nothing is lost. */
	ok(leat_recv(s, buf, sizeof(buf), NULL, SEC));
	for (int i = 0; i < 100; i++) {
		ok(leat_send(p, "two", 3, 10 * SEC));
		ok(leat_recv(s, buf, sizeof(buf), NULL, 10 * SEC));
	}
	for (int i = 0; publishers(l, name) != 1; i++) {
		ck_assert_int_lt(i, 100);
		leat_dispatch(l);
		ok(leat_send(p, "two", 3, 10 * SEC));
		ok(leat_recv(s, buf, sizeof(buf), NULL, 10 * SEC));
		usleep(20000);
	}
	leat_close(l);
}
END_TEST

START_TEST(the_log_is_begun_anew_before_it_is_long)
{
	struct leat *l = (broker_start("--linger", "0", NULL), broker_open());
	struct leat_pub *p, *stays;
	char name[64];
	struct stat st;
	int log;

	snprintf(name, sizeof(name), "%s", random_name());
	ok(leat_pub_open(l, name, NULL, &stays));
	for (int i = 0; i < 20000; i++) {
		ok(leat_pub_open(l, random_name(), OPTS(leat_pub_opts, .capacity = 4096), &p));
		leat_pub_close(p);
		if (i % 4000 == 3999)
			kill_worker();
	}
	log = open_log();
	ck_assert(log >= 0 && fstat(log, &st) == 0);
	ck_assert_msg(st.st_size <= 4 << 20, "%lld bytes", (long long)st.st_size);
	close(log);
	ck_assert_uint_eq(publishers(l, name), 1);
	leat_close(l);
}
END_TEST

/* Before the broker is started: as many of what takes so many descriptors each of it as there may be, @want at most. */
static int afford(int want, int each)
{
	struct rlimit most = {65536, 65536}; /* as leatd.service has it */

	if (setrlimit(RLIMIT_NOFILE, &most) < 0)
		getrlimit(RLIMIT_NOFILE, &most);
	return (int)leat__min((uint64_t)want, (most.rlim_max - 200) / (uint64_t)each);
}

/* How long nobody is served when there is much to go on with. */
START_TEST(another_worker_serves_soon)
{
	enum { MANY = 10000 };
	int n = afford(full() ? MANY : 2000, 2);
	struct leat *l = broker_open();
	struct leat_pub **p = calloc(MANY, sizeof(struct leat_pub *));
	uint64_t slowest = 0, all[9];

	ck_assert(p != NULL);
	for (int i = 0; i < n; i++) {
		char name[64];

		snprintf(name, sizeof(name), "many/%d", i);
		ok(leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 4096, .max_publishers = 1, .max_subscribers = 1), &p[i]));
	}
	for (int i = 0; i < 9; i++) {
		uint64_t start = leat__now();

		kill(worker_pid(), SIGKILL);
		ok(leat_ping(l, NULL));
		all[i] = leat__now() - start;
		slowest = all[i] > slowest ? all[i] : slowest;
		usleep(100000);
	}
	fprintf(stderr, "# %d channels: another worker served after %.0f ms at most, of 9\n", n, (double)slowest / 1e6);
	for (int i = 0; i < 4; i++) /* most of them: the machine may have stood still once */
		for (int k = 0; k < 8; k++)
			if (all[k] > all[k + 1]) {
				uint64_t x = all[k];

				all[k] = all[k + 1];
				all[k + 1] = x;
			}
	ck_assert_uint_le(all[5], (uint64_t)MOST);
	free(p);
	leat_close(l);
}
END_TEST

/* ---- how large, how quick ---- */

static long kib_of(pid_t pid)
{
	char path[64], text[128] = "";
	long pages = 0;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	leat__read_file(path, text, sizeof(text));
	return sscanf(text, "%*d %ld", &pages) == 1 ? pages * 4 : 0;
}

START_TEST(an_idle_broker_is_small)
{
	struct leat *l = broker_open();
	long keeper, worker;

	ok(leat_ping(l, NULL));
	leat_close(l);
	eventually(child_of(worker_pid()) == 0); /* what looks at descriptors */
	keeper = kib_of(broker_pid());
	worker = kib_of(worker_pid());
	fprintf(stderr, "# resident: keeper %ld KiB, worker %ld KiB\n", keeper, worker);
	ck_assert_int_gt(worker, 0);
	ck_assert_int_le((keeper + worker) * 1024, 3000000);
}
END_TEST

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Opening on a name that is new, so many times: sorted. */
static void time_opens(struct leat *l, uint64_t *took, int n)
{
	for (int i = 0; i < n; i++) {
		uint64_t begun = leat__now();
		struct leat_pub *p;

		ok(leat_pub_open(l, random_name(), OPTS(leat_pub_opts, .capacity = 4096), &p));
		took[i] = leat__now() - begun;
		leat_pub_close(p);
	}
	qsort(took, (size_t)n, sizeof(*took), by_size);
}

START_TEST(a_crowd_costs_what_it_is_and_opening_stays_quick)
{
	enum { OPENS = 500, MANY = 1000, EACH = 10 };
	int n = afford(full() ? MANY : 300, 2 + EACH + EACH / 2);
	struct leat *l = (broker_start("--linger", "0", NULL), broker_open()), **clients = calloc(MANY, sizeof(*clients));
	uint64_t took[OPENS], quiet, slow = UINT64_MAX;
	long before, half = 0, after, greeted;

	time_opens(l, took, OPENS);
	quiet = took[OPENS / 2];
	do { /* what those channels had is given back */
		before = kib_of(broker_pid()) + kib_of(worker_pid());
		usleep(50000);
	} while (kib_of(broker_pid()) + kib_of(worker_pid()) != before);
	for (int i = 0; i < n; i++)
		ok(leat_open(leat_domain(l), &clients[i]));
	greeted = kib_of(broker_pid()) + kib_of(worker_pid());
	for (int i = 0; i < n; i++) {
		for (int k = 0; k < EACH; k++) {
			struct leat_sub *s;
			struct leat_pub *p;
			char name[64];

			snprintf(name, sizeof(name), "crowd/%d/%d", i, k);
			if (k % 2) /* has no ring, for want of which there may be more of all */
				ok(leat_sub_open(clients[i], name, OPTS(leat_sub_opts, .max_publishers = 1, .max_subscribers = 1), &s));
			else
				ok(leat_pub_open(clients[i], name, OPTS(leat_pub_opts, .capacity = 4096, .max_publishers = 1, .max_subscribers = 1), &p));
		}
		if (i == n / 2 - 1)
			half = kib_of(broker_pid()) + kib_of(worker_pid());
	}
	after = kib_of(broker_pid()) + kib_of(worker_pid());
	for (int round = 0; round < 3 && slow > 20 * quiet; round++) { /* the machine may have stood still */
		time_opens(l, took, OPENS);
		slow = took[OPENS * 99 / 100 - 1] < slow ? took[OPENS * 99 / 100 - 1] : slow;
	}
	fprintf(stderr, "# %d clients, %d channels: open p50 %.0f us, p99 %.0f us; without them p50 %.0f us: %.1f times\n", n, n * EACH,
		(double)took[OPENS / 2] / 1e3, (double)slow / 1e3, (double)quiet / 1e3, (double)slow / (double)quiet);
	fprintf(stderr, "# resident: %.2f KiB a client, %.2f KiB a channel (%.2f in the first half)\n", (double)(greeted - before) / n,
		(double)(after - greeted) / (n * EACH), (double)(half - greeted) / (n * EACH / 2));
	ck_assert_uint_le(slow, 20 * quiet);
	/* Linear: the second half costs what the first did. */
	ck_assert_int_le(after - half, 2 * (half - greeted) + 2048);
	for (int i = 0; i < n; i++)
		leat_close(clients[i]);
	free(clients);
	leat_close(l);
}
END_TEST

/* ---- under load ---- */

enum { PUBS = 4, SUBS = 3, CHURNS = 2, RATE = 50000 };
static struct ledger {
	uint32_t stop, ready, late;
	uint64_t sent[PUBS], slowest, rounds, killed_at;
	char domain[200], name[64];
} *ledger;

struct note {
	uint64_t who, n;
};

static void send_on(void *arg)
{
	uint64_t who = (uint64_t)(uintptr_t)arg, n = 0, start;
	struct leat_pub *p;
	struct leat *l;

	ok(leat_open(ledger->domain, &l));
	ok(leat_pub_open(l, ledger->name, OPTS(leat_pub_opts, .capacity = 1 << 18), &p));
	leat__fetch_add(&ledger->ready, 1u);
	start = leat__now();
	while (!leat__load_acquire(&ledger->stop)) {
		for (uint64_t due = (leat__now() - start) * RATE / 1000000000; n < due; n++) {
			struct note note = {who, n};

			ok(leat_send(p, &note, sizeof(note), 20 * SEC));
		}
		usleep(200);
	}
	ledger->sent[who] = n;
	leat_close(l);
}

static void receive_on(void *arg)
{
	uint64_t next[PUBS] = {0};
	struct leat_sub *s;
	struct leat *l;
	int e;

	(void)arg;
	ok(leat_open(ledger->domain, &l));
	ok(leat_sub_open(l, ledger->name, NULL, &s));
	leat__fetch_add(&ledger->ready, 1u);
	for (;;) {
		struct leat_info info;
		struct note note;

		e = leat_recv(s, &note, sizeof(note), &info, SEC);
		if (e == -ETIMEDOUT && leat__load_acquire(&ledger->stop) == 2)
			break;
		if (e == -ETIMEDOUT)
			continue;
		ok(e);
		must(note.who < PUBS && note.n == next[note.who] && !info.lost, "%llu of %llu instead of %llu, %llu lost",
		     (unsigned long long)note.n, (unsigned long long)note.who, (unsigned long long)next[note.who],
		     (unsigned long long)info.lost);
		next[note.who]++;
	}
	for (int i = 0; i < PUBS; i++)
		ck_assert_uint_eq(next[i], ledger->sent[i]);
	leat_close(l);
}

/* What counts is how long after the last kill there was an answer: another may come before anyone serves. */
static void timed(int e, uint64_t start, const char *call)
{
	uint64_t killed = leat__load_relaxed(&ledger->killed_at), took = leat__now() - (killed > start ? killed : start);

	ok(e);
	if (took > (uint64_t)MOST) {
		leat__fetch_add(&ledger->late, 1u);
		fprintf(stderr, "# %.0f ms: %s\n", (double)took / 1e6, call);
	}
	if (took > leat__load_relaxed(&ledger->slowest))
		leat__store_relaxed(&ledger->slowest, took);
}

#define TIMED(call)                                                                                \
	do {                                                                                       \
		uint64_t timed_start = leat__now();                                                \
		int timed_e = call;                                                                \
                                                                                                   \
		timed(timed_e, timed_start, #call);                                                \
	} while (0)

/* Comes and goes; every request is answered, and what others hold is there. */
static void churn(void *arg)
{
	struct leat *l;

	(void)arg;
	ok(leat_open(ledger->domain, &l));
	leat__fetch_add(&ledger->ready, 1u);
	while (!leat__load_acquire(&ledger->stop)) {
		const char *name = random_name();
		struct leat_stat st = {.struct_size = sizeof(st)};
		struct leat_pub *p;
		struct leat_sub *s;
		struct leat *another;
		char buf[8];

		TIMED(leat_open(ledger->domain, &another));
		TIMED(leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 4096), &p));
		TIMED(leat_sub_open(another, name, NULL, &s));
		ok(leat_send(p, "hello", 5, SEC));
		ok(leat_recv(s, buf, sizeof(buf), NULL, 5 * SEC));
		TIMED(leat_stat(l, ledger->name, &st, NULL, NULL));
		must((st.publishers == PUBS && st.subscribers == SUBS) || leat__load_acquire(&ledger->stop),
		     "%u publishers, %u subscribers", (unsigned)st.publishers, (unsigned)st.subscribers);
		leat_pub_close(p);
		leat_close(another);
		leat__fetch_add(&ledger->rounds, UINT64_C(1));
	}
	leat_close(l);
}

START_TEST(killed_under_load_nobody_notices)
{
	int kills = full() ? 300 : 60;
	pid_t pid[PUBS + SUBS + CHURNS];
	struct leat *l;

	ledger = mmap(NULL, sizeof(*ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert(ledger != MAP_FAILED);
	snprintf(ledger->domain, sizeof(ledger->domain), "%s", broker_start("--linger", "1", NULL));
	snprintf(ledger->name, sizeof(ledger->name), "%s", random_name());
	for (int i = 0; i < PUBS + SUBS + CHURNS; i++) {
		pid[i] = i < SUBS ? child(receive_on, NULL)
		       : i < SUBS + PUBS ? child(send_on, (void *)(uintptr_t)(i - SUBS)) : child(churn, NULL);
		eventually(leat__load_acquire(&ledger->ready) == (uint32_t)i + 1);
	}
	for (int i = 0; i < kills; i++) {
		usleep((useconds_t)(rnd() % 150000));
		kill_worker();
		leat__store_relaxed(&ledger->killed_at, leat__now());
	}
	leat__store_release(&ledger->stop, 1u);
	for (int i = SUBS; i < PUBS + SUBS + CHURNS; i++)
		child_ok(pid[i]);
	leat__store_release(&ledger->stop, 2u);
	for (int i = 0; i < SUBS; i++)
		child_ok(pid[i]);
	fprintf(stderr, "# %d kills; %llu messages of one publisher, %llu rounds of requests, the slowest %.0f ms after the last kill\n", kills,
		(unsigned long long)ledger->sent[0], (unsigned long long)ledger->rounds, (double)ledger->slowest / 1e6);
	ck_assert_uint_gt(ledger->rounds, (uint64_t)kills);
	ck_assert_msg(ledger->late * 10 <= (uint32_t)kills, "%u requests took over 500 ms", ledger->late);
	ok(leat_open(ledger->domain, &l));
	eventually(n_channels(l) == 0);
	leat_close(l);
	munmap(ledger, sizeof(*ledger));
}
END_TEST

/* No other can be started for a moment: it is being installed, there is no memory. */
START_TEST(one_that_cannot_be_started_is_tried_again)
{
	char leatd[400], worker[400], away[400], cmd[1400], name[64];
	struct leat *l;
	struct leat_pub *p;

	snprintf(leatd, sizeof(leatd), "%s/leatd", tmp_dir());
	snprintf(worker, sizeof(worker), "%s/leatd-worker", tmp_dir());
	snprintf(away, sizeof(away), "%s/away", tmp_dir());
	snprintf(cmd, sizeof(cmd), "cp '%s' '%s' && cp '%s-worker' '%s'", getenv("LEAT_LEATD"), leatd, getenv("LEAT_LEATD"), worker);
	ck_assert_int_eq(system(cmd), 0);
	setenv("LEAT_LEATD", leatd, 1);
	snprintf(name, sizeof(name), "%s", random_name());
	l = broker_open();
	ok(leat_pub_open(l, name, NULL, &p));
	for (int round = 0; round < 2; round++) { /* gone; no program */
		pid_t was = worker_pid();

		ck_assert_int_eq(rename(worker, away), 0);
		if (round)
			ck_assert(close(open(worker, O_WRONLY | O_CREAT | O_CLOEXEC, 0755)) == 0);
		kill(was, SIGKILL);
		usleep(350000);
		ck_assert_int_eq(kill(broker_pid(), 0), 0);
		ck_assert_int_eq(waitpid(broker_pid(), NULL, WNOHANG), 0);
		ck_assert_int_eq(rename(away, worker), 0);
		ok(leat_ping(l, NULL));
		ck_assert_uint_eq(publishers(l, name), 1);
	}
	broker_kill(SIGTERM); /* and one that can begin no more ends when it is told to */
	leat_pub_close(p);
	leat_close(l);
	unlink(leatd);
	unlink(worker);
}
END_TEST

/* What it writes for people must not go to what has their numbers by chance. */
START_TEST(started_without_standard_descriptors_it_spoils_nothing)
{
	int ours[3], log;
	char magic[5] = "";
	struct leat *l;

	for (int fd = 0; fd < 3; fd++) {
		ours[fd] = fcntl(fd, F_DUPFD_CLOEXEC, 10);
		close(fd);
	}
	broker_start("--verbose", NULL);
	for (int fd = 0; fd < 3; fd++) {
		dup2(ours[fd], fd);
		close(ours[fd]);
	}
	l = broker_open();
	for (int fd = 0; fd < 3; fd++) {
		char path[64], text[64] = "";

		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)worker_pid(), fd);
		ck_assert_msg(readlink(path, text, sizeof(text) - 1) > 0 && !strcmp(text, "/dev/null"), "%d: %s", fd, text);
	}
	log = open_log();
	ck_assert(log >= 0 && pread(log, magic, 4, 0) == 4);
	ck_assert_str_eq(magic, "llog");
	close(log);
	leat_close(l);
}
END_TEST

/* The log is a pipe that is full and that nobody empties; or whose reader has gone. */
START_TEST(who_does_not_read_the_log_holds_nobody_up)
{
	static const char junk[4096];
	int ours = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3), log[2];
	struct leat *l;

	ck_assert(ours >= 0 && pipe2(log, O_CLOEXEC | O_NONBLOCK) == 0);
	while (_i == 0 && write(log[1], junk, sizeof(junk)) > 0)
		;
	while (_i == 0 && write(log[1], junk, 1) > 0)
		;
	fcntl(log[1], F_SETFL, 0);
	dup2(log[1], STDERR_FILENO);
	close(log[1]);
	broker_start("--verbose", NULL);
	dup2(ours, STDERR_FILENO);
	close(ours);
	if (_i == 1)
		close(log[0]);
	for (int k = 0; k < 3; k++) {
		pid_t worker = worker_pid();

		kill(worker, SIGKILL);
		eventually(worker_pid() > 0 && worker_pid() != worker);
		l = broker_open();
		ok(leat_ping(l, NULL));
		leat_close(l);
	}
	if (_i == 0)
		close(log[0]);
}
END_TEST

START_TEST(signals_go_to_the_right_one)
{
	struct leat *l = broker_open();
	const char *name = random_name();
	struct leat_pub *p;
	pid_t w = worker_pid(), keeper = broker_pid();
	int status;

	ok(leat_pub_open(l, name, NULL, &p));
	kill(keeper, SIGUSR1); /* another worker */
	eventually(worker_pid() > 0 && worker_pid() != w);
	ck_assert_uint_eq(publishers(l, name), 1);
	/* Without its keeper a worker is no use: it must not serve on. */
	w = worker_pid();
	kill(keeper, SIGSTOP);
	kill(w, SIGSTOP);
	kill(w, SIGCONT);
	kill(keeper, SIGCONT);
	leat_pub_close(p);
	leat_close(l);
	kill(keeper, SIGTERM);
	ck_assert(waitpid(keeper, &status, 0) == keeper && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	ck_assert(kill(w, 0) < 0);
	ck_assert(access(tmp_path("broker.sock"), F_OK) < 0 && access(tmp_path("broker.sock.lock"), F_OK) < 0);
	broker_forget();
}
END_TEST

static void copy(const char *from, const char *to)
{
	char cmd[900];

	snprintf(cmd, sizeof(cmd), "cp '%s' '%s.new' && mv '%s.new' '%s'", from, to, to, to);
	ck_assert_int_eq(system(cmd), 0);
}

/* A new version is installed, and put to work; and the old one again. LEAT_OTHER_WORKER: one of another version. */
START_TEST(another_version_goes_on)
{
	const char *leatd = getenv("LEAT_LEATD"), *other = getenv("LEAT_OTHER_WORKER");
	char here[300], worker[320], first[300];
	struct leat_region_opts ro = {.struct_size = sizeof(ro), .kind = LEAT_MEMFD, .size = 4096};
	struct leat_event ev = {.struct_size = sizeof(ev)};
	struct leat_pub *p, *q;
	struct leat_sub *s;
	struct leat_queue *w;
	struct leat_watch *watch;
	struct leat_region *r, *found;
	struct leat_share *sh;
	struct leat *l;
	char buf[8];

	snprintf(first, sizeof(first), "%s-worker", leatd);
	snprintf(here, sizeof(here), "%s", tmp_path("leatd"));
	snprintf(worker, sizeof(worker), "%s-worker", here);
	copy(leatd, here);
	copy(first, worker);
	setenv("LEAT_LEATD", here, 1);
	l = broker_open();
	ok(leat_pub_open(l, "a", NULL, &p));
	ok(leat_sub_open(l, "a", NULL, &s));
	ok(leat_queue_open(l, "jobs", "g", NULL, &w));
	ok(leat_watch(l, NULL, &watch));
	ok(leat_region_create(&ro, &r));
	ok(leat_region_share(l, "r", r, 0, &sh));
	for (int i = 0; i < 4; i++) {
		pid_t was = worker_pid();

		copy(i % 2 || !other ? first : other, worker);
		kill(broker_pid(), SIGUSR1);
		eventually(worker_pid() > 0 && worker_pid() != was);
		ck_assert_uint_eq(publishers(l, "a"), 1);
		ok(leat_send(p, "x", 1, SEC));
		ok(leat_recv(s, buf, sizeof(buf), NULL, SEC));
		ok(leat_pub_open(l, "a", NULL, &q));
		ok(leat_send(q, "y", 1, SEC));
		ok(leat_recv(s, buf, sizeof(buf), NULL, SEC));
		leat_pub_close(q);
		ok(leat_region_find(l, "r", 0, NULL, &found));
		leat_region_close(found);
		ok(leat_pub_open(l, "new", NULL, &q));
		do
			ok(leat_watch_next(watch, &ev, 5 * SEC));
		while (ev.kind != LEAT_CAME || strcmp(ev.name, "new") != 0);
		leat_pub_close(q);
		ok(leat_remove(l, "new"));
		do
			ok(leat_watch_next(watch, &ev, 5 * SEC));
		while (ev.kind != LEAT_GONE || strcmp(ev.name, "new") != 0);
	}
	leat_region_unshare(sh);
	leat_region_close(r);
	leat_close(l);
}
END_TEST

/* A number in a file of /proc, behind the last @after. */
static pid_t pid_in(const char *what, pid_t of, char after)
{
	char path[80], text[400] = "", *at;
	int fd, n = 0;

	snprintf(path, sizeof(path), what, (int)of, (int)of);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		n = (int)read(fd, text, sizeof(text) - 1);
	close(fd);
	at = n > 0 && after ? strrchr(text, after) : text;
	return at ? (pid_t)atoi(at + (after ? 4 : 0)) : 0;
}

/* A broker started on demand says on descriptor 3 that it serves: its next worker has something else there. */
START_TEST(one_started_on_demand_goes_on_as_well)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct ucred who;
	struct leat_pub *p;
	struct leat *l;
	pid_t keeper, w;
	int sock;

	setenv("XDG_RUNTIME_DIR", tmp_dir(), 1);
	setenv("LEAT_AUTOSTART", "1", 1);
	unsetenv("LEAT_BROKER");
	ok(leat_open(NULL, &l));
	ok(leat_pub_open(l, "x", NULL, &p));
	snprintf(un.sun_path, sizeof(un.sun_path), "%.100s", leat_domain(l));
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	ck_assert(connect(sock, (struct sockaddr *)&un, sizeof(un)) == 0);
	ck_assert(getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &who, &(socklen_t){sizeof(who)}) == 0); /* who listens: the worker */
	close(sock);
	keeper = pid_in("/proc/%d/stat", who.pid, ')'); /* ") S 123" */
	for (int i = 0; i < 5; i++) {
		eventually((w = pid_in("/proc/%d/task/%d/children", keeper, 0)) > 0);
		kill(w, SIGKILL);
		ok(leat_ping(l, NULL));
		ck_assert_uint_eq(publishers(l, "x"), 1);
	}
	leat_pub_close(p);
	leat_close(l);
	kill(keeper, SIGTERM);
	eventually(kill(keeper, 0) < 0);
}
END_TEST

START_TEST(who_is_told_to_end_while_another_worker_begins_ends)
{
	for (int i = 0; i < 40; i++) {
		pid_t keeper, pid = 0;
		uint64_t until;
		int status;

		broker_start(NULL);
		keeper = broker_pid();
		kill(worker_pid(), SIGKILL);
		usleep((useconds_t)(rnd() % 4000));
		kill(keeper, i % 2 ? SIGTERM : SIGINT);
		for (until = leat__now() + 5 * SEC; !(pid = waitpid(keeper, &status, WNOHANG)) && leat__now() < until;)
			usleep(1000);
		ck_assert_msg(pid == keeper && WIFEXITED(status) && WEXITSTATUS(status) == 0, "%d: it goes on (%d)", i, (int)pid);
		broker_forget();
		ck_assert(access(tmp_path("broker.sock"), F_OK) < 0);
	}
}
END_TEST

START_TEST(without_its_keeper_a_worker_ends)
{
	const char *path = broker_start(NULL);
	pid_t w = worker_pid();
	struct leat *l;

	ok(leat_open(path, &l));
	broker_kill(SIGKILL);
	eventually(kill(w, 0) < 0);
	broker_start(NULL);
	eventually(leat_ping(l, NULL) == 0);
	leat_close(l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("worker");
	TCase *tc = leak_checked(s, "worker", 0);

	test(tc, what_there_was_is_there);
	tcase_add_loop_test(tc, who_died_meanwhile_is_gone_and_who_lives_is_not, 0, 2);
	test(tc, killed_while_it_begins_the_next_one_begins);
	test(tc, killed_while_the_first_begins_the_next_one_begins);
	test(tc, however_much_is_kept_the_next_one_begins);
	test(tc, a_request_that_kills_every_worker_is_cut_off);
	tcase_add_loop_test(tc, a_log_of_nonsense_is_as_good_as_none, 0, 2);
	test(tc, the_log_is_begun_anew_before_it_is_long);
	test(tc, one_that_cannot_be_started_is_tried_again);
	test(tc, started_without_standard_descriptors_it_spoils_nothing);
	tcase_add_loop_test(tc, who_does_not_read_the_log_holds_nobody_up, 0, 2);
	test(tc, signals_go_to_the_right_one);
	test(tc, without_its_keeper_a_worker_ends);
	test(tc, one_started_on_demand_goes_on_as_well);
	test(tc, who_is_told_to_end_while_another_worker_begins_ends);
	tcase_add_loop_test(tc, killed_at_any_instruction_it_is_not_noticed, 0, OPS);
	tc = leak_checked(s, "size", 0);
	test(tc, another_worker_serves_soon);
	test(tc, an_idle_broker_is_small);
	test(tc, a_crowd_costs_what_it_is_and_opening_stays_quick);
	test(leak_checked(s, "load", 0), killed_under_load_nobody_notices);
	test(leak_checked(s, "version", 60), another_version_goes_on);
	return run_suite(s);
}
