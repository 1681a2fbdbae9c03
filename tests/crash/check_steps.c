/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Killed at every instruction: a victim (victim.c) is single-stepped through an operation and killed at each
 * instruction of libleat in turn; then the survivors' world must be whole. In the short form the long
 * operations (opening and closing) are sampled. x86-64 only.
 */
#include "base/atomic.h"
#include "channel/channel.h"
#include "harness.h"
#include <leat/queue.h>
#include <leat/rpc.h>
#include <leat/share.h>

#if defined(__x86_64__)
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <sys/wait.h>

enum kind { PUB, SUB, MOVE, RETURN, WORK, CALL, SERVE, SHARE, WATCH, KICK, DOMAIN, REGION, SYNC, HAND };

static const struct op {
	const char *name;
	enum kind kind;
	int before, most; /* PUB: messages committed at the first mark, and at most at the second; WORK: done with */
	int lossy;        /* PUB: some of them may be lost, and are counted */
} ops[] = {
	{"claim", PUB, 3, 3, 0},
	{"commit", PUB, 3, 4, 0},
	{"commit_more", PUB, 3, 5, 0},
	{"abort", PUB, 3, 3, 0},
	{"send", PUB, 3, 5, 0},
	{"send_strict", PUB, 3, 4, 0},
	{"send_mark", PUB, 15, 17, 0},
	{"send_refresh", PUB, 256, 257, 0},
	{"send_overwrite", PUB, 256, 257, 1},
	{"send_grace", PUB, 256, 258, 1},
	{"send_block", PUB, 3, 4, 0},
	{"send_block_again", PUB, 2, 3, 0},
	{"wait_space", PUB, 256, 257, 0},
	{"pub_close", PUB, 3, 3, 0},
	{"pub_open", PUB, 0, 0, 0},
	{"recv", SUB, 0, 0, 0},
	{"recv_empty", SUB, 0, 0, 0},
	{"recv_wait", SUB, 0, 0, 0},
	{"latest", SUB, 0, 0, 0},
	{"peek", SUB, 0, 0, 0},
	{"release", SUB, 0, 0, 0},
	{"retain", SUB, 0, 0, 0},
	{"drop", SUB, 0, 0, 0},
	{"sub_close", SUB, 0, 0, 0},
	{"sub_open", SUB, 0, 0, 0},
	{"sub_observe", SUB, 0, 0, 0},
	{"move", MOVE, 3, 0, 0},
	{"return", RETURN, 0, 0, 0},
	{"queue_open", WORK, 0, 0, 0},
	{"take", WORK, 0, 0, 0},
	{"take_next", WORK, 2, 2, 0},
	{"take_again", WORK, 0, 0, 0},
	{"take_wait", WORK, 5, 5, 0},
	{"take_dead", WORK, 0, 1, 0},
	{"ack", WORK, 0, 1, 0},
	{"nack", WORK, 0, 0, 0},
	{"queue_close", WORK, 0, 0, 0},
	{"queue_close_busy", WORK, 0, 0, 0},
	{"client_open", CALL, 0, 0, 0},
	{"call_first", CALL, 0, 0, 0},
	{"call", CALL, 0, 0, 0},
	{"client_close", CALL, 0, 0, 0},
	{"serve", SERVE, 0, 0, 0},
	{"accept_first", SERVE, 0, 0, 0},
	{"accept", SERVE, 0, 0, 0},
	{"reply_claim", SERVE, 0, 0, 0},
	{"serve_close", SERVE, 0, 0, 0},
	{"share", SHARE, 0, 0, 0},
	{"unshare", SHARE, 0, 0, 0},
	{"find", SHARE, 0, 0, 0},
	{"set_wait", SUB, 0, 0, 0},
	{"set_take_wait", WORK, 5, 5, 0},
	{"watch", WATCH, 0, 0, 0},
	{"watch_next", WATCH, 0, 0, 0},
	{"watch_close", WATCH, 0, 0, 0},
	{"kick", KICK, 0, 0, 0},
	{"quota", DOMAIN, 0, 0, 0},
	{"open", DOMAIN, 0, 0, 0},
	{"open_tickets", DOMAIN, 0, 0, 0},
	{"close", DOMAIN, 0, 0, 0},
	{"region", REGION, 0, 0, 0},
	{"region_close", REGION, 0, 0, 0},
	{"lock", SYNC, 0, 0, 0},
	{"unlock", SYNC, 0, 0, 0},
	{"repair", SYNC, 0, 0, 0},
	{"post", SYNC, 0, 0, 0},
	{"sem_wait", SYNC, 0, 0, 0},
	{"sem_sleep", SYNC, 0, 0, 0},
	{"ring", SYNC, 0, 0, 0},
	{"listen", SYNC, 0, 0, 0},
	{"hand_create", HAND, 0, 0, 0},
	{"hand_open", HAND, 0, 0, 0},
	{"hand_send", HAND, 0, 0, 0},
};
static const char *const kinds[] = {"memfd", "posix", "file", "anon", "sysv"};

/* ---- the victim ---- */

struct trace {
	pid_t pid;
	unsigned long from, to; /* libleat's instructions */
	long inside;            /* of them, so far */
	int ended;              /* the second mark was reached, or done() */
	int (*done)(const char *name); /* asked now and then, of what has no second mark */
	const char *name;
};

static unsigned long ip(const struct trace *t)
{
	return (unsigned long)ptrace(PTRACE_PEEKUSER, t->pid, (void *)offsetof(struct user, regs.rip), NULL);
}

