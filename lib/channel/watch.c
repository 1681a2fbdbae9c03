/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watching names. A watch has a connection of its own, on which it asks the broker for what is new; the broker answers
 * when something is. What its names looked like when they were last told of is kept, so that nothing is missed or
 * made up when everything has to be listed again: at a restarted broker, or because it was too slow.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "base/base.h"
#include "channel/channel.h"
#include <leat/watch.h>

#define GRACE_NS UINT64_C(2000000000) /* those whom a restarted broker does not know of have so long to come back */
#define AGAIN_NS UINT64_C(50000000)   /* so often one is looked for */

struct facts {
	uint32_t there, publishers, subscribers;
};

struct name {
	struct facts told, now;
	uint64_t change;  /* the number of the last one we know of */
	uint32_t listing; /* the last one that it was in */
	int doubtful;     /* known from a broker of before: nothing is told until the grace is over */
	char text[];
};

struct leat_watch {
	struct leat__node node;
	struct leat *l, *own; /* own: the connection */
	struct leat__member *member; /* of the set that it is in; NULL */
	char *prefix;
	struct name **names; /* in order */
	size_t n, room;
	enum { BEGINNING, LISTING, FOLLOWING } state;
	struct leat__errand asked;
	uint64_t object, since, instance;
	uint32_t listing;
	struct leat__page list;    /* LISTING: how far we have got */
	struct leat__packet page;       /* FOLLOWING: an answer, */
	struct leat__in in;             /* of which what comes after @at is still to be told */
	const unsigned char *at;
	int open;      /* there is such an answer */
	int walking;   /* all names are looked at, from @walk on, for what is to be told */
	size_t walk;
	int synced;
	uint64_t doubt_until; /* 0: nothing is doubtful */
	int epoll, timer;     /* -1 */
	int soon;             /* the timer makes the descriptor readable */
};

/* ---- names ---- */

