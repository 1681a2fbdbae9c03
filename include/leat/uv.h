/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_UV_H
#define LEAT_UV_H
/*
 * A subscriber in a libuv loop. Header only, and the only one that needs libuv: not part of leat.h.
 * Manual: leat_uv(3).
 */
#include <leat/channel.h>
#include <uv.h>

LEAT_BEGIN_DECLS

struct leat_uv_sub;

/* Called in the loop while messages wait: leat_recv(h->sub, ...) with timeout 0, until -EAGAIN. */
typedef void leat_uv_fn(struct leat_uv_sub *h);

/* The caller's; alive until leat_uv_sub_stop() has called back. */
struct leat_uv_sub {
	uv_poll_t poll;
	struct leat_sub *sub; /* borrowed: to be closed after leat_uv_sub_stop() */
	leat_uv_fn *fn;
	leat_uv_fn *stopped;
	void *data; /* the caller's own */
};

static inline void leat__uv_readable(uv_poll_t *poll, int status, int events)
{
	struct leat_uv_sub *h = (struct leat_uv_sub *)poll->data;

	(void)status; /* whatever it is, leat_recv() tells */
	(void)events;
	h->fn(h);
}

static inline void leat__uv_closed(uv_handle_t *handle)
{
	struct leat_uv_sub *h = (struct leat_uv_sub *)handle->data;

	if (h->stopped)
		h->stopped(h);
}

/* Call @fn in @loop whenever messages wait for @sub. 0, or a negative errno: of leat_sub_fd(), or libuv's. */
static inline int leat_uv_sub_start(struct leat_uv_sub *h, uv_loop_t *loop, struct leat_sub *sub, leat_uv_fn *fn)
{
	int fd = leat_sub_fd(sub), e = fd < 0 ? fd : uv_poll_init(loop, &h->poll, fd);

	if (e < 0)
		return e;
	h->poll.data = h;
	h->sub = sub;
	h->fn = fn;
	h->stopped = NULL;
	return uv_poll_start(&h->poll, UV_READABLE, leat__uv_readable);
}

/* No more calls of fn; @stopped (may be NULL) is called in the loop when @h may be freed. Then, or now, close the sub. */
static inline void leat_uv_sub_stop(struct leat_uv_sub *h, leat_uv_fn *stopped)
{
	h->stopped = stopped;
	uv_close((uv_handle_t *)&h->poll, leat__uv_closed);
}

LEAT_END_DECLS
#endif
