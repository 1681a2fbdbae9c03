/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEATD_KEEPER_H
#define LEATD_KEEPER_H
/*
 * What keeper and worker say to each other, a packet each, over the SOCK_SEQPACKET socket that the worker has as
 * descriptor LEATD_KEEPER_FD. Words never change their meaning: one of the two may be of another version.
 */
#include <stdint.h>

enum { LEATD_KEEPER_FD = 197 };

enum {
	KEEP = 1, /* + the descriptor: it is under this key from now on. To a worker that begins: it is. */
	DROP = 2, /* the one under this key is not needed any more */
	READY = 3, /* to the worker: that was all; to the keeper: I serve */
};

struct keeper_packet {
	uint32_t what, key;
};

#endif