static void find_library(struct trace *t)
{
	char path[64], line[512];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)t->pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, "libleat.so") && strstr(line, " r-xp "))
			sscanf(line, "%lx-%lx", &t->from, &t->to);
	if (f)
		fclose(f);
	ck_assert_uint_gt(t->to, t->from);
}

/* Start it; it stands at its first mark. */
static void victim_start(struct trace *t, const char *op, const char *domain, const char *name)
{
	char program[300];
	int status;

	snprintf(program, sizeof(program), "%s/tests/victim", getenv("LEAT_BUILD"));
	*t = (struct trace){0};
	t->pid = vfork();
	if (t->pid == 0) {
		execl(program, "victim", op, domain, name, NULL);
		_exit(127);
	}
	ck_assert(t->pid > 0);
	for (;;) { /* the stop of its execve, if any, and then the mark */
		ck_assert(waitpid(t->pid, &status, 0) == t->pid);
		must(WIFSTOPPED(status), "victim %s: it ended with %d", op, status);
		if (WSTOPSIG(status) == SIGTRAP)
			break;
		ptrace(PTRACE_CONT, t->pid, NULL, (void *)(long)WSTOPSIG(status));
	}
	find_library(t);
}

static void victim_go(struct trace *t, enum __ptrace_request how)
{
	int status;

	ck_assert(ptrace(how, t->pid, NULL, NULL) == 0);
	ck_assert(waitpid(t->pid, &status, __WALL) == t->pid);
	must(WIFSTOPPED(status), "the victim ended by itself: %d", status);
}

/* It has called something outside libleat: let that run, up to its return. */
static void victim_return(struct trace *t)
{
	void *sp = (void *)ptrace(PTRACE_PEEKUSER, t->pid, (void *)offsetof(struct user, regs.rsp), NULL);
	void *back = (void *)ptrace(PTRACE_PEEKDATA, t->pid, sp, NULL);
	long text;

	if ((unsigned long)back < t->from || (unsigned long)back >= t->to) { /* no call of ours: a step, then */
		victim_go(t, PTRACE_SINGLESTEP);
		return;
	}
	text = ptrace(PTRACE_PEEKTEXT, t->pid, back, NULL);
	ptrace(PTRACE_POKETEXT, t->pid, back, (void *)((text & ~0xffL) | 0xcc));
	victim_go(t, PTRACE_CONT);
	ptrace(PTRACE_POKETEXT, t->pid, back, (void *)text);
	ck_assert_uint_eq(ip(t), (unsigned long)back + 1);
	ptrace(PTRACE_POKEUSER, t->pid, (void *)offsetof(struct user, regs.rip), back);
}

/* Step on until @n instructions of libleat have been executed in all, or the second mark is there. */
static void victim_step(struct trace *t, long n)
{
	uint64_t start = leat__now();
	int was_inside = 0;

	while (t->inside < n) {
		unsigned long at = ip(t);

		must(leat__now() - start < 60 * SEC, "after a minute and %ld instructions it has not got there", t->inside);

		if (at >= t->from && at < t->to) {
			if (t->done && t->inside % 500 == 0 && t->done(t->name)) {
				t->ended = 1;
				return;
			}
			t->inside++;
			was_inside = 1;
			victim_go(t, PTRACE_SINGLESTEP);
		} else if ((ptrace(PTRACE_PEEKTEXT, t->pid, (void *)at, NULL) & 0xff) == 0xcc) {
			t->ended = 1;
			return;
		} else if (was_inside) {
			was_inside = 0;
			victim_return(t);
		} else {
			victim_go(t, PTRACE_SINGLESTEP);
		}
	}
}

static void victim_kill(struct trace *t)
{
	kill(t->pid, SIGKILL);
	waitpid(t->pid, NULL, __WALL);
}

/* ---- what was seen ---- */

enum { STATES = 1 << 16 };
static uint64_t states[STATES];
static unsigned n_states;
static uint64_t slowest;
static long points, odd_sysv, late;

static void note_state(uint64_t h)
{
	unsigned i = (unsigned)(h % STATES);

	while (states[i] && states[i] != h)
		i = (i + 1) % STATES;
	if (!states[i] && n_states < STATES / 2) {
		states[i] = h;
		n_states++;
	}
}

/* What is in shared memory, without numbers that differ from run to run. */
static uint64_t shared_state(struct leat__ring_shm *ring, const struct leat__geometry *g, struct leat__ctrl_shm *ctrl,
			     const struct leat__geometry *cg)
{
	uint64_t h = leat__hash(&ring->tail, offsetof(struct leat__ring_shm, closed) - offsetof(struct leat__ring_shm, tail));
	uint64_t w[8] = {ring->closed, ring->waits, ring->evicted, ctrl->data_bell & 1, ctrl->space_bell & 1};

	h = h * 31 + leat__hash(w, sizeof(w));
	h = h * 31 + leat__hash(leat__block_words(ring), g->n_blocks * 8);
	for (uint32_t e = 0; e < cg->n_rings; e++) {
		const struct leat__line *lines = leat__ctrl_lines(ctrl, cg, e);

		h = h * 31 + (leat__ctrl_entries(ctrl)[e].word & 0xff);
		for (uint32_t i = 0; i < 4; i++)
			h = (h * 31 + lines[i].cursor) * 31 + (lines[i].state & 0xfff);
	}
	for (uint32_t i = 0; i < 4; i++) {
		const struct leat__slot *slot = &leat__ctrl_slots(ctrl, cg)[i];

		h = (h * 31 + slot->mode) * 31 + slot->received;
		for (int k = 0; k < LEAT__HELD; k++)
			h = h * 31 + (slot->held[k] & 0xffffff);
	}
	return h;
}

