/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients: requests on the server's channel, replies on one of our own. A call is under way until its reply comes or
 * the server is gone; one whose time is over has failed, but goes on counting, so that replies always find room.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "base/base.h"
#include "channel/channel.h"
#include "channel/rpc.h"

#define AGAIN_NS   UINT64_C(10000000)  /* greet again if nobody answers, */
#define AGAIN_MOST UINT64_C(100000000) /* more and more seldom */
#define GRACE_NS   INT64_C(1000000000) /* a server that holds up the others' requests, read or not, so long is left out */

static void let_go(struct leat_client *c)
{
	if (c->held)
		leat_release(c->s);
	c->held = 0;
}

/* ---- the server ---- */

static void greet(struct leat_client *c, uint64_t now)
{
	struct leat__call_head h = {.kind = LEAT__CONNECT};
	struct leat__connect k = {.max_calls = c->max_calls};
	char text[sizeof(h) + sizeof(k) + LEAT__NAME_MAX];
	size_t n = strlen(c->reply);

	memcpy(text, &h, sizeof(h));
	memcpy(text + sizeof(h), &k, sizeof(k));
	memcpy(text + sizeof(h) + sizeof(k), c->reply, n);
	leat_send(c->p, text, sizeof(h) + sizeof(k) + n, 0); /* no room: the next time */
	c->again_ns = c->again_ns ? leat__min(c->again_ns * 2, AGAIN_MOST) : AGAIN_NS;
	c->greet_at = now + c->again_ns;
}

static void take_welcome(struct leat_client *c, const struct leat__reply_head *h, const char *body, uint64_t size,
			 uint64_t publisher)
{
	struct leat__welcome w;

	if (c->server || size != sizeof(w) || !h->server)
		return;
	memcpy(&w, body, sizeof(w));
	c->server = h->server;
	c->publisher = publisher;
	c->link = h->link;
	c->granted = w.max_calls && w.max_calls < c->max_calls ? w.max_calls : c->max_calls;
	c->again_ns = 0;
}

static void forget(struct leat_client *c, struct leat__pending *call)
{
	*call = (struct leat__pending){0};
	c->used--;
}

/* Is our server gone, with all that it said read? Then its calls are to fail, one by one. */
static void look_for_server(struct leat_client *c)
{
	if (!c->server || leat__sub_reads(c->s, c->publisher))
		return;
	c->server = 0;
	c->greet_at = 0;
	for (uint32_t i = 0; i <= c->mask; i++)
		if (c->calls[i].over)
			forget(c, &c->calls[i]);
}

/* ---- replies ---- */

/* The next message of ours: 1 a call has ended (@ret), 0 something else; errors of leat_peek(). */
static int next(struct leat_client *c, struct leat_answer *ret, int64_t timeout_ns)
{
	struct leat__reply_head h;
	struct leat_info info;
	struct leat__pending *call;
	const void *data;
	int e = leat_peek(c->s, &data, &info, timeout_ns);

	if (e < 0)
		return e;
	c->held = 1;
	if (info.size < sizeof(h))
		return let_go(c), 0;
	memcpy(&h, data, sizeof(h));
	info.size -= sizeof(h);
	data = (const char *)data + sizeof(h);
	call = &c->calls[h.call & c->mask];
	if (!h.call) {
		take_welcome(c, &h, data, info.size, info.publisher);
	} else if (c->server == h.server && c->publisher == info.publisher && call->number == h.call) {
		int over = call->over;

		forget(c, call);
		if (!over) {
			*ret = (struct leat_answer){h.call, data, info.size, h.error > 0 ? -EPROTO : h.error};
			c->waited--;
			return 1;
		}
	}
	return let_go(c), 0;
}

/* When the next call's time is over. */
static uint64_t soonest(const struct leat_client *c)
{
	uint64_t least = LEAT__NEVER;

	for (uint32_t i = 0; i <= c->mask; i++)
		if (c->calls[i].number && !c->calls[i].over && c->calls[i].deadline < least)
			least = c->calls[i].deadline;
	return least;
}

/* A call that will not be answered, or was not in time: 1 (@ret). */
static int failed(struct leat_client *c, struct leat_answer *ret, uint64_t now)
{
	for (uint32_t i = 0; i <= c->mask && c->waited; i++) {
		struct leat__pending *call = &c->calls[i];

		if (!call->number || call->over || (c->server && now < call->deadline))
			continue;
		*ret = (struct leat_answer){.call = call->number, .error = c->server ? -ETIMEDOUT : -EOWNERDEAD};
		c->waited--;
		if (c->server)
			call->over = 1;
		else
			forget(c, call);
		return 1;
	}
	return 0;
}

