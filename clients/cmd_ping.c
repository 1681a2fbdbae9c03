/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leat ping: how long a round trip takes. Without a name to the broker and back; with one through the
 * channels NAME/ping and NAME/pong to another leat ping --echo, as any two programs would.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli.h"

static struct cli_option options[] = {
	{"count", "N", "round trips (default 10; with NAME 10000)", NULL},
	{"size", "N", "bytes of a message (default 64)", NULL},
	{"echo", NULL, "answer others' pings on NAME until they end", NULL},
	{"spin", NULL, "never sleep while waiting", NULL},
	{"timeout", "S", "give up when no answer comes for S seconds (default 5)", NULL},
	CLI_JSON,
	CLI_DOMAIN,
	{0},
};

struct pair {
	struct leat_pub *pub;
	struct leat_sub *sub;
};

static int open_pair(struct cli_command *cmd, struct leat *l, const char *name, int echo,
		     struct pair *p)
{
	int64_t spin = cli_get(cmd, "spin") ? 1000000000 : 0;
	struct leat_pub_opts po = {.struct_size = sizeof(po), .spin_ns = spin};
	struct leat_sub_opts so = {.struct_size = sizeof(so), .spin_ns = spin,
				   .flags = echo ? LEAT_UNTIL_ENDED : 0};
	char out[256], in[256];
	int e;

	snprintf(out, sizeof(out), "%s/%s", name, echo ? "pong" : "ping");
	snprintf(in, sizeof(in), "%s/%s", name, echo ? "ping" : "pong");
	e = leat_sub_open(l, in, &so, &p->sub);
	return e < 0 ? e : leat_pub_open(l, out, &po, &p->pub);
}

static int echo(struct pair *p, size_t size)
{
	char *buf = malloc(size);
	int e = buf ? 0 : -ENOMEM;

	while (e == 0 && !cli_stop) {
		struct leat_info info;

		e = leat_recv(p->sub, buf, size, &info, 200000000);
		if (e == 0)
			e = leat_send(p->pub, buf, (size_t)info.size, 1000000000);
		if (e == -ETIMEDOUT)
			e = 0;
	}
	free(buf);
	return e == -ENODATA ? 0 : e;
}

/* @n round trips in ns; the first tenth, while both sides warm up, is not kept. */
static int trips(struct pair *p, size_t size, size_t n, int64_t timeout_ns, double *took,
		 size_t *ret_n)
{
	char *buf = calloc(1, size ? size : 1);
	size_t warm = n / 10, kept = 0;
	int e = buf ? leat_wait_subscribers(p->pub, 1, timeout_ns) : -ENOMEM;

	for (size_t i = 0; e == 0 && i < n + warm && !cli_stop; i++) {
		struct leat_info info;
		double start;

		if (size >= sizeof(i))
			memcpy(buf, &i, sizeof(i));
		start = cli_now();
		e = leat_send(p->pub, buf, size, timeout_ns);
		if (e == 0)
			e = leat_recv(p->sub, buf, size, &info, timeout_ns);
		if (e == 0 && i >= warm)
			took[kept++] = (cli_now() - start) * 1e9;
		if (e == 0 && size >= sizeof(i) && memcmp(buf, &i, sizeof(i)) != 0)
			e = -EBADMSG;
	}
	free(buf);
	*ret_n = kept;
	return e;
}

static int broker_trips(struct leat *l, size_t n, double *took, size_t *ret_n)
{
	size_t kept = 0;
	int e = 0;

	while (e == 0 && kept < n && !cli_stop) {
		uint64_t ns;

		e = leat_ping(l, &ns);
		if (e == 0)
			took[kept++] = (double)ns;
	}
	*ret_n = kept;
	return e;
}

/* One-way for channels (half a round trip), the round trip for the broker. */
static int report(struct cli_command *cmd, const char *what, double *took, size_t n, double half)
{
	double p50, p99, p999, max;

	if (!n)
		return CLI_FAILED;
	cli_sort(took, n);
	p50 = cli_quantile(took, n, 0.5) * half;
	p99 = cli_quantile(took, n, 0.99) * half;
	p999 = cli_quantile(took, n, 0.999) * half;
	max = took[n - 1] * half;
	if (cli_get(cmd, "json")) {
		json_t *j = json_pack("{s:s, s:I, s:f, s:f, s:f, s:f}", "what", what, "count",
				      (json_int_t)n, "p50_ns", p50, "p99_ns", p99, "p999_ns", p999,
				      "max_ns", max);
		int bad = !j || json_dumpf(j, stdout, JSON_REAL_PRECISION(9)) < 0;

		putchar('\n');
		json_decref(j);
		return bad ? CLI_FAILED : CLI_DONE;
	}
	printf("%s: %zu times: p50 %.3f us, p99 %.3f us, p99.9 %.3f us, max %.3f us\n", what, n,
	       p50 / 1e3, p99 / 1e3, p999 / 1e3, max / 1e3);
	return CLI_DONE;
}

static int run(struct cli_command *cmd, int argc, char **argv)
{
	const char *name = argc ? argv[0] : NULL;
	struct pair p = {NULL, NULL};
	uint64_t count, size;
	struct leat *l;
	double timeout, *took;
	size_t n = 0;
	int r;

	if (argc > 1)
		return cli_usage(cmd, "give at most one NAME");
	if (cli_get(cmd, "echo") && !name)
		return cli_usage(cmd, "--echo needs a NAME");
	if ((r = cli_size(cmd, "count", name ? 10000 : 10, &count)) ||
	    (r = cli_size(cmd, "size", 64, &size)) || (r = cli_seconds(cmd, "timeout", 5, &timeout)))
		return r;
	if (count < 1 || count > 100000000 || size > 65536)
		return cli_usage(cmd, "--count from 1 to 100000000, --size up to 65536");
	if ((r = cli_open(cmd, &l)))
		return r;
	took = malloc(count * sizeof(*took));
	r = took ? 0 : -ENOMEM;
	if (r == 0 && name)
		r = open_pair(cmd, l, name, cli_get(cmd, "echo") != NULL, &p);
	if (r == 0 && cli_get(cmd, "echo"))
		r = echo(&p, 65536);
	else if (r == 0 && name)
		r = trips(&p, (size_t)size, (size_t)count, (int64_t)(timeout * 1e9), took, &n);
	else if (r == 0)
		r = broker_trips(l, (size_t)count, took, &n);
	if (r < 0)
		r = cli_fail(cmd, name ? name : leat_domain(l), r);
	else if (!cli_get(cmd, "echo"))
		r = report(cmd, name ? "one way through channels" : "round trip to the broker", took, n,
			   name ? 0.5 : 1);
	leat_close(l);
	free(took);
	return r;
}

struct cli_command cmd_ping = {"ping", "[NAME]", "Measure a round trip: to the broker, or through channels.",
			       options, run};
