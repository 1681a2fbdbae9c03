/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_MEM_LAYOUT_H
#define LEAT_MEM_LAYOUT_H
/*
 * Every struct that lies in shared memory, and nothing else. leat-layout(7) is this file in prose.
 *
 * Fixed-width fields, explicit padding, no pointers, bools, enums, size_t or pthread types; one
 * 128-byte line per writer. Geometry is read from a header once, checked, and kept in private memory
 * (struct leat__geometry); nobody trusts the header again.
 */
#include <assert.h>
#include <stdalign.h>
#include <stddef.h>
#include <stdint.h>

#define LEAT__LINE       128
#define LEAT__LAYOUT     1u
#define LEAT__MAGIC_RING "leatring"
#define LEAT__MAGIC_CTRL "leatctrl"

enum {
	LEAT__MARKS = 16,
	LEAT__HELD = 4,
	LEAT__GROUP_NAME = 31,
	LEAT__MAX_RINGS = 1024,
	LEAT__MAX_SLOTS = 1024,
	LEAT__MAX_LINES = 65536, /* of both, multiplied */
	LEAT__MAX_BLOCKS = 1024,
	LEAT__PAGE_MIN = 4096,
	LEAT__PAGE_MAX = 65536, /* page sizes of Linux machines; huge pages are a multiple */
};
#define LEAT__MAX_CAPACITY (UINT64_C(1) << 40)

enum { /* leat__head.flags */
       LEAT__OVERWRITE = 1u << 0,
       LEAT__STRICT = 1u << 1,
       LEAT__RETAIN = 1u << 2, /* the broker keeps it, once ended, until a successor has sent something */
};

/* Written once, before anybody else sees it; check last. */
struct leat__head {
	char magic[8];
	uint32_t layout;    /* LEAT__LAYOUT */
	uint32_t head_size; /* bytes before the data area (ring), before the lines (control) */
	alignas(8) uint64_t total; /* bytes of the whole object */
	alignas(8) uint64_t page;  /* every offset below is a multiple of it */
	alignas(8) uint64_t capacity;
	alignas(8) uint64_t data_off;
	alignas(8) uint64_t block_size;
	alignas(8) uint64_t blocks_off;
	uint32_t n_blocks;
	uint32_t flags;
	uint32_t n_rings;
	uint32_t n_slots;
	alignas(8) uint64_t boot[2]; /* the kernel's boot id */
	alignas(8) uint64_t check;   /* leat__hash of everything before it */
	uint64_t pad[3];
};
static_assert(sizeof(struct leat__head) == LEAT__LINE, "layout 1");
static_assert(offsetof(struct leat__head, check) == 96, "layout 1");

enum { LEAT__IS_MOVING = 1, LEAT__HAS_MOVED = 2 };

/* A ring region: the publisher writes, everybody else maps it read-only. */
struct leat__ring_shm {
	alignas(8) struct leat__head head;
	/* line 1: readers poll it; nothing else may make it travel */
	alignas(8) uint64_t tail; /* the only commit point */
	uint64_t pad1[15];
	/* line 2: moves with every commit, read by few */
	alignas(8) uint64_t last; /* position of a record near the newest; stored after tail */
	alignas(8) uint64_t sent; /* messages; extends the 32-bit seq of a record */
	alignas(8) uint64_t bytes;
	uint64_t pad2[13];
	/* line 3: moves once per sixteenth of the ring */
	alignas(8) uint64_t intent; /* Dekker word for those who join */
	alignas(8) uint64_t limit;  /* bytes [limit-capacity, tail) are intact */
	uint64_t pad3[14];
	/* line 4 */
	alignas(8) uint64_t marks[LEAT__MARKS]; /* first record of each sixteenth */
	/* line 5 */
	uint32_t closed; /* 1: ended cleanly */
	uint32_t pid;
	alignas(8) uint64_t waits;
	alignas(8) uint64_t evicted;
	alignas(8) uint64_t moving; /* its publisher goes on in another, of the same origin */
	alignas(8) uint64_t began;  /* 1 + tail when it went on in this one; 0: it has not */
	uint64_t pad5[11];
	/* from here: uint64_t words[n_blocks] */
};
static_assert(offsetof(struct leat__ring_shm, tail) == 128, "layout 1");
static_assert(offsetof(struct leat__ring_shm, last) == 256, "layout 1");
static_assert(offsetof(struct leat__ring_shm, intent) == 384, "layout 1");
static_assert(offsetof(struct leat__ring_shm, marks) == 512, "layout 1");
static_assert(offsetof(struct leat__ring_shm, closed) == 640, "layout 1");
static_assert(sizeof(struct leat__ring_shm) == 768, "layout 1");

