#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# redis.py TYERD TYER TYER-BENCH: two services share chunks through a real redis-server, alone and as a cluster of three, each
# service in a network namespace of its own where that is allowed; over TLS, with certificates that are right and wrong; a server
# that needs a password, that goes away and comes back, that is none, and that holds other bytes. Exit 77 (skipped) where there is no
# redis-server.
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from outside import free_port
from shared_store import Service, check, eventually, finish, folder, hits, namespaces, reaching, running, trace_of, tyerd

if not shutil.which("redis-server") or not shutil.which("redis-cli"):
    print("no redis-server here")
    sys.exit(77)


class Server:
    def __init__(self, *options, bind="127.0.0.1", tls=()):
        self.port, self.bind, self.tls = free_port(10000), bind, tls  # a cluster's bus is 10000 above it
        self.dir = tempfile.mkdtemp(dir=folder.name)
        self.options = options
        self.start()

    def start(self):
        self.process = subprocess.Popen(["redis-server", *(("--port", "0", "--tls-port") if self.tls else ("--port",)), str(self.port), "--bind", self.bind, "--dir", self.dir, "--save", "",
                                         "--appendonly", "no", "--protected-mode", "no", *self.options], stdout=subprocess.DEVNULL)
        running.append(self.process)
        check("a server answers", eventually(lambda: self.cli("PING", raw=True).stdout.strip() in ("PONG", "NOAUTH Authentication required.")))

    def cli(self, *words, raw=False):
        done = subprocess.run(["redis-cli", *self.tls, "-h", self.bind, "-p", str(self.port), *words], capture_output=True, text=True, timeout=60)
        return done if raw else done.stdout.strip()

    def stop(self):
        self.process.kill()
        self.process.wait()


def shared(where, inside, chunks, kind="redis"):
    """One service computes and stores, the other finds all of it."""
    first, second = (reaching(f"{kind}:{where}", "0 of ", n) for n in inside)
    before = hits(first.replay(trace))
    check("chunks go down", eventually(lambda: chunks() >= blocks), (chunks(), blocks, first.read_log()[-1500:]))
    after = hits(second.replay(trace))
    check("the other finds all of them, the first did not", before < total == after, (before, after, total, second.status(), second.read_log()))
    first.stop()
    return second


trace, blocks, total = trace_of(40, 3)


def keys_of(done):
    return [line.split()[0] for line in done.stdout.splitlines()]


def stored_in(servers):
    return {key.removeprefix("tyer:") for s in servers for key in s.cli("--scan").split()}


def listing(service, servers, stored, unknown=()):
    """LIST tells all that the servers hold, once, and whose it is; by tenant, key and prefix too."""
    done = service.tool("list", "--in", "tiers")
    check("LIST", done.returncode == 0 and sorted(keys_of(done)) == sorted(stored), (done.stderr, len(keys_of(done)), len(stored)))
    check("LIST tells whose", sum(' tenant="' in line for line in done.stdout.splitlines()) == len(stored) - len(unknown), done.stdout[-300:])
    tenant = done.stdout.split('tenant="')[1].split('"')[0]
    some = sorted(stored - set(unknown))[0]
    for select, expected in ((("--tenant", tenant), stored - set(unknown)), (("--tenant", "nobody"), set()), (("--key", some), {some}),
                             (("--key-prefix", some[:2]), {k for k in stored if k[:2] == some[:2]})):
        done = service.tool("list", "--in", "tiers", *select)
        check(f"LIST {select[0]}", done.returncode == 0 and sorted(keys_of(done)) == sorted(expected), (select, done, len(expected)))


def clearing(service, servers, stored, others=0):
    some = sorted(stored)[0]
    done = service.tool("delete", "--in", "tiers", "--key-prefix", some[:2])
    prefixed = {k for k in stored if k[:2] == some[:2]}
    check("DELETE by prefix", done.stdout == f"0 chunks, 0 bytes; {len(prefixed)} in the tiers\n", done)
    done = service.tool("clear", "--in", "tiers")
    check("CLEAR of the tiers", done.stdout == f"0 chunks, 0 bytes; {len(stored - prefixed)} in the tiers\n", done)
    check("nothing is left, but for what is not ours", sum(int(s.cli("DBSIZE")) for s in servers) == others, stored_in(servers))


