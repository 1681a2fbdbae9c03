/* SPDX-License-Identifier: Apache-2.0 */
/* leat ticket keygen, mint, narrow, show: made here, of what the broker is made of (daemon/ticket.c); none need run. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "../daemon/ticket.h"
#include "cli.h"

#define KEYS "/etc/leat/ticket.keys"
#define OPT_KEYS {"keys", "FILE", "the file of keys (default: " KEYS ")", NULL}
#define PREFIX   {"prefix", "NAME", "for this name and all below it; '*': all", NULL}
#define RIGHTS   {"rights", "LIST", "of publish,subscribe,observe,create,watch,administer; '*': all", NULL}

static struct cli_option keygen_options[] = {OPT_KEYS, {"keep", "N", "how many earlier keys stay in force (default 1)", NULL}, {0}};
static struct cli_option mint_options[] = {
	OPT_KEYS, PREFIX, RIGHTS, {"ttl", "TIME", "how long: 90s, 10m, 1h, 7d (default 1h), or 'forever'", NULL}, {0}};
static struct cli_option narrow_options[] = {PREFIX, RIGHTS, {"ttl", "TIME", "how long: 90s, 10m, 1h, 7d", NULL}, {0}};
static struct cli_option show_options[] = {{"keys", "FILE", "say also whether it was made with one of these", NULL}, CLI_JSON, {0}};

static const char *keys_path(const struct cli_command *cmd)
{
	const char *path = cli_get(cmd, "keys");

	return path ? path : KEYS;
}

/* 0, or the exit code after saying why. */
static int open_keys(const struct cli_command *cmd, struct ticket_keys **ret)
{
	const char *why;
	int fd = ticket_keys_open(keys_path(cmd), &why), e = fd < 0 ? fd : ticket_keys_read(fd, ret, &why);

	if (fd >= 0)
		close(fd);
	if (e >= 0)
		return 0;
	fprintf(stderr, "leat %s: read keys %s: %s%s\n", cmd->name, keys_path(cmd), why,
		e == -ENOENT ? ": leat ticket keygen makes them" : "");
	return CLI_FAILED;
}

