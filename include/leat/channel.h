/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_CHANNEL_H
#define LEAT_CHANNEL_H
/*
 * Channels: names through which processes that never met exchange messages. A publisher owns one
 * ring; a subscriber reads the rings of all publishers of the name, each in order.
 * struct leat may be shared by threads; a publisher or subscriber belongs to one thread at a time.
 * Manual: leat_open(3), leat_pub_open(3), leat_send(3), leat_sub_open(3), leat_recv(3), leat_stat(3).
 */
#include <leat/base.h>

LEAT_BEGIN_DECLS

struct leat;
struct leat_pub;
struct leat_sub;

/*
 * Connect to the broker of @domain (the path of its socket; NULL: the usual places, and a broker is
 * started if none runs). The caller owns @ret.
 * -ENOENT, -ECONNREFUSED no broker, -EACCES not ours or refused, -EDQUOT, -EPROTO no common version,
 * -EINVAL, -ETIMEDOUT, -ENOMEM, -EMFILE.
 */
LEAT_API int leat_open(const char *domain, struct leat **ret);

/* Close everything that was opened from @l, then @l; NULL is fine. */
LEAT_API void leat_close(struct leat *l);

/* The domain's socket path; borrowed until close. */
LEAT_API const char *leat_domain(const struct leat *l);

/* A descriptor, borrowed, readable when leat_dispatch() has something to do. */
LEAT_API int leat_fd(const struct leat *l);

/*
 * Handle what the broker has sent, and requests for which leat_serve() was given a function; never blocks.
 * How many, or -ECONNRESET when the broker is gone (open channels go on, and were served).
 */
LEAT_API int leat_dispatch(struct leat *l);

/* One round trip to the broker; @ret_ns (may be NULL) takes its time in ns. -ECONNRESET, -ETIMEDOUT. */
LEAT_API int leat_ping(struct leat *l, uint64_t *ret_ns);

/* ---- publishing ---- */

enum leat_policy {
	LEAT_WAIT = 0,      /* a full ring makes the publisher wait: nothing is lost */
	LEAT_OVERWRITE = 1, /* the oldest messages give way: losses are counted */
};

/* Zeroed fields mean the default. Set struct_size = sizeof(struct leat_pub_opts). */
struct leat_pub_opts {
	size_t struct_size;
	uint64_t capacity;        /* ring bytes, rounded up to a power of two; 0 = 1 MiB */
	uint64_t max_size;        /* largest message; above capacity/8 blocks are reserved for it */
	uint32_t blocks;          /* how many blocks, 0 = 4 */
	enum leat_policy policy;  /* what a full ring means */
	int64_t grace_ns;         /* WAIT: a reader that holds the ring up so long is evicted; 0 = never */
	uint32_t strict;          /* 1: fence on every message; see leat_pub_open(3) */
	uint32_t max_publishers;  /* of the channel, decided by who opens it first; 0 = 8 */
	uint32_t max_subscribers; /* likewise; 0 = 32 */
	int64_t spin_ns;          /* spin before sleeping; 0 = 20 us while that pays, -1 = never */
	uint32_t retain;          /* 1: what is in the ring at its end stays until a successor has sent something */
};

struct leat_pub_stat {
	size_t struct_size;
	uint64_t sent;        /* messages */
	uint64_t bytes;       /* of payload */
	uint64_t waits;       /* times the ring was full */
	uint64_t evicted;     /* readers put out for holding the ring up */
	uint64_t capacity;    /* of the ring, bytes */
	uint32_t subscribers; /* attached to this ring now */
	uint32_t blocks_held; /* blocks that readers retain */
};

/*
 * Publish under @name ("a/b/c": letters, digits, '.', '_', '-'); the caller owns @ret.
 * -EINVAL, -EUSERS the channel is full, -EACCES, -EDQUOT, -ENOENT (leatd.conf(5)), -ENOMEM, -ENOSPC, -ECONNRESET,
 * -ETIMEDOUT.
 */
LEAT_API int leat_pub_open(struct leat *l, const char *name, const struct leat_pub_opts *opts,
			   struct leat_pub **ret);

/* Publish what is finished and end the ring; subscribers drain it. NULL is fine. */
LEAT_API void leat_pub_close(struct leat_pub *pub);

/*
 * Send a copy of @size bytes within @timeout_ns nanoseconds (0: at once or -EAGAIN, -1: for ever).
 * -EAGAIN, -ETIMEDOUT full, -EMSGSIZE can never fit, -ENOBUFS every block is retained.
 */
LEAT_API int leat_send(struct leat_pub *pub, const void *data, size_t size, int64_t timeout_ns);

/*
 * Room for @size bytes to be filled in place; borrowed until commit or abort. Errors as leat_send(),
 * -EBUSY something is claimed already.
 */
LEAT_API int leat_claim(struct leat_pub *pub, size_t size, void **ret, int64_t timeout_ns);

