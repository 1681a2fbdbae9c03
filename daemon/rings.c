/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rings of a channel: taking them in, their end, and what is kept of them then. Like registry.c it writes the broker's
 * words into control regions.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "base/base.h"
#include "snapshot.h"
#include "sync/bell.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#define TMPFS_MAGIC     0x01021994
#define HUGETLBFS_MAGIC 0x958458f6

static struct ring **inode_bucket(const struct registry *reg, dev_t dev, ino_t ino)
{
	return (struct ring **)(uintptr_t)&reg->by_inode[(ino ^ dev) % 4096];
}

int ring_verify(const struct registry *reg, int fd, const struct leat__geometry *g, struct ring_file *ret)
{
	const int want = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
	int seals = fcntl(fd, F_GET_SEALS);
	struct statfs fs;
	struct stat st;
	int e;

	if (seals < 0 || (seals & want) != want)
		return leat__say(-EINVAL, "the ring's descriptor is not a memfd sealed as a ring must be");
	if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0 || !S_ISREG(st.st_mode) ||
	    ((uint32_t)fs.f_type != TMPFS_MAGIC && (uint32_t)fs.f_type != HUGETLBFS_MAGIC))
		return leat__say(-EINVAL, "the ring's descriptor is not shared memory");
	e = leat__ring_check(g, (uint64_t)st.st_size);
	if (e < 0)
		return e;
	if ((uint64_t)st.st_size != g->total)
		return leat__say(-EINVAL, "the ring's size is not what was promised");
	if ((uint32_t)fs.f_type == TMPFS_MAGIC && (uint64_t)st.st_blocks * 512 < g->total)
		return leat__say(-EINVAL, "the ring's memory is not reserved");
	for (struct ring *r = *inode_bucket(reg, st.st_dev, st.st_ino); r; r = r->same_hash)
		if (r->dev == st.st_dev && r->ino == st.st_ino)
			return leat__say(-EEXIST, "that ring is registered already");
	*ret = (struct ring_file){fd, st.st_dev, st.st_ino};
	return 0;
}

static uint64_t tail_of(const struct ring *ring)
{
	uint64_t tail;

	return pread(ring->fd, &tail, sizeof(tail), offsetof(struct leat__ring_shm, tail)) == sizeof(tail) ? tail : 0;
}

/* Has the group in this slot nothing more to claim? */
static int all_claimed(const struct ring *ring, const struct leat__line *line)
{
	return (leat__load_acquire(&line->cursor) & ~UINT64_C(7)) == tail_of(ring);
}

static int spoke(struct ring *ring)
{
	if (!ring->spoke)
		ring->spoke = tail_of(ring) != 0;
	return ring->spoke;
}

static int ends_later(const struct ring *a, const struct ring *b)
{
	return a->ended_at > b->ended_at || (a->ended_at == b->ended_at && a->id > b->id);
}

/* Is it the last one of its channel that was to be kept, and has nobody sent anything since? */
static int is_retained(struct ring *ring)
{
	if (ring->state != LEAT__ENDED || !(ring->g.flags & LEAT__RETAIN) || !spoke(ring))
		return 0;
	for (struct ring *r = ring->channel->rings; r; r = r->next) {
		int after = r->state == LEAT__LIVE ? r->id > ring->id : (r->g.flags & LEAT__RETAIN) && ends_later(r, ring);

		if (r != ring && after && spoke(r))
			return 0;
	}
	return 1;
}

/* Does whoever has slot @i still need the ring, whose line there says @s? */
static int needs(const struct ring *ring, uint32_t i, uint64_t s)
{
	const struct slot *slot = &ring->channel->slots[i];
	int done = LEAT__RING_ID(s) != ring->id || LEAT__STATE(s) == LEAT__DONE;

	switch (slot->mode) {
	case LEAT__WAITING: return LEAT__STATE(s) != LEAT__DONE || LEAT__RING_ID(s) != ring->id;
	case LEAT__GROUP: return !done && !all_claimed(ring, &lines_of(ring)[i]);
	case LEAT__WORKER: return !done && (slot->owner || LEAT__IN(s, LEAT__BUSY));
	default: return 0;
	}
}

