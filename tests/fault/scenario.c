/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One program's use of nearly everything in libleat, run by check_exhaust.c under limits and with fault.c
 * preloaded: scenario DOMAIN FAMILY fails the first call of FAMILY, then the second, and so on, until a run
 * needs no more of them; scenario DOMAIN - runs once under whatever limits it was given, and may fail. Every
 * error must have its sentence; after every run nothing may be open, mapped or wedged.
 */
#include <dirent.h>
#include <errno.h>
#include <leat.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern void fault_arm(const char *family, long k) __attribute__((weak));
extern int fault_hits(void) __attribute__((weak));

static const char *domain;
static char name[64];
static int failures;
static char why[512];

/* Did it work? If not it says why, in a sentence. */
static int works(int e)
{
	if (e >= 0)
		return 1;
	failures++;
	if (!leat_why()[0]) {
		fprintf(stderr, "an error without a sentence: %d\n", e);
		_exit(3);
	}
	snprintf(why, sizeof(why), "%s", leat_why());
	return 0;
}

static void wrong(const char *what)
{
	fprintf(stderr, "wrong: %s\n", what);
	_exit(4);
}

static void regions(void)
{
	static const enum leat_region_kind kinds[] = {LEAT_MEMFD, LEAT_POSIX, LEAT_FILE, LEAT_ANON, LEAT_SYSV};
	char path[128];

	for (unsigned i = 0; i < 5; i++) {
		struct leat_region_opts o = {.struct_size = sizeof(o), .kind = kinds[i], .size = 16384};
		struct leat_region *r;

		if (kinds[i] == LEAT_POSIX || kinds[i] == LEAT_FILE) {
			snprintf(path, sizeof(path), kinds[i] == LEAT_POSIX ? "/leat-%d" : "/tmp/leat-%d", (int)getpid());
			o.name = path;
		}
		if (!works(leat_region_create(&o, &r)))
			continue;
		if (works(leat_mutex_init(leat_region_addr(r))) &&
		    works(leat_mutex_lock(r, leat_region_addr(r), 1000000)))
			works(leat_mutex_unlock(r, leat_region_addr(r)));
		leat_region_close(r);
		if (o.name)
			works(leat_region_unlink(o.kind, o.name));
	}
}

static void by_hand(void)
{
	struct leat_pub_opts po = {.struct_size = sizeof(po), .capacity = 4096};
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD};
	struct leat_region *r;
	struct leat_pub *p = NULL;
	struct leat_sub *s = NULL;
	uint64_t data, control, n = 7;

	if (!works(leat_ring_plan(&po, &data, &control)))
		return;
	o.size = data + control;
	if (!works(leat_region_create(&o, &r)))
		return;
	if (works(leat_ring_create(r, NULL, &po, &p)) && works(leat_ring_open(r, NULL, NULL, &s)) &&
	    works(leat_send(p, &n, 8, 0))) {
		n = 0;
		if (works(leat_recv(s, &n, 8, NULL, 0)) && n != 7)
			wrong("by hand");
	}
	leat_sub_close(s);
	leat_pub_close(p);
	leat_region_close(r);
}

static int count_user(const struct leat_quota *q, void *arg)
{
	(void)q;
	++*(int *)arg;
	return 0;
}

static int count(const struct leat_stat *st, void *arg)
{
	(void)st;
	++*(int *)arg;
	return 0;
}

