#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# broken_service.py TYER: the command against a service that answers the PING of its greeting, and then does not keep to the contract. It says
# so on stderr in words that are safe for a terminal, and exits with 2. What it cannot write is an error, too: 1.
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading

tyer = sys.argv[1]
failed = 0


def read(connection, length):
    data = b""
    while len(data) < length:
        more = connection.recv(length - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def frame(number, body):
    return b"\x01" + struct.pack(">QI", 4 + len(body), number) + body


def request_of(connection):
    """The number of the frame, and the id of the request in it (field 3, fixed64)."""
    length, number = struct.unpack(">QI", read(connection, 13)[1:])
    body = read(connection, length - 4)
    return number, body[body.index(b"\x19") + 1:][:8]


def reply(request_id, more=b""):
    return b"\x19" + bytes(7) + b"\x01" + b"\x21" + request_id + more


def serve(listener, answers):
    try:
        connection, _ = listener.accept()
        read(connection, 8)
        connection.sendall(b"\x00SP\x00\x00\x31\x00\x00")
        for answer in answers:
            number, request_id = request_of(connection)
            connection.sendall(frame(number, answer(request_id)))
        while True:
            read(connection, 1)  # until it has gone
    except (EOFError, ConnectionError):
        pass


def run(name, answers, arguments, words, status=2, out=subprocess.PIPE):
    global failed
    with tempfile.TemporaryDirectory(prefix="tyer-cli-") as folder:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(folder + "/rpc")
        listener.listen()
        service = threading.Thread(target=serve, args=(listener, answers), daemon=True)
        service.start()
        done = subprocess.run([tyer, *arguments, "--connect", f"ipc://{folder}/rpc"], stdout=out, stderr=subprocess.PIPE)
        good = done.returncode == status and words in done.stderr and b"\x1b" not in (done.stdout or b"") + done.stderr
        failed += not good
        print(f"{'ok' if good else 'FAILED'}: {name}{'' if good else ': %d %r %r' % (done.returncode, done.stdout, done.stderr)}", flush=True)
        listener.close()


hello = [reply]
brief = ["--timeout", "100ms"]
run("no answer to STATUS", hello, ["status", *brief], b"TIMEOUT: the service did not answer in time")
run("no answer to the second PING", hello + [reply], ["ping", "--count", "2", *brief], b"TIMEOUT: the service did not answer in time")
run("no answer to LIST", hello, ["list", *brief], b"TIMEOUT: the service did not answer in time")
run("words for a terminal, at the greeting", [lambda i: reply(i, b"\x08\x12\x12\x06\x1b[2J!\n")], ["status"], b"DENIED: \\x1b[2J!\\n")


def page(tag, body):
    return lambda i: reply(i, tag + bytes([len(body)]) + body)


at = struct.pack("<Q", 7)
list_at, events_at, list_below = (page(b"\xda\x01", b"\x11" + at), page(b"\xf2\x01", b"\x29" + at), page(b"\xda\x01", b"\x1a\x03\x00at"))
stays = b"does not come on: it says that the next page begins no later than this one"
run("LIST stays at one place of the arena", hello + [list_at] * 2, ["list", *brief], stays, 1)
run("LIST stays at one place of a tier", hello + [list_at, list_below, list_below], ["list", *brief], stays, 1)
run("LIST goes back from a tier to the arena", hello + [list_below, list_at], ["list", *brief], stays, 1)

# Places that nobody has been at, page by page: without chunks, and with one that has been told before.
chunk = b"\x0a\x22\x0a\x20" + bytes(32)
many = range(1, 5000)
endless = b"LIMIT: it does not come to an end: 4097 pages in a row of fewer than 1000 chunks, expected at most 4096"
run("LIST makes up places of the arena", hello + [page(b"\xda\x01", b"\x11" + struct.pack("<Q", n)) for n in many], ["list", *brief], endless, 1)
run("LIST makes up places of a tier", hello + [page(b"\xda\x01", b"\x1a\x05\x00" + struct.pack("<L", n)) for n in many], ["list", *brief], endless, 1)
run("LIST tells one chunk for ever", hello + [page(b"\xda\x01", chunk + b"\x1a\x05\x00" + struct.pack("<L", n)) for n in many], ["list", *brief],
    endless, 1)
run("EVENTS makes up places", hello + [page(b"\xf2\x01", b"\x29" + struct.pack("<Q", n)) for n in many], ["events", *brief], endless, 1)
run("EVENTS stays at one place", hello + [events_at] * 2, ["events", *brief], stays, 1)
with open("/dev/full", "w") as full:
    run("a PING's answer cannot be written", hello * 2, ["ping"], b"No space left", 1, full)
    run("the help cannot be written", [], ["ping", "--help"], b"No space left", 1, full)
sys.exit(failed != 0)
