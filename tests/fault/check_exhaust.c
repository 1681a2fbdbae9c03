/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running out: every call for memory, descriptors, space or a socket fails once, in the library (scenario.c under
 * fault.c) and in the broker; and limits that bite anywhere. Nothing aborts, leaks or hangs; the error names what
 * is missing; and when there is enough again, all works.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "base/atomic.h"
#include "channel/channel.h"
#include "harness.h"

static const char *in_build(const char *file)
{
	static char path[2][300];
	static int i;

	snprintf(path[i ^= 1], 300, "%s/tests/%s", getenv("LEAT_BUILD"), file);
	return path[i];
}

struct limit {
	int resource; /* -1: none */
	rlim_t value;
};

/* Run the scenario; its exit status, or -signal; -1000 if it hangs. */
static int scenario(const char *how, const struct limit *limit)
{
	const char *program = in_build("scenario"), *preload = in_build("libfault.so");
	const char *path = broker_start(NULL);
	uint64_t until = leat__now() + 100 * SEC;
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct rlimit rl = {limit ? limit->value : 0, limit ? limit->value : 0};

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setenv("LD_PRELOAD", preload, 1);
		if (limit && setrlimit((__rlimit_resource_t)limit->resource, &rl) < 0)
			_exit(126);
		execl(program, "scenario", path, how, NULL);
		_exit(127);
	}
	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (leat__now() > until) {
			child_kill(pid);
			return -1000;
		}
		usleep(2000);
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static const char *const families[] = {"heap", "map", "files", "sockets", "threads", "futex"};

START_TEST(every_call_that_can_fail_fails_once)
{
	ck_assert_int_eq(scenario(families[_i], NULL), 0);
}
END_TEST

START_TEST(sixty_four_kilobytes_of_stack_are_enough)
{
	ck_assert_int_eq(scenario("stack", NULL), 0);
}
END_TEST

START_TEST(limits_that_bite_anywhere_are_errors)
{
	int r;

	for (rlim_t n = 3; n < 40; n++) { /* 127: too few to load the program itself */
		r = scenario("-", &(struct limit){RLIMIT_NOFILE, n});
		ck_assert_msg(r == 0 || r == 127, "with %d descriptors: %d", (int)n, r);
	}
	for (rlim_t mib = 4; mib < 64; mib += full() ? 1 : 6) {
		r = scenario("-", &(struct limit){RLIMIT_AS, mib << 20});
		ck_assert_msg(r == 0 || r == 127 || (r == -SIGSEGV && mib < 8), "with %d MiB to map: %d", (int)mib, r);
	}
	for (rlim_t kib = 0; kib < 64; kib += 8) {
		r = scenario("-", &(struct limit){RLIMIT_MEMLOCK, kib << 10});
		ck_assert_int_eq(r, 0);
		r = scenario("-", &(struct limit){RLIMIT_FSIZE, kib << 10});
		ck_assert_msg(r == 0 || r == -SIGXFSZ, "with files of %d KiB: %d", (int)kib, r);
	}
}
END_TEST

/* ---- the broker ---- */

/* A client's life with a broker that may fail at anything: 1 all went well. */
static int client_life(const char *path, char *why, size_t size)
{
	const char *name = random_name();
	struct leat_pub *p;
	struct leat_sub *s;
	uint64_t n = 5;
	struct leat *l = NULL;
	int e = leat_open(path, &l), good = 0;

	if (e == 0) {
		e = leat_sub_open(l, name, NULL, &s);
		if (e == 0)
			e = leat_pub_open(l, name, NULL, &p);
		if (e == 0)
			e = leat_send(p, &n, 8, 0);
		if (e == 0)
			e = leat_recv(s, &n, 8, NULL, 3 * SEC);
		good = e == 0;
	}
	if (e < 0)
		snprintf(why, size, "%s", leat_why());
	if (l)
		leat_close(l);
	return good;
}

static pid_t fragile_broker(const char *path, const char *family, long k)
{
	const char *preload = in_build("libfault.so");
	pid_t pid = fork();
	char fault[40];

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		snprintf(fault, sizeof(fault), "%s:%ld", family, k);
		setenv("LEAT_FAULT", fault, 1);
		setenv("LD_PRELOAD", preload, 1);
		dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), 2);
		execl(getenv("LEAT_LEATD"), "leatd", "--domain", path, "--linger", "0", NULL);
		_exit(127);
	}
	return pid;
}

