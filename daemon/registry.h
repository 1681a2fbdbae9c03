/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEATD_REGISTRY_H
#define LEATD_REGISTRY_H
/*
 * What the broker knows: channels, their rings, their reader slots, and who holds which. Writes the
 * broker's words into control regions. No sockets, no loop, no clock of its own.
 */
#include <sys/types.h>
#include "link/wire.h"
#include "mem/layout.h"
#include "mem/region.h"
#include "quota.h"
#include "store.h"

enum { HISTORY_MAX = 64 }; /* ended, drained rings kept per channel for those who ask for history */

/* A descriptor, and which file that is. */
struct ring_file {
	int fd;
	dev_t dev;
	ino_t ino;
};

struct ring {
	struct ring *next; /* in order of id */
	struct ring *same_hash; /* by dev and ino */
	struct channel *channel;
	uint64_t id;
	uint64_t origin; /* the first of those that it goes on from; its own id */
	int fd;
	uint32_t key; /* of the store, for fd */
	dev_t dev;
	ino_t ino;
	struct leat__geometry g;
	int held; /* a client publishes in it */
	uint32_t entry; /* LEAT__NO_ENTRY: history */
	uint32_t state; /* LEAT__LIVE, LEAT__ENDED */
	uint64_t ended_at;
	int spoke; /* something was sent; 0: not when we last looked */
	uint32_t groups_done; /* history: groups up to this number have had it */
	struct owner owner;
};

struct slot {
	uint32_t mode; /* 0: free */
	uint32_t grant;
	uint32_t group; /* a worker's: its slot */
	const struct owner *owner; /* its session's, which frees the slot before it goes; NULL: a group's, or a
				    * worker's that is gone and may have left something in hand */
	uint32_t number; /* a group's: they count up */
	char name[LEAT__GROUP_NAME + 1]; /* a group's */
};

struct channel {
	struct channel *next;
	char *name;
	uint32_t key; /* of the store, for control's descriptor: what the channel is called there */
	struct owner owner; /* who made it, and is charged for it */
	struct leat_region *control;
	struct leat__ctrl_shm *shm;
	struct leat__geometry g;
	struct ring *rings;
	uint32_t n_ended; /* of them */
	struct slot *slots;
	uint32_t n_slots; /* of these: as many as were ever in use at once; the table has g.n_slots */
	uint32_t n_slots_used;
	uint32_t grants;
	uint32_t epoch;
	uint32_t looks; /* sessions that look on */
	uint32_t groups; /* numbers given to groups */
	uint64_t change; /* the number of the last; 0: nobody has been told of it yet */
};

enum { CHANGES_MAX = 4096 };
struct change {
	struct leat__wire_change w;
	char name[];
};

/* A region that a client shares. */
struct share {
	struct share *next; /* in order of names */
	char *name;
	uint64_t generation, size;
	int writable;
	int fd;
	uint32_t key; /* of the store, for fd */
	int held;     /* a client shares it */
	struct owner owner;
};

struct registry {
	struct quotas *quotas; /* who has how much; NULL: nobody counts */
	struct store *store; /* where all of this is written down; NULL: nowhere */
	struct channel *buckets[4096];
	struct ring *by_inode[4096];
	struct share *shares;
	uint32_t n_channels;
	uint32_t n_ended; /* rings that wait to be forgotten */
	struct channel **sorted; /* all in order of name; NULL: nobody has asked yet */
	uint32_t sorted_room;
	struct change **changes; /* the last CHANGES_MAX, at their numbers modulo that; NULL: nobody watches */
	uint64_t change, kept_from; /* the last one's number; the first one's that is kept */
	uint32_t watches;
	uint64_t next_ring;
	uint64_t linger_ns;
};

/* Find a channel, or make it with this geometry (0: defaults) for @owner. -ENOENT without one, -EDQUOT. */
int registry_channel(struct registry *reg, const char *name, const struct owner *owner, uint32_t n_rings,
		     uint32_t n_slots, struct channel **ret);
/* Forget the channel if nobody needs it. */
void registry_settle(struct registry *reg, struct channel *ch);
/* All channels in order of name. How many; borrowed until there is another, or one less. */
int registry_sorted(struct registry *reg, struct channel *const **ret);

/* One that an earlier worker left: a copy of @facts. Owns its name and control on success. */
int channel_adopt(struct registry *reg, const struct channel *facts, struct channel **ret);
/* That one was killed while it wrote into the control region: write everything there again. */
void channel_mend(struct registry *reg, struct channel *ch);

