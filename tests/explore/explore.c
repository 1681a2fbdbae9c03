/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring's own code, writer.c, reader.c and blocks.c, in all interleavings of a writer and a reader over a ring
 * of four small messages, with a store buffer each (x86-TSO). Every access to shared memory is a choice: which
 * thread goes on, or whose oldest store reaches memory. Payload reaches memory at once, as with non-temporal
 * stores, which is more than x86 may do with others. Depth-first, from the start each time, and never twice on
 * from the same state: memory, buffers, and the threads' stacks and handles. In every state of some scenarios the
 * reader, or the writer, is killed besides, and the other must get on.
 *
 * explore [SCENARIO...]: TAP; x86-64 only. The bound of each scenario is its number of messages.
 */
#define LEAT__OTHER_ATOMICS "atomics.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "atomics.h"
#include "base/base.h"
#include "ring/reader.h"
#include "ring/writer.h"

static uint64_t explore_now(void);
#define leat__now explore_now
#include "mem/region.h"
#define leat__prefault(at, size, write) no_prefault()
static inline int no_prefault(void)
{
	return 0;
}
#ifndef WRITER_C
#define WRITER_C "../../lib/ring/writer.c"
#define READER_C "../../lib/ring/reader.c"
#define BLOCKS_C "../../lib/ring/blocks.c"
#endif
#include WRITER_C
#include BLOCKS_C
#define TRIES 8 /* a real one's patience would be most of what there is to explore */
#include READER_C

enum { CAP = 64, SLOTS = 2, STACK = 32768, BUFFER = 12, DEPTH = 4000, TABLE = 1 << 23 };

/* ---- two coroutines ---- */

struct thread {
	void *sp;
	int done;
	struct {
		void *at;
		uint64_t v;
		unsigned size;
	} buffer[BUFFER];
	unsigned n; /* stores in it */
	unsigned char stack[STACK] __attribute__((aligned(64)));
};
static struct thread threads[2];
static struct thread *running;
static void *scheduler_sp;

void explore_switch(void **from, void *to);
__asm__(".text\n.globl explore_switch\nexplore_switch:\n"
	"pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
	"movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
	"popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");

static void yield(void)
{
	struct thread *t = running;

	explore_switch(&t->sp, scheduler_sp);
}

/* ---- memory ---- */

static struct {
	struct leat__ring_shm ring;
	uint64_t words[4];
	unsigned char data[2 * CAP] __attribute__((aligned(64)));
	unsigned char blocks[4 * 64];
} ring_memory;
static struct {
	struct leat__ctrl_shm ctrl;
	struct leat__entry entries[1];
	struct leat__slot slots[SLOTS];
	struct leat__line lines[SLOTS];
} control;
static struct leat__writer w;
static struct leat__reader r;
static struct leat__block writers_blocks[4];
static struct leat__laggard laggards[SLOTS];
static struct {
	uint64_t sent, got, lost, expected, first, held_value, now;
	int writer_done, started, counted;
	const uint64_t *held;
} facts;
static int killed; /* one of the two, in what follows */

static uint64_t explore_now(void)
{
	return facts.now < 4 ? ++facts.now : facts.now; /* graces run out, and not for ever anew */
}

static uint64_t peek_memory(const void *at, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, at, size);
	return v;
}

static void flush_one(struct thread *t)
{
	memcpy(t->buffer[0].at, &t->buffer[0].v, t->buffer[0].size);
	t->n--;
	memmove(&t->buffer[0], &t->buffer[1], t->n * sizeof(t->buffer[0]));
	memset(&t->buffer[t->n], 0, sizeof(t->buffer[0]));
}

static void flush_all(void)
{
	while (running->n)
		flush_one(running);
}

uint64_t explore_load(const void *at, unsigned size)
{
	yield();
	for (unsigned i = running->n; i-- > 0;)
		if (running->buffer[i].at == at)
			return running->buffer[i].v;
	return peek_memory(at, size);
}

void explore_store(void *at, unsigned size, uint64_t v)
{
	yield();
	if (running->n == BUFFER)
		flush_one(running);
	running->buffer[running->n].at = at;
	running->buffer[running->n].v = v;
	running->buffer[running->n++].size = size;
}

