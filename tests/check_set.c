/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting on many: nothing is forgotten, nobody starves, and it makes no difference how it sleeps. */
#include <dirent.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "base/atomic.h"
#include "channel/channel.h"
#include "sync/bell.h"
#include "harness.h"

#define MS INT64_C(1000000)

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

static struct leat_set *set_new(void)
{
	struct leat_set *set;

	ok(leat_set_open(&set));
	return set;
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

	ok(leat_sub_open(l, name, OPTS(leat_sub_opts, .max_publishers = 2, .max_subscribers = 2), &s));
	return s;
}

/* Wait for one, which must be @data. */
static void expect(struct leat_set *set, void *data)
{
	struct leat_ready r;
	int n = leat_set_wait(set, &r, 1, 10 * SEC);

	ck_assert_msg(n == 1 && r.data == data, "%d: %p instead of %p: %s", n, n == 1 ? r.data : NULL, data, leat_why());
	ck_assert(r.events & POLLIN);
}

/* Whatever is told without need is looked at, as a program would. */
static void settle(struct leat_set *set, struct leat_sub **subs, int n)
{
	struct leat_ready r[64];
	char buf[64];
	int got;

	while ((got = leat_set_wait(set, r, 64, 5 * MS)) > 0)
		for (int i = 0; i < got; i++)
			for (int k = 0; k < n; k++)
				if (r[i].data == subs[k])
					fails(leat_recv(subs[k], buf, sizeof(buf), NULL, 0), EAGAIN);
}

/* Everything at once; @with_fd: by epoll. */
static void all_kinds(int with_fd)
{
	struct leat *l = (broker_start("--linger", "0", NULL), broker_open());
	struct leat_sub *s = subscriber(l, "a");
	struct leat_pub *p = publisher(l, "a"), *jobs = publisher(l, "jobs");
	struct leat_server *server;
	struct leat_client *client;
	struct leat_request req;
	struct leat_answer answer;
	struct leat_queue *q;
	struct leat_set *set = set_new();
	const void *job;
	char buf[64];
	int pipe_[2];

	ok(leat_queue_open(l, "jobs", "all", NULL, &q));
	ok(leat_serve(l, "service", NULL, &server));
	ok(leat_client_open(l, "service", NULL, &client));
	ok(leat_set_add_sub(set, s, s));
	ok(leat_set_add_queue(set, q, q));
	ok(leat_set_add_server(set, server, server));
	ok(leat_set_add_client(set, client, client));
	if (with_fd) {
		ok(pipe2(pipe_, O_CLOEXEC));
		ok(leat_set_add_fd(set, pipe_[0], POLLIN, pipe_));
		fails(leat_set_add_fd(set, pipe_[0], POLLIN, pipe_), EEXIST);
	}
	/* Look at all, until they are quiet. */
	for (struct leat_ready r; leat_set_wait(set, &r, 1, 5 * MS) > 0;) {
		leat_recv(s, buf, sizeof(buf), NULL, 0);
		fails(leat_queue_take(q, &job, NULL, 0), EAGAIN);
		leat_accept(server, &req, 0);
		leat_call_wait(client, &answer, 0);
	}
	for (int i = 0; i < 300; i++) {
		ok(leat_send(p, "hello", 5, SEC));
		expect(set, s);
		expect(set, s); /* as long as it is not read */
		ok(leat_recv(s, buf, sizeof(buf), NULL, 0));
		fails(leat_recv(s, buf, sizeof(buf), NULL, 0), EAGAIN);
		ok(leat_send(jobs, "work", 4, SEC));
		expect(set, q);
		ok(leat_queue_take(q, &job, NULL, 0));
		ok(leat_queue_ack(q));
		fails(leat_queue_take(q, &job, NULL, 0), EAGAIN);
		if (with_fd) {
			ck_assert_int_eq((int)write(pipe_[1], "x", 1), 1);
			expect(set, pipe_);
			ck_assert_int_eq((int)read(pipe_[0], buf, 1), 1);
		}
	}
	/* The first call has to find its server. */
	for (int i = 0, e; i < 300; i++) {
		struct leat_ready r;

		while ((e = leat_call_begin(client, "ask", 3, i ? SEC : MS, NULL)) == -ETIMEDOUT && !i)
			leat_accept(server, &req, 0);
		ok(e);
		do {
			ok(leat_set_wait(set, &r, 1, 10 * SEC));
			if (r.data == client)
				leat_call_wait(client, &answer, 0);
			ck_assert(r.data == server || r.data == client);
		} while (r.data != server || leat_accept(server, &req, 0) < 0);
		ok(leat_reply(server, &req, 0, "yes", 3));
		leat_accept(server, &req, 0);
		expect(set, client);
		ok(leat_call_wait(client, &answer, 0));
		fails(leat_call_wait(client, &answer, 0), ENOENT);
		leat_accept(server, &req, 0);
	}
	leat_set_remove(set, client); /* which has not looked since it was found empty */
	if (with_fd) {
		ok(leat_set_remove_fd(set, pipe_[0]));
		close(pipe_[0]);
		close(pipe_[1]);
	}
	leat_set_close(set);
	leat_close(l);
}

