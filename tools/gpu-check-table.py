#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""table.py RESULT [--tiny]: what a GPU check measured, against what was wanted. Writes table.txt and summary.json, prints
what has a wish.

Fails if a step failed or any word was wrong. With --tiny nothing is judged: the figures are a stand-in's.
"""
import glob
import json
import os
import sys

result = sys.argv[1]
tiny = "--tiny" in sys.argv[2:]
CHUNKS_OF_32_MIB = (32768, 65536, 2097152)  # run lengths
rows = []  # (case, what, measured, wanted, verdict)
wrong = []


def load(name):
    try:
        with open(os.path.join(result, name + ".json")) as f:
            return json.load(f)
    except (OSError, ValueError):
        return None


def judge(case, what, value, bar=None, form="{:.3f}", least=True, spread=None):
    """A figure that should be at least (or at most) the bar; none: only told."""
    verdict = "-"
    if bar is not None and not tiny:
        verdict = "pass" if (value >= bar if least else value <= bar) else "MISS"
    want = "" if bar is None else ("at least " if least else "at most ") + form.format(bar)
    measured = form.format(value)
    if spread:
        measured += f" ({form.format(spread[0])}..{form.format(spread[1])})"
    rows.append((case, what, measured, want, verdict))


def tell(case, what, text):
    rows.append((case, what, text, "", "-"))


def ratio(a, b):
    return a / b if b else 0.0


def kib(n):
    return f"{n // 1024} KiB"


def of_rounds(report, what):
    """A ratio's median with its least and most."""
    return {"value": report[what], "spread": (report[what + "_min"], report[what + "_max"])}


def path_alone():
    report = load("alone")
    for r in report["rows"] if report else []:
        case = f"alone, {r['way']}, {kib(r['run_bytes'])}{' cross-layer' if r['cross_layer'] else ''} ({r['path']})"
        bar = both = None
        if r["way"] == "fast":
            bar = 0.93 if r["run_bytes"] < 8192 else 0.97
            both = None if r["run_bytes"] < 8192 else 0.93
        judge(case, "store", **of_rounds(r, "store_ratio"), bar=bar)
        judge(case, "retrieve", **of_rounds(r, "retrieve_ratio"), bar=bar)
        judge(case, "both at once", **of_rounds(r, "both_ratio"), bar=both)
        # of chunks of 32 MiB; shorter runs make smaller ones here
        if r["way"] == "fast" or r["cross_layer"]:
            for d in ("store", "retrieve"):
                judge(case, f"queueing {d}, us for 32 MiB", r[d + "_queue_us"], 10 if r["run_bytes"] in CHUNKS_OF_32_MIB else None,
                      "{:.1f}", least=False)


def path_busy():
    report = load("busy")
    if not report:
        return
    tell("the engine's step", "alone, us", f"{report['step_alone_us']:.0f}")
    for r in report["rows"]:
        cross = r["cross_layer"]
        case = f"busy, {r['way']}, {kib(r['run_bytes'])}{' cross-layer' if cross else ''} ({r['path']})"
        bar = step = None
        if cross:
            bar, step = 0.97, 1.02 if r["way"] != "fast" else None
        elif r["way"] == "fast" and r["run_bytes"] >= 8192:
            bar = 0.95
        elif r["way"] == "quiet":
            bar = {8192: 0.40, 16384: 0.70, 32768: 0.90}.get(r["run_bytes"])
            step = 1.02
        for d in ("store", "retrieve"):
            judge(case, d, **of_rounds(r, d + "_ratio"), bar=bar)
            judge(case, f"step beside {d}, of that beside plain copies", **of_rounds(r, d + "_step_ratio"), bar=step, least=False)
        judge(case, "both at once", **of_rounds(r, "both_ratio"))
        judge(case, "step beside both, of that beside plain copies", **of_rounds(r, "both_step_ratio"))


