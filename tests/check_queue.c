/* SPDX-License-Identifier: Apache-2.0 */
/* Work queues: who gets what, once; what happens when workers die, put back, lie, or the broker goes. */
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include "base/atomic.h"
#include "channel/channel.h"
#include "harness.h"

static struct leat *l;
static const char *name;

static void open_all(void)
{
	broker_start(NULL);
	l = broker_open();
	name = random_name();
}

static struct leat_pub *publisher(uint64_t max_size)
{
	struct leat_pub *p;

	ok(leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 4096, .max_size = max_size, .blocks = 3), &p));
	return p;
}

static struct leat_queue *worker(const char *group)
{
	struct leat_queue *q;

	ok(leat_queue_open(l, name, group, OPTS(leat_queue_opts, .spin_ns = -1), &q));
	return q;
}

static void push(struct leat_pub *p, uint64_t n)
{
	ok(leat_send(p, &n, sizeof(n), 10 * SEC));
}

/* Take one, which is number @n, for the @deliveries'th time. */
static void takes(struct leat_queue *q, uint64_t n, uint64_t deliveries)
{
	struct leat_work w;
	const void *at;
	uint64_t got;

	ok(leat_queue_take(q, &at, &w, 10 * SEC));
	memcpy(&got, at, sizeof(got));
	ck_assert_uint_eq(got, n);
	ck_assert_uint_eq(w.seq, n);
	ck_assert_uint_eq(w.deliveries, deliveries);
}

static void empty(struct leat_queue *q)
{
	const void *at;

	fails(leat_queue_take(q, &at, NULL, 0), EAGAIN);
}

START_TEST(each_message_goes_to_one_worker_of_each_group)
{
	struct leat_queue *a[3], *b;
	struct leat_work w;
	struct leat_pub *p;
	const void *at;

	open_all();
	for (int i = 0; i < 3; i++)
		a[i] = worker("a");
	b = worker("b");
	empty(b);
	fails(leat_queue_take(b, &at, NULL, 1000000), ETIMEDOUT);
	p = publisher(0);
	for (uint64_t round = 0; round < 100; round++) { /* several times around the ring */
		for (uint64_t i = 0; i < 30; i++)
			push(p, round * 30 + i);
		for (uint64_t i = 0; i < 30; i++) {
			takes(a[i % 3], round * 30 + i, 1);
			fails(leat_queue_take(a[i % 3], &at, &w, 0), EBUSY);
			ok(leat_queue_ack(a[i % 3]));
			takes(b, round * 30 + i, 1);
			ok(leat_queue_ack(b));
		}
		empty(a[round % 3]);
	}
	fails(leat_queue_ack(b), EINVAL);
	fails(leat_queue_nack(b), EINVAL);
	leat_close(l);
}
END_TEST

START_TEST(what_cannot_be_opened_says_why)
{
	struct leat_queue *q;
	char longest[LEAT__NAME_MAX + 1];

	open_all();
	fails(leat_queue_open(l, name, "", NULL, &q), EINVAL);
	fails(leat_queue_open(l, name, "a/b", NULL, &q), EINVAL);
	fails(leat_queue_open(l, name, "abcdefghijklmnopqrstuvwxyz0123456", NULL, &q), EINVAL);
	fails(leat_queue_open(l, "a//b", "g", NULL, &q), EINVAL);
	fails(leat_queue_open(l, name, "g", OPTS(leat_queue_opts, .flags = 1), &q), EINVAL);
	fails(leat_queue_open(l, name, "g", OPTS(leat_queue_opts, .spin_ns = -2), &q), EINVAL);
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = 0;
	fails(leat_queue_open(l, longest, "g", NULL, &q), EINVAL);
	ok(leat_queue_open(l, longest, "g", OPTS(leat_queue_opts, .max_deliveries = UINT32_MAX, .max_subscribers = 2), &q));
	fails(leat_queue_open(l, longest, "g", OPTS(leat_queue_opts, .max_deliveries = UINT32_MAX), &q), EUSERS);
	ck_assert(strstr(leat_why(), "max_subscribers"));
	leat_close(l);
}
END_TEST