/* Who still has to read the ring; -1 nobody. */
static int undrained_by(const struct ring *ring)
{
	if (ring->entry == LEAT__NO_ENTRY)
		return -1;
	for (uint32_t i = 0; i < ring->channel->n_slots; i++)
		/* Pairs with the release store of DONE: nothing of the reader's follows it. */
		if (needs(ring, i, leat__load_acquire(&lines_of(ring)[i].state)))
			return (int)i;
	return -1;
}

void ring_free(struct registry *reg, struct ring *ring)
{
	struct ring **at = inode_bucket(reg, ring->dev, ring->ino);

	while (*at && *at != ring)
		at = &(*at)->same_hash;
	if (*at)
		*at = ring->same_hash;
	quota_give(reg->quotas, &ring->owner, LEAT__Q_PUBLISHERS, ring->g.total, 1);
	store_del(reg->store, REC_RING, ring->id, 0);
	store_drop(reg->store, ring->key);
	close(ring->fd);
	free(ring);
}

static void ring_forget(struct registry *reg, struct ring *ring)
{
	struct ring **at = &ring->channel->rings;

	while (*at != ring)
		at = &(*at)->next;
	*at = ring->next;
	if (ring->entry != LEAT__NO_ENTRY)
		leat__store_release(&leat__ctrl_entries(ring->channel->shm)[ring->entry].word,
				    UINT64_C(0));
	reg->n_ended--;
	ring->channel->n_ended--;
	ring_free(reg, ring);
}

/* An ended ring that everybody has read needs no entry and no lines: readers of it cannot disturb
 * anyone. Keep the newest few of them for those who ask for history. */
static void into_history(struct registry *reg, struct ring *ring)
{
	struct channel *ch = ring->channel;
	struct ring *oldest = NULL;
	int n = 0;

	leat__store_release(&leat__ctrl_entries(ch->shm)[ring->entry].word, UINT64_C(0));
	ring->entry = LEAT__NO_ENTRY;
	ring->groups_done = ch->groups;
	keep_ring(reg, ring);
	for (struct ring *r = ch->rings; r; r = r->next)
		if (r->entry == LEAT__NO_ENTRY && !is_retained(r)) {
			oldest = oldest ? oldest : r;
			n++;
		}
	if (n > HISTORY_MAX)
		ring_forget(reg, oldest);
}

int channel_empty_entry(const struct channel *ch)
{
	char taken[LEAT__MAX_RINGS] = {0};

	for (struct ring *r = ch->rings; r; r = r->next)
		if (r->entry != LEAT__NO_ENTRY)
			taken[r->entry] = 1;
	for (uint32_t i = 0; i < ch->g.n_rings; i++)
		if (!taken[i])
			return (int)i;
	return -1;
}

static void drained_into_history(struct registry *reg, struct channel *ch)
{
	struct ring *next;

	for (struct ring *r = ch->rings; r; r = next) {
		next = r->next;
		if (r->state == LEAT__ENDED && r->entry != LEAT__NO_ENTRY && undrained_by(r) < 0) {
			into_history(reg, r);
			next = ch->rings; /* it may have forgotten any of them */
		}
	}
}

static int free_entry(struct registry *reg, struct channel *ch)
{
	drained_into_history(reg, ch);
	store_commit(reg->store); /* before another takes their place */
	return channel_empty_entry(ch);
}

