/* SPDX-License-Identifier: Apache-2.0 */
/* Regions: every kind, every option, every limit, and creation races with killed creators. */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "harness.h"

#define REGION(...) OPTS(leat_region_opts, __VA_ARGS__)

static const char *posix_name(void)
{
	static char name[4][64];
	static int i;
	char *p = name[i++ % 4];

	snprintf(p, 64, "/leat-test-%016llx", (unsigned long long)rnd());
	return p;
}

static const char *name_for(enum leat_region_kind kind)
{
	return kind == LEAT_POSIX ? posix_name() : kind == LEAT_FILE ? tmp_path("region") : NULL;
}

START_TEST(every_kind_is_made_zeroed_written_and_closed)
{
	enum leat_region_kind kind = (enum leat_region_kind)_i;
	const char *name = name_for(kind);
	struct leat_region *r;
	unsigned char *p;

	ok(leat_region_create(REGION(.kind = kind, .name = name, .size = 100000,
				     .flags = LEAT_PREFAULT),
			      &r));
	ck_assert_uint_ge(leat_region_size(r), 100000);
	ck_assert_uint_eq(leat_region_size(r) % (uint64_t)sysconf(_SC_PAGESIZE), 0);
	p = leat_region_addr(r);
	for (uint64_t i = 0; i < leat_region_size(r); i++)
		ck_assert_uint_eq(p[i], 0);
	memset(p, 7, leat_region_size(r));
	ok(leat_region_sync(r, 0, leat_region_size(r)));
	for (int a = LEAT_NORMAL; a <= LEAT_DONTDUMP; a++)
		ok(leat_region_advise(r, 0, leat_region_size(r), (enum leat_advice)a));
	fails(leat_region_advise(r, 0, 4096, (enum leat_advice)9), EINVAL);
	fails(leat_region_sync(r, 1, 1), EINVAL);
	fails(leat_region_sync(r, 0, leat_region_size(r) + 1), EINVAL);
	if (kind == LEAT_ANON || kind == LEAT_SYSV)
		fails(leat_region_fd(r), ENOTSUP);
	else
		ok(leat_region_fd(r));
	if (kind == LEAT_SYSV)
		ok(leat_region_id(r));
	else
		fails(leat_region_id(r), ENOTSUP);
	leat_region_close(r);
	if (name)
		ok(leat_region_unlink(kind, name));
}
END_TEST

START_TEST(a_named_region_is_found_by_strangers)
{
	enum leat_region_kind kind = (enum leat_region_kind)_i;
	const char *name = name_for(kind);
	struct leat_region *a, *b, *ro, *cow;

	fails(leat_region_open(REGION(.kind = kind, .name = name), &b), ENOENT);
	ok(leat_region_create(REGION(.kind = kind, .name = name, .size = 8192, .mode = 0640), &a));
	fails(leat_region_create(REGION(.kind = kind, .name = name, .size = 8192), &b), EEXIST);
	ok(leat_region_create(REGION(.kind = kind, .name = name, .size = 8192, .flags = LEAT_ATTACH), &b));
	ok(leat_region_open(REGION(.kind = kind, .name = name, .flags = LEAT_RDONLY), &ro));
	ok(leat_region_open(REGION(.kind = kind, .name = name, .flags = LEAT_PRIVATE), &cow));
	fails(leat_region_open(REGION(.kind = kind, .name = name, .size = 8193), &b), EINVAL);
	strcpy(leat_region_addr(b), "hello");
	ck_assert_str_eq(leat_region_addr(a), "hello");
	ck_assert_str_eq(leat_region_addr(ro), "hello");
	strcpy(leat_region_addr(cow), "mine");
	ck_assert_str_eq(leat_region_addr(a), "hello");
	leat_region_close(cow);
	leat_region_close(ro);
	leat_region_close(b);
	leat_region_close(a);
	ok(leat_region_unlink(kind, name));
	fails(leat_region_unlink(kind, name), ENOENT);
}
END_TEST

