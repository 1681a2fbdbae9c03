/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kill -9, at random, of publishers, subscribers and the broker, under load; and a ledger of every message
 * outside leat: a publisher notes its intent before each send and its success after it, so that only the one
 * message in doubt may be there or not. 10,000 kills in the long form.
 */
#include <dirent.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "base/atomic.h"
#include "channel/channel.h"
#include "harness.h"

enum { PUBS = 4, SUBS = 4, LIVES = 16384 };

/* One life of a publisher. */
struct entry {
	uint64_t born;   /* the ledger's clock before it opened */
	uint64_t intent; /* messages begun, and done */
	uint64_t done;
	uint64_t instance; /* the broker that it opened at */
};

/* A subscriber, as long as it lives. */
struct reader {
	uint64_t born; /* the ledger's clock after it had opened */
	uint64_t instance; /* at this broker */
	uint64_t next[LIVES]; /* of each publisher's life: the number after the last that came; 0: none */
	uint64_t received;
	int ended;
};

static struct ledger {
	uint64_t clock;
	uint32_t lives;
	int stop;
	uint32_t ready[PUBS]; /* this life has subscribers */
	char domain[200], name[64];
	struct entry pub[LIVES];
	struct reader sub[SUBS];
} *ledger;

struct note {
	uint64_t life, n;
	uint32_t size, check;
	char rest[232];
};

static uint32_t check_of(const struct note *m)
{
	return (uint32_t)leat__hash(m->rest, m->size) ^ (uint32_t)m->n;
}

/* The broker may be down just now. */
static struct leat *open_domain(void)
{
	uint64_t until = leat__now() + 20 * SEC;
	struct leat *l;

	while (leat_open(ledger->domain, &l) < 0) {
		must(leat__now() < until, "no broker: %s", leat_why());
		usleep(2000);
	}
	return l;
}

static void publish(void *arg)
{
	unsigned who = (unsigned)(uintptr_t)arg;
	uint64_t life = leat__fetch_add(&ledger->lives, 1u), start;
	struct entry *e = &ledger->pub[life];
	struct leat *l = open_domain();
	struct leat_pub *p;
	int r;

	must(life < LIVES, "the ledger is full");
	do {
		leat__store_release(&e->born, leat__fetch_add(&ledger->clock, UINT64_C(1)) + 1);
		r = leat_pub_open(l, ledger->name, OPTS(leat_pub_opts, .capacity = 1 << 20, .max_publishers = 64), &p);
		must(r == 0 || r == -ECONNRESET || r == -ETIMEDOUT, "open publisher: %d: %s", r, leat_why());
		if (r < 0)
			usleep(2000);
	} while (r < 0);
	leat__store_release(&e->instance, p->at.tie->instance);
	start = leat__now();
	for (uint64_t n = 0; !leat__load_acquire(&ledger->stop); n++) {
		struct note m = {.life = life, .n = n, .size = (uint32_t)(n * 7 % sizeof(m.rest))};

		memset(m.rest, (int)(n + life), m.size);
		m.check = check_of(&m);
		leat__store_release(&e->intent, n + 1);
		r = leat_send(p, &m, offsetof(struct note, rest) + m.size, 20 * SEC);
		must(r == 0, "publisher: %d: %s", r, leat_why());
		leat__store_release(&e->done, n + 1);
		if (n == 100)
			leat__store_release(&ledger->ready[who], 1u);
		while ((leat__now() - start) / 50000 < n) /* 20,000 a second */
			usleep(500);
	}
	leat_close(l);
}

