#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# who_may.py TYERD TYER: who may do what (docs/security.md). Other users need root to play them: without it those parts are
# left out. Speaks the wire by itself, as a hostile client would.
import json
import os
import resource
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile

from outside import check, finish, free_port

tyerd, tyer = sys.argv[1:3]
STRANGER = 65534
folder = tempfile.TemporaryDirectory(prefix="tyer-who-")
os.chmod(folder.name, 0o755)
OK, DENIED = 0, 18
CONNECTIONS = 4 * 1024 + 64  # at once


class Service:
    def __init__(self, name, *options, listen=None):
        self.dir = os.path.join(folder.name, name)
        self.url, self.attach = listen or f"ipc://{self.dir}/s/rpc.sock", f"{self.dir}/s/attach.sock"
        os.makedirs(self.dir)
        os.chmod(self.dir, 0o755)
        self.log = f"{self.dir}/log"
        self.process = subprocess.Popen(
            [tyerd, "--listen", self.url, "--attach", self.attach, "--admin", f"ipc://{self.dir}/admin.sock",
             "--device", "host", "--http", "off", "--l1-size", "64MiB", *options], stdout=subprocess.PIPE, stderr=open(self.log, "w"), text=True)
        self.ready = self.process.stdout.readline()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=60)
        check(f"{os.path.basename(self.dir)}: it ends", status == 0, open(self.log).read())


