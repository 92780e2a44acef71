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


def judge(case, what, value, bar, form="{:.3f}", least=True):
    """A figure that should be at least (or at most) the bar; none: only told."""
    verdict = "-"
    if bar is not None and not tiny:
        verdict = "pass" if (value >= bar if least else value <= bar) else "MISS"
    want = "" if bar is None else ("at least " if least else "at most ") + form.format(bar)
    rows.append((case, what, form.format(value), want, verdict))


def tell(case, what, text):
    rows.append((case, what, text, "", "-"))


def ratio(a, b):
    return a / b if b else 0.0


def kib(n):
    return f"{n // 1024} KiB"


def path_alone():
    report = load("alone")
    for r in report["rows"] if report else []:
        case = f"alone, {r['way']}, {kib(r['run_bytes'])}{' cross-layer' if r['cross_layer'] else ''} ({r['path']})"
        bar = both = None
        if r["way"] == "fast":
            bar = 0.93 if r["run_bytes"] < 8192 else 0.97
            both = None if r["run_bytes"] < 8192 else 0.93
        judge(case, "store", ratio(r["store_gbs"], r["store_limit_gbs"]), bar)
        judge(case, "retrieve", ratio(r["retrieve_gbs"], r["retrieve_limit_gbs"]), bar)
        judge(case, "both at once", ratio(r["both_gbs"], r["both_limit_gbs"]), both)
        # of chunks of 32 MiB; shorter runs make smaller ones here
        if r["way"] == "fast" or r["cross_layer"]:
            for d in ("store", "retrieve"):
                judge(case, f"queueing {d}, us for 32 MiB", r[d + "_queue_us"], 10 if r["run_bytes"] in CHUNKS_OF_32_MIB else None,
                      "{:.1f}", least=False)


def path_busy():
    report = load("busy")
    if not report:
        return
    tell("the engine's step", "alone; beside plain copies out, in, both",
         " ".join(f"{report[k]:.0f}" for k in ("step_alone_us", "step_store_us", "step_retrieve_us", "step_both_us")) + " us")
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
            judge(case, d, ratio(r[d + "_gbs"], r[d + "_limit_gbs"]), bar)
            judge(case, f"step beside {d}", ratio(r[d + "_step_us"], report[f"step_{d}_us"]), step, least=False)
        judge(case, "both at once", ratio(r["both_gbs"], r["both_limit_gbs"]), None)
        judge(case, "step beside both", ratio(r["both_step_us"], report["step_both_us"]), None)


def embedded():
    report = load("embedded")
    if not report:
        return
    tell("owner in the engine's process", "the engine's step alone, us", f"{report['step_alone_us']:.0f}")
    for r in report["rows"]:
        case = f"owner in the engine's process, {r['way']}, {kib(r['run_bytes'])}{' cross-layer' if r['cross_layer'] else ''}"
        judged = r["way"] == "fast"  # there is no other process whose time slices would be taken
        for d in ("store", "retrieve", "both"):
            judge(case, d, ratio(r[d + "_gbs"], r[d + "_limit_gbs"]), 0.97 if judged and d != "both" else None)
            judge(case, f"step beside {d}, of alone", ratio(r[d + "_step_us"], r["step_alone_us"]), 1.03 if judged and d != "both" else None,
                  least=False)
            judge(case, f"step beside plain {d}, of alone", ratio(r[d + "_plain_step_us"], r["step_alone_us"]), None)


def ways():
    for name in sorted(os.path.basename(p)[:-5] for p in glob.glob(os.path.join(result, "*.json"))):
        if not name.startswith(("ways-", "tiles-")):
            continue
        report = load(name)
        for r in report["rows"] if report else []:
            tell(f"{name}, {r['way']}, {kib(r['run_bytes'])}", "store, retrieve, both GB/s; limits; steps",
                 f"{r['store_gbs']:.1f} {r['retrieve_gbs']:.1f} {r['both_gbs']:.1f}; {r['store_limit_gbs']:.1f} "
                 f"{r['retrieve_limit_gbs']:.1f} {r['both_limit_gbs']:.1f}; {r['store_step_us']:.0f} "
                 f"{r['retrieve_step_us']:.0f} {r['both_step_us']:.0f} us")


def device():
    report = load("device")
    if report:
        judge("the owner", "GPU memory beyond a bare context, MiB", report["beyond_context_bytes"] / 2**20, 192, "{:.0f}",
              least=False)
    longest = ("", 0.0)
    if report:
        for call in report["calls"]:
            if call["longest_us"] > longest[1]:
                longest = (call["name"], call["longest_us"])
            tell("the owner", f"{call['name']}: times, mean us, most us",
                 f"{call['count']} {call['total_us'] / call['count']:.2f} {call['longest_us']:.0f}")
    for name in ("alone", "busy"):
        for r in (load(name) or {"rows": []})["rows"]:
            if r["longest_call_us"] > longest[1]:
                longest = (r["longest_call"], r["longest_call_us"])
    if longest[0]:
        judge("the owner", f"longest call in steady state: {longest[0]}, us", longest[1], 2000, "{:.0f}", least=False)


def latency():
    for layout in ("split", "cross"):
        report = load("latency-" + layout)
        if not report:
            continue
        r = next(x for x in report["rows"] if "raw_p50_us" in x)
        case = f"RETRIEVE of one chunk, {layout} (plain copy {r['raw_p50_us']:.0f} us)"
        judge(case, "call to done word beyond the plain copy, p50 us", r["p50_us"] - r["raw_p50_us"], 100, "{:.0f}", least=False)
        judge(case, "the same, p99 us", r["p99_us"] - r["raw_p50_us"], 300, "{:.0f}", least=False)


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
    for part in (path_alone, path_busy, embedded, device, latency, loads, copies, several, ways, checked):
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
