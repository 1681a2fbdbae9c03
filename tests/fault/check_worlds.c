/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Worlds that a program may live in without its makers having thought of it: namespaces, other uids, forks of
 * every kind, a library that comes and goes, and many copies of itself.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "base/atomic.h"
#include "channel/channel.h"
#include "harness.h"

static const char *in_build(const char *file)
{
	static char path[4][300];
	static int i;

	i = (i + 1) % 4;
	snprintf(path[i], 300, "%s/%s", getenv("LEAT_BUILD"), file);
	return path[i];
}

/* ---- namespaces ---- */

/* Other temporary files, other shared memory; of the test's directory only the broker's socket, at its place. (Not
 * all of /tmp: the programs themselves may lie there.) */
static void hide_all_but_the_socket(const char *sock)
{
	char keep[300], dir[300];
	int fd;

	snprintf(dir, sizeof(dir), "%s", sock);
	*strrchr(dir, '/') = 0;
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("none", "/dev/shm", "tmpfs", 0, "size=64k") < 0)
		_exit(120);
	snprintf(keep, sizeof(keep), "/dev/shm/kept.sock");
	fd = open(keep, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 || close(fd) < 0 || mount(sock, keep, NULL, MS_BIND, NULL) < 0 ||
	    mount("none", dir, "tmpfs", 0, "size=1m") < 0)
		_exit(121);
	fd = open(sock, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 || close(fd) < 0 || mount(keep, sock, NULL, MS_BIND, NULL) < 0 || umount2(keep, MNT_DETACH) < 0)
		_exit(122);
	unlink(keep);
}

/* A peer in namespaces of its own; as pid 1 where there is a new pid namespace. */
static pid_t peer_in(int flags, const char *role, const char *name)
{
	const char *program = in_build("tests/peer"), *sock = broker_start(NULL);
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setenv("LEAT_BROKER", sock, 1);
		if (unshare(flags) < 0)
			_exit(119);
		if (flags & CLONE_NEWPID) {
			pid = fork();
			if (pid > 0) {
				waitpid(pid, &status, 0);
				_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
			}
			if (getpid() != 1)
				_exit(118);
		}
		if (flags & CLONE_NEWNS)
			hide_all_but_the_socket(sock);
		execl(program, "peer", role, name, "20000", NULL);
		_exit(127);
	}
	return pid;
}

static const struct {
	const char *what;
	int pub, sub;
} places[] = {{"both are pid 1", CLONE_NEWPID, CLONE_NEWPID},
	      {"two user namespaces", CLONE_NEWUSER, CLONE_NEWUSER},
	      {"one in a user namespace", CLONE_NEWUSER, 0},
	      {"a mount namespace that shares the socket alone", CLONE_NEWNS, 0},
	      {"and the other way round", 0, CLONE_NEWNS},
	      {"a container: mounts, pids, network, ipc", CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC, 0}};

START_TEST(messages_pass_between_namespaces)
{
	char *name = strdup(random_name());
	pid_t sub, pub;
	int s1, s2;

	sub = peer_in(places[_i].sub, "sub", name);
	pub = peer_in(places[_i].pub, "pub", name);
	ck_assert(waitpid(pub, &s1, 0) == pub && waitpid(sub, &s2, 0) == sub);
	if (WIFEXITED(s1) && WEXITSTATUS(s1) >= 118 && WEXITSTATUS(s1) <= 122) {
		fprintf(stderr, "# SKIP %s: cannot be made here (%d)\n", places[_i].what, WEXITSTATUS(s1));
	} else {
		ck_assert_msg(!s1 && !s2, "%s: %#x, %#x", places[_i].what, s1, s2);
	}
	free(name);
}
END_TEST

struct one {
	const char *domain, *name;
	int how;
	uint32_t *ready;
};

static void pid_one_reads(void *arg)
{
	struct one *o = arg;
	struct leat_sub *s;
	struct leat *l;

	if (unshare(CLONE_NEWPID) < 0)
		_exit(0);
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		ok(leat_open(o->domain, &l));
		ok(leat_sub_open(l, o->name, NULL, &s));
		leat__store_release(o->ready, (uint32_t)1);
		for (;;)
			pause();
	}
	for (;;)
		pause();
}

