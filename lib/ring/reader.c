/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader: join, next, advance, and what to do when lapped. Called by subscribers, in channels and
 * by hand. Never writes anything but its own line; never believes a byte it has not checked, and
 * believes none that limit no longer covers.
 */
#include <errno.h>
#include <string.h>
#include "base/base.h"
#include "ring/reader.h"

/* Looks at words that the writer moves are tried again so often, then done without: an honest writer is
 * caught up with in a few, a liar's or a damaged ring must not keep us. */
#ifndef TRIES /* the explorer (tests/explore) has less patience */
#define TRIES 64
#endif
#define HEELS      4 /* looks at tail in a row that found something at once */
#define HEELS_STEP 64
#define HEELS_MOST (4 * HEELS_STEP)
#define BURST      4    /* messages read since the last look: not one by one */
#define WORTH      32   /* bytes that must come in the time of a pause: 1 GB/s */
#define AHEAD      2048 /* bytes */
#define STEPS 4096 /* records walked over, all tries together */

void leat__reader_init(struct leat__reader *r, struct leat__ring_shm *ring,
		       const unsigned char *data, const struct leat__geometry *g, uint64_t id,
		       struct leat__line *line, uint32_t *space_bell)
{
	memset(r, 0, sizeof(*r));
	r->ring = ring;
	r->data = data;
	r->g = *g;
	r->mask = g->capacity - 1;
	r->capacity = g->capacity;
	r->publish_at = g->capacity / 16;
	r->newest_tail = UINT64_MAX;
	r->id = id;
	r->line = line;
	r->space_bell = space_bell;
	r->blocks_at = (const unsigned char *)ring + g->blocks_off;
}

/* The newest committed record at or after last: its position, and the tail behind it. 1, 0 none. */
static int newest(const struct leat__reader *r, uint64_t *pos, uint64_t *seq, uint64_t *tail)
{
	for (int i = 0, steps = 0; i < TRIES; i++) {
		/* last is stored after tail: read before it, it lies below it. */
		uint64_t p = leat__load_acquire(&r->ring->last);
		uint64_t t = leat__load_acquire(&r->ring->tail);

		if (!t)
			return 0;
		for (; p < t && p % 8 == 0 && steps < STEPS; steps++) {
			struct leat__record rec = leat__record_at(r, p);
			uint64_t need = leat__record_bytes(rec);

			if (!leat__reader_whole(r, p) || need > t - p)
				break;
			if (need == t - p) {
				*pos = p;
				*seq = leat__reader_extend(r, rec.seq);
				*tail = t;
				return 1;
			}
			p += need;
		}
		leat__pause();
	}
	return 0;
}

/* A mark to begin at: of those from @least to @most that still hold the oldest, or the newest. */
int leat__reader_mark(const struct leat__reader *r, int oldest, uint64_t least, uint64_t most, uint64_t *pos,
		      uint64_t *seq)
{
	int found = 0;

	for (int i = 0; i < LEAT__MARKS; i++) {
		uint64_t p = leat__load_acquire(&r->ring->marks[i]);
		uint64_t t = leat__load_acquire(&r->ring->tail);
		struct leat__record rec;

		if (p >= t || p < least || p > most || p % 8 || (found && (oldest ? p >= *pos : p <= *pos)))
			continue;
		rec = leat__record_at(r, p);
		if (!leat__reader_whole(r, p) || leat__record_bytes(rec) > t - p)
			continue;
		*pos = p;
		*seq = leat__reader_extend(r, rec.seq);
		found = 1;
	}
	return found;
}

/* Where @from says, as things are now; the oldest that is meant begins at @least or later. */
static void start(struct leat__reader *r, enum leat_from from, uint64_t least)
{
	uint64_t p, seq, tail;

	r->counting = LEAT__KNOWN;
	if (from == LEAT_OLDEST && leat__reader_mark(r, 1, least, UINT64_MAX, &r->pos, &r->seq))
		return;
	if (newest(r, &p, &seq, &tail)) {
		r->pos = from == LEAT_LATEST ? p : tail;
		r->seq = from == LEAT_LATEST ? seq : seq + 1;
		return;
	}
	/* Nothing yet, or a writer too quick or too strange to follow. */
	r->pos = leat__load_acquire(&r->ring->tail) & ~UINT64_C(7);
	r->seq = 0;
	if (r->pos)
		r->counting = LEAT__ADOPT;
}

