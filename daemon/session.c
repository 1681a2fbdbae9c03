/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session: the state of one client. Who it is comes from the kernel, never from what it says. Its
 * objects (publishers, subscriptions, looks) end when it closes them or when its process is proven
 * dead by its pidfd; a closed socket alone proves nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "base/base.h"
#include "link/sock.h"
#include "log.h"
#include "sieve.h"
#include "snapshot.h"

#define RESERVE 16 /* descriptors: what the next few clients and channels need */
#define HELLO_NS UINT64_C(2000000000) /* who has not greeted us by then is no client */
#define TURN_NS  UINT64_C(200000)     /* one's turn lasts so long, and as what it does then takes */
#define ENDS_NS  UINT64_C(1000000)    /* so does the end of one who had much */
#define SIEVE_NS UINT64_C(50000)      /* what our child works for a packet with descriptors */
#define PARKED_MS  1
#define STRANGE_MS 100

/* ---- the end of a session ---- */

static void session_free(struct session *s)
{
	free(s->groups);
	free(s->tickets);
	free(s->list_at);
	free(s);
}

static void handle_closed(uv_handle_t *h)
{
	struct session *s = h->data;

	if (--s->handles > 0)
		return;
	if (s->pidfd >= 0)
		close(s->pidfd);
	session_free(s);
}

static void look_again(struct broker *b);

static void set_stuck(struct session *s, int stuck)
{
	s->b->n_stuck += (uint32_t)(stuck != FREE) - (uint32_t)(s->stuck != FREE);
	s->stuck = stuck;
}

/* Nothing that may be said of it, or by it, matters any more. */
static void hear_no_more(struct session *s)
{
	if (s->pidfd >= 0)
		uv_poll_stop(&s->pid_poll);
	if (s->sock >= 0)
		uv_poll_stop(&s->sock_poll);
}

/*
 * The watch goes before the descriptor: the next client's may get the same number. Negative: it is of no more use, and
 * stays, as what is in it cannot be taken out yet.
 */
static int drop_socket(struct session *s)
{
	int going = !s->b->reg.store, e; /* ourselves, with all of them */

	if (s->sock < 0)
		return 0;
	uv_poll_stop(&s->sock_poll);
	turn_forget(s);
	s->b->n_parked -= (uint32_t)s->parked;
	s->b->n_strange -= (uint32_t)!s->greeted;
	s->parked = 0;
	s->greeted = 1;
	e = sieve_drain(s->b->sieve, s->sock, going ? SIEVE_NOBODY : s->owner.uid);
	set_stuck(s, e < 0 && !going ? LEFT : FREE);
	if (!going)
		look_again(s->b);
	if (s->stuck == LEFT)
		return e;
	uv_close((uv_handle_t *)&s->sock_poll, handle_closed);
	close(s->sock);
	store_drop(s->b->reg.store, s->sock_key);
	s->sock_key = STORE_NONE;
	s->sock = -1;
	return 0;
}

struct session *session_find(const struct broker *b, uint64_t client)
{
	struct session *s = b->sessions;

	while (s && s->owner.client != client)
		s = s->next;
	return s;
}

void session_end(struct session *s)
{
	struct broker *b = s->b;
	uint64_t begun = broker_worked(), until = leat__now() + ENDS_NS;

	if (b->verbose && !s->gone && !s->ended)
		log_client(LOG_IS_INFO, "client-gone", &s->owner, "");
	s->gone = 1;
	while (s->objects && (leat__now() < until || !b->reg.store)) /* or we end ourselves */
		object_end(s, s->objects);
	turn_spent(s, begun);
	if (s->objects) {
		hear_no_more(s);
		turn_wait(s, T_ENDS);
		broker_commit(b);
		b->changed(b);
		return;
	}
	turn_forget(s);
	if (s->pidfd >= 0 && !s->ended)
		uv_close((uv_handle_t *)&s->pid_poll, handle_closed);
	if (drop_socket(s) < 0) { /* until then it counts as his */
		if (!s->ended) {
			s->ended = 1;
			keep_session(s);
			broker_commit(b);
			b->changed(b);
		}
		return;
	}
	*s->at = s->next;
	if (s->next)
		s->next->at = s->at;
	b->n_sessions--;
	store_del(b->reg.store, REC_SESSION, s->owner.client, 0);
	store_drop(b->reg.store, s->pid_key);
	quota_give(b->reg.quotas, &s->owner, LEAT__Q_CLIENTS, 0, 2);
	quota_go(b->reg.quotas, &s->owner);
	broker_commit(b);
	if (!s->handles) /* an earlier worker's, of whom nothing was left */
		session_free(s);
	b->changed(b);
}