START_TEST(the_death_of_a_pid_1_is_seen_with_and_without_a_broker)
{
	struct leat *l = broker_open();
	struct one o = {leat_domain(l), random_name(), 0, NULL};
	uint64_t n = 0, start;
	struct leat_pub *p;
	pid_t pid;

	o.ready = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ok(leat_pub_open(l, o.name, OPTS(leat_pub_opts, .capacity = 4096), &p));
	for (int without = 0; without < 2; without++) {
		*o.ready = 0;
		pid = child(pid_one_reads, &o);
		eventually(leat__load_acquire(o.ready) || waitpid(pid, NULL, WNOHANG) == pid);
		if (!*o.ready) {
			fprintf(stderr, "# SKIP no pid namespace can be made here\n");
			break;
		}
		while (leat_send(p, &n, 8, 0) == 0)
			n++;
		if (without)
			broker_kill(SIGKILL);
		start = leat__now();
		child_kill(pid);
		ok(leat_send(p, &n, 8, 5 * SEC));
		ck_assert_msg(leat__now() - start < SEC, "seen after %.3f s", (double)(leat__now() - start) / 1e9);
	}
	munmap(o.ready, 4096);
	leat_close(l);
}
END_TEST

/* ---- forks ---- */

static void forks_and_dies(void *arg)
{
	struct one *o = arg;
	struct leat_pub *p;
	struct leat_sub *s;
	struct leat *l;
	long pid;

	ok(leat_open(o->domain, &l));
	ok(leat_pub_open(l, o->name, NULL, &p));
	ok(leat_sub_open(l, o->name, NULL, &s));
	ok(leat_send(p, "x", 1, 0));
	pid = o->how == 0 ? fork() : o->how == 1 ? _Fork() : syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0) { /* it lives on, and touches nothing */
		leat__store_release(o->ready, (uint32_t)getpid());
		for (;;)
			pause();
	}
	eventually(leat__load_acquire(o->ready));
	raise(SIGKILL);
}

START_TEST(children_that_outlive_their_parent_do_not_live_for_it)
{
	struct leat *l = broker_open();
	struct one o = {leat_domain(l), random_name(), _i, NULL};
	struct leat_stat st = {.struct_size = sizeof(st)};
	struct leat_sub *s;
	struct leat_info info;
	char b[8];
	pid_t pid;

	o.ready = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	ok(leat_sub_open(l, o.name, OPTS(leat_sub_opts, .flags = LEAT_UNTIL_ENDED), &s));
	pid = child(forks_and_dies, &o);
	ck_assert(waitpid(pid, NULL, 0) == pid);
	ok(leat_recv(s, b, sizeof(b), &info, SEC));
	fails(leat_recv(s, b, sizeof(b), &info, 2 * SEC), ENODATA);
	eventually(leat_stat(l, o.name, &st, NULL, NULL) == 0 && st.publishers == 0 && st.subscribers == 1);
	child_kill((pid_t)*o.ready);
	munmap(o.ready, 4096);
	leat_close(l);
}
END_TEST

/* ---- the library comes and goes ---- */

struct loaded {
	void (*close_fn)(struct leat *);
	struct leat *l;
};

static void close_in_child(void *arg)
{
	const struct loaded *x = arg;

	x->close_fn(x->l);
}

static void forks_again(void *arg)
{
	pid_t pid = fork();

	(void)arg;
	if (pid == 0)
		_exit(0);
	child_ok(pid);
}

START_TEST(loaded_and_unloaded_a_thousand_times)
{
	const char *path = broker_start(NULL), *file = in_build("lib/libleat.so");
	int fds = 0, maps = 0;

	for (int i = 0; i < 1000; i++) {
		void *lib = dlopen(file, RTLD_NOW | RTLD_LOCAL);
		int (*open_fn)(const char *, struct leat **);
		int (*pub_fn)(struct leat *, const char *, const struct leat_pub_opts *, struct leat_pub **);
		void (*close_fn)(struct leat *);
		struct leat_pub *p;
		struct leat *l;

		ck_assert_msg(lib != NULL, "%s", dlerror());
		*(void **)(void *)&open_fn = dlsym(lib, "leat_open");
		*(void **)(void *)&pub_fn = dlsym(lib, "leat_pub_open");
		*(void **)(void *)&close_fn = dlsym(lib, "leat_close");
		must(open_fn(path, &l) == 0, "open, round %d", i);
		must(i % 10 || pub_fn(l, "loaded", NULL, &p) == 0, "publisher, round %d", i);
		if (i % 100 == 0)
			child_ok(child(close_in_child, &(struct loaded){close_fn, l}));
		close_fn(l);
		must(dlclose(lib) == 0, "unload, round %d", i);
		if (i == 10) {
			fds = count_fds();
			maps = count_maps("");
		}
	}
	child_ok(child(forks_again, NULL)); /* no handler of a library that is gone */
	ck_assert_int_eq(count_fds(), fds);
	ck_assert_int_le(count_maps(""), maps + 2);
}
END_TEST

