#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# client_tls.py TYERD TYER PROBE TYER-BENCH: libtyer-client over TLS, through the tools that stand on it: whom it believes, what it says
# of those that it does not believe, and that it does not hang with those that say nothing, or say it byte by byte.
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading

from outside import Service, check, finish, free_port, until

tyerd, tyer, probe, bench = sys.argv[1:5]
folder = tempfile.TemporaryDirectory(prefix="tyer-client-tls-")


def openssl(*words):
    subprocess.run(["openssl", *words], check=True, capture_output=True)


def authority(name):
    path = f"{folder.name}/{name}"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj", f"/CN={name}",
            "-keyout", path + ".key", "-out", path + ".crt")
    return path


def certificate(name, signer, names, days="30"):
    """Signed by `signer`, for these names; a PEM file with its key. Days below 0: it has expired."""
    path = f"{folder.name}/{name}"
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}", "-keyout", path + ".key",
            "-out", path + ".csr")
    with open(path + ".ext", "w") as file:
        file.write(f"subjectAltName={names}\n")
    openssl("x509", "-req", "-in", path + ".csr", "-CA", signer + ".crt", "-CAkey", signer + ".key", "-CAcreateserial", "-days", days,
            "-extfile", path + ".ext", "-out", path + ".crt")
    with open(path + ".pem", "w") as both:
        both.write(open(path + ".crt").read() + open(path + ".key").read())
    return path + ".pem"


def serve(scheme, *options):
    started = Service(tyerd, tyer, *options, size="64MiB", http=False, url=f"{scheme}://127.0.0.1:{free_port()}").ready()
    if started.process.poll() is not None:  # or everything below would wait for it
        sys.exit(f"tyerd ended at once: {started.log()}")
    return started


def secure(cert, *options):
    return serve("tls+tcp", "--tls-cert", cert, *options)


def ping(url, *words):
    """Exit status, and what was said."""
    r = subprocess.run([tyer, "ping", "--connect", url, *words], capture_output=True, text=True)
    return r.returncode, r.stdout + r.stderr


def refused(name, said, code, words):
    check(name, said[0] == (1 if code == "INVALID" else 2) and f": {code}: " in said[1] and words in said[1], said)


ours, theirs = authority("ours"), authority("theirs")
good = certificate("good", ours, "IP:127.0.0.1,DNS:cache.example")
ca = ("--tls-ca", ours + ".crt")

service = secure(good)
check("over TLS", ping(service.url, *ca)[0] == 0, ping(service.url, *ca))
check("by a name that is not the address", ping(service.url, *ca, "--tls-name", "cache.example")[0] == 0)
measured = subprocess.run([bench, "ping", "--connect", service.url, *ca, "--rate", "200", "--duration", "300ms"], capture_output=True, text=True)
check("tyer-bench", measured.returncode == 0, measured.stdout + measured.stderr)
large = subprocess.run([tyer, "status", "--json", "--connect", service.url, *ca], capture_output=True, text=True)
check("replies of more than a record", large.returncode == 0 and len(large.stdout) > 16384, (len(large.stdout), large.stderr))
refused("not one that somebody else signed", ping(service.url, "--tls-ca", theirs + ".crt"), "DENIED", "not correctly signed")
refused("not one for another name", ping(service.url, *ca, "--tls-name", "other.example"), "DENIED", "does not match")
refused("not one for another address", ping(service.url, *ca, "--tls-name", "127.0.0.2"), "DENIED", "does not match")
refused("not without saying whom to believe", ping(service.url), "INVALID", "options.tls_ca is absent")
refused("plain, where TLS is spoken", ping(service.url.replace("tls+", ""), "--timeout", "60s"), "PROTOCOL", "does it speak TLS?")
refused("files that are none", ping(service.url, "--tls-ca", folder.name + "/none"), "INVALID", "options.tls_ca")
refused("a key that is not the certificate's", ping(service.url, *ca, "--tls-cert", ours + ".crt"), "INVALID", "options.tls_cert")


class Between(threading.Thread):
    """Hands each byte on by itself, both ways, for one connection."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tls+tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        self.port = port
        self.start()

    def run(self):
        one, _ = self.listener.accept()
        other = socket.create_connection(("127.0.0.1", self.port))
        for a, b in ((one, other), (other, one)):
            b.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.pump, args=(a, b), daemon=True).start()

    @staticmethod
    def pump(a, b):
        try:
            while byte := a.recv(1):
                b.sendall(byte)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass


check("byte by byte", ping(Between(int(service.url.rsplit(':', 1)[1])).url, *ca, "--timeout", "600s")[0] == 0)


def pings():
    """That this worker was asked for, those of `tyer` that asks left out."""
    pings.asked += 1
    r = subprocess.run([tyer, "status", "--json", "--connect", service.url, *ca], capture_output=True, text=True)
    return json.loads(r.stdout)["counters"]['tyer_request_seconds_count{verb="PING"}'] - pings.asked if r.returncode == 0 else 0


pings.asked = 0
before = pings()
engine = subprocess.Popen([bench, "ping", "--connect", service.url, *ca, "--rate", "200", "--duration", "3000s"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
until(lambda: pings() > before + 20)
service.kill_worker()
service.ready(2)
pings.asked = 0
check("a client comes back by itself", until(lambda: pings() > 20))
engine.kill()
engine.wait()
service.stop()

service = secure(certificate("old", ours, "IP:127.0.0.1", "-1"))
refused("not one that has expired", ping(service.url, *ca), "DENIED", "expired")
service.stop()

service = secure(good, "--tls-ca", theirs + ".crt")
friend = certificate("friend", theirs, "DNS:friend")
check("with a certificate that the service believes", ping(service.url, *ca, "--tls-cert", friend)[0] == 0)
said = ping(service.url, *ca)
check("not without one", said[0] == 2 and re.search(": (DENIED|PROTOCOL|CLOSED): ", said[1]), said)
said = ping(service.url, *ca, "--tls-cert", certificate("foe", ours, "DNS:foe"))
check("not with another's", said[0] == 2 and re.search(": (DENIED|PROTOCOL|CLOSED): ", said[1]), said)
check("and the service goes on", ping(service.url, *ca, "--tls-cert", friend)[0] == 0)
service.stop()

service = serve("tcp", "--tcp-insecure", "on")
refused("TLS, where none is spoken", ping("tls+" + service.url, *ca, "--timeout", "60s"), "PROTOCOL", "does not speak TLS")
refused("what is for TLS, without it", ping(service.url, *ca), "INVALID", "for tls+tcp:// only")
service.stop()

silent = socket.create_server(("127.0.0.1", 0))
refused("one that says nothing", ping(f"tls+tcp://127.0.0.1:{silent.getsockname()[1]}", *ca, "--timeout", "300ms"), "TIMEOUT", "TLS handshake")
finish()