/* Where @text is, or would be. */
static size_t place(const struct leat_watch *w, const char *text)
{
	size_t low = 0, high = w->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (strcmp(w->names[mid]->text, text) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static struct name *find(const struct leat_watch *w, const char *text)
{
	size_t i = place(w, text);

	return i < w->n && !strcmp(w->names[i]->text, text) ? w->names[i] : NULL;
}

static struct name *add(struct leat_watch *w, const char *text)
{
	size_t i = place(w, text), room = w->room ? w->room * 2 : 64;
	struct name *one = calloc(1, sizeof(*one) + strlen(text) + 1), **more = w->names;

	if (w->n == w->room)
		more = realloc(w->names, room * sizeof(struct name *));
	if (more && w->n == w->room) {
		w->names = more;
		w->room = room;
	}
	if (!one || !more) {
		free(one);
		leat__say(-ENOMEM, "watch: no memory for another name");
		return NULL;
	}
	strcpy(one->text, text);
	memmove(w->names + i + 1, w->names + i, (w->n - i) * sizeof(*w->names));
	w->names[i] = one;
	w->n++;
	return one;
}

/* Is there something to tell of it? Then 1, and it counts as told. */
static int tell(struct leat_watch *w, struct name *one, struct leat_event *ev)
{
	struct facts told = one->told, now = one->now;
	size_t i;

	if (one->doubtful || (told.there == now.there && told.publishers == now.publishers && told.subscribers == now.subscribers))
		return 0;
	ev->kind = !told.there ? LEAT_CAME : now.there ? LEAT_CHANGED : LEAT_GONE;
	ev->publishers = now.publishers;
	ev->subscribers = now.subscribers;
	strcpy(ev->name, one->text);
	one->told = now;
	if (!now.there) {
		i = place(w, one->text);
		free(one);
		w->n--;
		memmove(w->names + i, w->names + i + 1, (w->n - i) * sizeof(*w->names));
	}
	return 1;
}

/* Look at all of them for what is to be told. */
static void walk(struct leat_watch *w)
{
	w->walking = 1;
	w->walk = 0;
}

/* A broker that has just been started: its clients have to come back first. */
static void doubt(struct leat_watch *w)
{
	for (size_t i = 0; i < w->n; i++)
		w->names[i]->doubtful = w->names[i]->told.there != 0;
	w->doubt_until = leat__now() + GRACE_NS;
}

static void believe(struct leat_watch *w)
{
	for (size_t i = 0; i < w->n; i++)
		w->names[i]->doubtful = 0;
	w->doubt_until = 0;
	walk(w);
}

/* ---- the broker's answers ---- */

static int listed(const void *record, const char *text, void *arg)
{
	struct leat__wire_channel c;
	struct leat_watch *w = arg;
	struct name *one = find(w, text);

	memcpy(&c, record, sizeof(c));
	if (!one)
		one = add(w, text);
	if (!one)
		return -ENOMEM;
	one->now = (struct facts){1, c.publishers, c.subscribers};
	one->change = c.change;
	one->listing = w->listing;
	return 0;
}

static void list(struct leat_watch *w)
{
	w->state = LISTING;
	w->listing++;
	w->list = (struct leat__page){"", 0};
}

/* All are listed. Those that are not are gone, unless that is in doubt; then their clients may yet come back. */
static void all_listed(struct leat_watch *w)
{
	if (leat__instance(w->own) != w->instance) { /* half of it was another broker's */
		w->state = BEGINNING;
		return;
	}
	for (size_t i = 0; i < w->n; i++)
		if (w->names[i]->listing != w->listing)
			w->names[i]->now = (struct facts){0};
	w->state = FOLLOWING;
	walk(w);
}

/* One change of the page: 1 there is something to tell. */
static int follow(struct leat_watch *w, const unsigned char *record, size_t size, struct leat_event *ev)
{
	char text[LEAT__NAME_MAX + 1];
	struct leat__wire_change c;
	struct name *one;

	if (size <= sizeof(c) || size - sizeof(c) > LEAT__NAME_MAX)
		return leat__say(-EPROTO, "the broker's list of changes is malformed");
	memcpy(&c, record, sizeof(c));
	memcpy(text, record + sizeof(c), size - sizeof(c));
	text[size - sizeof(c)] = 0;
	one = find(w, text);
	if (one && c.number <= one->change)
		return 0; /* it was listed after that */
	if (!one && !c.there)
		return 0; /* it had gone before we heard of it */
	if (!one)
		one = add(w, text);
	if (!one)
		return -ENOMEM;
	one->now = c.there ? (struct facts){1, c.publishers, c.subscribers} : (struct facts){0};
	one->change = c.number;
	return tell(w, one, ev);
}

/* The next event of what has been heard: 1; 0 there is none. */
static int in_hand(struct leat_watch *w, struct leat_event *ev)
{
	size_t size, before;
	int e;

	if (w->doubt_until && leat__now() >= w->doubt_until)
		believe(w);
	while (w->walking && w->walk < w->n) {
		before = w->n;
		e = tell(w, w->names[w->walk], ev);
		w->walk += w->n == before;
		if (e)
			return 1;
	}
	w->walking = 0;
	if (!w->synced && w->state == FOLLOWING) {
		w->synced = 1;
		ev->kind = LEAT_SYNCED;
		return 1;
	}
	while (w->open) {
		const unsigned char *at = leat__wire_next(&w->in, LEAT__T_CHANGE, w->at, &size);

		w->open = at != NULL;
		if (!at)
			break;
		e = follow(w, at, size, ev);
		if (e < 0)
			w->state = BEGINNING; /* it is not known where we are: look at all anew */
		w->open = e >= 0;
		w->at = at;
		if (e)
			return e;
	}
	return 0;
}

/* ---- asking ---- */

static int begin(struct leat_watch *w, int64_t ns)
{
	struct leat__packet pkt;
	struct leat__out out;
	struct leat__in in;
	int e;

	leat__wire_begin(&out, LEAT__WATCH, 0, 0);
	leat__wire_text(&out, LEAT__T_PREFIX, w->prefix);
	e = leat__errand(w->own, &w->asked, &out, -1, &pkt, &in, ns, NULL);
	if (e < 0)
		return e;
	leat__packet_close(&pkt);
	if (w->object && w->instance == leat__instance(w->own))
		leat__request_close(w->own, w->object); /* this one goes on from it */
	w->object = in.head.object;
	e = leat__wire_get(&in, LEAT__T_SINCE, &w->since, sizeof(w->since));
	if (e < 0)
		return leat__say(-EPROTO, "the broker does not say since when it is watched");
	if (w->instance && w->instance != leat__instance(w->own))
		doubt(w);
	w->instance = leat__instance(w->own);
	list(w);
	return 0;
}

static int list_page(struct leat_watch *w, int64_t ns)
{
	static const struct leat__listing channels = {LEAT__LIST, LEAT__T_CHANNEL, sizeof(struct leat__wire_channel), listed};
	int stop = 0, e = leat__list_page(w->own, &w->asked, ns, &channels, &w->list, w->prefix, w, &stop);

	if (stop)
		list(w); /* from the beginning */
	else if (e == 0)
		all_listed(w);
	return stop ? stop : e < 0 ? e : 0;
}

static int changes(struct leat_watch *w, int64_t ns)
{
	struct leat__out out;
	size_t size;
	int e;

	leat__wire_begin(&out, LEAT__CHANGES, 0, w->object);
	leat__wire_u64(&out, LEAT__T_SINCE, w->since);
	e = leat__errand(w->own, &w->asked, &out, -1, &w->page, &w->in, ns, NULL);
	if (e == -ENOENT) /* another broker's */
		w->state = BEGINNING;
	if (e < 0)
		return e == -ENOENT ? 0 : e;
	leat__packet_close(&w->page);
	if (leat__wire_get(&w->in, LEAT__T_SINCE, &w->since, sizeof(w->since)) < 0)
		return leat__say(-EPROTO, "the broker's list of changes is malformed");
	w->at = NULL;
	w->open = leat__wire_next(&w->in, LEAT__T_CHANGE, NULL, &size) != NULL;
	if (!w->open)
		list(w); /* more than it keeps */
	return 0;
}

static int ask(struct leat_watch *w, int64_t ns)
{
	switch (w->state) {
	case BEGINNING: return begin(w, ns);
	case LISTING: return list_page(w, ns);
	default: return changes(w, ns);
	}
}

/* ---- its descriptor: an epoll of the connection, which may be another one day, and a timer ---- */

/* @ns from now; 0: never. */
static void set_timer(struct leat_watch *w, uint64_t ns)
{
	struct itimerspec at = {.it_value = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)}};

	if (w->timer >= 0)
		timerfd_settime(w->timer, 0, &at, NULL);
	w->soon = ns == 1;
}