START_TEST(thirty_two_copies_of_a_suite_do_not_meet)
{
	static const char *const suites[] = {"check_wire", "check_region", "check_ring", "check_channel"};
	const char *program = in_build("tests");
	pid_t pids[32];
	int bad = 0;

	for (int k = 0; k < (full() ? 4 : 1); k++) {
		for (int i = 0; i < 32; i++) {
			pids[i] = fork();
			if (pids[i] == 0) {
				char path[400];

				prctl(PR_SET_PDEATHSIG, SIGKILL);
				unsetenv("LEAT_FULL");
				setenv("CK_TIMEOUT_MULTIPLIER", "20", 1);
				snprintf(path, sizeof(path), "%s/%s", program, suites[k]);
				dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), 1);
				dup2(1, 2);
				setenv("CK_TAP_LOG_FILE_NAME", "/dev/null", 1);
				execl(path, suites[k], NULL);
				_exit(127);
			}
		}
		for (int i = 0; i < 32; i++) {
			int status;

			ck_assert(waitpid(pids[i], &status, 0) == pids[i]);
			bad += status != 0;
		}
		ck_assert_msg(!bad, "%s: %d of 32 copies failed", suites[k], bad);
	}
}
END_TEST

/* ---- other uids, and a kernel that protects files in /tmp ---- */

static void other_uid(void *arg)
{
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_POSIX, .name = arg, .size = 4096,
				     .flags = LEAT_ATTACH, .mode = 0666};
	char own[64];
	struct leat_region *r;

	ck_assert(setresuid(65534, 65534, 65534) == 0);
	ok(leat_region_create(&o, &r)); /* it is there: attached */
	ck_assert_int_eq(*(char *)leat_region_addr(r), 'r');
	leat_region_close(r);
	snprintf(own, sizeof(own), "%s-65534", (char *)arg);
	o.name = own;
	ok(leat_region_create(&o, &r));
	leat_region_close(r);
	ok(leat_region_unlink(LEAT_POSIX, own));
}

START_TEST(other_uids_attach_whatever_the_kernel_protects)
{
	char name[64], old[8] = "";
	struct leat_region *r;
	int fd = open("/proc/sys/fs/protected_regular", O_RDWR | O_CLOEXEC);

	if (fd < 0 || read(fd, old, 1) != 1) {
		fprintf(stderr, "# SKIP fs.protected_regular cannot be set here\n");
		if (fd >= 0)
			close(fd);
		return;
	}
	for (char v = '0'; v <= '2'; v++) {
		int can = pwrite(fd, &v, 1, 0) == 1;

		snprintf(name, sizeof(name), "/leat-%016llx", (unsigned long long)rnd());
		ok(leat_region_create(OPTS(leat_region_opts, .kind = LEAT_POSIX, .name = name, .size = 4096, .mode = 0666), &r));
		*(char *)leat_region_addr(r) = 'r';
		child_ok(child(other_uid, name));
		leat_region_close(r);
		ok(leat_region_unlink(LEAT_POSIX, name));
		if (!can) {
			fprintf(stderr, "# SKIP fs.protected_regular cannot be set here\n");
			break;
		}
	}
	ck_assert(pwrite(fd, old, 1, 0) == 1 || errno);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("worlds");
	TCase *tc = leak_checked(s, "worlds", full() ? 1800 : 240);

	tcase_add_loop_test(tc, messages_pass_between_namespaces, 0, sizeof(places) / sizeof(places[0]));
	test(tc, the_death_of_a_pid_1_is_seen_with_and_without_a_broker);
	tcase_add_loop_test(tc, children_that_outlive_their_parent_do_not_live_for_it, 0, 3);
	test(tc, loaded_and_unloaded_a_thousand_times);
	test(tc, thirty_two_copies_of_a_suite_do_not_meet);
	test(tc, other_uids_attach_whatever_the_kernel_protects);
	return run_suite(s);
}
