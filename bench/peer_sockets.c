/* SPDX-License-Identifier: Apache-2.0 */
/* Message libraries over local sockets: ZeroMQ and nng, a pair each. They always block: a side that polls
 * keeps their own threads from running where it is pinned to one processor. */
#include <errno.h>
#include <nng/nng.h>
#include <nng/protocol/pair1/pair.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>
#include "bench.h"

enum { TWO_SIDED = 1 << PINGPONG | 1 << ONEWAY, WAITS = 1 << SLEEP };

static void *context, *zs;

static int zmq_open_(struct cell *c, int side)
{
	int linger = 1000;
	char url[160];
	int e;

	snprintf(url, sizeof(url), "ipc://%s/%s.zmq", c->dir, c->name);
	context = zmq_ctx_new();
	zs = zmq_socket(context, ZMQ_PAIR);
	zmq_setsockopt(zs, ZMQ_LINGER, &linger, sizeof(linger));
	/* Who connects before the other has bound tries again after 100 ms only. */
	for (int i = 0; side && i < 5000 && access(url + strlen("ipc://"), F_OK) != 0; i++)
		usleep(1000);
	e = side ? zmq_connect(zs, url) : zmq_bind(zs, url);
	if (e < 0)
		bench_fail(c, "%s: %s", url, zmq_strerror(errno));
	return e;
}

static void zmq_close_(void)
{
	zmq_close(zs);
	zmq_ctx_destroy(context);
}

static int zmq_send_(const void *data, size_t size)
{
	while (zmq_send(zs, data, size, 0) < 0)
		if (errno != EAGAIN && errno != EINTR)
			return -1;
	return 0;
}

static int zmq_recv_(void *buf, size_t size)
{
	int n;

	while ((n = zmq_recv(zs, buf, size, 0)) < 0)
		if (errno != EAGAIN && errno != EINTR)
			return -1;
	return n;
}

#define LOOP(x) zmq_##x
#define open_ zmq_open_
#define close_ zmq_close_
#define send_ zmq_send_
#define recv_ zmq_recv_
#include "loops.h"
#undef LOOP
#undef open_
#undef close_
#undef send_
#undef recv_

const struct peer bench_zmq = {.name = "ZeroMQ ipc", .kind = "peer", .works = TWO_SIDED, .waits = WAITS,
			       .run = zmq_run};

static nng_socket ns;

static int nng_open_(struct cell *c, int side)
{
	char url[160];
	int e;

	snprintf(url, sizeof(url), "ipc://%s/%s.nng", c->dir, c->name);
	e = nng_pair1_open(&ns);
	if (!e)
		e = nng_socket_set_size(ns, NNG_OPT_RECVMAXSZ, 0);
	for (int i = 0; !e && i < 5000; i++) { /* who dials waits for who listens */
		e = side ? nng_dial(ns, url, NULL, 0) : nng_listen(ns, url, NULL, 0);
		if (!e || !side)
			break;
		e = 0;
		usleep(1000);
	}
	if (e)
		bench_fail(c, "%s: %s", url, nng_strerror(e));
	return e ? -1 : 0;
}

static void nng_close_(void)
{
	usleep(50000); /* it has no linger */
	nng_close(ns);
}

static int nng_send_(const void *data, size_t size)
{
	int e;

	while ((e = nng_send(ns, (void *)(uintptr_t)data, size, 0)) != 0)
		if (e != NNG_EAGAIN)
			return -1;
	return 0;
}

static int nng_recv_(void *buf, size_t size)
{
	int e;

	while ((e = nng_recv(ns, buf, &size, 0)) != 0)
		if (e != NNG_EAGAIN)
			return -1;
	return (int)size;
}

#define LOOP(x) nng_##x
#define open_ nng_open_
#define close_ nng_close_
#define send_ nng_send_
#define recv_ nng_recv_
#include "loops.h"

const struct peer bench_nng = {.name = "nng ipc", .kind = "peer", .works = TWO_SIDED, .waits = WAITS,
			       .run = nng_run};
