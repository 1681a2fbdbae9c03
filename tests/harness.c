/* SPDX-License-Identifier: Apache-2.0 */
/* The suites' shared tools; see harness.h. Never sleeps in hope: waits for conditions, bounded. */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <signal.h>
#include "harness.h"

static char dir[128];
static pid_t dir_owner;
static pid_t broker;
static char broker_path[200];

int full(void)
{
	const char *v = getenv("LEAT_FULL");

	return v && !strcmp(v, "1");
}

uint64_t rnd(void)
{
	static __thread uint64_t s;

	if (!s) {
		const char *seed = getenv("LEAT_SEED");

		if (seed)
			s = strtoull(seed, NULL, 0);
		else if (getrandom(&s, sizeof(s), 0) != sizeof(s))
			s = 1;
		s |= 1;
		fprintf(stderr, "# LEAT_SEED=%#llx\n", (unsigned long long)s);
	}
	s ^= s << 13;
	s ^= s >> 7;
	s ^= s << 17;
	return s;
}

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	remove(path);
	return 0;
}

static void clean_up(void)
{
	if (dir_owner != getpid())
		return;
	if (broker > 0) {
		kill(broker, SIGKILL);
		waitpid(broker, NULL, 0);
	}
	nftw(dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *tmp_dir(void)
{
	if (!*dir) {
		const char *base = getenv("TMPDIR");

		snprintf(dir, sizeof(dir), "%.90s/leat-test.XXXXXX", base ? base : "/tmp");
		if (!mkdtemp(dir)) {
			perror(dir);
			abort();
		}
		dir_owner = getpid();
		atexit(clean_up);
	}
	return dir;
}

const char *tmp_path(const char *name)
{
	static char path[8][256];
	static int i;
	char *p = path[i++ % 8];

	snprintf(p, 256, "%s/%s", tmp_dir(), name);
	return p;
}

const char *random_name(void)
{
	static char name[8][64];
	static int i;
	char *p = name[i++ % 8];
	uint64_t r;

	if (getrandom(&r, sizeof(r), 0) != sizeof(r))
		r = (uint64_t)getpid();
	snprintf(p, 64, "t/%016llx", (unsigned long long)r);
	return p;
}

const char *broker_start(const char *arg, ...)
{
	const char *argv[16] = {"leatd", "--domain", NULL, "--ready-fd", "200", NULL};
	const char *leatd = getenv("LEAT_LEATD");
	int n = 5, ready[2];
	va_list ap;
	char c;

	tmp_dir();
	if (broker > 0)
		return broker_path;
	snprintf(broker_path, sizeof(broker_path), "%s/broker.sock", dir);
	argv[2] = broker_path;
	va_start(ap, arg);
	for (; arg && n < 15; arg = va_arg(ap, const char *))
		argv[n++] = arg;
	va_end(ap);
	argv[n] = NULL;
	ck_assert(leatd != NULL);
	ck_assert(pipe2(ready, O_CLOEXEC) == 0);
	broker = fork();
	if (broker == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(ready[1], 200);
		execv(leatd, (char **)(uintptr_t)argv);
		_exit(127);
	}
	close(ready[1]);
	ck_assert_msg(read(ready[0], &c, 1) == 1, "%s does not serve", leatd);
	close(ready[0]);
	return broker_path;
}

pid_t broker_pid(void)
{
	return broker;
}

void figure(int thing, const char *fmt, ...)
{
	char text[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "# TRUST %d %s\n", thing, text);
}

pid_t child_of(pid_t pid)
{
	char path[64], text[32] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (!fgets(text, sizeof(text), f))
		text[0] = 0;
	fclose(f);
	return (pid_t)atoi(text);
}

pid_t worker_pid(void)
{
	return child_of(broker);
}

void broker_signal(int sig)
{
	pid_t worker = worker_pid();

	kill(broker, sig);
	if (worker > 0)
		kill(worker, sig);
}

void broker_forget(void)
{
	broker = 0;
}

void broker_kill(int sig)
{
	kill(broker, sig);
	waitpid(broker, NULL, 0);
	broker = 0;
}

struct leat *broker_open(void)
{
	struct leat *l;

	ok(leat_open(broker_start(NULL), &l));
	return l;
}

static int in_child;

void say_if_child(const char *file, int line, const char *expr, const char *msg, ...)
{
	va_list ap;

	if (!in_child)
		return;
	fprintf(stderr, "# child %d: %s:%d: %s: ", (int)getpid(), file, line, expr);
	if (msg) {
		va_start(ap, msg);
		vfprintf(stderr, msg, ap);
		va_end(ap);
	}
	fputc('\n', stderr);
}

/* Check's messages lie in temporary files that every fork of the test shares: several writers would
 * spoil them, so a child writes its own to nowhere. */
static void leave_checks_files(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 3; fd < 256; fd++) {
		char link[40], path[256] = "";

		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		if (readlink(link, path, sizeof(path) - 1) > 0 && strstr(path, "/check_") &&
		    strstr(path, "(deleted)"))
			dup2(null, fd);
	}
	close(null);
}

pid_t child(void (*fn)(void *), void *arg)
{
	pid_t parent = getpid();
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		in_child = 1;
		leave_checks_files();
		fn(arg);
		fflush(NULL);
		_exit(0);
	}
	ck_assert(pid > 0);
	return pid;
}

