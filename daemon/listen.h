/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEATD_LISTEN_H
#define LEATD_LISTEN_H
#include <stddef.h>

/* Say on standard error what failed, on what, and why. -1. */
int complain(const char *what, const char *path, const char *why);

/* Where to serve @domain (NULL: the usual place). 0, or -1 having said why not. */
int listen_place(const char *domain, char *path, size_t size);
/* Listen there, alone; @open: for all users. The same. */
int listen_open(const char *path, int open, int *ret_sock, int *ret_lock);
/* Has systemd given us a socket to listen on? Then 1, and its path, whose room is @size; 0 it has not; -1, as above. */
int listen_given(char *path, size_t size, int *ret_sock, int *ret_lock);
/* For good; the path is the caller's to remove first, so that the next one can begin. */
void listen_close(const char *path, int sock, int lock);
/* To systemd, if it started us: "READY=1" and such. */
void listen_notify(const char *text);

#endif
