#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# restart_loop.py TYERD TYER PROBE: workers that die again and again are started later and later, and the log says why; one that
# died for once is followed at once; workers that say that they cannot serve cost no chunk, however many there are; a cache over which
# three die before they are ready is given up. Between two of them somebody answers over HTTP, always at the same address.
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

from outside import Probe, Service, check, finish, until

tyerd, tyer, probe = sys.argv[1:4]
folder = tempfile.mkdtemp(prefix="tyer-loop-")
config = folder + "/tyerd.conf"
open(config, "w").close()
service = Service(tyerd, tyer, "--restart-backoff-us", "400ms", "--config", config).ready()
client = Probe(probe, service).open()
check("stored before", client.store(1000, 4) == ["ok", "4"])
for n in range(1, 6):
    service.ready(n)
    service.kill_worker()
service.ready(6)
pauses = [int(p) for p in re.findall(r"supervisor: .*: signal 9 \(Killed\); the next one starts in (\d+) ms", service.log())]
check("the first restart is at once, then later and later, up to the limit", pauses == [0, 100, 200, 400, 400], pauses)
client.reopen()
service.returned()
check("the cache is still there", client.check(1000, 4) == ["ok", "4", "0"])
check("/healthz says how often, and why", "restarted 5 times, the last one because: signal 9" in service.page("healthz")[1])
status = service.status()["restart"]
check("STATUS says how often, why, and how long it took", status["restarts"] == 5 and status["reason"] == "signal 9 (Killed)"
      and status["pause_us"] >= 400000, status)
text = subprocess.run([tyer, "status", "--connect", service.url], capture_output=True, text=True).stdout
check("tyer status too", re.search(r"^Restarts 5, the last one because: signal 9 \(Killed\); it took \d+ ms$", text, re.M), text)
# Nothing can be opened by a worker whose attach path is somebody else's directory: it says so and ends. That is no fault of the cache's.
service.kill_worker(signal.SIGSTOP)  # so that its sockets stay until we are done here
stopped = service.worker()
os.rename(service.attach, service.attach + ".away")
os.mkdir(service.attach)
os.kill(stopped, signal.SIGKILL)
until(lambda: len(re.findall(r"ended after .*: exit status 1; the next one", service.log())) >= 5)
said = until(lambda: [p for p in [service.page("healthz")] if p[1].startswith("restarting")])[0]
check("/healthz answers while no worker is there, and says why", said[0] == 503 and re.fullmatch(
    r"restarting: the last worker ended \(exit status 1\); the next one starts in \d+ ms; short lives in a row: \d+; restarts: \d+\n",
    said[1]), said)
said = until(lambda: [p for p in [service.page("metrics")] if "tyer_healthy 0" in p[1]])[0]
check("/metrics too", said[0] == 200 and re.search(r"^tyer_ready 0$", said[1], re.M) and said[1].endswith("# EOF\n") and
      int(re.search(r"^tyer_restarts_total (\d+)$", said[1], re.M)[1]) >= 8, said)
os.rmdir(service.attach)
service.ready(7)
client.reopen()
service.returned()
check("five workers that could not serve cost no chunk", client.check(1000, 4) == ["ok", "4", "0"], service.log()[-1500:])
# A worker that waits for its configuration is not ready: three that are killed so may have died over the cache.
waits = folder + "/waits"
os.mkfifo(waits)
os.link(waits, folder + "/new")
os.rename(folder + "/new", config)
killed = {service.worker()}
service.kill_worker()
for _ in range(3):
    worker = until(lambda: [pid for pid in [service.worker()] if pid not in killed])[0]
    killed.add(worker)
    os.kill(worker, signal.SIGKILL)
until(lambda: "it is given up" in service.log())
check("a cache over which three workers died is given up", "3 workers in a row died over the cache" in service.log())
open(folder + "/new", "w").close()
os.rename(folder + "/new", config)


def fourth_serves():
    try:
        os.close(os.open(waits, os.O_WRONLY | os.O_NONBLOCK))  # the end of the file, for one that waits at the old one
    except OSError:
        pass
    return len(service.boots()) >= 8


until(fourth_serves)
client.reopen()
check("and the service is there again, empty", client.check(1000, 4) == ["ok", "0", "0"] and client.store(1000, 4) == ["ok", "4"])
check("/healthz is the worker's again", service.page("healthz")[0] == 200)
ports = set(re.findall(r"http: serving on (.*)", service.log()))
check("all workers served at one address", len(ports) == 1, ports)
check("it stops as it should", service.stop() == 0, service.log()[-1500:])
shutil.rmtree(folder)
finish()
