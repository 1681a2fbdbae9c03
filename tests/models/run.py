#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Check the protocol models with spin: TAP. Each model must hold, and each mutation of it must fail:
one that no longer fails is a model that no longer sees. LEAT_FULL=1 adds the long ones.

Stores go through a buffer per variable and process (weaker than x86), loads are not reordered. In
bell.pml HEAVY stands for the sleeper's first, short sleep: when it is over, every store buffer has
drained."""
import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SPLIT = ["-DSPLIT", "-DNR=1"]
HOLDS, FAILS = 0, 1

checks = [  # sentence, model, flags, outcome, long
    ("one reader joins and leaves: nothing torn, nothing lost", "ring", SPLIT, HOLDS, False),
    ("two readers, two slots", "ring", ["-DSPLIT", "-DNR=2", "-DJOINS=1", "-DNMSG=4", "-DCAP=2"], HOLDS, True),
    ("a reader is evicted and joins again", "ring", SPLIT + ["-DEVICT"], HOLDS, False),
    ("marks name records", "marks", ["-DPOS"], HOLDS, False),
    ("bell, cursor published at every message", "bell", ["-DNRD=1"], HOLDS, False),
    ("bell, cursor published lazily", "bell", ["-DNRD=1", "-DLAZY"], HOLDS, False),
    ("bell, two readers", "bell", ["-DNMSG=3"], HOLDS, False),
    ("blocks under wait", "blocks", ["-DRESCAN"], HOLDS, False),
    ("blocks under overwrite", "blocks", ["-DOVER"], HOLDS, True),
    ("blocks, a late joiner with history", "blocks", ["-DLATE", "-DRESCAN", "-DCAP=4"], HOLDS, True),
    ("a ring table entry is reused", "entry", [], HOLDS, False),
    ("a reader is killed, its slot is handed out again", "entry", ["-DDIE"], HOLDS, False),
    ("two publishers notify one sleeper, and one of them all is killed", "notifiers", ["-DNR=1"], HOLDS, False),
    ("two publishers notify two sleepers, and one of them all is killed", "notifiers", ["-DNMSG=1"], HOLDS, True),
    ("a publisher goes over to a restarted broker", "move", [], HOLDS, False),
    ("a work queue's messages, and a worker that is killed", "queue", ["-DNOBACK", "-DNMSG=3"], HOLDS, False),
    ("and more of them", "queue", ["-DNOBACK"], HOLDS, True),
    ("and messages that are put back", "queue", [], HOLDS, True),
]
mutations = [
    ("ring", SPLIT, ["NOFW", "NOFR"]),
    ("ring", SPLIT + ["-DEVICT"], ["NOREL"]),
    ("ring", ["-DNR=1"], ["DESIGN"]),
    ("marks", [], ["TWO"]),
    ("marks", ["-DPOS", "-DSUCC"], ["EARLY"]),
    ("bell", ["-DNRD=1"], ["NOHEAVY"]),
    ("bell", ["-DNRD=1", "-DLAG=3"], ["LAZY0"]),
    ("bell", ["-DNMSG=3", "-DKILLN"], ["RINGIFBIT"]),
    ("blocks", ["-DRESCAN"], ["NOF1", "NOF2", "NOFR", "SCANFIRST", "WORDFIRST", "NOACQ", "NOVREC", "NODROP",
                              "LEG1", "NOCUR", "CURFIRST"]),
    ("blocks", ["-DOVER"], ["NOF1", "NOF2", "NOFR", "SCANFIRST", "WORDFIRST", "NOACQ", "NOVREC", "NODROP",
                            "LEG1"]),
    ("entry", [], ["NOPEND", "NODONEREL", "CURAFTER", "ANYDONE", "NOBCUR", "REPLYFIRST", "NOFW", "NOFR",
                   "MIDGRANT"]),
]
mutations += [
    ("notifiers", ["-DNMSG=1"], ["HEAVYLESS", "NOTOLL", "TOLLIFBIT", "ONCE"]),
    ("entry", ["-DDIE"], ["FREEFIRST"]),
    ("move", [], ["LINEFIRST", "EARLY", "NOPOS"]),
    ("queue", ["-DNOBACK", "-DNMSG=3"], ["SCANBAD", "NOTELATE", "EARLY", "NOVALID", "PREVALID", "FORGET"]),
]
for model, flags, names in mutations:
    for m in names:
        checks.append((f"{model} {' '.join(flags)} without {m} fails, as it must", model,
                       flags + ["-D" + m], FAILS, False))


def check(model, flags, outcome):
    """The number of errors spin finds; None with the reason if the search did not complete."""
    work = tempfile.mkdtemp(prefix="leat-model.")
    try:
        shutil.copy(os.path.join(HERE, model + ".pml"), os.path.join(work, "m.pml"))
        run = lambda *a, **k: subprocess.run(a, cwd=work, capture_output=True, text=True, **k)
        r = run("spin", "-a", *flags, "m.pml")
        if r.returncode:
            return None, "spin: " + r.stdout[-300:]
        # A mutation is found early; a model that holds is searched to its end, which pays for -O2.
        r = run("gcc", "-O2" if outcome == HOLDS else "-O1", "-w", "-DSAFETY", "-DCOLLAPSE", "-DVECTORSZ=4096",
                "-DMEMLIM=6000", "-o", "pan", "pan.c")
        if r.returncode:
            return None, "gcc: " + r.stderr[-300:]
        out = run("./pan", "-m400000", "-w24", timeout=900).stdout
        if "max search depth too small" in out or "out of memory" in out.lower():
            return None, "the search was cut short"
        line = next((l for l in out.splitlines() if "errors:" in l), "")
        states = next((l.split()[0] for l in out.splitlines() if "states, stored" in l), "?")
        return (int(line.rsplit("errors:", 1)[1]), states) if line else (None, out[-300:])
    finally:
        shutil.rmtree(work)


def main():
    full = os.environ.get("LEAT_FULL") == "1"
    todo = [c for c in checks if full or not c[4]]
    bad = 0
    # Some at a time, as far as there are processors; each takes a few GB at most. Told in order.
    pool = concurrent.futures.ThreadPoolExecutor(min(4, len(os.sched_getaffinity(0))))
    found = pool.map(lambda c: check(*c[1:4]), todo)
    for n, ((what, model, _, outcome, _), (errors, states)) in enumerate(zip(todo, found), 1):
        good = errors is not None and (errors > 0) == (outcome == FAILS)
        bad += not good
        print(f"{'ok' if good else 'not ok'} {n} - {model}: {what} ({states} states)", flush=True)
    print(f"1..{len(todo)}")
    return bad != 0


sys.exit(main())
