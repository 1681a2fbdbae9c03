/* SPDX-License-Identifier: Apache-2.0 */
/* State: a last value that stays when its publisher has ended, however it ended, until there is another. */
#include <signal.h>
#include <sys/wait.h>
#include "base/atomic.h"
#include "channel/channel.h"
#include "harness.h"

static struct leat *l;
static const char *name;

/* A broker that keeps no history: what is there later is there because it is retained. */
static void open_all(void)
{
	broker_start("--linger", "0", NULL);
	l = broker_open();
	name = random_name();
}

static struct leat_pub *publisher(uint32_t retain)
{
	struct leat_pub *p;

	ok(leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 4096, .policy = LEAT_OVERWRITE, .retain = retain), &p));
	return p;
}

static void send(struct leat_pub *p, uint64_t n)
{
	ok(leat_send(p, &n, sizeof(n), 0));
}

/* A value set by somebody who is gone. */
static void set(uint64_t n)
{
	struct leat_pub *p = publisher(1);

	send(p, n);
	leat_pub_close(p);
}

/* What a late subscriber finds; -errno. */
static int64_t get(void)
{
	struct leat_sub *s;
	uint64_t n = 0;
	int e;

	ok(leat_sub_open(l, name, OPTS(leat_sub_opts, .flags = LEAT_OBSERVE, .from = LEAT_LATEST), &s));
	e = leat_latest(s, &n, sizeof(n), NULL);
	leat_sub_close(s);
	return e < 0 ? e : (int64_t)n;
}

static uint32_t rings(void)
{
	struct leat_stat st = {.struct_size = sizeof(st)};

	return leat_stat(l, name, &st, NULL, NULL) == 0 ? st.publishers + st.draining : 0;
}

START_TEST(the_last_value_stays_when_its_publisher_has_gone)
{
	open_all();
	set(1);
	usleep(300000); /* ten times as long as this broker takes to forget */
	ck_assert_int_eq(get(), 1);
	ck_assert_int_eq(get(), 1);
	leat_close(l);
	l = broker_open();
	ck_assert_int_eq(get(), 1);
	leat_close(l);
}
END_TEST

START_TEST(without_retain_it_goes)
{
	struct leat_pub *p;

	open_all();
	p = publisher(0);
	send(p, 1);
	leat_pub_close(p);
	eventually(!rings());
	ck_assert_int_eq(get(), -EAGAIN);
	leat_close(l);
}
END_TEST

static void sets_and_waits(void *arg)
{
	struct leat_pub *p;

	(void)arg;
	l = NULL;
	ok(leat_open(getenv("LEAT_BROKER"), &l));
	p = publisher(1);
	send(p, 7);
	send(p, 8);
	pause();
}

START_TEST(a_killed_publishers_last_value_stays)
{
	pid_t pid;

	open_all();
	setenv("LEAT_BROKER", leat_domain(l), 1);
	pid = child(sets_and_waits, NULL);
	eventually(get() == 8);
	child_kill(pid);
	usleep(300000);
	ck_assert_int_eq(get(), 8);
	leat_close(l);
}
END_TEST

START_TEST(a_successor_replaces_it_with_its_first_message_and_not_before)
{
	struct leat_pub *p;

	open_all();
	set(1);
	p = publisher(1);
	usleep(200000);
	ck_assert_int_eq(get(), 1);
	leat_pub_close(p); /* it never said anything */
	usleep(200000);
	ck_assert_int_eq(get(), 1);
	eventually(rings() == 1);
	p = publisher(0); /* nothing of its own stays */
	send(p, 2);
	ck_assert_int_eq(get(), 2);
	eventually(rings() == 1);
	leat_pub_close(p);
	eventually(get() == -EAGAIN);
	leat_close(l);
}
END_TEST

START_TEST(of_two_publishers_the_one_that_ended_last_stays)
{
	struct leat_pub *a, *b;

	open_all();
	a = publisher(1);
	b = publisher(1);
	send(a, 1);
	send(b, 2);
	leat_pub_close(b);
	leat_pub_close(a);
	eventually(rings() == 1);
	ck_assert_int_eq(get(), 1);
	leat_close(l);
}
END_TEST

START_TEST(a_thousand_values_leave_one)
{
	open_all();
	for (uint64_t i = 0; i < 1000; i++) {
		set(i);
		ck_assert_int_eq(get(), (int64_t)i);
	}
	eventually(rings() == 1);
	ck_assert_int_eq(get(), 999);
	leat_close(l);
}
END_TEST