static void subscribe(void *arg)
{
	struct reader *me = &ledger->sub[(uintptr_t)arg];
	struct leat *l = open_domain();
	struct leat_info info;
	struct leat_sub *s;
	struct note m;
	int r;

	memset(me, 0, sizeof(*me));
	while ((r = leat_sub_open(l, ledger->name, OPTS(leat_sub_opts, .flags = LEAT_UNTIL_ENDED, .max_publishers = 64),
				  &s)) < 0) {
		must(r == -ECONNRESET || r == -ETIMEDOUT, "open subscriber: %d: %s", r, leat_why());
		usleep(2000);
	}
	me->instance = s->seat->tie->instance;
	leat__store_release(&me->born, leat__fetch_add(&ledger->clock, UINT64_C(1)) + 1);
	for (;;) {
		r = leat_recv(s, &m, sizeof(m), &info, SEC);
		if (r == -ENODATA && leat__load_acquire(&ledger->stop) == 2)
			break;
		if (r == -ENODATA || r == -ETIMEDOUT) {
			usleep(1000);
			continue;
		}
		must(r == 0, "subscriber: %d: %s", r, leat_why());
		must(info.size >= offsetof(struct note, rest) && info.size == offsetof(struct note, rest) + m.size &&
			     m.life < LIVES && m.check == check_of(&m), "a torn message");
		/* Who opens at a new broker does not wait for who is not back there yet; what that misses is told. */
		must(!info.lost || (!me->next[m.life] && info.lost == m.n && ledger->pub[m.life].instance != me->instance),
		     "%llu are lost", (unsigned long long)info.lost);
		if (me->next[m.life] || ledger->pub[m.life].born > me->born)
			must(m.n == me->next[m.life] + info.lost, "subscriber %u: message %llu of life %llu comes, %llu was expected "
			     "(it was born at %llu, we at %llu)", (unsigned)(uintptr_t)arg, (unsigned long long)m.n,
			     (unsigned long long)m.life, (unsigned long long)me->next[m.life],
			     (unsigned long long)ledger->pub[m.life].born, (unsigned long long)me->born);
		me->next[m.life] = m.n + 1;
		me->received++;
	}
	leat__store_release(&me->ended, 1);
	leat_close(l);
}

