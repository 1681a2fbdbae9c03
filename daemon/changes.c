/* SPDX-License-Identifier: Apache-2.0 */
/* What has lately become of channels, for those who watch; kept while there are any. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/base.h"
#include "registry.h"

static struct change **place(const struct registry *reg, uint64_t number)
{
	return &reg->changes[number % CHANGES_MAX];
}

void channel_tell(struct registry *reg, struct channel *ch, int there)
{
	struct leat__wire_channel f = channel_facts(ch);
	size_t len = strlen(ch->name);
	struct change *c;

	ch->change = ++reg->change;
	if (!reg->changes)
		return;
	c = malloc(sizeof(*c) + len + 1);
	if (!c) { /* let them all look anew */
		reg->kept_from = reg->change + 1;
		return;
	}
	c->w = (struct leat__wire_change){reg->change, there != 0, f.publishers, f.subscribers, 0};
	memcpy(c->name, ch->name, len + 1);
	free(*place(reg, reg->change));
	*place(reg, reg->change) = c;
	if (reg->change - reg->kept_from >= CHANGES_MAX)
		reg->kept_from = reg->change - CHANGES_MAX + 1;
}

int changes_next(const struct registry *reg, uint64_t since, const char *prefix, const struct change **ret)
{
	if (since > reg->change || since + 1 < reg->kept_from)
		return -ENOENT;
	while (since++ < reg->change) {
		*ret = *place(reg, since);
		if (!strncmp((*ret)->name, prefix, strlen(prefix)))
			return 1;
	}
	return 0;
}

int changes_watch(struct registry *reg, int more)
{
	if (!reg->changes) {
		reg->changes = calloc(CHANGES_MAX, sizeof(*reg->changes));
		if (!reg->changes)
			return leat__say(-ENOMEM, "the broker has no memory to keep changes");
		reg->kept_from = reg->change + 1;
	}
	reg->watches += (uint32_t)more;
	if (reg->watches)
		return 0;
	for (size_t i = 0; i < CHANGES_MAX; i++)
		free(reg->changes[i]);
	free(reg->changes);
	reg->changes = NULL;
	return 0;
}
