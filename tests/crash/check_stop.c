/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stopped is not dead: SIGSTOP to each role, a debugger, everything at once as in a suspend, and a wall clock
 * that jumps. 3 seconds in the short form, 60 in the long one.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include "base/atomic.h"
#include "channel/channel.h"
#include "harness.h"

static int pause_s(void)
{
	return full() ? 60 : 3;
}

/* Shared with the children. */
static struct board {
	char domain[200], name[64];
	uint64_t sent, received, lost, gap;
	int stop, policy;
	uint32_t ready;
} *board;

static void make_board(void)
{
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert(board != MAP_FAILED);
	snprintf(board->domain, sizeof(board->domain), "%s", broker_start(NULL));
	snprintf(board->name, sizeof(board->name), "%s", random_name());
}

/* policy: 0 wait, 1 wait with a grace of 50 ms, 2 overwrite. */
static void publish(void *arg)
{
	struct leat_pub *p;
	struct leat *l;
	uint64_t n = 0;

	(void)arg;
	ok(leat_open(board->domain, &l));
	ok(leat_pub_open(l, board->name,
			 OPTS(leat_pub_opts, .capacity = 65536, .grace_ns = board->policy == 1 ? 50000000 : 0,
			      .policy = board->policy == 2 ? LEAT_OVERWRITE : LEAT_WAIT),
			 &p));
	leat__fetch_add(&board->ready, 1u);
	while (!leat__load_acquire(&board->stop)) {
		int e = leat_send(p, &n, sizeof(n), 200000000);

		must(e == 0 || e == -ETIMEDOUT, "publisher: %d: %s", e, leat_why());
		n += e == 0;
		leat__store_release(&board->sent, n);
		if (n % 64 == 0)
			usleep(500);
	}
	leat_close(l);
}

static void subscribe(void *arg)
{
	struct leat_info info;
	struct leat_sub *s;
	struct leat *l;
	uint64_t n, expected = 0;
	int e;

	(void)arg;
	ok(leat_open(board->domain, &l));
	ok(leat_sub_open(l, board->name, OPTS(leat_sub_opts, .flags = LEAT_UNTIL_ENDED), &s));
	leat__fetch_add(&board->ready, 1u);
	while ((e = leat_recv(s, &n, sizeof(n), &info, 2 * pause_s() * SEC + 20 * SEC)) == 0) {
		expected += info.lost;
		must(n == expected, "message %llu, %llu was expected", (unsigned long long)n, (unsigned long long)expected);
		expected++;
		leat__store_relaxed(&board->lost, board->lost + info.lost);
		leat__store_release(&board->received, board->received + 1);
	}
	must(e == -ENODATA, "subscriber: %d: %s", e, leat_why());
	leat_close(l);
}

static uint64_t moves(const uint64_t *what)
{
	uint64_t before = leat__load_acquire(what);

	usleep(300000);
	return leat__load_acquire(what) - before;
}

static void both_are_there(struct leat *l)
{
	struct leat_stat st = {.struct_size = sizeof(st)};

	ok(leat_stat(l, board->name, &st, NULL, NULL));
	ck_assert_uint_eq(st.publishers, 1);
	ck_assert_uint_eq(st.subscribers, 1);
}

enum role { PUBLISHER, SUBSCRIBER, BROKER, ALL, DEBUGGED };

/* A debugger: gdb where there is one, else what it does. */
struct debugger {
	pid_t victim, gdb; /* 0: none */
	int commands;
};

static void debug(struct debugger *d, pid_t victim)
{
	char pid[20];
	int to[2], status;

	*d = (struct debugger){.victim = victim};
	if (system("command -v gdb >/dev/null") != 0) {
		ck_assert(ptrace(PTRACE_ATTACH, victim, NULL, NULL) == 0);
		ck_assert(waitpid(victim, &status, 0) == victim && WIFSTOPPED(status));
		return;
	}
	snprintf(pid, sizeof(pid), "%d", (int)victim);
	ck_assert(pipe2(to, O_CLOEXEC) == 0);
	d->gdb = fork();
	if (d->gdb == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(to[0], 0);
		dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), 1);
		dup2(1, 2);
		unsetenv("LD_PRELOAD");
		execlp("gdb", "gdb", "-nx", "-q", "-p", pid, NULL);
		_exit(127);
	}
	close(to[0]);
	d->commands = to[1];
	eventually(moves(&board->sent) == 0);
	fprintf(stderr, "# in gdb\n");
}

static void debug_no_more(const struct debugger *d)
{
	int status;

	if (!d->gdb) {
		ptrace(PTRACE_DETACH, d->victim, NULL, NULL);
		return;
	}
	ck_assert(write(d->commands, "bt\ndetach\nquit\n", 15) == 15);
	close(d->commands);
	ck_assert(waitpid(d->gdb, &status, 0) == d->gdb && status == 0);
}