/* The socket is of no more use. Alive and still holding something: wait for its death. */
void session_cut(struct session *s)
{
	if (s->pidfd < 0 || !s->objects) {
		session_end(s);
		return;
	}
	store_keep(s->b->reg.store, s->pidfd, &s->pid_key); /* else its successor ends the session, too */
	drop_socket(s);
	keep_session(s);
	broker_commit(s->b);
}

void session_kick(struct session *s)
{
	while (s->objects)
		object_end(s, s->objects);
	s->kicked = 1;
	log_client(LOG_IS_INFO, "client-kicked", &s->owner, "leat kick");
	if (s->pidfd < 0) { /* nobody will say when it has gone */
		session_end(s);
		return;
	}
	store_keep(s->b->reg.store, s->pidfd, &s->pid_key);
	drop_socket(s);
	keep_session(s);
}

int session_answer(struct session *s, const struct leat__out *out)
{
	int there = s->sock >= 0 && s->stuck != LEFT, e = there ? leat__sock_send(s->sock, out, NULL, 0) : -EPIPE;

	if (e < 0 && there)
		session_cut(s);
	return e;
}

static void on_pidfd(uv_poll_t *h, int status, int events)
{
	(void)status;
	(void)events;
	session_end(h->data);
}

/* What is kept for who might ask makes way before descriptors run out. They are given out lowest first. */
static void make_room(struct broker *b, int fd)
{
	struct rlimit most;

	if (fd >= 0 && getrlimit(RLIMIT_NOFILE, &most) == 0)
		b->tight = (rlim_t)fd + RESERVE > most.rlim_cur;
	if (b->tight)
		registry_expire(&b->reg, UINT64_MAX);
}

/* The worker that comes after us, if this kills us, shall know what did. */
static void begin_request(const struct session *s, const struct leat__in *in)
{
	struct store_head *h = s->b->reg.store ? s->b->reg.store->head : NULL;

	if (!h)
		return;
	if (h->client != s->owner.client || h->serial != in->head.serial)
		h->tries = 0;
	h->client = s->owner.client;
	h->serial = in->head.serial;
}

/* What it did counts, before it is answered. */
static void end_request(struct session *s, const struct leat__in *in)
{
	struct store *st = s->b->reg.store;

	if (!st)
		return;
	if (store_waits(st)) {
		s->done = in->head.serial;
		keep_session(s);
	}
	broker_commit(s->b);
	st->head->client = 0;
}

