/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Subscribers: the rings of all publishers of a name (sub_rings.c), read in turn. The broker is asked
 * when opening, closing, and when the ring table has moved, never in between.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/base.h"
#include "channel/channel.h"

#define LINGER    64 /* looks at tail: 2 us where a pause takes 28 ns */
#define TURN_NS   UINT64_C(25000000)

/* ---- the next message ---- */

/* Messages until we look around again: fewer for who reads slowly. */
static uint32_t next_turn(struct leat_sub *s)
{
	uint64_t now, took;

	if (!s->l)
		return LEAT__TURN;
	now = leat__now();
	took = now - s->turned_at;
	s->turn = took > TURN_NS ? (uint32_t)(s->turn * TURN_NS / took) + 1 : s->turn * 2;
	s->turn = s->turn < LEAT__TURN ? s->turn : LEAT__TURN;
	s->turned_at = now;
	return s->turn;
}

/* Look once: 1 there is one in s->msg from s->peeked, 0 none. */
static int look(struct leat_sub *s)
{
	for (uint32_t tried = 0; tried < s->n;) {
		struct leat__attached *a = s->rings[s->cur];
		int e;

		if (s->budget == 0) {
			s->budget = next_turn(s);
			s->cur = s->cur + 1 == s->n ? 0 : s->cur + 1;
			leat__sub_look_around(s);
			continue;
		}
		if (__builtin_expect(a->pending, 0)) {
			if (leat__sub_follow(s, a))
				continue; /* and the table has changed */
			e = 0;
		} else {
			e = leat__reader_next(&a->r, &s->msg);
		}
		if (__builtin_expect(e > 0, 1)) {
			s->budget--;
			s->peeked = a;
			return 1;
		}
		if (e < 0) {
			s->corrupt++;
			leat__sub_detach(s, s->cur);
			return e;
		}
		tried++;
		s->budget = s->turn;
		s->cur = s->cur + 1 == s->n ? 0 : s->cur + 1;
	}
	return 0;
}

int leat__sub_ready(void *sub)
{
	struct leat_sub *s = sub;

	for (uint32_t i = 0; i < s->n; i++)
		if (leat__reader_ready(&s->rings[i]->r, s->rings[i]->r.pos))
			return 1;
	if (!s->l)
		return leat__hand_look(s);
	return leat__sub_stirs(s);
}

static int ended(const struct leat_sub *s)
{
	if (!s->l) /* by hand there is one ring, and no other comes */
		return !s->n;
	return (s->flags & LEAT_UNTIL_ENDED) && s->had_publisher && !s->n && !s->retry_at;
}

/*
 * A moment's patience, a tenth of what sleeping costs: the next message may be on its way. Where there is
 * one ring the record's lines are asked for together with tail's, so that both travel at once.
 */
static int linger(const struct leat_sub *s)
{
	if (s->spin.alone)
		return 0;
	for (uint32_t i = 0; i < LINGER; i++) {
		for (uint32_t k = 0; k < s->n; k++) {
			const struct leat__reader *r = &s->rings[k]->r;

			if (leat__load_acquire(&r->ring->tail) != r->pos)
				return 1;
			if (s->n == 1) {
				__builtin_prefetch(r->data + (r->pos & r->mask));
				__builtin_prefetch(r->data + (r->pos & r->mask) + 64);
			}
		}
		leat__pause();
	}
	return 0;
}

static int next(struct leat_sub *s, int64_t timeout_ns)
{
	uint32_t *bells[LEAT__BELLS];
	uint64_t deadline = 0;
	unsigned n;
	int e, over;

	for (;;) {
		e = look(s);
		if (__builtin_expect(e != 0, 1))
			return e;
		if (timeout_ns && linger(s))
			continue;
		leat__sub_look_around(s);
		if (!s->l)
			leat__hand_look(s);
		if (leat__sub_reap(s)) {
			if (s->flags & LEAT__TELL_ENDS)
				return -ENODATA;
			continue;
		}
		e = look(s); /* a new ring, or one that filled up meanwhile */
		if (e)
			return e;
		over = ended(s);
		if ((over || !timeout_ns) && s->pollable && leat__pollable_arm(s))
			continue;
		if (over)
			return leat__say(-ENODATA, "the publishers have ended and everything is read");
		if (!timeout_ns)
			return leat__say(-EAGAIN, "no message waits");
		if (!deadline)
			deadline = leat__deadline(timeout_ns);
		else if (leat__now() >= deadline) /* woken, and woken again, for nothing */
			return leat__say(-ETIMEDOUT, "no message came in time");
		n = leat__sub_bells(s, bells);
		e = leat__bells_wait(bells, n, &s->spin, leat__sub_ready, s, deadline);
		if (e < 0)
			return leat__say(e, "no message came in time");
	}
}

