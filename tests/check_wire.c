/* SPDX-License-Identifier: Apache-2.0 */
/* The wire: what is written is read back, and nothing else is taken for a message. */
#include <fcntl.h>
#include <sys/socket.h>
#include "harness.h"
#include "link/sock.h"

static struct leat__out sample(void)
{
	struct leat__out o;

	leat__wire_begin(&o, LEAT__LIST, 77, 5);
	leat__wire_u32(&o, LEAT__T_MODE, 3);
	leat__wire_text(&o, LEAT__T_NAME, "a/b");
	leat__wire_u64(&o, LEAT__T_RING_ID, 1);
	leat__wire_u64(&o, LEAT__T_RING_ID, 2);
	ok(leat__wire_end(&o, 0));
	return o;
}

START_TEST(what_is_written_is_read_back)
{
	struct leat__out o = sample();
	const unsigned char *at = NULL;
	struct leat__in in;
	uint64_t id, sum = 0;
	uint32_t mode;
	char name[8];
	size_t size;

	ok(leat__wire_parse(&in, o.bytes, o.size, 0));
	ck_assert_uint_eq(in.head.serial, 77);
	ck_assert_uint_eq(in.head.object, 5);
	ok(leat__wire_get(&in, LEAT__T_MODE, &mode, 4));
	ck_assert_uint_eq(mode, 3);
	ok(leat__wire_get_text(&in, LEAT__T_NAME, name, sizeof(name)));
	ck_assert_str_eq(name, "a/b");
	while ((at = leat__wire_next(&in, LEAT__T_RING_ID, at, &size))) {
		memcpy(&id, at, 8);
		sum += id;
	}
	ck_assert_uint_eq(sum, 3);
	fails(leat__wire_get(&in, LEAT__T_SLOT, &mode, 4), ENOENT);
	fails(leat__wire_get(&in, LEAT__T_MODE, &id, 8), EBADMSG);
	fails(leat__wire_get_text(&in, LEAT__T_NAME, name, 3), EBADMSG);
	fails(leat__wire_get_text(&in, LEAT__T_RING_ID, name, 8), EBADMSG);
}
END_TEST

START_TEST(a_packet_that_is_not_what_it_says_is_refused)
{
	struct leat__out o = sample(), x;
	struct leat__in in;

	fails(leat__wire_parse(&in, o.bytes, o.size, 1), EBADMSG);
	for (size_t n = 0; n < o.size; n++)
		fails(leat__wire_parse(&in, o.bytes, n, 0), EBADMSG);
	x = o;
	x.head.magic ^= 1;
	fails(leat__wire_parse(&in, x.bytes, x.size, 0), EBADMSG);
	x = o;
	x.head.version = 9;
	fails(leat__wire_parse(&in, x.bytes, x.size, 0), EPROTO);
	x = o;
	leat__wire_u32(&x, LEAT__CRITICAL | 999, 1);
	ok(leat__wire_end(&x, 0));
	fails(leat__wire_parse(&in, x.bytes, x.size, 0), EPROTO);
	x = o;
	leat__wire_u32(&x, 999, 1); /* unknown, not critical: ignored */
	ok(leat__wire_end(&x, 0));
	ok(leat__wire_parse(&in, x.bytes, x.size, 0));
}
END_TEST

START_TEST(a_message_that_does_not_fit_says_so)
{
	struct leat__out o;
	char big[4000] = {0};

	leat__wire_begin(&o, LEAT__LIST, 1, 1);
	leat__wire_bytes(&o, LEAT__T_WHY, big, sizeof(big));
	ck_assert(!leat__wire_fits(&o, 100));
	leat__wire_bytes(&o, LEAT__T_WHY, big, 100);
	fails(leat__wire_end(&o, 0), EMSGSIZE);
}
END_TEST

START_TEST(random_bytes_never_read_outside_the_packet)
{
	for (int i = 0; i < (full() ? 5000000 : 300000); i++) {
		struct leat__out o = sample();
		size_t n = rnd() % 200;
		unsigned char *p = malloc(n ? n : 1); /* exact size: a sanitizer sees one byte more */
		struct leat__in in;
		uint64_t v;
		char t[16];

		memcpy(p, o.bytes, n < o.size ? n : o.size);
		for (size_t k = o.size; k < n; k++)
			p[k] = (unsigned char)rnd();
		for (uint64_t k = rnd() % 4; k && n; k--)
			p[rnd() % n] = (unsigned char)rnd();
		if (n >= 32 && rnd() % 2) {
			uint32_t len = (uint32_t)(n - 32);

			memcpy(p + 8, &len, 4);
		}
		if (leat__wire_parse(&in, p, n, 0) == 0)
			for (unsigned tag = 0; tag < 30; tag++) {
				const unsigned char *at = NULL;
				size_t size;

				leat__wire_get(&in, tag, &v, 8);
				leat__wire_get_text(&in, tag, t, sizeof(t));
				while ((at = leat__wire_next(&in, tag, at, &size)))
					ck_assert(at >= p && at + size <= p + n);
			}
		free(p);
	}
}
END_TEST

START_TEST(descriptors_travel_and_too_many_are_all_closed)
{
	int sv[2], fds[8], before = count_fds();
	struct leat__out o = sample();
	struct leat__packet p;

	ck_assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) == 0);
	for (int i = 0; i < 8; i++)
		fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	ok(leat__wire_end(&o, 4));
	ok(leat__sock_send(sv[0], &o, fds, 4));
	ck_assert_int_eq(leat__sock_recv(sv[1], &p), 1);
	ck_assert_uint_eq(p.n_fds, 4);
	leat__packet_close(&p);
	if (getenv("LEAT_EMULATED")) {
		fprintf(stderr, "# SKIP too many descriptors: the emulator does not tell that it cut them\n");
	} else { /* eight: the kernel truncates what does not fit, or we close what is too much */
		union {
			struct cmsghdr align;
			char room[CMSG_SPACE(sizeof(fds))];
		} c = {0};
		struct iovec iov = {o.bytes, o.size};
		struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = c.room,
				   .msg_controllen = sizeof(c.room)};
		struct cmsghdr *h = CMSG_FIRSTHDR(&m);

		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(fds));
		memcpy(CMSG_DATA(h), fds, sizeof(fds));
		ck_assert(sendmsg(sv[0], &m, 0) > 0);
		fails(leat__sock_recv(sv[1], &p), EBADMSG);
		ck_assert_uint_eq(p.n_fds, 0);
	}
	ck_assert(send(sv[0], "", 0, 0) == 0); /* empty: reads like the end */
	ck_assert_int_eq(leat__sock_recv(sv[1], &p), 0);
	for (int i = 0; i < 8; i++)
		close(fds[i]);
	close(sv[0]);
	ck_assert_int_eq(leat__sock_recv(sv[1], &p), 0);
	close(sv[1]);
	ck_assert_int_eq(count_fds(), before);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("wire");
	TCase *tc = leak_checked(s, "wire", 300);

	test(tc, what_is_written_is_read_back);
	test(tc, a_packet_that_is_not_what_it_says_is_refused);
	test(tc, a_message_that_does_not_fit_says_so);
	test(tc, random_bytes_never_read_outside_the_packet);
	test(tc, descriptors_travel_and_too_many_are_all_closed);
	return run_suite(s);
}
