/* SPDX-License-Identifier: Apache-2.0 */
/* leat quota, leat kick: who has how much, and putting out who has too much. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli.h"
#include "facts.h"

static struct cli_option quota_options[] = {CLI_JSON, CLI_DOMAIN, {0}};
static struct cli_option kick_options[] = {CLI_DOMAIN, {0}};

static const struct amount {
	const char *name;
	size_t off;
} amounts[] = {
	{"memory", offsetof(struct leat_quota, memory)},           {"channels", offsetof(struct leat_quota, channels)},
	{"publishers", offsetof(struct leat_quota, publishers)},   {"subscribers", offsetof(struct leat_quota, subscribers)},
	{"clients", offsetof(struct leat_quota, clients)},         {"descriptors", offsetof(struct leat_quota, descriptors)},
	{"watches", offsetof(struct leat_quota, watches)},
};
enum { AMOUNTS = sizeof(amounts) / sizeof(amounts[0]) };

static int on_user(const struct leat_quota *q, void *arg)
{
	json_t *all = arg, *one = all ? json_pack("{s:i, s:i}", "uid", (int)q->uid, "connected", (int)q->connected) : NULL;

	if (!all)
		printf("%u\n", (unsigned)q->uid);
	for (int i = 0; i < AMOUNTS; i++) {
		struct leat_amount a;
		char limit[24] = "any";

		memcpy(&a, (const char *)q + amounts[i].off, sizeof(a));
		if (a.limit != UINT64_MAX)
			snprintf(limit, sizeof(limit), "%llu", (unsigned long long)a.limit);
		if (!all)
			printf("  %-12s %15llu %15s\n", amounts[i].name, (unsigned long long)a.used, limit);
		else
			json_object_set_new(one, amounts[i].name,
					    json_pack("{s:I, s:o}", "used", (json_int_t)a.used, "limit",
						      a.limit == UINT64_MAX ? json_null() : json_integer((json_int_t)a.limit)));
	}
	return all && json_array_append_new(all, one) < 0 ? -ENOMEM : 0;
}

static int run_quota(struct cli_command *cmd, int argc, char **argv)
{
	json_t *all;
	struct leat *l;
	int r;

	(void)argv;
	if (argc)
		return cli_usage(cmd, "it takes no names");
	r = cli_open(cmd, &l);
	if (r)
		return r;
	all = cli_get(cmd, "json") ? json_array() : NULL;
	if (!all)
		printf("%-14s %15s %15s\n", "UID", "USED", "LIMIT");
	r = leat_quota(l, on_user, all);
	leat_close(l);
	if (r < 0) {
		json_decref(all);
		return cli_fail(cmd, NULL, r);
	}
	return all ? cli_print_json(all) : CLI_DONE;
}

static int run_kick(struct cli_command *cmd, int argc, char **argv)
{
	struct leat *l;
	int r = CLI_DONE;

	if (!argc)
		return cli_usage(cmd, "give the number of a CLIENT: leat who lists them");
	for (int i = 0; i < argc; i++) {
		char *end;

		if (strtoull(argv[i], &end, 10) == 0 || *end)
			return cli_usage(cmd, "'%s' is no client's number: leat who lists them", argv[i]);
	}
	if ((r = cli_open(cmd, &l)))
		return r;
	for (int i = 0; i < argc && r == CLI_DONE; i++) {
		int e = leat_kick(l, strtoull(argv[i], NULL, 10));

		r = e < 0 ? cli_fail(cmd, argv[i], e) : CLI_DONE;
	}
	leat_close(l);
	return r;
}

struct cli_command cmd_quota = {"quota", "", "How much each user has, and may have.", quota_options, run_quota};
struct cli_command cmd_kick = {"kick", "CLIENT...", "Put clients out.", kick_options, run_kick};
