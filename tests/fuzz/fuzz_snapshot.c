/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log that a worker finds, of any records: it is loaded, and then everything there is can be used and taken away
 * again, or refused. The input is records; descriptors are rings, control regions and others.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/base.h"
#include "fuzz.h"
#include "mem/region.h"
#include "snapshot.h"

enum { KEYS = 32, START = 4096, MOST = 64 };

static int templates[KEYS];
static struct session *sessions[MOST];
static int n_sessions;

struct session *session_find(const struct broker *b, uint64_t client)
{
	(void)b;
	for (int i = 0; i < n_sessions; i++)
		if (sessions[i]->owner.client == client)
			return sessions[i];
	return NULL;
}

int session_adopt(const struct session *facts)
{
	struct session *s;

	if (n_sessions == MOST)
		return -ENOMEM;
	s = sessions[n_sessions++] = malloc(sizeof(*s));
	*s = *facts;
	s->objects = NULL;
	if (quota_come(facts->b->reg.quotas, &facts->owner) == 0)
		return 0;
	s->tickets = NULL; /* the caller's again */
	return -ENOMEM;
}

void session_end(struct session *s)
{
	(void)s;
}

void session_kick(struct session *s)
{
	(void)s;
}

int session_answer(struct session *s, const struct leat__out *out)
{
	(void)s;
	(void)out;
	return 0;
}

static void setup(void)
{
	struct leat_region *r;
	unsigned char *view;
	struct leat__geometry g;

	for (int i = 0; i < KEYS; i++) {
		struct leat_region_opts o = {.struct_size = sizeof(o), .kind = LEAT_MEMFD};

		if (i % 4 == 3) {
			templates[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
			continue;
		}
		must((i % 4 ? leat__ring_geometry(&g, 4096, 0, 0, 0, leat__page_size()) : leat__ctrl_geometry(&g, 2, 4, leat__page_size())) == 0);
		o.size = g.total;
		must(leat_region_create(&o, &r) == 0);
		if (i % 4) {
			must(leat__region_view(r, g.data_off, g.capacity, &view) == 0);
			must(leat__seal_ring(leat_region_fd(r)) == 0);
		}
		templates[i] = fcntl(leat_region_fd(r), F_DUPFD_CLOEXEC, 3);
		leat_region_close(r);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct broker b = {.lives = -1};
	size_t all = START + (size & ~(size_t)7);
	unsigned char *log = calloc(1, all);
	int fds[KEYS];

	if (!templates[0])
		setup();
	((struct store_head *)(void *)log)->magic = 0x676f6c6c;
	((struct store_head *)(void *)log)->version = 1;
	memcpy(log + START, data, size & ~(size_t)7);
	for (int i = 0; i < KEYS; i++)
		fds[i] = i % 8 == 7 ? -1 : fcntl(templates[i], F_DUPFD_CLOEXEC, 3);
	b.reg.quotas = quotas_new();
	n_sessions = 0;
	if (snapshot_load(&b, log, all, fds, KEYS) == 0) {
		struct channel *const *list;
		int n = registry_sorted(&b.reg, &list);

		for (int i = 0; i < n; i++)
			registry_tidy(&b.reg, list[i]);
		for (int i = 0; i < n_sessions; i++)
			while (sessions[i]->objects)
				object_end(sessions[i], sessions[i]->objects);
		registry_expire(&b.reg, UINT64_MAX);
	} else {
		for (int i = 0; i < n_sessions; i++)
			while (sessions[i]->objects) {
				struct object *o = sessions[i]->objects;

				sessions[i]->objects = o->next;
				free(o->prefix);
				free(o);
			}
		if (b.reg.watches) {
			b.reg.watches = 1;
			changes_watch(&b.reg, -1);
		}
	}
	while (b.reg.shares)
		share_end(&b.reg, b.reg.shares);
	for (int i = 0; i < n_sessions; i++) {
		if (sessions[i]->sock >= 0)
			close(sessions[i]->sock);
		if (sessions[i]->pidfd >= 0)
			close(sessions[i]->pidfd);
		must(sessions[i]->n_tickets <= TICKETS_MOST);
		for (unsigned k = 0; k < sessions[i]->n_tickets; k++)
			must(strlen(sessions[i]->tickets[k].prefix) <= LEAT__NAME_MAX);
		free(sessions[i]->tickets);
		free(sessions[i]);
	}
	registry_free(&b.reg);
	quotas_free(b.reg.quotas);
	for (int i = 0; i < KEYS; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	free(log);
	return 0;
}