static int64_t time_left(uint64_t until, uint64_t now)
{
	return until == LEAT__NEVER ? -1 : until > now ? (int64_t)(until - now) : 0;
}

static int nothing_came(int e)
{
	return e == -EAGAIN || e == -ETIMEDOUT;
}

static int ring_ended(int e)
{
	return e == -ENODATA || e == -EBADMSG;
}

/* @left: what is left until the first thing that has a deadline, if the caller knows; else below -1. */
static int end_of_call(struct leat_client *c, struct leat_answer *ret, uint64_t deadline, int64_t left)
{
	int e, passed = 0;
	uint64_t now;

	for (;; left = -2) {
		if (!c->server && failed(c, ret, 0))
			return 0;
		e = next(c, ret, left >= -1 ? left : time_left(leat__min(deadline, soonest(c)), leat__now()));
		if (e > 0)
			return 0;
		if (ring_ended(e)) {
			look_for_server(c);
		} else if (nothing_came(e) || (e == 0 && ++passed % LEAT__PATIENCE == 0)) {
			now = leat__now();
			if (failed(c, ret, now))
				return 0;
			if (now >= deadline)
				return -ETIMEDOUT;
		} else if (e < 0) {
			return e;
		}
	}
}

/* ---- calls ---- */

static int need_server(struct leat_client *c, uint64_t deadline)
{
	struct leat_answer none;

	while (!c->server) {
		uint64_t now = leat__now();
		int e;

		if (now >= c->greet_at)
			greet(c, now);
		e = next(c, &none, time_left(leat__min(deadline, c->greet_at), now));
		if (e < 0 && !nothing_came(e) && !ring_ended(e))
			return e;
		if (!c->server && leat__now() >= deadline)
			return leat__say(-ETIMEDOUT, "call: no server has answered: is it running?");
	}
	return 0;
}

/* A free place among the calls; the next number is its. */
static struct leat__pending *place(struct leat_client *c)
{
	if (c->used >= c->granted) {
		leat__fail(-EAGAIN, "%u calls are under way: wait for one to end", c->used);
		return NULL;
	}
	do
		c->last++;
	while (c->calls[c->last & c->mask].number);
	return &c->calls[c->last & c->mask];
}

static int begin(struct leat_client *c, const void *data, size_t size, int64_t timeout_ns)
{
	struct leat__call_head h = {.kind = LEAT__CALL};
	struct leat__pending *call;
	uint64_t deadline = 0; /* nobody asks what time it is before he has to wait, or the request is gone */
	void *room = NULL;
	char *at;
	int e = 0;

	if (size > c->max_request)
		return leat__fail(-EMSGSIZE, "a request of %zu bytes: this client said %llu at most: set max_request", size,
				  (unsigned long long)c->max_request);
	look_for_server(c);
	if (!c->server) {
		deadline = leat__deadline(timeout_ns);
		e = need_server(c, deadline);
	}
	if (e < 0)
		return e;
	call = place(c);
	if (!call)
		return -EAGAIN;
	h.server = c->server;
	h.call = c->last;
	h.link = c->link;
	e = leat_claim(c->p, sizeof(h) + size, &room, 0);
	if (e == -EAGAIN && timeout_ns) {
		deadline = deadline ? deadline : leat__deadline(timeout_ns);
		e = leat_claim(c->p, sizeof(h) + size, &room, time_left(deadline, leat__now()));
	}
	if (e < 0)
		return e;
	at = room;
	memcpy(at, &h, sizeof(h));
	if (size)
		memcpy(at + sizeof(h), data, size);
	e = leat_commit(c->p, sizeof(h) + size, 0);
	if (e < 0)
		return e;
	*call = (struct leat__pending){h.call, deadline ? deadline : leat__deadline(timeout_ns), 0};
	c->used++;
	c->waited++;
	return 0;
}

int leat_call_begin(struct leat_client *c, const void *data, size_t size, int64_t timeout_ns, uint64_t *ret)
{
	int e;

	let_go(c);
	e = begin(c, data, size, timeout_ns);
	if (e == 0 && ret)
		*ret = c->last;
	return e;
}

