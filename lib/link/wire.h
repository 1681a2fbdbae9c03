/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_LINK_WIRE_H
#define LEAT_LINK_WIRE_H
/*
 * The language of clients and broker: one packet, one message. A 32-byte header, then flat TLVs, all
 * little-endian. Pure: bytes in, bytes out. Shared by both sides.
 */
#include <stddef.h>
#include <stdint.h>
#include "mem/layout.h"

enum {
	LEAT__PACKET_MAX = 4096,
	LEAT__FDS_MAX = 4,
	LEAT__NAME_MAX = 200,
	LEAT__WIRE_MIN = 1, /* protocol versions this code speaks */
#ifndef LEAT__NEXT
	LEAT__WIRE_MAX = 1,
#else /* built as the version after this one might be: to see that the two go together */
	LEAT__WIRE_MAX = 2,
#endif
};
#define LEAT__WIRE_QUIET 1 /* leat__wire_head.flags: no answer is wanted */
#define LEAT__WIRE_MAGIC UINT32_C(0x5441454c) /* "LEAT" */

enum leat__type {
	/* requests of a client */
	LEAT__HELLO = 1,
	LEAT__PING = 2,
	LEAT__PUB_OPEN = 3,  /* + the ring's descriptor */
	LEAT__SUB_OPEN = 4,
	LEAT__RINGS = 5,     /* of a subscription (or a look): ids and states */
	LEAT__RING = 6,      /* one ring: geometry, descriptor */
	LEAT__CLOSE = 7,     /* a publisher, subscription or look */
	LEAT__LIST = 8,      /* channels after a name */
	LEAT__LOOK = 9,      /* a channel's control region, without taking part */
	LEAT__PEERS = 10,    /* who takes part, in pages */
	LEAT__REMOVE = 11,   /* forget what is kept of a channel */
	LEAT__SHARE = 12,    /* a region by name + its descriptor */
	LEAT__FIND = 13,     /* one that somebody shares: facts, descriptor */
	LEAT__SHARES = 14,   /* those after a name */
	LEAT__WATCH = 15,    /* the channels whose names begin so */
	LEAT__CHANGES = 16,  /* of a watch: what is new; answered when something is */
	LEAT__WHO = 17,      /* the clients after one */
	LEAT__QUOTA = 18,    /* how much the users after one have, and may */
	LEAT__KICK = 19,     /* a client: what it has ends, and it is not let in again */
	/* answers of the broker */
	LEAT__OK = 128,
	LEAT__ERROR = 129,
	LEAT__BYE = 130, /* unasked: the broker is going away on purpose */
};

/* Tags; LEAT__CRITICAL: who does not know the tag must refuse the message. */
#define LEAT__CRITICAL 0x8000u
enum leat__tag {
	LEAT__T_VERSION_MIN = 1,
	LEAT__T_VERSION_MAX = 2,
	LEAT__T_FEATURES = 3,
	LEAT__T_PROGRAM = 4,  /* text, at most 15 bytes */
	LEAT__T_CLIENT = 5,   /* u64 id, never reused */
	LEAT__T_INSTANCE = 6, /* u64, of the broker's life */
	LEAT__T_NAME = 7,
	LEAT__T_MAX_RINGS = 8,
	LEAT__T_MAX_SLOTS = 9,
	LEAT__T_GEOMETRY = 10, /* struct leat__wire_geometry: a ring's */
	LEAT__T_CONTROL = 11,  /* the same: a control region's */
	LEAT__T_RING_ID = 12,
	LEAT__T_ENTRY = 13, /* ring table index; LEAT__NO_ENTRY: history, no line */
	LEAT__T_SLOT = 14,
	LEAT__T_GRANT = 15, /* the grant number in a slot's state words */
	LEAT__T_MODE = 16,  /* of a subscriber: LEAT__WAITING, LEAT__OBSERVING, LEAT__WORKER */
	LEAT__T_STATE = 17, /* of a ring: LEAT__LIVE, LEAT__ENDED */
	LEAT__T_RING = 18,  /* struct leat__wire_ring, repeated */
	LEAT__T_CODE = 19,  /* errno of an error */
	LEAT__T_WHY = 20,   /* text */
	LEAT__T_CHANNEL = 21, /* struct leat__wire_channel, then its name; repeated */
	LEAT__T_MORE = 22,    /* there is more after the last one listed; in LIST and SHARES: go on with that */
	LEAT__T_PEER = 23,    /* struct leat__wire_peer, repeated */
	LEAT__T_GONE = 24,    /* publishers that have ended, all told */
	LEAT__T_BROUGHT = 25, /* struct leat__wire_brought: a ring whose descriptor comes along, in order */
	LEAT__T_EPOCH = 26,   /* u32: the control region's, when the rings were listed */
	LEAT__T_ORIGIN = 27,  /* u64: the ring that a ring goes on from, its publisher's first */
	LEAT__T_GROUP = 28,   /* text: a work queue's group, which is made if need be; repeated in PUB_OPEN */
	LEAT__T_GROUP_SLOT = 29, /* u32: where it is */
	LEAT__T_SHARE = 30,      /* struct leat__wire_share; in lists then its name, and repeated */
	LEAT__T_PREFIX = 31,     /* text: of the names that are meant */
	LEAT__T_SINCE = 32,      /* u64: the last change that one knows of; none: list all, then ask again */
	LEAT__T_CHANGE = 33,     /* struct leat__wire_change, then its name; repeated */
	LEAT__T_AFTER = 34,      /* u64: list the rings after this one; in answers with MORE, the last one listed */
	LEAT__T_WHO = 35,        /* struct leat__wire_who, repeated */
	LEAT__T_QUOTA = 36,      /* struct leat__wire_quota, repeated */
	LEAT__T_UID = 37,        /* u32 */
	LEAT__T_TICKET = 38,     /* text; repeated */
	LEAT__T_LAST = LEAT__T_TICKET,
};
#define LEAT__NO_ENTRY UINT32_C(0xffffffff)

