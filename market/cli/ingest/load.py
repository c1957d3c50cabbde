"""The load of the bench: every meter on a TCP connection of its own, messages signed before the start.

``python -m market.cli.ingest.load PLAN.json`` speaks as little MQTT 3.1.1 as a meter needs, from one thread,
so that it takes little of the machine that it shares with the market. It writes ``load.json``: when it began,
how late it got, and how far each meter was receipted.
"""

from __future__ import annotations

import json
import resource
import select
import socket
import struct
import sys
import time
from pathlib import Path

from market.cli.ingest.plan import DOMAIN, FEEDER, TAKEN_AT, Plan, meter
from market.messages.models import Reading, ReadingEntry, Readings
from market.messages.signing import UNSIGNED
from market.service.parse import topic_of

_PATIENCE_S = 60.0
_CONNECTING_MAX = 200
_PUBLISH, _PUBACK = 0x30, 0x40


def payloads(plan: Plan, index: int) -> list[bytes]:
    """A meter's signed messages in order."""
    signer, made = meter(index), []
    for number in range(plan.messages):
        entries = [
            ReadingEntry(
                epoch=0,
                seq=seq,
                taken_at=TAKEN_AT + seq,
                import_wh=1_000_000 + 3 * seq,
                export_wh=500 * index,
                power_w=-900,
            )
            for seq in range(number * plan.per_message, (number + 1) * plan.per_message)
        ]
        message: Reading | Readings
        if plan.per_message == 1:
            message = Reading(meter=signer.address, sig=UNSIGNED, **entries[0].model_dump())
        else:
            message = Readings(meter=signer.address, readings=tuple(entries), sig=UNSIGNED)
        made.append(signer.sign(DOMAIN, message).model_dump_json().encode())
    return made


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("!H", len(raw)) + raw


def _packet(kind: int, body: bytes) -> bytes:
    length, digits = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([kind]) + bytes(digits) + body


class _Connection:
    """One meter: its messages as packets, and what came back."""

    def __init__(self, plan: Plan, index: int) -> None:
        self.meter = meter(index).address
        topic = _text(topic_of(FEEDER, self.meter, "reading"))
        self.packets = [
            _packet(_PUBLISH | 2, topic + struct.pack("!H", number % 65535 + 1) + payload)
            for number, payload in enumerate(payloads(plan, index))
        ]
        self.acknowledged = 0
        self.receipted = -1
        self._in = bytearray()
        self._out = bytearray()
        self.socket: socket.socket

    def connect(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hello = _text("MQTT") + bytes([4, 2]) + struct.pack("!H", 0) + _text(self.meter)
        topic = _text(topic_of(FEEDER, self.meter, "receipt"))
        self.socket.sendall(_packet(0x10, hello) + _packet(0x82, b"\0\1" + topic + b"\1"))

    def welcomed(self) -> None:
        """Waits until connection and subscription are confirmed: 4 and 5 bytes."""
        seen = 0
        while seen < 9:
            seen += len(self.socket.recv(9 - seen))
        self.socket.setblocking(False)

    def send(self, packet: bytes) -> bool:
        """Whether all of it left; the rest goes with :meth:`flush`."""
        self._out += packet
        return self.flush()

    def flush(self) -> bool:
        try:
            del self._out[: self.socket.send(self._out)]
        except BlockingIOError:
            return False
        return not self._out

    def receive(self) -> None:
        held = self._in
        held += self.socket.recv(65536)
        at = 0
        while len(held) - at >= 2:
            length, shift, head = 0, 0, at + 1
            while head < len(held):
                byte = held[head]
                length |= (byte & 127) << shift
                shift, head = shift + 7, head + 1
                if byte < 128:
                    break
            if len(held) - head < length:
                break
            kind = held[at] & 0xF0
            if kind == _PUBACK:
                self.acknowledged += 1
            elif kind == _PUBLISH:
                topic_end = head + 2 + struct.unpack_from("!H", held, head)[0]
                receipt = json.loads(held[topic_end + 2 : head + length])
                assert receipt["result"] != 2, receipt
                self.receipted = max(self.receipted, receipt["up_to"])
                self.send(_packet(_PUBACK, bytes(held[topic_end : topic_end + 2])))
            at = head + length
        del held[:at]


def run(plan: Plan) -> None:
    connections = [_Connection(plan, index) for index in range(plan.connections)]
    for start in range(0, len(connections), _CONNECTING_MAX):
        group = connections[start : start + _CONNECTING_MAX]
        for connection in group:
            connection.connect(plan.port)
        for connection in group:
            connection.welcomed()
    by_file = {connection.socket.fileno(): connection for connection in connections}
    poll = select.epoll()
    for file in by_file:
        poll.register(file, select.EPOLLIN)
    folder, last = Path(plan.folder), plan.messages * plan.per_message - 1
    (folder / "load.ready").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    before = resource.getrusage(resource.RUSAGE_SELF)
    began_s = time.monotonic()
    total, sent, late_s = plan.messages * plan.connections, 0, 0.0
    finished_s = None
    while True:
        now_s = time.monotonic() - began_s
        while sent < total:
            number, index = divmod(sent, plan.connections)
            due_s = plan.sent_after_s(number, index)
            if due_s > now_s:
                break
            late_s = max(late_s, now_s - due_s)
            if not connections[index].send(connections[index].packets[number]):
                poll.modify(connections[index].socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
            sent += 1
        if sent == total and finished_s is None:
            finished_s = now_s
        for file, events in poll.poll(0.002):
            connection = by_file[file]
            if events & select.EPOLLIN:
                connection.receive()
            if events & select.EPOLLOUT and connection.flush():
                poll.modify(file, select.EPOLLIN)
        if finished_s is not None and (
            now_s > finished_s + _PATIENCE_S or all(c.receipted == last for c in connections)
        ):
            break
    after = resource.getrusage(resource.RUSAGE_SELF)
    report = {
        "began_s": began_s,
        "sending_s": finished_s,
        "receipted_after_s": time.monotonic() - began_s,
        "late_max_s": late_s,
        "acknowledged": sum(connection.acknowledged for connection in connections),
        "unreceipted": sum(last - connection.receipted for connection in connections),
        "meters": [connection.meter for connection in connections],
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }
    (folder / "load.json").write_text(json.dumps(report))


if __name__ == "__main__":
    run(Plan(**json.loads(Path(sys.argv[1]).read_text())))
