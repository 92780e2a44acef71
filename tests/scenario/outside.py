# SPDX-License-Identifier: Apache-2.0
#
# For scenarios that are told from outside: a tyerd of one's own, its worker and its supervisor, and a client (probe.c) whose
# stored bytes can be checked. TYER_SCENARIO_DEVICE (cuda:0, say) puts the probe's blocks there, by the driver's library
# TYER_CUDA_DRIVER. Nothing here asserts a time; what is waited for comes, or the meson test's limit ends it.
import atexit
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

DEVICE = os.environ.get("TYER_SCENARIO_DEVICE", "host")
DRIVER = os.environ.get("TYER_CUDA_DRIVER", "libcuda.so.1")

passed = failed = 0


def check(name, good, detail=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good or not name.startswith("."):
        print(f"{'ok' if good else 'FAILED'}: {name}{'' if good else ': ' + str(detail)}", flush=True)
    return good


def finish():
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0 or passed == 0)


def until(condition, pause=0.002):
    """Waits for it, however long it takes, and returns what it said."""
    while True:
        said = condition()
        if said:
            return said
        time.sleep(pause)


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def find(folder, name):
    """The program of that name somewhere in a folder: a build's, or a staged one's."""
    for at, _, files in os.walk(folder):
        path = os.path.join(at, name)
        if name in files and os.access(path, os.X_OK):
            return os.path.abspath(path)
    sys.exit(f"no {name} under {folder}")


ports = []  # what holds them


def free_port(above=0):
    """For a server of a test's, that nobody else has by the time it listens: it lies below those that the system gives to whoever asks for
    any, so no program gets it by chance, and it is taken from other tests by an abstract UNIX name that is this process's until it
    ends (tests/ports.h does the same). `above`: the port so much higher is taken, too."""
    first, end = 10000, 32768 - above
    for i in range(end - first):
        port = first + (os.getpid() * 7919 + i) % (end - first)
        held = []
        try:
            for each in {port, port + above}:
                name = socket.socket(socket.AF_UNIX)
                held.append(name)
                name.bind(f"\0tyer-test-port-{each}")
                with socket.socket() as listener:
                    listener.bind(("", each))
            ports.extend(held)
            return port
        except OSError:
            for name in held:
                name.close()
    sys.exit("no port is free")


