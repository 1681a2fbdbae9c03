/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is killed: victim OPERATION DOMAIN NAME. Sets the stage, stops at a breakpoint, does the operation, stops
 * at another. check_steps.c steps it from one to the other, and kills it on the way. Uses the public library
 * alone, as a shared object, so that its instructions can be told from all others.
 */
#include <leat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <unistd.h>

#if defined(__x86_64__)
#define MARK() __asm__ volatile("int3" ::: "memory")
#else
#define MARK() __builtin_trap()
#endif

static struct leat *l;
static struct leat_pub *p;
static struct leat_sub *s;
static struct leat_region *r;
static const char *domain, *name;
static void *at;
static const void *seen, *kept;
static char big[20000];

static void must(int e)
{
	if (e >= 0)
		return;
	fprintf(stderr, "victim: %s\n", leat_why());
	_exit(1);
}

static struct leat_pub_opts opts(enum leat_policy policy, int64_t grace, int strict)
{
	return (struct leat_pub_opts){.struct_size = sizeof(struct leat_pub_opts), .capacity = 4096,
				      .max_size = sizeof(big), .blocks = 2, .policy = policy, .grace_ns = grace,
				      .strict = (uint32_t)strict};
}

static void publisher(enum leat_policy policy, int64_t grace, int strict, uint64_t n)
{
	struct leat_pub_opts o = opts(policy, grace, strict);

	must(leat_open(domain, &l));
	must(leat_pub_open(l, name, &o, &p));
	for (uint64_t i = 0; i < n; i++)
		must(leat_send(p, &i, sizeof(i), 0));
}

static void send_one(uint64_t i)
{
	must(leat_send(p, &i, sizeof(i), 0));
}

static void send_big(uint64_t i)
{
	memcpy(big, &i, sizeof(i));
	must(leat_send(p, big, sizeof(big), 0));
}

static void subscriber(unsigned flags)
{
	struct leat_sub_opts o = {.struct_size = sizeof(o), .flags = flags, .from = LEAT_OLDEST, .spin_ns = -1};

	if (!l)
		must(leat_open(domain, &l));
	must(leat_sub_open(l, name, &o, &s));
}

static void region(void)
{
	enum leat_region_kind kind = strstr(domain, "memfd") ? LEAT_MEMFD : strstr(domain, "posix") ? LEAT_POSIX
				   : strstr(domain, "file") ? LEAT_FILE : strstr(domain, "anon") ? LEAT_ANON
											       : LEAT_SYSV;
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = kind, .size = 8192,
				     .name = kind == LEAT_ANON || kind == LEAT_SYSV ? NULL : name};

	must(leat_region_create(&o, &r));
}

static void attach_region(void)
{
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_FILE, .name = name};

	must(leat_region_open(&o, &r));
}

static struct leat_queue *q;
static const void *work;

/* A worker of group g, with the first so many messages in hand and done with, and @again put back. */
static void worker(int taken, int again)
{
	struct leat_queue_opts o = {.struct_size = sizeof(o), .max_deliveries = 2, .spin_ns = -1};

	if (!l)
		must(leat_open(domain, &l));
	must(leat_queue_open(l, name, "g", &o, &q));
	for (int i = 0; i < taken + again; i++) {
		must(leat_queue_take(q, &work, NULL, 0));
		must(i < taken ? leat_queue_ack(q) : leat_queue_nack(q));
	}
}

static void take(int64_t timeout)
{
	must(leat_queue_take(q, &work, NULL, timeout));
}

static struct leat_client *client;
static struct leat_server *server;
static struct leat_answer answer;
static struct leat_request request;

static void call(void)
{
	must(leat_call(client, "hello", 5, &answer, LEAT_FOREVER));
}

static void open_client(int calls)
{
	must(leat_open(domain, &l));
	must(leat_client_open(l, name, NULL, &client));
	for (; calls > 0; calls--)
		call();
}

static void answer_one(int in_place)
{
	void *room;

	must(leat_accept(server, &request, LEAT_FOREVER));
	if (!in_place) {
		must(leat_reply(server, &request, 0, request.data, request.size));
		return;
	}
	must(leat_reply_claim(server, &request, request.size, &room));
	memcpy(room, request.data, request.size);
	must(leat_reply_commit(server, &request, 0, request.size));
}

