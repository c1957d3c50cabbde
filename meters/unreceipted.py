"""What one meter has said and the market has not answered: when each message is due (again), and which of
them a receipt covers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from eth_hash.auto import keccak

from market.messages.models import Receipt, ReceiptKind, ReceiptResult
from meters.mqtt import Message
from meters.outbox import OutboxRow, Writes

_RESEND_MAX_S = 60.0
_REFUSED_AGAIN_S = 3600.0


@dataclass
class Waiting:
    """A message without receipt: when it is due to be sent (again), and the wait after that."""

    row: OutboxRow
    message: Message
    due_s: float
    wait_s: float

    def sent(self, now_s: float) -> None:
        self.due_s = now_s + self.wait_s * random.uniform(0.5, 1.5)  # noqa: S311
        self.wait_s = min(2 * self.wait_s, _RESEND_MAX_S)


class Unreceipted:
    """The messages of the meter whose topics begin with ``topic``, in the order in which they were made.
    ``resend_s`` is the first wait until one is sent again; times are of a monotonic clock.
    """

    def __init__(self, topic: str, resend_s: float) -> None:
        self._topic = topic
        self._resend_s = resend_s
        self._waiting: dict[tuple[int, int, int], Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Kind, epoch and number (seq or version) of each."""
        return iter(self._waiting)

    def oldest(self, now: int) -> int:
        """The least of ``now`` and the times that they speak of, Unix s."""
        return min([now, *(waiting.row.time for waiting in self._waiting.values())])

    def keep(self, row: OutboxRow) -> None:
        """A message that is on the disk, or will be before it is sent; it is due at once."""
        leaf = "order" if row.kind == ReceiptKind.ORDER else "reading"
        message = Message(f"{self._topic}/{leaf}", row.payload)
        self._waiting[row.kind, row.epoch, row.number] = Waiting(row, message, 0.0, self._resend_s)

    def drop(self, row: OutboxRow, writes: Writes) -> None:
        del self._waiting[row.kind, row.epoch, row.number]
        writes.covered.append((row.meter, row.kind, row.epoch, row.number))

    def cover(self, row: OutboxRow, writes: Writes) -> None:
        """Drops a message and those of its kind and epoch that came before it: receipts are cumulative."""
        for other in [waiting.row for waiting in self._waiting.values()]:
            if (other.kind, other.epoch) == (row.kind, row.epoch) and other.number <= row.number:
                self.drop(other, writes)

    def drop_orders(self, before: int, writes: Writes) -> None:
        """Of intervals that start before: their gates have closed, no receipt can make them count."""
        for row in [waiting.row for waiting in self._waiting.values()]:
            if row.kind == ReceiptKind.ORDER and row.time < before:
                self.drop(row, writes)

    def named_by(self, receipt: Receipt) -> list[OutboxRow]:
        """What waits under the receipt's number: nothing of what was covered before, or of another epoch."""
        rows = (waiting.row for waiting in self._waiting.values())
        return [row for row in rows if row.kind == receipt.kind and row.number == receipt.up_to]

    def put_off(self, row: OutboxRow) -> None:
        """Lets a refused message rest for an hour."""
        self._waiting[row.kind, row.epoch, row.number].due_s += _REFUSED_AGAIN_S

    def hurry(self) -> None:
        """On a new connection everything is due at once."""
        for waiting in self._waiting.values():
            waiting.due_s, waiting.wait_s = 0.0, self._resend_s

    def due(self, now_s: float, closed: int) -> Iterator[Waiting]:
        """Messages to send now; orders only for intervals that start after ``closed``."""
        for waiting in self._waiting.values():
            late = waiting.row.kind == ReceiptKind.ORDER and waiting.row.time <= closed
            if waiting.due_s <= now_s and not late:
                yield waiting


def told_by(receipt: Receipt, named: list[OutboxRow]) -> OutboxRow | None:
    """The one of ``named`` that the receipt is for, by its digest; a refusal may name the payload's instead,
    where the market could not read the message.
    """
    rows = {"0x" + row.digest.hex(): row for row in named}
    if receipt.result == ReceiptResult.REJECTED:
        rows |= {"0x" + keccak(row.payload).hex(): row for row in named}
    return rows.get(receipt.digest)
