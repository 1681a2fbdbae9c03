/* SPDX-License-Identifier: Apache-2.0 */
/* Request and reply: what a call brings, and how it ends when somebody dies, stops, is slow, or lies. */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "base/atomic.h"
#include "channel/channel.h"
#include "channel/rpc.h"
#include "harness.h"

static struct leat_client *client_of(struct leat *l, const char *name)
{
	struct leat_client *c;

	ok(leat_client_open(l, name, NULL, &c));
	return c;
}

static struct leat_server *server_of(struct leat *l, const char *name)
{
	struct leat_server *s;

	ok(leat_serve(l, name, NULL, &s));
	return s;
}

/*
 * Greeting and welcome, of two in one thread. The server learns of the client's ring from the broker, and looks again
 * later when the broker is slow to answer; the client's next call waits for the welcome, but nobody accepts meanwhile.
 */
static void meet(struct leat_client *c, struct leat_server *s)
{
	struct leat_serve_stat before = {.struct_size = sizeof(before)}, st = before;
	struct leat_request req;
	struct leat_answer a;

	ok(leat_serve_stat(s, &before));
	fails(leat_call(c, "x", 1, &a, 0), ETIMEDOUT); /* greets */
	eventually((leat_accept(s, &req, 0), leat_serve_stat(s, &st), st.clients > before.clients));
}

/* A server in a thread of its own, that echoes: backwards, or as the first byte says. */
struct echo {
	struct leat *l;
	struct leat_server *s;
	struct leat_serve_stat st; /* at the end */
	pthread_t thread;
	uint32_t clients;
	int stop;
};

static int answer(struct leat_server *s, const struct leat_request *req)
{
	const unsigned char *in = req->data;
	unsigned char *out;
	void *room;

	if (req->size && in[0] == 'E')
		return leat_reply(s, req, -ENODEV, in, req->size);
	if (req->size && in[0] == 'D') /* none */
		return 0;
	if (req->size && in[0] == 'C')
		return leat_reply(s, req, 0, in, req->size);
	ok(leat_reply_claim(s, req, req->size, &room));
	out = room;
	for (uint64_t i = 0; i < req->size; i++)
		out[i] = in[req->size - 1 - i];
	return leat_reply_commit(s, req, 0, req->size);
}

static void *echo(void *arg)
{
	struct echo *e = arg;
	struct leat_request req;
	int r;

	while (!leat__load_acquire(&e->stop)) {
		r = leat_accept(e->s, &req, 20000000);
		if (r == 0)
			r = answer(e->s, &req);
		must(r == 0 || r == -ETIMEDOUT || r == -EPIPE || r == -EAGAIN, "server: %d: %s", r, leat_why());
		ok(leat_serve_stat(e->s, &e->st));
		leat__store_relaxed(&e->clients, e->st.clients);
	}
	return NULL;
}

static void echo_start(struct echo *e, const char *name)
{
	*e = (struct echo){.l = broker_open(), .st = {.struct_size = sizeof(e->st)}};
	e->s = server_of(e->l, name);
	ck_assert(pthread_create(&e->thread, NULL, echo, e) == 0);
}

static void echo_stop(struct echo *e)
{
	leat__store_release(&e->stop, 1);
	pthread_join(e->thread, NULL);
	leat_close(e->l);
}

START_TEST(a_call_brings_its_reply)
{
	const char *name = random_name();
	struct leat *l = broker_open();
	struct leat_client *c = client_of(l, name); /* before there is a server */
	struct leat_answer a;
	struct echo e;
	char in[4096];

	fails(leat_call(c, "x", 1, &a, 0), ETIMEDOUT);
	fails(leat_call(c, "x", 1, &a, 50000000), ETIMEDOUT);
	echo_start(&e, name);
	for (size_t size = 0; size <= sizeof(in); size += size < 100 ? 1 : 333) {
		for (size_t i = 0; i < size; i++)
			in[i] = (char)('a' + (i + size) % 17);
		ok(leat_call(c, in, size, &a, 10 * SEC));
		ck_assert_uint_eq(a.size, size);
		ck_assert_int_eq(a.error, 0);
		for (size_t i = 0; i < size; i++)
			must(((const char *)a.data)[i] == in[size - 1 - i], "byte %zu of %zu", i, size);
	}
	ok(leat_call(c, "C same", 6, &a, SEC));
	ck_assert(a.size == 6 && !memcmp(a.data, "C same", 6));
	fails(leat_call(c, "E why", 5, &a, SEC), ENODEV);
	ck_assert(a.error == -ENODEV && a.size == 5 && !memcmp(a.data, "E why", 5));
	fails(leat_call(c, in, 4097, &a, SEC), EMSGSIZE);
	eventually(leat__load_relaxed(&e.clients) == 1);
	leat_client_close(c);
	eventually(leat__load_relaxed(&e.clients) == 0);
	echo_stop(&e);
	ck_assert_uint_eq(e.st.replies, e.st.requests);
	ck_assert_uint_eq(e.st.requests, 115);
	ck_assert_uint_eq(e.st.corrupt + e.st.dropped, 0);
	leat_close(l);
}
END_TEST

