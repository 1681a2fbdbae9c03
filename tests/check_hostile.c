/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile program with everything that a subscriber is handed: it cannot change or cut a message,
 * as the publisher's uid or as another; and what it can write hurts nobody beyond what is promised.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "channel/channel.h"
#include "harness.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

/* What the broker hands a subscriber: the ring's descriptor. */
static int ring_fd(struct leat *l, struct leat_sub *s, uint64_t id)
{
	struct leat__packet p;
	struct leat__out o;
	struct leat__in in;

	leat__wire_begin(&o, LEAT__RING, 0, s->seat->object);
	leat__wire_u64(&o, LEAT__T_RING_ID, id);
	ok(leat__request(l, &o, -1, &p, &in));
	return leat__packet_take(&p, 0);
}

static int denied;

#define DENIED(expr)                                                                               \
	do {                                                                                       \
		errno = 0;                                                                         \
		denied++;                                                                          \
		ck_assert_msg((long)(intptr_t)(expr) == -1, "%s succeeded", #expr);                \
	} while (0)

struct attack {
	int fd;
	uid_t uid;
	off_t size;
};

static void try_writing(int fd, off_t size)
{
	DENIED(pwrite(fd, "x", 1, 8192));
	DENIED(pwrite(fd, "x", 1, size - 1));
	DENIED(write(fd, "x", 1));
	DENIED(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	DENIED(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 4096));
	DENIED(ftruncate(fd, 0));
	DENIED(ftruncate(fd, size - 4096));
	DENIED(ftruncate(fd, size + 4096));
	DENIED(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, size));
	DENIED(fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 4096));
	DENIED(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096));
	DENIED(fallocate(fd, 0, 0, size + 4096));
	DENIED(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
}

static void attack(void *arg)
{
	struct attack *a = arg;
	char path[64];
	void *p;
	int fd;

	if (a->uid)
		ck_assert(setresuid(a->uid, a->uid, a->uid) == 0);
	try_writing(a->fd, a->size);
	p = mmap(NULL, (size_t)a->size, PROT_READ, MAP_SHARED, a->fd, 0);
	ck_assert(p != MAP_FAILED);
	DENIED(mprotect(p, 4096, PROT_READ | PROT_WRITE));
	DENIED(madvise(p, (size_t)a->size, MADV_REMOVE));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", a->fd);
	if (fchmod(a->fd, 0666) == 0) { /* it may try; it is the same uid's file */
	}
	fd = open(path, O_RDWR);
	if (fd >= 0)
		try_writing(fd, a->size);
	DENIED(open(path, O_RDWR | O_TRUNC));
	/* Its own private copy it may change, of course; nobody sees that. */
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, a->fd, 8192);
	if (p != MAP_FAILED)
		memset(p, 0xff, 4096);
	figure(5, "%d ways to write, cut or map for writing what one may only read: each denied, to uid %u", denied, (unsigned)getuid());
}

START_TEST(nobody_but_the_publisher_can_write_or_cut_a_ring)
{
	struct leat *l = broker_open();
	const char *name = random_name();
	struct leat_pub *p;
	struct leat_sub *s, *hostile;
	struct attack a = {.uid = _i ? 65534 : 0};
	struct leat_info info;
	char b[3000];

	if (_i && geteuid() != 0) {
		fprintf(stderr, "# SKIP needs root to become another uid\n");
		leat_close(l);
		return;
	}
	ok(leat_sub_open(l, name, NULL, &s));
	ok(leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 65536), &p));
	for (uint64_t i = 0; i < 20; i++) {
		fill_message(b, 3000, i);
		ok(leat_send(p, b, 3000, 0));
	}
	ok(leat_sub_open(l, name, NULL, &hostile));
	a.fd = ring_fd(l, hostile, hostile->rings[0]->r.id);
	ck_assert_int_ge(a.fd, 0);
	a.size = lseek(a.fd, 0, SEEK_END);
	child_ok(child(attack, &a));
	for (uint64_t i = 0; i < 20; i++) {
		ok(leat_recv(s, b, 3000, &info, SEC));
		ck_assert(message_whole(b, 3000, i));
	}
	/* The publisher itself writes on. */
	fill_message(b, 3000, 99);
	ok(leat_send(p, b, 3000, 0));
	ok(leat_recv(s, b, 3000, &info, SEC));
	ck_assert(message_whole(b, 3000, 99));
	close(a.fd);
	leat_close(l);
}
END_TEST

