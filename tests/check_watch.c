/* SPDX-License-Identifier: Apache-2.0 */
/* Watching names: nothing missed, nothing made up, whatever becomes of the broker and the connection. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "base/atomic.h"
#include "channel/channel.h"
#include "harness.h"

#define MS INT64_C(1000000)

static struct leat_watch *watch(struct leat *l, const char *prefix)
{
	struct leat_watch *w;

	ok(leat_watch(l, prefix, &w));
	return w;
}

static struct leat_event next(struct leat_watch *w)
{
	struct leat_event ev = {.struct_size = sizeof(ev)};

	ok(leat_watch_next(w, &ev, 10 * SEC));
	return ev;
}

/* The next event is this one. */
static void expect(struct leat_watch *w, enum leat_event_kind kind, const char *name, uint32_t pubs, uint32_t subs)
{
	struct leat_event ev = next(w);

	ck_assert_msg(ev.kind == kind && !strcmp(ev.name, name) && ev.publishers == pubs && ev.subscribers == subs,
		      "event %d of '%s', %u and %u, instead of %d of '%s', %u and %u", (int)ev.kind, ev.name, ev.publishers,
		      ev.subscribers, (int)kind, name, pubs, subs);
}

static void expect_nothing(struct leat_watch *w, int64_t ns)
{
	struct leat_event ev = {.struct_size = sizeof(ev)};
	int e = leat_watch_next(w, &ev, ns);

	ck_assert_msg(e == -ETIMEDOUT || e == -EAGAIN, "%d: event %d of '%s', %u and %u", e, (int)ev.kind, ev.name,
		      ev.publishers, ev.subscribers);
}

static struct leat_pub *publisher(struct leat *l, const char *name)
{
	struct leat_pub *p;

	ok(leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 4096, .max_size = 64), &p));
	return p;
}

static struct leat_sub *subscriber(struct leat *l, const char *name)
{
	struct leat_sub *s;

	ok(leat_sub_open(l, name, NULL, &s));
	return s;
}

START_TEST(first_all_names_there_are_then_what_becomes_of_them)
{
	const char *path = broker_start("--linger", "0", NULL);
	struct leat *l = broker_open();
	struct leat_watch *w;
	struct leat_queue *q;
	struct leat_pub *p, *b;
	struct leat_sub *s;

	ck_assert_ptr_nonnull(path);
	p = publisher(l, "cam/left");
	s = subscriber(l, "cam/right");
	w = watch(l, NULL);
	expect(w, LEAT_CAME, "cam/left", 1, 0);
	expect(w, LEAT_CAME, "cam/right", 0, 1);
	expect(w, LEAT_SYNCED, "", 0, 0);
	expect_nothing(w, 0);

	b = publisher(l, "cam/right");
	expect(w, LEAT_CHANGED, "cam/right", 1, 1);
	leat_sub_close(s);
	expect(w, LEAT_CHANGED, "cam/right", 1, 0);
	leat_pub_close(b);
	expect(w, LEAT_CHANGED, "cam/right", 0, 0);
	expect(w, LEAT_GONE, "cam/right", 0, 0);
	b = publisher(l, "cam/right");
	expect(w, LEAT_CAME, "cam/right", 1, 0);
	ok(leat_queue_open(l, "jobs", "all", NULL, &q));
	expect(w, LEAT_CAME, "jobs", 0, 1);
	leat_queue_close(q);
	expect(w, LEAT_CHANGED, "jobs", 0, 0);
	expect(w, LEAT_GONE, "jobs", 0, 0);
	expect_nothing(w, 20 * MS);
	leat_watch_close(w);
	leat_pub_close(p);
	leat_pub_close(b);
	leat_close(l);
}
END_TEST

START_TEST(what_was_so_before_it_was_listed_is_no_news)
{
	struct leat *l = (broker_start("--linger", "0", NULL), broker_open());
	struct leat_watch *w = watch(l, NULL); /* lists when it is first asked */
	struct leat_sub *s = subscriber(l, "a");

	leat_sub_close(s);
	leat_sub_close(subscriber(l, "b"));
	s = subscriber(l, "a");
	expect(w, LEAT_CAME, "a", 0, 1);
	expect(w, LEAT_SYNCED, "", 0, 0);
	/* Of b, which it had not heard of, it may hear: it came and went. */
	expect(w, LEAT_CAME, "b", 0, 1);
	expect(w, LEAT_CHANGED, "b", 0, 0);
	expect(w, LEAT_GONE, "b", 0, 0);
	expect_nothing(w, 20 * MS);
	leat_sub_close(s);
	expect(w, LEAT_CHANGED, "a", 0, 0);
	leat_close(l);
}
END_TEST

