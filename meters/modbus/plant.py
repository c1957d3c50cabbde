"""What an emulated meter measures: a household, or a device that obeys. Powers in W, > 0 into the grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from meters.source import Source

_BATTERY_FIRST_PERCENT = 50.0


@dataclass(frozen=True)
class Measured:
    """Registers and power of a moment; ``charge_percent`` of a battery."""

    import_wh: float
    export_wh: float
    power_w: float
    charge_percent: float | None = None


class Plant(Protocol):
    async def at(self, now: float) -> Measured:
        """What the meter says at ``now`` (Unix s, never falling)."""

    def obey(self, power_w: float | None, now: float, reverts_s: float) -> None:
        """Hold ``power_w`` (a generator: at most) for ``reverts_s``, 0 for ever; None: be free."""


class HouseholdPlant:
    """A simulated household (or any other source); it obeys nobody."""

    def __init__(self, household: Source) -> None:
        self._household = household

    async def at(self, now: float) -> Measured:
        reading = await self._household.read(int(now))
        return Measured(reading.import_wh, reading.export_wh, reading.power_w)

    def obey(self, power_w: float | None, now: float, reverts_s: float) -> None:
        """Nothing in it listens to the meter."""


class DevicePlant:
    """A generator that could give ``free_w(now)``, or a battery of ``capacity_wh``, told what to do or not.

    ``free_w`` is also what a battery does on its own. Power is taken as constant since the last look.
    """

    def __init__(
        self,
        free_w: Callable[[float], float],
        now: float,
        *,
        capacity_wh: float | None = None,
        import_wh: float = 0.0,
        export_wh: float = 0.0,
    ) -> None:
        self._free_w = free_w
        self._time = now
        self._capacity_wh = capacity_wh
        self._stored_wh = (capacity_wh or 0.0) * _BATTERY_FIRST_PERCENT / 100
        self._import_wh, self._export_wh = import_wh, export_wh
        self._told_w: float | None = None
        self._told_until: float | None = None

    async def at(self, now: float) -> Measured:
        self._live_until(now)
        charge = None if self._capacity_wh is None else 100 * self._stored_wh / self._capacity_wh
        return Measured(self._import_wh, self._export_wh, self._power_w(), charge)

    def obey(self, power_w: float | None, now: float, reverts_s: float) -> None:
        self._live_until(now)
        self._told_w = power_w
        self._told_until = now + reverts_s if reverts_s and power_w is not None else None

    def _power_w(self) -> float:
        free_w = self._free_w(self._time)
        if self._told_w is None:
            return free_w
        return self._told_w if self._capacity_wh is not None else min(free_w, self._told_w)

    def _live_until(self, now: float) -> None:
        until = self._told_until
        if until is not None and self._time < until <= now:
            self._run(until)
            self._told_w = self._told_until = None
        self._run(now)

    def _run(self, until: float) -> None:
        hours = max(0.0, until - self._time) / 3600
        energy_wh = self._power_w() * hours
        if self._capacity_wh is not None:
            energy_wh = min(max(energy_wh, self._stored_wh - self._capacity_wh), self._stored_wh)
            self._stored_wh -= energy_wh
        self._export_wh += max(0.0, energy_wh)
        self._import_wh += max(0.0, -energy_wh)
        self._time = max(self._time, until)