def embedded():
    report = load("embedded")
    for r in report["rows"] if report else []:
        case = f"owner in the engine's process, {r['way']}, {kib(r['run_bytes'])}{' cross-layer' if r['cross_layer'] else ''}"
        judged = r["way"] == "fast"  # there is no other process whose time slices would be taken
        for d in ("store", "retrieve", "both"):
            bar = judged and d != "both"
            judge(case, d, **of_rounds(r, d + "_ratio"), bar=0.97 if bar else None)
            judge(case, f"step beside {d}, of alone ({r['step_alone_us']:.0f} us; plain copies make it {r[d + '_plain_step_of_alone']:.3f})",
                  r[d + "_step_of_alone"], 1.03 if bar else None, least=False)


def ways():
    for name in sorted(os.path.basename(p)[:-5] for p in glob.glob(os.path.join(result, "*.json"))):
        if not name.startswith("ways-") and name != "embedded-ways":
            continue
        report = load(name)
        for r in report["rows"] if report else []:
            case = f"{name}, {r['way']}, {kib(r['run_bytes'])}"
            for d in ("store", "retrieve", "both"):
                judge(case, d, **of_rounds(r, d + "_ratio"))
            if "store_step_ratio" in r:
                tell(case, "step beside store, retrieve, both, of that beside plain copies",
                     " ".join(f"{r[d + '_step_ratio']:.3f}" for d in ("store", "retrieve", "both")))
            if r["store_queue_us"]:
                tell(case, "queueing store, retrieve, us for 32 MiB", f"{r['store_queue_us']:.1f} {r['retrieve_queue_us']:.1f}")


def device():
    report = load("device")
    if report:
        judge("the owner", "GPU memory beyond a bare context, MiB", report["beyond_context_bytes"] / 2**20, 192, "{:.0f}",
              least=False)
    longest = ("", 0.0, None)
    if report:
        for call in report["calls"]:
            if call["longest_us"] > longest[1]:
                longest = (call["name"], call["longest_us"], None)
            tell("the owner", f"{call['name']}: times, mean us, most us",
                 f"{call['count']} {call['total_us'] / call['count']:.2f} {call['longest_us']:.0f}")
    for name in ("alone", "busy"):
        for r in (load(name) or {"rows": []})["rows"]:
            if r["longest_call_us"] > longest[1]:
                longest = (r["longest_call"], r["longest_call_us"], r["waited_us"])
    if longest[0]:
        judge("the owner", f"longest call in steady state: {longest[0]}, us", longest[1], 2000, "{:.0f}", least=False)
        if longest[2] is not None:
            tell("the owner", "its thread waited for a CPU in those seconds, in all, us", f"{longest[2]:.0f}")


def latency():
    for layout in ("split", "cross"):
        report = load("latency-" + layout)
        if not report:
            continue
        of = {r["what"]: r for r in report["rows"] if "what" in r}
        ours, plain, spin = of["retrieve"], of["plain"], of["spin"]
        case = f"RETRIEVE of one chunk, {layout}"
        for who, r in (("call to done word", ours), ("a plain copy beside it", plain)):
            tell(case, f"{who}: p50, p99, p99.9, max us, of {r['samples']}",
                 " ".join(f"{r[p + '_us']:.0f}" for p in ("p50", "p99", "p999", "max")))
        tell(case, "a loop that does nothing else: longest gap us, gaps over 100 us a second",
             f"{spin['longest_us']:.0f} {spin['over_100_us'] / spin['seconds']:.1f}")
        judge(case, "p50 beyond the plain copy's, us", ours["p50_us"] - plain["p50_us"], 100, "{:.0f}", least=False)
        judge(case, "p99 beyond the plain copy's, us", ours["p99_us"] - plain["p99_us"], 300, "{:.0f}", least=False)


