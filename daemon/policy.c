/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leatd.conf(5) and leat-policy(5): reading and deciding. A file of policy.d speaks for its own prefix only; one that
 * cannot be understood closes it.
 */
#include <errno.h>
#include <grp.h>
#include <ini.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/base.h"
#include "link/wire.h"
#include "policy.h"
#include "quota.h"

struct who {
	enum { EVERYBODY, A_UID, A_GID, A_TICKET } kind;
	uint32_t id;
};

struct rule {
	struct rule *next;
	char *prefix; /* "": all names */
	unsigned verbs; /* 1 << verb; all of them: a file that is wrong */
	int closed;
	const char *file; /* in config.files */
	unsigned line;
	struct who *list;
	unsigned n;
};

enum { REQUESTS = LEAT__QUOTAS, LIMITS };
struct limits {
	struct limits *next;
	int all; /* users; else one */
	uint32_t uid;
	uint64_t v[LIMITS];
	unsigned set; /* 1 << what */
};

struct config {
	struct rule *rules;
	struct limits *limits; /* of single users, then all users' */
	double linger;
	char *keys; /* of tickets; NULL: there are none */
	char **faults, **files;
	unsigned n_faults, n_files;
	int out_of_memory;
};

/* ---- what the files say ---- */

struct parse {
	struct config *c;
	const char *at, *end; /* of this file */
	const char *file, *prefix;
	unsigned line;
	int main, faults; /* leatd.conf */
	char section[LEAT__NAME_MAX + 2], key[64];
};

__attribute__((format(printf, 2, 3))) static int fault(struct parse *p, const char *fmt, ...)
{
	char what[300], *line = NULL, **more = realloc(p->c->faults, (p->c->n_faults + 1) * sizeof(*more));
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	if (more)
		p->c->faults = more;
	if (!more || asprintf(&line, "%s:%u: %s", p->file, p->line, what) < 0) {
		p->c->out_of_memory = 1;
		return 0;
	}
	more[p->c->n_faults++] = line;
	p->faults++;
	return 0;
}

static int parse_id(const char *text, uint32_t *ret)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	*ret = (uint32_t)v;
	return *text >= '0' && *text <= '9' && !*end && v < UINT32_MAX ? 0 : -1;
}

/* One of a list. */
static int parse_who(struct parse *p, char *word, struct who *ret)
{
	const struct passwd *pw;
	const struct group *gr;

	*ret = (struct who){EVERYBODY, 0};
	if (!strcmp(word, "*"))
		return 0;
	if (!strcmp(word, "ticket")) {
		ret->kind = A_TICKET;
		return 0;
	}
	if (!strncmp(word, "uid:", 4) || !strncmp(word, "gid:", 4)) {
		ret->kind = *word == 'u' ? A_UID : A_GID;
		if (parse_id(word + 4, &ret->id) < 0)
			return fault(p, "'%s': no number", word) - 1;
		return 0;
	}
	if (!strncmp(word, "user:", 5)) {
		pw = getpwnam(word + 5);
		*ret = (struct who){A_UID, pw ? pw->pw_uid : 0};
		return pw ? 0 : fault(p, "there is no user '%s' on this host", word + 5) - 1;
	}
	if (!strncmp(word, "group:", 6)) {
		gr = getgrnam(word + 6);
		*ret = (struct who){A_GID, gr ? gr->gr_gid : 0};
		return gr ? 0 : fault(p, "there is no group '%s' on this host", word + 6) - 1;
	}
	return fault(p, "'%s' is nobody: say *, uid:N, gid:N, user:NAME, group:NAME or ticket", word) - 1;
}

static struct rule *rule_new(struct parse *p, const char *prefix, unsigned verbs)
{
	struct rule *r = calloc(1, sizeof(*r));

	if (r)
		r->prefix = strdup(prefix);
	if (!r || !r->prefix) {
		free(r);
		p->c->out_of_memory = 1;
		return NULL;
	}
	r->verbs = verbs;
	r->file = p->file;
	r->line = p->line;
	r->next = p->c->rules;
	p->c->rules = r;
	return r;
}

