/* SPDX-License-Identifier: Apache-2.0 */
/* The ring, by hand, in one process: every verb, every policy, every region kind and page size. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "base/atomic.h"
#include "channel/channel.h"
#include "harness.h"

struct pair {
	struct leat_region *region;
	struct leat_pub *pub;
	struct leat_sub *sub;
};

static struct leat_region *region_of(enum leat_region_kind kind, uint64_t size)
{
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = kind, .size = size};
	struct leat_region *r;
	char name[64];

	if (kind == LEAT_FILE) {
		o.name = tmp_path("ring");
	} else if (kind == LEAT_POSIX) {
		snprintf(name, sizeof(name), "/leat-test-%llx", (unsigned long long)rnd());
		o.name = name;
	}
	ok(leat_region_create(&o, &r));
	if (kind == LEAT_POSIX)
		ok(leat_region_unlink(LEAT_POSIX, name));
	return r;
}

static struct pair pair_of(enum leat_region_kind kind, const struct leat_pub_opts *po,
			   const struct leat_sub_opts *so)
{
	uint64_t data, control;
	struct pair p;

	ok(leat_ring_plan(po, &data, &control));
	p.region = region_of(kind, data + control);
	ok(leat_ring_create(p.region, NULL, po, &p.pub));
	ok(leat_ring_open(p.region, NULL, so, &p.sub));
	return p;
}

static void end(struct pair *p)
{
	leat_sub_close(p->sub);
	leat_pub_close(p->pub);
	leat_region_close(p->region);
}

static const struct leat_pub_opts small = {.struct_size = sizeof(small), .capacity = 4096};
static const struct leat_pub_opts lossy = {
	.struct_size = sizeof(lossy), .capacity = 4096, .policy = LEAT_OVERWRITE};

static void send_number(struct leat_pub *p, uint64_t n)
{
	ok(leat_send(p, &n, sizeof(n), SEC));
}

static void expect_number(struct leat_sub *s, uint64_t want)
{
	struct leat_info info;
	uint64_t n;

	ok(leat_recv(s, &n, sizeof(n), &info, SEC));
	ck_assert_uint_eq(n, want);
	ck_assert_uint_eq(info.size, 8);
}

START_TEST(what_is_sent_arrives_in_every_kind_of_region)
{
	enum leat_region_kind kind = (enum leat_region_kind)_i;
	struct pair p = pair_of(kind, &small, NULL);

	for (uint64_t i = 0; i < 10000; i++) {
		struct leat_info info;
		char buf[600];
		size_t size = rnd() % 500;

		fill_message(buf, size, i);
		ok(leat_send(p.pub, buf, size, SEC));
		ok(leat_recv(p.sub, buf, sizeof(buf), &info, SEC));
		ck_assert_uint_eq(info.size, size);
		ck_assert_uint_eq(info.seq, i);
		ck_assert(message_whole(buf, size, i));
	}
	end(&p);
}
END_TEST

START_TEST(an_empty_ring_says_eagain_and_a_wait_ends_in_time)
{
	struct pair p = pair_of(LEAT_MEMFD, &small, NULL);
	uint64_t start = leat__now();
	char b[8];

	fails(leat_recv(p.sub, b, 8, NULL, 0), EAGAIN);
	fails(leat_recv(p.sub, b, 8, NULL, 30000000), ETIMEDOUT);
	ck_assert(leat__now() - start >= 30000000);
	ck_assert(leat__now() - start < SEC);
	end(&p);
}
END_TEST

START_TEST(a_full_ring_says_eagain_and_goes_on_when_read)
{
	struct pair p = pair_of(LEAT_MEMFD, &small, NULL);
	uint64_t n = 0, start = leat__now(), got;

	while (leat_send(p.pub, &n, 8, 0) == 0)
		n++;
	ck_assert_uint_eq(n, 4096 / 16);
	fails(leat_send(p.pub, &n, 8, 0), EAGAIN);
	fails(leat_send(p.pub, &n, 8, 20000000), ETIMEDOUT);
	ck_assert(leat__now() - start >= 20000000);
	for (got = 0; got < n; got++)
		expect_number(p.sub, got);
	send_number(p.pub, n);
	expect_number(p.sub, n);
	end(&p);
}
END_TEST

START_TEST(claim_commit_abort_keep_their_rules)
{
	struct pair p = pair_of(LEAT_MEMFD, &small, NULL);
	struct leat_info info;
	char b[64];
	void *at, *again;

	fails(leat_commit(p.pub, 0, 0), EINVAL);
	fails(leat_abort(p.pub), EINVAL);
	ok(leat_claim(p.pub, 16, &at, 0));
	fails(leat_claim(p.pub, 16, &again, 0), EBUSY);
	fails(leat_commit(p.pub, 17, 0), EINVAL);
	fails(leat_commit(p.pub, 16, 2), EINVAL);
	ok(leat_abort(p.pub));
	fails(leat_recv(p.sub, b, 64, NULL, 0), EAGAIN);
	ok(leat_claim(p.pub, 16, &at, 0));
	memcpy(at, "hello", 5);
	ok(leat_commit(p.pub, 5, 0)); /* less than claimed */
	ok(leat_recv(p.sub, b, 64, &info, 0));
	ck_assert_uint_eq(info.size, 5);
	ck_assert(!memcmp(b, "hello", 5));
	fails(leat_claim(p.pub, 4096, &at, 0), EMSGSIZE);
	fails(leat_send(p.pub, b, 513, 0), EMSGSIZE);
	ok(leat_send(p.pub, small.struct_size ? (const void *)&p : b, 0, 0)); /* empty is a message */
	ok(leat_recv(p.sub, b, 64, &info, 0));
	ck_assert_uint_eq(info.size, 0);
	end(&p);
}
END_TEST

START_TEST(a_batch_appears_all_at_once_when_flushed)
{
	struct pair p = pair_of(LEAT_MEMFD, &small, NULL);
	uint64_t n;
	void *at;

	for (n = 0; n < 10; n++) {
		ok(leat_claim(p.pub, 8, &at, 0));
		memcpy(at, &n, 8);
		ok(leat_commit(p.pub, 8, LEAT_MORE));
	}
	fails(leat_recv(p.sub, &n, 8, NULL, 0), EAGAIN);
	ok(leat_flush(p.pub));
	for (n = 0; n < 10; n++)
		expect_number(p.sub, n);
	/* A batch larger than the ring publishes itself in between instead of getting stuck. */
	for (n = 0; n < 1000; n++) {
		uint64_t got;

		ok(leat_claim(p.pub, 8, &at, 0));
		memcpy(at, &n, 8);
		ok(leat_commit(p.pub, 8, LEAT_MORE));
		while (leat_recv(p.sub, &got, 8, NULL, 0) == 0)
			;
	}
	end(&p);
}
END_TEST

