/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients ask for; looks.c has those requests that only want to know. Called by session.c with well-formed messages. Nothing in one is believed before it is
 * checked here.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/base.h"
#include "log.h"
#include "mem/life.h"
#include "snapshot.h"

enum { PAGE_ROOM = 1024 }; /* bytes of a packet that a list of rings leaves for the rest: the facts of five rings */

/* ---- requests ---- */

uint32_t get_u32(const struct leat__in *in, unsigned tag)
{
	uint32_t v = 0;

	return leat__wire_get(in, tag, &v, sizeof(v)) == 0 ? v : 0;
}

uint64_t get_u64(const struct leat__in *in, unsigned tag)
{
	uint64_t v = 0;

	return leat__wire_get(in, tag, &v, sizeof(v)) == 0 ? v : 0;
}

/*
 * The client's life, for those who want to know of its death when there is no broker to tell: its byte of our
 * file, locked for a description that goes to it. And one of its own to look at others' with.
 */
static int give_life(const struct session *s, struct reply *r)
{
	int life = leat__reopen(s->b->lives, O_RDWR), look = life < 0 ? life : leat__reopen(s->b->lives, O_RDONLY);
	int e;

	if (life == -ENOENT) /* no /proc here: it has to do without */
		return 0;
	e = look < 0 ? leat__fail(look, "the broker cannot give out a life: %s", strerror(-look))
		     : leat__life_lock(life, s->owner.client);
	if (e < 0) {
		if (life >= 0)
			close(life);
		if (look >= 0)
			close(look);
		return e;
	}
	r->fds[r->n_fds++] = life;
	r->fds[r->n_fds++] = look;
	r->n_owned = r->n_fds;
	return 0;
}

/* A client that has lost its socket, not its life, comes again: what it held is its own. 1 that was so. */
static int resume(struct session *s, uint64_t client, uint64_t instance)
{
	struct session *old = session_find(s->b, client);
	const struct owner mine = s->owner;

	if (old == s && instance == s->b->instance)
		return 1; /* when an earlier worker did this */
	if (!client || instance != s->b->instance || !old || old->kicked || old->gone || old->owner.pid != s->owner.pid ||
	    old->owner.uid != s->owner.uid)
		return 0;
	/* Numbers of processes are used again: this one is dead, and we have not been told yet. */
	if (old->pidfd >= 0 && poll(&(struct pollfd){old->pidfd, POLLIN, 0}, 1, 0) != 0)
		return 0;
	s->owner = old->owner;
	old->owner = mine; /* and goes with it */
	s->objects = old->objects;
	s->next_object = old->next_object;
	old->objects = NULL;
	for (struct object *o = s->objects; o; o = o->next) {
		if (o->kind == SUBSCRIBER)
			o->channel->slots[o->slot].owner = &s->owner;
		o->waits = 0; /* what it asked on the other socket it asks again */
	}
	keep_session(s); /* before the next commit, which is in there */
	session_end(old);
	return 1;
}

/* The tickets it shows. One that is none is no reason to refuse it: whoever lists no tickets need not care. */
static void take_tickets(struct session *s, const struct leat__in *in)
{
	const unsigned char *at = NULL;
	struct ticket *list = NULL;
	const char *why;
	unsigned n = 0;
	size_t size;
	int e;

	while (n < TICKETS_MOST && (at = leat__wire_next(in, LEAT__T_TICKET, at, &size))) {
		struct ticket *more = realloc(list, (n + 1) * sizeof(*list));

		if (!more)
			break;
		list = more;
		e = ticket_read(s->b->keys, (const char *)at, size, &list[n], &why);
		if (e < 0 && s->b->keys)
			log_client(LOG_IS_WARNING, "ticket-refused", &s->owner, why);
		else if (e == 0 && s->b->verbose)
			log_event(LOG_IS_INFO, "ticket", "client=%llu key=%016llx id=%016llx prefix=\"%s\"",
				  (unsigned long long)s->owner.client, (unsigned long long)list[n].key,
				  (unsigned long long)list[n].id, list[n].prefix);
		n++;
	}
	free(s->tickets);
	s->tickets = list;
	s->n_tickets = n;
}

static int do_hello(struct session *s, struct leat__in *in, struct leat__packet *p,
		    struct reply *r)
{
	uint32_t min = get_u32(in, LEAT__T_VERSION_MIN), max = get_u32(in, LEAT__T_VERSION_MAX);
	int e;

