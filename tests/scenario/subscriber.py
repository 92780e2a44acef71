# SPDX-License-Identifier: Apache-2.0
#
# A subscriber to a service's events: nng's SUB over ipc, and as much of protobuf as a batch of events needs.
import socket
import struct
import threading


def fields(data):
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        if tag & 7 == 1:
            value, at = struct.unpack_from("<Q", data, at)[0], at + 8
        elif tag & 7 == 2:
            length, at = varint(data, at)
            value, at = data[at:at + length], at + length
        else:
            value, at = varint(data, at)
        yield tag >> 3, value


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


STORED, EVICTED, MOVED, DELETED, DROPPED = 1, 2, 3, 4, 5


class Subscriber(threading.Thread):
    def __init__(self, url):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(url.removeprefix("ipc://"))
        self.socket.sendall(b"\0SP\0\0\x21\0\0")
        self.greeting = self.read(8)
        self.batches, self.changed = [], threading.Condition()
        self.over = False

    def read(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def run(self):
        try:
            while True:
                kind, length = struct.unpack(">BQ", self.read(9))
                batch = self.read(length)
                sequence, events = 0, []
                for number, value in fields(batch):
                    if number == 2:
                        sequence = value
                    elif number == 3:
                        event = dict(fields(value))
                        events.append((event.get(1, 0), event[2].hex(), event.get(3, 0)))
                with self.changed:
                    self.batches.append((kind, sequence, events))
                    self.changed.notify_all()
        except (EOFError, OSError):
            with self.changed:
                self.over = True
                self.changed.notify_all()

    def last(self):
        return self.batches[-1][1] + len(self.batches[-1][2]) - 1 if self.batches else 0

    def wait_for(self, sequence):
        with self.changed:
            return self.changed.wait_for(lambda: self.last() >= sequence or self.over, timeout=60) and self.last() >= sequence