enum leat_commit_flag { LEAT_MORE = 1 }; /* publish later, with what follows */

/* Publish the first @size bytes of what was claimed. -EINVAL nothing claimed, or more than that. */
LEAT_API int leat_commit(struct leat_pub *pub, size_t size, unsigned flags);

/* Give the claimed room back. -EINVAL nothing claimed. */
LEAT_API int leat_abort(struct leat_pub *pub);

/* Publish what was committed with LEAT_MORE. Always 0. */
LEAT_API int leat_flush(struct leat_pub *pub);

/* Wait until @n subscribers are attached to this publisher's ring. -ETIMEDOUT, -EAGAIN (timeout 0). */
LEAT_API int leat_wait_subscribers(struct leat_pub *pub, unsigned n, int64_t timeout_ns);

/* This publisher's counters. -EINVAL. */
LEAT_API int leat_pub_stat(struct leat_pub *pub, struct leat_pub_stat *ret);

/* ---- subscribing ---- */

enum leat_from {
	LEAT_NEW = 0,    /* what is sent from now on */
	LEAT_OLDEST = 1, /* everything still in the rings */
	LEAT_LATEST = 2, /* the last message of each publisher, then what follows */
};

enum leat_sub_flag {
	LEAT_OBSERVE = 1,     /* never make a publisher wait; what is lost is counted */
	LEAT_UNTIL_ENDED = 2, /* -ENODATA when publishers have come, ended, and all is drained */
};

/* Zeroed fields mean the default. Set struct_size = sizeof(struct leat_sub_opts). */
struct leat_sub_opts {
	size_t struct_size;
	enum leat_from from;
	unsigned flags;           /* enum leat_sub_flag */
	uint32_t max_publishers;  /* of the channel, decided by who opens it first; 0 = 8 */
	uint32_t max_subscribers; /* likewise; 0 = 32 */
	int64_t spin_ns;          /* spin before sleeping; 0 = 20 us while that pays, -1 = never */
};

struct leat_info {
	uint64_t size;      /* bytes of the message */
	uint64_t seq;       /* its number in its publisher's ring, from 0 */
	uint64_t publisher; /* which publisher: the same number as long as it lives */
	uint64_t lost;      /* messages lost since the one before, on all rings */
};

struct leat_sub_stat {
	size_t struct_size;
	uint64_t received;   /* messages */
	uint64_t bytes;      /* of payload */
	uint64_t lost;       /* messages, exact */
	uint64_t corrupt;    /* rings given up because their publisher wrote nonsense */
	uint32_t publishers; /* rings attached that have not ended */
	uint32_t draining;   /* rings that ended and still hold messages */
};

/*
 * Subscribe to @name, whether or not anyone publishes there; the caller owns @ret.
 * -EINVAL, -EUSERS the channel is full, -EACCES, -EDQUOT, -ENOENT (leatd.conf(5)), -ENOMEM, -ECONNRESET, -ETIMEDOUT.
 */
LEAT_API int leat_sub_open(struct leat *l, const char *name, const struct leat_sub_opts *opts,
			   struct leat_sub **ret);

/* Unsubscribe; what is retained is dropped. NULL is fine. */
LEAT_API void leat_sub_close(struct leat_sub *sub);

/*
 * Copy the next message into @buf, waiting at most @timeout_ns nanoseconds; @info may be NULL.
 * -EAGAIN (timeout 0), -ETIMEDOUT, -EMSGSIZE larger than @size (info->size tells; it stays next),
 * -ENODATA ended (LEAT_UNTIL_ENDED), -EBADMSG a publisher wrote nonsense and its ring was given up.
 */
LEAT_API int leat_recv(struct leat_sub *sub, void *buf, size_t size, struct leat_info *info,
		       int64_t timeout_ns);

/*
 * Look at the next message in place; borrowed until release, retain, or the next peek or recv.
 * Its publisher can still write to it: copy before judging. Errors as leat_recv().
 */
LEAT_API int leat_peek(struct leat_sub *sub, const void **ret, struct leat_info *info,
		       int64_t timeout_ns);

/* Done with what was peeked. -ESTALE it was overwritten meanwhile, -EINVAL nothing peeked. */
LEAT_API int leat_release(struct leat_sub *sub);

/*
 * Keep the peeked message (one that came in a block) beyond the next; borrowed until drop.
 * -ENOTSUP it came inline: copy it, -ENOBUFS four are kept already, -ESTALE lost, -EINVAL.
 */
LEAT_API int leat_retain(struct leat_sub *sub, const void **ret);

/* Give back what was retained. -ESTALE it was overwritten meanwhile, -EINVAL not retained here. */
LEAT_API int leat_drop(struct leat_sub *sub, const void *data);

/*
 * Copy the newest message of any publisher without consuming anything. -EAGAIN nothing yet,
 * -EMSGSIZE larger than @size (info->size tells).
 */
