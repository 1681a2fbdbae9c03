/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leat: the command. Finds the subcommand, parses its options from its table, and runs it. Manual:
 * leat(1), and one page per subcommand.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "cli.h"

struct cli_command *const cli_commands[] = {
	&cmd_call, &cmd_completion, &cmd_doctor, &cmd_get, &cmd_kick, &cmd_ls,   &cmd_metrics,  &cmd_ping, &cmd_policy_check, &cmd_policy_explain, &cmd_pub, &cmd_queue_push, &cmd_queue_take, &cmd_quota,
	&cmd_region_cat, &cmd_region_ls, &cmd_region_share,
	&cmd_rm,   &cmd_serve,      &cmd_set, &cmd_stat, &cmd_sub, &cmd_ticket_keygen, &cmd_ticket_mint, &cmd_ticket_narrow, &cmd_ticket_show, &cmd_who, NULL,
};
volatile sig_atomic_t cli_stop;

static void on_signal(int sig)
{
	(void)sig;
	cli_stop = 1;
}

double cli_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* ---- help ---- */

static void help_all(FILE *f)
{
	fputs("usage: leat COMMAND [OPTION...] [NAME]\n       leat --help | --version\n\n"
	      "Messages between processes through shared memory.\n\n",
	      f);
	for (int i = 0; cli_commands[i]; i++)
		fprintf(f, "  %-12s  %s\n", cli_commands[i]->name, cli_commands[i]->summary);
	fputs("\nEach has --help and a manual page: leat-pub(1), leat-sub(1), ...\n"
	      "Exit codes: 0 done, 1 failed, 2 usage, 3 no broker or denied, 4 timeout, 5 messages lost.\n",
	      f);
}

static void help(const struct cli_command *cmd, FILE *f)
{
	fprintf(f, "usage: leat %s [OPTION...]%s%s\n\n%s\n\n", cmd->name, *cmd->args ? " " : "",
		cmd->args, cmd->summary);
	for (const struct cli_option *o = cmd->options; o->name; o++) {
		char left[40];

		snprintf(left, sizeof(left), "--%s%s%s", o->name, o->arg ? " " : "",
			 o->arg ? o->arg : "");
		fprintf(f, "  %-24s %s\n", left, o->help);
	}
	fprintf(f, "  %-24s %s\n\nManual: leat-%.*s(1).\n", "--help", "this text", (int)strcspn(cmd->name, " "), cmd->name);
}

/* ---- options ---- */

static int parse(struct cli_command *cmd, int argc, char **argv)
{
	struct option longs[32] = {{0}};
	int n = 0, c;

	for (; cmd->options[n].name; n++)
		longs[n] = (struct option){cmd->options[n].name,
					   cmd->options[n].arg ? required_argument : no_argument, NULL,
					   1000 + n};
	longs[n] = (struct option){"help", no_argument, NULL, 'h'};
	/* What follows another command is that one's. */
	while ((c = getopt_long(argc, argv, strstr(cmd->args, "COMMAND") ? "+" : "", longs, NULL)) != -1) {
		if (c == 'h') {
			help(cmd, stdout);
			exit(CLI_DONE);
		}
		if (c < 1000) {
			fprintf(stderr, "leat %s: try leat %s --help\n", cmd->name, cmd->name);
			return CLI_USAGE;
		}
		cmd->options[c - 1000].value = optarg ? optarg : "";
	}
	return 0;
}

const char *cli_get(const struct cli_command *cmd, const char *name)
{
	const struct cli_option *o = cmd->options;

	while (o->name && strcmp(o->name, name) != 0)
		o++;
	return o->value;
}

int cli_usage(const struct cli_command *cmd, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "leat %s: ", cmd->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "; try leat %s --help\n", cmd->name);
	return CLI_USAGE;
}