START_TEST(a_message_too_large_for_the_buffer_stays_next)
{
	struct pair p = pair_of(LEAT_MEMFD, &small, NULL);
	struct leat_info info = {0};
	char b[100];

	memset(b, 'x', sizeof(b));
	ok(leat_send(p.pub, b, 100, 0));
	fails(leat_recv(p.sub, b, 99, &info, 0), EMSGSIZE);
	ck_assert_uint_eq(info.size, 100);
	ok(leat_recv(p.sub, b, 100, &info, 0));
	ck_assert_uint_eq(info.seq, 0);
	end(&p);
}
END_TEST

START_TEST(peek_shows_the_next_until_it_is_released)
{
	struct pair p = pair_of(LEAT_MEMFD, &small, NULL);
	const void *a, *b;

	fails(leat_release(p.sub), EINVAL);
	fails(leat_peek(p.sub, &a, NULL, 0), EAGAIN);
	send_number(p.pub, 1);
	send_number(p.pub, 2);
	ok(leat_peek(p.sub, &a, NULL, 0));
	ok(leat_peek(p.sub, &b, NULL, 0)); /* not released: the same again */
	ck_assert_ptr_eq(a, b);
	ok(leat_release(p.sub));
	fails(leat_release(p.sub), EINVAL);
	fails(leat_retain(p.sub, &b), EINVAL);
	ok(leat_peek(p.sub, &a, NULL, 0));
	ck_assert_uint_eq(*(const uint64_t *)a, 2);
	fails(leat_retain(p.sub, &b), ENOTSUP); /* inline */
	ok(leat_release(p.sub));
	fails(leat_drop(p.sub, a), EINVAL);
	end(&p);
}
END_TEST

START_TEST(an_overwritten_peek_says_estale_and_is_counted)
{
	struct pair p = pair_of(LEAT_MEMFD, &lossy, NULL);
	struct leat_sub_stat st = {.struct_size = sizeof(st)};
	const void *a;

	send_number(p.pub, 0);
	ok(leat_peek(p.sub, &a, NULL, 0));
	for (uint64_t i = 1; i < 1000; i++)
		send_number(p.pub, i);
	fails(leat_release(p.sub), ESTALE);
	while (leat_recv(p.sub, (char[8]){0}, 8, NULL, 0) == 0)
		;
	ok(leat_sub_stat(p.sub, &st));
	ck_assert_uint_eq(st.received + st.lost, 1000);
	ck_assert_uint_gt(st.lost, 0);
	end(&p);
}
END_TEST

START_TEST(received_and_lost_add_up_to_sent_however_slow_the_reader)
{
	struct pair p = pair_of(LEAT_MEMFD, &lossy, NULL);
	uint64_t sent = 0, got = 0, lost = 0;

	for (int round = 0; round < 2000; round++) {
		uint64_t burst = rnd() % 600, reads = rnd() % 300;

		for (uint64_t i = 0; i < burst; i++, sent++) {
			char b[64];
			size_t size = 8 + rnd() % 56;

			fill_message(b, size, sent);
			ok(leat_send(p.pub, b, size, 0));
		}
		for (uint64_t i = 0; i < reads; i++) {
			struct leat_info info;
			char b[64];
			int e = leat_recv(p.sub, b, sizeof(b), &info, 0);

			if (e == -EAGAIN)
				break;
			ok(e);
			lost += info.lost;
			ck_assert_uint_eq(info.seq, got + lost);
			ck_assert(message_whole(b, info.size, info.seq));
			got++;
		}
	}
	while (1) {
		struct leat_info info;
		char b[64];

		if (leat_recv(p.sub, b, sizeof(b), &info, 0) < 0)
			break;
		got++;
		lost += info.lost;
	}
	ck_assert_uint_eq(got + lost, sent);
	end(&p);
}
END_TEST

START_TEST(losses_at_the_very_end_are_counted_too)
{
	struct pair p = pair_of(LEAT_MEMFD, &lossy, NULL);
	struct leat_sub_stat st = {.struct_size = sizeof(st)};
	int e;

	for (uint64_t i = 0; i < 5000; i++)
		send_number(p.pub, i);
	leat_pub_close(p.pub);
	while ((e = leat_recv(p.sub, (char[8]){0}, 8, NULL, SEC)) == 0)
		;
	ck_assert_int_eq(e, -ENODATA);
	ok(leat_sub_stat(p.sub, &st));
	ck_assert_uint_eq(st.received + st.lost, 5000);
	leat_sub_close(p.sub);
	leat_region_close(p.region);
}
END_TEST

START_TEST(history_starts_at_the_oldest_record_still_there)
{
	struct pair p = pair_of(LEAT_MEMFD, &lossy, NULL);
	struct leat_sub *late;
	struct leat_info info;
	uint64_t n;

	for (uint64_t i = 0; i < 1000; i++)
		send_number(p.pub, i);
	ok(leat_ring_open(p.region, NULL, OPTS(leat_sub_opts, .from = LEAT_OLDEST), &late));
	ok(leat_recv(late, &n, 8, &info, 0));
	/* 256 fit; at least all but two sixteenths of them must still be had. */
	ck_assert_uint_ge(info.seq, 1000 - 256);
	ck_assert_uint_le(info.seq, 1000 - 256 + 48);
	for (uint64_t i = info.seq + 1; i < 1000; i++)
		expect_number(late, i);
	fails(leat_recv(late, &n, 8, NULL, 0), EAGAIN);
	leat_sub_close(late);
	ok(leat_ring_open(p.region, NULL, OPTS(leat_sub_opts, .from = LEAT_LATEST), &late));
	expect_number(late, 999);
	fails(leat_recv(late, &n, 8, NULL, 0), EAGAIN);
	leat_sub_close(late);
	ok(leat_ring_open(p.region, NULL, NULL, &late)); /* new */
	fails(leat_recv(late, &n, 8, NULL, 0), EAGAIN);
	send_number(p.pub, 1000);
	expect_number(late, 1000);
	leat_sub_close(late);
	end(&p);
}
END_TEST

/* The publisher waits for more room than there is: that is no reason to begin elsewhere. */
START_TEST(history_is_there_when_another_holds_the_publisher_up)
{
	struct pair p = pair_of(LEAT_MEMFD, &small, NULL);
	struct leat_sub *late;
	struct leat_info info;
	uint64_t n = 0, first;

	while (leat_send(p.pub, &n, sizeof(n), 0) == 0)
		n++;
	ok(leat_ring_open(p.region, NULL, OPTS(leat_sub_opts, .from = LEAT_OLDEST), &late));
	ok(leat_recv(late, &first, 8, &info, 0));
	ck_assert_uint_le(first, 48); /* of 256 */
	ck_assert_uint_eq(info.lost, 0);
	for (uint64_t i = first + 1; i < n; i++)
		expect_number(late, i);
	leat_sub_close(late);
	end(&p);
}
END_TEST