static void channels(void)
{
	struct leat_pub_opts po = {.struct_size = sizeof(po), .capacity = 8192, .max_size = 5000, .grace_ns = 1000000};
	struct leat_stat st = {.struct_size = sizeof(st)};
	struct leat_pub *p = NULL, *second = NULL;
	struct leat_sub *s = NULL;
	struct leat *l;
	char big[5000];
	const void *at;
	uint64_t n;
	int any = 0, kicked;

	if (!works(leat_open(domain, &l)))
		return;
	if (works(leat_sub_open(l, name, NULL, &s)) && works(leat_pub_open(l, name, &po, &p))) {
		int got = 0;

		works(leat_sub_fd(s));
		memset(big, 7, sizeof(big));
		for (uint64_t i = 0; i < 40; i++)
			if (works(leat_send(p, &i, 8, 100000000)))
				got++;
		if (!works(leat_send(p, big, sizeof(big), 100000000)))
			got = -1000;
		/* What was sent arrives, if the ring could be mapped at all; it may take a second try. */
		for (uint64_t i = 0, tries = 0; i < 40 && got > 0 && tries < 100;) {
			int e = leat_recv(s, &n, 8, NULL, 20000000);

			if (e < 0) {
				tries++;
				works(e);
			} else if (n != i++) {
				wrong("a message");
			}
		}
		if (works(leat_peek(s, &at, NULL, 100000000)) && works(leat_retain(s, &at)))
			works(leat_drop(s, at));
		works(leat_pub_open(l, name, NULL, &second));
		works(leat_latest(s, big, sizeof(big), NULL) == -EAGAIN ? 0 : 0);
		works(leat_stat(l, name, &st, NULL, NULL));
		works(leat_list(l, NULL, count, &any));
		works(leat_quota(l, count_user, &any));
		kicked = leat_kick(l, UINT64_C(1) << 40);
		works(kicked == -ENOENT ? 0 : kicked);
	}
	leat_close(l);
}

static void work(struct leat *l)
{
	struct leat_pub *p = NULL;
	struct leat_queue *q = NULL;
	struct leat_work w;
	const void *at;
	uint64_t n = 5;

	if (works(leat_queue_open(l, name, "g", NULL, &q)) && works(leat_pub_open(l, name, NULL, &p)) &&
	    works(leat_send(p, &n, sizeof(n), 0)) && works(leat_queue_take(q, &at, &w, 200000000))) {
		if (w.size != sizeof(n))
			wrong("work");
		works(leat_queue_ack(q));
	}
	leat_pub_close(p);
	leat_queue_close(q);
}

/* Client and server in turn; what fails once is done in the end. */
static void request(struct leat *l)
{
	struct leat_client *c = NULL;
	struct leat_server *s = NULL;
	struct leat_request req;
	struct leat_answer a;
	uint64_t call;

	if (works(leat_serve(l, name, NULL, &s)) && works(leat_client_open(l, name, NULL, &c))) {
		int begun = 0, ended = 0;

		for (int i = 0; i < 100 && !ended; i++) {
			if (!begun && leat_call(c, "", 0, &a, 0) == -ETIMEDOUT) { /* it greets */
				leat_accept(s, &req, 1000000);
				begun = leat_call_begin(c, "x", 1, 100000000, &call) == 0;
			}
			if (leat_accept(s, &req, 10000000) == 0)
				works(leat_reply(s, &req, 0, req.data, (size_t)req.size));
			ended = begun && leat_call_wait(c, &a, 0) == 0;
		}
		if (!ended)
			works(-ETIMEDOUT);
		else if (a.error == 0 && (a.size != 1 || *(const char *)a.data != 'x'))
			wrong("a reply");
	}
	leat_client_close(c);
	leat_serve_close(s);
}

static void share(struct leat *l)
{
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD, .size = 4096};
	struct leat_region *r, *found;
	struct leat_share *s = NULL;

	if (!works(leat_region_create(&o, &r)))
		return;
	if (works(leat_region_share(l, name, r, 0, &s)) && works(leat_region_find(l, name, 0, NULL, &found)))
		leat_region_close(found);
	leat_region_unshare(s);
	leat_region_close(r);
}