static int parse_prefix(struct cli_command *cmd, struct ticket *t)
{
	const char *text = cli_get(cmd, "prefix");
	size_t n = text ? strlen(text) : 0;

	if (!text || !strcmp(text, "*"))
		return 0;
	n -= n && text[n - 1] == '/';
	if (!n || n > LEAT__NAME_MAX || text[0] == '/' || strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/") < n)
		return cli_usage(cmd, "--prefix '%s' is not how names of channels begin", text);
	snprintf(t->prefix, sizeof(t->prefix), "%.*s", (int)n, text);
	return 0;
}

static int parse_rights(struct cli_command *cmd, struct ticket *t)
{
	const char *text = cli_get(cmd, "rights");
	char words[200], *save = NULL;

	if (text && !strcmp(text, "*"))
		t->verbs = (1u << VERBS) - 1;
	snprintf(words, sizeof(words), "%s", text && !t->verbs ? text : "");
	for (char *w = strtok_r(words, ", ", &save); w; w = strtok_r(NULL, ", ", &save)) {
		enum verb v = verb_find(w);

		if (v == VERBS)
			return cli_usage(cmd, "--rights: '%s' is none: publish, subscribe, observe, create, watch, administer", w);
		t->verbs |= 1u << v;
	}
	return text && !t->verbs ? cli_usage(cmd, "--rights '' is nothing") : 0;
}

/* @otherwise: what it is without the option. */
static int parse_ttl(struct cli_command *cmd, const char *otherwise, struct ticket *t)
{
	static const struct {
		char c;
		uint64_t s;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
	const char *text = cli_get(cmd, "ttl");
	uint64_t n;
	char *end;

	text = text ? text : otherwise;
	if (!text || (otherwise && !strcmp(text, "forever")))
		return 0;
	errno = 0;
	n = strtoull(text, &end, 10);
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (*text >= '1' && *text <= '9' && !errno && *end == units[i].c && !end[1] && n < UINT64_C(3650) * 86400 / units[i].s) {
			t->expires = ticket_now() + n * units[i].s * UINT64_C(1000000000);
			return 0;
		}
	return cli_usage(cmd, "--ttl '%s' is no time up to ten years: 90s, 10m, 1h, 7d", text);
}

static int keygen(struct cli_command *cmd, int argc, char **argv)
{
	const char *path = keys_path(cmd), *why;
	struct ticket_keys *keys;
	uint64_t keep;
	int e;

	(void)argv;
	if (argc)
		return cli_usage(cmd, "nothing comes after the options");
	e = cli_size(cmd, "keep", 1, &keep);
	if (e)
		return e;
	e = ticket_keys_add(path, keep < TICKET_KEYS_MOST ? (unsigned)keep : TICKET_KEYS_MOST, &why);
	if (e < 0) {
		fprintf(stderr, "leat %s: write keys %s: %s\n", cmd->name, path, why);
		return CLI_FAILED;
	}
	e = open_keys(cmd, &keys);
	if (e)
		return e;
	printf("key %016" PRIx64 " is the newest in %s\n", ticket_keys_first(keys), path);
	ticket_keys_free(keys);
	return CLI_DONE;
}

static int mint(struct cli_command *cmd, int argc, char **argv)
{
	struct ticket t = {.expires = 0};
	struct ticket_keys *keys;
	char text[TICKET_TEXT];
	const char *why;
	int e;

	(void)argv;
	if (argc || !cli_get(cmd, "prefix") || !cli_get(cmd, "rights"))
		return cli_usage(cmd, "give --prefix and --rights");
	e = parse_prefix(cmd, &t);
	e = e ? e : parse_rights(cmd, &t);
	e = e ? e : parse_ttl(cmd, "1h", &t);
	e = e ? e : open_keys(cmd, &keys);
	if (e)
		return e;
	e = ticket_mint(keys, &t, text, &why);
	ticket_keys_free(keys);
	if (e < 0) {
		fprintf(stderr, "leat %s: make a ticket: %s\n", cmd->name, why);
		return CLI_FAILED;
	}
	puts(text);
	return CLI_DONE;
}

/* From standard input ("-") or $LEAT_TICKET: a command line could be read by others. 0, or the exit code. */
static int find_ticket(struct cli_command *cmd, int argc, char **argv, char **ret)
{
	const char *text = getenv("LEAT_TICKET");
	size_t n;
	int e;

	if (argc > 1 || (argc && strcmp(argv[0], "-") != 0))
		return cli_usage(cmd, "give the ticket in $LEAT_TICKET, or - and it on standard input");
	if (argc) {
		e = cli_read(cmd, NULL, ret, &n);
		if (e)
			return e;
	} else {
		*ret = text ? strdup(text) : NULL;
		n = text ? strlen(text) : 0;
	}
	while (*ret && n && strchr(" \t\n", (*ret)[n - 1]))
		n--;
	if (n && n < TICKET_TEXT) {
		(*ret)[n] = 0;
		return 0;
	}
	free(*ret);
	*ret = NULL;
	return cli_usage(cmd, "there is no single ticket in %s", argc ? "standard input" : "$LEAT_TICKET");
}

static int narrow(struct cli_command *cmd, int argc, char **argv)
{
	struct ticket t = {.expires = 0};
	char text[TICKET_TEXT], *from = NULL;
	const char *why;
	int e = parse_prefix(cmd, &t);

	e = e ? e : parse_rights(cmd, &t);
	e = e ? e : parse_ttl(cmd, NULL, &t);
	if (!e && !*t.prefix && !t.verbs && !t.expires)
		e = cli_usage(cmd, "give --prefix, --rights or --ttl");
	e = e ? e : find_ticket(cmd, argc, argv, &from);
	if (e)
		return e;
	e = ticket_narrow(from, &t, text, &why);
	free(from);
	if (e < 0) {
		fprintf(stderr, "leat %s: make it narrower: %s\n", cmd->name, why);
		return CLI_FAILED;
	}
	puts(text);
	return CLI_DONE;
}

static void show_json(const struct ticket *t, int64_t left_ns, int checked)
{
	json_t *rights = json_array(), *all;
	char key[20], id[20];

	for (unsigned v = 0; v < VERBS; v++)
		if (t->verbs & 1u << v)
			json_array_append_new(rights, json_string(verb_name(v)));
	snprintf(key, sizeof(key), "%016" PRIx64, t->key);
	snprintf(id, sizeof(id), "%016" PRIx64, t->id);
	all = json_pack("{s:s, s:s, s:s, s:o, s:o, s:o}", "id", id, "key", key, "prefix", t->prefix, "rights", rights,
			"expires_in_ns", t->expires == UINT64_MAX ? json_null() : json_integer(left_ns), "sealed",
			checked ? json_boolean(t->good) : json_null());
	json_dumpf(all, stdout, JSON_INDENT(1));
	putchar('\n');
	json_decref(all);
}

static int show(struct cli_command *cmd, int argc, char **argv)
{
	struct ticket_keys *keys = NULL;
	struct ticket t;
	char *text = NULL;
	const char *why;
	uint64_t now;
	int64_t left;
	int e = find_ticket(cmd, argc, argv, &text), checked = cli_get(cmd, "keys") != NULL;

	if (!e && checked)
		e = open_keys(cmd, &keys);
	if (e) {
		free(text);
		return e;
	}
	e = ticket_read(keys, text, strlen(text), &t, &why);
	free(text);
	ticket_keys_free(keys);
	if (e == -EINVAL) {
		fprintf(stderr, "leat %s: %s\n", cmd->name, why);
		return CLI_FAILED;
	}
	now = ticket_now();
	left = t.expires > now ? (int64_t)(t.expires - now) : 0;
	if (cli_get(cmd, "json")) {
		show_json(&t, left, checked);
	} else {
		printf("ticket   %016" PRIx64 "\nkey      %016" PRIx64 "\nprefix   %s\nrights  ", t.id, t.key, *t.prefix ? t.prefix : "*");
		for (unsigned v = 0; v < VERBS; v++)
			if (t.verbs & 1u << v)
				printf(" %s", verb_name(v));
		printf("\nexpires  ");
		if (t.expires == UINT64_MAX)
			printf("never\n");
		else if (!left)
			printf("it has\n");
		else
			printf("in %" PRId64 " s\n", left / 1000000000);
		printf("seal     %s\n", !checked ? "not looked at (--keys)" : t.good ? "right" : why);
	}
	return (checked && !t.good) || !left || !t.verbs ? CLI_DENIED : CLI_DONE;
}

struct cli_command cmd_ticket_keygen = {"ticket keygen", "", "make the key that tickets are made with, or another", keygen_options, keygen};
struct cli_command cmd_ticket_mint = {"ticket mint", "", "make a ticket", mint_options, mint};
struct cli_command cmd_ticket_narrow = {"ticket narrow", "[-]", "make a ticket that allows less of one", narrow_options, narrow};
struct cli_command cmd_ticket_show = {"ticket show", "[-]", "say what a ticket allows", show_options, show};
