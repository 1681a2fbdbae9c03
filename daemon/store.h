/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEATD_STORE_H
#define LEATD_STORE_H
/*
 * What outlives a worker that is killed: descriptors, which the keeper has, and a log of records in one of them, a
 * memory file. A record says what is now under its name (type, a, b); the last one counts. Records are written down
 * when something changes, and count together when store_commit() is called: a worker that is killed was killed before
 * that, or after. Knows nothing of what the records mean: that is snapshot.c's.
 */
#include <stddef.h>
#include <stdint.h>

enum { STORE_LOG = 0, STORE_FREE = 16 }; /* keys: the log's own, then those that the owner names; from here on new ones */
#define STORE_NONE UINT32_MAX            /* no key */

/* The log's first bytes, mapped: what is stored here is there at once. */
struct store_head {
	uint32_t magic, version;
	uint64_t end; /* of the records that count: bytes from the log's start */
	uint64_t client, serial; /* whose request is under way, and which; 0: none */
	uint32_t tries;          /* how often it was when a worker died */
	uint32_t touched;        /* the key of the control region written to last, STORE_NONE */
};

struct store_record {
	uint32_t type, size; /* size: of what follows, without padding; 0: nothing is under that name any more */
	uint64_t a, b;
};

struct store {
	int keeper; /* socket; -1: there is none, nothing outlives us */
	int log;
	struct store_head *head;
	uint64_t room, tidy_at; /* bytes reserved; begin another log when it gets there */
	struct store_bytes { unsigned char *at; size_t n, room; } pending; /* records since the last commit */
	int broken;           /* one of them was lost: the log is worth nothing until it is begun anew */
	struct store_bytes taken, drops; /* a byte per key; keys that go with the next commit */
	uint32_t first_free;
};

/*
 * Take over what the keeper has: *ret_fds by key (-1: nothing), *ret_n of them, the caller's, but for the log. 1: there is
 * a log; 0: it begins now. @keeper -1: there is none, and nothing outlives us. -errno with the reason.
 */
int store_open(struct store *st, int keeper, int **ret_fds, uint32_t *ret_n);
void store_close(struct store *st);
/* To the keeper: we serve. */
void store_ready(struct store *st);

/* Keep @fd, which stays the caller's, under *key, or a new one if that is STORE_NONE. -errno with the reason. */
int store_keep(struct store *st, int fd, uint32_t *key);
/* It is not needed from the next commit on. */
void store_drop(struct store *st, uint32_t key);

/* A record: @size bytes and then @text_size. It waits in memory while there is no room for it. */
void store_put(struct store *st, uint32_t type, uint64_t a, uint64_t b, const void *data, size_t size, const void *text,
	       size_t text_size);
void store_del(struct store *st, uint32_t type, uint64_t a, uint64_t b);
/* Has anything been put that does not count yet? */
int store_waits(const struct store *st);
void store_commit(struct store *st);
/* The log has grown far beyond what it says: begin another, into which @put puts everything. */
void store_tidy(struct store *st, void (*put)(void *), void *arg);
/* The control region kept under @key is about to be written to: only one is between commits. */
void store_touch(struct store *st, uint32_t key);

/*
 * The records that count in @size bytes of a log, each the last one under its name, in order of type, then of when
 * each name first came up. Pure: for what any bytes are. How many; -EBADMSG; *ret is the caller's to free.
 */
int store_read(const unsigned char *log, size_t size, const struct store_record ***ret);
static inline const void *store_data(const struct store_record *r)
{
	return r + 1;
}

#endif
