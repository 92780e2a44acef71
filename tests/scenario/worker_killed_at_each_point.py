#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# worker_killed_at_each_point.py TYERD-POINTS TYER PROBE [--arrivals N] [--only WORDS]: the worker dies (SIGKILL) before and after
# everything that a chunk goes through in a STORE (points.c: received, slots taken, copied, committed, answered, summed up, written
# down to the disk tier), in a RETRIEVE, while it comes back after another death, and while it stops for an upgrade. Afterwards:
# the client had exactly one answer to each request; what was acknowledged is there, and right; what was not is there whole or not
# at all; nothing is held by anybody, and no half of a file lies on the disk.
import argparse
import glob
import mmap
import os
import shutil
import signal
import struct
import tempfile

from outside import Probe, Service, check, finish, until

parser = argparse.ArgumentParser()
parser.add_argument("programs", nargs=3)
parser.add_argument("--arrivals", type=int, default=1, help="die at the first N arrivals at each point, one after the other (default: 1)")
parser.add_argument("--only", default="", help="points whose names contain this")
arguments = parser.parse_args()
tyerd, tyer, probe = arguments.programs
PROMPTS, CHUNKS, CHUNK_BYTES = 2, 2, 16384
DOWN = "tyer_checksum_waiting_bytes", "tyer_tier_queued", "tyer_tier_in_flight"  # what goes on behind an answer
# Without these the sweep has not been where it should: a name changed, or a way.
EXPECTED = {
    "STORE": ["after ty_request_check", "after ty_op_table_take", "half a FILLING record", "FILLING but for the state", "after ty_slots_take",
              "before ty_device_submit", "after ty_device_submit", "copy done", "after ty_op_raise_done", "half a READY record",
              "READY but for the state", "after ty_slots_commit", "before ty_chunk_publish", "after ty_chunk_publish",
              "before ty_exchange_answer", "before ty_rpc_edge_send", "after ty_rpc_edge_send", "before ty_checksum_add",
              "after ty_slots_set_checksum", "after disk PUT open", "after disk PUT move", "after disk PUT close", "before disk PUT rename",
              "after disk PUT rename", "after disk_index_put"],
    "RETRIEVE": ["after ty_index_pin", "after ty_device_submit", "copy done", "after ty_op_raise_done", "before ty_rpc_edge_send"],
    "return": ["before ty_slots_adopt", "after ty_slots_adopt", "after ty_slots_add_piece", "after eviction_return_part"],
    "stop": ["before ty_service_stop", "before ty_arena_close", "after ty_service_stop"],
}


class Points:
    """points.c's file."""
    NAME, ENTRIES = 56, 256

    def __init__(self):
        self.size = 8 + self.NAME + self.ENTRIES * (8 + self.NAME) + 8
        self.file = tempfile.NamedTemporaryFile(prefix="tyer-points-")
        self.file.truncate(self.size)
        self.map = mmap.mmap(self.file.fileno(), self.size)

    def arm(self, name, arrival):
        self.map[8:8 + self.NAME] = name.encode().ljust(self.NAME, b"\0")
        self.map[0:8] = struct.pack("<Q", arrival)

    def fired(self):
        return self.map[0:8] == bytes(8)

    def passed(self):
        """By name, how often."""
        found = {}
        for i in range(min(struct.unpack("<Q", self.map[self.size - 8:])[0], self.ENTRIES)):
            at = 8 + self.NAME + i * (8 + self.NAME)
            name = self.map[at + 8:at + 8 + self.NAME].split(b"\0")[0].decode()
            found[name] = found.get(name, 0) + struct.unpack("<Q", self.map[at:at + 8])[0]
        return found


