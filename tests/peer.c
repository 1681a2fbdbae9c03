/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One side of an exchange between programs built differently (32 and 64 bits, say): peer pub NAME N,
 * peer sub NAME N. Messages of many sizes, large ones in blocks, each checked. Exit 0 if all arrived.
 */
#include "harness.h"

enum { MAX = 50000 };

static size_t size_of(uint64_t i)
{
	return i % 97 == 0 ? (size_t)(i * 31 % MAX) : (size_t)(i * 7 % 300);
}

static int publish(struct leat *l, const char *name, uint64_t n)
{
	struct leat_pub *p;
	int e = leat_pub_open(l, name, OPTS(leat_pub_opts, .capacity = 65536, .max_size = MAX), &p);

	if (e == 0)
		e = leat_wait_subscribers(p, 1, 20 * SEC);
	for (uint64_t i = 0; e == 0 && i < n; i++) {
		void *at;

		e = leat_claim(p, size_of(i), &at, 20 * SEC);
		if (e == 0) {
			fill_message(at, size_of(i), i);
			e = leat_commit(p, size_of(i), 0);
		}
	}
	return e;
}

static int subscribe(struct leat *l, const char *name, uint64_t n)
{
	static char b[MAX];
	struct leat_info info;
	struct leat_sub *s;
	int e = leat_sub_open(l, name, OPTS(leat_sub_opts, .flags = LEAT_UNTIL_ENDED), &s);

	for (uint64_t i = 0; e == 0 && i < n; i++) {
		e = leat_recv(s, b, sizeof(b), &info, 20 * SEC);
		if (e == 0 && (info.size != size_of(i) || info.lost || !message_whole(b, (size_t)info.size, i)))
			e = -EBADMSG;
	}
	return e == 0 && leat_recv(s, b, sizeof(b), &info, 20 * SEC) == -ENODATA ? 0 : e ? e : -EBADMSG;
}

int main(int argc, char **argv)
{
	struct leat *l;
	int e;

	if (argc != 4)
		return 2;
	e = leat_open(NULL, &l);
	if (e == 0)
		e = !strcmp(argv[1], "pub") ? publish(l, argv[2], strtoull(argv[3], NULL, 10))
					    : subscribe(l, argv[2], strtoull(argv[3], NULL, 10));
	if (e < 0)
		fprintf(stderr, "peer (%d bits) %s: %d: %s\n", (int)sizeof(void *) * 8, argv[1], e, leat_why());
	else
		leat_close(l);
	return e < 0;
}
