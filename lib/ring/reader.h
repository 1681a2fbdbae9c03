/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_RING_READER_H
#define LEAT_RING_READER_H
/*
 * The reading side of one ring: one thread of one process. Everything it reads may be hostile: read
 * once, check, use, then look at limit again.
 */
#include <leat/channel.h>
#include "base/base.h"
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
	uint64_t capacity;
	int32_t heels;       /* looks at tail in a row that found something at once, or after a burst */
	int32_t waited;      /* the last look found nothing */
	uint64_t looked;     /* seq when a look last found something */
	uint64_t newest, newest_tail; /* the newest message when latest() was last asked, and its end */
	struct leat__record newest_rec;
	uint64_t publish_at; /* published + capacity / 16 */
	/* now and then */
	uint64_t word; /* our state word, without the state */
	uint64_t lost; /* not reported yet */
	uint64_t id;
	struct leat__geometry g;
	const unsigned char *blocks_at;
	struct leat__line *twin; /* in the ring that this one goes on in: to be kept up to date, too; NULL */
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

/* What lies at @pos: to be believed when that is whole(), below. */
static inline struct leat__record leat__record_at(const struct leat__reader *r, uint64_t pos)
{
	const uint64_t *at = (const uint64_t *)(const void *)(r->data + (pos & r->mask));
	uint64_t both = leat__load_relaxed(at); /* size and seq in one look */
	struct leat__record rec;

	memcpy(&rec, &both, sizeof(rec));
	return rec;
}

static inline uint64_t leat__record_bytes(struct leat__record rec)
{
	return leat__align(sizeof(rec) + (rec.size & ~LEAT__IN_BLOCK), 8);
}

/* Set up for ring @id; attach next. @line NULL: not waited for and not seen. */
void leat__reader_init(struct leat__reader *r, struct leat__ring_shm *ring,
		       const unsigned char *data, const struct leat__geometry *g, uint64_t id,
		       struct leat__line *line, uint32_t *space_bell);

/* For readers whose place others decide (group.c). A mark to begin at: of those from @least to @most that still
 * hold the oldest, or the newest; 1 found. And what to say of what makes no sense: -EBADMSG, or 0 when it was overwritten
 * meanwhile, and we stand elsewhere. */
int leat__reader_mark(const struct leat__reader *r, int oldest, uint64_t least, uint64_t most, uint64_t *pos,
		      uint64_t *seq);
int leat__reader_doubt(struct leat__reader *r, uint64_t pos);
/* Stand at the oldest record there is; or, if @oldest is 0, behind the newest. */
void leat__reader_start(struct leat__reader *r, int oldest);

/* Begin at position 0 as the broker arranged it: the line is ACTIVE already (@word), or is not. */
void leat__reader_begin(struct leat__reader *r, uint64_t word, int waiting);

/* Come to a ring before its writer does: it is to wait for us from @pos on. */
void leat__reader_arrive(struct leat__reader *r, uint64_t word, int waiting, uint64_t pos);

/* Then begin there, or where the caller knows better: position, number, and LEAT__KNOWN or LEAT__ADOPT. What is
 * no longer there by then is counted. */
void leat__reader_resume(struct leat__reader *r, uint64_t pos, uint64_t seq, uint32_t counting);

/* Join a ring that is being written, where @from says. @word: grant bits of the state word. */
void leat__reader_join(struct leat__reader *r, uint64_t word, int waiting, enum leat_from from);

/* The next message: 1, 0 none now, -EBADMSG the publisher wrote nonsense. Losses add to r->lost. */
int leat__reader_next(struct leat__reader *r, struct leat__msg *msg);

/* Look at tail, nothing being left of what we saw last time: 1 there is more now, 0 not, or we were
 * lapped and stand elsewhere, -EBADMSG. */
int leat__reader_look(struct leat__reader *r);

/* Was @msg still whole after its last use? If not, skip() it, losses counted. */
int leat__reader_intact(const struct leat__reader *r, const struct leat__msg *msg);
void leat__reader_skip(struct leat__reader *r, const struct leat__msg *msg);
void leat__reader_advance(struct leat__reader *r, const struct leat__msg *msg);

/*
 * The short way of a message, for a reader that knows its number and has no loss to report: we have seen
 * a tail beyond it, it lies inline, and is numbered as expected. Its payload, or NULL: go by next(). Copy
 * it, then ask whole() (or intact()), then step() over it.
 */
static inline int leat__reader_steady(const struct leat__reader *r)
{
	return r->counting == LEAT__KNOWN && !r->lost;
}

static inline const unsigned char *leat__reader_quick(const struct leat__reader *r, uint32_t *size)
{
	const unsigned char *at = r->data + (r->pos & r->mask);
	struct leat__record rec;
	uint64_t both;

	if (r->pos == r->seen)
		return NULL;
	both = leat__load_relaxed((const uint64_t *)(const void *)at); /* size and seq in one look */
	memcpy(&rec, &both, sizeof(rec));
	if (rec.seq != (uint32_t)r->seq || (rec.size & LEAT__IN_BLOCK) ||
	    leat__record_need(rec.size) > r->seen - r->pos)
		return NULL;
	*size = rec.size;
	return at + sizeof(rec);
}

/* A record's 32-bit number, extended by the writer's 64-bit count, which is near. */
static inline uint64_t leat__reader_extend(const struct leat__reader *r, uint32_t seq)
{
	uint64_t near = leat__load_relaxed(&r->ring->sent);

	return near + (uint64_t)(int64_t)(int32_t)(seq - (uint32_t)near);
}

/*
 * The newest message, when that is of at most 64 bytes: r->newest and r->newest_rec tell where and what.
 * NULL: go by latest(). To be copied, then whole(r->newest) to be asked, which proves it all: what is
 * intact there and ends at tail is the newest. Unchanged, tail's line is all that is looked at besides it.
 */
int leat__reader_find_newest(struct leat__reader *r, uint64_t tail);

static inline const unsigned char *leat__reader_newest(struct leat__reader *r)
{
	uint64_t tail = leat__load_acquire(&r->ring->tail);

	if (__builtin_expect(tail != r->newest_tail, 0) && !leat__reader_find_newest(r, tail))
		return NULL;
	return r->data + (r->newest & r->mask) + sizeof(struct leat__record);
}

/* Are the bytes from @pos on still those that were there when we read them? */
static inline int leat__reader_whole(const struct leat__reader *r, uint64_t pos)
{
	/* Our reads before this look at limit; pairs with the writer's fence after it raised it. */
	leat__fence_acquire();
	return leat__load_relaxed(&r->ring->limit) <= pos + r->capacity;
}

/* Tell the writer where we are. Always 0. */
int leat__reader_publish(struct leat__reader *r);

static inline int leat__reader_step(struct leat__reader *r, uint64_t need)
{
	uint64_t pos = r->pos + need;

	r->pos = pos;
	r->seq++;
	if (__builtin_expect(pos >= r->publish_at || (leat__load_relaxed(r->space_bell) & 1), 0))
		return leat__reader_publish(r);
	return 0;
}

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
