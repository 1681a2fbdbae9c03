/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_SHARE_H
#define LEAT_SHARE_H
/*
 * Regions by name: one process shares a region, others find it through the broker and map it. Manual:
 * leat_region_share(3).
 */
#include <leat/channel.h>
#include <leat/region.h>

LEAT_BEGIN_DECLS

struct leat_share;

/* What is shared under a name. */
struct leat_found {
	size_t struct_size;
	char name[256];
	char program[16];    /* who shares it */
	uint64_t generation; /* another whenever something else is shared under the name, and larger */
	uint64_t size;       /* bytes */
	int32_t pid;
	uint32_t uid;
	uint32_t writable;   /* 1: for who finds it, too */
	uint32_t sealed;     /* 1: nobody can change its size; else touching it may raise SIGBUS. Not in lists */
};

typedef int leat_found_fn(const struct leat_found *found, void *arg);

/*
 * Let others find @region under @name ("a/b/c", beside channels) until unshared; the caller owns @ret, and may close
 * @region. @flags: LEAT_RDONLY, they cannot write it. -EINVAL, -EEXIST another shares that name, -ENOTSUP a region
 * without a descriptor, -EACCES, -EDQUOT, -ENOMEM, -EMFILE, -ECONNRESET, -ETIMEDOUT.
 */
LEAT_API int leat_region_share(struct leat *l, const char *name, struct leat_region *region, unsigned flags,
			       struct leat_share **ret);

/* Share it no more; who has found it keeps it. NULL is fine. */
LEAT_API void leat_region_unshare(struct leat_share *share);

/*
 * Map what is shared under @name; the caller owns @ret. @flags: LEAT_RDONLY, LEAT_PREFAULT, LEAT_LOCKED. @found may be
 * NULL. -ENOENT nobody shares it, -EACCES it is not to be written, -EINVAL, -ENOMEM, -EMFILE, -ECONNRESET, -ETIMEDOUT.
 */
LEAT_API int leat_region_find(struct leat *l, const char *name, unsigned flags, struct leat_found *found,
			      struct leat_region **ret);

/* Call @fn for each name that begins with @prefix (NULL: all), sorted; what it returns other than 0 stops, and is
 * returned. -ECONNRESET, -ETIMEDOUT. */
LEAT_API int leat_region_list(struct leat *l, const char *prefix, leat_found_fn *fn, void *arg);

LEAT_END_DECLS
#endif
