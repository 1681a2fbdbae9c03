/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the configuration, putting it in force, and handing it on; see configure.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/base.h"
#include "configure.h"
#include "log.h"
#include "snapshot.h"

/* @conf is in force from now on, with @keys. What is not right in it is said. */
static void apply(const struct configure *c, struct config *conf, struct ticket_keys *keys)
{
	struct broker *b = c->b;
	double linger = c->linger >= 0 ? c->linger : config_linger(conf) >= 0 ? config_linger(conf) : LINGER;

	for (unsigned i = 0; config_fault(conf, i); i++)
		log_event(LOG_IS_ERROR, "policy-closed", "why=\"%s: what this file is for is closed\"", config_fault(conf, i));
	config_free(b->config);
	ticket_keys_free(b->keys);
	b->config = conf;
	b->keys = keys;
	b->reg.linger_ns = (uint64_t)(linger * 1e9);
}

/* The keys in @fd, or, where that is -1, in the file that @conf names. *fd: the caller's, of that file. */
static int find_keys(const struct config *conf, int *fd, struct ticket_keys **ret)
{
	const char *path = config_keys(conf), *why = "";
	int e = *fd;

	*ret = NULL;
	if (!path)
		return 0;
	if (e < 0)
		*fd = e = ticket_keys_open(path, &why);
	if (e >= 0)
		e = ticket_keys_read(*fd, ret, &why);
	if (e < 0)
		return leat__fail(e, "read the keys of tickets, %s: %s", path, why);
	if (e > 0)
		log_event(LOG_IS_WARNING, "keys-unlocked", "file=%s why=\"they may be written to swap: raise LimitMEMLOCK\"", path);
	return 0;
}

/* For those who come after us. The file of keys itself, so that there is no copy of them. */
static int keep(const struct broker *b, const char *text, size_t size, int keys)
{
	int fd = memfd_create("leat-config", MFD_CLOEXEC), e;

	if (fd < 0 || write(fd, text, size) != (ssize_t)size)
		e = leat__fail(-errno, "keep the configuration: %s", strerror(errno));
	else
		e = keys >= 0 ? store_keep(b->reg.store, keys, &(uint32_t){KEY_TICKETS}) : 0;
	if (e == 0)
		e = store_keep(b->reg.store, fd, &(uint32_t){KEY_CONFIG});
	if (e == 0 && keys < 0)
		store_drop(b->reg.store, KEY_TICKETS);
	if (fd >= 0)
		close(fd);
	return e;
}

/* What is wrong in policy.d closes what it is for; without keys, no ticket counts. */
static int begin(const struct configure *c, const char *text, size_t size, int keys_fd, int is_kept)
{
	struct ticket_keys *keys = NULL;
	struct config *conf;
	int e = config_parse(text, size, &conf), fd = keys_fd;

	if (e < 0)
		return e;
	if (find_keys(conf, &fd, &keys) < 0)
		log_event(LOG_IS_ERROR, "tickets-closed", "why=\"%s\"", leat_why());
	e = is_kept ? 0 : keep(c->b, text, size, keys ? fd : -1);
	if (fd >= 0 && fd != keys_fd)
		close(fd);
	if (e < 0) {
		config_free(conf);
		ticket_keys_free(keys);
		return e;
	}
	apply(c, conf, keys);
	return 0;
}

static int begin_kept(const struct configure *c, int fd, int keys)
{
	off_t size = lseek(fd, 0, SEEK_END);
	char *text = size >= 0 ? malloc((size_t)size + 1) : NULL;
	int e = leat__say(-EBADMSG, "the configuration that was kept is not whole");

	if (text && pread(fd, text, (size_t)size, 0) == size)
		e = begin(c, text, (size_t)size, keys, 1);
	free(text);
	return e;
}

int configure_begin(const struct configure *c, int *fds, uint32_t n)
{
	char *text;
	size_t size;
	int e;

	if (!c->path)
		return 0;
	if (n > KEY_TICKETS && fds[KEY_CONFIG] >= 0) {
		e = begin_kept(c, fds[KEY_CONFIG], fds[KEY_TICKETS]);
	} else {
		e = config_read(c->path, &text, &size);
		if (e == 0) {
			e = begin(c, text, size, -1, 0);
			free(text);
		}
	}
	for (uint32_t key = KEY_CONFIG; key <= KEY_TICKETS && key < n; key++)
		if (fds[key] >= 0) {
			close(fds[key]);
			fds[key] = -1;
		}
	return e;
}

/* What is open stays open, whatever the rules say by now: name it. */
static void log_what_stays(const struct broker *b)
{
	static const enum verb verbs[] = {[PUBLISHER] = V_PUBLISH, [SUBSCRIBER] = V_SUBSCRIBE, [SHARER] = V_PUBLISH};
	unsigned n = 0;

	for (const struct session *s = b->sessions; s; s = s->next)
		for (const struct object *o = s->objects; o; o = o->next) {
			const char *name = o->kind == SHARER ? o->share->name : o->channel ? o->channel->name : NULL;
			int observes = o->kind == SUBSCRIBER && o->channel->slots[o->slot].mode == LEAT__OBSERVING;

			if (!name || o->kind == LOOKER || session_may(s, observes ? V_OBSERVE : verbs[o->kind], name) == 0 ||
			    (observes && session_may(s, V_SUBSCRIBE, name) == 0))
				continue;
			n++;
			log_event(LOG_IS_WARNING, "stays-open", "client=%llu uid=%u pid=%d program=\"%s\" verb=%s name=%s",
				  (unsigned long long)s->owner.client, (unsigned)s->owner.uid, (int)s->owner.pid, s->owner.program,
				  verb_name(observes ? V_OBSERVE : verbs[o->kind]), name);
		}
	if (n)
		log_event(LOG_IS_WARNING, "reload-refuses", "open=%u why=\"the rules in force would refuse them: leat kick ends them\"", n);
}

void configure_again(const struct configure *c)
{
	struct ticket_keys *keys = NULL;
	struct config *conf = NULL;
	char *text = NULL;
	size_t size;
	int e, fd = -1;

	if (!c->path)
		return;
	e = config_read(c->path, &text, &size);
	if (e == 0)
		e = config_parse(text, size, &conf);
	if (e > 0) {
		for (unsigned i = 0; config_fault(conf, i); i++)
			log_event(LOG_IS_ERROR, "policy-wrong", "why=\"%s\"", config_fault(conf, i));
		e = leat__say(-EINVAL, "see above");
	}
	if (e == 0)
		e = find_keys(conf, &fd, &keys);
	if (e == 0)
		e = keep(c->b, text, size, fd);
	if (e < 0) {
		log_event(LOG_IS_ERROR, "reload-failed", "file=%s why=\"%s; what was in force stays\"", c->path, leat_why());
		config_free(conf);
		ticket_keys_free(keys);
	} else {
		apply(c, conf, keys);
		broker_commit(c->b);
		log_event(LOG_IS_INFO, "reloaded", "file=%s", c->path);
		log_what_stays(c->b);
	}
	if (fd >= 0)
		close(fd);
	free(text);
}
