#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Break the ring's code on purpose, one fence, order or check at a time, and see that the explorer finds it: TAP,
one line each. A mutant that lives means that a fence, an order or a check is not needed, or not tested; those
that x86 cannot tell from the original are listed with the reason, and must live (LEAT_FULL=1)."""
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

SRC = os.environ["LEAT_SRC"]
RING = os.path.join(SRC, "lib", "ring")
DIES = None
W, R, B = "writer.c", "reader.c", "blocks.c"
H, RH = "writer.h", "reader.h"

# file, what is broken, text, replacement, scenarios, and DIES or the reason why it must live
MUTANTS = [
    (W, "no fence between intent and the look at cursors",
     "leat__fence();\n\t\tto = leat__min(want, leat__writer_scan", "to = leat__min(want, leat__writer_scan",
     "join", DIES),
    (W, "no fence between limit and what is stored below it",
     "* acquire fence before a reader's last look at limit. */\n\t\tleat__fence();",
     "*/", "overwrite", DIES),
    (W, "limit is not published", "leat__store_relaxed(&w->ring->limit, to);", "", "overwrite", DIES),
    (W, "intent is not published", "leat__store_relaxed(&w->ring->intent, want);", "", "join", DIES),
    (W, "cursors are not waited for", "to = leat__min(want, leat__writer_scan(w, need) + cap);", "to = want;", "wait", DIES),
    (W, "limit is raised by a whole ring too much", "leat__writer_scan(w, need) + cap", "leat__writer_scan(w, need) + 2 * cap", "wait", DIES),
    (W, "cursors below limit are waited for (a joiner that will go on)",
     "c >= least || c + w->g.capacity < w->limit", "c >= least", "wait join",
     "only a liar's cursor, or a joiner's that goes on, lies there: it costs waiting, not messages"),
    (W, "a state of another ring counts", " || LEAT__RING_ID(s) != w->id", "", "wait",
     "there is one ring here; models/entry.pml has others (ANYDONE)"),
    (W, "eviction takes whatever word is there",
     "leat__cas(&w->lines[slot].state, state, (state & ~UINT64_C(0xf)) | LEAT__EVICTED)",
     "(leat__store_relaxed(&w->lines[slot].state, (state & ~UINT64_C(0xf)) | LEAT__EVICTED), 1)", "evict",
     "its reader is the only other who writes the word; two readers of one slot: ring.pml, evict"),
    (W, "limit may be lowered", "if (to > w->limit) {", "{", "overwrite evict join",
     "what the scan ignores keeps it from happening; the check is a second line"),
    (W, "marks before tail", "if (!w->batch)\n\t\treturn;\n\tleat__writer_publish(w);",
     "if (!w->batch)\n\t\treturn;\n\tfor (uint32_t i = 0; i < w->n_pending; i++)\n\t\tleat__store_release(&w->ring->marks"
     "[w->pending[i] / (w->g.capacity / LEAT__MARKS) % LEAT__MARKS], w->pending[i]);\n\tleat__writer_publish(w);",
     "history", "a mark is read with its record's number and limit; what remains is models/marks.pml, EARLY"),
    (H, "last before tail",
     "leat__store_release(&ring->tail, tail);\n\t/* last names a committed record only: after tail. */\n\tleat__store_release(&ring->last, last);",
     "leat__store_release(&ring->last, last);\n\tleat__store_release(&ring->tail, tail);", "join",
     "a last beyond tail is walked over as nothing yet: it costs another look"),
    (R, "no fence between a joiner's cursor and its look at intent",
     "/* Pairs with the fence in refresh (writer.c): it sees our cursor, or we see its\n\t\t * intent. */\n\t\tleat__fence();",
     "", "join", DIES),
    (R, "a joiner does not look at intent",
     "if (end <= r->pos + r->g.capacity)",
     "if (1)", "join", DIES),
    (R, "a joiner looks at limit, not intent", ": &r->ring->intent);", ": &r->ring->limit);", "join", DIES),
    (R, "state before cursor", "leat__store_release(&r->line->cursor, r->pos);\n\t\tset_state(r, LEAT__ACTIVE);",
     "set_state(r, LEAT__ACTIVE);\n\t\tleat__store_release(&r->line->cursor, r->pos);", "join",
     "a cursor of before lies below limit or behind: both wait for more, not for less (entry.pml)"),
    (RH, "what was read is not looked at again",
     "return leat__load_relaxed(&r->ring->limit) <= pos + r->capacity;", "return (void)pos, 1;", "overwrite", DIES),
    (RH, "limit may be two records too high", "<= pos + r->capacity;", "<= pos + r->capacity + 32;", "overwrite", DIES),
    (R, "a record's number is not looked at",
     "(r->counting == LEAT__KNOWN && rec.seq != (uint32_t)r->seq)", "0", "overwrite",
     "an honest writer's limit says it all; a liar's number is check_hostile's"),
    (R, "a lapped reader forgets what it lost", "count_skipped(r, expected, was);\n\tr->seen", "r->seen", "overwrite", DIES),
    (R, "a reader that comes back forgets what it lost", "if (again)\n\t\t\tcount_skipped(r, expected, was);", "(void)again;", "evict", DIES),
    (R, "an evicted reader does not come back", "if (leat__load_acquire(&r->line->state) != (r->word | LEAT__EVICTED))\n\t\treturn;",
     "return;", "evict", "it goes on as one that is not waited for, and counts"),
    (R, "the cursor is published before the message is used", "e = leat__reader_look(r);\n\t\tif (e < 0",
     "e = leat__reader_look(r);\n\t\tif (e > 0) leat__store_release(&r->line->cursor, r->seen);\n\t\tif (e < 0", "wait", DIES),
    (R, "the cursor is not published when all is read", "if (r->published != r->pos) /* before", "if (0) /* before", "wait",
     "nobody sleeps here; models/bell.pml, LAZY0, and the ring suite's full ring"),
    (B, "no fence between closing a block and the look at who holds it",
     "* cursors are looked at again: a joiner with history may have come since. */\n\tleat__fence();", "*/", "blocks blocks_over", DIES),
    (B, "no fence between a block's new number and its new contents",
     "* between its last use and its look at the word. */\n\tleat__fence();", "*/", "peek_over", DIES),
    (B, "who holds a block is not looked at", "if (holder(w, block) >= 0 || !passed(w, block))", "if (!passed(w, block))",
     "blocks", DIES),
    (B, "a block is not marked as closing", "leat__store_relaxed(word_of(w, block), b->gen + 1);", "", "blocks blocks_over", DIES),
    (B, "a block keeps its number", "b->gen += 2;", "", "blocks_over", DIES),
    (B, "blocks are taken from under the cursors", "(w->g.flags & LEAT__OVERWRITE) || w->blocks[block].pos < leat__writer_scan(w, 0)", "1",
     "peek_blocks", DIES),
    (R, "no fence between holding a block and the look at its number",
     "/* Pairs with the fence in take (blocks.c): it sees that we hold, or we see it closing. */\n\tleat__fence();", "",
     "blocks blocks_over", DIES),
    (R, "a block is held whatever its number", "if (leat__load_acquire(&leat__block_words(r->ring)[msg->block]) == msg->gen)", "if (1)",
     "blocks_over", DIES),
    (R, "a block's number is not looked at after use",
     "leat__load_relaxed(&leat__block_words(r->ring)[msg->block]) <= msg->gen + 1", "1", "peek_over", DIES),
]


def build(work, mutant):
    """Compile the explorer over a copy of the ring with one thing broken."""
    file, _, text, new = mutant[:4]
    base = os.path.join(work, "src")
    os.makedirs(os.path.join(base, "ring"))
    for f in os.listdir(RING):
        s = open(os.path.join(RING, f)).read()
        if f == file:
            if s.count(text) != 1:
                return None, f"{file}: the text to break is there {s.count(text)} times"
            s = s.replace(text, new)
        open(os.path.join(base, "ring", f), "w").write(s)
    out = os.path.join(work, "explore")
    cmd = [os.environ.get("CC", "gcc"), "-O2", "-w", "-D_GNU_SOURCE", "-I" + base, "-I" + SRC + "/include", "-I" + SRC + "/lib",
           "-I" + SRC + "/tests/explore"]
    for f, m in ((W, "WRITER_C"), (R, "READER_C"), (B, "BLOCKS_C")):
        cmd.append(f'-D{m}="{base}/ring/{f}"')
    cmd += ["-o", out, SRC + "/tests/explore/explore.c", os.environ["LEAT_BUILD"] + "/lib/libleat_internal.a", "-lpthread"]
    r = subprocess.run(cmd, capture_output=True, text=True)
    return (out, None) if r.returncode == 0 else (None, r.stderr[-400:])


def check(mutant):
    with tempfile.TemporaryDirectory(prefix="leat-mutant.") as work:
        exe, why = build(work, mutant)
        if not exe:
            return None, why
        r = subprocess.run([exe] + mutant[4].split(), capture_output=True, text=True, timeout=900)
        if r.returncode not in (0, 1):
            return True, f"it died: {r.returncode}"
        bad = next((l for l in r.stdout.splitlines() if l.startswith("not ok")), None)
        return bad is not None, bad.split(": ", 2)[-1] if bad else ""


def main():
    # Who is to live is looked for everywhere, which takes long.
    todo = [m for m in MUTANTS if m[5] is DIES or "LEAT_FULL" in os.environ]
    wrong = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for n, (m, (found, how)) in enumerate(zip(todo, pool.map(check, todo)), 1):
            good = found == (m[5] is DIES)
            wrong += not good
            print(f"{'ok' if good else 'not ok'} {n} - {m[0]}: {m[1]}: " +
                  (f"found ({how})" if found else f"lives: {m[5] or 'NOT FOUND'}" if found is not None else f"not built: {how}"), flush=True)
    print(f"1..{len(todo)}")
    return wrong != 0


sys.exit(main())