START_TEST(latest_is_the_newest_and_consumes_nothing)
{
	struct pair p = pair_of(LEAT_MEMFD, &lossy, NULL);
	struct leat_info info;
	uint64_t n;

	fails(leat_latest(p.sub, &n, 8, &info), EAGAIN);
	for (uint64_t i = 0; i < 1000; i++) {
		send_number(p.pub, i);
		ok(leat_latest(p.sub, &n, 8, &info));
		ck_assert_uint_eq(n, i);
		ck_assert_uint_eq(info.seq, i);
		fails(leat_latest(p.sub, &n, 7, &info), EMSGSIZE);
	}
	end(&p);
}
END_TEST

START_TEST(a_laggard_past_its_grace_is_evicted_and_may_come_back)
{
	struct pair p = pair_of(LEAT_MEMFD,
				OPTS(leat_pub_opts, .capacity = 4096, .grace_ns = 20000000), NULL);
	struct leat_sub_stat st = {.struct_size = sizeof(st)};
	struct leat_pub_stat ps = {.struct_size = sizeof(ps)};
	uint64_t start = leat__now(), n = 0;

	while (n < 300) { /* 256 fit */
		send_number(p.pub, n);
		n++;
	}
	ck_assert(leat__now() - start >= 20000000);
	ok(leat_pub_stat(p.pub, &ps));
	ck_assert_uint_eq(ps.evicted, 1);
	while (leat_recv(p.sub, (char[8]){0}, 8, NULL, 0) == 0)
		;
	ok(leat_sub_stat(p.sub, &st));
	ck_assert_uint_eq(st.received + st.lost, n);
	/* Back, and waited for again. */
	for (uint64_t i = 0; i < 256; i++)
		send_number(p.pub, n + i);
	fails(leat_send(p.pub, &n, 8, 0), EAGAIN);
	for (uint64_t i = 0; i < 256; i++)
		expect_number(p.sub, n + i);
	end(&p);
}
END_TEST

START_TEST(an_observer_never_holds_the_writer_up)
{
	struct pair p = pair_of(LEAT_MEMFD, &small, OPTS(leat_sub_opts, .flags = LEAT_OBSERVE));
	struct leat_sub_stat st = {.struct_size = sizeof(st)};
	uint64_t n;

	for (n = 0; n < 10000; n++)
		ok(leat_send(p.pub, &n, 8, 0));
	while (leat_recv(p.sub, (char[8]){0}, 8, NULL, 0) == 0)
		;
	ok(leat_sub_stat(p.sub, &st));
	ck_assert_uint_eq(st.received + st.lost, n);
	ck_assert_uint_gt(st.lost, 0);
	end(&p);
}
END_TEST

START_TEST(one_ring_has_one_writer_and_readers_see_the_next_one)
{
	struct pair p = pair_of(LEAT_MEMFD, &small, NULL);
	struct leat_pub *second;
	struct leat_sub *s2;
	uint64_t n;

	fails(leat_ring_create(p.region, NULL, &small, &second), EBUSY);
	send_number(p.pub, 7);
	leat_pub_close(p.pub);
	expect_number(p.sub, 7);
	fails(leat_recv(p.sub, &n, 8, NULL, SEC), ENODATA);
	ok(leat_ring_create(p.region, NULL, &small, &p.pub));
	ok(leat_ring_open(p.region, NULL, NULL, &s2));
	send_number(p.pub, 8);
	expect_number(s2, 8);
	fails(leat_recv(p.sub, &n, 8, NULL, SEC), ENODATA);
	leat_sub_close(s2);
	end(&p);
}
END_TEST

START_TEST(opening_by_hand_refuses_what_it_must)
{
	struct leat_region *r = region_of(LEAT_MEMFD, 65536), *ro;
	struct leat_sub *s, *subs[3];
	struct leat_pub *p;
	uint64_t a, b;

	fails(leat_ring_open(r, NULL, NULL, &s), EBADMSG); /* zeroes */
	fails(leat_ring_plan(OPTS(leat_pub_opts, .capacity = UINT64_MAX), &a, &b), EINVAL);
	fails(leat_ring_create(r, NULL, OPTS(leat_pub_opts, .capacity = 1 << 20), &p), ENOSPC);
	fails(leat_ring_create(r, NULL, OPTS(leat_pub_opts, .policy = (enum leat_policy)9), &p), EINVAL);
	fails(leat_ring_create(r, NULL, OPTS(leat_pub_opts, .grace_ns = -5), &p), EINVAL);
	ok(leat_region_open(OPTS(leat_region_opts, .kind = LEAT_MEMFD, .flags = LEAT_RDONLY,
				 .fd = leat_region_fd(r)),
			    &ro));
	fails(leat_ring_create(ro, NULL, &small, &p), EROFS);
	ok(leat_ring_create(r, NULL, OPTS(leat_pub_opts, .capacity = 4096, .max_subscribers = 2), &p));
	fails(leat_ring_open(r, ro, NULL, &s), EROFS);
	fails(leat_ring_open(r, NULL, OPTS(leat_sub_opts, .flags = 64), &s), EINVAL);
	ok(leat_ring_open(r, NULL, NULL, &subs[0]));
	ok(leat_ring_open(r, NULL, NULL, &subs[1]));
	fails(leat_ring_open(r, NULL, NULL, &subs[2]), EUSERS);
	/* Read-only, without a control region: an observer takes no slot. */
	ok(leat_ring_open(ro, NULL, NULL, &subs[2]));
	fails(leat_sub_fd(subs[2]), ENOTSUP);
	send_number(p, 3);
	expect_number(subs[2], 3);
	for (int i = 0; i < 3; i++)
		leat_sub_close(subs[i]);
	leat_pub_close(p);
	((char *)leat_region_addr(r))[80] ^= 2; /* the boot id: nothing but the checksum can tell */
	fails(leat_ring_open(r, NULL, NULL, &s), EBADMSG);
	((char *)leat_region_addr(r))[80] ^= 2;
	((char *)leat_region_addr(r))[8] ^= 2; /* the layout number */
	fails(leat_ring_open(r, NULL, NULL, &s), EPROTO);
	leat_region_close(ro);
	leat_region_close(r);
}
END_TEST

