/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors for event loops: a helper thread per hundred of them, the first one started by the first
 * leat_sub_fd(), that sleeps on the bells of armed subscribers and workers and turns them into eventfds. One is armed
 * when it was found empty; its eventfd stays readable from then until it is found empty again.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/base.h"
#include "channel/channel.h"

#define MOST        100 /* a thread's: their bells and its own have to fit one futex_waitv() */
#define FIRST_NS    UINT64_C(50000)     /* as in bell.c: outlasts a notifier's store buffer */
#define SLICE_NS    UINT64_C(100000000)
#define FALLBACK_NS UINT64_C(1000000)   /* without futex_waitv, or with too many: look so often */

struct leat__pollable {
	struct leat__pollable *next;
	struct leat__poller *by;
	struct leat_sub *s;
	int efd;
	int armed, fresh;
	uint32_t listed; /* the thread's last turn with our bells */
	uint32_t *bells[LEAT__BELLS];
	unsigned n_bells;
	const uint32_t *epoch_now;
	uint32_t epoch;
	const struct leat__tie *tie;
	uint64_t armed_at, retry_at; /* retry_at: the subscriber wants to ask again then; 0: it does not */
	uint32_t n, room;
	struct at {
		const struct leat__reader *r;
		uint64_t pos;
	} *at; /* where each ring was when it was found empty */
};

struct leat__poller {
	struct leat__poller *next;
	unsigned n;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t back;
	uint32_t kick, turn;
	int away; /* the thread sleeps, or is about to, or has just woken; each time is a turn */
	int stop;
	struct leat__pollable *all;
	struct leat *l;
};

