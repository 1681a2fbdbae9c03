/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leat queue push, leat queue take: jobs for whoever takes them. push is pub, with a group that keeps what nobody
 * has taken yet. take writes a message to standard output, or runs a command on it; only then is it done with.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli.h"

#define GROUP "workers"

static struct cli_option push_options[] = {
	{"group", "G", "whose work it is (default " GROUP ")", NULL},
	{"length-prefixed", NULL, "each message follows its size, 32 bits little-endian", NULL},
	{"file", "F", "read F instead of standard input", NULL},
	{"message", "TEXT", "send TEXT", NULL},
	{"count", "N", "stop after N messages (--message: send it N times)", NULL},
	{"rate", "N", "at most N messages a second", NULL},
	{"timeout", "S", "give up when nothing can be sent for S seconds", NULL},
	{"capacity", "N", "bytes of the ring (default 1M)", NULL},
	{"max-size", "N", "largest message (default: an eighth of the ring)", NULL},
	{"progress", NULL, "say on standard error how far it is", NULL},
	{"summary", NULL, "at the end, counters as JSON on standard error", NULL},
	CLI_DOMAIN,
	{0},
};

static struct cli_option take_options[] = {
	{"group", "G", "the group to work in (default " GROUP ")", NULL},
	{"lines", NULL, "a newline after each message (the default)", NULL},
	{"raw", NULL, "nothing between messages", NULL},
	{"length-prefixed", NULL, "each message's size before it, 32 bits little-endian", NULL},
	{"count", "N", "stop after N messages", NULL},
	{"timeout", "S", "give up when no message comes for S seconds", NULL},
	{"until-ended", NULL, "stop when publishers have come and ended and all is done", NULL},
	{"max-deliveries", "N", "so often at most, then to NAME/dead (default 5)", NULL},
	{"summary", NULL, "at the end, counters as JSON on standard error", NULL},
	CLI_DOMAIN,
	{0},
};

struct job {
	struct cli_command *cmd;
	const char *name;
	char **command; /* NULL: standard output */
	struct leat_queue *queue;
	double timeout;
	uint64_t count, got;
};

static int push(struct cli_command *cmd, int argc, char **argv)
{
	const char *group = cli_get(cmd, "group");

	return cli_publish(cmd, argc, argv, group ? group : GROUP);
}

/* Waits in short pieces: a signal may end it. */
static int next(struct job *j, const void **data, struct leat_work *work)
{
	double until = j->timeout < 0 ? 1e300 : cli_now() + j->timeout, left;
	int e;

	do {
		left = until - cli_now();
		left = left < 0 ? 0 : left > 0.2 ? 0.2 : left;
		e = leat_queue_take(j->queue, data, work, (int64_t)(left * 1e9) + 1);
	} while (e == -ETIMEDOUT && !cli_stop && cli_now() < until);
	return e;
}

static void set_number(const char *name, uint64_t n)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)n);
	setenv(name, text, 1);
}

/* Run the command with the message as its standard input: 1 it succeeded, 0 it did not, -1 it cannot be run. */
static int run_command(struct job *j, const void *data, const struct leat_work *work)
{
	set_number("LEAT_SEQ", work->seq);
	set_number("LEAT_PUBLISHER", work->publisher);
	set_number("LEAT_DELIVERIES", work->deliveries);
	return cli_run(j->cmd, j->name, j->command, data, (size_t)work->size, -1);
}

static int write_out(const struct job *j, const void *data, uint64_t size)
{
	if (cli_get(j->cmd, "length-prefixed")) {
		unsigned char head[4] = {(unsigned char)size, (unsigned char)(size >> 8), (unsigned char)(size >> 16),
					 (unsigned char)(size >> 24)};

		fwrite(head, 1, 4, stdout);
	}
	if (size)
		fwrite(data, 1, (size_t)size, stdout);
	if (!cli_get(j->cmd, "raw") && !cli_get(j->cmd, "length-prefixed"))
		putc('\n', stdout);
	if (fflush(stdout) == 0)
		return 1;
	fprintf(stderr, "leat %s: %s: write to standard output: %s\n", j->cmd->name, j->name, strerror(errno));
	return -1;
}

