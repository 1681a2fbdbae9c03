/* SPDX-License-Identifier: Apache-2.0 */
/* leat ls, leat stat, leat who: which channels there are, who is on one of them, and who is connected. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli.h"
#include "facts.h"

static struct cli_option ls_options[] = {
	{"watch", NULL, "then tell what comes, changes and goes, a line each", NULL},
	CLI_JSON,
	CLI_DOMAIN,
	{0},
};
static struct cli_option who_options[] = {CLI_JSON, CLI_DOMAIN, {0}};
static struct cli_option stat_options[] = {CLI_JSON, CLI_DOMAIN, {0}};

int cli_print_json(json_t *j)
{
	int bad = !j || json_dumpf(j, stdout, JSON_INDENT(1)) < 0 || putchar('\n') == EOF;

	json_decref(j);
	return bad ? CLI_FAILED : CLI_DONE;
}

json_t *cli_channel_json(const struct leat_stat *st)
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
		return json_array_append_new(all, cli_channel_json(st)) < 0 ? -ENOMEM : 0;
	channel_line(st);
	return 0;
}

static int put_event(const struct leat_event *ev, int json)
{
	static const char *const kinds[] = {[LEAT_CAME] = "came", [LEAT_CHANGED] = "changed", [LEAT_GONE] = "gone",
					    [LEAT_SYNCED] = "synced"};

	if (json && ev->kind == LEAT_SYNCED)
		printf("{\"event\": \"synced\"}\n");
	else if (json) /* a name has nothing in it that JSON would have to escape */
		printf("{\"event\": \"%s\", \"name\": \"%s\", \"publishers\": %u, \"subscribers\": %u}\n",
		       kinds[ev->kind], ev->name, ev->publishers, ev->subscribers);
	else if (ev->kind != LEAT_SYNCED)
		printf("%-8s %-32s %5u %5u\n", kinds[ev->kind], ev->name, ev->publishers, ev->subscribers);
	return ferror(stdout) ? -EPIPE : 0;
}

/* Until a signal comes. */
static int watch(struct cli_command *cmd, struct leat *l, const char *prefix)
{
	int json = cli_get(cmd, "json") != NULL, e;
	struct leat_watch *w;

	e = leat_watch(l, prefix, &w);
	if (e < 0)
		return cli_fail(cmd, prefix, e);
	if (!json)
		printf("%-8s %-32s %5s %5s\n", "EVENT", "NAME", "PUBS", "SUBS");
	while (e >= 0 && !cli_stop) {
		struct leat_event ev = {.struct_size = sizeof(ev)};

		e = leat_watch_next(w, &ev, 0);
		if (e == -EAGAIN) {
			if (fflush(stdout) != 0)
				e = -EPIPE;
			else
				e = leat_watch_next(w, &ev, INT64_C(200000000)); /* a signal may end it */
		}
		if (e == 0)
			e = put_event(&ev, json);
		else if (e == -ETIMEDOUT)
			e = 0;
	}
	leat_watch_close(w);
	if (e == -EPIPE)
		fprintf(stderr, "leat ls: write to standard output: %s\n", strerror(errno));
	return e == -EPIPE ? CLI_FAILED : e < 0 ? cli_fail(cmd, prefix, e) : CLI_DONE;
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
	if (r == 0 && cli_get(cmd, "watch")) {
		r = watch(cmd, l, argc ? argv[0] : NULL);
		leat_close(l);
		json_decref(all);
		return r;
	}
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
	return all ? cli_print_json(all) : CLI_DONE;
}

static const char *role(const struct leat_peer *p)
{
	if (p->role == 1)
		return p->alive ? "publisher" : "ended";
	if (p->role == 4)
		return "group";
	return p->role == 2 ? "subscriber" : p->role == 5 ? "worker" : "observer";
}

json_t *cli_peer_json(const struct leat_peer *p)
{
	return json_pack("{s:s, s:I, s:i, s:i, s:s, s:I, s:I, s:I}", "role", role(p), "id", (json_int_t)p->id, "pid", (int)p->pid,
			 "uid", (int)p->uid, "program", p->program, "messages", (json_int_t)p->count, "lost",
			 (json_int_t)p->lost, "lag", (json_int_t)p->lag);
}

