/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session: the state of one client. Who it is comes from the kernel, never from what it says. Its
 * objects (publishers, subscriptions, looks) end when it closes them or when its process is proven
 * dead by its pidfd; a closed socket alone proves nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/base.h"
#include "link/sock.h"
#include "session.h"

enum kind { PUBLISHER = 1, SUBSCRIBER, LOOKER };

struct object {
	struct object *next;
	uint64_t id;
	enum kind kind;
	struct channel *channel;
	struct ring *ring; /* PUBLISHER */
	uint32_t slot;     /* SUBSCRIBER */
};

struct session {
	struct session *next, **at;
	struct broker *b;
	int sock;  /* -1: the client has hung up */
	int pidfd; /* -1: the kernel cannot tell of its death */
	int greeted;
	int closing; /* handles not closed yet */
	uv_poll_t sock_poll, pid_poll;
	struct owner owner;
	struct object *objects;
	uint64_t next_object;
};

void broker_log(const struct broker *b, const char *fmt, ...)
{
	va_list ap;

	if (!b->verbose)
		return;
	va_start(ap, fmt);
	fputs("leatd: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
}

/* ---- objects ---- */

static struct object *object_new(struct session *s, enum kind kind, struct channel *ch)
{
	struct object *o = calloc(1, sizeof(*o));

	if (!o) {
		registry_settle(&s->b->reg, ch);
		leat__say(-ENOMEM, "the broker has no memory");
		return NULL;
	}
	o->id = ++s->next_object;
	o->kind = kind;
	o->channel = ch;
	o->next = s->objects;
	s->objects = o;
	return o;
}

/* The newest object of @s came to nothing. */
static int object_undo(struct session *s, struct channel *ch, int e)
{
	struct object *o = s->objects;

	s->objects = o->next;
	free(o);
	registry_settle(&s->b->reg, ch);
	return e;
}

static void object_end(struct session *s, struct object *o)
{
	struct registry *reg = &s->b->reg;
	struct object **at = &s->objects;

	while (*at != o)
		at = &(*at)->next;
	*at = o->next;
	if (o->kind == PUBLISHER)
		ring_end(reg, o->ring, leat__now());
	else if (o->kind == SUBSCRIBER)
		slot_free(reg, o->channel, o->slot);
	else
		o->channel->looks--;
	registry_settle(reg, o->channel);
	free(o);
}

static struct object *object_find(const struct session *s, uint64_t id)
{
	for (struct object *o = s->objects; o; o = o->next)
		if (o->id == id)
			return o;
	leat__fail(-ENOENT, "the broker knows no object %llu of this client", (unsigned long long)id);
	return NULL;
}

/* ---- the end of a session ---- */

static void handle_closed(uv_handle_t *h)
{
	struct session *s = h->data;

	if (--s->closing > 0)
		return;
	if (s->pidfd >= 0)
		close(s->pidfd);
	free(s);
}

static void session_end(struct session *s)
{
	struct broker *b = s->b;

	broker_log(b, "client %llu (%s, pid %d) is gone", (unsigned long long)s->owner.client,
		   s->owner.program, (int)s->owner.pid);
	while (s->objects)
		object_end(s, s->objects);
	*s->at = s->next;
	if (s->next)
		s->next->at = s->at;
	b->n_sessions--;
	s->closing = 1;
	if (s->pidfd >= 0) {
		s->closing++;
		uv_close((uv_handle_t *)&s->pid_poll, handle_closed);
	}
	uv_close((uv_handle_t *)&s->sock_poll, handle_closed);
	if (s->sock >= 0)
		close(s->sock);
	s->sock = -1;
	b->changed(b);
}

/* The socket is of no more use. Alive and still holding something: wait for its death. */
static void hang_up(struct session *s)
{
	if (s->pidfd < 0 || !s->objects) {
		session_end(s);
		return;
	}
	uv_poll_stop(&s->sock_poll);
	close(s->sock);
	s->sock = -1;
}

static void on_pidfd(uv_poll_t *h, int status, int events)
{
	(void)status;
	(void)events;
	session_end(h->data);
}

/* ---- requests: each fills in an answer and maybe descriptors to send along (borrowed) ---- */

struct reply {
	struct leat__out out;
	int fds[LEAT__FDS_MAX];
	unsigned n_fds;
};

static uint32_t get_u32(const struct leat__in *in, unsigned tag)
{
	uint32_t v = 0;

	return leat__wire_get(in, tag, &v, sizeof(v)) == 0 ? v : 0;
}

static int do_hello(struct session *s, struct leat__in *in, struct leat__packet *p,
		    struct reply *r)
{
	uint32_t min = get_u32(in, LEAT__T_VERSION_MIN), max = get_u32(in, LEAT__T_VERSION_MAX);

	(void)p;
	if (s->greeted)
		return leat__say(-EPROTO, "a second HELLO");
	if (s->owner.uid != geteuid() && s->owner.uid != 0)
		return leat__fail(-EACCES, "uid %u may not use this domain: it belongs to uid %u",
				  (unsigned)s->owner.uid, (unsigned)geteuid());
	if (min > LEAT__WIRE_MAX || max < LEAT__WIRE_MIN)
		return leat__fail(-EPROTO, "the client speaks wire versions %u to %u, this broker %d to %d: "
					   "upgrade the older of the two",
				  min, max, LEAT__WIRE_MIN, LEAT__WIRE_MAX);
	if (leat__wire_get_text(in, LEAT__T_PROGRAM, s->owner.program, sizeof(s->owner.program)) < 0)
		strcpy(s->owner.program, "?");
	s->greeted = 1;
	leat__wire_u32(&r->out, LEAT__T_VERSION_MAX, max < LEAT__WIRE_MAX ? max : LEAT__WIRE_MAX);
	leat__wire_u64(&r->out, LEAT__T_CLIENT, s->owner.client);
	leat__wire_u64(&r->out, LEAT__T_INSTANCE, s->b->instance);
	return 0;
}

static int do_ping(struct session *s, struct leat__in *in, struct leat__packet *p,
		   struct reply *r)
{
	(void)s;
	(void)in;
	(void)p;
	(void)r;
	return 0;
}

static int get_channel(struct session *s, struct leat__in *in, int make, struct channel **ret)
{
	char name[LEAT__NAME_MAX + 1];
	int e = leat__wire_get_text(in, LEAT__T_NAME, name, sizeof(name));

	if (e == 0)
		e = leat__name_check(name);
	if (e == 0)
		e = registry_channel(&s->b->reg, name, make, get_u32(in, LEAT__T_MAX_RINGS),
				     get_u32(in, LEAT__T_MAX_SLOTS), ret);
	return e;
}

static void put_channel(struct reply *r, const struct channel *ch)
{
	leat__wire_geometry(&r->out, LEAT__T_CONTROL, &ch->g);
	r->fds[r->n_fds++] = leat_region_fd(ch->control);
}

static int do_pub_open(struct session *s, struct leat__in *in, struct leat__packet *p,
		       struct reply *r)
{
	struct leat__geometry g;
	struct channel *ch;
	struct object *o;
	struct ring_file file;
	int e = leat__wire_get_geometry(in, LEAT__T_GEOMETRY, &g);

	if (e < 0)
		return e;
	if (p->n_fds != 1)
		return leat__say(-EPROTO, "PUB_OPEN comes with the descriptor of its ring");
	e = ring_verify(&s->b->reg, p->fds[0], &g, &file);
	if (e == 0)
		e = get_channel(s, in, 1, &ch);
	if (e < 0)
		return e;
	o = object_new(s, PUBLISHER, ch);
	if (!o)
		return -ENOMEM;
	e = ring_add(&s->b->reg, ch, &file, &g, &s->owner, &o->ring);
	if (e < 0)
		return object_undo(s, ch, e);
	leat__packet_take(p, 0);
	r->out.head.object = o->id;
	leat__wire_u64(&r->out, LEAT__T_RING_ID, o->ring->id);
	leat__wire_u32(&r->out, LEAT__T_ENTRY, o->ring->entry);
	put_channel(r, ch);
	return 0;
}

static void put_ring(struct reply *r, const struct ring *ring)
{
	leat__wire_brought(&r->out, ring->id, &ring->g);
	r->fds[r->n_fds++] = ring->fd;
}

static void put_rings(struct reply *r, const struct channel *ch)
{
	leat__wire_u32(&r->out, LEAT__T_EPOCH, ch->epoch);
	for (struct ring *ring = ch->rings; ring; ring = ring->next) {
		struct leat__wire_ring w = {ring->id, ring->entry, ring->state};

		leat__wire_bytes(&r->out, LEAT__T_RING, &w, sizeof(w));
	}
}

/* Those after ring @after that are likely to be asked for next come along at once, as far as they fit. */
static void bring_rings(struct reply *r, const struct channel *ch, uint64_t after)
{
	for (struct ring *ring = ch->rings; ring && r->n_fds < LEAT__FDS_MAX; ring = ring->next)
		if (ring->id > after && ring->entry != LEAT__NO_ENTRY &&
		    leat__wire_fits(&r->out, sizeof(struct leat__wire_brought) + 16))
			put_ring(r, ring);
}

static int do_sub_open(struct session *s, struct leat__in *in, struct leat__packet *p,
		       struct reply *r)
{
	uint32_t mode = get_u32(in, LEAT__T_MODE);
	struct channel *ch;
	struct object *o;
	int e;

	(void)p;
	if (mode != LEAT__WAITING && mode != LEAT__OBSERVING)
		return leat__fail(-EPROTO, "subscriber mode %u is unknown", mode);
	e = get_channel(s, in, 1, &ch);
	if (e < 0)
		return e;
	o = object_new(s, SUBSCRIBER, ch);
	if (!o)
		return -ENOMEM;
	e = slot_grant(ch, mode, &s->owner, &o->slot);
	if (e < 0)
		return object_undo(s, ch, e);
	r->out.head.object = o->id;
	leat__wire_u32(&r->out, LEAT__T_SLOT, o->slot);
	leat__wire_u32(&r->out, LEAT__T_GRANT, ch->slots[o->slot].grant);
	put_rings(r, ch);
	put_channel(r, ch);
	bring_rings(r, ch, 0);
	return 0;
}

static int do_look(struct session *s, struct leat__in *in, struct leat__packet *p,
		   struct reply *r)
{
	struct leat__wire_channel facts;
	struct channel *ch;
	struct object *o;
	int e = get_channel(s, in, 0, &ch);

	(void)p;
	if (e < 0)
		return e;
	o = object_new(s, LOOKER, ch);
	if (!o)
		return -ENOMEM;
	ch->looks++;
	facts = channel_facts(ch);
	r->out.head.object = o->id;
	leat__wire_bytes(&r->out, LEAT__T_CHANNEL, &facts, sizeof(facts));
	put_rings(r, ch);
	put_channel(r, ch);
	return 0;
}

static int do_rings(struct session *s, struct leat__in *in, struct leat__packet *p,
		    struct reply *r)
{
	struct object *o = object_find(s, in->head.object);
	uint64_t after;

	(void)p;
	if (!o)
		return -ENOENT;
	put_rings(r, o->channel);
	if (leat__wire_get(in, LEAT__T_RING_ID, &after, sizeof(after)) == 0)
		bring_rings(r, o->channel, after);
	return 0;
}

static int do_ring(struct session *s, struct leat__in *in, struct leat__packet *p,
		   struct reply *r)
{
	struct object *o = object_find(s, in->head.object);
	struct ring *ring;
	uint64_t id;
	int e;

	(void)p;
	if (!o)
		return -ENOENT;
	e = leat__wire_get(in, LEAT__T_RING_ID, &id, sizeof(id));
	if (e < 0)
		return e;
	ring = ring_find(o->channel, id);
	if (!ring)
		return leat__fail(-ENOENT, "ring %llu is no more", (unsigned long long)id);
	leat__wire_u32(&r->out, LEAT__T_ENTRY, ring->entry);
	leat__wire_u32(&r->out, LEAT__T_STATE, ring->state);
	put_ring(r, ring);
	return 0;
}

static int do_close(struct session *s, struct leat__in *in, struct leat__packet *p,
		    struct reply *r)
{
	struct object *o = object_find(s, in->head.object);

	(void)p;
	(void)r;
	if (!o)
		return -ENOENT;
	object_end(s, o);
	return 0;
}

static int do_list(struct session *s, struct leat__in *in, struct leat__packet *p,
		   struct reply *r)
{
	char after[LEAT__NAME_MAX + 1];
	struct channel **all;
	int n, i = 0;

	(void)p;
	if (leat__wire_get_text(in, LEAT__T_NAME, after, sizeof(after)) < 0)
		after[0] = 0;
	n = registry_sorted(&s->b->reg, &all);
	if (n < 0)
		return n;
	while (i < n && strcmp(all[i]->name, after) <= 0)
		i++;
	for (; i < n; i++) {
		struct {
			struct leat__wire_channel facts;
			char name[LEAT__NAME_MAX + 1];
		} one = {.facts = channel_facts(all[i])};
		size_t len = strlen(all[i]->name);

		/* Room for the word that says there is more. */
		if (!leat__wire_fits(&r->out, sizeof(one.facts) + len + 16))
			break;
		memcpy(one.name, all[i]->name, len);
		leat__wire_bytes(&r->out, LEAT__T_CHANNEL, &one, sizeof(one.facts) + len);
	}
	if (i < n)
		leat__wire_u32(&r->out, LEAT__T_MORE, 1);
	free(all);
	return 0;
}

static struct leat__wire_peer peer(const struct owner *o, uint64_t id, uint32_t role,
				   uint32_t alive)
{
	struct leat__wire_peer w = {id, o->pid, o->uid, role, alive, ""};

	memcpy(w.program, o->program, sizeof(w.program));
	return w;
}

/* Peers are numbered: rings first, then slots; the request says from which number. */
static int do_peers(struct session *s, struct leat__in *in, struct leat__packet *p,
		    struct reply *r)
{
	struct object *o = object_find(s, in->head.object);
	uint32_t from = get_u32(in, LEAT__T_MORE), n = 0;
	const struct channel *ch;

	(void)p;
	if (!o)
		return -ENOENT;
	ch = o->channel;
	for (struct ring *ring = ch->rings; ring; ring = ring->next, n++) {
		struct leat__wire_peer w =
			peer(&ring->owner, ring->id, 1, ring->state == LEAT__LIVE);

		if (n < from)
			continue;
		if (!leat__wire_fits(&r->out, sizeof(w) + 16))
			goto more;
		leat__wire_bytes(&r->out, LEAT__T_PEER, &w, sizeof(w));
	}
	for (uint32_t i = 0; i < ch->n_slots; i++, n++) {
		struct leat__wire_peer w;

		if (n < from || !ch->slots[i].mode)
			continue;
		w = peer(ch->slots[i].owner, i, ch->slots[i].mode + 1, 1);
		if (!leat__wire_fits(&r->out, sizeof(w) + 16))
			goto more;
		leat__wire_bytes(&r->out, LEAT__T_PEER, &w, sizeof(w));
	}
	return 0;
more:
	leat__wire_u32(&r->out, LEAT__T_MORE, n);
	return 0;
}

typedef int do_fn(struct session *s, struct leat__in *in, struct leat__packet *p, struct reply *r);
static do_fn *const requests[] = {
	[LEAT__HELLO] = do_hello,       [LEAT__PING] = do_ping,   [LEAT__PUB_OPEN] = do_pub_open,
	[LEAT__SUB_OPEN] = do_sub_open, [LEAT__RINGS] = do_rings, [LEAT__RING] = do_ring,
	[LEAT__CLOSE] = do_close,       [LEAT__LIST] = do_list,   [LEAT__LOOK] = do_look,
	[LEAT__PEERS] = do_peers,
};

/* One packet. Negative: this client is not to be talked to any more. */
static int handle(struct session *s, struct leat__packet *p)
{
	struct reply r = {.n_fds = 0};
	struct leat__in in;
	int e = leat__wire_parse(&in, p->bytes, p->size, p->n_fds);

	if (e < 0)
		return e;
	if (in.head.type >= sizeof(requests) / sizeof(requests[0]) || !requests[in.head.type])
		return leat__fail(-EPROTO, "unknown request %u", in.head.type);
	if (!s->greeted && in.head.type != LEAT__HELLO)
		return leat__say(-EPROTO, "the first packet is not HELLO");
	leat__wire_begin(&r.out, LEAT__OK, in.head.serial, in.head.object);
	e = requests[in.head.type](s, &in, p, &r);
	if (e == 0)
		e = leat__wire_end(&r.out, r.n_fds);
	if (e < 0) {
		leat__wire_begin(&r.out, LEAT__ERROR, in.head.serial, in.head.object);
		leat__wire_u32(&r.out, LEAT__T_CODE, (uint32_t)-e);
		leat__wire_text(&r.out, LEAT__T_WHY, leat_why());
		leat__wire_end(&r.out, 0);
		r.n_fds = 0;
	}
	e = 0;
	if (!(in.head.flags & LEAT__WIRE_QUIET))
		e = leat__sock_send(s->sock, &r.out, r.fds, r.n_fds);
	/* One that has hung up may have said more before: hear it out. */
	if (e < 0 && e != -EPIPE && e != -ECONNRESET)
		return leat__fail(e, "the client does not take its answer: %s", strerror(-e));
	s->b->changed(s->b);
	return 0;
}

static void on_socket(uv_poll_t *h, int status, int events)
{
	struct session *s = h->data;
	struct leat__packet p;
	int e;

	(void)events;
	if (status < 0) {
		hang_up(s);
		return;
	}
	for (int i = 0; i < 16; i++) { /* the others want their turn too */
		e = leat__sock_recv(s->sock, &p);
		if (e == -EAGAIN)
			return;
		if (e == -ECONNRESET) /* it left answers unread; what it said is still there */
			continue;
		if (e > 0) {
			e = handle(s, &p);
			leat__packet_close(&p);
		} else if (e == 0) {
			e = leat__say(-EPIPE, "closed");
		}
		if (e < 0) {
			if (e != -EPIPE)
				broker_log(s->b, "client %llu (%s, pid %d): %s",
					   (unsigned long long)s->owner.client, s->owner.program,
					   (int)s->owner.pid, leat_why());
			hang_up(s);
			return;
		}
	}
}

int session_start(struct broker *b, int sock)
{
	struct session *s = calloc(1, sizeof(*s));
	int e;

	if (!s) {
		close(sock);
		return -ENOMEM;
	}
	s->b = b;
	s->sock = sock;
	s->pidfd = -1;
	e = leat__sock_peer(sock, &s->owner.pid, &s->owner.uid, &s->pidfd);
	if (e == 0)
		e = uv_poll_init(b->loop, &s->sock_poll, sock);
	if (e < 0) {
		broker_log(b, "refused a client: %s", leat_why());
		if (s->pidfd >= 0)
			close(s->pidfd);
		close(sock);
		free(s);
		return e;
	}
	s->sock_poll.data = s;
	s->owner.client = ++b->next_client;
	s->at = &b->sessions;
	s->next = b->sessions;
	if (s->next)
		s->next->at = &s->next;
	b->sessions = s;
	b->n_sessions++;
	uv_poll_start(&s->sock_poll, UV_READABLE | UV_DISCONNECT, on_socket);
	if (s->pidfd >= 0) {
		uv_poll_init(b->loop, &s->pid_poll, s->pidfd);
		s->pid_poll.data = s;
		uv_poll_start(&s->pid_poll, UV_READABLE, on_pidfd);
	}
	broker_log(b, "client %llu: pid %d, uid %u", (unsigned long long)s->owner.client,
		   (int)s->owner.pid, (unsigned)s->owner.uid);
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
