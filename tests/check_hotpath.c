/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one message costs, read off the instructions: a child sends (and receives) under single-step;
 * between two breakpoints no system call, no locked instruction and no fence may be executed.
 * x86-64 only.
 */
#include "harness.h"


#if defined(__x86_64__) && !defined(SANITIZED)
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#define MARK() __asm__ volatile("int3" ::: "memory")

enum what { SEND, RECV, CLAIM, PEEK, LATEST, NOTHING, STRICT };

/* What is called for its own cost, to be taken off the others'. */
static __attribute__((noinline)) int nothing(void *handle, const void *data, size_t size, int64_t timeout_ns)
{
	__asm__ volatile("" : : "r"(handle), "r"(data), "r"(size), "r"(timeout_ns) : "memory");
	return 0;
}

static void traced(enum what what)
{
	uint64_t data, control;
	struct leat_region *r;
	struct leat_pub *p;
	struct leat_sub *s;
	char b[64] = {0};

	ok(leat_ring_plan(NULL, &data, &control));
	ok(leat_region_create(OPTS(leat_region_opts, .kind = LEAT_MEMFD, .size = data + control), &r));
	ok(leat_ring_create(r, NULL, OPTS(leat_pub_opts, .strict = what == STRICT), &p));
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
		const void *seen;
		void *at;

		switch (what) {
		case SEND:
		case STRICT: leat_send(p, b, 64, 0); break;
		case RECV: leat_recv(s, b, 64, NULL, 0); break;
		case CLAIM:
			leat_claim(p, 64, &at, 0);
			leat_commit(p, 64, 0);
			break;
		case PEEK:
			leat_peek(s, &seen, NULL, 0);
			leat_release(s);
			break;
		case LATEST: leat_latest(s, b, 64, NULL); break;
		case NOTHING: nothing(p, b, 64, 0); break;
		}
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
	/* A regression gate: counted 59, 91, 67, 116 and 59 with gcc 12 when written. */
	static const struct {
		const char *name;
		double most;
	} limits[] = {{"send", 60}, {"receive", 96}, {"claim and commit", 70}, {"peek and release", 122},
		      {"latest, unchanged", 60}};
	struct counts c = count((enum what)_i), loop = count(NOTHING);
	double each = (double)(c.instructions - loop.instructions) / 100;

	fprintf(stderr, "# %s, 64 bytes: %.1f instructions\n", limits[_i].name, each);
	ck_assert(each > 10);
	ck_assert_int_eq(c.syscalls, 0);
	ck_assert_int_eq(c.locked, 0);
	ck_assert_int_eq(c.fences, 0);
#ifdef __OPTIMIZE__
	ck_assert_msg(each <= limits[_i].most, "%s: %.1f instructions, the limit is %.0f", limits[_i].name, each,
		      limits[_i].most);
#endif
}
END_TEST
START_TEST(a_strict_channel_fences_every_message)
{
	struct counts c = count(STRICT);

	ck_assert_int_ge(c.locked + c.fences, 100);
	ck_assert_int_eq(c.syscalls, 0);
}
END_TEST
#endif

int main(void)
{
	Suite *s = suite_create("hotpath");
	TCase *tc = leak_checked(s, "hotpath", 120);

#if defined(__x86_64__) && !defined(SANITIZED)
	tcase_add_loop_test(tc, a_message_costs_no_system_call_no_lock_and_no_fence, 0, 5);
	test(tc, a_strict_channel_fences_every_message);
#else
	(void)tc;
	fprintf(stderr, "# SKIP reads the instructions of an x86-64 build without sanitizers\n");
#endif
	return run_suite(s);
}
