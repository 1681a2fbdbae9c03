/* SPDX-License-Identifier: Apache-2.0 */
/* The path that is served, the lock that says by whom, and the socket there. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "base/base.h"
#include "link/sock.h"
#include "listen.h"

int complain(const char *what, const char *path, const char *why)
{
	fprintf(stderr, "leatd: %s %s: %s\n", what, path, why);
	return -1;
}

/* The directory of the socket: made if missing (private), must be ours. */
static int prepare_directory(const char *path)
{
	char dir[108];
	char *slash;
	struct stat st;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (!slash || slash == dir)
		return 0;
	*slash = 0;
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return complain("make directory", dir, strerror(errno));
	if (stat(dir, &st) < 0)
		return complain("look at directory", dir, strerror(errno));
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return complain("use directory", dir, "it belongs to another user");
	if ((st.st_mode & (S_IWOTH | S_ISVTX)) == S_IWOTH)
		return complain("use directory", dir, "everybody can write to it, and could put another socket in the place of ours");
	return 0;
}

int listen_place(const char *domain, char *path, size_t size)
{
	int named = leat__sock_place(domain, 0, path, size);

	if (named < 0)
		return complain("use domain", domain ? domain : "", leat_why());
	if (!named && !strncmp(path, "/run/leat/", 10) && geteuid() != 0)
		return complain("find a place for the socket in", "/run/leat",
				"not root, and $XDG_RUNTIME_DIR is not set: set $LEAT_BROKER or use --domain");
	return 0;
}

/* One that is being killed may hold it for a moment yet. */
static int lock_soon(int fd)
{
	const struct timespec nap = {0, 2000000};

	for (int i = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
		if (errno != EWOULDBLOCK || i == 250)
			return -errno;
		nanosleep(&nap, NULL);
	}
	return 0;
}

/* The lock, not the socket, says who serves: a socket left by a killed broker is replaced. */
static int take_lock(const char *path)
{
	struct stat ours, there;
	char file[120];
	int fd, e;

	snprintf(file, sizeof(file), "%s.lock", path);
	for (;;) {
		fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
		if (fd < 0)
			return complain("open", file, strerror(errno));
		/* Somebody's who wants to be in our way, or wants us to lock and remove another's? */
		if (fstat(fd, &ours) < 0 || !S_ISREG(ours.st_mode) || ours.st_uid != geteuid() || ours.st_nlink > 1) {
			close(fd);
			return complain("lock", file, "it is no file of ours alone: remove it");
		}
		e = lock_soon(fd);
		if (e < 0) {
			close(fd);
			return complain("serve", path, e == -EWOULDBLOCK ? "another leatd serves it already" : strerror(-e));
		}
		/* A leaving broker removes its lock: is this one still the one under the name? */
		if (fstat(fd, &ours) == 0 && stat(file, &there) == 0 && ours.st_ino == there.st_ino &&
		    ours.st_dev == there.st_dev)
			return fd;
		close(fd);
	}
}

int listen_open(const char *path, int all, int *ret_sock, int *ret_lock)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int lock, sock, r;
	struct stat st;
	mode_t old;

	if (prepare_directory(path) < 0)
		return -1;
	lock = take_lock(path);
	if (lock < 0)
		return -1;
	if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
		return complain("replace", path, "it is no socket, but something else");
	if (unlink(path) < 0 && errno != ENOENT)
		return complain("replace", path, strerror(errno));
	strcpy(un.sun_path, path);
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sock < 0)
		return complain("make a socket for", path, strerror(errno));
	old = umask(all ? 0111 : 0177);
	r = bind(sock, (struct sockaddr *)&un, sizeof(un));
	umask(old);
	if (r < 0 || listen(sock, 1024) < 0)
		return complain("listen on", path, strerror(errno));
	*ret_sock = sock;
	*ret_lock = lock;
	return 0;
}

int listen_given(char *path, size_t size, int *ret_sock, int *ret_lock)
{
	const char *fds = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(un), type_len = sizeof(int);
	int type = 0;

	/* It was for our keeper. */
	if (!fds || !pid || strcmp(fds, "1") != 0 || atoi(pid) != (int)getppid())
		return 0;
	if (getsockopt(3, SOL_SOCKET, SO_TYPE, &type, &type_len) < 0)
		return 0; /* an earlier worker has kept it */
	if (type != SOCK_SEQPACKET || getsockname(3, (struct sockaddr *)&un, &len) < 0 || !un.sun_path[0])
		return complain("use", "the socket that was passed", "it is none of ListenSequentialPacket= with a path");
	snprintf(path, size, "%s", un.sun_path);
	*ret_lock = take_lock(path);
	if (*ret_lock < 0)
		return -1;
	fcntl(3, F_SETFD, FD_CLOEXEC);
	fcntl(3, F_SETFL, O_NONBLOCK);
	*ret_sock = 3;
	return 1;
}

void listen_notify(const char *text)
{
	const char *to = getenv("NOTIFY_SOCKET");
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	size_t len = to ? strlen(to) : 0;
	int sock;

	if (len < 2 || len >= sizeof(un.sun_path))
		return;
	memcpy(un.sun_path, to, len);
	if (*to == '@')
		un.sun_path[0] = 0;
	sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return;
	if (sendto(sock, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&un,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0) {
		/* It does not listen: not our trouble. */
	}
	close(sock);
}

void listen_close(const char *path, int sock, int lock)
{
	char file[120];

	close(sock);
	snprintf(file, sizeof(file), "%s.lock", path);
	unlink(file); /* ours until it is closed */
	close(lock);
}
