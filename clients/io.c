/* SPDX-License-Identifier: Apache-2.0 */
/* What subcommands read, and commands that they run. */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cli.h"

/* All of @f; the caller frees @ret. */
static int slurp(FILE *f, char **ret, size_t *size)
{
	size_t room = 65536, n;
	char *buf = malloc(room);

	*size = 0;
	while (buf && (n = fread(buf + *size, 1, room - *size, f)) > 0) {
		*size += n;
		if (*size == room) {
			char *more = realloc(buf, room *= 2);

			if (!more)
				free(buf);
			buf = more;
		}
	}
	*ret = buf;
	return !buf ? -ENOMEM : ferror(f) ? -errno : 0;
}

int cli_read(const struct cli_command *cmd, const char *file, char **ret, size_t *size)
{
	FILE *f = file ? fopen(file, "rb") : stdin;
	int e = f ? slurp(f, ret, size) : -errno;

	if (e < 0)
		fprintf(stderr, "leat %s: read %s: %s\n", cmd->name, file ? file : "standard input", strerror(-e));
	if (f && file)
		fclose(f);
	return e < 0 ? CLI_FAILED : 0;
}

/* The message in a file of its own: who does not read it is no trouble. -1 after saying why. */
static int message_file(const struct cli_command *cmd, const char *on, const void *data, size_t size)
{
	int fd = memfd_create("leat-message", MFD_CLOEXEC);
	ssize_t n = 0;

	for (size_t done = 0; fd >= 0 && n >= 0 && done < size; done += (size_t)n)
		n = write(fd, (const char *)data + done, size - done);
	if (fd < 0 || n < 0 || lseek(fd, 0, SEEK_SET) < 0) {
		fprintf(stderr, "leat %s: %s: a file for the message: %s\n", cmd->name, on, strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

int cli_run(const struct cli_command *cmd, const char *on, char **command, const void *data, size_t size, int out)
{
	int fd = message_file(cmd, on, data, size), e, status = -1;
	posix_spawn_file_actions_t fa;
	pid_t pid;

	if (fd < 0)
		return -1;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, fd, STDIN_FILENO);
	if (out >= 0)
		posix_spawn_file_actions_adddup2(&fa, out, STDOUT_FILENO);
	e = posix_spawnp(&pid, command[0], &fa, NULL, command, environ);
	posix_spawn_file_actions_destroy(&fa);
	close(fd);
	if (e) {
		fprintf(stderr, "leat %s: run %s: %s\n", cmd->name, command[0], strerror(e));
		return -1;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status == 0;
}
