/* SPDX-License-Identifier: Apache-2.0 */
/* Files of keys, and tickets: made, narrowed, read. What a ticket is: ticket.h. */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "ticket.h"

enum { KEY = crypto_generichash_KEYBYTES, SEAL = 32, HEAD = 16, FILE_MOST = 8192, BOOT = 16 };
enum caveat { CAVEAT_PREFIX = 1, CAVEAT_VERBS = 2, CAVEAT_EXPIRES = 3 };
static const char scheme[] = "leat1.";
#define BASE64 sodium_base64_VARIANT_URLSAFE_NO_PADDING
enum { BYTES_MOST = (TICKET_TEXT - sizeof(scheme)) / 4 * 3 };

struct ticket_keys {
	unsigned n;
	struct key {
		unsigned char bytes[KEY];
		uint64_t id;
	} list[TICKET_KEYS_MOST];
};

static int fail(const char **why, int e, const char *what)
{
	*why = what;
	return e;
}

uint64_t ticket_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

/* That clock begins anew with the machine: which start it counts from. 0, or -1. */
static int this_boot(unsigned char *ret)
{
	char text[64];
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	size_t size = 0;

	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return -1;
	return sodium_hex2bin(ret, BOOT, text, (size_t)n, "-\n", &size, NULL) == 0 && size == BOOT ? 0 : -1;
}

/* ---- keys ---- */

static void key_number(struct key *k)
{
	static const char what[] = "leat ticket key";

	crypto_generichash((unsigned char *)&k->id, sizeof(k->id), (const unsigned char *)what, sizeof(what) - 1, k->bytes, KEY);
}

int ticket_keys_open(const char *path, const char **why)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return fail(why, -errno, strerror(errno));
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && !(st.st_mode & 027) && (st.st_uid == 0 || st.st_uid == geteuid()))
		return fd;
	close(fd);
	return fail(why, -EPERM, "a file of keys is its owner's, who is root or who reads it, and at most its group may read "
				 "it: chmod 640");
}

/* A line of digits; *at goes behind it. 1 there was a key, 0 there was none, -1 this is not one. */
static int next_key(const char **at, const char *end, struct key *k)
{
	const char *nl = memchr(*at, '\n', (size_t)(end - *at)), *from = *at, *to = nl ? nl : end;
	size_t n = 0;

	*at = nl ? nl + 1 : end;
	if (from == to || *from == '#')
		return 0;
	if (sodium_hex2bin(k->bytes, KEY, from, (size_t)(to - from), NULL, &n, &from) < 0 || n != KEY || from != to)
		return -1;
	key_number(k);
	return 1;
}

/* A child has zeroes there: it may outlive us, and what it has is not locked. */
static void hide_from_children(const struct ticket_keys *keys)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)keys / page * page;

	madvise((void *)from, (uintptr_t)(keys + 1) - from, MADV_WIPEONFORK);
}

int ticket_keys_read(int fd, struct ticket_keys **ret, const char **why)
{
	struct ticket_keys *keys = sodium_init() < 0 ? NULL : sodium_malloc(sizeof(*keys));
	char *text = keys ? sodium_malloc(FILE_MOST) : NULL;
	const char *at = text, *end;
	ssize_t n = text ? pread(fd, text, FILE_MOST, 0) : -1;
	int e = !text ? -ENOMEM : n < 0 ? -errno : 0, r = 0;

	*why = strerror(-e);
	end = text + (n > 0 ? n : 0);
	if (keys)
		keys->n = 0;
	if (n == FILE_MOST)
		e = fail(why, -EFBIG, "it is too large for a file of keys");
	while (e == 0 && at < end && r >= 0) {
		struct key one;

		r = next_key(&at, end, &one);
		if (r > 0 && keys->n == TICKET_KEYS_MOST)
			e = fail(why, -EFBIG, "it has more than 16 keys");
		else if (r > 0)
			keys->list[keys->n++] = one;
		else if (r < 0)
			e = fail(why, -EINVAL, "a line is neither 64 hexadecimal digits nor a comment");
		sodium_memzero(&one, sizeof(one));
	}
	if (e == 0 && !keys->n)
		e = fail(why, -EINVAL, "it has no key: leat ticket keygen makes one");
	if (text)
		sodium_free(text);
	if (e < 0) {
		ticket_keys_free(keys);
		return e;
	}
	hide_from_children(keys);
	e = sodium_mlock(keys, sizeof(*keys)) < 0; /* it tried itself, and does not say */
	sodium_mprotect_readonly(keys);
	*ret = keys;
	return e;
}

void ticket_keys_free(struct ticket_keys *keys)
{
	if (keys)
		sodium_free(keys);
}

uint64_t ticket_keys_first(const struct ticket_keys *keys)
{
	return keys->list[0].id;
}

static const struct key *key_find(const struct ticket_keys *keys, uint64_t id)
{
	for (unsigned i = 0; keys && i < keys->n; i++)
		if (keys->list[i].id == id)
			return &keys->list[i];
	return NULL;
}