START_TEST(large_requests_and_replies_travel_without_a_copy)
{
	const char *name = random_name();
	struct leat *l = broker_open();
	struct leat_request req;
	struct leat_client *c;
	struct leat_server *s;
	struct leat_answer a;
	static char in[300000];
	uint64_t call;
	void *room;

	ok(leat_serve(l, name, OPTS(leat_serve_opts, .max_reply = 1000000, .max_calls = 2), &s));
	ok(leat_client_open(l, name, OPTS(leat_client_opts, .max_request = sizeof(in)), &c));
	meet(c, s);
	fill_message(in, sizeof(in), 1);
	for (int i = 0; i < 40; i++) {
		ok(leat_call_begin(c, in, sizeof(in), SEC, &call));
		ok(leat_accept(s, &req, SEC));
		ck_assert_uint_eq(req.call, call);
		ck_assert(req.size == sizeof(in) && message_whole(req.data, sizeof(in), 1));
		fails(leat_reply_claim(s, &req, 1000001, &room), EMSGSIZE);
		fails(leat_reply_commit(s, &req, 0, 0), EINVAL);
		ok(leat_reply_claim(s, &req, 900000, &room));
		fails(leat_reply(s, &req, 0, "x", 1), EBUSY);
		fill_message(room, 800000, (uint64_t)i);
		fails(leat_reply_commit(s, &req, 1, 0), EINVAL);
		fails(leat_reply_commit(s, &req, 0, 900001), EINVAL);
		ok(leat_reply_commit(s, &req, 0, 800000));
		ok(leat_call_wait(c, &a, SEC));
		ck_assert(a.call == call && a.size == 800000 && message_whole(a.data, 800000, (uint64_t)i));
	}
	leat_close(l); /* all that is left */
}
END_TEST

START_TEST(calls_under_way_end_in_any_order_and_are_bounded)
{
	const char *name = random_name();
	struct leat *l = broker_open();
	struct leat_client *c = client_of(l, name);
	struct leat_server *s;
	struct leat_request req[8], more;
	struct leat_answer a;
	uint64_t call[8], late;

	ok(leat_serve(l, name, OPTS(leat_serve_opts, .max_calls = 8), &s));
	fails(leat_call_wait(c, &a, 0), ENOENT);
	meet(c, s);
	for (int i = 0; i < 8; i++)
		ok(leat_call_begin(c, &i, sizeof(i), i == 3 ? 100000000 : -1, &call[i]));
	fails(leat_call_begin(c, "x", 1, SEC, &late), EAGAIN);
	fails(leat_call(c, "x", 1, &a, SEC), EBUSY);
	fails(leat_call_wait(c, &a, 0), EAGAIN);
	fails(leat_call_wait(c, &a, 1000000), ETIMEDOUT);
	for (int i = 0; i < 8; i++) {
		ok(leat_accept(s, &req[i], SEC));
		ck_assert_uint_eq(req[i].call, call[i]);
		ck_assert(*(const int *)req[i].data == i);
	}
	ok(leat_call_wait(c, &a, SEC));
	ck_assert(a.error == -ETIMEDOUT && a.call == call[3] && !a.size);
	/* It goes on counting until it is answered: */
	fails(leat_call_begin(c, "x", 1, SEC, &late), EAGAIN);
	for (int i = 7; i >= 0; i--) {
		ok(leat_reply(s, &req[i], 0, &i, sizeof(i)));
		if (i != 3) {
			ok(leat_call_wait(c, &a, SEC));
			ck_assert(a.error == 0 && a.call == call[i] && *(const int *)a.data == i);
		} else {
			fails(leat_call_wait(c, &a, 0), EAGAIN);
		}
	}
	ok(leat_reply(s, &req[0], 0, NULL, 0)); /* twice: of no call that is under way */
	fails(leat_call_wait(c, &a, 0), ENOENT);
	ok(leat_call_begin(c, "x", 1, SEC, &late));
	ok(leat_accept(s, &more, SEC));
	ok(leat_reply(s, &more, -EPERM, NULL, 0));
	ok(leat_call_wait(c, &a, SEC));
	ck_assert(a.error == -EPERM && a.call == late);
	leat_client_close(c);
	fails(leat_accept(s, &more, 100000000), ETIMEDOUT);
	fails(leat_reply(s, &req[0], 0, NULL, 0), EPIPE);
	c = client_of(l, name); /* in its place */
	meet(c, s);
	ok(leat_call_begin(c, "x", 1, SEC, &late));
	fails(leat_reply(s, &req[0], 0, NULL, 0), EPIPE);
	ok(leat_accept(s, &more, SEC));
	ck_assert_uint_eq((uint32_t)more.client, (uint32_t)req[0].client);
	leat_serve_close(s);
	leat_close(l);
}
END_TEST

