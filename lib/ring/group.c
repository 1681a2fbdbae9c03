/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workers on one ring. Called by queue.c (and, to freeze, by pub_move.c); writes lines of the control region
 * only. What it reads there is others' word: it is checked against the ring, whose publisher alone writes it.
 */
#include <errno.h>
#include "base/base.h"
#include "ring/group.h"

#define TRIES 64

static struct leat__line *shared_line(const struct leat__group *g)
{
	return &g->lines[g->group];
}

static int mine(const struct leat__group *g, uint32_t slot)
{
	return leat__load_relaxed(&g->slots[slot].mode) == LEAT__WORKER &&
	       leat__load_relaxed(&g->slots[slot].group) == g->group + 1;
}

static int gone(const struct leat__group *g, uint32_t slot)
{
	return slot >= g->n_slots || (slot != g->me && g->gone(g->arg, slot));
}

/* Make @line's word, now @seen, ours. */
static int seize(const struct leat__group *g, struct leat__line *line, uint64_t seen, unsigned state,
		 uint64_t *word)
{
	*word = LEAT__HAND(g->id, g->me, LEAT__TURN_OF(seen) + 1, state);
	return leat__cas(&line->state, seen, *word);
}

static void set(struct leat__line *line, uint64_t word, unsigned state)
{
	leat__store_release(&line->state, (word & ~UINT64_C(0xf)) | state);
}

/*
 * Where does the group begin? As a reader that joins (become_active in reader.c), but that all may see and one
 * may do: its line says so, and who.
 */
static void join(const struct leat__group *g, struct leat__reader *r, uint64_t seen)
{
	struct leat__line *line = shared_line(g);
	uint64_t word;

	if (LEAT__STATE(seen) == LEAT__JOINING && !gone(g, LEAT__HOLDER(seen)))
		return;
	if (!seize(g, line, seen, LEAT__JOINING, &word))
		return;
	for (int i = 0; i < TRIES; i++) {
		leat__reader_start(r, i < 8);
		leat__store_release(&line->cursor, r->pos);
		/* Pairs with the fence in refresh (writer.c): it sees our cursor, or we its intent. */
		leat__fence();
		if (g->ended || leat__load_relaxed(&r->ring->intent) <= r->pos + r->capacity)
			break;
	}
	set(line, word, LEAT__SHARED);
}

/* A line to note a message in: ours, or another's that is not used. */
static struct leat__line *reserve(const struct leat__group *g, uint64_t *word)
{
	for (uint32_t i = 0; i <= g->n_slots; i++) {
		uint32_t slot = i ? i - 1 : g->me;
		uint64_t seen;

		if (i && !mine(g, slot))
			continue;
		seen = leat__load_acquire(&g->lines[slot].state);
		if (LEAT__RING_ID(seen) == g->id && LEAT__STATE(seen) == LEAT__IDLE &&
		    seize(g, &g->lines[slot], seen, LEAT__RESERVED, word))
			return &g->lines[slot];
	}
	return NULL;
}

/*
 * Does a record begin at @pos, where we know of none before it? Then from there one follows the other, numbered,
 * up to the next mark, or tail; and there, at @end, one begins in any case.
 */
static int vouched_for(const struct leat__reader *r, uint64_t pos, uint64_t tail, uint64_t *seq, uint64_t *end)
{
	struct leat__record rec = leat__record_at(r, pos);
	uint32_t next = rec.seq;

	*seq = leat__reader_extend(r, rec.seq);
	*end = tail;
	for (int i = 0; i < LEAT__MARKS; i++) {
		uint64_t p = leat__load_acquire(&r->ring->marks[i]);

		if (p >= pos && p < *end && p % 8 == 0)
			*end = p;
	}
	for (uint64_t p = pos; p < *end; next++) {
		rec = leat__record_at(r, p);
		if (rec.seq != next || leat__record_bytes(rec) > *end - p)
			return 0;
		p += leat__record_bytes(rec);
	}
	return 1;
}

/* Walk on to @pos, or beyond: 1 we stand there, 0 we were overtaken, -EBADMSG. */
static int walk(struct leat__reader *r, uint64_t pos)
{
	while (r->pos < pos) {
		struct leat__record rec = leat__record_at(r, r->pos);
		uint64_t need = leat__record_bytes(rec);

		if (!leat__reader_whole(r, r->pos)) {
			r->counting = LEAT__ADOPT;
			return 0;
		}
		if (rec.seq != (uint32_t)r->seq || need > r->seen - r->pos)
			return leat__reader_doubt(r, r->pos);
		r->pos += need;
		r->seq++;
	}
	return 1;
}

