#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# disk_killed.py TYERD TYER PROBE [--rounds N] [--seed S] [--folder F]: kill -9 of the whole service, at any point, while it stores
# and writes to a disk tier. The next one has nothing but the folder: every chunk that an event ever announced as being there
# comes up with the right bytes, and nothing that is not whole can be seen.
import argparse
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time

from outside import Probe, Service, check, finish, wait_gone
from subscriber import MOVED, Subscriber

parser = argparse.ArgumentParser()
parser.add_argument("programs", nargs=3)
parser.add_argument("--rounds", type=int, default=10)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--folder", help="for the tier: one that stays")
arguments = parser.parse_args()
tyerd, tyer, probe = arguments.programs
print(f"seed {arguments.seed}")
dice = random.Random(arguments.seed)

PROMPTS, CHUNKS, KEYS = 12, 4, 64  # of a flood; that one WARM may name
folder = arguments.folder or tempfile.mkdtemp(prefix="tyer-killed-", dir="/var/tmp")
tier = f"disk:{folder}/a:{folder}/b"
url = f"ipc://{folder}/events.sock"
service = None
announced, attempted, found_whole = {}, [], 0  # key: round


def start():
    global service
    if not service:
        service = Service(tyerd, tyer, "--tier", tier, "--events", url, size="128MiB", http=False, start_new_session=True)
    else:
        service.start(start_new_session=True)


def files():
    return [f"{root}/{name}" for root, _, names in os.walk(folder) for name in names if ".tyer" in name]


def scanned():
    while service.counter('tyer_tier_scanning{tier="0",kind="disk"}'):
        time.sleep(0.002)


def verify(keys, round):
    """All of them come up: `tyer warm` counts what is in the arena then, and a tier's every byte was checked before. On a slow disk it
    answers before they are there, and is asked again."""
    keys = list(dict.fromkeys(keys))
    for i in range(0, len(keys), KEYS):
        some = keys[i:i + KEYS]
        for _ in range(100):
            said = subprocess.run([tyer, "warm", "--connect", f"{service.url}.admin", *(f"--key={k}" for k in some)],
                                  capture_output=True, text=True)
            if said.stdout.startswith(f"{len(some)} chunks,"):
                break
            time.sleep(0.1)
        check(f".round {round}: {len(some)} that were announced come up", said.stdout.startswith(f"{len(some)} chunks,"),
              said.stdout + said.stderr)


try:
    for round in range(arguments.rounds + 1):
        start()
        client = Probe(probe, service).open()
        scanned()
        left = [f for f in files() if ".tmp-" in f]
        check(f".round {round}: nothing half written is left", not left, left)
        check(f".round {round}: nothing is taken for a chunk that is none",
              service.counter('tyer_tier_foreign_total{tier="0",kind="disk"}') == 0)
        last = [key for key, when in announced.items() if when == round - 1]
        verify(last + dice.sample(list(announced), min(KEYS, len(announced))), round)
        for base in attempted[-PROMPTS:]:
            said = client.check(base, CHUNKS)
            check(f".round {round}: what there is of a prompt is right", said[0] == "ok" and said[2] == "0", said)
            found_whole += said[0] == "ok" and said[1] == str(CHUNKS)
        check(f".round {round}: no chunk was wrong",
              service.counter('tyer_tier_operations_total{tier="0",kind="disk",verb="get",outcome="corrupt"}') == 0)
        if round == arguments.rounds:
            break
        subscriber = Subscriber(url)
        subscriber.start()
        base = 1000000 + round * PROMPTS * CHUNKS
        attempted += range(base, base + PROMPTS * CHUNKS, CHUNKS)
        worker, pause, at = service.worker(), dice.random() * 0.01, dice.randrange(PROMPTS + 1)
        killed = []

        def seen(count):
            if count >= at and not killed:
                time.sleep(pause)
                os.killpg(service.process.pid, signal.SIGKILL)
                killed.append(True)
        client.flood(base, PROMPTS, CHUNKS, seen)
        seen(PROMPTS)
        service.process.wait()
        wait_gone(worker)
        subscriber.join()
        client.process.kill()
        for _, _, events in subscriber.batches:
            announced.update((key, round) for what, key, _ in events if what == MOVED)
    verify(announced, arguments.rounds)
    check(f"killed {arguments.rounds} times: all {len(announced)} announced chunks are there and right", announced and
          service.counter('tyer_tier_operations_total{tier="0",kind="disk",verb="get",outcome="corrupt"}') == 0)
    print(f"of {len(attempted)} prompts {found_whole} were on disk as a whole")
    check("it stops as it should", service.stop() == 0, service.log()[-2000:])
finally:
    if not arguments.folder:
        shutil.rmtree(folder, ignore_errors=True)
finish()