START_TEST(the_broker_takes_no_ring_that_others_could_write)
{
	struct leat *l = broker_open();
	struct leat__geometry g;

	ok(leat__ring_geometry(&g, 4096, 0, 0, 0, leat__page_size()));
	for (int i = 0; i < 7; i++) {
		struct leat__geometry lie = g;
		struct leat__packet p;
		struct leat__out o;
		struct leat__in in;
		char path[300];
		int e, fd, copy = -1;

		snprintf(path, sizeof(path), "%s/file", tmp_dir());
		fd = i == 0 ? open(path, O_RDWR | O_CREAT, 0600)
			    : memfd_create("x", MFD_ALLOW_SEALING | MFD_CLOEXEC);
		ck_assert(ftruncate(fd, (off_t)g.total) == 0);
		if (i != 4) /* 4: not reserved */
			ck_assert(posix_fallocate(fd, 0, (off_t)g.total) == 0);
		if (i == 2)
			ck_assert(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
		if (i > 2)
			ok(leat__seal_ring(fd));
		if (i == 3)
			lie.total += 4096;
		if (i == 5)
			lie.capacity = 3;
		leat__wire_begin(&o, LEAT__PUB_OPEN, 0, 0);
		leat__wire_text(&o, LEAT__T_NAME, random_name());
		leat__wire_geometry(&o, LEAT__T_GEOMETRY, &lie);
		if (i == 6) { /* the same memory twice */
			ok(leat__request(l, &o, fd, &p, &in));
			leat__packet_close(&p);
			copy = dup(fd);
			leat__wire_begin(&o, LEAT__PUB_OPEN, 0, 0);
			leat__wire_text(&o, LEAT__T_NAME, random_name());
			leat__wire_geometry(&o, LEAT__T_GEOMETRY, &lie);
		}
		e = leat__request(l, &o, copy >= 0 ? copy : fd, &p, &in);
		ck_assert_msg(e < 0, "case %d was accepted", i);
		ck_assert_int_eq(e, i == 6 ? -EEXIST : i == 3 || i == 5 ? -EBADMSG : -EINVAL);
		close(fd);
		if (copy >= 0)
			close(copy);
	}
	leat_close(l);
}
END_TEST

/* ---- a subscriber that scribbles over all it can write ---- */

struct scribble {
	struct leat_sub *s;
	uint64_t words;
	int stop;
};

static void *scribble(void *arg)
{
	struct scribble *x = arg;
	unsigned char *base = (unsigned char *)x->s->seat->ctrl;
	uint64_t seed = 12345;

	while (!leat__load_relaxed(&x->stop)) {
		uint64_t at;

		seed = seed * 6364136223846793005u + 1442695040888963407u;
		at = (seed >> 20) % (x->s->seat->cg.total / 8);
		leat__store_relaxed((uint64_t *)(void *)base + at,
				    seed % 3 ? seed : seed % 2 ? 0 : UINT64_MAX);
		x->words++;
		if (seed % 64 == 0)
			usleep(50); /* let the honest ones do something */
	}
	return NULL;
}

static void honest_reader(void *arg)
{
	struct leat_sub *s = NULL;
	struct leat *l;
	static char b[20000];
	struct leat_info info;
	uint64_t until = leat__now() + (full() ? 600 : 5) * SEC, got = 0;

	ok(leat_open(broker_start(NULL), &l));
	while (leat__now() < until) {
		int e;

		if (!s) {
			leat_sub_open(l, arg, OPTS(leat_sub_opts, .max_subscribers = 4), &s);
			continue;
		}
		e = leat_recv(s, b, sizeof(b), &info, 100000000);
		if (e == -ETIMEDOUT)
			continue;
		if (e == 0 && info.size)
			ck_assert_msg(message_whole(b, info.size, info.seq), "a changed message was taken");
		got += e == 0;
		if (rnd() % 1000 == 0 || (e < 0 && e != -EBADMSG)) {
			leat_sub_close(s);
			s = NULL;
		}
	}
	leat_close(l);
	ck_assert_uint_gt(got, 0);
}

START_TEST(a_scribbling_subscriber_changes_no_message_and_hangs_nobody)
{
	struct leat *l = broker_open();
	char *name = strdup(random_name());
	uint64_t until = leat__now() + (full() ? 600 : 5) * SEC, sent = 0;
	struct scribble x = {0};
	struct leat_pub *p;
	pthread_t t;
	pid_t pid;
	static char b[20000];

	ok(leat_sub_open(l, name, OPTS(leat_sub_opts, .max_subscribers = 4, .flags = LEAT_OBSERVE), &x.s));
	ok(leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 16384, .max_size = 20000, .grace_ns = 1000000), &p));
	pid = child(honest_reader, name);
	ck_assert(pthread_create(&t, NULL, scribble, &x) == 0);
	while (leat__now() < until) {
		size_t size = sent % 50 == 0 ? 2100 + rnd() % 17000 : rnd() % 300;
		uint64_t start = leat__now();
		struct leat_pub_stat st = {.struct_size = sizeof(st)};
		int e;

		ok(leat_pub_stat(p, &st));
		fill_message(b, size, st.sent);
		e = leat_send(p, b, size, 20000000);
		ck_assert_msg(e == 0 || e == -ETIMEDOUT || e == -ENOBUFS, "%d: %s", e, leat_why());
		ck_assert_msg(leat__now() - start < SEC, "a send of 20 ms took %.3f s",
			      (double)(leat__now() - start) / 1e9);
		sent += e == 0;
	}
	leat__store_relaxed(&x.stop, 1);
	pthread_join(t, NULL);
	child_ok(pid);
	ck_assert_uint_gt(sent, 100);
	figure(3, "%llu words of nonsense all over a control region in %d s, %llu messages meanwhile: none changed, nobody held up",
	       (unsigned long long)x.words, full() ? 600 : 5, (unsigned long long)sent);
	ok(leat_ping(l, NULL)); /* the broker lives */
	leat_close(l);
	free(name);
}
END_TEST

