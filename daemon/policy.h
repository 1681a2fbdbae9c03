/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEATD_POLICY_H
#define LEATD_POLICY_H
/*
 * Who may do what with which names. Text in, rulings out: no sockets, no broker; leat policy (the command) uses it, too.
 *
 * A rule is for one verb and all names at and below one prefix. Of the rules for a verb the one with the longest prefix
 * decides, alone: who is in its list may. u/UID/ is that user's without a rule; root and the broker's own user may all.
 */
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include "ticket.h"

/* Whom the kernel says we talk to, and the tickets that he has shown. */
struct person {
	uid_t uid;
	gid_t gid;
	const gid_t *groups;
	unsigned n_groups;
	const struct ticket *tickets;
	unsigned n_tickets;
};

struct config;

/*
 * Read a leatd.conf, and policy.d beside it: all their text, in a form that config_parse() takes, the caller's to free.
 * -errno with the reason.
 */
int config_read(const char *path, char **ret, size_t *ret_size);
/*
 * What they say. 0 all is well; 1 some of policy.d is not: what those files are for is closed, and config_faults() says
 * why; -EINVAL leatd.conf itself is wrong, with the reason; -ENOMEM.
 */
int config_parse(const char *text, size_t size, struct config **ret);
void config_free(struct config *c);
/* A line for each: file, line, what is wrong. NULL: no more. */
const char *config_fault(const struct config *c, unsigned i);
/* [broker] linger, in seconds; negative: not given. */
double config_linger(const struct config *c);
/* [tickets] keys: the path of their file; NULL: not given. */
const char *config_keys(const struct config *c);

/* [limits]: how much of @what (enum leat__quota; LEAT__QUOTAS: requests a second of one client) @uid may have; UINT64_MAX:
 * any, as root and @owner. */
uint64_t config_limit(const struct config *c, uid_t owner, uid_t uid, unsigned what);

/* Which line decided, for people. */
struct ruling {
	const char *file; /* NULL: none did; what does */
	unsigned line;
	const char *what;
};
/* May @who do that with @name? 1, 0. @owner: the broker's own user. @ret may be NULL. */
int policy_may(const struct config *c, uid_t owner, const struct person *who, enum verb verb, const char *name,
	       struct ruling *ret);
/* May @who know that there is something of that name? 1, 0. */
int policy_sees(const struct config *c, uid_t owner, const struct person *who, const char *name);

#endif
