#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# descriptor_store.py TYERD TYER PROBE: this script is systemd: it keeps the descriptors that it is handed (FDSTORE) and hands them
# to the next tyerd (LISTEN_FDS), with our own supervisor in between and without it. Strangers' descriptors are not taken. Then it is
# a supervisor of ours, which is gone without its death's being the worker's.
import array
import os
import re
import signal
import socket
import sys
import tempfile

from outside import Probe, Service, check, finish, wait_gone

tyerd, tyer, probe = sys.argv[1:4]


class Manager:
    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="tyer-manager-")
        self.path = self.folder.name + "/notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(120)
        self.kept = {}

    def until_ready(self):
        while True:
            text, control, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(16))
            fields = dict(line.split("=", 1) for line in text.decode().split("\n"))
            for _, _, data in control:
                self.kept[fields["FDNAME"]] = array.array("i", data)[0]
            if "FDSTOREREMOVE" in fields and fields["FDNAME"] in self.kept:
                os.close(self.kept.pop(fields["FDNAME"]))
            if "READY" in fields:
                return

    def start(self, service):
        """As systemd does: its descriptors from 3 on, and the environment of the new process says so."""
        names = list(self.kept)
        high = [os.dup(self.kept[n]) for n in names]
        for fd in high:
            os.set_inheritable(fd, True)
        shell = "".join(f"exec {3 + i}<&{fd}; " for i, fd in enumerate(high)) + "LISTEN_PID=$$ exec \"$@\""
        arguments, service.arguments = service.arguments, ["bash", "-c", shell, "tyerd", *service.arguments]
        service.start({"NOTIFY_SOCKET": self.path, "LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)},
                      pass_fds=high)
        service.arguments = arguments
        for fd in high:
            os.close(fd)


for supervise in ("on", "off"):
    manager = Manager()
    service = Service(tyerd, tyer, "--supervise", supervise, environment={"NOTIFY_SOCKET": manager.path})
    manager.until_ready()
    check(f"supervise {supervise}: handed over", sorted(manager.kept) == ["tyer-arena", "tyer-http", "tyer-record", "tyer-slots"], manager.kept)
    client = Probe(probe, service).open()
    check("stored", client.store(1000, 16) == ["ok", "16"])
    worker = service.worker() if supervise == "on" else service.process.pid
    service.process.send_signal(signal.SIGKILL)
    service.process.wait()
    wait_gone(worker)  # as a manager does: while it ends it still listens
    manager.kept["stranger"] = os.open("/dev/null", os.O_RDONLY)
    manager.start(service)
    manager.until_ready()
    client.reopen()
    service.returned()
    check("the next one serves what was committed", client.check(1000, 16) == ["ok", "16", "0"], service.log()[-2000:])
    ports = re.findall(r"http: serving on (.*)", service.log())
    check("and its pages are where they were", len(ports) == 2 and len(set(ports)) == 1, ports)
    check("it stops as it should", service.stop() == 0, service.log()[-1500:])

# The kernel ends a worker with its supervisor, unless the program has capabilities of its own: then nobody else does.
ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
service = Service(tyerd, tyer, environment={"TYER_SUPERVISOR": str(its.fileno())}, pass_fds=[its.fileno()])
its.close()
while b"READY=1" not in ours.recv(4096):
    pass
while b"X_TYER_RETURNED=1" not in ours.recv(4096):  # it says so too, when all of an old cache is back, of which there was none
    pass
client = Probe(probe, service).open()
ours.close()
check("a worker whose supervisor is gone ends", service.process.wait() == 1, service.log()[-1500:])
finish()