START_TEST(a_prefix_is_all_that_is_told)
{
	static const char *const names[] = {"a", "a/1", "a/2", "ab", "b", "b/a"};
	struct leat *l = (broker_start("--linger", "0", NULL), broker_open());
	struct leat_watch *dir, *word, *none;
	struct leat_sub *s[6];

	none = watch(l, "c");
	for (int i = 0; i < 3; i++)
		s[i] = subscriber(l, names[i]);
	dir = watch(l, "a/");
	word = watch(l, "a");
	for (int i = 3; i < 6; i++)
		s[i] = subscriber(l, names[i]);
	expect(dir, LEAT_CAME, "a/1", 0, 1);
	expect(dir, LEAT_CAME, "a/2", 0, 1);
	expect(dir, LEAT_SYNCED, "", 0, 0);
	expect_nothing(dir, 20 * MS);
	expect(word, LEAT_CAME, "a", 0, 1);
	expect(word, LEAT_CAME, "a/1", 0, 1);
	expect(word, LEAT_CAME, "a/2", 0, 1);
	expect(word, LEAT_CAME, "ab", 0, 1);
	expect(word, LEAT_SYNCED, "", 0, 0);
	expect(none, LEAT_SYNCED, "", 0, 0);
	for (int i = 0; i < 6; i++)
		leat_sub_close(s[i]);
	expect(dir, LEAT_CHANGED, "a/1", 0, 0);
	expect(dir, LEAT_GONE, "a/1", 0, 0);
	expect(dir, LEAT_CHANGED, "a/2", 0, 0);
	expect(dir, LEAT_GONE, "a/2", 0, 0);
	expect_nothing(dir, 20 * MS);
	expect_nothing(none, 0);
	leat_close(l); /* with its watches */
}
END_TEST

START_TEST(a_thousand_names_are_listed_in_order)
{
	struct leat *l = (broker_start(NULL), broker_open());
	struct leat_sub *s[1000];
	struct leat_watch *w;
	char name[32];

	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "many/%03d", i * 7 % 1000);
		ok(leat_sub_open(l, name, OPTS(leat_sub_opts, .max_publishers = 1, .max_subscribers = 1), &s[i]));
	}
	w = watch(l, "many/");
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "many/%03d", i);
		expect(w, LEAT_CAME, name, 0, 1);
	}
	expect(w, LEAT_SYNCED, "", 0, 0);
	leat_close(l);
}
END_TEST

static int readable(int fd, int ms)
{
	struct pollfd p = {fd, POLLIN, 0};

	return poll(&p, 1, ms) == 1;
}

START_TEST(its_descriptor_tells_when_to_look)
{
	struct leat *l = (broker_start("--linger", "0", NULL), broker_open());
	struct leat_watch *w = watch(l, NULL);
	struct leat_event ev = {.struct_size = sizeof(ev)};
	struct leat_pub *p;
	int fd = leat_watch_fd(w), got;

	ok(fd);
	ck_assert_int_eq(leat_watch_fd(w), fd);
	for (got = 0; got < 1;) { /* the listing, by and by */
		ck_assert(readable(fd, 5000));
		while (leat_watch_next(w, &ev, 0) == 0)
			got += ev.kind == LEAT_SYNCED;
	}
	ck_assert(!readable(fd, 20));
	for (int i = 0; i < 50; i++) {
		p = publisher(l, "x");
		ck_assert(readable(fd, 5000));
		expect(w, LEAT_CAME, "x", 1, 0);
		expect_nothing(w, 0);
		ck_assert(!readable(fd, 0));
		leat_pub_close(p);
		ck_assert(readable(fd, 5000));
		expect(w, LEAT_CHANGED, "x", 0, 0);
		ck_assert(readable(fd, 5000)); /* there is more, in hand or to come */
		expect(w, LEAT_GONE, "x", 0, 0);
		expect_nothing(w, 0);
	}
	/* Its number stays when the broker is another. */
	broker_kill(SIGKILL);
	p = NULL;
	for (int i = 0; i < 5; i++) {
		ck_assert(readable(fd, 5000));
		expect_nothing(w, 0);
	}
	broker_start("--linger", "0", NULL);
	leat_close(l);
	l = broker_open();
	leat_close(l);
}
END_TEST