static void write_to_read_only(void *arg)
{
	struct leat_region *r;

	ok(leat_region_open(REGION(.kind = LEAT_POSIX, .name = arg, .flags = LEAT_RDONLY), &r));
	*(volatile char *)leat_region_addr(r) = 1;
}

START_TEST(read_only_is_read_only)
{
	const char *name = posix_name();
	struct leat_region *r;
	int status;
	pid_t pid;

	ok(leat_region_create(REGION(.kind = LEAT_POSIX, .name = name, .size = 4096), &r));
	pid = fork();
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		write_to_read_only((void *)(uintptr_t)name);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	ck_assert((WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) ||
		  (WIFEXITED(status) && WEXITSTATUS(status) != 0)); /* a sanitizer exits instead */
	leat_region_close(r);
	ok(leat_region_unlink(LEAT_POSIX, name));
}
END_TEST

static void open_forbidden(void *arg)
{
	struct leat_region *r;

	if (geteuid() == 0)
		ck_assert(setresuid(65534, 65534, 65534) == 0);
	fails(leat_region_open(REGION(.kind = LEAT_FILE, .name = arg), &r), EACCES);
	fails(leat_region_create(REGION(.kind = LEAT_FILE, .name = "/usr/x", .size = 1), &r), EACCES);
}

START_TEST(permissions_are_kept)
{
	const char *name = tmp_path("mine");
	struct leat_region *r;

	ok(leat_region_create(REGION(.kind = LEAT_FILE, .name = name, .size = 1, .mode = 0400), &r));
	child_ok(child(open_forbidden, (void *)(uintptr_t)name));
	leat_region_close(r);
}
END_TEST

START_TEST(a_memfd_is_shared_by_its_descriptor)
{
	struct leat_region *a, *b;

	ok(leat_region_create(REGION(.kind = LEAT_MEMFD, .size = 4096), &a));
	ok(leat_region_open(REGION(.kind = LEAT_MEMFD, .fd = leat_region_fd(a)), &b));
	strcpy(leat_region_addr(a), "x");
	ck_assert_str_eq(leat_region_addr(b), "x");
	ck_assert(ftruncate(leat_region_fd(b), 1) < 0); /* sealed */
	fails(leat_region_open(REGION(.kind = LEAT_MEMFD, .fd = 999), &b), EBADF);
	fails(leat_region_open(REGION(.kind = LEAT_MEMFD, .fd = 0, .size = 1 << 20), &b), EINVAL);
	leat_region_close(a);
	ck_assert_str_eq(leat_region_addr(b), "x");
	leat_region_close(b);
}
END_TEST

static void write_inherited(void *arg)
{
	strcpy(arg, "child");
}

START_TEST(an_anonymous_region_is_shared_with_children)
{
	struct leat_region *r;

	ok(leat_region_create(REGION(.kind = LEAT_ANON, .size = 4096), &r));
	child_ok(child(write_inherited, leat_region_addr(r)));
	ck_assert_str_eq(leat_region_addr(r), "child");
	fails(leat_region_open(REGION(.kind = LEAT_ANON), &r), ENOTSUP);
	leat_region_close(r);
}
END_TEST

START_TEST(system_v_by_id_and_by_key)
{
	int key = (int)(rnd() & 0x7fffffff) | 1, id;
	struct leat_region *a, *b;

	ok(leat_region_create(REGION(.kind = LEAT_SYSV, .size = 4096), &a));
	ok(leat_region_open(REGION(.kind = LEAT_SYSV, .id = leat_region_id(a)), &b));
	strcpy(leat_region_addr(a), "x");
	ck_assert_str_eq(leat_region_addr(b), "x");
	id = leat_region_id(a);
	leat_region_close(a);
	leat_region_close(b);
	ck_assert(shmget(IPC_PRIVATE, 0, 0) != id);
	fails(leat_region_open(REGION(.kind = LEAT_SYSV, .id = id), &b), ENOENT); /* gone with its last user */
	ok(leat_region_create(REGION(.kind = LEAT_SYSV, .size = 4096, .key = key), &a));
	fails(leat_region_create(REGION(.kind = LEAT_SYSV, .size = 4096, .key = key), &b), EEXIST);
	ok(leat_region_open(REGION(.kind = LEAT_SYSV, .key = key, .flags = LEAT_RDONLY), &b));
	leat_region_close(b);
	leat_region_close(a); /* removes it */
	fails(leat_region_open(REGION(.kind = LEAT_SYSV, .key = key), &b), ENOENT);
}
END_TEST