/* Nothing is in hand: be readable when there may be something. */
static void wait_for_more(struct leat_watch *w)
{
	struct epoll_event ev = {.events = EPOLLIN};
	uint64_t now = leat__now();

	if (w->epoll < 0)
		return;
	if (w->own->sock >= 0)
		epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->own->sock, &ev); /* it may be there already */
	set_timer(w, w->own->sock < 0 ? AGAIN_NS : !w->doubt_until ? 0 : w->doubt_until > now ? w->doubt_until - now : 1);
}

static void close_descriptors(struct leat_watch *w)
{
	if (w->timer >= 0)
		close(w->timer);
	if (w->epoll >= 0)
		close(w->epoll);
	w->timer = w->epoll = -1;
}

int leat_watch_fd(struct leat_watch *w)
{
	struct epoll_event ev = {.events = EPOLLIN};

	if (w->own->gone)
		return leat__say(-ECHILD, "this watch belongs to the parent process: open another");
	if (w->epoll >= 0)
		return w->epoll;
	w->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	w->epoll = w->timer < 0 ? -1 : epoll_create1(EPOLL_CLOEXEC);
	if (w->epoll < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->timer, &ev) < 0) {
		int e = leat__fail(-errno, "descriptor of a watch: %s", strerror(errno));

		close_descriptors(w);
		return e;
	}
	set_timer(w, 1); /* look first */
	return w->epoll;
}

