/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_CHANNEL_RPC_H
#define LEAT_CHANNEL_RPC_H
/*
 * What a client and a server say to each other. A client publishes on NAME, which its servers subscribe to, and
 * subscribes to a channel of its own, NAME/reply/RANDOM, which they publish on once it has told them (CONNECT).
 * The first WELCOME there decides whose client it is; requests name that server, and the others pass over them.
 */
#include <leat/rpc.h>
#include "channel/channel.h"

enum { LEAT__CONNECT = 1, LEAT__CALL = 2 };

/* Before every request. */
struct leat__call_head {
	uint64_t server; /* CONNECT: 0 */
	uint64_t call;   /* from 1 */
	uint32_t link;   /* the server's number for the connection */
	uint32_t kind;
};

/* After it, with CONNECT; then the channel for replies, to the message's end. */
struct leat__connect {
	uint32_t max_calls;
	uint32_t pad;
};

/* Before every reply. */
struct leat__reply_head {
	uint64_t server;
	uint64_t call; /* 0: WELCOME */
	uint32_t link;
	int32_t error;
};

/* After it, with WELCOME. */
struct leat__welcome {
	uint32_t max_calls;
	uint32_t pad;
	uint64_t max_reply;
};

enum {
	LEAT__CALLS = 16, /* of one client under way, by default */
	LEAT__CALLS_MAX = 256,
	LEAT__SERVERS = 8, /* of one name, by default; who opens it first decides */
	LEAT__CLIENTS = 64, /* likewise */
	LEAT__INLINE_MAX = 65536, /* larger messages go in blocks */
	LEAT__PATIENCE = 64, /* messages in a row that mean nothing: then the caller's time counts */
};
#define LEAT__MESSAGE_MAX UINT64_C(4096)

/* The ring for @calls messages of up to @size bytes, with their heads, none of which ever waits for room. */
static inline struct leat_pub_opts leat__rpc_ring(uint64_t size, uint32_t calls, uint32_t clients)
{
	struct leat_pub_opts o = {.struct_size = sizeof(o), .max_size = size + (size < UINT64_MAX - 64 ? 64 : 0), .max_publishers = clients,
				  .max_subscribers = LEAT__SERVERS};

	if (size <= LEAT__INLINE_MAX) {
		o.capacity = 2 * calls * (size + 96);
		o.capacity = o.capacity < 8 * (size + 96) ? 8 * (size + 96) : o.capacity;
	} else {
		o.capacity = calls * 256;
		o.blocks = calls + 2;
	}
	return o;
}

/* A client, as its server sees it. */
struct leat__link {
	uint64_t client;     /* its ring's number; 0: free */
	uint32_t generation; /* of this place */
	uint32_t max_calls;
	struct leat_pub *pub;
	struct leat__reply_head *claimed; /* a reply that is being filled; NULL: none is */
};

struct leat_server {
	struct leat *l;
	struct leat__node node;
	struct leat_sub *s;
	struct leat_serve_opts o;
	uint64_t id;
	struct leat__link *links;
	uint32_t n_links, detached;
	uint64_t held; /* 1 + the call of the request that is laid open; 0: none is */
	uint64_t held_client;
	struct leat_serve_stat st;
};

/* A call under way. */
struct leat__pending {
	uint64_t number;   /* 0: free */
	uint64_t deadline;
	int over;          /* it has ended for its caller */
};

struct leat_client {
	struct leat *l;
	struct leat__node node;
	struct leat_pub *p;
	struct leat_sub *s;
	char reply[LEAT__NAME_MAX + 1];
	uint32_t max_calls, granted; /* granted: by the server */
	uint64_t max_request;
	uint64_t server, publisher; /* 0: none; and its ring on our channel */
	uint32_t link;
	uint64_t greet_at, again_ns;
	struct leat__pending *calls; /* at their numbers & mask */
	uint32_t mask, used;
	uint64_t last;  /* call */
	uint32_t waited; /* calls not over */
	int held;
};

#endif
