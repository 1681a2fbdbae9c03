/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_MEM_LIFE_H
#define LEAT_MEM_LIFE_H
/*
 * A life: a lock on one byte of a file that the kernel lets go when the process dies, however it
 * dies, in whatever PID namespace. Death is proven by finding the byte free, never by a clock.
 */
#include <stdint.h>

struct leat__life {
	uint64_t id; /* 0: none; those of regions fit in 31 bits */
	void *page;  /* a mapping through the locked description: it keeps the lock */
	unsigned forks;
};

/* Begin a life on the file behind @fd. -errno; -ENOTSUP where the file knows no locks. */
int leat__life_begin(struct leat__life *life, int fd);
/* The same on a byte that the caller names. -EBUSY held by somebody. */
int leat__life_begin_at(struct leat__life *life, int fd, uint64_t id);
void leat__life_end(struct leat__life *life);

/* 1 dead (nobody holds @id), 0 alive or unknown. */
int leat__life_dead(int fd, uint64_t id);

/*
 * The same in steps, for lives that one process prepares and another lives. @fd is a description of its own:
 * lock() takes the byte for it (-EBUSY), keep() holds it by a mapping, so that @fd may be closed; vacant()
 * tells whether the byte is free, 0 also for what @fd itself holds.
 */
int leat__life_lock(int fd, uint64_t id);
int leat__life_keep(struct leat__life *life, int fd, uint64_t id);
int leat__life_vacant(int fd, uint64_t id);
/* A description of our own of the file behind @fd, or -errno. */
int leat__reopen(int fd, int flags);

#endif
