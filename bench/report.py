#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""From the cells of one run (out/cells.jsonl): a JSON file for each group of rows, the tables in
Markdown with the ratio first, the goals, and the plots. usage: report.py OUT"""
import collections
import json
import os
import statistics
import subprocess
import sys

out = sys.argv[1]
rows = collections.OrderedDict()
facts = {}
for line in open(os.path.join(out, "cells.jsonl")):
    cell = json.loads(line)
    if "row" not in cell:
        facts = cell
        continue
    rows.setdefault(cell["row"], []).append(cell)

FIGURES = ("ns", "p50", "p99", "p999", "p9999", "max", "cpu_ns", "probe")


def measured(cells):
    """Medians of each peer's cells, in the place where every peer was measured most often."""
    peers = list(collections.OrderedDict((c["peer"], c["kind"]) for c in cells).items())
    places = collections.defaultdict(lambda: collections.defaultdict(list))
    for c in cells:
        places[c["place"]][c["peer"]].append(c)
    place = max(places, key=lambda p: (min(len(places[p][n]) for n, _ in peers), p == "near"))
    result = []
    for name, kind in peers:
        group = places[place][name]
        if not group:
            continue
        r = {k: statistics.median(c[k] for c in group) for k in FIGURES}
        r.update(peer=name, kind=kind, cells=len(group),
                 extra=[statistics.median(c["extra"][i] for c in group) for i in range(4)],
                 least=min(c["ns"] for c in group), most=max(c["ns"] for c in group))
        result.append(r)
    return place, result


def ns(v):
    if v >= 1e6:
        return f"{v / 1e6:.2f} ms"
    if v >= 1e4:
        return f"{v / 1e3:.1f} us"
    if v >= 1e3:
        return f"{v / 1e3:.2f} us"
    return f"{v:.1f} ns"


groups = collections.OrderedDict()
results = {}
for name, cells in rows.items():
    place, peers = measured(cells)
    results[name] = {p["peer"]: p for p in peers}
    groups.setdefault(cells[0]["group"], []).append(
        {"row": name, "size": cells[0]["size"], "sides": cells[0]["sides"], "place": place, "peers": peers})

for group, content in groups.items():
    with open(os.path.join(out, group + ".json"), "w") as f:
        json.dump(content, f, indent=1)

table = open(os.path.join(out, "tables.md"), "w")


def say(text=""):
    print(text)
    table.write(text + "\n")


MEANS = {  # what extra[] of a row says
    "fanout": ["M delivered/s"], "overwrite": ["% lost to observers"], "attach": ["ns, a round trip to the broker"],
    "video: 4K at 60 Hz to 4": ["ns, wake-up p50", "ns, wake-up p99", "frames lost, all readers"],
    "ticks: 64-256 B to 8": ["M delivered/s"], "log: 16 programs": ["M written/s", "% lost to the reader"],
    "state: 500 topics": ["ms until all are known", "descriptors"],
    "tensors: 100 MB kept": ["GB/s filling", "page faults of 8 messages"],
    "memory": ["bytes of broker memory a channel", "KiB of broker with 1,000 channels", "bytes of a channel for 64 B of state", "bytes of broker memory a client"],
}
for group, content in groups.items():
    for row in content:
        peers = row["peers"]
        limits = [p for p in peers if p["kind"] == "limit" and p["ns"] > 0]
        base = next((p for p in limits if p["peer"] != "memcpy alone"), None) or min(peers, key=lambda p: p["ns"])
        latency = group in ("pingpong", "rpc", "sets", "names", "attach", "latest") and any(p["p99"] for p in peers)
        say(f"\n### {row['row']} ({row['place']}, medians of {min(p['cells'] for p in peers)} or more)\n")
        rate = group in ("oneway", "fanin", "nobody")
        head = f"| x {base['peer']} | | ns |"
        rule = "|--:|:--|--:|"
        if latency:
            head += " p50 | p99 | p99.9 | p99.99 | max |"
            rule += "--:|--:|--:|--:|--:|"
        if rate:
            head += " M msg/s | GB/s |"
            rule += "--:|--:|"
        if group == "files":
            head += " MB/s |"
            rule += "--:|"
        say(head)
        say(rule)
        for p in sorted(peers, key=lambda p: p["ns"]):
            line = f"| {p['ns'] / base['ns']:.2f} | {p['peer']} | {ns(p['ns'])} |"
            if latency:
                line += "".join(f" {ns(p[k])} |" for k in ("p50", "p99", "p999", "p9999", "max"))
            if rate:
                line += f" {1e3 / p['ns']:.2f} | {row['size'] / p['ns']:.2f} |"
            if group == "files":
                line += f" {p['extra'][0]:.0f} |"
            say(line)
        for i, meaning in enumerate(MEANS.get(row["row"], MEANS.get(group, []))):
            say(f"\n{meaning}: " + ", ".join(f"{p['extra'][i]:.1f} ({p['peer']})" for p in peers if p["kind"] == "leat"))
        if group == "loads":
            p = peers[0]
            say(f"\nprice of a message to its sender: {ns(p['cpu_ns'] or p['ns'])}, p99 {ns(p['p99'])}, max {ns(p['max'])}")


