/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEATD_LOG_H
#define LEATD_LOG_H
/*
 * leatd's log, on standard error: a line for each event, a word for what it is, then key=value. Of one event at most ten
 * lines at once and five a second; the next line says how many there were besides. Never waits for who reads it.
 * leatd(8) lists the events.
 */
#include "session.h"

enum level { LOG_IS_ERROR = 3, LOG_IS_WARNING = 4, LOG_IS_INFO = 6 }; /* as syslog has them */

__attribute__((format(printf, 3, 4))) void log_event(enum level level, const char *event, const char *fmt, ...);
/* The same about a client, with what leat_why() says. */
void log_client(enum level level, const char *event, const struct owner *who, const char *why);

#endif
