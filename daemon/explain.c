/* SPDX-License-Identifier: Apache-2.0 */
/* leatd --check and --explain. */
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/base.h"
#include "explain.h"
#include "link/wire.h"
#include "policy.h"

enum { MAY = 0, FAILED = 1, USAGE = 2, MAY_NOT = 3 };

/* Say what is wrong. NULL: leatd.conf itself is. */
static struct config *load(const char *path)
{
	struct config *c = NULL;
	char *text;
	size_t size;
	int e = config_read(path, &text, &size);

	if (e == 0) {
		e = config_parse(text, size, &c);
		free(text);
	}
	if (e < 0) {
		fprintf(stderr, "leatd: %s\n", leat_why());
		return NULL;
	}
	for (unsigned i = 0; config_fault(c, i); i++)
		fprintf(stderr, "leatd: %s\n", config_fault(c, i));
	return c;
}

int check_config(const char *path)
{
	struct config *c = load(path);
	struct ticket_keys *keys = NULL;
	const char *file = c ? config_keys(c) : NULL, *why = NULL;
	int bad = !c || config_fault(c, 0), fd = file ? ticket_keys_open(file, &why) : -1;

	if (file && (fd < 0 || ticket_keys_read(fd, &keys, &why) < 0)) {
		fprintf(stderr, "leatd: read the keys of tickets, %s: %s\n", file, why);
		bad = 1;
	}
	if (fd >= 0)
		close(fd);
	ticket_keys_free(keys);
	config_free(c);
	return bad ? FAILED : 0;
}

/* user:NAME, uid:N, or either without the word, with all groups that the host knows of; or ticket: whoever has one. */
static int find_person(const char *word, struct person *ret, gid_t *groups, int room)
{
	const char *name = !strncmp(word, "user:", 5) ? word + 5 : !strncmp(word, "uid:", 4) ? word + 4 : word;
	static const struct ticket any = {.expires = UINT64_MAX, .verbs = (1u << VERBS) - 1, .good = 1};
	char *end;
	unsigned long id = strtoul(name, &end, 10);
	const struct passwd *pw = *name && !*end ? getpwuid((uid_t)id) : getpwnam(name);

	if (!strcmp(word, "ticket")) {
		*ret = (struct person){.uid = (uid_t)-2, .gid = (gid_t)-2, .tickets = &any, .n_tickets = 1};
		return 0;
	}
	if (!pw && (!*name || *end)) {
		fprintf(stderr, "leatd: there is no user '%s' on this host: give uid:N\n", name);
		return -1;
	}
	*ret = (struct person){.uid = pw ? pw->pw_uid : (uid_t)id, .gid = pw ? pw->pw_gid : (gid_t)-1, .groups = groups};
	if (pw && getgrouplist(pw->pw_name, pw->pw_gid, groups, &room) >= 0)
		ret->n_groups = (unsigned)room;
	return 0;
}

/* Of a string in JSON: what may not be in it. */
static void put_json(const char *text)
{
	putchar('"');
	for (; *text; text++)
		if (*text == '"' || *text == '\\' || (unsigned char)*text < 0x20)
			printf("\\u%04x", (unsigned)(unsigned char)*text);
		else
			putchar(*text);
	putchar('"');
}

int explain(const char *path, int json, char **words)
{
	gid_t groups[256];
	struct person who;
	struct ruling why;
	struct config *c;
	unsigned verb = verb_find(words[1]);
	int may;

	if (verb == VERBS) {
		fprintf(stderr, "leatd: '%s' is no verb: publish, subscribe, observe, create, watch or administer\n", words[1]);
		return USAGE;
	}
	if (leat__name_check(words[2]) < 0) {
		fprintf(stderr, "leatd: %s\n", leat_why());
		return USAGE;
	}
	if (find_person(words[0], &who, groups, 256) < 0 || !(c = load(path)))
		return FAILED;
	may = policy_may(c, (uid_t)-1, &who, verb, words[2], &why);
	if (json) {
		if (who.n_tickets)
			printf("{\"uid\": null, ");
		else
			printf("{\"uid\": %u, ", (unsigned)who.uid);
		printf("\"verb\": \"%s\", \"name\": ", verb_name(verb));
		put_json(words[2]);
		printf(", \"may\": %s, \"file\": ", may ? "true" : "false");
		if (why.file)
			put_json(why.file);
		else
			printf("null");
		printf(", \"line\": %u, \"why\": ", why.line);
		put_json(why.what);
		printf("}\n");
	} else {
		if (who.n_tickets)
			printf("who has a ticket for it ");
		else
			printf("uid %u ", (unsigned)who.uid);
		printf("%s %s %s: ", may ? "may" : "may not", verb_name(verb), words[2]);
		if (why.file)
			printf("%s:%u: ", why.file, why.line);
		printf("%s\n", why.what);
	}
	config_free(c);
	return may ? MAY : MAY_NOT;
}
