/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sleeping on words by POSIX semaphores, where futexes are not to be used directly. All processes of a user share one
 * table, in which everybody who sleeps has a place of his own with a semaphore, and says what he sleeps on: the file
 * that the word lies in and where (mem/home.h), if that is known, and where in its page, which always is. Who may be
 * meant is woken: too many, perhaps, never too few. A place whose time is long over was left by the dead, and is taken
 * by who needs one. Between processes of different users a sleep ends with its slice only; where there is no table,
 * who sleeps looks once a millisecond.
 */
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdalign.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/atomic.h"
#include "base/base.h"
#include "mem/home.h"
#include "mem/layout.h"
#include "sync/word.h"

#define NAP_NS   UINT64_C(1000000)
#define STALE_NS UINT64_C(10000000000) /* who is stopped for so long in its sleep may be woken late */
#define PLACES   4096
#define GROUP    64

struct place {
	alignas(64) uint64_t until; /* it is waited that long at most */
	uint32_t turn;              /* odd: taken */
	uint32_t key;               /* what is slept on: where in its page, plus 1; 0: nothing */
	uint32_t home;              /* and in which file's; 0: not known */
	uint32_t at;                /* the place whose semaphore is slept at */
	sem_t sem;
};

struct table {
	uint32_t taken[PLACES / GROUP]; /* of each group, at most: the killed may have left it too large */
	struct place places[PLACES];
};

static struct table *table; /* NULL: not yet, or there is none */
static uint32_t tried;      /* 1: somebody is at it; 2: it is known */

/* ---- the table ---- */

/* Made by whoever comes first: zeroes are a table in which nobody sleeps. */
static struct table *map(void)
{
	struct table *t = MAP_FAILED;
	char name[64];
	struct stat st;
	int fd;

	snprintf(name, sizeof(name), "/leat.sleepers.%u", (unsigned)geteuid());
	fd = shm_open(name, O_RDWR | O_CREAT, 0600);
	if (fd < 0)
		return NULL;
	/* Another user's could be cut under us. Its size is the same whoever says it first. */
	if (fstat(fd, &st) == 0 && st.st_uid == geteuid() &&
	    (st.st_size == sizeof(*t) || (st.st_size == 0 && ftruncate(fd, sizeof(*t)) == 0)) &&
	    posix_fallocate(fd, 0, sizeof(*t)) == 0)
		t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return t == MAP_FAILED ? NULL : t;
}

static struct table *get(void)
{
	if (leat__load_acquire(&tried) < 2 && leat__cas(&tried, 0u, 1u)) {
		leat__store_release(&table, map());
		leat__store_release(&tried, 2u);
	}
	return leat__load_acquire(&table);
}

/* The library may be unloaded before its process ends. */
static __attribute__((destructor)) void unmap(void)
{
	struct table *t = leat__exchange(&table, NULL);

	if (t)
		munmap(t, sizeof(*t));
}

static uint32_t key_of(const uint32_t *word)
{
	return (uint32_t)((uintptr_t)word % LEAT__PAGE_MIN);
}

/* ---- places ---- */

/* A place for who sleeps on @word at the semaphore of place @at (itself: PLACES). Its index; -1 there is none. */
static int take(struct table *t, const uint32_t *word, uint64_t until, uint32_t at, uint32_t *turn)
{
	uint64_t now = leat__now();

	for (uint32_t i = 0; i < PLACES; i++) { /* the lowest: who wakes has not far to look */
		uint32_t v = leat__load_acquire(&t->places[i].turn);
		struct place *p = &t->places[i];

		if ((v & 1) && now < leat__load_relaxed(&p->until) + STALE_NS)
			continue;
		*turn = v & 1 ? v + 2 : v + 1;
		if (!(v & 1))
			leat__fetch_add(&t->taken[i / GROUP], 1u);
		if (!leat__cas(&p->turn, v, *turn)) {
			if (!(v & 1))
				leat__fetch_add(&t->taken[i / GROUP], UINT32_MAX);
			continue;
		}
		leat__store_relaxed(&p->until, until);
		leat__store_relaxed(&p->home, leat__home_of(word));
		leat__store_relaxed(&p->at, at == PLACES ? i : at);
		if (at == PLACES)
			sem_init(&p->sem, 1, 0);
		leat__store_release(&p->key, key_of(word) + 1);
		return (int)i;
	}
	return -1;
}