def as_stranger(what):
    """what() as another user: its result, or the name of its exception."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            result = what()
        except Exception as e:  # noqa: BLE001 - its name is the result
            result = type(e).__name__
        os.write(write, json.dumps(result).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as f:
        text = f.read()
    os.waitpid(pid, 0)
    return json.loads(text)


# ---- the wire, by hand ------------------------------------------------------------------------------------------------

def varint(n):
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def fixed(number, value):
    return varint(number << 3 | 1) + struct.pack("<Q", value)


def request(verb, body, client=0, ident=7):
    return field(1, 1) + fixed(2, client) + fixed(3, ident) + field(verb, body)


def code_of(reply):
    return reply[1] if reply[:1] == b"\x08" else OK  # field 1, a varint below 128


def fields(message):
    """By number, the last one of each: an integer, or bytes."""
    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte, at = message[at], at + 1
            value |= (byte & 0x7f) << shift
            shift += 7
            if byte < 0x80:
                return value
    found, at = {}, 0
    while at < len(message):
        key = number()
        if key & 7 == 0:
            found[key >> 3] = number()
            continue
        length = 8 if key & 7 == 1 else number()
        value, at = message[at:at + length], at + length
        found[key >> 3] = struct.unpack("<Q", value)[0] if key & 7 == 1 else value
    return found


def client_of(reply):
    return fields(fields(reply)[12])[1]  # of the HelloReply


def exactly(s, n):
    out = b""
    while len(out) < n:
        more = s.recv(n - len(out))
        if not more:
            raise ConnectionError
        out += more
    return out


class Wire:
    def __init__(self, service, context=None):
        if service.url.startswith("ipc://"):
            self.s, self.head = socket.socket(socket.AF_UNIX), b"\x01"
            self.s.settimeout(30)
            self.s.connect(service.url[6:])
        else:
            self.head = b""
            self.s = socket.create_connection(("127.0.0.1", int(service.url.rsplit(":", 1)[1])), timeout=30)
            if context:
                self.s = context.wrap_socket(self.s, server_hostname="127.0.0.1")
        self.s.sendall(b"\0SP\0\0\x30\0\0")
        assert exactly(self.s, 8) == b"\0SP\0\0\x31\0\0"

    def ask(self, body):
        body = b"\x80\0\0\1" + body
        self.s.sendall(self.head + struct.pack(">Q", len(body)) + body)
        head = exactly(self.s, len(self.head) + 8)
        return exactly(self.s, struct.unpack(">Q", head[-8:])[0])[4:]


def ping(service, context=None):
    return code_of(Wire(service, context).ask(request(10, b"")))


def attach(service):
    """The connection, the type of its first frame, and the token in it."""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.connect(service.attach)
    frame, fds, _, _ = socket.recv_fds(s, 256, 4)
    for fd in fds:
        os.close(fd)
    return s, struct.unpack_from("<H", frame, 6)[0], frame[24:40]


def hello(service, wire, engine=b"e" * 16, tenant=b"t"):
    s, kind, token = attach(service)
    assert kind == 1, kind
    reply = wire.ask(request(12, field(1, token) + field(2, engine) + field(3, field(1, tenant) + field(2, b"m") + field(4, b"bf16"))
                             + field(4, b"x")))
    assert code_of(reply) == OK, reply
    return s, client_of(reply)


def end_session(wire, client):
    return code_of(wire.ask(request(18, fixed(1, 1), client)))


# ---- users ------------------------------------------------------------------------------------------------------------

def users():
    if os.geteuid() != 0:
        print("not root: other users are left out")
        return
    s = Service("alone")
    check("only its user sees the sockets", oct(os.stat(s.url[6:]).st_mode & 0o777) == oct(os.stat(s.attach).st_mode & 0o777) == "0o600")
    check("a stranger reaches neither", as_stranger(lambda: ping(s)) == "PermissionError"
          and as_stranger(lambda: attach(s)[1]) == "PermissionError")
    s.stop()

    s = Service("others", "--allow-uid", "12345")
    answers = as_stranger(lambda: ping(s)), as_stranger(lambda: attach(s)[1])
    check("a user who is not named is refused by his credentials", answers[0] in (
        "ConnectionError", "ConnectionResetError", "BrokenPipeError") and answers[1] == 2, answers)
    check("others go on", ping(s) == OK)
    s.stop()

    s = Service("named", "--allow-uid", f"12345,{STRANGER}")
    check("a user who is named may ping", as_stranger(lambda: ping(s)) == OK)
    wire = Wire(s)
    life, mine = hello(s, wire)
    check("one's own client", end_session(wire, mine) not in (OK, DENIED))  # no such session

    def steal():
        theirs = Wire(s)
        own_life, own = hello(s, theirs, engine=b"f" * 16)
        return [end_session(theirs, mine), end_session(theirs, own) == DENIED]
    stolen = as_stranger(steal)
    check("nobody speaks for another user's client", stolen == [DENIED, False], stolen)

    def join():  # the engine of the other user, by its 16 bytes
        return hello(s, Wire(s))[1] and None
    joined = as_stranger(join)
    check("the same engine's number of another user is another namespace", joined == "AssertionError", joined)
    life.close()
    s.stop()

    s = Service("shares", "--allow-uid", str(STRANGER), "--max-clients", "8")

    def attach_all():
        kept = [attach(s) for _ in range(8)]  # held until all have been tried
        return [answer for _, answer, _ in kept]

    def connect_all():
        kept = []
        while len(kept) < CONNECTIONS:
            kept.append(socket.socket(socket.AF_UNIX))
            kept[-1].connect(s.url[6:])
            try:
                kept[-1].sendall(b"\0SP\0\0\x30\0\0")  # or it is closed after a while
                if not kept[-1].recv(8):  # the greeting
                    break
            except OSError:
                break
        return len(kept) - 1
    kinds = as_stranger(attach_all)
    check("another user may be half of the clients", kinds == [1] * 4 + [2] * 4, kinds)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most > CONNECTIONS + 1000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        share = as_stranger(connect_all)
        check("and have half of the connections", share == CONNECTIONS // 2, share)
    check("others go on beside him", ping(s) == OK)
    s.stop()


# ---- tcp --------------------------------------------------------------------------------------------------------------

def tcp():
    r = subprocess.run([tyerd, "--listen", f"tcp://127.0.0.1:{free_port()}", "--attach", f"{folder.name}/a", "--device", "host",
                        "--http", "off", "--l1-size", "64MiB"], capture_output=True, text=True, timeout=60)
    check("tcp is refused without a word", r.returncode == 1 and "--tcp-insecure" in r.stderr, r)
    s = Service("tcp", "--tcp-insecure", "on", listen=f"tcp://127.0.0.1:{free_port()}")
    check("and allowed with it", ping(s) == OK)
    check("the client library too", subprocess.run([tyer, "ping", "--connect", s.url], capture_output=True).returncode == 0)
    s.stop()


def certificate(name, *signed_by):
    path = os.path.join(folder.name, name)
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext",
            "subjectAltName=IP:127.0.0.1", "-keyout", path + ".key", "-out", path + ".crt"]
    subprocess.run(make, check=True, capture_output=True)
    with open(path + ".pem", "w") as both:
        both.write(open(path + ".crt").read() + open(path + ".key").read())
    return path


def tls():
    server, friend, foe = certificate("server"), certificate("friend"), certificate("foe")

    def context(own=None, trust=server):
        c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        c.load_verify_locations(trust + ".crt")
        if own:
            c.load_cert_chain(own + ".pem")
        return c

    def refused(what):
        try:
            what()
        except (OSError, ssl.SSLError):
            return True
        return False

    s = Service("tls", "--tls-cert", server + ".pem", listen=f"tls+tcp://127.0.0.1:{free_port()}")
    check("ping over TLS", ping(s, context()) == OK)
    check("not without it", refused(lambda: ping(s)))
    check("not a server with another certificate", refused(lambda: ping(s, context(trust=foe))))
    wire, other = Wire(s, context()), Wire(s, context())
    life, client = hello(s, wire)
    check("who said its HELLO may speak for it", end_session(wire, client) not in (OK, DENIED))
    check("another connection may not", end_session(other, client) == DENIED)
    life.close()
    s.stop()

    s = Service("mutual", "--tls-cert", server + ".pem", "--tls-ca", friend + ".crt",
                listen=f"tls+tcp://127.0.0.1:{free_port()}")
    check("a client that shows a certificate", ping(s, context(friend)) == OK)
    check("not one without", refused(lambda: ping(s, context())))
    check("not one with another's", refused(lambda: ping(s, context(foe))))
    check("and the service goes on", ping(s, context(friend)) == OK)
    s.stop()


def default_folder():
    """Whose sockets lie in /tmp/tyer-UID: the name can be foreseen, and anybody may have made it."""
    if os.getuid() != 0:
        print("default_folder: left out, it takes other users")
        return
    owner = 20000 + os.getpid() % 40000
    path, bins = f"/tmp/tyer-{owner}", folder.name + "/bin"
    os.mkdir(bins, 0o755)
    for program in (tyerd, tyer):
        shutil.copy2(program, bins)
        os.chmod(f"{bins}/{os.path.basename(program)}", 0o755)
    as_owner = {"user": owner, "group": owner, "extra_groups": [], "cwd": "/", "text": True, "env": {"PATH": "/usr/bin:/bin"}}
    service = [f"{bins}/{os.path.basename(tyerd)}", "--device", "host", "--http", "off", "--l1-size", "64MiB"]
    ping = [f"{bins}/{os.path.basename(tyer)}", "ping"]

    def refused(words):
        started = subprocess.run(service, capture_output=True, timeout=60, **as_owner)
        check(f"tyerd: {words}", started.returncode == 1 and words in started.stderr, started)
        asked = subprocess.run(ping, capture_output=True, timeout=60, **as_owner)
        check(f"tyer: {words}", asked.returncode == 2 and words in asked.stderr, asked)

    try:
        os.mkdir(path)
        os.chown(path, STRANGER, STRANGER)
        os.chmod(path, 0o777)
        with socket.socket(socket.AF_UNIX) as stranger:  # one that would take all that comes
            stranger.bind(path + "/tyer.sock")
            os.chmod(path + "/tyer.sock", 0o666)
            stranger.listen()
            refused(f"{path} is a folder of user {STRANGER}, mode 777")
        os.unlink(path + "/tyer.sock")
        os.chown(path, owner, owner)
        refused(f"{path} is a folder of user {owner}, mode 777")
        os.rmdir(path)
        os.symlink(folder.name, path)
        refused(f"{path} is a link of user 0")
        os.unlink(path)
        own = subprocess.Popen(service, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **as_owner)
        check("its own folder, that it made", own.stdout.readline().startswith(f"tyerd ready: listen=ipc://{path}/tyer.sock"))
        check("and asks there", subprocess.run(ping, capture_output=True, timeout=60, **as_owner).returncode == 0)
        own.terminate()
        check("it ends", own.wait() == 0)
    finally:
        if os.path.islink(path):
            os.unlink(path)
        shutil.rmtree(path, ignore_errors=True)


for part in (users, tcp, tls, default_folder):
    part()
finish()
