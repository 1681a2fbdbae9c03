/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct leat: finding a broker, opening and closing a domain, and the list of everything open, which a
 * forked child walks to let go.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/base.h"
#include "channel/channel.h"
#include "channel/rpc.h"
#include <leat/share.h>

/* ---- fork ---- */

static pthread_mutex_t handles_lock = PTHREAD_MUTEX_INITIALIZER;
static struct leat__node *handles;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void fork_prepare(void)
{
	pthread_mutex_lock(&handles_lock);
}

static void fork_parent(void)
{
	pthread_mutex_unlock(&handles_lock);
}

static void fork_child(void)
{
	/* Our maps are not in this process (MADV_DONTFORK): nothing may touch them again. */
	for (struct leat__node *n = handles; n; n = n->next) {
		struct leat__handle *h = leat__container(n, struct leat__handle, node);

		h->forked(h);
	}
	handles = NULL;
	pthread_mutex_init(&handles_lock, NULL);
}

static void fork_watch(void)
{
	pthread_atfork(fork_prepare, fork_parent, fork_child);
}

static void add(pthread_mutex_t *lock, struct leat__node **list, struct leat__node *n)
{
	pthread_mutex_lock(lock);
	n->at = list;
	n->next = *list;
	if (n->next)
		n->next->at = &n->next;
	leat__store_relaxed(list, n); /* is there any? may be asked without the lock */
	pthread_mutex_unlock(lock);
}

static void drop(pthread_mutex_t *lock, struct leat__node *n)
{
	pthread_mutex_lock(lock);
	leat__store_relaxed(n->at, n->next);
	if (n->next)
		n->next->at = n->at;
	pthread_mutex_unlock(lock);
}

void leat__handle_add(struct leat__handle *h, void (*forked)(struct leat__handle *h))
{
	pthread_once(&fork_once, fork_watch);
	h->forked = forked;
	add(&handles_lock, &handles, &h->node);
}

void leat__handle_remove(struct leat__handle *h)
{
	drop(&handles_lock, &h->node);
}

void leat__opened(struct leat *l, struct leat__node **list, struct leat__node *n)
{
	add(&l->list_lock, list, n);
}

void leat__shut(struct leat *l, struct leat__node *n)
{
	drop(&l->list_lock, n);
}

static void domain_forked(struct leat__handle *h)
{
	struct leat *l = leat__container(h, struct leat, handle);

	leat__disconnect(l);
	l->gone = 1;
	for (struct leat__tie *t = l->ties; t; t = t->next) {
		if (t->lives >= 0)
			close(t->lives);
		t->lives = -1;
	}
	for (struct leat__node *n = l->shares; n; n = n->next) {
		struct leat_share *s = leat__container(n, struct leat_share, node);

		close(s->fd);
		s->fd = -1;
	}
	leat__watches_forked(l);
	/* Another thread may have held it: nobody will let go of it in this process. */
	pthread_mutex_init(&l->list_lock, NULL);
	pthread_mutex_init(&l->lock, NULL);
	leat__pollers_forked(l);
}

/* ---- open, close ---- */

enum { TICKETS_MOST = 3000 };

static int nobody_there(int e)
{
	return e == -ENOENT || e == -ECONNREFUSED || e == -ECONNRESET;
}

static int may_start(const char *domain)
{
	const char *off = getenv("LEAT_AUTOSTART");

	return !domain && !getauxval(AT_SECURE) && !(off && !strcmp(off, "0"));
}

static int say_no_broker(int e, const char *tried, int start)
{
	char why[256];

	snprintf(why, sizeof(why), "%s", leat_why());
	if (start)
		return leat__fail(e, "no broker at %s and none could be started (%s): run leatd", tried, why);
	if (geteuid() != 0 && !strncmp(tried, "/run/leat/", 10))
		return leat__fail(e, "no broker at %s (%s): without $XDG_RUNTIME_DIR there is no place for "
				     "one of your own: set $LEAT_BROKER to a path and run leatd",
				  tried, why);
	return leat__fail(e, "no broker at %s (%s): run leatd --domain %s", tried, why, tried);
}