# ---- the goals: (name, measured, limit, True when smaller is better)
def get(row, peer, field="ns"):
    r = results.get(row, {}).get(peer)
    return None if r is None else r[field] if isinstance(field, str) else r["extra"][field]


def best(row, kind="peer"):
    v = [p["ns"] for p in results.get(row, {}).values() if p["kind"] == kind and p["ns"] > 0]
    return min(v) if v else None


def leat(row):
    return best(row, "leat")


def over(a, b):
    return None if a is None or b is None or b == 0 else a / b


goals = [
    ("ping-pong 64 B, spinning / bare cache line", over(leat("ping-pong 64 B, spinning"), get("ping-pong 64 B, spinning", "bare cache line")), 1.25, True),
    ("ping-pong 64 B, spinning / ring by hand", over(leat("ping-pong 64 B, spinning"), get("ping-pong 64 B, spinning", "ring by hand")), None, True),
    ("ping-pong 64 B, spinning / best peer", over(leat("ping-pong 64 B, spinning"), best("ping-pong 64 B, spinning")), 1.0, True),
    ("ping-pong 64 B, default / bare cache line", over(leat("ping-pong 64 B, default"), get("ping-pong 64 B, default", "bare cache line")), 1.35, True),
    ("ping-pong 64 B, sleeping / raw futex", over(get("ping-pong 64 B, sleeping", "leat"), get("ping-pong 64 B, sleeping", "raw futex")), 1.05, True),
    ("wake-up of a sleeper / raw futex", over(get("wake-up of a sleeper, 64 B", "leat"), get("wake-up of a sleeper, 64 B", "raw futex")), 1.05, True),
    ("call 64 B, spinning / ping-pong of the same", over(leat("call 64 B, spinning"), get("ping-pong 64 B, spinning", "leat")), 1.25, True),
    ("work queue, jobs of 10 us: 2 workers / 1", over(leat("work queue, jobs of 10 us, 2 workers"), leat("work queue, jobs of 10 us, 1 worker")), 0.6, True),
    ("one-way 64 B, send/recv: rate / ring by hand", over(get("one-way 64 B", "ring by hand"), get("one-way 64 B", "leat")), 0.8, False),
    ("one-way 64 B, send/recv: rate / best peer", over(best("one-way 64 B"), get("one-way 64 B", "leat")), 1.5, False),
    ("one-way 64 B, by 16: rate / ring by hand", over(get("one-way 64 B", "ring by hand"), get("one-way 64 B", "leat in place, by 16")), 1.0, False),
    ("one-way 64 KiB in place: rate / ring by hand", over(get("one-way 64 KiB", "ring by hand"), get("one-way 64 KiB", "leat in place")), 0.9, False),
    ("one-way 64 KiB in place: rate / best peer", over(best("one-way 64 KiB"), get("one-way 64 KiB", "leat in place")), 1.0, False),
    ("one-way 1 MiB in place: rate / ring by hand", over(get("one-way 1 MiB", "ring by hand"), get("one-way 1 MiB", "leat in place")), 0.9, False),
    ("one-way 1 MiB in place: rate / best peer", over(best("one-way 1 MiB"), get("one-way 1 MiB", "leat in place")), 1.0, False),
    ("publisher's CPU, 200 readers / 1", over(get("1 to 200", "leat"), get("1 to 1", "leat")), 1.2, True),
    ("publish with nobody listening / ring by hand", over(get("publish 64 B with nobody listening", "leat"), get("publish 64 B with nobody listening", "ring by hand")), 1.5, True),
    ("latest 64 B, changed / bare cache line", over(get("latest 64 B, changed", "leat"), get("latest 64 B, changed", "leat", "probe")), 2.5, True),
    ("attach / a round trip to the broker", over(get("attach, domain open", "leat"), get("attach, domain open", "leat", 0)), 2.0, True),
    ("attach / best brokered peer", over(get("attach, domain open", "leat"), best("attach, domain open")), 1.0, True),
    ("registrations: rate / iceoryx", over(get("registrations, 64 clients", "iceoryx"), get("registrations, 64 clients", "leat")), 1.0, False),
    ("registrations: rate / D-Bus", over(get("registrations, 64 clients", "D-Bus"), get("registrations, 64 clients", "leat")), 5.0, False),
    ("broker, idle: MB", over(get("memory", "leat"), 1024), 3.0, True),
    ("broker, a channel: bytes beside its control region", get("memory", "leat", 0), 1024, True),
    ("a channel for 64 bytes of state: KiB", over(get("memory", "leat", 2), 1024), 64, True),
]
for size in ("64 B", "512 B", "4 KiB", "64 KiB"):
    for what, row in (("overwriting", f"overwriting, records of {size}"), ("reading", f"reading, records of {size}")):
        goals.append((f"files, {what}, {size}: rate / best other", over(best(row), get(row, "leat file region, kept")), 1.0, False))
    if size != "64 KiB":
        row = f"new file, records of {size}"
        goals.append((f"files, new, {size}: rate / stdio", over(get(row, "stdio"), get(row, "leat file region")), 1.0, False))