/* ---- the survivors ---- */

static struct leat *l;
static const char *domain;

struct sleeper {
	struct leat_sub *s;
	uint64_t got;
	int end;
};

static uint64_t number_of(const void *b)
{
	uint64_t n;

	memcpy(&n, b, sizeof(n));
	return n;
}

/* Receives, asleep most of the time, until all has ended. */
static void *sleeper(void *arg)
{
	static __thread char b[20000];
	struct sleeper *z = arg;

	while ((z->end = leat_recv(z->s, b, sizeof(b), NULL, 10 * SEC)) == 0 && number_of(b) == z->got)
		z->got++;
	return NULL;
}

static struct leat_sub *sub(const char *name, unsigned flags)
{
	struct leat_sub *s;

	ok(leat_sub_open(l, name, OPTS(leat_sub_opts, .flags = flags, .spin_ns = -1), &s));
	return s;
}

static int nobody(const char *name)
{
	struct leat_stat st = {.struct_size = sizeof(st)};

	return leat_stat(l, name, &st, NULL, NULL) == -ENOENT;
}

/* It works for who comes now, and when all have gone nothing is left. */
static void newcomers(const char *name)
{
	struct leat_sub *s = sub(name, 0);
	struct leat_pub *p;
	uint64_t n = 99;

	ok(leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 4096), &p));
	ok(leat_send(p, &n, sizeof(n), 0));
	n = 0;
	ok(leat_recv(s, &n, sizeof(n), NULL, SEC));
	ck_assert_uint_eq(n, 99);
	leat_pub_close(p);
	leat_sub_close(s);
	eventually(nobody(name));
}

static void pub_point(const struct op *op, struct trace *t, long n)
{
	const char *name = random_name();
	struct leat_sub *s = sub(name, LEAT_UNTIL_ENDED);
	struct sleeper z = {.s = op->lossy ? NULL : sub(name, LEAT_UNTIL_ENDED)};
	static char b[20000];
	struct leat_info info;
	uint64_t got = 0, lost = 0, start, sent = 0;
	int e, drained = !strcmp(op->name, "send_refresh") || !strcmp(op->name, "send_block_again");
	int sleeps = strcmp(op->name, "wait_space") && !drained && !op->lossy;
	pthread_t thread;

	if (sleeps)
		ck_assert(pthread_create(&thread, NULL, sleeper, &z) == 0);
	victim_start(t, op->name, domain, name);
	if (drained) {
		for (; got < (uint64_t)op->before; got++) {
			ok(leat_recv(s, b, sizeof(b), NULL, SEC));
			ok(leat_recv(z.s, b, sizeof(b), NULL, SEC));
		}
		z.got = got;
	}
	victim_step(t, n);
	if (op->before) /* on a busy machine the broker may answer late */
		eventually((leat__sub_look_around(s), s->n > 0));
	leat__sub_look_around(s);
	if (s->n) {
		note_state(shared_state(s->rings[0]->r.ring, &s->rings[0]->r.g, s->seat->ctrl, &s->seat->cg));
		sent = leat__load_relaxed(&s->rings[0]->r.ring->sent);
	}
	start = leat__now();
	victim_kill(t);
	while ((e = leat_recv(s, b, sizeof(b), &info, op->most ? 2 * SEC : 50000000)) == 0) {
		must(number_of(b) >= got && (op->lossy || number_of(b) == got), "%s, instruction %ld: message %llu, "
		     "%llu was expected", op->name, n, (unsigned long long)number_of(b), (unsigned long long)got);
		must(info.seq == number_of(b), "a wrong number");
		got = number_of(b) + 1;
		lost += info.lost;
	}
	/* A publisher that was killed before it was one has not ended, either. */
	must(e == -ENODATA || (!op->most && e == -ETIMEDOUT), "%s, instruction %ld: %d (%s) after %llu messages",
	     op->name, n, e, leat_why(), (unsigned long long)got);
	if (op->most && leat__now() - start > slowest)
		slowest = leat__now() - start;
	if (op->lossy) {
		struct leat_sub_stat st = {.struct_size = sizeof(st)};

		ok(leat_sub_stat(s, &st));
		must(st.received + st.lost == sent || st.received + st.lost + 1 == sent,
		     "%s, instruction %ld: %llu received and %llu lost of %llu", op->name, n,
		     (unsigned long long)st.received, (unsigned long long)st.lost, (unsigned long long)sent);
	} else {
		must(got >= (uint64_t)op->before && got <= (uint64_t)op->most && !lost,
		     "%s, instruction %ld: %llu messages (%llu lost), %d to %d were committed", op->name, n,
		     (unsigned long long)got, (unsigned long long)lost, op->before, op->most);
	}
	if (!sleeps && z.s)
		sleeper(&z);
	if (!op->most) { /* the sleeper waits for a publisher that never was: one ends it */
		struct leat_pub *p;

		ok(leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 4096), &p));
		leat_pub_close(p);
	}
	if (sleeps)
		pthread_join(thread, NULL);
	if (z.s) {
		must(z.end == -ENODATA && z.got == got, "%s, instruction %ld: who slept got %llu of %llu, and then %d",
		     op->name, n, (unsigned long long)z.got, (unsigned long long)got, z.end);
		leat_sub_close(z.s);
	}
	leat_sub_close(s);
	newcomers(name);
}

