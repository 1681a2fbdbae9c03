/* SPDX-License-Identifier: Apache-2.0 */
/* leat ls, leat stat: which channels there are, and who is on one of them. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include "cli.h"

static struct cli_option ls_options[] = {CLI_JSON, CLI_DOMAIN, {0}};
static struct cli_option stat_options[] = {CLI_JSON, CLI_DOMAIN, {0}};

static int print_json(json_t *j)
{
	int bad = !j || json_dumpf(j, stdout, JSON_INDENT(1)) < 0 || putchar('\n') == EOF;

	json_decref(j);
	return bad ? CLI_FAILED : CLI_DONE;
}

static json_t *channel_json(const struct leat_stat *st)
{
	return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:I}", "name", st->name, "publishers",
			 (int)st->publishers, "draining", (int)st->draining, "subscribers",
			 (int)st->subscribers, "max_publishers", (int)st->max_publishers,
			 "max_subscribers", (int)st->max_subscribers, "bytes", (json_int_t)st->bytes);
}

static void channel_head(void)
{
	printf("%-32s %5s %8s %5s %12s\n", "NAME", "PUBS", "DRAINING", "SUBS", "BYTES");
}

static void channel_line(const struct leat_stat *st)
{
	printf("%-32s %5u %8u %5u %12llu\n", st->name, st->publishers, st->draining, st->subscribers,
	       (unsigned long long)st->bytes);
}

static int on_channel(const struct leat_stat *st, void *arg)
{
	json_t *all = arg;

	if (all)
		return json_array_append_new(all, channel_json(st)) < 0 ? -ENOMEM : 0;
	channel_line(st);
	return 0;
}

static int run_ls(struct cli_command *cmd, int argc, char **argv)
{
	json_t *all = cli_get(cmd, "json") ? json_array() : NULL;
	struct leat *l;
	int r;

	if (argc > 1) {
		json_decref(all);
		return cli_usage(cmd, "give at most one PREFIX");
	}
	r = cli_open(cmd, &l);
	if (r) {
		json_decref(all);
		return r;
	}
	if (!all)
		channel_head();
	r = leat_list(l, argc ? argv[0] : NULL, on_channel, all);
	leat_close(l);
	if (r < 0) {
		json_decref(all);
		return cli_fail(cmd, NULL, r);
	}
	return all ? print_json(all) : CLI_DONE;
}

static const char *role(const struct leat_peer *p)
{
	if (p->role == 1)
		return p->alive ? "publisher" : "ended";
	if (p->role == 4)
		return "group";
	return p->role == 2 ? "subscriber" : p->role == 5 ? "worker" : "observer";
}

static int on_peer(const struct leat_peer *p, void *arg)
{
	json_t *all = arg;

	if (all)
		return json_array_append_new(
			       all, json_pack("{s:s, s:I, s:i, s:i, s:s, s:I, s:I, s:I}", "role", role(p),
					      "id", (json_int_t)p->id, "pid", (int)p->pid, "uid",
					      (int)p->uid, "program", p->program, "messages",
					      (json_int_t)p->count, "lost", (json_int_t)p->lost, "lag",
					      (json_int_t)p->lag)) < 0
			       ? -ENOMEM
			       : 0;
	printf("  %-10s %-15s pid %-8d uid %-6u %14llu messages", role(p), p->program, (int)p->pid,
	       p->uid, (unsigned long long)p->count);
	if (p->role != 1)
		printf(", %llu lost, %llu bytes behind", (unsigned long long)p->lost,
		       (unsigned long long)p->lag);
	putchar('\n');
	return 0;
}

static int run_stat(struct cli_command *cmd, int argc, char **argv)
{
	struct leat_stat st = {.struct_size = sizeof(st)};
	json_t *peers, *one;
	struct leat *l;
	int r;

	if (argc != 1)
		return cli_usage(cmd, "give one NAME");
	r = cli_open(cmd, &l);
	if (r)
		return r;
	peers = cli_get(cmd, "json") ? json_array() : NULL;
	r = leat_stat(l, argv[0], &st, on_peer, peers);
	leat_close(l);
	if (r < 0) {
		json_decref(peers);
		return cli_fail(cmd, argv[0], r);
	}
	if (!peers) {
		channel_head();
		channel_line(&st);
		return CLI_DONE;
	}
	one = channel_json(&st);
	json_object_set_new(one, "sent", json_integer((json_int_t)st.sent));
	json_object_set_new(one, "lag_max", json_integer((json_int_t)st.lag_max));
	json_object_set_new(one, "peers", peers);
	return print_json(one);
}

struct cli_command cmd_ls = {"ls", "[PREFIX]", "List channels.", ls_options, run_ls};
struct cli_command cmd_stat = {"stat", "NAME", "Who is on a channel, and how far.", stat_options,
			       run_stat};
