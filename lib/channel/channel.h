/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_CHANNEL_CHANNEL_H
#define LEAT_CHANNEL_CHANNEL_H
/* The handles behind leat/channel.h and what its files share. */
#include <pthread.h>
#include <leat/channel.h>
#include "link/sock.h"
#include "mem/region.h"
#include "ring/group.h"
#include "ring/reader.h"
#include "ring/writer.h"

/* On a list of what is open: of a struct leat's, or the process's. */
struct leat__node {
	struct leat__node *next, **at;
};

/* On the list of everything this process has open, so that a forked child can let go of it. */
struct leat__handle {
	struct leat__node node;
	void (*forked)(struct leat__handle *h); /* in the child: make it harmless */
};
void leat__handle_add(struct leat__handle *h, void (*forked)(struct leat__handle *h));
void leat__handle_remove(struct leat__handle *h);
/* On to one of the lists of @l, and off it. */
void leat__opened(struct leat *l, struct leat__node **list, struct leat__node *n);
void leat__shut(struct leat *l, struct leat__node *n);

/*
 * What registrations with one instance of a broker have in common, and need even when it has died: whose
 * processes live. Kept until the struct leat is closed, because ours tells others that we do.
 */
struct leat__tie {
	struct leat__tie *next;
	uint64_t instance, client;
	struct leat__life life;
	int lives;      /* to look at others' with; -1: cannot, or nobody needs it any more */
	uint32_t users; /* registrations, and the connection */
};

/* A request whose answer may take longer than its asker can wait: it asks again, until the answer is there. */
struct leat__errand {
	struct leat__errand *next;   /* of those under way */
	uint64_t serial;             /* 0: not under way */
	struct leat__packet *answer; /* came while somebody else listened */
};

struct leat {
	struct leat__handle handle;
	char path[108];
	pthread_mutex_t lock; /* one request at a time; the errands and the ties */
	int sock;             /* -1: lost */
	char *tickets;        /* to show to brokers, between spaces; NULL: none */
	uint8_t version;      /* of the wire, as agreed on */
	uint64_t serial, heard; /* of the last request; of the last one that was answered */
	struct leat__errand *errands, hello; /* under way; hello: what we are connected to has not greeted us yet */
	struct leat__tie *tie, *ties; /* the connection's, and all */
	uint32_t lost;                /* sock is -1, or hello under way */
	uint64_t tend_at;
	struct leat__node *pubs, *subs, *servers, *clients, *shares, *watches;
	pthread_mutex_t list_lock; /* the lists of what is open, and pollers */
	struct leat__poller *pollers;
	int gone; /* this is a forked child */
};

struct leat_share {
	struct leat *l;
	struct leat__node node;
	char *name;
	int fd; /* what others get */
	uint64_t size;
	uint32_t writable;
	struct leat__tie *tie; /* of the broker that knows of it */
	uint64_t object, again_at;
	struct leat__errand asked;
};

/* What the broker gives a ring. */
struct leat__place {
	struct leat_region *control;
	struct leat__geometry cg;
	struct leat__tie *tie;
	uint64_t object, id;
	uint32_t entry;
};

struct leat_pub {
	struct leat__writer w;
	struct leat__handle handle;
	struct leat *l; /* NULL: a ring by hand */
	struct leat__node node;
	struct leat_region *data;
	struct leat__ctrl_shm *ctrl;
	struct leat__place at;     /* by hand: control is borrowed, the rest empty */
	struct leat__life writing; /* by hand: the lock that makes us the one writer */
	int gone;
	/* for going over to a restarted broker, pub_move.c */
	char *name;
	uint64_t origin; /* our first ring's number */
	struct leat_region *next_data; /* the ring that we go on in when all have come; NULL */
	unsigned char *next_view;
	struct leat__place next_at;       /* what the broker says to it; empty: nothing yet */
	struct leat__errand announced;
	uint64_t tended_at, tended_tail;
	uint64_t move_at;   /* not before */
	uint64_t orphan_at; /* when we first saw that our broker is gone; 0: it is not */
};

/* Why rings are taken. */
enum leat__taking { OPENING, LOOKING, RETURNING };

/*
 * A subscriber's place in a control region. It has one; and, after the broker has died and another has come,
 * those of before that are needed until their rings are read.
 */