START_TEST(subscribers_workers_servers_and_clients)
{
	all_kinds(0);
}
END_TEST

START_TEST(and_descriptors)
{
	all_kinds(1);
}
END_TEST

START_TEST(one_whose_publishers_have_ended_rests)
{
	struct leat *l = (broker_start(NULL), broker_open());
	struct leat_set *set = set_new();
	struct leat_ready r;
	struct leat_queue *q;
	struct leat_pub *p;
	struct leat_sub *s;
	const void *job;
	int pipe_[2];
	char buf[8];

	ok(pipe2(pipe_, O_CLOEXEC));
	ok(leat_sub_open(l, "x", OPTS(leat_sub_opts, .flags = LEAT_UNTIL_ENDED), &s));
	ok(leat_queue_open(l, "x", "all", OPTS(leat_queue_opts, .flags = LEAT_UNTIL_ENDED), &q));
	ok(leat_set_add_sub(set, s, s));
	ok(leat_set_add_queue(set, q, q));
	if (_i)
		ok(leat_set_add_fd(set, pipe_[0], POLLIN, NULL));
	for (int i = 0; i < 20; i++) {
		p = publisher(l, "x");
		ok(leat_send(p, "x", 1, SEC));
		leat_pub_close(p);
		eventually(leat_recv(s, buf, sizeof(buf), NULL, 0) == -ENODATA);
		eventually((leat_queue_take(q, &job, NULL, 0) == 0 ? leat_queue_ack(q) : 0, leat_queue_take(q, &job, NULL, 0)) ==
			   -ENODATA);
		/* Once more each, at most: then there is no end of it. */
		for (int k = 0; leat_set_wait(set, &r, 1, 10 * MS) > 0; k++) {
			ck_assert_int_lt(k, 8);
			leat_recv(s, buf, sizeof(buf), NULL, 0);
			leat_queue_take(q, &job, NULL, 0);
		}
	}
	close(pipe_[0]);
	close(pipe_[1]);
	leat_close(l);
	leat_set_close(set);
}
END_TEST

START_TEST(a_watch)
{
	struct leat *l = (broker_start("--linger", "0", NULL), broker_open());
	struct leat_event ev = {.struct_size = sizeof(ev)};
	struct leat_set *set = set_new();
	struct leat_watch *w;

	ok(leat_watch(l, NULL, &w));
	ok(leat_set_add_watch(set, w, w));
	fails(leat_set_add_watch(set, w, w), EEXIST);
	while (ev.kind != LEAT_SYNCED) {
		expect(set, w);
		leat_watch_next(w, &ev, 0);
	}
	for (int i = 0; i < 20; i++) {
		struct leat_sub *s;

		while (leat_watch_next(w, &ev, 0) == 0)
			;
		s = subscriber(l, "x");
		expect(set, w);
		ok(leat_watch_next(w, &ev, SEC));
		ck_assert_int_eq((int)ev.kind, LEAT_CAME);
		leat_sub_close(s);
		expect(set, w); /* more is in hand or to come */
		ok(leat_watch_next(w, &ev, SEC));
		ok(leat_watch_next(w, &ev, SEC));
		ck_assert_int_eq((int)ev.kind, LEAT_GONE);
	}
	leat_watch_close(w);
	fails(leat_set_wait(set, &(struct leat_ready){0}, 1, 0), ENOENT);
	leat_set_close(set);
	leat_close(l);
}
END_TEST

