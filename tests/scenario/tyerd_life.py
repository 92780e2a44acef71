#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# tyerd_life.py TYERD TYER TYER-BENCH: the service's life as its users and its service manager see it: the ready line,
# notification, pages, a stop with requests open, and every refusal to start with its exit status and its words.
import ctypes
import json
import os
import platform
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

from outside import check, finish, until, wait_gone

tyerd, tyer, bench = sys.argv[1:4]
folder = tempfile.TemporaryDirectory(prefix="tyer-life-")


class Service:
    def __init__(self, name, *options, notify=None, size="128MiB"):
        self.dir = os.path.join(folder.name, name)
        os.makedirs(self.dir, exist_ok=True)
        self.url, self.attach = f"ipc://{self.dir}/rpc.sock", f"{self.dir}/attach.sock"
        environment = {k: v for k, v in os.environ.items() if k != "NOTIFY_SOCKET"}
        if notify:
            environment["NOTIFY_SOCKET"] = notify
        began = time.monotonic()
        self.process = subprocess.Popen(
            [tyerd, "--listen", self.url, "--attach", self.attach, "--device", "host", "--http", "127.0.0.1:0",
             "--l1-size", size, "--l1-ahead", "64MiB", *options],
            stdout=subprocess.PIPE, stderr=open(f"{self.dir}/log", "a"), text=True, env=environment)
        self.ready = self.process.stdout.readline()
        self.seconds = time.monotonic() - began

    def log(self):
        return open(f"{self.dir}/log").read()

    def tool(self, *command):
        return subprocess.run([*command, "--connect", self.url], capture_output=True, text=True, timeout=60)

    def stop(self, sign=signal.SIGTERM):
        self.process.send_signal(sign)
        return self.process.wait(timeout=60)


def refused(*options, before=None):
    return subprocess.run([tyerd, *options], capture_output=True, text=True, timeout=60, preexec_fn=before)


def life():
    path = os.path.join(folder.name, "notify")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(path)
    listener.settimeout(30)
    s = Service("life", notify=path)
    check("ready line", s.ready.startswith("tyerd ready: listen=" + s.url), s.ready)
    told = [listener.recv(256)]
    while told[-1] != b"READY=1":
        told.append(listener.recv(256))
    check("the manager is given what to keep, and told: ready",
          [m for m in told if m.startswith(b"FDSTORE=1")] == [b"FDSTORE=1\nFDNAME=tyer-" + name
                                                              for name in (b"http", b"record", b"arena", b"slots")],
          told)
    check("ping", s.tool(tyer, "ping").returncode == 0)
    status = s.tool(tyer, "status", "--json")
    check("status", status.returncode == 0 and json.loads(status.stdout)["arena"]["size_bytes"] == 128 << 20, status)
    port = next(line.rsplit(":", 1)[1] for line in s.log().splitlines() if "http: serving on" in line)
    check("the ready line has the port that was free", f" http=127.0.0.1:{port} boot=" in s.ready, s.ready)
    for page, word in (("metrics", "# EOF"), ("healthz", "ok"), ("status", '"arena"')):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}") as answer:
            check(f"/{page}", answer.status == 200 and word in answer.read().decode())
    # ready to serve: a device is open, and a piece of the arena came
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
                ready = answer.status == 200
        except urllib.error.HTTPError:
            ready = False
        if ready:
            break
        time.sleep(0.05)
    check("/readyz", ready)
    check("SIGTERM: exit 0", s.stop() == 0, s.log())
    check("the manager is told: stopping", listener.recv(256) == b"STOPPING=1")
    check("the sockets are gone", not os.path.exists(f"{s.dir}/rpc.sock") and not os.path.exists(s.attach))


