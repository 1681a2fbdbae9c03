/* SPDX-License-Identifier: Apache-2.0 */
/* Regions by name: who finds what, who may write it, and what is left when the one who shares it is gone. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include "base/atomic.h"
#include "channel/channel.h"
#include "harness.h"

#define SIZE 8192

static struct leat_region *region_of(enum leat_region_kind kind)
{
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = kind, .size = SIZE};
	struct leat_region *r;
	char name[64];

	snprintf(name, sizeof(name), "/leat-test-%llx", (unsigned long long)rnd());
	o.name = kind == LEAT_FILE ? tmp_path(name + 1) : kind == LEAT_POSIX ? name : NULL;
	ok(leat_region_create(&o, &r));
	if (kind == LEAT_POSIX)
		ok(leat_region_unlink(kind, name));
	return r;
}

static struct leat_share *share(struct leat *l, const char *name, unsigned flags)
{
	struct leat_region *r = region_of(LEAT_MEMFD);
	struct leat_share *s;

	strcpy(leat_region_addr(r), name);
	ok(leat_region_share(l, name, r, flags, &s));
	leat_region_close(r);
	return s;
}

struct order {
	char domain[200], name[64];
	enum leat_region_kind kind;
};

/* A stranger: maps it, reads what is there and answers. */
static void find_and_answer(void *arg)
{
	struct leat_found f = {.struct_size = sizeof(f)};
	const struct order *o = arg;
	struct leat_region *r;
	struct leat *l;
	char *text;

	ok(leat_open(o->domain, &l));
	ok(leat_region_find(l, o->name, 0, &f, &r));
	text = leat_region_addr(r);
	ck_assert_str_eq(text, "question");
	ck_assert_str_eq(f.name, o->name);
	ck_assert(f.pid == getppid() && f.size == SIZE && f.writable && leat_region_size(r) == SIZE);
	ck_assert_int_eq((int)f.sealed, o->kind == LEAT_MEMFD);
	strcpy(text + 4096, "answer");
	leat_region_close(r);
	leat_close(l);
}

START_TEST(a_stranger_finds_a_region_of_every_kind_that_has_a_descriptor)
{
	struct order o = {.kind = (enum leat_region_kind)_i};
	struct leat_region *r = region_of(o.kind);
	struct leat_share *s;
	struct leat *l = broker_open();

	snprintf(o.domain, sizeof(o.domain), "%s", leat_domain(l));
	snprintf(o.name, sizeof(o.name), "%s", random_name());
	strcpy(leat_region_addr(r), "question");
	ok(leat_region_share(l, o.name, r, 0, &s));
	child_ok(child(find_and_answer, &o));
	ck_assert_str_eq((char *)leat_region_addr(r) + 4096, "answer");
	leat_region_close(r);
	leat_region_unshare(s);
	leat_close(l);
}
END_TEST

START_TEST(what_is_shared_read_only_cannot_be_written)
{
	enum leat_region_kind kind = (enum leat_region_kind)_i;
	struct leat_found f = {.struct_size = sizeof(f)};
	struct leat_region *r = region_of(kind), *found;
	const char *name = random_name();
	struct leat *l = broker_open();
	struct leat_share *s;
	char path[64];
	void *at;
	int fd;

	ok(leat_region_share(l, name, r, LEAT_RDONLY, &s));
	fails(leat_region_find(l, name, 0, &f, &found), EACCES);
	ok(leat_region_find(l, name, LEAT_RDONLY | LEAT_PREFAULT, &f, &found));
	ck_assert_uint_eq(f.writable, 0);
	strcpy(leat_region_addr(r), "by its owner");
	ck_assert_str_eq(leat_region_addr(found), "by its owner");
	fd = leat_region_fd(found);
	ck_assert(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
	ck_assert(write(fd, "x", 1) < 0);
	if (kind == LEAT_MEMFD) { /* the kernel's seal holds however it is opened */
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd >= 0) {
			at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
			ck_assert(at == MAP_FAILED && write(fd, "x", 1) < 0 && ftruncate(fd, 0) < 0);
			close(fd);
		}
	}
	leat_region_close(found);
	leat_region_unshare(s);
	ok(leat_region_share(l, name, r, LEAT_RDONLY, &s)); /* sealed already */
	leat_region_close(r);
	leat_close(l);
}
END_TEST