START_TEST(errors)
{
	struct leat *l = (broker_start(NULL), broker_open());
	struct leat_set *set = set_new(), *other = set_new();
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD, .size = 65536};
	struct leat_ready r;
	struct leat_sub *s = subscriber(l, "a"), *by_hand;
	struct leat_region *data;
	struct leat_pub *p;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	fails(leat_set_wait(set, &r, 1, 0), ENOENT);
	ok(leat_set_add_sub(set, s, NULL));
	fails(leat_set_wait(set, &r, 0, 0), EINVAL);
	fails(leat_set_wait(set, &r, 1, 0), EAGAIN);
	fails(leat_set_wait(set, &r, 1, MS), ETIMEDOUT);
	fails(leat_set_add_sub(set, s, NULL), EEXIST);
	fails(leat_set_add_sub(other, s, NULL), EEXIST);
	fails(leat_set_remove(other, s), ENOENT);
	fails(leat_set_remove(set, NULL), ENOENT);
	fails(leat_set_remove_fd(set, fd), ENOENT);
	fails(leat_set_add_fd(set, fd, 0x1000, NULL), EINVAL);
	fails(leat_set_add_fd(set, file, POLLIN, NULL), EPERM);
	close(fd);
	fails(leat_set_add_fd(set, fd, POLLIN, NULL), EBADF);
	fails(leat_set_wait(set, &r, 1, MS), ETIMEDOUT); /* as before */
	ok(leat_set_remove(set, s));
	ok(leat_set_add_sub(other, s, NULL));
	leat_sub_close(s); /* and it is out */
	fails(leat_set_wait(other, &r, 1, 0), ENOENT);
	ok(leat_region_create(&o, &data));
	ok(leat_ring_create(data, NULL, OPTS(leat_pub_opts, .capacity = 4096), &p));
	ok(leat_ring_open(data, NULL, OPTS(leat_sub_opts, .flags = LEAT_OBSERVE), &by_hand));
	fails(leat_set_add_sub(set, by_hand, NULL), ENOTSUP);
	leat_sub_close(by_hand);
	leat_pub_close(p);
	leat_region_close(data);
	close(file);
	leat_set_close(other);
	leat_set_close(set);
	leat_set_close(NULL);
	leat_close(l);
}
END_TEST

struct family {
	struct leat_set *set;
	struct leat_sub *s, *other;
};

static void in_child(void *arg)
{
	struct family *f = arg;
	struct leat_ready r;

	fails(leat_set_wait(f->set, &r, 1, 0), ECHILD);
	fails(leat_set_add_sub(f->set, f->other, NULL), ECHILD);
	leat_set_close(f->set);
}

START_TEST(a_forked_child_has_no_part_in_it)
{
	struct leat *l = (broker_start(NULL), broker_open());
	struct family f = {set_new(), subscriber(l, "a"), subscriber(l, "b")};
	struct leat_pub *p = publisher(l, "a");

	ok(leat_set_add_sub(f.set, f.s, f.s));
	child_ok(child(in_child, &f));
	settle(f.set, &f.s, 1);
	ok(leat_send(p, "x", 1, SEC));
	expect(f.set, f.s);
	leat_set_close(f.set);
	leat_close(l);
}
END_TEST