static void set_state(struct leat__reader *r, unsigned state)
{
	/* The cursor before it: pairs with the acquire loads of the writer's scan. */
	leat__store_release(&r->line->state, r->word | state);
}

static void set_published(struct leat__reader *r)
{
	r->published = r->pos;
	r->publish_at = r->pos + r->capacity / 16;
}

/* And wake a writer that waits for it. */
int leat__reader_publish(struct leat__reader *r)
{
	set_published(r);
	if (!r->line)
		return 0;
	/* First where it will be looked for next: never behind what the writer may have seen here. */
	if (r->twin)
		leat__store_release(&r->twin->cursor, r->pos);
	leat__store_release(&r->line->cursor, r->pos);
	return r->waiting ? leat__bell_notify(r->space_bell) : 0;
}

/* We are about to stand elsewhere than where we would have read on: count what lies between. */
static void count_skipped(struct leat__reader *r, uint64_t expected, uint32_t was)
{
	if (was == LEAT__ADOPT)
		return; /* where we were was never known */
	if (r->counting == LEAT__ADOPT) { /* where we are is not known yet */
		r->seq = expected;
		r->counting = LEAT__GAP;
	} else if (r->seq > expected) {
		r->lost += r->seq - expected;
	}
}

/* Become ACTIVE at r->pos; if the writer was quicker, where @from finds us once more. */
static void become_active(struct leat__reader *r, enum leat_from from, int again)
{
	for (int i = 0; i < TRIES; i++) {
		uint64_t expected = r->seq, end;
		uint32_t was = r->counting;

		leat__store_release(&r->line->cursor, r->pos);
		set_state(r, LEAT__ACTIVE);
		/* Pairs with the fence in refresh (writer.c): it sees our cursor, or we see its
		 * intent. */
		leat__fence();
		end = leat__load_relaxed(r->g.flags & LEAT__OVERWRITE ? &r->ring->limit : &r->ring->intent);
		if (end <= r->pos + r->g.capacity)
			break;
		start(r, i < 8 ? from : LEAT_NEW, end - r->g.capacity);
		if (again)
			count_skipped(r, expected, was);
	}
	set_published(r);
}

/* Put out by the writer: come back, under another number, from where we are. */
static void rejoin_if_evicted(struct leat__reader *r)
{
	if (leat__load_acquire(&r->line->state) != (r->word | LEAT__EVICTED))
		return;
	r->word = (r->word & ~UINT64_C(0xff0)) | (((r->word >> 4) + 1) & 0xff) << 4;
	become_active(r, LEAT_NEW, 1);
	r->seen = r->pos;
}

void leat__reader_begin(struct leat__reader *r, uint64_t word, int waiting)
{
	r->word = word & ~UINT64_C(0xf);
	r->waiting = (uint32_t)waiting;
	if (r->line && !waiting)
		set_state(r, LEAT__WATCHES);
}

void leat__reader_arrive(struct leat__reader *r, uint64_t word, int waiting, uint64_t pos)
{
	/* Another number than the broker's: so its writer knows. */
	r->word = (word & ~UINT64_C(0xf)) | 1 << 4;
	r->waiting = (uint32_t)waiting;
	if (!r->line)
		return;
	leat__store_release(&r->line->cursor, pos);
	set_state(r, waiting ? LEAT__ACTIVE : LEAT__WATCHES);
}

/* Has the writer waited for us since we arrived? Then it waits for us here, and its intent tells nothing: it is
 * more than it has got when it is us that it waits for. */
