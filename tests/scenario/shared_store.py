# SPDX-License-Identifier: Apache-2.0
#
# What the scenarios of shared stores (redis.py, s3.py) have in common: services, each in a network namespace of its own where that is
# allowed, a trace that they replay, and what is checked.
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import outside
from outside import check

tyerd, tyer, bench = (os.path.abspath(p) for p in sys.argv[1:4])
folder = tempfile.TemporaryDirectory(prefix="tyer-store-")
running = []


def eventually(what, patience=60):
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.05)
    return False


class Service:
    def __init__(self, *tier, namespace=None, environment=None, arena="256MiB"):
        self.dir = tempfile.mkdtemp(dir=folder.name)
        self.url, self.admin = f"ipc://{self.dir}/rpc.sock", f"ipc://{self.dir}/rpc.sock.admin"
        command = [tyerd, "--listen", self.url, "--device", "host", "--http", "off", "--l1-size", arena, "--l1-ahead", "64MiB",
                   "--chunk-tokens", "512", "--prefetch-wait-us", "200s"]
        for t in tier:
            command += ["--tier", t]
        self.inside = ["ip", "netns", "exec", namespace] if namespace else []
        self.log = open(f"{self.dir}/log", "w+")
        self.process = subprocess.Popen(self.inside + command, stdout=subprocess.PIPE, stderr=self.log, text=True,
                                        env=dict(os.environ, **(environment or {})))
        running.append(self.process)
        self.ready = self.process.stdout.readline()
        check("ready", self.ready.startswith("tyerd ready"), self.read_log())
        self.pinger = outside.begin_pings(self.url, self.dir)

    def read_log(self):
        return open(self.log.name).read()

    def replay(self, trace, seed=1, *more):
        out = f"{self.dir}/report.json"
        done = subprocess.run([bench, "replay", trace, "--connect", self.url, "--no-progress", "--seed", str(seed), "--concurrency", "1", "--timeout", "220s",
                               "--json", out, *more], capture_output=True, text=True, timeout=240)
        check("nothing is wrong", done.returncode == 0, done.stdout + done.stderr + self.read_log())
        return json.load(open(out))

    def tool(self, *command):
        return subprocess.run([tyer, *command, "--connect", self.admin], capture_output=True, text=True, timeout=60)

    def status(self):
        return subprocess.run([tyer, "status", "--connect", self.url], capture_output=True, text=True, timeout=60).stdout

    def stop(self):
        outside.end_pings(self.pinger)
        self.process.send_signal(signal.SIGTERM)
        check("stops cleanly", self.process.wait(timeout=60) == 0, self.read_log())


def reaching(tier, silent, namespace=None, environment=None):
    """A service whose tier answered when it started (its log is without the word `silent`): what is stored before it does stays in the arena.
    A network that was made a moment ago may not carry anything yet."""
    while True:
        service = Service(tier, namespace=namespace, environment=environment)
        if silent not in service.read_log():
            return service
        service.stop()


def hits(report):
    """Blocks found, whatever the report's shape calls them."""
    def walk(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                if key == "hits" and isinstance(inner, (int, float)):
                    yield inner
                yield from walk(inner)
    return max(walk(report), default=0)


def namespaces():
    """Two network namespaces with a bridge, or none."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        return None
    names = [f"tyer{os.getpid()}{i}" for i in "ab"]
    bridge = f"tb{os.getpid()}"
    commands = [["ip", "link", "add", bridge, "type", "bridge"], ["ip", "addr", "add", "10.231.77.1/24", "dev", bridge],
                ["ip", "link", "set", bridge, "up"]]
    for i, name in enumerate(names):
        commands += [["ip", "netns", "add", name], ["ip", "link", "add", f"tv{os.getpid()}{i}", "type", "veth", "peer", "name", "eth0", "netns", name],
                     ["ip", "link", "set", f"tv{os.getpid()}{i}", "master", bridge, "up"],
                     ["ip", "-n", name, "addr", "add", f"10.231.77.{i + 2}/24", "dev", "eth0"],
                     ["ip", "-n", name, "link", "set", "eth0", "up"], ["ip", "-n", name, "link", "set", "lo", "up"]]
    for command in commands:
        if subprocess.run(command, capture_output=True).returncode:
            drop_namespaces(names, bridge)
            return None
    return names, bridge


def drop_namespaces(names, bridge):
    for name in names:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)
    subprocess.run(["ip", "link", "del", bridge], capture_output=True)


def trace_of(requests, seed):
    """A trace: its file, its different blocks, and all of them."""
    path = os.path.join(folder.name, "trace.jsonl")
    subprocess.run([bench, "trace", "--requests", str(requests), "--seed", str(seed), "--output", path], check=True)
    lines = [json.loads(line)["hash_ids"] for line in open(path)]
    return path, len({i for line in lines for i in line}), sum(len(line) for line in lines)


def finish(spaces):
    """Whatever runs ends; and so do we, by what was found."""
    for process in running:
        if process.poll() is None:
            process.kill()
            process.wait()
    if spaces:
        drop_namespaces(*spaces)
    if sys.exc_info()[0] is None:
        outside.finish()
