/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_MEM_REGION_H
#define LEAT_MEM_REGION_H
/* What the kinds of region share, and what rings and mutexes need of a region. */
#include <pthread.h>
#include <leat/region.h>
#include "mem/life.h"

struct leat_region {
	enum leat_region_kind kind;
	unsigned flags;
	void *addr;
	uint64_t size;
	uint64_t page; /* bytes of one page of the mapping */
	int fd;        /* -1: none */
	int id;        /* SYSV */
	int remove;    /* SYSV: remove on close */
	unsigned forks;
	/* one life per handle, begun when first needed */
	pthread_mutex_t lock;
	struct leat__life life;
	/* the double mapping of a ring in it, shared by all handles on it in this process */
	unsigned char *view;
	uint64_t view_off, view_size;
	unsigned views;
};

/* One kind of region. Each fills in @r->fd or @r->addr for a request checked beforehand. */
struct leat__region_kind {
	/* make the object, of r->size bytes, space reserved; run init before its name appears */
	int (*create)(struct leat_region *r, const struct leat_region_opts *o);
	/* find the object; set r->size to its size */
	int (*open)(struct leat_region *r, const struct leat_region_opts *o);
	int (*unlink)(const char *name);
};
extern const struct leat__region_kind leat__region_memfd, leat__region_posix, leat__region_file,
	leat__region_anon, leat__region_sysv;

/* Map what create() or open() found, as r->flags say; once. */
int leat__region_map(struct leat_region *r);
/* Reserve @size bytes of the file behind @fd: no signal, no half. -ENOSPC, -EFBIG, -ENOMEM, ... */
int leat__reserve(int fd, uint64_t size, const char *what, const char *name);
/* Would @size bytes of memory still fit (cgroup, MemAvailable)? -ENOMEM naming the limit. */
int leat__memory_room(uint64_t size, const char *what);
/* The tightest of the limits on memory now: bytes, and its name. */
uint64_t leat__memory_available(const char **limit);
int leat__run_init(int fd, void *addr, const struct leat_region *r,
		   const struct leat_region_opts *o);
/* Touch every page of a mapping, of reserved space, at a fraction of what touching costs later. */
int leat__prefault(void *addr, uint64_t size, int write);
uint64_t leat__page_size(void);
uint64_t leat__huge_size(void);

/* Seal a memfd as a channel's ring must be: its mapping made before stays writable, nothing else. */
int leat__seal_ring(int fd);
/* The same for a control region: no resizing, writable by all. */
int leat__seal_control(int fd);

/* This process's life on the region, begun at the first call. @ret: 1 .. 2^31-1. */
int leat__region_life(struct leat_region *r, uint32_t *ret);
int leat__region_life_dead(struct leat_region *r, uint32_t id);

/* [off, off+size) mapped twice back to back; counted, one per region. */
int leat__region_view(struct leat_region *r, uint64_t off, uint64_t size, unsigned char **ret);
void leat__region_unview(struct leat_region *r);

/* The mapping itself, by descriptor or, without one, of the same pages as @addr. */
int leat__map_twice(int fd, void *addr, uint64_t off, uint64_t size, int prot, uint64_t align,
		    unsigned char **ret);

#endif
