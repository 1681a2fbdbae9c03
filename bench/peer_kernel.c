/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel offers: pipe, Unix sockets, POSIX and System V message queues. Spinning means that no
 * call blocks and one that cannot go on is made again. */
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "bench.h"

enum { TWO_SIDED = 1 << PINGPONG | 1 << ONEWAY, WAITS = 1 << SPIN | 1 << SLEEP };

static int fds[4]; /* side 0 reads 0 and writes 3, side 1 reads 2 and writes 1 */
static int in_fd, out_fd, spins;

/* ---- pipe and stream: bytes, a message is its size ---- */

static int prepare_pipe(struct cell *c)
{
	if (pipe2(fds, O_CLOEXEC) < 0 || pipe2(fds + 2, O_CLOEXEC) < 0)
		return -1;
	for (int i = 0; i < 4; i++)
		fcntl(fds[i], F_SETPIPE_SZ, 1 << 20);
	(void)c;
	return 0;
}

static int prepare_socket(struct cell *c, int type)
{
	int size = 1 << 20, pair[2];

	(void)c;
	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	for (int i = 0; i < 2; i++) {
		setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
		setsockopt(pair[i], SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	}
	fds[0] = fds[3] = pair[0];
	fds[1] = fds[2] = pair[1];
	return 0;
}

static int prepare_stream(struct cell *c)
{
	return prepare_socket(c, SOCK_STREAM);
}

static int prepare_seqpacket(struct cell *c)
{
	return prepare_socket(c, SOCK_SEQPACKET);
}

static void clean_fds(struct cell *c)
{
	(void)c;
	for (int i = 0; i < 4; i++)
		if (i == 0 || (fds[i] != fds[0] && fds[i] != fds[1]))
			close(fds[i]);
	if (fds[1] != fds[0] && fds[3] == fds[0])
		close(fds[1]);
}

static int open_(struct cell *c, int side)
{
	in_fd = fds[side ? 2 : 0];
	out_fd = fds[side ? 1 : 3];
	spins = c->wait == SPIN;
	if (spins) {
		fcntl(in_fd, F_SETFL, O_NONBLOCK);
		fcntl(out_fd, F_SETFL, O_NONBLOCK);
	}
	return 0;
}

static void close_(void)
{
}

static int send_(const void *data, size_t size)
{
	for (size_t at = 0; at < size;) {
		ssize_t n = write(out_fd, (const char *)data + at, size - at);

		if (n > 0)
			at += (size_t)n;
		else if (errno != EAGAIN && errno != EINTR)
			return -1;
	}
	return 0;
}

static int recv_(void *buf, size_t size)
{
	size_t at = 0;

	while (at < size) {
		ssize_t n = read(in_fd, (char *)buf + at, size - at);

		if (n > 0)
			at += (size_t)n;
		else if (n == 0 || (errno != EAGAIN && errno != EINTR))
			return -1;
	}
	return (int)at;
}

#define LOOP(x) bytes_##x
#include "loops.h"
#undef LOOP

const struct peer bench_pipe = {.name = "pipe", .kind = "peer", .works = TWO_SIDED, .waits = WAITS,
				.prepare = prepare_pipe, .run = bytes_run, .clean = clean_fds};
const struct peer bench_stream = {.name = "Unix stream", .kind = "peer", .works = TWO_SIDED, .waits = WAITS,
				  .prepare = prepare_stream, .run = bytes_run, .clean = clean_fds};
const struct peer bench_seqpacket = {.name = "Unix seqpacket", .kind = "peer", .works = TWO_SIDED,
				     .waits = WAITS, .largest = 65536, .prepare = prepare_seqpacket,
				     .run = bytes_run, .clean = clean_fds};

/* ---- POSIX message queues ---- */

static mqd_t mq_in, mq_out;

static int prepare_mq(struct cell *c)
{
	struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
	struct mq_attr a = {.mq_msgsize = (long)c->size};
	char name[64];

	setrlimit(RLIMIT_MSGQUEUE, &all);
	a.mq_maxmsg = geteuid() ? 10 : c->capacity / c->size < 4 ? 4 : (long)(c->capacity / c->size);
	if (a.mq_maxmsg > 16384)
		a.mq_maxmsg = 16384;
	for (int i = 0; i < 2; i++) {
		mqd_t q;

		snprintf(name, sizeof(name), "/%s-%d", c->name, i);
		q = mq_open(name, O_CREAT | O_RDWR, 0600, &a);
		if (q < 0 && errno == EINVAL) { /* what everybody may */
			a.mq_maxmsg = 10;
			q = mq_open(name, O_CREAT | O_RDWR, 0600, &a);
		}
		if (q < 0) {
			bench_fail(c, "mq_open: %s", strerror(errno));
			return -1;
		}
		mq_close(q);
	}
	return 0;
}

static void clean_mq(struct cell *c)
{
	char name[64];

	for (int i = 0; i < 2; i++) {
		snprintf(name, sizeof(name), "/%s-%d", c->name, i);
		mq_unlink(name);
	}
}

static int mq_open_(struct cell *c, int side)
{
	int more = c->wait == SPIN ? O_NONBLOCK : 0;
	char name[64];

	snprintf(name, sizeof(name), "/%s-%d", c->name, side);
	mq_in = mq_open(name, O_RDONLY | more);
	snprintf(name, sizeof(name), "/%s-%d", c->name, !side);
	mq_out = mq_open(name, O_WRONLY | more);
	return mq_in < 0 || mq_out < 0 ? -1 : 0;
}

static int mq_send_(const void *data, size_t size)
{
	while (mq_send(mq_out, data, size, 0) < 0)
		if (errno != EAGAIN && errno != EINTR)
			return -1;
	return 0;
}

static int mq_recv_(void *buf, size_t size)
{
	ssize_t n;

	while ((n = mq_receive(mq_in, buf, size, NULL)) < 0)
		if (errno != EAGAIN && errno != EINTR)
			return -1;
	return (int)n;
}

#define LOOP(x) mq_##x
#define open_ mq_open_
#define send_ mq_send_
#define recv_ mq_recv_
#include "loops.h"
#undef LOOP
#undef open_
#undef send_
#undef recv_

const struct peer bench_mq = {.name = "POSIX queue", .kind = "peer", .works = TWO_SIDED, .waits = WAITS,
			      .largest = 8192, .prepare = prepare_mq, .run = mq_run, .clean = clean_mq};

/* ---- System V message queues ---- */

static int queues[2], sv_in, sv_out, sv_flags;
static struct {
	long type;
	char text[8192];
} sv_msg = {.type = 1};

static int prepare_sv(struct cell *c)
{
	(void)c;
	queues[0] = msgget(IPC_PRIVATE, 0600);
	queues[1] = msgget(IPC_PRIVATE, 0600);
	return queues[0] < 0 || queues[1] < 0 ? -1 : 0;
}

static void clean_sv(struct cell *c)
{
	(void)c;
	msgctl(queues[0], IPC_RMID, NULL);
	msgctl(queues[1], IPC_RMID, NULL);
}

static int sv_open_(struct cell *c, int side)
{
	sv_in = queues[side];
	sv_out = queues[!side];
	sv_flags = c->wait == SPIN ? IPC_NOWAIT : 0;
	return 0;
}

static int sv_send_(const void *data, size_t size)
{
	memcpy(sv_msg.text, data, size);
	while (msgsnd(sv_out, &sv_msg, size, sv_flags) < 0)
		if (errno != EAGAIN && errno != EINTR)
			return -1;
	return 0;
}

static int sv_recv_(void *buf, size_t size)
{
	ssize_t n;

	while ((n = msgrcv(sv_in, &sv_msg, size, 0, sv_flags)) < 0)
		if (errno != ENOMSG && errno != EINTR)
			return -1;
	memcpy(buf, sv_msg.text, (size_t)n);
	return (int)n;
}

#define LOOP(x) sv_##x
#define open_ sv_open_
#define send_ sv_send_
#define recv_ sv_recv_
#include "loops.h"

const struct peer bench_sysv = {.name = "System V queue", .kind = "peer", .works = TWO_SIDED, .waits = WAITS,
				.largest = 4096, .prepare = prepare_sv, .run = sv_run, .clean = clean_sv};
