/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEATD_SNAPSHOT_H
#define LEATD_SNAPSHOT_H
/*
 * What the store's records say: one for each thing that the broker knows of, the whole of it. Written whenever it is
 * another; read by the worker that comes after. Fields are only ever added, at the end: what a record is too short
 * for is 0.
 */
#include "session.h"
#include "store.h"

/* Keys of what there is one of. */
enum { KEY_LISTEN = 1, KEY_LOCK = 2, KEY_LIVES = 3, KEY_CONFIG = 4, KEY_TICKETS = 5, KEY_READY = 6 };

enum rec {
	REC_BROKER = 1,
	REC_SESSION = 2, /* a: the client; its tickets follow */
	REC_CHANNEL = 3, /* a: the key of its control region; its name follows */
	REC_SLOT = 4,    /* a: the channel, b: the slot */
	REC_RING = 5,    /* a: its number */
	REC_SHARE = 6,   /* a: its generation; its name follows */
	REC_OBJECT = 7,  /* a: the client, b: its number; a watcher's prefix follows */
};

struct rec_broker {
	uint64_t instance, next_client, next_ring, change;
};

struct rec_channel {
	struct leat__geometry g;
	uint64_t change;
	uint32_t grants, epoch, groups, name_size;
	struct owner owner;
};

struct rec_slot {
	uint32_t mode, grant, group, number;
	char name[LEAT__GROUP_NAME + 1];
};

struct rec_ring {
	struct leat__geometry g;
	struct owner owner;
	uint64_t origin, ended_at;
	uint32_t key, channel, entry, state, groups_done, pad;
#ifdef LEAT__NEXT
	uint64_t more; /* records grow */
#endif
};

struct rec_share {
	struct owner owner;
	uint64_t size;
	uint32_t writable, key, name_size, pad;
};

struct rec_session {
	struct owner owner;
	uint64_t next_object, done;
	uint32_t sock_key, pid_key, greeted, kicked;
	uint32_t n_tickets, pad; /* struct tickets follow, at the end */
};

struct rec_object {
	uint64_t id_of; /* a ring's number, a share's generation */
	uint64_t since, waits, made_by;
	uint32_t kind, channel, slot, prefix_size;
};

/* Write down how it is now. */
void keep_channel(struct registry *reg, const struct channel *ch);
void keep_slot(struct registry *reg, const struct channel *ch, uint32_t slot);
void keep_ring(struct registry *reg, const struct ring *ring);
void keep_share(struct registry *reg, const struct share *s);
void keep_session(const struct session *s);
void keep_object(const struct session *s, const struct object *o);
/* What was written down counts from now on. */
void broker_commit(struct broker *b);

/*
 * Make @b what a log says, with the descriptors @fds (by key; taken ones are set to -1), @n of them. -EBADMSG: it says
 * nonsense, and @b is half made: of no use.
 */
int snapshot_load(struct broker *b, const unsigned char *log, size_t size, int *fds, uint32_t n);

#endif