def stop_with_requests_open():
    s = Service("open", "--chunk-tokens", "512")
    trace = os.path.join(folder.name, "trace.jsonl")
    subprocess.run([bench, "trace", "--requests", "4000", "--seed", "3", "--output", trace], check=True)
    load = subprocess.Popen([bench, "replay", trace, "--connect", s.url, "--attach", s.attach, "--concurrency", "8",
                             "--ping-every", "0", "--give-up", "2s"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):  # until it is in the middle of its stores
        counters = json.loads(s.tool(tyer, "status", "--json").stdout)["counters"]
        if counters["tyer_cache_commits_total"] > 50:
            break
        time.sleep(0.02)
    check("SIGTERM under load: exit 0", s.stop() == 0, s.log())
    # its requests ended typed: it is told, and does not hang, but for a while if all of its blocks may be in use for all it knows
    load.wait(timeout=60)
    check("the load generator ends", load.returncode in (0, 1), load.returncode)


def stop_while_it_starts():
    """The worker waits for its configuration, and has not come to look at signals yet."""
    config = os.path.join(folder.name, "tyerd.conf")
    open(config, "w").close()
    s = Service("starts", "--config", config)
    os.mkfifo(config + ".waits")
    os.rename(config + ".waits", config)

    def children():
        return open(f"/proc/{s.process.pid}/task/{s.process.pid}/children").read().split()

    worker = children()[0]
    os.kill(int(worker), signal.SIGKILL)
    until(lambda: [pid for pid in children() if pid != worker])
    check("SIGTERM while a worker starts: exit 0", s.stop() == 0, s.log())


def turns():
    """Who answers asks for short turns on a CPU, who copies for longer ones, who works ahead for none at all and gives way."""
    number = {"x86_64": 315, "aarch64": 275}.get(platform.machine())
    if not number or tuple(map(int, platform.release().split(".")[:2])) < (6, 12):
        print("turns: not of this kernel")
        return
    s = Service("turns", "--tier", f"disk:{folder.name}/tier")
    worker = open(f"/proc/{s.process.pid}/task/{s.process.pid}/children").read().split()[0]
    libc, buffer = ctypes.CDLL(None), ctypes.create_string_buffer(48)

    def asked():
        """Of each thread's name, without its number: (ns, niceness) as they are now."""
        found = {}
        for thread in os.listdir(f"/proc/{worker}/task"):
            try:
                name = open(f"/proc/{worker}/task/{thread}/comm").read().strip().rstrip("0123456789")
            except OSError:  # it has ended
                continue
            if libc.syscall(number, int(thread), buffer, 48, 0) == 0:
                _, _, _, nice, _, runtime = struct.unpack_from("IIQiIQ", buffer)
                found.setdefault(name, set()).add((runtime, nice))
        return found

    own = os.getpriority(os.PRIO_PROCESS, 0)

    def good(found):
        behind = [found.get(name, {(0, 0)}) for name in ("bytework", "populate", "tier-")]
        return (all(found.get(name) == {(100000, own)} for name in ("tyer-w", "rpc", "clients")) and
                found.get("owner-") == {(500000, own)} and
                all(runtime > 500000 and nice == min(own + 5, 19) for one in behind for runtime, nice in one))

    for _ in range(600):  # until every thread has begun
        if good(asked()):
            break
        time.sleep(0.05)
    check("who answers has short turns, an owner longer ones, who works ahead gives way", good(asked()), asked())
    s.stop()


def refusals():
    s = Service("taken")
    for words, options, status in (
            ("rpc.sock", ["--listen", s.url, "--attach", s.attach + "2", "--device", "host", "--http", "off"], 1),
            ("attach.sock", ["--listen", s.url + "2", "--attach", s.attach, "--device", "host", "--http", "off"], 1),
            ("an absolute path", ["--listen", s.url + "2", "--attach", "attach.sock", "--device", "host", "--http", "off"], 1),
            ("MemTotal", ["--listen", s.url + "3", "--attach", s.attach + "3", "--device", "host", "--http", "off",
                          "--l1-size", "8TiB"], 1),
            ("--l1-size", ["--l1-size", "12 parsecs"], 2),
            ("--no-such-option", ["--no-such-option", "1"], 2),
            ("--config", ["--config", "/nonexistent/file"], 2),
            ("driver", ["--listen", s.url + "4", "--attach", s.attach + "4", "--device", "cuda:0", "--http", "off",
                        "--cuda-driver", "/nonexistent/libcuda.so.1", "--l1-size", "64MiB"], 1)):
        r = refused(*options)
        check(f"refused, naming {words}", r.returncode == status and words in r.stderr, r)
    # what somebody gets wrong who has read little: the answer names the option, what was found and what was expected
    junk = os.path.join(folder.name, "junk.pem")
    with open(junk, "w") as f:
        f.write("junk\n")
    mine = ["--listen", s.url + "5", "--attach", s.attach + "5", "--device", "host", "--http", "off", "--l1-size", "64MiB"]
    disk = os.path.join(folder.name, "disk")
    for words, options in (
            (["admin: address in use", "rpc.sock.admin"], [*mine, "--admin", s.url + ".admin"]),
            (["events: address in use", "rpc.sock.admin"], [*mine, "--events", s.url + ".admin"]),
            (["--tls-cert names no file"], [*mine[2:], "--listen", "tls+tcp://127.0.0.1:1"]),
            (["--tls-cert", "No such file", "a PEM file with"], [*mine[2:], "--listen", "tls+tcp://127.0.0.1:1",
                                                               "--tls-cert", "/nonexistent.pem"]),
            (["--tls-cert", junk, "a PEM file with"], [*mine[2:], "--listen", "tls+tcp://127.0.0.1:1", "--tls-cert", junk]),
            (['found kind "nvme"', "disk, redis, rediss, s3"], [*mine, "--tier", "nvme:/a"]),
            (['"sise=1GiB"', "size,", "compress"], [*mine, "--tier", f"disk:{disk},sise=1GiB"]),
            (['"sise=1GiB"', "size,", "prefix="], [*mine, "--tier", "redis:127.0.0.1:1,sise=1GiB"]),
            (['"sise=1GiB"', "size,", "region="], [*mine, "--tier", "s3:http://127.0.0.1:1/b,sise=1GiB"])):
        r = refused(*options)
        check(f"refused, saying {words}", r.returncode == 1 and all(w in r.stderr for w in words), r)
    r = refused(*mine, before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
    check("too few descriptors are told", r.returncode == 1 and "64 descriptors may be open (ulimit -Hn), expected" in r.stderr, r)
    quiet = Service("quiet", "--tier", "redis:127.0.0.1:1")
    check("a tier whose server does not answer is warned of", re.search("warn  tier: redis:127.0.0.1:1: 0 of 1 servers", quiet.log()),
          quiet.log())
    quiet.stop()
    check("who was there goes on", s.tool(tyer, "ping").returncode == 0)
    s.stop()
    dead = Service("dead")
    worker = open(f"/proc/{dead.process.pid}/task/{dead.process.pid}/children").read().split()[0]
    dead.process.kill()
    dead.process.wait()
    wait_gone(worker)  # its worker dies with it, a moment later
    again = Service("dead")
    check("a dead one's sockets are taken over", again.ready.startswith("tyerd ready"), again.log())
    check("SIGINT: exit 0", again.stop(signal.SIGINT) == 0)
    help_text = refused("--help").stdout
    check("--help", all(o in help_text for o in ("--listen", "--attach", "--http", "--l1-size", "--device", "--chunk-tokens",
                                                 "--config", "--log-level", "--log-format")), help_text)


def sizes():
    """Told, not judged: how soon it is ready, and what it takes beside the arena."""
    for size in ("64MiB", "4GiB", "12GiB"):
        s = Service("size" + size, size=size)
        pids = [s.process.pid, *open(f"/proc/{s.process.pid}/task/{s.process.pid}/children").read().split()]
        status = "".join(open(f"/proc/{pid}/status").read() for pid in pids)
        rss = sum(int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssAnon", "RssFile")))
        print(f"--l1-size {size}: ready in {s.seconds * 1000:.0f} ms, {rss / 1024:.1f} MiB beside the arena", flush=True)
        check(f"starts with {size}", s.stop() == 0, s.log())


for part in (life, stop_with_requests_open, stop_while_it_starts, turns, refusals, sizes):
    part()
finish()
