#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# packed_disk.py TYERD TYER TYER-BENCH: a trace that overflows the arena, over a disk tier that packs: all of it is found, no wrong word. The
# next service packs in another way, the next not at all: all of it is there. Then bits are flipped in what lies there: what is damaged is a
# miss, counted and put aside, and nothing wrong comes up.
import glob
import os
import random
import re
import tempfile

from shared_store import Service, check, eventually, finish, folder, hits, trace_of

trace, blocks, total = trace_of(60, 11)
numbers = ("--numbers", "--geometry", "layers=2,planes=2,dim=128")  # 512 tokens: 512 KiB a block
disk = tempfile.mkdtemp(dir="/var/tmp", prefix="tyer-packed-")


def row(service):
    """The disk's row of STATUS: CHUNKS, USED as two words, PACKED, ..."""
    return next(line for line in service.status().splitlines() if re.match(r"0 +disk", line)).split()


def finds_all(s, rounds=5):
    """On a machine that is busy a tier may be given up for a moment: then a prompt is computed, and stored, again."""
    return any(hits(s.replay(trace, 1, *numbers)) == total for _ in range(rounds))


def service(more=""):
    s = Service(f"disk:{disk},wait=20s{more}", arena="64MiB")
    check("what is there is known", eventually(lambda: row(s)[2] == "serving"), s.status())
    return s


try:
    first = service(",compress=zstd")
    first.replay(trace, 1, *numbers)
    check("all of it is found", finds_all(first))
    check("it overflows the arena", blocks * (512 << 10) > 64 << 20, blocks)
    check("all that goes down is there", eventually(lambda: int(row(first)[3]) >= blocks - 2), (row(first), blocks))
    check("packed, to two thirds or so", 60 <= int(row(first)[6].rstrip("%")) <= 75, row(first))
    first.stop()
    files = sorted(glob.glob(f"{disk}/??/*.tyer"))
    check("files are smaller", max(map(os.path.getsize, files)) < (512 << 10) * 3 // 4, len(files))
    for more in (",compress=lz4", ""):
        another = service(more)
        began = hits(another.replay(trace, 1, *numbers))  # one that finds nothing on the disk has total - blocks of its own
        check("most of it comes up from the disk", began > total - blocks // 2, (began, total, blocks))
        check("all of it is found", finds_all(another), another.read_log()[-400:])
        another.stop()
    draw = random.Random(5)
    flipped = draw.sample(files, len(files) // 4)
    for path in flipped:
        with open(path, "r+b") as f:
            f.seek(draw.randrange(4096 if draw.random() < 0.8 else 64, 4096 + 200000))
            byte = f.read(1)[0]
            f.seek(-1, 1)
            f.write(bytes([byte ^ 1 << draw.randrange(8)]))
    last = service(",compress=zstd")
    report = last.replay(trace, 1, *numbers)
    check("what is damaged is computed again", hits(report) < total, (hits(report), total))
    check("and put aside", 0 < int(row(last)[-1]) <= len(flipped) and
          eventually(lambda: len(glob.glob(f"{disk}/quarantine/*")) == int(row(last)[-1])), (row(last), len(flipped)))
    # a damaged file behind another one may not have been read yet; each is met once
    check("then all is found", finds_all(last, len(flipped)))
    last.stop()
finally:
    for root, _, names in os.walk(disk, topdown=False):
        for name in names:
            os.unlink(os.path.join(root, name))
        os.rmdir(root)
    finish(None)
