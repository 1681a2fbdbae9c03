/* SPDX-License-Identifier: Apache-2.0 */
/* Records of what the broker knows, and what it knows from records. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/base.h"
#include "snapshot.h"
#include "sync/bell.h"

enum { SKIPPED_RINGS = 1024, SKIPPED_EPOCHS = 1024 }; /* numbers that a worker may have used and not written down */

/* ---- writing ---- */

void keep_channel(struct registry *reg, const struct channel *ch)
{
	struct rec_channel r = {ch->g, ch->change, ch->grants, ch->epoch, ch->groups, (uint32_t)strlen(ch->name), ch->owner};

	store_put(reg->store, REC_CHANNEL, ch->key, 0, &r, sizeof(r), ch->name, r.name_size);
}

void keep_slot(struct registry *reg, const struct channel *ch, uint32_t slot)
{
	const struct slot *s = &ch->slots[slot];
	struct rec_slot r = {.mode = s->mode, .grant = s->grant, .group = s->group, .number = s->number};

	memcpy(r.name, s->name, sizeof(r.name));
	if (s->mode)
		store_put(reg->store, REC_SLOT, ch->key, slot, &r, sizeof(r), NULL, 0);
	else
		store_del(reg->store, REC_SLOT, ch->key, slot);
}

void keep_ring(struct registry *reg, const struct ring *ring)
{
	struct rec_ring r = {.g = ring->g,
			     .owner = ring->owner,
			     .origin = ring->origin,
			     .ended_at = ring->ended_at,
			     .key = ring->key,
			     .channel = ring->channel->key,
			     .entry = ring->entry,
			     .state = ring->state,
			     .groups_done = ring->groups_done};

	store_put(reg->store, REC_RING, ring->id, 0, &r, sizeof(r), NULL, 0);
}

void keep_share(struct registry *reg, const struct share *s)
{
	struct rec_share r = {s->owner, s->size, (uint32_t)s->writable, s->key, (uint32_t)strlen(s->name), 0};

	store_put(reg->store, REC_SHARE, s->generation, 0, &r, sizeof(r), s->name, r.name_size);
}

void keep_session(const struct session *s)
{
	struct rec_session r = {s->owner, s->next_object, s->done, s->sock_key, s->pid_key, (uint32_t)s->greeted,
				(uint32_t)s->kicked, s->n_tickets, 0};

	store_put(s->b->reg.store, REC_SESSION, s->owner.client, 0, &r, sizeof(r), s->tickets,
		  s->n_tickets * sizeof(*s->tickets));
}

void keep_object(const struct session *s, const struct object *o)
{
	struct rec_object r = {.id_of = o->kind == PUBLISHER ? o->ring->id : o->kind == SHARER ? o->share->generation : 0,
			       .since = o->since,
			       .waits = o->waits,
			       .made_by = o->made_by,
			       .kind = o->kind,
			       .channel = o->channel ? o->channel->key : 0,
			       .slot = o->slot,
			       .prefix_size = o->prefix ? (uint32_t)strlen(o->prefix) : 0};

	store_put(s->b->reg.store, REC_OBJECT, s->owner.client, o->id, &r, sizeof(r), o->prefix, r.prefix_size);
}

static void keep_broker(const struct broker *b)
{
	struct rec_broker r = {b->instance, b->next_client, b->reg.next_ring, b->reg.change};

	store_put(b->reg.store, REC_BROKER, 0, 0, &r, sizeof(r), NULL, 0);
#ifdef LEAT__NEXT
	store_put(b->reg.store, REC_OBJECT + 100, 1, 1, &r, sizeof(r), NULL, 0); /* and there are others */
#endif
}

static void keep_all(void *arg)
{
	struct broker *b = arg;

	keep_broker(b);
	for (size_t i = 0; i < 4096; i++)
		for (const struct channel *ch = b->reg.buckets[i]; ch; ch = ch->next) {
			keep_channel(&b->reg, ch);
			for (uint32_t k = 0; k < ch->n_slots; k++)
				if (ch->slots[k].mode)
					keep_slot(&b->reg, ch, k);
			for (const struct ring *r = ch->rings; r; r = r->next)
				keep_ring(&b->reg, r);
		}
	for (const struct share *s = b->reg.shares; s; s = s->next)
		keep_share(&b->reg, s);
	for (const struct session *s = b->sessions; s; s = s->next) {
		keep_session(s);
		for (const struct object *o = s->objects; o; o = o->next)
			keep_object(s, o);
	}
}

void broker_commit(struct broker *b)
{
	if (!b->reg.store)
		return;
	if (store_waits(b->reg.store))
		keep_broker(b);
	store_commit(b->reg.store);
	store_tidy(b->reg.store, keep_all, b);
}