static int find_broker(struct leat *l, const char *domain)
{
	char path[108], first[108] = "";
	int named = 0, e = -ENOENT;

	for (unsigned n = 0; (named = leat__sock_place(domain, n, path, sizeof(path))) >= 0; n++) {
		if (!*first)
			strcpy(first, path);
		e = leat__connect(l, path);
		if (e == 0)
			return 0;
		if (named)
			return nobody_there(e) ? say_no_broker(e, path, 0) : e;
		/* Root's own domain is closed to others: as good as none. */
		if (!nobody_there(e) && !(e == -EACCES && !strncmp(path, "/run/leat/", 10)))
			return e;
	}
	if (!*first)
		return named;
	if (!may_start(domain) || (geteuid() != 0 && !strncmp(first, "/run/leat/", 10)))
		return say_no_broker(e, first, 0);
	/* One that is just leaving may still take a connection and drop it: once more, then. */
	for (int i = 0; i < 5; i++) {
		e = leat__start_broker(first);
		if (e < 0)
			return say_no_broker(e, first, 1);
		e = leat__connect(l, first);
		/* Root's own domain is closed to others: as good as none. */
		if (!nobody_there(e) && !(e == -EACCES && !strncmp(path, "/run/leat/", 10)))
			return e;
	}
	return say_no_broker(e, first, 1);
}

/* What we are to show to brokers: as it is now, under set-uid nothing. */
static int find_tickets(struct leat *l)
{
	const char *text = secure_getenv("LEAT_TICKET");

	if (!text || !*text)
		return 0;
	if (strlen(text) > TICKETS_MOST)
		return leat__fail(-EINVAL, "open domain: $LEAT_TICKET has %zu bytes: at most %d (four tickets)", strlen(text), TICKETS_MOST);
	l->tickets = strdup(text);
	return l->tickets ? 0 : leat__say(-ENOMEM, "open domain: no memory");
}

/* At @path, or where find_broker() looks. */
static int open_domain(const char *path, const char *domain, struct leat **ret)
{
	struct leat *l = calloc(1, sizeof(*l));
	int e;

	if (!l)
		return leat__say(-ENOMEM, "open domain: no memory");
	l->sock = -1;
	pthread_mutex_init(&l->lock, NULL);
	pthread_mutex_init(&l->list_lock, NULL);
	e = find_tickets(l);
	if (e == 0)
		e = path ? leat__connect(l, path) : find_broker(l, domain);
	if (e < 0) {
		leat__ties_free(l);
		free(l->tickets);
		free(l);
		return e;
	}
	leat__handle_add(&l->handle, domain_forked);
	*ret = l;
	return 0;
}

int leat_open(const char *domain, struct leat **ret)
{
	if (domain && !*domain)
		return leat__say(-EINVAL, "open domain '': give a socket's path, or NULL");
	return open_domain(NULL, domain, ret);
}

int leat__open_at(struct leat *l, struct leat **ret)
{
	if (l->gone)
		return leat__say(-ECHILD, "this struct leat belongs to the parent process: open another");
	return open_domain(l->path, NULL, ret);
}

void leat_close(struct leat *l)
{
	if (!l)
		return;
	while (l->servers)
		leat_serve_close(leat__container(l->servers, struct leat_server, node));
	while (l->clients)
		leat_client_close(leat__container(l->clients, struct leat_client, node));
	leat__watches_close(l);
	while (l->shares)
		leat_region_unshare(leat__container(l->shares, struct leat_share, node));
	while (l->subs) /* a worker's may have a publisher of its own */
		leat_sub_close(leat__container(l->subs, struct leat_sub, node));
	while (l->pubs)
		leat_pub_close(leat__container(l->pubs, struct leat_pub, node));
	leat__pollers_end(l);
	if (!l->gone)
		leat__handle_remove(&l->handle);
	leat__disconnect(l);
	leat__ties_free(l);
	pthread_mutex_destroy(&l->lock);
	pthread_mutex_destroy(&l->list_lock);
	free(l->tickets);
	free(l);
}

