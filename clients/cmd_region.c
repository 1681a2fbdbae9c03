/* SPDX-License-Identifier: Apache-2.0 */
/* leat region ls, cat, share: regions by name. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "cli.h"

static struct cli_option ls_options[] = {CLI_JSON, CLI_DOMAIN, {0}};
static struct cli_option cat_options[] = {
	{"count", "N", "write the first N bytes only", NULL},
	CLI_DOMAIN,
	{0},
};
static struct cli_option share_options[] = {
	{"file", "F", "what is in F (default: standard input)", NULL},
	{"writable", NULL, "others may write it", NULL},
	{"size", "N", "so many bytes, zeros after what was read", NULL},
	{"timeout", "S", "end after S seconds (default: when interrupted)", NULL},
	CLI_DOMAIN,
	{0},
};

static int on_region(const struct leat_found *f, void *arg)
{
	json_t *all = arg;

	if (all)
		return json_array_append_new(all, json_pack("{s:s, s:I, s:I, s:b, s:s, s:i, s:i}", "name", f->name, "size",
							    (json_int_t)f->size, "generation",
							    (json_int_t)f->generation, "writable", (int)f->writable,
							    "program", f->program, "pid", (int)f->pid, "uid",
							    (int)f->uid)) < 0 ? -ENOMEM : 0;
	printf("%-32s %12llu %-8s %s (pid %d)\n", f->name, (unsigned long long)f->size, f->writable ? "writable" : "read",
	       f->program, (int)f->pid);
	return 0;
}

static int ls(struct cli_command *cmd, int argc, char **argv)
{
	json_t *all = NULL;
	struct leat *l;
	int r;

	if (argc > 1)
		return cli_usage(cmd, "give at most one PREFIX");
	r = cli_open(cmd, &l);
	if (r)
		return r;
	if (cli_get(cmd, "json"))
		all = json_array();
	else
		printf("%-32s %12s %-8s %s\n", "NAME", "BYTES", "OTHERS", "SHARED BY");
	r = leat_region_list(l, argc ? argv[0] : NULL, on_region, all);
	r = r < 0 ? cli_fail(cmd, argc ? argv[0] : NULL, r) : CLI_DONE;
	if (all && r == CLI_DONE && (json_dumpf(all, stdout, JSON_INDENT(1)) < 0 || putchar('\n') == EOF))
		r = CLI_FAILED;
	json_decref(all);
	leat_close(l);
	return r;
}

static int cat(struct cli_command *cmd, int argc, char **argv)
{
	struct leat_region *region;
	uint64_t count;
	struct leat *l;
	int r;

	if (argc != 1)
		return cli_usage(cmd, "give one NAME");
	if ((r = cli_size(cmd, "count", UINT64_MAX, &count)) || (r = cli_open(cmd, &l)))
		return r;
	r = leat_region_find(l, argv[0], LEAT_RDONLY, NULL, &region);
	if (r < 0) {
		r = cli_fail(cmd, argv[0], r);
	} else {
		if (count > leat_region_size(region))
			count = leat_region_size(region);
		r = fwrite(leat_region_addr(region), 1, (size_t)count, stdout) == count && fflush(stdout) == 0 ? CLI_DONE
													      : CLI_FAILED;
		if (r)
			fprintf(stderr, "leat region cat: %s: write to standard output: %s\n", argv[0], strerror(errno));
		leat_region_close(region);
	}
	leat_close(l);
	return r;
}

/* A region with the text in it, under the name. */
static int offer(struct leat *l, const char *name, const char *text, size_t size, uint64_t want, int writable)
{
	struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD, .name = "leat-region",
				     .size = want > size ? want : size ? size : 1};
	struct leat_region *region;
	struct leat_share *share;
	int e = leat_region_create(&o, &region);

	if (e < 0)
		return e;
	if (size)
		memcpy(leat_region_addr(region), text, size);
	e = leat_region_share(l, name, region, writable ? 0 : LEAT_RDONLY, &share);
	leat_region_close(region);
	return e;
}

static int share(struct cli_command *cmd, int argc, char **argv)
{
	const struct timespec nap = {0, 50000000};
	double timeout, until;
	char *text = NULL;
	uint64_t want;
	struct leat *l;
	size_t size;
	int r;

	if (argc != 1)
		return cli_usage(cmd, "give one NAME");
	if ((r = cli_size(cmd, "size", 0, &want)) || (r = cli_seconds(cmd, "timeout", -1, &timeout)) ||
	    (r = cli_read(cmd, cli_get(cmd, "file"), &text, &size)))
		return r;
	r = cli_open(cmd, &l);
	if (r) {
		free(text);
		return r;
	}
	r = offer(l, argv[0], text, size, want, cli_get(cmd, "writable") != NULL);
	free(text);
	if (r < 0) {
		r = cli_fail(cmd, argv[0], r);
	} else {
		until = timeout < 0 ? 1e300 : cli_now() + timeout;
		while (!cli_stop && cli_now() < until) {
			leat_dispatch(l); /* a restarted broker is told again */
			nanosleep(&nap, NULL);
		}
		r = CLI_DONE;
	}
	leat_close(l);
	return r;
}

struct cli_command cmd_region_ls = {"region ls", "[PREFIX]", "List the regions that are shared by name.", ls_options, ls};
struct cli_command cmd_region_cat = {"region cat", "NAME", "Write what is in a region.", cat_options, cat};
struct cli_command cmd_region_share = {"region share", "NAME", "Share what is in a file, until interrupted.", share_options,
				       share};