static int is_waited_for(const struct leat__reader *r)
{
	return leat__load_acquire(&r->line->state) == (r->word | LEAT__ACTIVE) &&
	       leat__reader_whole(r, leat__load_relaxed(&r->line->cursor));
}

void leat__reader_resume(struct leat__reader *r, uint64_t pos, uint64_t seq, uint32_t counting)
{
	r->pos = pos;
	r->seq = seq;
	r->counting = counting;
	if (r->waiting && !is_waited_for(r))
		become_active(r, LEAT_OLDEST, 1);
	else
		leat__reader_publish(r);
	r->seen = r->pos;
	set_published(r);
}

void leat__reader_join(struct leat__reader *r, uint64_t word, int waiting, enum leat_from from)
{
	r->word = word & ~UINT64_C(0xf);
	r->waiting = (uint32_t)waiting;
	start(r, from, 0);
	if (waiting)
		become_active(r, from, 0);
	else if (r->line) {
		leat__reader_publish(r);
		set_state(r, LEAT__WATCHES);
	}
	r->seen = r->pos;
	set_published(r);
}

/* The writer has gone over what we wanted to read: go on from a place that is likely to last. */
static void lapped(struct leat__reader *r)
{
	uint64_t t = leat__load_acquire(&r->ring->tail);
	uint64_t half = t > r->g.capacity / 2 ? t - r->g.capacity / 2 : 0;
	uint64_t expected = r->seq;
	uint32_t was = r->counting;
	uint64_t p, seq;

	if (leat__reader_mark(r, 0, 0, half, &p, &seq) && p > r->pos) {
		r->seq = seq;
		r->pos = p;
		r->counting = LEAT__KNOWN;
	} else {
		start(r, LEAT_NEW, 0);
	}
	count_skipped(r, expected, was);
	r->seen = r->pos;
	leat__reader_publish(r);
	if (r->waiting)
		rejoin_if_evicted(r);
}

/* What we read makes no sense: because it was overwritten, or because the publisher lies. */
int leat__reader_doubt(struct leat__reader *r, uint64_t pos)
{
	if (!leat__reader_whole(r, pos)) {
		lapped(r);
		return 0;
	}
	return leat__fail(-EBADMSG, "ring %llu: its publisher wrote nonsense at byte %llu",
			  (unsigned long long)r->id, (unsigned long long)pos);
}

static int doubt_tail(const struct leat__reader *r)
{
	return leat__fail(-EBADMSG, "ring %llu: its publisher's tail makes no sense",
			  (unsigned long long)r->id);
}

/* A reader that did not know its number meets a record that does. */
static void learn(struct leat__reader *r, uint32_t seq32)
{
	uint64_t seq = leat__reader_extend(r, seq32);

	if (r->counting == LEAT__GAP && seq > r->seq)
		r->lost += seq - r->seq;
	r->seq = seq;
	r->counting = LEAT__KNOWN;
}

/* 1 the message is in a block that still holds it, 0 it is lost, -EBADMSG. */
static int find_block(struct leat__reader *r, struct leat__msg *msg)
{
	struct leat__block_ref ref;

	memcpy(&ref, r->data + (r->pos & r->mask) + sizeof(struct leat__record), sizeof(ref));
	if (!leat__reader_whole(r, r->pos)) {
		lapped(r);
		return 0;
	}
	if (msg->size != (LEAT__IN_BLOCK | sizeof(ref)) || ref.block >= r->g.n_blocks ||
	    ref.size > r->g.block_size)
		return leat__reader_doubt(r, r->pos);
	msg->block = (int32_t)ref.block;
	msg->gen = ref.gen;
	msg->size = ref.size;
	msg->data = r->blocks_at + (uint64_t)ref.block * r->g.block_size;
	/* Live, or closing: nobody rewrites it as long as our cursor (or luck) lasts. */
	if (leat__load_acquire(&leat__block_words(r->ring)[ref.block]) > ref.gen + 1) {
		leat__reader_skip(r, msg);
		return 0;
	}
	return 1;
}

