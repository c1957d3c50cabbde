"""The market's clock. It is passed in everywhere; nothing else asks the machine for the time of day."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> int:
        """Unix seconds on the market's clock."""


class SimulatedClock:
    """Time that moves only when the market moves it, and never back."""

    def __init__(self, now: int) -> None:
        self._now = now

    def now(self) -> int:
        return self._now

    def advance_to(self, moment: int) -> None:
        """Moves to ``moment``, unless it has passed."""
        self._now = max(self._now, moment)


class WallClock:
    """The machine's time, for a market that trades real energy."""

    def now(self) -> int:
        return int(time.time())
