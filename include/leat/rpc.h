/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_RPC_H
#define LEAT_RPC_H
/*
 * Request and reply: clients call a server by a name. Each pair has two rings of its own, which only their writers
 * can write. A server or client belongs to one thread at a time. Manual: leat_serve(3), leat_call(3).
 */
#include <leat/channel.h>

LEAT_BEGIN_DECLS

struct leat_server;
struct leat_client;

/* ---- serving ---- */

/* A request; to be copied as one likes. */
struct leat_request {
	const void *data; /* borrowed until it is replied to, or the next one is accepted */
	uint64_t size;    /* bytes */
	uint64_t client;  /* whose: the same number as long as it is connected */
	uint64_t call;    /* which of its calls */
};

/* Reply now, or later, or return an error (-errno): then that is the reply. */
typedef int leat_serve_fn(struct leat_server *server, const struct leat_request *req, void *arg);

/* Zeroed fields mean the default. Set struct_size = sizeof(struct leat_serve_opts). */
struct leat_serve_opts {
	size_t struct_size;
	uint64_t max_reply;       /* largest reply, bytes; 0 = 4096 */
	uint32_t max_calls;       /* of one client under way at once; 0 = 16 */
	uint32_t max_clients;     /* of the name, decided by who opens it first; 0 = 64, at most 1024 */
	int64_t spin_ns;          /* spin before sleeping; 0 = 20 us while that pays, -1 = never */
	leat_serve_fn *fn;        /* called by leat_dispatch(); NULL: leat_accept() is */
	void *arg;
};

struct leat_serve_stat {
	size_t struct_size;
	uint64_t requests; /* accepted */
	uint64_t replies;  /* sent */
	uint64_t dropped;  /* replies that a client left no room for, or was gone for */
	uint64_t corrupt;  /* messages that were no requests */
	uint32_t clients;  /* connected now */
};

/*
 * Serve @name; the caller owns @ret. Several may: a client keeps to the one that answered it first.
 * @opts may be NULL. -EINVAL, -EUSERS the channel is full, -EACCES, -EDQUOT, -ENOMEM, -ECONNRESET, -ETIMEDOUT.
 */
LEAT_API int leat_serve(struct leat *l, const char *name, const struct leat_serve_opts *opts, struct leat_server **ret);

/* Serve no more: the calls under way fail. NULL is fine. */
LEAT_API void leat_serve_close(struct leat_server *server);

/* The next request, within @timeout_ns nanoseconds (0: at once or -EAGAIN, -1: for ever). -ETIMEDOUT. */
LEAT_API int leat_accept(struct leat_server *server, struct leat_request *ret, int64_t timeout_ns);

/*
 * Reply with a copy of @size bytes, and @error (0, or a negative errno that the call fails with). Never waits.
 * -EMSGSIZE above max_reply, -EPIPE its client is gone, -EAGAIN it leaves no room for replies, -EINVAL.
 */
LEAT_API int leat_reply(struct leat_server *server, const struct leat_request *req, int error, const void *data,
			size_t size);

/* Room for a reply of @size bytes to be filled in place, borrowed until it is committed. Errors as leat_reply(),
 * -EBUSY another reply to this client is being filled. */
LEAT_API int leat_reply_claim(struct leat_server *server, const struct leat_request *req, size_t size, void **ret);

/* Reply with the first @size bytes of what was claimed for @req. -EINVAL nothing claimed, or more than that; -EPIPE. */
LEAT_API int leat_reply_commit(struct leat_server *server, const struct leat_request *req, int error, size_t size);

/* A descriptor, borrowed, readable when there may be a request; leat_accept() or leat_dispatch() until there is
 * none. -EMFILE, -ENOMEM, -ECHILD. */
LEAT_API int leat_server_fd(struct leat_server *server);

/* This server's counters. -EINVAL. */
LEAT_API int leat_serve_stat(struct leat_server *server, struct leat_serve_stat *ret);

/* ---- calling ---- */

/* Zeroed fields mean the default. Set struct_size = sizeof(struct leat_client_opts). */
struct leat_client_opts {
	size_t struct_size;
	uint64_t max_request; /* largest request, bytes; 0 = 4096 */
	uint32_t max_calls;   /* under way at once, or fewer if the server says so; 0 = 16, at most 256 */
	uint32_t max_clients; /* of the name, decided by who opens it first; 0 = 64, at most 1024 */
	int64_t spin_ns;      /* spin before sleeping; 0 = 20 us while that pays, -1 = never */
};

/* How a call ended. */
struct leat_answer {
	uint64_t call;    /* which, as leat_call_begin() said */
	const void *data; /* borrowed until the next call of a function on this client */
	uint64_t size;    /* bytes */
	int error;        /* 0; what the server said; -ETIMEDOUT, -EOWNERDEAD the server is gone */
};

/*
 * Become a client of @name, whether it is served already or not; the caller owns @ret. @opts may be NULL.
 * -EINVAL, -EUSERS too many clients, -EACCES, -EDQUOT, -ENOMEM, -ECONNRESET, -ETIMEDOUT.
 */
LEAT_API int leat_client_open(struct leat *l, const char *name, const struct leat_client_opts *opts,
			      struct leat_client **ret);

/* Leave; calls under way are forgotten. NULL is fine. */
LEAT_API void leat_client_close(struct leat_client *client);

/*
 * Call and wait for the reply, within @timeout_ns nanoseconds (-1: for ever), a server's coming included.
 * -ETIMEDOUT, -EOWNERDEAD the server died meanwhile: it may have done it or not; -EMSGSIZE, -EBUSY calls are under
 * way; or what the server said.
 */
LEAT_API int leat_call(struct leat_client *client, const void *data, size_t size, struct leat_answer *ret,
		       int64_t timeout_ns);

/* Begin a call, which ends within @timeout_ns nanoseconds; @ret takes its number. -EAGAIN too many are under way,
 * -ETIMEDOUT no server, -EMSGSIZE. */
LEAT_API int leat_call_begin(struct leat_client *client, const void *data, size_t size, int64_t timeout_ns,
			     uint64_t *ret);

/* The next call that ends, in whatever way (@ret tells), within @timeout_ns nanoseconds. -EAGAIN (timeout 0),
 * -ETIMEDOUT none ended in time, -ENOENT none is under way. */
LEAT_API int leat_call_wait(struct leat_client *client, struct leat_answer *ret, int64_t timeout_ns);

/* A descriptor, borrowed, readable when a call may have ended; leat_call_wait() until none has. -EMFILE, -ENOMEM,
 * -ECHILD. It does not tell that a call's time is over. */
LEAT_API int leat_client_fd(struct leat_client *client);

LEAT_END_DECLS
#endif
