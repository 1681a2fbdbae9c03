/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_LINK_SOCK_H
#define LEAT_LINK_SOCK_H
/* Packets with descriptors over a SOCK_SEQPACKET socket, and finding it. Shared by both sides. */
#include <sys/types.h>
#include "link/wire.h"

/* One packet as it came in. Its descriptors are the receiver's: take (set to -1) or close them. */
struct leat__packet {
	unsigned char bytes[LEAT__PACKET_MAX];
	size_t size;
	int fds[LEAT__FDS_MAX];
	unsigned n_fds;
};

/* Send @o with descriptors, which stay the caller's; never blocks. 0, -EAGAIN, -EPIPE, ... */
int leat__sock_send(int sock, const struct leat__out *o, const int *fds, unsigned n_fds);
/* Receive one packet. 1, 0 the other side has closed, -EAGAIN, -EBADMSG truncated or empty,
 * -EMFILE its descriptors are lost, as we have no room for them: its bytes are there. */
int leat__sock_recv(int sock, struct leat__packet *p);
/* The same, and it stays in the socket until it is dropped: with copies of its descriptors, which are there, to be closed,
 * whatever is returned. */
int leat__sock_peek(int sock, struct leat__packet *p);
/* The same without them: 2 if there are any, else as above. */
int leat__sock_look(int sock, struct leat__packet *p);
void leat__sock_drop(int sock);
void leat__packet_close(struct leat__packet *p);
/* Take descriptor @i out of the packet; -1 none. */
int leat__packet_take(struct leat__packet *p, unsigned i);

/* Who is on the other side. @ret_pidfd may be NULL; -1 there if the kernel cannot say. */
int leat__sock_peer(int sock, pid_t *pid, uid_t *uid, int *ret_pidfd);

/* And in which groups: how many, the caller's to free. */
int leat__sock_groups(int sock, gid_t *gid, gid_t **ret);

/* Connect before @deadline, checking that the broker is ours or root's. Non-blocking. -errno. */
int leat__sock_connect(const char *path, uint64_t deadline);

/*
 * Where the broker's socket is: @domain, $LEAT_BROKER, $XDG_RUNTIME_DIR/leat/broker.sock, or
 * /run/leat/broker.sock. @n counts 0, 1, ... through the places to try. 1 named by the user,
 * 0 a usual place, -ENOENT no more.
 */
int leat__sock_place(const char *domain, unsigned n, char *path, size_t size);

#endif
