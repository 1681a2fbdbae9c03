/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_RING_READER_H
#define LEAT_RING_READER_H
/*
 * The reading side of one ring: one thread of one process. Everything it reads may be hostile: read
 * once, check, use, then look at limit again.
 */
#include <leat/channel.h>
#include "mem/layout.h"
#include "sync/bell.h"

struct leat__reader {
	/* every message */
	const unsigned char *data;
	uint64_t mask;
	uint64_t pos;  /* the next record */
	uint64_t seen; /* tail, last time we looked */
	uint64_t seq;  /* of the next record, 64 bits */
	uint64_t published;
	struct leat__ring_shm *ring; /* const in spirit: mapped read-only */
	struct leat__line *line;     /* ours for this ring; NULL: nobody is told where we are */
	uint32_t *space_bell;
	uint32_t counting; /* enum below */
	uint32_t waiting;  /* the writer waits for us (ACTIVE) */
	/* now and then */
	uint64_t word; /* our state word, without the state */
	uint64_t lost; /* not reported yet */
	uint64_t id;
	struct leat__geometry g;
	const unsigned char *blocks_at;
};

enum {
	LEAT__KNOWN = 0, /* seq is what the next record must say */
	LEAT__ADOPT,     /* we begin here: believe the first record */
	LEAT__GAP,       /* we skipped: the next record tells how many were lost */
};

struct leat__msg {
	const void *data;
	uint64_t size;
	uint64_t seq;
	uint64_t pos;  /* of its record */
	uint64_t need; /* bytes of its record */
	uint64_t gen;  /* of its block */
	int32_t block; /* -1: inline */
};

/* Set up for ring @id; attach next. @line NULL: not waited for and not seen. */
void leat__reader_init(struct leat__reader *r, struct leat__ring_shm *ring,
		       const unsigned char *data, const struct leat__geometry *g, uint64_t id,
		       struct leat__line *line, uint32_t *space_bell);

/* Begin at position 0 as the broker arranged it: the line is ACTIVE already (@word), or is not. */
void leat__reader_begin(struct leat__reader *r, uint64_t word, int waiting);

/* Join a ring that is being written, where @from says. @word: grant bits of the state word. */
void leat__reader_join(struct leat__reader *r, uint64_t word, int waiting, enum leat_from from);

/* The next message: 1, 0 none now, -EBADMSG the publisher wrote nonsense. Losses add to r->lost. */
int leat__reader_next(struct leat__reader *r, struct leat__msg *msg);

/* Was @msg still whole after its last use? If not, skip() it, losses counted. */
int leat__reader_intact(const struct leat__reader *r, const struct leat__msg *msg);
void leat__reader_skip(struct leat__reader *r, const struct leat__msg *msg);
void leat__reader_advance(struct leat__reader *r, const struct leat__msg *msg);

/* Keep @msg's block in @held; 1 kept, 0 lost. Advance afterwards. */
int leat__reader_retain(struct leat__reader *r, const struct leat__msg *msg, uint64_t *held);

/* Is there something, or an end to see? Reads shared memory only: any thread may ask. */
int leat__reader_ready(const struct leat__reader *r, uint64_t pos);

/* 1 when the ring ended (cleanly, or @dead: its publisher is gone) and everything is read. */
int leat__reader_ended(struct leat__reader *r, int dead);

/* No more of this ring: say DONE, the last store to the line. */
void leat__reader_leave(struct leat__reader *r);

/* The newest record without moving; check with intact() after use. 1, 0 none. */
int leat__reader_latest(const struct leat__reader *r, struct leat__msg *msg);

#endif