/* ---- a subscriber that knows what it does: it says for others that they are done, gone, or elsewhere ---- */

static void *forge(void *arg)
{
	struct scribble *x = arg;
	struct leat__seat *seat = x->s->seat;
	uint64_t seed = 777;

	while (!leat__load_relaxed(&x->stop)) {
		uint32_t e, i;
		struct leat__line *line;
		uint64_t id;

		seed = seed * 6364136223846793005u + 1442695040888963407u;
		e = (uint32_t)(seed >> 33) % seat->cg.n_rings;
		i = (uint32_t)(seed >> 41) % seat->cg.n_slots;
		line = &leat__ctrl_lines(seat->ctrl, &seat->cg, e)[i];
		id = LEAT__RING_ID(leat__load_relaxed(&leat__ctrl_entries(seat->ctrl)[e].word));
		switch (seed >> 60 & 7) {
		case 0:
		case 1:
			leat__store_relaxed(&line->state, LEAT__WORD(id, (leat__load_relaxed(&line->state) & 0xfff000) | LEAT__DONE));
			break;
		case 2:
			leat__store_relaxed(&line->state, LEAT__WORD(id, LEAT__EVICTED));
			break;
		case 3:
			leat__store_relaxed(&line->cursor, UINT64_MAX / 2);
			break;
		case 4:
			leat__store_relaxed(&leat__ctrl_slots(seat->ctrl, &seat->cg)[i].moved, LEAT__LEFT);
			break;
		case 5:
			leat__fetch_add(&seat->ctrl->epoch, 1u);
			break;
		default:
			leat__store_relaxed(&leat__ctrl_slots(seat->ctrl, &seat->cg)[i].held[seed & 3], LEAT__WORD(id, seed >> 50 & 3));
		}
		if (seed % 16 == 0)
			usleep(20);
	}
	return NULL;
}

/* The machine's share that others had since @before, in percent. */
static unsigned stolen(uint64_t before[2])
{
	uint64_t v[8] = {0}, all = 0, was_stolen = before[0], was_all = before[1];
	char text[512] = "";

	leat__read_file("/proc/stat", text, sizeof(text));
	sscanf(text, "cpu %lu %lu %lu %lu %lu %lu %lu %lu", (unsigned long *)&v[0], (unsigned long *)&v[1],
	       (unsigned long *)&v[2], (unsigned long *)&v[3], (unsigned long *)&v[4], (unsigned long *)&v[5],
	       (unsigned long *)&v[6], (unsigned long *)&v[7]);
	for (int i = 0; i < 8; i++)
		all += v[i];
	before[0] = v[7];
	before[1] = all;
	return all == was_all ? 0 : (unsigned)((v[7] - was_stolen) * 100 / (all - was_all));
}

