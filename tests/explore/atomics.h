/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_TESTS_EXPLORE_ATOMICS_H
#define LEAT_TESTS_EXPLORE_ATOMICS_H
/* What lib/base/atomic.h becomes when the ring's code runs in the explorer: every access is a choice. */
#include <stdint.h>

uint64_t explore_load(const void *at, unsigned size);
void explore_store(void *at, unsigned size, uint64_t v);
int explore_cas(void *at, unsigned size, uint64_t expected, uint64_t v);
uint64_t explore_add(void *at, unsigned size, uint64_t v, int or);
void explore_fence(void);

#define leat__load_relaxed(p)     ((__typeof__(*(p) + 0))explore_load((p), sizeof(*(p))))
#define leat__load_acquire(p)     leat__load_relaxed(p)
#define leat__store_relaxed(p, v) explore_store((p), sizeof(*(p)), (uint64_t)(v))
#define leat__store_release(p, v) leat__store_relaxed(p, v)
#define leat__fetch_or(p, v)      explore_add((p), sizeof(*(p)), (v), 1)
#define leat__fetch_add(p, v)     explore_add((p), sizeof(*(p)), (v), 0)
#define leat__cas(p, e, v)        explore_cas((p), sizeof(*(p)), (uint64_t)(e), (uint64_t)(v))
#define leat__fence()             explore_fence()
#define leat__fence_acquire()     ((void)0) /* loads are not reordered here, nor on x86 */

#endif