static void share_and_hang(void *arg)
{
	const struct order *o = arg;
	struct leat *l;

	ok(leat_open(o->domain, &l));
	share(l, o->name, 0);
	for (;;)
		pause();
}

START_TEST(a_name_is_one_sharers_and_its_successors_region_is_another)
{
	struct leat_found f = {.struct_size = sizeof(f)}, g = f;
	struct leat_region *old, *new;
	struct leat *l = broker_open();
	struct leat_share *s;
	struct order o = {0};
	pid_t pid;

	snprintf(o.domain, sizeof(o.domain), "%s", leat_domain(l));
	snprintf(o.name, sizeof(o.name), "%s", random_name());
	fails(leat_region_find(l, o.name, 0, NULL, &old), ENOENT);
	pid = child(share_and_hang, &o);
	eventually(leat_region_find(l, o.name, 0, &f, &old) == 0);
	new = region_of(LEAT_MEMFD);
	fails(leat_region_share(l, o.name, new, 0, &s), EEXIST);
	child_kill(pid);
	eventually(leat_region_share(l, o.name, new, 0, &s) == 0);
	leat_region_close(new);
	ok(leat_region_find(l, o.name, 0, &g, &new));
	ck_assert_uint_gt(g.generation, f.generation);
	ck_assert_str_eq(leat_region_addr(old), o.name);
	ck_assert_str_eq(leat_region_addr(new), "");
	leat_region_unshare(s);
	fails(leat_region_find(l, o.name, 0, &g, NULL), ENOENT);
	strcpy(leat_region_addr(old), "still mine");
	leat_region_close(old);
	leat_region_close(new);
	leat_close(l);
}
END_TEST

struct seen {
	char last[256];
	int n, stop_at;
};

static int see(const struct leat_found *f, void *arg)
{
	struct seen *s = arg;

	ck_assert(strcmp(f->name, s->last) > 0 && f->size == SIZE && f->pid == getpid());
	strcpy(s->last, f->name);
	return ++s->n == s->stop_at ? 7 : 0;
}

START_TEST(lists_are_whole_and_sorted)
{
	struct leat *l = broker_open();
	struct leat_share *all[300];
	struct seen s = {.stop_at = 1000};
	char name[64];

	ok(leat_region_list(l, NULL, see, &s));
	ck_assert_int_eq(s.n, 0);
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "%s/%d", i % 3 ? "many" : "some", (i * 7919) % 1000);
		all[i] = share(l, name, 0);
	}
	ok(leat_region_list(l, NULL, see, &s));
	ck_assert_int_eq(s.n, 300);
	s = (struct seen){.stop_at = 1000};
	ok(leat_region_list(l, "some/", see, &s));
	ck_assert_int_eq(s.n, 100);
	s = (struct seen){.stop_at = 250};
	ck_assert_int_eq(leat_region_list(l, NULL, see, &s), 7);
	for (int i = 0; i < 299; i++)
		leat_region_unshare(all[i]);
	s = (struct seen){.stop_at = 1000};
	ok(leat_ping(l, NULL));
	ok(leat_region_list(l, NULL, see, &s));
	ck_assert_int_eq(s.n, 1);
	leat_close(l);
}
END_TEST

static void lock_and_die(void *arg)
{
	const struct order *o = arg;
	struct leat_region *r;
	struct leat *l;

	ok(leat_open(o->domain, &l));
	ok(leat_region_find(l, o->name, 0, NULL, &r));
	ok(leat_mutex_lock(r, leat_region_addr(r), SEC));
	ok(leat_sem_post((struct leat_sem *)(void *)((char *)leat_region_addr(r) + 64)));
	raise(SIGKILL);
}