enum { GUESTS = 1000, PARTIES = 10, ROUNDS = 5 };

struct party {
	const char *domain, *name;
	int number;
};

/* A tenth of the clients; each calls a few times, in turn, and knows its reply. */
static void celebrate(void *arg)
{
	static struct leat_client *c[GUESTS / PARTIES];
	const struct party *p = arg;
	struct leat_answer a;
	uint32_t out[2];
	struct leat *l;

	ok(leat_open(p->domain, &l));
	for (uint32_t i = 0; i < GUESTS / PARTIES; i++)
		ok(leat_client_open(l, p->name, OPTS(leat_client_opts, .max_request = 64, .max_calls = 2), &c[i]));
	for (uint32_t k = 0; k < ROUNDS; k++)
		for (uint32_t i = 0; i < GUESTS / PARTIES; i++) {
			out[0] = (uint32_t)p->number * 1000 + i;
			out[1] = k;
			ok(leat_call(c[i], out, sizeof(out), &a, 60 * SEC));
			must(a.size == 8 && !memcmp(a.data, out, 8), "client %u got another's reply", out[0]);
		}
	leat_close(l);
}

START_TEST(a_thousand_clients_have_one_server)
{
	struct party party = {broker_start("--linger", "0", NULL), random_name(), 0};
	struct leat *l = broker_open();
	struct leat_serve_stat st = {.struct_size = sizeof(st)};
	struct leat_stat channel = {.struct_size = sizeof(channel)};
	struct leat_request req;
	struct leat_server *s;
	pid_t pids[PARTIES];
	uint32_t most = 0, peers = 0;
	uint64_t until = leat__now() + 100 * (uint64_t)SEC;

	ok(leat_serve(l, party.name, OPTS(leat_serve_opts, .max_clients = GUESTS, .max_reply = 64), &s));
	for (; party.number < PARTIES; party.number++)
		pids[party.number] = child(celebrate, &party);
	while (st.replies < GUESTS * ROUNDS && leat__now() < until) {
		int e = leat_accept(s, &req, SEC);

		ck_assert(e == 0 || e == -ETIMEDOUT);
		if (e == 0)
			ok(leat_reply(s, &req, 0, req.data, (size_t)req.size));
		ok(leat_serve_stat(s, &st));
		if (st.clients == GUESTS && !peers) {
			ok(leat_stat(l, party.name, &channel, NULL, NULL));
			peers = channel.publishers;
		}
		most = st.clients > most ? st.clients : most;
	}
	ck_assert_uint_eq(st.replies, GUESTS * ROUNDS);
	for (int i = 0; i < PARTIES; i++)
		child_ok(pids[i]);
	until = leat__now() + 20 * (uint64_t)SEC;
	while (st.clients && leat__now() < until) {
		leat_accept(s, &req, SEC / 100);
		ok(leat_serve_stat(s, &st));
	}
	ck_assert_uint_eq(st.clients, 0);
	ck_assert_uint_gt(most, GUESTS / 2); /* not all at once: some leave when they have done */
	leat_close(l);
}
END_TEST

