/* SPDX-License-Identifier: Apache-2.0 */
/* Which file is mapped where in this process. Without locks, which a forked child might find taken. */
#include <stddef.h>
#include <sys/stat.h>
#include "base/atomic.h"
#include "base/base.h"
#include "mem/home.h"

#define HOMES 8192 /* more are not known: then too many are woken */

static struct home {
	uintptr_t base; /* 0: free; 1: being filled in */
	uint64_t size, file;
} homes[HOMES];
static uint32_t used; /* none beyond this was ever taken */

void leat__home_remove(const void *addr)
{
	for (uint32_t i = 0; addr && i < leat__load_acquire(&used); i++)
		if (leat__load_relaxed(&homes[i].base) == (uintptr_t)addr)
			leat__store_release(&homes[i].base, (uintptr_t)0);
}

/* Those of before that lie there are gone: a forked child does not have its parent's mappings. */
static void forget_below(uintptr_t base, uint64_t size)
{
	for (uint32_t i = 0; i < leat__load_acquire(&used); i++) {
		uintptr_t b = leat__load_acquire(&homes[i].base);

		if (b > 1 && b < base + size && base < b + homes[i].size)
			leat__cas(&homes[i].base, b, (uintptr_t)0);
	}
}

void leat__home_add(const void *addr, uint64_t size, int fd, int id)
{
	uint64_t file[2] = {0, (uint64_t)id};
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) == 0) {
		file[0] = st.st_dev + 1;
		file[1] = st.st_ino;
	} else if (id < 0) {
		return; /* memory of parent and children: at the same address, and so in the same place of its page */
	}
	forget_below((uintptr_t)addr, size);
	for (uint32_t i = 0; i < HOMES; i++) {
		uint32_t most = leat__load_relaxed(&used);

		if (leat__load_relaxed(&homes[i].base) || !leat__cas(&homes[i].base, (uintptr_t)0, (uintptr_t)1))
			continue;
		while (most <= i && !leat__cas(&used, most, i + 1))
			most = leat__load_relaxed(&used);
		homes[i].size = size;
		homes[i].file = leat__hash(file, sizeof(file));
		leat__store_release(&homes[i].base, (uintptr_t)addr);
		return;
	}
}

uint32_t leat__home_of(const void *addr)
{
	uint32_t most = leat__load_acquire(&used);

	for (uint32_t i = 0; i < most; i++) {
		uintptr_t b = leat__load_acquire(&homes[i].base);

		if (b > 1 && (uintptr_t)addr - b < homes[i].size) {
			uint64_t what[2] = {homes[i].file, (uintptr_t)addr - b};

			return (uint32_t)leat__hash(what, sizeof(what)) | 1;
		}
	}
	return 0;
}