int explore_cas(void *at, unsigned size, uint64_t expected, uint64_t v)
{
	yield();
	flush_all();
	if (peek_memory(at, size) != expected)
		return 0;
	memcpy(at, &v, size);
	return 1;
}

uint64_t explore_add(void *at, unsigned size, uint64_t v, int or)
{
	uint64_t old;

	yield();
	flush_all();
	old = peek_memory(at, size);
	v = or ? old | v : old + v;
	memcpy(at, &v, size);
	return old;
}

void explore_fence(void)
{
	yield();
	flush_all();
}

/* ---- what may not happen ---- */

static const char *wrong;
static char wrong_text[200];

#define MUST(cond, ...)                                                                            \
	do {                                                                                       \
		if (!(cond) && !wrong) {                                                           \
			snprintf(wrong_text, sizeof(wrong_text), __VA_ARGS__);                     \
			wrong = wrong_text;                                                        \
		}                                                                                  \
	} while (0)

/* ---- the writer's side ---- */

static int messages; /* the scenario's */
static unsigned large; /* bytes; 0: small ones */

static void put_payload(void *at, uint64_t v)
{
	yield();
	memcpy(at, &v, sizeof(v));
}

static void writer_sends(void)
{
	for (uint64_t i = facts.sent; i < (uint64_t)messages;) {
		unsigned char *quick = large ? NULL : leat__writer_begin(&w, 8);
		void *at;

		if (quick) {
			put_payload(quick + 8, i);
			leat__writer_put(&w, quick, w.tail, 8);
		} else if (leat__writer_claim(&w, large ? large : 8, &at, 0) == 0) {
			put_payload(at, i);
			leat__writer_commit(&w, large ? large : 8, 0);
		} else {
			w.waits = 0; /* as often as it wants: not another state */
			yield();
			continue;
		}
		facts.sent = ++i;
	}
	facts.writer_done = 1;
}

/* ---- the reader's side ---- */

/* One message, if there is one: copied, judged, and counted. 1 there was. */
static int reader_takes(void)
{
	struct leat__msg m;
	uint64_t v;
	int e = leat__reader_next(&r, &m);

	MUST(e >= 0, "the reader gives an honest ring up");
	if (e <= 0)
		return 0;
	yield();
	memcpy(&v, m.data, sizeof(v));
	if (!leat__reader_intact(&r, &m)) {
		leat__reader_skip(&r, &m);
		return 0;
	}
	MUST(v == m.seq, "message %llu is taken for number %llu", (unsigned long long)v, (unsigned long long)m.seq);
	if (!facts.started) {
		facts.started = 1;
		facts.first = m.seq - r.lost;
		facts.expected = facts.first;
	}
	facts.lost += r.lost;
	facts.expected += r.lost;
	MUST(m.seq == facts.expected, "number %llu comes, %llu (after %llu lost) was expected",
	     (unsigned long long)m.seq, (unsigned long long)facts.expected, (unsigned long long)facts.lost);
	r.lost = 0;
	facts.expected++;
	facts.got++;
	leat__reader_advance(&r, &m);
	return 1;
}

static void reads_to_the_end(void)
{
	for (;;) {
		int over = facts.writer_done && !threads[0].n;

		if (!reader_takes() && over && r.pos == peek_memory(&ring_memory.ring.tail, 8))
			break;
		r.heels = 0;
		r.waited = 0;
		r.looked = 0;
	}
	leat__reader_ended(&r, 1); /* counts what was lost last */
}

static void reads_from_the_beginning(void)
{
	leat__reader_begin(&r, LEAT__WORD(1, 0), 1);
	reads_to_the_end();
	/* Of a writer that is killed, all that it knows to have sent, and maybe the one it was at. */
	MUST((facts.got == (uint64_t)messages || (killed && facts.got >= facts.sent)) && !facts.lost,
	     "%llu of %llu messages came, %llu lost", (unsigned long long)facts.got, (unsigned long long)facts.sent,
	     (unsigned long long)facts.lost);
}

