"""A small market for the tests of meters: a real signing key on a real broker, awards by a fixed rule.

It keeps every message that it received, as the market's store would, and answers with receipts only what
it keeps. It is as strict as the market: same key with other content is an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

from grid.errors import BrokerError
from market.messages.models import (
    Award,
    AwardStep,
    Gate,
    Order,
    Reading,
    Receipt,
    ReceiptKind,
    ReceiptResult,
    Side,
    Sync,
    Tariff,
)
from market.messages.signing import UNSIGNED, Domain, Signer, is_signed_by, message_digest
from meters.mqtt import Inbox, Message, Session

FEEDER = "test-feeder"
DOMAIN = Domain(1337, "0x" + "ab" * 20)
MARKET = Signer(b"\x07" * 32)
SECONDS = 900
TARIFF = Tariff(import_price=300_000, export_price=80_000, floor=-500_000, cap=2_000_000)


@dataclass
class Seen:
    """What the market has stored; it outlives the connection."""

    readings: dict[tuple[str, int], Reading] = field(default_factory=dict)
    orders: dict[tuple[str, int], Order] = field(default_factory=dict)
    awards: dict[tuple[str, int], Award] = field(default_factory=dict)
    repeated: int = 0


def gate_of(start: int, state: str) -> Gate:
    return Gate(
        feeder=FEEDER,
        interval_start=start,
        minutes=15,
        opens_at=start - SECONDS,
        closes_at=start - 300,
        tariff=TARIFF,
        state=state,
    )


def award_for(order: Order, signer: Signer = MARKET) -> Award:
    """Bids are filled, asks curtailed to three quarters."""
    steps = tuple(
        AwardStep(index=i, energy_wh=s.energy_wh if s.side == Side.BID else s.energy_wh * 3 // 4)
        for i, s in enumerate(order.steps)
    )
    award = Award(
        meter=order.meter,
        interval_start=order.interval_start,
        status="CLEARED",
        price=150_000,
        firm_price=150_000,
        steps=steps,
        setpoint_w=0,
        amount_neur=0,
        sig=UNSIGNED,
    )
    return signer.sign(DOMAIN, award)


def receipt_for(message: Reading | Order, now: int, signer: Signer = MARKET) -> Receipt:
    reading = isinstance(message, Reading)
    receipt = Receipt(
        meter=message.meter,
        kind=ReceiptKind.READING if reading else ReceiptKind.ORDER,
        up_to=message.seq if reading else message.version,
        result=ReceiptResult.ACCEPTED,
        received_at=now,
        digest="0x" + message_digest(DOMAIN, message).hex(),
        sig=UNSIGNED,
    )
    return signer.sign(DOMAIN, receipt)


class ScriptedMarket:
    """``async with ScriptedMarket(host, port, seen) as market: await market.wave(start, meters)``."""

    def __init__(self, host: str, port: int, seen: Seen) -> None:
        self.seen = seen
        self.inbox = Inbox()
        topics = [f"peergrid/v1/{FEEDER}/+/{leaf}" for leaf in ("order", "reading", "sync", "status")]
        self.session = Session(
            host, port, "market", self.inbox, subscriptions=topics, timeout_s=30, on_connect=self._announce
        )
        self.gate: Message | None = None

    async def __aenter__(self) -> ScriptedMarket:
        await self.session.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.session.__aexit__(None, None, None)

    def _announce(self, session: Session) -> None:
        """A broker that restarted has forgotten the gate."""
        if self.gate is not None:
            session.send(self.gate)

    async def announce(self, start: int, state: str) -> None:
        topic = f"peergrid/v1/{FEEDER}/gate"
        self.gate = Message(topic, gate_of(start, state).model_dump_json().encode(), retain=True)
        for _ in range(10):
            try:
                return await self.session.publish(self.gate)
            except BrokerError:  # killed just then: say it again to the next one
                continue
        raise AssertionError("no broker took the gate")

    async def wave(self, start: int, meters: Collection[str], timeout_s: float = 60.0) -> None:
        """Open, hear all, close, answer."""
        await self.announce(start, "OPEN")
        opens_at = start - SECONDS
        async with asyncio.timeout(timeout_s):
            while not all(
                (meter, start) in self.seen.orders and self.has_reading(meter, opens_at, start)
                for meter in meters
            ):
                await self.hear()
        await self.announce(start, "CLOSED")
        await self.answer(start, meters)

    def has_reading(self, meter: str, taken_at: int, start: int) -> bool:
        """Whether the reading at ``taken_at`` is there; before the first interval's there is none."""
        first = min(s for m, s in self.seen.orders if m == meter)
        return taken_at < first or any(
            m == meter and r.taken_at == taken_at for (m, _), r in self.seen.readings.items()
        )

    async def hear(self, timeout_s: float = 0.5) -> None:
        batch = await self.inbox.batch(timeout_s=timeout_s)
        for incoming in batch:
            self._take(incoming.topic, incoming.payload)
        Inbox.done(batch)

    def _take(self, topic: str, payload: bytes) -> None:
        leaf = topic.rsplit("/", 1)[1]
        if leaf == "order":
            order = Order.model_validate_json(payload)
            assert is_signed_by(DOMAIN, order, order.meter)
            self._keep(self.seen.orders, (order.meter, order.interval_start), order)
        elif leaf == "reading":
            reading = Reading.model_validate_json(payload)
            assert is_signed_by(DOMAIN, reading, reading.meter)
            self._keep(self.seen.readings, (reading.meter, reading.seq), reading)
        elif leaf == "sync":
            sync = Sync.model_validate_json(payload)
            for (meter, start), award in self.seen.awards.items():
                if meter == sync.meter and start >= sync.since:
                    self._send(award, "award")
            self._send_receipts(sync.meter)

    def _keep(self, store: dict, key: object, message: object) -> None:
        if key in store:
            assert store[key] == message, "the same key with other content"
            self.seen.repeated += 1
        store[key] = message

    def _send(self, message: Receipt | Award, leaf: str) -> None:
        topic = f"peergrid/v1/{FEEDER}/{message.meter}/{leaf}"
        self.session.send(Message(topic, message.model_dump_json().encode()))

    def _send_receipts(self, meter: str) -> None:
        readings = {seq: r for (m, seq), r in self.seen.readings.items() if m == meter}
        contiguous = -1
        while contiguous + 1 in readings:
            contiguous += 1
        if contiguous >= 0:
            self._send(receipt_for(readings[contiguous], readings[contiguous].taken_at), "receipt")
        orders = [o for (m, _), o in self.seen.orders.items() if m == meter]
        if orders:
            last = max(orders, key=lambda order: order.version)
            self._send(receipt_for(last, last.interval_start), "receipt")

    async def answer(self, start: int, meters: Collection[str]) -> None:
        for meter in meters:
            self._send_receipts(meter)
            award = award_for(self.seen.orders[meter, start])
            self.seen.awards[meter, start] = award
            self._send(award, "award")