static void fill_info(struct leat_sub *s, struct leat_info *info)
{
	struct leat__attached *a = s->peeked;

	if (a->r.lost) {
		s->lost += a->r.lost;
		a->r.lost = 0;
		if (s->slot)
			leat__store_relaxed(&s->slot->lost, s->lost);
	}
	if (info) {
		*info = (struct leat_info){s->msg.size, s->msg.seq, a->origin, s->lost - s->lost_told};
		s->lost_told = s->lost;
	}
}

static inline void count(struct leat_sub *s, uint64_t size)
{
	s->received++;
	s->bytes += size;
	if (s->slot)
		leat__store_relaxed(&s->slot->received, s->received);
}

/* Done with what was peeked. */
static void advance(struct leat_sub *s)
{
	struct leat__attached *a = s->peeked;

	leat__reader_advance(&a->r, &s->msg);
	s->peeked = NULL;
	s->quick = leat__reader_steady(&a->r) ? a : NULL;
	count(s, s->msg.size);
}

/* The next message of the ring whose turn it is, when there is no more to do than to take it. */
static inline const unsigned char *quick(const struct leat_sub *s, uint32_t *size)
{
	if (!s->quick || s->budget < 2)
		return NULL;
	return leat__reader_quick(&s->quick->r, size);
}

/* All is read that we saw: look again, and linger. The next message, as quick() gives it. */
static const unsigned char *await(struct leat_sub *s, int64_t timeout_ns, uint32_t *size)
{
	struct leat__reader *r;

	if (!s->quick || s->budget < 2)
		return NULL;
	r = &s->quick->r;
	if (r->pos != r->seen)
		return NULL;
	if (leat__reader_look(r) <= 0 &&
	    (!timeout_ns || s->n != 1 || !linger(s) || leat__reader_look(r) <= 0))
		return NULL;
	return leat__reader_steady(r) ? leat__reader_quick(r, size) : NULL;
}

static inline void tell(struct leat_sub *s, struct leat_info *info, uint32_t size)
{
	const struct leat__reader *r = &s->quick->r;

	if (info) {
		*info = (struct leat_info){size, r->seq, s->quick->origin, s->lost - s->lost_told};
		s->lost_told = s->lost;
	}
}

/* It is copied, and was whole. */
static inline int took(struct leat_sub *s, struct leat_info *info, uint32_t size)
{
	tell(s, info, size);
	s->budget--;
	count(s, size);
	return leat__reader_step(&s->quick->r, leat__record_need(size));
}

static int parents(void)
{
	return leat__say(-ECHILD, "this subscriber belongs to the parent process: open another");
}

#define SKIPS 1000 /* messages in a row that were overwritten while we looked at them */

static int too_quick(int64_t timeout_ns)
{
	return leat__say(timeout_ns ? -ETIMEDOUT : -EAGAIN,
			 "messages are overwritten quicker than they can be read");
}

static __attribute__((noinline)) int recv_long(struct leat_sub *s, void *buf, size_t size,
					       struct leat_info *info, int64_t timeout_ns)
{
	int skipped = 0;
	uint32_t n;
	const unsigned char *at = quick(s, &n);