START_TEST(what_is_put_back_comes_again)
{
	struct leat_queue *a, *b;
	struct leat_queue_stat st = {.struct_size = sizeof(st)};
	struct leat_pub *p;

	open_all();
	p = publisher(0);
	a = worker("g");
	b = worker("g");
	for (uint64_t i = 0; i < 4; i++)
		push(p, i);
	takes(a, 0, 1);
	takes(b, 1, 1);
	ok(leat_queue_nack(a));
	takes(a, 0, 2);
	ok(leat_queue_nack(a));
	ok(leat_queue_ack(b));
	takes(b, 0, 3); /* by another, in a's line */
	takes(a, 2, 1); /* which a does without */
	ok(leat_queue_nack(b));
	ok(leat_queue_ack(a));
	leat_queue_close(b);
	takes(a, 0, 4);
	leat_queue_close(a); /* puts it back */
	a = worker("g");
	takes(a, 0, 5);
	ok(leat_queue_ack(a));
	takes(a, 3, 1);
	ok(leat_queue_ack(a));
	empty(a);
	ok(leat_queue_stat(a, &st));
	ck_assert_uint_eq(st.taken, 2);
	ck_assert_uint_eq(st.acked, 2);
	ck_assert_uint_eq(st.redelivered, 1);
	st.struct_size = 1;
	fails(leat_queue_stat(a, &st), EINVAL);
	leat_close(l);
}
END_TEST

START_TEST(too_often_and_it_goes_to_the_dead)
{
	static char large[100000];
	struct leat_queue_stat st = {.struct_size = sizeof(st)};
	struct leat_queue *q;
	struct leat_sub *dead;
	struct leat_pub *p;
	const void *at;
	uint64_t n = 9;

	open_all();
	p = publisher(sizeof(large));
	ok(leat_sub_open(l, strcat(strcpy(large, name), "/dead"), NULL, &dead));
	ok(leat_queue_open(l, name, "g", OPTS(leat_queue_opts, .max_deliveries = 2), &q));
	push(p, 0);
	fill_message(large, sizeof(large), 7);
	ok(leat_send(p, large, sizeof(large), SEC));
	push(p, 2);
	for (int i = 0; i < 2; i++) {
		takes(q, 0, (uint64_t)i + 1);
		ok(leat_queue_nack(q));
	}
	for (int i = 0; i < 2; i++) {
		ok(leat_queue_take(q, &at, NULL, SEC));
		ck_assert(message_whole(at, sizeof(large), 7));
		ok(leat_queue_nack(q));
	}
	takes(q, 2, 1);
	ok(leat_queue_stat(q, &st));
	ck_assert_uint_eq(st.dead, 2);
	ok(leat_recv(dead, &n, sizeof(n), NULL, SEC));
	ck_assert_uint_eq(n, 0);
	memset(large, 0, sizeof(large));
	ok(leat_recv(dead, large, sizeof(large), NULL, SEC));
	ck_assert(message_whole(large, sizeof(large), 7));
	leat_close(l);
}
END_TEST

START_TEST(pushed_before_anybody_works)
{
	struct leat_queue *q;
	const void *at;
	uint32_t got = 0;

	open_all();
	/* Two dozen publishers come and go; the table has eight places. */
	for (uint64_t i = 0; i < 24; i++) {
		struct leat_pub *p = publisher(0);

		ok(leat_send(p, &i, sizeof(i), 0));
		leat_pub_close(p);
	}
	ok(leat_queue_open(l, name, "g", OPTS(leat_queue_opts, .flags = LEAT_UNTIL_ENDED), &q));
	for (int i = 0; i < 24; i++) { /* each once; there is no order among publishers */
		uint64_t n;

		ok(leat_queue_take(q, &at, NULL, 10 * SEC));
		memcpy(&n, at, sizeof(n));
		ck_assert(n < 24 && !(got & 1u << n));
		got |= 1u << n;
		ok(leat_queue_ack(q));
	}
	fails(leat_queue_take(q, &at, NULL, SEC), ENODATA);
	leat_close(l);
}
END_TEST