static void open_server(int requests)
{
	must(leat_open(domain, &l));
	must(leat_serve(l, name, NULL, &server));
	for (; requests > 0; requests--)
		answer_one(0);
}

static struct leat_set *set;
static struct leat_ready ready;

static void in_set(void)
{
	must(leat_set_open(&set));
	if (q)
		must(leat_set_add_queue(set, q, NULL));
	else
		must(leat_set_add_sub(set, s, NULL));
}

static int any_quota(const struct leat_quota *quota, void *arg)
{
	(void)quota, (void)arg;
	return 0;
}

static struct leat_watch *names;

/* All there is, and then nothing. */
static void look_at_names(void)
{
	struct leat_event ev = {.struct_size = sizeof(ev)};

	do
		must(leat_watch_next(names, &ev, 1000000000));
	while (ev.kind != LEAT_SYNCED);
	leat_watch_next(names, &ev, 1000000);
}

static struct leat_share *shared;

static void open_and_make(void)
{
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD, .size = 4096};

	must(leat_open(domain, &l));
	must(leat_region_create(&o, &r));
	strcpy(leat_region_addr(r), "victim's");
}

/* For as long as it lives: the driver sees when it has gone over to another broker. */
static void sends_on(uint64_t i)
{
	for (;; i++) {
		send_one(i);
		usleep(5000);
	}
}

static void receives_on(void)
{
	uint64_t n;

	for (;;)
		leat_recv(s, &n, sizeof(n), NULL, 10000000);
}

/* In a region with a mutex at 0, a semaphore at 64, a bell at 128. */
#define MUTEX ((struct leat_mutex *)leat_region_addr(r))
#define SEM   ((struct leat_sem *)(void *)((char *)leat_region_addr(r) + 64))
#define BELL  ((struct leat_bell *)(void *)((char *)leat_region_addr(r) + 128))

/* MARK() stands before and after what is stepped through. */
#define STAGE(op, ...)                                                                             \
	if (!strcmp(argv[1], op)) {                                                                \
		__VA_ARGS__;                                                                       \
		MARK();                                                                            \
		pause();                                                                           \
	}