	if (!at)
		at = await(s, timeout_ns, &n);
	if (at && n <= size) {
		if (n)
			memcpy(buf, at, n);
		if (leat__reader_whole(&s->quick->r, s->quick->r.pos))
			return took(s, info, n);
	}
	if (s->gone)
		return parents();
	for (;;) {
		int e;

		if (skipped++ > SKIPS && timeout_ns >= 0)
			return too_quick(timeout_ns);
		s->peeked = s->quick = NULL; /* what was peeked and not released is next again */
		e = next(s, timeout_ns);
		if (e < 0)
			return e;
		if (s->msg.size > size) {
			struct leat__attached *a = s->peeked;

			if (!leat__reader_intact(&a->r, &s->msg)) {
				leat__reader_skip(&a->r, &s->msg);
				continue;
			}
			if (info)
				*info = (struct leat_info){s->msg.size, s->msg.seq, a->origin, 0};
			s->peeked = NULL;
			return leat__fail(-EMSGSIZE, "the next message has %llu bytes, the buffer %zu",
					  (unsigned long long)s->msg.size, size);
		}
		if (s->msg.size)
			memcpy(buf, s->msg.data, (size_t)s->msg.size);
		if (__builtin_expect(leat__reader_intact(&s->peeked->r, &s->msg), 1))
			break;
		leat__reader_skip(&s->peeked->r, &s->msg);
	}
	fill_info(s, info);
	advance(s);
	return 0;
}

int leat_recv(struct leat_sub *s, void *buf, size_t size, struct leat_info *info,
	      int64_t timeout_ns)
{
	uint32_t n;
	const unsigned char *at = quick(s, &n);

	if (__builtin_expect(!at || n > size || !LEAT__SMALL(n), 0))
		return recv_long(s, buf, size, info, timeout_ns);
	leat__copy_out(buf, at, n);
	if (__builtin_expect(!leat__reader_whole(&s->quick->r, s->quick->r.pos), 0))
		return recv_long(s, buf, size, info, timeout_ns);
	return took(s, info, n);
}

/* @at, of @n bytes, is next: lay it open. */
static inline int open_at(struct leat_sub *s, const unsigned char *at, uint32_t n, const void **ret,
			  struct leat_info *info)
{
	const struct leat__reader *r = &s->quick->r;

	tell(s, info, n);
	s->budget--;
	s->msg = (struct leat__msg){at, n, r->seq, r->pos, leat__record_need(n), 0, -1};
	s->peeked = s->quick;
	s->quick = NULL;
	*ret = at;
	return 0;
}

static __attribute__((noinline)) int peek_long(struct leat_sub *s, const void **ret,
					       struct leat_info *info, int64_t timeout_ns)
{
	int skipped = 0;
	uint32_t n;
	const unsigned char *at = await(s, timeout_ns, &n);

	if (at)
		return open_at(s, at, n, ret, info);
	s->quick = NULL;
	if (s->gone)
		return parents();
	/* Peeked already and not released: the same again, if it is still there. */
	while (!s->peeked || !leat__reader_intact(&s->peeked->r, &s->msg)) {
		int e;

		if (skipped++ > SKIPS && timeout_ns >= 0)
			return too_quick(timeout_ns);
		if (s->peeked)
			leat__reader_skip(&s->peeked->r, &s->msg);
		s->peeked = NULL;
		e = next(s, timeout_ns);
		if (e < 0)
			return e;
	}
	fill_info(s, info);
	*ret = s->msg.data;
	return 0;
}

int leat_peek(struct leat_sub *s, const void **ret, struct leat_info *info, int64_t timeout_ns)
{
	uint32_t n;
	const unsigned char *at = quick(s, &n);

	if (__builtin_expect(!at, 0))
		return peek_long(s, ret, info, timeout_ns);
	return open_at(s, at, n, ret, info);
}

int leat_release(struct leat_sub *s)
{
	struct leat__attached *a = s->peeked;

	if (__builtin_expect(a && !s->gone && s->msg.block < 0 && leat__reader_whole(&a->r, s->msg.pos),
			     1)) {
		s->peeked = NULL;
		s->quick = leat__reader_steady(&a->r) ? a : NULL;
		count(s, s->msg.size);
		return leat__reader_step(&a->r, s->msg.need);
	}
	if (s->gone)
		return parents();
	if (!s->peeked)
		return leat__say(-EINVAL, "release: nothing is peeked");
	if (!leat__reader_intact(&s->peeked->r, &s->msg)) {
		leat__reader_skip(&s->peeked->r, &s->msg);
		s->peeked = NULL;
		return leat__say(-ESTALE, "the message was overwritten while it was looked at; it is "
					  "counted as lost");
	}
	advance(s);
	return 0;
}

