/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_RING_GROUP_H
#define LEAT_RING_GROUP_H
/*
 * A group of workers on one ring: each message goes to one of them. The group's line says which message is
 * next; a worker notes it in a line of its own, claims it by moving the group's, and the line says that it has
 * it in hand until it is done. The publisher waits for all these lines' cursors. A message whose worker died,
 * or that was put back, stays in its line for another, who takes that over.
 *
 * The publisher reads the group's line before the workers': the broker gives groups lower slots.
 */
#include "ring/reader.h"

/* One worker's view of one ring. Everything in it but numbers of ours is for others to scribble on. */
struct leat__group {
	struct leat__line *lines; /* of the ring's entry; NULL: it has none */
	struct leat__slot *slots;
	uint32_t n_slots;
	uint32_t group, me; /* slots */
	uint64_t id;        /* of the ring */
	int ended;          /* its publisher has: nobody overwrites anything */
	/* Is the worker in @slot dead or gone? */
	int (*gone)(void *arg, uint32_t slot);
	void *arg;
};

struct leat__hand {
	struct leat__line *line;
	uint64_t word;    /* what it says while the message is ours */
	uint64_t count;   /* how often it was delivered, this time included */
	uint32_t perhaps; /* the dead one may not have got it: to be copied, and to count only if intact then */
};

/* Claim the next message: 1 it is ours, 0 there is none, -EBADMSG nonsense, -ENOBUFS no line is free. */
int leat__group_claim(const struct leat__group *g, struct leat__reader *r, struct leat__msg *msg,
		      struct leat__hand *hand);
/* Take over a message that was put back, or whose worker is gone: as claim. */
int leat__group_adopt(const struct leat__group *g, struct leat__reader *r, struct leat__msg *msg,
		      struct leat__hand *hand);
/* It is done with; or (@again) to be delivered again. 0, -ESTALE it was taken from us. */
int leat__hand_over(const struct leat__hand *hand, int again);

/* Is anything unclaimed? A look, from any thread. */
int leat__group_ready(const struct leat__group *g, const struct leat__reader *r);
/* Is everything up to the end claimed, and nothing in hand? Then say that we are done with the ring: 1. */
int leat__group_over(const struct leat__group *g, const struct leat__reader *r);
/* Is nothing in hand? */
int leat__group_quiet(const struct leat__group *g);

/* The publisher goes over to another ring: take what is next along, and let nobody claim here any more. */
uint64_t leat__group_freeze(struct leat__line *line);
/* It never got there. */
void leat__group_thaw(struct leat__line *line);

#endif
