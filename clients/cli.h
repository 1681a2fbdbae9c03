/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_CLI_H
#define LEAT_CLI_H
/*
 * What the subcommands of leat share. A subcommand is a row in a table: its options, its help and its
 * completions all come from there.
 */
#include <signal.h>
#include <stdint.h>
#include <leat.h>

enum { /* exit codes, the same for every subcommand; leat(1) lists them */
       CLI_DONE = 0,
       CLI_FAILED = 1,
       CLI_USAGE = 2,
       CLI_DENIED = 3, /* no broker, or it said no */
       CLI_TIMEOUT = 4,
       CLI_LOST = 5, /* messages were lost */
};

struct cli_option {
	const char *name;
	const char *arg; /* what it takes, NULL: nothing */
	const char *help;
	const char *value; /* as given; NULL: not given */
};

struct cli_command {
	const char *name;    /* one word, or two */
	const char *args;    /* after the options */
	const char *summary; /* one line */
	struct cli_option *options; /* ends with a zeroed one */
	int (*run)(struct cli_command *cmd, int argc, char **argv); /* operands only */
};

extern struct cli_command cmd_call, cmd_completion, cmd_doctor, cmd_get, cmd_kick, cmd_ls, cmd_metrics, cmd_ping, cmd_policy_check, cmd_policy_explain, cmd_pub, cmd_queue_push, cmd_queue_take, cmd_quota,
	cmd_region_cat, cmd_region_ls, cmd_region_share, cmd_rm, cmd_serve, cmd_set, cmd_stat, cmd_sub, cmd_ticket_keygen, cmd_ticket_mint, cmd_ticket_narrow,
	cmd_ticket_show, cmd_who;
extern struct cli_command *const cli_commands[]; /* ends with NULL */

#define CLI_DOMAIN {"domain", "PATH", "the broker's socket (default: the usual places)", NULL}
#define CLI_JSON   {"json", NULL, "facts as JSON", NULL}

/* The option's value; NULL if not given, or none of the command's. */
const char *cli_get(const struct cli_command *cmd, const char *name);
/* Numbers: 0, or CLI_USAGE after saying why. Sizes take K, M, G (powers of 1024). */
int cli_size(const struct cli_command *cmd, const char *name, uint64_t otherwise, uint64_t *ret);
int cli_seconds(const struct cli_command *cmd, const char *name, double otherwise, double *ret);

/* Connect to --domain. 0, or the exit code after saying why. */
int cli_open(const struct cli_command *cmd, struct leat **ret);
/* Say what failed, on what, and leat_why(); the exit code that fits @err. */
int cli_fail(const struct cli_command *cmd, const char *on, int err);
__attribute__((format(printf, 2, 3))) int cli_usage(const struct cli_command *cmd, const char *fmt,
						    ...);

/* What leat pub does; with @group, for a work queue's. */
int cli_publish(struct cli_command *cmd, int argc, char **argv, const char *group);

/* All of @file, or of standard input (NULL); the caller frees @ret. 0, or the exit code after saying why. */
int cli_read(const struct cli_command *cmd, const char *file, char **ret, size_t *size);
/* Run a command with @data as its standard input, and @out (-1: ours) as its output. 1 it succeeded, 0 it did not,
 * -1 it cannot be run, and it was said why. */
int cli_run(const struct cli_command *cmd, const char *on, char **command, const void *data, size_t size, int out);

/* Set by SIGINT and SIGTERM. */
extern volatile sig_atomic_t cli_stop;
double cli_now(void);

/* Nanosecond samples, sorted in place: the value below which @q of them lie. */
double cli_quantile(double *sorted, size_t n, double q);
void cli_sort(double *v, size_t n);

#endif
