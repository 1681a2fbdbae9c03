/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bells, semaphores, mutexes. The lost wake-up hunt runs twice: with the library's bell none may be
 * lost, and with one that lacks the first short sleep (bell_mutant.c) some must be: else the test
 * could not have found any.
 */
#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include "base/atomic.h"
#include "harness.h"
#include "sync/bell.h"

#ifdef LEAT__TSAN
#define SLOW 1
#else
#define SLOW 0
#endif

static struct leat_region *shared(enum leat_region_kind kind)
{
	struct leat_region *r;

	ok(leat_region_create(OPTS(leat_region_opts, .kind = kind, .size = 4096), &r));
	return r;
}

/* ---- no lost wake-up ---- */

typedef int wait_fn(uint32_t *bell, struct leat__spin *spin, leat__cond_fn *cond, void *arg,
		    uint64_t deadline);
wait_fn leat__mutant_bell_wait;
extern __thread uint64_t leat__mutant_bell_late;

static uint64_t late(void)
{
	return leat__bell_late;
}

static uint64_t mutant_late(void)
{
	return leat__mutant_bell_late;
}

static const struct bell_under_test {
	wait_fn *wait;
	uint64_t (*late)(void);
} ours = {leat__bell_wait, late}, mutant = {leat__mutant_bell_wait, mutant_late};

/* Two sides, each with a bell and a counter on lines of their own, as tail and cursor are. */
struct table {
	alignas(128) uint64_t turn[2];
	alignas(128) uint64_t value0;
	alignas(128) uint64_t value1;
	alignas(128) uint32_t bell0;
	alignas(128) uint32_t bell1;
	struct {
		alignas(128) uint64_t told; /* the last round that this side has notified of, */
		uint64_t stored;            /* when it stored its value, */
		uint64_t gap;               /* the ns from then until it had notified, */
		uint64_t unseen;            /* and from then until all it had stored could be seen, */
		int rang;                   /* and whether it saw that somebody sleeps */
	} side[2];
	alignas(128) uint64_t clutter[48][16]; /* lines both sides store to, see below */
	alignas(128) uint64_t lost;
	uint64_t unseen;
	uint64_t rounds;
	const struct bell_under_test *bell;
	int looks; /* wait as channels do: a look instead of the short sleep, then a step of 5 ms */
	int stop;
};

struct look {
	const uint64_t *value;
	uint64_t want;
};

static int reached(void *arg)
{
	struct look *l = arg;

	return leat__load_acquire(l->value) >= l->want;
}

/* At least so long does a sleeper look, by spinning or by the first, short sleep (sync/bell.c). */
static uint64_t window(const struct table *t)
{
	return t->looks ? 4000 : 50000;
}

/* How often this thread was made to wait for a CPU. */
static long preempted(void)
{
	struct rusage u;

	getrusage(RUSAGE_THREAD, &u);
	return u.ru_nivcsw;
}

/* Busy for @ns. */
static void dawdle(uint64_t ns)
{
	uint64_t until = leat__now() + ns;

	while (leat__now() < until)
		;
}

/*
 * A slice ran out with its condition true. Lost, unless the other side was kept from notifying (this
 * machine is shared): its gap tells. A step is over so soon that the other may also have been kept
 * from storing until just now. And a store buffer full of lines that the other side owns may take
 * longer to drain than the window lasts: on one Intel 15 us, once in 1,000. Who rings has drained it.
 * That we ourselves waited for a CPU, and were late for that, has been ruled out.
 */
static void judge(struct table *t, int me, uint64_t woke)
{
	uint64_t gap = leat__load_relaxed(&t->side[!me].gap);
	int unseen = !leat__load_relaxed(&t->side[!me].rang) &&
		     gap + leat__load_relaxed(&t->side[!me].unseen) >= window(t);

	if (gap >= (t->looks ? 1000000 : 20000000) ||
	    (t->looks && woke <= leat__load_relaxed(&t->side[!me].stored) + 1000000))
		return;
	leat__fetch_add(unseen ? &t->unseen : &t->lost, UINT64_C(1));
}