static int table_full(const struct channel *ch)
{
	for (struct ring *r = ch->rings; r; r = r->next) {
		int by = r->state == LEAT__ENDED ? undrained_by(r) : -1;

		if (by >= 0)
			return leat__fail(-EUSERS,
					  "channel %s: all %u publisher places are taken, one by a ring that "
					  "%s (pid %d) has not drained: let it read, or open the channel first "
					  "with a larger max_publishers",
					  ch->name, ch->g.n_rings, slot_program(&ch->slots[by]),
					  ch->slots[by].owner ? (int)ch->slots[by].owner->pid : 0);
	}
	return leat__fail(-EUSERS,
			  "channel %s: all %u publisher places are taken, one by %s (pid %d): close one, or "
			  "open the channel first with a larger max_publishers",
			  ch->name, ch->g.n_rings, ch->rings->owner.program,
			  (int)ch->rings->owner.pid);
}

/* Among those of its channel, in order of numbers. */
static void ring_link(struct ring *ring)
{
	struct ring **at = &ring->channel->rings;

	while (*at && (*at)->id < ring->id)
		at = &(*at)->next;
	ring->next = *at;
	*at = ring;
}

static struct ring *ring_new(struct registry *reg, const struct ring *facts)
{
	struct ring *ring = malloc(sizeof(*ring)), **at;

	if (!ring) {
		leat__say(-ENOMEM, "the broker has no memory for another ring");
		return NULL;
	}
	*ring = *facts;
	at = inode_bucket(reg, ring->dev, ring->ino);
	ring->same_hash = *at;
	*at = ring;
	return ring;
}

int ring_adopt(struct registry *reg, const struct ring *facts, struct ring **ret)
{
	struct ring copy = *facts;
	struct ring_file file;
	int e = ring_verify(reg, facts->fd, &facts->g, &file);
	int entry = facts->entry != LEAT__NO_ENTRY;

	if (e < 0)
		return e;
	for (const struct ring *r = facts->channel->rings; r; r = r->next)
		if (r->id == facts->id || (entry && r->entry == facts->entry))
			return leat__say(-EBADMSG, "a ring is there twice");
	if ((facts->state != LEAT__LIVE && facts->state != LEAT__ENDED) || (entry && facts->entry >= facts->channel->g.n_rings) ||
	    (!entry && facts->state == LEAT__LIVE))
		return leat__say(-EBADMSG, "a ring has no place");
	copy.dev = file.dev;
	copy.ino = file.ino;
	*ret = ring_new(reg, &copy);
	if (!*ret)
		return -ENOMEM;
	quota_had(reg->quotas, &copy.owner, LEAT__Q_PUBLISHERS, copy.g.total, 1);
	ring_link(*ret);
	reg->n_ended += copy.state == LEAT__ENDED;
	copy.channel->n_ended += copy.state == LEAT__ENDED;
	return 0;
}

int ring_add(struct registry *reg, struct channel *ch, const struct ring_file *file,
	     const struct leat__geometry *g, const struct owner *owner, uint64_t origin,
	     struct ring **ret)
{
	struct ring facts = {.channel = ch, .fd = file->fd, .key = STORE_NONE, .dev = file->dev, .ino = file->ino,
			     .g = *g, .held = 1, .state = LEAT__LIVE, .owner = *owner};
	struct leat__line *lines;
	struct ring *ring;
	int entry, e;