/* What lies in a ring's data area at every position, then the payload, padded to 8. */
struct leat__record {
	uint32_t size; /* bytes of payload; LEAT__IN_BLOCK: payload is a leat__block_ref */
	uint32_t seq;
};
#define LEAT__IN_BLOCK 0x80000000u

/* Bytes of a message's record. */
static inline uint64_t leat__record_need(uint64_t size)
{
	return (sizeof(struct leat__record) + size + 7) & ~UINT64_C(7);
}

struct leat__block_ref {
	uint32_t block;
	uint32_t pad;
	alignas(8) uint64_t gen;
	alignas(8) uint64_t size;
};
static_assert(sizeof(struct leat__block_ref) == 24, "layout 1");

/* Ring table entry, written by the broker: a hint for readers, who ask it before they believe. */
struct leat__entry {
	alignas(8) uint64_t word; /* ring id << 24 | LEAT__LIVE or LEAT__ENDED; 0: free */
	uint64_t pad[15];
};
enum { LEAT__LIVE = 1, LEAT__ENDED = 2 };

struct leat__slot {
	alignas(8) uint64_t client; /* 0: free */
	uint32_t mode;              /* LEAT__WAITING, LEAT__OBSERVING, LEAT__GROUP, LEAT__WORKER */
	uint32_t pid;
	alignas(8) uint64_t held[LEAT__HELD]; /* ring id << 24 | block+1: retained blocks */
	alignas(8) uint64_t received;
	alignas(8) uint64_t lost;
	alignas(8) uint64_t moved; /* its reader has gone over to this instance of the broker; all ones: left */
	/* work queues: */
	uint32_t group;    /* a worker's: its group's slot + 1 */
	uint32_t bell;     /* a group's: its idle workers sleep here, */
	uint32_t watcher;  /* but for one, slot + 1, who sleeps on the data bell */
	uint32_t sleepers; /* hint */
	uint32_t parked;   /* moves when a message waits to be delivered again */
	uint32_t pad;
	char name[LEAT__GROUP_NAME + 1]; /* a group's */
};
#define LEAT__LEFT UINT64_MAX
enum { LEAT__WAITING = 1, LEAT__OBSERVING = 2, LEAT__GROUP = 3, LEAT__WORKER = 4 };
static_assert(sizeof(struct leat__slot) == LEAT__LINE, "layout 1");

/* Where one reader (slot) is in one ring (entry). */
struct leat__line {
	alignas(8) uint64_t cursor;
	alignas(8) uint64_t state; /* ring id << 24 | grant << 12 | rejoin << 4 | state; see below for queues */
	alignas(8) uint64_t count; /* queues: how often the message was delivered; a group's: up to where all come again */
	uint64_t pad[13];
};
static_assert(sizeof(struct leat__line) == LEAT__LINE, "layout 1");
enum {
	LEAT__GRANTED = 1, /* the slot was handed out: its reader joins or says DONE */
	LEAT__ACTIVE = 2,  /* the writer waits for this cursor */
	LEAT__EVICTED = 3,
	LEAT__DONE = 4,
	LEAT__WATCHES = 5, /* an observer; the writer ignores it */
	/* the line of a work queue's group: its cursor is the next message to be claimed, LEAT__FROZEN while
	 * the publisher takes it to another ring */
	LEAT__SHARED = 6,
	LEAT__JOINING = 7, /* a worker sees where it begins */
	/* the lines of its workers, of which any may use any: the message that one has in hand */
	LEAT__IDLE = 8,
	LEAT__RESERVED = 9,
	LEAT__TAKING = 10, /* about to claim it, or just has */
	LEAT__TAKEN = 11,
	LEAT__PUT_BACK = 12, /* to be delivered again */
};
#define LEAT__FROZEN UINT64_C(1)
/* The states in which the writer waits for a line's cursor. */
#define LEAT__WAITED_FOR                                                                           \
	(1u << LEAT__ACTIVE | 1u << LEAT__SHARED | 1u << LEAT__JOINING | 1u << LEAT__TAKING |      \
	 1u << LEAT__TAKEN | 1u << LEAT__PUT_BACK)
