"""Judging what meters say: accepted into the store and answered, or refused with a reason.

A batch of messages is one database transaction; nothing is answered before it is on the disk. The state
kept here is only what the store says, remembered: it is loaded anew when a transaction fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection

from market.accounts.metering import BOUNDARY_TOLERANCE_S
from market.messages.models import (
    Order,
    Reading,
    ReadingEntry,
    Readings,
    ReceiptKind,
    ReceiptResult,
    Side,
    Sync,
)
from market.service.clock import Clock
from market.service.cover import Cover
from market.service.parse import Heard, Refusal
from market.service.settings import MarketSettings, Member
from market.service.store import Store, inputs
from market.service.store.inputs import StoredOrder, StoredReading


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receipt is to say."""

    meter: str
    kind: ReceiptKind
    up_to: int
    result: ReceiptResult
    digest: bytes
    received_at: int
    reason: str = ""
    field: str = ""


@dataclass
class _Sequence:
    """What is stored of a meter's readings: all from the first one to ``up_to``, and some ahead of a gap."""

    up_to: int
    digest: bytes
    ahead: dict[int, bytes] = field(default_factory=dict)

    def has(self, seq: int) -> bool:
        return seq <= self.up_to or seq in self.ahead

    def add(self, seq: int, digest: bytes) -> None:
        self.ahead[seq] = digest
        while (following := self.ahead.pop(self.up_to + 1, None)) is not None:
            self.up_to, self.digest = self.up_to + 1, following