static int parse_rule(struct parse *p, const char *prefix, const char *key, const char *value)
{
	char words[512], *save = NULL;
	struct rule *r = NULL;
	unsigned verb = verb_find(key);

	if (verb == VERBS)
		return fault(p, "'%s' is no verb: publish, subscribe, observe, create, watch or administer", key);
	/* A list may go on in further lines. */
	for (r = p->c->rules; r && !(r->file == p->file && r->verbs == 1u << verb && !strcmp(r->prefix, prefix));)
		r = r->next;
	if (!r)
		r = rule_new(p, prefix, 1u << verb);
	if (!r)
		return 0;
	snprintf(words, sizeof(words), "%s", value);
	for (char *w = strtok_r(words, " ,\t", &save); w; w = strtok_r(NULL, " ,\t", &save)) {
		struct who *more = realloc(r->list, (r->n + 1) * sizeof(*more));

		if (!more) {
			p->c->out_of_memory = 1;
			return 0;
		}
		r->list = more;
		if (parse_who(p, w, &more[r->n]) == 0)
			r->n++;
	}
	return 0;
}

static int parse_broker(struct parse *p, const char *key, const char *value)
{
	char *end;

	if (strcmp(key, "linger") != 0)
		return fault(p, "[broker] has no '%s': only linger", key);
	p->c->linger = strtod(value, &end);
	if (end == value || *end || !(p->c->linger >= 0) || p->c->linger > 1e6)
		return fault(p, "linger: '%s' is not a number of seconds from 0 to 1000000", value);
	return 0;
}

static int parse_tickets(struct parse *p, const char *key, const char *value)
{
	if (strcmp(key, "keys") != 0)
		return fault(p, "[tickets] has no '%s': only keys", key);
	if (*value != '/')
		return fault(p, "keys: '%s' is no absolute path", value);
	free(p->c->keys);
	p->c->keys = strdup(value);
	p->c->out_of_memory |= !p->c->keys;
	return 0;
}

/* "limits", or "limits user:NAME". */
static struct limits *limits_of(struct parse *p, const char *section)
{
	struct limits *l, **at = &p->c->limits;
	struct who who = {EVERYBODY, 0};
	char word[128];

	snprintf(word, sizeof(word), "%s", section + strlen("limits") + (section[strlen("limits")] == ' '));
	if (*word && (parse_who(p, word, &who) < 0 || who.kind != A_UID)) {
		if (who.kind != A_UID)
			fault(p, "[limits %s]: limits are one user's (uid:N, user:NAME), or, without a word, everybody's", word);
		return NULL;
	}
	while (*at && ((*at)->all != !*word || (*at)->uid != who.id))
		at = &(*at)->next;
	if (*at)
		return *at;
	l = calloc(1, sizeof(*l));
	if (!l) {
		p->c->out_of_memory = 1;
		return NULL;
	}
	l->all = !*word;
	l->uid = who.id;
	if (!l->all)
		at = &p->c->limits;
	l->next = *at;
	*at = l;
	return l;
}

static int parse_limit(struct parse *p, const char *section, const char *key, const char *value)
{
	struct limits *l = limits_of(p, section);
	char *end;
	uint64_t v = strtoull(value, &end, 10);
	unsigned what = 0, shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;

	while (what < REQUESTS && strcmp(quota_names[what], key) != 0)
		what++;
	if (what == REQUESTS && strcmp(key, "requests") != 0)
		return fault(p, "[limits] has no '%s': memory, channels, publishers, subscribers, clients, descriptors, watches, "
				"requests", key);
	if (*value < '0' || *value > '9' || end[shift > 0] || v > UINT64_MAX >> 1 >> shift)
		return fault(p, "%s: '%s' is no number (with K, M or G)", key, value);
	if (l) {
		l->v[what] = v << shift;
		l->set |= 1u << what;
	}
	return 0;
}

/* inih's handler: a key of a section; its lines come one by one from next_line(). */
static int on_key(void *arg, const char *section, const char *key, const char *value)
{
	struct parse *p = arg;
	char prefix[LEAT__NAME_MAX + 2];
	size_t n;

	if (p->main && !strcmp(section, "broker"))
		return parse_broker(p, key, value), 1;
	if (p->main && !strcmp(section, "tickets"))
		return parse_tickets(p, key, value), 1;
	if (p->main && !strncmp(section, "limits", 6) && (!section[6] || section[6] == ' '))
		return parse_limit(p, section, key, value), 1;
	if (!*section)
		return fault(p, "'%s' is in no section: begin with %s", key, p->main ? "[broker] or [*]" : "[the prefix]"), 1;
	snprintf(prefix, sizeof(prefix), "%s", strcmp(section, "*") ? section : "");
	n = strlen(prefix);
	if (n && prefix[n - 1] == '/')
		prefix[n - 1] = 0;
	if (*prefix && leat__name_check(prefix) < 0)
		return fault(p, "[%s] is no prefix of names: %s", section, leat_why()), 1;
	if (!p->main && !(*prefix && name_is_below(prefix, p->prefix)))
		return fault(p, "[%s]: this file speaks for %s only", section, p->prefix), 1;
	return parse_rule(p, prefix, key, value), 1;
}