/* ---- reading ---- */

struct load {
	struct broker *b;
	int *fds;
	uint32_t n;
	struct channel **channels; /* by key */
	struct session *last; /* whose object was the last */
	int found;            /* the broker's own record */
};

static int bad(const char *what)
{
	return leat__fail(-EBADMSG, "the broker's log is wrong: %s", what);
}

/* The fixed part of a record, and the text after it, whose length the caller knows then. */
static void get(const struct store_record *r, void *ret, size_t size)
{
	size_t n = r->size < size ? r->size : size;

	memset(ret, 0, size);
	memcpy(ret, store_data(r), n);
}

/* Text of @len bytes at the end of a record that has @size before it. NULL: it is not there. */
static char *get_text(const struct store_record *r, size_t size, size_t len)
{
	const char *at = store_data(r);

	if (r->size < size || r->size - size < len || memchr(at + r->size - len, 0, len))
		return NULL;
	return strndup(at + r->size - len, len);
}

static int take(struct load *l, uint64_t key)
{
	int fd = key < l->n ? l->fds[key] : -1;

	if (fd >= 0)
		l->fds[key] = -1;
	return fd;
}

static struct channel *channel_of(const struct load *l, uint64_t key)
{
	return key < l->n ? l->channels[key] : NULL;
}

static int load_broker(struct load *l, const struct store_record *r)
{
	struct rec_broker w;

	get(r, &w, sizeof(w));
	if (!w.instance || w.next_ring >= LEAT__ID_MAX)
		return bad("no instance");
	l->b->instance = w.instance;
	l->b->next_client = w.next_client;
	l->b->reg.next_ring = w.next_ring + SKIPPED_RINGS;
	l->b->reg.change = w.change;
	l->b->told = w.change - 1; /* the last one: who waits may not have been told of it */
	l->found = 1;
	return 0;
}

static int load_channel(struct load *l, const struct store_record *r)
{
	struct leat_region *control = NULL;
	struct rec_channel w;
	char *name;
	int fd, e;

	get(r, &w, sizeof(w));
	w.owner.program[sizeof(w.owner.program) - 1] = 0;
	name = get_text(r, sizeof(w), w.name_size);
	fd = take(l, r->a);
	if (!name || leat__name_check(name) < 0 || fd < 0 || r->a < STORE_FREE) {
		e = bad("a channel");
	} else {
		struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD, .size = w.g.total, .fd = fd};

		e = leat__ctrl_check(&w.g, w.g.total);
		if (e == 0)
			e = leat_region_open(&o, &control);
	}
	if (fd >= 0)
		close(fd);
	if (e == 0) {
		struct channel facts = {.name = name, .control = control, .g = w.g, .key = (uint32_t)r->a,
					.grants = w.grants & 0xfff, .epoch = w.epoch, .groups = w.groups,
					.change = w.change, .owner = w.owner};

		e = channel_adopt(&l->b->reg, &facts, &l->channels[r->a]);
		if (e == 0)
			quota_had(l->b->reg.quotas, &facts.owner, LEAT__Q_CHANNELS, facts.g.total, 1);
	}
	if (e < 0) {
		leat_region_close(control);
		free(name);
	}
	return e;
}

static int load_slot(struct load *l, const struct store_record *r)
{
	struct channel *ch = channel_of(l, r->a);
	struct rec_slot w;

	get(r, &w, sizeof(w));
	w.name[sizeof(w.name) - 1] = 0;
	if (!ch || r->b >= ch->g.n_slots || w.mode < LEAT__WAITING || w.mode > LEAT__WORKER || w.group >= ch->g.n_slots)
		return bad("a slot");
	if (slots_reach(ch, (uint32_t)r->b) < 0)
		return -ENOMEM;
	ch->slots[r->b] = (struct slot){.mode = w.mode, .grant = w.grant & 0xfff, .group = w.group, .number = w.number};
	memcpy(ch->slots[r->b].name, w.name, sizeof(w.name));
	return 0;
}

static int load_ring(struct load *l, const struct store_record *r)
{
	struct registry *reg = &l->b->reg;
	struct ring *ring, facts;
	struct rec_ring w;
	int fd, e = 0;

	get(r, &w, sizeof(w));
	w.owner.program[sizeof(w.owner.program) - 1] = 0;
	facts = (struct ring){.channel = channel_of(l, w.channel), .id = r->a, .origin = w.origin, .key = w.key, .g = w.g,
			      .entry = w.entry, .state = w.state, .ended_at = w.ended_at, .groups_done = w.groups_done,
			      .owner = w.owner};
	fd = take(l, w.key);
	if (fd < 0 || !facts.channel || !r->a || r->a > reg->next_ring || leat__ring_check(&w.g, w.g.total) < 0)
		e = bad("a ring");
	facts.fd = fd;
	if (e == 0)
		e = ring_adopt(reg, &facts, &ring);
	if (e < 0 && fd >= 0)
		close(fd);
	return e;
}

