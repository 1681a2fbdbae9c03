/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_BASE_H
#define LEAT_BASE_H
/*
 * What every other header stands on: visibility, version, the last error in words.
 * Functions return an int: zero or more on success, -errno on failure.
 * Every size is in bytes, every time in nanoseconds on CLOCK_MONOTONIC. Manual: leat(7), leat_why(3).
 */
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define LEAT_BEGIN_DECLS extern "C" {
#define LEAT_END_DECLS   }
#else
#define LEAT_BEGIN_DECLS
#define LEAT_END_DECLS
#endif

#define LEAT_API __attribute__((visibility("default")))

#define LEAT_VERSION_MAJOR 0
#define LEAT_VERSION_MINOR 1
#define LEAT_VERSION_PATCH 0

/* A timeout that never runs out; the wait still watches for death. */
#define LEAT_FOREVER ((int64_t)-1)

LEAT_BEGIN_DECLS

/*
 * The version of the library that is running, "0.1.0". Static; never NULL.
 */
LEAT_API const char *leat_version(void);

/*
 * This thread's last failure in one sentence: what was tried, on what, why it failed, what to do.
 * Borrowed until the next call into leat on this thread; "" if nothing has failed.
 */
LEAT_API const char *leat_why(void);

enum leat_log_level { LEAT_LOG_DEBUG = 0, LEAT_LOG_INFO = 1, LEAT_LOG_WARNING = 2 };
typedef void leat_log_fn(enum leat_log_level level, const char *text, void *arg);

/*
 * Hand what the library has to say to @fn, from any thread that calls into leat; NULL: silence (the
 * default). The library itself never prints.
 */
LEAT_API void leat_log_set(leat_log_fn *fn, void *arg);

LEAT_END_DECLS
#endif
