/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regions that clients share by name, in order of names. The broker keeps a descriptor to hand out, and never maps,
 * reads or measures anything but shared memory: another file's system may be anybody's program.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/base.h"
#include "snapshot.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

/* Is @fd what it is said to be? */
static int verify(int fd, const struct leat__wire_share *w)
{
	int seals = fcntl(fd, F_GET_SEALS), how = fcntl(fd, F_GETFL);
	struct stat st;

	if (how < 0 || (how & O_PATH))
		return leat__say(-EINVAL, "share a region: its descriptor is of no use");
	if (!w->writable && (how & O_ACCMODE) != O_RDONLY)
		return leat__say(-EINVAL, "share a region read-only: its descriptor can write");
	if (w->writable && (how & O_ACCMODE) != O_RDWR)
		return leat__say(-EINVAL, "share a region: its descriptor cannot write");
	if (seals < 0) /* not shared memory */
		return w->size ? 0 : leat__say(-EINVAL, "share a region: it is empty");
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !w->size || (uint64_t)st.st_size < w->size)
		return leat__fail(-EINVAL, "share a region: it has not %llu bytes", (unsigned long long)w->size);
	return 0;
}

struct share *share_find(const struct registry *reg, const char *name)
{
	for (struct share *s = reg->shares; s; s = s->next)
		if (!strcmp(s->name, name))
			return s;
	leat__fail(-ENOENT, "nobody shares a region %s", name);
	return NULL;
}

int share_adopt(struct registry *reg, const char *name, int fd, const struct leat__wire_share *facts,
		const struct owner *owner, uint32_t key, struct share **ret)
{
	struct share **at = &reg->shares, *s;

	while (*at && strcmp((*at)->name, name) < 0)
		at = &(*at)->next;
	if (*at && !strcmp((*at)->name, name))
		return leat__fail(-EEXIST, "region %s is shared by %s (pid %d) already", name, (*at)->owner.program,
				  (int)(*at)->owner.pid);
	s = calloc(1, sizeof(*s));
	if (s)
		s->name = strdup(name);
	if (!s || !s->name) {
		free(s);
		return leat__say(-ENOMEM, "the broker has no memory for another region");
	}
	s->generation = facts->generation;
	s->size = facts->size;
	s->writable = facts->writable != 0;
	s->fd = fd;
	s->key = key;
	s->owner = *owner;
	s->next = *at;
	*at = s;
	quota_had(reg->quotas, owner, LEAT__Q_PUBLISHERS, s->size, 1);
	*ret = s;
	return 0;
}

int share_add(struct registry *reg, const char *name, int fd, const struct leat__wire_share *w, const struct owner *owner,
	      struct share **ret)
{
	struct leat__wire_share facts = *w;
	uint32_t key = STORE_NONE;
	int e = verify(fd, w);

	if (e == 0) { /* is there room? it is charged when it is there */
		e = quota_take(reg->quotas, owner, LEAT__Q_PUBLISHERS, w->size, 1);
		if (e == 0)
			quota_give(reg->quotas, owner, LEAT__Q_PUBLISHERS, w->size, 1);
	}
	if (e == 0)
		e = store_keep(reg->store, fd, &key);
	if (e < 0)
		return e;
	facts.generation = reg->next_ring + 1; /* never used again, as a ring's number */
	e = share_adopt(reg, name, fd, &facts, owner, key, ret);
	if (e < 0) {
		store_drop(reg->store, key);
		return e;
	}
	reg->next_ring++;
	(*ret)->held = 1;
	keep_share(reg, *ret);
	return 0;
}

void share_end(struct registry *reg, struct share *s)
{
	struct share **at = &reg->shares;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	quota_give(reg->quotas, &s->owner, LEAT__Q_PUBLISHERS, s->size, 1);
	store_del(reg->store, REC_SHARE, s->generation, 0);
	store_drop(reg->store, s->key);
	close(s->fd);
	free(s->name);
	free(s);
}

struct leat__wire_share share_facts(const struct share *s)
{
	struct leat__wire_share w = {.generation = s->generation, .size = s->size, .writable = (uint32_t)s->writable,
				     .pid = s->owner.pid, .uid = s->owner.uid};

	memcpy(w.program, s->owner.program, sizeof(w.program));
	return w;
}