static int load_share(struct load *l, const struct store_record *r)
{
	struct rec_share w;
	struct share *s;
	char *name;
	int e, fd;

	get(r, &w, sizeof(w));
	w.owner.program[sizeof(w.owner.program) - 1] = 0;
	name = get_text(r, sizeof(w), w.name_size);
	fd = take(l, w.key);
	if (!name || fd < 0 || leat__name_check(name) < 0) {
		e = bad("a share");
	} else {
		struct leat__wire_share facts = {.generation = r->a, .size = w.size, .writable = w.writable};

		e = share_adopt(&l->b->reg, name, fd, &facts, &w.owner, w.key, &s);
	}
	if (e < 0 && fd >= 0)
		close(fd);
	free(name);
	return e;
}

/* How many of them, at the end of a session's record: *ret is the caller's. -1: it says nonsense; -ENOMEM. */
static int get_tickets(const struct store_record *r, uint32_t n, struct ticket **ret)
{
	size_t size = n * sizeof(**ret);

	*ret = NULL;
	if (n > TICKETS_MOST || size > r->size)
		return -1;
	if (n && !(*ret = malloc(size)))
		return -ENOMEM;
	if (n)
		memcpy(*ret, (const char *)store_data(r) + r->size - size, size);
	for (uint32_t i = 0; i < n; i++)
		(*ret)[i].prefix[LEAT__NAME_MAX] = 0;
	return (int)n;
}

static int load_session(struct load *l, const struct store_record *r)
{
	struct session facts = {.b = l->b};
	struct rec_session w;
	pid_t pid;
	uid_t uid;
	int e;

	get(r, &w, sizeof(w));
	w.owner.program[sizeof(w.owner.program) - 1] = 0;
	if (!r->a || r->a > l->b->next_client || w.owner.client != r->a)
		return bad("a client");
	e = get_tickets(r, w.n_tickets, &facts.tickets);
	if (e < 0)
		return e == -ENOMEM ? leat__say(e, "no memory for a client's tickets") : bad("a client's tickets");
	facts.n_tickets = (unsigned)e;
	facts.owner = w.owner;
	facts.next_object = w.next_object;
	facts.done = w.done;
	facts.greeted = w.greeted != 0;
	facts.kicked = w.kicked != 0;
	facts.sock_key = w.sock_key;
	facts.pid_key = w.pid_key;
	facts.sock = take(l, w.sock_key);
	facts.pidfd = take(l, w.pid_key);
	if (facts.sock >= 0 && facts.pidfd < 0)
		facts.ended = leat__sock_peer(facts.sock, &pid, &uid, &facts.pidfd) < 0; /* its process is gone */
	if (facts.sock < 0)
		facts.sock_key = STORE_NONE;
	if (facts.pidfd < 0)
		facts.pid_key = STORE_NONE;
	e = session_adopt(&facts);
	if (e == 0)
		quota_had(l->b->reg.quotas, &facts.owner, LEAT__Q_CLIENTS, 0, 2);
	else
		free(facts.tickets);
	if (e < 0 && facts.sock >= 0)
		close(facts.sock);
	if (e < 0 && facts.pidfd >= 0)
		close(facts.pidfd);
	return e;
}

