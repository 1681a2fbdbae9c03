/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has to wait, and whose turn it is. A client has a share of requests. What users ask costs very different times, and
 * each may have hundreds of connections to ask on: so those of a user who has had more than his share of the broker's
 * time lately wait until nobody else wants anything, and then take turns. Who is alone here notices nothing; root, and
 * the broker's own user, are not among them. And what a dead client had is given back a little at a time.
 */
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/base.h"
#include "session.h"

#define BURST_NS UINT64_C(500000000) /* requests may come at once that are due in so long */

/* ---- the share of each client ---- */

/* Has it asked for more than its share, or not taken descriptors that it was sent? They would count as the broker's. */
int turn_is_too_soon(struct session *s)
{
	int left = 0;

	if (s->sent_fds && ioctl(s->sock, SIOCOUTQ, &left) == 0 && left > 0)
		return 1;
	s->sent_fds = 0;
	return s->tokens_at > leat__now() + BURST_NS;
}

/* One request of its share. */
void turn_use_up(struct session *s)
{
	uint64_t rate = s->b->config ? config_limit(s->b->config, geteuid(), s->owner.uid, LEAT__QUOTAS) : UINT64_MAX;
	uint64_t now = leat__now();

	if (rate != UINT64_MAX)
		s->tokens_at = (s->tokens_at > now ? s->tokens_at : now) + UINT64_C(1000000000) / (rate ? rate : 1);
}

/* ---- the share of each user ---- */

void turn_spent(const struct session *s, uint64_t begun)
{
	quota_spend(s->b->reg.quotas, &s->owner, leat__now(), broker_worked() - begun);
}

static void on_turn(uv_idle_t *h)
{
	struct broker *b = h->data;
	struct session *s = b->turns[T_ENDS].first;

	if (s) {
		turn_forget(s);
		session_end(s);
	}
	s = b->turns[T_ASKS].first;
	if (s) {
		turn_forget(s);
		session_serve(s, 1);
	}
}

void turns_init(struct broker *b)
{
	uv_idle_init(b->loop, &b->between);
	b->between.data = b;
	for (int i = 0; i < TURNS; i++)
		b->turns[i].end = &b->turns[i].first;
}

int turn_is_others(const struct session *s)
{
	const struct broker *b = s->b;

	return b->config && config_limit(b->config, geteuid(), s->owner.uid, LEAT__QUOTAS) != UINT64_MAX &&
	       quota_is_ahead(b->reg.quotas, &s->owner, leat__now());
}

void turn_wait(struct session *s, enum turn what)
{
	struct turns *t = &s->b->turns[what];

	turn_forget(s);
	s->waits = t;
	s->waiting = NULL;
	*t->end = s;
	t->end = &s->waiting;
	uv_idle_start(&s->b->between, on_turn);
}

void turn_forget(struct session *s)
{
	struct session **at = s->waits ? &s->waits->first : NULL;

	if (!at)
		return;
	while (*at != s)
		at = &(*at)->waiting;
	*at = s->waiting;
	if (s->waits->end == &s->waiting)
		s->waits->end = at;
	s->waits = NULL;
	if (!s->b->turns[T_ENDS].first && !s->b->turns[T_ASKS].first)
		uv_idle_stop(&s->b->between);
}