START_TEST(all_get_their_turn)
{
	struct leat *l = (broker_start(NULL), broker_open());
	struct leat_set *set = set_new();
	struct leat_ready r[3];
	struct leat_sub *s[40];
	int told[40], size = 10;
	char name[16];

	for (int round = 0; round < 2; round++, size = 40) { /* directly, then by epoll */
		for (int i = round ? 10 : 0; i < size; i++) {
			snprintf(name, sizeof(name), "n/%d", i);
			s[i] = subscriber(l, name);
			ok(leat_set_add_sub(set, s[i], s[i]));
			ok(leat_send(publisher(l, name), "x", 1, SEC));
		}
		memset(told, 0, sizeof(told));
		/* None is ever read: all are ready all the time. */
		for (int k = 0; k < size * 10; k++) {
			int n = leat_set_wait(set, r, 3, SEC);

			ck_assert_int_eq(n, 3);
			for (int j = 0; j < n; j++)
				for (int i = 0; i < size; i++)
					told[i] += r[j].data == s[i];
		}
		for (int i = 0; i < size; i++)
			ck_assert_msg(told[i] >= 29 && told[i] <= 31, "%d of %d was told of %d times", i, size, told[i]);
	}
	leat_close(l);
	leat_set_close(set);
}
END_TEST

/* ---- a thousand ---- */

struct crowd {
	char domain[200];
	int n, rounds;
	uint32_t go;
	uint64_t sent_at[1000];  /* 0: it has been received */
};
static struct crowd *crowd;

/* One message at a time to each, so that the next one finds its reader asleep. */
static void talk(void *arg)
{
	static struct leat_pub *p[1000];
	struct leat *l;
	char name[32];

	(void)arg;
	eventually(leat__load_acquire(&crowd->go));
	ok(leat_open(crowd->domain, &l));
	for (int i = 0; i < crowd->n; i++) {
		snprintf(name, sizeof(name), "crowd/%03d", i);
		p[i] = publisher(l, name);
	}
	for (int k = 0; k < crowd->rounds; k++) {
		int i = (int)(rnd() % (uint64_t)crowd->n);
		uint64_t until = leat__now() + 20 * SEC;

		while (leat__load_acquire(&crowd->sent_at[i])) {
			must(leat__now() < until, "message %d, to %d, was never received", k, i);
			usleep(50);
		}
		leat__store_release(&crowd->sent_at[i], leat__now());
		ok(leat_send(p[i], &i, sizeof(i), SEC));
		if (k % 64 == 0)
			usleep(1000 + (useconds_t)(rnd() % 3000)); /* it goes to sleep */
	}
	leat_close(l);
}

static int tasks(void)
{
	DIR *d = opendir("/proc/self/task");
	int n = -2; /* . and .. */

	while (d && readdir(d))
		n++;
	closedir(d);
	return n;
}

/* Receive them all. None waits for long, and next to none for as long as a wake-up that is lost takes to be made good.
 * How many such there were, where the set itself sleeps. */
static uint64_t listen_to_all(int n, int rounds, int fds)
{
	static struct leat_sub *s[1000];
	struct leat_set *set = set_new();
	struct leat_ready r[32];
	struct leat *l;
	uint64_t worst = 0, got = 0, slow = 0, late = leat__bell_late;
	char name[32];
	int pipe_[2];
	pid_t pid;

	crowd = mmap(NULL, sizeof(*crowd), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	strcpy(crowd->domain, broker_start(NULL));
	crowd->n = n;
	crowd->rounds = rounds;
	pid = child(talk, NULL); /* now: a sanitizer's child of a process with threads may find its locks taken */
	l = broker_open();
	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "crowd/%03d", i);
		s[i] = subscriber(l, name);
		ok(leat_set_add_sub(set, s[i], s[i]));
	}
	if (fds) {
		ok(pipe2(pipe_, O_CLOEXEC));
		ok(leat_set_add_fd(set, pipe_[0], POLLIN, NULL));
	}
	leat__store_release(&crowd->go, 1u);
	while (got < (uint64_t)rounds) {
		int k = leat_set_wait(set, r, 32, 20 * SEC);

		ck_assert_msg(k > 0, "%d after %llu messages: %s", k, (unsigned long long)got, leat_why());
		for (int j = 0; j < k; j++) {
			int i;

			while (leat_recv(r[j].data, &i, sizeof(i), NULL, 0) == 0) {
				uint64_t took = leat__now() - crowd->sent_at[i];

				worst = took > worst ? took : worst;
				slow += took > 40 * MS;
				leat__store_release(&crowd->sent_at[i], UINT64_C(0));
				got++;
			}
		}
	}
	child_ok(pid);
	fprintf(stderr, "# %d members%s: the longest wait was %.1f ms, %llu of %d took over 40 ms\n", n,
		fds ? " and a descriptor" : "", (double)worst / 1e6, (unsigned long long)slow, rounds);
	ck_assert_uint_lt(worst, 5 * SEC);
	ck_assert_uint_lt(slow, (uint64_t)rounds / 200);
	ck_assert_int_ge(tasks(), 1 + n / 100); /* a helper for a hundred; ThreadSanitizer has threads of its own */
	if (fds) {
		close(pipe_[0]);
		close(pipe_[1]);
	}
	leat_close(l);
	leat_set_close(set);
	munmap(crowd, sizeof(*crowd));
	return leat__bell_late - late;
}