/* One packet. Negative: this client is not to be talked to any more. */
static int handle(struct session *s, struct leat__packet *p)
{
	struct reply r = {.n_fds = 0, .n_owned = 0, .later = 0};
	struct leat__in in;
	int e = leat__wire_parse(&in, p->bytes, p->size, p->n_fds), fd = p->n_fds ? p->fds[0] : -1;

	if (e < 0)
		return e;
	if (!s->greeted && in.head.type != LEAT__HELLO)
		return leat__say(-EPROTO, "the first packet is not HELLO");
	leat__wire_begin(&r.out, LEAT__OK, in.head.serial, in.head.object);
	r.out.head.version = in.head.version; /* as one is spoken to */
	begin_request(s, &in);
	e = session_request(s, &in, p, &r);
	if (e > 0) /* of a version after ours: it may do without */
		e = leat__fail(-EPROTO, "this broker knows no request %u: it is older than the client", in.head.type);
	if (e == 0)
		e = leat__wire_end(&r.out, r.n_fds);
	s->b->tight |= e == -EMFILE;
	if (e < 0) {
		leat__wire_begin(&r.out, LEAT__ERROR, in.head.serial, in.head.object);
		leat__wire_u32(&r.out, LEAT__T_CODE, (uint32_t)-e);
		leat__wire_text(&r.out, LEAT__T_WHY, leat_why());
		leat__wire_end(&r.out, 0);
		r.n_fds = 0;
	}
	end_request(s, &in);
	if (in.head.type == LEAT__HELLO && s->greeted)
		sieve_admit(s->sock, 1);
	e = 0;
	if (!(in.head.flags & LEAT__WIRE_QUIET) && !r.later)
		e = leat__sock_send(s->sock, &r.out, r.fds, r.n_fds);
	s->sent_fds |= r.n_fds > 0;
	for (unsigned i = 0; i < r.n_owned; i++)
		close(r.fds[i]);
	make_room(s->b, fd); /* after the answer, which may have had one of them in it */
	/* One that has hung up may have said more before: hear it out. */
	if (e < 0 && e != -EPIPE && e != -ECONNRESET)
		return leat__fail(e, "the client does not take its answer: %s", strerror(-e));
	s->b->changed(s->b);
	return 0;
}

/* What came with descriptors that cannot be had: say why. */
static int refuse(struct session *s, const struct leat__packet *p, int e)
{
	struct leat__wire_head head;
	struct leat__out out;

	if (p->size < sizeof(head))
		return -EBADMSG;
	memcpy(&head, p->bytes, sizeof(head));
	if (e == -EMFILE) {
		s->b->tight = 1;
		make_room(s->b, -1);
		leat__say(e, "the broker has too many open files: raise its limit (LimitNOFILE=, ulimit -n)");
	}
	leat__wire_begin(&out, LEAT__ERROR, head.serial, head.object);
	leat__wire_u32(&out, LEAT__T_CODE, (uint32_t)-e);
	leat__wire_text(&out, LEAT__T_WHY, leat_why());
	leat__wire_end(&out, 0);
	return leat__sock_send(s->sock, &out, NULL, 0);
}

/* What @p, next in the socket, brings along. */
static int receive_fds(struct session *s, struct leat__packet *p)
{
	struct leat__wire_head head = {0};
	int e;

	memcpy(&head, p->bytes, leat__min(p->size, sizeof(head)));
	if (head.type != LEAT__PUB_OPEN && head.type != LEAT__SHARE)
		return leat__fail(-EPROTO, "request %u came with descriptors, and takes none", head.type);
	e = sieve_receive(s->b->sieve, s->sock, s->owner.uid, p);
	look_again(s->b); /* one that had nothing to do may have been on its way out yet */
	return e;
}

/* ---- who has to wait ---- */

static void on_socket(uv_poll_t *h, int status, int events);

static void on_look(uv_timer_t *t)
{
	sessions_look(t->data);
}

static void listen_to(struct session *s)
{
	if (!s->gone)
		uv_poll_start(&s->sock_poll, UV_READABLE | UV_DISCONNECT, on_socket);
}

static void look_again(struct broker *b)
{
	/* The usual one is by now reading what it was sent. */
	uint64_t ms = b->n_parked ? PARKED_MS : STRANGE_MS;

	if (b->n_parked + b->n_strange + b->n_stuck + sieve_reap(b->sieve) &&
	    (!uv_is_active((uv_handle_t *)&b->look_again) || uv_timer_get_due_in(&b->look_again) > ms))
		uv_timer_start(&b->look_again, on_look, ms, 0);
}

/* The packet that was refused stays where it is until somebody takes it out. 0: that is done. */
static int take_out(struct session *s)
{
	int e = sieve_drop(s->b->sieve, s->sock, s->owner.uid);

	if (e < 0) {
		uv_poll_stop(&s->sock_poll);
		set_stuck(s, HELD);
	}
	look_again(s->b);
	return e;
}