LEAT_API int leat_latest(struct leat_sub *sub, void *buf, size_t size, struct leat_info *info);

/*
 * A descriptor, borrowed, readable while messages wait; for poll and event loops. The first call, and every
 * hundredth, starts a helper thread for this struct leat. Receive with timeout 0 until -EAGAIN.
 */
LEAT_API int leat_sub_fd(struct leat_sub *sub);

/* This subscriber's counters. -EINVAL. */
LEAT_API int leat_sub_stat(struct leat_sub *sub, struct leat_sub_stat *ret);

/* ---- looking ---- */

struct leat_stat {
	size_t struct_size;
	char name[208];
	uint32_t publishers;      /* alive */
	uint32_t draining;        /* rings ended and not yet drained or forgotten */
	uint32_t subscribers;     /* attached */
	uint32_t max_publishers;
	uint32_t max_subscribers;
	uint32_t reserved;
	uint64_t bytes;           /* shared memory of the channel */
	uint64_t sent;            /* messages, in the rings that are still kept */
	uint64_t lag_max;         /* bytes that the slowest waiting subscriber is behind */
};

typedef int leat_list_fn(const struct leat_stat *stat, void *arg);

/*
 * Call @fn for every channel whose name begins with @prefix (NULL: all), in order of name; sent and
 * lag_max stay 0. A non-zero answer of @fn ends it and is returned. -ECONNRESET, -ETIMEDOUT.
 */
LEAT_API int leat_list(struct leat *l, const char *prefix, leat_list_fn *fn, void *arg);

/* A client of the broker: a program's struct leat, or a watch. */
struct leat_who {
	size_t struct_size;
	uint64_t client;      /* its number, never used again */
	int32_t pid;
	uint32_t uid;
	uint32_t publishers;  /* those it has; ended ones are nobody's */
	uint32_t subscribers; /* workers, servers' and clients' included */
	uint32_t shares;      /* regions it shares */
	uint32_t watches;
	uint64_t bytes;       /* shared memory of its rings, and of the regions it shares */
	char program[16];
};

typedef int leat_who_fn(const struct leat_who *who, void *arg);

/*
 * Call @fn for every client of the broker, in the order they came. A non-zero answer of @fn ends it and is returned.
 * -ECONNRESET, -ETIMEDOUT.
 */
LEAT_API int leat_who(struct leat *l, leat_who_fn *fn, void *arg);

/* How much there is of something, and may be: all ones: any. */
struct leat_amount {
	uint64_t used, limit;
};

/* What a user has, of all its clients; rings that are kept after their publishers' end included. */
struct leat_quota {
	size_t struct_size;
	uint32_t uid;
	uint32_t connected; /* clients that are there */
	struct leat_amount memory; /* bytes */
	struct leat_amount channels, publishers, subscribers, clients, descriptors, watches;
};

typedef int leat_quota_fn(const struct leat_quota *quota, void *arg);

/*
 * Call @fn for every user who has anything, in order of uids; who is neither root nor the broker's user hears of its own.
 * A non-zero answer of @fn ends it and is returned. -ECONNRESET, -ETIMEDOUT.
 */
LEAT_API int leat_quota(struct leat *l, leat_quota_fn *fn, void *arg);

/* Put a client (leat_who) out: what it has ends, and its process is not let in again. -ENOENT, -EACCES, -EINVAL it is us,
 * -ECONNRESET, -ETIMEDOUT. */
LEAT_API int leat_kick(struct leat *l, uint64_t client);

struct leat_peer {
	size_t struct_size;
	uint64_t id;     /* ring of a publisher, slot of a subscriber */
	int32_t pid;
	uint32_t uid;
	uint32_t role;   /* 1 publisher, 2 subscriber (waited for), 3 subscriber (observing), 4 queue's group, 5 worker */
	uint32_t alive;  /* 0: ended, its ring is still kept */
	uint64_t count;  /* sent, or received */
	uint64_t lost;
	uint64_t lag;    /* bytes behind, largest over the rings */
	char program[16];
};

typedef int leat_peer_fn(const struct leat_peer *peer, void *arg);

/*
 * Facts about the channel @name, and @fn (may be NULL) for each of its publishers and subscribers.
 * -ENOENT no such channel, -EACCES, -ECONNRESET, -ETIMEDOUT.
 */
LEAT_API int leat_stat(struct leat *l, const char *name, struct leat_stat *ret, leat_peer_fn *fn,
		       void *arg);

/*
 * Forget what the broker keeps of @name: messages of publishers that have ended (retained ones, too) and that nobody
 * is reading, and work queues' groups without workers. Who is there stays. -ENOENT there is no such channel, -EINVAL,
 * -EACCES, -ECONNRESET, -ETIMEDOUT.
 */
LEAT_API int leat_remove(struct leat *l, const char *name);

LEAT_END_DECLS
#endif
