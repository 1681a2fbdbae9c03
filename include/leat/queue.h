/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_QUEUE_H
#define LEAT_QUEUE_H
/*
 * Work queues: each message of a channel goes to one worker of a group. Publishers are those of leat/channel.h
 * and need not know. A worker belongs to one thread at a time. Manual: leat_queue_open(3).
 */
#include <leat/channel.h>

LEAT_BEGIN_DECLS

struct leat_queue;

/* Zeroed fields mean the default. Set struct_size = sizeof(struct leat_queue_opts). */
struct leat_queue_opts {
	size_t struct_size;
	uint32_t max_deliveries;  /* then a message goes to NAME/dead; 0 = 5, UINT32_MAX = never */
	unsigned flags;           /* LEAT_UNTIL_ENDED, see enum leat_sub_flag */
	uint32_t max_publishers;  /* of the channel, decided by who opens it first; 0 = 8 */
	uint32_t max_subscribers; /* likewise, workers and groups included; 0 = 32 */
	int64_t spin_ns;          /* spin before sleeping; 0 = 20 us while that pays, -1 = never */
};

struct leat_work {
	uint64_t size;       /* bytes of the message */
	uint64_t seq;        /* its number in its publisher's ring, from 0 */
	uint64_t publisher;  /* which publisher: the same number as long as it lives */
	uint64_t deliveries; /* how often it was handed out, this time included: above 1, redelivered */
};

struct leat_queue_stat {
	size_t struct_size;
	uint64_t taken;       /* messages handed out by this worker's take */
	uint64_t acked;       /* and done with */
	uint64_t nacked;      /* and put back */
	uint64_t redelivered; /* of taken: others had had them */
	uint64_t dead;        /* sent to NAME/dead instead */
	uint64_t corrupt;     /* rings left out: they overwrite, or their publisher wrote nonsense */
};

/*
 * Become a worker of @group (letters, digits, '.', '_', '-'; at most 31) on channel @name; the caller owns @ret.
 * @opts may be NULL. -EINVAL, -EUSERS the channel is full, -EACCES, -EDQUOT, -ENOMEM, -ECONNRESET, -ETIMEDOUT.
 */
LEAT_API int leat_queue_open(struct leat *l, const char *name, const char *group,
			     const struct leat_queue_opts *opts, struct leat_queue **ret);

/* Leave; what is in hand is put back for another. NULL is fine. */
LEAT_API void leat_queue_close(struct leat_queue *queue);

/*
 * Take the next message, waiting at most @timeout_ns nanoseconds; @ret is borrowed until ack or nack, @work may
 * be NULL. -EAGAIN (timeout 0), -ETIMEDOUT, -EBUSY one is in hand, -ENODATA ended (LEAT_UNTIL_ENDED), -EBADMSG a
 * publisher wrote nonsense, -ENOMEM; of a message that goes to NAME/dead, errors of leat_pub_open() and leat_send().
 */
LEAT_API int leat_queue_take(struct leat_queue *queue, const void **ret, struct leat_work *work,
			     int64_t timeout_ns);

/* It is done. -ESTALE another was given it, or it was overwritten meanwhile; -EINVAL nothing is in hand. */
LEAT_API int leat_queue_ack(struct leat_queue *queue);

/* It is not done: let it be delivered again, to anyone. Errors as leat_queue_ack(). */
LEAT_API int leat_queue_nack(struct leat_queue *queue);

/* A descriptor, borrowed, readable when there may be a message; leat_queue_take() until -EAGAIN. -EMFILE, -ENOMEM,
 * -ECHILD. */
LEAT_API int leat_queue_fd(struct leat_queue *queue);

/* This worker's counters. -EINVAL. */
LEAT_API int leat_queue_stat(struct leat_queue *queue, struct leat_queue_stat *ret);

LEAT_END_DECLS
#endif
