/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leat sub: messages become standard output, byte-exact. Output is flushed whenever no message waits. A pattern is
 * a watch that opens a subscriber for every name that comes.
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
	{"names", NULL, "before each message its channel's name and a tab", NULL},
	{"summary", NULL, "at the end, counters as JSON on standard error", NULL},
	CLI_DOMAIN,
	{0},
};

enum format { LINES, RAW, PREFIXED };
enum { TURN = 256 }; /* messages of one channel before the next one's */

/* A channel that is listened to. */
struct input {
	struct input *next;
	struct leat_sub *sub; /* NULL: not now */
	double ended;         /* since when all its publishers have ended; below 0: they have not */
	int again;            /* it is the same channel that was listened to before */
	char name[256];
};

struct job {
	struct cli_command *cmd;
	const char *name; /* as given */
	struct leat *l;
	struct leat_set *set;
	struct leat_watch *watch; /* of a pattern's; NULL: it is one channel */
	struct leat_sub_opts o;
	struct input *inputs;
	int synced, had_publishers, failed;
	enum format format;
	int names;
	uint64_t count, got;
	double timeout;
	char *buf;
	size_t room;
	double first, last;
	struct leat_sub_stat st; /* of those that are closed */
};

static int put(struct job *j, const struct input *in, const struct leat_info *info)
{
	size_t n = (size_t)info->size;

	if (j->format == PREFIXED) {
		unsigned char head[4] = {(unsigned char)n, (unsigned char)(n >> 8),
					 (unsigned char)(n >> 16), (unsigned char)(n >> 24)};

		fwrite(head, 1, 4, stdout);
	}
	if (j->names)
		printf("%s\t", in->name);
	if (n)
		fwrite(j->buf, 1, n, stdout);
	if (j->format == LINES)
		putc('\n', stdout);
	return ferror(stdout) ? -EPIPE : 0;
}

/* The next message into j->buf, however large, if there is one. */
static int get(struct job *j, struct input *in, struct leat_info *info)
{
	int e;

	while ((e = leat_recv(in->sub, j->buf, j->room, info, 0)) == -EMSGSIZE) {
		char *more = realloc(j->buf, (size_t)info->size);

		if (!more)
			return -ENOMEM;
		j->buf = more;
		j->room = (size_t)info->size;
	}
	return e;
}

/* What waits there. 0, or an error that ends it all. */
static int drain(struct job *j, struct input *in)
{
	for (int i = 0; i < TURN && in->sub && !cli_stop && (!j->count || j->got < j->count); i++) {
		struct leat_info info;
		int e = get(j, in, &info);

		if (e == -EBADMSG) { /* one publisher's ring is given up, the others go on */
			fprintf(stderr, "leat sub: %s: %s\n", in->name, leat_why());
			continue;
		}
		if (e == -ENODATA && j->watch) {
			in->ended = in->ended < 0 ? cli_now() : in->ended;
			j->had_publishers = 1;
			return 0;
		}
		if (e < 0)
			return e == -EAGAIN ? 0 : e;
		in->ended = -1;
		j->last = cli_now();
		if (!j->got++)
			j->first = j->last;
		e = put(j, in, &info);
		if (e < 0)
			return e;
	}
	return 0;
}

/* ---- one channel, or all that a pattern means ---- */

static int open_input(struct job *j, struct input *in)
{
	struct leat_sub_opts o = j->o;
	int e;

	if (j->watch && in->again)
		o.from = LEAT_NEW;
	else if (j->synced && o.from == LEAT_NEW)
		o.from = LEAT_OLDEST; /* it came after us: all that is in it is new */
	in->ended = -1;
	e = leat_sub_open(j->l, in->name, &o, &in->sub);
	if (e == 0)
		e = leat_set_add_sub(j->set, in->sub, in);
	if (e < 0) {
		leat_sub_close(in->sub);
		in->sub = NULL;
	}
	return e;
}

static void close_input(struct job *j, struct input *in)
{
	struct leat_sub_stat st = {.struct_size = sizeof(st)};

	if (!in->sub)
		return;
	leat_sub_stat(in->sub, &st);
	j->st.received += st.received;
	j->st.bytes += st.bytes;
	j->st.lost += st.lost;
	j->st.corrupt += st.corrupt;
	leat_sub_close(in->sub);
	in->sub = NULL;
	in->again = 1;
}

