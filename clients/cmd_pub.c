/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leat pub: standard input, a file or a text becomes messages. Frames are read straight into the
 * ring; lines and length-prefixed messages are copied once.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include "cli.h"

static struct cli_option options[] = {
	{"frame", "N[-M]", "messages of N bytes (of N to M bytes, varying)", NULL},
	{"length-prefixed", NULL, "each message follows its size, 32 bits little-endian", NULL},
	{"file", "F", "read F instead of standard input", NULL},
	{"message", "TEXT", "send TEXT", NULL},
	{"count", "N", "stop after N messages (--message: send it N times)", NULL},
	{"rate", "N", "at most N messages a second", NULL},
	{"wait-subscribers", "N", "begin when N subscribers are there", NULL},
	{"timeout", "S", "give up when nothing can be sent for S seconds", NULL},
	{"capacity", "N", "bytes of the ring (default 1M)", NULL},
	{"max-size", "N", "largest message (default: an eighth of the ring)", NULL},
	{"overwrite", NULL, "never wait for subscribers: the oldest messages give way", NULL},
	{"progress", NULL, "say on standard error how far it is", NULL},
	{"summary", NULL, "at the end, counters as JSON on standard error", NULL},
	CLI_DOMAIN,
	{0},
};

struct job {
	struct cli_command *cmd;
	const char *name;
	struct leat_pub *pub;
	FILE *in;
	int64_t timeout_ns;
	uint64_t frame_min, frame_max, count, rate, total;
	uint64_t sent, bytes, dice;
	double start, said;
	int progress;
};

static void progress(struct job *j, int last)
{
	double now = cli_now();

	if (!j->progress || (!last && now - j->said < 0.5))
		return;
	j->said = now;
	fprintf(stderr, "leat %s: %s: %llu messages, %.1f MB", j->cmd->name, j->name, (unsigned long long)j->sent,
		(double)j->bytes / 1e6);
	if (j->total)
		fprintf(stderr, " (%.0f %%)", 100.0 * (double)j->bytes / (double)j->total);
	fputc('\n', stderr);
}