static void joins(enum leat_from from)
{
	for (int round = 0; round < 2; round++) {
		leat__reader_init(&r, &ring_memory.ring, ring_memory.data, &w.g, 1, &control.lines[0],
				  &control.ctrl.space_bell);
		facts.started = 0;
		leat__reader_join(&r, LEAT__WORD(1, 0), 1, round ? from : LEAT_NEW);
		for (int i = 0; i < 2; i++) {
			reader_takes();
			r.heels = r.waited = 0;
			r.looked = 0;
		}
		leat__reader_leave(&r);
	}
}

static void joins_and_leaves(void)
{
	joins(LEAT_NEW);
	MUST(!facts.lost, "%llu lost, although it was waited for", (unsigned long long)facts.lost);
}

static void joins_with_history(void)
{
	joins(LEAT_OLDEST);
}

static void observes(void)
{
	leat__reader_join(&r, LEAT__WORD(1, 0), 0, LEAT_OLDEST);
	reads_to_the_end();
	MUST(!facts.started || facts.first + facts.got + facts.lost + r.lost == (uint64_t)messages,
	     "%llu + %llu received + %llu lost are not %d", (unsigned long long)facts.first,
	     (unsigned long long)facts.got, (unsigned long long)(facts.lost + r.lost), messages);
}

static void is_evicted(void)
{
	leat__reader_begin(&r, LEAT__WORD(1, 0), 1);
	facts.started = 1; /* from 0 on all is counted */
	reads_to_the_end();
	MUST(facts.got + facts.lost + r.lost == (uint64_t)messages, "%llu received and %llu lost are not %d",
	     (unsigned long long)facts.got, (unsigned long long)(facts.lost + r.lost), messages);
}

/* Retain the first that comes, read on, and look at it again. */
static void retains(void)
{
	struct leat__msg m = {0}, kept = {0};
	int have = 0;

	leat__reader_begin(&r, LEAT__WORD(1, 0), (w.g.flags & LEAT__OVERWRITE) == 0);
	for (int i = 0; i < 6; i++) {
		uint64_t v;

		r.heels = r.waited = 0;
		r.looked = 0;
		if (have && i == 4) {
			yield();
			memcpy(&v, kept.data, sizeof(v));
			MUST(v == kept.seq, "the retained message %llu became %llu", (unsigned long long)kept.seq,
			     (unsigned long long)v);
			explore_store(&control.slots[0].held[0], 8, 0);
			have = 0;
		}
		if (leat__reader_next(&r, &m) <= 0)
			continue;
		if (!have && i < 3) {
			if (leat__reader_retain(&r, &m, &control.slots[0].held[0])) {
				kept = m;
				have = 1;
				leat__reader_advance(&r, &m);
			} else {
				leat__reader_skip(&r, &m);
			}
			continue;
		}
		yield();
		memcpy(&v, m.data, sizeof(v));
		if (leat__reader_intact(&r, &m)) {
			MUST(v == m.seq, "message %llu is taken for number %llu", (unsigned long long)v,
			     (unsigned long long)m.seq);
			leat__reader_advance(&r, &m);
		} else {
			leat__reader_skip(&r, &m);
		}
	}
}

/* ---- the search ---- */

static const struct scenario {
	const char *name, *what;
	void (*reader)(void);
	int messages;
	uint32_t flags;
	uint64_t grace;
	unsigned large, n_blocks;
	uint64_t ahead; /* so many are sent before the reader comes */
	int kills;      /* in every state: the reader dies; 2: or the writer */
} scenarios[] = {
	{"wait", "a reader that is waited for gets every message", reads_from_the_beginning, 7, 0, 0, 0, 0, 0, 2},
	{"join", "a reader joins, leaves, and joins again", joins_and_leaves, 5, 0, 0, 0, 0, 0, 1},
	{"history", "a reader joins again where history begins: what it could not get is counted", joins_with_history, 3, 0, 0, 0, 0, 0, 0},
	{"overwrite", "an observer of a ring that overwrites: received + lost = sent", observes, 5, LEAT__OVERWRITE, 0, 0, 0, 0, 0},
	{"evict", "a reader is evicted and comes back: received + lost = sent", is_evicted, 5, 0, 1, 0, 0, 0, 1},
	{"peek_blocks", "messages in blocks come whole, all of them", reads_from_the_beginning, 4, 0, 0, 32, 2, 0, 2},
	{"peek_over", "and whole or counted where they are overwritten", observes, 3, LEAT__OVERWRITE, 0, 32, 1, 1, 0},
	{"blocks", "blocks are retained while the writer goes on", retains, 4, 0, 0, 32, 2, 0, 1},
	{"blocks_over", "the same where it overwrites", retains, 3, LEAT__OVERWRITE, 0, 32, 2, 0, 0},
};
static const struct scenario *playing;

