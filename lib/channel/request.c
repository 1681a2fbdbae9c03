/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection to the broker: requests, one at a time, with a deadline; noticing that the broker has died,
 * and coming back to its successor. What a connection ties its registrations to (struct leat__tie) outlives
 * it. Never on the way of a message.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/base.h"
#include "channel/channel.h"

#define CLOSE_NS   INT64_C(100000000)  /* the longest to get rid of a goodbye */
#define TEND_NS    UINT64_C(50000000)  /* so often at most we look whether the broker is still there */
#define HELLO_NS   INT64_C(5000000)    /* what its successor's answer may take, on the way of messages */

/* ---- ties ---- */

/* With the lock held. */
static void untie(struct leat *l, struct leat__tie *t)
{
	if (--t->users)
		return;
	/* Nobody of ours shares memory with its clients any more. Our life stays: others may still look. */
	if (t->lives >= 0)
		close(t->lives);
	t->lives = -1;
}

void leat__untie(struct leat *l, struct leat__tie *t)
{
	if (!t || l->gone)
		return;
	pthread_mutex_lock(&l->lock);
	untie(l, t);
	pthread_mutex_unlock(&l->lock);
}

void leat__ties_free(struct leat *l)
{
	while (l->ties) {
		struct leat__tie *t = l->ties;

		l->ties = t->next;
		leat__life_end(&t->life);
		if (t->lives >= 0)
			close(t->lives);
		free(t);
	}
}

int leat__tie_dead(const struct leat__tie *t, uint64_t client)
{
	return t->lives >= 0 && client && leat__life_vacant(t->lives, client);
}

int leat__tied(struct leat *l, const struct leat__tie *t)
{
	return leat__load_acquire(&l->tie) == t && !leat__load_acquire(&l->lost);
}

uint64_t leat__instance(struct leat *l)
{
	return leat__load_acquire(&l->tie)->instance; /* ties are kept */
}

/* ---- requests ---- */

/* Not under way any more. */
static void end(struct leat *l, struct leat__errand *r)
{
	for (struct leat__errand **at = &l->errands; *at; at = &(*at)->next)
		if (*at == r) {
			*at = r->next;
			break;
		}
	if (r->answer) {
		leat__packet_close(r->answer);
		free(r->answer);
	}
	*r = (struct leat__errand){0};
}

void leat__disconnect(struct leat *l)
{
	while (l->errands)
		end(l, l->errands);
	if (l->sock >= 0)
		close(l->sock);
	l->sock = -1;
}

static int lost(struct leat *l, const char *how)
{
	leat__disconnect(l);
	leat__store_release(&l->lost, 1u);
	leat__log(LEAT_LOG_WARNING, "the broker of %s is gone (%s)", l->path, how);
	return leat__fail(-ECONNRESET, "the broker of %s is gone (%s): open channels go on; start leatd for "
				       "the rest",
			  l->path, how);
}

/* An answer to somebody who gave up. What was opened for him is to be closed again. */
static void disown(struct leat *l, const struct leat__in *in)
{
	struct leat__out o;
	size_t size;

	if (in->head.type != LEAT__OK || !in->head.object ||
	    !(leat__wire_next(in, LEAT__T_CONTROL, NULL, &size) || leat__wire_next(in, LEAT__T_SHARE, NULL, &size) ||
	      leat__wire_next(in, LEAT__T_SINCE, NULL, &size)))
		return;
	leat__wire_begin(&o, LEAT__CLOSE, 0, in->head.object);
	o.head.flags = LEAT__WIRE_QUIET;
	leat__wire_end(&o, 0);
	leat__sock_send(l->sock, &o, NULL, 0);
}

/* Answers come in order, once; or once more, if the broker's worker was killed when it had answered. 1: this is new. */
static int heard(struct leat *l, const struct leat__in *in)
{
	if (in->head.serial <= l->heard)
		return 0;
	l->heard = in->head.serial;
	return 1;
}

/* An answer that says no. */
static int refused(struct leat *l, struct leat__packet *p, const struct leat__in *in)
{
	uint32_t code = 0;
	char text[512];

	leat__packet_close(p);
	if (leat__wire_get(in, LEAT__T_CODE, &code, sizeof(code)) < 0 || !code || code > 4095)
		code = EPROTO;
	if (leat__wire_get_text(in, LEAT__T_WHY, text, sizeof(text)) < 0)
		snprintf(text, sizeof(text), "%s", strerror((int)code));
	return leat__fail(-(int)code, "%s (domain %s)", text, l->path);
}