START_TEST(mutexes_and_semaphores_work_in_it_and_a_dead_owner_is_known)
{
	struct leat_region *r = region_of(LEAT_MEMFD);
	struct leat *l = broker_open();
	struct leat_sem *sem = (void *)((char *)leat_region_addr(r) + 64);
	struct leat_mutex *m = leat_region_addr(r);
	struct leat_share *s;
	struct order o = {0};
	pid_t pid;

	snprintf(o.domain, sizeof(o.domain), "%s", leat_domain(l));
	snprintf(o.name, sizeof(o.name), "%s", random_name());
	ok(leat_mutex_init(m));
	ok(leat_sem_init(sem, 0));
	ok(leat_region_share(l, o.name, r, 0, &s));
	pid = child(lock_and_die, &o);
	ok(leat_sem_wait(sem, 10 * SEC));
	fails(leat_mutex_lock(r, m, 10 * SEC), EOWNERDEAD);
	ok(leat_mutex_repair(r, m));
	ok(leat_mutex_unlock(r, m));
	waitpid(pid, NULL, 0);
	leat_region_close(r);
	leat_close(l);
}
END_TEST

START_TEST(a_restarted_broker_is_told_again)
{
	struct leat_found f = {.struct_size = sizeof(f)}, g = f;
	struct leat *l = broker_open(), *k;
	const char *name = random_name();
	struct leat_region *r;

	share(l, name, LEAT_RDONLY);
	ok(leat_region_find(l, name, LEAT_RDONLY, &f, &r));
	leat_region_close(r);
	for (int lives = 0; lives < 3; lives++) {
		broker_kill(SIGKILL);
		fails(leat_region_find(l, name, LEAT_RDONLY, &f, &r), ECONNRESET);
		broker_start(NULL);
		ok(leat_open(leat_domain(l), &k));
		eventually((leat_dispatch(l), leat_region_find(k, name, LEAT_RDONLY, &g, &r)) == 0);
		ck_assert_uint_gt(g.generation, f.generation);
		ck_assert_str_eq(leat_region_addr(r), name);
		leat_region_close(r);
		leat_close(k);
		f = g;
	}
	leat_close(l);
}
END_TEST

START_TEST(what_cannot_be_shared_is_refused)
{
	struct leat_region *anon, *ro, *r = region_of(LEAT_MEMFD), *found;
	struct leat *l = broker_open();
	const char *name = random_name();
	struct leat_share *s;

	ok(leat_region_create(OPTS(leat_region_opts, .kind = LEAT_ANON, .size = SIZE), &anon));
	ok(leat_region_open(OPTS(leat_region_opts, .kind = LEAT_MEMFD, .fd = leat_region_fd(r), .flags = LEAT_RDONLY), &ro));
	fails(leat_region_share(l, name, anon, 0, &s), ENOTSUP);
	fails(leat_region_share(l, name, ro, 0, &s), EACCES);
	fails(leat_region_share(l, "no name", r, 0, &s), EINVAL);
	fails(leat_region_share(l, name, r, LEAT_HUGE, &s), EINVAL);
	fails(leat_region_find(l, "no name", 0, NULL, &found), EINVAL);
	fails(leat_region_find(l, name, LEAT_PRIVATE, NULL, &found), EINVAL);
	leat_region_unshare(NULL);
	leat_region_close(anon);
	leat_region_close(ro);
	leat_region_close(r);
	leat_close(l);
}
END_TEST

/* What a client says that does not use the library. */
static int say(struct leat *l, unsigned type, uint64_t object, const char *name, const struct leat__wire_share *w, int fd,
	       uint64_t *ret)
{
	struct leat__packet pkt;
	struct leat__out out;
	struct leat__in in;
	int e;

	leat__wire_begin(&out, (uint16_t)type, 0, object);
	if (name)
		leat__wire_text(&out, LEAT__T_NAME, name);
	if (w)
		leat__wire_bytes(&out, LEAT__T_SHARE, w, sizeof(*w));
	e = leat__request(l, &out, fd, &pkt, &in);
	if (e == 0) {
		leat__packet_close(&pkt);
		*ret = in.head.object;
	}
	return e;
}