struct leat__wire_geometry {
	uint64_t total, page, capacity, data_off, block_size, blocks_off;
	uint32_t head_size, n_blocks, flags, n_rings, n_slots, pad;
};

struct leat__wire_ring {
	uint64_t id;
	uint32_t entry;
	uint32_t state;
};

struct leat__wire_brought {
	uint64_t id, origin;
	uint64_t client; /* whose life is the ring's */
	int32_t pid;
	uint32_t uid;
	struct leat__wire_geometry g;
};

struct leat__wire_share {
	uint64_t generation, size;
	uint32_t writable;
	int32_t pid;
	uint32_t uid;
	uint32_t pad;
	char program[16];
};

struct leat__wire_channel {
	uint64_t bytes, change; /* change: the number of its last */
	uint32_t publishers, draining, subscribers, max_publishers, max_subscribers, pad;
};

struct leat__wire_change {
	uint64_t number; /* they count up, whatever they are about */
	uint32_t there, publishers, subscribers, pad;
};

struct leat__wire_peer {
	uint64_t id; /* ring id, or slot */
	int32_t pid;
	uint32_t uid;
	uint32_t role; /* as struct leat_peer */
	uint32_t alive;
	char program[16];
};

struct leat__wire_who {
	uint64_t client, bytes;
	int32_t pid;
	uint32_t uid, publishers, subscribers, shares, watches;
	char program[16];
};

enum leat__quota {
	LEAT__Q_MEMORY, /* bytes */
	LEAT__Q_CHANNELS,
	LEAT__Q_PUBLISHERS, /* those whose rings are kept included */
	LEAT__Q_SUBSCRIBERS,
	LEAT__Q_CLIENTS,
	LEAT__Q_DESCRIPTORS,
	LEAT__Q_WATCHES,
	LEAT__QUOTAS,
	LEAT__QUOTA_ROOM = 12,
};

struct leat__wire_quota {
	uint32_t uid, clients;
	uint64_t used[LEAT__QUOTA_ROOM], limit[LEAT__QUOTA_ROOM]; /* all ones: any */
};

struct leat__wire_head {
	uint32_t magic;
	uint8_t version;
	uint8_t size; /* of this header: 32 */
	uint16_t type;
	uint32_t length; /* of the TLVs */
	uint16_t flags;
	uint8_t fds;
	uint8_t pad;
	uint64_t serial; /* of the request, repeated in its answer */
	uint64_t object; /* what it is about */
};

/* A message being written. Overflow is remembered and told by leat__wire_end(). */
struct leat__out {
	size_t size;
	int full;
	union {
		struct leat__wire_head head;
		unsigned char bytes[LEAT__PACKET_MAX];
	};
};

/* In the lowest version that we speak: head.version is the sender's to raise to what was agreed on. */
void leat__wire_begin(struct leat__out *o, enum leat__type type, uint64_t serial, uint64_t object);
void leat__wire_bytes(struct leat__out *o, unsigned tag, const void *data, size_t size);
void leat__wire_u32(struct leat__out *o, unsigned tag, uint32_t v);
void leat__wire_u64(struct leat__out *o, unsigned tag, uint64_t v);
void leat__wire_text(struct leat__out *o, unsigned tag, const char *text);
/* Would @size more bytes still fit? For answers that come in pages. */
int leat__wire_fits(const struct leat__out *o, size_t size);
/* 0, -EMSGSIZE. */
int leat__wire_end(struct leat__out *o, unsigned fds);

/* A message that was received: points into the packet, which must outlive it. */
struct leat__in {
	struct leat__wire_head head;
	const unsigned char *tlvs;
	size_t size;
};

/*
 * Is this packet, which came with @fds descriptors, a well-formed message? -EBADMSG (with the
 * reason), -EPROTO for a version or a critical tag that this code does not know.
 */
int leat__wire_parse(struct leat__in *in, const void *packet, size_t size, unsigned fds);

/* The first value of @tag: 0, -ENOENT it is not there, -EBADMSG another size. */
int leat__wire_get(const struct leat__in *in, unsigned tag, void *ret, size_t size);
int leat__wire_get_text(const struct leat__in *in, unsigned tag, char *ret, size_t size);
/* The facts of a ring or control region (T_GEOMETRY, T_CONTROL). */
void leat__wire_geometry(struct leat__out *o, unsigned tag, const struct leat__geometry *g);
int leat__wire_get_geometry(const struct leat__in *in, unsigned tag, struct leat__geometry *g);
/* A ring that comes along with the message; say which descriptor of those (0, 1, ...): or -ENOENT. */
void leat__wire_brought(struct leat__out *o, const struct leat__wire_brought *w,
			const struct leat__geometry *g);
int leat__wire_find_brought(const struct leat__in *in, uint64_t id, struct leat__wire_brought *w,
			    struct leat__geometry *g);
/* Walk: the next value of @tag after @at (NULL: the first). NULL: no more. */
const unsigned char *leat__wire_next(const struct leat__in *in, unsigned tag,
				     const unsigned char *at, size_t *size);

/* May a channel have this name? Pure. 0, -EINVAL with the reason. */
int leat__name_check(const char *name);
/* A group's: one part of such a name, of at most LEAT__GROUP_NAME bytes. */
int leat__group_check(const char *name);

#endif
