/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots: the places of subscribers, of work queues' groups, and of their workers. Like registry.c the only one to
 * write the broker's words there.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/base.h"
#include "snapshot.h"
#include "sync/bell.h"

const char *slot_program(const struct slot *s)
{
	return s->owner ? s->owner->program : s->mode == LEAT__GROUP ? "a work queue's group" : "a worker that is gone";
}

/* Does anybody still have a message in hand by this worker's lines, or by others as its holder? */
static int in_hand(const struct channel *ch, uint32_t s)
{
	for (const struct ring *r = ch->rings; r; r = r->next) {
		if (r->entry == LEAT__NO_ENTRY)
			continue;
		for (uint32_t i = 0; i < ch->n_slots; i++) {
			uint64_t word = leat__load_acquire(&lines_of(r)[i].state);

			if (ch->slots[i].mode == LEAT__WORKER && LEAT__RING_ID(word) == r->id &&
			    LEAT__IN(word, LEAT__BUSY) && (i == s || LEAT__HOLDER(word) == s))
				return 1;
		}
	}
	return 0;
}

/* A worker that is gone leaves its slot when nothing is in hand by it; its lines are not used again. */
static void worker_settle(struct registry *reg, struct channel *ch, uint32_t s)
{
	for (const struct ring *r = ch->rings; r; r = r->next) {
		struct leat__line *line;
		uint64_t word;

		if (r->entry == LEAT__NO_ENTRY)
			continue;
		line = &lines_of(r)[s];
		word = leat__load_acquire(&line->state);
		if (LEAT__RING_ID(word) != r->id || !LEAT__IN(word, LEAT__BUSY))
			leat__cas(&line->state, word, LEAT__WORD(r->id, LEAT__DONE));
	}
	if (in_hand(ch, s))
		return;
	ch->slots[s].mode = 0;
	leat__store_relaxed(&leat__ctrl_slots(ch->shm, &ch->g)[s].mode, 0u);
	keep_slot(reg, ch, s);
}

static uint32_t slot_mode(struct registry *reg, struct channel *ch, uint32_t s)
{
	if (s < ch->n_slots && ch->slots[s].mode == LEAT__WORKER && !ch->slots[s].owner)
		worker_settle(reg, ch, s);
	return s < ch->n_slots ? ch->slots[s].mode : 0;
}

int slots_reach(struct channel *ch, uint32_t s)
{
	struct slot *more;

	if (s < ch->n_slots)
		return 0;
	more = realloc(ch->slots, (s + 1) * sizeof(*more));
	if (!more)
		return leat__say(-ENOMEM, "the broker has no memory for another subscriber");
	memset(more + ch->n_slots, 0, (s + 1 - ch->n_slots) * sizeof(*more));
	ch->slots = more;
	ch->n_slots = s + 1;
	return 0;
}

/*
 * A free slot: the lowest for a group, the highest above it for its workers, whose lines publishers look at after
 * the group's; else the lowest. -EUSERS.
 */
static int slot_find(struct registry *reg, struct channel *ch, uint32_t mode, uint32_t group, uint32_t *ret)
{
	uint32_t n = ch->g.n_slots, s = 0, k;

	if (mode == LEAT__WORKER)
		for (s = n - 1; s > group && slot_mode(reg, ch, s);)
			s--;
	else
		while (s < n && slot_mode(reg, ch, s))
			s++;
	if (s == n || (mode == LEAT__WORKER && s <= group)) {
		for (k = 0; k < ch->n_slots && !ch->slots[k].owner;)
			k++;
		return leat__fail(-EUSERS,
				  "channel %s: all %u subscriber places are taken, one by %s (pid %d): close "
				  "one, or open the channel first with a larger max_subscribers",
				  ch->name, n, k < ch->n_slots ? ch->slots[k].owner->program : "a work queue's group",
				  k < ch->n_slots ? (int)ch->slots[k].owner->pid : 0);
	}
	*ret = s;
	return slots_reach(ch, s);
}

int slot_grant(struct registry *reg, struct channel *ch, uint32_t mode, const struct owner *owner, uint32_t group,
	       uint32_t *ret)
{
	static const unsigned states[] = {[LEAT__WAITING] = LEAT__GRANTED, [LEAT__OBSERVING] = LEAT__WATCHES,
					  [LEAT__GROUP] = LEAT__GRANTED, [LEAT__WORKER] = LEAT__IDLE};
	struct leat__slot *shm;
	uint32_t s = 0;
	int e;

	store_touch(reg->store, ch->key);
	e = slot_find(reg, ch, mode, group, &s);
	if (e == 0 && owner)
		e = quota_take(reg->quotas, owner, LEAT__Q_SUBSCRIBERS, 0, 0);
	if (e < 0)
		return e;
	ch->grants = (ch->grants + 1) & 0xfff;
	ch->slots[s] = (struct slot){.mode = mode, .grant = ch->grants, .group = group, .owner = owner};
	ch->n_slots_used += owner != NULL;
	shm = &leat__ctrl_slots(ch->shm, &ch->g)[s];
	memset(shm, 0, sizeof(*shm));
	shm->pid = owner ? (uint32_t)owner->pid : 0;
	shm->group = mode == LEAT__WORKER ? group + 1 : 0;
	leat__store_release(&shm->mode, mode);
	leat__store_release(&shm->client, owner ? owner->client : 0);
	for (struct ring *r = ch->rings; r; r = r->next) {
		struct leat__line *line;

		if (r->entry == LEAT__NO_ENTRY)
			continue;
		/* The newcomer joins or says DONE; until then the entry is not reused under it. */
		line = &lines_of(r)[s];
		leat__store_relaxed(&line->cursor, UINT64_C(0));
		leat__store_relaxed(&line->count, UINT64_C(0));
		leat__store_release(&line->state, LEAT__WORD(r->id, ch->grants << 12 | states[mode]));
	}
	leat__fence();
	if (owner)
		channel_tell(reg, ch, 1);
	keep_slot(reg, ch, s);
	keep_channel(reg, ch);
	*ret = s;
	return 0;
}

