/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels; rings.c and slots.c have what is in them. One thread, one order: every word that the broker writes into a
 * control region is written in these three. What it reads there (DONE) is a participant's word about its own slot and
 * can hurt only that participant.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/base.h"
#include "snapshot.h"
#include "sync/bell.h"

static struct channel **bucket(const struct registry *reg, const char *name)
{
	return (struct channel **)(uintptr_t)&reg->buckets[leat__hash(name, strlen(name)) % 4096];
}

static void unsort(struct registry *reg)
{
	free(reg->sorted);
	reg->sorted = NULL;
}

/* Where @name is among all in order of name, or would be. */
static size_t place_of(const struct registry *reg, const char *name)
{
	size_t low = 0, high = reg->n_channels;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (strcmp(reg->sorted[mid]->name, name) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* Sorting all anew for whoever asks next would take some ten milliseconds, and anybody could have that done all the time. */
static void sort_in(struct registry *reg, struct channel *ch)
{
	uint32_t room = reg->sorted_room + reg->sorted_room / 2 + 16;
	struct channel **at;

	if (!reg->sorted)
		return;
	if (reg->n_channels == reg->sorted_room) {
		at = realloc(reg->sorted, room * sizeof(*at));
		if (!at) { /* whoever asks next has that trouble */
			unsort(reg);
			return;
		}
		reg->sorted = at;
		reg->sorted_room = room;
	}
	at = reg->sorted + place_of(reg, ch->name);
	memmove(at + 1, at, (size_t)(reg->sorted + reg->n_channels - at) * sizeof(*at));
	*at = ch;
}

static void sort_out(struct registry *reg, const struct channel *ch)
{
	struct channel **at;

	if (reg->n_channels == 1)
		unsort(reg);
	if (!reg->sorted)
		return;
	at = reg->sorted + place_of(reg, ch->name);
	memmove(at, at + 1, (size_t)(reg->sorted + reg->n_channels - (at + 1)) * sizeof(*at));
}

static int control_init(void *addr, uint64_t size, void *arg)
{
	(void)size;
	leat__head_write(addr, LEAT__MAGIC_CTRL, arg);
	return 0;
}

int channel_adopt(struct registry *reg, const struct channel *facts, struct channel **ret)
{
	struct channel *ch, **at = bucket(reg, facts->name);

	for (ch = *at; ch; ch = ch->next)
		if (!strcmp(ch->name, facts->name))
			return leat__say(-EBADMSG, "a channel is there twice");
	ch = malloc(sizeof(*ch));
	if (!ch)
		return leat__say(-ENOMEM, "the broker has no memory for another channel");
	*ch = *facts;
	ch->shm = leat_region_addr(ch->control);
	ch->next = *at;
	*at = ch;
	sort_in(reg, ch);
	reg->n_channels++;
	*ret = ch;
	return 0;
}

static int channel_new(struct registry *reg, const char *name, const struct owner *owner, uint32_t n_rings,
		       uint32_t n_slots, struct channel **ret)
{
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD,
				     .name = "leat-control", .flags = LEAT_PREFAULT};
	struct channel ch = {.key = STORE_NONE, .owner = *owner};
	int e = leat__ctrl_geometry(&ch.g, n_rings, n_slots, leat__page_size());

	if (e == 0)
		e = quota_take(reg->quotas, owner, LEAT__Q_CHANNELS, ch.g.total, 1);
	if (e < 0)
		return e;
	o.size = ch.g.total;
	o.init = control_init;
	o.init_arg = &ch.g;
	e = leat_region_create(&o, &ch.control);
	if (e < 0) {
		quota_give(reg->quotas, owner, LEAT__Q_CHANNELS, ch.g.total, 1);
		return e;
	}
	e = leat__seal_control(leat_region_fd(ch.control));
	if (e == 0)
		e = store_keep(reg->store, leat_region_fd(ch.control), &ch.key);
	if (e == 0) {
		ch.name = strdup(name);
		e = ch.name ? channel_adopt(reg, &ch, ret) : leat__say(-ENOMEM, "the broker has no memory for a name");
	}
	if (e < 0) {
		quota_give(reg->quotas, owner, LEAT__Q_CHANNELS, ch.g.total, 1);
		store_drop(reg->store, ch.key);
		leat_region_close(ch.control);
		free(ch.name);
		return e;
	}
	keep_channel(reg, *ret);
	return 0;
}

int registry_channel(struct registry *reg, const char *name, const struct owner *owner, uint32_t n_rings,
		     uint32_t n_slots, struct channel **ret)
{
	for (struct channel *ch = *bucket(reg, name); ch; ch = ch->next)
		if (!strcmp(ch->name, name)) {
			*ret = ch;
			return 0;
		}
	if (!owner)
		return leat__fail(-ENOENT, "there is no channel %s", name);
	return channel_new(reg, name, owner, n_rings, n_slots, ret);
}

void registry_settle(struct registry *reg, struct channel *ch)
{
	struct channel **at = bucket(reg, ch->name);

	if (ch->rings || ch->n_slots_used || ch->looks)
		return;
	if (ch->change)
		channel_tell(reg, ch, 0);
	while (*at != ch)
		at = &(*at)->next;
	*at = ch->next;
	sort_out(reg, ch);
	for (uint32_t i = 0; i < ch->n_slots; i++)
		if (ch->slots[i].mode)
			store_del(reg->store, REC_SLOT, ch->key, i);
	quota_give(reg->quotas, &ch->owner, LEAT__Q_CHANNELS, ch->g.total, 1);
	store_del(reg->store, REC_CHANNEL, ch->key, 0);
	store_drop(reg->store, ch->key);
	leat_region_close(ch->control);
	free(ch->slots);
	free(ch->name);
	free(ch);
	reg->n_channels--;
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(struct channel *const *)a)->name, (*(struct channel *const *)b)->name);
}

