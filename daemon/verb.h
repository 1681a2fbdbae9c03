/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEATD_VERB_H
#define LEATD_VERB_H
/* What one may do with names, and which names are meant. */
#include <string.h>
#include "link/wire.h"

enum verb { V_PUBLISH, V_SUBSCRIBE, V_OBSERVE, V_CREATE, V_WATCH, V_ADMINISTER, VERBS };

/* NULL: there is no such verb. */
static inline const char *verb_name(unsigned verb)
{
	static const char *const names[VERBS] = {"publish", "subscribe", "observe", "create", "watch", "administer"};

	return verb < VERBS ? names[verb] : NULL;
}

/* VERBS: nothing is called so. */
static inline enum verb verb_find(const char *name)
{
	unsigned v = 0;

	while (v < VERBS && strcmp(verb_name(v), name) != 0)
		v++;
	return (enum verb)v;
}

/* Is @name at or below @prefix? */
static inline int name_is_below(const char *name, const char *prefix)
{
	size_t n = strlen(prefix);

	return !n || (!strncmp(name, prefix, n) && (!name[n] || name[n] == '/'));
}

#endif