START_TEST(a_ring_of_another_boot_can_be_read_but_not_joined)
{
	struct pair p = pair_of(LEAT_FILE, &small, NULL);
	struct leat__head *head = leat_region_addr(p.region);
	struct leat_sub *s;
	uint64_t n;

	for (uint64_t i = 0; i < 10; i++)
		send_number(p.pub, i);
	leat_sub_close(p.sub);
	head->boot[0] ^= 1;
	head->check = leat__hash(head, offsetof(struct leat__head, check));
	ok(leat_ring_open(p.region, NULL, OPTS(leat_sub_opts, .from = LEAT_OLDEST), &s));
	ck_assert_ptr_null(s->slot); /* takes no part: nobody is there */
	for (uint64_t i = 0; i < 10; i++)
		expect_number(s, i);
	fails(leat_recv(s, &n, 8, NULL, SEC), ENODATA);
	leat_sub_close(s);
	leat_pub_close(p.pub);
	leat_region_close(p.region);
}
END_TEST

START_TEST(a_ring_works_on_huge_pages_where_there_are_any)
{
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD, .size = 8 << 20,
				     .flags = LEAT_HUGE};
	struct pair p;
	int e = leat_region_create(&o, &p.region);

	if (e < 0) {
		fprintf(stderr, "# SKIP no huge pages are set aside here: %s\n", leat_why());
		return;
	}
	ok(leat_ring_create(p.region, NULL, &small, &p.pub)); /* rounded up to one huge page */
	ok(leat_ring_open(p.region, NULL, NULL, &p.sub));
	for (uint64_t i = 0; i < 300000; i++) {
		send_number(p.pub, i);
		expect_number(p.sub, i);
	}
	end(&p);
}
END_TEST

/* ---- blocks ---- */

static const struct leat_pub_opts blocky = {
	.struct_size = sizeof(blocky), .capacity = 4096, .max_size = 100000, .blocks = 4};

START_TEST(large_messages_travel_in_blocks)
{
	struct pair p = pair_of(LEAT_MEMFD, &blocky, NULL);
	static char b[100000];

	for (uint64_t i = 0; i < 300; i++) {
		size_t size = rnd() % 100001;
		struct leat_info info;
		void *at;

		ok(leat_claim(p.pub, size, &at, 0));
		fill_message(at, size, i);
		ok(leat_commit(p.pub, size, 0));
		ok(leat_recv(p.sub, b, sizeof(b), &info, 0));
		ck_assert_uint_eq(info.size, size);
		ck_assert(message_whole(b, size, i));
	}
	fails(leat_send(p.pub, b, 110592 + 1, 0), EMSGSIZE);
	end(&p);
}
END_TEST

START_TEST(unread_blocks_make_the_publisher_wait)
{
	struct pair p = pair_of(LEAT_MEMFD, &blocky, NULL);
	static char b[5000];

	for (int i = 0; i < 4; i++)
		ok(leat_send(p.pub, b, 5000, 0));
	fails(leat_send(p.pub, b, 5000, 0), EAGAIN);
	fails(leat_send(p.pub, b, 5000, 10000000), ETIMEDOUT);
	ok(leat_recv(p.sub, b, 5000, NULL, 0));
	ok(leat_send(p.pub, b, 5000, 0)); /* one is free at once */
	fails(leat_send(p.pub, b, 5000, 0), EAGAIN);
	end(&p);
}
END_TEST

START_TEST(a_retained_block_stays_until_it_is_dropped)
{
	struct pair p = pair_of(LEAT_MEMFD, &blocky, NULL);
	struct leat_pub_stat st = {.struct_size = sizeof(st)};
	static char b[5000];
	const void *kept[4], *x;

	for (int i = 0; i < 4; i++) {
		fill_message(b, 5000, (uint64_t)i);
		ok(leat_send(p.pub, b, 5000, 0));
		ok(leat_peek(p.sub, &x, NULL, 0));
		ok(leat_retain(p.sub, &kept[i]));
	}
	fails(leat_recv(p.sub, b, 5000, NULL, 0), EAGAIN);
	ok(leat_pub_stat(p.pub, &st));
	ck_assert_uint_eq(st.blocks_held, 4);
	fails(leat_send(p.pub, b, 5000, 0), ENOBUFS);
	ck_assert(strstr(leat_why(), "retained") != NULL);
	for (int i = 0; i < 4; i++)
		ck_assert(message_whole(kept[i], 5000, (uint64_t)i));
	ok(leat_drop(p.sub, kept[2]));
	fails(leat_drop(p.sub, kept[2]), EINVAL);
	fill_message(b, 5000, 9);
	ok(leat_send(p.pub, b, 5000, 0));
	ck_assert(message_whole(kept[0], 5000, 0));
	ck_assert(message_whole(kept[2], 5000, 9)); /* its block, again */
	ok(leat_peek(p.sub, &x, NULL, 0));
	ok(leat_retain(p.sub, &x));
	ok(leat_drop(p.sub, kept[0]));
	/* What a closed subscriber retained is free again. */
	leat_sub_close(p.sub);
	for (int i = 0; i < 20; i++)
		ok(leat_send(p.pub, b, 5000, 0));
	leat_pub_close(p.pub);
	leat_region_close(p.region);
}
END_TEST

START_TEST(a_fifth_block_cannot_be_retained)
{
	struct pair p = pair_of(LEAT_MEMFD,
				OPTS(leat_pub_opts, .capacity = 4096, .max_size = 5000, .blocks = 8), NULL);
	static char b[5000];
	const void *x;

	for (int i = 0; i < 5; i++) {
		ok(leat_send(p.pub, b, 5000, 0));
		ok(leat_peek(p.sub, &x, NULL, 0));
		if (i < 4)
			ok(leat_retain(p.sub, &x));
		else
			fails(leat_retain(p.sub, &x), ENOBUFS);
	}
	end(&p);
}
END_TEST

START_TEST(overwriting_blocks_never_hands_out_a_torn_one)
{
	struct leat_pub_opts o = blocky;
	struct leat_info info;
	static char b[20000];
	struct pair p;
	uint64_t sent = 0, got = 0, lost = 0;

	o.policy = LEAT_OVERWRITE;
	p = pair_of(LEAT_MEMFD, &o, NULL);
	for (int round = 0; round < 500; round++) {
		for (uint64_t i = rnd() % 8; i; i--, sent++) {
			size_t size = 600 + rnd() % 19000;

			fill_message(b, size, sent);
			ok(leat_send(p.pub, b, size, 0));
		}
		for (uint64_t i = rnd() % 4; i; i--) {
			if (leat_recv(p.sub, b, sizeof(b), &info, 0) < 0)
				break;
			lost += info.lost;
			ck_assert(message_whole(b, info.size, info.seq));
			ck_assert_uint_eq(info.seq, got + lost);
			got++;
		}
	}
	while (leat_recv(p.sub, b, sizeof(b), &info, 0) == 0) {
		got++;
		lost += info.lost;
	}
	ck_assert_uint_ge(sent, got + lost);
	leat_pub_close(p.pub);
	fails(leat_recv(p.sub, b, sizeof(b), &info, 0), ENODATA);
	{
		struct leat_sub_stat st = {.struct_size = sizeof(st)};

		ok(leat_sub_stat(p.sub, &st));
		ck_assert_uint_eq(st.received + st.lost, sent);
	}
	leat_sub_close(p.sub);
	leat_region_close(p.region);
}
END_TEST