static int on_peer(const struct leat_peer *p, void *arg)
{
	json_t *all = arg;

	if (all)
		return json_array_append_new(all, cli_peer_json(p)) < 0 ? -ENOMEM : 0;
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
	one = cli_channel_json(&st);
	json_object_set_new(one, "sent", json_integer((json_int_t)st.sent));
	json_object_set_new(one, "lag_max", json_integer((json_int_t)st.lag_max));
	json_object_set_new(one, "peers", peers);
	return cli_print_json(one);
}

/* How far the processes are behind that are behind at all. */
struct who {
	json_t *all; /* NULL: lines */
	struct leat *l;
	struct lag {
		int32_t pid;
		uint64_t bytes;
	} *lags;
	size_t n_lags;
};

static struct lag *lag_of(const struct who *who, int32_t pid)
{
	for (size_t i = 0; i < who->n_lags; i++)
		if (who->lags[i].pid == pid)
			return &who->lags[i];
	return NULL;
}

static int on_lag(const struct leat_peer *p, void *arg)
{
	struct who *who = arg;
	struct lag *lag = lag_of(who, p->pid), *more;

	if (p->role == 1 || !p->alive || !p->lag)
		return 0;
	if (!lag) {
		more = realloc(who->lags, (who->n_lags + 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		who->lags = more;
		lag = &more[who->n_lags++];
		*lag = (struct lag){p->pid, 0};
	}
	lag->bytes = p->lag > lag->bytes ? p->lag : lag->bytes;
	return 0;
}

static int on_heard(const struct leat_stat *ch, void *arg)
{
	struct leat_stat st = {.struct_size = sizeof(st)};
	struct who *who = arg;
	int e;

	if (!ch->subscribers || !(ch->publishers + ch->draining)) /* nobody is behind there */
		return 0;
	e = leat_stat(who->l, ch->name, &st, on_lag, who);
	return e == -ENOENT || e == -EACCES ? 0 : e; /* it has gone meanwhile; or is not ours to look at */
}

static int on_client(const struct leat_who *w, void *arg)
{
	const struct who *who = arg;
	const struct lag *lag = lag_of(who, w->pid);
	unsigned long long behind = lag && w->subscribers ? lag->bytes : 0;

	if (who->all)
		return json_array_append_new(
			       who->all, json_pack("{s:I, s:i, s:i, s:s, s:i, s:i, s:i, s:i, s:I, s:I}", "client",
						   (json_int_t)w->client, "pid", (int)w->pid, "uid", (int)w->uid, "program",
						   w->program, "publishers", (int)w->publishers, "subscribers",
						   (int)w->subscribers, "shares", (int)w->shares, "watches", (int)w->watches,
						   "bytes", (json_int_t)w->bytes, "lag", (json_int_t)behind)) < 0
			       ? -ENOMEM
			       : 0;
	printf("%6llu %-15s %8d %6u %5u %5u %6u %7u %12llu %10llu\n", (unsigned long long)w->client, w->program, (int)w->pid, w->uid,
	       w->publishers, w->subscribers, w->shares, w->watches, (unsigned long long)w->bytes, behind);
	return 0;
}

static int run_who(struct cli_command *cmd, int argc, char **argv)
{
	struct who who = {.n_lags = 0};
	int r;

	(void)argv;
	if (argc)
		return cli_usage(cmd, "it takes no names");
	r = cli_open(cmd, &who.l);
	if (r)
		return r;
	who.all = cli_get(cmd, "json") ? json_array() : NULL;
	r = leat_list(who.l, NULL, on_heard, &who);
	if (r == 0 && !who.all)
		printf("%6s %-15s %8s %6s %5s %5s %6s %7s %12s %10s\n", "CLIENT", "PROGRAM", "PID", "UID", "PUBS", "SUBS", "SHARES",
		       "WATCHES", "BYTES", "LAG");
	if (r == 0)
		r = leat_who(who.l, on_client, &who);
	leat_close(who.l);
	free(who.lags);
	if (r < 0) {
		json_decref(who.all);
		return cli_fail(cmd, NULL, r);
	}
	return who.all ? cli_print_json(who.all) : CLI_DONE;
}

struct cli_command cmd_who = {"who", "", "List the broker's clients, what they hold, and how far they are behind.", who_options, run_who};
struct cli_command cmd_ls = {"ls", "[PREFIX]", "List channels.", ls_options, run_ls};
struct cli_command cmd_stat = {"stat", "NAME", "Who is on a channel, and how far.", stat_options,
			       run_stat};
