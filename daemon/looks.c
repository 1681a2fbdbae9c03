/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that only want to know: lists, who is there, what is shared; and watching, where the answer waits until
 * there is news.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/base.h"
#include "snapshot.h"

/* ---- lists ---- */

/* Names that one request looks at: whoever may not see them shall not have us look at all there are. */
enum { LOOKS_MOST = 256 };

/* Is @name after @after, and does it begin with @prefix? */
static int is_listed(const char *name, const char *after, const char *prefix)
{
	return strcmp(name, after) > 0 && !strncmp(name, prefix, strlen(prefix));
}

/* The first of @n channels, in order, that may be listed. */
static int first_after(struct channel *const *all, int n, const char *after, const char *prefix)
{
	int low = 0;

	while (low < n) {
		int mid = low + (n - low) / 2;

		if (strcmp(all[mid]->name, after) <= 0 || strcmp(all[mid]->name, prefix) < 0)
			low = mid + 1;
		else
			n = mid;
	}
	return low;
}

/* A page of a list of names, of those that begin with @prefix. */
struct page {
	char after[LEAT__NAME_MAX + 1], prefix[LEAT__NAME_MAX + 1]; /* @after: the last one that the client has */
	const char *from; /* it has all that it may see up to here */
	int looks;
};

/* Which list that is, of all that a client may be reading. */
static uint64_t list_of(const struct leat__in *in, const struct page *g)
{
	return leat__hash(g->after, strlen(g->after)) * 31 + leat__hash(g->prefix, strlen(g->prefix)) + in->head.type;
}

static void page_begin(const struct session *s, const struct leat__in *in, struct page *g)
{
	if (leat__wire_get_text(in, LEAT__T_NAME, g->after, sizeof(g->after)) < 0)
		g->after[0] = 0;
	if (leat__wire_get_text(in, LEAT__T_PREFIX, g->prefix, sizeof(g->prefix)) < 0)
		g->prefix[0] = 0;
	g->looks = 0;
	g->from = get_u32(in, LEAT__T_MORE) && s->list_at && s->list_of == list_of(in, g) ? s->list_at : g->after;
}

/* Is there room for one more name, of @size bytes with its facts, and time to look whether it may be seen? The first has both. */
static int page_has_room(struct page *g, const struct reply *r, size_t size)
{
	return g->looks++ < LOOKS_MOST && leat__wire_fits(&r->out, size + 16); /* and for the word that says there is more */
}

/*
 * It goes on after @name, of which the client, who may not see it, is not told: it names the last one that it got, and
 * that it wants more.
 */
static int page_end(struct session *s, const struct leat__in *in, const struct page *g, const char *name, struct reply *r)
{
	char *at = strdup(name);

	free(s->list_at); /* which g->from may be */
	s->list_at = at;
	s->list_of = list_of(in, g);
	leat__wire_u32(&r->out, LEAT__T_MORE, 1);
	return at ? 0 : leat__say(-ENOMEM, "the broker has no memory for a long list");
}

int do_list(struct session *s, struct leat__in *in, struct leat__packet *p, struct reply *r)
{
	struct channel *const *all;
	int n = registry_sorted(&s->b->reg, &all);
	struct page g;

	(void)p;
	if (n < 0)
		return n;
	page_begin(s, in, &g);
	for (int i = first_after(all, n, g.from, g.prefix); i < n && is_listed(all[i]->name, g.from, g.prefix); i++) {
		struct {
			struct leat__wire_channel facts;
			char name[LEAT__NAME_MAX + 1];
		} one;
		size_t len = strlen(all[i]->name);

		if (!page_has_room(&g, r, sizeof(one.facts) + len))
			return page_end(s, in, &g, all[i - 1]->name, r);
		if (!session_sees(s, all[i]->name))
			continue;
		one.facts = channel_facts(all[i]);
		memcpy(one.name, all[i]->name, len);
		leat__wire_bytes(&r->out, LEAT__T_CHANNEL, &one, sizeof(one.facts) + len);
		strcpy(g.after, all[i]->name);
	}
	return 0;
}

static struct leat__wire_peer peer(const struct owner *o, uint64_t id, uint32_t role,
				   uint32_t alive)
{
	struct leat__wire_peer w = {id, o->pid, o->uid, role, alive, ""};

	memcpy(w.program, o->program, sizeof(w.program));
	return w;
}

/* Peers are numbered: rings first, then slots; the request says from which number. */
int do_peers(struct session *s, struct leat__in *in, struct leat__packet *p,
		    struct reply *r)
{
	struct object *o = object_find(s, in->head.object, OF_CHANNELS);
	uint32_t from = get_u32(in, LEAT__T_MORE), n = 0;
	const struct channel *ch;