	(void)p;
	if (s->greeted && in->head.serial != s->done)
		return leat__say(-EPROTO, "a second HELLO");
	if (!s->b->config && s->owner.uid != geteuid() && s->owner.uid != 0)
		return leat__fail(-EACCES, "uid %u may not use this domain: it belongs to uid %u",
				  (unsigned)s->owner.uid, (unsigned)geteuid());
	for (const struct session *k = s->b->sessions; k; k = k->next)
		/* 0: a process of a namespace that we do not see into */
		if (k->kicked && k->owner.pid == s->owner.pid && (k->owner.pid || k->owner.uid == s->owner.uid))
			return leat__fail(-EACCES, "%s (pid %d) was put out (leat kick): start the program again", k->owner.program,
					  (int)k->owner.pid);
	if (min > LEAT__WIRE_MAX || max < LEAT__WIRE_MIN)
		return leat__fail(-EPROTO, "the client speaks wire versions %u to %u, this broker %d to %d: "
					   "upgrade the older of the two",
				  min, max, LEAT__WIRE_MIN, LEAT__WIRE_MAX);
	if (leat__wire_get_text(in, LEAT__T_PROGRAM, s->owner.program, sizeof(s->owner.program)) < 0)
		strcpy(s->owner.program, "?");
	/* Its life is the one it has. */
	e = resume(s, get_u64(in, LEAT__T_CLIENT), get_u64(in, LEAT__T_INSTANCE)) ? 0 : give_life(s, r);
	if (e < 0)
		return e;
	take_tickets(s, in);
	s->b->n_strange -= (uint32_t)!s->greeted;
	s->greeted = 1;
	keep_session(s);
	quota_named(s->b->reg.quotas, &s->owner);
	leat__wire_u32(&r->out, LEAT__T_VERSION_MAX, max < LEAT__WIRE_MAX ? max : LEAT__WIRE_MAX);
	leat__wire_u64(&r->out, LEAT__T_CLIENT, s->owner.client);
	leat__wire_u64(&r->out, LEAT__T_INSTANCE, s->b->instance);
	return 0;
}

static int do_ping(struct session *s, struct leat__in *in, struct leat__packet *p,
		   struct reply *r)
{
	(void)s;
	(void)in;
	(void)p;
	(void)r;
	return 0;
}

/* Its name, which this client may use for one of the @verbs (1 << verb). */
static int get_name(const struct session *s, const struct leat__in *in, unsigned verbs, char *name)
{
	int e = leat__wire_get_text(in, LEAT__T_NAME, name, LEAT__NAME_MAX + 1);

	if (e == 0)
		e = leat__name_check(name);
	if (e < 0)
		return e;
	for (unsigned v = VERBS; v-- > 0;)
		if (verbs & 1u << v) {
			e = session_may(s, v, name);
			if (e == 0)
				break;
		}
	return e;
}

static int get_channel(struct session *s, struct leat__in *in, unsigned verbs, int make, struct channel **ret)
{
	char name[LEAT__NAME_MAX + 1];
	int e = get_name(s, in, verbs, name);

	if (e == 0)
		e = registry_channel(&s->b->reg, name, make && session_may(s, V_CREATE, name) == 0 ? &s->owner : NULL,
				     get_u32(in, LEAT__T_MAX_RINGS), get_u32(in, LEAT__T_MAX_SLOTS), ret);
	if (e == -ENOENT && make) {
		e = session_may(s, V_CREATE, name);
		return e < 0 ? leat__fail(-ENOENT, "there is no channel %s, and uid %u may not create it", name,
					  (unsigned)s->owner.uid) : -ENOENT;
	}
	return e;
}

static void put_channel(struct reply *r, const struct channel *ch)
{
	leat__wire_geometry(&r->out, LEAT__T_CONTROL, &ch->g);
	r->fds[r->n_fds++] = leat_region_fd(ch->control);
}