/* A packet that nobody waits for just now: kept for whom it is, or thrown away if he gave up. */
static int put_aside(struct leat *l, struct leat__packet *p, const struct leat__in *in)
{
	struct leat__errand *r = l->errands;

	/* It does not even take our greeting. */
	if (in->head.type == LEAT__ERROR && !in->head.serial) {
		int e = refused(l, p, in);

		leat__disconnect(l);
		return e;
	}
	while (r && r->serial != in->head.serial)
		r = r->next;
	if (r && !r->answer)
		r->answer = malloc(sizeof(*p));
	if (r && r->answer) {
		*r->answer = *p;
		heard(l, in);
		return 0;
	}
	if (r)
		end(l, r); /* no memory: it will ask again */
	leat__packet_close(p);
	if (heard(l, in))
		disown(l, in);
	return in->head.type == LEAT__BYE ? lost(l, "it was stopped") : 0;
}

/* Wait for the answer to @serial. One that is there is heard however late we come: who gets little of the
 * processor shall not ask in vain for ever. */
static int listen_for(struct leat *l, uint64_t serial, uint64_t deadline, struct leat__packet *p,
		      struct leat__in *in)
{
	for (;;) {
		uint64_t now = leat__now();
		struct pollfd pfd = {l->sock, POLLIN, 0};
		int e;

		e = poll(&pfd, 1, now < deadline ? (int)((deadline - now) / 1000000) + 1 : 0);
		if (e < 0 && errno != EINTR)
			return leat__fail(-errno, "wait for the broker of %s: %s", l->path,
					  strerror(errno));
		if (e == 0 && now >= deadline)
			return leat__fail(-ETIMEDOUT, "the broker of %s does not answer: is it stopped?",
					  l->path);
		if (e <= 0)
			continue;
		e = leat__sock_recv(l->sock, p);
		if (e == -EAGAIN)
			continue;
		if (e <= 0)
			return lost(l, e == 0 ? "it has closed the connection" : strerror(-e));
		e = leat__wire_parse(in, p->bytes, p->size, p->n_fds);
		if (e < 0) {
			leat__packet_close(p);
			return lost(l, leat_why());
		}
		if (in->head.serial == serial) {
			heard(l, in);
			return 0;
		}
		e = put_aside(l, p, in);
		if (e < 0)
			return e;
	}
}

/* A stopped broker's queue may be full: wait for room in it, not for ever. */
static int send_before(struct leat *l, const struct leat__out *o, int fd, uint64_t deadline)
{
	for (;;) {
		int e = leat__sock_send(l->sock, o, &fd, fd >= 0);
		struct pollfd pfd = {l->sock, POLLOUT, 0};
		uint64_t now = leat__now();

		if (e != -EAGAIN)
			return e < 0 ? lost(l, strerror(-e)) : 0;
		if (now >= deadline)
			return leat__fail(-ETIMEDOUT, "the broker of %s takes no requests: is it stopped?",
					  l->path);
		poll(&pfd, 1, (int)((deadline - now) / 1000000) + 1);
	}
}

/* Send the request, if it is not under way; then wait for its answer. */
static int exchange(struct leat *l, struct leat__errand *r, struct leat__out *o, int fd, struct leat__packet *p,
		    struct leat__in *in, uint64_t deadline)
{
	int e = 0;

	p->n_fds = 0;
	if (!r->serial) {
		e = leat__wire_end(o, fd >= 0);
		if (e < 0)
			return e;
		o->head.serial = ++l->serial;
		if (o->head.type != LEAT__HELLO)
			o->head.version = l->version;
		e = send_before(l, o, fd, deadline);
		if (e < 0 || (o->head.flags & LEAT__WIRE_QUIET))
			return e;
		*r = (struct leat__errand){.next = l->errands, .serial = o->head.serial};
		l->errands = r;
	}
	if (r->answer) {
		*p = *r->answer;
		r->answer->n_fds = 0; /* they are @p's now */
		e = leat__wire_parse(in, p->bytes, p->size, p->n_fds);
	} else {
		e = listen_for(l, r->serial, deadline, p, in);
		if (e == -ETIMEDOUT)
			return e; /* and is under way */
	}
	end(l, r);
	if (e < 0 || in->head.type != LEAT__ERROR)
		return e;
	return refused(l, p, in);
}

static void program_name(char *ret, size_t size)
{
	char text[64];
	char *nl;

	if (leat__read_file("/proc/self/comm", text, sizeof(text)) < 0)
		strcpy(text, "?");
	nl = strchr(text, '\n');
	if (nl)
		*nl = 0;
	snprintf(ret, size, "%.15s", text);
}

