/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEATD_CONFIGURE_H
#define LEATD_CONFIGURE_H
/*
 * What is in force: rules, limits, keys of tickets. Read at the start and when we are told to; kept for the workers that
 * come after, who go on with the same, whatever the files say by then.
 */
#include "session.h"

struct configure {
	struct broker *b;
	const char *path; /* leatd.conf; NULL: there is none */
	double linger;    /* as told on the command line; negative: it is not */
};

enum { LINGER = 30 }; /* seconds, where nobody says */

/* With what an earlier worker kept, by key, @n of them (taken ones are set to -1), or else the files. -errno with the reason. */
int configure_begin(const struct configure *c, int *fds, uint32_t n);
/* The files again: all or nothing; what is wrong is logged. */
void configure_again(const struct configure *c);

#endif