def who_may_not_list(server):
    """A user without SCAN: it is said, and DELETE by key works."""
    server.cli("ACL", "SETUSER", "small", "on", ">geheim", "~tyer:*", "+hset", "+hmget", "+hget", "+del", "+type", "+cluster|nodes")
    with open(f"{folder.name}/small", "w") as f:
        f.write("geheim")
    os.chmod(f"{folder.name}/small", 0o600)
    service = Service(f"redis:{server.bind}:{server.port},user=small,password-file={folder.name}/small")
    done = service.tool("list", "--in", "tiers")
    check("a server that does not let us is said", done.returncode == 1 and "tier 0 was not looked through" in done.stderr and
          "NOPERM" in done.stderr, (done, service.read_log()))
    check("DELETE by key needs no list", service.tool("delete", "--key", "ab" * 32).returncode == 0)
    service.stop()


def alone(inside, bind):
    server = Server(bind=bind)
    service = shared(f"{bind}:{server.port}", inside, lambda: int(server.cli("DBSIZE")))
    # it goes away: prompts are computed; it comes back, and serves
    server.stop()
    service.replay(trace, 2)
    server.start()
    check("it is used again when it is back",
          eventually(lambda: (service.replay(trace, 100 + int(time.monotonic())), int(server.cli("DBSIZE")))[1] > 0))
    service.stop()
    # other bytes are a miss, and out of the way
    service = Service(f"redis:{bind}:{server.port}", namespace=inside[0])
    service.replay(trace, 3)
    check("chunks go down", eventually(lambda: int(server.cli("DBSIZE")) >= blocks))
    service.stop()
    for key in server.cli("--scan").split():
        server.cli("HSET", key, "0", "x" * 65536)
    service = Service(f"redis:{bind}:{server.port}", namespace=inside[0])
    report = service.replay(trace, 3)
    check("damaged contents are a miss", "another checksum" in service.read_log(), service.read_log()[-400:])
    service.stop()
    server.cli("FLUSHALL")
    # DELETE reaches the store
    service = Service(f"redis:{bind}:{server.port}", namespace=inside[0])
    service.replay(trace, 4)
    check("chunks go down", eventually(lambda: int(server.cli("DBSIZE")) >= blocks))
    mine = {line.split()[0] for line in service.tool("list", "--in", "arena").stdout.splitlines()}
    stored = {key.removeprefix("tyer:") for key in server.cli("--scan").split()}
    check("what is in the arena is in the store", mine and mine <= stored, (len(mine), len(stored)))
    done = service.tool("clear", "--in", "arena")
    check("CLEAR of the arena alone", done.returncode == 0 and int(done.stdout.split()[0]) == len(mine), done)
    listing(service, [server], stored)
    # things of others, by the same names and by none, are not listed, and stay
    server.cli("SET", f"tyer:{'00' * 32}x", "1")
    server.cli("HSET", "tyer:what", "h", "1")
    server.cli("SET", f"tyer-other:{'00' * 32}", "1")
    server.cli("SET", f"tyer:{'11' * 32}", "no chunk")
    listing(service, [server], stored | {"11" * 32}, {"11" * 32})
    clearing(service, [server], stored | {"11" * 32}, 3)
    server.cli("FLUSHALL")
    service.replay(trace, 4)
    check("chunks go down again", eventually(lambda: int(server.cli("DBSIZE")) >= blocks))
    done = service.tool("clear")
    check("CLEAR reaches the store", done.returncode == 0 and int(done.stdout.split()[0]) == len(mine) and server.cli("DBSIZE") == "0", done)
    who_may_not_list(server)
    # WARM brings up what was put down, MOVE puts down what was not
    report = service.replay(trace, 4)
    check("CLEAR was thorough", hits(report) < total)
    check("chunks go down", eventually(lambda: int(server.cli("DBSIZE")) >= blocks))
    service.stop()
    service = Service(f"redis:{bind}:{server.port},write=never", namespace=inside[0])
    key = server.cli("--scan").split()[0].removeprefix("tyer:")
    done = service.tool("warm", "--key", key)
    check("WARM", done.stdout.startswith("1 chunks"), done)
    check("it is here", service.tool("list", "--in", "arena", "--key", key).stdout.startswith(key))
    server.cli("DEL", f"tyer:{key}")
    service.replay(trace, 5)
    at = int(server.cli("DBSIZE"))
    mine = {line.split()[0] for line in service.tool("list", "--in", "arena").stdout.splitlines()}
    done = service.tool("move", "--tier", "0")
    check("MOVE", done.returncode == 0, done)
    check("MOVE writes them down", eventually(lambda: int(server.cli("DBSIZE")) > at and service.tool("move", "--tier", "0") and
          mine <= {k.removeprefix("tyer:") for k in server.cli("--scan").split()} | {key}), (at, server.cli("DBSIZE"), len(mine)))
    service.stop()
    server.stop()