START_TEST(a_broker_that_runs_out_refuses_and_lives)
{
	const char *family = families[_i];
	char *path = strdup(tmp_path("fragile.sock"));
	int refused = 0, unborn = 0, quiet = 0; /* and calls in a row whose failure nobody notices */
	long k;

	for (k = 1; quiet < 25 && k < (full() ? 400 : 60); k++) {
		pid_t pid = fragile_broker(path, family, k);
		int status, good = 1;
		char why[512] = "";
		struct leat *l = NULL;

		/* It may fail to start, saying so; or it serves. */
		while (leat_open(path, &l) < 0 && waitpid(pid, &status, WNOHANG) == 0)
			usleep(500);
		if (!l) {
			/* libuv gives up by itself when it has no memory for its first tables. */
			ck_assert_msg((WIFEXITED(status) && WEXITSTATUS(status) == 1) ||
				      (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && !strcmp(family, "heap") && k < 12),
				      "%s %ld: status %#x", family, k, status);
			unborn++;
			continue;
		}
		for (int i = 0; i < 30 + k && good; i++) /* a life has one of each kind that it has at all */
			good = client_life(path, why, sizeof(why));
		refused += !good;
		/* Whatever failed, failed once. */
		ck_assert_msg(client_life(path, why, sizeof(why)), "%s %ld: %s", family, k, why);
		ck_assert_msg(kill(pid, 0) == 0 && waitpid(pid, NULL, WNOHANG) == 0, "%s %ld: the broker died", family, k);
		leat_close(l);
		kill(pid, SIGTERM);
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s %ld: status %#x", family, k, status);
		quiet = good ? quiet + 1 : 0;
	}
	figure(11, "%s: %ld calls of the broker failed, one at a time; %d times it did not start, %d times it refused, and lived", family, k,
	       unborn, refused);
	free(path);
}
END_TEST

START_TEST(a_full_filesystem_is_enospc_and_never_a_signal)
{
	char *dir = strdup(tmp_path("small"));
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_FILE, .size = 300 << 10};
	struct leat_region *r[8] = {NULL};
	char name[300];
	int n = 0, e = 0;

	if (mkdir(dir, 0700) < 0 || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", dir, "tmpfs", 0, "size=1m") < 0) {
		fprintf(stderr, "# SKIP mounting a small filesystem needs root\n");
		free(dir);
		return;
	}
	for (; n < 8; n++) {
		snprintf(name, sizeof(name), "%s/%d", dir, n);
		o.name = name;
		e = leat_region_create(&o, &r[n]);
		if (e < 0)
			break;
		memset(leat_region_addr(r[n]), 7, 300 << 10);
	}
	ck_assert_int_eq(e, -ENOSPC);
	ck_assert(strstr(leat_why(), "free") != NULL);
	ck_assert_int_eq(n, 3);
	ck_assert(access(name, F_OK) < 0);
	while (n-- > 0)
		leat_region_close(r[n]);
	umount2(dir, MNT_DETACH);
	free(dir);
}
END_TEST

static int write_text(const char *dir, const char *file, const char *text)
{
	char path[200];
	int fd, r;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	r = write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
	close(fd);
	return r;
}

static void in_a_small_cgroup(void *arg)
{
	struct leat_region *r;
	char pid[20];
	int e;

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	ck_assert_int_eq(write_text(arg, "cgroup.procs", pid), 0);
	e = leat_region_create(OPTS(leat_region_opts, .kind = LEAT_MEMFD, .size = 100000000), &r);
	ck_assert_msg(e == -ENOMEM, "%d", e);
	ck_assert(strstr(leat_why(), "cgroup") != NULL);
	ok(leat_region_create(OPTS(leat_region_opts, .kind = LEAT_MEMFD, .size = 10000000), &r));
	leat_region_close(r);
}

START_TEST(a_cgroup_without_room_is_enomem)
{
	static const char *const roots[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/memory"};
	static const char *const files[] = {"memory.max", "memory.limit_in_bytes"};
	char dir[100];

	for (int i = 0; i < 2; i++) {
		char probe[120];

		snprintf(probe, sizeof(probe), "%s/cgroup.procs", roots[i]);
		snprintf(dir, sizeof(dir), "%s/leat-test.%d", roots[i], (int)getpid());
		if (access(probe, W_OK) < 0 || mkdir(dir, 0755) < 0)
			continue;
		if (write_text(dir, files[i], "50000000") == 0) {
			child_ok(child(in_a_small_cgroup, dir));
			eventually(rmdir(dir) == 0);
			return;
		}
		rmdir(dir);
	}
	fprintf(stderr, "# SKIP no cgroup with a memory limit of our own can be made here\n");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("exhaust");
	TCase *tc = leak_checked(s, "exhaust", 240);

	tcase_add_loop_test(tc, every_call_that_can_fail_fails_once, 0, 6);
	tcase_add_loop_test(tc, a_broker_that_runs_out_refuses_and_lives, 0, 6);
	test(tc, sixty_four_kilobytes_of_stack_are_enough);
	test(tc, limits_that_bite_anywhere_are_errors);
	test(tc, a_full_filesystem_is_enospc_and_never_a_signal);
	test(tc, a_cgroup_without_room_is_enomem);
	return run_suite(s);
}
