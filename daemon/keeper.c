/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leatd: the keeper. It starts the worker, which is the broker, keeps the descriptors that the worker gives it, and
 * starts another when that one is killed, with all of them. It knows nothing of what they are, and does nothing else,
 * so that there is nothing here to go wrong. Manual: leatd(8).
 */
#include <errno.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>
#include "keeper.h"

#define AGAIN_MS 100 /* until one is started again that could not be started, or could not begin */
#define SOON_MS 50 /* who lives so short, and was not killed while it served, has died of what was kept for it */
enum { FORGET_AFTER = 20, END_AFTER = 30 }; /* so many such deaths in a row */

static int *kept; /* by key; -1: nothing */
static uint32_t n_kept;
static pid_t worker;
static int sock = -1;
static int ending; /* we were asked to, by this signal: a worker that was just dying has not heard it */
static int ready, served; /* it serves; one has */
static uint32_t told; /* the next key to tell the worker of; UINT32_MAX: all were told */

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void drop(uint32_t key)
{
	if (key < n_kept && kept[key] >= 0) {
		close(kept[key]);
		kept[key] = -1;
	}
}

/* Takes @fd. Without memory for it the worker that comes after will do without it. */
static void keep(uint32_t key, int fd)
{
	if (key >= n_kept) {
		uint32_t n = key < 1u << 24 ? key * 2 + 64 : 0;
		int *more = n ? realloc(kept, n * sizeof(*kept)) : NULL;

		if (!more) {
			close(fd);
			return;
		}
		memset(more + n_kept, 0xff, (n - n_kept) * sizeof(*kept));
		kept = more;
		n_kept = n;
	}
	drop(key);
	kept[key] = fd;
}

/* One packet of the worker's. 0: there is none now; negative: it has gone. */
static int hear(void)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct keeper_packet p;
	struct iovec iov = {&p, sizeof(p)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	int fd = -1;

	if (n < 0)
		return errno == EAGAIN ? 0 : errno == EINTR || errno == ECONNRESET ? 1 : -1;
	if (CMSG_FIRSTHDR(&m) && control.head.cmsg_type == SCM_RIGHTS && control.head.cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(&control.head), sizeof(int));
	if (n == sizeof(p) && p.what == KEEP && fd >= 0)
		keep(p.key, fd);
	else if (fd >= 0)
		close(fd);
	if (n == sizeof(p) && p.what == DROP)
		drop(p.key);
	ready |= n == sizeof(p) && p.what == READY;
	served |= ready;
	return n > 0 ? 1 : -1;
}

