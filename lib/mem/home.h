/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_MEM_HOME_H
#define LEAT_MEM_HOME_H
/*
 * What an address is in every process that maps the same: a number made of the file behind it and where in that it
 * lies. Only sleeping by semaphores (sync/word_sem.c) asks; else there is nothing to remember.
 */
#include <stdint.h>

#ifdef LEAT__WAIT_SEMAPHORE
/* @size bytes of file @fd (-1: of SysV segment @id) are at @addr; and no more. */
void leat__home_add(const void *addr, uint64_t size, int fd, int id);
void leat__home_remove(const void *addr);
/* 0: it is not known. */
uint32_t leat__home_of(const void *addr);
#else
static inline void leat__home_add(const void *addr, uint64_t size, int fd, int id)
{
	(void)addr, (void)size, (void)fd, (void)id;
}
static inline void leat__home_remove(const void *addr)
{
	(void)addr;
}
#endif

#endif