static void send_and_read(struct leat_pub *q, struct leat_sub *s, uint64_t *sent, uint64_t *got, size_t size,
			  const char *op, long n)
{
	static char b[20000];
	uint64_t start = leat__now();

	memcpy(b, sent, sizeof(*sent));
	must(leat_send(q, b, size, 2 * SEC) == 0, "%s, instruction %ld: message %llu: %s", op, n,
	     (unsigned long long)*sent, leat_why());
	if (leat__now() - start > slowest)
		slowest = leat__now() - start;
	++*sent;
	while (*got < *sent) {
		must(leat_recv(s, b, sizeof(b), NULL, SEC) == 0 && number_of(b) == *got,
		     "%s, instruction %ld: who survived reads %llu, %llu was expected", op, n,
		     (unsigned long long)number_of(b), (unsigned long long)*got);
		++*got;
	}
}

static void sub_point(const struct op *op, struct trace *t, long n)
{
	const char *name = random_name();
	struct leat_sub *s = sub(name, 0);
	uint64_t sent = 0, got = 0;
	struct leat_pub *q;
	int large = !strcmp(op->name, "retain") || !strcmp(op->name, "drop") || !strcmp(op->name, "release");

	ok(leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 4096, .max_size = 20000, .blocks = 2), &q));
	send_and_read(q, s, &sent, &got, large ? 20000 : 8, op->name, n);
	send_and_read(q, s, &sent, &got, 8, op->name, n);
	send_and_read(q, s, &sent, &got, 8, op->name, n);
	victim_start(t, op->name, domain, name);
	victim_step(t, n);
	note_state(shared_state(q->w.ring, &q->w.g, q->ctrl, &q->at.cg));
	victim_kill(t);
	/* Twice around the ring, and all the blocks twice: nobody is waited for who is dead. */
	for (int i = 0; i < 520; i++)
		send_and_read(q, s, &sent, &got, 8, op->name, n);
	for (int i = 0; i < 4; i++)
		send_and_read(q, s, &sent, &got, 20000, op->name, n);
	leat_pub_close(q);
	leat_sub_close(s);
	newcomers(name);
}

static void broker_again(void)
{
	broker_kill(SIGKILL);
	broker_start("--linger", "0", NULL);
}

/* One publisher and two subscribers, all at the broker that serves now. */
static int all_over(const char *name)
{
	struct leat_stat st = {.struct_size = sizeof(st)};

	return leat_stat(l, name, &st, NULL, NULL) == 0 && st.publishers == 1 && st.subscribers == 2;
}

/* A publisher is killed on its way to a restarted broker, its subscribers going there, too. */
static void move_point(const struct op *op, struct trace *t, long n)
{
	const char *name = random_name();
	struct sleeper z[2] = {{.s = sub(name, LEAT_UNTIL_ENDED)}, {.s = sub(name, LEAT_UNTIL_ENDED)}};
	pthread_t thread[2];

	for (int i = 0; i < 2; i++)
		ck_assert(pthread_create(&thread[i], NULL, sleeper, &z[i]) == 0);
	victim_start(t, op->name, domain, name);
	for (int i = 0; i < 2; i++)
		eventually(__atomic_load_n(&z[i].got, __ATOMIC_RELAXED) == (uint64_t)op->before);
	broker_again();
	t->done = all_over;
	t->name = name;
	victim_step(t, n);
	victim_kill(t);
	for (int i = 0; i < 2; i++) {
		pthread_join(thread[i], NULL);
		must(z[i].end == -ENODATA && z[i].got == z[0].got && z[i].got >= (uint64_t)op->before,
		     "%s, instruction %ld: %llu messages (the other %llu), and then %d", op->name, n,
		     (unsigned long long)z[i].got, (unsigned long long)z[0].got, z[i].end);
		leat_sub_close(z[i].s);
	}
	newcomers(name);
}

struct traffic {
	struct leat_pub *q;
	struct leat_sub *s;
	uint64_t sent, got;
	int stop;
};

static void *traffic(void *arg)
{
	struct traffic *f = arg;

	while (!leat__load_acquire(&f->stop)) {
		send_and_read(f->q, f->s, &f->sent, &f->got, 8, "traffic", (long)f->sent);
		usleep(1000);
	}
	return NULL;
}

/* A subscriber is killed on its way to a restarted broker, with the others. */
static void return_point(const struct op *op, struct trace *t, long n)
{
	const char *name = random_name();
	struct traffic f = {.s = sub(name, 0)};
	pthread_t thread;

	ok(leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 4096, .max_size = 20000, .blocks = 2), &f.q));
	send_and_read(f.q, f.s, &f.sent, &f.got, 8, op->name, n);
	victim_start(t, op->name, domain, name);
	broker_again();
	t->done = all_over;
	t->name = name;
	ck_assert(pthread_create(&thread, NULL, traffic, &f) == 0);
	victim_step(t, n);
	victim_kill(t);
	leat__store_release(&f.stop, 1);
	pthread_join(thread, NULL);
	for (int i = 0; i < 520; i++)
		send_and_read(f.q, f.s, &f.sent, &f.got, 8, op->name, n);
	for (int i = 0; i < 4; i++)
		send_and_read(f.q, f.s, &f.sent, &f.got, 20000, op->name, n);
	leat_pub_close(f.q);
	leat_sub_close(f.s);
	newcomers(name);
}