class Sweep:
    def __init__(self, folder, io):
        self.points = Points()
        os.mkdir(folder)
        self.folder = folder
        self.service = Service(tyerd, tyer, "--restart-backoff-us", "0", "--tier", f"disk:{folder},io={io}",
                               environment={"TYER_POINTS": self.points.file.name}).ready()
        self.client = Probe(probe, self.service).open()
        self.acknowledged, self.next, self.deaths = [], 1000, 0

    def store(self):
        """New prompts, all at once. Those that were not acknowledged."""
        first, self.next = self.next, self.next + PROMPTS * CHUNKS
        answers = {base: [] for base in range(first, self.next, CHUNKS)}
        self.client.send("flood", first, PROMPTS, CHUNKS)
        while True:
            words = self.client.line()
            if words[0] not in ("stored", "failed"):
                break
            answers[int(words[1])].append(words)
        check(f".{self.what}: each STORE has one answer", words == ["done"] and all(len(a) == 1 for a in answers.values()), (words, answers))
        stored = [base for base, said in answers.items() if said[0][0] == "stored"]
        self.acknowledged += stored
        return [base for base in answers if base not in stored]

    def retrieve(self):
        said = self.client.check(self.acknowledged[-1], CHUNKS)
        check(f".{self.what}: a RETRIEVE has one answer", said in (["ok", str(CHUNKS), "0"],) or said[0] == "error", said)
        return []

    def kill(self):
        self.service.kill_worker()
        return []

    def upgrade(self):
        self.service.process.send_signal(signal.SIGHUP)
        return []

    def quiet(self):
        """Waits until nothing is under way, and held: no operation, no lease, no checksum, no write to the disk."""
        until(lambda: not self.service.busy("tyer_operations", "tyer_operations_bytes", "tyer_lookup_leases", "tyer_cache_waiting",
                                            "tyer_return_pieces", "tyer_tier_scanning", *DOWN))
        return until(self.service.status)

    def verify(self, unanswered):
        wanted = self.acknowledged[-4:] + self.acknowledged[:2]
        wrong = [(base, said) for base in wanted if (said := self.client.check(base, CHUNKS)) != ["ok", str(CHUNKS), "0"]]
        check(f".{self.what}: what was acknowledged is there and right", not wrong, (wrong, self.service.log()[-3000:]))
        for base in unanswered:
            said = self.client.check(base, CHUNKS)
            check(f".{self.what}: what was not is whole or not there", said[0] == "ok" and said[2] == "0", said)
        status = self.quiet()
        check(f".{self.what}: each byte in use is a chunk's",
              status["arena"]["used_bytes"] == status["arena"]["chunks"] * CHUNK_BYTES, status["arena"])
        check(f".{self.what}: it was the arena that had it, not the disk", status["counters"]["tyer_prefetch_loaded_total"] == 0, status)
        left = glob.glob(f"{self.folder}/*/*.tmp-*")
        if left:  # on their way, perhaps: this worker offers to the disk what the one before it did not come to
            self.quiet()
            left = [name for name in left if os.path.exists(name)]
        check(f".{self.what}: no half of a file is left", not left, left)

    def die_at(self, way, act, name, arrival):
        self.what = f"{way}: {name}, arrival {arrival}"
        boots, unanswered = len(self.service.boots()), []
        self.points.arm(name, arrival)
        for _ in range(50):  # most are passed by the first one, some only now and then
            unanswered += act()
            if way in ("return", "stop"):
                until(self.points.fired)
            elif not self.points.fired():
                until(lambda: self.points.fired() or not self.service.busy(*DOWN))
            if self.points.fired():
                break
        if not check(f".{self.what}: it is passed", self.points.fired()):
            return
        self.deaths += 1
        self.service.ready(boots + 1)
        if way == "return":
            until(lambda: self.service.boots()[-1:] != [] and self.service.status())
        self.client.reopen()
        self.service.returned()
        self.verify(unanswered)

    def sweep(self, way, act, only=""):
        """Once without dying, to see which points there are, in the order in which they come; then at each of them."""
        self.what = f"{way}: nobody dies"
        before = self.points.passed()
        wanted = [name for name in EXPECTED[way] if arguments.only in name and only in name]
        for _ in range(50):  # what goes on behind an answer may take a while to begin
            boots = len(self.service.boots())
            act()
            if way in ("return", "stop"):
                self.service.ready(boots + 1)
                self.client.reopen()
                self.service.returned()
            self.verify([])
            points = [name for name, n in self.points.passed().items()
                      if n > before.get(name, 0) and arguments.only in name and only in name]
            missing = [name for name in wanted if name not in points]
            if not missing:
                break
        if way == "STORE":  # the arena grew beside it
            points = [name for name in points if "ty_slots_add_piece" not in name]
        check(f"{way}: passes {len(points)} points", not missing, missing)
        if way != "STORE":
            points = [name for name in points if name in EXPECTED[way]]
        began = self.deaths
        for name in points:
            for arrival in range(1, arguments.arrivals + 1):
                self.die_at(way, act, name, arrival)
        check(f"{way}: {self.deaths - began} deaths, at each of {len(points)} points", self.deaths - began == len(points) * arguments.arrivals)


def main():
    folder = tempfile.mkdtemp(prefix="tyer-points-disk-", dir="/var/tmp")
    try:
        ring = Sweep(f"{folder}/ring", "auto")
        ring.sweep("STORE", ring.store, only="disk_ring")  # none of them where the kernel has no io_uring for us
        check("it stops as it should", ring.service.stop() == 0, ring.service.log()[-2000:])
        folder_of_all = f"{folder}/all"
        sweep = Sweep(folder_of_all, "plain")
        sweep.sweep("STORE", sweep.store)
        sweep.sweep("RETRIEVE", sweep.retrieve)
        sweep.sweep("return", sweep.kill)
        sweep.sweep("stop", sweep.upgrade)
        check("it stops as it should", sweep.service.stop() == 0, sweep.service.log()[-2000:])
        # What lies on the disk is as good: another service, without the arena
        after = Service(tyerd, tyer, "--tier", f"disk:{folder_of_all},io=plain").ready()
        client = Probe(probe, after).open()
        until(lambda: not after.busy("tyer_tier_scanning"))
        said = [client.check(base, CHUNKS) for base in sweep.acknowledged]
        check("from the disk alone: nothing is wrong", all(s[0] == "ok" and s[2] == "0" for s in said), said)
        print(f"of {len(said)} acknowledged prompts {sum(s[1] == str(CHUNKS) for s in said)} were on the disk, whole")
        check("it stops as it should", after.stop() == 0, after.log()[-2000:])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    finish()


main()