	(void)p;
	if (!o)
		return -ENOENT;
	ch = o->channel;
	for (struct ring *ring = ch->rings; ring; ring = ring->next, n++) {
		struct leat__wire_peer w =
			peer(&ring->owner, ring->id, 1, ring->state == LEAT__LIVE);

		if (n < from)
			continue;
		if (!leat__wire_fits(&r->out, sizeof(w) + 16))
			goto more;
		leat__wire_bytes(&r->out, LEAT__T_PEER, &w, sizeof(w));
	}
	for (uint32_t i = 0; i < ch->n_slots; i++, n++) {
		struct leat__wire_peer w;

		static const struct owner nobody;

		if (n < from || !ch->slots[i].mode)
			continue;
		w = peer(ch->slots[i].owner ? ch->slots[i].owner : &nobody, i, ch->slots[i].mode + 1,
			 ch->slots[i].owner || ch->slots[i].mode == LEAT__GROUP);
		if (ch->slots[i].mode == LEAT__GROUP)
			memcpy(w.program, ch->slots[i].name, sizeof(w.program) - 1);
		if (!leat__wire_fits(&r->out, sizeof(w) + 16))
			goto more;
		leat__wire_bytes(&r->out, LEAT__T_PEER, &w, sizeof(w));
	}
	return 0;
more:
	leat__wire_u32(&r->out, LEAT__T_MORE, n);
	return 0;
}

static struct leat__wire_who facts_of(const struct session *s)
{
	struct leat__wire_who w = {.client = s->owner.client, .pid = s->owner.pid, .uid = s->owner.uid};

	memcpy(w.program, s->owner.program, sizeof(w.program));
	for (const struct object *o = s->objects; o; o = o->next) {
		w.publishers += o->kind == PUBLISHER;
		w.subscribers += o->kind == SUBSCRIBER;
		w.shares += o->kind == SHARER;
		w.watches += o->kind == WATCHER;
		w.bytes += o->kind == PUBLISHER ? o->ring->g.total : o->kind == SHARER ? o->share->size : 0;
	}
	return w;
}

/* Who has greeted us, in order of numbers. */
int do_who(struct session *s, struct leat__in *in, struct leat__packet *p, struct reply *r)
{
	uint64_t after = get_u64(in, LEAT__T_CLIENT);

	(void)p;
	for (;;) {
		const struct session *next = NULL;
		struct leat__wire_who w;

		for (const struct session *c = s->b->sessions; c; c = c->next)
			if (c->greeted && !c->kicked && !c->gone && (c->owner.uid == s->owner.uid || session_rules(s)) && c->owner.client > after && (!next || c->owner.client < next->owner.client))
				next = c;
		if (!next)
			return 0;
		if (!leat__wire_fits(&r->out, sizeof(w) + 16)) {
			leat__wire_u32(&r->out, LEAT__T_MORE, 1);
			return 0;
		}
		w = facts_of(next);
		leat__wire_bytes(&r->out, LEAT__T_WHO, &w, sizeof(w));
		after = w.client;
	}
}

/* Everybody's for who rules; else one's own. */
int do_quota(struct session *s, struct leat__in *in, struct leat__packet *p, struct reply *r)
{
	uint64_t from = session_rules(s) ? get_u32(in, LEAT__T_UID) : s->owner.uid;
	struct leat__wire_quota w;

	(void)p;
	if (session_rules(s) && leat__wire_get(in, LEAT__T_UID, &w.uid, sizeof(w.uid)) == 0)
		from++;
	while (quota_next(s->b->reg.quotas, from, &w) == 0 && (session_rules(s) || w.uid == s->owner.uid)) {
		if (!leat__wire_fits(&r->out, sizeof(w) + 16)) {
			leat__wire_u32(&r->out, LEAT__T_MORE, 1);
			return 0;
		}
		leat__wire_bytes(&r->out, LEAT__T_QUOTA, &w, sizeof(w));
		from = (uint64_t)w.uid + 1;
	}
	return 0;
}

int do_find(struct session *s, struct leat__in *in, struct leat__packet *p, struct reply *r)
{
	char name[LEAT__NAME_MAX + 1];
	struct leat__wire_share w;
	struct share *found;
	int e = leat__wire_get_text(in, LEAT__T_NAME, name, sizeof(name));

	(void)p;
	if (e < 0)
		return e;
	/* Who may not hears the same whether it is there or not. */
	if (session_may(s, V_PUBLISH, name) < 0 && session_may(s, V_SUBSCRIBE, name) < 0 && session_may(s, V_OBSERVE, name) < 0)
		return -EACCES;
	found = share_find(&s->b->reg, name);
	if (!found)
		return -ENOENT;
	if (found->writable && session_may(s, V_PUBLISH, name) < 0)
		return -EACCES;
	w = share_facts(found);
	leat__wire_bytes(&r->out, LEAT__T_SHARE, &w, sizeof(w));
	r->fds[r->n_fds++] = found->fd;
	return 0;
}

