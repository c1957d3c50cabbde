"""One meter of the market: what it does when it hears a gate, a receipt or an award.

An agent does no I/O. It changes its own memory, adds to :class:`Writes` what has to be on the disk first,
and tells which messages are due. Whether messages come early, late or twice makes no difference to what it
sends. How it knows that an interval has ended is its kind's: by the gates, where time is simulated
(:mod:`meters.simulated`), or by its own clock (:mod:`meters.wall_clock`).
"""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

from pydantic import ValidationError

from market.messages.models import (
    Award,
    Gate,
    Order,
    Reading,
    Receipt,
    ReceiptKind,
    ReceiptResult,
    Status,
    Step,
    Sync,
)
from market.messages.signing import UNSIGNED, Domain, Signer, is_signed_by, message_digest
from meters.mqtt import Message
from meters.outbox import MeterRow, OutboxRow, PlanRow, Writes
from meters.source import RegisterReading
from meters.trader import Ordered, Trader
from meters.unreceipted import Unreceipted, Waiting, told_by

SOFTWARE = "peergrid meter 1"
SOFTWARE_MAX = 64  # as the message has it

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MarketPlace:
    """Where a meter trades: the feeder's id, the market's address, the signatures' domain, the length of
    an interval in s."""

    feeder: str
    market: str
    domain: Domain
    interval_s: int


@dataclass(frozen=True)
class Patience:
    """Real seconds: until a message without receipt is sent again, and for what is still missing when a
    gate opens."""

    resend_s: float = 5.0
    award_s: float = 5.0


@lru_cache(maxsize=4)
def _gate(payload: bytes) -> Gate:
    """All meters hear the same announcement."""
    return Gate.model_validate_json(payload)