/* Before each message: the rate's turn. */
static void pace(struct job *j)
{
	double due = j->start + (double)j->sent / (double)j->rate;
	struct timespec ts = {(time_t)due, (long)((due - (double)(time_t)due) * 1e9)};

	while (!cli_stop && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

static int more(struct job *j)
{
	if (cli_stop || (j->count && j->sent >= j->count))
		return 0;
	if (j->rate)
		pace(j);
	progress(j, 0);
	return !cli_stop;
}

static int sent(struct job *j, size_t size)
{
	j->sent++;
	j->bytes += size;
	return 0;
}

/* A claim that a signal can end: the library's waits do not return for signals. */
static int claim(struct job *j, size_t size, void **ret)
{
	double until = j->timeout_ns < 0 ? 1e300 : cli_now() + (double)j->timeout_ns * 1e-9;
	int e;

	do
		e = leat_claim(j->pub, size, ret, 200000000);
	while (e == -ETIMEDOUT && !cli_stop && cli_now() < until);
	return e;
}

static int send_copy(struct job *j, const void *data, size_t size)
{
	void *at;
	int e = claim(j, size, &at);

	if (e < 0)
		return e;
	if (size)
		memcpy(at, data, size);
	leat_commit(j->pub, size, 0);
	return sent(j, size);
}

static int send_text(struct job *j, const char *text)
{
	if (!j->count)
		j->count = 1;
	while (more(j)) {
		int e = send_copy(j, text, strlen(text));

		if (e < 0)
			return e;
	}
	return 0;
}

static int send_lines(struct job *j)
{
	char *line = NULL;
	size_t room = 0;
	int e = 0;

	while (e == 0 && more(j)) {
		ssize_t n = getline(&line, &room, j->in);

		if (n < 0)
			break;
		if (n && line[n - 1] == '\n')
			n--;
		e = send_copy(j, line, (size_t)n);
	}
	free(line);
	return e;
}

/* xorshift: sizes that vary, the same in every run. */
static size_t frame_size(struct job *j)
{
	j->dice ^= j->dice << 13;
	j->dice ^= j->dice >> 7;
	j->dice ^= j->dice << 17;
	return (size_t)(j->frame_min + j->dice % (j->frame_max - j->frame_min + 1));
}

static int send_frames(struct job *j)
{
	int c;

	/* Look for a byte before claiming: an input that ends here makes no message. */
	while (more(j) && (c = getc(j->in)) != EOF) {
		size_t size = frame_size(j), n;
		void *at;
		int e;

		ungetc(c, j->in);
		e = claim(j, size, &at);
		if (e < 0)
			return e;
		n = fread(at, 1, size, j->in);
		leat_commit(j->pub, n, 0);
		sent(j, n);
	}
	return 0;
}

static int send_prefixed(struct job *j)
{
	while (more(j)) {
		unsigned char head[4];
		size_t n = fread(head, 1, 4, j->in);
		uint32_t size;
		void *at;
		int e;

		if (!n)
			break;
		size = head[0] | (uint32_t)head[1] << 8 | (uint32_t)head[2] << 16 |
		       (uint32_t)head[3] << 24;
		e = n == 4 ? claim(j, size, &at) : -EBADMSG;
		if (e == 0 && fread(at, 1, size, j->in) != size) {
			leat_abort(j->pub);
			e = -EBADMSG;
		}
		if (e == -EBADMSG)
			fprintf(stderr, "leat %s: %s: the input ends inside a message\n", j->cmd->name, j->name);
		if (e < 0)
			return e;
		leat_commit(j->pub, size, 0);
		sent(j, size);
	}
	return 0;
}

static int frame_option(struct job *j)
{
	const char *text = cli_get(j->cmd, "frame");
	unsigned long long a, b;
	char *end;

	if (!text)
		return 0;
	a = b = strtoull(text, &end, 10);
	if (end != text && *end == '-') {
		text = end + 1;
		b = strtoull(text, &end, 10);
	}
	if (end == text || *end || a < 1 || b < a || b > (1ull << 40))
		return cli_usage(j->cmd, "--frame '%s' is neither N nor N-M bytes", cli_get(j->cmd, "frame"));
	j->frame_min = a;
	j->frame_max = b;
	return 0;
}

static int open_input(struct job *j)
{
	const char *file = cli_get(j->cmd, "file");
	struct stat st;

	j->in = file ? fopen(file, "rb") : stdin;
	if (!j->in) {
		fprintf(stderr, "leat %s: open %s: %s\n", j->cmd->name, file, strerror(errno));
		return CLI_FAILED;
	}
	if (fstat(fileno(j->in), &st) == 0 && S_ISREG(st.st_mode))
		j->total = (uint64_t)st.st_size;
	return 0;
}

static int pump(struct job *j)
{
	const char *text = cli_get(j->cmd, "message");

	j->start = j->said = cli_now();
	j->dice = 88172645463325252ull;
	if (text)
		return send_text(j, text);
	if (j->frame_min)
		return send_frames(j);
	return cli_get(j->cmd, "length-prefixed") ? send_prefixed(j) : send_lines(j);
}

static void summary(const struct job *j)
{
	struct leat_pub_stat st = {.struct_size = sizeof(st)};
	double took = cli_now() - j->start;

	leat_pub_stat(j->pub, &st);
	fprintf(stderr,
		"{\"messages\": %llu, \"bytes\": %llu, \"seconds\": %.6f, \"waits\": %llu, \"evicted\": %llu}\n",
		(unsigned long long)st.sent, (unsigned long long)st.bytes, took,
		(unsigned long long)st.waits, (unsigned long long)st.evicted);
}

static int wait_for(struct job *j, uint64_t n)
{
	double until = j->timeout_ns < 0 ? 1e300 : cli_now() + (double)j->timeout_ns * 1e-9;
	int e;

	do
		e = leat_wait_subscribers(j->pub, (unsigned)n, 200000000);
	while (e == -ETIMEDOUT && !cli_stop && cli_now() < until);
	return e;
}

static int publish(struct job *j, uint64_t subscribers)
{
	int e = subscribers ? wait_for(j, subscribers) : 0;

	if (e == 0)
		e = pump(j);
	if (e < 0 && cli_stop && e == -ETIMEDOUT)
		e = 0; /* told to stop, not out of patience */
	if (e == 0 && ferror(j->in)) {
		fprintf(stderr, "leat %s: %s: reading the input failed: %s\n", j->cmd->name, j->name,
			strerror(errno));
		return CLI_FAILED;
	}
	if (e == -EBADMSG)
		return CLI_FAILED;
	if (e == -EMSGSIZE)
		fprintf(stderr, "leat %s: %s: message %llu: see --max-size\n", j->cmd->name, j->name,
			(unsigned long long)j->sent);
	if (e < 0)
		return cli_fail(j->cmd, j->name, e);
	progress(j, 1);
	if (cli_get(j->cmd, "summary"))
		summary(j);
	return CLI_DONE;
}

/* The group is there from before the first message, and keeps what nobody has taken. */
static int make_group(struct leat *l, const char *name, const char *group)
{
	struct leat_queue *q;
	int e = leat_queue_open(l, name, group, NULL, &q);

	if (e == 0)
		leat_queue_close(q);
	return e;
}

int cli_publish(struct cli_command *cmd, int argc, char **argv, const char *group)
{
	struct leat_pub_opts o = {.struct_size = sizeof(o)};
	struct job j = {.cmd = cmd, .timeout_ns = -1};
	uint64_t subscribers;
	struct leat *l;
	double timeout;
	int r;

	if (argc != 1)
		return cli_usage(cmd, "give one NAME");
	j.name = argv[0];
	j.progress = cli_get(cmd, "progress") != NULL;
	if ((r = frame_option(&j)) || (r = cli_size(cmd, "count", 0, &j.count)) ||
	    (r = cli_size(cmd, "rate", 0, &j.rate)) ||
	    (r = cli_size(cmd, "wait-subscribers", 0, &subscribers)) ||
	    (r = cli_seconds(cmd, "timeout", -1, &timeout)) ||
	    (r = cli_size(cmd, "capacity", 0, &o.capacity)) ||
	    (r = cli_size(cmd, "max-size", j.frame_max, &o.max_size)))
		return r;
	if (!!cli_get(cmd, "message") + !!j.frame_min + !!cli_get(cmd, "length-prefixed") > 1)
		return cli_usage(cmd, "--message, --frame and --length-prefixed exclude each other");
	if (timeout >= 0)
		j.timeout_ns = (int64_t)(timeout * 1e9);
	if (cli_get(cmd, "overwrite"))
		o.policy = LEAT_OVERWRITE;
	if ((r = open_input(&j)) || (r = cli_open(cmd, &l)))
		return r;
	r = leat_pub_open(l, j.name, &o, &j.pub);
	if (r == 0 && group)
		r = make_group(l, j.name, group);
	if (r < 0)
		r = cli_fail(cmd, j.name, r);
	else
		r = publish(&j, subscribers);
	leat_close(l);
	if (j.in != stdin)
		fclose(j.in);
	return r;
}

static int run(struct cli_command *cmd, int argc, char **argv)
{
	return cli_publish(cmd, argc, argv, NULL);
}

struct cli_command cmd_pub = {"pub", "NAME", "Publish standard input, a line a message.", options, run};
