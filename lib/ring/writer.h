/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_RING_WRITER_H
#define LEAT_RING_WRITER_H
/*
 * The writing side of one ring: one thread of one process, for the ring's whole life. Knows the ring
 * and the control region, nothing of names, sockets or brokers.
 */
#include <string.h>
#include "base/base.h"
#include "mem/layout.h"
#include "sync/bell.h"

struct leat__block {
	uint64_t gen; /* what its word says when it is live */
	uint64_t pos; /* of the record that names it */
	uint32_t state;
	uint32_t touched;
};

/* A reader that holds us up: since when, under which state word and cursor. */
struct leat__laggard {
	uint64_t state, cursor, since;
};

#define LEAT__BURY_NS UINT64_C(100000000) /* bury_ns of who has no reason for another */

struct leat__writer {
	/* every message */
	uint64_t tail; /* ours; readers see tail - batch */
	uint64_t stop; /* up to here there is nothing to do but write: min(limit, next_mark), or 0 */
	uint64_t max_inline;
	uint64_t claimed; /* bytes claimed + 1; 0: nothing */
	unsigned char *data;
	uint64_t mask;
	uint64_t seq;
	struct leat__ring_shm *ring;
	uint32_t *data_bell;
	uint64_t batch; /* bytes before tail that are finished and not yet published */
	uint64_t last;  /* the last of them; what ring->last will say */
	uint64_t unsaid; /* bytes of payload in them */
	/* now and then */
	uint64_t limit; /* we may write below it */
	uint64_t next_mark; /* the next record at or beyond it is the first of its sixteenth */
	uint32_t strict;
	int32_t block; /* the claimed block, -1: inline */
	uint64_t pending[LEAT__MARKS + 1];
	uint32_t n_pending;
	uint32_t n_slots;
	uint64_t id;
	struct leat__line *lines;
	struct leat__slot *slots;
	uint32_t *space_bell;
	unsigned char *blocks_at;
	struct leat__geometry g;
	struct leat__block *blocks;
	struct leat__laggard *laggards; /* one per slot; NULL without grace */
	uint64_t grace_ns;
	uint64_t waits, evicted;
	/*
	 * Asked every bury_ns while there is no room: frees the slots of readers whose death nobody else sees to. 1: who
	 * claims has something else to do first, and is to claim again.
	 */
	int (*bury)(void *arg);
	void *bury_arg;
	uint64_t bury_ns, buried_at;
	uint64_t stretch; /* bytes after which the long way is due, whatever else; 0: never */
	struct leat__spin spin;
};

/*
 * Begin writing: @ring lies in memory that only we write, zeroed but for its header; @data is its
 * data area mapped twice. Lines of entry @entry for ring @id in @ctrl. 0, -ENOMEM.
 */
int leat__writer_init(struct leat__writer *w, struct leat__ring_shm *ring, unsigned char *data,
		      const struct leat__geometry *g, struct leat__ctrl_shm *ctrl,
		      const struct leat__geometry *cg, uint32_t entry, uint64_t id);
void leat__writer_deinit(struct leat__writer *w);

/*
 * Go on in another ring of the same geometry, with other lines, bells and number, as if it had been this one
 * all the time: copy what is in it, then write there. Nothing is claimed or unpublished. 0, -ENOMEM (and
 * nothing has changed). copy() before the new one is announced, switch() after.
 */
void leat__writer_copy(const struct leat__writer *w, struct leat__ring_shm *ring, unsigned char *data);
int leat__writer_switch(struct leat__writer *w, struct leat__ring_shm *ring, unsigned char *data,
			struct leat__ctrl_shm *ctrl, const struct leat__geometry *cg, uint32_t entry,
			uint64_t id);

/*
 * The short way of a message: it fits, inline, below stop, and nothing is claimed. begin() gives the place
 * of its record at tail, or NULL: go by claim() and commit(). finish() completes it and moves our tail,
 * publish() shows readers all that is finished, put() is both.
 */
static inline unsigned char *leat__writer_begin(const struct leat__writer *w, uint64_t size)
{
	if (size > w->max_inline || w->claimed || w->tail + leat__record_need(size) > w->stop)
		return NULL;
	return w->data + (w->tail & w->mask);
}

static inline void leat__writer_head(unsigned char *at, uint64_t size, uint64_t seq)
{
	struct leat__record *rec = (void *)at;

	rec->size = (uint32_t)size;
	rec->seq = (uint32_t)seq;
}

static inline void leat__writer_finish(struct leat__writer *w, unsigned char *at, uint64_t size)
{
	leat__writer_head(at, size, w->seq);
	w->last = w->tail;
	w->tail += leat__record_need(size);
	w->batch += leat__record_need(size);
	w->seq++;
	w->unsaid += size;
}

/* Wake who sleeps on the data bell; the next message goes the long way, for there is time. Always 0. */
int leat__writer_wake(struct leat__writer *w);

static inline int leat__writer_show(struct leat__writer *w, uint64_t tail, uint64_t last, uint64_t sent,
				    uint64_t bytes)
{
	struct leat__ring_shm *ring = w->ring;

	leat__store_relaxed(&ring->sent, sent);
	leat__store_relaxed(&ring->bytes, leat__load_relaxed(&ring->bytes) + bytes);
	/* Everything in the records, before them: pairs with the acquire load of tail in reader.c. */
	leat__store_release(&ring->tail, tail);
	/* last names a committed record only: after tail. */
	leat__store_release(&ring->last, last);
	if (__builtin_expect(leat__load_relaxed(w->data_bell) & 1, 0)) /* as leat__bell_notify() */
		return leat__writer_wake(w);
	return 0;
}

static inline int leat__writer_publish(struct leat__writer *w)
{
	uint64_t unsaid = w->unsaid;

	w->unsaid = w->batch = 0;
	return leat__writer_show(w, w->tail, w->last, w->seq, unsaid);
}

/* When nothing else is unpublished. */
static inline int leat__writer_put(struct leat__writer *w, unsigned char *at, uint64_t tail, uint64_t size)
{
	uint64_t next = tail + leat__record_need(size), seq = w->seq;

	leat__writer_head(at, size, seq);
	w->tail = next;
	w->seq = seq + 1;
	return leat__writer_show(w, next, tail, seq + 1, size);
}

/* See leat_claim(3), leat_commit(3): the same errors; and 1, see bury. */
int leat__writer_claim(struct leat__writer *w, uint64_t size, void **ret, int64_t timeout_ns);
int leat__writer_commit(struct leat__writer *w, uint64_t size, unsigned more);
int leat__writer_abort(struct leat__writer *w);
void leat__writer_flush(struct leat__writer *w);
/* The clean end: publish and say so. */
void leat__writer_close(struct leat__writer *w);

/* Lowest cursor that is waited for; our committed tail if none. Applies grace when @need > 0. */
uint64_t leat__writer_scan(struct leat__writer *w, uint64_t need);

/* blocks.c: a block for @size bytes. Its number, -EAGAIN (behind a reader), -ENOBUFS (retained). */
int leat__blocks_get(struct leat__writer *w);
void leat__blocks_put(struct leat__writer *w, int block);
/* How many blocks readers retain now (a hint). */
uint32_t leat__blocks_held(struct leat__writer *w);
enum { LEAT__B_FREE = 0, LEAT__B_CLAIMED, LEAT__B_LIVE, LEAT__B_CLOSING };

#endif
