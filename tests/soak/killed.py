#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# killed.py SOAK BUILD: the soak is killed while one of its engines is frozen. Nothing that it started outlives it.
import os
import re
import shutil
import signal
import subprocess
import sys
import time

soak, build = sys.argv[1:3]


def processes_of(folder):
    """Those whose command names the folder."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                command = file.read()
            with open(f"/proc/{pid}/stat") as file:
                state = file.read().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if folder in command and state not in "ZX":
            found[int(pid)] = command.split("\0")
    return found


run = subprocess.Popen([sys.executable, soak, "--build", build, "--minutes", "60", "--seed", "1"], stdout=subprocess.PIPE, text=True)
first = run.stdout.readline()
folder = re.search(r" in (/\S+)", first).group(1)
try:
    while not (engines := [pid for pid, command in processes_of(folder).items() if "replay" in command]) and run.poll() is None:
        time.sleep(0.01)
    os.kill(engines[0], signal.SIGSTOP)
    run.kill()
    run.wait()
    while left := processes_of(folder):  # else the test's limit ends it
        time.sleep(0.01)
    print("nothing is left")
finally:
    run.kill()
    for pid in processes_of(folder):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder)