class Intake:
    """Open gates, the orders that stand in them, and how far each meter's readings are stored."""

    def __init__(
        self,
        settings: MarketSettings,
        members: Mapping[str, Member],
        store: Store,
        clock: Clock,
        cover: Cover,
    ) -> None:
        self._settings = settings
        self._members = members
        self._store = store
        self._clock = clock
        self._cover = cover
        self._closes_at: dict[int, int] = {}
        self._orders: dict[int, dict[str, StoredOrder]] = {}
        self._spoken: dict[int, set[str]] = {}
        self._sequences: dict[str, _Sequence] = {}
        self._read_at: dict[int, set[str]] = {}
        self._late = False
        self._reload()

    def open_gate(self, interval_start: int, closes_at: int) -> None:
        """From now on orders for the interval are taken; those in the store stand."""
        with self._store.reading() as connection:
            orders = inputs.live_orders(connection, interval_start)
        self._closes_at[interval_start] = closes_at
        self._orders[interval_start] = orders
        self._spoken[interval_start] = set(orders)
        for stored in orders.values():
            self._cover.hold(stored.order)

    def close_gate(self, interval_start: int) -> None:
        for remembered in (self._closes_at, self._orders, self._spoken):
            remembered.pop(interval_start, None)

    def silent(self, interval_start: int) -> set[str]:
        """The meters that have neither an order for the interval nor had one refused."""
        return set(self._members) - self._spoken[interval_start]

    def watch_boundary(self, boundary: int) -> None:
        """Remember from now on who was read at ``boundary``, and forget earlier boundaries."""
        tolerance = BOUNDARY_TOLERANCE_S
        with self._store.reading() as connection:
            read = inputs.meters_read_at(connection, boundary - tolerance, boundary + tolerance)
        self._read_at = {boundary: read}

    def unread(self, boundary: int) -> set[str]:
        """The meters without a reading within ± 30 s of a watched boundary."""
        return set(self._members) - self._read_at[boundary]

    def take_late(self) -> bool:
        """Whether, since last asked, readings came of a time before the watched boundary."""
        late, self._late = self._late, False
        return late

    def take(self, heard: Iterable[Heard]) -> list[Answer]:
        """Stores what is acceptable, durably, and tells what to answer: one answer an order, one a meter
        for all of its readings.
        """
        now = self._clock.now()
        answers: list[Answer] = []
        read: dict[str, bool] = {}
        try:
            with self._store.transaction() as tx:
                orders: list[StoredOrder] = []
                readings: list[StoredReading] = []
                for said in heard:
                    message = said.message
                    if isinstance(message, Order):
                        answers.append(self._judge_order(tx, said, message, now, orders))
                    elif not isinstance(message, Sync):
                        answers += self._judge_readings(tx, said, message, now, readings, read)
                inputs.add_orders(tx, orders)
                inputs.add_readings(tx, readings)
        except BaseException:
            self._reload()
            raise
        answers += [self.reading_answer(meter, now, is_new=is_new) for meter, is_new in read.items()]
        return answers

    def refused(self, refusal: Refusal) -> Answer:
        """The answer to what could not even be judged."""
        return Answer(
            refusal.meter,
            refusal.kind,
            refusal.up_to,
            ReceiptResult.REJECTED,
            refusal.digest,
            self._clock.now(),
            refusal.reason,
            refusal.field,
        )

    def reading_answer(self, meter: str, now: int, *, is_new: bool) -> Answer:
        """How far a meter's readings are stored."""
        sequence = self._sequences[meter]
        result = ReceiptResult.ACCEPTED if is_new else ReceiptResult.DUPLICATE
        return Answer(meter, ReceiptKind.READING, sequence.up_to, result, sequence.digest, now)

    def has_readings(self, meter: str) -> bool:
        return meter in self._sequences

    def _reload(self) -> None:
        with self._store.reading() as connection:
            for meter in self._members:
                progress = inputs.reading_progress(connection, meter)
                self._sequences.pop(meter, None)
                if progress is not None:
                    ahead = inputs.readings_ahead(connection, meter, progress.up_to)
                    self._sequences[meter] = _Sequence(progress.up_to, progress.digest, ahead)
        for interval_start, closes_at in list(self._closes_at.items()):
            self.open_gate(interval_start, closes_at)
        for boundary in list(self._read_at):
            self.watch_boundary(boundary)

    def _judge_order(
        self, tx: Connection, said: Heard, order: Order, now: int, accepted: list[StoredOrder]
    ) -> Answer:
        def answer(result: ReceiptResult, reason: str = "", field: str = "") -> Answer:
            return Answer(
                order.meter, ReceiptKind.ORDER, order.version, result, said.digest, now, reason, field
            )

        if order.feeder != self._settings.feeder:
            return answer(
                ReceiptResult.REJECTED, f"this market's feeder is {self._settings.feeder}", "feeder"
            )
        standing = self._orders.get(order.interval_start, {}).get(order.meter)
        known = standing.digest if standing and standing.order.version == order.version else None
        if known is None and (standing or order.interval_start not in self._closes_at):
            known = inputs.order_digest(tx, order.interval_start, order.meter, order.version)
        if known == said.digest:
            return answer(ReceiptResult.DUPLICATE)
        if known is not None:
            reason = f"version {order.version} is stored with other content"
            inputs.add_evidence(tx, now, said.topic, said.payload, reason)
            return answer(ReceiptResult.REJECTED, reason, "version")
        problem = self._problem(order, standing, now)
        if order.interval_start in self._closes_at:
            self._spoken[order.interval_start].add(order.meter)
        if problem is not None:
            return answer(ReceiptResult.REJECTED, *problem)
        stored = StoredOrder(order, said.digest, now)
        accepted.append(stored)
        self._orders[order.interval_start][order.meter] = stored
        self._cover.hold(order)
        return answer(ReceiptResult.ACCEPTED)

    def _problem(self, order: Order, standing: StoredOrder | None, now: int) -> tuple[str, str] | None:
        """Why an order that is neither known nor forged cannot be taken (reason, field)."""
        closes_at = self._closes_at.get(order.interval_start)
        if closes_at is None or now > closes_at:
            return "the gate of this interval is not open", "interval_start"
        if standing and order.version < standing.order.version:
            return f"version {standing.order.version} is stored already", "version"
        tariff = self._settings.tariff
        for index, step in enumerate(order.steps):
            if not tariff.floor <= step.limit_price <= tariff.cap:
                reason = f"{step.limit_price} is outside floor {tariff.floor} and cap {tariff.cap}"
                return reason, f"steps[{index}].limit_price"
        fuse_wh = self._members[order.meter].fuse_w * self._settings.minutes // 60
        for side, firm_wh in ((Side.BID, order.firm_import_wh), (Side.ASK, order.firm_export_wh)):
            total_wh = firm_wh + sum(step.energy_wh for step in order.steps if step.side == side)
            if total_wh > fuse_wh:
                return f"{total_wh} Wh are more than the {fuse_wh} Wh that the fuse carries", "steps"
        shortfall_neur = self._cover.shortfall_neur(order)
        if shortfall_neur:
            return f"the account is {-(-shortfall_neur // 1000)} µEUR short of this order's worst case", ""
        return None

    def _judge_readings(
        self,
        tx: Connection,
        said: Heard,
        message: Reading | Readings,
        now: int,
        accepted: list[StoredReading],
        read: dict[str, bool],
    ) -> list[Answer]:
        """Adds what is new to ``accepted`` and the meter to ``read``; answers contradictions."""
        meter = message.meter
        entries = message.readings if isinstance(message, Readings) else (message,)
        read.setdefault(meter, False)
        answers = []
        for entry in entries:
            sequence = self._sequences.setdefault(meter, _Sequence(entry.seq - 1, said.digest))
            if sequence.has(entry.seq):
                known = inputs.stored_reading(tx, meter, entry.epoch, entry.seq) or next(
                    (r.entry for r in accepted if _key(r.meter, r.entry) == _key(meter, entry)), None
                )
                if known is not None:
                    if _content(known) != _content(entry):
                        reason = f"epoch {entry.epoch} seq {entry.seq} is stored with other content"
                        inputs.add_evidence(tx, now, said.topic, said.payload, reason)
                        answers.append(
                            Answer(
                                meter,
                                ReceiptKind.READING,
                                entry.seq,
                                ReceiptResult.REJECTED,
                                said.digest,
                                now,
                                reason,
                                "seq",
                            )
                        )
                    continue
            else:
                sequence.add(entry.seq, said.digest)
            accepted.append(StoredReading(meter, entry, said.digest, message.sig, now))
            read[meter] = True
            for boundary, meters in self._read_at.items():
                if abs(entry.taken_at - boundary) <= BOUNDARY_TOLERANCE_S:
                    meters.add(meter)
                elif entry.taken_at < boundary:
                    self._late = True
        return answers


def _key(meter: str, entry: Reading | ReadingEntry) -> tuple[str, int, int]:
    return meter, entry.epoch, entry.seq


def _content(entry: Reading | ReadingEntry) -> tuple[int, ...]:
    return (
        entry.epoch,
        entry.seq,
        entry.taken_at,
        entry.import_wh,
        entry.export_wh,
        entry.power_w,
        entry.quality,
    )
