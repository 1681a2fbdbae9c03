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
	int bad = !c || config_fault(c, 0);

	config_free(c);
	return bad ? FAILED : 0;
}

/* user:NAME, uid:N, or either without the word; with all groups that the host knows of. */
static int find_person(const char *word, struct person *ret, gid_t *groups, int room)
{
	const char *name = !strncmp(word, "user:", 5) ? word + 5 : !strncmp(word, "uid:", 4) ? word + 4 : word;
	char *end;
	unsigned long id = strtoul(name, &end, 10);
	const struct passwd *pw = *name && !*end ? getpwuid((uid_t)id) : getpwnam(name);

	if (!pw && (!*name || *end)) {
		fprintf(stderr, "leatd: there is no user '%s' on this host: give uid:N\n", name);
		return -1;
	}
	*ret = (struct person){pw ? pw->pw_uid : (uid_t)id, pw ? pw->pw_gid : (gid_t)-1, groups, 0};
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
	unsigned verb = 0;
	int may;

	while (verb < VERBS && strcmp(verb_names[verb], words[1]) != 0)
		verb++;
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
		printf("{\"uid\": %u, \"verb\": \"%s\", \"name\": ", (unsigned)who.uid, verb_names[verb]);
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
		printf("uid %u %s %s %s: ", (unsigned)who.uid, may ? "may" : "may not", verb_names[verb], words[2]);
		if (why.file)
			printf("%s:%u: ", why.file, why.line);
		printf("%s\n", why.what);
	}
	config_free(c);
	return may ? MAY : MAY_NOT;
}