# ---- the short table: time of leat's best way over that of the limit and of the quickest other
SHORT = [("ping-pong 64 B, spinning", "bare cache line"), ("ping-pong 64 B, spinning", "ring by hand"),
         ("wake-up of a sleeper, 64 B", "raw futex"), ("one-way 8 B", "ring by hand"),
         ("one-way 64 B", "ring by hand"), ("one-way 256 B", "ring by hand"), ("one-way 1 KiB", "ring by hand"),
         ("one-way 64 KiB", "ring by hand"), ("one-way 1 MiB", "ring by hand"), ("one-way 12.4 MB", "ring by hand"),
         ("attach, domain open", None), ("registrations, 64 clients", None)]
say("\n### In short: time of leat / time of ...\n")
say("| | the limit | the quickest other | others |\n|:--|:--|:--|:--|")
for row, limit in SHORT:
    ours = leat(row)
    others = sorted((p["ns"], p["peer"]) for p in results.get(row, {}).values() if p["kind"] == "peer" and p["ns"] > 0)
    if ours is None or not others:
        continue
    first = f"{over(ours, get(row, limit)):.2f} {limit}" if limit and get(row, limit) else ""
    rest = ", ".join(f"{over(ours, t):.2g} {n}" for t, n in others[1:]
                     if n in ("iceoryx", "ZeroMQ ipc", "pipe", "boost message_queue", "D-Bus"))
    place = next((r["place"] for c in groups.values() for r in c if r["row"] == row), "")
    where = f" ({place})" if place != "any" else ""
    say(f"| {row}{where}: {ns(ours)} | {first} | {over(ours, others[0][0]):.2f} {others[0][1]} | {rest} |")

say("\n### Goals\n")
say("| | goal | measured | |\n|:--|--:|--:|:--|")
summary = []
for name, value, limit, smaller in goals:
    if value is None:
        continue
    held = limit is None or (value <= limit if smaller else value >= limit)
    sign = "" if limit is None else ("<= " if smaller else ">= ") + f"{limit:g}"
    say(f"| {name} | {sign} | {value:.2f} | {'' if limit is None else 'held' if held else 'missed'} |")
    summary.append({"goal": name, "limit": limit, "measured": round(value, 4), "held": held})
with open(os.path.join(out, "goals.json"), "w") as f:
    json.dump(summary, f, indent=1)
say(f"\n{facts.get('cells', 0)} cells, {facts.get('discarded', 0)} thrown out, {facts.get('failed', 0)} failed")
table.close()

# ---- plots
SIZES = collections.OrderedDict([("8 B", 8), ("64 B", 64), ("256 B", 256), ("1 KiB", 1024), ("64 KiB", 65536), ("1 MiB", 1 << 20), ("12.4 MB", 12441600)])


def plot(name, script):
    for terminal, suffix in (("svg size 900,560", "svg"), ("pngcairo size 900,560", "png")):
        text = f"set terminal {terminal}\nset output '{os.path.join(out, name)}.{suffix}'\nset grid\nset key outside right\n" + script
        try:
            done = subprocess.run(["gnuplot"], input=text, text=True, capture_output=True)
        except FileNotFoundError:
            print("no plots: gnuplot is not installed")
            return
        if done.returncode:
            print(f"{name}.{suffix}: {done.stderr.strip()}")


def series(points):
    """points: {peer: [(x, y)]} as gnuplot data and plot commands"""
    data, commands = "", []
    for i, (peer, p) in enumerate(points.items()):
        data += f"$d{i} << E\n" + "".join(f"{x} {y}\n" for x, y in p) + "E\n"
        commands.append(f"$d{i} using 1:2 with linespoints title '{peer}'")
    return data + "plot " + ", ".join(commands) + "\n"


points = collections.OrderedDict()
for label, size in SIZES.items():
    for peer, r in results.get(f"one-way {label}", {}).items():
        if r["ns"] > 0:
            points.setdefault(peer, []).append((size, size / r["ns"]))
if points:
    plot("throughput", "set logscale xy\nset xlabel 'bytes of a message'\nset ylabel 'GB/s'\n" + series(points))
points = collections.OrderedDict()
for peer, r in results.get("ping-pong 64 B, spinning", {}).items():
    if r["p50"] > 0:
        points[peer] = [(i, r[k]) for i, k in enumerate(("p50", "p99", "p999", "p9999", "max"))]
if points:
    plot("latency", "set logscale y\nset xtics ('p50' 0, 'p99' 1, 'p99.9' 2, 'p99.99' 3, 'max' 4)\nset ylabel 'ns, half a round trip of 64 B'\n" + series(points))
points = [(n, get(f"1 to {n}", "leat")) for n in (1, 2, 8, 64, 200) if get(f"1 to {n}", "leat")]
if points:
    plot("readers", "set logscale x\nset yrange [0:]\nset xlabel 'readers'\nset ylabel 'ns of the publisher, a message of 64 B'\n" + series({"leat": points}))
