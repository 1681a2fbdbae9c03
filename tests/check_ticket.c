/* SPDX-License-Identifier: Apache-2.0 */
/* Tickets by themselves: what one says, and that nobody can make it say more. What the broker makes of them: check_policy.c. */
#include <fcntl.h>
#include <sodium.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include "base/base.h"
#include "harness.h"
#include "ticket.h"

#define ALL ((1u << VERBS) - 1)
enum { KEY = 32, SEAL = 32, HEAD = 16, MOST = 600 };
#define BASE64 sodium_base64_VARIANT_URLSAFE_NO_PADDING

static struct ticket_keys *keys;

static const char *keys_file(void)
{
	static char path[300];

	snprintf(path, sizeof(path), "%s/keys", tmp_dir());
	return path;
}

static struct ticket_keys *read_keys(void)
{
	struct ticket_keys *k;
	const char *why = "";
	int fd = ticket_keys_open(keys_file(), &why), e;

	ck_assert_msg(fd >= 0, "%s", why);
	e = ticket_keys_read(fd, &k, &why);
	ck_assert_msg(e >= 0, "%s", why);
	close(fd);
	return k;
}

static void begin(void)
{
	const char *why = "";

	ck_assert_msg(ticket_keys_add(keys_file(), 0, &why) == 0, "%s", why);
	keys = read_keys();
}

static struct ticket says(const char *prefix, unsigned verbs, uint64_t expires)
{
	struct ticket t = {.verbs = verbs, .expires = expires};

	snprintf(t.prefix, sizeof(t.prefix), "%s", prefix);
	return t;
}

static char *mint(const char *prefix, unsigned verbs, uint64_t expires)
{
	static char text[TICKET_TEXT];
	struct ticket t = says(prefix, verbs, expires);
	const char *why = "";

	ck_assert_msg(ticket_mint(keys, &t, text, &why) == 0, "%s", why);
	return text;
}

static int reads(const struct ticket_keys *k, const char *text, struct ticket *t)
{
	const char *why = NULL;
	int e = ticket_read(k, text, strlen(text), t, &why);

	ck_assert(e == 0 || (why && *why));
	return e;
}

static size_t bytes_of(const char *text, unsigned char *ret)
{
	size_t n;

	ck_assert(sodium_base642bin(ret, MOST, text + 6, strlen(text) - 6, NULL, &n, NULL, BASE64) == 0);
	return n;
}

static int reads_bytes(const unsigned char *bytes, size_t n, struct ticket *t)
{
	char text[1024] = "leat1.";

	sodium_bin2base64(text + 6, sizeof(text) - 6, bytes, n, BASE64);
	return reads(keys, text, t);
}

START_TEST(a_ticket_says_what_it_was_made_for)
{
	uint64_t soon = ticket_now() + 50000000;
	struct ticket t;

	begin();
	ck_assert(reads(keys, mint("camera", 1u << V_SUBSCRIBE, soon), &t) == 0 && t.good);
	ck_assert(!strcmp(t.prefix, "camera") && t.verbs == 1u << V_SUBSCRIBE && t.expires == soon && t.key == ticket_keys_first(keys));
	ck_assert(ticket_covers(&t, V_SUBSCRIBE, "camera") && ticket_covers(&t, V_SUBSCRIBE, "camera/left"));
	ck_assert(!ticket_covers(&t, V_SUBSCRIBE, "cameras") && !ticket_covers(&t, V_SUBSCRIBE, "cam") && !ticket_covers(&t, V_PUBLISH, "camera"));
	eventually(!ticket_covers(&t, V_SUBSCRIBE, "camera"));
	ck_assert(ticket_now() >= soon);
	/* Without keys it is not believed. */
	ck_assert(reads(NULL, mint("", ALL, 0), &t) == 0 && !t.good && !ticket_covers(&t, V_PUBLISH, "x"));
	ck_assert(reads(keys, mint("", ALL, 0), &t) == 0 && ticket_covers(&t, V_ADMINISTER, "any/thing") && t.expires == UINT64_MAX);
	ticket_keys_free(keys);
}
END_TEST