START_TEST(a_thousand_members_and_none_is_forgotten)
{
	struct rlimit most;

	getrlimit(RLIMIT_NOFILE, &most);
	most.rlim_cur = most.rlim_max;
	setrlimit(RLIMIT_NOFILE, &most);
	ck_assert_msg(most.rlim_max >= 4096, "the limit of open files is too low: ulimit -n");
	listen_to_all(1000, full() ? 200000 : 20000, 0);
}
END_TEST

START_TEST(a_few_members_and_none_is_forgotten)
{
	ck_assert_uint_lt(listen_to_all(8, full() ? 500000 : 50000, 0), full() ? 500 : 50);
}
END_TEST

START_TEST(a_few_and_a_descriptor_and_none_is_forgotten)
{
	listen_to_all(8, full() ? 500000 : 50000, 1);
}
END_TEST

/* From now on, in this process, futex_waitv() fails with @error. */
static void without_waitv(int error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex_waitv, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {4, code};

	ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog), 0);
	ck_assert(syscall(SYS_futex_waitv, NULL, 0, 0, NULL, 0) == -1 && errno == error);
}

START_TEST(without_futex_waitv_it_is_slower_and_that_is_all)
{
	without_waitv(_i ? EPERM : ENOSYS);
	listen_to_all(8, 5000, 0);
}
END_TEST

START_TEST(without_futex_waitv_waiting_is_not_spinning)
{
	struct leat *l = (broker_start(NULL), broker_open());
	struct leat_set *set = set_new();
	struct leat_sub *s[2] = {subscriber(l, "a"), subscriber(l, "b")};
	struct timespec before, after;
	struct leat_ready r;

	without_waitv(_i ? EPERM : ENOSYS);
	for (int i = 0; i < 2; i++)
		ok(leat_set_add_sub(set, s[i], s[i]));
	settle(set, s, 2);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
	fails(leat_set_wait(set, &r, 1, 500 * MS), ETIMEDOUT);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
	ck_assert_int_lt((after.tv_sec - before.tv_sec) * SEC + after.tv_nsec - before.tv_nsec, 200 * MS);
	leat_close(l);
	leat_set_close(set);
}
END_TEST

START_TEST(without_futex_waitv_descriptors_work)
{
	without_waitv(_i ? EPERM : ENOSYS);
	listen_to_all(50, 5000, 0);
}
END_TEST

/* ---- workers that wait in sets and on descriptors ---- */

struct shift {
	char domain[200];
	uint32_t done[4], ready;
	uint32_t jobs;
};
static struct shift *shift;

