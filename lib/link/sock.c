/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The socket between client and broker. Non-blocking on the broker's side, polled with a deadline on
 * the client's. A packet that is not exactly what it claims to be closes everything it brought.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "base/base.h"
#include "link/sock.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

int leat__sock_send(int sock, const struct leat__out *o, const int *fds, unsigned n_fds)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int) * LEAT__FDS_MAX)];
	} control;
	struct iovec iov = {(void *)(uintptr_t)o->bytes, o->size};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (n_fds) {
		struct cmsghdr *c = &control.align;

		memset(&control, 0, sizeof(control));
		m.msg_control = control.room;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	do
		n = sendmsg(sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

void leat__packet_close(struct leat__packet *p)
{
	for (unsigned i = 0; i < p->n_fds; i++)
		if (p->fds[i] >= 0)
			close(p->fds[i]);
	p->n_fds = 0;
}

int leat__packet_take(struct leat__packet *p, unsigned i)
{
	int fd = i < p->n_fds ? p->fds[i] : -1;

	if (i < p->n_fds)
		p->fds[i] = -1;
	return fd;
}

/* Collect every descriptor that came, wanted or not: those beyond the limit are closed here. */
static int collect(struct msghdr *m, struct leat__packet *p)
{
	int bad = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (p->n_fds < LEAT__FDS_MAX) {
				p->fds[p->n_fds++] = fd;
			} else {
				close(fd);
				bad = 1;
			}
		}
	}
	return bad;
}

static int receive(int sock, struct leat__packet *p, int flags, int with_fds)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int) * LEAT__FDS_MAX)];
	} control;
	struct iovec iov = {p->bytes, sizeof(p->bytes)};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = with_fds ? control.room : NULL,
			   .msg_controllen = with_fds ? sizeof(control.room) : 0};
	ssize_t n;
	int bad, cut;

	p->n_fds = 0;
	p->size = 0;
	do
		n = recvmsg(sock, &m, flags | MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	bad = collect(&m, p);
	cut = (m.msg_flags & MSG_CTRUNC) != 0;
	p->size = (size_t)n;
	if (n == 0 && !p->n_fds && !cut)
		return 0;
	if (n == 0 || bad || (m.msg_flags & MSG_TRUNC) || (cut && p->n_fds == LEAT__FDS_MAX))
		return leat__say(-EBADMSG, "packet is empty, too long, or with too many descriptors");
	if (cut && !with_fds)
		return 2;
	/* There was room for more than came: it is we who have none left. */
	if (cut)
		return leat__say(-EMFILE, "a descriptor that was sent cannot be received: this process, or the system, has "
					  "too many open files; raise the limit (ulimit -n)");
	return 1;
}

int leat__sock_recv(int sock, struct leat__packet *p)
{
	int e = receive(sock, p, 0, 1);

	if (e <= 0)
		leat__packet_close(p);
	return e;
}

int leat__sock_peek(int sock, struct leat__packet *p)
{
	return receive(sock, p, MSG_PEEK, 1);
}

int leat__sock_look(int sock, struct leat__packet *p)
{
	return receive(sock, p, MSG_PEEK, 0);
}

void leat__sock_drop(int sock)
{
	char c;

	while (recv(sock, &c, 1, MSG_DONTWAIT) < 0 && errno == EINTR)
		;
}

int leat__sock_peer(int sock, pid_t *pid, uid_t *uid, int *ret_pidfd)
{
	struct ucred cred = {0};
	socklen_t len = sizeof(cred);

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return leat__fail(-errno, "ask who is on a socket: %s", strerror(errno));
	*pid = cred.pid;
	*uid = cred.uid;
	if (ret_pidfd) {
		int fd = -1;

		len = sizeof(fd);
		if (getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &fd, &len) < 0) {
			if (errno != ENOPROTOOPT)
				return leat__fail(-errno, "ask who is on a socket: it is gone (%s)", strerror(errno));
			/* Before Linux 6.5. The peer is alive: it holds the socket, bar inheritance. */
			fd = cred.pid > 0 ? (int)syscall(SYS_pidfd_open, cred.pid, 0) : -1;
		}
		*ret_pidfd = fd;
	}
	return 0;
}

