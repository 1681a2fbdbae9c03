/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tickets of any bytes: understood or refused; taken only as they were made. A file of keys of any bytes. The first byte
 * says which: a text, the bytes of a ticket with a key's right number, changes to a good one, a file of keys.
 */
#include <errno.h>
#include <sodium.h>
#include <sys/mman.h>
#include <unistd.h>
#include "fuzz.h"
#include "ticket.h"

static struct ticket_keys *keys;
static char good[TICKET_TEXT];
static struct ticket good_says;

static int file_of(const void *bytes, size_t size)
{
	int fd = memfd_create("keys", MFD_CLOEXEC);

	must(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
	return fd;
}

static void begin(void)
{
	static const char text[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";
	struct ticket t = {.verbs = 1u << V_SUBSCRIBE | 1u << V_CREATE, .expires = UINT64_MAX, .prefix = "camera/left"};
	int fd = file_of(text, sizeof(text) - 1);
	const char *why;

	must(ticket_keys_read(fd, &keys, &why) >= 0 && ticket_mint(keys, &t, good, &why) == 0);
	must(ticket_read(keys, good, strlen(good), &good_says, &why) == 0);
	close(fd);
}

static void try(const char *text, size_t size)
{
	struct ticket t, free_of_keys, less = {.verbs = 1u << V_WATCH, .prefix = "camera/left/x"};
	char cut[TICKET_TEXT], next[TICKET_TEXT];
	const char *why = NULL;
	int e = ticket_read(keys, text, size, &t, &why);

	must(e == 0 || (why && !t.good));
	must(ticket_read(NULL, text, size, &free_of_keys, &why) == (e == -EINVAL ? -EINVAL : 0) && !free_of_keys.good);
	/* Good, of what was made here: it is that, or narrower. */
	if (t.good) {
		must(t.key == good_says.key && t.id == good_says.id && !(t.verbs & ~good_says.verbs));
		must(!ticket_covers(&t, V_PUBLISH, "camera/left") && !ticket_covers(&t, V_SUBSCRIBE, "camera"));
	}
	if (size >= sizeof(cut) || memchr(text, 0, size))
		return;
	memcpy(cut, text, size);
	cut[size] = 0;
	if (ticket_narrow(cut, &less, next, &why) == 0) {
		struct ticket narrow;
		int good_again = ticket_read(keys, next, strlen(next), &narrow, &why) == 0;

		must(good_again == (e == 0) && narrow.verbs == (t.verbs & less.verbs));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};
	unsigned char bytes[560];
	char text[1024] = "leat1.";
	size_t n = 0;

	if (!keys)
		begin();
	switch (next8(&in) % 4) {
	case 0:
		try((const char *)in.at, (size_t)(in.end - in.at));
		break;
	case 1:
		n = (size_t)(in.end - in.at) < sizeof(bytes) - 8 ? (size_t)(in.end - in.at) : sizeof(bytes) - 8;
		memcpy(bytes, &good_says.key, 8);
		if (n)
			memcpy(bytes + 8, in.at, n);
		sodium_bin2base64(text + 6, sizeof(text) - 6, bytes, n + 8, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
		try(text, strlen(text));
		break;
	case 2:
		must(sodium_base642bin(bytes, sizeof(bytes), good + 6, strlen(good) - 6, NULL, &n, NULL,
				       sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0);
		while (in.at < in.end) {
			size_t at = next8(&in) % n;

			bytes[at] ^= next8(&in);
		}
		sodium_bin2base64(text + 6, sizeof(text) - 6, bytes, n, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
		try(text, strlen(text));
		break;
	default: {
		struct ticket_keys *k;
		const char *why;
		int fd = file_of(in.at, (size_t)(in.end - in.at));

		if (ticket_keys_read(fd, &k, &why) >= 0) {
			must(ticket_keys_have(k, ticket_keys_first(k)));
			ticket_keys_free(k);
		}
		close(fd);
	}
	}
	return 0;
}
