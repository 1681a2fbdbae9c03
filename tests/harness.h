/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEAT_TESTS_HARNESS_H
#define LEAT_TESTS_HARNESS_H
/*
 * What the suites share: a directory and broker of their own, children, random names, and the check
 * that a test left nothing behind. Every test runs in a process of its own (Check forks).
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>
#include <leat.h>
#include "base/base.h"

#define SEC INT64_C(1000000000)

/* Built with a sanitizer, that has memory and instructions of its own? */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

/* Fails with leat_why() in the message. */
#define ok(expr)                                                                                   \
	do {                                                                                       \
		int r_ = (expr);                                                                   \
		ck_assert_msg(r_ >= 0, "%s: %d (%s): %s", #expr, r_, strerror(-r_), leat_why());   \
	} while (0)
#define fails(expr, err)                                                                           \
	do {                                                                                       \
		int r_ = (expr);                                                                   \
		ck_assert_msg(r_ == -(err), "%s: %d (%s) instead of %s: %s", #expr, r_,            \
			      r_ < 0 ? strerror(-r_) : "success", strerror(err), leat_why());      \
		ck_assert_msg(leat_why()[0], "%s failed and says no why", #expr);                  \
	} while (0)
#define OPTS(type, ...)                                                                            \
	(&(struct type){.struct_size = sizeof(struct type), __VA_ARGS__})

/* The test's own temporary directory; removed when it ends. */
const char *tmp_dir(void);
const char *tmp_path(const char *name);
const char *random_name(void); /* a fresh channel name */

/* Start a broker of our own (once); its socket's path. Extra arguments end with NULL. */
const char *broker_start(const char *arg, ...);
pid_t broker_pid(void); /* the keeper's; its worker dies with it */
/* What a test found about one of the fifteen things that a broker is trusted for: tests/run.sh ends with them. */
__attribute__((format(printf, 2, 3))) void figure(int thing, const char *fmt, ...);
pid_t child_of(pid_t pid); /* the first; 0 */
pid_t worker_pid(void); /* 0: there is none just now */
void broker_signal(int sig); /* to both */
void broker_kill(int sig); /* ends both; waits */
void broker_forget(void); /* the test has waited for its end */
struct leat *broker_open(void);

/* A child's failed assertion goes to stderr: Check's own channel belongs to the test's process. */
void say_if_child(const char *file, int line, const char *expr, const char *msg, ...);
#define _ck_assert_failed(file, line, expr, ...)                                                   \
	(say_if_child(file, line, expr, __VA_ARGS__),                                              \
	 _ck_assert_failed(file, line, expr, __VA_ARGS__))

/* For what is asked millions of times: Check writes a line for every assertion that holds. */
#define must(cond, ...)                                                                            \
	do {                                                                                       \
		if (__builtin_expect(!(cond), 0))                                                  \
			ck_abort_msg(__VA_ARGS__);                                                 \
	} while (0)

/* Fork; the child runs @fn and exits 0 unless it fails. */
pid_t child(void (*fn)(void *), void *arg);
void child_ok(pid_t pid);   /* wait; it must have exited 0 */
void child_kill(pid_t pid); /* SIGKILL and reap */

/* Wait until @cond holds, at most 10 s. */
#define eventually(cond)                                                                           \
	do {                                                                                       \
		uint64_t until_ = leat__now() + 10 * SEC;                                          \
		while (!(cond)) {                                                                  \
			ck_assert_msg(leat__now() < until_, "never: %s", #cond);                   \
			usleep(1000);                                                              \
		}                                                                                  \
	} while (0)

int full(void);                        /* the long form? (LEAT_FULL=1) */
uint64_t rnd(void);                    /* random; the seed is printed when a test fails */
uint64_t at_least(uint64_t a, uint64_t b);

/* A message of @size bytes that says who, which and how long it is, and can be checked. */
void fill_message(void *at, size_t size, uint64_t seed);
int message_whole(const void *at, size_t size, uint64_t seed);

/* Everything that is open in this process: descriptors and shared mappings. */
int count_fds_of(pid_t pid);
int broker_fds(void); /* of keeper and worker, when both have nothing to do */
int broker_fds_back(int most); /* are they so many again, at most, in 10 s? If not it says which there are */
int count_fds(void);
int count_maps(const char *what);

/* Run the suite and print TAP. Fixtures check that nothing leaks. */
int run_suite(Suite *s);
TCase *leak_checked(Suite *s, const char *name, double timeout_s);
#define test(tc, name) tcase_add_test(tc, name)

#endif