static int twice(struct leat_server *s, const struct leat_request *req, void *arg)
{
	int n;

	if (req->size != sizeof(n))
		return -EINVAL;
	memcpy(&n, req->data, sizeof(n));
	n = 2 * n + *(int *)arg;
	return leat_reply(s, req, 0, &n, sizeof(n));
}

START_TEST(an_event_loop_serves_with_a_function)
{
	const char *name = random_name();
	struct leat *l = broker_open(), *k = broker_open();
	struct leat_client *c = client_of(k, name);
	int one = 1, n;
	struct leat_server *s;
	struct leat_answer a;
	struct pollfd fds[2];
	uint64_t call;

	ok(leat_serve(l, name, OPTS(leat_serve_opts, .fn = twice, .arg = &one), &s));
	fds[0] = (struct pollfd){leat_server_fd(s), POLLIN, 0};
	fds[1] = (struct pollfd){leat_client_fd(c), POLLIN, 0};
	ok(fds[0].fd);
	ok(fds[1].fd);
	fails(leat_call(c, "x", 1, &a, 0), ETIMEDOUT);
	for (n = 0; n < 100; n++) {
		uint64_t until = leat__now() + 10 * SEC;
		int got = -EAGAIN, size = n % 10 ? sizeof(n) : 3;

		do { /* until the welcome is there */
			got = leat_call_begin(c, &n, (size_t)size, 0, &call);
			leat_dispatch(l);
		} while (got == -ETIMEDOUT && leat__now() < until);
		ok(got);
		while ((got = leat_call_wait(c, &a, 0)) == -EAGAIN && leat__now() < until) {
			ck_assert_int_gt(poll(fds, 2, 10000), 0);
			leat_dispatch(l);
		}
		ok(got);
		ck_assert_int_eq(a.error, n % 10 ? 0 : -EINVAL);
		if (n % 10)
			ck_assert_int_eq(*(const int *)a.data, 2 * n + 1);
	}
	leat_close(k);
	leat_close(l);
}
END_TEST

static void serve_and_hang(void *arg)
{
	struct leat_request req;
	struct leat_server *s;
	struct leat *l;

	ok(leat_open(broker_start(NULL), &l));
	s = server_of(l, arg);
	for (;;)
		if (leat_accept(s, &req, SEC) == 0)
			ok(answer(s, &req));
}

START_TEST(a_dead_servers_calls_fail_at_once_and_its_successor_is_found)
{
	char *name = strdup(random_name());
	struct leat *l;
	struct leat_client *c;
	struct leat_answer a;
	uint64_t call[3], start, slowest = 0;
	pid_t pid;

	broker_start(NULL);
	l = broker_open();
	c = client_of(l, name);
	for (int lives = 0; lives < 9; lives++) {
		pid = child(serve_and_hang, name);
		ok(leat_call(c, "hello", 5, &a, 10 * SEC));
		for (int i = 0; i < 3; i++)
			ok(leat_call_begin(c, "D", 1, -1, &call[i]));
		fails(leat_call_wait(c, &a, 1000000), ETIMEDOUT);
		start = leat__now();
		kill(pid, SIGKILL);
		for (int i = 0; i < 3; i++) {
			ok(leat_call_wait(c, &a, 10 * SEC));
			ck_assert_int_eq(a.error, -EOWNERDEAD);
		}
		if (leat__now() - start > slowest)
			slowest = leat__now() - start;
		waitpid(pid, NULL, 0);
		fails(leat_call_wait(c, &a, 0), ENOENT);
		fails(leat_call(c, "hello", 5, &a, 10000000), ETIMEDOUT);
	}
	fprintf(stderr, "# calls of a killed server failed after %.1f ms at most\n", (double)slowest / 1e6);
	ck_assert_uint_lt(slowest, SEC);
	leat_close(l);
	free(name);
}
END_TEST

