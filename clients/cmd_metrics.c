/* SPDX-License-Identifier: Apache-2.0 */
/* leat metrics: all counters of a domain, as OpenMetrics has them, for whoever collects such. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli.h"
#include "facts.h"

static struct cli_option options[] = {CLI_JSON, CLI_DOMAIN, {0}};

struct channel {
	struct leat_stat st;
	struct leat_peer *peers;
	size_t n;
};

struct all {
	struct channel *channels;
	size_t n;
	size_t clients;
};

/* ---- collecting ---- */

static int on_channel(const struct leat_stat *st, void *arg)
{
	struct all *all = arg;
	struct channel *more = realloc(all->channels, (all->n + 1) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	all->channels = more;
	more[all->n++] = (struct channel){.st = *st};
	return 0;
}

static int on_peer(const struct leat_peer *p, void *arg)
{
	struct channel *ch = arg;
	struct leat_peer *more = realloc(ch->peers, (ch->n + 1) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	ch->peers = more;
	more[ch->n++] = *p;
	return 0;
}

static int on_client(const struct leat_who *who, void *arg)
{
	(void)who;
	((struct all *)arg)->clients++;
	return 0;
}

static int collect(struct leat *l, const char *prefix, struct all *all)
{
	int e = leat_list(l, prefix, on_channel, all);

	for (size_t i = 0; e == 0 && i < all->n; i++) {
		struct channel *ch = &all->channels[i];

		e = leat_stat(l, ch->st.name, &ch->st, on_peer, ch);
		if (e == -ENOENT || e == -EACCES) /* it has gone meanwhile; or is ours to see, not to look at */
			e = 0;
	}
	return e < 0 ? e : leat_who(l, on_client, all);
}

/* ---- telling ---- */

static void family(const char *name, const char *type, const char *unit, const char *help)
{
	printf("# TYPE %s %s\n", name, type);
	if (unit)
		printf("# UNIT %s %s\n", name, unit);
	printf("# HELP %s %s\n", name, help);
}

/* Programs name themselves as they like. */
static void label(const char *name, const char *value)
{
	printf("%s=\"", name);
	for (; *value; value++)
		if (*value == '\n')
			fputs("\\n", stdout);
		else if (*value == '"' || *value == '\\')
			printf("\\%c", *value);
		else
			putchar(*value);
	putchar('"');
}

static uint64_t publishers(const struct leat_stat *st) { return st->publishers; }
static uint64_t subscribers(const struct leat_stat *st) { return st->subscribers; }
static uint64_t draining(const struct leat_stat *st) { return st->draining; }
static uint64_t bytes(const struct leat_stat *st) { return st->bytes; }
static uint64_t lag_max(const struct leat_stat *st) { return st->lag_max; }

static const struct of_channel {
	const char *name, *unit, *help;
	uint64_t (*value)(const struct leat_stat *st);
} of_channels[] = {
	{"leat_channel_publishers", NULL, "Publishers that live.", publishers},
	{"leat_channel_subscribers", NULL, "Subscribers, workers included.", subscribers},
	{"leat_channel_ended_rings", NULL, "Rings of publishers that have ended, still kept.", draining},
	{"leat_channel_memory_bytes", "bytes", "Shared memory of the channel.", bytes},
	{"leat_channel_lag_bytes", "bytes", "How far the slowest subscriber that is waited for is behind.", lag_max},
};

static uint64_t count(const struct leat_peer *p) { return p->count; }
static uint64_t lost(const struct leat_peer *p) { return p->lost; }
static uint64_t lag(const struct leat_peer *p) { return p->lag; }

static const struct of_peer {
	const char *name, *suffix, *type, *unit, *help;
	int publishers; /* else of subscribers */
	uint64_t (*value)(const struct leat_peer *p);
} of_peers[] = {
	{"leat_publisher_messages", "_total", "counter", NULL, "Messages sent into a ring that is kept.", 1, count},
	{"leat_subscriber_messages", "_total", "counter", NULL, "Messages received, as the subscriber says.", 0, count},
	{"leat_subscriber_lost_messages", "_total", "counter", NULL, "Messages lost, as the subscriber says.", 0, lost},
	{"leat_subscriber_lag_bytes", "", "gauge", "bytes", "How far it is behind.", 0, lag},
};

static void tell_peers(const struct all *all, const struct of_peer *f)
{
	for (size_t i = 0; i < all->n; i++)
		for (size_t k = 0; k < all->channels[i].n; k++) {
			const struct leat_peer *p = &all->channels[i].peers[k];

			if ((p->role == 1) != f->publishers || p->role == 4)
				continue;
			printf("%s%s{", f->name, f->suffix);
			label("channel", all->channels[i].st.name);
			printf(",%s=\"%" PRIu64 "\",pid=\"%d\",", f->publishers ? "ring" : "slot", p->id, (int)p->pid);
			label("program", p->program);
			printf("} %" PRIu64 "\n", f->value(p));
		}
}

static void tell(const struct all *all)
{
	family("leat_clients", "gauge", NULL, "Clients of the broker.");
	printf("leat_clients %zu\n", all->clients);
	for (size_t f = 0; f < sizeof(of_channels) / sizeof(of_channels[0]); f++) {
		family(of_channels[f].name, "gauge", of_channels[f].unit, of_channels[f].help);
		for (size_t i = 0; i < all->n; i++) {
			printf("%s{", of_channels[f].name);
			label("channel", all->channels[i].st.name);
			printf("} %" PRIu64 "\n", of_channels[f].value(&all->channels[i].st));
		}
	}
	for (size_t f = 0; f < sizeof(of_peers) / sizeof(of_peers[0]); f++) {
		family(of_peers[f].name, of_peers[f].type, of_peers[f].unit, of_peers[f].help);
		tell_peers(all, &of_peers[f]);
	}
	puts("# EOF");
}

static json_t *as_json(const struct all *all)
{
	json_t *channels = json_array();

	for (size_t i = 0; i < all->n; i++) {
		const struct channel *ch = &all->channels[i];
		json_t *one = cli_channel_json(&ch->st), *peers = json_array();

		for (size_t k = 0; k < ch->n; k++)
			json_array_append_new(peers, cli_peer_json(&ch->peers[k]));
		json_object_set_new(one, "sent", json_integer((json_int_t)ch->st.sent));
		json_object_set_new(one, "lag_max", json_integer((json_int_t)ch->st.lag_max));
		json_object_set_new(one, "peers", peers);
		json_array_append_new(channels, one);
	}
	return json_pack("{s:i, s:o}", "clients", (int)all->clients, "channels", channels);
}

static int run(struct cli_command *cmd, int argc, char **argv)
{
	struct all all = {0};
	struct leat *l;
	int r;

	if (argc > 1)
		return cli_usage(cmd, "give at most one PREFIX");
	r = cli_open(cmd, &l);
	if (r)
		return r;
	r = collect(l, argc ? argv[0] : NULL, &all);
	leat_close(l);
	if (r < 0) {
		r = cli_fail(cmd, NULL, r);
	} else if (cli_get(cmd, "json")) {
		r = cli_print_json(as_json(&all));
	} else {
		tell(&all);
		r = CLI_DONE;
	}
	for (size_t i = 0; i < all.n; i++)
		free(all.channels[i].peers);
	free(all.channels);
	return r;
}

struct cli_command cmd_metrics = {"metrics", "[PREFIX]", "All counters, as OpenMetrics has them.", options, run};
