"""The meters of a simulated market on the wall clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from market.messages.models import Gate, Order, Reading, ReceiptKind, ReceiptResult
from market.service.answer import Answer
from market.service.clock import WallClock
from tests.service import scene
from tests.service.scene import METERS, SECONDS, START
from tests.sim.faults import Faults

RESEND_S = 45.0
AWAY_S_MAX, AWAY_LONG_S_MAX = 10.0, 1_500.0
DELAY_S_MAX = 20.0
CORRECTION_WH = 5
_REFUSALS = ("gate of this interval is not open", "ahead of the market's clock")
"""What a meter may be told: its order came late, or the market's clock is behind."""


class Broker:
    """Sometimes it goes away, now and then for more than a gate: then nobody reaches anybody."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._back_at = 0.0

    @property
    def is_away(self) -> bool:
        return asyncio.get_running_loop().time() < self._back_at and not self._faults.calm

    def may_go(self) -> None:
        faults = self._faults
        if faults.happens(faults.broker_away):
            most_s = AWAY_LONG_S_MAX if faults.happens(0.2) else AWAY_S_MAX
            self._back_at = asyncio.get_running_loop().time() + faults.random.uniform(0.0, most_s)


class Meters:
    """Four meters that outlive the market: they read their registers at every boundary, order when they hear
    of a gate, and send again what has no receipt. ``reached`` gets what comes through.

    One may be off over some boundaries and have no reading of them, be without a connection and send all
    later, or correct what it said.
    """

    def __init__(self, faults: Faults, clock: WallClock) -> None:
        self._faults = faults
        self._clock = clock
        self.broker = Broker(faults)
        self._waiting: dict[tuple[str, str, int], Order | Reading] = {}
        self._ordered = START - SECONDS
        self._read = [0] * len(METERS)
        self._off_until = [0] * len(METERS)
        self._silent_until = {meter.address: 0 for meter in METERS}
        self.receipted: set[tuple[str, str, int]] = set()
        self.reached: Callable[[Order | Reading], None] | None = None
        self.told: list[str] = []

    async def live(self) -> None:
        boundary = START - SECONDS
        while True:
            now = self._clock.now()
            if now >= boundary:
                for index in range(len(METERS)):
                    self._boundary(index, boundary)
                boundary += SECONDS
            for message in list(self._waiting.values()):
                self._send(message)
            await asyncio.sleep(min(RESEND_S, max(1.0, boundary - now)))

    def _boundary(self, index: int, boundary: int) -> None:
        faults = self._faults
        if faults.happens(faults.meter_off):
            self._off_until[index] = boundary + faults.random.randint(1, 3) * SECONDS
        if faults.happens(faults.meter_silent):
            until = boundary + faults.random.randint(1, 8) * SECONDS
            self._silent_until[METERS[index].address] = until
        if boundary < self._off_until[index] and not faults.calm:
            return
        self._register(index, boundary, 0)
        if faults.happens(faults.corrected):
            earlier = boundary - faults.random.randint(0, 6) * SECONDS
            self._register(index, max(earlier, START - SECONDS), CORRECTION_WH)

    def _register(self, index: int, taken_at: int, more_wh: int) -> None:
        reading = scene.reading_of(index, taken_at, self._read[index], more_wh)
        self._read[index] += 1
        self._waiting[reading.meter, "reading", reading.seq] = reading

    def hear(self, topic: str, text: str) -> None:
        self.told.append(topic)
        if not topic.endswith("/gate") or self._faults.happens(self._faults.lost / 4):
            return
        gate = Gate.model_validate_json(text)
        if gate.state == "OPEN" and gate.interval_start > self._ordered:
            self._ordered = gate.interval_start
            for index in range(len(METERS)):
                order = scene.order_of(index, gate.interval_start, (gate.interval_start - START) // SECONDS)
                self._waiting[order.meter, "order", order.version] = order
                self._send(order)

    def answered(self, answer: Answer) -> None:
        if answer.result == ReceiptResult.REJECTED:
            assert any(words in answer.reason for words in _REFUSALS), answer
        kind = "order" if answer.kind == ReceiptKind.ORDER else "reading"
        exact = kind == "order" or answer.result == ReceiptResult.REJECTED
        for key in list(self._waiting):
            meter, what, number = key
            covered = number == answer.up_to if exact else number <= answer.up_to
            if (meter, what) == (answer.meter, kind) and covered:
                if answer.result != ReceiptResult.REJECTED:
                    self.receipted.add(key)
                del self._waiting[key]

    def _send(self, message: Order | Reading) -> None:
        faults = self._faults
        if self._clock.now() < self._silent_until[message.meter] and not faults.calm:
            return
        copies = int(not faults.happens(faults.lost)) + int(faults.happens(faults.repeated))
        for _ in range(copies):
            late = faults.happens(faults.delayed)
            delay_s = faults.random.uniform(0.0, DELAY_S_MAX) if late else 0.0
            asyncio.get_running_loop().call_later(delay_s, self._arrives, message)

    def _arrives(self, message: Order | Reading) -> None:
        if self.reached is not None and not self.broker.is_away:
            self.reached(message)