static char *next_line(char *to, int size, void *arg)
{
	struct parse *p = arg;
	const char *nl = p->at < p->end ? memchr(p->at, '\n', (size_t)(p->end - p->at)) : NULL;
	size_t n = (size_t)((nl ? nl + 1 : p->end) - p->at);

	if (!n || size < 2)
		return NULL;
	p->line++;
	if (n >= (size_t)size) {
		fault(p, "a line of over %d bytes: put the list on several", size - 2);
		p->at += n;
		return strcpy(to, "\n");
	}
	memcpy(to, p->at, n);
	to[n] = 0;
	if (memchr(to, 0, n)) {
		fault(p, "this is no text");
		strcpy(to, "\n");
	}
	p->at += n;
	return to;
}

static void rules_drop(struct config *c, const char *file)
{
	struct rule **at = &c->rules;

	while (*at) {
		struct rule *r = *at;

		if (file && r->file != file) {
			at = &r->next;
			continue;
		}
		*at = r->next;
		free(r->prefix);
		free(r->list);
		free(r);
	}
}

static void parse_file(struct config *c, char *file, const char *prefix, const char *text, long size, int is_main)
{
	struct parse p = {.c = c, .at = text, .end = text + (size > 0 ? size : 0), .file = file, .prefix = prefix,
			  .main = is_main};
	struct rule *closed;
	int e;

	if (size < 0) {
		fault(&p, "it cannot be read");
	} else if (!is_main && leat__name_check(prefix) < 0) {
		fault(&p, "its name is no prefix of names: %s", leat_why());
	} else {
		e = ini_parse_stream(next_line, &p, on_key, &p);
		if (e > 0 && !p.faults) {
			p.line = (unsigned)e;
			fault(&p, "neither [section] nor key = value");
		}
	}
	if (!p.faults || is_main)
		return;
	rules_drop(c, file);
	closed = rule_new(&p, prefix, (1u << VERBS) - 1);
	if (closed)
		closed->closed = 1;
}

int config_parse(const char *text, size_t size, struct config **ret)
{
	struct config *c = calloc(1, sizeof(*c));
	const char *at = text, *end = text + size;
	int e = c ? 0 : -ENOMEM;

	if (c)
		c->linger = -1;
	for (int first = 1; e == 0 && at < end; first = 0) {
		const char *nl = memchr(at, '\n', (size_t)(end - at));
		char head[5000], prefix[512] = "", path[4300] = "", **more;
		long n = -2;

		if (nl && nl - at < (long)sizeof(head)) {
			char *tab, *tab2;

			memcpy(head, at, (size_t)(nl - at));
			head[nl - at] = 0;
			tab = strchr(head, '\t');
			tab2 = tab ? strchr(tab + 1, '\t') : NULL;
			if (tab2) {
				n = strtol(head, NULL, 10);
				snprintf(prefix, sizeof(prefix), "%.*s", (int)(tab2 - tab - 1), tab + 1);
				snprintf(path, sizeof(path), "%.4200s", tab2 + 1);
			}
		}
		if (!nl || n < -1 || n > end - nl - 1) {
			e = leat__say(-EINVAL, "the configuration that was kept is not whole");
			break;
		}
		more = realloc(c->files, (c->n_files + 1) * sizeof(*more));
		if (more)
			c->files = more;
		if (!more || !(more[c->n_files] = strdup(path))) {
			e = -ENOMEM;
			break;
		}
		parse_file(c, more[c->n_files++], prefix, nl + 1, n, first);
		at = nl + 1 + (n > 0 ? n : 0);
		if (first && c->n_faults)
			e = leat__fail(-EINVAL, "%s", c->faults[0]);
	}
	if (c && c->out_of_memory)
		e = -ENOMEM;
	if (e == -ENOMEM)
		leat__say(e, "no memory for the configuration");
	if (e < 0) {
		config_free(c);
		return e;
	}
	*ret = c;
	return c->n_faults > 0;
}

void config_free(struct config *c)
{
	if (!c)
		return;
	rules_drop(c, NULL);
	while (c->limits) {
		struct limits *l = c->limits;

		c->limits = l->next;
		free(l);
	}
	for (unsigned i = 0; i < c->n_faults; i++)
		free(c->faults[i]);
	for (unsigned i = 0; i < c->n_files; i++)
		free(c->files[i]);
	free(c->faults);
	free(c->files);
	free(c->keys);
	free(c);
}