/* Take what there is, for as long as it takes until @want has been had; count how often each was. */
static void work_off(struct leat_queue *w, uint8_t *had, uint64_t sent, unsigned want, int64_t patience,
		     uint64_t doubt, const char *op, long n)
{
	uint64_t start = leat__now();
	struct leat_work work;
	const void *b;
	int e, again;

	while ((e = leat_queue_take(w, &b, &work, want ? 2 * SEC : patience)) == 0) {
		/* Twice only what the victim was claiming. */
		again = had[number_of(b) % sent];
		must(number_of(b) < sent && work.seq == number_of(b) && work.deliveries < 5 &&
			     (!again || (number_of(b) == doubt && work.deliveries > 1)),
		     "%s, instruction %ld: message %llu, handed out the %llu. time, %u", op, n,
		     (unsigned long long)number_of(b), (unsigned long long)work.deliveries, had[number_of(b)]);
		had[number_of(b)] = 1;
		ok(leat_queue_ack(w));
		want -= want > 0 && !again;
		if (leat__now() - start > slowest && !want)
			slowest = leat__now() - start;
	}
	late += leat__now() - start > 90000000 + (uint64_t)patience;
	must((e == -ETIMEDOUT || e == -EAGAIN) && !want, "%s, instruction %ld: %u are missing: %s", op, n, want, leat_why());
}

/* A worker is killed; the other gets all that it had not done with, and the message in doubt at most is done. */
static void work_point(const struct op *op, struct trace *t, long n)
{
	const char *name = random_name();
	char dead[80];
	uint8_t had[600] = {0};
	struct leat_queue *w;
	struct leat_sub *s;
	struct leat_pub *p;
	static char b[20000];
	uint64_t i = 0;
	int missing = 0;

	snprintf(dead, sizeof(dead), "%s/dead", name);
	ok(leat_queue_open(l, name, "g", OPTS(leat_queue_opts, .max_deliveries = UINT32_MAX, .max_subscribers = 4), &w));
	s = sub(dead, 0);
	ok(leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 4096, .max_size = 20000, .blocks = 2), &p));
	for (; i < 5; i++)
		ok(leat_send(p, memcpy(b, &i, 8), i ? 8 : 20000, 0));
	victim_start(t, op->name, domain, name);
	victim_step(t, n);
	note_state(shared_state(p->w.ring, &p->w.g, p->ctrl, &p->at.cg));
	victim_kill(t);
	work_off(w, had, i, (unsigned)(5 - op->most), op->most > op->before ? 150000000 : 20000000,
		 (uint64_t)op->before, op->name, n);
	for (uint64_t k = 0; k < 5; k++)
		missing += !had[k];
	must(missing >= op->before && missing <= op->most && (missing == op->before || !had[op->before]),
	     "%s, instruction %ld: %d of the first five never came", op->name, n, missing);
	if (!strcmp(op->name, "take_dead") && missing) { /* it was sent there before it was done with here */
		int e = leat_recv(s, b, sizeof(b), NULL, SEC);

		must(e == 0 && number_of(b) == 0, "%s, instruction %ld: it is not among the dead: %d %s", op->name, n,
		     e, leat_why());
	}
	/* Around the ring and all blocks: nobody is waited for, and no line is held. */
	for (; i < 300; i++) {
		ok(leat_send(p, memcpy(b, &i, 8), i % 100 ? 8 : 20000, SEC));
		if (i % 20 == 19)
			work_off(w, had, i + 1, 15 + 5 * (i > 20), 0, UINT64_MAX, op->name, n);
	}
	leat_pub_close(p);
	leat_queue_close(w);
	leat_sub_close(s);
	eventually(nobody(name));
}

/* ---- request and reply ---- */

struct server {
	const char *name;
	pthread_t thread;
	int stop;
	uint32_t clients;
};

/* Echoes, until told to stop. */
static void *serve(void *arg)
{
	struct leat_serve_stat st = {.struct_size = sizeof(st)};
	struct server *f = arg;
	struct leat_request req;
	struct leat_server *s;

	ok(leat_serve(l, f->name, NULL, &s));
	while (!leat__load_acquire(&f->stop)) {
		if (leat_accept(s, &req, 20000000) == 0)
			leat_reply(s, &req, 0, req.data, (size_t)req.size);
		ok(leat_serve_stat(s, &st));
		leat__store_release(&f->clients, st.clients);
	}
	leat_serve_close(s);
	return NULL;
}

struct caller {
	struct leat_client *c;
	pthread_t thread;
	int stop;
	uint64_t answered;
};

/* Calls on and on; each call brings its own reply, or fails for a reason. */
static void *calls(void *arg)
{
	struct caller *f = arg;

	for (uint64_t n = 0; !leat__load_acquire(&f->stop); n++) {
		struct leat_answer a;
		int e = leat_call(f->c, &n, sizeof(n), &a, SEC / 2);

		must(e == 0 ? a.size == 8 && number_of(a.data) == n : e == -EOWNERDEAD || e == -ETIMEDOUT,
		     "call %llu: %d: %s", (unsigned long long)n, e, leat_why());
		if (e == 0)
			leat__fetch_add(&f->answered, UINT64_C(1));
	}
	return NULL;
}