/* Those of the work queues that a ring is brought from another broker with. */
static int get_groups(struct session *s, struct leat__in *in, struct channel *ch)
{
	const unsigned char *at = NULL;
	char name[LEAT__GROUP_NAME + 1];
	uint32_t slot;
	size_t size;
	int e = 0;

	while (e == 0 && (at = leat__wire_next(in, LEAT__T_GROUP, at, &size))) {
		if (size > LEAT__GROUP_NAME)
			return leat__say(-EPROTO, "a group's name is too long");
		memcpy(name, at, size);
		name[size] = 0;
		e = leat__group_check(name);
		if (e == 0)
			e = group_get(&s->b->reg, ch, name, &slot);
	}
	return e;
}

static int pub_new(struct session *s, struct leat__in *in, struct leat__packet *p, struct object **ret)
{
	struct leat__geometry g;
	struct channel *ch;
	struct object *o;
	struct ring_file file;
	uint64_t origin = get_u64(in, LEAT__T_ORIGIN);
	int e = leat__wire_get_geometry(in, LEAT__T_GEOMETRY, &g);

	if (e < 0)
		return e;
	if (p->n_fds != 1)
		return leat__say(-EPROTO, "PUB_OPEN comes with the descriptor of its ring");
	e = ring_verify(&s->b->reg, p->fds[0], &g, &file);
	if (e == 0)
		e = get_channel(s, in, 1u << V_PUBLISH, 1, &ch);
	if (e < 0)
		return e;
	o = object_new(s, in, PUBLISHER, ch);
	if (!o)
		return -ENOMEM;
	e = get_groups(s, in, ch);
	if (e == 0)
		e = ring_add(&s->b->reg, ch, &file, &g, &s->owner, origin, &o->ring);
	if (e < 0)
		return object_undo(s, ch, e);
	leat__packet_take(p, 0);
	keep_object(s, o);
	*ret = o;
	return 0;
}

static int do_pub_open(struct session *s, struct leat__in *in, struct leat__packet *p,
		       struct reply *r)
{
	struct object *o = object_made(s, in, PUBLISHER);
	int e = o ? 0 : pub_new(s, in, p, &o);

	if (e < 0 || !o)
		return e;
	r->out.head.object = o->id;
	leat__wire_u64(&r->out, LEAT__T_RING_ID, o->ring->id);
	leat__wire_u32(&r->out, LEAT__T_ENTRY, o->ring->entry);
	put_channel(r, o->channel);
	return 0;
}

static void put_ring(struct reply *r, const struct ring *ring)
{
	struct leat__wire_brought w = {.id = ring->id, .origin = ring->origin, .client = ring->owner.client,
				       .pid = ring->owner.pid, .uid = ring->owner.uid};

	leat__wire_brought(&r->out, &w, &ring->g);
	r->fds[r->n_fds++] = ring->fd;
}

/* A page of those after @after; with room for what else an answer holds. */
static void put_rings(struct reply *r, const struct channel *ch, uint64_t after)
{
	leat__wire_u32(&r->out, LEAT__T_EPOCH, ch->epoch);
	for (struct ring *ring = ch->rings; ring; ring = ring->next) {
		struct leat__wire_ring w = {ring->id, ring->entry, ring->state};

		if (ring->id <= after)
			continue;
		if (!leat__wire_fits(&r->out, PAGE_ROOM)) {
			leat__wire_u64(&r->out, LEAT__T_AFTER, after);
			return;
		}
		leat__wire_bytes(&r->out, LEAT__T_RING, &w, sizeof(w));
		after = ring->id;
	}
}

/* Those after ring @after that are likely to be asked for next come along at once, as far as they fit. */
static void bring_rings(struct reply *r, const struct channel *ch, uint64_t after)
{
	for (struct ring *ring = ch->rings; ring && r->n_fds < LEAT__FDS_MAX; ring = ring->next)
		if (ring->id > after && ring->entry != LEAT__NO_ENTRY &&
		    leat__wire_fits(&r->out, sizeof(struct leat__wire_brought) + 16))
			put_ring(r, ring);
}

