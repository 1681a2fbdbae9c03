/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEATD_SESSION_H
#define LEATD_SESSION_H
/*
 * Sessions: one per connected client. Packets in, answers out, and the end of what a dead client
 * held. The only files that know libuv are this one and main.c.
 */
#include <uv.h>
#include "registry.h"

struct broker {
	uv_loop_t *loop;
	struct registry reg;
	struct session *sessions;
	uint32_t n_sessions;
	uint64_t next_client;
	uint64_t instance;
	int verbose;
	void (*changed)(struct broker *b); /* something came or went: timers may need to */
};

/* Serve the client on @sock, which the session owns from now on, whatever the answer. */
int session_start(struct broker *b, int sock);
/* Say BYE to everybody and close. */
void session_end_all(struct broker *b);

__attribute__((format(printf, 2, 3))) void broker_log(const struct broker *b, const char *fmt, ...);

#endif