int do_shares(struct session *s, struct leat__in *in, struct leat__packet *p, struct reply *r)
{
	const struct share *last = NULL;
	struct page g;

	(void)p;
	page_begin(s, in, &g);
	for (const struct share *f = s->b->reg.shares; f; f = f->next) {
		struct {
			struct leat__wire_share facts;
			char name[LEAT__NAME_MAX + 1];
		} one;
		size_t len = strlen(f->name);

		if (!is_listed(f->name, g.from, g.prefix))
			continue;
		if (!page_has_room(&g, r, sizeof(one.facts) + len))
			return page_end(s, in, &g, last->name, r);
		last = f;
		if (!session_sees(s, f->name))
			continue;
		one.facts = share_facts(f);
		memcpy(one.name, f->name, len);
		leat__wire_bytes(&r->out, LEAT__T_SHARE, &one, sizeof(one.facts) + len);
		strcpy(g.after, f->name);
	}
	return 0;
}

/* ---- watching ---- */

static int watch_new(struct session *s, struct leat__in *in, struct object **ret)
{
	char prefix[LEAT__NAME_MAX + 1];
	struct object *o;
	int e = leat__wire_get_text(in, LEAT__T_PREFIX, prefix, sizeof(prefix));

	if (e < 0)
		return e;
	e = quota_take(s->b->reg.quotas, &s->owner, LEAT__Q_WATCHES, 0, 0);
	if (e < 0)
		return e;
	e = changes_watch(&s->b->reg, 1);
	if (e < 0) {
		quota_give(s->b->reg.quotas, &s->owner, LEAT__Q_WATCHES, 0, 0);
		return e;
	}
	o = object_new(s, in, WATCHER, NULL);
	if (o)
		o->prefix = strdup(prefix);
	if (!o || !o->prefix) {
		changes_watch(&s->b->reg, -1);
		quota_give(s->b->reg.quotas, &s->owner, LEAT__Q_WATCHES, 0, 0);
		return o ? object_undo(s, NULL, leat__say(-ENOMEM, "the broker has no memory to watch")) : -ENOMEM;
	}
	o->since = s->b->reg.change;
	keep_object(s, o);
	*ret = o;
	return 0;
}

int do_watch(struct session *s, struct leat__in *in, struct leat__packet *p, struct reply *r)
{
	struct object *o = object_made(s, in, WATCHER);
	int e = o ? 0 : watch_new(s, in, &o);

	(void)p;
	if (e < 0 || !o)
		return e;
	r->out.head.object = o->id;
	leat__wire_u64(&r->out, LEAT__T_SINCE, o->since);
	return 0;
}

/* What is new for @o. 0 nothing is, yet. */
static int put_changes(const struct session *s, struct object *o, struct leat__out *out)
{
	const struct registry *reg = &s->b->reg;
	const struct change *c;
	int n = 0, e;

	while ((e = changes_next(reg, o->since, o->prefix, &c)) > 0) {
		size_t len = strlen(c->name);

		if (!session_sees(s, c->name)) {
			o->since = c->w.number;
			continue;
		}
		if (!leat__wire_fits(out, sizeof(c->w) + len + 32))
			break;
		leat__wire_bytes(out, LEAT__T_CHANGE, c, sizeof(c->w) + len);
		o->since = c->w.number;
		n++;
	}
	if (!n && e == 0) {
		o->since = reg->change; /* the others are not ours */
		return 0;
	}
	if (e < 0) { /* it was too slow: let it look at everything anew */
		o->since = reg->change;
		n = 0;
	}
	leat__wire_u64(out, LEAT__T_SINCE, o->since);
	return 1;
}

int do_changes(struct session *s, struct leat__in *in, struct leat__packet *p, struct reply *r)
{
	struct object *o = object_find(s, in->head.object, 1u << WATCHER);

	(void)p;
	if (!o)
		return -ENOENT;
	if (leat__wire_get(in, LEAT__T_SINCE, &o->since, sizeof(o->since)) < 0)
		return leat__say(-EPROTO, "CHANGES says since which one");
	r->later = !put_changes(s, o, &r->out);
	o->waits = r->later ? in->head.serial : 0;
	keep_object(s, o);
	return 0;
}

static void tell(struct broker *b, struct session *s)
{
	uint64_t begun = broker_worked();

	for (struct object *o = s->objects; o; o = o->next) {
		struct leat__out out;

		if (o->kind != WATCHER || !o->waits || s->gone)
			continue;
		leat__wire_begin(&out, LEAT__OK, o->waits, o->id);
		if (!put_changes(s, o, &out))
			continue;
		leat__wire_end(&out, 0);
		if (session_answer(s, &out) < 0)
			return; /* and it is gone */
		o->waits = 0; /* now: who is killed before this counts answers twice */
		keep_object(s, o);
	}
	if (s->objects)
		quota_spend(b->reg.quotas, &s->owner, leat__now(), broker_worked() - begun);
}

void watchers_tell(struct broker *b)
{
	struct session *next;

	while (b->told != b->reg.change) { /* one that is thrown out changes something itself */
		b->told = b->reg.change;
		for (struct session *s = b->reg.watches ? b->sessions : NULL; s; s = next) {
			next = s->next;
			tell(b, s);
		}
		broker_commit(b);
	}
}