START_TEST(removed_it_is_gone_and_who_is_there_stays)
{
	struct leat_sub *s;
	struct leat_pub *p;
	uint64_t n;

	open_all();
	fails(leat_remove(l, name), ENOENT);
	fails(leat_remove(l, "a b"), EINVAL);
	set(1);
	ok(leat_remove(l, name));
	ck_assert_int_eq(get(), -EAGAIN);
	fails(leat_remove(l, name), ENOENT);

	/* What somebody is reading stays for him; so does who publishes. */
	ok(leat_sub_open(l, name, OPTS(leat_sub_opts, .spin_ns = -1), &s));
	set(2);
	p = publisher(1);
	send(p, 3);
	ok(leat_remove(l, name));
	ok(leat_recv(s, &n, sizeof(n), NULL, SEC));
	ck_assert_uint_eq(n, 2);
	ok(leat_recv(s, &n, sizeof(n), NULL, SEC));
	ck_assert_uint_eq(n, 3);
	leat_sub_close(s);
	ck_assert_int_eq(get(), 3);
	leat_pub_close(p);
	leat_close(l);
}
END_TEST

START_TEST(a_group_without_workers_is_removed_with_all_that_it_keeps)
{
	struct leat_queue *q, *other;
	const struct leat_queue_opts *o = OPTS(leat_queue_opts, .max_subscribers = 4);
	struct leat_pub *p;
	const void *at;

	open_all();
	p = publisher(0);
	leat_pub_close(p);
	ok(leat_queue_open(l, name, "old", o, &q));
	ok(leat_queue_open(l, name, "new", o, &other));
	ok(leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 4096), &p));
	for (uint64_t i = 0; i < 3; i++)
		send(p, i);
	ok(leat_queue_take(q, &at, NULL, SEC));
	leat_queue_close(q); /* what was in hand is put back */
	ok(leat_remove(l, name));
	/* The publisher waits for nobody but the group that has a worker. */
	for (uint64_t i = 3; i < 600; i++) {
		ok(leat_send(p, &i, sizeof(i), SEC));
		ok(leat_queue_take(other, &at, NULL, SEC));
		ok(leat_queue_ack(other));
	}
	/* Its place is free for another, which begins where it comes. */
	ok(leat_queue_open(l, name, "more", NULL, &q));
	leat_queue_close(q);
	leat_pub_close(p);
	leat_queue_close(other);
	ck_assert_uint_gt(rings(), 0);
	ok(leat_remove(l, name));
	fails(leat_stat(l, name, OPTS(leat_stat, .bytes = 0), NULL, NULL), ENOENT);
	leat_close(l);
}
END_TEST

START_TEST(what_waits_in_history_for_a_removed_group_goes_too)
{
	struct leat_queue *q;
	const void *at;
	uint64_t n;

	broker_start(NULL);
	l = broker_open();
	name = random_name();
	for (uint64_t i = 0; i < 12; i++) { /* more than there are places for publishers */
		struct leat_pub *p;

		ok(leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 4096), &p));
		send(p, i);
		leat_pub_close(p);
	}
	ok(leat_queue_open(l, name, "g", NULL, &q));
	ck_assert_uint_eq(rings(), 12);
	ok(leat_remove(l, name)); /* it has a worker: all stays for it */
	for (uint64_t i = 0; i < 6; i++) {
		ok(leat_queue_take(q, &at, NULL, SEC));
		memcpy(&n, at, sizeof(n));
		ck_assert_uint_eq(n, i);
		ok(leat_queue_ack(q));
	}
	leat_queue_close(q);
	ck_assert_uint_gt(rings(), 0);
	ok(leat_remove(l, name));
	fails(leat_stat(l, name, OPTS(leat_stat, .bytes = 0), NULL, NULL), ENOENT);
	leat_close(l);
}
END_TEST

START_TEST(a_restarted_broker_retains_what_its_publisher_brings_along)
{
	struct leat_pub *p;

	open_all();
	p = publisher(1);
	send(p, 1);
	broker_kill(SIGKILL);
	broker_start("--linger", "0", NULL);
	eventually(leat_ping(l, NULL) == 0);
	for (uint64_t n = 2; get() != (int64_t)n && n < 2000; usleep(5000))
		send(p, ++n);
	send(p, 5000);
	leat_pub_close(p);
	usleep(200000);
	ck_assert_int_eq(get(), 5000);
	leat_close(l);
}
END_TEST

START_TEST(by_hand_nothing_is_retained)
{
	uint64_t data, control;

	fails(leat_ring_plan(OPTS(leat_pub_opts, .retain = 1), &data, &control), EINVAL);
	ck_assert(strstr(leat_why(), "retain"));
}
END_TEST

/* ---- many ---- */

enum { PROCESSES = 50, TOPICS = 10 };

static const char *topic(int i)
{
	static char text[80];

	snprintf(text, sizeof(text), "%s/%d", name, i);
	return text;
}