static int load_object(struct load *l, const struct store_record *r)
{
	struct session *s = l->last && l->last->owner.client == r->a ? l->last : session_find(l->b, r->a);
	struct object *o = calloc(1, sizeof(*o));
	struct rec_object w;
	int e = 0;

	get(r, &w, sizeof(w));
	if (!o)
		return leat__say(-ENOMEM, "no memory for what there was");
	if (!s) {
		free(o);
		return bad("an object of nobody");
	}
	*o = (struct object){.id = r->b, .kind = w.kind, .since = w.since, .waits = w.waits, .made_by = w.made_by};
	if (w.kind == PUBLISHER || w.kind == SUBSCRIBER || w.kind == LOOKER) {
		o->channel = channel_of(l, w.channel);
		e = o->channel ? 0 : bad("an object of no channel");
	}
	if (e == 0 && w.kind == PUBLISHER) {
		o->ring = ring_find(o->channel, w.id_of);
		e = o->ring && o->ring->state == LEAT__LIVE && !o->ring->held ? 0 : bad("a publisher");
		if (e == 0)
			o->ring->held = 1;
	} else if (e == 0 && w.kind == SUBSCRIBER) {
		struct slot *slot = w.slot < o->channel->n_slots ? &o->channel->slots[w.slot] : NULL;

		o->slot = w.slot;
		e = slot && slot->mode && slot->mode != LEAT__GROUP && !slot->owner ? 0 : bad("a subscriber");
		if (e == 0) {
			slot->owner = &s->owner;
			quota_had(l->b->reg.quotas, &s->owner, LEAT__Q_SUBSCRIBERS, 0, 0);
			o->channel->n_slots_used++;
		}
	} else if (e == 0 && w.kind == LOOKER) {
		o->channel->looks++;
	} else if (e == 0 && w.kind == SHARER) {
		for (o->share = l->b->reg.shares; o->share && o->share->generation != w.id_of;)
			o->share = o->share->next;
		e = o->share && !o->share->held ? 0 : bad("a sharer");
		if (e == 0)
			o->share->held = 1;
	} else if (e == 0 && w.kind == WATCHER) {
		o->prefix = get_text(r, sizeof(w), w.prefix_size);
		e = o->prefix ? changes_watch(&l->b->reg, 1) : bad("a watch");
		if (e == 0)
			quota_had(l->b->reg.quotas, &s->owner, LEAT__Q_WATCHES, 0, 0);
	} else if (e == 0) {
		e = bad("an object of no kind");
	}
	if (e < 0) {
		free(o->prefix);
		free(o);
		return e;
	}
	o->next = s->objects;
	s->objects = o;
	l->last = s;
	return 0;
}

/* What nobody holds: it was being taken away. And that there is a group for every worker. */
static int settle_channel(struct registry *reg, struct channel *ch)
{
	struct ring *next;

	for (uint32_t i = 0; i < ch->n_slots; i++) {
		const struct slot *s = &ch->slots[i];

		if (s->mode == LEAT__WORKER && (s->group >= ch->n_slots || ch->slots[s->group].mode != LEAT__GROUP))
			return bad("a worker of no group");
		if ((s->mode == LEAT__WAITING || s->mode == LEAT__OBSERVING) && !s->owner)
			slot_vacate(reg, ch, i);
	}
	for (struct ring *r = ch->rings; r; r = next) {
		next = r->next;
		if (r->state == LEAT__LIVE && !r->held)
			ring_end(reg, r, leat__now());
	}
	return 0;
}

static int settle(struct load *l)
{
	struct registry *reg = &l->b->reg;
	struct channel *touched = channel_of(l, reg->store ? reg->store->head->touched : STORE_NONE);
	struct share *after;
	struct session *next;
	int e = 0;

	for (uint32_t i = 0; e == 0 && i < l->n; i++)
		if (l->channels[i])
			e = settle_channel(reg, l->channels[i]);
	for (struct share *s = reg->shares; e == 0 && s; s = after) {
		after = s->next;
		if (!s->held)
			share_end(reg, s);
	}
	/* Before the dead go, whose channels may go with them. */
	if (e == 0 && touched) {
		touched->epoch += SKIPPED_EPOCHS;
		channel_mend(reg, touched);
	}
	for (uint32_t i = 0; e == 0 && i < l->n; i++)
		if (l->channels[i])
			registry_settle(reg, l->channels[i]);
	for (struct session *s = l->b->sessions; e == 0 && s; s = next) {
		next = s->next;
		if (s->ended || (s->sock < 0 && s->pidfd < 0))
			session_end(s);
	}
	return e;
}

int snapshot_load(struct broker *b, const unsigned char *log, size_t size, int *fds, uint32_t n)
{
	static int (*const loaders[])(struct load *, const struct store_record *) = {
		[REC_BROKER] = load_broker, [REC_CHANNEL] = load_channel, [REC_SLOT] = load_slot, [REC_RING] = load_ring,
		[REC_SHARE] = load_share, [REC_SESSION] = load_session, [REC_OBJECT] = load_object,
	};
	struct load l = {b, fds, n, calloc(n + 1, sizeof(struct channel *)), NULL, 0};
	const struct store_record **list = NULL;
	int e = l.channels ? store_read(log, size, &list) : leat__say(-ENOMEM, "no memory for what there was"), k = e;

	for (int i = 0; e >= 0 && i < k; i++)
		if (list[i]->type < sizeof(loaders) / sizeof(loaders[0]) && loaders[list[i]->type])
			e = l.found || list[i]->type == REC_BROKER ? loaders[list[i]->type](&l, list[i]) : bad("no broker");
	if (e >= 0 && !l.found) /* its writer was killed before it had begun */
		e = bad("it is empty");
	if (e >= 0)
		e = settle(&l);
	if (e >= 0)
		keep_broker(b); /* numbers were skipped: not those again */
	free(list);
	free(l.channels);
	return e < 0 ? e : 0;
}