static void body(int i)
{
	if (i == 0)
		writer_sends();
	else
		playing->reader();
	threads[i].done = 1;
	for (;;) {
		yield();
		if (i == 0 && killed) /* the reader: and there are more to send */
			writer_sends();
	}
}

static void writer_body(void)
{
	body(0);
}

static void reader_body(void)
{
	body(1);
}

enum choice { GO_0, GO_1, FLUSH_0, FLUSH_1, CHOICES };

static int possible(int c)
{
	return c < FLUSH_0 ? !threads[c].done : threads[c - FLUSH_0].n > 0;
}

static void make(int c)
{
	if (c >= FLUSH_0) {
		flush_one(&threads[c - FLUSH_0]);
		return;
	}
	running = &threads[c];
	explore_switch(&scheduler_sp, running->sp);
}

static void set_stage(const struct scenario *s)
{
	struct leat__geometry g = {.total = sizeof(ring_memory), .page = 64, .capacity = CAP, .block_size = 64,
				   .blocks_off = offsetof(__typeof__(ring_memory), blocks), .n_blocks = s->n_blocks,
				   .flags = s->flags, .n_slots = SLOTS, .n_rings = 1};
	struct leat__geometry cg = {.n_rings = 1, .n_slots = SLOTS};
	void (*bodies[2])(void) = {writer_body, reader_body};

	playing = s;
	messages = s->messages;
	large = s->large;
	memset(&ring_memory, 0, sizeof(ring_memory));
	memset(&control, 0, sizeof(control));
	memset(&facts, 0, sizeof(facts));
	memset(&w, 0, sizeof(w));
	memset(&r, 0, sizeof(r));
	memset(writers_blocks, 0, sizeof(writers_blocks));
	memset(laggards, 0, sizeof(laggards));
	memset(threads, 0, sizeof(threads));
	wrong = NULL;
	/* As leat__writer_init() does, with memory of ours that is the same in every run. */
	w.ring = &ring_memory.ring;
	w.data = ring_memory.data;
	w.g = g;
	w.mask = CAP - 1;
	w.limit = CAP;
	w.max_inline = CAP / 8;
	w.block = -1;
	w.id = 1;
	w.n_slots = SLOTS;
	w.lines = leat__ctrl_lines(&control.ctrl, &cg, 0);
	w.slots = leat__ctrl_slots(&control.ctrl, &cg);
	w.data_bell = &control.ctrl.data_bell;
	w.space_bell = &control.ctrl.space_bell;
	w.blocks_at = ring_memory.blocks;
	w.blocks = s->n_blocks ? writers_blocks : NULL;
	w.grace_ns = s->grace;
	w.laggards = s->grace ? laggards : NULL;
	ring_memory.ring.intent = ring_memory.ring.limit = CAP;
	control.lines[0].state = LEAT__WORD(1, s->reader == joins_and_leaves || s->reader == joins_with_history || s->reader == observes ||
						       (s->flags & LEAT__OVERWRITE) ? LEAT__DONE : LEAT__ACTIVE);
	control.slots[0].client = 1;
	leat__reader_init(&r, &ring_memory.ring, ring_memory.data, &g, 1, &control.lines[0], &control.ctrl.space_bell);
	for (int i = 0; i < 2; i++) {
		void **sp = (void **)(void *)(threads[i].stack + STACK - 64);

		*--sp = NULL;                             /* where a call would have put it */
		*--sp = (void *)(uintptr_t)bodies[i];
		sp -= 6;
		threads[i].sp = sp;
	}
	while (facts.sent < s->ahead)
		make(GO_0);
	while (threads[0].n)
		flush_one(&threads[0]);
}

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
	const uint64_t *x = p;

	for (size_t i = 0; i < n / 8; i++) {
		h ^= x[i];
		h *= 0x9e3779b97f4a7c15u;
		h ^= h >> 29;
	}
	return h;
}

