/* SPDX-License-Identifier: Apache-2.0 */
/* Books on users and clients. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/base.h"
#include "quota.h"

const char *const quota_names[LEAT__QUOTAS] = {
	[LEAT__Q_MEMORY] = "memory", [LEAT__Q_CHANNELS] = "channels", [LEAT__Q_PUBLISHERS] = "publishers",
	[LEAT__Q_SUBSCRIBERS] = "subscribers", [LEAT__Q_CLIENTS] = "clients", [LEAT__Q_DESCRIPTORS] = "descriptors",
	[LEAT__Q_WATCHES] = "watches",
};

enum { BUCKETS = 1024, TOP = 3 };
#define AT_ONCE_NS UINT64_C(20000000)   /* so far ahead one may be: of one user alone, 10 ms of work in a row */
#define FORGET_NS  UINT64_C(1000000000) /* and no longer is it held against anybody */

struct user {
	struct user *next;
	uid_t uid;
	uint32_t n_clients;
	uint64_t spent_to; /* it has had its share of time up to then */
	uint64_t used[LEAT__QUOTAS];
};

struct client {
	struct client *next;
	struct owner who;
	struct user *user;
	uint64_t used[LEAT__QUOTAS];
};

struct quotas {
	struct user *users; /* in order of uids */
	uint32_t n_users;
	struct client *clients[BUCKETS];
	quota_limit_fn *limit;
	void *arg;
};

struct quotas *quotas_new(void)
{
	return calloc(1, sizeof(struct quotas));
}

void quotas_limit(struct quotas *q, quota_limit_fn *limit, void *arg)
{
	q->limit = limit;
	q->arg = arg;
}

void quotas_free(struct quotas *q)
{
	for (size_t i = 0; q && i < BUCKETS; i++)
		while (q->clients[i]) {
			struct client *c = q->clients[i];

			q->clients[i] = c->next;
			free(c);
		}
	while (q && q->users) {
		struct user *u = q->users;

		q->users = u->next;
		free(u);
	}
	free(q);
}

static struct user *find_user(struct quotas *q, uid_t uid, int make)
{
	struct user **at = &q->users, *u;

	while (*at && (*at)->uid < uid)
		at = &(*at)->next;
	if ((*at && (*at)->uid == uid) || !make)
		return *at && (*at)->uid == uid ? *at : NULL;
	u = calloc(1, sizeof(*u));
	if (u) {
		u->uid = uid;
		u->next = *at;
		*at = u;
		q->n_users++;
	}
	return u;
}

/* One who has nothing is not in the books. */
static void settle(struct quotas *q, struct user *u)
{
	struct user **at = &q->users;

	for (int i = 0; i < LEAT__QUOTAS; i++)
		if (u->used[i])
			return;
	if (u->n_clients)
		return;
	while (*at != u)
		at = &(*at)->next;
	*at = u->next;
	q->n_users--;
	free(u);
}

static struct client **find_client(struct quotas *q, uint64_t id)
{
	struct client **at = &q->clients[id % BUCKETS];

	while (*at && (*at)->who.client != id)
		at = &(*at)->next;
	return at;
}

int quota_come(struct quotas *q, const struct owner *who)
{
	struct client *c;

	if (!q)
		return 0;
	c = calloc(1, sizeof(*c));
	if (c)
		c->user = find_user(q, who->uid, 1);
	if (!c || !c->user) {
		free(c);
		return leat__say(-ENOMEM, "the broker has no memory for another client");
	}
	c->who = *who;
	c->next = *find_client(q, who->client);
	*find_client(q, who->client) = c;
	c->user->n_clients++;
	return 0;
}

void quota_named(struct quotas *q, const struct owner *who)
{
	struct client *c = q ? *find_client(q, who->client) : NULL;

	if (c)
		c->who = *who;
}

void quota_go(struct quotas *q, const struct owner *who)
{
	struct client **at = q ? find_client(q, who->client) : NULL, *c = at ? *at : NULL;

	if (!c)
		return;
	*at = c->next;
	c->user->n_clients--;
	settle(q, c->user);
	free(c);
}

/* Who of the user has most: "camd (pid 12) 50, viewer (pid 13) 4". */
static void name_the_greedy(const struct quotas *q, const struct user *u, enum leat__quota what, char *text, size_t size)
{
	const struct client *top[TOP] = {NULL};
	size_t n = 0;

	for (size_t i = 0; i < BUCKETS; i++)
		for (const struct client *c = q->clients[i]; c; c = c->next) {
			const struct client *x = c;

			if (c->user != u || !c->used[what])
				continue;
			for (int k = 0; k < TOP; k++)
				if (x && (!top[k] || top[k]->used[what] < x->used[what])) {
					const struct client *less = top[k];

					top[k] = x;
					x = less;
				}
		}
	snprintf(text, size, "none of it by clients that are there");
	for (int k = 0; k < TOP && top[k] && n < size; k++)
		n += (size_t)snprintf(text + n, size - n, "%s%s (pid %d) %llu", k ? ", " : "most by ", top[k]->who.program,
				      (int)top[k]->who.pid, (unsigned long long)top[k]->used[what]);
}