def begin_pings(url, folder):
    """tests/scenario/ping-beside: to a service that has this folder, from a process of their own, while it is there. None: nobody asked."""
    reports, bench = os.environ.get("TYER_PING_BESIDE"), os.environ.get("TYER_BENCH")
    if not reports or not bench or not url.startswith("ipc:"):
        return None
    return subprocess.Popen([bench, "ping", "--connect", url, "--rate", "1000", "--duration", "3000s", "--json",
                             f"{reports}/{os.path.basename(folder)}.json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def end_pings(pinger):
    if pinger:
        pinger.send_signal(signal.SIGINT)
        pinger.wait()


class Probe:
    def __init__(self, program, service):
        self.service = service
        gpu = [] if DEVICE == "host" else [DEVICE, DRIVER]
        self.process = subprocess.Popen([program, service.url, service.attach, *gpu], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        atexit.register(self.process.kill)

    def send(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def line(self):
        return self.process.stdout.readline().split()

    def ask(self, *words):
        self.send(*words)
        return self.line()

    def open(self):
        """Tries until the service is there."""
        until(lambda: self.ask("open")[0] == "ok")
        self.service.begin_pings()
        return self

    def reopen(self):
        self.ask("close")
        return self.open()

    def store(self, base, count):
        return self.ask("store", base, count)

    def check(self, base, count):
        return self.ask("check", base, count)

    def flood(self, base, prompts, count, seen=lambda stored: None):
        """The bases that were acknowledged; `seen` is called with how many of them there are, as they come."""
        stored = []
        self.send("flood", base, prompts, count)
        seen(0)
        while True:
            words = self.line()
            if not words or words[0] in ("done", "error"):
                return stored
            if words[0] == "stored":
                stored.append(int(words[1]))
                seen(len(stored))

    def end(self):
        self.process.stdin.close()
        return self.process.wait()


class Service:
    """tyerd on sockets in a folder of its own."""

    def __init__(self, tyerd, tyer, *options, size="256MiB", ahead="64MiB", chunk_tokens=64, environment=None, http=True,
                 url=None, **popen):
        self.dir = tempfile.mkdtemp(prefix="tyer-outside-")
        atexit.register(self.clean)
        self.url, self.attach = url or f"ipc://{self.dir}/rpc.sock", f"{self.dir}/attach.sock"
        self.tyer, self.pinger = tyer, None
        # over tcp the administration's socket would be one for all of a machine
        self.arguments = [tyerd, "--listen", self.url, "--attach", self.attach, "--admin", f"ipc://{self.dir}/rpc.sock.admin",
                          "--http", "127.0.0.1:0" if http else "off",
                          "--l1-size", size, "--l1-ahead", ahead, "--chunk-tokens", str(chunk_tokens), *options]
        if "--device" not in options:
            self.arguments += ["--device", DEVICE]
        if DEVICE != "host":
            self.arguments += ["--cuda-driver", DRIVER, "--calibration", "off"]
        self.start(environment, **popen)

    def start(self, environment=None, **popen):
        inherited = {k: v for k, v in os.environ.items() if k != "NOTIFY_SOCKET"}
        with open(f"{self.dir}/log", "a") as log, open(f"{self.dir}/out", "a") as out:
            self.process = subprocess.Popen(self.arguments, stdout=out, stderr=log, env={**inherited, **(environment or {})},
                                            **popen)

    def clean(self):
        self.end_pings()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def log(self):
        return read(f"{self.dir}/log")

    def boots(self):
        """The boot ids of all workers that became ready, in order."""
        return re.findall(r"^tyerd ready: .* boot=(\w+)$", read(f"{self.dir}/out"), re.M)

    def worker(self):
        """Its process id, once it is there."""
        def child():
            pids = read(f"/proc/{self.process.pid}/task/{self.process.pid}/children").split()
            return int(pids[0]) if pids else 0
        return until(child)

    def kill_worker(self, sign=signal.SIGKILL):
        os.kill(self.worker(), sign)

    def begin_pings(self):
        self.pinger = self.pinger or begin_pings(self.url, self.dir)

    def end_pings(self):
        end_pings(self.pinger)
        self.pinger = None

    def ready(self, boots=1):
        until(lambda: len(self.boots()) >= boots or self.process.poll() is not None)
        self.begin_pings()
        return self

    def status(self):
        r = subprocess.run([self.tyer, "status", "--json", "--connect", self.url], capture_output=True, text=True)
        return json.loads(r.stdout) if r.returncode == 0 else None

    def counter(self, name):
        return until(self.status)["counters"][name]

    def busy(self, *names):
        """Is any of these numbers, whatever its labels, not 0? Yes too if nobody answers."""
        status = self.status()
        return not status or any(value for name, value in status["counters"].items() if name.split("{")[0] in names)

    def returned(self):
        """Waits until all that comes back is back."""
        until(lambda: self.counter("tyer_return_pieces") == 0)

    def page(self, name):
        port = re.findall(r"http: serving on .*:(\d+)", self.log())[-1]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}") as page:
                return page.status, page.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def stop(self):
        self.end_pings()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait()


def wait_gone(pid):
    """Until a process that is no child of ours has let go of everything: nobody there, or one dead thread that awaits its parent."""
    while True:
        try:
            with open(f"/proc/{pid}/stat") as f:
                state = f.read().rsplit(")", 1)[1].split()[0]
            if state in "ZX" and len(os.listdir(f"/proc/{pid}/task")) == 1:
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.001)