/*
 * Stand at the record at @pos. 1 done; 0 not, as it is no longer, or not yet, there; 2 no record begins there, and we
 * stand at one behind it, or at tail; -EBADMSG the publisher wrote nonsense. Bounded by the ring's size.
 */
static int seek(struct leat__reader *r, uint64_t pos)
{
	uint64_t p, seq, end;
	int e;

	r->seen = leat__load_acquire(&r->ring->tail);
	if (pos >= r->seen || r->seen - pos > r->capacity || r->seen % 8)
		return 0;
	if (pos % 8)
		return 2;
	if (r->counting == LEAT__KNOWN && r->pos <= pos) {
		e = walk(r, pos);
		if (e)
			return e < 0 || r->pos == pos ? e : 2;
	}
	if (leat__reader_mark(r, 0, 0, pos, &p, &seq)) {
		r->pos = p;
		r->seq = seq;
		r->counting = LEAT__KNOWN;
		e = walk(r, pos);
		if (e)
			return e < 0 || r->pos == pos ? e : 2;
	}
	e = vouched_for(r, pos, r->seen, &seq, &end);
	r->pos = e ? pos : end;
	r->seq = seq;
	r->counting = e ? LEAT__KNOWN : LEAT__ADOPT;
	if (!leat__reader_whole(r, pos)) {
		r->counting = LEAT__ADOPT;
		return 0;
	}
	return e ? 1 : 2;
}

/* The message at @pos: as seek(). */
static int message_at(struct leat__reader *r, uint64_t pos, struct leat__msg *msg)
{
	int e = seek(r, pos);

	if (e == 1)
		e = leat__reader_next(r, msg);
	if (e == 1 && msg->pos != pos) /* overwritten while we looked, and it went on */
		e = 0;
	if (e != 1 && e != 2)
		r->counting = LEAT__ADOPT;
	r->lost = 0; /* what others have had is not lost */
	return e;
}

/* What the group's line says makes no sense: somebody scribbled there; or the group is new here. */
static void repair(const struct leat__group *g, struct leat__reader *r, uint64_t seen, uint64_t pos, int e)
{
	struct leat__line *line = shared_line(g);

	if (e == 2)
		leat__cas(&line->cursor, pos, r->pos);
	/* Had another claimed it, it could have been overwritten; but then it would not say so still. */
	else if (!leat__reader_whole(r, pos) && leat__load_acquire(&line->cursor) == pos)
		join(g, r, seen);
}

int leat__group_claim(const struct leat__group *g, struct leat__reader *r, struct leat__msg *msg,
		      struct leat__hand *hand)
{
	struct leat__line *line = NULL, *shared = shared_line(g);
	uint64_t word = 0;
	int e = 0;

	for (int i = 0; i < TRIES; i++) {
		uint64_t seen = leat__load_acquire(&shared->state), pos, next, count;

		if (LEAT__RING_ID(seen) != g->id)
			break;
		if (LEAT__STATE(seen) == LEAT__GRANTED || LEAT__STATE(seen) == LEAT__JOINING) {
			join(g, r, seen);
			if (LEAT__STATE(leat__load_acquire(&shared->state)) != LEAT__SHARED)
				break;
			continue;
		}
		pos = leat__load_acquire(&shared->cursor);
		if (LEAT__STATE(seen) != LEAT__SHARED || (pos & LEAT__FROZEN) ||
		    pos == leat__load_acquire(&r->ring->tail))
			break;
		if (!line)
			line = reserve(g, &word);
		if (!line) {
			e = -ENOBUFS;
			break;
		}
		/* Before the claim: the publisher, who looks at the group's line first, sees one of the two. */
		leat__store_relaxed(&line->cursor, pos);
		count = pos < leat__load_relaxed(&shared->count) ? 2 : 1;
		leat__store_relaxed(&line->count, count);
		set(line, word, LEAT__TAKING);
		e = message_at(r, pos, msg);
		if (e < 0)
			break;
		if (e != 1) {
			repair(g, r, seen, pos, e);
			continue;
		}
		next = pos + msg->need;
		e = 0;
		/* Nobody has claimed it: then it was not overwritten, and what we read was true. */
		if (leat__cas(&shared->cursor, pos, next)) {
			set(line, word, LEAT__TAKEN);
			leat__reader_step(r, msg->need);
			*hand = (struct leat__hand){line, (word & ~UINT64_C(0xf)) | LEAT__TAKEN, count, 0};
			return 1;
		}
	}
	if (line)
		set(line, word, LEAT__IDLE);
	return e < 0 ? e : 0;
}