START_TEST(nobody_is_told_that_those_who_come_back_to_a_restarted_broker_went)
{
	struct leat *l = (broker_start("--linger", "0", NULL), broker_open());
	struct leat_sub *keep = subscriber(l, "keep"), *left = subscriber(l, "left"), *more;
	struct leat_pub *p = publisher(l, "keep");
	struct leat_watch *w = watch(l, NULL);
	int fd = leat_watch_fd(w), gone = 0, changed = 0;
	uint64_t until;
	char buf[8];

	expect(w, LEAT_CAME, "keep", 1, 1);
	expect(w, LEAT_CAME, "left", 0, 1);
	expect(w, LEAT_SYNCED, "", 0, 0);
	broker_kill(SIGKILL);
	leat_sub_close(left); /* nobody there to hear it */
	broker_start("--linger", "0", NULL);
	until = leat__now() + 4 * (uint64_t)SEC;
	while (leat__now() < until && !gone) {
		struct leat_event ev = {.struct_size = sizeof(ev)};

		leat_send(p, "hello", 5, 0);
		leat_recv(keep, buf, sizeof(buf), NULL, 0);
		leat__pub_tend(p);
		if (!changed && p->at.id != p->origin && leat__tied(l, p->at.tie)) {
			more = subscriber(l, "new"); /* what is new is told at once */
			changed = 1;
			expect(w, LEAT_CAME, "new", 0, 1);
			leat_sub_close(more);
			expect(w, LEAT_CHANGED, "new", 0, 0);
			expect(w, LEAT_GONE, "new", 0, 0);
		}
		if (!readable(fd, 5) || leat_watch_next(w, &ev, 0) < 0)
			continue;
		ck_assert_msg(ev.kind == LEAT_GONE && !strcmp(ev.name, "left"), "event %d of %s, %u and %u", (int)ev.kind,
			      ev.name, ev.publishers, ev.subscribers);
		gone = 1;
	}
	ck_assert(gone && changed);
	expect_nothing(w, 20 * MS);
	more = subscriber(l, "keep");
	expect(w, LEAT_CHANGED, "keep", 1, 2);
	leat_close(l);
}
END_TEST

/* All our sockets break, as if the broker had thrown us out. */
static void cut(void)
{
	for (int fd = 3; fd < 256; fd++) {
		struct stat st;

		if (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode))
			shutdown(fd, SHUT_RDWR);
	}
}

START_TEST(a_cut_connection_is_mended_and_nothing_is_missed)
{
	struct leat *l = (broker_start("--linger", "0", NULL), broker_open()), *other = broker_open();
	struct leat_watch *w = watch(l, NULL);
	struct leat_sub *s;

	expect(w, LEAT_SYNCED, "", 0, 0);
	for (int i = 0; i < 10; i++) {
		leat_close(other);
		cut();
		other = broker_open();
		s = subscriber(other, "x");
		expect(w, LEAT_CAME, "x", 0, 1);
		leat_sub_close(s);
		expect(w, LEAT_CHANGED, "x", 0, 0);
		expect(w, LEAT_GONE, "x", 0, 0);
	}
	expect_nothing(w, 0);
	leat_close(other);
	leat_close(l);
}
END_TEST

START_TEST(who_was_too_slow_is_told_how_it_ended)
{
	struct leat *l = (broker_start("--linger", "0", NULL), broker_open());
	struct leat_sub *stays = subscriber(l, "stays"), *goes = subscriber(l, "goes");
	struct leat_watch *w = watch(l, NULL);

	expect(w, LEAT_CAME, "goes", 0, 1);
	expect(w, LEAT_CAME, "stays", 0, 1);
	expect(w, LEAT_SYNCED, "", 0, 0);
	leat_sub_close(goes);
	for (int i = 0; i < 1500; i++) { /* three changes each: more than are kept */
		leat_sub_close(subscriber(l, "busy"));
		if (i == 700)
			publisher(l, "stays");
	}
	subscriber(l, "last");
	expect(w, LEAT_GONE, "goes", 0, 0); /* in order of names */
	expect(w, LEAT_CAME, "last", 0, 1);
	expect(w, LEAT_CHANGED, "stays", 1, 1);
	expect_nothing(w, 20 * MS);
	leat_sub_close(stays);
	expect(w, LEAT_CHANGED, "stays", 1, 0);
	leat_close(l);
}
END_TEST

START_TEST(a_stopped_broker_holds_nobody_up)
{
	struct leat *l = (broker_start(NULL), broker_open());
	struct leat_watch *w = watch(l, NULL);
	uint64_t t;

	expect(w, LEAT_SYNCED, "", 0, 0);
	broker_signal(SIGSTOP);
	t = leat__now();
	expect_nothing(w, 0);
	ck_assert_uint_lt(leat__now() - t, 50 * MS);
	expect_nothing(w, 100 * MS);
	t = leat__now() - t;
	ck_assert(t >= 100 * MS && t < 1000 * MS);
	broker_signal(SIGCONT);
	subscriber(l, "x");
	expect(w, LEAT_CAME, "x", 0, 1);
	broker_signal(SIGSTOP);
	leat_watch_close(w);
	broker_signal(SIGCONT);
	leat_close(l);
}
END_TEST