static void side(struct table *t, int me)
{
	uint64_t *mine = me ? &t->value1 : &t->value0, *theirs = me ? &t->value0 : &t->value1;
	uint32_t *my_bell = me ? &t->bell1 : &t->bell0, *their_bell = me ? &t->bell0 : &t->bell1;
	uint32_t word;
	uint64_t told_at = leat__now(), answer = 20000, early = t->looks ? 7000 : 3000;
	struct leat__spin looking = {0}, *spin = t->looks ? &looking : NULL;

	for (uint64_t i = 1; i <= t->rounds && !leat__load_relaxed(&t->stop); i++) {
		struct look l = {theirs, i - (uint64_t)!me};
		uint64_t before = t->bell->late(), stored, woke;
		long waits;

		/* Fall asleep around the moment the other side answers, as it lately did; now and
		 * then at any moment. */
		dawdle(i % 8 ? answer - leat__min(answer, early) + rnd() % 6000 : rnd() % 60000);
		waits = preempted();
		/* Side 0 begins: it waits for i-1, side 1 for i. Each sleep is at most a slice. */
		if (t->bell->wait(my_bell, spin, reached, &l, leat__now() + 30 * SEC) != 0) {
			leat__store_relaxed(&t->stop, 1);
			return;
		}
		woke = leat__now();
		if (t->bell->late() != before && preempted() == waits) {
			while (leat__load_acquire(&t->side[!me].told) < l.want &&
			       !leat__load_relaxed(&t->stop))
				;
			judge(t, me, woke);
		}
		stored = leat__load_relaxed(&t->side[!me].stored);
		if (stored > told_at && stored - told_at < 200000)
			answer = (7 * answer + (stored - told_at)) / 8;
		dawdle(rnd() % 2000);
		word = leat__load_relaxed(their_bell);
		stored = leat__now();
		/* Stores to lines that the other side owns wait in the store buffer, and ours behind
		 * them: the longer it lies there, the likelier a bell that forgot about it fails. */
		for (int k = 0; k < 48; k++)
			leat__store_relaxed(&t->clutter[k][0], i);
		leat__store_release(mine, i);
		leat__bell_notify(their_bell);
		told_at = leat__now();
		leat__fence();
		leat__store_relaxed(&t->side[me].unseen, leat__now() - told_at);
		leat__store_relaxed(&t->side[me].rang, (leat__load_relaxed(their_bell) ^ word) > 1);
		leat__store_relaxed(&t->side[me].gap, told_at - stored);
		leat__store_relaxed(&t->side[me].stored, stored);
		leat__store_release(&t->side[me].told, i);
	}
}

static void *side1(void *arg)
{
	side(arg, 1);
	return NULL;
}

static void child_side1(void *arg)
{
	side(arg, 1);
}

static uint64_t hunt(const struct bell_under_test *bell, uint64_t rounds, int processes, int looks)
{
	struct table *t = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t lost;
	pthread_t th;
	pid_t pid = 0;

	memset(t, 0, sizeof(*t));
	static_assert(sizeof(*t) <= 16384, "");
	t->rounds = rounds;
	t->bell = bell;
	t->looks = looks;
	if (processes)
		pid = child(child_side1, t);
	else
		pthread_create(&th, NULL, side1, t);
	side(t, 0);
	if (processes)
		child_ok(pid);
	else
		pthread_join(th, NULL);
	ck_assert_msg(!t->stop, "a side waited 30 s in vain");
	if (t->unseen)
		fprintf(stderr, "# %llu late, what was stored being unseen for longer than a look\n",
			(unsigned long long)t->unseen);
	ck_assert_uint_le(t->unseen, rounds / 1000);
	lost = t->lost;
	munmap(t, 16384);
	return lost;
}

START_TEST(no_wake_up_is_lost_in_either_direction)
{
	uint64_t start = leat__now(), rounds = full() ? 1000000 : 100000;
	uint64_t lost = hunt(&ours, rounds, _i & 1, _i >> 1);

	fprintf(stderr, "# %llu sleeps each way, %llu lost, %.1f s\n", (unsigned long long)rounds,
		(unsigned long long)lost, (double)(leat__now() - start) / 1e9);
	ck_assert_uint_eq(lost, 0);
}
END_TEST