void child_ok(pid_t pid)
{
	int status;

	ck_assert(waitpid(pid, &status, 0) == pid);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child %d: %s %d", (int)pid,
		      WIFSIGNALED(status) ? "signal" : "exit",
		      WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

void child_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

uint64_t at_least(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

void fill_message(void *at, size_t size, uint64_t seed)
{
	unsigned char *p = at;
	uint64_t x = seed * 0x9e3779b97f4a7c15u + size;

	for (size_t i = 0; i + 8 <= size; i += 8, x = x * 6364136223846793005u + 1442695040888963407u)
		memcpy(p + i, &x, 8);
	for (size_t i = size & ~(size_t)7; i < size; i++)
		p[i] = (unsigned char)(x >> (8 * (i & 7)));
}

int message_whole(const void *at, size_t size, uint64_t seed)
{
	const unsigned char *p = at;
	uint64_t x = seed * 0x9e3779b97f4a7c15u + size;

	for (size_t i = 0; i + 8 <= size; i += 8, x = x * 6364136223846793005u + 1442695040888963407u)
		if (memcmp(p + i, &x, 8) != 0)
			return 0;
	for (size_t i = size & ~(size_t)7; i < size; i++)
		if (p[i] != (unsigned char)(x >> (8 * (i & 7))))
			return 0;
	return 1;
}

int count_fds_of(pid_t pid)
{
	char path[64];
	DIR *d;
	int n = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

/* Does it wait for something? Who has been woken and has no processor yet does not. */
static int is_asleep(pid_t pid)
{
	char path[64], text[256] = "";
	const char *state;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	leat__read_file(path, text, sizeof(text));
	state = strrchr(text, ')');
	return !state || state[2] == 'S';
}

int broker_fds(void)
{
	int n, again = count_fds_of(broker) + count_fds_of(worker_pid());

	for (int i = 0; i < 2000; i++) { /* the keeper takes what it is given a little later */
		n = again;
		usleep(5000);
		again = count_fds_of(broker) + count_fds_of(worker_pid());
		if (again == n && is_asleep(broker) && is_asleep(worker_pid()))
			break;
	}
	return again;
}

static void say_fds_of(pid_t pid)
{
	char path[64], to[256];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		ssize_t n = readlinkat(dirfd(d), e->d_name, to, sizeof(to) - 1);

		to[n < 0 ? 0 : n] = 0;
		if (n > 0)
			fprintf(stderr, "# %d: %s: %s\n", (int)pid, e->d_name, to);
	}
	if (d)
		closedir(d);
}

int broker_fds_back(int most)
{
	uint64_t until = leat__now() + 10 * SEC;

	while (broker_fds() > most)
		if (leat__now() > until) {
			fprintf(stderr, "# the broker has %d descriptors instead of %d:\n", broker_fds(), most);
			say_fds_of(broker);
			say_fds_of(worker_pid());
			return 0;
		}
	return 1;
}

int count_fds(void)
{
	return count_fds_of(getpid());
}

int count_maps(const char *what)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];
	int n = 0;

	while (f && fgets(line, sizeof(line), f))
		n += strstr(line, what) != NULL;
	if (f)
		fclose(f);
	return n;
}

static int fds_before;

static void watch_leaks(void)
{
	fds_before = count_fds();
}

/* After every test: no descriptor more than before, no mapping of ours, no child. */
static void find_leaks(void)
{
	if (broker > 0)
		broker_kill(SIGTERM);
	ck_assert_msg(count_fds() == fds_before, "%d descriptors are open, %d were", count_fds(),
		      fds_before);
	ck_assert_msg(count_maps("memfd:leat-") == 0, "%d shared mappings are left",
		      count_maps("memfd:leat-"));
	ck_assert_msg(waitpid(-1, NULL, WNOHANG) < 0, "a child is left");
}

int run_suite(Suite *s)
{
	SRunner *r = srunner_create(s);
	int failed;

	unsetenv("LEAT_BROKER");
	srunner_run_all(r, CK_SILENT);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}

/* The fixture that every case uses. */
TCase *leak_checked(Suite *s, const char *name, double timeout)
{
	TCase *tc = tcase_create(name);

	tcase_add_checked_fixture(tc, watch_leaks, find_leaks);
	tcase_set_timeout(tc, timeout);
	suite_add_tcase(s, tc);
	return tc;
}