static void in_child(void *arg)
{
	struct leat_event ev = {.struct_size = sizeof(ev)};
	struct leat_watch *w = arg;

	fails(leat_watch_next(w, &ev, 0), ECHILD);
	fails(leat_watch_fd(w), ECHILD);
	leat_watch_close(w);
}

START_TEST(errors)
{
	struct leat *l = (broker_start(NULL), broker_open());
	struct leat_event ev = {.struct_size = sizeof(ev)}, bad = {.struct_size = 0};
	struct leat_watch *w;
	char prefix[300];

	memset(prefix, 'x', sizeof(prefix));
	prefix[LEAT__NAME_MAX + 1] = 0;
	fails(leat_watch(l, prefix, &w), EINVAL);
	w = watch(l, NULL);
	ok(leat_watch_fd(w));
	fails(leat_watch_next(w, &bad, 0), EINVAL);
	expect(w, LEAT_SYNCED, "", 0, 0);
	fails(leat_watch_next(w, &ev, 0), EAGAIN);
	fails(leat_watch_next(w, &ev, MS), ETIMEDOUT);
	child_ok(child(in_child, w));
	subscriber(l, "x");
	expect(w, LEAT_CAME, "x", 0, 1);
	leat_watch_close(w);
	leat_watch_close(NULL);
	broker_kill(SIGKILL);
	fails(leat_watch(l, NULL, &w), ECONNREFUSED);
	leat_close(l);
}
END_TEST

/* ---- ten thousand ---- */

enum { NAMES = 40, WATCHERS = 3 };

/* In memory that all share. */
struct storm {
	char domain[200];
	uint32_t came[NAMES], gone[NAMES]; /* by the one who does it */
	uint32_t done;                     /* it has done all */
	struct {
		uint32_t came[NAMES], gone[NAMES], restarts;
	} seen[WATCHERS + 1];
	uint32_t ready;
};

static struct storm *storm;

/* Comes and goes, and knows what is true. */
static void churn(void *arg)
{
	uint32_t rounds = *(uint32_t *)arg;
	struct leat_sub *subs[NAMES] = {0};
	char name[32];
	struct leat *l;

	ok(leat_open(storm->domain, &l));
	for (uint32_t n = 0; n < rounds; n++) {
		uint32_t i = (uint32_t)(rnd() % NAMES);

		if (subs[i]) {
			leat_sub_close(subs[i]);
			subs[i] = NULL;
			storm->gone[i]++;
		} else {
			snprintf(name, sizeof(name), "storm/%02u", i);
			ok(leat_sub_open(l, name, OPTS(leat_sub_opts, .max_publishers = 1, .max_subscribers = 2), &subs[i]));
			storm->came[i]++;
		}
	}
	leat__store_release(&storm->done, 1u);
	/* Those that are there stay until all have seen it. */
	eventually(leat__load_acquire(&storm->ready) == WATCHERS + 1);
	leat_close(l);
}

static int agrees(const uint32_t *there)
{
	for (uint32_t n = 0; n < NAMES; n++)
		if (there[n] != storm->came[n] - storm->gone[n])
			return 0;
	return 1;
}

/* Sees it, and breaks its connection, or watches anew, now and then (the last one does not). */
static void see(void *arg)
{
	uint32_t me = *(uint32_t *)arg, there[NAMES] = {0}, n;
	uint64_t until = 0;
	struct leat_event ev = {.struct_size = sizeof(ev)};
	struct leat_watch *w;
	struct leat *l;
	int synced = 0;

	ok(leat_open(storm->domain, &l));
	w = watch(l, "storm/");
	for (;;) {
		int e = leat_watch_next(w, &ev, 20 * MS);

		if (leat__load_acquire(&storm->done)) {
			until = until ? until : leat__now() + 20 * (uint64_t)SEC;
			if (e == -ETIMEDOUT && synced && agrees(there))
				break;
			must(leat__now() < until, "watcher %u never agrees with what is", me);
		}
		if (me < WATCHERS && rnd() % 200 == 0) {
			if (rnd() % 2) {
				cut();
			} else { /* what it knew is its own to compare with */
				leat_watch_close(w);
				w = watch(l, "storm/");
				memset(there, 0, sizeof(there));
				synced = 0;
				storm->seen[me].restarts++;
				continue;
			}
		}
		if (e == -ETIMEDOUT)
			continue;
		ok(e);
		if (ev.kind == LEAT_SYNCED) {
			must(!synced, "a second SYNCED");
			synced = 1;
			continue;
		}
		must(!strncmp(ev.name, "storm/", 6), "%s", ev.name);
		n = (uint32_t)atoi(ev.name + 6);
		must(n < NAMES, "%s", ev.name);
		if (ev.kind == LEAT_CAME) {
			must(!there[n], "%s came twice", ev.name);
			there[n] = 1;
			storm->seen[me].came[n]++;
		} else if (ev.kind == LEAT_GONE) {
			must(there[n], "%s went and had not come", ev.name);
			there[n] = 0;
			storm->seen[me].gone[n]++;
		} else {
			must(ev.kind == LEAT_CHANGED && there[n], "%s changed and had not come", ev.name);
		}
	}
	leat__fetch_add(&storm->ready, 1u);
	leat_close(l);
}

