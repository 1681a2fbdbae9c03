/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEATD_SIEVE_H
#define LEATD_SIEVE_H
/* Descriptors that clients send, looked at elsewhere: see sieve.c. */
#include <sys/types.h>
#include "link/sock.h"

struct sieve;
#define SIEVE_NOBODY ((uid_t)-1) /* what nobody is held to account for: it is done however many are stuck */

/* NULL: no memory. From now on nobody waits for this process's children. */
struct sieve *sieve_new(void);
void sieve_free(struct sieve *v);
/* The child, if there is none: it is forked when there is little to copy. 0, -errno. */
int sieve_start(struct sieve *v);
/* Forget those that have gone. How many have not. */
unsigned sieve_reap(struct sieve *v);
/* The descriptors of the packet that is next in @sock, which @uid sent, into @p; they stay there, too. 0, or -errno with
 * the reason: -EINVAL one of them is none to have here, -EAGAIN ask again soon, -EBUSY some of his before cannot be
 * closed, -EMFILE. Not 0: the packet is to be taken out by sieve_drop(). */
int sieve_receive(struct sieve *v, int sock, uid_t uid, struct leat__packet *p);
/* Take the packet that is next in @sock out of it, whatever it brings. 0, -errno: not now. */
int sieve_drop(struct sieve *v, int sock, uid_t uid);
/* @sock is of no more use: shut it down, and take out what is left in it. 0: it can be closed; -errno: not now. */
int sieve_drain(struct sieve *v, int sock, uid_t uid);
/* May descriptors be sent to @sock, and what connects to it? Only Linux from 6.16 on can be told. */
void sieve_admit(int sock, int may);

#endif