/* The client that reads nothing is stopped, or has asked for more than it was granted. */
START_TEST(a_slow_client_stalls_neither_server_nor_others)
{
	const char *name = random_name();
	struct leat *l = broker_open(), *k = broker_open();
	struct leat_client *slow = client_of(k, name), *c = client_of(l, name);
	struct leat_answer a;
	uint64_t call, start;
	static char big[4000];
	struct echo e;

	echo_start(&e, name);
	ok(leat_call(slow, "x", 1, &a, 10 * SEC));
	/* Without reading, and without minding how much it was granted. */
	big[0] = 'C';
	for (int i = 0; i < 400; i++) {
		memset(slow->calls, 0, (slow->mask + 1) * sizeof(*slow->calls));
		slow->used = 0;
		ok(leat_call_begin(slow, big, sizeof(big), 10 * SEC, &call));
	}
	start = leat__now();
	for (int i = 0; i < 200; i++)
		ok(leat_call(c, "x", 1, &a, SEC));
	ck_assert_uint_lt(leat__now() - start, 5 * SEC);
	echo_stop(&e);
	ck_assert_uint_gt(e.st.dropped, 200);
	leat_close(l);
	leat_close(k);
}
END_TEST

START_TEST(several_servers_share_the_clients_and_one_may_end)
{
	const char *name = random_name();
	struct leat *l = broker_open();
	struct leat_client *c[12];
	struct leat_answer a;
	struct echo e[2];

	echo_start(&e[0], name);
	echo_start(&e[1], name);
	for (int i = 0; i < 12; i++) {
		c[i] = client_of(l, name);
		for (int k = 0; k < 3; k++) /* and pass over the other's welcome */
			ok(leat_call(c[i], "x", 1, &a, 10 * SEC));
	}
	echo_stop(&e[0]);
	for (int i = 0; i < 12; i++) {
		int r = leat_call(c[i], "y", 1, &a, 10 * SEC);

		if (r == -EOWNERDEAD)
			r = leat_call(c[i], "y", 1, &a, 10 * SEC);
		ok(r);
	}
	echo_stop(&e[1]);
	ck_assert_uint_eq(e[0].st.requests + e[1].st.requests, 48);
	leat_close(l);
}
END_TEST

START_TEST(what_is_no_request_is_counted_and_changes_nothing)
{
	const char *name = random_name();
	struct leat *l = broker_open();
	struct leat_server *s = server_of(l, name);
	struct leat_client *c = client_of(l, name);
	struct leat_serve_stat st = {.struct_size = sizeof(st)};
	struct leat_request req;
	struct leat_pub *p;
	uint64_t call;
	char junk[400];

	meet(c, s);
	ok(leat_pub_open(l, name, NULL, &p));
	for (int i = 0; i < 3000; i++) {
		struct leat__call_head h = {.server = i % 3 ? s->id : rnd(), .call = i % 5, .link = (uint32_t)(rnd() % 3),
					    .kind = (uint32_t)(rnd() % 4)};
		size_t size = rnd() % sizeof(junk);

		fill_message(junk, sizeof(junk), rnd());
		if (i % 7)
			memcpy(junk, &h, sizeof(h));
		ok(leat_send(p, junk, size, 0));
		fails(leat_accept(s, &req, 0), EAGAIN);
	}
	/* Nor does it make the server write to any channel that somebody would like it to. */
	memcpy(junk, &(struct leat__call_head){.kind = LEAT__CONNECT}, sizeof(struct leat__call_head));
	memcpy(junk + sizeof(struct leat__call_head), &(struct leat__connect){.max_calls = 1}, sizeof(struct leat__connect));
	strcpy(junk + sizeof(struct leat__call_head) + sizeof(struct leat__connect), "an/others/reply/channel");
	ok(leat_send(p, junk, sizeof(struct leat__call_head) + sizeof(struct leat__connect) + 23, 0));
	fails(leat_accept(s, &req, 0), EAGAIN);
	fails(leat_stat(l, "an/others/reply/channel", OPTS(leat_stat, .sent = 0), NULL, NULL), ENOENT);
	ok(leat_serve_stat(s, &st));
	ck_assert_uint_gt(st.corrupt, 1000);
	ck_assert_uint_eq(st.requests, 0);
	ok(leat_call_begin(c, "x", 1, SEC, &call));
	ok(leat_accept(s, &req, SEC));
	ck_assert_uint_eq(req.call, call);
	leat_close(l);
}
END_TEST