/* A client is killed: its server and the server's other client go on, and nothing of it is left. */
static void call_point(const struct op *op, struct trace *t, long n)
{
	struct server f = {.name = random_name()};
	struct leat_client *c;
	struct leat_answer a;
	uint64_t start;

	ck_assert(pthread_create(&f.thread, NULL, serve, &f) == 0);
	ok(leat_client_open(l, f.name, NULL, &c));
	ok(leat_call(c, "8 bytes", 8, &a, 10 * SEC));
	victim_start(t, op->name, domain, f.name);
	victim_step(t, n);
	victim_kill(t);
	for (uint64_t i = 0; i < 50; i++) {
		start = leat__now();
		must(leat_call(c, &i, sizeof(i), &a, 2 * SEC) == 0 && number_of(a.data) == i,
		     "%s, instruction %ld: call %llu: %s", op->name, n, (unsigned long long)i, leat_why());
		if (leat__now() - start > slowest)
			slowest = leat__now() - start;
	}
	eventually(leat__load_acquire(&f.clients) == 1);
	leat_client_close(c);
	leat__store_release(&f.stop, 1);
	pthread_join(f.thread, NULL);
	newcomers(f.name);
}

/* A server is killed: its client's call fails, or has been answered; then its successor answers. */
static void serve_point(const struct op *op, struct trace *t, long n)
{
	struct server successor = {.name = random_name()};
	struct caller f = {0};
	uint64_t start, answered;

	ok(leat_client_open(l, successor.name, NULL, &f.c));
	ck_assert(pthread_create(&f.thread, NULL, calls, &f) == 0);
	victim_start(t, op->name, domain, successor.name);
	victim_step(t, n);
	start = leat__now();
	victim_kill(t);
	ck_assert(pthread_create(&successor.thread, NULL, serve, &successor) == 0);
	answered = leat__load_acquire(&f.answered);
	eventually(leat__load_acquire(&f.answered) > answered + 10);
	if (leat__now() - start > slowest)
		slowest = leat__now() - start;
	leat__store_release(&f.stop, 1);
	pthread_join(f.thread, NULL);
	leat_client_close(f.c);
	leat__store_release(&successor.stop, 1);
	pthread_join(successor.thread, NULL);
	newcomers(successor.name);
}

/* Who shares a region, or finds it, is killed: it is whole for others, and its name is free or as it was. */
static void share_point(const struct op *op, struct trace *t, long n)
{
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD, .size = 4096};
	struct leat_region *r, *found = NULL;
	const char *name = random_name();
	struct leat_share *s = NULL;
	int finds = !strcmp(op->name, "find"), e;

	ok(leat_region_create(&o, &r));
	strcpy(leat_region_addr(r), "mine");
	if (finds)
		ok(leat_region_share(l, name, r, 0, &s));
	victim_start(t, op->name, domain, name);
	victim_step(t, n);
	e = finds ? -ENOENT : leat_region_find(l, name, LEAT_RDONLY, NULL, &found);
	must(e == -ENOENT || (e == 0 && !strcmp(leat_region_addr(found), "victim's")), "%s, instruction %ld: %d: %s", op->name,
	     n, e, leat_why());
	victim_kill(t);
	if (!finds)
		eventually(leat_region_share(l, name, r, 0, &s) == 0);
	if (e == 0) {
		ck_assert_str_eq(leat_region_addr(found), "victim's");
		leat_region_close(found);
	}
	ok(leat_region_find(l, name, 0, NULL, &found));
	ck_assert_str_eq(leat_region_addr(found), "mine");
	leat_region_close(found);
	leat_region_unshare(s);
	leat_region_close(r);
}

/* Who watches is killed: the others who do are told what comes and goes, and the broker keeps nothing for him. */
static void watch_point(const struct op *op, struct trace *t, long n)
{
	struct leat_event ev = {.struct_size = sizeof(ev)};
	const char *name = random_name();
	int before = broker_fds();
	struct leat_watch *w;
	struct leat_sub *s;

	ok(leat_watch(l, name, &w));
	ok(leat_watch_next(w, &ev, 10 * SEC));
	ck_assert_int_eq((int)ev.kind, LEAT_SYNCED);
	victim_start(t, op->name, domain, name);
	victim_step(t, n);
	ok(leat_sub_open(l, name, NULL, &s)); /* while he is stopped */
	ok(leat_watch_next(w, &ev, 10 * SEC));
	ck_assert(ev.kind == LEAT_CAME && !strcmp(ev.name, name));
	victim_kill(t);
	leat_sub_close(s);
	ok(leat_watch_next(w, &ev, 10 * SEC));
	ck_assert_int_eq((int)ev.kind, LEAT_CHANGED);
	ok(leat_watch_next(w, &ev, 10 * SEC));
	ck_assert_int_eq((int)ev.kind, LEAT_GONE);
	leat_watch_close(w);
	ck_assert(broker_fds_back(before));
}

static struct {
	uint64_t client;
	char name[64];
} *kicked;

static void is_kicked(void *arg)
{
	struct leat_pub *p;
	struct leat *mine;

	(void)arg;
	ok(leat_open(domain, &mine));
	ok(leat_pub_open(mine, kicked->name, NULL, &p));
	leat__store_release(&kicked->client, mine->tie->client);
	pause();
}

/* Whom he puts out is out or is not, with all he has. */
static void kick_point(const struct op *op, struct trace *t, long n)
{
	int before = broker_fds();
	struct leat_stat st = {.struct_size = sizeof(st)};
	char client[32];
	pid_t pid;

	if (!kicked)
		kicked = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	leat__store_release(&kicked->client, UINT64_C(0));
	snprintf(kicked->name, sizeof(kicked->name), "%s", random_name());
	pid = child(is_kicked, NULL);
	eventually(leat__load_acquire(&kicked->client) != 0);
	snprintf(client, sizeof(client), "%llu", (unsigned long long)kicked->client);
	victim_start(t, op->name, domain, client);
	victim_step(t, n);
	victim_kill(t);
	eventually(leat_stat(l, kicked->name, &st, NULL, NULL) == -ENOENT || st.publishers == 1);
	child_kill(pid);
	eventually(leat_stat(l, kicked->name, &st, NULL, NULL) == -ENOENT);
	ck_assert(broker_fds_back(before));
}