void leat__reader_start(struct leat__reader *r, int oldest)
{
	start(r, oldest ? LEAT_OLDEST : LEAT_NEW, 0);
}

int leat__reader_look(struct leat__reader *r)
{
	int breath = r->heels >= HEELS && !r->waited ? 4 << (r->heels / HEELS_STEP) : 0;
	uint64_t ahead;

	if (r->published != r->pos) /* before we say empty: both sides must not sleep */
		leat__reader_publish(r);
	if (r->waiting)
		rejoin_if_evicted(r);
	/* On its heels: let the writer get ahead, or tail's line travels for every message, and the longer
	 * this goes on the farther. Only a stream that fills the time gets here: see below. */
	for (int i = 0; i < breath; i++)
		leat__pause();
	/* Pairs with the release store of tail in show (writer.h). */
	r->seen = leat__load_acquire(&r->ring->tail);
	ahead = r->seen - r->pos;
	if (!ahead) {
		r->waited = 1;
		return 0;
	}
	if (ahead > r->capacity || r->seen % 8) {
		int lap = r->seen > r->pos && r->seen % 8 == 0;

		r->seen = r->pos;
		if (lap)
			lapped(r);
		else /* no honest tail goes backwards, or lies between records */
			return doubt_tail(r);
		return 0;
	}
	if (r->waited && r->seq - r->looked < BURST)
		r->heels = 0;
	else if (ahead < (uint64_t)breath * WORTH)
		r->heels /= 2; /* a slower stream: what comes is better read at once */
	else if (r->heels < HEELS_MOST)
		r->heels++;
	r->waited = 0;
	r->looked = r->seq;
	ahead = leat__min(ahead, AHEAD);
	for (uint64_t i = 0; i < ahead; i += 64) /* all their lines at once */
		__builtin_prefetch(r->data + (r->pos & r->mask) + i);
	return 1;
}

int leat__reader_next(struct leat__reader *r, struct leat__msg *msg)
{
	struct leat__record rec;
	uint64_t pos;
	int laps = 0, e;

again:
	if (++laps > TRIES) /* whoever laps us so often may be at it for ever: let the caller's time count */
		return 0;
	if (r->pos == r->seen) {
		pos = r->pos;
		e = leat__reader_look(r);
		if (e < 0 || (!e && pos == r->pos))
			return e;
		if (!e) /* lapped, and somewhere else now */
			goto again;
	}
	rec = leat__record_at(r, r->pos);
	msg->need = leat__record_bytes(rec);
	if (msg->need > r->seen - r->pos ||
	    (r->counting == LEAT__KNOWN && rec.seq != (uint32_t)r->seq)) {
		e = leat__reader_doubt(r, r->pos);
		if (e < 0)
			return e;
		goto again;
	}
	if (r->counting != LEAT__KNOWN) {
		if (!leat__reader_whole(r, r->pos)) {
			lapped(r);
			goto again;
		}
		learn(r, rec.seq);
	}
	msg->pos = r->pos;
	msg->seq = r->seq;
	msg->size = rec.size;
	msg->block = -1;
	msg->data = r->data + (r->pos & r->mask) + sizeof(rec);
	if (rec.size & LEAT__IN_BLOCK) {
		e = find_block(r, msg);
		if (e < 0)
			return e;
		if (!e)
			goto again;
	}
	return 1;
}

int leat__reader_intact(const struct leat__reader *r, const struct leat__msg *msg)
{
	if (!leat__reader_whole(r, msg->pos))
		return 0;
	return msg->block < 0 ||
	       leat__load_relaxed(&leat__block_words(r->ring)[msg->block]) <= msg->gen + 1;
}

void leat__reader_skip(struct leat__reader *r, const struct leat__msg *msg)
{
	if (!leat__reader_whole(r, r->pos)) {
		lapped(r);
		return;
	}
	/* Its record is whole, its block is not: this one message is lost. */
	r->lost++;
	leat__reader_advance(r, msg);
}