START_TEST(without_the_first_short_sleep_some_are_lost)
{
	uint64_t lost = 0, rounds = 0;

	/* A few at a time: each that is lost takes 100 ms. */
	for (int i = 0; i < (full() ? 3000 : 1000) && !lost; i++, rounds += 1000)
		lost = hunt(&mutant, 1000, 1, 0);
	fprintf(stderr, "# mutant: %llu lost in %llu\n", (unsigned long long)lost,
		(unsigned long long)rounds);
	ck_assert_uint_gt(lost, 0);
}
END_TEST

START_TEST(a_wait_ends_when_its_time_is_over)
{
	struct look l = {&(uint64_t){0}, 1};
	uint32_t bell = 0;
	uint64_t start = leat__now();

	ck_assert_int_eq(leat__bell_wait(&bell, NULL, reached, &l, start + 150000000), -ETIMEDOUT);
	ck_assert(leat__now() - start >= 150000000);
	ck_assert(leat__now() - start < SEC);
}
END_TEST

/* ---- public bell ---- */

static void ring_it(void *arg)
{
	usleep(20000); /* the parent's sleep is what is tested; any delay will do */
	leat_bell_ring(arg);
}

START_TEST(a_public_bell_wakes_who_listens)
{
	struct leat_region *r = shared((enum leat_region_kind)_i);
	struct leat_bell *b = leat_region_addr(r);
	uint32_t heard = leat_bell_listen(b);
	pid_t pid;

	fails(leat_bell_wait(b, heard, 0), EAGAIN);
	fails(leat_bell_wait(b, heard, 1000000), ETIMEDOUT);
	pid = child(ring_it, b);
	do
		ok(leat_bell_wait(b, heard, 10 * SEC));
	while (leat__load_acquire(&b->word) == heard);
	child_ok(pid);
	ok(leat_bell_wait(b, heard, 0)); /* rung since */
	leat_region_close(r);
}
END_TEST

/* ---- semaphore ---- */

struct counted {
	struct leat_sem sem, done;
	uint64_t sum;
};

static void take_many(void *arg)
{
	struct counted *c = arg;

	for (int i = 0; i < 20000; i++) {
		ok(leat_sem_wait(&c->sem, 20 * SEC));
		leat__fetch_add(&c->sum, UINT64_C(1));
		ok(leat_sem_post(&c->done));
	}
}

START_TEST(a_semaphore_counts)
{
	struct leat_region *r = shared((enum leat_region_kind)_i);
	struct counted *c = leat_region_addr(r);
	pid_t pid[2];

	ok(leat_sem_init(&c->sem, 2));
	fails(leat_sem_init(&c->done, UINT32_C(0x80000000)), EINVAL);
	ok(leat_sem_init(&c->done, 0));
	ok(leat_sem_wait(&c->sem, 0));
	ok(leat_sem_wait(&c->sem, 0));
	fails(leat_sem_wait(&c->sem, 0), EAGAIN);
	fails(leat_sem_wait(&c->sem, 1000000), ETIMEDOUT);
	for (int i = 0; i < 2; i++)
		pid[i] = child(take_many, c);
	for (int i = 0; i < 40000; i++)
		ok(leat_sem_post(&c->sem));
	for (int i = 0; i < 40000; i++)
		ok(leat_sem_wait(&c->done, 20 * SEC));
	for (int i = 0; i < 2; i++)
		child_ok(pid[i]);
	ck_assert_uint_eq(c->sum, 40000);
	ok(leat_sem_init(&c->sem, 0x7fffffff));
	fails(leat_sem_post(&c->sem), EOVERFLOW);
	leat_region_close(r);
}
END_TEST

/* ---- mutex ---- */

struct guarded {
	struct leat_mutex mutex;
	uint64_t a, b;
	uint32_t locked;
};

struct locker {
	struct leat_region *r;
	int n;
};

static void lock_many(void *arg)
{
	struct locker *k = arg;
	struct guarded *g = leat_region_addr(k->r);

	for (int i = 0; i < k->n; i++) {
		ok(leat_mutex_lock(k->r, &g->mutex, 20 * SEC));
		g->a++;
		ck_assert_uint_eq(g->a, g->b + 1);
		g->b++;
		ok(leat_mutex_unlock(k->r, &g->mutex));
	}
}