static void park(struct session *s)
{
	if (s->parked)
		return;
	s->b->n_parked++;
	s->parked = 1;
	uv_poll_stop(&s->sock_poll);
	look_again(s->b);
}

void sessions_look(struct broker *b)
{
	uint64_t now = leat__now();
	struct session *next;

	for (struct session *s = b->n_parked + b->n_strange + b->n_stuck ? b->sessions : NULL; s; s = next) {
		next = s->next;
		if (s->stuck == LEFT) {
			if (s->ended)
				session_end(s);
			else if (drop_socket(s) == 0)
				keep_session(s);
			continue;
		}
		if (s->stuck == HELD && sieve_drop(b->sieve, s->sock, s->owner.uid) == 0) {
			set_stuck(s, FREE);
			listen_to(s);
		}
		if (s->parked) {
			s->parked = 0;
			b->n_parked--;
			listen_to(s);
		}
		if (!s->greeted && now - s->born > HELLO_NS) {
			log_client(LOG_IS_WARNING, "client-cut", &s->owner, "it has not said who it is");
			session_end(s);
		}
	}
	look_again(b);
}

/* It is listened to again when this is over. */
static void serve_later(struct session *s)
{
	uv_poll_stop(&s->sock_poll);
	turn_wait(s, T_ASKS);
}

/* One packet of the socket's. 0; 1: that is all for now; -errno: a reason to cut it off. */
static int serve_one(struct session *s, int its_turn)
{
	struct leat__packet p;
	int e = leat__sock_look(s->sock, &p), refused;
	uint64_t begun;

	/* It stays in the socket until it is answered: another worker may have to do it. */
	if (e == -EAGAIN)
		return 1;
	if (e == -ECONNRESET) /* it left answers unread; what it said is still there */
		return 0;
	if (e == 0)
		return leat__say(-EPIPE, "closed");
	if (e > 0 && turn_is_too_soon(s)) { /* and so does the packet */
		park(s);
		return 1;
	}
	if (e > 0 && !its_turn && turn_is_others(s)) {
		serve_later(s);
		return 1;
	}
	if (e == 2 && !s->greeted)
		return leat__say(-EPROTO, "the first packet came with descriptors");
	if (e < 0)
		return e;
	begun = broker_worked() - (e == 2 ? SIEVE_NS : 0);
	e = e == 2 ? receive_fds(s, &p) : 0;
	if (e == -EAGAIN) {
		park(s);
		return 1;
	}
	turn_use_up(s);
	refused = e < 0;
	e = refused ? refuse(s, &p, e) : handle(s, &p);
	leat__packet_close(&p);
	turn_spent(s, begun);
	if (s->sock < 0 || s->stuck == LEFT) /* it has put itself out */
		return 1;
	if (!refused)
		leat__sock_drop(s->sock);
	else if (e == 0 && take_out(s) < 0)
		return 1;
	return e;
}

void session_serve(struct session *s, int its_turn)
{
	uint64_t begun = leat__now();
	int e = 0;

	if (its_turn)
		listen_to(s);
	for (int i = 0; e == 0 && i < 16; i++) { /* the others want their turn too */
		if (its_turn && leat__now() - begun > TURN_NS)
			return;
		e = serve_one(s, its_turn);
	}
	if (e >= 0)
		return;
	if (e != -EPIPE)
		log_client(LOG_IS_WARNING, "client-cut", &s->owner, leat_why());
	session_cut(s);
}

static void on_socket(uv_poll_t *h, int status, int events)
{
	(void)events;
	if (status < 0)
		session_cut(h->data);
	else
		session_serve(h->data, 0);
}