START_TEST(a_block_overwritten_while_it_is_looked_at_says_estale)
{
	struct leat_pub_opts o = blocky;
	struct leat_sub_stat st = {.struct_size = sizeof(st)};
	static char b[5000];
	const void *at;
	struct pair p;

	o.policy = LEAT_OVERWRITE;
	p = pair_of(LEAT_MEMFD, &o, NULL);
	fill_message(b, 5000, 0);
	ok(leat_send(p.pub, b, 5000, 0));
	ok(leat_peek(p.sub, &at, NULL, 0));
	for (int i = 0; i < 4; i++) { /* its record is still in the ring, its block is another's */
		ok(leat_send(p.pub, b, 5000, 0));
	}
	fails(leat_release(p.sub), ESTALE);
	while (leat_recv(p.sub, b, 5000, NULL, 0) == 0)
		;
	ok(leat_sub_stat(p.sub, &st));
	ck_assert_uint_eq(st.received + st.lost, 5);
	ck_assert_uint_eq(st.lost, 1);
	end(&p);
}
END_TEST

/* ---- two sides ---- */

struct stream {
	struct leat_region *region;
	uint64_t n;
	size_t max;
};

static void read_stream(void *arg)
{
	struct stream *s = arg;
	struct leat_sub *sub;
	char *b = malloc(s->max);

	ok(leat_ring_open(s->region, NULL, NULL, &sub));
	for (uint64_t i = 0; i < s->n; i++) {
		struct leat_info info;

		ok(leat_recv(sub, b, s->max, &info, 20 * SEC));
		ck_assert_uint_eq(info.seq, i);
		ck_assert_uint_eq(info.lost, 0);
		ck_assert(message_whole(b, info.size, i));
	}
	leat_sub_close(sub);
	free(b);
}

static void *read_thread(void *arg)
{
	read_stream(arg);
	return NULL;
}

static void write_stream(struct leat_pub *p, const struct stream *s, unsigned readers)
{
	ok(leat_wait_subscribers(p, readers, 10 * SEC));
	for (uint64_t i = 0; i < s->n; i++) {
		size_t size = i % 100 == 99 ? rnd() % s->max : rnd() % 500;
		void *at;

		ok(leat_claim(p, size, &at, 20 * SEC));
		fill_message(at, size, i);
		ok(leat_commit(p, size, 0));
	}
}

/* Threads that share one mapping: what ThreadSanitizer can see. */
START_TEST(a_thread_reads_what_another_writes)
{
	struct stream s = {.n = 20000, .max = 8000};
	struct leat_pub_opts o = blocky;
	uint64_t data, control;
	struct leat_pub *p;
	pthread_t t[2];

	o.max_size = 8000;
	ok(leat_ring_plan(&o, &data, &control));
	s.region = region_of(LEAT_MEMFD, data + control);
	ok(leat_ring_create(s.region, NULL, &o, &p));
	for (int i = 0; i < 2; i++)
		ck_assert(pthread_create(&t[i], NULL, read_thread, &s) == 0);
	write_stream(p, &s, 2);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	leat_pub_close(p);
	leat_region_close(s.region);
}
END_TEST

START_TEST(a_child_reads_what_its_parent_writes)
{
	struct stream s = {.n = 20000, .max = 8000};
	struct leat_pub_opts o = blocky;
	uint64_t data, control;
	struct leat_pub *p;
	pid_t pid;

	o.max_size = 8000;
	ok(leat_ring_plan(&o, &data, &control));
	s.region = region_of((enum leat_region_kind)_i, data + control);
	ok(leat_ring_create(s.region, NULL, &o, &p));
	pid = child(read_stream, &s);
	write_stream(p, &s, 1);
	child_ok(pid);
	leat_pub_close(p);
	leat_region_close(s.region);
}
END_TEST

static void read_none(void *arg)
{
	struct leat_sub *sub;

	ok(leat_ring_open(arg, NULL, NULL, &sub));
	for (;;)
		pause();
}

START_TEST(a_killed_reader_holds_nobody_up)
{
	struct pair p = pair_of((enum leat_region_kind)_i, &small, OPTS(leat_sub_opts, .flags = LEAT_OBSERVE));
	uint64_t n = 0, start;
	pid_t pid = child(read_none, p.region);

	ok(leat_wait_subscribers(p.pub, 2, 10 * SEC));
	while (leat_send(p.pub, &n, 8, 0) == 0)
		n++;
	child_kill(pid);
	start = leat__now();
	ok(leat_send(p.pub, &n, 8, 10 * SEC));
	ck_assert(leat__now() - start < SEC);
	end(&p);
}
END_TEST

static void write_and_hang(void *arg)
{
	struct leat_pub *p;

	ok(leat_ring_create(arg, NULL, &small, &p));
	ok(leat_wait_subscribers(p, 1, 10 * SEC));
	send_number(p, 42);
	for (;;)
		pause();
}

START_TEST(a_killed_writers_ring_is_drained_and_its_place_free)
{
	struct leat_region *r = region_of((enum leat_region_kind)_i, 65536);
	pid_t pid = child(write_and_hang, r);
	struct leat_pub *p;
	struct leat_sub *s;
	uint64_t n;

	eventually(leat_ring_open(r, NULL, NULL, &s) == 0);
	ok(leat_recv(s, &n, 8, NULL, 10 * SEC));
	fails(leat_ring_create(r, NULL, &small, &p), EBUSY);
	child_kill(pid);
	fails(leat_recv(s, &n, 8, NULL, 10 * SEC), ENODATA);
	ok(leat_ring_create(r, NULL, &small, &p));
	leat_pub_close(p);
	leat_sub_close(s);
	leat_region_close(r);
}
END_TEST

