/* SPDX-License-Identifier: Apache-2.0 */
/* leat through its public channels: send and receive, in place, in place and published 16 at a time. */
#include <leat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bench.h"

static struct leat *l;
static struct leat_pub *to;
static struct leat_sub *from;

static int open_(struct cell *c, int side)
{
	int64_t spin = c->wait == SPIN ? 1000000000 : c->wait == SLEEP ? -1 : 0;
	struct leat_pub_opts po = {.struct_size = sizeof(po), .capacity = c->capacity, .spin_ns = spin,
				   .max_size = c->size > c->capacity / 8 ? c->size : 0};
	struct leat_sub_opts so = {.struct_size = sizeof(so), .spin_ns = spin};
	char there[64], back[64];
	int e;

	snprintf(there, sizeof(there), "%s/there", c->name);
	snprintf(back, sizeof(back), "%s/back", c->name);
	e = leat_open(NULL, &l);
	if (e == 0 && (side == 1 || c->work == PINGPONG))
		e = leat_sub_open(l, side ? there : back, &so, &from);
	if (e == 0 && (side == 0 || c->work == PINGPONG))
		e = leat_pub_open(l, side ? back : there, &po, &to);
	if (e == 0 && to && c->work != NOBODY)
		e = leat_wait_subscribers(to, 1, 5000000000);
	if (e < 0)
		bench_fail(c, "%s", leat_why());
	return e;
}

static void close_(void)
{
	leat_close(l);
}

static inline int send_(const void *data, size_t size)
{
	return leat_send(to, data, size, -1);
}

static inline int recv_(void *buf, size_t size)
{
	return leat_recv(from, buf, size, NULL, -1) == 0 ? (int)size : -1;
}

#define LOOP(x) leat_##x
#include "loops.h"
#undef LOOP

static inline void *claim_(size_t size)
{
	void *at;

	return leat_claim(to, size, &at, -1) == 0 ? at : NULL;
}

static inline int commit_(size_t size, int last)
{
	return leat_commit(to, size, last ? 0 : LEAT_MORE);
}

static inline const void *peek_(void)
{
	const void *at;

	return leat_peek(from, &at, NULL, -1) == 0 ? at : NULL;
}

static inline int release_(void)
{
	return leat_release(from);
}

#define LOOP(x) in_place_##x
#define LOOPS_IN_PLACE
#include "loops.h"

enum { TWO_SIDED = 1 << PINGPONG | 1 << ONEWAY | 1 << NOBODY, ALL = 1 << SPIN | 1 << SLEEP | 1 << DEFAULT };

const struct peer bench_leat = {.name = "leat", .kind = "leat", .works = TWO_SIDED, .waits = ALL,
				.run = leat_run};
const struct peer bench_leat_in_place = {.name = "leat in place", .kind = "leat", .works = TWO_SIDED,
					 .waits = ALL, .in_place = 1, .run = in_place_run};
const struct peer bench_leat_batched = {.name = "leat in place, by 16", .kind = "leat",
					.works = 1 << ONEWAY, .waits = 1 << SPIN, .in_place = 1,
					.batch = 16, .run = in_place_run};