const char *config_fault(const struct config *c, unsigned i)
{
	return i < c->n_faults ? c->faults[i] : NULL;
}

double config_linger(const struct config *c)
{
	return c->linger;
}

const char *config_keys(const struct config *c)
{
	return c->keys;
}

uint64_t config_limit(const struct config *c, uid_t owner, uid_t uid, unsigned what)
{
	/* What one user needs at most, on a host of many: a channel of two, a hundred times. */
	static const uint64_t usual[LIMITS] = {
		[LEAT__Q_MEMORY] = UINT64_C(1) << 30, [LEAT__Q_CHANNELS] = 4096, [LEAT__Q_PUBLISHERS] = 4096,
		[LEAT__Q_SUBSCRIBERS] = 4096, [LEAT__Q_CLIENTS] = 256, [LEAT__Q_DESCRIPTORS] = 8192,
		[LEAT__Q_WATCHES] = 256, [REQUESTS] = 20000,
	};

	if (uid == 0 || uid == owner)
		return UINT64_MAX;
	for (const struct limits *l = c->limits; l; l = l->next)
		if ((l->all || l->uid == uid) && (l->set & 1u << what))
			return l->v[what];
	return usual[what];
}

/* ---- deciding ---- */

static int has_ticket(const struct person *who, enum verb verb, const char *name)
{
	for (unsigned i = 0; i < who->n_tickets; i++)
		if (ticket_covers(&who->tickets[i], verb, name))
			return 1;
	return 0;
}

static int is_one_of(const struct person *who, const struct rule *r, enum verb verb, const char *name)
{
	for (unsigned i = 0; i < r->n; i++) {
		const struct who *w = &r->list[i];

		if (w->kind == EVERYBODY || (w->kind == A_UID && w->id == who->uid) || (w->kind == A_GID && w->id == who->gid) ||
		    (w->kind == A_TICKET && has_ticket(who, verb, name)))
			return 1;
		for (unsigned g = 0; w->kind == A_GID && g < who->n_groups; g++)
			if (who->groups[g] == w->id)
				return 1;
	}
	return 0;
}

/* What lets @who do anything with @name, rules or not; NULL. */
static const char *needs_no_rule(uid_t owner, const struct person *who, const char *name)
{
	char own[24];

	if (who->uid == 0 || who->uid == owner)
		return "root and the broker's own user may do anything";
	snprintf(own, sizeof(own), "u/%u", (unsigned)who->uid);
	return name_is_below(name, own) && strcmp(name, own) != 0 ? "names below u/UID belong to that user" : NULL;
}

/* Does @r, which is for the name, decide rather than @best? */
static int decides(const struct rule *r, const struct rule *best)
{
	size_t n = strlen(r->prefix), m = best ? strlen(best->prefix) : 0;

	return !best || n > m || (r->closed && n == m);
}

int policy_may(const struct config *c, uid_t owner, const struct person *who, enum verb verb, const char *name,
	       struct ruling *ret)
{
	const struct rule *best = NULL;
	struct ruling nowhere;

	ret = ret ? ret : &nowhere;
	*ret = (struct ruling){NULL, 0, needs_no_rule(owner, who, name)};
	if (ret->what)
		return 1;
	for (const struct rule *r = c->rules; r; r = r->next)
		if ((r->verbs & 1u << verb) && name_is_below(name, r->prefix) && decides(r, best))
			best = r;
	if (!best) {
		ret->what = "no rule is for that";
		return 0;
	}
	*ret = (struct ruling){best->file, best->line, best->closed ? "this file is wrong, and closes what it is for" :
			       is_one_of(who, best, verb, name) ? "is in this list" : "is not in this list"};
	return !best->closed && is_one_of(who, best, verb, name);
}

/* All verbs in one walk: whoever lists names asks this of each. */
int policy_sees(const struct config *c, uid_t owner, const struct person *who, const char *name)
{
	const struct rule *best[VERBS] = {NULL};

	if (needs_no_rule(owner, who, name))
		return 1;
	for (const struct rule *r = c->rules; r; r = r->next) {
		unsigned verbs = name_is_below(name, r->prefix) ? r->verbs : 0;

		for (unsigned v = 0; verbs >> v; v++)
			if ((verbs & 1u << v) && decides(r, best[v]))
				best[v] = r;
	}
	for (unsigned v = 0; v < VERBS; v++)
		if (v != V_CREATE && best[v] && !best[v]->closed && is_one_of(who, best[v], v, name))
			return 1;
	return 0;
}
