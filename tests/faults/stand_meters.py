"""The meters of the fault tests: one process with real outboxes and sessions, and a network that misbehaves.

``python -m tests.faults.stand_meters FOLDER PORT READINGS`` reads every meter's registers so often, sends
each reading three times, out of order, and ends when everything is receipted. What it was receipted for is
kept in ``receipted.log``, on the disk before the outbox forgets it.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

from market.messages.models import Reading, Receipt, ReceiptKind
from market.messages.signing import UNSIGNED, is_signed_by, message_digest
from meters import lifeline
from meters.mqtt import Inbox, Message, Session
from meters.outbox import MeterRow, Outbox, OutboxRow, Writes
from tests.faults.stand import DOMAIN, FEEDER_ID, MARKET, METERS, START

STEP = 50
COPIES = 3
# Longer than the market takes for all that can wait at once: else most of the work is for copies of copies.
RESEND_S = 6.0
WAITING_MAX = 400


def reading(index: int, seq: int) -> Reading:
    """Registers that tell exactly which readings came before."""
    return Reading(
        meter=METERS[index].address,
        epoch=0,
        seq=seq,
        taken_at=START + seq,
        import_wh=seq * (seq + 1) // 2 + index,
        export_wh=3 * seq,
        power_w=-seq,
        sig=UNSIGNED,
    )


class Meters:
    def __init__(self, folder: Path, port: int, readings: int) -> None:
        self._readings = readings
        self._port = port
        self._outbox = Outbox(folder / "meters.sqlite", "faults")
        self._next = {meter.address: 0 for meter in METERS}
        self._waiting: dict[tuple[str, int], OutboxRow] = {}
        self._sent_s: dict[tuple[str, int], float] = {}
        self._log = (folder / "receipted.log").open("a")
        self._random = random.Random()
        for row in self._outbox.meters():
            self._next[row.meter] = row.next_seq
        for row in self._outbox.waiting():
            self._waiting[row.meter, row.number] = row

    async def run(self) -> None:
        inbox = Inbox()
        topics = [f"peergrid/v1/{FEEDER_ID}/{meter.address}/receipt" for meter in METERS]
        session = Session(
            "127.0.0.1",
            self._port,
            "meters",
            inbox,
            subscriptions=topics,
            timeout_s=60,
            on_connect=lambda _: self._sent_s.clear(),
        )
        session.start()  # as gateways do: where there is no broker for long, they wait for it
        async with AsyncExitStack() as stack:
            stack.push_async_exit(session)
            while self._waiting or min(self._next.values()) < self._readings:
                batch = await inbox.batch(timeout_s=0.05)
                writes = Writes()
                for incoming in batch:
                    self._receipt(Receipt.model_validate_json(incoming.payload), writes)
                self._read(writes)
                self._log.flush()
                os.fsync(self._log.fileno())
                self._outbox.commit(writes)
                Inbox.done(batch)
                self._send(session)

    def _receipt(self, receipt: Receipt, writes: Writes) -> None:
        assert is_signed_by(DOMAIN, receipt, MARKET.address)
        assert receipt.kind == ReceiptKind.READING
        assert receipt.result != 2, receipt
        self._log.write(f"{receipt.meter} {receipt.up_to}\n")
        for key in [k for k in self._waiting if k[0] == receipt.meter and k[1] <= receipt.up_to]:
            row = self._waiting.pop(key)
            writes.covered.append((row.meter, row.kind, row.epoch, row.number))

    def _read(self, writes: Writes) -> None:
        """The next readings, stored before they are sent."""
        for index, meter in enumerate(METERS):
            first = self._next[meter.address]
            held = sum(key[0] == meter.address for key in self._waiting)
            for seq in range(first, min(first + STEP, self._readings) if held < WAITING_MAX else first):
                message = reading(index, seq)
                digest = message_digest(DOMAIN, message)
                signed = message.model_copy(update={"sig": meter.sign_digest(digest)})
                payload = signed.model_dump_json().encode()
                row = OutboxRow(meter.address, 0, 0, seq, message.taken_at, digest, payload)
                writes.sent.append(row)
                self._waiting[meter.address, seq] = row
                self._next[meter.address] = seq + 1
            writes.meters[meter.address] = MeterRow(meter.address, 0, self._next[meter.address], 0, "{}")

    def _send(self, session: Session) -> None:
        """What is due, each three times, in any order."""
        now_s = time.monotonic()
        due = [key for key in self._waiting if self._sent_s.get(key, 0.0) + RESEND_S < now_s]
        copies = [key for key in due for _ in range(COPIES)]
        self._random.shuffle(copies)
        for key in copies:
            topic = f"peergrid/v1/{FEEDER_ID}/{key[0]}/reading"
            if not session.send(Message(topic, self._waiting[key].payload)):
                break
            self._sent_s[key] = now_s


if __name__ == "__main__":
    lifeline.end_with_stdin()
    asyncio.run(Meters(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])).run())
    print("DONE", flush=True)