/* Takes as it is told to by a set (even), or its descriptor (odd). */
static void work(void *arg)
{
	uint32_t me = *(uint32_t *)arg;
	struct leat_set *set = set_new();
	struct leat_queue *q;
	struct leat_ready r;
	const void *job;
	struct leat *l;
	int e;

	ok(leat_open(shift->domain, &l));
	ok(leat_queue_open(l, "jobs", "all", OPTS(leat_queue_opts, .flags = LEAT_UNTIL_ENDED), &q));
	if (me % 2)
		ok(leat_queue_fd(q));
	else
		ok(leat_set_add_queue(set, q, NULL));
	leat__fetch_add(&shift->ready, 1u);
	do {
		while ((e = leat_queue_take(q, &job, NULL, 0)) == 0) {
			ok(leat_queue_ack(q));
			leat__fetch_add(&shift->done[me], 1u);
		}
		if (e == -EAGAIN && me % 2) {
			struct pollfd p = {leat_queue_fd(q), POLLIN, 0};

			must(poll(&p, 1, 20000) == 1, "the descriptor of worker %u never tells", me);
		} else if (e == -EAGAIN) {
			ok(leat_set_wait(set, &r, 1, 20 * SEC));
		}
	} while (e == -EAGAIN);
	must(e == -ENODATA, "worker %u: %d: %s", me, e, leat_why());
	leat_close(l);
	leat_set_close(set);
}

START_TEST(workers_in_sets_and_on_descriptors_share_the_work)
{
	const uint32_t jobs = full() ? 500000 : 20000;
	const struct leat__seat *seat;
	struct leat_queue *q;
	struct leat_pub *p;
	struct leat *l;
	uint32_t done = 0;
	pid_t pids[4];

	shift = mmap(NULL, sizeof(*shift), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	strcpy(shift->domain, broker_start(NULL));
	for (uint32_t i = 0; i < 4; i++)
		pids[i] = child(work, &i);
	eventually(leat__load_acquire(&shift->ready) == 4);
	l = broker_open();
	p = publisher(l, "jobs");
	for (uint32_t i = 0; i < jobs; i++) {
		ok(leat_send(p, &i, sizeof(i), 20 * SEC));
		if (rnd() % 16 == 0)
			usleep((useconds_t)(rnd() % 100)); /* they go to sleep */
		if (i == jobs / 2) { /* one that is on watch, maybe */
			child_kill(pids[0]);
			done = leat__load_acquire(&shift->done[0]);
		}
	}
	leat_pub_close(p);
	for (int i = 1; i < 4; i++)
		child_ok(pids[i]);
	for (int i = 1; i < 4; i++)
		done += shift->done[i];
	/* What the dead one had in hand was done again, or was counted by it already. */
	ck_assert_msg(done == jobs || done + 1 == jobs || done == jobs + 1, "%u of %u", done, jobs);
	/* Of those who slept nobody counts any more but the one that was killed, perhaps. */
	ok(leat_queue_open(l, "jobs", "all", NULL, &q));
	seat = leat__queue_sub(q)->seat;
	ck_assert_uint_le(leat__load_acquire(&leat__ctrl_slots(seat->ctrl, &seat->cg)[seat->group].sleepers), 1);
	leat_close(l);
	munmap(shift, sizeof(*shift));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("set");
	TCase *tc = leak_checked(s, "set", full() ? 600 : 60);

	test(tc, subscribers_workers_servers_and_clients);
	test(tc, and_descriptors);
	tcase_add_loop_test(tc, one_whose_publishers_have_ended_rests, 0, 2);
	test(tc, a_watch);
	test(tc, errors);
	test(tc, a_forked_child_has_no_part_in_it);
	test(tc, all_get_their_turn);
	tc = leak_checked(s, "crowd", full() ? 600 : 120);
	test(tc, a_few_members_and_none_is_forgotten);
	test(tc, a_few_and_a_descriptor_and_none_is_forgotten);
	test(tc, a_thousand_members_and_none_is_forgotten);
	tcase_add_loop_test(tc, without_futex_waitv_it_is_slower_and_that_is_all, 0, 2);
	tcase_add_loop_test(tc, without_futex_waitv_waiting_is_not_spinning, 0, 2);
	tcase_add_loop_test(tc, without_futex_waitv_descriptors_work, 0, 2);
	test(tc, workers_in_sets_and_on_descriptors_share_the_work);
	return run_suite(s);
}