START_TEST(a_liar_shares_nothing_and_the_broker_goes_on)
{
	struct leat__wire_share w = {.size = SIZE, .writable = 1}, large = {.size = SIZE + 1, .writable = 1},
				ro = {.size = SIZE}, none = {.writable = 1};
	struct leat *l = broker_open(), *honest = broker_open();
	struct leat_region *r = region_of(LEAT_MEMFD), *found;
	const char *name = random_name();
	uint64_t object;
	int p[2], fd, path;

	fd = leat_region_fd(r);
	ck_assert(pipe2(p, O_CLOEXEC) == 0);
	path = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	fails(say(l, LEAT__SHARE, 0, name, &w, p[0], &object), EINVAL);
	fails(say(l, LEAT__SHARE, 0, name, &w, path, &object), EINVAL);
	fails(say(l, LEAT__SHARE, 0, name, &large, fd, &object), EINVAL);
	fails(say(l, LEAT__SHARE, 0, name, &ro, fd, &object), EINVAL);
	fails(say(l, LEAT__SHARE, 0, name, &none, fd, &object), EINVAL);
	fails(say(l, LEAT__SHARE, 0, "no name", &w, fd, &object), EINVAL);
	fails(say(l, LEAT__FIND, 0, name, NULL, -1, &object), ENOENT);
	ok(say(l, LEAT__SHARE, 0, name, &w, fd, &object));
	/* It is no channel. */
	fails(say(l, LEAT__RINGS, object, NULL, NULL, -1, &object), ENOENT);
	fails(say(l, LEAT__PEERS, object, NULL, NULL, -1, &object), ENOENT);
	ok(leat_region_find(honest, name, 0, NULL, &found));
	leat_region_close(found);
	leat_region_close(r);
	close(p[0]);
	close(p[1]);
	close(path);
	leat__request_close(l, object);
	ok(leat_ping(l, NULL));
	fails(leat_region_find(honest, name, 0, NULL, &found), ENOENT);
	leat_close(l);
	leat_close(honest);
}
END_TEST

START_TEST(what_was_shared_too_late_is_not_shared)
{
	struct leat__wire_share w = {.size = SIZE, .writable = 1};
	struct leat *l = broker_open(), *honest = broker_open();
	struct leat_region *r = region_of(LEAT_MEMFD), *found;
	const char *name = random_name();
	struct leat__errand asked = {0};
	struct leat__packet pkt;
	struct leat__out out;
	struct leat__in in;

	broker_signal(SIGSTOP);
	leat__wire_begin(&out, LEAT__SHARE, 0, 0);
	leat__wire_text(&out, LEAT__T_NAME, name);
	leat__wire_bytes(&out, LEAT__T_SHARE, &w, sizeof(w));
	fails(leat__errand(l, &asked, &out, leat_region_fd(r), &pkt, &in, 10000000, NULL), ETIMEDOUT);
	leat__errand_drop(l, &asked);
	broker_signal(SIGCONT);
	ok(leat_ping(l, NULL)); /* hears of it */
	ok(leat_ping(l, NULL));
	fails(leat_region_find(honest, name, 0, NULL, &found), ENOENT);
	leat_region_close(r);
	leat_close(l);
	leat_close(honest);
}
END_TEST

static void use_parents(void *arg)
{
	struct leat_region *found, *r = region_of(LEAT_MEMFD);
	struct leat_share *s;

	fails(leat_region_find(arg, "a", 0, NULL, &found), ECHILD);
	fails(leat_region_share(arg, "a", r, 0, &s), ECHILD);
	leat_region_close(r);
	leat_close(arg);
}

START_TEST(a_forked_childs_shares_are_its_parents)
{
	struct leat_region *found;
	struct leat *l = broker_open();
	const char *name = random_name();

	share(l, name, 0);
	child_ok(child(use_parents, l));
	ok(leat_region_find(l, name, 0, NULL, &found));
	leat_region_close(found);
	leat_close(l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("share");
	TCase *tc = leak_checked(s, "share", 60);

	tcase_add_loop_test(tc, a_stranger_finds_a_region_of_every_kind_that_has_a_descriptor, LEAT_MEMFD, LEAT_FILE + 1);
	tcase_add_loop_test(tc, what_is_shared_read_only_cannot_be_written, LEAT_MEMFD, LEAT_FILE + 1);
	test(tc, a_name_is_one_sharers_and_its_successors_region_is_another);
	test(tc, lists_are_whole_and_sorted);
	test(tc, mutexes_and_semaphores_work_in_it_and_a_dead_owner_is_known);
	test(tc, a_restarted_broker_is_told_again);
	test(tc, what_cannot_be_shared_is_refused);
	test(tc, a_liar_shares_nothing_and_the_broker_goes_on);
	test(tc, what_was_shared_too_late_is_not_shared);
	test(tc, a_forked_childs_shares_are_its_parents);
	return run_suite(s);
}
