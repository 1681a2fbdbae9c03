/* SPDX-License-Identifier: Apache-2.0 */
/* Reading leatd.conf and policy.d: all text in one piece, each file's after a line "SIZE PREFIX PATH", between tabs. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/base.h"
#include "policy.h"

enum { FILE_MOST = 1 << 20, DEPTH_MOST = 8 };

struct text {
	char *at;
	size_t n, room;
};

static int text_add(struct text *t, const void *data, size_t size)
{
	size_t room = t->room ? t->room : 4096;
	char *at;

	while (room < t->n + size + 1)
		room *= 2;
	if (room != t->room) {
		at = realloc(t->at, room);
		if (!at)
			return leat__say(-ENOMEM, "no memory to read the configuration");
		t->at = at;
		t->room = room;
	}
	memcpy(t->at + t->n, data, size);
	t->n += size;
	t->at[t->n] = 0;
	return 0;
}

static int read_file(struct text *t, const char *path, const char *prefix)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), e = 0;
	char *buf = NULL, head[4400];
	struct stat st;
	ssize_t n = 0;

	if (fd < 0)
		return leat__fail(-errno, "read %s: %s", path, strerror(errno));
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_MOST)
		e = leat__fail(-EINVAL, "read %s: no file of text, or over 1 MiB", path);
	else if (!(buf = malloc((size_t)st.st_size + 1)))
		e = leat__say(-ENOMEM, "no memory to read the configuration");
	else if ((n = read(fd, buf, (size_t)st.st_size)) < 0)
		e = leat__fail(-errno, "read %s: %s", path, strerror(errno));
	close(fd);
	if (e == 0) {
		snprintf(head, sizeof(head), "%zd\t%s\t%s\n", n, prefix, path);
		e = text_add(t, head, strlen(head));
	}
	if (e == 0)
		e = text_add(t, buf, (size_t)n);
	free(buf);
	return e;
}

static int ends_in_conf(const char *name, size_t len)
{
	return len > 5 && !strcmp(name + len - 5, ".conf");
}

/* policy.d: NAME.conf is for NAME, DIR/NAME.conf for DIR/NAME. */
static int read_directory(struct text *t, const char *path, const char *prefix, int depth)
{
	struct dirent **list = NULL;
	int n = depth < DEPTH_MOST ? scandir(path, &list, NULL, alphasort) : 0, e = 0;

	if (n < 0)
		return errno == ENOENT ? 0 : leat__fail(-errno, "read directory %s: %s", path, strerror(errno));
	for (int i = 0; i < n; i++) {
		const char *name = list[i]->d_name;
		size_t len = strlen(name);
		char file[4200], below[512];
		struct stat st;

		snprintf(file, sizeof(file), "%s/%s", path, name);
		if (e == 0 && name[0] != '.' && stat(file, &st) == 0) {
			int is_dir = S_ISDIR(st.st_mode);

			snprintf(below, sizeof(below), "%s%s%.*s", prefix, *prefix ? "/" : "",
				 (int)(is_dir ? len : ends_in_conf(name, len) ? len - 5 : 0), name);
			e = is_dir ? read_directory(t, file, below, depth + 1) : ends_in_conf(name, len) ? read_file(t, file, below) : 0;
			if (e < 0 && e != -ENOMEM && !is_dir) { /* it closes what it is for */
				char head[4800];

				e = text_add(t, head, (size_t)snprintf(head, sizeof(head), "-1\t%s\t%s\n", below, file));
			}
		}
		free(list[i]);
	}
	free(list);
	return e;
}

int config_read(const char *path, char **ret, size_t *ret_size)
{
	const char *slash = strrchr(path, '/');
	char dir[4100];
	struct text t = {NULL, 0, 0};
	int e = read_file(&t, path, "");

	snprintf(dir, sizeof(dir), "%.*spolicy.d", (int)(slash ? slash - path + 1 : 0), path);
	if (e == 0)
		e = read_directory(&t, dir, "", 0);
	if (e < 0) {
		free(t.at);
		return e;
	}
	*ret = t.at;
	*ret_size = t.n;
	return 0;
}