/* All that decides what can happen from here on. */
static uint64_t state(void)
{
	uint64_t h = 1469598103934665603u;

	h = mix(h, &ring_memory.ring.tail, sizeof(ring_memory) - offsetof(struct leat__ring_shm, tail));
	h = mix(h, &control.ctrl.data_bell, sizeof(control) - offsetof(struct leat__ctrl_shm, data_bell));
	h = mix(h, &w, sizeof(w));
	h = mix(h, &r, sizeof(r));
	h = mix(h, writers_blocks, sizeof(writers_blocks));
	h = mix(h, laggards, sizeof(laggards));
	h = mix(h, &facts, sizeof(facts));
	for (int i = 0; i < 2; i++) {
		struct thread *t = &threads[i];
		unsigned char *sp = t->sp;

		h = mix(h, sp, (size_t)(t->stack + STACK - sp));
		h = mix(h, t->buffer, t->n * sizeof(t->buffer[0])) + t->n * 7 + (uint64_t)t->done;
	}
	return h ? h : 1;
}

static uint64_t *seen;
static unsigned long n_seen, n_runs, n_kills;

/* ---- one of the two is killed ---- */

#define EACH_PART(X) X(ring_memory) X(control) X(w) X(r) X(writers_blocks) X(laggards) X(facts)
#define PART(v)      __typeof__(v) v;
#define KEEP(v)      memcpy(&kept.v, &(v), sizeof(v));
#define RESTORE(v)   memcpy(&(v), &kept.v, sizeof(v));
static struct {
	EACH_PART(PART)
	struct thread threads[2];
} kept;

static void copy_thread(int i, struct thread *to, const struct thread *from)
{
	size_t at = (size_t)((const unsigned char *)from->sp - threads[i].stack);

	memcpy(to, from, offsetof(struct thread, stack));
	memcpy(to->stack + at, from->stack + at, STACK - at);
}

static void keep(void)
{
	EACH_PART(KEEP)
	for (int i = 0; i < 2; i++)
		copy_thread(i, &kept.threads[i], &threads[i]);
}

static void restore(void)
{
	EACH_PART(RESTORE)
	for (int i = 0; i < 2; i++)
		copy_thread(i, &threads[i], &kept.threads[i]);
}

enum { MORE = 8, ENOUGH = 4000 }; /* messages after a death: twice around; and how long they may take */

/* The reader dies. What it had stored comes to memory; then the broker does what it does for the dead, and the
 * writer must get on, over all of the ring and every block. */
static void reader_dies(void)
{
	killed = 1;
	n_kills++;
	messages += MORE;
	while (threads[1].n)
		flush_one(&threads[1]);
	control.lines[0].state = LEAT__WORD(1, LEAT__DONE);
	memset(control.slots[0].held, 0, sizeof(control.slots[0].held));
	for (int i = 0; i < ENOUGH && facts.sent < (uint64_t)messages; i++)
		make(GO_0);
	MUST(facts.sent == (uint64_t)messages, "the reader was killed, and the writer stands at message %llu",
	     (unsigned long long)facts.sent);
	for (uint32_t i = 0; i < w.g.n_blocks && !wrong; i++)
		MUST(ring_memory.words[i] > kept.ring_memory.words[i] + 1,
		     "the reader was killed, and block %u is not used again", (unsigned)i);
	messages -= MORE;
	killed = 0;
}

/* The writer dies: what was sent comes, once and in order, and there is an end. */
static void writer_dies(void)
{
	killed = 1;
	n_kills++;
	while (threads[0].n)
		flush_one(&threads[0]);
	facts.writer_done = 1;
	for (int i = 0; i < ENOUGH && !threads[1].done; i++)
		make(GO_1);
	MUST(threads[1].done, "the writer was killed, and the reader finds no end");
	killed = 0;
}

static void one_dies(const struct scenario *s)
{
	if (!s->kills)
		return;
	keep();
	reader_dies();
	restore();
	if (s->kills == 2 && !wrong) {
		writer_dies();
		restore();
	}
}