static struct input *input_for(struct job *j, const char *name)
{
	struct input *in = j->inputs;

	while (in && strcmp(in->name, name) != 0)
		in = in->next;
	if (in)
		return in;
	in = calloc(1, sizeof(*in));
	if (!in)
		return NULL;
	snprintf(in->name, sizeof(in->name), "%s", name);
	in->next = j->inputs;
	j->inputs = in;
	return in;
}

static void forget_input(struct job *j, const char *name)
{
	for (struct input **at = &j->inputs; *at; at = &(*at)->next)
		if (!strcmp((*at)->name, name)) {
			struct input *in = *at;

			close_input(j, in);
			*at = in->next;
			free(in);
			return;
		}
}

/* Names have come, or gone. */
static int follow_names(struct job *j)
{
	struct leat_event ev = {.struct_size = sizeof(ev)};
	struct input *in;
	int e;

	while ((e = leat_watch_next(j->watch, &ev, 0)) == 0) {
		if (ev.kind == LEAT_SYNCED) {
			j->synced = 1;
		} else if (ev.kind == LEAT_GONE) {
			forget_input(j, ev.name);
		} else if (ev.publishers || ev.kind == LEAT_CAME) {
			j->had_publishers |= ev.publishers > 0;
			in = input_for(j, ev.name);
			if (!in)
				return -ENOMEM;
			e = in->sub ? 0 : open_input(j, in);
			if (e < 0) { /* the others go on */
				fprintf(stderr, "leat sub: %s: %s\n", ev.name, leat_why());
				j->failed = 1;
			}
		}
	}
	return e == -EAGAIN ? 0 : e;
}

/* Nothing waits. Let go of channels that ended a second ago: we would keep them. -ENODATA that was the last. */
static int tidy(struct job *j)
{
	int open = 0;

	for (struct input *in = j->inputs; in && j->watch; in = in->next) {
		struct leat_sub_stat st = {.struct_size = sizeof(st)};

		if (!in->sub)
			continue;
		leat_sub_stat(in->sub, &st);
		open |= st.publishers || st.draining;
		if (in->ended >= 0 && cli_now() - in->ended > 1)
			close_input(j, in);
	}
	return j->watch && cli_get(j->cmd, "until-ended") && j->synced && j->had_publishers && !open ? -ENODATA : 0;
}

/* ---- the work ---- */

/* What is ready. Waits in short pieces: a signal may end it, or a channel. */
static int wait(struct job *j, struct leat_ready *ready, int max)
{
	int n = leat_set_wait(j->set, ready, max, 0), e;
	double left, quiet = cli_now();

	if (n == -EAGAIN) {
		fflush(stdout);
		if (ferror(stdout))
			return -EPIPE;
	}
	while (n == -EAGAIN || n == -ETIMEDOUT) {
		e = tidy(j);
		if (e < 0)
			return e;
		left = j->timeout < 0 ? 1 : quiet + j->timeout - cli_now();
		if (cli_stop || left <= 0)
			return -ETIMEDOUT;
		n = leat_set_wait(j->set, ready, max, (int64_t)((left > 0.2 ? 0.2 : left) * 1e9) + 1);
	}
	return n;
}

static int pump(struct job *j)
{
	struct leat_ready ready[16];
	double heard = cli_now();
	int n, e = 0;

	while (e >= 0 && !cli_stop && (!j->count || j->got < j->count)) {
		uint64_t before = j->got;

		n = wait(j, ready, 16);
		if (n < 0)
			return n;
		for (int i = 0; i < n && e >= 0; i++)
			e = ready[i].data ? drain(j, ready[i].data) : follow_names(j);
		/* What was ready need not have been a message. */
		if (j->got != before)
			heard = cli_now();
		else if (j->timeout >= 0 && cli_now() - heard > j->timeout)
			return -ETIMEDOUT;
	}
	return e;
}

