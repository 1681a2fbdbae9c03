/* SPDX-License-Identifier: Apache-2.0 */
/* The log; see log.h. */
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/base.h"
#include "log.h"

enum { EVENTS = 32, BURST = 10, A_SECOND = 5 };

static struct kept {
	char event[32];
	uint64_t due; /* when what was written would have been at the usual pace */
	unsigned long left_out;
} kept[EVENTS];

static struct kept *find(const char *event)
{
	for (int i = 0; i < EVENTS; i++) {
		if (!kept[i].event[0])
			snprintf(kept[i].event, sizeof(kept[i].event), "%s", event);
		if (!strcmp(kept[i].event, event))
			return &kept[i];
	}
	return &kept[EVENTS - 1];
}

/* Is there room for a line more? */
static int may_write(struct kept *k)
{
	const uint64_t each = UINT64_C(1000000000) / A_SECOND;
	struct pollfd p = {STDERR_FILENO, POLLOUT, 0};
	uint64_t now = leat__now();

	k->due = k->due > now ? k->due : now;
	if (k->due > now + (BURST - 1) * each || poll(&p, 1, 0) <= 0 || !(p.revents & POLLOUT)) {
		k->left_out++;
		return 0;
	}
	k->due += each;
	return 1;
}

void log_event(enum level level, const char *event, const char *fmt, ...)
{
	struct kept *k = find(event);
	char line[1200];
	size_t n = 0;
	va_list ap;

	if (!may_write(k))
		return;
	if (getenv("JOURNAL_STREAM"))
		n = (size_t)snprintf(line, sizeof(line), "<%d>", (int)level);
	n += (size_t)snprintf(line + n, sizeof(line) - n, "leatd: %s ", event);
	va_start(ap, fmt);
	n += (size_t)vsnprintf(line + n, sizeof(line) - n, fmt, ap);
	va_end(ap);
	n = n < sizeof(line) - 64 ? n : sizeof(line) - 64;
	if (k->left_out)
		n += (size_t)snprintf(line + n, sizeof(line) - n, " suppressed=%lu", k->left_out);
	k->left_out = 0;
	for (size_t i = 0; i < n; i++) /* what clients say of themselves is in it */
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, n) < 0)
		k->left_out++; /* nobody reads it: not our trouble */
}

void log_client(enum level level, const char *event, const struct owner *who, const char *why)
{
	log_event(level, event, "client=%llu uid=%u pid=%d program=\"%s\" why=\"%s\"", (unsigned long long)who->client,
		  (unsigned)who->uid, (int)who->pid, who->program, why);
}
