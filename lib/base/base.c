/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors in words, the log, time, options. Called by every other room; calls none of them, and
 * never prints, aborts or exits.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/atomic.h"
#include "base/base.h"

#ifdef LEAT__TSAN
uint32_t leat__tsan_fence;
#endif

#define STR1(x) #x
#define STR(x)  STR1(x)

static __thread char why_text[512];
static __thread const char *why;

static leat_log_fn *log_fn;
static void *log_arg;

const char *leat_version(void)
{
	return STR(LEAT_VERSION_MAJOR) "." STR(LEAT_VERSION_MINOR) "." STR(LEAT_VERSION_PATCH);
}

const char *leat_why(void)
{
	return why ? why : "";
}

int leat__fail(int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why_text, sizeof(why_text), fmt, ap);
	va_end(ap);
	why = why_text;
	return err;
}

int leat__say(int err, const char *text)
{
	why = text;
	return err;
}

void leat_log_set(leat_log_fn *fn, void *arg)
{
	/* Meant to be called before anything else; the pair is not swapped as one. */
	__atomic_store_n(&log_arg, arg, __ATOMIC_RELEASE);
	__atomic_store_n(&log_fn, fn, __ATOMIC_RELEASE);
}

void leat__log(enum leat_log_level level, const char *fmt, ...)
{
	leat_log_fn *fn = __atomic_load_n(&log_fn, __ATOMIC_ACQUIRE);
	char text[512];
	va_list ap;

	if (!fn)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fn(level, text, __atomic_load_n(&log_arg, __ATOMIC_ACQUIRE));
}

uint64_t leat__now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t leat__deadline(int64_t timeout_ns)
{
	if (timeout_ns < 0)
		return LEAT__NEVER;
	return leat__now() + (uint64_t)timeout_ns; /* INT64_MAX + uptime fits in 64 bits */
}

uint64_t leat__hash(const void *data, size_t size)
{
	const unsigned char *p = data;
	uint64_t h = 0xcbf29ce484222325u;

	while (size--)
		h = (h ^ *p++) * 0x100000001b3u;
	return h;
}

int leat__opts(void *ours, size_t our_size, const void *theirs, const char *what)
{
	size_t size;

	memset(ours, 0, our_size);
	if (!theirs)
		return 0;
	memcpy(&size, theirs, sizeof(size));
	if (size < sizeof(size) || size > 4096)
		return leat__fail(-EINVAL, "%s: struct_size is %zu; set it to sizeof the struct",
				  what, size);
	memcpy(ours, theirs, size < our_size ? size : our_size);
	/* A newer caller may only leave unset what this library does not know. */
	for (size_t i = our_size; i < size; i++)
		if (((const unsigned char *)theirs)[i])
			return leat__fail(-EINVAL, "%s: uses an option that leat %s does not know",
					  what, leat_version());
	return 0;
}

int leat__give(void *theirs, const void *ours, size_t our_size, const char *what)
{
	size_t size = 0;

	if (theirs)
		memcpy(&size, theirs, sizeof(size));
	if (size < sizeof(size) || size > 4096)
		return leat__fail(-EINVAL, "%s: set struct_size of the answer to sizeof the struct",
				  what);
	if (size > our_size)
		memset((char *)theirs + our_size, 0, size - our_size);
	memcpy((char *)theirs + sizeof(size), (const char *)ours + sizeof(size),
	       (size < our_size ? size : our_size) - sizeof(size));
	return 0;
}

int leat__read_file(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	ssize_t n;

	if (fd < 0)
		return -errno;
	do
		n = read(fd, buf, size - 1);
	while (n < 0 && errno == EINTR);
	int err = errno;
	close(fd);
	if (n < 0)
		return -err;
	buf[n] = 0;
	return (int)n;
}

static unsigned forks;
static pthread_once_t forks_once = PTHREAD_ONCE_INIT;

static void forked(void)
{
	forks++;
}

static void forks_watch(void)
{
	pthread_atfork(NULL, NULL, forked);
}

unsigned leat__forks(void)
{
	pthread_once(&forks_once, forks_watch);
	return forks;
}