int leat_retain(struct leat_sub *s, const void **ret)
{
	struct leat__attached *a = s->peeked;
	int k = 0;

	if (s->gone)
		return parents();
	if (!a)
		return leat__say(-EINVAL, "retain: nothing is peeked");
	if (s->msg.block < 0)
		return leat__say(-ENOTSUP, "retain: this message came inline, not in a block: copy it");
	if (!s->slot)
		return leat__say(-ENOTSUP, "retain: a reader without a control region cannot hold a block");
	while (k < LEAT__HELD && s->held[k].a)
		k++;
	if (k == LEAT__HELD)
		return leat__fail(-ENOBUFS, "retain: %d blocks are kept already: drop one", LEAT__HELD);
	if (!leat__reader_intact(&a->r, &s->msg) ||
	    !leat__reader_retain(&a->r, &s->msg, &a->seat->slot->held[k])) {
		leat__reader_skip(&a->r, &s->msg);
		s->peeked = NULL;
		return leat__say(-ESTALE, "the message was being overwritten; it is counted as lost");
	}
	s->held[k] = (struct leat__held){a, s->msg};
	a->refs++;
	*ret = s->msg.data;
	advance(s);
	return 0;
}

static int drop(struct leat_sub *s, int k)
{
	struct leat__held *h = &s->held[k];
	int whole = s->gone || leat__load_acquire(&leat__block_words(h->a->r.ring)[h->msg.block]) <=
				       h->msg.gen + 1;

	if (!s->gone) {
		/* After the last use; pairs with the writer's acquire in holder (blocks.c). */
		leat__store_release(&h->a->seat->slot->held[k], UINT64_C(0));
		leat__bell_notify(&h->a->seat->ctrl->space_bell);
	}
	leat__sub_put(h->a, s->gone);
	h->a = NULL;
	return whole;
}

int leat_drop(struct leat_sub *s, const void *data)
{
	for (int k = 0; k < LEAT__HELD; k++)
		if (s->held[k].a && s->held[k].msg.data == data)
			return drop(s, k) ? 0
					  : leat__say(-ESTALE, "the retained message was overwritten: "
							       "somebody wrote into the control region");
	return leat__say(-EINVAL, "drop: this subscriber retains nothing there");
}

static __attribute__((noinline)) int latest_long(struct leat_sub *s, void *buf, size_t size,
						 struct leat_info *info)
{
	if (s->gone)
		return parents();
	leat__sub_look_around(s);
	for (uint32_t i = 0; i < s->n; i++)
		if (s->rings[i]->pending && leat__sub_follow(s, s->rings[i]))
			i = UINT32_MAX; /* the table has changed: from the beginning */
	for (uint32_t back = s->n; back-- > 0;) { /* the newest publisher first */
		struct leat__reader *r = &s->rings[back]->r;
		struct leat__msg msg;

		for (int tries = 0; tries < 64 && leat__reader_latest(r, &msg); tries++) {
			if (msg.size <= size && msg.size)
				memcpy(buf, msg.data, (size_t)msg.size);
			if (!leat__reader_intact(r, &msg))
				continue;
			if (info)
				*info = (struct leat_info){msg.size, msg.seq, s->rings[back]->origin, 0};
			return msg.size <= size ? 0
						: leat__fail(-EMSGSIZE,
							     "the newest message has %llu bytes, the buffer %zu",
							     (unsigned long long)msg.size, size);
		}
	}
	return leat__say(-EAGAIN, "no publisher has sent anything that is still there");
}

int leat_latest(struct leat_sub *s, void *buf, size_t size, struct leat_info *info)
{
	struct leat__reader *r;
	const unsigned char *at;
	size_t n;

	/* One publisher, nothing new about publishers, a small message. */
	if (__builtin_expect(s->n != 1 || s->retry_at || leat__load_acquire(s->epoch_now) != s->epoch, 0))
		return latest_long(s, buf, size, info);
	r = &s->rings[0]->r;
	at = leat__reader_newest(r);
	n = r->newest_rec.size;
	if (__builtin_expect(!at || n > size, 0))
		return latest_long(s, buf, size, info);
	leat__copy_out(buf, at, n);
	if (__builtin_expect(!leat__reader_whole(r, r->newest), 0))
		return latest_long(s, buf, size, info);
	if (info)
		*info = (struct leat_info){n, leat__reader_extend(r, r->newest_rec.seq), s->rings[0]->origin, 0};
	return 0;
}