def packed(inside, bind):
    """One service packs what it stores, the other does not, and finds all of it; what is damaged in the packed bytes is a miss."""
    server = Server(bind=bind)
    where = f"redis:{bind}:{server.port}"
    first, second = (reaching(f"{where}{more}", "0 of ", n) for more, n in zip((",compress=zstd", ""), inside))
    first.replay(trace, 1, "--numbers")
    check("packed chunks go down", eventually(lambda: int(server.cli("DBSIZE")) >= blocks), server.cli("DBSIZE"))
    sizes = [int(server.cli("HSTRLEN", key, "0")) for key in server.cli("--scan").split()]
    check("they are smaller", max(sizes) < 65536 * 3 // 4, (min(sizes), max(sizes)))
    after = hits(second.replay(trace, 1, "--numbers"))
    check("who does not pack finds all of them", after == total, (after, total))
    check("STATUS says how small", " 6" in first.status() and "%" in first.status(), first.status())
    first.stop()
    second.stop()
    keys = server.cli("--scan").split()
    for key in keys:
        subprocess.run(["redis-cli", "-h", bind, "-p", str(server.port), "EVAL",
                        "local v = redis.call('HGET', KEYS[1], '0'); local b = string.byte(v, 1001); "
                        "return redis.call('HSET', KEYS[1], '0', string.sub(v, 1, 1000) .. string.char((b + 1) % 256) .. string.sub(v, 1002))",
                        "1", key], capture_output=True, timeout=60)
    service = Service(f"{where},compress=lz4", namespace=inside[0])
    report = service.replay(trace, 1, "--numbers")
    check("damaged packed bytes are a miss", "packed, has another checksum" in service.read_log() and hits(report) < total,
          service.read_log()[-400:])
    service.stop()
    server.stop()


def cluster(inside, bind, kind="redis", settings="", options=(), tls=()):
    servers = [Server("--cluster-enabled", "yes", "--cluster-node-timeout", "5000", *options, bind=bind, tls=tls) for _ in range(3)]
    done = subprocess.run(["redis-cli", *tls, "--cluster", "create", *(f"{bind}:{s.port}" for s in servers), "--cluster-yes"],
                          capture_output=True, text=True, timeout=120)
    check("a cluster", done.returncode == 0, done.stdout + done.stderr)
    check("it serves", eventually(lambda: all("cluster_state:ok" in s.cli("CLUSTER", "INFO") for s in servers)))
    service = shared(f"{bind}:{servers[0].port}{settings}", inside, lambda: sum(int(s.cli("DBSIZE")) for s in servers), kind)
    check("every node has some", all(int(s.cli("DBSIZE")) > 0 for s in servers), [s.cli("DBSIZE") for s in servers])
    service.tool("clear", "--in", "arena")
    listing(service, servers, stored_in(servers))
    if tls:
        clearing(service, servers, stored_in(servers))
    service.stop()
    if tls:
        for server in servers:
            server.stop()
        return
    # a slot that moves: the way is learnt anew
    service = Service(f"redis:{bind}:{servers[2].port}+{bind}:{servers[1].port}", namespace=inside[0])
    done = subprocess.run(["redis-cli", "--cluster", "reshard", f"{bind}:{servers[0].port}", "--cluster-from",
                           servers[0].cli("CLUSTER", "MYID"), "--cluster-to", servers[1].cli("CLUSTER", "MYID"), "--cluster-slots",
                           "2000", "--cluster-yes"], capture_output=True, text=True, timeout=240)
    check("slots move", done.returncode == 0, done.stdout[-300:] + done.stderr)
    check("all is found where it is now", hits(service.replay(trace)) >= total)
    service.stop()
    for server in servers:
        server.stop()


def certificates(bind):
    """A CA, and what it and another one signed: file names by what is in them."""
    at = {}

    def run(*words):
        subprocess.run(["openssl", *words], check=True, capture_output=True)

    def path(name):
        return os.path.join(folder.name, name)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("ca", "other-ca"):
        run("req", "-x509", *new_key, "-keyout", path(f"{name}.key"), "-out", path(f"{name}.pem"), "-subj", f"/CN={name}", "-days", "2")
        at[name] = path(f"{name}.pem")
    for name, days, names in (("server", "2", f"IP:{bind},IP:127.0.0.1,DNS:store.example"), ("late", "-1", f"IP:{bind}"),
                              ("elsewhere", "2", "DNS:elsewhere.example"), ("client", "2", "DNS:client.example")):
        run("req", *new_key, "-keyout", path(f"{name}.key"), "-out", path(f"{name}.csr"), "-subj", f"/CN={name}")
        with open(path("names"), "w") as f:
            f.write(f"subjectAltName={names}")
        run("x509", "-req", "-in", path(f"{name}.csr"), "-CA", at["ca"], "-CAkey", path("ca.key"), "-CAcreateserial", "-days", days,
            "-extfile", path("names"), "-out", path(f"{name}.crt"))
        with open(path(f"{name}.pem"), "w") as f:
            f.write(open(path(f"{name}.crt")).read() + open(path(f"{name}.key")).read())
        os.chmod(path(f"{name}.pem"), 0o600)
        at[name] = path(f"{name}.pem")
    return at


def over_tls(inside, bind):
    at = certificates(bind)
    tls = ("--tls", "--cacert", at["ca"], "--cert", at["client"], "--key", at["client"])

    def options(name):
        return "--tls-cert-file", at[name], "--tls-key-file", at[name], "--tls-ca-cert-file", at["ca"]

    good = f",ca={at['ca']},cert={at['client']}"
    at["open"] = shutil.copy(at["client"], f"{folder.name}/open.pem")
    os.chmod(at["open"], 0o640)
    os.chmod(at["ca"], 0o600)
    server = Server(*options("server"), bind=bind, tls=tls)
    service = shared(f"//{bind}:{server.port}{good}", inside, lambda: int(server.cli("DBSIZE")), "rediss")
    server.stop()
    service.replay(trace, 2)
    server.start()
    check("it is used again when it is back, over TLS",
          eventually(lambda: (service.replay(trace, 100 + int(time.monotonic())), int(server.cli("DBSIZE")))[1] > 0))
    service.stop()
    plain = Server(bind=bind)
    late, elsewhere = (Server(*options(name), bind=bind, tls=(*tls, "--insecure")) for name in ("late", "elsewhere"))
    for tier, words in ((f"rediss:{bind}:{server.port},ca={at['other-ca']},cert={at['client']}", "NOT trusted"),
                        (f"rediss:{bind}:{server.port},ca={at['ca']}", "ertificate"),
                        (f"rediss:{bind}:{late.port}{good}", "expired"),
                        (f"rediss:{bind}:{elsewhere.port}{good}", "does not match"),
                        (f"rediss:{bind}:{server.port}{good},tls-name=other.example", "does not match"),
                        (f"rediss:{bind}:{server.port},ca={folder.name}/none", "ca "), (f"rediss:{bind}:{server.port},cert={at['ca']},ca={at['ca']}", "cert "),
                        (f"rediss:{bind}:{server.port},ca={at['ca']},cert={at['open']}", "mode 640, expected 600: others may read it"),
                        (f"rediss:{bind}:{server.port},ca={at['ca']},cert={folder.name}/none", "No such file"),
                        (f"redis:{bind}:{server.port}{good}", "expected user=NAME")):
        refused(tier, words)
    for tier in (f"{bind}:{server.port}{good},tls-name=store.example", f"{bind}:{elsewhere.port}{good},tls-name=elsewhere.example"):
        service = Service(f"rediss:{tier}")
        check("the name that it was given", "1 of 1 servers answer" in service.read_log(), service.read_log())
        service.stop()
    for tier in (f"redis:{bind}:{server.port}", f"rediss:{bind}:{plain.port}{good}"):
        service = Service(tier)
        check("plain to TLS, or TLS to plain: it says so", "does it speak TLS?" in service.read_log(), service.read_log())
        service.stop()
    for one in (server, plain, late, elsewhere):
        one.stop()
    cluster(inside, bind, "rediss", good, (*options("server"), "--tls-cluster", "yes", "--tls-replication", "yes"), tls)


def refused(tier, words):
    done = subprocess.run([tyerd, "--listen", f"ipc://{folder.name}/x.sock", "--device", "host", "--http", "off", "--l1-size", "64MiB",
                           "--tier", tier], capture_output=True, text=True, timeout=60)
    check(f"refused: {tier.replace(folder.name, '')}", done.returncode and words in done.stderr, done.stderr)


def passwords():
    server = Server("--requirepass", "geheim")
    where = f"redis:127.0.0.1:{server.port}"
    secret, open_secret, wrong = (os.path.join(folder.name, n) for n in ("secret", "open", "wrong"))
    for path, text, mode in ((secret, "geheim\n", 0o600), (open_secret, "geheim\n", 0o644), (wrong, "falsch\n", 0o600)):
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, mode)
    none = free_port()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    for tier, words in ((where, "NOAUTH"), (f"{where},password-file={wrong}", "WRONGPASS"), (f"{where},password-file={open_secret}", "others may read it"),
                        (f"{where},password-file={folder.name}/none", "No such file"), (f"{where},user=x", "without a password-file"),
                        ("redis:127.0.0.1", "expected HOST:PORT"), ("redis:127.0.0.1:0", "expected HOST:PORT"),
                        ("redis:no.such.host.invalid:1", "no.such.host.invalid"), (f"{where},tls=yes", "expected user=NAME"),
                        (f"{where},size=1GiB", "maxmemory")):
        refused(tier, words)
    service = Service(f"{where},password-file={secret}")
    service.replay(trace)
    check("with the password", eventually(lambda: int(server.cli("-a", "geheim", "--no-auth-warning", "DBSIZE")) >= blocks))
    service.stop()
    # nobody is there (yet): the service starts and says so
    service = Service(f"redis:127.0.0.1:{none}")
    check("a silent server is said", "0 of 1 servers answer" in service.read_log(), service.read_log())
    service.replay(trace)
    service.stop()
    server.stop()


spaces = None
try:
    spaces = namespaces()
    print("network namespaces:", spaces)
    inside, bind = (spaces[0], "10.231.77.1") if spaces else ((None, None), "127.0.0.1")
    alone(inside, bind)
    packed(inside, bind)
    cluster(inside, bind)
    over_tls(inside, bind)
    passwords()
finally:
    finish(spaces)