static void waits_until(uint64_t t)
{
	struct timespec ts = {(time_t)(t / 1000000000), (long)(t % 1000000000)};

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
}

struct part {
	int me;
	uint64_t rounds;
};

/* Ten topics of its own, a thousand values a second each; and an eye on the next process's. */
static void speaks_and_looks(void *arg)
{
	const struct part *part = arg;
	struct leat_sub *s[TOPICS];
	struct leat_pub *p[TOPICS];
	uint64_t start, seen[TOPICS] = {0}, news = 0;

	ok(leat_open(getenv("LEAT_BROKER"), &l));
	for (int i = 0; i < TOPICS; i++) {
		ok(leat_pub_open(l, topic(part->me * TOPICS + i),
				 OPTS(leat_pub_opts, .capacity = 4096, .policy = LEAT_OVERWRITE, .retain = 1), &p[i]));
		ok(leat_sub_open(l, topic((part->me + 1) % PROCESSES * TOPICS + i),
				 OPTS(leat_sub_opts, .flags = LEAT_OBSERVE, .from = LEAT_LATEST), &s[i]));
	}
	start = leat__now();
	for (uint64_t n = 1; n <= part->rounds; n++) {
		for (int i = 0; i < TOPICS; i++) {
			uint64_t v[2] = {n, n ^ (uint64_t)(part->me * TOPICS + i)};

			ok(leat_send(p[i], v, sizeof(v), 0));
		}
		for (int i = 0; i < TOPICS; i++) {
			uint64_t v[2], who = (uint64_t)((part->me + 1) % PROCESSES * TOPICS + i);
			int e = leat_latest(s[i], v, sizeof(v), NULL);

			if (e == -EAGAIN)
				continue;
			ok(e);
			/* Whole, another's never, and never an older one than before. */
			if ((v[0] ^ v[1]) != who || v[0] < seen[i])
				ck_abort_msg("topic %d: %d after %d", (int)who, (int)v[0], (int)seen[i]);
			news += v[0] > seen[i];
			seen[i] = v[0];
		}
		waits_until(start + n * 1000000);
	}
	ck_assert_uint_gt(news, part->rounds / 100);
	leat_close(l);
}

START_TEST(five_hundred_topics_at_a_kilohertz_in_fifty_processes)
{
	static struct part parts[PROCESSES];
	pid_t pids[PROCESSES];
	struct leat_stat st = {.struct_size = sizeof(st)};
	uint64_t start = leat__now(), rounds = full() ? 30000 : 2000, took;

	open_all();
	setenv("LEAT_BROKER", leat_domain(l), 1);
	for (int i = 0; i < PROCESSES; i++) {
		parts[i] = (struct part){i, rounds};
		pids[i] = child(speaks_and_looks, &parts[i]);
	}
	for (int i = 0; i < PROCESSES; i++)
		child_ok(pids[i]);
	took = leat__now() - start;
	fprintf(stderr, "# 500 topics, %d values each: %.2f s of at least %.2f\n", (int)rounds, (double)took / 1e9,
		(double)rounds / 1e3);
	/* All have gone; the last value of each is there. */
	for (int i = 0; i < PROCESSES * TOPICS; i++) {
		struct leat_sub *s;
		uint64_t v[2] = {0};

		ok(leat_sub_open(l, topic(i), OPTS(leat_sub_opts, .flags = LEAT_OBSERVE, .from = LEAT_LATEST), &s));
		ok(leat_latest(s, v, sizeof(v), NULL));
		ck_assert_uint_eq(v[0], rounds);
		leat_sub_close(s);
		ok(leat_stat(l, topic(i), &st, NULL, NULL));
		ck_assert_uint_le(st.bytes, 65536);
	}
	for (int i = 0; i < PROCESSES * TOPICS; i++)
		ok(leat_remove(l, topic(i)));
	leat_close(l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("state");
	TCase *tc = leak_checked(s, "state", full() ? 600 : 120);

	test(tc, the_last_value_stays_when_its_publisher_has_gone);
	test(tc, without_retain_it_goes);
	test(tc, a_killed_publishers_last_value_stays);
	test(tc, a_successor_replaces_it_with_its_first_message_and_not_before);
	test(tc, of_two_publishers_the_one_that_ended_last_stays);
	test(tc, a_thousand_values_leave_one);
	test(tc, removed_it_is_gone_and_who_is_there_stays);
	test(tc, a_group_without_workers_is_removed_with_all_that_it_keeps);
	test(tc, what_waits_in_history_for_a_removed_group_goes_too);
	test(tc, a_restarted_broker_retains_what_its_publisher_brings_along);
	test(tc, by_hand_nothing_is_retained);
	test(tc, five_hundred_topics_at_a_kilohertz_in_fifty_processes);
	return run_suite(s);
}
