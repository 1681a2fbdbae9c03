/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leat sub: messages become standard output, byte-exact. Output is flushed whenever no message waits.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli.h"

static struct cli_option options[] = {
	{"lines", NULL, "a newline after each message (the default)", NULL},
	{"raw", NULL, "nothing between messages", NULL},
	{"length-prefixed", NULL, "each message's size before it, 32 bits little-endian", NULL},
	{"count", "N", "stop after N messages", NULL},
	{"from", "WHERE", "new (default), oldest or latest", NULL},
	{"timeout", "S", "give up when no message comes for S seconds", NULL},
	{"until-ended", NULL, "stop when publishers have come and ended and all is read", NULL},
	{"observe", NULL, "never make a publisher wait; losses are counted", NULL},
	{"summary", NULL, "at the end, counters as JSON on standard error", NULL},
	CLI_DOMAIN,
	{0},
};

enum format { LINES, RAW, PREFIXED };

struct job {
	struct cli_command *cmd;
	const char *name;
	struct leat_sub *sub;
	enum format format;
	uint64_t count, got;
	double timeout;
	char *buf;
	size_t room;
	double first, last;
};

static int put(struct job *j, const struct leat_info *info)
{
	size_t n = (size_t)info->size;

	if (j->format == PREFIXED) {
		unsigned char head[4] = {(unsigned char)n, (unsigned char)(n >> 8),
					 (unsigned char)(n >> 16), (unsigned char)(n >> 24)};

		fwrite(head, 1, 4, stdout);
	}
	if (n)
		fwrite(j->buf, 1, n, stdout);
	if (j->format == LINES)
		putc('\n', stdout);
	return ferror(stdout) ? -EPIPE : 0;
}

/* The next message into j->buf, however large. Waits in short pieces: a signal may end it. */
static int get(struct job *j, struct leat_info *info)
{
	double until = j->timeout < 0 ? 1e300 : cli_now() + j->timeout;
	int e = leat_recv(j->sub, j->buf, j->room, info, 0);

	if (e == -EAGAIN) {
		fflush(stdout);
		if (ferror(stdout))
			return -EPIPE;
	}
	while (e == -EAGAIN || e == -ETIMEDOUT || e == -EMSGSIZE) {
		double left = until - cli_now();

		if (e == -EMSGSIZE) {
			char *more = realloc(j->buf, (size_t)info->size);

			if (!more)
				return -ENOMEM;
			j->buf = more;
			j->room = (size_t)info->size;
		} else if (cli_stop || left <= 0) {
			return -ETIMEDOUT;
		}
		left = left < 0 ? 0 : left > 0.2 ? 0.2 : left;
		e = leat_recv(j->sub, j->buf, j->room, info, (int64_t)(left * 1e9) + 1);
	}
	return e;
}

static int pump(struct job *j)
{
	while (!cli_stop && (!j->count || j->got < j->count)) {
		struct leat_info info;
		int e = get(j, &info);

		if (e == -EBADMSG) { /* one publisher's ring is given up, the others go on */
			fprintf(stderr, "leat sub: %s: %s\n", j->name, leat_why());
			continue;
		}
		if (e < 0)
			return e;
		j->last = cli_now();
		if (!j->got++)
			j->first = j->last;
		e = put(j, &info);
		if (e < 0)
			return e;
	}
	return 0;
}

static int finish(struct job *j, int e)
{
	struct leat_sub_stat st = {.struct_size = sizeof(st)};

	leat_sub_stat(j->sub, &st);
	if (fflush(stdout) != 0 || e == -EPIPE) {
		fprintf(stderr, "leat sub: %s: write to standard output: %s\n", j->name, strerror(errno));
		return CLI_FAILED;
	}
	if (cli_get(j->cmd, "summary"))
		fprintf(stderr,
			"{\"messages\": %llu, \"bytes\": %llu, \"lost\": %llu, \"corrupt\": %llu, "
			"\"seconds\": %.6f}\n",
			(unsigned long long)st.received, (unsigned long long)st.bytes,
			(unsigned long long)st.lost, (unsigned long long)st.corrupt, j->last - j->first);
	if (e < 0 && e != -ENODATA && !cli_stop)
		return cli_fail(j->cmd, j->name, e);
	if (st.lost || st.corrupt) {
		fprintf(stderr, "leat sub: %s: %llu messages were lost, %llu rings were damaged\n", j->name,
			(unsigned long long)st.lost, (unsigned long long)st.corrupt);
		return CLI_LOST;
	}
	return CLI_DONE;
}

static int from_option(struct cli_command *cmd, enum leat_from *ret)
{
	const char *from = cli_get(cmd, "from");

	if (!from || !strcmp(from, "new"))
		*ret = LEAT_NEW;
	else if (!strcmp(from, "oldest"))
		*ret = LEAT_OLDEST;
	else if (!strcmp(from, "latest"))
		*ret = LEAT_LATEST;
	else
		return cli_usage(cmd, "--from '%s' is none of new, oldest, latest", from);
	return 0;
}

static int run(struct cli_command *cmd, int argc, char **argv)
{
	struct leat_sub_opts o = {.struct_size = sizeof(o)};
	struct job j = {.cmd = cmd};
	struct leat *l;
	int r;

	if (argc != 1)
		return cli_usage(cmd, "give one NAME");
	j.name = argv[0];
	if ((r = from_option(cmd, &o.from)) || (r = cli_size(cmd, "count", 0, &j.count)) ||
	    (r = cli_seconds(cmd, "timeout", -1, &j.timeout)))
		return r;
	if (!!cli_get(cmd, "lines") + !!cli_get(cmd, "raw") + !!cli_get(cmd, "length-prefixed") > 1)
		return cli_usage(cmd, "--lines, --raw and --length-prefixed exclude each other");
	j.format = cli_get(cmd, "raw") ? RAW : cli_get(cmd, "length-prefixed") ? PREFIXED : LINES;
	if (cli_get(cmd, "until-ended"))
		o.flags |= LEAT_UNTIL_ENDED;
	if (cli_get(cmd, "observe"))
		o.flags |= LEAT_OBSERVE;
	j.room = 1 << 16;
	j.buf = malloc(j.room);
	if (!j.buf) {
		fprintf(stderr, "leat sub: %s: no memory\n", j.name);
		return CLI_FAILED;
	}
	r = cli_open(cmd, &l);
	if (r == 0) {
		r = leat_sub_open(l, j.name, &o, &j.sub);
		r = r < 0 ? cli_fail(cmd, j.name, r) : finish(&j, pump(&j));
		leat_close(l);
	}
	free(j.buf);
	return r;
}

struct cli_command cmd_sub = {"sub", "NAME", "Subscribe and write messages to standard output.",
			      options, run};
