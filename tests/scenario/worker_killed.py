#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# worker_killed.py TYERD TYER PROBE [--rounds N] [--seed S]: kill -9 of the worker in a loop, in the middle of stores (LMCache 3206: what
# was cached did not outlive the process). Every chunk
# that was acknowledged is there afterwards and right, what was not is there whole or not at all, and nothing grows.
import argparse
import os
import random
import subprocess
import time

from outside import Probe, Service, check, finish, read

parser = argparse.ArgumentParser()
parser.add_argument("programs", nargs=3)
parser.add_argument("--rounds", type=int, default=10)
parser.add_argument("--seed", type=int, default=int(os.environ.get("TYER_SEED", 1)))
parser.add_argument("--any-memory", action="store_true", help="a sanitizer keeps what was freed")
arguments = parser.parse_args()
tyerd, tyer, probe = arguments.programs
print(f"seed {arguments.seed}")
dice = random.Random(arguments.seed)

PROMPTS, CHUNKS = 12, 4
service = Service(tyerd, tyer, "--restart-backoff-us", "0", size="512MiB")
client = Probe(probe, service)
acknowledged, attempted, hit_unacknowledged = [], [], 0
outage = []


def measure():
    pid, worker = service.process.pid, service.worker()
    return {"supervisor's descriptors": len(os.listdir(f"/proc/{pid}/fd")), "worker's descriptors": len(os.listdir(f"/proc/{worker}/fd")),
            "worker's threads": len(os.listdir(f"/proc/{worker}/task"))}


def resident(pid):
    return sum(int(line.split()[1]) for line in read(f"/proc/{pid}/status").splitlines()
               if line.startswith(("RssAnon", "RssFile")))


def verify(bases):
    for base in bases:
        said = client.check(base, CHUNKS)
        if said != ["ok", str(CHUNKS), "0"]:
            return base, said
    return None


first = None
for round in range(arguments.rounds):
    client.open()
    service.returned()
    if round == 2:
        first = measure(), resident(service.process.pid)
    base = 1000000 + round * PROMPTS * CHUNKS
    at = dice.randrange(PROMPTS + 1)
    pause = dice.random() * 0.003
    killed = []

    def seen(count):
        if count >= at and not killed:
            time.sleep(pause)
            service.kill_worker()
            killed.append(time.monotonic())
    stored = client.flood(base, PROMPTS, CHUNKS, seen)
    if not killed:
        service.kill_worker()
        killed.append(time.monotonic())
    acknowledged += stored
    attempted.append(base)
    client.reopen()
    while acknowledged and client.check(acknowledged[0], CHUNKS)[:2] != ["ok", str(CHUNKS)]:
        pass
    outage.append((time.monotonic() - killed[0]) * 1000)
    service.returned()
    wrong = verify(stored + dice.sample(acknowledged, min(8, len(acknowledged))))
    check(f".round {round}: what was acknowledged is there and right", wrong is None, (wrong, service.log()[-3000:]))
    for other in range(base, base + PROMPTS * CHUNKS, CHUNKS):
        if other not in stored:
            said = client.check(other, CHUNKS)
            check(f".round {round}: what was not is whole or not there", said[0] == "ok" and said[2] == "0", said)
            hit_unacknowledged += said[0] == "ok" and said[1] != "0"
    client.ask("close")

client.open()
service.returned()
listed = subprocess.run([tyer, "list", "--tenant", "probe", "--connect", service.url + ".admin"], capture_output=True, text=True)
check("it is known whose they are", len(listed.stdout.splitlines()) >= len(acknowledged) * CHUNKS, (listed, len(acknowledged)))
last = measure(), resident(service.process.pid)
for _ in range(500):  # a connection that was closed may still be on its way out
    if not first or all(last[0][what] <= first[0][what] for what in last[0]):
        break
    time.sleep(0.01)
    last = measure(), last[1]
check(f"{arguments.rounds} workers killed: all of {len(acknowledged)} acknowledged prompts are there and right",
      verify(acknowledged) is None)
print(f"prompts that were committed but not acknowledged: {hit_unacknowledged}")
check("each kill was one restart", len(service.boots()) == arguments.rounds + 1, service.boots())
if first:
    check("descriptors and threads are what they were", all(last[0][what] <= first[0][what] for what in last[0]), (first, last))
    print(f"the supervisor's memory: {first[1]} KiB, then {last[1]} KiB")
    check("the supervisor does not grow", arguments.any_memory or last[1] <= first[1] + 512, (first, last))
check("it stops as it should", service.stop() == 0, service.log()[-2000:])
outage.sort()
print(f"from kill -9 to the first old chunk retrieved: median {outage[len(outage) // 2]:.0f} ms, max {outage[-1]:.0f} ms")
finish()