START_TEST(a_group_keeps_its_place_while_nobody_works)
{
	struct leat_queue *q;
	struct leat_pub *p;
	uint64_t n = 300;

	open_all();
	p = publisher(0);
	q = worker("g");
	for (uint64_t i = 0; i < 10; i++)
		push(p, i);
	takes(q, 0, 1);
	ok(leat_queue_ack(q));
	leat_queue_close(q);
	for (uint64_t i = 10; i < 257; i++) /* the ring has room for 256 */
		push(p, i);
	fails(leat_send(p, &n, sizeof(n), 0), EAGAIN); /* and is full */
	q = worker("g");
	for (uint64_t i = 1; i < 257; i++) {
		takes(q, i, 1);
		ok(leat_queue_ack(q));
	}
	push(p, 257);
	leat_pub_close(p);
	takes(q, 257, 1);
	leat_queue_close(q);
	q = worker("g");
	takes(q, 257, 2);
	ok(leat_queue_ack(q));
	empty(q);
	leat_close(l);
}
END_TEST

START_TEST(what_is_in_hand_is_not_overwritten)
{
	static char large[5000];
	struct leat_queue *a, *b;
	struct leat_pub *p;
	const void *at, *other;
	uint64_t n = 0;

	open_all();
	p = publisher(sizeof(large));
	a = worker("g");
	b = worker("g");
	fill_message(large, sizeof(large), 1);
	ok(leat_send(p, large, sizeof(large), 0));
	ok(leat_queue_take(a, &at, NULL, 0));
	while (leat_send(p, &n, sizeof(n), 0) == 0) { /* until a's stands in the way */
		ck_assert(n++ < 1000);
		ok(leat_queue_take(b, &other, NULL, 0));
		ok(leat_queue_ack(b));
	}
	ck_assert(message_whole(at, sizeof(large), 1));
	ok(leat_queue_ack(a));
	ok(leat_send(p, &n, sizeof(n), 0));
	leat_close(l);
}
END_TEST

static void dies_with_one(void *arg)
{
	int *told = arg;
	struct leat_queue *q;
	const void *at;

	ok(leat_open(broker_start(NULL), &l));
	q = worker("g");
	ok(leat_queue_take(q, &at, NULL, 10 * SEC));
	ck_assert(write(told[1], "x", 1) == 1);
	pause();
}

START_TEST(a_dead_workers_message_comes_to_another)
{
	uint64_t start, took, slowest = 0;
	struct leat_queue *q;
	struct leat_pub *p;
	int told[2];
	char c;

	open_all();
	p = publisher(0);
	ck_assert(pipe(told) == 0);
	q = worker("g");
	for (uint64_t i = 0; i < 10; i++) {
		pid_t pid;

		push(p, i);
		if (i % 2) { /* the next waits meanwhile */
			takes(q, i, 1);
			ok(leat_queue_ack(q));
			continue;
		}
		pid = child(dies_with_one, told);
		ck_assert(read(told[0], &c, 1) == 1);
		empty(q);
		start = leat__now();
		child_kill(pid);
		takes(q, i, 2);
		took = leat__now() - start;
		slowest = took > slowest ? took : slowest;
		ok(leat_queue_ack(q));
	}
	fprintf(stderr, "# redelivered within %.1f ms\n", (double)slowest / 1e6);
	ck_assert_msg(slowest < 100000000, "it took %.3f s", (double)slowest / 1e9);
	close(told[0]);
	close(told[1]);
	leat_close(l);
}
END_TEST

START_TEST(a_dead_workers_message_comes_to_another_without_a_broker)
{
	struct leat_queue *q;
	struct leat_pub *p;
	int told[2];
	pid_t pid;
	char c;

	open_all();
	p = publisher(0);
	ck_assert(pipe(told) == 0);
	q = worker("g");
	push(p, 0);
	pid = child(dies_with_one, told);
	ck_assert(read(told[0], &c, 1) == 1);
	broker_kill(SIGKILL);
	empty(q);
	child_kill(pid);
	takes(q, 0, 2);
	push(p, 1);
	ok(leat_queue_nack(q));
	takes(q, 0, 3);
	ok(leat_queue_ack(q));
	takes(q, 1, 1);
	ok(leat_queue_ack(q));
	close(told[0]);
	close(told[1]);
	leat_close(l);
}
END_TEST

