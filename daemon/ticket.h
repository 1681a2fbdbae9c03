/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEATD_TICKET_H
#define LEATD_TICKET_H
/*
 * Tickets: who holds one may do what it says with the names that it says, as far as the policy takes tickets there. Made
 * with a key that broker and administrator have; whoever holds a ticket can make a narrower one of it, without the key,
 * never a wider. Bytes in, bytes out: no sockets, no broker; leat ticket (the command) is made of the same. libsodium.
 *
 * A ticket is "leat1." and, in URL-safe base64: the key's number (8 bytes), its own (8), caveats, a seal (32). A caveat
 * is a type, a size, and that many bytes; all of them hold. The seal of nothing is keyed BLAKE2b, with the key, of
 * "leat ticket 1" and the two numbers; with each caveat it becomes keyed BLAKE2b, with the seal so far, of the caveat.
 */
#include <stddef.h>
#include <stdint.h>
#include "verb.h"

enum {
	TICKET_TEXT = 768, /* the longest, with its end */
	TICKETS_MOST = 4,  /* that one client may bring */
	TICKET_KEYS_MOST = 16,
};

struct ticket {
	uint64_t key, id;
	uint64_t expires; /* on CLOCK_BOOTTIME, ns; UINT64_MAX: never; 0: it has, it is of before this machine started */
	uint32_t verbs;   /* 1 << verb */
	uint32_t sealed;  /* its seal is right */
	uint32_t good;    /* and its key in force */
	uint32_t pad;
	char prefix[LEAT__NAME_MAX + 1]; /* at and below; "": all names */
};

struct ticket_keys;

/*
 * Open a file of keys: 64 hexadecimal digits a line, the one that new tickets are made with first. The descriptor;
 * -errno with *why: also -EPERM, others may read or write it.
 */
int ticket_keys_open(const char *path, const char **why);
/* Its keys, in memory that is locked, and wiped by ticket_keys_free(). 0; 1 it could not be locked; -errno with *why. */
int ticket_keys_read(int fd, struct ticket_keys **ret, const char **why);
void ticket_keys_free(struct ticket_keys *keys);
/* Another key, the first of up to @keep + 1, instead of the file at @path, or where there is none. -errno with *why. */
int ticket_keys_add(const char *path, unsigned keep, const char **why);
/* The number of the one that new tickets are made with. */
uint64_t ticket_keys_first(const struct ticket_keys *keys);
/* Is it in force? */
int ticket_keys_have(const struct ticket_keys *keys, uint64_t key);

/*
 * What a ticket says; with @keys, whether that is so. 0; with *why: -EACCES it is not (@ret says what it claims), or
 * -EINVAL this is no ticket.
 */
int ticket_read(const struct ticket_keys *keys, const char *text, size_t size, struct ticket *ret, const char **why);
/* One that says that, made with the first key. @ret has TICKET_TEXT bytes. -errno with *why. */
int ticket_mint(const struct ticket_keys *keys, const struct ticket *what, char *ret, const char **why);
/* A narrower one: @what says only what is to be another (verbs 0, expires 0, prefix "": not). -EINVAL with *why. */
int ticket_narrow(const char *text, const struct ticket *what, char *ret, const char **why);

/* It is good, not expired, and for that. */
int ticket_covers(const struct ticket *t, enum verb verb, const char *name);
/* CLOCK_BOOTTIME, in ns: nobody can step it. */
uint64_t ticket_now(void);

#endif
