"""A meter in real time: it reads its registers when an interval ends by its own clock, which NTP keeps.

The gates are information: from when and until when orders are taken, and at what tariff. Here stands what is
pure about it; :mod:`meters.running` waits and does the I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from market.messages.models import Gate
from market.messages.signing import Signer
from meters.agent import Agent, MarketPlace, Patience
from meters.household.forecast import HISTORY_DAYS
from meters.mqtt import Message
from meters.outbox import HistoryRow, Writes
from meters.own_history import DAY_S, OwnHistory
from meters.source import TOLERANCE_S, RegisterReading, Setpoint, SourceError, between
from meters.trader import Ordered, Trader

CAUGHT_UP_MAX = 7 * 96
"""How many boundaries that nobody read are filled in after an absence."""
_SILENT_INTERVALS = 2
_ASK_S = 30.0


class WallClockAgent(Agent):
    """The agent of a real meter, or of a household that lives in real time. ``now`` is Unix s."""

    def __init__(
        self,
        name: str,
        trader: Trader,
        signer: Signer,
        place: MarketPlace,
        patience: Patience,
        now: Callable[[], float],
        *,
        fuse_w: int,
    ) -> None:
        super().__init__(name, trader, signer, place, patience, fuse_w=fuse_w)
        self._now = now
        self._ask_s = 0.0
        self._asked_of = 0

    def clock(self) -> int:
        return int(self._now())

    @property
    def interval_s(self) -> int:
        return self._place.interval_s

    @property
    def interval_start(self) -> int:
        """Start of the interval that runs now."""
        return self.clock() // self.interval_s * self.interval_s

    def until_boundary_s(self) -> float:
        return self.interval_s - self._now() % self.interval_s

    def ordered(self, start: int) -> Ordered | None:
        """What was ordered for the interval from ``start`` on."""
        return self._orders.get(start)

    def due_boundaries(self) -> Sequence[int]:
        """The interval boundaries that have passed and are not read, oldest first."""
        return due_boundaries(self.last, self.clock(), self.interval_s)

    def setpoint(self) -> Setpoint | None:
        """What the device is to follow now; None where it is its own master."""
        return setpoint(self._orders, self.interval_start, self.interval_s)

    def record(self, reading: RegisterReading, writes: Writes) -> None:
        seen = energies(self.last, reading, self._place.interval_s)
        super().record(reading, writes)
        if seen is not None and isinstance(self._trader, OwnHistory):
            start, import_wh, export_wh = seen
            kept = self._trader.observe(start, import_wh, export_wh, self.ordered(start))
            writes.history.append(HistoryRow(self.meter, start, *kept))
            writes.forgotten.append((self.meter, start - HISTORY_DAYS * DAY_S))
        self._forget_orders(reading.taken_at - _SILENT_INTERVALS * self._place.interval_s, writes)

    def questions(self, now_s: float) -> Iterator[Message]:
        """Asks for an award that is not there some time after its gate closed, until its interval ends."""
        missing = any(
            ordered.awarded_wh is None and not ordered.refused and self._closed >= start
            for start, ordered in self._orders.items()
            if start >= self.interval_start
        )
        if not missing or self._asked_of != self._closed:
            self._asked_of, self._ask_s = self._closed, now_s + _ASK_S
        elif now_s >= self._ask_s:
            self._ask_s = now_s + _ASK_S
            yield self._question()

    def _prepare(self, gate: Gate, writes: Writes, *, patient: bool) -> bool:
        """A forecast is better with the registers of the boundary that the gate opens at."""
        return not patient or (
            self.last is not None and self.last.taken_at >= self.interval_start - TOLERANCE_S
        )


def due_boundaries(last: RegisterReading | None, now: int, interval_s: int) -> Sequence[int]:
    """The boundaries up to ``now`` that come after the reading ``last``, oldest first.

    Without one it is the boundary that passed last. So it is where ``last`` lies in the future: the clock was
    wrong then, and is believed now.
    """
    newest = now // interval_s * interval_s
    if last is None or last.taken_at > now + interval_s:
        return (newest,)
    following = ((last.taken_at + TOLERANCE_S) // interval_s + 1) * interval_s
    return range(max(following, newest - (CAUGHT_UP_MAX - 1) * interval_s), newest + 1, interval_s)


def readings_to_record(
    last: RegisterReading | None, read: RegisterReading, due: Sequence[int], interval_s: int
) -> list[RegisterReading]:
    """What ``read``, which was asked for the first boundary of ``due``, tells of these boundaries.

    Where it was taken later, the boundaries between are filled in: exact in total, estimated in their split.
    Raises :class:`SourceError` where it is too old to tell anything, of the future, or runs backwards.
    """
    if read.taken_at < due[0] - TOLERANCE_S:
        raise SourceError(f"its registers are {due[0] - read.taken_at} s older than the boundary")
    if read.taken_at > due[-1] + interval_s + TOLERANCE_S:
        raise SourceError(f"its registers are of the future: {read.taken_at} at about {due[-1]}")
    if last is None or last.taken_at > read.taken_at or last.epoch != read.epoch:
        return [read]
    for name in ("import_wh", "export_wh"):
        before, after = getattr(last, name), getattr(read, name)
        if after < before:
            raise SourceError(f"{name} fell from {before} to {after} Wh within an epoch")
    missed = [at for at in due if at < read.taken_at - TOLERANCE_S]
    return [*(between(last, read, at) for at in missed), read]


def energies(
    last: RegisterReading | None, read: RegisterReading, interval_s: int
) -> tuple[int, int, int] | None:
    """(start, import Wh, export Wh) of the interval between two readings, if there is exactly one."""
    if last is None or last.epoch != read.epoch:
        return None
    end = (read.taken_at + TOLERANCE_S) // interval_s * interval_s
    start = (last.taken_at + TOLERANCE_S) // interval_s * interval_s
    if end - start != interval_s or max(read.taken_at - end, last.taken_at - start) > TOLERANCE_S:
        return None
    return start, read.import_wh - last.import_wh, read.export_wh - last.export_wh


def setpoint(orders: dict[int, Ordered], interval_start: int, interval_s: int) -> Setpoint | None:
    """The award of the interval from ``interval_start`` on, or the one before it while the market is silent
    for less than two intervals.
    """
    for start in range(interval_start, interval_start - _SILENT_INTERVALS * interval_s, -interval_s):
        ordered = orders.get(start)
        if ordered is not None and ordered.awarded_wh is not None and ordered.setpoint_w is not None:
            steps = ordered.proposal.steps
            signs = [1 if step.side else -1 for step in steps]
            offered_wh = sum(sign * step.energy_wh for sign, step in zip(signs, steps, strict=True))
            awarded_wh = sum(sign * wh for sign, wh in zip(signs, ordered.awarded_wh, strict=True))
            return Setpoint(
                start=start,
                end=start + interval_s,
                net_w=ordered.setpoint_w,
                flexible_w=awarded_wh * 3600 // interval_s,
                offered_w=offered_wh * 3600 // interval_s,
            )
    return None