int leat_call_wait(struct leat_client *c, struct leat_answer *ret, int64_t timeout_ns)
{
	int e;

	let_go(c);
	for (int i = 0; !c->waited && i < LEAT__PATIENCE && next(c, ret, 0) >= 0; i++)
		; /* what else there is; then the descriptor may rest */
	if (!c->waited)
		return leat__say(-ENOENT, "wait for a call: none is under way");
	e = end_of_call(c, ret, timeout_ns ? leat__deadline(timeout_ns) : 0, -2);
	return e == -ETIMEDOUT ? timeout_ns ? leat__say(e, "no call ended in time") : leat__say(-EAGAIN, "no call has ended")
			       : e;
}

int leat_call(struct leat_client *c, const void *data, size_t size, struct leat_answer *ret, int64_t timeout_ns)
{
	int e;

	if (c->waited)
		return leat__fail(-EBUSY, "call: %u calls are under way: use leat_call_begin() for this one, too", c->waited);
	let_go(c);
	e = begin(c, data, size, timeout_ns);
	if (e == 0) /* a moment more than is left, on the short way; else there is another look at the time */
		e = end_of_call(c, ret, LEAT__NEVER, timeout_ns);
	if (e < 0)
		return e;
	if (ret->error == -ETIMEDOUT && !ret->data)
		return leat__say(-ETIMEDOUT, "call: the server has not replied in time");
	if (ret->error == -EOWNERDEAD && !ret->data)
		return leat__say(-EOWNERDEAD, "call: the server is gone; it may have done it or not");
	return ret->error < 0 ? leat__fail(ret->error, "call: the server says: %s", strerror(-ret->error)) : 0;
}

/* ---- open, close ---- */

static int name_reply(char *ret, const char *name)
{
	uint64_t id[2];

	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		return leat__say(-EAGAIN, "open client: no random numbers");
	if (strlen(name) + 48 > LEAT__NAME_MAX)
		return leat__fail(-EINVAL, "open client: the name is too long: 48 bytes are for replies");
	sprintf(ret, "%s/reply/%016llx%016llx", name, (unsigned long long)id[0], (unsigned long long)id[1]);
	return 0;
}

static void client_free(struct leat_client *c)
{
	leat_pub_close(c->p);
	leat_sub_close(c->s);
	free(c->calls);
	free(c);
}

int leat_client_open(struct leat *l, const char *name, const struct leat_client_opts *opts, struct leat_client **ret)
{
	struct leat_sub_opts so = {.struct_size = sizeof(so), .max_publishers = LEAT__SERVERS,
				   .max_subscribers = 1};
	struct leat_client_opts o;
	struct leat_pub_opts po;
	struct leat_client *c;
	int e = leat__opts(&o, sizeof(o), opts, "open client");

	if (e == 0)
		e = leat__name_check(name);
	if (e < 0)
		return e;
	if (o.max_calls > LEAT__CALLS_MAX)
		return leat__fail(-EINVAL, "open client: %u calls at once: at most %d", o.max_calls, LEAT__CALLS_MAX);
	c = calloc(1, sizeof(*c));
	if (!c)
		return leat__say(-ENOMEM, "open client: no memory");
	c->max_calls = o.max_calls ? o.max_calls : LEAT__CALLS;
	c->max_request = o.max_request ? o.max_request : LEAT__MESSAGE_MAX;
	while (c->mask + 1 < c->max_calls)
		c->mask = c->mask * 2 + 1;
	c->calls = calloc(c->mask + 1, sizeof(*c->calls));
	so.spin_ns = o.spin_ns;
	po = leat__rpc_ring(c->max_request, c->max_calls, o.max_clients ? o.max_clients : LEAT__CLIENTS);
	po.spin_ns = o.spin_ns;
	po.grace_ns = GRACE_NS;
	e = c->calls ? name_reply(c->reply, name) : leat__say(-ENOMEM, "open client: no memory");
	if (e == 0)
		e = leat_sub_open(l, c->reply, &so, &c->s);
	if (e == 0)
		e = leat_pub_open(l, name, &po, &c->p);
	if (e < 0) {
		client_free(c);
		return e;
	}
	c->s->flags |= LEAT__TELL_ENDS;
	c->l = l;
	leat__opened(l, &l->clients, &c->node);
	*ret = c;
	return 0;
}

void leat_client_close(struct leat_client *c)
{
	if (!c)
		return;
	leat__shut(c->l, &c->node);
	client_free(c);
}

int leat_client_fd(struct leat_client *c)
{
	return leat_sub_fd(c->s);
}