const char *leat_domain(const struct leat *l)
{
	return l->path;
}

int leat_fd(const struct leat *l)
{
	if (l->sock < 0)
		return leat__fail(-ECONNRESET, "the broker of %s is gone", l->path);
	return l->sock;
}

int leat_dispatch(struct leat *l)
{
	int heard = leat__hear(l), served = leat__servers_dispatch(l);

	leat__tend(l); /* there may be another broker */
	return heard < 0 ? heard : heard + served;
}

int leat_ping(struct leat *l, uint64_t *ret_ns)
{
	uint64_t start = leat__now();
	struct leat__packet p;
	struct leat__out o;
	struct leat__in in;
	int e;

	leat__wire_begin(&o, LEAT__PING, 0, 0);
	e = leat__request(l, &o, -1, &p, &in);
	if (e < 0)
		return e;
	leat__packet_close(&p);
	if (ret_ns)
		*ret_ns = leat__now() - start;
	return 0;
}

/* ---- what publishers and subscribers share ---- */

void leat__settle_region(struct leat_region *r)
{
	madvise(r->addr, (size_t)r->size, MADV_DONTFORK);
	if (r->view)
		madvise(r->view, (size_t)(2 * r->view_size), MADV_DONTFORK);
	close(r->fd);
	r->fd = -1;
}

static int map_packet(struct leat__packet *p, unsigned i, uint64_t size, unsigned flags,
		      struct leat_region **ret)
{
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD, .flags = flags,
				     .size = size, .fd = leat__packet_take(p, i)};
	int e;

	if (o.fd < 0)
		return leat__say(-EPROTO, "the broker's answer lacks a descriptor");
	e = leat_region_open(&o, ret);
	close(o.fd);
	return e;
}

int leat__map_control(struct leat__packet *p, const struct leat__in *in, struct leat_region **ret,
		      struct leat__geometry *g)
{
	struct leat_region *r = NULL;
	int e = leat__wire_get_geometry(in, LEAT__T_CONTROL, g);

	/* The broker made it and says how it looks; its header, which others can write, is not asked. */
	if (e == 0)
		e = leat__ctrl_check(g, g->total);
	if (e == 0)
		e = map_packet(p, 0, g->total, LEAT_PREFAULT, &r);
	if (e < 0)
		return e;
	leat__settle_region(r);
	*ret = r;
	return 0;
}

int leat__map_ring(struct leat__packet *p, const struct leat__in *in, uint64_t id,
		   struct leat_region **ret, struct leat__wire_brought *w, struct leat__geometry *g)
{
	struct leat__geometry head;
	struct leat_region *r = NULL;
	unsigned char *view;
	int i = leat__wire_find_brought(in, id, w, g);
	int e = i;

	if (e >= 0)
		e = leat__ring_check(g, g->total);
	if (e == 0)
		e = map_packet(p, (unsigned)i, g->total, LEAT_RDONLY, &r);
	if (e < 0)
		return e;
	e = leat__head_read(leat_region_addr(r), LEAT__MAGIC_RING, g->total, &head);
	if (e == 0 && (head.total != g->total || head.capacity != g->capacity ||
		       head.n_blocks != g->n_blocks || head.block_size != g->block_size ||
		       head.page != g->page || head.flags != g->flags))
		e = leat__say(-EBADMSG, "a ring's header does not agree with what the broker was told");
	r->page = g->page > r->page ? g->page : r->page;
	if (e == 0)
		e = leat__region_view(r, g->data_off, g->capacity, &view);
	if (e < 0) {
		leat_region_close(r);
		return e;
	}
	leat__settle_region(r);
	*ret = r;
	return 0;
}
