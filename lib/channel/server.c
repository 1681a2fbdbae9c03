/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Servers: one subscriber, to which the requests of all clients come, and for each client a publisher of its own.
 * Nothing here waits for a client: its replies have room as long as it keeps to the calls it was granted, and are
 * dropped if it does not.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "base/base.h"
#include "channel/channel.h"
#include "channel/rpc.h"

#define CONNECT_NS INT64_C(50000000) /* what the broker may take for a client's ring; then it will ask again */
#define TURN       64                /* requests that one leat_dispatch() handles */

/* ---- clients ---- */

static struct leat__link *find(struct leat_server *s, const struct leat_request *req)
{
	uint32_t i = (uint32_t)req->client;

	if (i >= s->n_links || !s->links[i].client || s->links[i].generation != req->client >> 32) {
		leat__say(-EPIPE, "reply: the client is gone");
		return NULL;
	}
	return &s->links[i];
}

static void hang_up(struct leat_server *s, struct leat__link *k)
{
	leat_pub_close(k->pub);
	*k = (struct leat__link){.generation = k->generation + 1};
	s->st.clients--;
}

/* Those whose rings have ended are gone. */
static void tidy(struct leat_server *s)
{
	s->detached = s->s->detached;
	for (uint32_t i = 0; i < s->n_links; i++)
		if (s->links[i].client && !leat__sub_reads(s->s, s->links[i].client))
			hang_up(s, &s->links[i]);
}

static struct leat__link *free_link(struct leat_server *s)
{
	struct leat__link *more;
	uint32_t i = 0;

	while (i < s->n_links && s->links[i].client)
		i++;
	if (i == s->n_links) {
		more = realloc(s->links, (i + 1) * sizeof(*more));
		if (!more) {
			leat__say(-ENOMEM, "no memory for another client");
			return NULL;
		}
		more[i] = (struct leat__link){0};
		s->links = more;
		s->n_links++;
	}
	return &s->links[i];
}

static int put_reply(struct leat_server *s, struct leat__link *k, uint64_t call, int error, size_t size, void **ret)
{
	struct leat__reply_head h = {s->id, call, (uint32_t)(k - s->links), error};
	char *at;
	void *room;
	int e = leat_claim(k->pub, sizeof(h) + size, &room, 0);

	if (e < 0)
		return e;
	at = room;
	memcpy(at, &h, sizeof(h));
	*ret = at + sizeof(h);
	return 0;
}

static int welcome(struct leat_server *s, struct leat__link *k)
{
	struct leat__welcome w = {.max_calls = k->max_calls, .max_reply = s->o.max_reply};
	void *at;
	int e = put_reply(s, k, 0, 0, sizeof(w), &at);

	if (e < 0)
		return e;
	memcpy(at, &w, sizeof(w));
	return leat_commit(k->pub, sizeof(struct leat__reply_head) + sizeof(w), 0);
}

/* Somebody wants to be our client, and asks until he is told so. */
static int connect_client(struct leat_server *s, uint64_t client, const char *body, size_t size)
{
	struct leat_pub_opts o;
	struct leat__connect c;
	char name[LEAT__NAME_MAX + 1];
	struct leat__link *k;
	size_t n;
	int e;

	if (size <= sizeof(c) || size - sizeof(c) > LEAT__NAME_MAX)
		return leat__say(-EBADMSG, "a client's greeting makes no sense");
	memcpy(&c, body, sizeof(c));
	memcpy(name, body + sizeof(c), size - sizeof(c));
	name[size - sizeof(c)] = 0;
	/* A channel for our replies, not any that it would like us to write to. */
	n = strlen(s->s->name);
	if (strlen(name) != size - sizeof(c) || strncmp(name, s->s->name, n) || strncmp(name + n, "/reply/", 7))
		return leat__say(-EBADMSG, "a client's greeting names no channel for replies");
	for (uint32_t i = 0; i < s->n_links; i++)
		if (s->links[i].client == client) /* it had another server until now */
			return welcome(s, &s->links[i]);
	if (!c.max_calls || c.max_calls > s->o.max_calls)
		c.max_calls = s->o.max_calls;
	k = free_link(s);
	if (!k)
		return -ENOMEM;
	o = leat__rpc_ring(s->o.max_reply, c.max_calls, 0);
	o.spin_ns = s->o.spin_ns;
	e = leat__pub_open(s->l, name, &o, CONNECT_NS, &k->pub);
	if (e < 0)
		return e;
	k->client = client;
	k->max_calls = c.max_calls;
	s->st.clients++;
	e = welcome(s, k);
	if (e < 0)
		hang_up(s, k);
	return e;
}

