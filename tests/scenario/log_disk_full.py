#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# log_disk_full.py TYERD TYER TYER-BENCH: the log's disk is full, or nobody reads the pipe that it is. The service serves, counts the
# lines that it lost, and ends as it should.
import json
import os
import subprocess
import sys
import tempfile

from outside import begin_pings, check, end_pings, finish

tyerd, tyer, bench = sys.argv[1:4]


def serve(name, stderr, lost):
    with tempfile.TemporaryDirectory(prefix="tyer-log-") as folder:
        url, attach, trace = f"ipc://{folder}/rpc.sock", f"{folder}/attach.sock", f"{folder}/trace.jsonl"
        service = subprocess.Popen(
            [tyerd, "--listen", url, "--attach", attach, "--device", "host", "--http", "off", "--l1-size", "128MiB", "--chunk-tokens",
             "512", "--log-level", "debug"], stdout=subprocess.PIPE, stderr=stderr, text=True)
        check(f"{name}: ready", service.stdout.readline().startswith("tyerd ready"))
        pinger = begin_pings(url, folder)
        subprocess.run([bench, "trace", "--requests", "30", "--seed", "2", "--output", trace], check=True)
        for _ in range(20):  # each comes and goes, which is worth a line
            done = subprocess.run([bench, "replay", trace, "--connect", url, "--attach", attach, "--device", "host", "--limit", "3",
                                   "--ping-every", "0", "--no-progress"], capture_output=True, text=True, timeout=120)
            if done.returncode != 0:
                break
        check(f"{name}: serves", done.returncode == 0, done.stdout + done.stderr)
        status = subprocess.run([tyer, "status", "--json", "--connect", url], capture_output=True, text=True, timeout=60)
        counters = json.loads(status.stdout)["counters"]
        check(f"{name}: lines that are lost are counted",
              counters["tyer_log_lost_total"] + counters["tyer_log_dropped_total"] >= lost, counters)
        end_pings(pinger)
        service.terminate()
        check(f"{name}: exit 0", service.wait(timeout=60) == 0)


with open("/dev/full", "w") as full:
    serve("a full disk", full, 20)
unread, pipe = os.pipe()
os.set_blocking(pipe, False)
try:
    while True:
        os.write(pipe, bytes(4096))  # full, and nobody will read
except BlockingIOError:
    pass
os.set_blocking(pipe, True)
serve("a pipe that nobody reads", pipe, 0)
finish()
