/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The broker is killed, again and again, while messages flow: none is lost, doubled or reordered, calls that
 * need it fail clearly meanwhile, and the names come back.
 */
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include "base/atomic.h"
#include "channel/channel.h"
#include "harness.h"

enum { PUBS = 8, SUBS = 3, RATE = 100000 }; /* half as many publishers in the short form */

/* What all processes of a test share, beside leat. */
struct ledger {
	int stop;
	uint64_t sent[PUBS];
	uint64_t received[SUBS];
	uint32_t ready;
	char domain[200], name[64];
};
static struct ledger *ledger;

struct note {
	uint32_t who, pad;
	uint64_t n;
	uint64_t check;
	char rest[40];
};

static void make_ledger(void)
{
	ledger = mmap(NULL, sizeof(*ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert(ledger != MAP_FAILED);
	snprintf(ledger->domain, sizeof(ledger->domain), "%s", broker_start(NULL));
	snprintf(ledger->name, sizeof(ledger->name), "%s", random_name());
}

/* Send at a rate until told to stop; every message says which it is. */
static void publish(void *arg)
{
	uint32_t who = (uint32_t)(uintptr_t)arg;
	uint64_t n = 0, start;
	struct leat_pub *p;
	struct leat *l;

	ok(leat_open(ledger->domain, &l));
	ok(leat_pub_open(l, ledger->name, OPTS(leat_pub_opts, .capacity = 1 << 18, .max_subscribers = 16), &p));
	leat__fetch_add(&ledger->ready, 1u);
	start = leat__now();
	while (!leat__load_acquire(&ledger->stop)) {
		uint64_t due = (leat__now() - start) * RATE / 1000000000;

		for (; n < due; n++) {
			struct note note = {.who = who, .n = n, .check = n ^ 0x5bd1e995};
			int e = leat_send(p, &note, sizeof(note), 20 * SEC);

			must(e == 0, "publisher %u, message %llu: %d: %s", who, (unsigned long long)n, e,
				      leat_why());
		}
		leat__store_release(&ledger->sent[who], n);
		usleep(1000);
	}
	leat__store_release(&ledger->sent[who], n);
	leat_close(l);
}

static void subscribe(void *arg)
{
	uint32_t me = (uint32_t)(uintptr_t)arg;
	uint64_t expected[PUBS] = {0}, got = 0;
	struct leat_info info;
	struct leat_sub *s;
	struct note note;
	struct leat *l;
	int e;

	ok(leat_open(ledger->domain, &l));
	ok(leat_sub_open(l, ledger->name, OPTS(leat_sub_opts, .flags = LEAT_UNTIL_ENDED, .max_subscribers = 16), &s));
	leat__fetch_add(&ledger->ready, 1u);
	while ((e = leat_recv(s, &note, sizeof(note), &info, 30 * SEC)) == 0) {
		must(info.size == sizeof(note) && note.check == (note.n ^ 0x5bd1e995) && note.who < PUBS,
			      "a changed message");
		must(note.n == expected[note.who], "subscriber %u: message %llu of publisher %u comes, "
			      "%llu was expected", me, (unsigned long long)note.n, note.who,
			      (unsigned long long)expected[note.who]);
		must(!info.lost && info.seq == note.n, "number %llu, lost %llu", (unsigned long long)info.seq,
		     (unsigned long long)info.lost);
		expected[note.who]++;
		leat__store_relaxed(&ledger->received[me], ++got);
	}
	must(e == -ENODATA, "%d: %s", e, leat_why());
	for (int i = 0; i < PUBS; i++)
		must(expected[i] == ledger->sent[i], "subscriber %u got %llu of %llu of publisher %d", me,
			      (unsigned long long)expected[i], (unsigned long long)ledger->sent[i], i);
	leat_close(l);
}

static int names_are_back(struct leat *l, unsigned pubs, unsigned subs)
{
	struct leat_stat st = {.struct_size = sizeof(st)};

	return leat_stat(l, ledger->name, &st, NULL, NULL) == 0 && st.publishers == pubs && st.subscribers == subs;
}

START_TEST(killed_under_load_it_loses_nothing_and_the_names_come_back)
{
	int kills = full() ? 100 : 12;
	struct leat *control;
	uint32_t pubs = full() ? PUBS : PUBS / 2;
	pid_t pub[PUBS], sub[SUBS];
	uint64_t start, began, slowest = 0;
	int late = 0;

	make_ledger();
	for (uintptr_t i = 0; i < SUBS; i++)
		sub[i] = child(subscribe, (void *)i);
	eventually(leat__load_acquire(&ledger->ready) == SUBS);
	for (uintptr_t i = 0; i < pubs; i++)
		pub[i] = child(publish, (void *)i);
	eventually(leat__load_acquire(&ledger->ready) == SUBS + pubs);
	began = leat__now();
	ok(leat_open(ledger->domain, &control));
	for (int i = 0; i < kills; i++) {
		uint64_t before[SUBS];
		struct leat *another;
		int e;

		usleep((useconds_t)(rnd() % 200000));
		broker_kill(SIGKILL);
		/* It is down: whoever asks is told so, and at once. */
		start = leat__now();
		e = leat_ping(control, NULL);
		ck_assert_msg(e == -ECONNRESET, "%d: %s", e, leat_why());
		fails(leat_open(ledger->domain, &another), ECONNREFUSED);
		ck_assert(leat__now() - start < SEC);
		memcpy(before, ledger->received, sizeof(before));
		usleep((useconds_t)(50000 + rnd() % 350000));
		for (int k = 0; k < SUBS; k++) /* messages go on all the same */
			eventually(leat__load_relaxed(&ledger->received[k]) > before[k]);
		broker_start(NULL);
		if (i % 4 == 3) { /* else it dies before everyone is back */
			start = leat__now();
			eventually(names_are_back(control, pubs, SUBS));
			if (leat__now() - start > slowest)
				slowest = leat__now() - start;
			late += leat__now() - start > SEC / 2;
		}
	}
	fprintf(stderr, "# the names came back within %.0f ms\n", (double)slowest / 1e6);
	/* The machine may have stood still once. */
	ck_assert_msg(late * 8 <= kills, "the names took up to %.3f s to come back", (double)slowest / 1e9);
	began = leat__now() - began;
	leat__store_release(&ledger->stop, 1);
	for (uint32_t i = 0; i < pubs; i++)
		child_ok(pub[i]);
	for (int i = 0; i < SUBS; i++)
		child_ok(sub[i]);
	start = 0;
	for (int i = 0; i < PUBS; i++)
		start += ledger->sent[i];
	figure(1, "%d kills in %.0f s, %u times %.0f messages a second to each of %d subscribers: none lost, doubled or out of order; "
	       "names back within %.0f ms", kills, (double)began / 1e9, pubs, (double)start / pubs / ((double)began / 1e9), SUBS,
	       (double)slowest / 1e6);
	leat_close(control);
	munmap(ledger, sizeof(*ledger));
}
END_TEST

/* ---- one step at a time, in one process and a child or two ---- */

static void broker_again(void)
{
	broker_kill(SIGKILL);
	broker_start(NULL);
}

static void send_n(struct leat_pub *p, uint64_t n)
{
	ok(leat_send(p, &n, sizeof(n), SEC));
}

/* The next message within ten seconds; @lost of it may be told. */
static uint64_t recv_n(struct leat_sub *s, uint64_t *lost)
{
	struct leat_info info;
	uint64_t n = UINT64_MAX;

	ok(leat_recv(s, &n, sizeof(n), &info, 10 * SEC));
	ck_assert_uint_eq(info.size, sizeof(n));
	if (lost)
		*lost += info.lost;
	else
		ck_assert_uint_eq(info.lost, 0);
	return n;
}

/* Is the publisher's present ring the present broker's? */
static int pub_is_back(struct leat_pub *p)
{
	send_n(p, UINT64_MAX - 1);
	return p->at.id != p->origin && leat__tied(p->l, p->at.tie);
}

/* Send and receive, without looking, until the publisher is back. */
static int flows_back(struct leat_pub *p, struct leat_sub *s)
{
	uint64_t n;

	while (leat_recv(s, &n, sizeof(n), NULL, 0) == 0)
		;
	return pub_is_back(p);
}

START_TEST(a_slow_publisher_and_its_readers_come_back_without_traffic)
{
	struct leat *a = broker_open(), *b = broker_open(), *fresh;
	const char *name = random_name();
	struct leat_stat st = {.struct_size = sizeof(st)};
	struct leat_sub *s, *late;
	struct leat_pub *p;
	uint64_t until;

	ok(leat_sub_open(b, name, NULL, &s));
	ok(leat_pub_open(a, name, NULL, &p));
	for (uint64_t i = 0; i < 5000; i++) {
		send_n(p, i);
		ck_assert_uint_eq(recv_n(s, NULL), i);
	}
	broker_again();
	/* One message in 30 ms: both find the new broker, the publisher when it comes to its next mark. */
	until = leat__now() + 60 * SEC;
	for (uint64_t i = 0; leat__now() < until && p->at.id == p->origin; i++) {
		usleep(30000);
		send_n(p, i);
		ck_assert_uint_eq(recv_n(s, NULL), i);
	}
	fresh = broker_open();
	ok(leat_stat(fresh, name, &st, NULL, NULL));
	ck_assert_uint_eq(st.publishers, 1);
	ck_assert_uint_eq(st.subscribers, 1);
	ok(leat_sub_open(fresh, name, NULL, &late));
	send_n(p, 77);
	ck_assert_uint_eq(recv_n(late, NULL), 77);
	ck_assert_uint_eq(recv_n(s, NULL), 77);
	leat_close(fresh);
	leat_close(b);
	leat_close(a);
}
END_TEST

START_TEST(who_opens_after_the_restart_gets_what_old_publishers_send)
{
	struct leat *a = broker_open(), *fresh;
	const char *name = random_name();
	struct leat_pub *p;
	struct leat_sub *s, *all;

	ok(leat_pub_open(a, name, NULL, &p));
	for (uint64_t i = 0; i < 100; i++)
		send_n(p, i);
	broker_again();
	fresh = broker_open();
	ok(leat_sub_open(fresh, name, NULL, &s)); /* before the publisher has noticed anything */
	eventually((leat__sub_look_around(s), pub_is_back(p)));
	/* It begins where the publisher came back; with history it finds all of it. */
	ck_assert_uint_eq(recv_n(s, NULL), UINT64_MAX - 1);
	fails(leat_recv(s, (char[8]){0}, 8, NULL, 0), EAGAIN);
	ok(leat_sub_open(fresh, name, OPTS(leat_sub_opts, .from = LEAT_OLDEST), &all));
	for (uint64_t i = 0; i < 100; i++)
		ck_assert_uint_eq(recv_n(all, NULL), i);
	leat_close(fresh);
	leat_close(a);
}
END_TEST

enum { CROWD = 500 }; /* more than a packet's list */

START_TEST(a_channel_of_more_rings_than_a_packet_lists_comes_back_whole)
{
	struct leat *a = broker_open(), *b = broker_open();
	struct leat_stat st = {.struct_size = sizeof(st)};
	const char *name = random_name();
	static struct leat_pub *p[CROWD];
	static uint64_t next[CROWD + 1];
	struct leat_sub *s, *late, *after;

	ok(leat_sub_open(b, name, OPTS(leat_sub_opts, .max_publishers = CROWD, .max_subscribers = 4), &s));
	for (int i = 0; i < CROWD; i++)
		ok(leat_pub_open(a, name, OPTS(leat_pub_opts, .capacity = 4096, .max_size = 64), &p[i]));
	ok(leat_sub_open(b, name, NULL, &late)); /* finds them all, in pages */
	memset(next, 0, sizeof(next));
	for (int round = 0; round < 3; round++) {
		uint64_t seen[2] = {0};
		struct leat_sub *readers[2] = {s, late};

		for (int i = 0; i < CROWD; i++) {
			uint64_t n = (uint64_t)i << 32 | next[i]++;

			ok(leat_send(p[i], &n, 8, 5 * SEC));
			if (round == 1 && i == CROWD / 2)
				broker_again();
		}
		for (int k = 0; k < 2; k++)
			while (seen[k] < CROWD) {
				uint64_t n;
				int e = leat_recv(readers[k], &n, 8, NULL, 10 * SEC);

				for (int i = 0; i < CROWD && round == 1; i += 50)
					leat__pub_tend(p[i]);
				must(e == 0, "reader %d has %d of %d in round %d: %s", k, (int)seen[k], CROWD, round, leat_why());
				must((uint32_t)n + 1 == next[n >> 32], "publisher %d: message %u instead of %d", (int)(n >> 32),
				     (uint32_t)n, (int)next[n >> 32] - 1);
				seen[k]++;
			}
	}
	for (int i = 0; i < CROWD; i++)
		eventually((leat__sub_look_around(s), leat__sub_look_around(late), leat__pub_tend(p[i]),
			    p[i]->at.id != p[i]->origin && leat__tied(a, p[i]->at.tie)));
	ok(leat_stat(b, name, &st, NULL, NULL));
	ck_assert_uint_eq(st.publishers, CROWD);
	ck_assert_uint_eq(st.sent, 3 * CROWD);
	ok(leat_sub_open(b, name, OPTS(leat_sub_opts, .from = LEAT_OLDEST), &after));
	for (int i = 0; i < 3 * CROWD; i++)
		ok(leat_recv(after, &(uint64_t){0}, 8, NULL, 5 * SEC));
	for (int i = 0; i < CROWD; i++)
		leat_pub_close(p[i]);
	leat_close(b);
	leat_close(a);
}
END_TEST

static void *make_slow(void *arg)
{
	while (!leat__load_acquire((int *)arg)) {
		broker_signal(SIGSTOP);
		usleep(6000);
		broker_signal(SIGCONT);
		usleep(1000);
	}
	return NULL;
}

START_TEST(a_subscriber_that_comes_back_is_waited_for_in_every_ring_of_a_long_list)
{
	struct leat *a = broker_open(), *fresh;
	const char *name = random_name();
	static struct leat_pub *p[CROWD];
	uint64_t n, sent = 0, lost = 0;
	struct leat_info info;
	pthread_t slow;
	int done = 0;
	struct leat_sub *s;

	ok(leat_sub_open(a, name, OPTS(leat_sub_opts, .max_publishers = CROWD, .max_subscribers = 4), &s));
	broker_again();
	fresh = broker_open();
	for (uint64_t i = 0; i < CROWD; i++) {
		ok(leat_pub_open(fresh, name, OPTS(leat_pub_opts, .capacity = 4096, .max_size = 64, .max_publishers = CROWD,
						   .max_subscribers = 4), &p[i]));
		ok(leat_send(p[i], &i, 8, 0));
	}
	if (_i)
		ck_assert(pthread_create(&slow, NULL, make_slow, &done) == 0);
	for (int i = 0; i < CROWD; i++)
		ok(leat_recv(s, &n, 8, NULL, 10 * SEC));
	leat__store_release(&done, 1);
	if (_i)
		pthread_join(slow, NULL);
	for (int i = 0; i < CROWD - 1; i++) {
		for (sent = 0; leat_send(p[i], &sent, 8, 0) == 0;)
			must(++sent < 1000, "publisher %d does not wait for it", i);
		while (sent--)
			ok(leat_recv(s, &n, 8, &info, SEC));
		ck_assert_uint_eq(info.lost, 0);
	}
	for (sent = 0; leat_send(p[CROWD - 1], &sent, 8, 0) == 0;)
		must(++sent < 1000, "the last publisher does not wait for it");
	for (uint64_t i = 0; i < sent; i++) {
		ok(leat_recv(s, &n, 8, &info, SEC));
		lost += info.lost;
		ck_assert_uint_eq(n, i);
	}
	ck_assert_uint_eq(lost, 0);
	leat_close(fresh);
	leat_close(a);
}
END_TEST

START_TEST(rings_that_a_subscriber_never_mapped_are_not_lost)
{
	struct leat *a = broker_open(), *b = broker_open();
	const char *name = random_name();
	struct leat_pub *p;
	struct leat_sub *s;

	ok(leat_sub_open(b, name, NULL, &s));
	ok(leat_pub_open(a, name, OPTS(leat_pub_opts, .capacity = 65536), &p));
	/* The subscriber has not looked yet when the broker dies: it cannot ask for the ring any more. */
	for (uint64_t i = 0; i < 1000; i++)
		send_n(p, i);
	for (int deaths = 0; deaths < 3; deaths++) {
		uint64_t n = 0;

		broker_again();
		usleep(deaths == 1 ? 200000 : 0);
		ck_assert(leat_recv(s, &n, 8, NULL, deaths == 2 ? 0 : 60000000) < 0 || n == 0);
		if (n == 0)
			break;
	}
	for (uint64_t i = 1000; i < 1500; i++)
		send_n(p, i);
	for (int i = 0; i < 200; i++) { /* both go on looking after themselves */
		leat__pub_tend(p);
		leat__sub_look_around(s);
		usleep(1000);
	}
	for (uint64_t i = s->received; i < 1500; i++)
		ck_assert_uint_eq(recv_n(s, NULL), i);
	leat_close(b);
	leat_close(a);
}
END_TEST

/* Until the ring is full, or @most. */
static uint64_t fill(struct leat_pub *p, uint64_t n, uint64_t most)
{
	while (n < most && leat_send(p, &n, sizeof(n), 0) == 0)
		n++;
	return n;
}

static int has_arrived(struct leat_sub *s, uint64_t ring)
{
	leat__sub_look_around(s);
	for (uint32_t i = 0; i < s->n; i++)
		if (s->rings[i]->r.id == ring)
			return 1;
	return 0;
}

/* Publisher and subscriber look after themselves, and nobody reads, until the publisher has gone over. Whenever the
 * subscriber has arrived where it is to go next, the publisher sends what it may. */
static uint64_t go_over(struct leat_pub *p, struct leat_sub *s, uint64_t n, uint64_t most)
{
	uint64_t was = p->at.id;

	broker_again();
	eventually((leat__pub_tend(p), p->next_at.id != 0));
	eventually(has_arrived(s, p->next_at.id));
	n = fill(p, n, most);
	eventually((leat__pub_tend(p), leat__sub_look_around(s), p->at.id != was));
	return n;
}

/* A subscriber may be so late that its publisher has gone over twice, or thrice; it may look at a message all the
 * while. */
START_TEST(who_missed_a_whole_life_of_the_broker_loses_nothing)
{
	struct leat *a = broker_open(), *b = broker_open();
	const char *name = random_name();
	uint64_t n = 0, got = 0;
	struct leat_info info;
	struct leat_pub *p;
	struct leat_sub *s;
	const void *at;

	ok(leat_sub_open(b, name, NULL, &s));
	ok(leat_pub_open(a, name, OPTS(leat_pub_opts, .capacity = 16384), &p));
	for (; n < 5000; n++) {
		send_n(p, n);
		if (n < 4900)
			ck_assert_uint_eq(recv_n(s, NULL), got++);
	}
	if (_i & 1)
		ok(leat_peek(s, &at, &info, 0));
	for (int lives = 0; lives < 2 + _i / 2; lives++) {
		n = go_over(p, s, n, lives ? n + 5000 : n);
		if (!lives)
			n = fill(p, n, n + 100);
	}
	if (_i & 1) {
		ck_assert(!memcmp(at, &got, sizeof(got)));
		ok(leat_release(s));
		got++;
	}
	n = fill(p, n, UINT64_MAX);
	for (; got < n; got++) {
		ck_assert_uint_eq(recv_n(s, NULL), got);
		if (got % 100 == 0) /* and it is waited for where it reads now */
			n = fill(p, n, 20000);
	}
	ck_assert_uint_eq(n, 20000);
	fails(leat_recv(s, (char[8]){0}, 8, NULL, 0), EAGAIN);
	leat_close(b);
	leat_close(a);
}
END_TEST

START_TEST(a_ring_that_fills_up_before_its_reader_comes_over_loses_nothing)
{
	struct leat *a = broker_open(), *b = broker_open();
	const char *name = random_name();
	uint64_t n = 0, got = 0;
	struct leat_pub *p;
	struct leat_sub *s;

	ok(leat_sub_open(b, name, NULL, &s));
	ok(leat_pub_open(a, name, OPTS(leat_pub_opts, .capacity = 16384), &p));
	for (; n < 5000; n++) { /* more than once around */
		send_n(p, n);
		if (n < 4500)
			ck_assert_uint_eq(recv_n(s, NULL), got++);
	}
	n = go_over(p, s, n, n);
	n = fill(p, n, UINT64_MAX);
	ck_assert_uint_gt(n, 5100);
	for (; got < n; got++)
		ck_assert_uint_eq(recv_n(s, NULL), got);
	leat_close(b);
	leat_close(a);
}
END_TEST

/* Who opens at the new broker before a subscriber of the old one is back does not wait for it: it gets what the ring
 * still has, and is told how much that is not. */
START_TEST(a_new_publisher_is_quicker_than_an_old_subscriber)
{
	struct leat *b = broker_open(), *fresh;
	const char *name = random_name();
	uint64_t n = 0, total = _i ? 5000 : 200, lost = 0, got = 0, last = 0;
	struct leat_pub *p;
	struct leat_sub *s;

	ok(leat_sub_open(b, name, NULL, &s));
	broker_again();
	fresh = broker_open();
	ok(leat_pub_open(fresh, name, OPTS(leat_pub_opts, .capacity = 4096), &p));
	for (; n < total; n++)
		send_n(p, n);
	eventually((leat__sub_look_around(s), s->n == 1));
	for (; last < total - 1; got++) {
		uint64_t was = last;

		last = recv_n(s, &lost);
		ck_assert(!got || last == was + 1);
	}
	ck_assert_uint_eq(got + lost, total);
	ck_assert(_i ? lost >= total - 256 && got > 64 : !lost);
	for (; n < total + 5000; n++) { /* and now it is waited for */
		send_n(p, n);
		ck_assert_uint_eq(recv_n(s, NULL), n);
	}
	leat_close(fresh);
	leat_close(b);
}
END_TEST

START_TEST(large_messages_and_what_is_retained_survive_the_broker)
{
	struct leat *a = broker_open(), *b = broker_open();
	const char *name = random_name();
	static char big[30000], got[30000];
	const void *at, *kept;
	struct leat_info info;
	struct leat_pub *p;
	struct leat_sub *s;

	ok(leat_sub_open(b, name, NULL, &s));
	ok(leat_pub_open(a, name, OPTS(leat_pub_opts, .capacity = 16384, .max_size = 30000, .blocks = 3), &p));
	fill_message(big, sizeof(big), 1);
	ok(leat_send(p, big, sizeof(big), 0));
	ok(leat_peek(s, &at, &info, SEC));
	ok(leat_retain(s, &kept));
	fill_message(big, sizeof(big), 2);
	ok(leat_send(p, big, sizeof(big), 0)); /* in a block, unread, when the broker dies */
	ok(leat_peek(s, &at, &info, SEC));     /* and looked at while the ring is copied */
	broker_again();
	for (int i = 0; i < 300; i++) {
		leat__pub_tend(p);
		usleep(1000);
	}
	ck_assert(message_whole(at, sizeof(big), 2));
	ok(leat_release(s));
	for (int i = 0; i < 300; i++) {
		leat__pub_tend(p);
		fails(leat_recv(s, got, sizeof(got), NULL, 0), EAGAIN);
		usleep(1000);
	}
	ck_assert(leat__tied(a, p->at.tie));
	/* The new ring has all its blocks. */
	for (uint64_t i = 10; i < 20; i++) {
		fill_message(big, sizeof(big), i);
		ok(leat_send(p, big, sizeof(big), SEC));
		ok(leat_recv(s, got, sizeof(got), &info, SEC));
		ck_assert(message_whole(got, sizeof(got), i));
	}
	ck_assert(message_whole(kept, sizeof(big), 1));
	ok(leat_drop(s, kept));
	leat_close(b);
	leat_close(a);
}
END_TEST

struct victim {
	const char *domain, *name;
	int reads;
};

static void victim(void *arg)
{
	struct victim *v = arg;
	struct leat_sub *s;
	struct leat_pub *p;
	struct leat *l;

	ok(leat_open(v->domain, &l));
	if (v->reads) {
		ok(leat_sub_open(l, v->name, NULL, &s));
	} else {
		ok(leat_pub_open(l, v->name, NULL, &p));
		for (uint64_t i = 0; i < 10; i++)
			send_n(p, i);
	}
	for (;;)
		pause();
}

START_TEST(a_subscriber_that_dies_without_a_broker_holds_nobody_up)
{
	struct leat *l = broker_open();
	struct victim v = {leat_domain(l), random_name(), 1};
	struct leat_sub *s;
	struct leat_pub *p;
	uint64_t start;
	pid_t pid;

	ok(leat_pub_open(l, v.name, OPTS(leat_pub_opts, .capacity = 4096), &p));
	pid = child(victim, &v);
	ok(leat_wait_subscribers(p, 1, 10 * SEC));
	ok(leat_sub_open(l, v.name, NULL, &s));
	for (uint64_t i = 0; i < 200; i++) {
		send_n(p, i);
		ck_assert_uint_eq(recv_n(s, NULL), i);
	}
	broker_kill(SIGKILL);
	while (leat_send(p, "full", 4, 0) == 0)
		;
	fails(leat_send(p, "full", 4, 150000000), ETIMEDOUT); /* it lives: it is waited for */
	child_kill(pid);
	start = leat__now();
	while (leat_recv(s, (char[8]){0}, 8, NULL, 0) == 0)
		;
	ok(leat_send(p, "room", 4, 5 * SEC));
	ck_assert_msg(leat__now() - start < SEC, "its death was noticed after %.3f s",
		      (double)(leat__now() - start) / 1e9);
	broker_start(NULL);
	eventually(flows_back(p, s));
	leat_close(l);
}
END_TEST

START_TEST(a_publisher_that_dies_without_a_broker_is_read_to_its_end)
{
	struct leat *l = broker_open();
	struct victim v = {leat_domain(l), random_name(), 0};
	struct leat_sub *s;
	uint64_t start;
	pid_t pid;

	ok(leat_sub_open(l, v.name, OPTS(leat_sub_opts, .flags = LEAT_UNTIL_ENDED), &s));
	pid = child(victim, &v);
	ck_assert_uint_eq(recv_n(s, NULL), 0);
	eventually(leat__load_acquire(&s->rings[0]->r.ring->sent) == 10);
	broker_kill(SIGKILL);
	child_kill(pid);
	for (uint64_t i = 1; i < 10; i++)
		ck_assert_uint_eq(recv_n(s, NULL), i);
	start = leat__now();
	fails(leat_recv(s, (char[8]){0}, 8, NULL, 10 * SEC), ENODATA);
	ck_assert_msg(leat__now() - start < SEC, "its death was noticed after %.3f s",
		      (double)(leat__now() - start) / 1e9);
	leat_close(l);
}
END_TEST

START_TEST(who_closes_or_only_watches_keeps_no_publisher_from_coming_back)
{
	struct leat *a = broker_open(), *b = broker_open();
	const char *name = random_name();
	struct leat_sub *closes, *watches, *newest;
	struct leat_pub *p;
	uint64_t n = 0;

	ok(leat_pub_open(a, name, NULL, &p));
	ok(leat_sub_open(b, name, NULL, &closes));
	ok(leat_sub_open(b, name, OPTS(leat_sub_opts, .flags = LEAT_OBSERVE), &watches));
	ok(leat_sub_open(b, name, OPTS(leat_sub_opts, .flags = LEAT_OBSERVE), &newest));
	send_n(p, 1);
	ck_assert_uint_eq(recv_n(watches, NULL), 1);
	ok(leat_latest(newest, &n, 8, NULL));
	broker_kill(SIGKILL);
	leat_sub_close(closes);
	broker_start(NULL);
	eventually(pub_is_back(p));
	send_n(p, 2);
	/* Who only looks at the newest follows, too, and the observer misses nothing. */
	eventually(leat_latest(newest, &n, 8, NULL) == 0 && n == 2);
	while ((n = recv_n(watches, NULL)) != 2)
		ck_assert_uint_eq(n, UINT64_MAX - 1);
	leat_close(b);
	leat_close(a);
}
END_TEST

START_TEST(an_event_loop_comes_back)
{
	struct leat *a = broker_open(), *b = broker_open();
	const char *name = random_name();
	struct leat_pub *p, *p2;
	struct leat_sub *s;
	struct pollfd pfd = {.events = POLLIN};
	uint64_t got = 0, n;

	ok(leat_sub_open(b, name, NULL, &s));
	ok(leat_pub_open(a, name, NULL, &p));
	pfd.fd = leat_sub_fd(s);
	ok(pfd.fd);
	broker_again();
	for (int i = 0; got < 300 && i < 3000; i++) {
		if (poll(&pfd, 1, 10) == 1)
			while (leat_recv(s, &n, 8, NULL, 0) == 0)
				ck_assert_uint_eq(n, got++);
		if (i < 300)
			send_n(p, (uint64_t)i);
		usleep(1000);
	}
	ck_assert_uint_eq(got, 300);
	ck_assert(leat__tied(a, p->at.tie) && leat__tied(b, s->seat->tie));
	/* Somebody new is seen through the new broker. */
	ok(leat_pub_open(a, name, NULL, &p2));
	send_n(p2, 5);
	ck_assert_int_eq(poll(&pfd, 1, 5000), 1);
	ck_assert_uint_eq(recv_n(s, NULL), 5);
	leat_close(b);
	leat_close(a);
}
END_TEST

START_TEST(nobody_follows_a_publisher_that_claims_to_be_another)
{
	struct leat *a = broker_open(), *b = broker_open();
	const char *name = random_name();
	struct leat__geometry g;
	struct leat__place at;
	struct leat_region *ring;
	struct leat__ring_shm *shm;
	struct leat_pub *p, liar = {.l = b};
	unsigned char *view;
	struct leat_sub *s;

	ok(leat_sub_open(a, name, NULL, &s));
	ok(leat_pub_open(a, name, NULL, &p));
	send_n(p, 1);
	ck_assert_uint_eq(recv_n(s, NULL), 1);
	/* A ring that says it goes on from the honest one, and is ahead of it. */
	liar.name = strdup(name);
	g = p->w.g;
	ok(leat__pub_make_ring(&g, &ring, &view));
	shm = leat_region_addr(ring);
	shm->tail = 1600;
	shm->began = 1601;
	ok(leat__pub_announce(&liar, ring, &g, 0, 0, p->origin, SEC, &at));
	for (uint64_t i = 2; i < 100; i++) {
		send_n(p, i);
		ck_assert_uint_eq(recv_n(s, NULL), i);
	}
	leat__place_leave(b, &at);
	leat_region_close(ring);
	free(liar.name);
	leat_close(b);
	leat_close(a);
}
END_TEST

START_TEST(who_loses_only_his_socket_is_who_he_was)
{
	struct leat *a = broker_open(), *b = broker_open();
	const char *name = random_name();
	struct leat_stat st = {.struct_size = sizeof(st)};
	struct leat_pub *p, *p2;
	struct leat_sub *s;

	ok(leat_sub_open(a, name, NULL, &s));
	ok(leat_pub_open(a, name, OPTS(leat_pub_opts, .capacity = 4096), &p));
	send_n(p, 1);
	shutdown(a->sock, SHUT_RDWR); /* as closefrom() in a program that becomes a daemon might */
	ok(leat_pub_open(b, name, OPTS(leat_pub_opts, .capacity = 4096), &p2));
	ck_assert_uint_eq(recv_n(s, NULL), 1);
	for (uint64_t i = 0; i < 1000; i++) { /* the new publisher's ring is read, and no slot of before holds it up */
		send_n(p2, i);
		ck_assert_uint_eq(recv_n(s, NULL), i);
	}
	send_n(p, 2);
	ck_assert_uint_eq(recv_n(s, NULL), 2);
	ok(leat_stat(a, name, &st, NULL, NULL));
	ck_assert_uint_eq(st.publishers, 2);
	ck_assert_uint_eq(st.subscribers, 1);
	leat_pub_close(p);
	leat_sub_close(s);
	eventually(leat_stat(b, name, &st, NULL, NULL) == 0 && st.publishers == 1 && st.subscribers == 0);
	leat_close(b);
	leat_close(a);
}
END_TEST

static void close_parents(void *arg)
{
	leat_close(arg);
}

START_TEST(a_child_may_be_forked_while_its_parent_waits_for_the_broker)
{
	struct leat *a = broker_open(), *b = broker_open();
	const char *name = random_name();
	struct leat_pub *p;
	struct leat_sub *s;

	ok(leat_sub_open(b, name, NULL, &s));
	ok(leat_pub_open(a, name, NULL, &p));
	send_n(p, 0);
	ck_assert_uint_eq(recv_n(s, NULL), 0);
	broker_again();
	eventually((leat__tend(a), a->tie != p->at.tie && !a->lost));
	broker_signal(SIGSTOP);
	eventually((leat__pub_tend(p), p->announced.serial != 0));
	child_ok(child(close_parents, a));
	child_ok(child(close_parents, b));
	broker_signal(SIGCONT);
	send_n(p, 1);
	ck_assert_uint_eq(recv_n(s, NULL), 1);
	eventually((leat__pub_tend(p), leat__sub_look_around(s), p->at.id != p->origin));
	send_n(p, 2);
	ck_assert_uint_eq(recv_n(s, NULL), 2);
	leat_close(b);
	leat_close(a);
}
END_TEST

/* It does not matter how long a broker takes to say hello, if one looks after it now and then. */
START_TEST(a_slow_brokers_greeting_is_waited_for)
{
	struct leat *l = broker_open();
	uint64_t serial = 0;

	broker_again();
	broker_signal(SIGSTOP);
	for (int i = 0; i < 20; i++) {
		leat__tend(l);
		usleep(20000);
		ck_assert(l->lost || !i);
		ck_assert(!serial || l->hello.serial == serial); /* one greeting, not one after the other */
		serial = l->hello.serial;
	}
	ck_assert_uint_ne(serial, 0);
	broker_signal(SIGCONT);
	eventually((leat__tend(l), !leat__load_acquire(&l->lost)));
	ck_assert(!l->hello.serial && l->tie->instance != 0);
	ok(leat_ping(l, NULL));
	leat_close(l);
}
END_TEST

/* Whether its asker has given up by then, or gives up when it is there; or else takes it, by asking again. */
START_TEST(what_was_opened_too_late_is_closed_again)
{
	struct leat__errand r = {0};
	uint64_t serial;
	struct leat *l = broker_open(), *other = broker_open();
	const char *name = random_name();
	struct leat_stat st = {.struct_size = sizeof(st)};
	struct leat__packet pkt;
	struct leat__out out;
	struct leat__in in;

	broker_signal(SIGSTOP);
	leat__wire_begin(&out, LEAT__SUB_OPEN, 0, 0);
	leat__wire_text(&out, LEAT__T_NAME, name);
	leat__wire_u32(&out, LEAT__T_MODE, LEAT__WAITING);
	fails(leat__errand(l, &r, &out, -1, &pkt, &in, 50000000, NULL), ETIMEDOUT);
	serial = r.serial;
	fails(leat__errand(l, &r, &out, -1, &pkt, &in, 0, NULL), ETIMEDOUT);
	ck_assert_uint_eq(r.serial, serial);
	if (_i == 0)
		leat__errand_drop(l, &r);
	broker_signal(SIGCONT);
	eventually(leat_stat(other, name, &st, NULL, NULL) == 0);
	if (_i == 3)
		ok(leat_dispatch(l)); /* hears the late answer */
	else
		ok(leat_ping(l, NULL)); /* so does this */
	if (_i == 1)
		leat__errand_drop(l, &r);
	if (_i >= 2) {
		ok(leat__errand(l, &r, &out, -1, &pkt, &in, 0, NULL));
		ck_assert_uint_eq(in.head.serial, serial);
		leat__packet_close(&pkt);
		ok(leat_stat(other, name, &st, NULL, NULL));
		leat__request_close(l, in.head.object);
	}
	ck_assert(!r.serial && !r.answer);
	eventually(leat_stat(other, name, &st, NULL, NULL) == -ENOENT);
	leat_close(other);
	leat_close(l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("broker");
	TCase *tc = leak_checked(s, "broker", full() ? 600 : 120);

	test(tc, killed_under_load_it_loses_nothing_and_the_names_come_back);
	test(tc, a_slow_publisher_and_its_readers_come_back_without_traffic);
	test(tc, who_opens_after_the_restart_gets_what_old_publishers_send);
	test(tc, a_channel_of_more_rings_than_a_packet_lists_comes_back_whole);
	tcase_add_loop_test(tc, a_subscriber_that_comes_back_is_waited_for_in_every_ring_of_a_long_list, 0, 2);
	test(tc, rings_that_a_subscriber_never_mapped_are_not_lost);
	tcase_add_loop_test(tc, who_missed_a_whole_life_of_the_broker_loses_nothing, 0, 4);
	test(tc, a_ring_that_fills_up_before_its_reader_comes_over_loses_nothing);
	tcase_add_loop_test(tc, a_new_publisher_is_quicker_than_an_old_subscriber, 0, 2);
	test(tc, large_messages_and_what_is_retained_survive_the_broker);
	test(tc, a_subscriber_that_dies_without_a_broker_holds_nobody_up);
	test(tc, a_publisher_that_dies_without_a_broker_is_read_to_its_end);
	test(tc, who_closes_or_only_watches_keeps_no_publisher_from_coming_back);
	test(tc, an_event_loop_comes_back);
	test(tc, nobody_follows_a_publisher_that_claims_to_be_another);
	test(tc, who_loses_only_his_socket_is_who_he_was);
	test(tc, a_child_may_be_forked_while_its_parent_waits_for_the_broker);
	test(tc, a_slow_brokers_greeting_is_waited_for);
	tcase_add_loop_test(tc, what_was_opened_too_late_is_closed_again, 0, 4);
	return run_suite(s);
}