/* Is @fd a ring as promised: sealed, whole, reserved, not known already? */
int ring_verify(const struct registry *reg, int fd, const struct leat__geometry *g, struct ring_file *ret);
/*
 * Take the ring in: lines, then LIVE. Owns @file's fd on success. One that goes on from another, of an earlier
 * broker, names its @origin, else 0. -EUSERS naming who holds the table.
 */
int ring_add(struct registry *reg, struct channel *ch, const struct ring_file *file,
	     const struct leat__geometry *g, const struct owner *owner, uint64_t origin,
	     struct ring **ret);
/* One that an earlier worker left: a copy of @facts. Owns its fd on success. */
int ring_adopt(struct registry *reg, const struct ring *facts, struct ring **ret);
struct ring *ring_find(const struct channel *ch, uint64_t id);
/* Its publisher has closed it, or is dead. */
void ring_end(struct registry *reg, struct ring *ring, uint64_t now);

/* rings.c, for registry.c: forget those of a channel that nobody needs, and whose time is over; or all of them. Then what
 * is still waited for gets a place. */
void rings_expire(struct registry *reg, struct channel *ch, uint64_t now);
void rings_remove(struct registry *reg, struct channel *ch);
void ring_free(struct registry *reg, struct ring *ring);

/* The lines of a ring that has an entry. */
static inline struct leat__line *lines_of(const struct ring *ring)
{
	return leat__ctrl_lines(ring->channel->shm, &ring->channel->g, ring->entry);
}
/* An entry that no ring has; -1. */
int channel_empty_entry(const struct channel *ch);
/* The ring table is another: tell. */
void channel_changed(struct registry *reg, struct channel *ch);

/* Hand a reader slot out; @group of a worker's group, see group_get(). -EUSERS. */
int slot_grant(struct registry *reg, struct channel *ch, uint32_t mode, const struct owner *owner, uint32_t group,
	       uint32_t *ret);
/* The slot of the channel's work queue group @name, which is made if need be, and begins with what is kept of
 * ended rings. -EUSERS. */
int group_get(struct registry *reg, struct channel *ch, const char *name, uint32_t *ret);
/* Its reader has left, or is dead. What a worker had in hand stays for the others of its group. */
void slot_free(struct registry *reg, struct channel *ch, uint32_t slot);

/* The same of one that nobody has. */
void slot_vacate(struct registry *reg, struct channel *ch, uint32_t slot);
/* Room in ch->slots for number @s. -ENOMEM. */
int slots_reach(struct channel *ch, uint32_t s);

/* Ended rings that are kept, and that a group has not had: back into the table with them, as far as there is
 * room, the oldest first. All others are done with them. */
void groups_revive(struct registry *reg, struct channel *ch);
/* Forget the groups that have no workers, and what they keep. */
void groups_remove(struct registry *reg, struct channel *ch);
/* Who has it, for people. */
const char *slot_program(const struct slot *s);

/* Rings that all have read make way for those that a group waits for. */
void registry_tidy(struct registry *reg, struct channel *ch);
/* Forget what is kept of it: ended rings that nobody is reading, groups without workers. */
void registry_remove(struct registry *reg, struct channel *ch);
/* Forget rings that are drained and whose time is over; @now UINT64_MAX: it is for all. */
void registry_expire(struct registry *reg, uint64_t now);
void registry_free(struct registry *reg);

/* shares.c: share @fd, which it owns on success. -EEXIST naming who has the name, -EINVAL it is not as promised. */
int share_add(struct registry *reg, const char *name, int fd, const struct leat__wire_share *w, const struct owner *owner,
	      struct share **ret);
/* One that an earlier worker left. */
int share_adopt(struct registry *reg, const char *name, int fd, const struct leat__wire_share *facts,
		const struct owner *owner, uint32_t key, struct share **ret);
struct share *share_find(const struct registry *reg, const char *name);
void share_end(struct registry *reg, struct share *s);
struct leat__wire_share share_facts(const struct share *s);

/* watch.c: something of a channel that people watch is another: it is @there, or not any more. */
void channel_tell(struct registry *reg, struct channel *ch, int there);
/* Is there a change after @since to a name that begins with @prefix? Then 1 and *ret, for a while; 0 there is none;
 * -ENOENT what there was is not kept. */
int changes_next(const struct registry *reg, uint64_t since, const char *prefix, const struct change **ret);
/* One more watches, or one less. -ENOMEM. */
int changes_watch(struct registry *reg, int more);

/* The channel's facts, as the wire tells them. */
struct leat__wire_channel channel_facts(const struct channel *ch);

#endif