static const struct {
	enum role role;
	int policy;
} stops[] = {{PUBLISHER, 0}, {SUBSCRIBER, 0}, {SUBSCRIBER, 1}, {SUBSCRIBER, 2}, {BROKER, 0}, {ALL, 0}, {DEBUGGED, 0}};

START_TEST(who_is_stopped_is_not_dead)
{
	static const char *const names[] = {
		[PUBLISHER] = "a publisher", [SUBSCRIBER] = "a subscriber", [BROKER] = "the broker", [ALL] = "everybody", [DEBUGGED] = "a publisher in gdb"};
	enum role role = stops[_i].role;
	int policy = stops[_i].policy;
	struct debugger debugger = {0};
	struct leat *l;
	pid_t sub, pub;

	make_board();
	board->policy = policy;
	l = broker_open();
	sub = child(subscribe, NULL);
	eventually(leat__load_acquire(&board->ready) == 1);
	pub = child(publish, NULL);
	eventually(leat__load_acquire(&board->received) > 1000);
	if (role == PUBLISHER || role == ALL)
		kill(pub, SIGSTOP);
	if (role == SUBSCRIBER || role == ALL)
		kill(sub, SIGSTOP);
	if (role == BROKER || role == ALL)
		broker_signal(SIGSTOP);
	if (role == DEBUGGED)
		debug(&debugger, pub);
	usleep(300000);
	if (role == SUBSCRIBER && policy == 0) /* a ring's worth, and no more */
		eventually(moves(&board->sent) == 0);
	for (int i = 0; i < pause_s(); i++) {
		if (role == PUBLISHER || role == DEBUGGED || role == ALL)
			ck_assert_uint_eq(moves(&board->sent), 0);
		else if (role == BROKER)
			eventually(moves(&board->received) > 0);
		else if (policy == 0) /* it is waited for */
			ck_assert_uint_eq(moves(&board->sent), 0);
		else
			eventually(moves(&board->sent) > 0);
		if (role != BROKER && role != ALL)
			both_are_there(l);
		usleep(700000);
	}
	if (role == DEBUGGED)
		debug_no_more(&debugger);
	broker_signal(SIGCONT);
	kill(pub, SIGCONT);
	kill(sub, SIGCONT);
	both_are_there(l);
	eventually(moves(&board->received) > 0);
	leat__store_release(&board->stop, 1);
	child_ok(pub);
	child_ok(sub);
	ck_assert_uint_eq(board->received + board->lost, board->sent);
	ck_assert_msg(policy ? board->lost > 0 : board->lost == 0, "%llu are lost", (unsigned long long)board->lost);
	figure(7, "%s stopped for %d s: not taken for dead, goes on where it was", names[role], pause_s());
	leat_close(l);
	munmap(board, sizeof(*board));
}
END_TEST

/* ---- the clock on the wall jumps by an hour, to and fro ---- */

static void run_with(const char *fault, const char *a, const char *b, const char *c, const char *d, const char *e)
{
	static char preload[300];

	snprintf(preload, sizeof(preload), "%s/tests/libfault.so", getenv("LEAT_BUILD"));
	setenv("LD_PRELOAD", preload, 1);
	setenv("LEAT_FAULT", fault, 1);
	setenv("LEAT_BROKER", board->domain, 1);
	execl(a, a, b, c, d, e, NULL);
	_exit(127);
}

static pid_t spawn_with_clock(const char *a, const char *b, const char *c, const char *d, const char *e)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run_with("clock", a, b, c, d, e);
	}
	return pid;
}

START_TEST(no_wait_is_by_the_clock_on_the_wall)
{
	char peer[300], *cmd = getenv("LEAT_CMD");
	uint64_t start;
	pid_t sub, pub;
	int status;

	make_board();
	snprintf(peer, sizeof(peer), "%s/tests/peer", getenv("LEAT_BUILD"));
	sub = spawn_with_clock(peer, "sub", board->name, "30000", NULL);
	pub = spawn_with_clock(peer, "pub", board->name, "30000", NULL);
	child_ok(pub);
	child_ok(sub);
	/* A wait of 300 ms for nothing: not at once, and not an hour. */
	start = leat__now();
	sub = spawn_with_clock(cmd, "sub", "--timeout", "0.3", "nothing/here");
	ck_assert(waitpid(sub, &status, 0) == sub);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 4, "status %#x", status);
	ck_assert_msg(leat__now() - start >= 290000000 && leat__now() - start < 5 * SEC, "0.3 s took %.3f",
		      (double)(leat__now() - start) / 1e9);
	munmap(board, sizeof(*board));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("stop");
	TCase *tc = leak_checked(s, "stop", full() ? 600 : 120);

	tcase_add_loop_test(tc, who_is_stopped_is_not_dead, 0, sizeof(stops) / sizeof(stops[0]));
	test(tc, no_wait_is_by_the_clock_on_the_wall);
	return run_suite(s);
}