static void domain_point(const struct op *op, struct trace *t, long n)
{
	victim_start(t, op->name, domain, "-");
	victim_step(t, n);
	victim_kill(t);
	ok(leat_ping(l, NULL));
}

/* Segments that process @pid made and nobody is attached to: they are removed, and counted. */
static long stray_segments(pid_t pid)
{
	FILE *f = fopen("/proc/sysvipc/shm", "r");
	char line[512];
	long found = 0;
	int id, cpid, nattch;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%*d %d %*o %*u %d %*d %d", &id, &cpid, &nattch) == 3 && cpid == (int)pid) {
			shmctl(id, IPC_RMID, NULL);
			found++;
		}
	if (f)
		fclose(f);
	return found;
}

static int files_in(const char *dir, const char *prefix)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int n = 0;

	while (d && (e = readdir(d)))
		n += e->d_name[0] != '.' && !strncmp(e->d_name, prefix, strlen(prefix));
	if (d)
		closedir(d);
	return n;
}

static void region_point(const struct op *op, struct trace *t, long n, const char *kind)
{
	int posix = !strcmp(kind, "posix"), file = !strcmp(kind, "file"), e;
	char name[300], unique[40];
	struct leat_region *r;
	const char *dir;

	snprintf(unique, sizeof(unique), "leat-%016llx", (unsigned long long)rnd());
	snprintf(name, sizeof(name), "%s/%s", posix ? "" : tmp_dir(), unique);
	dir = posix ? "/dev/shm" : tmp_dir();
	victim_start(t, op->name, kind, name);
	victim_step(t, n);
	victim_kill(t);
	if (posix || file) {
		struct leat_region_opts o = {.struct_size = sizeof(o), .kind = posix ? LEAT_POSIX : LEAT_FILE,
					     .name = name, .size = 8192};

		e = leat_region_create(&o, &r);
		if (e == -EEXIST) { /* then it is whole */
			o.size = 0;
			e = leat_region_open(&o, &r);
		}
		must(e == 0, "%s of kind %s, instruction %ld: %s", op->name, kind, n, leat_why());
		ck_assert_uint_eq(leat_region_size(r), 8192);
		leat_region_close(r);
		ok(leat_region_unlink(o.kind, name));
		must(!files_in(dir, unique), "%s of kind %s, instruction %ld: files are left", op->name, kind, n);
	}
	/* Between shmget and the mark for removal the kernel has no other way. */
	if (!strcmp(kind, "sysv"))
		odd_sysv += stray_segments(t->pid);
}

static void die_owning(void *arg)
{
	struct leat_region *r;

	ok(leat_region_open(OPTS(leat_region_opts, .kind = LEAT_FILE, .name = arg), &r));
	ok(leat_mutex_lock(r, leat_region_addr(r), 0));
}

static void sync_point(const struct op *op, struct trace *t, long n)
{
	char *path = strdup(tmp_path("sync"));
	struct leat_region *r;
	struct leat_mutex *m;
	struct leat_bell *bell;
	struct leat_sem *sem;
	uint32_t left = 0, v;
	int e;

	leat_region_unlink(LEAT_FILE, path);
	ok(leat_region_create(OPTS(leat_region_opts, .kind = LEAT_FILE, .name = path, .size = 4096), &r));
	m = leat_region_addr(r);
	sem = (void *)((char *)leat_region_addr(r) + 64);
	bell = (void *)((char *)leat_region_addr(r) + 128);
	ok(leat_mutex_init(m));
	ok(leat_sem_init(sem, 1));
	if (!strcmp(op->name, "repair"))
		child_ok(child(die_owning, path));
	victim_start(t, op->name, "-", path);
	victim_step(t, n);
	note_state(leat__hash(leat_region_addr(r), 256));
	victim_kill(t);
	e = leat_mutex_lock(r, m, SEC);
	must(e == 0 || e == -EOWNERDEAD, "%s, instruction %ld: lock: %d (%s)", op->name, n, e, leat_why());
	if (e)
		ok(leat_mutex_repair(r, m));
	ok(leat_mutex_unlock(r, m));
	ok(leat_mutex_lock(r, m, 0));
	ok(leat_mutex_unlock(r, m));
	while (leat_sem_wait(sem, 0) == 0)
		left++;
	must(!strcmp(op->name, "post") ? left == 1 || left == 2
				       : !strncmp(op->name, "sem", 3) ? left < 2 : left == 1,
	     "%s, instruction %ld: the semaphore is at %u", op->name, n, left);
	ok(leat_sem_post(sem));
	ok(leat_sem_wait(sem, SEC));
	v = leat_bell_listen(bell);
	ok(leat_bell_ring(bell));
	ok(leat_bell_wait(bell, v, SEC));
	leat_region_close(r);
	leat_region_unlink(LEAT_FILE, path);
	free(path);
}