/* Tell a worker that begins of the next thing that is kept. 0: it has no room just now. */
static int tell(void)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {.head = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))}};
	struct keeper_packet p = {KEEP, told};
	struct iovec iov = {&p, sizeof(p)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};

	while (p.key < n_kept && kept[p.key] < 0)
		p.key++;
	if (p.key >= n_kept) {
		p = (struct keeper_packet){READY, 0};
		m.msg_controllen = 0;
	} else {
		memcpy(CMSG_DATA(&control.head), &kept[p.key], sizeof(int));
	}
	if (sendmsg(sock, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return 0; /* dead: we hear of that */
	told = p.what == KEEP ? p.key + 1 : UINT32_MAX;
	return 1;
}

/* Whoever does not read what we say, or has gone, holds nothing up. */
static void say(const char *fmt, ...)
{
	char line[4400];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (poll(&(struct pollfd){STDERR_FILENO, POLLOUT, 0}, 1, 0) > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
		return;
}

static int complain(const char *what)
{
	say("leatd: %s: %s\n", what, strerror(errno));
	return -1;
}

/* Beside us in a build tree; else where it is installed, from here or from the root. */
static void find_worker(char *path, size_t size)
{
	static const char *const places[] = {"leatd-worker", "../" LEATD_LIBEXEC "/leatd-worker"};
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	const char *dir;

	self[n < 0 ? 0 : n] = 0;
	dir = dirname(self);
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(path, size, "%s/%s", dir, places[i]);
		if (n > 0 && access(path, X_OK) == 0)
			return;
	}
	snprintf(path, size, "%s/leatd-worker", LEATD_LIBEXEC);
}

static void become_worker(pid_t keeper, int fd, char **argv)
{
	char path[4200];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* It may have that number already, and is to outlive the exec all the same. */
	if (getppid() != keeper || (fd == LEATD_KEEPER_FD ? fcntl(fd, F_SETFD, 0) : dup2(fd, LEATD_KEEPER_FD)) < 0)
		_exit(1);
	/* Our signals stay blocked until it can take them: none is lost, and none kills it. */
	find_worker(path, sizeof(path));
	argv[0] = (char *)(uintptr_t)"leatd-worker";
	execv(path, argv);
	say("leatd: start %s: %s: is leat installed as a whole?\n", path, strerror(errno));
	_exit(1);
}

static int start(char **argv)
{
	pid_t self = getpid();
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return complain("make a socket for the worker");
	worker = fork();
	if (worker == 0)
		become_worker(self, pair[1], argv);
	close(pair[1]);
	if (worker < 0) {
		close(pair[0]);
		return complain("start a worker");
	}
	sock = pair[0];
	told = 0;
	ready = 0;
	return 0;
}

static void on_signal(int signals)
{
	struct signalfd_siginfo s;

	if (read(signals, &s, sizeof(s)) != sizeof(s))
		return;
	if (s.ssi_signo == SIGTERM || s.ssi_signo == SIGINT)
		ending = (int)s.ssi_signo;
	/* USR1: another worker, maybe of another version. To be killed is what it is made for. */
	if (worker > 0)
		kill(worker, s.ssi_signo == SIGUSR1 ? SIGKILL : (int)s.ssi_signo);
}

/* Not now, but maybe soon. */
static void pause_for(int signals)
{
	if (poll(&(struct pollfd){signals, POLLIN, 0}, 1, AGAIN_MS) > 0)
		on_signal(signals);
}

/* The worker has died. What to end with; negative: not at all. */
static int died(int64_t born, int signals)
{
	static int soon;
	int status;

	while (hear() > 0) /* what it has said last */
		;
	close(sock);
	while (waitpid(worker, &status, 0) < 0 && errno == EINTR)
		;
	/* One that could not begin has said why. It may be a matter of moments: where another did, there is too much to lose. */
	if (WIFEXITED(status) && (ready || !served || !WEXITSTATUS(status)))
		return WEXITSTATUS(status);
	if (WIFEXITED(status)) {
		worker = 0;
		soon++;
		pause_for(signals);
	} else {
		soon = now_ms() - born < SOON_MS && !(ready && WTERMSIG(status) == SIGKILL) ? soon + 1 : 0;
		say("leatd: worker-killed pid=%d signal=%d\n", (int)worker, WTERMSIG(status));
	}
	if (soon == FORGET_AFTER) {
		say("leatd: begin-anew why=\"workers keep dying\"\n");
		for (uint32_t i = 0; i < n_kept; i++)
			drop(i);
	}
	return soon == END_AFTER ? 1 : -1;
}

int main(int argc, char **argv)
{
	struct rlimit most;
	struct pollfd p[2];
	int signals, end = -1;
	sigset_t set;

	(void)argc;
	/* Where we were started without, nothing of ours shall have the numbers that one reads and writes. */
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			return 1;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (getrlimit(RLIMIT_NOFILE, &most) == 0) {
		most.rlim_cur = most.rlim_max;
		setrlimit(RLIMIT_NOFILE, &most);
	}
	signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals < 0)
		return complain("watch for signals") < 0;
	while (end < 0) {
		int64_t born = now_ms();

		while (start(argv) < 0) {
			worker = 0;
			if (!served || ending)
				return 1;
			pause_for(signals);
		}
		if (ending)
			kill(worker, ending);
		/* What we were started with is the worker's: a socket to listen on, somebody who waits for a word. */
		for (int fd = 3; n_kept == 0 && fd < 256; fd++)
			if (fd != signals && fd != sock)
				close(fd);
		do {
			while (told != UINT32_MAX && tell())
				;
			p[0] = (struct pollfd){sock, POLLIN | (told != UINT32_MAX ? POLLOUT : 0), 0};
			p[1] = (struct pollfd){signals, POLLIN, 0};
			poll(p, 2, -1);
			if (p[1].revents)
				on_signal(signals);
		} while (!(p[0].revents & (POLLIN | POLLHUP)) || hear() >= 0);
		end = died(born, signals);
	}
	return end;
}