/* Nobody lives who knows the old ring, but its publisher. */
START_TEST(what_dead_workers_had_goes_along_to_the_next_broker)
{
	struct leat_queue *q;
	struct leat_pub *p;
	uint64_t n = 3;
	int told[2];
	pid_t pid[2];
	char c;

	open_all();
	p = publisher(0);
	ck_assert(pipe(told) == 0);
	push(p, 0);
	push(p, 1);
	for (int i = 0; i < 2; i++) {
		pid[i] = child(dies_with_one, told);
		ck_assert(read(told[0], &c, 1) == 1);
	}
	push(p, 2);
	broker_kill(SIGKILL);
	child_kill(pid[0]);
	child_kill(pid[1]);
	broker_start(NULL);
	eventually(leat_queue_open(l, name, "g", NULL, &q) == 0); /* the first request finds that the broker is gone */
	for (; n < 150 && !leat__tied(l, p->at.tie); usleep(5000)) /* it looks after its broker when it sends */
		push(p, n++);
	ck_assert(leat__tied(l, p->at.tie));
	for (uint64_t i = 0; i < n; i++) {
		takes(q, i, i < 2 ? 2 : 1);
		ok(leat_queue_ack(q));
	}
	empty(q);
	close(told[0]);
	close(told[1]);
	leat_close(l);
}
END_TEST

START_TEST(a_restarted_broker_does_not_disturb)
{
	struct leat_queue *a, *b, *idle;
	struct leat_pub *p;
	uint64_t n = 0, done = 0, kept, seen;
	const void *at, *other;

	open_all();
	p = publisher(0);
	a = worker("g");
	b = worker("g");
	idle = worker("other");
	for (int round = 0; round < 3; round++) {
		uint64_t until;

		for (int i = 0; i < 20; i++)
			push(p, n++);
		ok(leat_queue_take(a, &at, NULL, SEC)); /* a holds it all the while */
		kept = done++;
		broker_kill(SIGKILL);
		takes(b, done++, 1);
		ok(leat_queue_ack(b));
		broker_start(NULL);
		for (until = leat__now() + SEC / 2; leat__now() < until;) {
			push(p, n++);
			takes(b, done++, 1);
			ok(leat_queue_ack(b));
			usleep(2000);
			ok(leat_queue_take(idle, &other, NULL, SEC));
			ok(leat_queue_ack(idle));
		}
		ck_assert_msg(leat__tied(l, p->at.tie), "the publisher did not go over");
		memcpy(&seen, at, sizeof(seen));
		ck_assert_uint_eq(seen, kept);
		ok(leat_queue_nack(a));
		takes(a, kept, 2);
		ok(leat_queue_ack(a));
		while (done < n) {
			takes(done % 2 ? a : b, done, 1);
			ok(leat_queue_ack(done % 2 ? a : b));
			done++;
		}
	}
	empty(a);
	empty(b);
	leat_close(l);
}
END_TEST

START_TEST(a_forked_child_has_none)
{
	struct leat_queue *q;
	struct leat_pub *p;
	const void *at;
	pid_t pid;

	open_all();
	p = publisher(0);
	q = worker("g");
	push(p, 0);
	takes(q, 0, 1);
	pid = fork();
	if (pid == 0) {
		int bad = leat_queue_take(q, &at, NULL, 0) != -ECHILD || leat_queue_ack(q) != -ECHILD ||
			  leat_queue_nack(q) != -ECHILD;

		leat_close(l);
		_exit(bad);
	}
	child_ok(pid);
	ok(leat_queue_nack(q));
	takes(q, 0, 2);
	leat_close(l);
}
END_TEST

/* ---- many at once ---- */

enum { WORKERS = 8, PUBS = 4 };

struct ledger {
	char domain[200], name[64];
	uint32_t ready, stop;
	uint64_t total; /* messages of each publisher */
	uint64_t allowed; /* of them, so far */
	uint64_t sleeps;
	unsigned char delivered[]; /* of each message: how often, and 0x80 when it is being acknowledged */
};
static struct ledger *ledger;