/* What HELLO's answer brings: who we are there, our life, and a way to look at others'. */
static int tie_up(struct leat *l, struct leat__packet *p, const struct leat__in *in)
{
	struct leat__tie *t = calloc(1, sizeof(*t));
	int life, e = t ? 0 : leat__say(-ENOMEM, "open domain: no memory");

	if (e == 0)
		e = leat__wire_get(in, LEAT__T_CLIENT, &t->client, sizeof(t->client));
	if (e == 0)
		e = leat__wire_get(in, LEAT__T_INSTANCE, &t->instance, sizeof(t->instance));
	/* Our socket was lost, not the broker: all is as it was. */
	if (e == 0 && l->tie && t->instance == l->tie->instance && t->client == l->tie->client) {
		free(t);
		return 0;
	}
	if (e < 0) {
		free(t);
		return e;
	}
	life = leat__packet_take(p, 0);
	t->lives = leat__packet_take(p, 1);
	if (life >= 0) {
		e = leat__life_keep(&t->life, life, t->client);
		close(life);
	}
	if (e < 0) {
		if (t->lives >= 0)
			close(t->lives);
		free(t);
		return e;
	}
	t->users = 1;
	t->next = l->ties;
	l->ties = t;
	if (l->tie)
		untie(l, l->tie);
	leat__store_release(&l->tie, t);
	return 0;
}

/* Each on its own; what does not fit is not shown. */
static void show_tickets(const struct leat *l, struct leat__out *o)
{
	const char *at = l->tickets;

	while (at && *at) {
		size_t n = strcspn(at, " \t\n");

		if (n && leat__wire_fits(o, n))
			leat__wire_bytes(o, LEAT__T_TICKET, at, n);
		at += n + strspn(at + n, " \t\n");
	}
}

static int hello(struct leat *l, uint64_t deadline)
{
	struct leat__packet p;
	struct leat__out o;
	struct leat__in in;
	uint32_t version;
	char program[16];
	int e;

	program_name(program, sizeof(program));
	leat__wire_begin(&o, LEAT__HELLO, 0, 0);
	leat__wire_u32(&o, LEAT__T_VERSION_MIN, LEAT__WIRE_MIN);
	leat__wire_u32(&o, LEAT__T_VERSION_MAX, LEAT__WIRE_MAX);
	leat__wire_text(&o, LEAT__T_PROGRAM, program);
	if (l->tie) { /* who we were, should it be the same broker */
		leat__wire_u64(&o, LEAT__T_CLIENT, l->tie->client);
		leat__wire_u64(&o, LEAT__T_INSTANCE, l->tie->instance);
	}
	show_tickets(l, &o);
	e = exchange(l, &l->hello, &o, -1, &p, &in, deadline);
	if (e < 0)
		return e;
	e = leat__wire_get(&in, LEAT__T_VERSION_MAX, &version, sizeof(version));
	if (e == 0 && (version < LEAT__WIRE_MIN || version > LEAT__WIRE_MAX))
		e = leat__fail(-EPROTO, "the broker of %s chose wire version %u, which we do not speak", l->path, version);
	if (e == 0) {
		l->version = (uint8_t)version;
		e = tie_up(l, &p, &in);
	}
	leat__packet_close(&p);
	return e;
}

static int connect_once(struct leat *l, const char *path, uint64_t deadline)
{
	int e;

	if (!l->hello.serial) {
		e = leat__sock_connect(path, deadline);
		if (e < 0)
			return e;
		l->sock = e;
		if (path != l->path)
			snprintf(l->path, sizeof(l->path), "%s", path);
	}
	e = hello(l, deadline);
	if (e < 0 && !l->hello.serial)
		leat__disconnect(l);
	if (e == 0)
		leat__store_release(&l->lost, 0u);
	return e;
}

/*
 * -ETIMEDOUT: its greeting may still come, and is waited for the next time. A broker whose worker is killed before it
 * has written us down hangs up; the next one listens already.
 */
static int connect_locked(struct leat *l, const char *path, uint64_t deadline)
{
	const struct timespec nap = {0, 1000000};
	int e;

	while ((e = connect_once(l, path, deadline)) == -ECONNRESET && leat__now() < deadline)
		nanosleep(&nap, NULL);
	return e;
}

static int is_connected(const struct leat *l)
{
	return l->sock >= 0 && !l->hello.serial;
}

int leat__connect(struct leat *l, const char *path)
{
	int e;

	pthread_mutex_lock(&l->lock);
	e = connect_locked(l, path, leat__deadline(LEAT__REQUEST_NS));
	if (e < 0)
		leat__disconnect(l);
	pthread_mutex_unlock(&l->lock);
	return e;
}