void leat__reader_advance(struct leat__reader *r, const struct leat__msg *msg)
{
	leat__reader_step(r, msg->need);
	/* A block is worth telling at once: there are few, and its record moves the cursor little. */
	if (msg->block >= 0)
		leat__reader_publish(r);
}

int leat__reader_retain(struct leat__reader *r, const struct leat__msg *msg, uint64_t *held)
{
	leat__store_relaxed(held, LEAT__WORD(r->id, (uint64_t)msg->block + 1));
	/* Pairs with the fence in take (blocks.c): it sees that we hold, or we see it closing. */
	leat__fence();
	if (leat__load_acquire(&leat__block_words(r->ring)[msg->block]) == msg->gen)
		return 1;
	leat__store_release(held, 0u);
	return 0;
}

int leat__reader_ready(const struct leat__reader *r, uint64_t pos)
{
	return leat__load_acquire(&r->ring->tail) != pos || leat__load_acquire(&r->ring->closed);
}

int leat__reader_ended(struct leat__reader *r, int dead)
{
	uint64_t p, seq, tail;

	if (!dead && !leat__load_acquire(&r->ring->closed))
		return 0;
	/* closed (or the broker's word) first, then tail: nothing comes after it. */
	if (leat__load_acquire(&r->ring->tail) != r->pos)
		return 0;
	if (r->counting == LEAT__GAP && newest(r, &p, &seq, &tail) && seq + 1 > r->seq) {
		r->lost += seq + 1 - r->seq;
		r->seq = seq + 1;
		r->counting = LEAT__KNOWN;
	}
	return 1;
}

void leat__reader_leave(struct leat__reader *r)
{
	if (!r->line)
		return;
	leat__store_release(&r->line->cursor, r->pos);
	set_state(r, LEAT__DONE);
	leat__bell_notify(r->space_bell);
	r->line = NULL;
}

/* Does a small record lie at @pos and end at @tail? */
static int ends_at(const struct leat__reader *r, uint64_t pos, uint64_t tail, struct leat__record *rec)
{
	if (pos % 8)
		return 0;
	*rec = leat__record_at(r, pos);
	/* A block's reference has a bit set that makes it large. */
	return LEAT__SMALL((size_t)rec->size) && leat__record_bytes(*rec) == tail - pos;
}

int leat__reader_find_newest(struct leat__reader *r, uint64_t tail)
{
	/* It most likely comes right after the one that was the newest last time. */
	uint64_t pos = r->newest_tail;

	r->newest_tail = UINT64_MAX; /* not known, and nobody's position */
	if (!ends_at(r, pos, tail, &r->newest_rec)) {
		pos = leat__load_acquire(&r->ring->last);
		if (!ends_at(r, pos, tail, &r->newest_rec))
			return 0;
	}
	r->newest = pos;
	r->newest_tail = tail;
	return 1;
}

int leat__reader_latest(const struct leat__reader *r, struct leat__msg *msg)
{
	for (int i = 0; i < TRIES; i++) {
		struct leat__block_ref ref;
		struct leat__record rec;
		uint64_t p, seq, tail;

		if (!newest(r, &p, &seq, &tail))
			return 0;
		rec = leat__record_at(r, p);
		msg->pos = p;
		msg->need = leat__record_bytes(rec);
		msg->seq = seq;
		msg->size = rec.size;
		msg->block = -1;
		msg->data = r->data + (p & r->mask) + sizeof(rec);
		if (rec.size & LEAT__IN_BLOCK) {
			memcpy(&ref, msg->data, sizeof(ref));
			if (!leat__reader_whole(r, p))
				continue;
			if (ref.block >= r->g.n_blocks || ref.size > r->g.block_size)
				return 0;
			msg->block = (int32_t)ref.block;
			msg->gen = ref.gen;
			msg->size = ref.size;
			msg->data = r->blocks_at + (uint64_t)ref.block * r->g.block_size;
		} else if (!leat__reader_whole(r, p) || msg->need > r->g.capacity) {
			continue;
		}
		return 1;
	}
	return 0;
}
