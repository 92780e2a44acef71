#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# control.py TYERD TYER TYER-BENCH: the administration of a running service from its command line, who may reach it, and a
# router that follows the events: from a snapshot on it always knows what is here.
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile

from outside import begin_pings, check, end_pings, finish, until
from subscriber import DELETED, DROPPED, EVICTED, MOVED, STORED, Subscriber

tyerd, tyer, bench = sys.argv[1:4]
folder = tempfile.TemporaryDirectory(prefix="tyer-control-")


class Service:
    def __init__(self, name, *options):
        self.dir = os.path.join(folder.name, name)
        os.makedirs(self.dir)
        self.url, self.admin, self.events = (f"ipc://{self.dir}/{s}" for s in ("rpc.sock", "rpc.sock.admin", "events.sock"))
        self.log = open(f"{self.dir}/log", "w+")
        self.process = subprocess.Popen(
            [tyerd, "--listen", self.url, "--device", "host", "--http", "off", "--l1-size", "192MiB", "--l1-ahead", "64MiB",
             "--chunk-tokens", "512", "--events", self.events, *options],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.ready = self.process.stdout.readline()
        self.pinger = begin_pings(self.url, self.dir)

    def tool(self, *command):
        return subprocess.run([tyer, *command, "--connect", self.admin], capture_output=True, text=True, timeout=60)

    def said(self, *command):
        done = self.tool(*command)
        check(f"tyer {' '.join(command)[:60]}", done.returncode == 0, done.stderr)
        return done.stdout

    def refused(self, words, *command):
        done = self.tool(*command)
        check(f"refused: tyer {' '.join(command)[:60]}", done.returncode == 1 and words in done.stderr, done.stderr)

    def load(self, seed, tenant, trace):
        done = subprocess.run([bench, "replay", trace, "--connect", self.url, "--no-progress", "--seed", str(seed), "--tenant",
                               tenant], capture_output=True, text=True, timeout=120)
        check(f"load {seed} of {tenant}", done.returncode == 0, done.stdout + done.stderr)

    def counter(self, name):
        return json.loads(self.said("status", "--json"))["counters"][name]

    def keys(self, *select, place="arena"):
        return {line.split()[0] for line in self.said("list", "--in", place, *select).splitlines()}

    def stop(self):
        end_pings(self.pinger)
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def snapshot(service):
    lines = service.said("events").splitlines()
    return int(lines[0].split("number ")[1]), {line.split()[0] for line in lines[1:]}


def quiet(service):
    """A snapshot when nothing happens any more: its number may be older than what it shows."""
    last, now = None, snapshot(service)
    while last != now:
        last, now = now, snapshot(service)
    return now


def settle(service):
    while service.counter("tyer_checksum_waiting_bytes"):  # what is stored goes down with its sum
        pass
    while service.counter('tyer_tier_queued{tier="0",kind="disk"}') or \
            service.counter('tyer_tier_in_flight{tier="0",kind="disk",direction="down"}'):
        pass


def follow_tier(service, trace):
    """A tier smaller than what goes down to it: events say at any time what is there."""
    subscriber = Subscriber(service.events)
    subscriber.start()
    for seed in (1, 2):
        service.load(seed, "acme", trace)
    settle(service)
    final, _ = quiet(service)
    check("all events of a tier come", subscriber.wait_for(final), (subscriber.last(), final))
    below, kinds = set(), set()
    for _, _, events in subscriber.batches:
        for what, key, _ in events:
            if what not in (STORED, EVICTED):
                (below.add if what == MOVED else below.discard)(key)
            kinds.add(what)
    check("a tier's chunks come and go", kinds >= {STORED, MOVED, DROPPED}, kinds)
    check("events say how many it has", len(below) == service.counter('tyer_tier_chunks{tier="0",kind="disk"}'),
          len(below))
    service.refused("is none that can be changed", "configure", "tier.0.colour=red")
    service.refused("there is no such tier", "configure", "tier.1.size=64MiB")
    service.refused("or 67108864 bytes or more", "configure", "tier.0.size=1MiB")
    service.refused("expected commit, reuse", "configure", "tier.0.size=128MiB", "tier.0.write=sometimes")
    service.refused("expected arc, lru or s3-fifo", "configure", "tier.0.size=128MiB", "tier.0.policy=worst")
    check("tiers are told", "tier.0.size=64MiB\ntier.0.policy=lru\ntier.0.write=commit\n" in service.said("configure"))
    noted = {line.split()[0] for line in service.said("list", "--in", "arena").splitlines() if " tier=0" in line}
    check("the arena's notes of it are right", noted == below & service.keys(), (len(noted), len(below)))


def control_below(service, trace):
    """What only the tier has is listed and taken away as what the arena has, and the events say so."""
    subscriber = Subscriber(service.events)
    subscriber.start()
    service.load(3, "other", trace)
    settle(service)
    for byte in range(0, 256, 8):  # an eighth of what is there has no copy in the arena any more
        service.said("clear", "--in", "arena", "--key-prefix", f"{byte:02x}")
    in_arena, below = service.keys(), service.keys(place="tiers")
    check("some are only in the tier", below and not below & in_arena, (len(below), len(in_arena)))
    lines = service.said("list").splitlines()
    check("LIST tells the arena's, then the tier's", {line.split()[0] for line in lines} == in_arena | below and len(lines) == len(in_arena | below),
          (len(lines), len(in_arena), len(below)))
    check("with what is known of them", all(' tenant="' in line and " tier=0" in line for line in lines if " parts=0/1" in line), lines[-1])
    by_tenant = {name: service.keys("--tenant", name, place="tiers") for name in ("acme", "other")}
    check("LIST below by tenant", by_tenant["acme"] | by_tenant["other"] == below, {k: len(v) for k, v in by_tenant.items()})
    key = sorted(below)[0]
    check("LIST below by key", service.keys("--key", key) == set() and service.keys("--key", key, place="tiers") == {key})
    check("LIST below by prefix", service.keys("--key-prefix", key[:2], place="tiers") == {k for k in below if k[:2] == key[:2]})
    whose = "acme" if key in by_tenant["acme"] else "other"
    wrong = "other" if whose == "acme" else "acme"
    check("DELETE of another tenant's key", service.said("delete", "--key", key, "--tenant", wrong) == "0 chunks, 0 bytes\n")
    check("DELETE below by key", service.said("delete", "--key", key, "--tenant", whose) == "0 chunks, 0 bytes; 1 in the tiers\n")
    mine = service.keys("--tenant", "other")
    done = service.said("clear", "--tenant", "other")
    check("CLEAR of a tenant reaches the tier", done.startswith(f"{len(mine)} chunks") and " in the tiers" in done, done)
    check("nothing of it is left anywhere", not service.keys("--tenant", "other") and not service.keys("--tenant", "other", place="tiers"))
    check("the other's is", service.keys("--tenant", "acme", place="tiers") == by_tenant["acme"] - {key})
    left = service.keys("--tenant", "acme", place="tiers")
    warm = int(service.said("warm", "--tenant", "acme").split()[0])
    check("WARM of a tenant", warm == len(left) and service.keys("--tenant", "acme", place="tiers") == set(), (warm, len(left)))
    in_arena |= left
    settle(service)
    # none, where all that the tier had room for was the other's
    held = int(service.counter('tyer_tier_chunks{tier="0",kind="disk"}'))
    done = service.said("clear", "--in", "tiers")
    check("CLEAR of the tiers alone", done == "0 chunks, 0 bytes" + (f"; {held} in the tiers" if held else "") + "\n", (held, done))
    check("the tier is empty, the arena is not", service.counter('tyer_tier_chunks{tier="0",kind="disk"}') == 0 and
          service.keys() == in_arena - mine and not service.keys(place="tiers"))
    final, _ = quiet(service)
    check("all events of it come", subscriber.wait_for(final), (subscriber.last(), final))
    deleted = {k for _, _, events in subscriber.batches for what, k, _ in events if what == DELETED}
    check("events tell what was deleted below", below <= deleted, (len(below - deleted), len(deleted)))
    service.refused("expected arena or tiers", "list", "--in", "disk")
    service.refused("does not take it", "pin", "--in", "tiers")


def resize_tier(service, trace):
    """While it serves, a tier is told to hold more, and less, and to be written to no more."""
    chunks, size = 'tyer_tier_chunks{tier="0",kind="disk"}', 'tyer_tier_used_bytes{tier="0",kind="disk"}'
    before = service.counter(chunks)
    check("more, and by another policy", "tier.0.size=160MiB\ntier.0.policy=arc\n" in service.said("configure", "tier.0.size=160MiB", "tier.0.policy=arc"))
    service.load(8, "acme", trace)
    service.load(9, "acme", trace)
    settle(service)
    many = service.counter(chunks)
    check("it holds more", many > before and service.counter(size) > 64 << 20, (before, many))
    check("less", "tier.0.write=never" in service.said("configure", "tier.0.size=64MiB", "tier.0.write=never"))
    while service.counter(size) > 64 << 20:  # by itself; the test's own limit of time is long
        pass
    written = service.counter('tyer_tier_written_bytes_total{tier="0",kind="disk"}')
    service.load(10, "acme", trace)
    settle(service)
    check("nothing is written any more", service.counter('tyer_tier_written_bytes_total{tier="0",kind="disk"}') == written)


def follow(service, trace):
    subscriber = Subscriber(service.events)
    check("the publisher greets as one", subscriber.greeting == b"\0SP\0\0\x20\0\0", subscriber.greeting)
    subscriber.start()
    service.load(1, "acme", trace)
    sequence, here = snapshot(service)
    check("a snapshot has something", len(here) > 100, len(here))
    service.load(2, "acme", trace)  # more than fits: evictions
    service.load(3, "other", trace)
    final, keys = quiet(service)
    check("all events come", subscriber.wait_for(final), (subscriber.last(), final))
    expected = 1
    for kind, number, events in subscriber.batches:
        if kind != 1 or number != expected:
            check("numbers are whole", False, (kind, number, expected))
            break
        for offset, (what, key, _) in enumerate(events):
            if what in (STORED, EVICTED) and sequence < number + offset <= final:
                (here.add if what == STORED else here.discard)(key)
        expected = number + len(events)
    check("some were evicted", any(e[0] == EVICTED for b in subscriber.batches for e in b[2]))
    check("snapshot and events give what is here", here == keys, (len(here ^ keys), len(keys)))
    check("as LIST has it", keys == service.keys())
    # one that sends something is no subscriber, and one that goes at once harms nobody
    rude = Subscriber(service.events)
    rude.socket.sendall(struct.pack(">BQ", 1, 4) + b"\x80\0\0\1")
    rude.run()
    check("a subscriber that talks loses its connection", rude.over)
    for _ in range(20):
        s = socket.socket(socket.AF_UNIX)
        s.connect(service.events.removeprefix("ipc://"))
        s.close()
    late = Subscriber(service.events)
    check("others may still come", late.greeting == b"\0SP\0\0\x20\0\0")

    def subscribers():
        return json.loads(service.tool("status", "--json").stdout)["counters"]["tyer_events_subscribers"]

    # whether or not there is anything to tell
    until(lambda: subscribers() == 2)
    late.socket.close()
    until(lambda: subscribers() == 1)


def control(service, trace):
    mine = service.keys("--tenant", "other")
    check("LIST by tenant", mine and mine < service.keys(), len(mine))
    key = sorted(mine)[0]
    check("LIST by key", service.keys("--key", key) == {key})
    check("LIST by prefix", service.keys("--key-prefix", key[:6]) == {k for k in service.keys() if k.startswith(key[:6])})
    check("LIST of nobody", service.keys("--tenant", "nobody") == set())
    check("PIN", service.said("pin", "--key", key).startswith("1 chunks, 65536 bytes"))
    check("pinned is said", " pinned " in service.said("list", "--key", key) + " ")
    service.said("configure", "policy=lru")  # so that it is certain what goes
    service.load(4, "acme", trace)
    service.load(5, "acme", trace)
    service.load(7, "acme", trace)
    service.said("configure", "policy=arc")
    check("what is pinned stays, what is not goes", service.keys("--tenant", "other") == {key})
    check("UNPIN", service.said("unpin").startswith("1 chunks"))
    check("DELETE", service.said("delete", "--key", key).startswith("1 chunks"))
    check("DELETE again", service.said("delete", "--key", key).startswith("0 chunks"))
    check("gone", service.keys("--key", key) == set())
    check("CONFIGURE tells", service.said("configure") == "policy=arc\nkeep-percent=50\nl1-size=192MiB\nl1-ahead=64MiB\n")
    after = service.said("configure", "policy=s3-fifo", "quota=acme=64MiB", "l1-size=128MiB")
    # and what is drawn as the bound is what bounds; eviction writes it after it has answered
    until(lambda: [service.counter(f"tyer_limit_arena_{n}bytes") for n in ("", "ahead_", "kept_")] == [128 << 20, 64 << 20, 64 << 20])
    check("CONFIGURE changes", after == "policy=s3-fifo\nquota=acme=64MiB,64MiB\nkeep-percent=50\nl1-size=128MiB\nl1-ahead=64MiB\n", after)
    service.load(6, "acme", trace)
    size = sum(int(line.split("bytes=")[1].split()[0]) for line in service.said("list", "--tenant", "acme").splitlines())
    check("a quota set now holds", 0 < size <= 64 << 20, size)
    check("CLEAR of a tenant", int(service.said("clear", "--tenant", "acme").split()[0]) > 0)
    check("nothing of it is left", service.keys("--tenant", "acme") == set())
    service.refused("select: is empty", "delete")
    service.refused("expected arc, lru or s3-fifo", "configure", "policy=random")
    service.refused("expected at most the arena's", "configure", "quota=acme=1TiB")
    service.refused("found \"acme\"", "configure", "quota=acme")
    service.refused("is none that can be changed", "configure", "device=host")
    service.refused("expected 64", "pin", "--key", "abcd")
    service.refused("expected hexadecimal digits", "pin", "--key-prefix", "xyz!")
    service.refused("select.tenants[0]", "list", "--tenant", "\x1b[2J")
    service.refused("this service has 0", "move", "--tier", "0")
    service.refused("no tiers", "warm", "--key", key)


def greeted_as(uid, path):
    """How many bytes of a greeting somebody gets, in a process of that user; 99: it could not even connect."""
    child = os.fork()
    if child == 0:
        count = 99
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(30)
            s.connect(path)
            count = 0
            count = len(s.recv(8))
        except OSError:
            pass
        finally:
            os._exit(count)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def who_may(service):
    mode = os.stat(f"{service.dir}/rpc.sock.admin").st_mode & 0o777
    check("the sockets are the service's user's", mode == 0o600 == os.stat(f"{service.dir}/events.sock").st_mode & 0o777, oct(mode))
    done = subprocess.run([tyer, "list", "--connect", service.url], capture_output=True, text=True, timeout=60)
    check("engines' socket: no administration", done.returncode == 1 and "DENIED" in done.stderr, done.stderr)
    done = subprocess.run([bench, "copy", "--connect", service.admin, "--attach", f"{service.dir}/attach.sock"],
                          capture_output=True, text=True, timeout=60)
    check("administration's socket: no engines", done.returncode == 2 and "DENIED" in done.stderr, done.stderr)
    if os.geteuid() == 0:
        # the credentials count, whatever the mode
        for path in (folder.name, service.dir):
            os.chmod(path, 0o755)
        for name in ("rpc.sock.admin", "events.sock"):
            os.chmod(f"{service.dir}/{name}", 0o666)
        for name in ("rpc.sock.admin", "events.sock"):
            check(f"{name}: root is greeted", greeted_as(0, f"{service.dir}/{name}") == 8)
            check(f"{name}: another user is not", greeted_as(65534, f"{service.dir}/{name}") == 0)


def refusals():
    for option, words in (("--admin=tcp://127.0.0.1:1", "expected ipc:///PATH"), ("--events=here", "expected ipc:///PATH"),
                          ("--quota=a=1TiB", "expected at most the arena's"), ("--policy=fifo", "expected one of arc, lru, s3-fifo")):
        done = subprocess.run([tyerd, option], capture_output=True, text=True, timeout=60)
        check(f"tyerd {option} is refused", done.returncode and words in done.stderr, done.stderr)


trace = os.path.join(folder.name, "trace.jsonl")
subprocess.run([bench, "trace", "--requests", "400", "--seed", "3", "--output", trace], check=True)
service = Service("one")
check("ready", service.ready.startswith("tyerd ready"), service.ready)
follow(service, trace)
control(service, trace)
who_may(service)
check("stops cleanly", service.stop() == 0)
service = Service("two", "--tier", f"disk:{folder.name}/disk,size=64MiB")
follow_tier(service, trace)
control_below(service, trace)
resize_tier(service, trace)
check("stops cleanly with a tier", service.stop() == 0)
refusals()
finish()