/* 1: new. */
static int remember(uint64_t h)
{
	size_t i = h % TABLE;

	while (seen[i] && seen[i] != h)
		i = (i + 1) % TABLE;
	if (seen[i])
		return 0;
	seen[i] = h;
	n_seen++;
	return 1;
}

static unsigned char path[DEPTH], others[DEPTH]; /* what was chosen, and what else there is, as bits */

/* Follow the first @prefix choices of the path, then always the first that there is, until nothing new comes. */
static int run(const struct scenario *s, int prefix)
{
	int depth = 0;

	n_runs++;
	set_stage(s);
	for (;; depth++) {
		int c = 0;

		if (depth >= prefix) {
			if (wrong || depth == DEPTH || n_seen > TABLE / 2 || !remember(state()))
				break;
			one_dies(s);
			if (wrong)
				break;
			others[depth] = 0;
			for (int k = CHOICES - 1; k >= 0; k--)
				others[depth] |= (unsigned char)(possible(k) << k);
			if (!others[depth])
				break; /* both are done, and all is in memory */
			c = __builtin_ctz(others[depth]);
			others[depth] &= (unsigned char)~(1 << c);
			path[depth] = (unsigned char)c;
		}
		make(path[depth]);
	}
	return depth;
}

/* 1 it holds, 0 not, -1 it was too much. */
#ifdef TRACE
/* The way to what went wrong, an access a line. */
static void tell(const struct scenario *s, int depth)
{
	set_stage(s);
	for (int i = 0; i < depth; i++) {
		make(path[i]);
		fprintf(stderr, "%4d %s  tail %llu limit %llu intent %llu last %llu | cursor %llu state %llu | w.tail %llu w.limit %llu buffered %u | "
			"r.pos %llu seq %llu counting %u lost %llu got %llu\n", i, path[i] == 0 ? "writer" : path[i] == 1 ? "reader" :
			path[i] == 2 ? "flush w" : "flush r", (unsigned long long)ring_memory.ring.tail, (unsigned long long)ring_memory.ring.limit,
			(unsigned long long)ring_memory.ring.intent, (unsigned long long)ring_memory.ring.last, (unsigned long long)control.lines[0].cursor,
			(unsigned long long)control.lines[0].state & 0xf, (unsigned long long)w.tail, (unsigned long long)w.limit, threads[0].n,
			(unsigned long long)r.pos, (unsigned long long)r.seq, r.counting, (unsigned long long)r.lost, (unsigned long long)facts.got);
	}
}
#endif

static int explore(const struct scenario *s)
{
	int depth = 0, prefix = 0;

	memset(seen, 0, TABLE * sizeof(*seen));
	n_seen = n_runs = n_kills = 0;
	for (;;) {
		depth = run(s, prefix);
		if (wrong) {
#ifdef TRACE
			tell(s, depth);
#endif
			return 0;
		}
		if (depth >= DEPTH || n_seen > TABLE / 2)
			return -1;
		/* The last choice that could have been another. */
		while (--depth >= 0 && !others[depth])
			;
		if (depth < 0)
			return 1;
		path[depth] = (unsigned char)__builtin_ctz(others[depth]);
		others[depth] &= (unsigned char)~(1 << path[depth]);
		prefix = depth + 1;
	}
}

int main(int argc, char **argv)
{
	int bad = 0, n = 0;

	seen = malloc(TABLE * sizeof(*seen));
	for (size_t i = 0; seen && i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
		const struct scenario *s = &scenarios[i];
		int wanted = argc < 2, r1;

		for (int k = 1; k < argc; k++)
			wanted |= !strcmp(argv[k], s->name);
		if (!wanted)
			continue;
		r1 = explore(s);
		printf("%s %d - %s: %s (%d messages, %lu states, %lu runs, %lu kills)%s%s\n", r1 == 1 ? "ok" : "not ok", ++n, s->name,
		       s->what, s->messages, n_seen, n_runs, n_kills, r1 == 1 ? "" : ": ", r1 == 1 ? "" : wrong ? wrong : "too much");
		fflush(stdout);
		bad += r1 != 1;
	}
	printf("1..%d\n", n);
	free(seen);
	return bad != 0;
}
