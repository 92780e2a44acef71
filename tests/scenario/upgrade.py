#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# upgrade.py TYERD TYER PROBE: SIGHUP. The program that lies at tyerd's path takes over under the same process id, with the cache;
# one that does not run or does not take the options, or a configuration that does not hold, changes nothing, whenever that turns out. A worker that dies while no program is there costs no
# chunk.
import os
import shutil
import signal
import sys

from outside import Probe, Service, check, finish, until

tyerd, tyer, probe = sys.argv[1:4]
folder = os.path.dirname(os.path.abspath(tyerd))
path = f"/tmp/tyer-upgrade-{os.getpid()}"
shutil.copy2(tyerd, path)
config = path + ".conf"
open(config, "w").write("log-level = info\n")
try:
    service = Service(path, tyer, "--config", config).ready()
    client = Probe(probe, service).open()
    check("stored before", client.store(1000, 16) == ["ok", "16"])
    pid = service.process.pid

    def replace(contents):  # as a package manager does: a new file under the old name
        with open(path + ".new", "wb") as new:
            new.write(contents)
        os.chmod(path + ".new", 0o755)
        os.rename(path + ".new", path)

    replace(b"half a file")
    service.process.send_signal(signal.SIGHUP)
    until(lambda: "no upgrade" in service.log())
    check("a program that does not run is refused", client.check(1000, 16) == ["ok", "16", "0"] and len(service.boots()) == 1)
    replace(open(tyerd, "rb").read())
    # one that runs, and knows other options than we do
    replace(b"#!/bin/sh\n[ \"$1\" = --version ] && exit 0\necho \"tyerd: --chunk-tokens: is none of mine\" >&2\nexit 2\n")
    service.process.send_signal(signal.SIGHUP)
    until(lambda: "no upgrade: --chunk-tokens: is none of mine" in service.log() or service.process.poll() is not None)
    check("a program that does not take the options is refused", client.check(1000, 16) == ["ok", "16", "0"], service.log()[-1500:])
    replace(open(tyerd, "rb").read())
    open(config, "w").write("log-level = loud\n")
    service.process.send_signal(signal.SIGHUP)
    until(lambda: "no upgrade: " in service.log() and "log-level" in service.log())
    check("a configuration that does not hold is refused", client.check(1000, 16) == ["ok", "16", "0"])
    open(config, "w").write("log-level = debug\n")
    service.process.send_signal(signal.SIGHUP)
    service.ready(2)
    client.reopen()
    service.returned()
    check("the new program serves what the old one committed", client.check(1000, 16) == ["ok", "16", "0"])
    check("under the old one's process id", service.process.poll() is None and service.process.pid == pid)
    check("with the configuration as it is now", " debug config: log-level = debug" in service.log())
    check("it says so", "upgrade" in service.page("healthz")[1], service.page("healthz"))
    restart = service.status()["restart"]
    check("and how long nobody served", restart["pause_us"] > 0, restart)
    service.process.send_signal(signal.SIGHUP)
    service.ready(3)
    client.reopen()
    service.returned()
    check("and once more", client.check(1000, 16) == ["ok", "16", "0"])
    # the file changes once more while the worker stops
    worker = service.worker()
    os.kill(worker, signal.SIGSTOP)
    said = service.log().count("upgrade: the worker is asked to stop")
    service.process.send_signal(signal.SIGHUP)
    until(lambda: service.log().count("upgrade: the worker is asked to stop") > said)
    open(config, "w").write("log-level = louder\n")
    os.kill(worker, signal.SIGCONT)
    until(lambda: service.log().count('found "louder"') > 1 or service.process.poll() is not None)
    check("a configuration that holds no more when it counts is told", "the upgrade is left: " in service.log(), service.log()[-1500:])
    open(config, "w").write("log-level = debug\n")
    service.ready(4)
    client.reopen()
    service.returned()
    check("and when it holds again the cache is there", client.check(1000, 16) == ["ok", "16", "0"], service.log()[-1500:])
    # half a file, on its way, when the worker dies: no fault of the cache's
    replace(b"half a file")
    service.kill_worker()
    until(lambda: service.log().count(f"{path} could not be started") >= 4)
    replace(open(tyerd, "rb").read())
    service.ready(5)
    client.reopen()
    service.returned()
    check("programs that cannot be started do not cost the cache", client.check(1000, 16) == ["ok", "16", "0"], service.log()[-1500:])
    check("it stops as it should", service.stop() == 0, service.log()[-1500:])
finally:
    for name in (path, config):
        os.unlink(name)
finish()
