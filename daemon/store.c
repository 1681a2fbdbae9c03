/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's side of the keeper, and the log. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/base.h"
#include "keeper.h"
#include "store.h"

enum {
	LOG_MAGIC = 0x676f6c6c, /* "llog" */
	LOG_VERSION = 1,
	LOG_START = 4096,
	LOG_STEP = 256 * 1024,
};

static size_t padded(size_t n)
{
	return (n + 7) & ~(size_t)7;
}

/* Room for @more bytes. */
static int grow(struct store_bytes *b, size_t more)
{
	size_t room = b->room ? b->room : 256;
	unsigned char *at;

	while (room < b->n + more)
		room *= 2;
	if (room == b->room)
		return 0;
	at = realloc(b->at, room);
	if (!at)
		return leat__say(-ENOMEM, "the broker has no memory to write down what is there");
	b->at = at;
	b->room = room;
	return 0;
}

/* ---- the keeper ---- */

static int tell(const struct store *st, uint32_t what, uint32_t key, int fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {.head = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))}};
	struct keeper_packet p = {what, key};
	struct iovec iov = {&p, sizeof(p)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (st->keeper < 0)
		return 0;
	if (fd >= 0) {
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
	}
	while ((n = sendmsg(st->keeper, &m, MSG_NOSIGNAL)) < 0 && (errno == EINTR || errno == EAGAIN))
		if (errno == EAGAIN) /* it is behind */
			poll(&(struct pollfd){st->keeper, POLLOUT, 0}, 1, -1);
	return n < 0 ? leat__fail(-errno, "the broker's keeper does not take a descriptor: %s", strerror(errno)) : 0;
}

void store_ready(struct store *st)
{
	tell(st, READY, 0, -1);
}

/* What there is, until the keeper says that this was all. */
static int take_over(struct store *st, int **fds, uint32_t *n)
{
	for (;;) {
		union {
			struct cmsghdr head;
			char room[CMSG_SPACE(sizeof(int))];
		} control;
		struct keeper_packet p;
		struct iovec iov = {&p, sizeof(p)};
		struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
				   .msg_controllen = sizeof(control)};
		ssize_t size = recvmsg(st->keeper, &m, MSG_CMSG_CLOEXEC);

		if (size < 0 && errno == EINTR)
			continue;
		if (size != sizeof(p))
			return leat__fail(size < 0 ? -errno : -EPIPE, "the keeper does not say what there is");
		if (p.what == READY)
			return 0;
		if (p.what != KEEP || !CMSG_FIRSTHDR(&m))
			continue;
		if (p.key >= *n) {
			uint32_t more = p.key * 2 + 64;
			int *at = realloc(*fds, more * sizeof(*at));

			if (!at)
				return leat__say(-ENOMEM, "no memory for what there is");
			memset(at + *n, 0xff, (more - *n) * sizeof(*at));
			*fds = at;
			*n = more;
		}
		memcpy(&(*fds)[p.key], CMSG_DATA(&control.head), sizeof(int));
	}
}

static int take_key(struct store *st, uint32_t key)
{
	struct store_bytes *t = &st->taken;

	if (key >= t->n) {
		int e = grow(t, key + 1 - t->n);

		if (e < 0)
			return e;
		memset(t->at + t->n, 0, key + 1 - t->n);
		t->n = key + 1;
	}
	t->at[key] = 1;
	return 0;
}

int store_keep(struct store *st, int fd, uint32_t *key)
{
	uint32_t k = *key;
	int e;

	if (!st)
		return 0;
	if (k == STORE_NONE)
		for (k = st->first_free; k < st->taken.n && st->taken.at[k];)
			k++;
	e = take_key(st, k);
	if (e == 0)
		e = tell(st, KEEP, k, fd);
	if (e < 0)
		return e;
	if (*key == STORE_NONE)
		st->first_free = k + 1;
	*key = k;
	return 0;
}

void store_drop(struct store *st, uint32_t key)
{
	if (!st || key == STORE_NONE || grow(&st->drops, sizeof(key)) < 0)
		return; /* without memory: it stays */
	memcpy(st->drops.at + st->drops.n, &key, sizeof(key));
	st->drops.n += sizeof(key);
}

static void drop_all(struct store *st)
{
	for (size_t i = 0; i < st->drops.n; i += sizeof(uint32_t)) {
		uint32_t key;

		memcpy(&key, st->drops.at + i, sizeof(key));
		tell(st, DROP, key, -1);
		if (key < st->taken.n)
			st->taken.at[key] = 0;
		if (key >= STORE_FREE && key < st->first_free)
			st->first_free = key;
	}
	st->drops.n = 0;
}