#define LEAT__BUSY                                                                                 \
	(1u << LEAT__RESERVED | 1u << LEAT__TAKING | 1u << LEAT__TAKEN | 1u << LEAT__PUT_BACK)
#define LEAT__ID_SHIFT    24
#define LEAT__ID_MAX      ((UINT64_C(1) << 40) - 1)
#define LEAT__STATE(w)    ((unsigned)((w) & 0xf))
#define LEAT__REJOIN(w)  ((unsigned)((w) >> 4 & 0xff))
#define LEAT__RING_ID(w)  ((w) >> LEAT__ID_SHIFT)
#define LEAT__IN(w, states) ((states) >> LEAT__STATE(w) & 1)
/* From JOINING on: whose it is (a slot), and a number that moves with that. */
#define LEAT__HOLDER(w)   ((uint32_t)((w) >> 4 & 0x3ff))
#define LEAT__TURN_OF(w)  ((w) >> 14 & 0x3ff)
#define LEAT__HAND(id, holder, turn, s)                                                            \
	LEAT__WORD(id, ((uint64_t)(turn) & 0x3ff) << 14 | (uint64_t)(holder) << 4 | (s))
#define LEAT__WORD(id, s) (((uint64_t)(id) << LEAT__ID_SHIFT) | (uint64_t)(s))

/* A channel's control region: everybody who takes part writes here, nobody trusts it. */
struct leat__ctrl_shm {
	alignas(8) struct leat__head head;
	uint32_t data_bell; /* readers sleep here */
	uint32_t pad1[31];
	uint32_t space_bell; /* writers sleep here */
	uint32_t pad2[31];
	uint32_t epoch;  /* moves when the ring table does */
	uint32_t writer; /* rings by hand: the writer's life */
	alignas(8) uint64_t ring_id; /* rings by hand: the last id given */
	uint64_t pad3[14];
	/* from here: entries[n_rings], slots[n_slots], lines[n_rings][n_slots] */
};
static_assert(offsetof(struct leat__ctrl_shm, data_bell) == 128, "layout 1");
static_assert(offsetof(struct leat__ctrl_shm, space_bell) == 256, "layout 1");
static_assert(offsetof(struct leat__ctrl_shm, epoch) == 384, "layout 1");
static_assert(sizeof(struct leat__ctrl_shm) == 512, "layout 1");

/* The facts of a header, in private memory, checked. */
struct leat__geometry {
	uint64_t total, page, capacity, data_off, block_size, blocks_off;
	uint32_t head_size, n_blocks, flags, n_rings, n_slots;
};

/* Work out a ring's or control region's layout. -EINVAL (with the reason), sizes checked. */
int leat__ring_geometry(struct leat__geometry *g, uint64_t capacity, uint64_t block_size,
			uint32_t n_blocks, uint32_t flags, uint64_t page);
int leat__ctrl_geometry(struct leat__geometry *g, uint32_t n_rings, uint32_t n_slots,
			uint64_t page);

/* Could @g be a ring (or control) of at most @size bytes? Pure. 0, -EBADMSG. */
int leat__ring_check(const struct leat__geometry *g, uint64_t size);
int leat__ctrl_check(const struct leat__geometry *g, uint64_t size);

/* Write a header for @g (the magic goes last); read one back and check it. -EPROTO, -EBADMSG. */
void leat__head_write(struct leat__head *head, const char *magic, const struct leat__geometry *g);
int leat__head_read(const struct leat__head *head, const char *magic, uint64_t size,
		    struct leat__geometry *g);
/* Was it written since this machine booted? */
int leat__head_this_boot(const struct leat__head *head);

static inline uint64_t *leat__block_words(struct leat__ring_shm *ring)
{
	return (uint64_t *)(void *)(ring + 1);
}

static inline struct leat__entry *leat__ctrl_entries(struct leat__ctrl_shm *c)
{
	return (struct leat__entry *)(void *)(c + 1);
}

static inline struct leat__slot *leat__ctrl_slots(struct leat__ctrl_shm *c,
						  const struct leat__geometry *g)
{
	return (struct leat__slot *)(void *)(leat__ctrl_entries(c) + g->n_rings);
}

/* The lines of one ring table entry, one per slot. */
static inline struct leat__line *leat__ctrl_lines(struct leat__ctrl_shm *c,
						  const struct leat__geometry *g, uint32_t entry)
{
	return (struct leat__line *)(void *)(leat__ctrl_slots(c, g) + g->n_slots) +
	       (size_t)entry * g->n_slots;
}

#endif