/* Names, and a set with one of each. */
static void watch_and_wait(struct leat *l)
{
	struct leat_event ev = {.struct_size = sizeof(ev)};
	struct leat_watch *w = NULL;
	struct leat_queue *q = NULL;
	struct leat_set *set = NULL;
	struct leat_sub *s = NULL;
	struct leat_ready ready;
	const void *at;
	int told = 0;

	if (works(leat_sub_open(l, name, NULL, &s)) && works(leat_queue_open(l, name, "g", NULL, &q)) &&
	    works(leat_set_open(&set)) && works(leat_set_add_sub(set, s, s)) && works(leat_set_add_queue(set, q, q))) {
		leat_set_wait(set, &ready, 1, 100000);
		if (works(leat_watch(l, name, &w)) && works(leat_set_add_watch(set, w, w)))
			for (int i = 0; i < 100 && ev.kind != LEAT_SYNCED; i++) {
				leat_recv(s, &at, sizeof(at), NULL, 0);
				leat_queue_take(q, &at, NULL, 0);
				if (leat_set_wait(set, &ready, 1, 10000000) > 0 && ready.data == w &&
				    leat_watch_next(w, &ev, 0) == 0)
					told += ev.kind == LEAT_CAME;
			}
		if (w && ev.kind != LEAT_SYNCED)
			works(-ETIMEDOUT);
		else if (w && told != 1)
			wrong("a watch");
	}
	leat_watch_close(w);
	leat_set_close(set);
	leat_queue_close(q);
	leat_sub_close(s);
}

static void patterns(void)
{
	struct leat *l;

	if (!works(leat_open(domain, &l)))
		return;
	strcat(name, "/p");
	work(l);
	share(l);
	strcat(name, "/q");
	request(l);
	strcat(name, "/w");
	watch_and_wait(l);
	leat_close(l);
}

static int entries(const char *path)
{
	DIR *d = opendir(path);
	int n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static int mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];
	int n = 0;

	while (f && fgets(line, sizeof(line), f))
		n += strstr(line, "leat-") != NULL || strstr(line, "SYSV") != NULL;
	if (f)
		fclose(f);
	return n;
}

static void everything(void)
{
	static int run;

	snprintf(name, sizeof(name), "scenario/%d/%d", (int)getpid(), run++);
	failures = 0;
	regions();
	by_hand();
	channels();
	patterns();
}

static void *on_small_stack(void *arg)
{
	everything();
	return arg;
}

static void nothing_is_left(const char *when, int fds, long k)
{
	if (entries("/proc/self/fd") != fds || mappings()) {
		fprintf(stderr, "%s %ld: %d descriptors, %d were; %d mappings; the error was: %s\n", when, k,
			entries("/proc/self/fd"), fds, mappings(), why);
		_exit(5);
	}
}

int main(int argc, char **argv)
{
	int fds, hits;
	long k = 0, failed = 0;

	if (argc != 3)
		return 2;
	domain = argv[1];
	everything(); /* once: what is initialized once, is */
	fds = entries("/proc/self/fd");
	if (!strcmp(argv[2], "-"))
		return 0;
	if (failures) {
		fprintf(stderr, "without a fault: %s\n", why);
		return 6;
	}
	if (!strcmp(argv[2], "stack")) {
		pthread_attr_t a;
		pthread_t t;

		pthread_attr_init(&a);
		pthread_attr_setstacksize(&a, 65536);
		if (pthread_create(&t, &a, on_small_stack, NULL) || pthread_join(t, NULL))
			return 7;
		return failures != 0;
	}
	do {
		fault_arm(argv[2], ++k);
		everything();
		hits = fault_hits();
		fault_arm("none", 0);
		failed += failures > 0;
		nothing_is_left("failing call", fds, k);
		if (!hits)
			break;
		/* And nothing is wedged. */
		everything();
		if (failures) {
			fprintf(stderr, "after failing call %ld of %s: %s\n", k, argv[2], why);
			return 8;
		}
	} while (k < 5000);
	fprintf(stderr, "%s: %ld calls failed, %ld of them were noticed\n", argv[2], k - 1, failed);
	return k >= 5000;
}