	store_touch(reg->store, ch->key);
	entry = free_entry(reg, ch);
	if (entry < 0)
		return table_full(ch);
	if (reg->next_ring >= LEAT__ID_MAX)
		return leat__say(-EOVERFLOW, "the broker has run out of ring numbers: restart it");
	e = quota_take(reg->quotas, owner, LEAT__Q_PUBLISHERS, g->total, 1);
	if (e < 0)
		return e;
	e = store_keep(reg->store, file->fd, &facts.key);
	if (e < 0) {
		quota_give(reg->quotas, owner, LEAT__Q_PUBLISHERS, g->total, 1);
		return e;
	}
	facts.id = reg->next_ring + 1;
	facts.origin = origin ? origin : facts.id;
	facts.entry = (uint32_t)entry;
	ring = ring_new(reg, &facts);
	if (!ring) {
		quota_give(reg->quotas, owner, LEAT__Q_PUBLISHERS, g->total, 1);
		store_drop(reg->store, facts.key);
		return -ENOMEM;
	}
	reg->next_ring++;
	lines = lines_of(ring);
	for (uint32_t i = 0; i < ch->n_slots; i++) {
		static const unsigned states[] = {[LEAT__WAITING] = LEAT__ACTIVE, [LEAT__OBSERVING] = LEAT__WATCHES,
						  [LEAT__GROUP] = LEAT__SHARED, [LEAT__WORKER] = LEAT__IDLE};
		unsigned state = states[ch->slots[i].mode];

		if (!ch->slots[i].mode || (ch->slots[i].mode == LEAT__WORKER && !ch->slots[i].owner))
			continue;
		/* The cursor before the state, the lines before LIVE, LIVE before the reply: a
		 * subscriber loses nothing to the time it takes to map a new ring. */
		leat__store_relaxed(&lines[i].cursor, UINT64_C(0));
		leat__store_relaxed(&lines[i].count, UINT64_C(0));
		leat__store_release(&lines[i].state,
				    LEAT__WORD(ring->id, ch->slots[i].grant << 12 | state));
	}
	leat__store_release(&leat__ctrl_entries(ch->shm)[entry].word,
			    LEAT__WORD(ring->id, LEAT__LIVE));
	leat__fence();
	ring_link(ring);
	keep_ring(reg, ring);
	channel_tell(reg, ch, 1);
	channel_changed(reg, ch);
	*ret = ring;
	return 0;
}

struct ring *ring_find(const struct channel *ch, uint64_t id)
{
	for (struct ring *r = ch->rings; r; r = r->next)
		if (r->id == id)
			return r;
	return NULL;
}

void ring_end(struct registry *reg, struct ring *ring, uint64_t now)
{
	if (ring->state == LEAT__ENDED)
		return;
	store_touch(reg->store, ring->channel->key);
	ring->state = LEAT__ENDED;
	ring->held = 0;
	ring->ended_at = now;
	reg->n_ended++;
	ring->channel->n_ended++;
	leat__store_release(&leat__ctrl_entries(ring->channel->shm)[ring->entry].word,
			    LEAT__WORD(ring->id, LEAT__ENDED));
	keep_ring(reg, ring);
	channel_tell(reg, ring->channel, 1);
	channel_changed(reg, ring->channel);
}

void registry_tidy(struct registry *reg, struct channel *ch)
{
	store_touch(reg->store, ch->key);
	drained_into_history(reg, ch);
	store_commit(reg->store); /* before others take their place */
	groups_revive(reg, ch);
}

/* Does anybody publish there, still read it, or (a group) wait for it in history? */
static int is_needed(const struct ring *r)
{
	return r->state != LEAT__ENDED || undrained_by(r) >= 0 ||
	       (r->entry == LEAT__NO_ENTRY && r->groups_done != r->channel->groups);
}

void rings_expire(struct registry *reg, struct channel *ch, uint64_t now)
{
	struct ring *next;

	store_touch(reg->store, ch->key);
	for (struct ring *r = ch->rings; r; r = next) {
		next = r->next;
		if (is_needed(r))
			continue;
		if (now - r->ended_at >= reg->linger_ns && !is_retained(r)) {
			ring_forget(reg, r);
		} else if (r->entry != LEAT__NO_ENTRY) {
			into_history(reg, r);
			next = ch->rings; /* it may have forgotten any of them: look again */
		}
	}
	store_commit(reg->store); /* as above */
	groups_revive(reg, ch);
}

void rings_remove(struct registry *reg, struct channel *ch)
{
	struct ring *next;

	for (struct ring *r = ch->rings; r; r = next) {
		next = r->next;
		if (is_needed(r))
			continue;
		ring_forget(reg, r);
	}
}
