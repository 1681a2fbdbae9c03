/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_BENCH_ROWS_H
#define LEAT_BENCH_ROWS_H
/* What is measured (rows.c) and who does it. */
#include "bench.h"

struct row {
	const char *name, *group;
	enum work work;
	enum wait wait;
	size_t size, capacity;
	int sides, variant;
	int quick;        /* part of --quick */
	int unpinned;
	const char *only; /* peers that take part, by parts of their names; NULL: all that can */
};

enum { FILE_NEW, FILE_OVER, FILE_READ };
enum { LOAD_VIDEO, LOAD_TICKS, LOAD_LOG, LOAD_STATE, LOAD_TENSORS, LOAD_MEMORY };

extern const struct row bench_rows[];
extern const struct peer *const bench_peers[];

#endif