int main(int argc, char **argv)
{
	uint64_t n = 0;

	if (argc != 4)
		return 2;
	domain = argv[2];
	name = argv[3];
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);

	/* publishing: 0, 1, 2, ... */
	STAGE("open", MARK(); must(leat_open(domain, &l)))
	STAGE("open_tickets", setenv("LEAT_TICKET", "leat1.one leat1.two", 1); MARK(); must(leat_open(domain, &l)))
	STAGE("close", must(leat_open(domain, &l)); MARK(); leat_close(l))
	STAGE("pub_open", must(leat_open(domain, &l)); struct leat_pub_opts o = opts(LEAT_WAIT, 0, 0); MARK();
	      must(leat_pub_open(l, name, &o, &p)))
	STAGE("claim", publisher(LEAT_WAIT, 0, 0, 3); MARK(); must(leat_claim(p, 8, &at, 0)))
	STAGE("commit", publisher(LEAT_WAIT, 0, 0, 3); must(leat_claim(p, 8, &at, 0)); n = 3; memcpy(at, &n, 8); MARK();
	      must(leat_commit(p, 8, 0)))
	STAGE("commit_more", publisher(LEAT_WAIT, 0, 0, 3); must(leat_claim(p, 8, &at, 0)); n = 3; memcpy(at, &n, 8); MARK();
	      must(leat_commit(p, 8, LEAT_MORE)); must(leat_claim(p, 8, &at, 0)); n = 4; memcpy(at, &n, 8);
	      must(leat_commit(p, 8, LEAT_MORE)); must(leat_flush(p)))
	STAGE("abort", publisher(LEAT_WAIT, 0, 0, 3); must(leat_claim(p, 8, &at, 0)); MARK(); must(leat_abort(p)))
	STAGE("send", publisher(LEAT_WAIT, 0, 0, 3); MARK(); send_one(3); send_one(4))
	STAGE("send_strict", publisher(LEAT_WAIT, 0, 1, 3); MARK(); send_one(3))
	/* sixteen bytes each: the next sixteenth begins at the 16th, the ring is full at the 256th */
	STAGE("send_mark", publisher(LEAT_WAIT, 0, 0, 15); MARK(); send_one(15); send_one(16))
	STAGE("send_refresh", publisher(LEAT_WAIT, 0, 0, 256); MARK(); send_one(256))
	STAGE("send_overwrite", publisher(LEAT_OVERWRITE, 0, 0, 256); MARK(); send_one(256))
	STAGE("send_grace", publisher(LEAT_WAIT, 1, 0, 256); MARK(); for (int i = 0; i < 2; i++) {
		n = 256;
		leat_send(p, &n, 8, 2000000);
	})
	STAGE("send_block", publisher(LEAT_WAIT, 0, 0, 3); MARK(); send_big(3))
	STAGE("send_block_again", publisher(LEAT_WAIT, 0, 0, 0); send_big(0); send_big(1); MARK(); send_big(2))
	STAGE("wait_space", publisher(LEAT_WAIT, 0, 0, 256); MARK(); n = 256; leat_send(p, &n, 8, 2000000))
	STAGE("move", publisher(LEAT_WAIT, 0, 0, 3); MARK(); sends_on(3))
	STAGE("pub_close", publisher(LEAT_WAIT, 0, 0, 3); MARK(); leat_pub_close(p))

	/* subscribing, from the oldest; retain and drop find a large one */
	STAGE("sub_open", must(leat_open(domain, &l)); MARK(); subscriber(0))
	STAGE("sub_observe", must(leat_open(domain, &l)); MARK(); subscriber(LEAT_OBSERVE))
	STAGE("recv", subscriber(0); MARK(); must(leat_recv(s, &n, 8, NULL, 0)); must(leat_recv(s, &n, 8, NULL, 0)))
	STAGE("recv_empty", subscriber(0); MARK(); while (leat_recv(s, &n, 8, NULL, 0) == 0))
	STAGE("recv_wait", subscriber(0); while (leat_recv(s, &n, 8, NULL, 0) == 0); MARK();
	      leat_recv(s, &n, 8, NULL, 1000000))
	STAGE("latest", subscriber(0); MARK(); must(leat_latest(s, &n, 8, NULL)))
	STAGE("peek", subscriber(0); MARK(); must(leat_peek(s, &seen, NULL, 0)))
	STAGE("release", subscriber(0); must(leat_peek(s, &seen, NULL, 0)); MARK(); must(leat_release(s)))
	STAGE("retain", subscriber(0); MARK(); must(leat_peek(s, &seen, NULL, 0)); must(leat_retain(s, &kept)))
	STAGE("drop", subscriber(0); MARK(); must(leat_peek(s, &seen, NULL, 0)); must(leat_retain(s, &kept));
	      must(leat_drop(s, kept)))
	STAGE("return", subscriber(0); MARK(); receives_on())
	STAGE("sub_close", subscriber(0); MARK(); leat_sub_close(s))

	/* a worker; five messages wait, which with take_wait are done already */
	STAGE("queue_open", must(leat_open(domain, &l)); MARK(); worker(0, 0))
	STAGE("take", worker(0, 0); MARK(); take(0))
	STAGE("take_next", worker(2, 0); MARK(); take(0))
	STAGE("take_again", worker(0, 1); MARK(); take(0))
	STAGE("take_wait", worker(5, 0); MARK(); leat_queue_take(q, &work, NULL, 1000000))
	STAGE("take_dead", worker(0, 2); MARK(); take(0))
	STAGE("ack", worker(0, 0); take(0); MARK(); must(leat_queue_ack(q)))
	STAGE("nack", worker(0, 0); take(0); MARK(); must(leat_queue_nack(q)))
	STAGE("queue_close", worker(0, 0); MARK(); leat_queue_close(q))
	STAGE("queue_close_busy", worker(0, 0); take(0); MARK(); leat_queue_close(q))

	/* a client of the driver's server; a server of its client */
	STAGE("client_open", must(leat_open(domain, &l)); MARK(); must(leat_client_open(l, name, NULL, &client)))
	STAGE("call_first", open_client(0); MARK(); call())
	STAGE("call", open_client(2); MARK(); call())
	STAGE("client_close", open_client(1); MARK(); leat_client_close(client))
	STAGE("serve", must(leat_open(domain, &l)); MARK(); must(leat_serve(l, name, NULL, &server)))
	STAGE("accept_first", open_server(0); MARK(); answer_one(0))
	STAGE("accept", open_server(2); MARK(); answer_one(0))
	STAGE("reply_claim", open_server(2); MARK(); answer_one(1))
	STAGE("serve_close", open_server(1); MARK(); leat_serve_close(server))

	STAGE("share", open_and_make(); MARK(); must(leat_region_share(l, name, r, 0, &shared)))
	STAGE("unshare", open_and_make(); must(leat_region_share(l, name, r, 0, &shared)); MARK(); leat_region_unshare(shared))
	STAGE("find", must(leat_open(domain, &l)); MARK(); must(leat_region_find(l, name, 0, NULL, &r)))

	STAGE("quota", must(leat_open(domain, &l)); MARK(); must(leat_quota(l, any_quota, NULL)))
	STAGE("kick", must(leat_open(domain, &l)); MARK(); must(leat_kick(l, strtoull(name, NULL, 10))))

	STAGE("set_wait", subscriber(0); while (leat_recv(s, &n, 8, NULL, 0) == 0); in_set(); MARK();
	      leat_set_wait(set, &ready, 1, 1000000))
	STAGE("set_take_wait", worker(5, 0); in_set(); MARK(); leat_set_wait(set, &ready, 1, 1000000);
	      leat_queue_take(q, &work, NULL, 0))

	STAGE("watch", must(leat_open(domain, &l)); MARK(); must(leat_watch(l, NULL, &names)))
	STAGE("watch_next", must(leat_open(domain, &l)); must(leat_watch(l, NULL, &names)); MARK(); look_at_names())
	STAGE("watch_close", must(leat_open(domain, &l)); must(leat_watch(l, NULL, &names)); look_at_names(); MARK();
	      leat_watch_close(names))

	/* regions: DOMAIN is the kind, NAME the path */
	STAGE("region", MARK(); region())
	STAGE("region_close", region(); MARK(); leat_region_close(r))
	STAGE("lock", attach_region(); MARK(); must(leat_mutex_lock(r, MUTEX, 0)))
	STAGE("unlock", attach_region(); must(leat_mutex_lock(r, MUTEX, 0)); MARK(); must(leat_mutex_unlock(r, MUTEX)))
	STAGE("repair", attach_region(); leat_mutex_lock(r, MUTEX, 0); MARK(); must(leat_mutex_repair(r, MUTEX));
	      must(leat_mutex_unlock(r, MUTEX)))
	STAGE("post", attach_region(); MARK(); must(leat_sem_post(SEM)))
	STAGE("sem_wait", attach_region(); MARK(); must(leat_sem_wait(SEM, 0)))
	STAGE("sem_sleep", attach_region(); must(leat_sem_wait(SEM, 0)); MARK(); leat_sem_wait(SEM, 1000000))
	STAGE("ring", attach_region(); leat_bell_listen(BELL); MARK(); must(leat_bell_ring(BELL)))
	STAGE("listen", attach_region(); MARK(); leat_bell_wait(BELL, leat_bell_listen(BELL), 1000000))
	STAGE("hand_create", attach_region(); MARK(); struct leat_pub_opts o = opts(LEAT_WAIT, 0, 0); o.max_size = 0;
	      must(leat_ring_create(r, NULL, &o, &p)))
	STAGE("hand_open", attach_region(); MARK(); must(leat_ring_open(r, NULL, NULL, &s)))
	STAGE("hand_send", attach_region(); struct leat_pub_opts o = opts(LEAT_WAIT, 0, 0); o.max_size = 0;
	      must(leat_ring_create(r, NULL, &o, &p)); MARK(); send_one(0))
	fprintf(stderr, "victim: no operation %s\n", argv[1]);
	return 2;
}