struct leat__seat {
	uint32_t refs;
	struct leat__seat *next; /* of the past ones */
	struct leat *l;
	struct leat__tie *tie;
	struct leat_region *control; /* NULL: by hand, not ours to close */
	struct leat__geometry cg;
	struct leat__ctrl_shm *ctrl; /* NULL: by hand, observing without one */
	struct leat__slot *slot;
	uint32_t slot_index, grant;
	uint32_t group; /* a worker's: the slot of its group */
	uint64_t object;
	uint64_t newest; /* ring there was when we got it: later ones begin at 0 for us, as the broker arranged it; */
	enum leat__taking how; /* those up to it as this says, however late we get to see them */
};

struct leat__attached {
	struct leat__reader r;
	struct leat_region *region;
	struct leat__seat *seat;
	uint64_t origin; /* its publisher's first ring: what we call the publisher */
	uint64_t client; /* whose life is its publisher's */
	int32_t pid;
	uint32_t uid;
	int pending; /* its publisher has not gone on in it yet */
	int left;    /* a worker's: its publisher has gone on in another; something may still be in hand */
	struct leat__line *lines; /* a worker's: of all slots */
	int owned;   /* the region is ours to close; else only its view is */
	int refs;    /* 1, and one per retained block */
	int dead;    /* the broker says that its publisher has ended, or its life is over */
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
	struct leat__node node;
	char *name;
	struct leat__seat *seat, *past; /* past: those under which there may be rings that we never saw */
	struct leat__attached **rings;
	uint32_t n, room, cur, turn;
	uint32_t detached; /* rings, so far */
	uint32_t strays; /* of the rings: those under another seat than ours */
	uint32_t mode;
	uint32_t epoch;       /* of the ring table, last time we asked */
	const uint32_t *epoch_now; /* where it moves; by hand, where it never does: at the one above */
	uint64_t retry_at;    /* asking failed: try again then; 0: it did not */
	uint64_t pause_ns;    /* from one asking in vain to the next */
	struct leat__errand asked, fetched; /* for the rings there are, or a seat; for one ring */
	uint64_t fetched_id;
	uint32_t asked_epoch; /* as it was when we asked */
	uint64_t asked_after; /* the last ring of the page before; 0: the first page */
	uint64_t turned_at; /* when the last turn of messages was over */
	uint64_t looked_at; /* when we last saw that writers live, where no broker tells */
	enum leat_from from;
	uint64_t since;   /* rings up to this number were there before us */
	uint64_t last_id;
	int had_publisher;
	int returning; /* we have not told the publishers of before yet that we are back */
	struct leat__held held[LEAT__HELD];
	struct leat__spin spin;
	uint64_t corrupt;
	struct leat__pollable *pollable;
	struct leat_queue *queue; /* whose worker this is; NULL */
	struct leat__member *member; /* of the set that it is in; NULL */
	/* by hand: */
	struct leat_region *hand_data, *hand_control;
	uint64_t no_bell; /* stands in where there is no control region */
	int gone;
};

#define LEAT__REQUEST_NS INT64_C(5000000000) /* the longest that a request may take */
/* One request and its answer, within that time. The packet's descriptors are the caller's. */
int leat__request(struct leat *l, struct leat__out *o, int fd, struct leat__packet *p,
		  struct leat__in *in);
/* The same with a time of its own, after which -ETIMEDOUT leaves it under way: the next call sends nothing and takes
 * the answer. If it registers us, @tie takes what it is tied to, for leat__untie() some day; else NULL. */
int leat__errand(struct leat *l, struct leat__errand *r, struct leat__out *o, int fd, struct leat__packet *p,
		 struct leat__in *in, int64_t ns, struct leat__tie **tie);
/* Who was held up by a broker for @spent ns goes on with his own work for so long: it has a twentieth of the time. A broker
 * takes 5 ms at most; what was longer was the machine, and those who wait for us are not to wait for that twenty times. */
