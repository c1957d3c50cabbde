"""The market's clock. It is passed in everywhere; nothing else asks the machine for the time of day."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

STEP_S = 5.0
"""The machine's clock is followed up to this far; what is more is a step, not a drift."""


def utc(moment: int) -> str:
    """Unix seconds for people."""
    form = "%Y-%m-%dT%H:%M:%SZ" if moment % 60 else "%Y-%m-%dT%H:%MZ"
    return datetime.fromtimestamp(moment, UTC).strftime(form)


class Clock(Protocol):
    def now(self) -> int:
        """Unix seconds on the market's clock."""

    def exactly(self) -> float:
        """The same with parts of a second."""


class SimulatedClock:
    """Time that moves only when the market moves it, and never back."""

    def __init__(self, now: int) -> None:
        self._now = now

    def now(self) -> int:
        return self._now

    def exactly(self) -> float:
        return float(self._now)

    def advance_to(self, moment: int) -> None:
        """Moves to ``moment``, unless it has passed."""
        self._now = max(self._now, moment)


class WallClock:
    """The machine's time, for a market that trades real energy; it never goes back.

    It runs on the machine's monotonic clock and follows the time of day as that drifts. Where the time of day
    is stepped, the market's goes on as it was: :meth:`follow` tells by how much they differ. With ``speed``
    N, market time runs N times as fast, from the same moment on for everybody: at ``speed_from``, in Unix
    seconds, market and machine agree.
    """

    def __init__(
        self,
        speed: float = 1.0,
        speed_from: int = 0,
        *,
        time_of_day: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.speed = speed
        self._from = speed_from
        self._time_of_day = time_of_day
        self._monotonic = monotonic
        self._offset_s = time_of_day() - monotonic()
        self._latest = 0.0

    def now(self) -> int:
        return int(self.exactly())

    def exactly(self) -> float:
        """Unix seconds and parts of one."""
        machine_s = self._monotonic() + self._offset_s
        self._latest = max(self._latest, self._from + (machine_s - self._from) * self.speed)
        return self._latest

    def wait_s(self, moment: float) -> float:
        """Real seconds until ``moment`` on this clock, 0 when it has passed."""
        return max(0.0, (moment - self.exactly()) / self.speed)

    def follow(self) -> float:
        """Follows the time of day, unless it was stepped; by how many seconds the machine is ahead then."""
        apart_s = self._time_of_day() - self._monotonic() - self._offset_s
        if abs(apart_s) > STEP_S:
            return apart_s
        self._offset_s += apart_s
        return 0.0