/* ---- requests ---- */

/* One message: 1 a request for us (@ret), 0 something else, which is done with. */
static int take(struct leat_server *s, const void *data, const struct leat_info *info, struct leat_request *ret)
{
	struct leat__call_head h;
	char body[LEAT__NAME_MAX + sizeof(struct leat__connect)];
	const char *at = data;
	size_t size;
	int e;

	if (info->size < sizeof(h)) {
		s->st.corrupt++;
		return 0;
	}
	memcpy(&h, at, sizeof(h)); /* once: its writer may write it still */
	size = (size_t)info->size - sizeof(h);
	if (h.kind == LEAT__CONNECT) {
		if (size <= sizeof(body)) {
			memcpy(body, at + sizeof(h), size);
			e = connect_client(s, info->publisher, body, size);
			if (e < 0 && e != -EBADMSG)
				leat__log(LEAT_LOG_WARNING, "a client is not connected: %s", leat_why());
			s->st.corrupt += e == -EBADMSG;
		} else {
			s->st.corrupt++;
		}
		return 0;
	}
	if (h.server != s->id)
		return 0; /* another's */
	if (h.kind != LEAT__CALL || !h.call || h.link >= s->n_links || s->links[h.link].client != info->publisher) {
		s->st.corrupt++;
		return 0;
	}
	*ret = (struct leat_request){at + sizeof(h), size, (uint64_t)s->links[h.link].generation << 32 | h.link, h.call};
	return 1;
}

static void let_go(struct leat_server *s)
{
	if (s->held)
		leat_release(s->s);
	s->held = 0;
}

int leat_accept(struct leat_server *s, struct leat_request *ret, int64_t timeout_ns)
{
	uint64_t deadline = timeout_ns > 0 ? leat__deadline(timeout_ns) : 0, now;
	struct leat_info info;
	const void *data;
	int waits = timeout_ns != 0, passed = 0, e;

	let_go(s);
	for (;;) {
		e = leat_peek(s->s, &data, &info, timeout_ns);
		if (s->detached != s->s->detached)
			tidy(s);
		if (e == -EBADMSG) { /* that client's ring is left out from now on */
			s->st.corrupt++;
		} else if (e < 0) {
			if (e != -EAGAIN && e != -ETIMEDOUT)
				return e;
nothing:
			return waits ? leat__say(-ETIMEDOUT, "no request came in time") : leat__say(-EAGAIN, "no request waits");
		} else if (take(s, data, &info, ret)) {
			s->held = ret->call + 1;
			s->held_client = ret->client;
			s->st.requests++;
			return 0;
		} else {
			leat_release(s->s);
		}
		if (timeout_ns < 0)
			continue;
		now = leat__now();
		if (waits ? now >= deadline : ++passed == LEAT__PATIENCE)
			goto nothing;
		timeout_ns = waits ? (int64_t)(deadline - now) : 0;
	}
}

/* ---- replies ---- */

/* The request is answered: its bytes are not needed any more. */
static int answered(struct leat_server *s, const struct leat_request *req)
{
	s->st.replies++;
	if (s->held == req->call + 1 && s->held_client == req->client)
		let_go(s);
	return 0;
}

static int check(const struct leat_server *s, int error, size_t size)
{
	if (error > 0 || error < -4095)
		return leat__fail(-EINVAL, "reply: %d is no error: give 0 or a negative errno", error);
	if (size > s->o.max_reply)
		return leat__fail(-EMSGSIZE, "a reply of %zu bytes: this server said %llu at most: set max_reply", size,
				  (unsigned long long)s->o.max_reply);
	return 0;
}

static int claim(struct leat_server *s, const struct leat_request *req, int error, size_t size, struct leat__link **link,
		 void **ret)
{
	int e = check(s, error, size);

	if (e < 0)
		return e;
	*link = find(s, req);
	e = *link ? put_reply(s, *link, req->call, error, size, ret) : -EPIPE;
	s->st.dropped += e == -EPIPE || e == -EAGAIN;
	return e == -EAGAIN ? leat__say(e, "reply: the client does not read its replies: this one is dropped") : e;
}

