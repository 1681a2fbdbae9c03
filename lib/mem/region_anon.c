/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regions without a descriptor: anonymous (for children after fork) and System V (for programs that
 * speak it already). Neither can be reserved but by touching every page.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include "base/base.h"
#include "mem/region.h"

/* Touch, initialise, then take write permission away again if it was not asked for. */
static int fill(struct leat_region *r, const struct leat_region_opts *o)
{
	int e;

	for (uint64_t at = 0; at < r->size; at += r->page)
		((volatile unsigned char *)r->addr)[at] = 0;
	e = leat__run_init(-1, r->addr, r, o);
	if (e == 0 && (o->flags & LEAT_RDONLY) && mprotect(r->addr, (size_t)r->size, PROT_READ) < 0)
		e = leat__fail(-errno, "make a region read-only: %s", strerror(errno));
	return e;
}

static int anon_create(struct leat_region *r, const struct leat_region_opts *o)
{
	void *p = mmap(NULL, (size_t)r->size, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | (o->flags & LEAT_HUGE ? MAP_HUGETLB : 0), -1, 0);

	if (p == MAP_FAILED)
		return leat__fail(-errno, "create anonymous region of %llu bytes: %s",
				  (unsigned long long)r->size, strerror(errno));
	r->addr = p;
	return fill(r, o);
}

static int anon_open(struct leat_region *r, const struct leat_region_opts *o)
{
	(void)r;
	(void)o;
	return leat__say(-ENOTSUP, "anonymous regions are inherited by fork, not opened");
}

const struct leat__region_kind leat__region_anon = {anon_create, anon_open, NULL};

static int sysv_attach(struct leat_region *r, int flags)
{
	void *p = shmat(r->id, NULL, flags);

	if (p == (void *)-1)
		return leat__fail(-errno, "attach System V segment %d: %s", r->id, strerror(errno));
	r->addr = p;
	return 0;
}

static int sysv_create(struct leat_region *r, const struct leat_region_opts *o)
{
	key_t key = o->key ? (key_t)o->key : IPC_PRIVATE;
	int e;

	/* Under a key the segment is visible before it is initialised. */
	if (o->key && o->init)
		return leat__say(-ENOTSUP, "create System V region: an initialiser needs a private one: "
					   "leave key 0 and share leat_region_id()");
	r->id = shmget(key, (size_t)r->size,
		       IPC_CREAT | IPC_EXCL | (int)o->mode | (o->flags & LEAT_HUGE ? SHM_HUGETLB : 0));
	if (r->id < 0)
		return leat__fail(-errno, "create System V region of %llu bytes: %s%s",
				  (unsigned long long)r->size, strerror(errno),
				  errno == ENOSPC || errno == EINVAL ? ": see kernel.shmmax, shmall, shmmni"
								     : "");
	e = sysv_attach(r, 0);
	/* By id it dies with its last user; by key its maker removes it. */
	if (e < 0 || !o->key)
		shmctl(r->id, IPC_RMID, NULL);
	else
		r->remove = 1;
	return e < 0 ? e : fill(r, o);
}

static int sysv_open(struct leat_region *r, const struct leat_region_opts *o)
{
	struct shmid_ds ds;

	r->id = o->key ? shmget((key_t)o->key, 0, 0) : o->id;
	if (r->id < 0)
		return leat__fail(-errno, "open System V region with key 0x%x: %s", (unsigned)o->key,
				  strerror(errno));
	if (shmctl(r->id, IPC_STAT, &ds) < 0)
		return leat__fail(errno == EINVAL || errno == EIDRM ? -ENOENT : -errno,
				  "open System V region %d: %s", r->id, strerror(errno));
	if ((uint64_t)ds.shm_segsz < r->size)
		return leat__fail(-EINVAL, "open System V region %d: it has %llu bytes, %llu were asked for",
				  r->id, (unsigned long long)ds.shm_segsz, (unsigned long long)r->size);
	if (!r->size)
		r->size = (uint64_t)ds.shm_segsz;
	return sysv_attach(r, o->flags & LEAT_RDONLY ? SHM_RDONLY : 0);
}

const struct leat__region_kind leat__region_sysv = {sysv_create, sysv_open, NULL};
