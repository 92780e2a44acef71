#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# gpu_stalled.py TYERD TYER PROBE BENCH DRIVER: a GPU of two devices stops: a driver's call that never comes back, then copies that are
# never done (LMCache 4676: the whole server stood still, and said that it was well). The owner, what it is in and for how long are
# named; requests for that device end by their deadlines with DEVICE_STALLED; PING, LOOKUP, pages and the other device go on; past
# --gpu-stall-limit another worker serves what was committed.
import re
import subprocess
import sys

from outside import Probe, Service, check, finish, until

tyerd, tyer, probe, bench, driver = sys.argv[1:6]


def scenario(hang, what, page):
    service = Service(tyerd, tyer, "--device", "cuda:0", "--device", "host", "--cuda-driver", driver, "--calibration", "off", "--gpu-stall-after", "300ms",
                      "--gpu-stall-limit", "4s", environment={"TYER_STANDIN": f"devices=1,hang={hang}"}).ready()
    client = Probe(probe, service).open()
    check(f"{hang}: stored before the stall", client.store(1000, 8) == ["ok", "8"])
    load = subprocess.Popen([bench, "copy", "--connect", service.url, "--attach", service.attach, "--device", "cuda:0",
                             "--cuda-driver", driver, "--geometry", "tiny,block=64", "--chunks", "256", "--op-chunks", "4",
                             "--repeats", "8", "--timeout", "1s"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    # on a slow machine another call may be as late before it, and come back
    until(lambda: re.search(rf"error watchdog: device cuda:0 is stalled: {what} for \d+ ms", service.log()))
    check("the watchdog names owner, call and age", True)
    code, text = until(lambda: (page in (said := service.page("healthz"))[1] or len(service.boots()) > 1) and said)
    check("/healthz turns, and says why", code == 503 and page in text, (code, text))
    check("/metrics goes on", service.page("metrics")[0] == 200)
    check("PING goes on", subprocess.run([tyer, "ping", "--connect", service.url], capture_output=True).returncode == 0)
    check("LOOKUP, RETRIEVE and STORE on the other device go on",
          client.check(1000, 8) == ["ok", "8", "0"] and client.store(2000, 4) == ["ok", "4"])
    service.ready(2)
    words, _ = load.communicate()
    check("requests for it answered DEVICE_STALLED", "DEVICE_STALLED" in words, words)
    check("past the limit the worker ended, and says why", re.search(
        rf"supervisor: the worker .* ended after .*: device cuda:0 stalled: {what} for \d+ ms, --gpu-stall-limit is 4000 ms",
        service.log()), service.log()[-2000:])
    check("its last operations are on record", re.search(r"record: cuda:0: +[\d.]+ ms before: .*(register piece|submit)", service.log()))
    client.reopen()
    service.returned()
    check("what was committed serves again",
          client.check(1000, 8) == ["ok", "8", "0"] and client.check(2000, 4) == ["ok", "4", "0"])
    code, text = service.page("healthz")
    check("/healthz: well again", code == 200, (code, text))
    check("it stops as it should", service.stop() == 0, service.log()[-1500:])


scenario("cuIpcOpenMemHandle:1", r"its owner \(thread owner-0\) is in cuIpcOpenMemHandle", "device cuda:0 stalled: in cuIpcOpenMemHandle")
scenario("cuEventRecord:12", r"copies of its owner \(thread owner-0\) are not done",
         "device cuda:0 stalled: it does not finish what it was given")
finish()