def restart():
    report = load("restart")
    if not report:
        return
    rounds = report["rounds_of_a_kill"]
    case = f"kill -9 with {report['bytes'] / 2**30:.0f} GiB in chunks of {kib(report['chunk_bytes'])}, {len(rounds)} rounds"
    for what, words, bar in (("ready", "the next worker ready, s", None), ("first", "the youngest chunk served, s", None),
                             ("retrieved", "a prompt retrieved by an engine that starts then, s", 3), ("last", "all served, s", None)):
        seconds = sorted(r[what] / 1000 for r in rounds)
        judge(case, words, seconds[len(seconds) // 2], bar, "{:.2f}", least=False, spread=(seconds[0], seconds[-1]))
    for key, words, bar in (("ping_", "PING meanwhile: the longest of all, ms", 10), ("still_", "PING in a second after it", None)):
        worst = sorted(r[key + "max_us"] / 1000 for r in rounds)
        judge(case, words, worst[-1], bar, "{:.1f}", least=False)
        tell(case, words.split(":")[0] + ": p50, p99.9 us, the rounds' worst",
             " ".join(f"{max(r[key + p] for r in rounds):.0f}" for p in ("p50_us", "p999_us")))
    tell(case, "longest slow call of the driver, ms", f"{max(r['slow_call_ms'] for r in rounds):.1f}")


def loads():
    for name in ("load", "baseline", "baseline-load"):
        report = load(name)
        if not report:
            continue
        case = "16 clients, Tyer" if report["service"] == "tyer" else "16 clients, 16 threads"
        for r in report["rows"]:
            if r.get("mode") == "turns":
                tell(case, "GB/s out, in", f"{r['out_gbs']:.1f} {r['in_gbs']:.1f}")
            if r.get("when") == "idle":
                tell(case, "PING idle p50, p99, p99.9, max us",
                     f"{r['p50_us']:.0f} {r['p99_us']:.0f} {r['p999_us']:.0f} {r['max_us']:.0f}")
            if r.get("when") == "at full rate":
                judge(case, "PING at full rate p99.9 us", r["p999_us"], 2000 if report["service"] == "tyer" else None, "{:.0f}",
                      least=False)
                tell(case, "PING at full rate p50, p99, max us", f"{r['p50_us']:.0f} {r['p99_us']:.0f} {r['max_us']:.0f}")


def copies():
    for layout in ("split", "cross-layer"):
        report = load("copy-" + layout)
        if not report or "store_to_raw" not in report:
            continue
        case = f"a client over nng, {layout}"
        for d in ("store", "retrieve"):
            judge(case, f"{d} of the plain copy ({report[d + '_gbps']['median']:.1f} GB/s)", report[d + "_to_raw"]["median"], None)
        if "hbm_bytes" in report:
            tell(case, "GPU memory taken, MiB", f"{report['hbm_bytes'] / 2**20:.0f}")


def by_mode(report):
    return {(r["mode"], r["devices"]): r["out_gbs"] + r["in_gbs"] for r in report["rows"] if "devices" in r}


def several():
    for name in ("rates-split", "rates-cross", "baseline-rates"):
        report = load(name)
        if not report:
            continue
        who = "Tyer" if report["service"] == "tyer" else "16 threads"
        rates = by_mode(report)
        for mode in ("plain store", "plain retrieve", "plain both", "store", "retrieve", "both"):
            single = [v for (m, d), v in rates.items() if m == mode and d != "all"]
            together = rates.get((mode, "all"))
            if together is None or not single:
                continue
            one = sum(single) / len(single)
            case = f"{len(single)} GPUs, {who}, {report['layout']}: {mode}"
            tell(case, "GB/s of one, of all", f"{one:.1f} {together:.1f}")
            if mode.startswith("plain"):
                continue
            scale, host = ratio(together, one), ratio(together, rates.get(("plain " + mode, "all"), 0))
            # nearly as many times one GPU, or what the host's memory gives to plain copies
            bar = None if who != "Tyer" else 0.95 * len(single)
            if bar is not None and scale < bar and host >= 0.95:
                judge(case, f"of plain copies on all ({scale:.2f} of one GPU)", host, 0.95)
            else:
                judge(case, "times one GPU", scale, bar, "{:.2f}")
    report = load("stall")
    if report:
        modes = {r["mode"]: r["out_gbs"] + r["in_gbs"] for r in report["rows"] if "mode" in r}
        judge("one GPU hangs", "the others' throughput of undisturbed", ratio(modes["beside"], modes["undisturbed"]), 0.97)
        for r in report["rows"]:
            if r.get("when") == "beside a hang":
                judge("one GPU hangs", "PING p99.9 us", r["p999_us"], 2000, "{:.0f}", least=False)
    report = load("kill")
    if report:
        modes = {r["mode"]: r["out_gbs"] + r["in_gbs"] for r in report["rows"] if "mode" in r}
        back = next(r["back_seconds"] for r in report["rows"] if "back_seconds" in r)
        judge("one client killed", "its GPU memory back after s", back, 1.0, least=False)
        judge("one client killed", "the others' throughput of before", ratio(modes["after"], modes["before"]), 0.97)


def checked():
    """Words compared, wherever."""
    total = 0
    for path in sorted(glob.glob(os.path.join(result, "*.json"))):
        name = os.path.basename(path)[:-5]
        report = load(name)
        if not isinstance(report, dict):
            continue
        for r in report.get("rows", []):
            total += r.get("checked_chunks", 0)
            if r.get("wrong_words"):
                wrong.append(f"{name}: {r['wrong_words']} wrong words")
        total += report.get("chunks_checked", 0)
        if report.get("chunks_wrong"):
            wrong.append(f"{name}: {report['chunks_wrong']} wrong chunks")
    judge("contents", f"wrong, of {total} chunks compared", len(wrong), 0, "{:.0f}", least=False)


def main():
    steps = []
    with open(os.path.join(result, "steps.tsv")) as f:
        for line in f:
            name, outcome, seconds, note = line.rstrip("\n").split("\t")
            steps.append({"step": name, "result": outcome, "seconds": int(seconds), "note": "" if outcome == "passed" else note})
    for part in (path_alone, path_busy, embedded, device, latency, restart, loads, copies, several, ways, checked):
        try:
            part()
        except (KeyError, StopIteration, TypeError) as error:
            tell(part.__name__, "its report is not whole", repr(error))
    failed = [s["step"] for s in steps if s["result"] not in ("passed", "skipped", "not run")]
    with open(os.path.join(result, "machine.txt")) as f:
        machine = f.read()
    missed = [f"{c}: {w}" for c, w, _, _, v in rows if v == "MISS"]
    with open(os.path.join(result, "summary.json"), "w") as f:
        json.dump({"machine": machine, "steps": steps, "failed": failed, "wrong": wrong, "missed": missed,
                   "rows": [dict(zip(("case", "what", "measured", "wanted", "verdict"), r)) for r in rows],
                   "reports": {os.path.basename(p)[:-5]: load(os.path.basename(p)[:-5])
                               for p in glob.glob(os.path.join(result, "*.json")) if not p.endswith("summary.json")}}, f, indent=1)
    width = [max((len(r[i]) for r in rows), default=0) for i in range(4)]
    with open(os.path.join(result, "table.txt"), "w") as f:
        for r in rows:
            print("  ".join(r[i].ljust(width[i]) for i in range(4)), r[4], file=f)
    print("\n" + machine)
    for r in rows:
        if r[3]:
            print(f"{r[4]:4} {r[0]}: {r[1]}: {r[2]} ({r[3]})")
    print()
    for s in steps:
        print(f"{s['step']:18} {s['result']:9} {s['seconds']:4} s  {s['note']}")
    print(f"\n{len(steps) - len(failed)} steps, {len(failed)} failed; {sum(r[4] == 'pass' for r in rows)} figures as wanted, "
          f"{len(missed)} missed. All {len(rows)} figures are in table.txt")
    return 1 if failed or wrong or not any(s["result"] == "passed" for s in steps) else 0


sys.exit(main())