static int sub_new(struct session *s, struct leat__in *in, uint32_t mode, struct object **ret)
{
	char name[LEAT__GROUP_NAME + 1];
	uint32_t group = 0;
	struct channel *ch;
	struct object *o;
	int e = 0;

	if (mode == LEAT__WORKER)
		e = leat__wire_get_text(in, LEAT__T_GROUP, name, sizeof(name));
	if (e == 0 && mode == LEAT__WORKER)
		e = leat__group_check(name);
	if (e < 0)
		return e;
	/* Who observes holds nobody up. */
	e = get_channel(s, in, 1u << V_SUBSCRIBE | (mode == LEAT__OBSERVING) << V_OBSERVE, 1, &ch);
	if (e < 0)
		return e;
	o = object_new(s, in, SUBSCRIBER, ch);
	if (!o)
		return -ENOMEM;
	if (mode == LEAT__WORKER)
		e = group_get(&s->b->reg, ch, name, &group);
	if (e == 0)
		e = slot_grant(&s->b->reg, ch, mode, &s->owner, group, &o->slot);
	if (e < 0)
		return object_undo(s, ch, e);
	o->since = s->b->reg.next_ring;
	keep_object(s, o);
	*ret = o;
	return 0;
}

static int do_sub_open(struct session *s, struct leat__in *in, struct leat__packet *p,
		       struct reply *r)
{
	uint32_t mode = get_u32(in, LEAT__T_MODE);
	struct object *o = object_made(s, in, SUBSCRIBER);
	const struct slot *slot;
	int e;

	(void)p;
	if (mode != LEAT__WAITING && mode != LEAT__OBSERVING && mode != LEAT__WORKER)
		return leat__fail(-EPROTO, "subscriber mode %u is unknown", mode);
	e = o ? 0 : sub_new(s, in, mode, &o);
	if (e < 0 || !o)
		return e;
	slot = &o->channel->slots[o->slot];
	r->out.head.object = o->id;
	leat__wire_u32(&r->out, LEAT__T_SLOT, o->slot);
	leat__wire_u32(&r->out, LEAT__T_GRANT, slot->grant);
	if (slot->mode == LEAT__WORKER)
		leat__wire_u32(&r->out, LEAT__T_GROUP_SLOT, slot->group);
	leat__wire_u64(&r->out, LEAT__T_RING_ID, o->since);
	put_rings(r, o->channel, 0);
	put_channel(r, o->channel);
	bring_rings(r, o->channel, 0);
	return 0;
}

static int do_look(struct session *s, struct leat__in *in, struct leat__packet *p,
		   struct reply *r)
{
	struct object *o = object_made(s, in, LOOKER);
	struct leat__wire_channel facts;
	struct channel *ch;
	int e;

	(void)p;
	if (!o) {
		/* The control region comes along, which whoever has it can write to. */
		e = get_channel(s, in, 1u << V_PUBLISH | 1u << V_SUBSCRIBE | 1u << V_OBSERVE, 0, &ch);
		if (e < 0)
			return e;
		o = object_new(s, in, LOOKER, ch);
		if (!o)
			return -ENOMEM;
		ch->looks++;
		keep_object(s, o);
	}
	facts = channel_facts(o->channel);
	r->out.head.object = o->id;
	leat__wire_bytes(&r->out, LEAT__T_CHANNEL, &facts, sizeof(facts));
	put_rings(r, o->channel, 0);
	put_channel(r, o->channel);
	return 0;
}

static int do_rings(struct session *s, struct leat__in *in, struct leat__packet *p,
		    struct reply *r)
{
	struct object *o = object_find(s, in->head.object, OF_CHANNELS);
	uint64_t after;

	(void)p;
	if (!o)
		return -ENOENT;
	if (o->kind == SUBSCRIBER)
		registry_tidy(&s->b->reg, o->channel);
	put_rings(r, o->channel, get_u64(in, LEAT__T_AFTER));
	if (leat__wire_get(in, LEAT__T_RING_ID, &after, sizeof(after)) == 0)
		bring_rings(r, o->channel, after);
	return 0;
}

static int do_ring(struct session *s, struct leat__in *in, struct leat__packet *p,
		   struct reply *r)
{
	struct object *o = object_find(s, in->head.object, OF_CHANNELS);
	struct ring *ring;
	uint64_t id;
	int e;

	(void)p;
	if (!o)
		return -ENOENT;
	e = leat__wire_get(in, LEAT__T_RING_ID, &id, sizeof(id));
	if (e < 0)
		return e;
	ring = ring_find(o->channel, id);
	if (!ring)
		return leat__fail(-ENOENT, "ring %llu is no more", (unsigned long long)id);
	leat__wire_u32(&r->out, LEAT__T_ENTRY, ring->entry);
	leat__wire_u32(&r->out, LEAT__T_STATE, ring->state);
	put_ring(r, ring);
	return 0;
}

