/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regions by name. The broker keeps a descriptor for who asks; what is mapped it never touches. Who shares one
 * announces it to a restarted broker again, when he looks after his connection (leat__tend).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/base.h"
#include "channel/channel.h"
#include <leat/share.h>

#define TEND_NS  INT64_C(2000000)    /* what sharing it again may take at once */
#define AGAIN_NS UINT64_C(500000000) /* so often it is tried if another has the name */

/* One that others may write, or may not. */
static int descriptor(struct leat_region *region, unsigned flags)
{
	int fd = leat_region_fd(region), own;

	if (fd < 0)
		return fd;
	if (!(flags & LEAT_RDONLY)) {
		if (region->flags & LEAT_RDONLY)
			return leat__say(-EACCES, "share a region: it is mapped read-only here: share it read-only");
		own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		return own < 0 ? leat__fail(-errno, "share a region: %s", strerror(errno)) : own;
	}
	if (region->kind == LEAT_MEMFD && leat__seal_ring(fd) < 0) {
		int seals = fcntl(fd, F_GET_SEALS);

		if (seals < 0 || !(seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)))
			return leat__say(-EACCES, "share a region read-only: others keep it from being sealed");
	}
	own = leat__reopen(fd, O_RDONLY);
	return own < 0 ? leat__fail(own, "share a region read-only: open it again: %s", strerror(-own)) : own;
}

static int announce(struct leat_share *s, int64_t ns)
{
	struct leat__wire_share w = {.size = s->size, .writable = s->writable};
	struct leat__tie *tie;
	struct leat__packet pkt;
	struct leat__out out;
	struct leat__in in;
	int e;

	leat__wire_begin(&out, LEAT__SHARE, 0, 0);
	leat__wire_text(&out, LEAT__T_NAME, s->name);
	leat__wire_bytes(&out, LEAT__T_SHARE, &w, sizeof(w));
	e = leat__errand(s->l, &s->asked, &out, s->fd, &pkt, &in, ns, &tie);
	if (e < 0)
		return e;
	leat__packet_close(&pkt);
	leat__untie(s->l, s->tie);
	s->tie = tie;
	s->object = in.head.object;
	return 0;
}

void leat__shares_tend(struct leat *l)
{
	uint64_t now = leat__now();

	if (!leat__load_relaxed(&l->shares) || leat__load_acquire(&l->lost) || pthread_mutex_trylock(&l->list_lock))
		return;
	for (struct leat__node *at = l->shares; at; at = at->next) {
		struct leat_share *s = leat__container(at, struct leat_share, node);
		int e = leat__tied(l, s->tie) || now < s->again_at ? 0 : announce(s, s->asked.serial ? 0 : TEND_NS);

		s->again_at = e < 0 && e != -ETIMEDOUT ? now + AGAIN_NS : 0;
		if (s->again_at)
			leat__log(LEAT_LOG_WARNING, "region %s: not shared again yet: %s", s->name, leat_why());
	}
	pthread_mutex_unlock(&l->list_lock);
}

int leat_region_share(struct leat *l, const char *name, struct leat_region *region, unsigned flags,
		      struct leat_share **ret)
{
	int e = leat__name_check(name), fd;
	struct leat_share *s;

	if (e < 0)
		return e;
	if (flags & ~(unsigned)LEAT_RDONLY)
		return leat__fail(-EINVAL, "share a region: unknown flags 0x%x", flags);
	fd = descriptor(region, flags);
	if (fd < 0)
		return fd;
	s = calloc(1, sizeof(*s));
	if (s)
		s->name = strdup(name);
	if (!s || !s->name) {
		free(s);
		close(fd);
		return leat__say(-ENOMEM, "share a region: no memory");
	}
	s->l = l;
	s->fd = fd;
	s->size = leat_region_size(region);
	s->writable = !(flags & LEAT_RDONLY);
	e = announce(s, LEAT__REQUEST_NS);
	leat__opened(l, &l->shares, &s->node);
	if (e < 0) {
		leat_region_unshare(s);
		return e;
	}
	*ret = s;
	return 0;
}

void leat_region_unshare(struct leat_share *s)
{
	struct leat *l;

	if (!s)
		return;
	l = s->l;
	leat__shut(l, &s->node);
	leat__errand_drop(l, &s->asked);
	if (s->tie && leat__tied(l, s->tie))
		leat__request_close(l, s->object);
	leat__untie(l, s->tie);
	if (s->fd >= 0)
		close(s->fd);
	free(s->name);
	free(s);
}

static struct leat_found facts(const struct leat__wire_share *w, const char *name)
{
	struct leat_found f = {.struct_size = sizeof(f), .generation = w->generation, .size = w->size, .pid = w->pid,
			       .uid = w->uid, .writable = w->writable != 0};

	strcpy(f.name, name);
	memcpy(f.program, w->program, sizeof(f.program));
	f.program[sizeof(f.program) - 1] = 0;
	return f;
}

int leat_region_find(struct leat *l, const char *name, unsigned flags, struct leat_found *found, struct leat_region **ret)
{
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD, .flags = flags, .fd = -1};
	struct leat__wire_share w;
	struct leat__packet pkt;
	struct leat_found f;
	struct leat__out out;
	struct leat__in in;
	int e = leat__name_check(name), seals;

	if (e < 0)
		return e;
	if (flags & ~(unsigned)(LEAT_RDONLY | LEAT_PREFAULT | LEAT_LOCKED))
		return leat__fail(-EINVAL, "find a region: flags 0x%x are not for this", flags);
	leat__wire_begin(&out, LEAT__FIND, 0, 0);
	leat__wire_text(&out, LEAT__T_NAME, name);
	e = leat__request(l, &out, -1, &pkt, &in);
	if (e < 0)
		return e;
	e = leat__wire_get(&in, LEAT__T_SHARE, &w, sizeof(w));
	o.fd = leat__packet_take(&pkt, 0);
	leat__packet_close(&pkt);
	if (e == 0 && o.fd < 0)
		e = leat__say(-EPROTO, "the broker's answer lacks a descriptor");
	if (e == 0 && !w.writable && !(flags & LEAT_RDONLY))
		e = leat__fail(-EACCES, "region %s is shared read-only: ask for that", name);
	if (e == 0) {
		f = facts(&w, name);
		seals = fcntl(o.fd, F_GET_SEALS);
		f.sealed = seals >= 0 && (seals & F_SEAL_SHRINK);
		o.size = w.size;
		e = leat_region_open(&o, ret);
	}
	if (o.fd >= 0)
		close(o.fd);
	if (e == 0 && found) {
		e = leat__give(found, &f, sizeof(f), "find a region");
		if (e < 0)
			leat_region_close(*ret);
	}
	return e;
}

struct told {
	leat_found_fn *fn;
	void *arg;
};

static int tell(const void *record, const char *name, void *arg)
{
	const struct told *to = arg;
	struct leat__wire_share w;
	struct leat_found f;

	memcpy(&w, record, sizeof(w));
	f = facts(&w, name);
	return to->fn(&f, to->arg);
}

int leat_region_list(struct leat *l, const char *prefix, leat_found_fn *fn, void *arg)
{
	static const struct leat__listing shares = {LEAT__SHARES, LEAT__T_SHARE, sizeof(struct leat__wire_share), tell};
	struct told to = {fn, arg};

	return leat__list(l, &shares, prefix, &to);
}
