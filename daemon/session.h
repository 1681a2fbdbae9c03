/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEATD_SESSION_H
#define LEATD_SESSION_H
/*
 * Sessions: one per connected client. Packets in, answers out, and the end of what a dead client
 * held. The only files that know libuv are these (session.c, turns.c) and worker.c.
 */
#include <uv.h>
#include "link/sock.h"
#include "policy.h"
#include "registry.h"

enum turn { T_ENDS, T_ASKS, TURNS }; /* it ends, and has much; it has asked much */

struct broker {
	uv_loop_t *loop;
	struct registry reg;
	struct session *sessions;
	uint32_t n_sessions;
	uint64_t next_client;
	uint64_t instance;
	int lives; /* a file whose bytes the clients' processes keep locked: see mem/life.h */
	struct config *config; /* NULL: who is let in may do anything */
	struct ticket_keys *keys; /* NULL: no ticket counts */
	struct sieve *sieve; /* for descriptors that clients send */
	int verbose;
	uint64_t told; /* the last change that watchers were told of */
	uint32_t n_parked, n_strange; /* sessions that are parked; that have not greeted us */
	uint32_t n_stuck; /* and in whose sockets is what cannot be taken out just now */
	uv_timer_t look_again; /* at those */
	struct turns { /* sessions that wait for one, in order */
		struct session *first, **end;
	} turns[TURNS];
	uv_idle_t between; /* what others want */
	int tight; /* it runs out of descriptors: nothing is kept that need not be */
	void (*changed)(struct broker *b); /* something came or went: timers may need to */
};

/* Serve the client on @sock, which the session owns from now on, whatever the answer. */
int session_start(struct broker *b, int sock);
/* Go on with one that an earlier worker had: a copy of @facts, whose descriptors it owns on success. */
int session_adopt(const struct session *facts);
/* An answer that comes later than its request. Negative: it cannot be told, and the session may be gone. */
int session_answer(struct session *s, const struct leat__out *out);
/* Those who have to wait have waited; or have not said who they are in time. */
void sessions_look(struct broker *b);
/* The session of a client, NULL. */
struct session *session_find(const struct broker *b, uint64_t client);
/* Its socket is of no more use. What it holds ends when its process does. */
void session_cut(struct session *s);
/* What it holds ends now, and its process is remembered. */
void session_kick(struct session *s);
/* What it has asked, a little of it. @its_turn: whatever others want. */
void session_serve(struct session *s, int its_turn);
/* The client is gone: its objects end, now as many as take a moment. */
void session_end(struct session *s);
/* Say BYE to everybody and close. */
void session_end_all(struct broker *b);

struct object {
	struct object *next;
	uint64_t id;
	enum kind { PUBLISHER = 1, SUBSCRIBER, LOOKER, SHARER, WATCHER } kind;
	struct channel *channel; /* SHARER, WATCHER: NULL */
	struct ring *ring; /* PUBLISHER */
	uint32_t slot;     /* SUBSCRIBER */
	struct share *share;   /* SHARER */
	uint64_t made_by;      /* the serial of the request that made it */
	char *prefix;          /* WATCHER: of what names */
	uint64_t since, waits; /* WATCHER: what it knows of; its request that is to be answered; 0: none is.
				* SUBSCRIBER: since: rings up to this were there before it */
};
#define OF_CHANNELS (1u << PUBLISHER | 1u << SUBSCRIBER | 1u << LOOKER)

struct session {
	struct session *next, **at;
	struct broker *b;
	int sock;  /* -1: the client has hung up, and it is closed */
	int pidfd; /* -1: the kernel cannot tell of its death */
	int greeted;
	int parked; /* it is not listened to just now: it asks too much, or does not take what it is given */
	struct turns *waits; /* in which it waits for its turn, and is not listened to; NULL */
	struct session *waiting; /* after this one */
	int gone; /* it ends, and is not listened to any more */
	int sent_fds; /* and may not have taken them yet */
	int kicked;
	enum { FREE, HELD, LEFT } stuck; /* HELD: the next packet has been refused, and is to be taken out; LEFT: all are */
	int ended; /* it is there only because of that */
	uint64_t born, tokens_at; /* when it came; up to when it has used its share of requests */
	int handles; /* of libuv, not closed yet */
	uv_poll_t sock_poll, pid_poll;
	struct owner owner;
	gid_t gid, *groups;
	unsigned n_groups;
	struct ticket *tickets; /* that it has shown */
	unsigned n_tickets;
	char *list_at; /* up to where it has read a list of names, which is @list_of; NULL */
	uint64_t list_of;
	struct object *objects;
	uint64_t next_object;
	uint64_t done;              /* the last request that made a difference: if it comes again, it is done */
	uint32_t sock_key, pid_key; /* of the store */
};

/* requests.c: an answer, and maybe descriptors to send along (borrowed). */
struct reply {
	struct leat__out out;
	int fds[LEAT__FDS_MAX];
	unsigned n_fds, n_owned; /* the first n_owned are closed when sent */
	int later; /* there is no answer yet */
};
/* What @in asks, with the packet @p it came in; fills in @r. -errno (with the reason): the answer is that;
 * 1: there is no such request. */
int session_request(struct session *s, struct leat__in *in, struct leat__packet *p, struct reply *r);
/* objects.c: one more of @s, which the request makes. NULL with the reason. */
struct object *object_new(struct session *s, const struct leat__in *in, enum kind kind, struct channel *ch);
/* What this very request has made already, for a worker that was killed before it could answer; NULL. */
struct object *object_made(const struct session *s, const struct leat__in *in, enum kind kind);
/* The newest object of @s came to nothing, with error @e. */
int object_undo(struct session *s, struct channel *ch, int e);
/* An object of one of the @kinds (1 << kind); NULL with the reason. */
struct object *object_find(const struct session *s, uint64_t id, unsigned kinds);
/* The client has closed it, or is gone. */
void object_end(struct session *s, struct object *o);
/* May this client do that? 0, -EACCES with the reason. */
int session_may(const struct session *s, enum verb verb, const char *name);
/* May it know that there is something of that name? */
int session_sees(const struct session *s, const char *name);
/* May it know of all clients? */
int session_rules(const struct session *s);
/* 0 if it is not there. */
uint32_t get_u32(const struct leat__in *in, unsigned tag);
uint64_t get_u64(const struct leat__in *in, unsigned tag);

/* turns.c: the others come first, whose user has had less of our time. */
void turns_init(struct broker *b);
/* Has it asked for more than its share, or not taken what it was sent? Then, not now. */
int turn_is_too_soon(struct session *s);
/* One request of its share. */
void turn_use_up(struct session *s);
/* Its user has had our processor since broker_worked() said @begun. */
void turn_spent(const struct session *s, uint64_t begun);
/* Has its user had more than its share of it? Then whatever others want comes first. */
int turn_is_others(const struct session *s);
/* It goes on when it is its turn: it is not listened to now. */
void turn_wait(struct session *s, enum turn what);
/* It waits for none any more. */
void turn_forget(struct session *s);

/* looks.c: requests that only want to know. */
typedef int do_fn(struct session *s, struct leat__in *in, struct leat__packet *p, struct reply *r);
do_fn do_list, do_who, do_quota, do_peers, do_find, do_shares, do_watch, do_changes;
/* Answer who waits for what has changed. */
void watchers_tell(struct broker *b);

#endif