int cli_size(const struct cli_command *cmd, const char *name, uint64_t otherwise, uint64_t *ret)
{
	const char *text = cli_get(cmd, name);
	unsigned long long n, unit = 1;
	char *end;

	*ret = otherwise;
	if (!text)
		return 0;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (*end && strchr("KMG", *end)) {
		unit = *end == 'K' ? 1ull << 10 : *end == 'M' ? 1ull << 20 : 1ull << 30;
		end++;
	}
	if (text[0] < '0' || text[0] > '9' || *end || errno || n > (1ull << 50) / unit)
		return cli_usage(cmd, "--%s '%s' is not a number (K, M, G may follow)", name, text);
	*ret = n * unit;
	return 0;
}

int cli_seconds(const struct cli_command *cmd, const char *name, double otherwise, double *ret)
{
	const char *text = cli_get(cmd, name);
	char *end;

	*ret = otherwise;
	if (!text)
		return 0;
	*ret = strtod(text, &end);
	if (end == text || *end || !(*ret >= 0) || *ret > 1e9)
		return cli_usage(cmd, "--%s '%s' is not a number of 0 or more", name, text);
	return 0;
}

/* ---- failing ---- */

int cli_fail(const struct cli_command *cmd, const char *on, int err)
{
	fprintf(stderr, "leat %s: %s%s%s\n", cmd->name, on ? on : "", on ? ": " : "", leat_why());
	switch (err) {
	case -ETIMEDOUT:
		return CLI_TIMEOUT;
	case -EACCES:
	case -EPERM:
	case -ECONNRESET:
	case -ECONNREFUSED:
		return CLI_DENIED;
	default:
		return CLI_FAILED;
	}
}

int cli_open(const struct cli_command *cmd, struct leat **ret)
{
	int e = leat_open(cli_get(cmd, "domain"), ret);

	if (e == 0)
		return 0;
	cli_fail(cmd, NULL, e);
	return e == -EINVAL ? CLI_USAGE : CLI_DENIED;
}

/* ---- numbers ---- */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

void cli_sort(double *v, size_t n)
{
	qsort(v, n, sizeof(*v), by_value);
}

double cli_quantile(double *sorted, size_t n, double q)
{
	size_t i = (size_t)(q * (double)n);

	return sorted[i < n ? i : n - 1];
}

/* The command that the first word, or the first two, name; how many they are, also where there is none. */
static struct cli_command *find(int argc, char **argv, int *words)
{
	*words = 1;
	for (int i = 0; cli_commands[i]; i++) {
		const char *name = cli_commands[i]->name;
		size_t first = strcspn(name, " ");

		if (strlen(argv[1]) != first || strncmp(argv[1], name, first) != 0)
			continue;
		*words = name[first] ? 2 : 1;
		if (!name[first] || (argc > 2 && !strcmp(argv[2], name + first + 1)))
			return cli_commands[i];
	}
	return NULL;
}

static int run(int argc, char **argv)
{
	struct sigaction sa = {.sa_handler = on_signal};
	struct cli_command *cmd;
	int r, words;

	if (argc < 2) {
		help_all(stderr);
		return CLI_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
		help_all(stdout);
		return CLI_DONE;
	}
	if (!strcmp(argv[1], "--version")) {
		printf("leat %s\n", leat_version());
		return CLI_DONE;
	}
	cmd = find(argc, argv, &words);
	if (!cmd) {
		fprintf(stderr, "leat: there is no command '%s%s%s'; try leat --help\n", argv[1], words > 1 ? " " : "",
			words > 1 && argc > 2 ? argv[2] : "");
		return CLI_USAGE;
	}
	r = parse(cmd, argc - words, argv + words);
	if (r)
		return r;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	return cmd->run(cmd, argc - words - optind, argv + words + optind);
}

int main(int argc, char **argv)
{
	int r;

	/* Where we were started without, nothing of ours shall have the numbers that are read and written; writing there fails. */
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != fd)
			return CLI_FAILED;
	r = run(argc, argv);
	if ((fflush(stdout) != 0 || ferror(stdout)) && r == CLI_DONE) {
		fprintf(stderr, "leat: write what was asked for: %s\n", strerror(errno));
		r = CLI_FAILED;
	}
	return r;
}
