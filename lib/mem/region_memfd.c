/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memfd regions: no name, gone with the last descriptor and mapping, sealable. Channels use them.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/base.h"
#include "mem/region.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

int leat__run_init(int fd, void *addr, const struct leat_region *r, const struct leat_region_opts *o)
{
	void *p = addr;
	int e;

	if (!o->init)
		return 0;
	if (!p) {
		p = mmap(NULL, (size_t)r->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (p == MAP_FAILED)
			return leat__fail(-errno, "map a new region to initialise it: %s",
					  strerror(errno));
	}
	e = o->init(p, r->size, o->init_arg);
	if (!addr)
		munmap(p, (size_t)r->size);
	return e;
}

static int memfd_new(const char *name, unsigned flags)
{
	unsigned f = MFD_CLOEXEC | MFD_ALLOW_SEALING | (flags & LEAT_HUGE ? MFD_HUGETLB : 0);
	int fd = memfd_create(name, f | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create(name, f);
	return fd;
}

static int create(struct leat_region *r, const struct leat_region_opts *o)
{
	const char *name = o->name ? o->name : "leat";
	int e;

	r->fd = memfd_new(name, o->flags);
	if (r->fd < 0)
		return leat__fail(-errno, "create memfd %s: %s", name, strerror(errno));
	/* A memfd is 0666 by birth: whoever sees it in /proc could open it for writing. */
	if (fchmod(r->fd, (mode_t)o->mode) < 0)
		return leat__fail(-errno, "set the mode of memfd %s: %s", name, strerror(errno));
	e = leat__reserve(r->fd, r->size, "create memfd", name);
	if (e < 0)
		return e;
	if (fcntl(r->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		return leat__fail(-errno, "seal the size of memfd %s: %s", name, strerror(errno));
	return leat__run_init(r->fd, NULL, r, o);
}

static int open_fd(struct leat_region *r, const struct leat_region_opts *o)
{
	struct stat st;

	if (fstat(o->fd, &st) < 0)
		return leat__fail(-errno, "open memfd region: descriptor %d: %s", o->fd,
				  strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size <= 0 || (uint64_t)st.st_size < r->size)
		return leat__fail(-EINVAL, "open memfd region: descriptor %d has %lld bytes, not %llu",
				  o->fd, (long long)st.st_size, (unsigned long long)r->size);
	r->fd = fcntl(o->fd, F_DUPFD_CLOEXEC, 3);
	if (r->fd < 0)
		return leat__fail(-errno, "open memfd region: duplicate descriptor %d: %s", o->fd,
				  strerror(errno));
	if (!r->size)
		r->size = (uint64_t)st.st_size;
	return 0;
}

const struct leat__region_kind leat__region_memfd = {create, open_fd, NULL};

int leat__seal_ring(int fd)
{
	/* After this nobody writes it but through mappings that exist: the publisher's. */
	if (fcntl(fd, F_ADD_SEALS,
		  F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0)
		return leat__fail(-errno, "seal a ring: %s (Linux 5.1 or newer is needed)",
				  strerror(errno));
	return 0;
}

int leat__seal_control(int fd)
{
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return leat__fail(-errno, "seal a control region: %s", strerror(errno));
	return 0;
}