static void make_ledger(uint64_t total)
{
	ledger = mmap(NULL, sizeof(*ledger) + PUBS * total, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert(ledger != MAP_FAILED);
	ledger->total = total;
	snprintf(ledger->domain, sizeof(ledger->domain), "%s", broker_start(NULL));
	snprintf(ledger->name, sizeof(ledger->name), "%s", random_name());
}

static void free_ledger(void)
{
	munmap(ledger, sizeof(*ledger) + PUBS * ledger->total);
}

struct job {
	uint64_t n, check;
	uint32_t who;
};

static void pushes(void *arg)
{
	uint32_t who = (uint32_t)(uintptr_t)arg;
	struct leat_pub *p;

	ok(leat_open(ledger->domain, &l));
	ok(leat_pub_open(l, ledger->name, OPTS(leat_pub_opts, .capacity = 65536), &p));
	for (uint64_t i = 0; i < ledger->total; i++) {
		struct job j = {i, i * 0x9e3779b97f4a7c15u + who, who};

		while (i >= leat__load_acquire(&ledger->allowed))
			usleep(200);
		ok(leat_send(p, &j, sizeof(j), 60 * SEC));
	}
	leat_close(l);
}

static void works(void *arg)
{
	uint64_t last[PUBS] = {0};
	struct leat_queue *q;
	int e;

	(void)arg;
	for (e = -1; e < 0;) { /* the broker may be killed while we ask */
		e = leat_open(ledger->domain, &l);
		if (e == 0)
			e = leat_queue_open(l, ledger->name, "g", OPTS(leat_queue_opts, .max_deliveries = UINT32_MAX), &q);
		must(e == 0 || e == -ECONNRESET || e == -ECONNREFUSED || e == -ENOENT, "open: %d: %s", e, leat_why());
		if (e < 0)
			usleep(5000);
	}
	leat__fetch_add(&ledger->ready, 1u);
	while (!leat__load_acquire(&ledger->stop)) {
		struct leat_work w;
		const void *at;
		struct job j;

		e = leat_queue_take(q, &at, &w, SEC / 10);
		if (e == -ETIMEDOUT)
			continue;
		must(e == 0, "take: %d: %s", e, leat_why());
		memcpy(&j, at, sizeof(j));
		must(w.size == sizeof(j) && j.who < PUBS && j.n < ledger->total &&
			     j.check == j.n * 0x9e3779b97f4a7c15u + j.who && w.seq == j.n, "a changed message");
		must(w.deliveries > 1 || j.n + 1 > last[j.who], "message %llu after %llu", (unsigned long long)j.n,
		     (unsigned long long)last[j.who]);
		if (w.deliveries == 1)
			last[j.who] = j.n + 1;
		leat__fetch_add(&ledger->delivered[j.who * ledger->total + j.n], (unsigned char)1);
		if (j.n % 64 == 0) /* there is something to be killed with */
			usleep((useconds_t)(rnd() % 1000));
		/* Killed from here on it may have been acknowledged, or not: then it comes again. */
		leat__fetch_or(&ledger->delivered[j.who * ledger->total + j.n], (unsigned char)0x80);
		e = leat_queue_ack(q);
		must(e == 0, "ack: %d: %s", e, leat_why());
	}
	leat_close(l);
}

/* How many are not acknowledged; the number of those delivered more than once. */
static uint64_t all_done(uint64_t *redone)
{
	uint64_t left = 0;

	*redone = 0;
	for (uint64_t i = 0; i < PUBS * ledger->total; i++) {
		unsigned char d = leat__load_relaxed(&ledger->delivered[i]);

		left += !(d & 0x80);
		*redone += (d & 0x7f) > 1;
	}
	return left;
}

/* For who wants to know why. */
static void print_redone(void)
{
	for (uint64_t w = 0; w < PUBS; w++) {
		uint64_t first = 0, n = 0;

		for (uint64_t i = 0; i <= ledger->total; i++) {
			int again = i < ledger->total && (ledger->delivered[w * ledger->total + i] & 0x7f) > 1;

			if (again && !n++)
				first = i;
			if (!again && n > 1)
				fprintf(stderr, "# of publisher %llu: %llu from %llu on\n", (unsigned long long)w, (unsigned long long)n,
					(unsigned long long)first);
			n = again ? n : 0;
		}
	}
}

static void run_many(uint64_t total, int kills, int brokers)
{
	pid_t pub[PUBS], work[WORKERS];
	uint64_t redone = 0, start = leat__now(), left;
	int killed = 0;

	make_ledger(total);
	for (int i = 0; i < WORKERS; i++)
		work[i] = child(works, NULL);
	eventually(leat__load_acquire(&ledger->ready) == WORKERS);
	for (uintptr_t i = 0; i < PUBS; i++)
		pub[i] = child(pushes, (void *)i);
	while ((left = all_done(&redone)) > 0) {
		leat__store_release(&ledger->allowed, kills ? total * (uint64_t)(killed + 1) / (uint64_t)(kills + 1) : total);
		must(leat__now() - start < (full() ? 3600u : 60u) * (uint64_t)SEC, "%llu are not done",
		     (unsigned long long)left);
		usleep(3000 + (useconds_t)(rnd() % 10000));
		if (killed < kills) {
			int i = (int)(rnd() % WORKERS);

			child_kill(work[i]);
			if (brokers && killed % 10 == 9) {
				broker_kill(SIGKILL);
				usleep((useconds_t)(rnd() % 50000));
				broker_start(NULL);
			}
			work[i] = child(works, NULL);
			killed++;
		}
	}
	for (int i = 0; i < PUBS; i++)
		child_ok(pub[i]);
	leat__store_release(&ledger->stop, 1u);
	for (int i = 0; i < WORKERS; i++)
		child_ok(work[i]);
	fprintf(stderr, "# %d kills: %llu messages, %llu of them delivered again, in %.1f s\n", killed,
		(unsigned long long)(PUBS * total), (unsigned long long)redone, (double)(leat__now() - start) / 1e9);
	if (redone > (uint64_t)killed * 2)
		print_redone();
	ck_assert_msg(killed ? redone <= (uint64_t)killed * (brokers ? 2 : 1) : !redone, "%llu were delivered again, %d workers were killed",
		      (unsigned long long)redone, killed);
	free_ledger();
}

START_TEST(exactly_once_while_nobody_dies)
{
	run_many(full() ? 1250000 : 100000, 0, 0);
}
END_TEST

START_TEST(at_least_once_when_workers_are_killed)
{
	run_many(full() ? 1250000 : 100000, full() ? 200 : 60, 0);
}
END_TEST

START_TEST(and_brokers)
{
	run_many(full() ? 1250000 : 100000, full() ? 200 : 60, 1);
}
END_TEST

struct stuck {
	char domain[200], name[64];
	uint32_t ready, sent, got;
	size_t size;
};
static struct stuck *stuck;

static void sends_for_ever(void *arg)
{
	static unsigned char bytes[4000];
	struct leat_pub *p;

	(void)arg;
	ok(leat_open(stuck->domain, &l));
	ok(leat_pub_open(l, stuck->name, OPTS(leat_pub_opts, .capacity = 4096, .max_size = stuck->size, .blocks = stuck->size > 512 ? 4 : 0), &p));
	for (uint32_t i = 0; i < 300; i++) {
		memcpy(bytes, &i, sizeof(i));
		ok(leat_send(p, bytes, stuck->size, -1));
		leat__fetch_add(&stuck->sent, 1u);
	}
	leat_close(l);
}

static void takes_all(void *arg)
{
	struct leat_queue *q;
	const void *at;
	uint32_t n;

	ok(leat_open(stuck->domain, &l));
	ok(leat_queue_open(l, stuck->name, "g", NULL, &q));
	leat__fetch_add(&stuck->ready, 1u);
	while (!arg)
		pause();
	while (leat__load_acquire(&stuck->got) < 300) {
		ok(leat_queue_take(q, &at, NULL, 10 * SEC));
		memcpy(&n, at, sizeof(n));
		must(n == leat__load_acquire(&stuck->got), "message %u instead of %u", n, stuck->got);
		ok(leat_queue_ack(q));
		leat__fetch_add(&stuck->got, 1u);
	}
	leat_close(l);
}

/* Those who could make room for it know nothing of its ring until it has gone over to their broker. */
START_TEST(who_waits_for_room_goes_over_to_the_next_broker)
{
	pid_t idle, pub, work;
	uint32_t n;

	stuck = mmap(NULL, sizeof(*stuck), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert(stuck != MAP_FAILED);
	snprintf(stuck->domain, sizeof(stuck->domain), "%s", broker_start(NULL));
	snprintf(stuck->name, sizeof(stuck->name), "%s", random_name());
	stuck->size = _i ? 4000 : 100; /* a block, or not */
	idle = child(takes_all, NULL);
	eventually(leat__load_acquire(&stuck->ready) == 1);
	pub = child(sends_for_ever, NULL);
	do { /* until there is no room */
		n = leat__load_acquire(&stuck->sent);
		usleep(50000);
	} while (!n || n != leat__load_acquire(&stuck->sent));
	ck_assert(n < 300);
	broker_kill(SIGKILL);
	child_kill(idle);
	broker_start(NULL);
	work = child(takes_all, stuck);
	child_ok(pub);
	child_ok(work);
	ck_assert(leat__load_acquire(&stuck->got) == 300);
	munmap(stuck, sizeof(*stuck));
}
END_TEST

struct idler {
	struct leat_queue *q;
	uint64_t got;
	long switches;
};

static void *idles(void *arg)
{
	struct idler *z = arg;
	struct rusage u;
	const void *at;

	while (!leat__load_acquire(&ledger->stop))
		if (leat_queue_take(z->q, &at, NULL, SEC / 5) == 0) {
			z->got++;
			leat_queue_ack(z->q);
		}
	getrusage(RUSAGE_THREAD, &u);
	z->switches = u.ru_nvcsw;
	return NULL;
}

START_TEST(idle_workers_wake_one_at_a_time)
{
	struct idler z[WORKERS];
	pthread_t t[WORKERS];
	struct leat_pub *p;
	uint64_t got = 0;
	long switches = 0;
	enum { N = 500 };

	open_all();
	make_ledger(1);
	p = publisher(0);
	for (int i = 0; i < WORKERS; i++) {
		z[i] = (struct idler){.q = worker("g")};
		ck_assert(pthread_create(&t[i], NULL, idles, &z[i]) == 0);
	}
	for (uint64_t i = 0; i < N; i++) {
		push(p, i);
		usleep(2000);
	}
	leat__store_release(&ledger->stop, 1u);
	for (int i = 0; i < WORKERS; i++) {
		pthread_join(t[i], NULL);
		got += z[i].got;
		switches += z[i].switches;
	}
	fprintf(stderr, "# %d messages, one at a time, to %d idle workers: %ld times one slept\n", N, WORKERS, switches);
	ck_assert_uint_eq(got, N);
	/* One takes it, one goes on watch, each may sleep a short one first; all of them would be eight. */
	ck_assert_int_lt(switches, N * 5);
	free_ledger();
	leat_close(l);
}
END_TEST

/* A co-worker writes what it likes over all that workers may write. */
static void *scribbles(void *arg)
{
	struct leat_queue *q = arg;
	struct leat_sub *s = *(struct leat_sub **)(void *)q; /* its first member */
	const struct leat__geometry *g = &s->seat->cg;
	size_t from = offsetof(struct leat__ctrl_shm, data_bell), n = (size_t)g->total - from;
	unsigned char *at = (unsigned char *)s->seat->ctrl + from;
	unsigned seed = (unsigned)rnd();

	while (!leat__load_acquire(&ledger->stop)) {
		uint64_t *w = (uint64_t *)(void *)(at + (size_t)rand_r(&seed) % (n / 8) * 8);
		uint64_t v = leat__load_relaxed(w);

		switch (rand_r(&seed) % 4) {
		case 0: v += (uint64_t)(rand_r(&seed) % 128) * 8 - 256; break;
		case 1: v ^= (uint64_t)1 << rand_r(&seed) % 64; break;
		case 2: v = (v & ~(uint64_t)15) | (unsigned)rand_r(&seed) % 16; break;
		default: v = (uint64_t)rand_r(&seed) << 32 | (unsigned)rand_r(&seed);
		}
		leat__store_relaxed(w, v);
		if (rand_r(&seed) % 64 == 0)
			usleep(100);
	}
	return NULL;
}

static struct {
	uint64_t sent, got, slow;
} beside; /* a liar */

/* How long this thread has been ready to run and others had the processors: ns. */
static uint64_t run_delay(void)
{
	unsigned long long ran, waited = 0;
	char text[100] = "";

	leat__read_file("/proc/thread-self/schedstat", text, sizeof(text));
	return sscanf(text, "%llu %llu", &ran, &waited) == 2 ? waited : 0;
}

/* A tenth of a second of it, on a channel of its own: where the liar's words are so that nobody gets work, it ends there. */
static void works_beside_a_liar(void)
{
	uint64_t until = leat__now() + SEC / 10;
	struct leat_queue *q, *liar;
	struct leat_pub *p;
	pthread_t t;
	char b[600];

	name = random_name();
	leat__store_release(&ledger->stop, 0u);
	p = publisher(0);
	q = worker("g");
	liar = worker("g");
	ck_assert(pthread_create(&t, NULL, scribbles, liar) == 0);
	for (uint64_t sent = 0; leat__now() < until;) {
		size_t size = 16 + rnd() % 400;
		struct leat_work w;
		const void *at;
		uint64_t start, waited;

		memcpy(b, &sent, 8);
		memcpy(b + 8, &size, 8);
		fill_message(b + 16, size - 16, sent);
		if (leat_send(p, b, size, 1000000) == 0) {
			beside.sent++;
			sent++;
		}
		waited = run_delay();
		start = leat__now();
		if (leat_queue_take(q, &at, &w, 1000000) == 0) {
			uint64_t n, s;

			memcpy(b, at, w.size < sizeof(b) ? w.size : sizeof(b));
			if (leat_queue_ack(q) == 0) {
				memcpy(&n, b, 8);
				memcpy(&s, b + 8, 8);
				must(s == w.size && n == w.seq && message_whole(b + 16, s - 16, n), "a changed message");
				beside.got++;
			}
		}
		beside.slow += leat__now() - start > 101000000 + (run_delay() - waited);
	}
	leat__store_release(&ledger->stop, 1u);
	pthread_join(t, NULL);
	leat_queue_close(q);
	leat_queue_close(liar);
	leat_pub_close(p);
}

START_TEST(a_lying_worker_changes_no_message)
{
	uint64_t until = leat__now() + (full() ? 600 : 3) * (uint64_t)SEC;

	open_all();
	make_ledger(1);
	while (leat__now() < until)
		works_beside_a_liar();
	fprintf(stderr, "# %llu messages sent, %llu taken and good beside a liar\n", (unsigned long long)beside.sent,
		(unsigned long long)beside.got);
	ck_assert_uint_gt(beside.got, 100);
	ck_assert_uint_le(beside.slow, 2); /* a virtual machine may have stood still */
	free_ledger();
	leat_close(l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("queue");
	TCase *tc = leak_checked(s, "queue", full() ? 3700 : 120), *many = leak_checked(s, "many", full() ? 3700 : 330);

	test(tc, each_message_goes_to_one_worker_of_each_group);
	test(tc, what_cannot_be_opened_says_why);
	test(tc, what_is_put_back_comes_again);
	test(tc, too_often_and_it_goes_to_the_dead);
	test(tc, pushed_before_anybody_works);
	test(tc, a_group_keeps_its_place_while_nobody_works);
	test(tc, what_is_in_hand_is_not_overwritten);
	test(tc, a_dead_workers_message_comes_to_another);
	test(tc, a_dead_workers_message_comes_to_another_without_a_broker);
	test(tc, what_dead_workers_had_goes_along_to_the_next_broker);
	test(tc, a_restarted_broker_does_not_disturb);
	test(tc, a_forked_child_has_none);
	test(tc, idle_workers_wake_one_at_a_time);
	test(tc, a_lying_worker_changes_no_message);
	test(many, exactly_once_while_nobody_dies);
	test(many, at_least_once_when_workers_are_killed);
	tcase_add_loop_test(tc, who_waits_for_room_goes_over_to_the_next_broker, 0, 2);
	test(many, and_brokers);
	return run_suite(s);
}
