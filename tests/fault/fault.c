/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded: makes the k-th call of a family fail, once, as if the machine had run out. Armed by fault_arm(), or
 * by LEAT_FAULT=FAMILY:K in the environment for the whole life of a program. And a wall clock that jumps by an
 * hour with every look at it, when LEAT_FAULT=clock.
 */
#undef _FILE_OFFSET_BITS /* both names of each function are ours */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum family { NONE, HEAP, MAP, FILES, SOCKETS, THREADS, FUTEX };
static const char *const names[] = {"none", "heap", "map", "files", "sockets", "threads", "futex"};

static atomic_int armed;
static atomic_long left;
static atomic_int hits;
static int jumping;

void fault_arm(const char *family, long k);
int fault_hits(void);

void fault_arm(const char *family, long k)
{
	atomic_store(&armed, NONE);
	atomic_store(&left, k);
	atomic_store(&hits, 0);
	for (int i = 1; i < 7; i++)
		if (!strcmp(family, names[i]))
			atomic_store(&armed, i);
}

int fault_hits(void)
{
	return atomic_load(&hits);
}

__attribute__((constructor)) static void from_environment(void)
{
	const char *v = getenv("LEAT_FAULT"), *colon = v ? strchr(v, ':') : NULL;
	char family[16] = "";

	jumping = v && !strcmp(v, "clock");
	if (!colon || colon - v > 15)
		return;
	memcpy(family, v, (size_t)(colon - v));
	fault_arm(family, strtol(colon + 1, NULL, 10));
}

static int due(enum family f)
{
	if (atomic_load(&armed) != (int)f || atomic_fetch_sub(&left, 1) != 1)
		return 0;
	atomic_fetch_add(&hits, 1);
	return 1;
}

#define REAL(name) __extension__({                                                                 \
	static __typeof__(&name) real_;                                                            \
	if (!real_)                                                                                \
		real_ = (__typeof__(&name))dlsym(RTLD_NEXT, #name);                                \
	real_;                                                                                     \
})

#define FAIL(family, err, result)                                                                  \
	do {                                                                                       \
		if (due(family)) {                                                                 \
			errno = (err);                                                             \
			return result;                                                             \
		}                                                                                  \
	} while (0)

/* glibc's own names: dlsym allocates. */
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);

void *malloc(size_t n)
{
	FAIL(HEAP, ENOMEM, NULL);
	return __libc_malloc(n);
}

void *calloc(size_t n, size_t m)
{
	FAIL(HEAP, ENOMEM, NULL);
	return __libc_calloc(n, m);
}

void *realloc(void *p, size_t n)
{
	FAIL(HEAP, ENOMEM, NULL);
	return __libc_realloc(p, n);
}

void *mmap(void *a, size_t n, int prot, int flags, int fd, off_t off)
{
	FAIL(MAP, ENOMEM, MAP_FAILED);
	return (void *)syscall(SYS_mmap, a, n, prot, flags, fd, off);
}

void *mmap64(void *a, size_t n, int prot, int flags, int fd, off64_t off)
{
	FAIL(MAP, ENOMEM, MAP_FAILED);
	return (void *)syscall(SYS_mmap, a, n, prot, flags, fd, off);
}

int ftruncate(int fd, off_t n)
{
	FAIL(FILES, ENOSPC, -1);
	return (int)syscall(SYS_ftruncate, fd, n);
}

int ftruncate64(int fd, off64_t n)
{
	FAIL(FILES, ENOSPC, -1);
	return (int)syscall(SYS_ftruncate, fd, n);
}

int fallocate(int fd, int mode, off_t off, off_t n)
{
	FAIL(FILES, ENOSPC, -1);
	return (int)syscall(SYS_fallocate, fd, mode, off, n);
}

int fallocate64(int fd, int mode, off64_t off, off64_t n)
{
	FAIL(FILES, ENOSPC, -1);
	return (int)syscall(SYS_fallocate, fd, mode, off, n);
}

int memfd_create(const char *name, unsigned flags)
{
	FAIL(FILES, EMFILE, -1);
	return (int)syscall(SYS_memfd_create, name, flags);
}

int open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	FAIL(FILES, EMFILE, -1);
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	FAIL(FILES, EMFILE, -1);
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int socket(int domain, int type, int protocol)
{
	FAIL(SOCKETS, EMFILE, -1);
	return (int)syscall(SYS_socket, domain, type, protocol);
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
	FAIL(SOCKETS, ENOBUFS, -1);
	return syscall(SYS_sendmsg, fd, m, flags);
}

ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
	FAIL(SOCKETS, ENOMEM, -1);
	return syscall(SYS_recvmsg, fd, m, flags);
}

int accept4(int fd, __SOCKADDR_ARG a, socklen_t *restrict n, int flags)
{
	FAIL(SOCKETS, EMFILE, -1);
	return (int)syscall(SYS_accept4, fd, a.__sockaddr__, n, flags);
}

int eventfd(unsigned v, int flags)
{
	FAIL(THREADS, EMFILE, -1);
	return (int)syscall(SYS_eventfd2, v, flags);
}

int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg)
{
	if (due(THREADS))
		return EAGAIN;
	return REAL(pthread_create)(t, a, fn, arg);
}

long syscall(long n, ...)
{
	long a[6];
	va_list ap;

	va_start(ap, n);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (n == SYS_futex)
		FAIL(FUTEX, EINTR, -1);
	return REAL(syscall)(n, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- the clock on the wall ---- */

int clock_gettime(clockid_t id, struct timespec *ts)
{
	static atomic_int n;
	int r = REAL(clock_gettime)(id, ts);

	if (jumping && id == CLOCK_REALTIME)
		ts->tv_sec += atomic_fetch_add(&n, 1) % 2 ? 3600 : -3600;
	return r;
}

int gettimeofday(struct timeval *tv, void *tz)
{
	struct timespec ts;

	(void)tz;
	clock_gettime(CLOCK_REALTIME, &ts);
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *t)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (t)
		*t = ts.tv_sec;
	return ts.tv_sec;
}

/* These wait by the wall clock. */
int pthread_mutex_timedlock(pthread_mutex_t *m, const struct timespec *ts)
{
	if (jumping)
		raise(SIGKILL);
	return REAL(pthread_mutex_timedlock)(m, ts);
}

int sem_timedwait(sem_t *s, const struct timespec *ts)
{
	if (jumping)
		raise(SIGKILL);
	return REAL(sem_timedwait)(s, ts);
}

int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *ts)
{
	if (jumping)
		raise(SIGKILL);
	return REAL(pthread_cond_timedwait)(c, m, ts);
}
