/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose turn it is. What users ask costs very different times, and each may have hundreds of connections to ask on. So
 * those of a user who has had more than his share of the broker's time lately wait until nobody else wants anything, and
 * then take turns: who is alone here notices nothing. Root, and the broker's own user, are not among them.
 */
#include <unistd.h>
#include "base/base.h"
#include "session.h"

static void on_turn(uv_idle_t *h)
{
	struct broker *b = h->data;
	struct session *s = b->waiting;

	turn_forget(s);
	session_serve(s, 1);
}

void turns_init(struct broker *b)
{
	uv_idle_init(b->loop, &b->turns);
	b->turns.data = b;
	b->waiting_end = &b->waiting;
}

int turn_is_others(const struct session *s)
{
	const struct broker *b = s->b;

	return b->config && config_limit(b->config, geteuid(), s->owner.uid, LEAT__QUOTAS) != UINT64_MAX &&
	       quota_is_ahead(b->reg.quotas, &s->owner, leat__now());
}

void turn_wait(struct session *s)
{
	struct broker *b = s->b;

	s->waits = 1;
	s->waiting = NULL;
	*b->waiting_end = s;
	b->waiting_end = &s->waiting;
	uv_idle_start(&b->turns, on_turn);
}

void turn_forget(struct session *s)
{
	struct broker *b = s->b;
	struct session **at = &b->waiting;

	if (!s->waits)
		return;
	while (*at != s)
		at = &(*at)->waiting;
	*at = s->waiting;
	if (b->waiting_end == &s->waiting)
		b->waiting_end = at;
	s->waits = 0;
	if (!b->waiting)
		uv_idle_stop(&b->turns);
}
