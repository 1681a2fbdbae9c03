/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_CHANNEL_CHANNEL_H
#define LEAT_CHANNEL_CHANNEL_H
/* The handles behind leat/channel.h and what its files share. */
#include <pthread.h>
#include <leat/channel.h>
#include "link/sock.h"
#include "mem/region.h"
#include "ring/reader.h"
#include "ring/writer.h"

/* On the list of everything this process has open, so that a forked child can let go of it. */
struct leat__handle {
	struct leat__handle *next, **at;
	void (*forked)(struct leat__handle *h); /* in the child: make it harmless */
};
void leat__handle_add(struct leat__handle *h, void (*forked)(struct leat__handle *h));
void leat__handle_remove(struct leat__handle *h);

struct leat {
	struct leat__handle handle;
	char path[108];
	pthread_mutex_t lock; /* one request at a time */
	int sock;             /* -1: lost */
	uint64_t serial;
	uint64_t client, instance;
	struct leat_pub *pubs;
	struct leat_sub *subs;
	pthread_mutex_t list_lock; /* pubs, subs, poller */
	struct leat__poller *poller;
	int gone; /* this is a forked child */
};

struct leat_pub {
	struct leat__writer w;
	struct leat__handle handle;
	struct leat *l; /* NULL: a ring by hand */
	struct leat_pub *next, **at;
	struct leat_region *data, *control;
	struct leat__geometry cg;
	struct leat__ctrl_shm *ctrl;
	struct leat__life writing; /* by hand: the lock that makes us the one writer */
	uint64_t object;
	uint32_t entry;
	int gone;
};

struct leat__attached {
	struct leat__reader r;
	struct leat_region *region;
	int owned; /* the region is ours to close; else only its view is */
	int refs;  /* 1, and one per retained block */
	int dead;  /* the broker says that its publisher has ended */
};

struct leat__held {
	struct leat__attached *a;
	struct leat__msg msg;
};

struct leat_sub {
	/* every message */
	struct leat__attached *quick; /* its next message may go the short way; NULL: none may */
	uint32_t budget;              /* messages until the next ring's turn */
	uint32_t flags;
	struct leat__slot *slot;
	uint64_t received, bytes, lost, lost_told;
	struct leat__attached *peeked;
	struct leat__msg msg; /* what is peeked */
	/* now and then */
	struct leat__handle handle;
	struct leat *l; /* NULL: a ring by hand */
	struct leat_sub *next, **at;
	struct leat_region *control;
	struct leat__geometry cg;
	struct leat__ctrl_shm *ctrl; /* NULL: by hand, observing without one */
	struct leat__attached **rings;
	uint32_t n, room, cur;
	uint32_t slot_index, grant, mode;
	uint32_t epoch;       /* of the ring table, last time we asked */
	const uint32_t *epoch_now; /* where it moves; by hand, where it never does: at the one above */
	uint64_t retry_at;    /* asking failed: try again then; 0: it did not */
	int64_t ask_ns;       /* how long the next asking may take */
	enum leat_from from;
	uint64_t object, last_id;
	int had_publisher;
	struct leat__held held[LEAT__HELD];
	struct leat__spin spin;
	uint64_t corrupt;
	struct leat__pollable *pollable;
	/* by hand: */
	struct leat_region *hand_data, *hand_control;
	uint64_t looked_at; /* when its writer was last seen to live */
	uint64_t no_bell; /* stands in where there is no control region */
	int gone;
};

/* One request and its answer, within the control timeout. The packet's descriptors are the caller's. */
int leat__request(struct leat *l, struct leat__out *o, int fd, struct leat__packet *p,
		  struct leat__in *in);
/* The same with a deadline of its own: for requests on the way of receiving. */
int leat__request_within(struct leat *l, struct leat__out *o, int fd, struct leat__packet *p,
			 struct leat__in *in, int64_t ns);
/* Close an object at the broker; asks and does not wait. */
void leat__request_close(struct leat *l, uint64_t object);

/* start.c: start a broker for @path, once, whoever asks. */
int leat__start_broker(const char *path);

/* Map what a packet brought: a control region (read-write) or a ring (read-only). */
int leat__map_control(struct leat__packet *p, const struct leat__in *in, struct leat_region **ret,
		      struct leat__geometry *g);
int leat__map_ring(struct leat__packet *p, const struct leat__in *in, uint64_t id,
		   struct leat_region **ret, struct leat__geometry *g);
/* Regions of channels: no descriptor kept, nothing inherited by a child. */
void leat__settle_region(struct leat_region *r);

enum { LEAT__TURN = 64 }; /* messages of one ring before the next is looked at */

/* sub_rings.c: */
/* What the broker's list of rings means for us: some have ended, some are new. */
int leat__sub_take_rings(struct leat_sub *s, struct leat__packet *p, const struct leat__in *in,
			 int opening);
/* Has the ring table moved? Then ask. Failing is not fatal: what is attached goes on. */
void leat__sub_look_around(struct leat_sub *s);
/* Let go of rings that have ended and are read to the end; 1 if any went. */
int leat__sub_reap(struct leat_sub *s);
void leat__sub_detach(struct leat_sub *s, uint32_t i);
void leat__sub_put(struct leat__attached *a, int gone);
int leat__sub_attach(struct leat_sub *s, struct leat_region *region, int owned,
		     const struct leat__geometry *g, struct leat__attached **ret);

/* sub.c, for hand.c */
int leat__sub_options(struct leat_sub_opts *o, const struct leat_sub_opts *opts);
struct leat_sub *leat__sub_new(const struct leat_sub_opts *o);
void leat__sub_free(struct leat_sub *s);
/* pub.c, for hand.c */
int leat__pub_options(struct leat_pub_opts *o, const struct leat_pub_opts *opts,
		      struct leat__geometry *g, uint64_t page);
void leat__pub_setup(struct leat_pub *p, const struct leat_pub_opts *o);
void leat__pub_forked(struct leat__handle *h);
/* hand.c */
void leat__hand_pub_close(struct leat_pub *p);
void leat__hand_sub_close(struct leat_sub *s);
/* Is the ring's writer dead, or has the ring made way for another? 1 when that is news. */
int leat__hand_look(struct leat_sub *s);

/* poll.c: the subscriber looked and found nothing; arm its descriptor. 1: there is something now. */
int leat__pollable_arm(struct leat_sub *s);
/* Its ring table changes: the helper thread must not look at it any more. */
void leat__pollable_disarm(struct leat_sub *s);
void leat__pollable_end(struct leat_sub *s);
void leat__poller_end(struct leat *l);
void leat__poller_forked(struct leat *l);

#endif
