/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Liveness by record locks of an open file description (F_OFD_SETLK). The lock belongs to the
 * description, which a page mapped through it keeps alive: closefrom() in the program does not kill
 * us, and MADV_DONTFORK keeps a child from inheriting our life.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>
#include "base/base.h"
#include "mem/life.h"

#define FIRST_BYTE (INT64_C(1) << 40) /* far beyond what anybody else would lock */

static int byte_lock(int fd, int cmd, short type, uint64_t id, struct flock64 *fl)
{
	memset(fl, 0, sizeof(*fl));
	fl->l_type = type;
	fl->l_whence = SEEK_SET;
	fl->l_start = FIRST_BYTE + (int64_t)(id & INT64_MAX >> 1);
	fl->l_len = 1;
	return fcntl(fd, cmd, fl) < 0 ? -errno : 0;
}

int leat__reopen(int fd, int flags)
{
	char path[48];
	int own;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, flags | O_CLOEXEC);
	return own < 0 ? -errno : own;
}

int leat__life_lock(int fd, uint64_t id)
{
	struct flock64 fl;
	int r = byte_lock(fd, F_OFD_SETLK, F_WRLCK, id, &fl);

	if (r == -EAGAIN || r == -EACCES)
		return leat__say(-EBUSY, "somebody alive holds this");
	if (r < 0)
		return leat__fail(r == -EINVAL ? -ENOTSUP : r, "lock byte of life %llu: %s",
				  (unsigned long long)id, strerror(-r));
	return 0;
}

int leat__life_keep(struct leat__life *life, int fd, uint64_t id)
{
	void *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);

	if (page == MAP_FAILED)
		return leat__fail(-errno, "map a page to keep a life: %s", strerror(errno));
	madvise(page, 4096, MADV_DONTFORK);
	*life = (struct leat__life){id, page, leat__forks()};
	return 0;
}

int leat__life_vacant(int fd, uint64_t id)
{
	struct flock64 fl;

	return byte_lock(fd, F_OFD_GETLK, F_WRLCK, id, &fl) == 0 && fl.l_type == F_UNLCK;
}

int leat__life_begin_at(struct leat__life *life, int fd, uint64_t id)
{
	int own = leat__reopen(fd, O_RDWR), r;

	if (own < 0)
		return leat__fail(own, "begin a life on descriptor %d: open it again: %s", fd,
				  strerror(-own));
	r = leat__life_lock(own, id);
	if (r == 0)
		r = leat__life_keep(life, own, id);
	close(own);
	return r;
}

int leat__life_begin(struct leat__life *life, int fd)
{
	int r = -EBUSY;

	for (int i = 0; i < 64 && r == -EBUSY; i++) {
		uint32_t id;

		if (getrandom(&id, sizeof(id), 0) != sizeof(id))
			return leat__fail(-EAGAIN, "no random numbers for a life");
		id &= 0x7fffffff;
		if (id)
			r = leat__life_begin_at(life, fd, id);
	}
	return r;
}

void leat__life_end(struct leat__life *life)
{
	/* In a forked child the page was never there (MADV_DONTFORK); its address may be another's. */
	if (life->page && life->forks == leat__forks())
		munmap(life->page, 4096);
	life->page = NULL;
	life->id = 0;
}

int leat__life_dead(int fd, uint64_t id)
{
	/* A fresh description: our own locks conflict with it too, so our own life reads as alive. */
	int own = leat__reopen(fd, O_RDWR), dead;

	if (own < 0)
		return 0;
	dead = leat__life_vacant(own, id);
	close(own);
	return dead;
}