int leat_reply(struct leat_server *s, const struct leat_request *req, int error, const void *data, size_t size)
{
	struct leat__link *k = NULL;
	void *at = NULL;
	int e = claim(s, req, error, size, &k, &at);

	if (e < 0)
		return e;
	if (size)
		memcpy(at, data, size);
	leat_commit(k->pub, sizeof(struct leat__reply_head) + size, 0);
	return answered(s, req);
}

int leat_reply_claim(struct leat_server *s, const struct leat_request *req, size_t size, void **ret)
{
	struct leat__link *k;
	int e = claim(s, req, 0, size, &k, ret);

	if (e == 0)
		k->claimed = (void *)((char *)*ret - sizeof(struct leat__reply_head));
	return e;
}

int leat_reply_commit(struct leat_server *s, const struct leat_request *req, int error, size_t size)
{
	struct leat__link *k;
	int e = check(s, error, size);

	if (e < 0)
		return e;
	k = find(s, req);
	if (!k)
		return -EPIPE;
	if (!k->claimed)
		return leat__say(-EINVAL, "reply: nothing is claimed for this client");
	k->claimed->error = error;
	e = leat_commit(k->pub, sizeof(*k->claimed) + size, 0);
	if (e < 0)
		return e;
	k->claimed = NULL;
	return answered(s, req);
}

/* ---- the rest ---- */

int leat_serve(struct leat *l, const char *name, const struct leat_serve_opts *opts, struct leat_server **ret)
{
	struct leat_sub_opts so = {.struct_size = sizeof(so), .max_publishers = LEAT__CLIENTS,
				   .max_subscribers = LEAT__SERVERS};
	struct leat_serve_opts o;
	struct leat_server *s;
	int e = leat__opts(&o, sizeof(o), opts, "serve");

	if (e < 0)
		return e;
	if (o.max_calls > LEAT__CALLS_MAX)
		return leat__fail(-EINVAL, "serve: %u calls at once: at most %d", o.max_calls, LEAT__CALLS_MAX);
	s = calloc(1, sizeof(*s));
	if (!s)
		return leat__say(-ENOMEM, "serve: no memory");
	o.max_calls = o.max_calls ? o.max_calls : LEAT__CALLS;
	o.max_reply = o.max_reply ? o.max_reply : LEAT__MESSAGE_MAX;
	s->o = o;
	s->l = l;
	while (!s->id)
		if (getrandom(&s->id, sizeof(s->id), 0) != sizeof(s->id))
			s->id = leat__now() | 1;
	so.spin_ns = o.spin_ns;
	so.max_publishers = o.max_clients ? o.max_clients : LEAT__CLIENTS;
	e = leat_sub_open(l, name, &so, &s->s);
	if (e < 0) {
		free(s);
		return e;
	}
	leat__opened(l, &l->servers, &s->node);
	*ret = s;
	return 0;
}

void leat_serve_close(struct leat_server *s)
{
	if (!s)
		return;
	leat__shut(s->l, &s->node);
	for (uint32_t i = 0; i < s->n_links; i++)
		if (s->links[i].client)
			hang_up(s, &s->links[i]);
	leat_sub_close(s->s);
	free(s->links);
	free(s);
}

int leat_server_fd(struct leat_server *s)
{
	return leat_sub_fd(s->s);
}

int leat_serve_stat(struct leat_server *s, struct leat_serve_stat *ret)
{
	s->st.struct_size = sizeof(s->st);
	return leat__give(ret, &s->st, sizeof(s->st), "server's counters");
}

int leat__servers_dispatch(struct leat *l)
{
	struct leat_request req;
	int n = 0, e;

	for (struct leat__node *at = l->servers; at; at = at->next) {
		struct leat_server *s = leat__container(at, struct leat_server, node);

		for (int i = 0; s->o.fn && i < TURN && leat_accept(s, &req, 0) == 0; i++, n++) {
			e = s->o.fn(s, &req, s->o.arg);
			if (e < 0)
				leat_reply(s, &req, e, NULL, 0);
		}
	}
	return n;
}