int leat__sock_groups(int sock, gid_t *gid, gid_t **ret)
{
	struct ucred cred;
	socklen_t len = sizeof(cred), size = 0;

	*ret = NULL;
	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return leat__fail(-errno, "ask who is on a socket: %s", strerror(errno));
	*gid = cred.gid;
	if (getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, NULL, &size) < 0 && errno == ERANGE) {
		*ret = malloc(size);
		if (!*ret)
			return leat__say(-ENOMEM, "no memory for a client's groups");
		if (getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, *ret, &size) < 0)
			size = 0;
	}
	return *ret ? (int)(size / sizeof(gid_t)) : 0; /* before Linux 4.13 none are told */
}

/* Whose broker may serve at @path: ours or root's, and in root's /run that of whom root gave the directory to. */
static int is_trusted(const char *path, uid_t uid)
{
	struct stat st;

	return uid == 0 || uid == geteuid() ||
	       (!strncmp(path, "/run/leat/", 10) && stat("/run/leat", &st) == 0 && S_ISDIR(st.st_mode) &&
		st.st_uid == uid && !(st.st_mode & 022));
}

int leat__sock_connect(const char *path, uint64_t deadline)
{
	const struct timespec nap = {0, 2000000};
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	pid_t pid;
	uid_t uid = (uid_t)-1;
	int sock, r;

	if (strlen(path) >= sizeof(un.sun_path))
		return leat__fail(-ENAMETOOLONG, "connect to broker %s: a socket's path has at most %zu bytes",
				  path, sizeof(un.sun_path) - 1);
	strcpy(un.sun_path, path);
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sock < 0)
		return leat__fail(-errno, "connect to broker %s: socket: %s", path, strerror(errno));
	/* EAGAIN: the broker's queue of newcomers is full; there is no event for room in it. */
	while ((r = connect(sock, (struct sockaddr *)&un, sizeof(un))) < 0 &&
	       (errno == EINTR || (errno == EAGAIN && leat__now() < deadline)))
		if (errno == EAGAIN)
			nanosleep(&nap, NULL);
	if (r < 0 && errno == EAGAIN)
		errno = ETIMEDOUT;
	if (r < 0) {
		r = -errno;
		close(sock);
		return leat__fail(r, "connect to broker %s: %s", path, strerror(-r));
	}
	r = leat__sock_peer(sock, &pid, &uid, NULL);
	if (r == 0 && !is_trusted(path, uid))
		r = leat__fail(-EACCES, "connect to broker %s: it runs as uid %u, neither ours nor root",
			       path, (unsigned)uid);
	if (r < 0) {
		close(sock);
		return r;
	}
	return sock;
}

int leat__sock_place(const char *domain, unsigned n, char *path, size_t size)
{
	int trusted = !getauxval(AT_SECURE); /* under set-uid the environment is somebody else's */
	const char *named = domain ? domain : trusted ? getenv("LEAT_BROKER") : NULL;
	const char *run = trusted ? getenv("XDG_RUNTIME_DIR") : NULL;
	struct stat st;

	if (named && *named) {
		if (n > 0)
			return -ENOENT;
		if (strlen(named) >= size)
			return leat__say(-ENAMETOOLONG, "the broker's path is too long");
		strcpy(path, named);
		return 1;
	}
	if (run && *run == '/' && stat(run, &st) == 0 && st.st_uid == geteuid()) {
		if (n == 0) {
			int len = snprintf(path, size, "%s/leat/broker.sock", run);

			return len > 0 && (size_t)len < size ? 0 : -ENAMETOOLONG;
		}
		n--;
	}
	if (n > 0)
		return -ENOENT;
	snprintf(path, size, "/run/leat/broker.sock");
	return 0;
}
