/* SPDX-License-Identifier: Apache-2.0 */
/* leat call, leat serve: ask a server, and be one, whose replies are what a command writes. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cli.h"

static struct cli_option call_options[] = {
	{"file", "F", "the request is what is in F (default, without a REQUEST: standard input)", NULL},
	{"raw", NULL, "no newline after the reply", NULL},
	{"timeout", "S", "give up after S seconds (default 5)", NULL},
	CLI_JSON,
	CLI_DOMAIN,
	{0},
};

static struct cli_option serve_options[] = {
	{"max-clients", "N", "how many clients the name has room for (default 64, at most 1024)", NULL},
	{"max-reply", "N", "bytes of the largest reply (default 64K)", NULL},
	{"count", "N", "stop after N requests", NULL},
	{"timeout", "S", "give up when no request comes for S seconds", NULL},
	{"summary", NULL, "at the end, counters as JSON on standard error", NULL},
	CLI_DOMAIN,
	{0},
};

static int write_reply(const struct cli_command *cmd, const char *name, const struct leat_answer *a)
{
	if (cli_get(cmd, "json")) {
		json_t *text = json_stringn(a->data ? a->data : "", (size_t)a->size);
		json_t *j = json_pack("{s:s, s:i, s:I, s:o}", "name", name, "error", a->error, "size",
				      (json_int_t)a->size, "text", text ? text : json_null()); /* null: it is no UTF-8 */

		json_dumpf(j, stdout, JSON_INDENT(2));
		json_decref(j);
	} else if (a->size) {
		fwrite(a->data, 1, (size_t)a->size, stdout);
	}
	if (!cli_get(cmd, "raw"))
		putchar('\n');
	if (fflush(stdout) == 0)
		return CLI_DONE;
	fprintf(stderr, "leat call: %s: write to standard output: %s\n", name, strerror(errno));
	return CLI_FAILED;
}

static int call(struct cli_command *cmd, int argc, char **argv)
{
	struct leat_client_opts o = {.struct_size = sizeof(o), .max_calls = 1};
	struct leat_answer a = {0};
	struct leat_client *c;
	char *text = NULL;
	double timeout;
	struct leat *l;
	size_t size;
	int r, e;

	if (argc < 1 || argc > 2 || (argc == 2 && cli_get(cmd, "file")))
		return cli_usage(cmd, "give a NAME, and a REQUEST or --file or standard input");
	r = cli_seconds(cmd, "timeout", 5, &timeout);
	if (r)
		return r;
	size = argc == 2 ? strlen(argv[1]) : 0;
	r = argc == 1 ? cli_read(cmd, cli_get(cmd, "file"), &text, &size) : 0;
	if (r == 0)
		r = cli_open(cmd, &l);
	if (r) {
		free(text);
		return r;
	}
	o.max_request = size;
	e = leat_client_open(l, argv[0], &o, &c);
	if (e == 0)
		e = leat_call(c, argc == 2 ? argv[1] : text, size, &a, (int64_t)(timeout * 1e9));
	if (e == 0 || a.size)
		r = write_reply(cmd, argv[0], &a);
	if (e < 0)
		r = cli_fail(cmd, argv[0], e);
	leat_close(l);
	free(text);
	return r;
}

/* What the command wrote, as far as there is room for it in a reply. */
static int reply_with(struct leat_server *s, const struct leat_request *req, int out, int ok)
{
	struct stat st;
	void *text = NULL;
	int e;

	if (fstat(out, &st) < 0)
		return -errno;
	if (st.st_size > 0)
		text = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, out, 0);
	if (text == MAP_FAILED)
		return -errno;
	e = leat_reply(s, req, ok ? 0 : -EIO, text, (size_t)st.st_size);
	if (text)
		munmap(text, (size_t)st.st_size);
	return e;
}

static int answer(struct cli_command *cmd, const char *name, char **command, struct leat_server *s,
		  const struct leat_request *req)
{
	int out = memfd_create("leat-reply", MFD_CLOEXEC), done = -1, e;

	if (out < 0)
		fprintf(stderr, "leat serve: %s: a file for the reply: %s\n", name, strerror(errno));
	else
		done = cli_run(cmd, name, command, req->data, (size_t)req->size, out);
	e = done < 0 ? leat_reply(s, req, -ENOEXEC, NULL, 0) : reply_with(s, req, out, done);
	if (e < 0) {
		fprintf(stderr, "leat serve: %s: call %llu: %s\n", name, (unsigned long long)req->call, leat_why());
		if (e == -EMSGSIZE)
			leat_reply(s, req, e, NULL, 0);
	}
	if (out >= 0)
		close(out);
	return done;
}

/* Waits in short pieces: a signal may end it. */
static int serve_all(struct cli_command *cmd, const char *name, char **command, struct leat_server *s, uint64_t count,
		     double timeout)
{
	double since = cli_now();
	uint64_t n = 0;

	while (!cli_stop && (!count || n < count)) {
		struct leat_request req;
		int e = leat_accept(s, &req, timeout >= 0 && timeout < 0.2 ? (int64_t)(timeout * 1e9) + 1 : 200000000);

		if (e == -ETIMEDOUT && (timeout < 0 || cli_now() - since < timeout))
			continue;
		if (e < 0)
			return cli_fail(cmd, name, e);
		if (answer(cmd, name, command, s, &req) < 0)
			return CLI_FAILED;
		n++;
		since = cli_now();
	}
	return CLI_DONE;
}

static int serve(struct cli_command *cmd, int argc, char **argv)
{
	struct leat_serve_opts o = {.struct_size = sizeof(o)};
	struct leat_serve_stat st = {.struct_size = sizeof(st)};
	struct leat_server *s;
	double timeout;
	uint64_t count, clients;
	struct leat *l;
	int r;

	if (argc < 2)
		return cli_usage(cmd, "give a NAME and a COMMAND");
	if ((r = cli_size(cmd, "count", 0, &count)) || (r = cli_size(cmd, "max-reply", 65536, &o.max_reply)) ||
	    (r = cli_size(cmd, "max-clients", 0, &clients)) || (r = cli_seconds(cmd, "timeout", -1, &timeout)) ||
	    (r = cli_open(cmd, &l)))
		return r;
	o.max_clients = clients < UINT32_MAX ? (uint32_t)clients : UINT32_MAX;
	r = leat_serve(l, argv[0], &o, &s);
	if (r < 0) {
		r = cli_fail(cmd, argv[0], r);
	} else {
		r = serve_all(cmd, argv[0], argv + 1, s, count, timeout);
		leat_serve_stat(s, &st);
		if (cli_get(cmd, "summary"))
			fprintf(stderr, "{\"requests\": %llu, \"replies\": %llu, \"dropped\": %llu, \"corrupt\": %llu}\n",
				(unsigned long long)st.requests, (unsigned long long)st.replies,
				(unsigned long long)st.dropped, (unsigned long long)st.corrupt);
	}
	leat_close(l);
	return r;
}

struct cli_command cmd_call = {"call", "NAME [REQUEST]", "Ask a server, and write its reply.", call_options, call};
struct cli_command cmd_serve = {"serve", "NAME COMMAND...", "Answer requests with what a command writes.", serve_options,
				serve};