/* Line @line, seen as @seen, is for whoever comes: 1 the message is ours, 0 there was none in it. */
static int take_over(const struct leat__group *g, struct leat__reader *r, struct leat__line *line,
		     uint64_t seen, struct leat__msg *msg, struct leat__hand *hand)
{
	unsigned state = LEAT__STATE(seen) == LEAT__PUT_BACK ? LEAT__TAKEN : LEAT__STATE(seen);
	uint64_t word, pos, next;
	int e = 0;

	if (!seize(g, line, seen, state, &word))
		return 0;
	pos = leat__load_acquire(&line->cursor);
	next = leat__load_acquire(&shared_line(g)->cursor) & ~UINT64_C(7);
	/* Not noted yet, or noted and not claimed: then another will, or has. */
	if (state != LEAT__RESERVED && (state == LEAT__TAKEN || next > pos))
		e = message_at(r, pos, msg);
	if (e != 1) {
		set(line, word, LEAT__IDLE);
		return e < 0 ? e : 0;
	}
	hand->line = line;
	hand->word = word;
	hand->count = leat__load_relaxed(&line->count) + 1;
	hand->perhaps = state == LEAT__TAKING;
	leat__store_relaxed(&line->count, hand->count);
	return 1;
}

int leat__group_adopt(const struct leat__group *g, struct leat__reader *r, struct leat__msg *msg,
		      struct leat__hand *hand)
{
	for (uint32_t i = 0; i < g->n_slots; i++) {
		uint64_t seen = leat__load_acquire(&g->lines[i].state);
		int e;

		if (LEAT__RING_ID(seen) != g->id || !LEAT__IN(seen, LEAT__BUSY) || !mine(g, i))
			continue;
		if (LEAT__STATE(seen) != LEAT__PUT_BACK && !gone(g, LEAT__HOLDER(seen)))
			continue;
		e = take_over(g, r, &g->lines[i], seen, msg, hand);
		if (e)
			return e;
	}
	return 0;
}

int leat__hand_over(const struct leat__hand *hand, int again)
{
	uint64_t to = (hand->word & ~UINT64_C(0xf)) | (again ? LEAT__PUT_BACK : LEAT__IDLE);

	/* After the last use; pairs with the acquire loads of the writer's scan. */
	return leat__cas(&hand->line->state, hand->word, to) ? 0 : -ESTALE;
}

int leat__group_ready(const struct leat__group *g, const struct leat__reader *r)
{
	uint64_t pos = leat__load_acquire(&shared_line(g)->cursor);

	return !(pos & LEAT__FROZEN) && pos != leat__load_acquire(&r->ring->tail);
}

int leat__group_quiet(const struct leat__group *g)
{
	for (uint32_t i = 0; i < g->n_slots; i++) {
		uint64_t seen = leat__load_acquire(&g->lines[i].state);

		if (LEAT__RING_ID(seen) == g->id && LEAT__IN(seen, LEAT__BUSY) && mine(g, i))
			return 0;
	}
	return 1;
}

int leat__group_over(const struct leat__group *g, const struct leat__reader *r)
{
	uint64_t seen = leat__load_acquire(&g->lines[g->me].state);

	/* What is claimed is in somebody's line before it is: first the claim, then the lines. */
	if (LEAT__STATE(leat__load_acquire(&shared_line(g)->state)) != LEAT__SHARED ||
	    (leat__load_acquire(&shared_line(g)->cursor) & ~UINT64_C(7)) != leat__load_acquire(&r->ring->tail) ||
	    !leat__group_quiet(g))
		return 0;
	return LEAT__RING_ID(seen) != g->id || LEAT__STATE(seen) != LEAT__IDLE ||
	       leat__cas(&g->lines[g->me].state, seen, (seen & ~UINT64_C(0xf)) | LEAT__DONE);
}

uint64_t leat__group_freeze(struct leat__line *line)
{
	return leat__fetch_or(&line->cursor, LEAT__FROZEN) & ~UINT64_C(7);
}

void leat__group_thaw(struct leat__line *line)
{
	uint64_t pos = leat__load_acquire(&line->cursor);

	if (LEAT__STATE(leat__load_acquire(&line->state)) == LEAT__SHARED && (pos & LEAT__FROZEN))
		leat__cas(&line->cursor, pos, pos & ~UINT64_C(7));
}