START_TEST(nonsense_is_refused)
{
	struct leat_region *r = (void *)1;

	fails(leat_region_create(NULL, &r), EINVAL);
	fails(leat_region_create(REGION(.kind = 0, .size = 1), &r), EINVAL);
	fails(leat_region_create(REGION(.kind = LEAT_MEMFD, .size = 0), &r), EINVAL);
	fails(leat_region_create(REGION(.kind = LEAT_MEMFD, .size = UINT64_MAX), &r), EINVAL);
	fails(leat_region_create(REGION(.kind = LEAT_MEMFD, .size = 1, .flags = 1u << 30), &r), EINVAL);
	fails(leat_region_create(REGION(.kind = LEAT_MEMFD, .size = 1, .mode = 07777), &r), EINVAL);
	fails(leat_region_create(REGION(.kind = LEAT_POSIX, .size = 1), &r), EINVAL);
	fails(leat_region_create(REGION(.kind = LEAT_POSIX, .size = 1, .name = "a"), &r), EINVAL);
	fails(leat_region_create(REGION(.kind = LEAT_POSIX, .size = 1, .name = "/a/b"), &r), EINVAL);
	fails(leat_region_create(REGION(.kind = LEAT_ANON, .size = 1, .flags = LEAT_PRIVATE), &r), ENOTSUP);
	fails(leat_region_create(REGION(.kind = LEAT_FILE, .name = "/tmp/x", .size = 1, .flags = LEAT_HUGE), &r),
	      ENOTSUP);
	fails(leat_region_open(REGION(.kind = LEAT_FILE, .name = tmp_dir()), &r), EISDIR);
	fails(leat_region_open(REGION(.kind = LEAT_FILE, .name = "/dev/null"), &r), EINVAL);
	fails(leat_region_create(REGION(.kind = LEAT_FILE, .name = "/nonexistent/x", .size = 1), &r), ENOENT);
	fails(leat_region_unlink(LEAT_MEMFD, "x"), EINVAL);
	ck_assert_ptr_eq(r, (void *)1);
}
END_TEST

START_TEST(a_plan_tells_what_a_region_takes)
{
	struct leat_region_plan p = {.struct_size = sizeof(p)};

	ok(leat_region_plan(REGION(.kind = LEAT_FILE, .name = tmp_path("p"), .size = 5000), &p));
	ck_assert_uint_eq(p.bytes % p.page, 0);
	ck_assert_uint_ge(p.bytes, 5000);
	ck_assert_uint_gt(p.available, 0);
	ck_assert_str_eq(p.limit, "the filesystem");
	fails(leat_region_plan(REGION(.kind = LEAT_MEMFD), &p), EINVAL);
	ck_assert(access(tmp_path("p"), F_OK) < 0);
}
END_TEST

/* ---- limits ---- */

static int needs_root(void)
{
	if (geteuid() == 0)
		return 0;
	fprintf(stderr, "# SKIP needs root: mounts a tmpfs, makes a cgroup\n");
	return 1;
}