/* ---- the rest ---- */

/* Is the broker's death, or its trouble, the reason? That passes. */
static int is_bridged(int e)
{
	return e == -ECONNRESET || e == -EMFILE || e == -EACCES;
}

int leat_watch_next(struct leat_watch *w, struct leat_event *ret, int64_t timeout_ns)
{
	struct leat_event ev = {.struct_size = sizeof(ev)};
	uint64_t deadline = leat__deadline(timeout_ns), until, now;
	int e = leat__give(ret, &ev, sizeof(ev), "watch");

	if (e < 0)
		return e;
	for (;;) {
		e = in_hand(w, &ev);
		if (e < 0)
			return e;
		if (e) {
			if (w->epoll >= 0 && !w->soon)
				set_timer(w, 1); /* there may be more */
			return leat__give(ret, &ev, sizeof(ev), "watch");
		}
		now = leat__now();
		until = w->doubt_until ? leat__min(deadline, w->doubt_until) : deadline;
		e = ask(w, until == LEAT__NEVER ? -1 : until > now ? (int64_t)(until - now) : 0);
		if (e == 0)
			continue;
		if (e != -ETIMEDOUT && !is_bridged(e))
			return e;
		now = leat__now();
		if (now >= deadline)
			break;
		if (is_bridged(e))
			poll(NULL, 0, (int)(leat__min(AGAIN_NS, deadline - now) / 1000000) + 1);
	}
	wait_for_more(w);
	return timeout_ns ? leat__say(-ETIMEDOUT, "no event came in time") : leat__say(-EAGAIN, "no event waits");
}

int leat_watch(struct leat *l, const char *prefix, struct leat_watch **ret)
{
	struct leat_watch *w;
	int e;

	if (prefix && strlen(prefix) > LEAT__NAME_MAX)
		return leat__fail(-EINVAL, "watch: a prefix of more than %d bytes", LEAT__NAME_MAX);
	w = calloc(1, sizeof(*w));
	if (w)
		w->prefix = strdup(prefix ? prefix : "");
	if (!w || !w->prefix) {
		free(w);
		return leat__say(-ENOMEM, "watch: no memory");
	}
	w->l = l;
	w->epoll = w->timer = -1;
	leat__opened(l, &l->watches, &w->node);
	e = leat__open_at(l, &w->own);
	if (e == 0)
		e = begin(w, LEAT__REQUEST_NS);
	if (e < 0) {
		leat_watch_close(w);
		return e;
	}
	*ret = w;
	return 0;
}

void leat_watch_close(struct leat_watch *w)
{
	if (!w)
		return;
	leat__member_remove(w->member);
	leat__shut(w->l, &w->node);
	close_descriptors(w);
	if (w->own)
		leat__errand_drop(w->own, &w->asked);
	if (w->object)
		leat__request_close(w->own, w->object);
	leat_close(w->own);
	for (size_t i = 0; i < w->n; i++)
		free(w->names[i]);
	free(w->names);
	free(w->prefix);
	free(w);
}

struct leat__member **leat__watch_member(struct leat_watch *w)
{
	return &w->member;
}

void leat__watches_close(struct leat *l)
{
	while (l->watches)
		leat_watch_close(leat__container(l->watches, struct leat_watch, node));
}

void leat__watches_forked(struct leat *l)
{
	for (struct leat__node *n = l->watches; n; n = n->next)
		close_descriptors(leat__container(n, struct leat_watch, node));
}
