/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_WATCH_H
#define LEAT_WATCH_H
/*
 * Watching names: which channels there are, and how that changes. A watch belongs to one thread at a time.
 * Manual: leat_watch(3).
 */
#include <leat/channel.h>

LEAT_BEGIN_DECLS

struct leat_watch;

enum leat_event_kind {
	LEAT_CAME = 1, /* there is a channel of this name */
	LEAT_CHANGED,  /* it has other publishers or subscribers */
	LEAT_GONE,     /* there is none any more */
	LEAT_SYNCED,   /* once: all that there were have been told; no name */
};

/* What has become of a name. Set struct_size = sizeof(struct leat_event). */
struct leat_event {
	size_t struct_size;
	enum leat_event_kind kind;
	uint32_t publishers;  /* now; those that have ended are not counted */
	uint32_t subscribers; /* now; workers included */
	char name[256];
};

/*
 * Watch all names that begin with @prefix (NULL: all names); the caller owns @ret.
 * -EINVAL the prefix is too long, -EDQUOT, -ENOMEM, -EMFILE, -ECONNRESET, -ETIMEDOUT.
 */
LEAT_API int leat_watch(struct leat *l, const char *prefix, struct leat_watch **ret);

/* Watch no more. NULL is fine. */
LEAT_API void leat_watch_close(struct leat_watch *watch);

/*
 * The next event, within @timeout_ns nanoseconds (0: at once or -EAGAIN, -1: for ever): first every name there is
 * as LEAT_CAME, then LEAT_SYNCED, then what happens. -ETIMEDOUT, -EINVAL, -ENOMEM, -ECHILD.
 */
LEAT_API int leat_watch_next(struct leat_watch *watch, struct leat_event *ret, int64_t timeout_ns);

/* A descriptor, borrowed, readable when there may be an event; leat_watch_next() until -EAGAIN. -EMFILE, -ENOMEM,
 * -ECHILD. */
LEAT_API int leat_watch_fd(struct leat_watch *watch);

LEAT_END_DECLS
#endif