static void use_parents(void *arg)
{
	struct pair *p = arg;
	char b[8] = {0};
	const void *at;

	fails(leat_send(p->pub, b, 8, 0), ECHILD);
	fails(leat_flush(p->pub), ECHILD);
	fails(leat_recv(p->sub, b, 8, NULL, 0), ECHILD);
	fails(leat_peek(p->sub, &at, NULL, 0), ECHILD);
	fails(leat_release(p->sub), ECHILD);
	fails(leat_latest(p->sub, b, 8, NULL), ECHILD);
	fails(leat_sub_stat(p->sub, OPTS(leat_sub_stat, .lost = 0)), ECHILD);
	fails(leat_pub_stat(p->pub, OPTS(leat_pub_stat, .sent = 0)), ECHILD);
	fails(leat_wait_subscribers(p->pub, 1, 0), ECHILD);
	leat_sub_close(p->sub);
	leat_pub_close(p->pub);
}

START_TEST(a_forked_childs_inherited_handles_are_harmless)
{
	struct pair p = pair_of(LEAT_MEMFD, &small, NULL);

	child_ok(child(use_parents, &p));
	for (uint64_t i = 0; i < 6; i++) /* and when both are in their stride */
		send_number(p.pub, i);
	for (uint64_t i = 0; i < 3; i++)
		expect_number(p.sub, i);
	child_ok(child(use_parents, &p));
	expect_number(p.sub, 3);
	end(&p);
}
END_TEST

