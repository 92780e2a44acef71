#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# log_disk_full.py TYERD TYER TYER-BENCH: the log's disk is full, or nobody reads the pipe that it is. The service serves, counts the
# lines that it lost, and ends as it should; also if standard output is that pipe, and a worker has to be started again.
import json
import os
import signal
import subprocess
import sys
import tempfile

from outside import begin_pings, check, end_pings, finish, until, wait_gone

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


def start_again(output):
    """Both standard output and standard error are the pipe."""
    with tempfile.TemporaryDirectory(prefix="tyer-log-") as folder:
        url = f"ipc://{folder}/rpc.sock"
        service = subprocess.Popen([tyerd, "--listen", url, "--attach", f"{folder}/attach.sock", "--device", "host", "--http", "off", "--l1-size",
                                    "128MiB"], stdout=output, stderr=output)

        def status():
            r = subprocess.run([tyer, "status", "--json", "--connect", url], capture_output=True, text=True, timeout=60)
            return json.loads(r.stdout) if r.returncode == 0 else None

        until(status)
        worker = int(open(f"/proc/{service.pid}/task/{service.pid}/children").read())
        os.kill(worker, signal.SIGKILL)
        wait_gone(worker)
        until(lambda: (status() or {}).get("restart", {}).get("restarts") == 1)
        service.terminate()
        check("nobody reads either output: exit 0", service.wait(timeout=120) == 0)

        # and one that cannot serve ends, though nobody hears why
        refused = subprocess.run([tyerd, "--listen", url, "--attach", folder, "--device", "host", "--http", "off"],
                                 stdout=output, stderr=output, timeout=120)
        check("nobody hears why it cannot serve: exit 1", refused.returncode == 1, refused)
        refused = subprocess.run([tyerd, "--listen", "nowhere"], stdout=output, stderr=output, timeout=120)
        check("nobody hears what is wrong with an option: exit 2", refused.returncode == 2, refused)


start_again(pipe)
finish()
