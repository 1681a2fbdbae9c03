/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one message costs, read off the instructions: a child sends (and receives) under single-step;
 * between two breakpoints no system call, no locked instruction and no fence may be executed.
 * x86-64 only.
 */
#include "harness.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

#if defined(__x86_64__) && !defined(SANITIZED)
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#define MARK() __asm__ volatile("int3" ::: "memory")

enum what { SEND, RECV };

static void traced(enum what what)
{
	uint64_t data, control;
	struct leat_region *r;
	struct leat_pub *p;
	struct leat_sub *s;
	char b[64] = {0};

	ok(leat_ring_plan(NULL, &data, &control));
	ok(leat_region_create(OPTS(leat_region_opts, .kind = LEAT_MEMFD, .size = data + control), &r));
	ok(leat_ring_create(r, NULL, NULL, &p));
	ok(leat_ring_open(r, NULL, NULL, &s));
	for (int i = 0; i < 100; i++) {
		ok(leat_send(p, b, 64, 0));
		ok(leat_recv(s, b, 64, NULL, 0));
	}
	for (int i = 0; i < 101; i++)
		ok(leat_send(p, b, 64, 0));
	ok(leat_recv(s, b, 64, NULL, 0)); /* sees all that are there */
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	MARK();
	for (int i = 0; i < 100; i++) {
		if (what == SEND)
			leat_send(p, b, 64, 0);
		else
			leat_recv(s, b, 64, NULL, 0);
	}
	MARK();
	_exit(0);
}

struct counts {
	long instructions, syscalls, locked, fences;
};

/* Look at the instruction under @ip. */
static void judge(pid_t pid, unsigned long long ip, struct counts *c)
{
	unsigned long words[2];
	unsigned char b[16];
	int i = 0;

	words[0] = (unsigned long)ptrace(PTRACE_PEEKTEXT, pid, (void *)(uintptr_t)ip, NULL);
	words[1] = (unsigned long)ptrace(PTRACE_PEEKTEXT, pid, (void *)(uintptr_t)(ip + 8), NULL);
	memcpy(b, words, sizeof(b));
	c->instructions++;
	for (; i < 14; i++) { /* prefixes */
		if (b[i] == 0xf0)
			c->locked++;
		else if (b[i] != 0x66 && b[i] != 0xf2 && b[i] != 0xf3 && b[i] != 0x2e && b[i] != 0x64 &&
			 b[i] != 0x65 && (b[i] & 0xf0) != 0x40)
			break;
	}
	if ((b[i] == 0x86 || b[i] == 0x87) && (b[i + 1] & 0xc0) != 0xc0)
		c->locked++; /* xchg with memory locks by itself */
	if (b[i] == 0x0f && b[i + 1] == 0x05)
		c->syscalls++;
	if (b[i] == 0x0f && b[i + 1] == 0xae && b[i + 2] >= 0xe8)
		c->fences++; /* lfence, mfence, sfence */
}

static struct counts count(enum what what)
{
	struct counts c = {0};
	struct user_regs_struct regs;
	int status;
	pid_t pid = fork();

	if (pid == 0)
		traced(what);
	ck_assert(waitpid(pid, &status, 0) == pid);
	ck_assert_msg(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP, "the child did not get there");
	for (;;) {
		unsigned long at;

		ck_assert(ptrace(PTRACE_GETREGS, pid, NULL, &regs) == 0);
		at = (unsigned long)ptrace(PTRACE_PEEKTEXT, pid, (void *)(uintptr_t)regs.rip, NULL);
		if ((at & 0xff) == 0xcc)
			break;
		judge(pid, regs.rip, &c);
		ck_assert(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
		ck_assert(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
		ck_assert_int_lt(c.instructions, 1000000);
	}
	child_kill(pid);
	return c;
}

START_TEST(a_message_costs_no_system_call_no_lock_and_no_fence)
{
	struct counts c = count((enum what)_i);

	fprintf(stderr, "# %s of 64 bytes: %.1f instructions\n", _i ? "receive" : "send",
		(double)c.instructions / 100);
	ck_assert_int_gt(c.instructions, 1000);
	ck_assert_int_eq(c.syscalls, 0);
	ck_assert_int_eq(c.locked, 0);
	ck_assert_int_eq(c.fences, 0);
	/* A regression gate, the loop around it included: counted 72 and 102 when written, with -O2. */
#ifdef __OPTIMIZE__
	ck_assert_int_lt(c.instructions, _i ? 11000 : 7800);
#endif
}
END_TEST
#endif

int main(void)
{
	Suite *s = suite_create("hotpath");
	TCase *tc = leak_checked(s, "hotpath", 120);

#if defined(__x86_64__) && !defined(SANITIZED)
	tcase_add_loop_test(tc, a_message_costs_no_system_call_no_lock_and_no_fence, 0, 2);
#else
	(void)tc;
	fprintf(stderr, "# SKIP reads the instructions of an x86-64 build without sanitizers\n");
#endif
	return run_suite(s);
}