/* ---- the log ---- */

static int map_log(struct store *st, int fd)
{
	struct store_head *head = mmap(NULL, LOG_START, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (head == MAP_FAILED)
		return leat__fail(-errno, "map the broker's log: %s", strerror(errno));
	st->head = head;
	st->log = fd;
	st->tidy_at = 4 * LOG_STEP;
	return 0;
}

static int new_log(struct store *st)
{
	int fd = memfd_create("leat-log", MFD_CLOEXEC), e;

	if (fd < 0)
		return leat__fail(-errno, "make the broker's log: %s", strerror(errno));
	e = posix_fallocate(fd, 0, LOG_STEP);
	e = e ? leat__fail(-e, "make the broker's log: %s", strerror(e)) : map_log(st, fd);
	if (e < 0) {
		close(fd);
		return e;
	}
	st->room = LOG_STEP;
	*st->head = (struct store_head){.magic = LOG_MAGIC, .version = LOG_VERSION, .end = LOG_START,
					.touched = STORE_NONE};
	return 0;
}

static void close_log(struct store_head *head, int fd)
{
	munmap(head, LOG_START);
	close(fd);
}

static int old_log(struct store *st, int fd)
{
	struct stat s;

	if (fstat(fd, &s) < 0 || s.st_size < LOG_START)
		return leat__say(-EBADMSG, "the broker's log is no log");
	st->room = (uint64_t)s.st_size;
	return map_log(st, fd);
}

int store_open(struct store *st, int keeper, int **ret_fds, uint32_t *ret_n)
{
	int e = 0, there;

	*st = (struct store){.keeper = keeper, .log = -1, .first_free = STORE_FREE};
	*ret_fds = NULL;
	*ret_n = 0;
	if (keeper >= 0)
		e = take_over(st, ret_fds, ret_n);
	for (uint32_t i = 0; e == 0 && i < *ret_n; i++)
		if ((*ret_fds)[i] >= 0)
			e = take_key(st, i);
	if (e < 0)
		return e;
	there = *ret_n && (*ret_fds)[STORE_LOG] >= 0;
	if (there)
		return old_log(st, (*ret_fds)[STORE_LOG]) < 0 ? -EBADMSG : 1;
	e = new_log(st);
	if (e == 0)
		e = store_keep(st, st->log, &(uint32_t){STORE_LOG});
	return e;
}

void store_close(struct store *st)
{
	if (st->head)
		close_log(st->head, st->log);
	free(st->pending.at);
	free(st->taken.at);
	free(st->drops.at);
	*st = (struct store){.keeper = -1, .log = -1};
}

void store_put(struct store *st, uint32_t type, uint64_t a, uint64_t b, const void *data, size_t size, const void *text,
	       size_t text_size)
{
	struct store_record r = {type, (uint32_t)(size + text_size), a, b};
	size_t all = sizeof(r) + padded(r.size);
	unsigned char *at;

	if (!st || !st->head)
		return;
	if (grow(&st->pending, all) < 0) {
		st->broken = 1;
		return;
	}
	at = st->pending.at + st->pending.n;
	memset(at + all - 8, 0, 8);
	memcpy(at, &r, sizeof(r));
	if (size)
		memcpy(at + sizeof(r), data, size);
	if (text_size)
		memcpy(at + sizeof(r) + size, text, text_size);
	st->pending.n += all;
}

void store_del(struct store *st, uint32_t type, uint64_t a, uint64_t b)
{
	store_put(st, type, a, b, NULL, 0, NULL, 0);
}

int store_waits(const struct store *st)
{
	return st->pending.n > 0;
}

static int write_log(struct store *st)
{
	uint64_t at = st->head->end, end = at + st->pending.n;
	size_t done = 0;

	if (end > st->room) {
		uint64_t room = (end + LOG_STEP) / LOG_STEP * LOG_STEP;

		if (posix_fallocate(st->log, 0, (off_t)room))
			return -ENOSPC;
		st->room = room;
	}
	while (done < st->pending.n) {
		ssize_t n = pwrite(st->log, st->pending.at + done, st->pending.n - done, (off_t)(at + done));

		if (n < 0 && errno != EINTR)
			return -errno;
		done += n > 0 ? (size_t)n : 0;
	}
	__atomic_store_n(&st->head->end, end, __ATOMIC_RELEASE); /* now it counts */
	st->pending.n = 0;
	return 0;
}

void store_commit(struct store *st)
{
	if (!st || !st->head)
		return;
	/* No room: what waits goes with the next, and what it drops is kept until then. */
	if (st->pending.n && (st->broken || write_log(st) < 0))
		return;
	drop_all(st);
}

void store_tidy(struct store *st, void (*put)(void *), void *arg)
{
	struct store old = *st;

	if (!st->head || (!st->broken && st->head->end < st->tidy_at))
		return;
	if (new_log(st) < 0) {
		*st = old;
		return;
	}
	st->broken = 0;
	st->pending.n = 0; /* it is in what there is */
	put(arg);
	st->head->client = old.head->client;
	st->head->serial = old.head->serial;
	st->head->tries = old.head->tries;
	st->head->touched = old.head->touched;
	/* All or nothing: the old one is good until the keeper has the new one. */
	if (st->broken || write_log(st) < 0 || tell(st, KEEP, STORE_LOG, st->log) < 0) {
		close_log(st->head, st->log);
		st->head = old.head;
		st->log = old.log;
		st->room = old.room;
		st->tidy_at = st->head->end * 2;
		st->pending.n = 0;
		st->broken = 1; /* what waited is lost */
		return;
	}
	close_log(old.head, old.log);
	st->tidy_at = st->head->end * 4 > 4 * LOG_STEP ? st->head->end * 4 : 4 * LOG_STEP;
	drop_all(st);
}

void store_touch(struct store *st, uint32_t key)
{
	if (!st || !st->head || st->head->touched == key)
		return;
	store_commit(st);
	st->head->touched = key;
}

/* ---- reading it ---- */

static uint64_t hash_of(const struct store_record *r)
{
	uint64_t h = (r->a * 0x9e3779b97f4a7c15u) ^ (r->b * 0xc2b2ae3d27d4eb4fu) ^ r->type;

	return h ^ h >> 29;
}

static int same_name(const struct store_record *x, const struct store_record *y)
{
	return x->type == y->type && x->a == y->a && x->b == y->b;
}

struct named {
	const struct store_record *first, *last;
};

static int by_type(const void *x, const void *y)
{
	const struct named *a = x, *b = y;

	if (a->first->type != b->first->type)
		return a->first->type < b->first->type ? -1 : 1;
	return a->first < b->first ? -1 : a->first > b->first;
}

/* The record at @at, which is aligned; NULL: it is not whole. */
static const struct store_record *record_at(const unsigned char *log, size_t size, size_t at)
{
	const struct store_record *r = (const void *)(log + at);

	if (size - at < sizeof(*r) || r->size > size - at - sizeof(*r) || padded(r->size) > size - at - sizeof(*r))
		return NULL;
	return r;
}

int store_read(const unsigned char *log, size_t size, const struct store_record ***ret)
{
	const struct store_record **list, *r;
	size_t n = 0, slots = 16, k = 0, at;
	struct named *table;

	if (size < LOG_START || size % 8 || ((const struct store_head *)(const void *)log)->magic != LOG_MAGIC ||
	    ((const struct store_head *)(const void *)log)->version != LOG_VERSION)
		return leat__say(-EBADMSG, "the broker's log is of another kind");
	for (at = LOG_START; at < size && (r = record_at(log, size, at)); n++)
		at += sizeof(*r) + padded(r->size);
	if (at != size)
		return leat__say(-EBADMSG, "the broker's log is cut off");
	while (slots < 2 * n)
		slots *= 2;
	table = calloc(slots, sizeof(*table));
	list = calloc(n + 1, sizeof(*list));
	if (!table || !list) {
		free(table);
		free(list);
		return leat__say(-ENOMEM, "no memory to read the broker's log");
	}
	for (at = LOG_START; at < size && (r = record_at(log, size, at)); at += sizeof(*r) + padded(r->size)) {
		struct named *slot;
		size_t i;

		for (i = hash_of(r) & (slots - 1); table[i].first && !same_name(table[i].first, r);)
			i = (i + 1) & (slots - 1);
		slot = &table[i];
		if (!slot->first || !slot->last->size)
			slot->first = r;
		slot->last = r;
	}
	for (size_t i = 0; i < slots; i++)
		if (table[i].first && table[i].last->size)
			table[k++] = table[i];
	qsort(table, k, sizeof(*table), by_type);
	for (size_t i = 0; i < k; i++)
		list[i] = table[i].last;
	free(table);
	*ret = list;
	return (int)k;
}