static int finish(struct job *j, int e)
{
	for (struct input *in = j->inputs; in; in = in->next)
		close_input(j, in);
	if (fflush(stdout) != 0 || e == -EPIPE) {
		fprintf(stderr, "leat sub: %s: write to standard output: %s\n", j->name, strerror(errno));
		return CLI_FAILED;
	}
	if (cli_get(j->cmd, "summary"))
		fprintf(stderr,
			"{\"messages\": %llu, \"bytes\": %llu, \"lost\": %llu, \"corrupt\": %llu, "
			"\"seconds\": %.6f}\n",
			(unsigned long long)j->st.received, (unsigned long long)j->st.bytes,
			(unsigned long long)j->st.lost, (unsigned long long)j->st.corrupt, j->last - j->first);
	if (e == -ETIMEDOUT && !cli_stop) {
		fprintf(stderr, "leat sub: %s: no message came in time\n", j->name);
		return CLI_TIMEOUT;
	}
	if (e < 0 && e != -ENODATA && !cli_stop)
		return cli_fail(j->cmd, j->name, e);
	if (j->st.lost || j->st.corrupt) {
		fprintf(stderr, "leat sub: %s: %llu messages were lost, %llu rings were damaged\n", j->name,
			(unsigned long long)j->st.lost, (unsigned long long)j->st.corrupt);
		return CLI_LOST;
	}
	return j->failed ? CLI_FAILED : CLI_DONE;
}

/* 0, or the exit code after saying why. */
static int begin(struct job *j)
{
	size_t n = strlen(j->name);
	char prefix[256];
	int e = leat_set_open(&j->set);

	if (e == 0 && n && n < sizeof(prefix) && j->name[n - 1] == '*') {
		memcpy(prefix, j->name, n - 1);
		prefix[n - 1] = 0;
		j->o.flags |= LEAT_UNTIL_ENDED; /* so that it tells of the end */
		e = leat_watch(j->l, prefix, &j->watch);
		if (e == 0)
			e = leat_set_add_watch(j->set, j->watch, NULL);
	} else if (e == 0) {
		struct input *in = input_for(j, j->name);

		e = in ? open_input(j, in) : -ENOMEM;
	}
	return e < 0 ? cli_fail(j->cmd, j->name, e) : 0;
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
	struct job j = {.cmd = cmd, .o = {.struct_size = sizeof(j.o)}};
	struct input *in;
	int r;

	if (argc != 1)
		return cli_usage(cmd, "give one NAME, or a pattern 'PREFIX*'");
	j.name = argv[0];
	if ((r = from_option(cmd, &j.o.from)) || (r = cli_size(cmd, "count", 0, &j.count)) ||
	    (r = cli_seconds(cmd, "timeout", -1, &j.timeout)))
		return r;
	if (!!cli_get(cmd, "lines") + !!cli_get(cmd, "raw") + !!cli_get(cmd, "length-prefixed") > 1)
		return cli_usage(cmd, "--lines, --raw and --length-prefixed exclude each other");
	j.format = cli_get(cmd, "raw") ? RAW : cli_get(cmd, "length-prefixed") ? PREFIXED : LINES;
	j.names = cli_get(cmd, "names") != NULL;
	if (j.names && j.format != LINES)
		return cli_usage(cmd, "--names goes with lines");
	if (cli_get(cmd, "until-ended"))
		j.o.flags |= LEAT_UNTIL_ENDED;
	if (cli_get(cmd, "observe"))
		j.o.flags |= LEAT_OBSERVE;
	j.room = 1 << 16;
	j.buf = malloc(j.room);
	if (!j.buf) {
		fprintf(stderr, "leat sub: %s: no memory\n", j.name);
		return CLI_FAILED;
	}
	r = cli_open(cmd, &j.l);
	if (r == 0) {
		r = begin(&j);
		if (r == 0)
			r = finish(&j, pump(&j));
		leat_close(j.l);
		leat_set_close(j.set);
	}
	while ((in = j.inputs)) {
		j.inputs = in->next;
		free(in);
	}
	free(j.buf);
	return r;
}

struct cli_command cmd_sub = {"sub", "NAME | 'PREFIX*'", "Subscribe and write messages to standard output.",
			      options, run};