int registry_sorted(struct registry *reg, struct channel *const **ret)
{
	size_t n = 0;

	if (!reg->sorted) {
		reg->sorted = malloc((reg->n_channels + 1) * sizeof(struct channel *));
		if (!reg->sorted)
			return leat__say(-ENOMEM, "the broker has no memory to list its channels");
		reg->sorted_room = reg->n_channels + 1;
		for (size_t i = 0; i < 4096; i++)
			for (struct channel *ch = reg->buckets[i]; ch; ch = ch->next)
				reg->sorted[n++] = ch;
		qsort(reg->sorted, n, sizeof(struct channel *), by_name);
	}
	*ret = reg->sorted;
	return (int)reg->n_channels;
}

void channel_changed(struct registry *reg, struct channel *ch)
{
	ch->epoch++; /* ours to believe; theirs is for everybody to scribble on */
	leat__store_release(&ch->shm->epoch, ch->epoch);
	leat__bell_toll(&ch->shm->data_bell);
	keep_channel(reg, ch);
}

void channel_mend(struct registry *reg, struct channel *ch)
{
	for (uint32_t i = 0; i < ch->g.n_rings; i++)
		leat__store_release(&leat__ctrl_entries(ch->shm)[i].word, UINT64_C(0));
	for (struct ring *r = ch->rings; r; r = r->next) {
		if (r->entry == LEAT__NO_ENTRY)
			continue;
		leat__store_release(&leat__ctrl_entries(ch->shm)[r->entry].word, LEAT__WORD(r->id, r->state));
		for (uint32_t i = 0; i < ch->g.n_slots; i++)
			if (i >= ch->n_slots || !ch->slots[i].mode)
				leat__store_release(&lines_of(r)[i].state, LEAT__WORD(r->id, LEAT__DONE));
	}
	for (uint32_t i = 0; i < ch->g.n_slots; i++)
		if (i >= ch->n_slots || !ch->slots[i].mode)
			leat__store_release(&leat__ctrl_slots(ch->shm, &ch->g)[i].mode, 0u);
	channel_changed(reg, ch);
	leat__bell_toll(&ch->shm->space_bell);
}

void registry_expire(struct registry *reg, uint64_t now)
{
	for (size_t i = 0; i < 4096 && reg->n_ended; i++) {
		struct channel *next;

		for (struct channel *ch = reg->buckets[i]; ch; ch = next) {
			next = ch->next;
			if (!ch->n_ended)
				continue;
			rings_expire(reg, ch, now);
			registry_settle(reg, ch);
		}
	}
}

void registry_remove(struct registry *reg, struct channel *ch)
{
	store_touch(reg->store, ch->key);
	groups_remove(reg, ch);
	rings_remove(reg, ch);
	channel_changed(reg, ch);
	registry_settle(reg, ch);
}

void registry_free(struct registry *reg)
{
	unsort(reg);
	for (size_t i = 0; i < 4096; i++)
		while (reg->buckets[i]) {
			struct channel *ch = reg->buckets[i];

			while (ch->rings) {
				struct ring *r = ch->rings;

				ch->rings = r->next;
				ring_free(reg, r);
			}
			ch->n_slots_used = ch->looks = 0;
			registry_settle(reg, ch);
		}
}

struct leat__wire_channel channel_facts(const struct channel *ch)
{
	struct leat__wire_channel f = {.bytes = ch->g.total,
				       .change = ch->change,
				       .subscribers = ch->n_slots_used,
				       .max_publishers = ch->g.n_rings,
				       .max_subscribers = ch->g.n_slots};

	for (struct ring *r = ch->rings; r; r = r->next) {
		f.bytes += r->g.total;
		if (r->state == LEAT__LIVE)
			f.publishers++;
		else
			f.draining++;
	}
	return f;
}
