/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is there room? Asks the limits before the kernel has to say no with a signal: RLIMIT_FSIZE, the
 * filesystem, the cgroup, the machine. Called when regions are made and planned; changes nothing but
 * the file it is told to reserve.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "base/atomic.h"
#include "base/base.h"
#include "mem/region.h"

#define CHUNK (UINT64_C(16) << 20) /* a signal undoes at most so much of a reservation */

static uint64_t number_file(const char *path)
{
	char text[64];
	char *end;
	unsigned long long n;

	if (leat__read_file(path, text, sizeof(text)) < 0)
		return UINT64_MAX;
	n = strtoull(text, &end, 10);
	return end == text ? UINT64_MAX : n; /* "max" is no number: no limit */
}

/* The sum of the page cache lines of a memory.stat: what the kernel can take back. */
static uint64_t cgroup_cache(const char *path)
{
	static const char *const keys[] = {"\ninactive_file ", "\nactive_file "};
	static const char *const keys1[] = {"\ntotal_inactive_file ", "\ntotal_active_file "};
	char text[8192];
	uint64_t sum = 0;

	text[0] = '\n';
	if (leat__read_file(path, text + 1, sizeof(text) - 1) < 0)
		return 0;
	for (int i = 0; i < 2; i++) {
		const char *p = strstr(text, keys1[i]);
		const char *q = strstr(text, keys[i]);

		if (p)
			sum += strtoull(p + strlen(keys1[i]), NULL, 10);
		else if (q)
			sum += strtoull(q + strlen(keys[i]), NULL, 10);
	}
	return sum;
}

/* The least headroom on the way from @root/@path up to @root. */
static uint64_t cgroup_headroom(const char *root, char *path, const char *max, const char *used)
{
	uint64_t least = UINT64_MAX;

	for (;;) {
		char file[1024];
		uint64_t limit, usage, cache;

		snprintf(file, sizeof(file), "%s%s/%s", root, path, max);
		limit = number_file(file);
		if (limit < (UINT64_C(1) << 60)) {
			snprintf(file, sizeof(file), "%s%s/%s", root, path, used);
			usage = number_file(file);
			snprintf(file, sizeof(file), "%s%s/memory.stat", root, path);
			cache = cgroup_cache(file);
			if (usage != UINT64_MAX) {
				usage -= leat__min(usage, cache);
				least = leat__min(least, limit > usage ? limit - usage : 0);
			}
		}
		char *slash = strrchr(path, '/');
		if (!slash)
			return least;
		*slash = 0;
	}
}

static uint64_t cgroup_available(void)
{
	uint64_t least = UINT64_MAX;
	char text[4096];
	char *line, *save = NULL;

	if (leat__read_file("/proc/self/cgroup", text, sizeof(text)) < 0)
		return least;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *names = strchr(line, ':');
		char *path = names ? strchr(names + 1, ':') : NULL;

		if (!path)
			continue;
		*path++ = 0;
		names++;
		if (!strcmp(path, "/"))
			path[0] = 0;
		if (!*names) {
			char copy[4096];

			snprintf(copy, sizeof(copy), "%s", path);
			least = leat__min(least, cgroup_headroom("/sys/fs/cgroup", path, "memory.max",
								 "memory.current"));
			least = leat__min(least, cgroup_headroom("/sys/fs/cgroup/unified", copy,
								 "memory.max", "memory.current"));
		} else if (!strcmp(names, "memory")) {
			least = leat__min(least, cgroup_headroom("/sys/fs/cgroup/memory", path,
								 "memory.limit_in_bytes",
								 "memory.usage_in_bytes"));
		}
	}
	return least;
}

uint64_t leat__memory_available(const char **limit)
{
	uint64_t group = cgroup_available();
	uint64_t machine = UINT64_MAX;
	char text[4096];
	const char *p;

	if (leat__read_file("/proc/meminfo", text, sizeof(text)) > 0) {
		p = strstr(text, "MemAvailable:");
		if (p)
			machine = strtoull(p + 13, NULL, 10) * 1024;
		p = strstr(text, "SwapFree:");
		if (p && machine != UINT64_MAX)
			machine += strtoull(p + 9, NULL, 10) * 1024;
	}
	*limit = group < machine ? "the cgroup's memory limit" : "memory";
	return leat__min(group, machine);
}

#define SMALL    (UINT64_C(1) << 20)
#define GOOD_FOR UINT64_C(100000000)

/* Looking takes seven files, 20 us: for a small request a look that is a tenth of a second old will do,
 * less what has been asked for since. */
static int surely_room(uint64_t size)
{
	static uint64_t looked_at, left;
	uint64_t now = leat__now();
	const char *limit;

	if (size > SMALL)
		return 0;
	if (!leat__load_acquire(&looked_at) || now - leat__load_acquire(&looked_at) > GOOD_FOR) {
		leat__store_release(&left, leat__memory_available(&limit));
		leat__store_release(&looked_at, now);
	}
	if (leat__load_acquire(&left) < 64 * SMALL)
		return 0;
	leat__fetch_add(&left, -size);
	return 1;
}

int leat__memory_room(uint64_t size, const char *what)
{
	const char *limit;
	uint64_t free;

	if (surely_room(size))
		return 0;
	free = leat__memory_available(&limit);
	if (size <= free)
		return 0;
	return leat__fail(-ENOMEM, "%s: needs %llu bytes, %llu are free (%s): make it smaller or raise "
				   "the limit",
			  what, (unsigned long long)size, (unsigned long long)free, limit);
}

static int no_space(int fd, uint64_t size, const char *what, const char *name)
{
	struct statfs fs;
	uint64_t free = 0;

	if (fstatfs(fd, &fs) == 0)
		free = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
	return leat__fail(-ENOSPC, "%s %s: needs %llu bytes, %llu are free on that filesystem: free some "
				   "or make it smaller",
			  what, name, (unsigned long long)size, (unsigned long long)free);
}

int leat__reserve(int fd, uint64_t size, const char *what, const char *name)
{
	struct rlimit rl;
	struct statfs fs;

	/* Beyond RLIMIT_FSIZE the kernel sends SIGXFSZ: never let it come to that. */
	if (getrlimit(RLIMIT_FSIZE, &rl) == 0 && rl.rlim_cur != RLIM_INFINITY && size > rl.rlim_cur)
		return leat__fail(-EFBIG, "%s %s: needs %llu bytes, RLIMIT_FSIZE allows %llu: raise it "
					  "(ulimit -f)",
				  what, name, (unsigned long long)size,
				  (unsigned long long)rl.rlim_cur);
	/* A memfd's filesystem has no size of its own (f_blocks 0): memory is its limit. */
	if (fstatfs(fd, &fs) == 0 && fs.f_blocks &&
	    (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize < size)
		return no_space(fd, size, what, name);
	if (ftruncate(fd, (off_t)size) < 0)
		return leat__fail(-errno, "%s %s: set its size to %llu bytes: %s", what, name,
				  (unsigned long long)size, strerror(errno));
	for (uint64_t at = 0; at < size;) {
		uint64_t n = leat__min(CHUNK, size - at);
		int err = posix_fallocate(fd, (off_t)at, (off_t)n);

		if (err == EINTR)
			continue;
		if (err == ENOSPC)
			return no_space(fd, size, what, name);
		if (err)
			return leat__fail(-err, "%s %s: reserve %llu bytes: %s", what, name,
					  (unsigned long long)size, strerror(err));
		at += n;
	}
	return 0;
}
