/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The broker is killed, again and again, while messages flow: none is lost, doubled or reordered, calls that
 * need it fail clearly meanwhile, and the names come back.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "base/atomic.h"
#include "harness.h"

enum { PUBS = 4, SUBS = 3, RATE = 100000 };

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
	pid_t pub[PUBS], sub[SUBS];
	uint64_t start, slowest = 0;

	make_ledger();
	for (uintptr_t i = 0; i < SUBS; i++)
		sub[i] = child(subscribe, (void *)i);
	eventually(leat__load_acquire(&ledger->ready) == SUBS);
	for (uintptr_t i = 0; i < PUBS; i++)
		pub[i] = child(publish, (void *)i);
	eventually(leat__load_acquire(&ledger->ready) == SUBS + PUBS);
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
		for (int k = 0; k < SUBS; k++)
			ck_assert_msg(leat__load_relaxed(&ledger->received[k]) > before[k],
				      "without the broker subscriber %d gets nothing", k);
		broker_start(NULL);
		if (i % 4 == 3) { /* else it dies before everyone is back */
			start = leat__now();
			eventually(names_are_back(control, PUBS, SUBS));
			if (leat__now() - start > slowest)
				slowest = leat__now() - start;
		}
	}
	fprintf(stderr, "# the names came back within %.0f ms\n", (double)slowest / 1e6);
	ck_assert_msg(slowest < SEC / 2, "the names took %.3f s to come back", (double)slowest / 1e9);
	leat__store_release(&ledger->stop, 1);
	for (int i = 0; i < PUBS; i++)
		child_ok(pub[i]);
	for (int i = 0; i < SUBS; i++)
		child_ok(sub[i]);
	start = 0;
	for (int i = 0; i < PUBS; i++)
		start += ledger->sent[i];
	fprintf(stderr, "# %d kills, %llu messages to each of %d subscribers\n", kills, (unsigned long long)start,
		SUBS);
	leat_close(control);
	munmap(ledger, sizeof(*ledger));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("broker");
	TCase *tc = leak_checked(s, "broker", full() ? 600 : 120);

	test(tc, killed_under_load_it_loses_nothing_and_the_names_come_back);
	return run_suite(s);
}