static inline uint64_t leat__rest(uint64_t spent, uint64_t least)
{
	uint64_t rest = leat__min(spent, UINT64_C(5000000)) * 20;

	return rest > least ? rest : least;
}
/* Nobody will ask again: what its answer opens is closed when it comes. */
void leat__errand_drop(struct leat *l, struct leat__errand *r);
void leat__untie(struct leat *l, struct leat__tie *t);
void leat__ties_free(struct leat *l);
/* Is client @client of that instance dead? 0 also when we cannot know. */
int leat__tie_dead(const struct leat__tie *t, uint64_t client);
/* Is this the tie of a connection that stands? */
int leat__tied(struct leat *l, const struct leat__tie *t);
/* Of the broker that we are connected to, or were last. */
uint64_t leat__instance(struct leat *l);
int leat__connect(struct leat *l, const char *path);
void leat__disconnect(struct leat *l);
int leat__hear(struct leat *l);
/* On the slow ways of messages: notice that the broker has died, come back to its successor; seldom, and
 * without waiting long. */
void leat__tend(struct leat *l);
int leat__tend_due(const struct leat *l, uint64_t now);
/* Close an object at the broker; asks and does not wait. */
void leat__request_close(struct leat *l, uint64_t object);

/* start.c: start a broker for @path, once, whoever asks. */
int leat__start_broker(const char *path);

/* Map what a packet brought: a control region (read-write) or a ring (read-only). */
int leat__map_control(struct leat__packet *p, const struct leat__in *in, struct leat_region **ret,
		      struct leat__geometry *g);
int leat__map_ring(struct leat__packet *p, const struct leat__in *in, uint64_t id,
		   struct leat_region **ret, struct leat__wire_brought *w, struct leat__geometry *g);
/* Regions of channels: no descriptor kept, nothing inherited by a child. */
void leat__settle_region(struct leat_region *r);

enum { LEAT__TURN = 64 }; /* messages of one ring before the next is looked at */

/* sub_rings.c: */
/* What the broker's list of rings means for us: some have ended, some are new. */
int leat__sub_take_rings(struct leat_sub *s, struct leat__packet *p, const struct leat__in *in,
			 enum leat__taking how);
/* The pages after the first: 0, -ETIMEDOUT it is under way. */
int leat__sub_take_more(struct leat_sub *s, const struct leat__in *in, enum leat__taking how, int64_t ns);
/* Has anything happened to the ring table or the broker? A look, for who waits; then: */
int leat__sub_stirs(struct leat_sub *s);
/* Has the ring table moved? Then ask. Failing is not fatal: what is attached goes on. */
void leat__sub_look_around(struct leat_sub *s);
/* Its publisher has gone on in this ring: follow. 1 done, 0 not yet. */
int leat__sub_follow(struct leat_sub *s, struct leat__attached *a);
/* Let go of rings that have ended and are read to the end; 1 if any went. */
int leat__sub_reap(struct leat_sub *s);
void leat__sub_detach(struct leat_sub *s, uint32_t i);
void leat__sub_put(struct leat__attached *a, int gone);
/* The bells that ring for its rings, at most LEAT__BELLS. */
enum { LEAT__BELLS = 8 };
unsigned leat__sub_bells(struct leat_sub *s, uint32_t **bells);
/* sub_open.c: come back, at a restarted broker. */
int leat__sub_return(struct leat_sub *s, int64_t ns);
void leat__sub_returned(struct leat_sub *s);
/* What leat_sub_open() does, also for workers: @queue is then known before anything is attached. */
int leat__sub_open(struct leat *l, const char *name, const struct leat_sub_opts *o, struct leat_queue *queue,
		   struct leat_sub **ret);
/* Does it read, or is it to read, a ring of the publisher @origin? */
int leat__sub_reads(const struct leat_sub *s, uint64_t origin);
enum { LEAT__TELL_ENDS = 1 << 16 }; /* of its flags: -ENODATA whenever a ring has ended and is read */
struct leat__seat *leat__seat_new(struct leat_sub *s);
void leat__seat_put(struct leat__seat *seat, int gone);
int leat__sub_attach(struct leat_sub *s, struct leat_region *region, int owned,
		     const struct leat__geometry *g, struct leat__attached **ret);

/* sub.c: would looking find something? For who waits. */
int leat__sub_ready(void *sub);
/* sub.c, for hand.c */
int leat__sub_options(struct leat_sub_opts *o, const struct leat_sub_opts *opts);
struct leat_sub *leat__sub_new(const struct leat_sub_opts *o);
void leat__sub_free(struct leat_sub *s);
/* pub.c, for hand.c */
int leat__pub_options(struct leat_pub_opts *o, const struct leat_pub_opts *opts,
		      struct leat__geometry *g, uint64_t page);