static int do_close(struct session *s, struct leat__in *in, struct leat__packet *p,
		    struct reply *r)
{
	struct object *o = object_find(s, in->head.object, ~0u);

	(void)p;
	(void)r;
	if (!o)
		return in->head.serial == s->done ? 0 : -ENOENT;
	object_end(s, o);
	return 0;
}

static int do_remove(struct session *s, struct leat__in *in, struct leat__packet *p,
		     struct reply *r)
{
	struct channel *ch;
	int e = get_channel(s, in, 1u << V_ADMINISTER, 0, &ch);

	(void)p;
	(void)r;
	if (e < 0)
		return in->head.serial == s->done ? 0 : e;
	registry_remove(&s->b->reg, ch);
	return 0;
}

static int share_new(struct session *s, struct leat__in *in, struct leat__packet *p, struct object **ret)
{
	char name[LEAT__NAME_MAX + 1];
	struct leat__wire_share w;
	struct object *o;
	int e = get_name(s, in, 1u << V_PUBLISH, name);

	if (e == 0)
		e = leat__wire_get(in, LEAT__T_SHARE, &w, sizeof(w));
	if (e < 0)
		return e;
	if (p->n_fds != 1)
		return leat__say(-EPROTO, "SHARE comes with the descriptor of its region");
	o = object_new(s, in, SHARER, NULL);
	if (!o)
		return -ENOMEM;
	e = share_add(&s->b->reg, name, p->fds[0], &w, &s->owner, &o->share);
	if (e < 0)
		return object_undo(s, NULL, e);
	leat__packet_take(p, 0);
	keep_object(s, o);
	*ret = o;
	return 0;
}

static int do_share(struct session *s, struct leat__in *in, struct leat__packet *p, struct reply *r)
{
	struct object *o = object_made(s, in, SHARER);
	struct leat__wire_share w;
	int e = o ? 0 : share_new(s, in, p, &o);

	if (e < 0 || !o)
		return e;
	r->out.head.object = o->id;
	w = share_facts(o->share); /* so that who has given up knows what to close */
	leat__wire_bytes(&r->out, LEAT__T_SHARE, &w, sizeof(w));
	return 0;
}

/* It is gone for the broker, and as long as its process lives it is not let in again. */
static int do_kick(struct session *s, struct leat__in *in, struct leat__packet *p, struct reply *r)
{
	uint64_t client = get_u64(in, LEAT__T_CLIENT);
	struct session *whom = session_find(s->b, client);

	(void)p;
	(void)r;
	if (!session_rules(s))
		return leat__fail(-EACCES, "uid %u may not put clients out: root and the broker's own user may",
				  (unsigned)s->owner.uid);
	if (!whom || !whom->greeted || whom->kicked || whom->gone)
		return in->head.serial == s->done ? 0 : leat__fail(-ENOENT, "there is no client %llu", (unsigned long long)client);
	if (whom == s)
		return leat__say(-EINVAL, "a client does not put itself out: close what is open");
	session_kick(whom);
	return 0;
}

static do_fn *const requests[] = {
	[LEAT__HELLO] = do_hello,       [LEAT__PING] = do_ping,   [LEAT__PUB_OPEN] = do_pub_open,
	[LEAT__SUB_OPEN] = do_sub_open, [LEAT__RINGS] = do_rings, [LEAT__RING] = do_ring,
	[LEAT__CLOSE] = do_close,       [LEAT__LIST] = do_list,   [LEAT__LOOK] = do_look,
	[LEAT__PEERS] = do_peers,       [LEAT__REMOVE] = do_remove,
	[LEAT__SHARE] = do_share,       [LEAT__FIND] = do_find,   [LEAT__SHARES] = do_shares,
	[LEAT__WATCH] = do_watch,       [LEAT__CHANGES] = do_changes, [LEAT__WHO] = do_who,
	[LEAT__QUOTA] = do_quota,       [LEAT__KICK] = do_kick,
};

int session_request(struct session *s, struct leat__in *in, struct leat__packet *p, struct reply *r)
{
	if (in->head.type >= sizeof(requests) / sizeof(requests[0]) || !requests[in->head.type])
		return 1; /* nobody speaks so */
	return requests[in->head.type](s, in, p, r);
}
