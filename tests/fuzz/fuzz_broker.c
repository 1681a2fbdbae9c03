/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The broker's requests without sockets: clients come, ask for anything, and go, in any order, and what the broker thinks
 * there is agrees with a simple account of it. Now and then the worker is another, which knows what the log says.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/base.h"
#include "fuzz.h"
#include "mem/region.h"
#include "snapshot.h"

enum { CLIENTS = 3, RINGS = 6, OBJECTS = 64 };

static struct broker b;
static struct session *clients[CLIENTS], *reborn[CLIENTS];
static struct store store;
static int ring_fds[RINGS], odd_fds[4];
static struct leat__geometry g;
static uint64_t objects[OBJECTS]; /* ids that were given out lately */
static unsigned n_objects;

/* ---- what session.c does, without a loop ---- */

struct session *session_find(const struct broker *br, uint64_t client)
{
	struct session **all = br == &b ? clients : reborn;

	for (int i = 0; i < CLIENTS; i++)
		if (all[i] && all[i]->owner.client == client)
			return all[i];
	return NULL;
}

static void gone(int i)
{
	while (clients[i]->objects)
		object_end(clients[i], clients[i]->objects);
	store_del(&store, REC_SESSION, clients[i]->owner.client, 0);
	store_drop(&store, clients[i]->pid_key);
	quota_give(b.reg.quotas, &clients[i]->owner, LEAT__Q_CLIENTS, 0, 2);
	quota_go(b.reg.quotas, &clients[i]->owner);
	broker_commit(&b);
	close(clients[i]->pidfd);
	free(clients[i]->tickets);
	free(clients[i]->list_at);
	free(clients[i]);
	clients[i] = NULL;
}

void session_end(struct session *s)
{
	for (int i = 0; i < CLIENTS; i++)
		if (clients[i] == s)
			gone(i);
}

void session_kick(struct session *s)
{
	while (s->objects)
		object_end(s, s->objects);
}

int session_adopt(const struct session *facts)
{
	for (int i = 0; i < CLIENTS; i++)
		if (clients[i] && clients[i]->owner.client == facts->owner.client) {
			must(!reborn[i]);
			reborn[i] = malloc(sizeof(*facts));
			*reborn[i] = *facts;
			return quota_come(facts->b->reg.quotas, &facts->owner);
		}
	must(0);
	return 0;
}

int session_answer(struct session *s, const struct leat__out *out)
{
	struct leat__in in;

	must(s->greeted && leat__wire_parse(&in, out->bytes, out->size, 0) == 0);
	return 0;
}

/* ---- the account ---- */

static void agree(void)
{
	uint32_t shares = 0, watches = 0, known = 0;
	struct channel *const *all;
	int n = registry_sorted(&b.reg, &all);

	for (int i = 0; i < n; i++) {
		struct leat__wire_channel f = channel_facts(all[i]);
		uint32_t pubs = 0, subs = 0, looks = 0;

		must(i == 0 || strcmp(all[i - 1]->name, all[i]->name) < 0);
		for (int k = 0; k < CLIENTS; k++)
			for (struct object *o = clients[k] ? clients[k]->objects : NULL; o; o = o->next) {
				pubs += o->kind == PUBLISHER && o->channel == all[i];
				subs += o->kind == SUBSCRIBER && o->channel == all[i];
				looks += o->kind == LOOKER && o->channel == all[i];
			}
		must(f.publishers == pubs && f.subscribers == subs && all[i]->looks == looks);
		for (struct ring *r = all[i]->rings; r; r = r->next) {
			must(r->channel == all[i] && (!r->next || r->id < r->next->id));
			must(r->entry == LEAT__NO_ENTRY || r->entry < all[i]->g.n_rings);
			for (struct ring *s = r->next; s; s = s->next)
				must(s->entry == LEAT__NO_ENTRY || s->entry != r->entry);
		}
		known += f.publishers;
	}
	for (int k = 0; k < CLIENTS; k++)
		for (struct object *o = clients[k] ? clients[k]->objects : NULL; o; o = o->next) {
			shares += o->kind == SHARER;
			watches += o->kind == WATCHER;
			known -= o->kind == PUBLISHER;
		}
	for (struct share *s = b.reg.shares; s; s = s->next)
		shares--;
	must(!known && !shares && b.reg.watches == watches && (uint32_t)n == b.reg.n_channels);
}

/* ---- another worker ---- */