/* And a reply from somebody who is not its server is none. */
START_TEST(only_its_server_answers_a_client)
{
	const char *name = random_name();
	struct leat *l = broker_open();
	struct leat_server *s = server_of(l, name);
	struct leat_client *c = client_of(l, name);
	struct leat_request req;
	struct leat_answer a;
	struct leat_pub *p;
	uint64_t call;

	meet(c, s);
	ok(leat_call_begin(c, "x", 1, 10 * SEC, &call));
	ok(leat_pub_open(l, c->reply, NULL, &p));
	for (int i = 0; i < 8; i++) {
		struct leat__reply_head h = {s->id, i & 1 ? call : 0, 0, 0};

		ok(leat_send(p, &h, i & 2 ? sizeof(h) : 7, SEC));
		fails(leat_call_wait(c, &a, 1000000), ETIMEDOUT);
	}
	ok(leat_accept(s, &req, SEC));
	ok(leat_reply(s, &req, 0, "yes", 3));
	ok(leat_call_wait(c, &a, SEC));
	ck_assert(a.call == call && a.size == 3 && !memcmp(a.data, "yes", 3));
	leat_close(l);
}
END_TEST

/* However much of it comes, nobody waits longer than he wanted to. */
START_TEST(nonsense_without_end_keeps_nobody)
{
	struct leat *l = broker_open();
	const char *name = random_name();
	struct leat_server *s = server_of(l, name);
	struct leat_client *c = client_of(l, name);
	int64_t timeout = _i; /* ns: none, or as good as none */
	uint64_t call, seen, until = leat__now() + 20 * SEC;
	struct leat_request req;
	struct leat_answer a;
	struct leat_pub *p, *q;

	meet(c, s);
	ok(leat_call_begin(c, "x", 1, -1, &call));
	ok(leat_accept(s, &req, SEC));
	ok(leat_pub_open(l, name, NULL, &p));
	ok(leat_pub_open(l, c->reply, NULL, &q));
	for (int i = 0; i < 5000; i++) {
		ok(leat_send(p, "nonsense that goes on and on and on", 35, 0));
		ok(leat_send(q, "nonsense that goes on and on and on", 35, 0));
	}
	/* Each learns of its ring from the broker, which may be slow. */
	for (int i = 0; i < 20 || ((s->s->received <= 1000 || c->s->received <= 1000) && leat__now() < until); i++) {
		seen = s->s->received;
		fails(leat_accept(s, &req, timeout), timeout ? ETIMEDOUT : EAGAIN);
		ck_assert_uint_le(s->s->received - seen, LEAT__PATIENCE + 1);
		seen = c->s->received;
		fails(leat_call_wait(c, &a, timeout), timeout ? ETIMEDOUT : EAGAIN);
		ck_assert_uint_le(c->s->received - seen, LEAT__PATIENCE + 1);
	}
	ck_assert_uint_gt(s->s->received, 1000);
	ck_assert_uint_gt(c->s->received, 1000);
	leat_close(l);
}
END_TEST

START_TEST(a_restarted_broker_is_no_matter)
{
	const char *name = random_name();
	struct leat *l = broker_open();
	struct leat_client *c = client_of(l, name), *d;
	static const char text[] = "something";
	struct leat_answer a;
	struct echo e;

	echo_start(&e, name);
	for (int lives = 0; lives < 4; lives++) {
		for (int i = 0; i < 3000; i++) {
			ok(leat_call(c, &text, sizeof(text), &a, 10 * SEC));
			ck_assert_uint_eq(a.size, sizeof(text));
		}
		broker_kill(SIGKILL);
		for (int i = 0; i < 1000; i++)
			ok(leat_call(c, &text, sizeof(text), &a, 10 * SEC));
		broker_start(NULL);
		eventually(leat_client_open(l, name, NULL, &d) == 0); /* what is asked first meets the old one's end */
		ok(leat_call(d, "new", 3, &a, 10 * SEC));
		leat_client_close(d);
	}
	ck_assert_uint_ne(c->p->at.id, c->p->origin);
	echo_stop(&e);
	leat_close(l);
}
END_TEST

