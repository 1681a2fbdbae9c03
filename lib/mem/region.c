/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regions: checks what is asked for, leaves the making to one file per kind, maps, prefaults, locks.
 * Public as leat_region(3); rings and channels stand on it. Never touches the contents.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "base/base.h"
#include "mem/home.h"
#include "mem/region.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

#define ALL_FLAGS                                                                                  \
	(LEAT_RDONLY | LEAT_PRIVATE | LEAT_HUGE | LEAT_PREFAULT | LEAT_LOCKED | LEAT_ATTACH)

static const struct leat__region_kind *const kinds[] = {
	[LEAT_MEMFD] = &leat__region_memfd, [LEAT_POSIX] = &leat__region_posix,
	[LEAT_FILE] = &leat__region_file,   [LEAT_ANON] = &leat__region_anon,
	[LEAT_SYSV] = &leat__region_sysv,
};

uint64_t leat__page_size(void)
{
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t leat__huge_size(void)
{
	char text[4096];
	const char *p;

	if (leat__read_file("/proc/meminfo", text, sizeof(text)) < 0)
		return 0;
	p = strstr(text, "Hugepagesize:");
	return p ? strtoull(p + 13, NULL, 10) * 1024 : 0;
}

/* On a 32-bit machine. */
static int too_large(uint64_t size)
{
	return leat__fail(-ENOMEM, "%llu bytes do not fit into this process's address space",
			  (unsigned long long)size);
}

/* Options that any kind refuses; fills in what the rest needs. */
static int check(struct leat_region_opts *o, const struct leat_region_opts *opts, const char *verb)
{
	int r = leat__opts(o, sizeof(*o), opts, verb);

	if (r < 0)
		return r;
	if (!opts || o->kind < LEAT_MEMFD || o->kind > LEAT_SYSV)
		return leat__fail(-EINVAL, "%s: say which kind of region (LEAT_MEMFD ... LEAT_SYSV)",
				  verb);
	if (o->flags & ~(unsigned)ALL_FLAGS)
		return leat__fail(-EINVAL, "%s: unknown flags 0x%x", verb, o->flags);
	if (o->mode & ~0777u)
		return leat__fail(-EINVAL, "%s: mode 0%o: permissions only", verb, o->mode);
	if ((o->kind == LEAT_POSIX || o->kind == LEAT_FILE) && (!o->name || !*o->name))
		return leat__fail(-EINVAL, "%s: this kind of region needs a name", verb);
	if (o->kind == LEAT_POSIX &&
	    (o->name[0] != '/' || !o->name[1] || strchr(o->name + 1, '/') || strlen(o->name) > 255))
		return leat__fail(-EINVAL, "%s: POSIX name '%s': one '/' at its beginning, no other, at "
					   "most 255 bytes",
				  verb, o->name);
	if ((o->flags & LEAT_HUGE) && (o->kind == LEAT_POSIX || o->kind == LEAT_FILE))
		return leat__fail(-ENOTSUP, "%s: %s regions have no huge pages: use LEAT_MEMFD", verb,
				  o->kind == LEAT_POSIX ? "POSIX" : "file");
	if ((o->flags & LEAT_PRIVATE) && (o->kind == LEAT_ANON || o->kind == LEAT_SYSV))
		return leat__fail(-ENOTSUP, "%s: this kind of region cannot be mapped copy-on-write",
				  verb);
	if (!o->mode)
		o->mode = 0600;
	return 0;
}

static uint64_t kind_page(const struct leat_region_opts *o)
{
	return o->flags & LEAT_HUGE ? leat__huge_size() : leat__page_size();
}

/* Sizes for creating: whole pages, sane. */
static int rounded(const struct leat_region_opts *o, uint64_t *size, uint64_t *page)
{
	*page = kind_page(o);
	if (!*page)
		return leat__fail(-ENOTSUP, "create region: this kernel has no huge pages");
	if (!o->size || o->size > (UINT64_C(1) << 46))
		return leat__fail(-EINVAL, "create region: size %llu: 1 byte to 64 TiB",
				  (unsigned long long)o->size);
	*size = leat__align(o->size, *page);
	return *size > SIZE_MAX / 2 ? too_large(*size) : 0;
}

int leat__prefault(void *addr, uint64_t size, int write)
{
	if (madvise(addr, size, write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return leat__fail(errno == EFAULT ? -ENOMEM : -errno,
				  "prefault %llu bytes: %s: not enough memory (or huge pages) for all of it",
				  (unsigned long long)size, strerror(errno));
	/* Kernels before 5.14: touch. The space is reserved, so this cannot fault. */
	for (uint64_t at = 0; at < size; at += 4096) {
		volatile unsigned char *p = (volatile unsigned char *)addr + at;

		if (write)
			__atomic_fetch_or(p, 0, __ATOMIC_RELAXED);
		else
			(void)*p;
	}
	return 0;
}

/* Map what create or open has found, and do what the flags ask. */
int leat__region_map(struct leat_region *r)
{
	int prot = PROT_READ | (r->flags & LEAT_RDONLY ? 0 : PROT_WRITE);
	int e;

	if (r->size > SIZE_MAX / 2)
		return too_large(r->size);
	if (!r->addr) {
		void *p = mmap(NULL, r->size, prot, r->flags & LEAT_PRIVATE ? MAP_PRIVATE : MAP_SHARED,
			       r->fd, 0);

		if (p == MAP_FAILED)
			return leat__fail(-errno, "map a region of %llu bytes: %s",
					  (unsigned long long)r->size, strerror(errno));
		r->addr = p;
	}
	if (!(r->flags & LEAT_PRIVATE))
		leat__home_add(r->addr, r->size, r->fd, r->id);
	if (r->flags & LEAT_PREFAULT) {
		e = leat__prefault(r->addr, r->size,
			     !(r->flags & (LEAT_RDONLY | LEAT_PRIVATE)));
		if (e < 0)
			return e;
	}
	if ((r->flags & LEAT_LOCKED) && mlock(r->addr, r->size) < 0)
		return leat__fail(-errno, "lock a region of %llu bytes in memory: %s: raise RLIMIT_MEMLOCK "
					  "(ulimit -l)",
				  (unsigned long long)r->size, strerror(errno));
	return 0;
}

static struct leat_region *region_new(const struct leat_region_opts *o)
{
	struct leat_region *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->kind = o->kind;
	r->flags = o->flags;
	r->fd = -1;
	r->id = -1;
	r->page = leat__page_size();
	r->forks = leat__forks();
	pthread_mutex_init(&r->lock, NULL);
	return r;
}

int leat_region_create(const struct leat_region_opts *opts, struct leat_region **ret)
{
	struct leat_region_opts o;
	struct leat_region *r;
	uint64_t size = 0, page = 0;
	int e = check(&o, opts, "create region");

	if (e < 0)
		return e;
	e = rounded(&o, &size, &page);
	if (e < 0)
		return e;
	if (o.kind != LEAT_FILE && !(o.flags & LEAT_HUGE)) {
		e = leat__memory_room(size, "create region");
		if (e < 0)
			return e;
	}
	r = region_new(&o);
	if (!r)
		return leat__say(-ENOMEM, "create region: no memory for its handle");
	r->size = size;
	r->page = page;
	e = kinds[o.kind]->create(r, &o);
	for (int i = 0; e == -EEXIST && (o.flags & LEAT_ATTACH) && i < 100; i++) {
		/* Lost the race, or there before us: open it, unless it went away in between. */
		r->size = o.size;
		e = kinds[o.kind]->open(r, &o);
		if (e == -ENOENT) {
			r->size = size;
			e = kinds[o.kind]->create(r, &o);
		}
	}
	if (e >= 0)
		e = leat__region_map(r);
	if (e < 0) {
		leat_region_close(r);
		return e;
	}
	*ret = r;
	return 0;
}

int leat_region_open(const struct leat_region_opts *opts, struct leat_region **ret)
{
	struct leat_region_opts o;
	struct leat_region *r;
	int e = check(&o, opts, "open region");

	if (e < 0)
		return e;
	r = region_new(&o);
	if (!r)
		return leat__say(-ENOMEM, "open region: no memory for its handle");
	if (o.flags & LEAT_HUGE)
		r->page = kind_page(&o);
	r->size = o.size;
	e = kinds[o.kind]->open(r, &o);
	if (e >= 0)
		e = leat__region_map(r);
	if (e < 0) {
		leat_region_close(r);
		return e;
	}
	*ret = r;
	return 0;
}

void leat_region_close(struct leat_region *r)
{
	if (!r)
		return;
	leat__life_end(&r->life);
	leat__home_remove(r->addr);
	if (r->view)
		munmap(r->view, (size_t)(2 * r->view_size));
	if (r->kind == LEAT_SYSV && r->addr)
		shmdt(r->addr);
	else if (r->addr)
		munmap(r->addr, (size_t)r->size);
	/* Only its maker removes it, never a forked child that inherited the handle. */
	if (r->remove && r->forks == leat__forks())
		shmctl(r->id, IPC_RMID, NULL);
	if (r->fd >= 0)
		close(r->fd);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

int leat_region_unlink(enum leat_region_kind kind, const char *name)
{
	if ((kind != LEAT_POSIX && kind != LEAT_FILE) || !name)
		return leat__say(-EINVAL, "unlink region: only POSIX and FILE regions have a name");
	return kinds[kind]->unlink(name);
}

int leat_region_plan(const struct leat_region_opts *opts, struct leat_region_plan *ret)
{
	struct leat_region_plan plan = {.struct_size = sizeof(plan)};
	struct leat_region_opts o;
	int e = check(&o, opts, "plan region");

	if (e < 0)
		return e;
	e = rounded(&o, &plan.bytes, &plan.page);
	if (e < 0)
		return e;
	plan.available = leat__memory_available(&plan.limit);
	if (o.kind == LEAT_FILE || o.kind == LEAT_POSIX) {
		struct statfs fs;
		char dir[4096] = "/dev/shm";
		uint64_t free;

		if (o.kind == LEAT_FILE) {
			char *slash;

			snprintf(dir, sizeof(dir), "%s", o.name);
			slash = strrchr(dir, '/');
			if (slash)
				slash[slash == dir] = 0;
			else
				snprintf(dir, sizeof(dir), ".");
		}
		if (statfs(dir, &fs) < 0)
			return leat__fail(-errno, "plan region: %s: %s", dir, strerror(errno));
		free = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
		if (o.kind == LEAT_FILE || free < plan.available) {
			plan.available = free;
			plan.limit = o.kind == LEAT_FILE ? "the filesystem" : "/dev/shm";
		}
	}
	return leat__give(ret, &plan, sizeof(plan), "plan region");
}

void *leat_region_addr(const struct leat_region *r)
{
	return r->addr;
}

uint64_t leat_region_size(const struct leat_region *r)
{
	return r->size;
}

int leat_region_fd(const struct leat_region *r)
{
	if (r->fd < 0)
		return leat__say(-ENOTSUP, "this kind of region has no descriptor");
	return r->fd;
}

int leat_region_id(const struct leat_region *r)
{
	if (r->kind != LEAT_SYSV)
		return leat__say(-ENOTSUP, "only System V regions have an id");
	return r->id;
}

static int within(const struct leat_region *r, uint64_t offset, uint64_t size, const char *verb)
{
	if (offset > r->size || size > r->size - offset || offset % r->page)
		return leat__fail(-EINVAL, "%s %llu bytes at %llu: the region has %llu, offsets are whole "
					   "pages",
				  verb, (unsigned long long)size, (unsigned long long)offset,
				  (unsigned long long)r->size);
	return 0;
}

int leat_region_sync(struct leat_region *r, uint64_t offset, uint64_t size)
{
	int e = within(r, offset, size, "sync");

	if (e < 0)
		return e;
	if (msync((char *)r->addr + offset, size, MS_SYNC) < 0)
		return leat__fail(-errno, "sync %llu bytes: %s", (unsigned long long)size,
				  strerror(errno));
	return 0;
}

int leat_region_advise(struct leat_region *r, uint64_t offset, uint64_t size,
		       enum leat_advice advice)
{
	static const int names[] = {MADV_NORMAL, MADV_SEQUENTIAL, MADV_RANDOM, MADV_WILLNEED,
				    MADV_DONTDUMP};
	int e = within(r, offset, size, "advise on");

	if (e < 0)
		return e;
	if ((unsigned)advice >= sizeof(names) / sizeof(names[0]))
		return leat__fail(-EINVAL, "advise: unknown advice %d", (int)advice);
	if (madvise((char *)r->addr + offset, size, names[advice]) < 0)
		return leat__fail(-errno, "advise on %llu bytes: %s", (unsigned long long)size,
				  strerror(errno));
	return 0;
}

/* ---- for rings and mutexes ---- */

int leat__region_life(struct leat_region *r, uint32_t *ret)
{
	int e = 0;

	if (r->fd < 0) { /* no file to lock: the process id will have to do */
		*ret = (uint32_t)getpid();
		return 0;
	}
	pthread_mutex_lock(&r->lock);
	if (r->life.id && r->life.forks != leat__forks())
		r->life = (struct leat__life){0}; /* our parent's; its page is not in this process */
	if (!r->life.id)
		e = leat__life_begin(&r->life, r->fd);
	*ret = (uint32_t)r->life.id;
	pthread_mutex_unlock(&r->lock);
	return e;
}

int leat__region_life_dead(struct leat_region *r, uint32_t id)
{
	char path[32];

	if (r->fd >= 0)
		return leat__life_dead(r->fd, id);
	snprintf(path, sizeof(path), "/proc/%u", id);
	return access(path, F_OK) < 0 && errno == ENOENT;
}

int leat__map_twice(int fd, void *addr, uint64_t off, uint64_t size, int prot, uint64_t align,
		    unsigned char **ret)
{
	uint64_t room = 2 * size + (align > leat__page_size() ? align : 0);
	unsigned char *at, *raw;

	if (room > SIZE_MAX / 2)
		return too_large(size);
	raw = mmap(NULL, (size_t)room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (raw == MAP_FAILED)
		return leat__fail(-errno, "find room to map %llu bytes twice: %s",
				  (unsigned long long)size, strerror(errno));
	at = raw + (leat__align((uintptr_t)raw, align) - (uintptr_t)raw);
	for (int i = 0; i < 2; i++) {
		unsigned char *to = at + (uint64_t)i * size;
		void *p;

		if (fd >= 0)
			p = mmap(to, (size_t)size, prot, MAP_SHARED | MAP_FIXED, fd, (off_t)off);
		else
			p = mremap((char *)addr + off, 0, (size_t)size,
				   MREMAP_MAYMOVE | MREMAP_FIXED, to);
		if (p == MAP_FAILED) {
			int err = errno;

			munmap(raw, (size_t)room);
			return leat__fail(-err, "map %llu bytes twice: %s", (unsigned long long)size,
					  strerror(err));
		}
	}
	if (at > raw)
		munmap(raw, (size_t)(at - raw));
	if (raw + room > at + 2 * size)
		munmap(at + 2 * size, (size_t)(raw + room - at - 2 * size));
	*ret = at;
	return 0;
}

#define AROUND 65536

int leat__region_view(struct leat_region *r, uint64_t off, uint64_t size, unsigned char **ret)
{
	int prot = PROT_READ | (r->flags & LEAT_RDONLY ? 0 : PROT_WRITE);
	int e = 0;

	pthread_mutex_lock(&r->lock);
	if (r->view && (r->view_off != off || r->view_size != size)) {
		e = leat__say(-EBUSY, "another ring of this region is open in this process");
	} else if (!r->view) {
		e = leat__map_twice(r->fd, r->addr, off, size, prot, r->page, &r->view);
		if (e == 0) {
			r->view_off = off;
			r->view_size = size;
			/* A first touch costs microseconds: pay it now. Not for reading a little: there the
			 * kernel maps 64 KiB at a touch by itself. */
			if ((prot & PROT_WRITE) || size > AROUND)
				leat__prefault(r->view, 2 * size, prot & PROT_WRITE);
		}
	}
	if (e == 0) {
		r->views++;
		*ret = r->view;
	}
	pthread_mutex_unlock(&r->lock);
	return e;
}

void leat__region_unview(struct leat_region *r)
{
	pthread_mutex_lock(&r->lock);
	if (r->views && !--r->views) {
		munmap(r->view, (size_t)(2 * r->view_size));
		r->view = NULL;
	}
	pthread_mutex_unlock(&r->lock);
}