static void signal_fd(struct leat__pollable *p)
{
	uint64_t one = 1;

	p->armed = 0;
	if (p->s->queue)
		leat__queue_hush(p->s->queue);
	while (write(p->efd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static int due(const struct leat__pollable *p)
{
	if (p->s->queue && leat__queue_due(p->s->queue))
		return 1;
	for (uint32_t i = 0; i < p->n; i++)
		if (leat__reader_ready(p->at[i].r, p->at[i].pos))
			return 1;
	if (p->retry_at)
		return leat__now() >= p->retry_at;
	if (leat__load_relaxed(p->epoch_now) != p->epoch)
		return 1;
	/* Without its broker it is for the subscriber to look after itself. */
	return !leat__tied(p->s->l, p->tie) && leat__now() - p->armed_at >= SLICE_NS;
}

/* Signal who is due; list the bells of the rest. With the lock held. */
static unsigned collect(struct leat__poller *po, struct leat__waitv *v, int *fresh)
{
	unsigned n = 0;

	for (struct leat__pollable *p = po->all; p; p = p->next) {
		uint32_t seen[LEAT__BELLS];

		if (!p->armed)
			continue;
		for (unsigned i = 0; i < p->n_bells; i++)
			seen[i] = leat__fetch_or(p->bells[i], 1u) | 1u;
		leat__fence(); /* as in leat__bells_wait() */
		if (due(p)) {
			signal_fd(p);
			continue;
		}
		*fresh |= p->fresh;
		p->fresh = 0;
		p->listed = po->turn;
		for (unsigned i = 0; i < p->n_bells; i++, n++)
			if (n < LEAT__WAITV_MAX)
				v[n] = leat__waitv(p->bells[i], seen[i]);
	}
	return n;
}

static void sleep_on(struct leat__poller *po, struct leat__waitv *v, unsigned n, uint32_t kick, uint64_t ns)
{
	if (n < LEAT__WAITV_MAX) {
		v[n] = leat__waitv(&po->kick, kick);
		if (leat__words_wait(v, n + 1, ns) != -ENOSYS)
			return;
	}
	leat__word_wait(&po->kick, kick, n ? leat__min(ns, FALLBACK_NS) : ns);
}

static void *run(void *arg)
{
	struct leat__poller *po = arg;
	struct leat__waitv v[LEAT__WAITV_MAX];

	pthread_mutex_lock(&po->lock);
	while (!po->stop) {
		uint32_t kick = leat__load_relaxed(&po->kick);
		int fresh = 0;
		unsigned n = collect(po, v, &fresh);

		po->away = 1;
		pthread_mutex_unlock(&po->lock);
		leat__tend(po->l);
		sleep_on(po, v, n, kick, fresh ? FIRST_NS : SLICE_NS);
		pthread_mutex_lock(&po->lock);
		po->away = 0;
		po->turn++;
		pthread_cond_broadcast(&po->back);
	}
	pthread_mutex_unlock(&po->lock);
	return NULL;
}

static void kick(struct leat__poller *po)
{
	leat__fetch_add(&po->kick, 1u);
	leat__word_wake(&po->kick, 1);
}

/* The thread may be sleeping on our bells, in memory that is about to go: let it come out first. With the lock held. */
static void leave_alone(const struct leat__pollable *p)
{
	struct leat__poller *po = p->by;

	if (po->away && p->listed == po->turn)
		kick(po);
	while (po->away && p->listed == po->turn)
		pthread_cond_wait(&po->back, &po->lock);
}

/* One that has room, with the lists locked. NULL with the reason in *err. */
static struct leat__poller *poller_for(struct leat *l, int *err)
{
	struct leat__poller *po = l->pollers;
	sigset_t all, old;
	int e;

	while (po && po->n == MOST)
		po = po->next;
	if (po)
		return po;
	po = calloc(1, sizeof(*po));
	if (!po) {
		*err = leat__say(-ENOMEM, "descriptor of a subscriber: no memory");
		return NULL;
	}
	po->l = l;
	pthread_mutex_init(&po->lock, NULL);
	pthread_cond_init(&po->back, NULL);
	po->turn = 1; /* 0: never listed */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* the program's signals are not for our thread */
	e = pthread_create(&po->thread, NULL, run, po);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (e) {
		free(po);
		*err = leat__fail(-e, "descriptor of a subscriber: start its thread: %s", strerror(e));
		return NULL;
	}
	po->next = l->pollers;
	l->pollers = po;
	return po;
}

int leat__pollable_arm(struct leat_sub *s)
{
	struct leat__pollable *p = s->pollable;
	struct leat__poller *po = p->by;
	uint64_t count;
	int now, short_of;

	pthread_mutex_lock(&po->lock);
	if (read(p->efd, &count, sizeof(count)) < 0) {
		/* EAGAIN: it was not signalled. */
	}
	p->n = s->queue ? 0 : s->n;
	if (p->n > p->room) {
		struct at *at = realloc(p->at, p->n * sizeof(*at));

		if (at) {
			p->at = at;
			p->room = p->n;
		}
	}
	short_of = p->n > p->room;
	p->n = short_of ? p->room : p->n;
	for (uint32_t i = 0; i < p->n; i++)
		p->at[i] = (struct at){&s->rings[i]->r, s->rings[i]->r.pos};
	p->n_bells = s->queue ? leat__queue_listen(s->queue, p->bells) : leat__sub_bells(s, p->bells);
	p->epoch_now = s->epoch_now;
	p->epoch = s->epoch;
	p->tie = s->seat->tie;
	p->armed_at = leat__now();
	p->retry_at = s->retry_at;
	/* Too little memory to watch them all: readable always is the honest answer. */
	now = due(p) || short_of;
	if (now) {
		signal_fd(p);
	} else {
		p->armed = p->fresh = 1;
		kick(po);
	}
	pthread_mutex_unlock(&po->lock);
	return now && !short_of;
}

void leat__pollable_disarm(struct leat_sub *s)
{
	struct leat__poller *po = s->pollable->by;

	pthread_mutex_lock(&po->lock);
	if (s->pollable->armed)
		signal_fd(s->pollable);
	leave_alone(s->pollable);
	pthread_mutex_unlock(&po->lock);
}

int leat_sub_fd(struct leat_sub *s)
{
	struct leat__poller *po;
	struct leat__pollable *p;
	int e = 0;

	if (s->gone)
		return leat__say(-ECHILD, "this subscriber belongs to the parent process: open another");
	if (!s->l)
		return leat__say(-ENOTSUP, "a ring by hand has no descriptor: wait in leat_recv()");
	if (s->pollable)
		return s->pollable->efd;
	p = calloc(1, sizeof(*p));
	if (!p)
		return leat__say(-ENOMEM, "descriptor of a subscriber: no memory");
	p->efd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK); /* readable until found empty */
	if (p->efd < 0)
		e = leat__fail(-errno, "descriptor of a subscriber: eventfd: %s", strerror(errno));
	pthread_mutex_lock(&s->l->list_lock);
	po = e == 0 ? poller_for(s->l, &e) : NULL;
	if (po)
		po->n++;
	pthread_mutex_unlock(&s->l->list_lock);
	if (e < 0) {
		if (p->efd >= 0)
			close(p->efd);
		free(p);
		return e;
	}
	p->s = s;
	p->by = po;
	pthread_mutex_lock(&po->lock);
	p->next = po->all;
	po->all = p;
	s->pollable = p;
	pthread_mutex_unlock(&po->lock);
	return p->efd;
}

void leat__pollable_end(struct leat_sub *s)
{
	struct leat__pollable *p = s->pollable, **at;
	struct leat__poller *po;

	if (!p)
		return;
	po = p->by;
	pthread_mutex_lock(&s->l->list_lock);
	po->n--;
	pthread_mutex_unlock(&s->l->list_lock);
	pthread_mutex_lock(&po->lock);
	if (p->armed && s->queue)
		leat__queue_hush(s->queue);
	for (at = &po->all; *at != p; at = &(*at)->next)
		;
	*at = p->next;
	s->pollable = NULL;
	leave_alone(p);
	pthread_mutex_unlock(&po->lock);
	close(p->efd);
	free(p->at);
	free(p);
}

void leat__pollers_end(struct leat *l)
{
	while (l->pollers) {
		struct leat__poller *po = l->pollers;

		l->pollers = po->next;
		pthread_mutex_lock(&po->lock);
		po->stop = 1;
		kick(po);
		pthread_mutex_unlock(&po->lock);
		pthread_join(po->thread, NULL);
		pthread_cond_destroy(&po->back);
		pthread_mutex_destroy(&po->lock);
		free(po);
	}
}

void leat__pollers_forked(struct leat *l)
{
	/* The threads are not in this process; their locks may be held for ever. Close what they signalled. */
	for (struct leat__poller *po = l->pollers; po; po = po->next)
		for (struct leat__pollable *p = po->all; p; p = p->next)
			close(p->efd);
	l->pollers = NULL;
}