static int count_files(const char *dir)
{
	DIR *d = opendir(dir);
	int n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static long rss_of(pid_t pid)
{
	char path[64], text[128] = "";
	long pages = 0;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	leat__read_file(path, text, sizeof(text));
	sscanf(text, "%*d %ld", &pages);
	return pages * 4;
}

static long broker_rss(void)
{
	return rss_of(broker_pid()) + rss_of(worker_pid());
}

static pid_t clients[PUBS + SUBS];

static void spawn(unsigned i)
{
	if (i < PUBS)
		leat__store_release(&ledger->ready[i], 0u);
	clients[i] = i < PUBS ? child(publish, (void *)(uintptr_t)i) : child(subscribe, (void *)(uintptr_t)(i - PUBS));
}

/* Every publisher's ring is mapped by every subscriber: then no message is the broker's alone. */
static int all_know_each_other(struct leat *l)
{
	struct leat_stat st = {.struct_size = sizeof(st)};

	for (unsigned i = 0; i < PUBS; i++)
		if (!leat__load_acquire(&ledger->ready[i]))
			return 0;
	for (unsigned i = 0; i < SUBS; i++)
		if (!leat__load_acquire(&ledger->sub[i].born))
			return 0;
	return leat_stat(l, ledger->name, &st, NULL, NULL) == 0 && st.publishers == PUBS && st.subscribers == SUBS;
}

static int tell_peer(const struct leat_peer *p, void *arg)
{
	(void)arg;
	fprintf(stderr, "# role %u id %llu pid %d alive %u count %llu lag %llu\n", p->role, (unsigned long long)p->id, p->pid,
		p->alive, (unsigned long long)p->count, (unsigned long long)p->lag);
	return 0;
}

static void wait_for_all(struct leat *l)
{
	struct leat_stat st = {.struct_size = sizeof(st)};
	uint64_t until = leat__now() + 10 * SEC;
	int e;

	while (!all_know_each_other(l)) {
		if (leat__now() < until) {
			usleep(1000);
			continue;
		}
		e = leat_stat(l, ledger->name, &st, tell_peer, NULL);
		fprintf(stderr, "# %d: %u publishers, %u draining, %u subscribers\n", e, st.publishers, st.draining,
			st.subscribers);
		for (unsigned i = 0; i < PUBS + SUBS; i++)
			fprintf(stderr, "# client %u is process %d, ready %d\n", i, (int)clients[i],
				i < PUBS ? (int)ledger->ready[i] : ledger->sub[i - PUBS].born != 0);
		if (getenv("LEAT_DEBUG"))
			pause();
		ck_abort_msg("they do not all find each other");
	}
}

/* A client that ended by itself has found something wrong. */
static void all_live(void)
{
	int status;
	pid_t pid = waitpid(-1, &status, WNOHANG);

	ck_assert_msg(pid <= 0, "process %d has ended with %#x", (int)pid, status);
}

static void settle_accounts(void)
{
	uint64_t total = 0;

	for (unsigned k = 0; k < SUBS; k++) {
		struct reader *r = &ledger->sub[k];

		ck_assert(r->ended);
		for (uint32_t i = 0; i < ledger->lives; i++) {
			struct entry *e = &ledger->pub[i];

			if (!r->next[i] && e->born <= r->born)
				continue; /* it had ended, or was at another message, before we came */
			must(r->next[i] >= e->done && r->next[i] <= e->intent, "subscriber %u has %llu messages of life %u; "
			     "%llu were done and %llu begun", k, (unsigned long long)r->next[i], i,
			     (unsigned long long)e->done, (unsigned long long)e->intent);
		}
		total += r->received;
	}
	fprintf(stderr, "# %u lives of publishers; %llu messages to the last four subscribers\n", ledger->lives,
		(unsigned long long)total);
}

START_TEST(killed_at_random_nothing_is_lost_and_nothing_is_left)
{
	int kills = full() ? 10000 : 400, done[3] = {0}, files, shm = count_files("/dev/shm"), dir;
	struct leat *l;
	long rss;

	ledger = mmap(NULL, sizeof(*ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert(ledger != MAP_FAILED);
	snprintf(ledger->domain, sizeof(ledger->domain), "%s", broker_start("--linger", "2", NULL));
	snprintf(ledger->name, sizeof(ledger->name), "%s", random_name());
	l = broker_open();
	files = broker_fds();
	rss = broker_rss();
	dir = count_files(tmp_dir());
	for (unsigned i = 0; i < PUBS + SUBS; i++)
		spawn(i);
	wait_for_all(l);
	for (int i = 0; i < kills; i++) {
		unsigned victim = (unsigned)(rnd() % (PUBS + SUBS));

		usleep((useconds_t)(rnd() % 20000));
		all_live();
		if (i % 16 == 15) {
			wait_for_all(l);
			broker_kill(SIGKILL);
			usleep((useconds_t)(rnd() % 100000));
			broker_start("--linger", "2", NULL);
			if (i % 32 == 31) /* else the next are killed while they come back */
				wait_for_all(l);
			done[2]++;
			continue;
		}
		child_kill(clients[victim]);
		done[victim >= PUBS]++;
		spawn(victim);
		if (i % 500 == 499)
			fprintf(stderr, "# %d of %d kills\n", i + 1, kills);
	}
	wait_for_all(l);
	leat__store_release(&ledger->stop, 1);
	for (unsigned i = 0; i < PUBS; i++)
		child_ok(clients[i]);
	leat__store_release(&ledger->stop, 2);
	for (unsigned i = PUBS; i < PUBS + SUBS; i++)
		child_ok(clients[i]);
	fprintf(stderr, "# killed %d publishers, %d subscribers, %d brokers\n", done[0], done[1], done[2]);
	settle_accounts();
	ck_assert(broker_fds_back(files));
	ck_assert_int_eq(count_files("/dev/shm"), shm);
	ck_assert_int_eq(count_files(tmp_dir()), dir);
	ck_assert_msg(broker_rss() < rss + 2048, "the broker has grown from %ld to %ld KiB", rss, broker_rss());
	leat_close(l);
	munmap(ledger, sizeof(*ledger));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("campaign");
	TCase *tc = leak_checked(s, "campaign", full() ? 3600 : 180);

	test(tc, killed_at_random_nothing_is_lost_and_nothing_is_left);
	return run_suite(s);
}