struct both {
	struct leat *l;
	struct leat_server *s;
	struct leat_client *c;
	const struct leat_request *req;
};

static void use_parents(void *arg)
{
	struct both *b = arg;
	struct leat_request req;
	struct leat_answer a;

	/* Its clients' rings are not in this process. */
	fails(leat_accept(b->s, &req, SEC), ECHILD);
	fails(leat_call_begin(b->c, "x", 1, SEC, NULL), ECHILD);
	fails(leat_call_wait(b->c, &a, SEC), ECHILD);
	fails(leat_reply(b->s, b->req, 0, "z", 1), ECHILD);
	fails(leat_server_fd(b->s), ECHILD);
	fails(leat_client_fd(b->c), ECHILD);
	leat_close(b->l);
}

START_TEST(a_forked_childs_handles_are_its_parents)
{
	struct both b = {.l = broker_open()};
	const char *name = random_name();
	struct leat_request req;
	struct leat_answer a;
	uint64_t call;

	b.s = server_of(b.l, name);
	b.c = client_of(b.l, name);
	meet(b.c, b.s);
	for (int i = 0; i < 3; i++) {
		ok(leat_call_begin(b.c, "x", 1, SEC, &call));
		ok(leat_accept(b.s, &req, SEC));
		b.req = &req;
		child_ok(child(use_parents, &b));
		ok(leat_reply(b.s, &req, 0, "y", 1));
		ok(leat_call_wait(b.c, &a, SEC));
		ck_assert(a.call == call && *(const char *)a.data == 'y');
	}
	leat_close(b.l);
}
END_TEST

START_TEST(bad_options_are_refused)
{
	struct leat *l = broker_open();
	struct leat_client *c;
	struct leat_server *s;
	char name[256];

	fails(leat_serve(l, "not a name", NULL, &s), EINVAL);
	fails(leat_client_open(l, "not a name", NULL, &c), EINVAL);
	fails(leat_serve(l, "a", OPTS(leat_serve_opts, .max_calls = 257), &s), EINVAL);
	fails(leat_client_open(l, "a", OPTS(leat_client_opts, .max_calls = 257), &c), EINVAL);
	memset(name, 'a', sizeof(name));
	name[LEAT__NAME_MAX] = 0;
	fails(leat_client_open(l, name, NULL, &c), EINVAL);
	leat_serve_close(NULL);
	leat_client_close(NULL);
	leat_close(l);
}
END_TEST

/* ---- many, some of which are killed ---- */

enum { CLIENTS = 32, SERVERS = 2 };

static struct ledger {
	char domain[200], name[64];
	uint64_t ended[CLIENTS], failed[CLIENTS], calls;
	int done[CLIENTS], stop;
} *ledger;

struct question {
	uint64_t client, n, check;
};

static void serve_all(void *arg)
{
	struct leat_request req;
	struct leat_server *s;
	struct leat *l;

	(void)arg;
	ok(leat_open(ledger->domain, &l));
	ok(leat_serve(l, ledger->name, NULL, &s));
	while (!leat__load_relaxed(&ledger->stop)) {
		struct question q;
		int e = leat_accept(s, &req, 100000000);

		if (e == -ETIMEDOUT)
			continue;
		must(e == 0, "server: %d: %s", e, leat_why());
		must(req.size == sizeof(q), "server: %llu bytes", (unsigned long long)req.size);
		memcpy(&q, req.data, sizeof(q));
		must(q.check == (q.client ^ q.n), "server: a torn request");
		q.check = q.client + q.n;
		e = leat_reply(s, &req, 0, &q, sizeof(q));
		must(e == 0 || e == -EPIPE, "server: %d: %s", e, leat_why());
	}
	leat_close(l);
}