void leat__pub_setup(struct leat_pub *p, const struct leat_pub_opts *o);
void leat__pub_forked(struct leat__handle *h);
/* pub.c, for server.c: with @ns for the broker's answer. */
int leat__pub_open(struct leat *l, const char *name, const struct leat_pub_opts *opts, int64_t ns, struct leat_pub **ret);
/* pub_move.c: on the slow ways of sending, with nothing claimed. */
void leat__pub_tend(struct leat_pub *p);
/* While waiting for room: are those that we wait for still alive? 1: the broker is not, and that comes first. */
int leat__pub_bury(void *arg);
/* pub.c, for pub_move.c: a ring's region, and its place at the broker. */
int leat__pub_make_ring(struct leat__geometry *g, struct leat_region **ret, unsigned char **view);
/* @origin 0: it goes on from no other. */
int leat__pub_announce(struct leat_pub *p, struct leat_region *ring, const struct leat__geometry *g,
		       uint32_t n_rings, uint32_t n_slots, uint64_t origin, int64_t ns,
		       struct leat__place *ret);
void leat__place_leave(struct leat *l, struct leat__place *place);
/* hand.c */
void leat__hand_pub_close(struct leat_pub *p);
void leat__hand_sub_close(struct leat_sub *s);
/* Is the ring's writer dead, or has the ring made way for another? 1 when that is news. */
int leat__hand_look(struct leat_sub *s);

/* look.c: names that the broker lists, page by page: in answer to which request, under which tag, how large what stands
 * before each is, and what to do with it; other than 0 stops, and is returned. */
struct leat__listing {
	unsigned request, tag;
	size_t size;
	int (*each)(const void *record, const char *name, void *arg);
};
int leat__list(struct leat *l, const struct leat__listing *what, const char *prefix, void *arg);
/* Up to where a list has been read. */
struct leat__page {
	char after[LEAT__NAME_MAX + 1]; /* the last name of it; "": it begins */
	uint32_t more;                  /* the broker says that it goes on */
};
/* One page, of names after @page, which goes on to its end: 1 there is more; -ETIMEDOUT it is under way, as errands are.
 * @stop: what stopped it. */
int leat__list_page(struct leat *l, struct leat__errand *r, int64_t ns, const struct leat__listing *what,
		    struct leat__page *page, const char *prefix, void *arg, int *stop);

/* domain.c: another connection to the same broker. */
int leat__open_at(struct leat *l, struct leat **ret);

/* set.c: what it was for is being closed; NULL is fine. */
void leat__member_remove(struct leat__member *m);

/* watch.c: where its member of a set is known. */
struct leat_watch;
struct leat__member **leat__watch_member(struct leat_watch *w);
/* Close them all; in a forked child, their descriptors. */
void leat__watches_close(struct leat *l);
void leat__watches_forked(struct leat *l);

/* share.c: share again what a restarted broker does not know of. */
void leat__shares_tend(struct leat *l);

/* server.c: call the functions of those that have one; how many requests it were. */
int leat__servers_dispatch(struct leat *l);

/* queue.c: a worker's subscriber. */
const char *leat__queue_group(const struct leat_queue *q);
void leat__queue_end(struct leat_queue *q);
/* Is this ring, which it does not have, one to attach? */
int leat__queue_wants(const struct leat_sub *s, const struct leat__wire_ring *w);
/* Has its group done with this one? */
int leat__queue_over(struct leat_sub *s, struct leat__attached *a);
/* Would taking find something? */
int leat__queue_ready(void *queue);
/* The same without a look at the broker, and also: is nobody on watch? For the helper thread. */
int leat__queue_due(const struct leat_queue *q);
/* Begin to wait in a way of one's own: on which bells (at most LEAT__BELLS). And be done with it. */
unsigned leat__queue_listen(struct leat_queue *q, uint32_t **bells);
void leat__queue_hush(struct leat_queue *q);
struct leat_sub *leat__queue_sub(const struct leat_queue *q);

/* poll.c: the subscriber (or worker) looked and found nothing; arm its descriptor. 1: there is something now. */
int leat__pollable_arm(struct leat_sub *s);
/* Its ring table changes, or the worker takes: the helper thread must not look at it any more. */
void leat__pollable_disarm(struct leat_sub *s);
void leat__pollable_end(struct leat_sub *s);
void leat__pollers_end(struct leat *l);
void leat__pollers_forked(struct leat *l);

#endif