START_TEST(ten_thousand_events_and_three_watchers_that_lose_their_connection)
{
	uint32_t rounds = full() ? 100000 : 10000, restarts = 0;
	pid_t watchers[WATCHERS + 1], churner;

	storm = mmap(NULL, sizeof(*storm), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	strcpy(storm->domain, broker_start("--linger", "0", NULL));
	for (uint32_t i = 0; i <= WATCHERS; i++)
		watchers[i] = child(see, &i);
	churner = child(churn, &rounds);
	for (int i = 0; i <= WATCHERS; i++)
		child_ok(watchers[i]);
	child_ok(churner);
	for (uint32_t n = 0; n < NAMES; n++)
		for (int i = 0; i <= WATCHERS; i++) {
			ck_assert_uint_le(storm->seen[i].gone[n], storm->gone[n]);
			/* One that watches anew is told once more of what is there. */
			ck_assert_uint_le(storm->seen[i].came[n], storm->came[n] + storm->seen[i].restarts);
			restarts += storm->seen[i].restarts;
		}
	ck_assert_uint_gt(restarts, 0);
	munmap(storm, sizeof(*storm));
}
END_TEST

START_TEST(who_keeps_up_is_told_of_everything)
{
	struct leat *l = (broker_start("--linger", "0", NULL), broker_open());
	struct leat_watch *w = watch(l, NULL);
	uint32_t came = 0, gone = 0;

	expect(w, LEAT_SYNCED, "", 0, 0);
	for (int i = 0; i < 2000; i++) {
		leat_sub_close(subscriber(l, "blink"));
		if (i % 500 < 499) /* 1,500 changes behind, at most */
			continue;
		for (struct leat_event ev = {.struct_size = sizeof(ev)}; leat_watch_next(w, &ev, 50 * MS) == 0;) {
			came += ev.kind == LEAT_CAME;
			gone += ev.kind == LEAT_GONE;
		}
	}
	ck_assert_uint_eq(came, 2000);
	ck_assert_uint_eq(gone, 2000);
	leat_close(l);
}
END_TEST

START_TEST(the_broker_keeps_nothing_for_those_who_left)
{
	struct leat *l = (broker_start("--linger", "0", NULL), broker_open());
	int before;

	leat_sub_close(subscriber(l, "x"));
	leat_watch_close(watch(l, NULL));
	before = broker_fds();
	for (int i = 0; i < 50; i++) {
		struct leat_watch *w = watch(l, "x");

		leat_sub_close(subscriber(l, "x"));
		if (i % 2)
			next(w);
		leat_watch_close(w);
	}
	ck_assert(broker_fds_back(before)); /* the first one's connection may still count in it */
	leat_close(l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("watch");
	TCase *tc = leak_checked(s, "watch", 60);

	test(tc, first_all_names_there_are_then_what_becomes_of_them);
	test(tc, what_was_so_before_it_was_listed_is_no_news);
	test(tc, a_prefix_is_all_that_is_told);
	test(tc, a_thousand_names_are_listed_in_order);
	test(tc, its_descriptor_tells_when_to_look);
	test(tc, nobody_is_told_that_those_who_come_back_to_a_restarted_broker_went);
	test(tc, a_cut_connection_is_mended_and_nothing_is_missed);
	test(tc, who_was_too_slow_is_told_how_it_ended);
	test(tc, who_keeps_up_is_told_of_everything);
	test(tc, a_stopped_broker_holds_nobody_up);
	test(tc, errors);
	test(tc, the_broker_keeps_nothing_for_those_who_left);
	tc = leak_checked(s, "storm", full() ? 600 : 120);
	test(tc, ten_thousand_events_and_three_watchers_that_lose_their_connection);
	return run_suite(s);
}
