/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_SET_H
#define LEAT_SET_H
/*
 * Waiting on many: subscribers, queues, servers, clients, watches and descriptors at once. A set belongs to one
 * thread at a time, with all that is in it. Manual: leat_set_open(3).
 */
#include <leat/queue.h>
#include <leat/rpc.h>
#include <leat/watch.h>

LEAT_BEGIN_DECLS

struct leat_set;

/* One that is ready. */
struct leat_ready {
	void *data;      /* as it was added with */
	uint32_t events; /* as poll(2) names them: POLLIN; of descriptors, whatever there is */
};

/* A set with nothing in it; the caller owns @ret. -ENOMEM, -EMFILE. */
LEAT_API int leat_set_open(struct leat_set **ret);

/* What is in it stays open. NULL is fine. */
LEAT_API void leat_set_close(struct leat_set *set);

/*
 * Wait for a subscriber, too; @data is the caller's, and comes back when it is ready. It leaves the set when it is
 * closed. -EEXIST it is in a set already, -ENOTSUP a ring by hand, -ENOMEM, -EMFILE, -ECHILD.
 */
LEAT_API int leat_set_add_sub(struct leat_set *set, struct leat_sub *sub, void *data);

/* A worker, which is to have nothing in hand while the set is waited on. Errors as leat_set_add_sub(). */
LEAT_API int leat_set_add_queue(struct leat_set *set, struct leat_queue *queue, void *data);

/* A server: leat_accept() until -EAGAIN, or leat_dispatch(). Errors as leat_set_add_sub(). */
LEAT_API int leat_set_add_server(struct leat_set *set, struct leat_server *server, void *data);

/* A client: leat_call_wait() until -EAGAIN. That a call's time is over is not told. Errors as leat_set_add_sub(). */
LEAT_API int leat_set_add_client(struct leat_set *set, struct leat_client *client, void *data);

/* A watch: leat_watch_next() until -EAGAIN. Errors as leat_set_add_sub(). */
LEAT_API int leat_set_add_watch(struct leat_set *set, struct leat_watch *watch, void *data);

/* A descriptor, with poll(2)'s POLLIN and POLLOUT in @events; to be taken out before it is closed. -EEXIST,
 * -EPERM it cannot be waited for, -EBADF, -EINVAL, -ENOMEM, -EMFILE. */
LEAT_API int leat_set_add_fd(struct leat_set *set, int fd, uint32_t events, void *data);

/* Take out what was added as @member: a subscriber, queue, server, client or watch. -ENOENT. */
LEAT_API int leat_set_remove(struct leat_set *set, const void *member);

/* Take out a descriptor. -ENOENT. */
LEAT_API int leat_set_remove_fd(struct leat_set *set, int fd);

/*
 * Wait until something is ready, at most @timeout_ns nanoseconds (0: look, -1: for ever), and tell which, at most
 * @max, in turn. How many; -EAGAIN (timeout 0), -ETIMEDOUT, -ENOENT the set is empty, -EINVAL, -ECHILD.
 */
LEAT_API int leat_set_wait(struct leat_set *set, struct leat_ready *ret, int max, int64_t timeout_ns);

LEAT_END_DECLS
#endif