/* The broker has gone: is there another in its place? */
static int come_back(struct leat *l, uint64_t deadline)
{
	char why[256];
	int e = connect_locked(l, l->path, deadline);

	if (e == 0) {
		leat__log(LEAT_LOG_INFO, "back at the broker of %s", l->path);
		return 0;
	}
	snprintf(why, sizeof(why), "%s", leat_why());
	return leat__fail(e == -ETIMEDOUT || e == -EACCES || e == -EMFILE ? e : -ECONNRESET,
			  "the broker of %s is gone, and no other serves there (%s): run leatd --domain %s",
			  l->path, why, l->path);
}

int leat__errand(struct leat *l, struct leat__errand *r, struct leat__out *o, int fd, struct leat__packet *p,
		 struct leat__in *in, int64_t ns, struct leat__tie **tie)
{
	uint64_t deadline = leat__deadline(ns);
	int e = 0;

	if (l->gone)
		return leat__say(-ECHILD, "this struct leat belongs to the parent process: open another");
	pthread_mutex_lock(&l->lock);
	/* A goodbye means nothing to another broker. */
	if (!is_connected(l))
		e = o->head.flags & LEAT__WIRE_QUIET ? -ECONNRESET : come_back(l, deadline);
	if (e == 0)
		e = exchange(l, r, o, fd, p, in, deadline);
	if (e == 0 && tie) {
		*tie = l->tie;
		l->tie->users++;
	}
	pthread_mutex_unlock(&l->lock);
	return e;
}

void leat__errand_drop(struct leat *l, struct leat__errand *r)
{
	struct leat__in in;

	if (!r->serial || l->gone)
		return;
	pthread_mutex_lock(&l->lock);
	if (r->answer && leat__wire_parse(&in, r->answer->bytes, r->answer->size, r->answer->n_fds) == 0)
		disown(l, &in);
	if (r->serial) /* else its connection is gone meanwhile */
		end(l, r);
	pthread_mutex_unlock(&l->lock);
}

static int request_within(struct leat *l, struct leat__out *o, int fd, struct leat__packet *p, struct leat__in *in,
			  int64_t ns)
{
	struct leat__errand once = {0};
	int e = leat__errand(l, &once, o, fd, p, in, ns, NULL);

	leat__errand_drop(l, &once);
	return e;
}

int leat__request(struct leat *l, struct leat__out *o, int fd, struct leat__packet *p,
		  struct leat__in *in)
{
	return request_within(l, o, fd, p, in, LEAT__REQUEST_NS);
}

void leat__request_close(struct leat *l, uint64_t object)
{
	struct leat__packet p;
	struct leat__out o;
	struct leat__in in;

	/* Without an answer: what is asked for later on this socket is handled later. */
	leat__wire_begin(&o, LEAT__CLOSE, 0, object);
	o.head.flags = LEAT__WIRE_QUIET;
	request_within(l, &o, -1, &p, &in, CLOSE_NS);
}

/* ---- what the broker says unasked ---- */

/* With the lock held. The number of notices, or -ECONNRESET. */
static int hear(struct leat *l)
{
	struct leat__packet p;
	struct leat__in in;
	int e, n = 0;

	for (;;) {
		e = leat__sock_recv(l->sock, &p);
		if (e == -EAGAIN)
			return n;
		if (e <= 0)
			return lost(l, e == 0 ? "it has closed the connection" : strerror(-e));
		e = leat__wire_parse(&in, p.bytes, p.size, p.n_fds);
		if (e < 0) {
			leat__packet_close(&p);
			return lost(l, leat_why());
		}
		e = put_aside(l, &p, &in);
		if (e < 0)
			return e;
		n++;
	}
}

int leat__hear(struct leat *l)
{
	int n;

	pthread_mutex_lock(&l->lock);
	n = l->sock >= 0 ? hear(l) : leat__fail(-ECONNRESET, "the broker of %s is gone", l->path);
	pthread_mutex_unlock(&l->lock);
	return n;
}

int leat__tend_due(const struct leat *l, uint64_t now)
{
	return now >= leat__load_relaxed(&l->tend_at);
}

void leat__tend(struct leat *l)
{
	uint64_t now = leat__now(), spent;

	/* Somebody at it already: let him. */
	if (!leat__tend_due(l, now) || l->gone || pthread_mutex_trylock(&l->lock))
		return;
	if (l->sock >= 0)
		hear(l);
	if (!is_connected(l))
		connect_locked(l, l->path, leat__deadline(HELLO_NS));
	spent = leat__now() - now;
	leat__store_relaxed(&l->tend_at, now + spent + leat__rest(spent, TEND_NS));
	pthread_mutex_unlock(&l->lock);
	leat__shares_tend(l);
}
