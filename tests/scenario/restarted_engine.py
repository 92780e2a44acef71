#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# restarted_engine.py TYERD TYER TYER-BENCH: an engine that comes back with the prompts it had (LMCache issue 4492: after a restart of
# the engine old prompts got wrong bytes, with a layout of several kinds of planes). For each way to lay out a pool one engine
# stores, ends, and another one with the same prompts retrieves: all of it is found, every word is right. Engines of other
# layouts, whose prompts and names are the same, find nothing of it.
import json
import subprocess
import sys

from outside import DEVICE, DRIVER, Service, check, finish

tyerd, tyer, bench = sys.argv[1:4]
GEOMETRIES = [
    f"layers={layers},planes={planes},heads={heads},dim={dim},block=64,dtype={dtype},layout={layout}"
    for layout in ("split", "interleaved", "cross-layer")
    for layers, planes, heads, dim, dtype in ((4, 2, 2, 8, "bf16"), (4, 1, 1, 24, "bf16"), (3, 2, 1, 16, "fp8_e4m3"))
]

service = Service(tyerd, tyer, size="1GiB", chunk_tokens=512, http=False).ready()
trace = f"{service.dir}/trace.jsonl"
subprocess.run([bench, "trace", "--requests", "40", "--seed", "11", "--output", trace], check=True)


def replay(geometry):
    report = f"{service.dir}/report.json"
    done = subprocess.run(
        [bench, "replay", trace, "--connect", service.url, "--attach", service.attach, "--device", DEVICE, "--cuda-driver", DRIVER,
         "--geometry", geometry, "--ping-every", "0", "--concurrency", "4", "--no-progress", "--json", report],
        capture_output=True, text=True, timeout=120)
    return (done, json.load(open(report))) if done.returncode == 0 else (done, None)


for geometry in GEOMETRIES:
    done, first = replay(geometry)
    if not first:
        check(f"{geometry}: first", False, done.stdout + done.stderr)
        continue
    if "interleaved" in geometry:  # the same bytes as of "split", only elsewhere in the pool
        check(f"{geometry}: finds what the same bytes elsewhere left", first["hits"] == first["chunks"] and not first["chunks_wrong"], first)
        continue
    # what it finds is what it stored itself: its own prompts share their beginnings, those of other layouts are not its own
    check(f"{geometry}: finds nothing of others", first["hits"] <= first["ceiling"] and not first["chunks_wrong"], first)
    done, again = replay(geometry)
    check(f"{geometry}: finds all of its own, every word right",
          again and again["hits"] == again["chunks"] == again["chunks_checked"] and again["chunks_wrong"] == 0, again or done.stderr)
check("it stops as it should", service.stop() == 0)
finish()
