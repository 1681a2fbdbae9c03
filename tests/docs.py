#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The manual against the code: TAP. Lint, every public function and error documented, prototypes the
same, every example compiled and run, every option of --help on its page and the other way round.
Needs LEAT_SRC, LEAT_BUILD, LEAT_LEATD, LEAT_CMD."""
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

SRC, BUILD = os.environ["LEAT_SRC"], os.environ["LEAT_BUILD"]
LEATD, CMD = os.environ["LEAT_LEATD"], os.environ["LEAT_CMD"]
PAGES = sorted(glob.glob(SRC + "/man/*.[13578]"))
results = []


def report(good, what, why=""):
    results.append(good)
    print(f"{'ok' if good else 'not ok'} {len(results)} - {what}")
    for line in why.splitlines()[:20]:
        print("# " + line)


def headers():
    """name -> (prototype, comment before it)"""
    out = {}
    for f in glob.glob(SRC + "/include/leat/*.h"):
        text = open(f).read()
        for m in re.finditer(r"((?:/\*(?:[^*]|\*(?!/))*\*/\s*)?)LEAT_API ([^;]*?\b(leat_\w+)\([^;]*\));", text):
            out[m.group(3)] = (" ".join(m.group(2).split()), m.group(1))
    return out


def plain(line):
    return line.replace("\\e", "\\").replace("\\&", "").replace("\\-", "-")


def examples(page):
    text = open(page).read()
    m = re.search(r"^\.Sh EXAMPLES\n(.*?)(?=^\.Sh )", text, re.S | re.M)
    if not m:
        return None
    return ["\n".join(plain(l) for l in b.split("\n")) for b in re.findall(r"^\.Bd -literal\n(.*?)^\.Ed", m.group(1), re.S | re.M)]


def lint():
    for p in PAGES:
        r = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", p], capture_output=True, text=True)
        report(not r.stdout.strip(), f"{os.path.basename(p)} is clean", r.stdout)


def functions():
    pages = {p: open(p).read() for p in PAGES}
    for name, (proto, comment) in sorted(headers().items()):
        page = next((t for p, t in pages.items() if p.endswith(".3") and re.search(rf"^\.Nm {name}\b", t, re.M)), None)
        if page is None:
            report(False, f"{name} has a page")
            continue
        m = re.search(rf'^\.Ft (.*)\n\.Fn {name} (.*)$', page, re.M)
        args = [a.strip('"') for a in re.findall(r'"[^"]*"|\S+', m.group(2))] if m else []
        said = f"{m.group(1)} {name}({', '.join(args)})" if m else "nothing"
        norm = lambda s: re.sub(r"\s*\*\s*", " *", " ".join(s.split())).replace("* ", "*")
        missing = [e for e in sorted(set(re.findall(r"-(E[A-Z]+)", comment))) if not re.search(rf"\bEr {e}\b", page)]
        report(norm(said) == norm(proto) and not missing, f"{name} is documented as it is",
               "" if norm(said) == norm(proto) else f"page: {norm(said)}\nheader: {norm(proto)}" + f"\nmissing: {missing}")
        if missing:
            print(f"# {name}: errors of its header not on its page: {missing}")


def run_examples():
    work = tempfile.mkdtemp(prefix="leat-docs.")
    env = dict(os.environ, LEAT_BROKER=work + "/broker.sock", LD_LIBRARY_PATH=BUILD + "/lib",
               PATH=os.path.dirname(CMD) + ":" + os.path.dirname(LEATD) + ":" + os.environ["PATH"])
    broker = subprocess.Popen([LEATD, "--domain", env["LEAT_BROKER"], "--linger", "5"])
    while not os.path.exists(env["LEAT_BROKER"]):
        time.sleep(0.01)
    try:
        for p in PAGES:
            name = os.path.basename(p)
            blocks = examples(p)
            if not blocks:
                report(False, f"{name} has examples")
                continue
            for i, code in enumerate(blocks):
                if "main(" in code:
                    c, exe = f"{work}/{name}.{i}.c", f"{work}/{name}.{i}"
                    open(c, "w").write(code)
                    r = subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-O1", "-I" + SRC + "/include", c,
                                        "-L" + BUILD + "/lib", "-lleat", *(["-luv"] if "leat/uv.h" in code else []), "-o", exe], capture_output=True, text=True)
                    what = [exe]
                else:
                    script = "\n".join(l[2:] for l in code.splitlines() if l.startswith("$ "))
                    r = subprocess.CompletedProcess([], 0 if script else 1, "", "no commands")
                    what = ["sh", "-e", "-c", script]
                own = f"{work}/{name}.{i}.d"
                os.mkdir(own)
                if r.returncode == 0:
                    try:
                        r = subprocess.run(what, cwd=own, env=env, capture_output=True, text=True, timeout=30)
                    except subprocess.TimeoutExpired:
                        r = subprocess.CompletedProcess([], 1, "", "timeout")
                report(r.returncode == 0, f"{name} example {i + 1} compiles and runs", "" if r.returncode == 0 else r.stdout + r.stderr)
    finally:
        broker.terminate()
        broker.wait()
        shutil.rmtree(work)


def options():
    def help_of(*cmd):
        text = subprocess.run([*cmd, "--help"], capture_output=True, text=True).stdout
        return set(re.findall(r"^  (--[a-z-]+)", text, re.M))

    def page_of(name):
        text = open(f"{SRC}/man/{name}").read()
        return set("--" + o for o in re.findall(r"^\.It Fl Fl ([a-z-]+)", text, re.M))

    text = subprocess.run([CMD, "--help"], capture_output=True, text=True).stdout
    commands = re.findall(r"^  ([a-z]+(?: [a-z]+)?)  ", text, re.M)
    tools = [("leatd.8", [(LEATD,)])]
    for p in glob.glob(SRC + "/man/leat-*.1"):
        name = os.path.basename(p)  # those that share their first word share a page
        tools.append((name, [(CMD, *c.split()) for c in commands if c.split()[0] == name[5:-2]]))
    for name, cmds in tools:
        a, b = set().union(*(help_of(*c) for c in cmds)) - {"--version", "--help"}, page_of(name) - {"--version", "--help"}
        report(a == b, f"{name} lists the options that --help lists", f"only in --help: {a - b}, only on the page: {b - a}" if a != b else "")
    listed = set(c.split()[0] for c in commands)
    paged = set(os.path.basename(p)[5:-2] for p in glob.glob(SRC + "/man/leat-*.1"))
    report(listed == paged, "every command has a page", str(listed ^ paged) if listed != paged else "")


def layout():
    """leat-layout(7) against the compiler: offsets of every named field."""
    text = open(SRC + "/man/leat-layout.7").read()
    head, rest = text.split(".Ss Ring region")
    ring, ctrl = rest.split(".Ss Control region")
    rows = [("leat__head", o, n) for o, n in re.findall(r"^\.It (\d+) Ta \S+ Ta (\w+) Ta", head, re.M)]
    rows += [("leat__ring_shm", o, n) for o, n in re.findall(r"^\.It (\d+) Ta \S+ Ta (\w+) Ta", ring, re.M) if n != "words"]
    rows += [("leat__ctrl_shm", o, n) for o, n in re.findall(r"^\.It (\d+) Ta \S+ Ta (\w+) Ta", ctrl, re.M) if n != "entries"]
    code = '#include "mem/layout.h"\n' + "".join(f'static_assert(offsetof(struct {s}, {n}) == {o}, "{n}");\n' for s, o, n in rows)
    words = re.search(r"^\.It (\d+) Ta \S+ Ta words", ring, re.M).group(1)
    entries = re.search(r"^\.It (\d+) Ta \S+ Ta entries", ctrl, re.M).group(1)
    code += f'static_assert(sizeof(struct leat__ring_shm) == {words} && sizeof(struct leat__ctrl_shm) == {entries}, "ends");\n'
    r = subprocess.run(["cc", "-std=gnu11", "-I" + SRC + "/lib", "-I" + SRC + "/include", "-fsyntax-only", "-xc", "-"],
                       input=code, capture_output=True, text=True)
    report(r.returncode == 0 and len(rows) > 30, "leat-layout.7 has every offset right", r.stderr)


def faults():
    """Every row of leat(7)'s fault table names a test that there is."""
    text = open(SRC + "/man/leat.7").read()
    rows = re.findall(r"^\.Pq Pa (\w+) Ql (\w+)$", text, re.M)
    missing = []
    for program, test in rows:
        files = glob.glob(f"{SRC}/tests/{program}.c") + glob.glob(f"{SRC}/tests/*/{program}.c")
        if not any(f"START_TEST({test})" in open(f).read() for f in files):
            missing.append(f"{program}: {test}")
    report(len(rows) > 10 and not missing, "the faults in leat.7 name their tests", "\n".join(missing))


lint()
functions()
faults()
run_examples()
options()
layout()
print(f"1..{len(results)}")
sys.exit(not all(results))
