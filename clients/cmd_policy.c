/* SPDX-License-Identifier: Apache-2.0 */
/* leat policy check, leat policy explain: what leatd makes of its configuration. leatd itself answers, here as there. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli.h"

#define CONFIG {"config", "FILE", "another leatd.conf (default: /etc/leat/leatd.conf)", NULL}

static struct cli_option check_options[] = {CONFIG, {0}};
static struct cli_option explain_options[] = {CONFIG, CLI_JSON, {0}};

static int ask_leatd(struct cli_command *cmd, const char *what, char **words)
{
	const char *leatd = getenv("LEAT_LEATD"), *config = cli_get(cmd, "config");
	const char *argv[10] = {"leatd", what};
	int n = 2;

	if (!leatd || *leatd != '/')
		leatd = LEATD_PATH;
	if (config) {
		argv[n++] = "--config";
		argv[n++] = config;
	}
	if (words && cli_get(cmd, "json"))
		argv[n++] = "--json";
	if (words)
		argv[n++] = "--";
	for (int i = 0; words && i < 3; i++)
		argv[n++] = words[i];
	fflush(NULL);
	execv(leatd, (char **)(uintptr_t)argv);
	fprintf(stderr, "leat %s: run %s: %s: is leat installed as a whole?\n", cmd->name, leatd, strerror(errno));
	return CLI_FAILED;
}

static int check(struct cli_command *cmd, int argc, char **argv)
{
	(void)argv;
	if (argc)
		return cli_usage(cmd, "nothing comes after the options");
	return ask_leatd(cmd, "--check", NULL);
}

static int explain(struct cli_command *cmd, int argc, char **argv)
{
	if (argc != 3)
		return cli_usage(cmd, "give WHO (uid:N or user:NAME), a VERB and a NAME");
	return ask_leatd(cmd, "--explain", argv);
}

struct cli_command cmd_policy_check = {"policy check", "", "say whether leatd's configuration is right", check_options, check};
struct cli_command cmd_policy_explain = {"policy explain", "WHO VERB NAME", "say which line decides whether WHO may VERB NAME",
					 explain_options, explain};