static void hand_point(const struct op *op, struct trace *t, long n)
{
	char *path = strdup(tmp_path("hand"));
	const struct leat_pub_opts *o = OPTS(leat_pub_opts, .capacity = 4096);
	uint64_t data, control, start, i, got = 0;
	struct leat_sub *s = NULL;
	struct leat_pub *p = NULL;
	struct leat_region *r;
	int e;

	leat_region_unlink(LEAT_FILE, path);
	ok(leat_ring_plan(o, &data, &control));
	ok(leat_region_create(OPTS(leat_region_opts, .kind = LEAT_FILE, .name = path, .size = data + control), &r));
	if (!strcmp(op->name, "hand_open"))
		ok(leat_ring_create(r, NULL, o, &p));
	victim_start(t, op->name, "-", path);
	if (!strcmp(op->name, "hand_send"))
		ok(leat_ring_open(r, NULL, NULL, &s));
	victim_step(t, n);
	note_state(leat__hash((char *)leat_region_addr(r) + 128, 1024) * 31 +
		   leat__hash((char *)leat_region_addr(r) + data + 128, 4096));
	victim_kill(t);
	if (s) {
		uint64_t b = 7;

		e = leat_recv(s, &b, 8, NULL, SEC);
		must((e == 0 && b == 0) || e == -ENODATA, "%s, instruction %ld: %d", op->name, n, e);
		if (e == 0)
			fails(leat_recv(s, &b, 8, NULL, SEC), ENODATA);
		leat_sub_close(s);
	}
	if (!p)
		ok(leat_ring_create(r, NULL, o, &p));
	ok(leat_ring_open(r, NULL, NULL, &s));
	for (i = 0; i < 600; i++) {
		start = leat__now();
		must(leat_send(p, &i, 8, 2 * SEC) == 0, "%s, instruction %ld: %s", op->name, n, leat_why());
		if (leat__now() - start > slowest)
			slowest = leat__now() - start;
		must(leat_recv(s, &got, 8, NULL, SEC) == 0 && got == i, "%s, instruction %ld", op->name, n);
	}
	leat_sub_close(s);
	leat_pub_close(p);
	leat_region_close(r);
	leat_region_unlink(LEAT_FILE, path);
	free(path);
}

static void point(const struct op *op, struct trace *t, long n, const char *kind)
{
	switch (op->kind) {
	case PUB: pub_point(op, t, n); break;
	case SUB: sub_point(op, t, n); break;
	case MOVE: move_point(op, t, n); break;
	case RETURN: return_point(op, t, n); break;
	case WORK: work_point(op, t, n); break;
	case CALL: call_point(op, t, n); break;
	case SERVE: serve_point(op, t, n); break;
	case SHARE: share_point(op, t, n); break;
	case WATCH: watch_point(op, t, n); break;
	case KICK: kick_point(op, t, n); break;
	case DOMAIN: domain_point(op, t, n); break;
	case REGION: region_point(op, t, n, kind); break;
	case SYNC: sync_point(op, t, n); break;
	case HAND: hand_point(op, t, n); break;
	}
	points++;
}

/* Every instruction of a short operation; of a long one, so many, spread evenly. */
static void every_instruction(const struct op *op, const char *kind)
{
	struct trace t;
	long total, most, done = 0;
	double step = 1;

	point(op, &t, 1L << 40, kind);
	ck_assert(t.ended);
	total = t.inside;
	ck_assert_int_gt(total, 0);
	/* All of those of messages in the long form; or as many of each as somebody has time for. */
	if (getenv("LEAT_POINTS"))
		most = atol(getenv("LEAT_POINTS"));
	else if (full())
		most = op->kind == PUB || op->kind == SUB || op->kind == WORK || op->kind == CALL ||
			op->kind == SERVE ? 6000 : 1500;
	else
		most = op->kind == CALL || op->kind == SERVE ? (total > 2500 ? 12 : 25) : total > 2500 || op->kind == WORK ? 25 : op->kind == REGION ? 12 : 50;
	if (total > most)
		step = (double)total / (double)most;
	for (double at = 0; at <= (double)total; at += step, done++)
		point(op, &t, (long)at, kind);
	fprintf(stderr, "# %s%s%s: %ld instructions, killed at %ld\n", op->name, kind ? " " : "", kind ? kind : "", total,
		done);
}

START_TEST(killed_at_every_instruction_the_others_go_on)
{
	const struct op *op = &ops[_i];
	const char *only = getenv("LEAT_STEPS"); /* one of them, when looking for something */
	int fds;

	if (only && strcmp(only, op->name))
		return;
	broker_start("--linger", "0", NULL);
	l = broker_open();
	domain = leat_domain(l);
	fds = broker_fds();
	if (op->kind == REGION)
		for (unsigned k = 0; k < 5; k++)
			every_instruction(op, kinds[k]);
	else
		every_instruction(op, NULL);
	fprintf(stderr, "# POINTS %ld STATES %u SLOWEST %.1f ms\n", points, n_states, (double)slowest / 1e6);
	/* As the machine may have other things to do: the bound is 100 ms after the broker's verdict. */
	ck_assert_msg(slowest < SEC, "somebody was held up for %.3f s", (double)slowest / 1e9);
	ck_assert_msg(late * 4 <= points, "what dead workers had in hand came late, %ld of %ld times", late, points);
	ck_assert_msg(odd_sysv * 20 <= points, "%ld segments were left", odd_sysv);
	ck_assert(broker_fds_back(fds));
	leat_close(l);
}
END_TEST
#endif

int main(void)
{
	Suite *s = suite_create("steps");
	TCase *tc = leak_checked(s, "steps", full() || getenv("LEAT_POINTS") ? 7200 : 120);

#if defined(__x86_64__)
	tcase_add_loop_test(tc, killed_at_every_instruction_the_others_go_on, 0, sizeof(ops) / sizeof(ops[0]));
#else
	(void)tc;
	fprintf(stderr, "# SKIP steps through the instructions of an x86-64 build\n");
#endif
	return run_suite(s);
}