static void call_all(void *arg)
{
	uint64_t me = (uint64_t)(uintptr_t)arg;
	struct leat_client *c;
	struct leat *l;

	ok(leat_open(ledger->domain, &l));
	ok(leat_client_open(l, ledger->name, NULL, &c));
	while (ledger->ended[me] < ledger->calls) {
		struct question q = {me, ledger->ended[me], me ^ ledger->ended[me]}, r;
		uint64_t start = leat__now();
		struct leat_answer a;
		int e = leat_call(c, &q, sizeof(q), &a, 10 * SEC);

		must(e == 0 || e == -EOWNERDEAD || e == -ETIMEDOUT, "client %d: %d: %s", (int)me, e, leat_why());
		must(leat__now() - start < 11 * SEC, "client %d: a call took %.1f s", (int)me,
		     (double)(leat__now() - start) / 1e9);
		if (e == 0) {
			must(a.size == sizeof(r), "client %d: %llu bytes", (int)me, (unsigned long long)a.size);
			memcpy(&r, a.data, sizeof(r));
			must(r.client == me && r.n == q.n && r.check == me + q.n, "client %d, call %llu: the reply to client "
			     "%llu's %llu", (int)me, (unsigned long long)q.n, (unsigned long long)r.client,
			     (unsigned long long)r.n);
		}
		ledger->failed[me] += e != 0;
		leat__store_release(&ledger->ended[me], ledger->ended[me] + 1);
	}
	leat__store_release(&ledger->done[me], 1);
	leat_close(l);
}

START_TEST(every_call_ends_and_no_reply_goes_astray_whoever_is_killed)
{
	unsigned clients = full() ? CLIENTS : 8, kills = full() ? 400 : 40, left = 0;
	uint64_t failed = 0;
	pid_t server[SERVERS], client[CLIENTS];

	ledger = mmap(NULL, sizeof(*ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert(ledger != MAP_FAILED);
	ledger->calls = full() ? 100000 : 40000;
	snprintf(ledger->domain, sizeof(ledger->domain), "%s", broker_start(NULL));
	snprintf(ledger->name, sizeof(ledger->name), "%s", random_name());
	for (unsigned i = 0; i < SERVERS; i++)
		server[i] = child(serve_all, NULL);
	for (unsigned i = 0; i < clients; i++)
		client[i] = child(call_all, (void *)(uintptr_t)i);
	for (unsigned k = 0; k < kills; k++) {
		unsigned victim = (unsigned)(rnd() % (k & 1 ? SERVERS : clients + SERVERS));

		usleep((useconds_t)(rnd() % 60000));
		if (victim < SERVERS) {
			child_kill(server[victim]);
			server[victim] = child(serve_all, NULL);
		} else if (!leat__load_acquire(&ledger->done[victim - SERVERS])) {
			child_kill(client[victim - SERVERS]);
			client[victim - SERVERS] = child(call_all, (void *)(uintptr_t)(victim - SERVERS));
		}
	}
	for (unsigned i = 0; i < clients; i++) {
		child_ok(client[i]);
		failed += ledger->failed[i];
		left += ledger->ended[i] < ledger->calls;
	}
	leat__store_release(&ledger->stop, 1);
	for (unsigned i = 0; i < SERVERS; i++)
		child_ok(server[i]);
	ck_assert_uint_eq(left, 0);
	ck_assert_uint_gt(failed, 0); /* else nobody was killed in time */
	fprintf(stderr, "# %u clients, %llu calls each, %u kills: %llu calls failed\n", clients,
		(unsigned long long)ledger->calls, kills, (unsigned long long)failed);
	munmap(ledger, sizeof(*ledger));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("rpc");
	TCase *tc = leak_checked(s, "rpc", full() ? 1800 : 120);

	test(tc, a_call_brings_its_reply);
	test(tc, large_requests_and_replies_travel_without_a_copy);
	test(tc, calls_under_way_end_in_any_order_and_are_bounded);
	test(tc, a_thousand_clients_have_one_server);
	test(tc, an_event_loop_serves_with_a_function);
	test(tc, a_dead_servers_calls_fail_at_once_and_its_successor_is_found);
	test(tc, a_slow_client_stalls_neither_server_nor_others);
	test(tc, several_servers_share_the_clients_and_one_may_end);
	test(tc, what_is_no_request_is_counted_and_changes_nothing);
	test(tc, only_its_server_answers_a_client);
	tcase_add_loop_test(tc, nonsense_without_end_keeps_nobody, 0, 2);
	test(tc, a_restarted_broker_is_no_matter);
	test(tc, a_forked_childs_handles_are_its_parents);
	test(tc, bad_options_are_refused);
	test(tc, every_call_ends_and_no_reply_goes_astray_whoever_is_killed);
	return run_suite(s);
}
