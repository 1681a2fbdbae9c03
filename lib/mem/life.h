/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_MEM_LIFE_H
#define LEAT_MEM_LIFE_H
/*
 * A life: a lock on one byte of a file that the kernel lets go when the process dies, however it
 * dies, in whatever PID namespace. Death is proven by finding the byte free, never by a clock.
 */
#include <stdint.h>

struct leat__life {
	uint32_t id; /* 1 .. 2^31-1; 0: none */
	void *page;  /* a mapping through the locked description: it keeps the lock */
	unsigned forks;
};

/* Begin a life on the file behind @fd. -errno; -ENOTSUP where the file knows no locks. */
int leat__life_begin(struct leat__life *life, int fd);
/* The same on a byte that the caller names. -EBUSY held by somebody. */
int leat__life_begin_at(struct leat__life *life, int fd, uint32_t id);
void leat__life_end(struct leat__life *life);

/* 1 dead (nobody holds @id), 0 alive or unknown. */
int leat__life_dead(int fd, uint32_t id);

#endif