int ticket_keys_have(const struct ticket_keys *keys, uint64_t key)
{
	return key_find(keys, key) != NULL;
}

/* All of @keys, as text; whose file it was before stays whose it is. */
static int keys_write(const struct ticket_keys *keys, unsigned n, const char *path, int old, const char **why)
{
	static const char head[] = "# Keys of leat's tickets, the newest first: leat-ticket(1)\n";
	char name[4200], line[2 * KEY + 2];
	struct stat st;
	int fd, e = 0;

	if ((size_t)snprintf(name, sizeof(name), "%s.XXXXXX", path) >= sizeof(name))
		return fail(why, -ENAMETOOLONG, strerror(ENAMETOOLONG));
	fd = mkostemp(name, O_CLOEXEC);
	if (fd < 0)
		return fail(why, -errno, strerror(errno));
	if (write(fd, head, sizeof(head) - 1) < 0)
		e = -errno;
	for (unsigned i = 0; e == 0 && i < n; i++) {
		sodium_bin2hex(line, sizeof(line), keys->list[i].bytes, KEY);
		line[2 * KEY] = '\n';
		if (write(fd, line, 2 * KEY + 1) != 2 * KEY + 1)
			e = -errno;
	}
	sodium_memzero(line, sizeof(line));
	if (e == 0 && old >= 0 && fstat(old, &st) == 0 && (fchown(fd, st.st_uid, st.st_gid) < 0 || fchmod(fd, st.st_mode & 0640) < 0))
		e = -errno;
	if (e == 0 && (fsync(fd) < 0 || rename(name, path) < 0))
		e = -errno;
	close(fd);
	if (e < 0)
		unlink(name);
	return e < 0 ? fail(why, e, strerror(-e)) : 0;
}

int ticket_keys_add(const char *path, unsigned keep, const char **why)
{
	int old = ticket_keys_open(path, why), e = old == -ENOENT ? 0 : old;
	struct ticket_keys *was = NULL, *keys = sodium_init() < 0 ? NULL : sodium_malloc(sizeof(*keys));

	if (!keys)
		e = fail(why, -ENOMEM, strerror(ENOMEM));
	if (e >= 0 && old >= 0)
		e = ticket_keys_read(old, &was, why);
	if (e >= 0) {
		keys->n = 1;
		randombytes_buf(keys->list[0].bytes, KEY);
		for (unsigned i = 0; was && i < was->n && i < keep && keys->n < TICKET_KEYS_MOST; i++)
			keys->list[keys->n++] = was->list[i];
		e = keys_write(keys, keys->n, path, old, why);
	}
	ticket_keys_free(was);
	ticket_keys_free(keys);
	if (old >= 0)
		close(old);
	return e < 0 ? e : 0;
}

/* ---- tickets ---- */

static void seal_first(const struct key *key, const unsigned char *head, unsigned char *ret)
{
	static const char what[] = "leat ticket 1";
	unsigned char bytes[sizeof(what) - 1 + HEAD];

	memcpy(bytes, what, sizeof(what) - 1);
	memcpy(bytes + sizeof(what) - 1, head, HEAD);
	crypto_generichash(ret, SEAL, bytes, sizeof(bytes), key->bytes, KEY);
}

static void seal_next(unsigned char *seal, const unsigned char *caveat)
{
	unsigned char next[SEAL];

	crypto_generichash(next, SEAL, caveat, 2u + caveat[1], seal, SEAL);
	memcpy(seal, next, SEAL);
	sodium_memzero(next, SEAL);
}

/* What is left of @t with one caveat more. 0; -1 there is no such caveat. */
static int apply(struct ticket *t, const unsigned char *caveat)
{
	const unsigned char *data = caveat + 2;
	unsigned char boot[BOOT];
	size_t size = caveat[1];
	uint64_t expires;

	if (caveat[0] == CAVEAT_PREFIX && size && size <= LEAT__NAME_MAX && !memchr(data, 0, size)) {
		char prefix[LEAT__NAME_MAX + 1] = "";

		memcpy(prefix, data, size);
		if (name_is_below(prefix, t->prefix))
			strcpy(t->prefix, prefix);
		else if (!name_is_below(t->prefix, prefix))
			t->verbs = 0; /* no name is below both */
		return 0;
	}
	if (caveat[0] == CAVEAT_VERBS && size == 1) {
		t->verbs &= *data;
		return 0;
	}
	if (caveat[0] == CAVEAT_EXPIRES && size == sizeof(expires) + BOOT) {
		memcpy(&expires, data, sizeof(expires));
		if (this_boot(boot) < 0 || memcmp(boot, data + sizeof(expires), BOOT) != 0)
			expires = 0;
		t->expires = expires < t->expires ? expires : t->expires;
		return 0;
	}
	return -1;
}