/* @facts has the descriptors, and who it is; -1 both: it cannot be served, and is to be ended. */
int session_adopt(const struct session *facts)
{
	struct session *s = malloc(sizeof(*s));
	struct broker *b = facts->b;
	int e;

	if (!s)
		return leat__say(-ENOMEM, "the broker has no memory for another client");
	*s = *facts;
	s->born = s->tokens_at = leat__now();
	s->groups = NULL;
	e = quota_come(b->reg.quotas, &s->owner);
	if (e < 0) {
		free(s);
		return e;
	}
	e = s->sock >= 0 ? leat__sock_groups(s->sock, &s->gid, &s->groups) : 0;
	s->n_groups = e < 0 ? 0 : (unsigned)e;
	if (e >= 0 && s->sock >= 0) {
		e = uv_poll_init(b->loop, &s->sock_poll, s->sock);
		if (e < 0)
			leat__fail(e, "watch a socket: %s", uv_strerror(e));
	}
	if (e < 0) {
		quota_go(b->reg.quotas, &s->owner);
		free(s->groups);
		free(s);
		return e;
	}
	if (s->sock < 0)
		s->greeted = 1;
	b->n_strange += (uint32_t)!s->greeted;
	look_again(b);
	s->sock_poll.data = s->pid_poll.data = s;
	s->handles = (s->sock >= 0) + (s->pidfd >= 0);
	if (s->sock >= 0)
		listen_to(s);
	if (s->pidfd >= 0) {
		uv_poll_init(b->loop, &s->pid_poll, s->pidfd);
		uv_poll_start(&s->pid_poll, UV_READABLE, on_pidfd);
	}
	s->at = &b->sessions;
	s->next = b->sessions;
	if (s->next)
		s->next->at = &s->next;
	b->sessions = s;
	b->n_sessions++;
	return 0;
}

/* It is told why, and not served. */
static void turn_away(int sock, int e)
{
	struct leat__out out;

	leat__wire_begin(&out, LEAT__ERROR, 0, 0);
	leat__wire_u32(&out, LEAT__T_CODE, (uint32_t)-e);
	leat__wire_text(&out, LEAT__T_WHY, leat_why());
	leat__wire_end(&out, 0);
	leat__sock_send(sock, &out, NULL, 0);
}

int session_start(struct broker *b, int sock)
{
	struct session s = {.b = b, .sock = sock, .pidfd = -1, .sock_key = STORE_NONE, .pid_key = STORE_NONE};
	uint64_t begun = broker_worked();
	int e = leat__sock_peer(sock, &s.owner.pid, &s.owner.uid, &s.pidfd);

	s.owner.client = b->next_client + 1;
	strcpy(s.owner.program, "?");
	if (e == 0)
		e = quota_take(b->reg.quotas, &s.owner, LEAT__Q_CLIENTS, 0, 2);
	if (e == 0) {
		quota_give(b->reg.quotas, &s.owner, LEAT__Q_CLIENTS, 0, 2);
		e = store_keep(b->reg.store, sock, &s.sock_key);
		if (e == 0)
			e = session_adopt(&s);
	}
	if (e < 0) {
		log_client(LOG_IS_WARNING, "client-refused", &s.owner, leat_why());
		turn_away(sock, e);
		store_drop(b->reg.store, s.sock_key);
		if (s.pidfd >= 0)
			close(s.pidfd);
		sieve_drain(b->sieve, sock, s.owner.uid);
		close(sock);
		return e;
	}
	quota_had(b->reg.quotas, &s.owner, LEAT__Q_CLIENTS, 0, 2);
	b->next_client++;
	keep_session(b->sessions);
	broker_commit(b);
	turn_spent(b->sessions, begun);
	if (b->verbose)
		log_client(LOG_IS_INFO, "client-came", &s.owner, "");
	return 0;
}

void session_end_all(struct broker *b)
{
	struct leat__out bye;

	leat__wire_begin(&bye, LEAT__BYE, 0, 0);
	leat__wire_end(&bye, 0);
	while (b->sessions) {
		if (b->sessions->sock >= 0)
			leat__sock_send(b->sessions->sock, &bye, NULL, 0);
		session_end(b->sessions);
	}
}