/* Publishers come and go under it; 1 if nobody was held up beyond his timeout and 100 ms. */
static int publishers_come_and_go(struct leat *l, const char *name, struct leat_sub *s, uint64_t until)
{
	static char b[2000];
	struct leat_info info;
	int in_time = 1;

	while (leat__now() < until) {
		uint64_t n = rnd() % 300, start, i = 0;
		struct leat_pub *p;

		if (leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 4096, .grace_ns = 1000000), &p) < 0) {
			/* It keeps places taken: that is its channel's loss. */
			while (leat_recv(s, b, sizeof(b), &info, 0) != -EAGAIN)
				;
			usleep(1000);
			continue;
		}
		for (; i < n; i++) {
			size_t size = 8 + rnd() % 300;

			fill_message(b, size, i);
			start = leat__now();
			if (leat_send(p, b, size, 20000000) < 0)
				break;
			in_time &= leat__now() - start < 120000000;
			start = leat__now();
			if (leat_recv(s, b, sizeof(b), &info, 5000000) == 0)
				must(message_whole(b, (size_t)info.size, info.seq), "a changed message was taken");
			in_time &= leat__now() - start < 105000000;
		}
		leat_pub_close(p);
	}
	return in_time;
}

START_TEST(a_forging_subscriber_costs_messages_and_time_within_bounds)
{
	struct leat *l = broker_open();
	struct leat_sub_stat st = {.struct_size = sizeof(st)};
	const char *name = random_name();
	uint64_t steal[2] = {0, 0};
	struct scribble x = {0};
	struct leat_sub *s;
	pthread_t t;
	int good = 0;

	ok(leat_sub_open(l, name, OPTS(leat_sub_opts, .max_subscribers = 4), &x.s));
	ok(leat_sub_open(l, name, NULL, &s));
	ck_assert(pthread_create(&t, NULL, forge, &x) == 0);
	for (int tries = 0; tries < 5 && !good; tries++) {
		stolen(steal);
		good = publishers_come_and_go(l, name, s, leat__now() + (full() ? 600 : 4) * SEC);
		if (!good)
			fprintf(stderr, "# again: somebody was held up; %u %% of the time were stolen\n", stolen(steal));
	}
	ck_assert_msg(good, "again and again somebody is held up beyond his timeout and 100 ms");
	leat__store_relaxed(&x.stop, 1);
	pthread_join(t, NULL);
	ok(leat_sub_stat(s, &st));
	ck_assert_uint_gt(st.received, 100);
	ok(leat_ping(l, NULL));
	leat_close(l);
}
END_TEST

/* ---- a publisher that lies in its own ring ---- */

struct lie {
	const char *domain, *name;
};

/* Until it is killed. */
static void lie_on(void *arg)
{
	const struct lie *x = arg;
	uint64_t seed = rnd(), *words;
	struct leat_pub *p;
	struct leat *l;
	size_t n, data;

	ok(leat_open(x->domain, &l));
	ok(leat_pub_open(l, x->name, OPTS(leat_pub_opts, .capacity = 4096, .max_size = 3000, .blocks = 2), &p));
	words = (uint64_t *)(void *)&p->w.ring->tail;
	n = (size_t)(p->w.g.head_size - sizeof(p->w.ring->head)) / 8;
	data = (size_t)p->w.g.capacity / 8;
	for (;;) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		leat__store_relaxed(seed >> 62 ? &words[(seed >> 20) % n] : (uint64_t *)(void *)p->w.data + (seed >> 20) % data,
				    seed >> 61 & 1 ? seed >> 40 : seed);
		if (seed % 64 == 0)
			usleep(30);
	}
}

