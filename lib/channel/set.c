/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting on many. A few subscribers (and workers, servers, clients, which are such) are looked at and slept on
 * directly: all their bells at once. With descriptors among them, or with many, an epoll has their descriptors, and
 * helper threads turn the bells into those (poll.c); looking at each of a thousand would cost more than that.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "base/base.h"
#include "channel/channel.h"
#include "channel/rpc.h"
#include <leat/set.h>

#define SLICE_NS UINT64_C(100000000) /* then the bells are other ones, perhaps */
enum { DIRECT = LEAT__WAITV_MAX / LEAT__BELLS }; /* members that are slept on directly */
enum { AT_ONCE = 64 };                           /* that an epoll tells of at once */

struct leat__member {
	struct leat_set *set;
	struct leat_sub *s;      /* or */
	struct leat_watch *w;    /* or */
	int fd;
	struct leat__member **back; /* where its owner knows it by; NULL: a descriptor's */
	const void *what;
	void *data;
	uint32_t events;
	size_t at; /* in the set's members */
};

struct leat_set {
	struct leat__handle handle;
	struct leat__member **members;
	size_t n, room;
	size_t turn; /* where looking begins */
	int epoll;
	int by_epoll;
	int gone;
	struct leat__spin spin;
};

/* ---- members ---- */

static void forked(struct leat__handle *h)
{
	struct leat_set *set = leat__container(h, struct leat_set, handle);

	set->gone = 1;
	close(set->epoll);
	set->epoll = -1;
}

int leat_set_open(struct leat_set **ret)
{
	struct leat_set *set = calloc(1, sizeof(*set));

	if (!set)
		return leat__say(-ENOMEM, "open set: no memory");
	set->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (set->epoll < 0) {
		int e = leat__fail(-errno, "open set: epoll: %s", strerror(errno));

		free(set);
		return e;
	}
	leat__spin_init(&set->spin, 0);
	leat__handle_add(&set->handle, forked);
	*ret = set;
	return 0;
}

/* @m's descriptor, to which the epoll listens from now on. */
static int listen_to(struct leat_set *set, struct leat__member *m)
{
	struct epoll_event ev = {.events = m->events, .data.ptr = m};

	if (m->s || m->w)
		m->fd = m->s ? leat_sub_fd(m->s) : leat_watch_fd(m->w);
	if (m->fd < 0)
		return m->fd;
	if (epoll_ctl(set->epoll, EPOLL_CTL_ADD, m->fd, &ev) == 0)
		return 0;
	return leat__fail(-errno, "set: wait for descriptor %d: %s", m->fd, strerror(errno));
}

static void remove_member(struct leat__member *m)
{
	struct leat_set *set = m->set;

	if (set->by_epoll && set->epoll >= 0)
		epoll_ctl(set->epoll, EPOLL_CTL_DEL, m->fd, NULL);
	set->members[m->at] = set->members[--set->n];
	set->members[m->at]->at = m->at;
	if (m->back)
		*m->back = NULL;
	free(m);
}

/* From now on by epoll: it may have to be told of all. */
static int go_by_epoll(struct leat_set *set, size_t known)
{
	for (size_t i = known; i < set->n; i++) {
		int e = listen_to(set, set->members[i]);

		if (e < 0) {
			while (i-- > known)
				epoll_ctl(set->epoll, EPOLL_CTL_DEL, set->members[i]->fd, NULL);
			return e;
		}
	}
	set->by_epoll = 1;
	return 0;
}

static int add(struct leat_set *set, const struct leat__member *like)
{
	size_t known = set->by_epoll ? set->n : 0;
	struct leat__member *m, **more;
	int e;

	if (set->gone)
		return leat__say(-ECHILD, "this set belongs to the parent process: open another");
	if (like->back && *like->back)
		return leat__say(-EEXIST, "add to a set: it is in one already");
	if (set->n == set->room) {
		more = realloc(set->members, (set->room * 2 + 8) * sizeof(struct leat__member *));
		if (!more)
			return leat__say(-ENOMEM, "add to a set: no memory");
		set->members = more;
		set->room = set->room * 2 + 8;
	}
	m = malloc(sizeof(*m));
	if (!m)
		return leat__say(-ENOMEM, "add to a set: no memory");
	*m = *like;
	m->set = set;
	m->at = set->n;
	set->members[set->n++] = m;
	if (set->by_epoll || !m->s || set->n > DIRECT) {
		e = go_by_epoll(set, known);
		if (e < 0) {
			set->n--;
			free(m);
			return e;
		}
	}
	if (m->back)
		*m->back = m;
	return 0;
}

static int add_sub(struct leat_set *set, struct leat_sub *s, const void *what, void *data)
{
	struct leat__member m = {.s = s, .back = &s->member, .what = what, .data = data, .events = EPOLLIN};

	if (!s->l)
		return leat__say(-ENOTSUP, "a ring by hand cannot be in a set: wait in leat_recv()");
	if (s->gone)
		return leat__say(-ECHILD, "add to a set: it belongs to the parent process");
	return add(set, &m);
}

int leat_set_add_sub(struct leat_set *set, struct leat_sub *s, void *data)
{
	return add_sub(set, s, s, data);
}

int leat_set_add_queue(struct leat_set *set, struct leat_queue *q, void *data)
{
	return add_sub(set, leat__queue_sub(q), q, data);
}