static int work_off(struct job *j)
{
	while (!cli_stop && (!j->count || j->got < j->count)) {
		struct leat_work work;
		const void *data;
		int e = next(j, &data, &work), done;

		if (e == -EBADMSG) { /* one publisher's ring is given up, the others go on */
			fprintf(stderr, "leat %s: %s: %s\n", j->cmd->name, j->name, leat_why());
			continue;
		}
		if (e == -ENODATA || (e == -ETIMEDOUT && cli_stop))
			return CLI_DONE;
		if (e < 0)
			return cli_fail(j->cmd, j->name, e);
		done = j->command ? run_command(j, data, &work) : write_out(j, data, work.size);
		e = done > 0 ? leat_queue_ack(j->queue) : leat_queue_nack(j->queue);
		if (done < 0)
			return CLI_FAILED;
		if (e < 0) /* the publisher broke its word: it may come again */
			fprintf(stderr, "leat %s: %s: message %llu: %s\n", j->cmd->name, j->name,
				(unsigned long long)work.seq, leat_why());
		else
			j->got += done > 0;
	}
	return CLI_DONE;
}

static int take(struct cli_command *cmd, int argc, char **argv)
{
	struct leat_queue_opts o = {.struct_size = sizeof(o)};
	struct leat_queue_stat st = {.struct_size = sizeof(st)};
	struct job j = {.cmd = cmd};
	const char *group = cli_get(cmd, "group");
	uint64_t most;
	struct leat *l;
	int r;

	if (argc < 1)
		return cli_usage(cmd, "give a NAME");
	j.name = argv[0];
	j.command = argc > 1 ? argv + 1 : NULL;
	if ((r = cli_size(cmd, "count", 0, &j.count)) || (r = cli_seconds(cmd, "timeout", -1, &j.timeout)) ||
	    (r = cli_size(cmd, "max-deliveries", 0, &most)))
		return r;
	if (!!cli_get(cmd, "lines") + !!cli_get(cmd, "raw") + !!cli_get(cmd, "length-prefixed") + !!j.command > 1)
		return cli_usage(cmd, "--lines, --raw, --length-prefixed and a command exclude each other");
	if (most > UINT32_MAX)
		return cli_usage(cmd, "--max-deliveries is at most %u", UINT32_MAX);
	o.max_deliveries = (uint32_t)most;
	if (cli_get(cmd, "until-ended"))
		o.flags |= LEAT_UNTIL_ENDED;
	r = cli_open(cmd, &l);
	if (r)
		return r;
	r = leat_queue_open(l, j.name, group ? group : GROUP, &o, &j.queue);
	if (r < 0) {
		r = cli_fail(cmd, j.name, r);
	} else {
		r = work_off(&j);
		leat_queue_stat(j.queue, &st);
		if (cli_get(cmd, "summary"))
			fprintf(stderr, "{\"taken\": %llu, \"acked\": %llu, \"nacked\": %llu, \"redelivered\": %llu, "
				"\"dead\": %llu, \"corrupt\": %llu}\n", (unsigned long long)st.taken,
				(unsigned long long)st.acked, (unsigned long long)st.nacked,
				(unsigned long long)st.redelivered, (unsigned long long)st.dead,
				(unsigned long long)st.corrupt);
		leat_queue_close(j.queue);
	}
	leat_close(l);
	return r;
}

struct cli_command cmd_queue_push = {"queue push", "NAME", "Put standard input into a work queue, a line a message.",
				     push_options, push};
struct cli_command cmd_queue_take = {"queue take", "NAME [COMMAND...]", "Take work: write it, or run a command on it.",
				     take_options, take};