/* Page size is a parameter of the layout, not of this machine. */
START_TEST(geometry_fits_together_at_every_page_size)
{
	static const uint64_t pages[] = {4096, 16384, 65536};
	struct leat__geometry g, cg;
	uint64_t page = pages[_i];
	struct leat__writer w = {0};
	struct leat__reader r;
	struct leat__msg msg;
	struct leat__ring_shm *ring;
	struct leat__ctrl_shm *ctrl;
	unsigned char *view;
	int fd = memfd_create("page-test", MFD_CLOEXEC);
	void *at, *room;

	ok(leat__ring_geometry(&g, 1, 100000, 2, 0, page));
	ck_assert_uint_eq(g.capacity, page);
	ck_assert_uint_eq(g.data_off % page, 0);
	ck_assert_uint_eq(g.blocks_off % page, 0);
	ck_assert_uint_eq(g.total % page, 0);
	ok(leat__ring_check(&g, g.total));
	fails(leat__ring_check(&g, g.total - 1), EBADMSG);
	ok(leat__ctrl_geometry(&cg, 0, 0, page));
	ok(leat__ctrl_check(&cg, cg.total));
	ck_assert(ftruncate(fd, (off_t)g.total) == 0);
	ring = mmap(NULL, g.total, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	room = calloc(1, cg.total + 128);
	ctrl = (void *)(((uintptr_t)room + 127) & ~(uintptr_t)127);
	leat__head_write(&ring->head, LEAT__MAGIC_RING, &g);
	ok(leat__head_read(&ring->head, LEAT__MAGIC_RING, g.total, &g));
	ok(leat__map_twice(fd, NULL, g.data_off, g.capacity, PROT_READ | PROT_WRITE, page, &view));
	ok(leat__writer_init(&w, ring, view, &g, ctrl, &cg, 0, 1));
	leat__reader_init(&r, ring, view, &g, 1, leat__ctrl_lines(ctrl, &cg, 0), &ctrl->space_bell);
	leat__reader_join(&r, LEAT__WORD(1, 0), 1, LEAT_NEW);
	for (uint64_t i = 0; i < 3000; i++) {
		size_t size = rnd() % (page / 4);

		ok(leat__writer_claim(&w, size, &at, 0));
		fill_message(at, size, i);
		ok(leat__writer_commit(&w, size, 0));
		ck_assert_int_eq(leat__reader_next(&r, &msg), 1);
		ck_assert_uint_eq(msg.size, size);
		ck_assert(message_whole(msg.data, size, i));
		leat__reader_advance(&r, &msg);
		ck_assert_int_eq(leat__reader_next(&r, &msg), 0);
	}
	leat__writer_deinit(&w);
	munmap(view, 2 * g.capacity);
	munmap(ring, g.total);
	free(room);
	close(fd);
}
END_TEST

/* ---- damage ---- */

static void reopen_after_damage(struct leat_region *r, uint64_t offset, unsigned char x)
{
	unsigned char *at = (unsigned char *)leat_region_addr(r) + offset;
	unsigned char was = *at;
	struct leat_sub *s;
	char b[600];

	*at = x;
	if (leat_ring_open(r, NULL, OPTS(leat_sub_opts, .from = LEAT_OLDEST), &s) == 0) {
		/* It opened: then it must harm no message, or say so, and end. */
		for (int i = 0; i < 400; i++) {
			struct leat_info info;
			int e = leat_recv(s, b, sizeof(b), &info, 0);

			if (e < 0)
				break;
			ck_assert_msg(message_whole(b, info.size, info.size),
				      "byte %llu = %u changed a message", (unsigned long long)offset, x);
		}
		leat_sub_close(s);
	}
	*at = was;
}

START_TEST(any_damaged_header_byte_is_refused_or_harmless)
{
	struct leat__geometry g, cg;
	struct leat_region *r;
	uint64_t data, control, ends[2], starts[2];
	struct leat_pub *p;
	struct leat_pub_opts o = {.struct_size = sizeof(o), .capacity = 4096, .max_size = 5000,
				  .blocks = 2, .max_subscribers = 2};
	char b[600];

	ok(leat_ring_plan(&o, &data, &control));
	r = region_of(LEAT_MEMFD, data + control);
	ok(leat_ring_create(r, NULL, &o, &p));
	for (size_t i = 0; i < 12; i++) {
		fill_message(b, 100 + i, 100 + i);
		ok(leat_send(p, b, 100 + i, 0));
	}
	fill_message(b, 600, 600);
	ok(leat_send(p, b, 600, 0)); /* in a block */
	ok(leat__head_read(leat_region_addr(r), LEAT__MAGIC_RING, data, &g));
	ok(leat__ctrl_geometry(&cg, 1, 2, g.page));
	starts[0] = 0;
	ends[0] = sizeof(struct leat__ring_shm) + 16;
	starts[1] = data;
	ends[1] = data + cg.head_size + 2 * sizeof(struct leat__line);
	for (int part = 0; part < 2; part++)
		for (uint64_t at = starts[part]; at < ends[part]; at++)
			for (int k = 0; k < (full() ? 255 : 3); k++)
				reopen_after_damage(r, at,
						    full() ? (unsigned char)(k + 1 +
						      ((unsigned char *)leat_region_addr(r))[at])
							   : (unsigned char)(k == 0   ? 0xff
									     : k == 1 ? rnd()
										      : 0x80));
	/* And in the records themselves, which only their publisher can write. */
	leat_pub_close(p);
	leat_region_close(r);
}
END_TEST

START_TEST(a_ring_that_lies_everywhere_keeps_no_joiner)
{
	struct pair p = pair_of(LEAT_MEMFD, &small, NULL);
	struct leat__ring_shm *ring = p.pub->w.ring;
	struct leat_info info;
	struct leat_sub *s;
	uint64_t start = leat__now(), n;

	memset(p.pub->w.data, 0, 4096); /* records of no bytes, all numbered 0, round and round */
	ring->limit = 0;
	ring->last = 0;
	ring->intent = UINT64_MAX;
	ring->tail = UINT64_C(1) << 40;
	for (int from = LEAT_NEW; from <= LEAT_LATEST; from++) {
		ok(leat_ring_open(p.region, NULL, OPTS(leat_sub_opts, .from = (enum leat_from)from), &s));
		for (int i = 0; i < 10; i++)
			leat_recv(s, &n, 8, &info, 10000000);
		leat_latest(s, &n, 8, &info);
		leat_sub_close(s);
	}
	ck_assert_msg(leat__now() - start < 2 * SEC, "kept for %.1f s", (double)(leat__now() - start) / 1e9);
	end(&p);
}
END_TEST

/* The writer takes the first message's place while it is being read: it has raised limit, no byte has
 * changed yet. Whichever way it is read, it must not be given out as good. */
START_TEST(what_limit_no_longer_covers_is_lost_however_it_is_read)
{
	static const size_t sizes[] = {8, 64, 200};
	size_t size = sizes[_i];
	struct pair p = pair_of(LEAT_MEMFD, &lossy, NULL);
	struct leat__ring_shm *ring = p.pub->w.ring;
	uint64_t honest = ring->limit, at;
	struct leat_info info;
	const void *seen;
	char b[256] = {0};

	for (int i = 0; i < 2; i++) /* the reader is in its stride, and has seen three ahead */
		ok(leat_send(p.pub, b, size, 0));
	ok(leat_recv(p.sub, b, sizeof(b), NULL, 0));
	ok(leat_recv(p.sub, b, sizeof(b), NULL, 0));
	for (int i = 0; i < 4; i++)
		ok(leat_send(p.pub, b, size, 0));
	ok(leat_recv(p.sub, b, sizeof(b), NULL, 0));
	at = 3 * leat__record_need(size);

	/* peeked, then taken away */
	ok(leat_peek(p.sub, &seen, &info, 0));
	ck_assert_uint_eq(info.seq, 3);
	leat__store_relaxed(&ring->limit, at + ring->head.capacity + 8);
	fails(leat_release(p.sub), ESTALE);
	/* everything that was there is behind us now, counted */
	leat__store_relaxed(&ring->limit, honest);
	ok(leat_send(p.pub, b, size, 0));
	ok(leat_recv(p.sub, b, sizeof(b), &info, 0));
	ck_assert_uint_eq(info.seq, 6);
	ck_assert_uint_eq(info.lost, 3);

	/* taken away before it is received */
	for (int i = 0; i < 3; i++)
		ok(leat_send(p.pub, b, size, 0));
	ok(leat_recv(p.sub, b, sizeof(b), NULL, 0));
	at = 8 * leat__record_need(size);
	leat__store_relaxed(&ring->limit, at + ring->head.capacity + 8);
	fails(leat_recv(p.sub, b, sizeof(b), &info, 0), EAGAIN);
	leat__store_relaxed(&ring->limit, honest);
	ok(leat_send(p.pub, b, size, 0));
	ok(leat_recv(p.sub, b, sizeof(b), &info, 0));
	ck_assert_uint_eq(info.seq, 10);
	ck_assert_uint_eq(info.lost, 2);

	/* the latest value, known and asked for again */
	ok(leat_latest(p.sub, b, sizeof(b), &info));
	ok(leat_latest(p.sub, b, sizeof(b), &info));
	ck_assert_uint_eq(info.seq, 10);
	leat__store_relaxed(&ring->limit, 10 * leat__record_need(size) + ring->head.capacity + 8);
	fails(leat_latest(p.sub, b, sizeof(b), &info), EAGAIN);
	leat__store_relaxed(&ring->limit, honest);
	ok(leat_latest(p.sub, b, sizeof(b), &info));
	end(&p);
}
END_TEST

START_TEST(a_record_of_another_number_is_nonsense_to_a_reader_in_its_stride)
{
	struct pair p = pair_of(LEAT_MEMFD, &small, NULL);
	char b[64] = {0};

	ok(leat_send(p.pub, b, 64, 0));
	ok(leat_recv(p.sub, b, 64, NULL, 0));
	for (int i = 0; i < 3; i++)
		ok(leat_send(p.pub, b, 64, 0));
	ok(leat_recv(p.sub, b, 64, NULL, 0));
	((struct leat__record *)(void *)(p.pub->w.data + 2 * leat__record_need(64)))->seq += 5;
	fails(leat_recv(p.sub, b, 64, NULL, 0), EBADMSG);
	end(&p);
}
END_TEST

START_TEST(in_its_stride_a_publisher_still_minds_claims_and_batches)
{
	struct pair p = pair_of(LEAT_MEMFD, &small, NULL);
	struct leat_pub_stat st = {.struct_size = sizeof(st)};
	void *at, *second;

	for (uint64_t i = 0; i < 3; i++) {
		send_number(p.pub, i);
		expect_number(p.sub, i);
	}
	ok(leat_claim(p.pub, 8, &at, 0));
	fails(leat_send(p.pub, &st, 8, 0), EBUSY);
	fails(leat_claim(p.pub, 8, &second, 0), EBUSY);
	*(uint64_t *)at = 3;
	fails(leat_commit(p.pub, 9, 0), EINVAL);
	ok(leat_commit(p.pub, 8, LEAT_MORE));
	fails(leat_commit(p.pub, 8, 0), EINVAL);
	fails(leat_recv(p.sub, &st, 8, NULL, 0), EAGAIN); /* not published yet */
	send_number(p.pub, 4); /* publishes both */
	ck_assert_uint_eq(p.pub->w.ring->bytes, 40);
	expect_number(p.sub, 3);
	expect_number(p.sub, 4);
	ok(leat_claim(p.pub, 8, &at, 0));
	*(uint64_t *)at = 5;
	ok(leat_commit(p.pub, 8, LEAT_MORE));
	ok(leat_claim(p.pub, 8, &at, 0));
	*(uint64_t *)at = 6;
	ok(leat_commit(p.pub, 8, 0));
	expect_number(p.sub, 5);
	expect_number(p.sub, 6);
	ok(leat_claim(p.pub, 8, &at, 0));
	*(uint64_t *)at = 7;
	ok(leat_commit(p.pub, 8, LEAT_MORE));
	ok(leat_flush(p.pub));
	expect_number(p.sub, 7);
	ok(leat_pub_stat(p.pub, &st));
	ck_assert_uint_eq(st.sent, 8);
	ck_assert_uint_eq(st.bytes, 64);
	ck_assert_uint_eq(p.pub->w.ring->bytes, 64);
	ck_assert_uint_eq(p.pub->w.ring->sent, 8);
	end(&p);
}
END_TEST

START_TEST(the_latest_is_the_newest_however_many_came_since)
{
	struct pair p = pair_of(LEAT_MEMFD, &lossy, OPTS(leat_sub_opts, .flags = LEAT_OBSERVE));
	uint64_t n = 0, sent = 0;
	struct leat_info info;

	fails(leat_latest(p.sub, &n, 8, NULL), EAGAIN);
	for (int round = 0; round < 300; round++) {
		for (int i = 0; i <= round % 5; i++)
			send_number(p.pub, sent++);
		for (int again = 0; again < 2; again++) {
			n = UINT64_MAX;
			ok(leat_latest(p.sub, &n, 8, &info));
			ck_assert_uint_eq(n, sent - 1);
			ck_assert_uint_eq(info.seq, sent - 1);
			ck_assert_uint_eq(info.size, 8);
		}
	}
	fails(leat_latest(p.sub, &n, 7, &info), EMSGSIZE);
	end(&p);
}
END_TEST

START_TEST(random_damage_anywhere_crashes_nobody)
{
	uint64_t data, control;
	struct leat_region *r = NULL;
	struct leat_pub *p = NULL;
	struct leat_pub_opts o = {.struct_size = sizeof(o), .capacity = 4096, .max_size = 5000,
				  .blocks = 2, .max_subscribers = 2};
	static char b[6000];

	ok(leat_ring_plan(&o, &data, &control));
	for (int round = 0; round < (full() ? 200000 : 5000); round++) {
		unsigned char *base;
		struct leat_sub *s;

		if (round % 50 == 0) {
			if (round) {
				leat_pub_close(p);
				leat_region_close(r);
			}
			r = region_of(LEAT_MEMFD, data + control);
			ok(leat_ring_create(r, NULL, &o, &p));
			for (size_t i = 0; i < 300; i++) {
				size_t size = i % 50 ? rnd() % 500 : 3000;

				leat_send(p, b, size, 0);
			}
		}
		base = leat_region_addr(r);
		for (uint64_t n = 1 + rnd() % 8; n; n--) {
			uint64_t at = rnd() % 3 == 0   ? 128 + rnd() % 512
				      : rnd() % 2 == 0 ? data + 384 + rnd() % (control - 384)
						       : rnd() % data;

			if (at >= 128 && !(at >= data && at < data + 128)) /* past the checksummed heads */
				base[at] = (unsigned char)rnd();
		}
		if (leat_ring_open(r, NULL, OPTS(leat_sub_opts, .from = (enum leat_from)(rnd() % 3),
						 .flags = rnd() % 2 ? LEAT_OBSERVE : 0),
				   &s) == 0) {
			struct leat_info info;

			for (int i = 0; i < 500; i++)
				if (leat_recv(s, b, sizeof(b), &info, 0) < 0)
					break;
			leat_latest(s, b, sizeof(b), &info);
			leat_sub_close(s);
		}
		leat_send(p, b, 40, 0);
		leat_send(p, b, 4000, 0);
	}
	leat_pub_close(p);
	leat_region_close(r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ring");
	TCase *tc = leak_checked(s, "ring", full() ? 3600 : 120);
	int kinds = LEAT_SYSV + 1;

	if (getenv("LEAT_EMULATED")) {
		fprintf(stderr, "# SKIP rings in ANON and SYSV regions: the emulator cannot map memory twice "
				"without a descriptor\n");
		kinds = LEAT_FILE + 1;
	}

	tcase_add_loop_test(tc, what_is_sent_arrives_in_every_kind_of_region, LEAT_MEMFD, kinds);
	test(tc, an_empty_ring_says_eagain_and_a_wait_ends_in_time);
	test(tc, a_full_ring_says_eagain_and_goes_on_when_read);
	test(tc, claim_commit_abort_keep_their_rules);
	test(tc, a_batch_appears_all_at_once_when_flushed);
	test(tc, a_message_too_large_for_the_buffer_stays_next);
	test(tc, peek_shows_the_next_until_it_is_released);
	test(tc, an_overwritten_peek_says_estale_and_is_counted);
	test(tc, received_and_lost_add_up_to_sent_however_slow_the_reader);
	test(tc, losses_at_the_very_end_are_counted_too);
	test(tc, history_starts_at_the_oldest_record_still_there);
	test(tc, history_is_there_when_another_holds_the_publisher_up);
	test(tc, latest_is_the_newest_and_consumes_nothing);
	test(tc, a_laggard_past_its_grace_is_evicted_and_may_come_back);
	test(tc, an_observer_never_holds_the_writer_up);
	test(tc, one_ring_has_one_writer_and_readers_see_the_next_one);
	test(tc, opening_by_hand_refuses_what_it_must);
	test(tc, a_ring_of_another_boot_can_be_read_but_not_joined);
	test(tc, a_ring_works_on_huge_pages_where_there_are_any);
	test(tc, large_messages_travel_in_blocks);
	test(tc, unread_blocks_make_the_publisher_wait);
	test(tc, a_retained_block_stays_until_it_is_dropped);
	test(tc, a_fifth_block_cannot_be_retained);
	test(tc, overwriting_blocks_never_hands_out_a_torn_one);
	test(tc, a_block_overwritten_while_it_is_looked_at_says_estale);
	test(tc, a_thread_reads_what_another_writes);
	tcase_add_loop_test(tc, a_child_reads_what_its_parent_writes, LEAT_MEMFD, kinds);
	tcase_add_loop_test(tc, a_killed_reader_holds_nobody_up, LEAT_MEMFD, kinds);
	tcase_add_loop_test(tc, a_killed_writers_ring_is_drained_and_its_place_free, LEAT_MEMFD,
			    kinds);
	test(tc, a_forked_childs_inherited_handles_are_harmless);
	tcase_add_loop_test(tc, geometry_fits_together_at_every_page_size, 0, 3);
	test(tc, any_damaged_header_byte_is_refused_or_harmless);
	test(tc, a_ring_that_lies_everywhere_keeps_no_joiner);
	test(tc, a_record_of_another_number_is_nonsense_to_a_reader_in_its_stride);
	test(tc, in_its_stride_a_publisher_still_minds_claims_and_batches);
	test(tc, the_latest_is_the_newest_however_many_came_since);
	tcase_add_loop_test(tc, what_limit_no_longer_covers_is_lost_however_it_is_read, 0, 3);
	test(tc, random_damage_anywhere_crashes_nobody);
	return run_suite(s);
}
