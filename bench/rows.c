/* SPDX-License-Identifier: Apache-2.0 */
/* Every row of the tables, and every peer, in the order they are run. */
#include "rows.h"

#define KIB 1024
#define MIB (1024 * 1024)

#define PP(label, size, quick)                                                                     \
	{"ping-pong " label ", spinning", "pingpong", PINGPONG, SPIN, size, 0, 2, 0, quick, 0, NULL},      \
	{"ping-pong " label ", default", "pingpong", PINGPONG, DEFAULT, size, 0, 2, 0, quick, 0, "line,leat"}, \
	{"ping-pong " label ", sleeping", "pingpong", PINGPONG, SLEEP, size, 0, 2, 0, quick, 0, NULL}
#define OW(label, size, capacity, quick)                                                           \
	{"one-way " label, "oneway", ONEWAY, SPIN, size, capacity, 2, 0, quick, 0, NULL}

const struct row bench_rows[] = {
	PP("64 B", 64, 1),
	PP("8 B", 8, 0),
	PP("1 KiB", KIB, 0),
	PP("64 KiB", 64 * KIB, 0),
	OW("64 B", 64, 0, 1),
	OW("8 B", 8, 0, 0),
	OW("256 B", 256, 0, 0),
	OW("1 KiB", KIB, 0, 1),
	OW("64 KiB", 64 * KIB, 0, 1),
	OW("1 MiB", MIB, 0, 1),
	OW("12.4 MB", 12441600, 0, 0),
	{"publish 64 B with nobody listening", "nobody", NOBODY, SPIN, 64, 0, 1, 0, 1, 0, NULL},
	{"ping-pong 64 B, spinning, unpinned", "pingpong", PINGPONG, SPIN, 64, 0, 2, 0, 0, 1, NULL},
	{"one-way 64 B, unpinned", "oneway", ONEWAY, SPIN, 64, 0, 2, 0, 0, 1, NULL},
	{0},
};

#define PEER(name) extern const struct peer name
PEER(bench_line);
PEER(bench_hand);
PEER(bench_futex);
PEER(bench_leat);
PEER(bench_leat_in_place);
PEER(bench_leat_batched);

const struct peer *const bench_peers[] = {
	&bench_line, &bench_hand, &bench_futex,
	&bench_leat, &bench_leat_in_place, &bench_leat_batched,
	0,
};