static void on_a_tiny_tmpfs(void *arg)
{
	struct leat_region *r;
	char path[300];

	ck_assert(unshare(CLONE_NEWNS) == 0);
	ck_assert(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
	ck_assert(mount("none", arg, "tmpfs", 0, "size=1m") == 0);
	snprintf(path, sizeof(path), "%s/x", (char *)arg);
	fails(leat_region_create(REGION(.kind = LEAT_FILE, .name = path, .size = 2 << 20), &r), ENOSPC);
	ck_assert_msg(strstr(leat_why(), "2097152") && strstr(leat_why(), "1048576"), "%s", leat_why());
	ck_assert(access(path, F_OK) < 0);
	ok(leat_region_create(REGION(.kind = LEAT_FILE, .name = path, .size = 512 << 10), &r));
	memset(leat_region_addr(r), 1, 512 << 10); /* reserved: no SIGBUS */
	leat_region_close(r);
	ck_assert(mount("none", "/dev/shm", "tmpfs", 0, "size=1m") == 0);
	fails(leat_region_create(REGION(.kind = LEAT_POSIX, .name = "/x", .size = 2 << 20), &r), ENOSPC);
}

START_TEST(a_full_tmpfs_says_enospc_with_the_numbers)
{
	if (!needs_root())
		child_ok(child(on_a_tiny_tmpfs, (void *)(uintptr_t)tmp_dir()));
}
END_TEST

static void on_a_full_disk(void *arg)
{
	struct leat_region *r;
	char path[300], cmd[800];

	ck_assert(unshare(CLONE_NEWNS) == 0);
	ck_assert(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
	snprintf(cmd, sizeof(cmd),
		 "dd if=/dev/zero of=%s/img bs=1M count=8 2>/dev/null && mkfs.ext4 -q %s/img && mkdir %s/mnt && "
		 "mount -o loop %s/img %s/mnt",
		 (char *)arg, (char *)arg, (char *)arg, (char *)arg, (char *)arg);
	if (system(cmd) != 0) {
		fprintf(stderr, "# SKIP no loop devices here: an ext4 that can be filled\n");
		return;
	}
	snprintf(path, sizeof(path), "%s/mnt/x", (char *)arg);
	fails(leat_region_create(REGION(.kind = LEAT_FILE, .name = path, .size = 64 << 20), &r), ENOSPC);
	ck_assert(strstr(leat_why(), "67108864") && strstr(leat_why(), "free"));
	ck_assert(access(path, F_OK) < 0);
}

START_TEST(a_full_disk_says_enospc)
{
	if (!needs_root())
		child_ok(child(on_a_full_disk, (void *)(uintptr_t)tmp_dir()));
}
END_TEST

static void under_fsize(void *arg)
{
	struct rlimit rl = {1 << 20, 1 << 20};
	struct leat_region *r;

	ck_assert(setrlimit(RLIMIT_FSIZE, &rl) == 0);
	signal(SIGXFSZ, SIG_DFL); /* would kill */
	fails(leat_region_create(REGION(.kind = LEAT_FILE, .name = arg, .size = 2 << 20), &r), EFBIG);
	ck_assert(strstr(leat_why(), "2097152") && strstr(leat_why(), "1048576"));
	fails(leat_region_create(REGION(.kind = LEAT_MEMFD, .size = 2 << 20), &r), EFBIG);
}

START_TEST(rlimit_fsize_says_efbig_and_kills_nobody)
{
	child_ok(child(under_fsize, (void *)(uintptr_t)tmp_path("big")));
}
END_TEST

static void in_cgroup(void *arg)
{
	struct leat_region *r;
	char path[300];
	FILE *f;

	snprintf(path, sizeof(path), "%s/cgroup.procs", (char *)arg);
	f = fopen(path, "w");
	ck_assert(f != NULL);
	fprintf(f, "%d\n", (int)getpid());
	ck_assert(fclose(f) == 0);
	fails(leat_region_create(REGION(.kind = LEAT_MEMFD, .size = 64 << 20), &r), ENOMEM);
	ck_assert_msg(strstr(leat_why(), "cgroup") && strstr(leat_why(), "67108864"), "%s", leat_why());
	fails(leat_region_create(REGION(.kind = LEAT_ANON, .size = 64 << 20), &r), ENOMEM);
	ok(leat_region_create(REGION(.kind = LEAT_MEMFD, .size = 1 << 20), &r));
	memset(leat_region_addr(r), 1, 1 << 20);
	leat_region_close(r);
}

START_TEST(beyond_the_cgroups_headroom_is_refused_before_anyone_is_killed)
{
	static const char *const roots[] = {"/sys/fs/cgroup/memory", "/sys/fs/cgroup"};
	static const char *const files[] = {"memory.limit_in_bytes", "memory.max"};
	char own[4096] = "", dir[4500], file[4600];
	char *at = NULL, *nl;
	FILE *f = NULL;
	int v2 = 0;

	if (needs_root())
		return;
	if (leat__read_file("/proc/self/cgroup", own, sizeof(own)) > 0) {
		at = strstr(own, ":memory:");
		v2 = !at;
		at = at ? at + 8 : strstr(own, "0::") ? strstr(own, "0::") + 3 : NULL;
	}
	if (at && (nl = strchr(at, '\n')))
		*nl = 0;
	if (at) {
		snprintf(dir, sizeof(dir), "%s%s/leat-test-%d", roots[v2], strcmp(at, "/") ? at : "",
			 (int)getpid());
		if (mkdir(dir, 0755) == 0) {
			snprintf(file, sizeof(file), "%s/%s", dir, files[v2]);
			f = fopen(file, "w");
		}
	}
	if (!f) {
		fprintf(stderr, "# SKIP cannot make a memory cgroup here\n");
		rmdir(dir);
		return;
	}
	fprintf(f, "%d\n", 32 << 20);
	if (fclose(f) == 0)
		child_ok(child(in_cgroup, dir));
	eventually(rmdir(dir) == 0);
}
END_TEST

START_TEST(huge_pages_are_used_or_refused_with_a_reason)
{
	struct leat_region *r;
	int e = leat_region_create(REGION(.kind = LEAT_MEMFD, .size = 2 << 20, .flags = LEAT_HUGE), &r);

	if (e == 0) {
		memset(leat_region_addr(r), 1, leat_region_size(r));
		leat_region_close(r);
	} else {
		ck_assert_msg(e == -ENOSPC || e == -ENOMEM || e == -ENOTSUP || e == -EINVAL, "%d: %s", e,
			      leat_why());
		ck_assert(leat_why()[0]);
	}
}
END_TEST

START_TEST(locked_memory_is_locked_or_refused)
{
	struct rlimit rl = {0, 0};
	struct leat_region *r;

	ok(leat_region_create(REGION(.kind = LEAT_MEMFD, .size = 4096, .flags = LEAT_LOCKED), &r));
	leat_region_close(r);
	if (geteuid() != 0) {
		ck_assert(setrlimit(RLIMIT_MEMLOCK, &rl) == 0);
		fails(leat_region_create(REGION(.kind = LEAT_MEMFD, .size = 4096, .flags = LEAT_LOCKED), &r),
		      ENOMEM);
	}
}
END_TEST

/* ---- races ---- */

struct race {
	enum leat_region_kind kind;
	const char *name;
	int go[2];
};

static int init_slowly(void *addr, uint64_t size, void *arg)
{
	(void)arg;
	for (uint64_t i = 0; i < size / 8; i++)
		((uint64_t *)addr)[i] = 0x1234567887654321u;
	return 0;
}

static void racer(void *arg)
{
	struct race *race = arg;
	struct leat_region *r;
	char c;

	close(race->go[1]);
	if (read(race->go[0], &c, 1) < 0)
		_exit(1);
	ok(leat_region_create(REGION(.kind = race->kind, .name = race->name, .size = 65536,
				     .flags = LEAT_ATTACH, .init = init_slowly),
			      &r));
	/* Whoever made it: whole. */
	ck_assert_uint_eq(leat_region_size(r), 65536);
	for (int i = 0; i < 8191; i++)
		ck_assert_uint_eq(((uint64_t *)leat_region_addr(r))[i], 0x1234567887654321u);
	/* And the same one: the last word counts them. */
	__atomic_fetch_add((uint64_t *)leat_region_addr(r) + 8191, 1, __ATOMIC_RELAXED);
	leat_region_close(r);
}

START_TEST(sixty_four_racers_some_killed_make_one_whole_region)
{
	for (int round = 0; round < (full() ? 200 : 6); round++) {
		struct race race = {(enum leat_region_kind)_i, name_for((enum leat_region_kind)_i), {0, 0}};
		pid_t pid[64];
		struct leat_region *r;
		uint64_t came, done = 0;

		ck_assert(pipe2(race.go, O_CLOEXEC) == 0);
		for (int i = 0; i < 64; i++)
			pid[i] = child(racer, &race);
		close(race.go[0]);
		close(race.go[1]); /* go */
		for (int i = 0; i < 64; i += 3) {
			for (volatile uint64_t n = rnd() % 200000; n; n--)
				;
			kill(pid[i], SIGKILL);
		}
		for (int i = 0; i < 64; i++) {
			int status;

			waitpid(pid[i], &status, 0);
			ck_assert((WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
				  (i % 3 == 0 && WIFSIGNALED(status)));
			done += WIFEXITED(status);
		}
		ok(leat_region_open(REGION(.kind = race.kind, .name = race.name), &r));
		came = ((uint64_t *)leat_region_addr(r))[8191] - 0x1234567887654321u;
		ck_assert_msg(came >= done && came <= 64, "%d racers were done, %d of them here", (int)done, (int)came);
		leat_region_close(r);
		ok(leat_region_unlink(race.kind, race.name));
	}
}
END_TEST

static int init_fails(void *addr, uint64_t size, void *arg)
{
	(void)addr;
	(void)size;
	(void)arg;
	return -EDOM;
}

START_TEST(a_failing_initialiser_leaves_nothing)
{
	const char *name = posix_name();
	struct leat_region *r;

	ck_assert_int_eq(leat_region_create(REGION(.kind = LEAT_POSIX, .name = name, .size = 1,
						   .init = init_fails),
					    &r),
			 -EDOM);
	fails(leat_region_open(REGION(.kind = LEAT_POSIX, .name = name), &r), ENOENT);
	fails(leat_region_create(REGION(.kind = LEAT_SYSV, .size = 1, .key = 5, .init = init_fails), &r),
	      ENOTSUP);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("region");
	TCase *tc = leak_checked(s, "region", full() ? 600 : 60);

	tcase_add_loop_test(tc, every_kind_is_made_zeroed_written_and_closed, LEAT_MEMFD, LEAT_SYSV + 1);
	tcase_add_loop_test(tc, a_named_region_is_found_by_strangers, LEAT_POSIX, LEAT_FILE + 1);
	test(tc, read_only_is_read_only);
	test(tc, permissions_are_kept);
	test(tc, a_memfd_is_shared_by_its_descriptor);
	test(tc, an_anonymous_region_is_shared_with_children);
	test(tc, system_v_by_id_and_by_key);
	test(tc, nonsense_is_refused);
	test(tc, a_plan_tells_what_a_region_takes);
	test(tc, a_full_tmpfs_says_enospc_with_the_numbers);
	test(tc, a_full_disk_says_enospc);
	test(tc, rlimit_fsize_says_efbig_and_kills_nobody);
	test(tc, beyond_the_cgroups_headroom_is_refused_before_anyone_is_killed);
	test(tc, huge_pages_are_used_or_refused_with_a_reason);
	test(tc, locked_memory_is_locked_or_refused);
	tcase_add_loop_test(tc, sixty_four_racers_some_killed_make_one_whole_region, LEAT_POSIX,
			    LEAT_FILE + 1);
	test(tc, a_failing_initialiser_leaves_nothing);
	return run_suite(s);
}