START_TEST(a_publisher_that_lies_all_the_time_harms_nobody_elses_messages)
{
	struct leat *l = broker_open();
	uint64_t until, sent = 0, got = 0, start, steal[2] = {0, 0}, late = 0;
	const char *name = random_name();
	struct lie lie = {leat_domain(l), name};
	struct leat_pub *honest;
	struct leat_info info;
	static char b[8192];
	struct leat_sub *s;
	pid_t liar;

	stolen(steal);
	until = leat__now() + (full() ? 600 : 4) * SEC;
	ok(leat_sub_open(l, name, NULL, &s));
	ok(leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 8192), &honest));
	while (leat__now() < until) {
		uint64_t turn = leat__now() + 50000000;

		liar = child(lie_on, &lie);
		while (leat__now() < turn) {
			uint64_t size = 8 + sent % 500;
			int e;

			fill_message(b, size, sent);
			if (leat_send(honest, b, size, 0) == 0)
				sent++;
			start = leat__now();
			e = leat_recv(s, b, sizeof(b), &info, 1000000);
			late += leat__now() - start > 101000000;
			if (e < 0 || info.publisher != honest->origin)
				continue;
			must(info.size == 8 + got % 500 && message_whole(b, (size_t)info.size, got), "an honest message was changed");
			got++;
		}
		child_kill(liar);
	}
	ck_assert_uint_gt(got, 100);
	ck_assert_msg(late < 3 || stolen(steal) > 10, "a receive was held up beyond its timeout and 100 ms, %d times", (int)late);
	leat_close(l);
}
END_TEST

START_TEST(a_lying_publisher_is_given_up_and_crashes_nobody)
{
	struct leat *l = broker_open();
	char b[5000] = {0};
	uint64_t corrupt = 0;

	for (int round = 0; round < (full() ? 20000 : 800); round++) {
		const char *name = random_name();
		struct leat_sub_stat st = {.struct_size = sizeof(st)};
		struct leat_pub *liar, *honest;
		struct leat__ring_shm *ring;
		struct leat_info info;
		struct leat_sub *s;
		int e = 0;

		ok(leat_sub_open(l, name, OPTS(leat_sub_opts, .max_subscribers = 2), &s));
		ok(leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 4096, .max_size = 5000), &liar));
		ok(leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 4096), &honest));
		for (int i = 0; i < 20; i++)
			ok(leat_send(liar, b, rnd() % 100, 0));
		ok(leat_send(liar, b, 3000, 0));
		ok(leat_send(honest, "truth", 5, 0));
		ring = liar->w.ring;
		for (int i = 0; i < 4; i++) {
			uint64_t *words = (uint64_t *)(void *)liar->w.data;

			switch (rnd() % 8) {
			case 0:
				ring->tail = rnd();
				break;
			case 1:
				ring->tail = rnd() % 8192;
				break;
			case 2:
				ring->limit = rnd() % 2 ? rnd() : 0;
				break;
			case 3:
				ring->last = rnd();
				ring->sent = rnd();
				break;
			case 4:
				ring->marks[rnd() % 16] = rnd() % 4096;
				break;
			case 5:
				leat__block_words(ring)[rnd() % 4] = rnd();
				break;
			default:
				words[rnd() % 64] = rnd() % 2 ? rnd() : 0x8000001800000000u;
			}
		}
		leat__bell_toll(liar->w.data_bell);
		for (int i = 0; i < 200 && e != -EAGAIN; i++) {
			e = leat_recv(s, b, sizeof(b), &info, 0);
			if (e == 0 && info.publisher == honest->w.id)
				ck_assert(info.size == 5 && !memcmp(b, "truth", 5));
		}
		leat_latest(s, b, sizeof(b), &info);
		ok(leat_sub_stat(s, &st));
		corrupt += st.corrupt;
		ok(leat_send(honest, "still", 5, 0));
		info.publisher = 0;
		for (int i = 0; i < 10000 && info.publisher != honest->w.id; i++) {
			e = leat_recv(s, b, sizeof(b), &info, SEC);
			ck_assert_msg(e == 0 || e == -EBADMSG, "%d: %s", e, leat_why());
		}
		ck_assert_uint_eq(info.publisher, honest->w.id);
		liar->w.tail = leat__load_relaxed(&ring->tail) & ~UINT64_C(7);
		leat_sub_close(s);
		leat_pub_close(liar);
		leat_pub_close(honest);
	}
	ck_assert_uint_gt(corrupt, 0);
	leat_close(l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("hostile");
	TCase *tc = leak_checked(s, "hostile", full() ? 4000 : 120);

	tcase_add_loop_test(tc, nobody_but_the_publisher_can_write_or_cut_a_ring, 0, 2);
	test(tc, the_broker_takes_no_ring_that_others_could_write);
	test(tc, a_scribbling_subscriber_changes_no_message_and_hangs_nobody);
	test(tc, a_forging_subscriber_costs_messages_and_time_within_bounds);
	test(tc, a_lying_publisher_is_given_up_and_crashes_nobody);
	test(tc, a_publisher_that_lies_all_the_time_harms_nobody_elses_messages);
	return run_suite(s);
}