/* The bytes of a ticket's text: how many; -1 this is none. */
static int decode(const char *text, size_t size, unsigned char *ret)
{
	size_t n = 0, skip = sizeof(scheme) - 1;
	const char *end;

	if (sodium_init() < 0 || size >= TICKET_TEXT || size < skip || memcmp(text, scheme, skip) != 0)
		return -1;
	for (size_t i = skip; i < size; i++) /* libsodium 1.0.18 takes bytes above 127 for something */
		if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", text[i]) || !text[i])
			return -1;
	if (sodium_base642bin(ret, BYTES_MOST, text + skip, size - skip, NULL, &n, &end, BASE64) < 0 || end != text + size ||
	    n < HEAD + SEAL)
		return -1;
	return (int)n;
}

static int encode(const unsigned char *bytes, size_t n, char *ret)
{
	strcpy(ret, scheme);
	sodium_bin2base64(ret + sizeof(scheme) - 1, TICKET_TEXT - (sizeof(scheme) - 1), bytes, n, BASE64);
	return 0;
}

int ticket_read(const struct ticket_keys *keys, const char *text, size_t size, struct ticket *ret, const char **why)
{
	unsigned char bytes[BYTES_MOST], seal[SEAL] = {0};
	int n = decode(text, size, bytes);
	const unsigned char *at = bytes + HEAD, *end = bytes + n - SEAL;
	const struct key *key;

	*ret = (struct ticket){.expires = UINT64_MAX, .verbs = (1u << VERBS) - 1};
	*why = "this is no ticket";
	if (n < 0)
		return -EINVAL;
	memcpy(&ret->key, bytes, 8);
	memcpy(&ret->id, bytes + 8, 8);
	key = key_find(keys, ret->key);
	if (key)
		seal_first(key, bytes, seal);
	for (; at < end; at += 2 + at[1]) {
		if (end - at < 2 || end - at < 2 + at[1] || apply(ret, at) < 0)
			return -EINVAL;
		if (key)
			seal_next(seal, at);
	}
	if (!keys)
		return 0;
	if (!key)
		return fail(why, -EACCES, "its key is not in force");
	ret->sealed = ret->good = sodium_memcmp(seal, end, SEAL) == 0;
	sodium_memzero(seal, SEAL);
	return ret->good ? 0 : fail(why, -EACCES, "its seal is wrong");
}

/* One caveat more, before the seal. The new size; -1 it would be too long. */
static int add(unsigned char *bytes, int n, enum caveat type, const void *data, size_t size)
{
	unsigned char seal[SEAL], *at = bytes + n - SEAL;

	if (n < 0 || (size_t)n + 2 + size > BYTES_MOST)
		return -1;
	memcpy(seal, at, SEAL);
	at[0] = (unsigned char)type;
	at[1] = (unsigned char)size;
	memcpy(at + 2, data, size);
	seal_next(seal, at);
	memcpy(at + 2 + size, seal, SEAL);
	return n + 2 + (int)size;
}

/* What @what says, as caveats. */
static int add_all(unsigned char *bytes, int n, const struct ticket *what, const char **why)
{
	unsigned char verbs = (unsigned char)what->verbs, expires[8 + BOOT];

	if (*what->prefix)
		n = add(bytes, n, CAVEAT_PREFIX, what->prefix, strlen(what->prefix));
	if (verbs)
		n = add(bytes, n, CAVEAT_VERBS, &verbs, 1);
	if (what->expires && what->expires != UINT64_MAX) {
		memcpy(expires, &what->expires, 8);
		if (this_boot(expires + 8) < 0)
			return fail(why, -ENOENT, "which start of this machine its time would count from is not known: mount /proc");
		n = add(bytes, n, CAVEAT_EXPIRES, expires, sizeof(expires));
	}
	return n < 0 ? fail(why, -EINVAL, "it would be too long: narrow an earlier one") : n;
}

int ticket_mint(const struct ticket_keys *keys, const struct ticket *what, char *ret, const char **why)
{
	unsigned char bytes[BYTES_MOST];
	int n;

	memcpy(bytes, &keys->list[0].id, 8);
	randombytes_buf(bytes + 8, 8);
	seal_first(&keys->list[0], bytes, bytes + HEAD);
	n = add_all(bytes, HEAD + SEAL, what, why);
	return n < 0 ? n : encode(bytes, (size_t)n, ret);
}

int ticket_narrow(const char *text, const struct ticket *what, char *ret, const char **why)
{
	unsigned char bytes[BYTES_MOST];
	struct ticket now;
	int n = decode(text, strlen(text), bytes), e = ticket_read(NULL, text, strlen(text), &now, why);

	if (n < 0 || e < 0)
		return -EINVAL;
	if (*what->prefix && !name_is_below(what->prefix, now.prefix))
		return fail(why, -EINVAL, "that prefix is not below the ticket's");
	if (what->verbs & ~now.verbs)
		return fail(why, -EINVAL, "the ticket has not all of these rights");
	n = add_all(bytes, n, what, why);
	return n < 0 ? n : encode(bytes, (size_t)n, ret);
}

int ticket_covers(const struct ticket *t, enum verb verb, const char *name)
{
	return t->good && (t->verbs & 1u << verb) && name_is_below(name, t->prefix) && ticket_now() < t->expires;
}