/* (clients + 1) * (share + amount) - share <= what is left, without overflow. */
static int is_fair(uint64_t left, uint64_t share, uint64_t amount, uint64_t clients)
{
	uint64_t after, all;

	return !__builtin_add_overflow(share, amount, &after) && !__builtin_mul_overflow(after, clients + 1, &all) &&
	       all - share <= left;
}

/* Who has nothing yet gets a little, though what is left be less than one for each. (Each watch is a client.) */
static int is_first(const struct client *c, enum leat__quota what, uint64_t amount, uint64_t left)
{
	return !c->used[what] && amount <= left / 8 + 1 && what != LEAT__Q_WATCHES;
}

static int may_have(struct quotas *q, const struct user *u, const struct client *c, enum leat__quota what, uint64_t amount)
{
	uint64_t limit = q->limit ? q->limit(q->arg, u->uid, what) : UINT64_MAX;
	char most[200];

	if (limit == UINT64_MAX || !amount)
		return 0;
	if (u->used[what] <= limit && amount <= limit - u->used[what] &&
	    (!c || what == LEAT__Q_CLIENTS || is_first(c, what, amount, limit - u->used[what]) ||
	     is_fair(limit - u->used[what], c->used[what], amount, u->n_clients)))
		return 0;
	name_the_greedy(q, u, what, most, sizeof(most));
	return leat__fail(-EDQUOT, "uid %u has %llu of %llu %s, %s; %llu more are too much for this client: close some, or raise "
				   "'%s' in [limits] of leatd.conf",
			  (unsigned)u->uid, (unsigned long long)u->used[what], (unsigned long long)limit, quota_names[what], most,
			  (unsigned long long)amount, quota_names[what]);
}

int quota_take(struct quotas *q, const struct owner *who, enum leat__quota what, uint64_t bytes, uint64_t fds)
{
	struct client *c = q ? *find_client(q, who->client) : NULL;
	struct user *u = c ? c->user : q ? find_user(q, who->uid, 1) : NULL;
	int e;

	if (!q)
		return 0;
	if (!u)
		return leat__say(-ENOMEM, "the broker has no memory to keep account");
	e = may_have(q, u, c, what, 1);
	if (e == 0)
		e = may_have(q, u, c, LEAT__Q_MEMORY, bytes);
	if (e == 0)
		e = may_have(q, u, c, LEAT__Q_DESCRIPTORS, fds);
	if (e == 0)
		quota_had(q, who, what, bytes, fds);
	else
		settle(q, u);
	return e;
}

static void add(uint64_t *used, enum leat__quota what, uint64_t one, uint64_t bytes, uint64_t fds)
{
	used[what] += one;
	used[LEAT__Q_MEMORY] += bytes;
	used[LEAT__Q_DESCRIPTORS] += fds;
}

void quota_had(struct quotas *q, const struct owner *who, enum leat__quota what, uint64_t bytes, uint64_t fds)
{
	struct client *c = q ? *find_client(q, who->client) : NULL;
	struct user *u = c ? c->user : q ? find_user(q, who->uid, 1) : NULL;

	if (u)
		add(u->used, what, 1, bytes, fds);
	if (c)
		add(c->used, what, 1, bytes, fds);
}

void quota_give(struct quotas *q, const struct owner *who, enum leat__quota what, uint64_t bytes, uint64_t fds)
{
	struct client *c = q ? *find_client(q, who->client) : NULL;
	struct user *u = c ? c->user : q ? find_user(q, who->uid, 0) : NULL;

	if (c)
		add(c->used, what, UINT64_MAX, -bytes, -fds); /* less */
	if (!u)
		return;
	add(u->used, what, UINT64_MAX, -bytes, -fds);
	settle(q, u);
}

uint64_t broker_worked(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

void quota_spend(struct quotas *q, const struct owner *who, uint64_t now, uint64_t ns)
{
	struct client *c = q ? *find_client(q, who->client) : NULL;
	uint64_t most = now + FORGET_NS;

	if (!c)
		return;
	c->user->spent_to = (c->user->spent_to > now ? c->user->spent_to : now) + leat__min(ns, FORGET_NS) * 2 * q->n_users;
	c->user->spent_to = leat__min(c->user->spent_to, most);
}

int quota_is_ahead(const struct quotas *q, const struct owner *who, uint64_t now)
{
	const struct client *c = q ? *find_client((struct quotas *)(uintptr_t)q, who->client) : NULL;

	return c && c->user->spent_to > now + AT_ONCE_NS;
}

int quota_next(const struct quotas *q, uint64_t from, struct leat__wire_quota *ret)
{
	const struct user *u = q ? q->users : NULL;

	while (u && u->uid < from)
		u = u->next;
	if (!u)
		return -ENOENT;
	*ret = (struct leat__wire_quota){.uid = u->uid, .clients = u->n_clients};
	for (int i = 0; i < LEAT__QUOTAS; i++) {
		ret->used[i] = u->used[i];
		ret->limit[i] = q->limit ? q->limit(q->arg, u->uid, i) : UINT64_MAX;
	}
	return 0;
}