void groups_revive(struct registry *reg, struct channel *ch)
{
	for (struct ring *r = ch->rings; r; r = r->next) {
		int entry;

		if (r->entry != LEAT__NO_ENTRY || r->groups_done == ch->groups)
			continue;
		entry = channel_empty_entry(ch);
		if (entry < 0)
			return;
		r->entry = (uint32_t)entry;
		for (uint32_t i = 0; i < ch->n_slots; i++) {
			struct leat__line *line = &lines_of(r)[i];
			unsigned state = LEAT__DONE;

			if (ch->slots[i].mode == LEAT__GROUP && ch->slots[i].number > r->groups_done)
				state = LEAT__GRANTED;
			else if (ch->slots[i].mode == LEAT__WORKER && ch->slots[i].owner)
				state = LEAT__IDLE;
			leat__store_relaxed(&line->cursor, UINT64_C(0));
			leat__store_relaxed(&line->count, UINT64_C(0));
			leat__store_release(&line->state, LEAT__WORD(r->id, state));
		}
		leat__store_release(&leat__ctrl_entries(ch->shm)[entry].word, LEAT__WORD(r->id, LEAT__ENDED));
		keep_ring(reg, r);
		channel_changed(reg, ch);
	}
}

int group_get(struct registry *reg, struct channel *ch, const char *name, uint32_t *ret)
{
	struct leat__slot *shm = leat__ctrl_slots(ch->shm, &ch->g);
	int e;

	for (uint32_t i = 0; i < ch->n_slots; i++)
		if (ch->slots[i].mode == LEAT__GROUP && !strcmp(ch->slots[i].name, name)) {
			*ret = i;
			return 0;
		}
	e = slot_grant(reg, ch, LEAT__GROUP, NULL, 0, ret);
	if (e < 0)
		return e;
	strcpy(ch->slots[*ret].name, name);
	strcpy(shm[*ret].name, name);
	ch->slots[*ret].number = ++ch->groups;
	keep_slot(reg, ch, *ret);
	keep_channel(reg, ch);
	groups_revive(reg, ch);
	return 0;
}

/* Nobody has slot @s any more, and nothing is waited for there. */
void slot_vacate(struct registry *reg, struct channel *ch, uint32_t s)
{
	ch->slots[s].mode = 0;
	keep_slot(reg, ch, s);
	leat__store_relaxed(&leat__ctrl_slots(ch->shm, &ch->g)[s].mode, 0u);
	for (struct ring *r = ch->rings; r; r = r->next)
		if (r->entry != LEAT__NO_ENTRY)
			leat__store_release(&lines_of(r)[s].state, LEAT__WORD(r->id, LEAT__DONE));
}

void groups_remove(struct registry *reg, struct channel *ch)
{
	for (uint32_t i = 0; i < ch->n_slots; i++) {
		int workers = 0;

		if (ch->slots[i].mode != LEAT__GROUP)
			continue;
		for (uint32_t k = 0; k < ch->n_slots; k++)
			workers += ch->slots[k].mode == LEAT__WORKER && ch->slots[k].owner && ch->slots[k].group == i;
		for (uint32_t k = 0; k < ch->n_slots && !workers; k++) /* what dead ones had in hand */
			if (ch->slots[k].mode == LEAT__WORKER && ch->slots[k].group == i)
				slot_vacate(reg, ch, k);
		if (!workers)
			slot_vacate(reg, ch, i);
	}
	/* What is in history waits for groups that are there. */
	for (struct ring *r = ch->rings; r; r = r->next) {
		int wanted = 0;

		for (uint32_t i = 0; i < ch->n_slots; i++)
			wanted |= ch->slots[i].mode == LEAT__GROUP && ch->slots[i].number > r->groups_done;
		if (r->entry == LEAT__NO_ENTRY && !wanted) {
			r->groups_done = ch->groups;
			keep_ring(reg, r);
		}
	}
	leat__bell_toll(&ch->shm->space_bell);
}

void slot_free(struct registry *reg, struct channel *ch, uint32_t s)
{
	struct leat__slot *shm = &leat__ctrl_slots(ch->shm, &ch->g)[s];

	store_touch(reg->store, ch->key);
	ch->n_slots_used--;
	quota_give(reg->quotas, ch->slots[s].owner, LEAT__Q_SUBSCRIBERS, 0, 0);
	channel_tell(reg, ch, 1);
	keep_channel(reg, ch);
	for (int k = 0; k < LEAT__HELD; k++)
		leat__store_release(&shm->held[k], UINT64_C(0));
	leat__store_release(&shm->client, UINT64_C(0));
	if (ch->slots[s].mode == LEAT__WORKER) {
		ch->slots[s].owner = NULL;
		shm = &leat__ctrl_slots(ch->shm, &ch->g)[ch->slots[s].group];
		worker_settle(reg, ch, s);
		leat__fetch_add(&shm->parked, 1u);
		leat__bell_toll(&shm->bell);
		leat__bell_toll(&ch->shm->data_bell);
	} else {
		slot_vacate(reg, ch, s);
	}
	leat__bell_toll(&ch->shm->space_bell);
}
