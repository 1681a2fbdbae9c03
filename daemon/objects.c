/* SPDX-License-Identifier: Apache-2.0 */
/* What clients hold (publishers, subscriptions, looks, shares, watches), and what they may. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/base.h"
#include "snapshot.h"

struct object *object_new(struct session *s, const struct leat__in *in, enum kind kind, struct channel *ch)
{
	struct object *o = calloc(1, sizeof(*o));

	if (!o) {
		if (ch)
			registry_settle(&s->b->reg, ch);
		leat__say(-ENOMEM, "the broker has no memory");
		return NULL;
	}
	/* Not what a client may have got from the broker before us. */
	o->id = (s->b->instance << 32) + ++s->next_object;
	o->made_by = in->head.serial;
	o->kind = kind;
	o->channel = ch;
	o->next = s->objects;
	s->objects = o;
	return o;
}

struct object *object_made(const struct session *s, const struct leat__in *in, enum kind kind)
{
	if (!s->done || in->head.serial != s->done)
		return NULL;
	for (struct object *o = s->objects; o; o = o->next)
		if (o->made_by == s->done && o->kind == kind)
			return o;
	return NULL;
}

int object_undo(struct session *s, struct channel *ch, int e)
{
	struct object *o = s->objects;

	s->objects = o->next;
	free(o);
	if (ch)
		registry_settle(&s->b->reg, ch);
	return e;
}

void object_end(struct session *s, struct object *o)
{
	struct registry *reg = &s->b->reg;
	struct object **at = &s->objects;

	while (*at != o)
		at = &(*at)->next;
	*at = o->next;
	if (o->channel)
		store_touch(reg->store, o->channel->key);
	store_del(reg->store, REC_OBJECT, s->owner.client, o->id);
	if (o->kind == PUBLISHER)
		ring_end(reg, o->ring, leat__now());
	else if (o->kind == SUBSCRIBER)
		slot_free(reg, o->channel, o->slot);
	else if (o->kind == LOOKER)
		o->channel->looks--;
	else if (o->kind == SHARER)
		share_end(reg, o->share);
	else {
		changes_watch(reg, -1);
		quota_give(reg->quotas, &s->owner, LEAT__Q_WATCHES, 0, 0);
	}
	if (o->channel)
		registry_settle(reg, o->channel);
	free(o->prefix);
	free(o);
}

struct object *object_find(const struct session *s, uint64_t id, unsigned kinds)
{
	for (struct object *o = s->objects; o; o = o->next)
		if (o->id == id && (kinds & 1u << o->kind))
			return o;
	leat__fail(-ENOENT, "the broker knows no object %llu of this client", (unsigned long long)id);
	return NULL;
}

/* ---- who may ---- */

static struct person person_of(const struct session *s)
{
	/* A key may have gone since, or come back. */
	for (unsigned i = 0; i < s->n_tickets; i++)
		s->tickets[i].good = s->tickets[i].sealed && ticket_keys_have(s->b->keys, s->tickets[i].key);
	return (struct person){s->owner.uid, s->gid, s->groups, s->n_groups, s->tickets, s->n_tickets};
}

/* Of those who showed one. */
static const char *ticket_trouble(const struct person *who)
{
	for (unsigned i = 0; i < who->n_tickets; i++)
		if (!who->tickets[i].good)
			return who->tickets[i].sealed ? "; the key of a ticket that it showed is not in force any more"
						      : "; a ticket that it showed is none, or was not made with a key in force";
	for (unsigned i = 0; i < who->n_tickets; i++)
		if (ticket_now() >= who->tickets[i].expires)
			return "; a ticket that it showed has expired: ask for another";
	return who->n_tickets ? "; its tickets are not for that, or the policy takes none there" : "";
}

int session_may(const struct session *s, enum verb verb, const char *name)
{
	struct person who = person_of(s);

	if (!s->b->config || policy_may(s->b->config, geteuid(), &who, verb, name, NULL))
		return 0;
	return leat__fail(-EACCES, "uid %u may not %s %s: the administrator's 'leat policy explain uid:%u %s %s' says why%s",
			  (unsigned)who.uid, verb_name(verb), name, (unsigned)who.uid, verb_name(verb), name, ticket_trouble(&who));
}

int session_sees(const struct session *s, const char *name)
{
	struct person who = person_of(s);

	return !s->b->config || policy_sees(s->b->config, geteuid(), &who, name);
}

int session_rules(const struct session *s)
{
	return !s->b->config || s->owner.uid == 0 || s->owner.uid == geteuid();
}

