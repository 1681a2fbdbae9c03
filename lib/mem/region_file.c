/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named regions: files by path, and POSIX shared memory, which on Linux is files in /dev/shm. A new
 * one is made nameless, sized, filled, and only then linked to its name: nobody ever sees half of
 * one, and a killed creator leaves nothing (where the filesystem has O_TMPFILE).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/base.h"
#include "mem/region.h"

static int path_of(char *path, size_t size, enum leat_region_kind kind, const char *name)
{
	int n = snprintf(path, size, "%s%s", kind == LEAT_POSIX ? "/dev/shm" : "", name);

	if (n < 0 || (size_t)n >= size)
		return leat__fail(-ENAMETOOLONG, "region %.40s...: its name is too long", name);
	return 0;
}

/* A nameless file beside @path; @temp takes its temporary name where there must be one. */
static int nameless(const char *path, unsigned mode, char *temp, size_t size)
{
	char dir[4096];
	char *slash;
	uint64_t dice;
	int fd;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir] = 0;
	else
		snprintf(dir, sizeof(dir), ".");
	temp[0] = 0;
	fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, mode);
	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
		return fd < 0 ? -errno : fd;
	if (getrandom(&dice, sizeof(dice), 0) != sizeof(dice))
		return -EAGAIN;
	if (snprintf(temp, size, "%s/.leat-%016llx", dir, (unsigned long long)dice) >= (int)size)
		return -ENAMETOOLONG;
	fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	return fd < 0 ? -errno : fd;
}

static int give_name(int fd, const char *temp, const char *path)
{
	char proc[48];

	if (*temp)
		return link(temp, path) < 0 ? -errno : 0;
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, proc, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

static int create(struct leat_region *r, const struct leat_region_opts *o)
{
	char path[4096], temp[4200];
	int e = path_of(path, sizeof(path), o->kind, o->name);

	if (e < 0)
		return e;
	/* Spare the work when it is there; the link below decides for good. */
	if (access(path, F_OK) == 0)
		return leat__fail(-EEXIST, "create region %s: it exists: open it, or LEAT_ATTACH", path);
	r->fd = nameless(path, o->mode, temp, sizeof(temp));
	if (r->fd < 0) {
		e = r->fd;
		r->fd = -1;
		return leat__fail(e, "create region %s: %s", path, strerror(-e));
	}
	e = fchmod(r->fd, (mode_t)o->mode) < 0 ? -errno : 0; /* whatever the umask says */
	if (e < 0)
		leat__fail(e, "create region %s: set its mode: %s", path, strerror(-e));
	if (e == 0)
		e = leat__reserve(r->fd, r->size, "create region", path);
	if (e == 0)
		e = leat__run_init(r->fd, NULL, r, o);
	if (e == 0)
		e = leat__region_map(r); /* nothing that may fail comes after the name */
	if (e == 0) {
		e = give_name(r->fd, temp, path);
		if (e < 0)
			leat__fail(e, "create region %s: %s", path, strerror(-e));
	}
	if (*temp)
		unlink(temp);
	if (e < 0) { /* who lost the race attaches to what the other made, and not to this */
		if (r->addr)
			munmap(r->addr, (size_t)r->size);
		r->addr = NULL;
		close(r->fd);
		r->fd = -1;
	}
	return e;
}

static int open_named(struct leat_region *r, const struct leat_region_opts *o)
{
	int write = !(o->flags & (LEAT_RDONLY | LEAT_PRIVATE));
	char path[4096];
	struct stat st;
	int e = path_of(path, sizeof(path), o->kind, o->name);

	if (e < 0)
		return e;
	/* O_NONBLOCK: a FIFO under this name must not hold us. */
	r->fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK |
				   (o->kind == LEAT_POSIX ? O_NOFOLLOW : 0));
	if (r->fd < 0)
		return leat__fail(-errno, "open region %s%s: %s", path,
				  write ? " for reading and writing" : "", strerror(errno));
	if (fstat(r->fd, &st) < 0)
		e = leat__fail(-errno, "open region %s: %s", path, strerror(errno));
	else if (!S_ISREG(st.st_mode))
		e = leat__fail(-EINVAL, "open region %s: not a regular file", path);
	else if (st.st_size <= 0 || (uint64_t)st.st_size < r->size)
		e = leat__fail(-EINVAL, "open region %s: it has %lld bytes, %llu were asked for", path,
			       (long long)st.st_size, (unsigned long long)r->size);
	if (e < 0) {
		close(r->fd);
		r->fd = -1;
		return e;
	}
	if (!r->size)
		r->size = (uint64_t)st.st_size;
	return 0;
}

static int unlink_kind(enum leat_region_kind kind, const char *name)
{
	char path[4096];
	int e = path_of(path, sizeof(path), kind, name);

	if (e < 0)
		return e;
	if (unlink(path) < 0)
		return leat__fail(-errno, "remove region %s: %s", path, strerror(errno));
	return 0;
}

static int unlink_posix(const char *name)
{
	if (name[0] != '/' || !name[1] || strchr(name + 1, '/'))
		return leat__fail(-EINVAL, "remove region '%s': a POSIX name has one '/', first", name);
	return unlink_kind(LEAT_POSIX, name);
}

static int unlink_file(const char *name)
{
	return unlink_kind(LEAT_FILE, name);
}

const struct leat__region_kind leat__region_posix = {create, open_named, unlink_posix};
const struct leat__region_kind leat__region_file = {create, open_named, unlink_file};
