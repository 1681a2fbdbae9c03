/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded into a worker: while there is a file $LEAT_POISON, whoever makes a control region dies of it. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int memfd_create(const char *name, unsigned flags);

int memfd_create(const char *name, unsigned flags)
{
	const char *poison = getenv("LEAT_POISON");

	if (!strcmp(name, "leat-control") && poison && access(poison, F_OK) == 0)
		raise(SIGSEGV);
	return (int)syscall(SYS_memfd_create, name, flags);
}