static void leave(struct table *t, int i, uint32_t turn)
{
	if (leat__load_acquire(&t->places[i].turn) != turn)
		return; /* it was taken from us */
	leat__store_relaxed(&t->places[i].key, 0u);
	if (leat__cas(&t->places[i].turn, turn, turn + 1))
		leat__fetch_add(&t->taken[(uint32_t)i / GROUP], UINT32_MAX);
}

static int nap(uint64_t ns)
{
	struct timespec ts = {0, (long)leat__min(ns, NAP_NS)};
	int saved = errno;

	nanosleep(&ts, NULL);
	errno = saved;
	return ns > NAP_NS ? -EAGAIN : -ETIMEDOUT;
}

static int sleep_at(struct place *p, uint64_t until)
{
	struct timespec ts = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};
	int saved = errno;
	int r = sem_clockwait(&p->sem, CLOCK_MONOTONIC, &ts);

	r = r < 0 ? -errno : 0;
	errno = saved;
	return r;
}

int leat__words_wait(struct leat__waitv *v, unsigned n, uint64_t ns)
{
	uint64_t until = leat__now() + ns;
	struct table *t = get();
	int place[LEAT__WAITV_MAX], r = 0;
	uint32_t turn[LEAT__WAITV_MAX];
	unsigned k = 0;

	for (; t && k < n; k++) {
		place[k] = take(t, (uint32_t *)(uintptr_t)v[k].address, until, k ? (uint32_t)place[0] : PLACES, &turn[k]);
		if (place[k] < 0)
			break;
	}
	leat__fence(); /* pairs with the one in leat__word_wake(): we see that it is another, or are seen to sleep */
	for (unsigned i = 0; i < n && !r; i++)
		if (leat__load_acquire((uint32_t *)(uintptr_t)v[i].address) != (uint32_t)v[i].value)
			r = -EAGAIN;
	if (!r)
		r = k == n ? sleep_at(&t->places[place[0]], until) : nap(ns);
	while (k--)
		leave(t, place[k], turn[k]);
	return r;
}

int leat__word_wait(uint32_t *word, uint32_t seen, uint64_t ns)
{
	struct leat__waitv v = leat__waitv(word, seen);

	return leat__words_wait(&v, 1, ns);
}

/* Who sleeps in this group on @key (in @home): wake up to @n of them. How many are left to be woken. */
static int wake_group(struct table *t, uint32_t group, uint32_t key, uint32_t home, int n)
{
	for (uint32_t i = group * GROUP; i < (group + 1) * GROUP && n > 0; i++) {
		struct place *p = &t->places[i];
		uint32_t theirs;

		if (leat__load_acquire(&p->key) != key || !(leat__load_relaxed(&p->turn) & 1))
			continue;
		theirs = leat__load_relaxed(&p->home);
		if (home && theirs && home != theirs)
			continue;
		/* Each only once: it has its token, and will not need another. */
		if (!leat__cas(&p->key, key, 0u))
			continue;
		sem_post(&t->places[leat__load_relaxed(&p->at) % PLACES].sem);
		n -= home && home == theirs; /* else it may not have been meant */
	}
	return n;
}

void leat__word_wake(uint32_t *word, int n)
{
	struct table *t = get();
	int saved = errno;

	leat__fence();
	for (uint32_t g = 0; t && n > 0 && g < PLACES / GROUP; g++)
		if (leat__load_acquire(&t->taken[g]))
			n = wake_group(t, g, key_of(word) + 1, leat__home_of(word), n);
	errno = saved;
}