class Agent(ABC):
    """The agent of one meter. ``now_s`` is a monotonic real time, used for waiting only.

    ``name`` is what the log calls it, ``fuse_w`` the most that its fuse lets through, and so the most that it
    orders each way.
    """

    def __init__(
        self,
        name: str,
        trader: Trader,
        signer: Signer,
        place: MarketPlace,
        patience: Patience,
        *,
        fuse_w: int,
    ) -> None:
        self.name = name
        self.meter = signer.address
        self.topic = f"peergrid/v1/{place.feeder}/{self.meter}"
        self.subscriptions = (
            f"{self.topic}/receipt",
            f"{self.topic}/award",
            f"peergrid/v1/{place.feeder}/gate",
        )
        self.software = SOFTWARE
        """What the market's operator is told of this meter."""
        self.ignored = 0
        """Messages that were malformed, not signed by the market or not for this meter."""
        self.last: RegisterReading | None = None
        """The last recorded reading."""
        self.gate: Gate | None = None
        """The gate that was announced last."""
        self.skew_s = 0
        """How far the market's clock is ahead of the meter's, as the last receipt of a reading tells."""
        self._trader = trader
        self._signer = signer
        self._place = place
        self._patience = patience
        self._fuse_wh = fuse_w * place.interval_s // 3600
        self._epoch = 0
        self._next_seq = 0
        self._next_version = 0
        self._memory = ""
        self._orders: dict[int, Ordered] = {}
        self._unreceipted = Unreceipted(self.topic, patience.resend_s)
        self._heard: Gate | None = None
        self._heard_s = 0.0
        self._closed = 0

    # What its kind knows

    @abstractmethod
    def clock(self) -> int:
        """The meter's own clock, Unix s."""

    @abstractmethod
    def questions(self, now_s: float) -> Iterator[Message]:
        """Asks for a missing award from time to time: a question may get lost where nobody listens yet."""

    @abstractmethod
    def _prepare(self, gate: Gate, writes: Writes, *, patient: bool) -> bool:
        """What comes before an order for the gate; False to put it off, which only the ``patient`` may."""

    # What the fleet restores, asks and sends

    def restore(self, row: MeterRow) -> None:
        """Continue from what was stored; orders and waiting messages follow."""
        self._epoch, self._next_seq, self._next_version = row.epoch, row.next_seq, row.next_version
        state = json.loads(row.state)
        if state["last"] is not None:
            self.last = RegisterReading(**state["last"])
        self._memory = state["trader"]
        if self._memory:
            self._trader.recall(self._memory)

    def restore_plan(self, row: PlanRow) -> None:
        self._orders[row.interval_start] = Ordered.from_json(row.plan)

    def restore_waiting(self, row: OutboxRow) -> None:
        self._unreceipted.keep(row)

    def greeting(self) -> Iterator[Message]:
        """What is due on a new connection: presence, a question for what was missed, all without receipt."""
        yield self._presence(online=True)
        if self._next_seq or self._next_version:
            yield self._question()
        self._unreceipted.hurry()

    @property
    def waiting(self) -> int:
        """How many messages have no receipt yet."""
        return len(self._unreceipted)

    def farewell(self) -> Message:
        """Presence ended; also the last will."""
        return self._presence(online=False)

    def due(self, now_s: float) -> Iterator[Waiting]:
        """Messages to send now; :meth:`Waiting.sent` is told of those that were handed over."""
        return self._unreceipted.due(now_s, self._closed)

    # What it reads

    def record(self, reading: RegisterReading, writes: Writes) -> None:
        """Signs a reading and keeps it until its receipt comes. Readings come in the order they were made."""
        if reading.epoch != self._epoch:
            self._epoch, self._next_seq = reading.epoch, 0
        self.last = reading
        message = Reading(
            meter=self.meter,
            epoch=self._epoch,
            seq=self._next_seq,
            taken_at=reading.taken_at,
            import_wh=reading.import_wh,
            export_wh=reading.export_wh,
            power_w=reading.power_w,
            quality=reading.quality,
            sig=UNSIGNED,
        )
        self._next_seq += 1
        self._post(message, ReceiptKind.READING, self._epoch, message.seq, message.taken_at, writes)
        self._save(writes)

    # What it hears

    def hear(self, topic: str, payload: bytes, now_s: float, writes: Writes) -> None:
        """Act on one message from the broker."""
        try:
            match topic.rsplit("/", 1)[-1]:
                case "gate":
                    self._on_gate(_gate(payload), now_s, writes)
                case "award":
                    self._on_award(Award.model_validate_json(payload), now_s, writes)
                case "receipt":
                    self._on_receipt(Receipt.model_validate_json(payload), writes)
        except ValidationError as error:
            self._ignore(f"malformed: {error.errors()[0]['msg']}")

    def wake(self, now_s: float, writes: Writes) -> None:
        """Act on a gate that was put off."""
        if self._heard is not None:
            self._act(self._heard, now_s, writes)

    def _on_gate(self, gate: Gate, now_s: float, writes: Writes) -> None:
        if gate.feeder != self._place.feeder or gate.minutes * 60 != self._place.interval_s:
            self._ignore("a gate of another market")
            return
        self.gate = gate
        if gate.state != "OPEN":
            self._closed = max(self._closed, gate.interval_start)
        if self._heard is None or self._heard.interval_start != gate.interval_start:
            self._heard_s = now_s
        self._heard = gate
        self._act(gate, now_s, writes)

    def _act(self, gate: Gate, now_s: float, writes: Writes) -> None:
        patient = now_s < self._heard_s + self._patience.award_s
        if not self._prepare(gate, writes, patient=patient):
            return
        self._heard = None
        if gate.state == "OPEN":
            self._order(gate, writes)

    def _order(self, gate: Gate, writes: Writes) -> None:
        start = gate.interval_start
        if start in self._orders or start < self.clock():
            return
        proposal = self._trader.propose(gate, self._orders.get)
        if proposal is None:
            return
        proposal = proposal.within_fuse(self._fuse_wh)
        order = Order(
            meter=self.meter,
            feeder=gate.feeder,
            interval_start=start,
            version=self._next_version,
            firm_import_wh=proposal.firm_import_wh,
            firm_export_wh=proposal.firm_export_wh,
            firm_q_var=proposal.firm_q_var,
            steps=tuple(
                Step(side=step.side, energy_wh=step.energy_wh, limit_price=step.limit_price)
                for step in proposal.steps
            ),
            sig=UNSIGNED,
        )
        self._next_version += 1
        self._memory = proposal.memory
        self._set_order(start, Ordered(proposal), writes)
        self._unreceipted.drop_orders(start, writes)
        self._post(order, ReceiptKind.ORDER, 0, order.version, start, writes)
        self._save(writes)

    def _on_award(self, award: Award, now_s: float, writes: Writes) -> None:
        if award.meter != self.meter or not is_signed_by(self._place.domain, award, self._place.market):
            self._ignore("an award that is not the market's for this meter")
            return
        ordered = self._orders.get(award.interval_start)
        if ordered is None or ordered.awarded_wh is not None:
            return
        offered = ordered.proposal.steps
        awarded = [0] * len(offered)
        for step in award.steps:
            if step.index >= len(awarded) or step.energy_wh > offered[step.index].energy_wh:
                self._ignore("an award of more than was offered")
                return
            awarded[step.index] = step.energy_wh
        ordered = replace(ordered, awarded_wh=tuple(awarded), price=award.price, setpoint_w=award.setpoint_w)
        self._set_order(award.interval_start, ordered, writes)
        self.wake(now_s, writes)

    def _on_receipt(self, receipt: Receipt, writes: Writes) -> None:
        if receipt.meter != self.meter or not is_signed_by(self._place.domain, receipt, self._place.market):
            self._ignore("a receipt that is not the market's for this meter")
            return
        named = self._unreceipted.named_by(receipt)
        row = told_by(receipt, named)
        if row is None:
            if named:
                self._ignore("a receipt for other content than was sent")
        elif receipt.result == ReceiptResult.REJECTED:
            self._on_refusal(row, receipt, writes)
        else:
            if row.kind == ReceiptKind.READING:
                self.skew_s = receipt.received_at - self.clock()
            self._unreceipted.cover(row, writes)

    def _on_refusal(self, row: OutboxRow, receipt: Receipt, writes: Writes) -> None:
        """No award comes for a refused order. A refused reading is settled by it, and stays until a receipt
        covers it; should the market have asked for something else first, it is sent once more by then.
        """
        _log.warning(
            "%s: the market refused %s %d: %s %s",
            self.name,
            ReceiptKind(row.kind).name.lower(),
            row.number,
            receipt.field,
            receipt.reason,
        )
        if row.kind == ReceiptKind.READING:
            self._unreceipted.put_off(row)
            return
        self._unreceipted.drop(row, writes)
        if row.time in self._orders:
            self._set_order(row.time, replace(self._orders[row.time], refused=True), writes)

    # Bookkeeping

    def _post(
        self,
        message: Reading | Order,
        kind: ReceiptKind,
        epoch: int,
        number: int,
        time: int,
        writes: Writes,
    ) -> None:
        digest = message_digest(self._place.domain, message)
        signed = message.model_copy(update={"sig": self._signer.sign_digest(digest)})
        payload = signed.model_dump_json().encode()
        row = OutboxRow(self.meter, int(kind), epoch, number, time, digest, payload)
        writes.sent.append(row)
        self._unreceipted.keep(row)

    def _save(self, writes: Writes) -> None:
        state = {"last": asdict(self.last) if self.last else None, "trader": self._memory}
        writes.meters[self.meter] = MeterRow(
            self.meter, self._epoch, self._next_seq, self._next_version, json.dumps(state)
        )

    def _set_order(self, start: int, ordered: Ordered, writes: Writes) -> None:
        self._orders[start] = ordered
        writes.plans[self.meter, start] = PlanRow(self.meter, start, ordered.to_json())

    def _forget_orders(self, before: int, writes: Writes) -> None:
        """Orders of intervals that start before are no longer needed."""
        for start in [start for start in self._orders if start < before]:
            del self._orders[start]
            writes.plans.pop((self.meter, start), None)
            writes.ended.append((self.meter, start))

    def _question(self) -> Message:
        """Asks for all that the market said since the oldest thing that is still open."""
        since = self._unreceipted.oldest(self.clock())
        sync = Sync(meter=self.meter, since=since - self._place.interval_s)
        return Message(f"{self.topic}/sync", sync.model_dump_json().encode())

    def _presence(self, *, online: bool) -> Message:
        status = Status(
            meter=self.meter, online=online, since=self.clock(), software=self.software[:SOFTWARE_MAX]
        )
        return Message(f"{self.topic}/status", status.model_dump_json().encode(), retain=True)

    def _ignore(self, reason: str) -> None:
        self.ignored += 1
        _log.debug("%s ignored %s", self.name, reason)