static int is_same(const struct object *x, const struct object *y)
{
	for (; x && y; x = x->next, y = y->next)
		if (x->id != y->id || x->kind != y->kind || x->since != y->since || x->waits != y->waits ||
		    x->made_by != y->made_by || (x->kind == SUBSCRIBER && x->slot != y->slot) ||
		    (x->ring && x->ring->id != y->ring->id) || (x->channel && strcmp(x->channel->name, y->channel->name) != 0))
			return 0;
	return !x && !y;
}

static void place(int *fds, uint32_t key, int fd)
{
	must(fds[key] < 0);
	fds[key] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static void another_worker(void)
{
	uint32_t n = (uint32_t)store.taken.n;
	struct broker next = {.lives = b.lives};
	size_t size = (size_t)store.head->end;
	unsigned char *log = malloc(size);
	int *fds = malloc((n + 1) * sizeof(*fds));
	struct leat__wire_quota mine, theirs;
	struct channel *const *all;
	int channels;

	broker_commit(&b);
	must(!store_waits(&store));
	size = (size_t)store.head->end;
	log = realloc(log, size);
	must(pread(store.log, log, size, 0) == (ssize_t)size);
	for (uint32_t i = 0; i < n; i++)
		fds[i] = -1;
	channels = registry_sorted(&b.reg, &all);
	for (int i = 0; i < channels; i++) {
		place(fds, all[i]->key, leat_region_fd(all[i]->control));
		for (struct ring *r = all[i]->rings; r; r = r->next)
			place(fds, r->key, r->fd);
	}
	for (struct share *s = b.reg.shares; s; s = s->next)
		place(fds, s->key, s->fd);
	for (int i = 0; i < CLIENTS; i++)
		if (clients[i])
			place(fds, clients[i]->pid_key, clients[i]->pidfd);
	next.reg.linger_ns = b.reg.linger_ns;
	next.reg.quotas = quotas_new();
	next.reg.store = &store;
	if (snapshot_load(&next, log, size, fds, n) < 0) {
		fprintf(stderr, "%s\n", leat_why());
		abort();
	}
	for (uint32_t i = 0; i < n; i++)
		must(fds[i] < 0);
	broker_commit(&next);
	free(fds);
	free(log);
	must(next.reg.n_channels == b.reg.n_channels && next.reg.n_ended == b.reg.n_ended && next.reg.watches == b.reg.watches);
	must(next.instance == b.instance && next.next_client == b.next_client && next.reg.next_ring > b.reg.next_ring);
	for (uint64_t uid = 0; quota_next(b.reg.quotas, uid, &mine) == 0; uid = (uint64_t)mine.uid + 1)
		must(quota_next(next.reg.quotas, uid, &theirs) == 0 && !memcmp(&mine, &theirs, sizeof(mine)));
	for (int i = 0; i < CLIENTS; i++) {
		must(!clients[i] == !reborn[i]);
		if (!clients[i])
			continue;
		must(is_same(clients[i]->objects, reborn[i]->objects) && clients[i]->done == reborn[i]->done);
		while (clients[i]->objects) {
			struct object *o = clients[i]->objects;

			clients[i]->objects = o->next;
			free(o->prefix);
			free(o);
		}
		must(clients[i]->n_tickets == reborn[i]->n_tickets &&
		     (!clients[i]->n_tickets || !memcmp(clients[i]->tickets, reborn[i]->tickets, clients[i]->n_tickets * sizeof(struct ticket))));
		close(clients[i]->pidfd);
		free(clients[i]->tickets);
		free(clients[i]->list_at);
		free(clients[i]);
		clients[i] = reborn[i];
		clients[i]->b = &b;
		reborn[i] = NULL;
	}
	b.reg.store = NULL;
	while (b.reg.shares)
		share_end(&b.reg, b.reg.shares);
	if (b.reg.watches) {
		b.reg.watches = 1;
		changes_watch(&b.reg, -1);
	}
	registry_free(&b.reg);
	quotas_free(b.reg.quotas);
	b = next;
}

/* ---- asking ---- */

static void ask(int i, struct leat__out *out, int fd)
{
	struct leat__packet p = {.n_fds = 0};
	struct reply r = {.n_fds = 0};
	struct session *s = clients[i];
	struct leat__in in;
	int e;

	if (leat__wire_end(out, fd >= 0) < 0)
		return;
	memcpy(p.bytes, out->bytes, out->size);
	p.size = out->size;
	if (fd >= 0)
		p.fds[p.n_fds++] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	e = leat__wire_parse(&in, p.bytes, p.size, p.n_fds);
	if (e == 0 && !s->greeted && in.head.type != LEAT__HELLO)
		e = -EPROTO; /* session.c's */
	if (e == 0) {
		leat__wire_begin(&r.out, LEAT__OK, in.head.serial, in.head.object);
		e = session_request(s, &in, &p, &r);
		if (store_waits(&store)) {
			s->done = in.head.serial;
			keep_session(s);
		}
		broker_commit(&b);
		if (e == 0) {
			struct leat__in answer;

			must(leat__wire_end(&r.out, r.n_fds) == 0);
			must(leat__wire_parse(&answer, r.out.bytes, r.out.size, r.n_fds) == 0);
			if (answer.head.object && answer.head.object != in.head.object)
				objects[n_objects++ % OBJECTS] = answer.head.object;
		}
		for (unsigned k = 0; k < r.n_owned; k++)
			close(r.fds[k]);
	}
	leat__packet_close(&p);
}

static const char *name_of(struct input *in)
{
	static const char *const names[] = {"a", "a/b", "a/b/c", "b", "jobs", "./odd", "", "a/"};

	return names[next8(in) % 8];
}

static void request(struct input *in, int i)
{
	static const uint8_t types[] = {LEAT__PUB_OPEN, LEAT__SUB_OPEN, LEAT__RINGS, LEAT__RING, LEAT__CLOSE, LEAT__LIST,
					LEAT__LOOK, LEAT__PEERS, LEAT__REMOVE, LEAT__SHARE, LEAT__FIND, LEAT__SHARES,
					LEAT__WATCH, LEAT__CHANGES, LEAT__WHO, LEAT__PING, LEAT__HELLO, 77, LEAT__QUOTA,
					LEAT__KICK};
	uint8_t type = types[next8(in) % sizeof(types)], how = next8(in);
	struct leat__wire_share share = {.size = 4096, .writable = how & 1};
	struct leat__out out;
	int fd = -1;

	leat__wire_begin(&out, type, 1 + next8(in), objects[next8(in) % OBJECTS]);
	leat__wire_text(&out, LEAT__T_NAME, name_of(in));
	if (how & 2)
		leat__wire_text(&out, LEAT__T_GROUP, name_of(in));
	leat__wire_u32(&out, LEAT__T_MODE, next8(in) % 6);
	leat__wire_u32(&out, LEAT__T_MAX_RINGS, next8(in) % 4);
	leat__wire_u32(&out, LEAT__T_MAX_SLOTS, next8(in) % 6);
	leat__wire_u64(&out, LEAT__T_RING_ID, how & 4 ? next64(in) : b.reg.next_ring - next8(in) % 4);
	if (how & 8)
		leat__wire_u64(&out, LEAT__T_SINCE, how & 16 ? next64(in) : b.reg.change - next8(in) % 4);
	leat__wire_text(&out, LEAT__T_PREFIX, name_of(in));
	if (how & 64)
		leat__wire_u32(&out, LEAT__T_MORE, 1);
	if (how & 32)
		leat__wire_u64(&out, LEAT__T_ORIGIN, next64(in));
	if (type == LEAT__PUB_OPEN || type == LEAT__SHARE) {
		struct leat__geometry mine = g;

		if (how & 64)
			mine.capacity = next64(in);
		mine.flags |= how & 1 ? LEAT__RETAIN : 0;
		leat__wire_geometry(&out, LEAT__T_GEOMETRY, &mine);
		leat__wire_bytes(&out, LEAT__T_SHARE, &share, sizeof(share));
		fd = how & 128 ? odd_fds[next8(in) % 4] : ring_fds[next8(in) % RINGS];
	}
	if (type == LEAT__KICK)
		leat__wire_u64(&out, LEAT__T_CLIENT, b.next_client - next8(in) % 4);
	if (type == LEAT__HELLO) {
		leat__wire_u32(&out, LEAT__T_VERSION_MIN, next8(in) % 3);
		leat__wire_u32(&out, LEAT__T_VERSION_MAX, next8(in) % 3);
		leat__wire_text(&out, LEAT__T_PROGRAM, "fuzz");
		leat__wire_u64(&out, LEAT__T_CLIENT, next8(in) % 8);
		leat__wire_u64(&out, LEAT__T_INSTANCE, how & 4 ? b.instance : 1);
	}
	if (how % 16 == 15) /* and something that nobody expects there */
		leat__wire_bytes(&out, next8(in), in->at, (size_t)(in->end - in->at) < 40 ? (size_t)(in->end - in->at) : 40);
	ask(i, &out, fd);
}

static void come(int i)
{
	struct leat__out out;

	clients[i] = calloc(1, sizeof(struct session));
	clients[i]->b = &b;
	clients[i]->sock = clients[i]->pidfd = -1;
	clients[i]->owner.client = ++b.next_client;
	clients[i]->owner.uid = geteuid();
	clients[i]->owner.pid = getpid();
	clients[i]->pidfd = fcntl(odd_fds[0], F_DUPFD_CLOEXEC, 3);
	clients[i]->sock_key = clients[i]->pid_key = STORE_NONE;
	must(store_keep(&store, clients[i]->pidfd, &clients[i]->pid_key) == 0);
	must(quota_come(b.reg.quotas, &clients[i]->owner) == 0);
	quota_had(b.reg.quotas, &clients[i]->owner, LEAT__Q_CLIENTS, 0, 2);
	keep_session(clients[i]);
	broker_commit(&b);
	leat__wire_begin(&out, LEAT__HELLO, 1, 0);
	leat__wire_u32(&out, LEAT__T_VERSION_MIN, LEAT__WIRE_MIN);
	leat__wire_u32(&out, LEAT__T_VERSION_MAX, LEAT__WIRE_MAX);
	ask(i, &out, -1);
}

/* What members write into their control regions: nothing that the broker must believe. */
static void scribble(struct input *in)
{
	struct channel *const *all;
	int n = registry_sorted(&b.reg, &all);
	struct channel *ch;

	if (n <= 0)
		return;
	ch = all[next8(in) % n];
	for (int k = next8(in) % 8; k >= 0; k--) {
		uint64_t *words = leat_region_addr(ch->control);

		words[next64(in) % (ch->g.total / 8)] = next64(in);
	}
}

static void setup(void)
{
	struct leat_region *r;
	unsigned char *view;

	must(leat__ring_geometry(&g, 4096, 0, 0, 0, leat__page_size()) == 0);
	for (int i = 0; i < RINGS; i++) {
		struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD, .size = g.total};

		must(leat_region_create(&o, &r) == 0);
		must(leat__region_view(r, g.data_off, g.capacity, &view) == 0);
		must(leat__seal_ring(leat_region_fd(r)) == 0);
		memset(leat_region_addr(r), i % 2, sizeof(struct leat__ring_shm)); /* in some somebody has sent */
		ring_fds[i] = fcntl(leat_region_fd(r), F_DUPFD_CLOEXEC, 3);
		leat_region_close(r);
	}
	odd_fds[0] = open("/dev/null", O_RDWR | O_CLOEXEC);
	odd_fds[1] = memfd_create("odd", MFD_CLOEXEC);
	odd_fds[2] = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	odd_fds[3] = open("/", O_PATH | O_CLOEXEC);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};
	struct leat__wire_quota left;
	uint32_t none;
	int *nothing;

	if (!odd_fds[0])
		setup();
	b = (struct broker){.lives = memfd_create("lives", MFD_CLOEXEC), .instance = 7};
	b.reg.linger_ns = 1000;
	must(store_open(&store, -1, &nothing, &none) == 0);
	b.reg.store = &store;
	b.reg.quotas = quotas_new();
	memset(objects, 0, sizeof(objects));
	n_objects = 0;
	for (int steps = 0; in.at < in.end && steps < 60; steps++) {
		uint8_t op = next8(&in);
		int i = op % CLIENTS;

		if (!clients[i])
			come(i);
		switch (op / CLIENTS % 8) {
		case 0: gone(i); break;
		case 1: registry_expire(&b.reg, op & 128 ? UINT64_MAX : leat__now()); break;
		case 2: scribble(&in); break;
		case 3: another_worker(); break;
		default: request(&in, i); break;
		}
		watchers_tell(&b);
		broker_commit(&b);
		agree();
	}
	for (int i = 0; i < CLIENTS; i++)
		if (clients[i])
			gone(i);
	agree();
	registry_free(&b.reg);
	must(!b.reg.n_channels && !b.reg.changes && !b.reg.shares && quota_next(b.reg.quotas, 0, &left) < 0);
	quotas_free(b.reg.quotas);
	store_close(&store);
	free(nothing);
	close(b.lives);
	return 0;
}