START_TEST(every_flipped_bit_is_refused)
{
	unsigned char bytes[MOST];
	const char *text;
	char other[TICKET_TEXT];
	struct ticket t;
	size_t n;

	begin();
	text = mint("camera/left", 1u << V_SUBSCRIBE | 1u << V_CREATE, ticket_now() + 3600 * SEC);
	n = bytes_of(text, bytes);
	for (size_t bit = 0; bit < n * 8; bit++) {
		bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
		ck_assert_msg(reads_bytes(bytes, n, &t) < 0 && !t.good, "bit %zu", bit);
		bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
	ck_assert(reads_bytes(bytes, n, &t) == 0 && t.good);
	for (size_t i = 0; i < strlen(text); i++)
		for (int c = 1; c < 256; c++) {
			strcpy(other, text);
			if (other[i] == (char)c)
				continue;
			other[i] = (char)c;
			ck_assert_msg(reads(keys, other, &t) < 0, "character %zu: %d", i, c);
		}
	for (size_t len = 0; len < strlen(text); len++)
		ck_assert(ticket_read(keys, text, len, &t, &(const char *){NULL}) < 0);
	ticket_keys_free(keys);
}
END_TEST

START_TEST(a_million_forgeries_and_none_is_taken)
{
#ifdef SANITIZED
	uint64_t n = 50000;
#else
	uint64_t n = 1000000;
#endif
	unsigned char bytes[MOST];
	struct ticket t;
	size_t size;

	begin();
	size = bytes_of(mint("camera", ALL, 0), bytes);
	for (uint64_t i = 0; i < n; i++) {
		/* A seal of one's own, for what one would like; or anything at all with a key's right number. */
		size_t from = i % 2 ? 8 : size - SEAL;

		randombytes_buf(bytes + from, size - from);
		ck_assert(reads_bytes(bytes, size, &t) < 0 && !t.good);
	}
	figure(14, "%llu forged tickets: none taken", (unsigned long long)n);
	ticket_keys_free(keys);
}
END_TEST

/* Whoever holds a ticket can do this, with no key: one caveat more. */
static size_t append(unsigned char *bytes, size_t n, unsigned char type, const void *data, size_t size)
{
	unsigned char seal[SEAL], *at = bytes + n - SEAL;

	memcpy(seal, at, SEAL);
	at[0] = type;
	at[1] = (unsigned char)size;
	memcpy(at + 2, data, size);
	crypto_generichash(at + 2 + size, SEAL, at, 2 + size, seal, SEAL);
	return n + 2 + size;
}

START_TEST(a_holder_makes_it_narrower_and_never_wider)
{
	static const char *const names[] = {"a", "a/b", "a/b/c", "a/bc", "b", "b/a"};
	char text[TICKET_TEXT], next[TICKET_TEXT];
	uint64_t steps = 0, refused = 0;
	struct ticket t, was;
	const char *why;

	begin();
	for (int i = 0; i < 2000; i++) {
		strcpy(text, mint(rnd() % 3 ? "" : names[rnd() % 6], 1 + (unsigned)(rnd() % ALL), 0));
		ck_assert(reads(keys, text, &was) == 0);
		for (int k = 0; k < 8; k++, steps++) {
			struct ticket w = says(rnd() % 2 ? "" : names[rnd() % 6], rnd() % 2 ? 0 : 1 + (unsigned)(rnd() % ALL),
					       rnd() % 4 ? 0 : ticket_now() + (rnd() % 100) * SEC);

			if (ticket_narrow(text, &w, next, &why) < 0) {
				refused++;
				ck_assert((w.verbs & ~was.verbs) || !name_is_below(w.prefix, was.prefix) || strstr(why, "too long"));
				continue;
			}
			ck_assert(reads(keys, next, &t) == 0 && t.good && t.id == was.id);
			for (unsigned v = 0; v < VERBS; v++)
				for (int j = 0; j < 6; j++)
					ck_assert(!ticket_covers(&t, v, names[j]) || ticket_covers(&was, v, names[j]));
			ck_assert(t.expires <= was.expires && !(t.verbs & ~was.verbs));
			strcpy(text, next);
			was = t;
		}
	}
	ck_assert(refused && refused < steps);
	ticket_keys_free(keys);
}
END_TEST

START_TEST(no_caveat_can_be_taken_away_or_moved)
{
	unsigned char bytes[MOST], other[MOST], verbs = ALL, boot[24];
	uint64_t later = ticket_now() + 1000000 * SEC;
	struct ticket t;
	size_t n, m;

	begin();
	n = bytes_of(mint("a", 1u << V_PUBLISH, 0), bytes); /* two caveats: 2 + 1, 2 + 1 */
	ck_assert_uint_eq(n, HEAD + 3 + 3 + SEAL);
	/* A wider one after it does nothing. */
	memcpy(other, bytes, n);
	m = append(other, n, 2, &verbs, 1);
	m = append(other, m, 1, "b", 1);
	ck_assert(reads_bytes(other, m, &t) == 0 && t.good && !t.verbs); /* below a and b is nothing */
	/* Without its last one, the first, both; the two exchanged; with the seal as it was. */
	memcpy(other, bytes, n);
	memmove(other + n - SEAL - 3, other + n - SEAL, SEAL);
	ck_assert(reads_bytes(other, n - 3, &t) == -EACCES);
	memcpy(other, bytes, n);
	memmove(other + HEAD, other + HEAD + 3, n - HEAD - 3);
	ck_assert(reads_bytes(other, n - 3, &t) == -EACCES);
	memmove(other + HEAD, other + HEAD + 3, n - HEAD - 6);
	ck_assert(reads_bytes(other, n - 6, &t) == -EACCES);
	memcpy(other, bytes, n);
	memcpy(other + HEAD, bytes + HEAD + 3, 3);
	memcpy(other + HEAD + 3, bytes + HEAD, 3);
	ck_assert(reads_bytes(other, n, &t) == -EACCES);
	/* Of another start of the machine: however late, it has expired. */
	memcpy(boot, &later, 8);
	randombytes_buf(boot + 8, 16);
	memcpy(other, bytes, n);
	m = append(other, n, 3, boot, sizeof(boot));
	ck_assert(reads_bytes(other, m, &t) == 0 && t.good && t.expires == 0 && !ticket_covers(&t, V_PUBLISH, "a"));
	/* What is not known is not passed over. */
	memcpy(other, bytes, n);
	m = append(other, n, 9, "x", 1);
	ck_assert(reads_bytes(other, m, &t) == -EINVAL);
	memcpy(other, bytes, n);
	m = append(other, n, 2, "xy", 2);
	ck_assert(reads_bytes(other, m, &t) == -EINVAL);
	ticket_keys_free(keys);
}
END_TEST

START_TEST(keys_come_and_go)
{
	struct ticket_keys *first, *second, *third;
	char text[TICKET_TEXT];
	struct stat st;
	struct ticket t;
	const char *why;

	begin();
	strcpy(text, mint("a", ALL, 0));
	ck_assert(stat(keys_file(), &st) == 0 && (st.st_mode & 0777) == 0600);
	first = keys;
	chmod(keys_file(), 0640);
	ck_assert(ticket_keys_add(keys_file(), 1, &why) == 0);
	second = read_keys();
	ck_assert(stat(keys_file(), &st) == 0 && (st.st_mode & 0777) == 0640);
	ck_assert(ticket_keys_first(second) != ticket_keys_first(first) && ticket_keys_have(second, ticket_keys_first(first)));
	ck_assert(reads(second, text, &t) == 0 && t.good);
	ck_assert(ticket_keys_add(keys_file(), 1, &why) == 0);
	third = read_keys();
	ck_assert(!ticket_keys_have(third, ticket_keys_first(first)) && ticket_keys_have(third, ticket_keys_first(second)));
	ck_assert(reads(third, text, &t) == -EACCES && !t.good);
	for (int i = 0; i < 20; i++)
		ck_assert(ticket_keys_add(keys_file(), 100, &why) == 0);
	ticket_keys_free(read_keys());
	ticket_keys_free(first);
	ticket_keys_free(second);
	ticket_keys_free(third);
}
END_TEST

static int opens_with(const char *text, mode_t mode, const char **why)
{
	struct ticket_keys *k;
	int fd = open(keys_file(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), e;

	ck_assert(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && fchmod(fd, mode) == 0);
	close(fd);
	fd = ticket_keys_open(keys_file(), why);
	if (fd < 0)
		return fd;
	e = ticket_keys_read(fd, &k, why);
	if (e >= 0)
		ticket_keys_free(k);
	close(fd);
	return e < 0 ? e : 0;
}

START_TEST(a_file_of_keys_that_is_wrong_is_refused)
{
#define HEX "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"
	char many[17 * 65 + 1] = "", large[9000];
	const char *why;

	ck_assert(opens_with(HEX "\n", 0600, &why) == 0 && opens_with("# x\n\n" HEX, 0640, &why) == 0);
	ck_assert(opens_with("", 0600, &why) == -EINVAL && strstr(why, "no key"));
	ck_assert(opens_with(HEX "0\n", 0600, &why) == -EINVAL && opens_with(HEX "00\n", 0600, &why) == -EINVAL);
	ck_assert(opens_with("0" HEX "\n", 0600, &why) == -EINVAL && opens_with("key\n", 0600, &why) == -EINVAL);
	ck_assert(opens_with(HEX " \n", 0600, &why) == -EINVAL && opens_with("00\n", 0600, &why) == -EINVAL);
	for (int i = 0; i < 17; i++)
		strcat(many, HEX "\n");
	ck_assert(opens_with(many, 0600, &why) == -EFBIG);
	memset(large, '#', sizeof(large));
	large[sizeof(large) - 1] = 0;
	ck_assert(opens_with(large, 0600, &why) == -EFBIG);
	for (unsigned i = 0; i < 9; i++)
		if (i != 5) /* 0040 */
			ck_assert_msg(opens_with(HEX "\n", 0600 | 1u << i, &why) == (i >= 6 ? 0 : (1u << i & 0027) ? -EPERM : 0), "%o", 1u << i);
	ck_assert(ticket_keys_open("/nowhere/at/all", &why) == -ENOENT);
	ck_assert(ticket_keys_open(tmp_dir(), &why) == -EPERM);
	if (geteuid() == 0) {
		ck_assert(opens_with(HEX "\n", 0600, &why) == 0 && chown(keys_file(), 65501, 0) == 0);
		ck_assert(ticket_keys_open(keys_file(), &why) == -EPERM);
	}
	ck_assert(ticket_keys_add("/nowhere/at/all", 1, &why) == -ENOENT);
}
END_TEST

/* What is locked, by the kernel's word. */
static long locked_kb(void)
{
	char line[200];
	long kb = -1;
	FILE *f = fopen("/proc/self/status", "re");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "VmLck: %ld", &kb) == 1)
			break;
	fclose(f);
	return kb;
}

