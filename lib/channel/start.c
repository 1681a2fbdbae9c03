/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting a broker on demand: once, whoever asks first; everybody else waits for it under the same
 * lock. The child keeps nothing of its caller: descriptors, environment, signals, priority, processors,
 * limits that it set itself, session.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "base/base.h"
#include "channel/channel.h"

#ifndef LEAT__LEATD_PATH
#define LEAT__LEATD_PATH "/usr/bin/leatd"
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define START_NS INT64_C(10000000000)

/* flock with a deadline. */
static int lock_until(int fd, uint64_t deadline)
{
	struct timespec nap = {0, 5000000};

	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (leat__now() >= deadline)
			return -ETIMEDOUT;
		nanosleep(&nap, NULL);
	}
	return 0;
}

static int start_lock(const char *path, uint64_t deadline)
{
	char file[120];
	char *slash;
	int fd, e;

	snprintf(file, sizeof(file), "%s", path);
	slash = strrchr(file, '/');
	if (!slash || slash == file)
		return leat__fail(-EINVAL, "start a broker for %s: not an absolute path", path);
	*slash = 0;
	if (mkdir(file, 0700) < 0 && errno != EEXIST)
		return leat__fail(-errno, "start a broker: make directory %s: %s", file, strerror(errno));
	snprintf(slash, sizeof(file) - (size_t)(slash - file), "/start.lock");
	fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return leat__fail(-errno, "start a broker: open %s: %s", file, strerror(errno));
	e = lock_until(fd, deadline);
	if (e < 0) {
		close(fd);
		return leat__fail(e, "start a broker: lock %s: %s", file, strerror(-e));
	}
	return fd;
}

/* In the grandchild: become the broker. Only calls that are safe after fork in a threaded program. */
static void become_broker(const char *leatd, const char *path, int ready)
{
	const char *const argv[] = {"leatd", "--domain", path, "--on-demand", "--ready-fd", "3", NULL};
	const char *const envp[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};
	static const int limits[] = {RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_DATA, RLIMIT_AS, RLIMIT_NOFILE, RLIMIT_MEMLOCK};
	struct sched_param param = {0};
	struct rlimit limit = {0, 0};
	unsigned long all[128];
	sigset_t none;
	int null;

	for (int s = 1; s < 65; s++)
		signal(s, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	sched_setscheduler(0, SCHED_OTHER, &param);
	setpriority(PRIO_PROCESS, 0, 0);
	memset(all, 0xff, sizeof(all));
	syscall(SYS_sched_setaffinity, 0, sizeof(all), all);
	syscall(SYS_set_mempolicy, 0, NULL, 0);
	setrlimit(RLIMIT_CORE, &limit);
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		if (getrlimit(limits[i], &limit) == 0) {
			limit.rlim_cur = limit.rlim_max;
			setrlimit(limits[i], &limit);
		}
	if (chdir("/") < 0)
		_exit(126);
	umask(077);
	null = open("/dev/null", O_RDWR);
	/* In this order: where the program has closed some of 0 to 2, that may be number 3. */
	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0 || dup2(ready, 3) < 0)
		_exit(126);
	if (syscall(SYS_close_range, 4, ~0U, 0) < 0)
		for (int fd = 4; fd < 1024; fd++)
			close(fd);
	execve(leatd, (char **)(uintptr_t)argv, (char **)(uintptr_t)envp);
	_exit(127);
}

/* Fork twice so that the broker is nobody's child; wait until it says that it serves. */
static int spawn(const char *leatd, const char *path, uint64_t deadline)
{
	int ready[2], high, status, e = 0;
	sigset_t all, old;
	pid_t pid;

	if (pipe2(ready, O_CLOEXEC) < 0)
		return -errno;
	high = fcntl(ready[1], F_DUPFD_CLOEXEC, 10); /* out of the way of 0 to 3 */
	close(ready[1]);
	if (high < 0) {
		e = -errno;
		close(ready[0]);
		return e;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* no handler of the program runs in the child */
	pid = fork();
	if (pid == 0) {
		setsid();
		if (fork() == 0)
			become_broker(leatd, path, high);
		_exit(0);
	}
	e = pid < 0 ? -errno : 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	close(high);
	while (e == 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	while (e == 0) {
		struct pollfd pfd = {ready[0], POLLIN, 0};
		uint64_t now = leat__now();
		char c;

		if (now >= deadline) {
			e = -ETIMEDOUT;
		} else if (poll(&pfd, 1, (int)((deadline - now) / 1000000) + 1) > 0) {
			if (read(ready[0], &c, 1) != 1)
				e = -ECHILD; /* it ended without serving */
			break;
		}
	}
	close(ready[0]);
	return e;
}

int leat__start_broker(const char *path)
{
	uint64_t deadline = leat__deadline(START_NS);
	const char *leatd = getenv("LEAT_LEATD"); /* a build tree's; never under set-uid, see may_start */
	int lock = start_lock(path, deadline);
	int sock, e;

	if (lock < 0)
		return lock;
	if (!leatd || *leatd != '/')
		leatd = LEAT__LEATD_PATH;
	/* Somebody may have started it while we waited for the lock. */
	sock = leat__sock_connect(path, deadline);
	if (sock >= 0) {
		close(sock);
		close(lock);
		return 0;
	}
	e = access(leatd, X_OK) < 0 ? -errno : spawn(leatd, path, deadline);
	close(lock);
	if (e < 0)
		return leat__fail(e, "start %s: %s", leatd,
				  e == -ECHILD ? "it ended before it served: run it by hand to see why"
					       : strerror(-e));
	leat__log(LEAT_LOG_INFO, "started %s for %s", leatd, path);
	return 0;
}
