#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# gpu_fault.py TYERD TYER PROBE BENCH DRIVER: one GPU of two reports an error that stays (illegal address). The worker ends at
# once, its record and its reason name the owner, and the next worker serves what was committed before.
import re
import subprocess
import sys
from datetime import datetime

from outside import Probe, Service, check, finish, until

tyerd, tyer, probe, bench, driver = sys.argv[1:6]
service = Service(tyerd, tyer, "--device", "cuda:0", "--device", "cuda:1", "--device", "host", "--cuda-driver", driver, "--calibration", "off",
                  environment={"TYER_STANDIN": "devices=2,fail=cuEventRecord:150:700"}).ready()
client = Probe(probe, service).open()
check("stored before the fault", client.store(1000, 8) == ["ok", "8"])
load = subprocess.Popen([bench, "copy", "--connect", service.url, "--attach", service.attach, "--device", "cuda:1",
                         "--cuda-driver", driver, "--geometry", "tiny,block=64", "--chunks", "256", "--op-chunks", "4", "--repeats", "8"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
service.ready(2)
load.communicate()
log = service.log()
ended = re.search(r"^(\S+) error supervisor: the worker .* ended after \S+ s: (.*?); the next", log, re.M)
fault = re.search(r"^(\S+) error (?:gpu|record): (?:device )?cuda:1", log, re.M)
check("the worker ended for the device, and says for which", ended and re.match(
    r"device cuda:1 failed \(its owner is thread owner-1\): .*ILLEGAL_ADDRESS", ended[2]), log[-3000:])
check("nothing is said of the other one's failing", "cuda:0 failed" not in log, log[-3000:])
records = re.findall(r"error record: (cuda:\d|host): +([\d.]+) ms before: (.*)$", log, re.M)
check("its last operations are on record, up to the fault", any(r[0] == "cuda:1" and " submit, op" in r[2] for r in records)
      and any(r[0] == "cuda:1" and "fault" in r[2] for r in records), records)
check("and the others'", any(r[0] == "host" and "STORE end" in r[2] for r in records), records)
if fault and ended:
    parse = datetime.fromisoformat
    took = parse(ended[1].rstrip("Z")) - parse(fault[1].rstrip("Z"))
    print(f"from the error to the worker's end: {took.total_seconds() * 1000:.0f} ms")
client.reopen()
service.returned()
check("what was committed serves again", client.check(1000, 8) == ["ok", "8", "0"])
status = service.status()
check("every device serves again", [d["state"] for d in status["devices"]] == ["serving"] * 3, status["devices"])
check("one restart, counted", status["counters"]["tyer_restarts_total"] == 1)
code, text = service.page("healthz")
check("/healthz: well, and why the last worker ended", code == 200 and "device cuda:1 failed" in text, (code, text))
check("it stops as it should", service.stop() == 0)
finish()