static void has_none(void *arg)
{
	(void)arg;
	must(ticket_keys_first(keys) == 0, "a child has the keys");
}

START_TEST(a_child_has_no_keys)
{
	begin();
	ck_assert(ticket_keys_first(keys) != 0);
	child_ok(child(has_none, NULL));
}
END_TEST

START_TEST(keys_are_locked_and_it_is_said_when_they_are_not)
{
	struct rlimit none = {0, 0};
	struct ticket_keys *k;
	const char *why = "";
	int fd;

	begin();
#ifndef SANITIZED /* whose mlock does nothing */
	ck_assert(locked_kb() > 0);
#endif
	ticket_keys_free(keys);
	ck_assert_int_eq(locked_kb(), 0);
#ifdef SANITIZED
	return;
#endif
	if (geteuid() == 0)
		ck_assert(chown(tmp_dir(), 65501, 0) == 0 && chown(keys_file(), 65501, 0) == 0 && setresuid(65501, 65501, 65501) == 0);
	ck_assert(setrlimit(RLIMIT_MEMLOCK, &none) == 0);
	fd = ticket_keys_open(keys_file(), &why);
	ck_assert_msg(fd >= 0, "%s", why);
	ck_assert_int_eq(ticket_keys_read(fd, &k, &why), 1);
	ticket_keys_free(k);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ticket");
	TCase *tc = leak_checked(s, "ticket", 120);

	test(tc, a_ticket_says_what_it_was_made_for);
	test(tc, every_flipped_bit_is_refused);
	test(tc, a_million_forgeries_and_none_is_taken);
	test(tc, a_holder_makes_it_narrower_and_never_wider);
	test(tc, no_caveat_can_be_taken_away_or_moved);
	test(tc, keys_come_and_go);
	test(tc, a_file_of_keys_that_is_wrong_is_refused);
	test(tc, a_child_has_no_keys);
	test(tc, keys_are_locked_and_it_is_said_when_they_are_not);
	return run_suite(s);
}
