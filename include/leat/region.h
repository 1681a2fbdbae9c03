/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_REGION_H
#define LEAT_REGION_H
/*
 * Regions: one piece of shared memory, whichever way the kernel makes it. Space is reserved when a
 * region is made: a full tmpfs or disk is an error then, never a SIGBUS later.
 * A handle may be used from any thread. Manual: leat_region(3).
 */
#include <leat/base.h>

LEAT_BEGIN_DECLS

struct leat_region;

enum leat_region_kind {
	LEAT_MEMFD = 1, /* memfd_create; shared with whoever is handed the descriptor */
	LEAT_POSIX = 2, /* a name as shm_open takes it, "/name"; until unlinked or reboot */
	LEAT_FILE = 3,  /* a path; survives reboot */
	LEAT_ANON = 4,  /* MAP_ANONYMOUS; shared with children after fork */
	LEAT_SYSV = 5,  /* shmget; shared by key, or by id */
};

enum leat_region_flag {
	LEAT_RDONLY = 1u << 0,   /* map read-only */
	LEAT_PRIVATE = 1u << 1,  /* copy on write: this handle's changes are seen by nobody else */
	LEAT_HUGE = 1u << 2,     /* huge pages; -ENOTSUP where the kind has none */
	LEAT_PREFAULT = 1u << 3, /* touch every page now */
	LEAT_LOCKED = 1u << 4,   /* mlock: never swapped */
	LEAT_ATTACH = 1u << 5,   /* create: if it is there already, open it instead of -EEXIST */
};

/* Zeroed fields mean the default. Set struct_size = sizeof(struct leat_region_opts). */
struct leat_region_opts {
	size_t struct_size;
	enum leat_region_kind kind; /* required */
	unsigned flags;             /* enum leat_region_flag */
	const char *name;           /* POSIX: "/name"; FILE: path; MEMFD: label; else NULL */
	uint64_t size;              /* bytes, rounded up to whole pages; opening: 0 = all of it */
	unsigned mode;              /* permissions, 0 = 0600 */
	int key;                    /* SYSV: key, 0 = private (share leat_region_id()) */
	int fd;                     /* MEMFD, opening: the descriptor (borrowed) */
	int id;                     /* SYSV, opening without a key: the segment's id */
	/* Called once on the zeroed memory before anybody else can see it; -errno undoes it all. */
	int (*init)(void *addr, uint64_t size, void *arg);
	void *init_arg;
};

struct leat_region_plan {
	size_t struct_size;
	uint64_t bytes;     /* what the region would take, whole pages */
	uint64_t page;      /* bytes of one page of it */
	uint64_t available; /* bytes that can be had now, the tightest of the limits below */
	const char *limit;  /* which limit is the tightest: "tmpfs", "disk", "memory", ... (static) */
};

/*
 * Make a region; the caller owns @ret. Space is reserved: -ENOSPC (tmpfs, disk), -ENOMEM (memory or
 * cgroup headroom), -EFBIG (RLIMIT_FSIZE), -EEXIST, -EINVAL, -EACCES, -ENOTSUP.
 */
LEAT_API int leat_region_create(const struct leat_region_opts *opts, struct leat_region **ret);

/*
 * Map a region that exists; the caller owns @ret. -ENOENT, -EACCES, -EINVAL (not such an object, or
 * smaller than the size asked for), -ENOMEM.
 */
LEAT_API int leat_region_open(const struct leat_region_opts *opts, struct leat_region **ret);

/* Unmap and free; NULL is fine. SYSV regions made here by key are removed. */
LEAT_API void leat_region_close(struct leat_region *region);

/* Remove the name of a POSIX or FILE region; mappings live on. -ENOENT, -EACCES, -EINVAL. */
LEAT_API int leat_region_unlink(enum leat_region_kind kind, const char *name);

/*
 * What creating with @opts would take and what is there now, in bytes; makes nothing. -EINVAL.
 */
LEAT_API int leat_region_plan(const struct leat_region_opts *opts, struct leat_region_plan *ret);

/* Address and size of the mapping in bytes; borrowed until close. */
LEAT_API void *leat_region_addr(const struct leat_region *region);
LEAT_API uint64_t leat_region_size(const struct leat_region *region);

/* The descriptor behind it, borrowed: hand it over a socket. -ENOTSUP for ANON and SYSV. */
LEAT_API int leat_region_fd(const struct leat_region *region);

/* The System V id of a SYSV region, for programs that attach by id. -ENOTSUP otherwise. */
LEAT_API int leat_region_id(const struct leat_region *region);

/*
 * Write changes of [offset, offset+size) back to the file and wait (msync). Whole pages.
 * -EINVAL outside the region, -EIO.
 */
LEAT_API int leat_region_sync(struct leat_region *region, uint64_t offset, uint64_t size);

enum leat_advice {
	LEAT_NORMAL = 0,
	LEAT_SEQUENTIAL = 1,
	LEAT_RANDOM = 2,
	LEAT_WILLNEED = 3,
	LEAT_DONTDUMP = 4, /* leave it out of core dumps */
};

/* Tell the kernel how [offset, offset+size) will be used (madvise). -EINVAL. */
LEAT_API int leat_region_advise(struct leat_region *region, uint64_t offset, uint64_t size,
				enum leat_advice advice);

LEAT_END_DECLS
#endif
