/* SPDX-License-Identifier: Apache-2.0 */
/* leat set, leat get, leat rm: a channel as a variable; and forgetting what is kept. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "cli.h"

static struct cli_option set_options[] = {
	{"file", "F", "the value is what is in F (default, without a VALUE: standard input)", NULL},
	CLI_DOMAIN,
	{0},
};

static struct cli_option get_options[] = {
	{"raw", NULL, "no newline after it", NULL},
	{"timeout", "S", "wait S seconds for a value (default 0)", NULL},
	CLI_JSON,
	CLI_DOMAIN,
	{0},
};

static struct cli_option rm_options[] = {CLI_DOMAIN, {0}};

static int publish(struct leat *l, const char *name, const void *value, size_t size)
{
	/* One message: a small ring, or a small one with a block. */
	struct leat_pub_opts o = {.struct_size = sizeof(o), .capacity = 4096, .max_size = size, .blocks = 1,
				  .policy = LEAT_OVERWRITE, .retain = 1};
	struct leat_pub *p;
	int e = leat_pub_open(l, name, &o, &p);

	if (e < 0)
		return e;
	e = leat_send(p, value, size, 0);
	leat_pub_close(p);
	return e;
}

static int set(struct cli_command *cmd, int argc, char **argv)
{
	char *text = NULL;
	size_t size = 0;
	struct leat *l;
	int r;

	if (argc < 1 || argc > 2 || (argc == 2 && cli_get(cmd, "file")))
		return cli_usage(cmd, "give a NAME, and a VALUE or --file or standard input");
	r = argc == 1 ? cli_read(cmd, cli_get(cmd, "file"), &text, &size) : 0;
	if (r == 0)
		r = cli_open(cmd, &l);
	if (r == 0) {
		int e = publish(l, argv[0], argc == 2 ? argv[1] : text, argc == 2 ? strlen(argv[1]) : size);

		r = e < 0 ? cli_fail(cmd, argv[0], e) : CLI_DONE;
		leat_close(l);
	}
	free(text);
	return r;
}

/* The newest value, however large; waits in short pieces, for a signal may end it. */
static int newest(struct leat_sub *s, char **buf, struct leat_info *info, double until)
{
	const struct timespec nap = {0, 2000000};
	size_t room = 65536;

	for (*buf = malloc(room); *buf; *buf = realloc(*buf, room)) {
		int e = leat_latest(s, *buf, room, info);

		if (e == -EMSGSIZE) {
			while (room < info->size)
				room *= 2;
			continue;
		}
		if (e != -EAGAIN)
			return e;
		if (cli_stop || cli_now() >= until)
			return -ETIMEDOUT;
		nanosleep(&nap, NULL);
	}
	return -ENOMEM;
}

static int write_value(const struct cli_command *cmd, const char *name, const char *buf, const struct leat_info *info)
{
	if (cli_get(cmd, "json")) {
		json_t *text = json_stringn(buf, (size_t)info->size);
		json_t *j = json_pack("{s:s, s:I, s:I, s:I, s:o}", "name", name, "size", (json_int_t)info->size, "seq",
				      (json_int_t)info->seq, "publisher", (json_int_t)info->publisher, "text",
				      text ? text : json_null()); /* null: it is no UTF-8 */

		json_dumpf(j, stdout, JSON_INDENT(2));
		json_decref(j);
	} else {
		fwrite(buf, 1, (size_t)info->size, stdout);
	}
	if (!cli_get(cmd, "raw"))
		putchar('\n');
	if (fflush(stdout) == 0)
		return CLI_DONE;
	fprintf(stderr, "leat get: %s: write to standard output: %s\n", name, strerror(errno));
	return CLI_FAILED;
}

static int get(struct cli_command *cmd, int argc, char **argv)
{
	struct leat_sub_opts o = {.struct_size = sizeof(o), .from = LEAT_LATEST, .flags = LEAT_OBSERVE};
	struct leat_info info;
	struct leat_sub *s;
	char *buf = NULL;
	double timeout;
	struct leat *l;
	int r;

	if (argc != 1)
		return cli_usage(cmd, "give one NAME");
	if ((r = cli_seconds(cmd, "timeout", 0, &timeout)) || (r = cli_open(cmd, &l)))
		return r;
	r = leat_sub_open(l, argv[0], &o, &s);
	if (r == 0)
		r = newest(s, &buf, &info, cli_now() + timeout);
	if (r == -ETIMEDOUT)
		fprintf(stderr, "leat get: %s: there is no value\n", argv[0]);
	r = r == -ETIMEDOUT ? CLI_TIMEOUT : r < 0 ? cli_fail(cmd, argv[0], r) : write_value(cmd, argv[0], buf, &info);
	free(buf);
	leat_close(l);
	return r;
}

static int rm(struct cli_command *cmd, int argc, char **argv)
{
	struct leat *l;
	int r;

	if (argc < 1)
		return cli_usage(cmd, "give a NAME");
	r = cli_open(cmd, &l);
	if (r)
		return r;
	for (int i = 0; i < argc; i++) {
		int e = leat_remove(l, argv[i]), was = e < 0 ? cli_fail(cmd, argv[i], e) : CLI_DONE;

		r = r ? r : was;
	}
	leat_close(l);
	return r;
}

struct cli_command cmd_get = {"get", "NAME", "Write a channel's newest value.", get_options, get};
struct cli_command cmd_rm = {"rm", "NAME...", "Forget what ended publishers and idle groups have left.", rm_options, rm};
struct cli_command cmd_set = {"set", "NAME [VALUE]", "Publish a value that stays until the next.", set_options, set};
