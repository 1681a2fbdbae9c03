/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEATD_QUOTA_H
#define LEATD_QUOTA_H
/*
 * How much of what each user has, and each of its clients, and how much they may. A charge is on the user until it is
 * given back; on the client, while there is one. Knows nothing of what is charged for.
 */
#include <stdint.h>
#include <sys/types.h>
#include "link/wire.h"

/* What there is. The words are those of [limits] in leatd.conf(5). */
extern const char *const quota_names[LEAT__QUOTAS];

/* Who owns a ring or a slot. */
struct owner {
	uint64_t client;
	pid_t pid;
	uid_t uid;
	char program[16];
};

struct quotas;

/* @limit says how much a user may have; UINT64_MAX: any. NULL: of anything. */
struct quotas *quotas_new(void);
void quotas_free(struct quotas *q);
typedef uint64_t quota_limit_fn(void *arg, uid_t uid, enum leat__quota what);
void quotas_limit(struct quotas *q, quota_limit_fn *limit, void *arg);

/* A client has come; it is in the books until it has gone. -ENOMEM. */
int quota_come(struct quotas *q, const struct owner *who);
/* It has said what program it is. */
void quota_named(struct quotas *q, const struct owner *who);
void quota_go(struct quotas *q, const struct owner *who);

/*
 * Charge @who with one more of @what, which has so many bytes of memory and descriptors: all of it, or -EDQUOT saying
 * how much there is, and who has most. A client may have so much that as much is left for each of its user's clients
 * and one more: the greedy one is refused first.
 */
int quota_take(struct quotas *q, const struct owner *who, enum leat__quota what, uint64_t bytes, uint64_t fds);
/* The same for what is there already, of an earlier worker's: it is not refused. */
void quota_had(struct quotas *q, const struct owner *who, enum leat__quota what, uint64_t bytes, uint64_t fds);
void quota_give(struct quotas *q, const struct owner *who, enum leat__quota what, uint64_t bytes, uint64_t fds);

/*
 * Its user has had @ns of the broker's processor, at @now. Half of all time is in equal shares for those users who are
 * there; who has had more lately is ahead of the others.
 */
void quota_spend(struct quotas *q, const struct owner *who, uint64_t now, uint64_t ns);
int quota_is_ahead(const struct quotas *q, const struct owner *who, uint64_t now);
/* How long this process has worked, ns: whoever waits for a processor is not to pay for others. */
uint64_t broker_worked(void);

/* The user with the lowest uid from @from on, who has anything: 0; -ENOENT there is none. */
int quota_next(const struct quotas *q, uint64_t from, struct leat__wire_quota *ret);

#endif