int leat_set_add_server(struct leat_set *set, struct leat_server *s, void *data)
{
	return add_sub(set, s->s, s, data);
}

int leat_set_add_client(struct leat_set *set, struct leat_client *c, void *data)
{
	return add_sub(set, c->s, c, data);
}

int leat_set_add_watch(struct leat_set *set, struct leat_watch *w, void *data)
{
	struct leat__member m = {.w = w, .back = leat__watch_member(w), .what = w, .data = data, .events = EPOLLIN};

	return add(set, &m);
}

int leat_set_add_fd(struct leat_set *set, int fd, uint32_t events, void *data)
{
	struct leat__member m = {.fd = fd, .data = data, .events = events};

	if (events & ~(uint32_t)(EPOLLIN | EPOLLOUT))
		return leat__fail(-EINVAL, "add to a set: events 0x%x are not POLLIN or POLLOUT", events);
	return add(set, &m);
}

static int remove_found(struct leat_set *set, const void *what, int fd)
{
	for (size_t i = 0; i < set->n; i++)
		if (what ? set->members[i]->what == what : !set->members[i]->what && set->members[i]->fd == fd) {
			remove_member(set->members[i]);
			return 0;
		}
	return leat__say(-ENOENT, "take out of a set: it is not in it");
}

int leat_set_remove(struct leat_set *set, const void *member)
{
	return member ? remove_found(set, member, -1) : leat__say(-ENOENT, "take out of a set: NULL is not in it");
}

int leat_set_remove_fd(struct leat_set *set, int fd)
{
	return remove_found(set, NULL, fd);
}

void leat__member_remove(struct leat__member *m)
{
	if (m)
		remove_member(m);
}

void leat_set_close(struct leat_set *set)
{
	if (!set)
		return;
	while (set->n)
		remove_member(set->members[set->n - 1]);
	if (!set->gone) {
		leat__handle_remove(&set->handle);
		close(set->epoll);
	}
	free(set->members);
	free(set);
}

/* ---- waiting ---- */

static int is_ready(const struct leat__member *m)
{
	return m->s->queue ? leat__queue_ready(m->s->queue) : leat__sub_ready(m->s);
}

static int any_ready(void *arg)
{
	struct leat_set *set = arg;

	for (size_t i = 0; i < set->n; i++)
		if (is_ready(set->members[i]))
			return 1;
	return 0;
}

/* Who is, from the one after the last that was told. */
static int look(struct leat_set *set, struct leat_ready *ret, int max)
{
	size_t first = set->turn % set->n;
	int got = 0;

	for (size_t k = 0; k < set->n && got < max; k++) {
		struct leat__member *m = set->members[(first + k) % set->n];

		if (!is_ready(m))
			continue;
		ret[got++] = (struct leat_ready){m->data, EPOLLIN};
		set->turn = m->at + 1;
	}
	return got;
}

/* Sleep on all their bells. */
static int sleep_on_bells(struct leat_set *set, uint64_t deadline)
{
	uint32_t *bells[DIRECT * LEAT__BELLS];
	unsigned n = 0;
	int e;

	for (size_t i = 0; i < set->n; i++) {
		struct leat_sub *s = set->members[i]->s;

		if (s->queue && s->pollable)
			leat__pollable_disarm(s); /* it waits in our way now */
		n += s->queue ? leat__queue_listen(s->queue, bells + n) : leat__sub_bells(s, bells + n);
	}
	e = leat__bells_wait(bells, n, &set->spin, any_ready, set, leat__min(deadline, leat__now() + SLICE_NS));
	for (size_t i = 0; i < set->n; i++)
		if (set->members[i]->s->queue)
			leat__queue_hush(set->members[i]->s->queue);
	return e;
}

static int wait_for_events(struct leat_set *set, struct leat_ready *ret, int max, uint64_t deadline)
{
	struct epoll_event evs[AT_ONCE];
	uint64_t now = deadline ? leat__now() : 0;
	uint64_t ms = now < deadline ? (leat__min(deadline - now, SLICE_NS * 10) + 999999) / 1000000 : 0;
	int n = epoll_wait(set->epoll, evs, max < AT_ONCE ? max : AT_ONCE, (int)ms);

	for (int i = 0; i < n; i++) {
		struct leat__member *m = evs[i].data.ptr;

		ret[i] = (struct leat_ready){m->data, evs[i].events};
	}
	return n < 0 && errno != EINTR ? leat__fail(-errno, "wait on a set: %s", strerror(errno)) : n < 0 ? 0 : n;
}

int leat_set_wait(struct leat_set *set, struct leat_ready *ret, int max, int64_t timeout_ns)
{
	uint64_t deadline = timeout_ns ? leat__deadline(timeout_ns) : 0;

	if (set->gone)
		return leat__say(-ECHILD, "this set belongs to the parent process: open another");
	if (max < 1)
		return leat__fail(-EINVAL, "wait on a set: room for %d", max);
	if (!set->n)
		return leat__say(-ENOENT, "wait on a set: there is nothing in it");
	for (;;) {
		int n = set->by_epoll ? wait_for_events(set, ret, max, deadline) : look(set, ret, max);

		if (n)
			return n;
		if (!timeout_ns)
			return leat__say(-EAGAIN, "nothing in the set is ready");
		if (leat__now() >= deadline)
			return leat__say(-ETIMEDOUT, "nothing in the set was ready in time");
		if (!set->by_epoll)
			sleep_on_bells(set, deadline);
	}
}