START_TEST(a_mutex_excludes)
{
	struct leat_region *r = shared((enum leat_region_kind)_i);
	struct guarded *g = leat_region_addr(r);
	struct locker k = {r, 20000};
	struct leat_mutex outside;
	pid_t pid[3];

	ok(leat_mutex_init(&g->mutex));
	fails(leat_mutex_lock(r, &outside, 0), EINVAL);
	fails(leat_mutex_unlock(r, &g->mutex), EPERM);
	fails(leat_mutex_repair(r, &g->mutex), EPERM);
	for (int i = 0; i < 3; i++)
		pid[i] = child(lock_many, &k);
	lock_many(&k);
	for (int i = 0; i < 3; i++)
		child_ok(pid[i]);
	ck_assert_uint_eq(g->a, 80000);
	leat_region_close(r);
}
END_TEST

static void lock_and_hang(void *arg)
{
	struct leat_region *r = arg;
	struct guarded *g = leat_region_addr(r);
	int e = leat_mutex_lock(r, &g->mutex, 10 * SEC);

	ck_assert(e == 0 || e == -EOWNERDEAD);
	leat__store_release(&g->locked, 1u);
	for (;;)
		pause();
}

START_TEST(a_dead_owner_is_found_and_repaired)
{
	struct leat_region *r = shared((enum leat_region_kind)_i);
	struct guarded *g = leat_region_addr(r);
	uint64_t start;
	pid_t pid;

	for (int round = 0; round < 3; round++) {
		g->locked = 0;
		pid = child(lock_and_hang, r);
		eventually(leat__load_acquire(&g->locked));
		fails(leat_mutex_lock(r, &g->mutex, 0), EAGAIN);
		fails(leat_mutex_lock(r, &g->mutex, 10000000), ETIMEDOUT);
		kill(pid, SIGSTOP); /* stopped is not dead */
		fails(leat_mutex_lock(r, &g->mutex, 250000000), ETIMEDOUT);
		child_kill(pid);
		start = leat__now();
		fails(leat_mutex_lock(r, &g->mutex, 10 * SEC), EOWNERDEAD);
		ck_assert(leat__now() - start < SEC / 2);
		ok(leat_mutex_repair(r, &g->mutex));
		ok(leat_mutex_unlock(r, &g->mutex));
		ok(leat_mutex_lock(r, &g->mutex, 0));
		ok(leat_mutex_unlock(r, &g->mutex));
	}
	/* Not repaired: nobody gets it again until it is made anew. */
	g->locked = 0;
	pid = child(lock_and_hang, r);
	eventually(leat__load_acquire(&g->locked));
	child_kill(pid);
	fails(leat_mutex_lock(r, &g->mutex, SEC), EOWNERDEAD);
	ok(leat_mutex_unlock(r, &g->mutex));
	fails(leat_mutex_lock(r, &g->mutex, SEC), ENOTRECOVERABLE);
	ok(leat_mutex_init(&g->mutex));
	ok(leat_mutex_lock(r, &g->mutex, 0));
	leat_region_close(r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("sync");
	TCase *tc = leak_checked(s, "sync", full() ? 3600 : 600);

	tcase_add_loop_test(tc, no_wake_up_is_lost_in_either_direction, 0, 4);
	/* Needs a store buffer that outlasts a load, at full speed. */
	if (SLOW || getenv("LEAT_EMULATED"))
		fprintf(stderr, "# SKIP the mutant bell loses nothing under an emulator or ThreadSanitizer\n");
	else
		test(tc, without_the_first_short_sleep_some_are_lost);
	test(tc, a_wait_ends_when_its_time_is_over);
	tcase_add_loop_test(tc, a_public_bell_wakes_who_listens, LEAT_ANON, LEAT_SYSV + 1);
	tcase_add_loop_test(tc, a_semaphore_counts, LEAT_ANON, LEAT_SYSV + 1);
	tcase_add_loop_test(tc, a_mutex_excludes, LEAT_ANON, LEAT_SYSV + 1);
	tcase_add_loop_test(tc, a_mutex_excludes, LEAT_MEMFD, LEAT_MEMFD + 1);
	tcase_add_loop_test(tc, a_dead_owner_is_found_and_repaired, LEAT_ANON, LEAT_SYSV + 1);
	tcase_add_loop_test(tc, a_dead_owner_is_found_and_repaired, LEAT_MEMFD, LEAT_MEMFD + 1);
	return run_suite(s);
}
