"""Which household sits where, and what it owns.

One household for each in-service load of the feeder, named by it (``load:7``). The generators and
storages of a bus belong to the households of that bus, shared in proportion to their loads' energy over
the year (equally where that is zero); those of a bus without loads belong to none. What the scenario
adds (vehicles, batteries, prices) is drawn from the seed by sha256, the same on every machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from grid.catalogue import Profiles
from grid.feeder import Floats
from meters.household.devices import Battery, Ev, Pv, Stay
from meters.household.settings import HouseholdSettings

STEP_S = 900
DAY_S = 86_400
YEAR_START = 1_451_606_400
"""2016-01-01T00:00Z, the profiles' first step."""

_NORMAL_CUT = 4.0


@dataclass(frozen=True, eq=False)
class Series:
    """A sum of weighted profile columns, W or var; the year repeats."""

    parts: tuple[tuple[Floats, float], ...]

    def mean(self, start: int, seconds: int) -> float:
        """The mean over [start, start + seconds)."""
        first = (start - YEAR_START) // STEP_S
        steps = max(1, seconds // STEP_S)
        total = 0.0
        for column, weight in self.parts:
            for step in range(first, first + steps):
                total += weight * float(column[step % len(column)])
        return total / steps

    def past(self, end: int, intervals: int, seconds: int) -> Floats:
        """The means of the ``intervals`` of ``seconds`` each before ``end``, the latest last."""
        steps = _steps(end, intervals, seconds)
        total: Floats = np.zeros(steps.shape)
        for column, weight in self.parts:
            total += weight * column.take(steps, mode="wrap")
        means: Floats = total.mean(axis=1)
        return means

    def peak(self) -> float:
        """The year's largest value; 0 without parts."""
        if not self.parts:
            return 0.0
        return float(sum(column * weight for column, weight in self.parts).max())  # type: ignore[union-attr]


@lru_cache(maxsize=4)
def _steps(end: int, intervals: int, seconds: int) -> NDArray[np.int64]:
    """The profile steps of each interval; all households of a fleet ask for the same at one time."""
    starts = end - seconds * np.arange(intervals, 0, -1)
    return (starts[:, None] - YEAR_START) // STEP_S + np.arange(max(1, seconds // STEP_S))


def drawn(seed: int, *what: object) -> float:
    """A number in (0, 1) that belongs to ``seed`` and ``what``."""
    digest = hashlib.sha256(" ".join(map(str, (seed, *what))).encode()).digest()
    return (int.from_bytes(digest[:8], "big") + 0.5) / 2**64


def _between(low: float, high: float, fraction: float) -> float:
    return low + (high - low) * fraction


def _normal(mean: float, spread: float, fraction: float) -> float:
    deviation = NormalDist().inv_cdf(fraction)
    return mean + spread * min(max(deviation, -_NORMAL_CUT), _NORMAL_CUT)


def _rounded(price: float) -> int:
    return round(price / 1000) * 1000


@dataclass(frozen=True, eq=False)
class Household:
    """A connection point with what stands behind it; series are its profiles, scaled."""

    name: str
    index: int
    bus: int
    seed: int
    settings: HouseholdSettings
    load_w: Series
    load_q_var: Series
    modules_w: Series
    pv: Pv | None
    battery: Battery | None
    ev: Ev | None
    _stays: dict[int, Stay] = field(default_factory=dict, repr=False)

    def stay(self, day: int) -> Stay:
        """The vehicle's stay from the evening of ``day`` (days since 1970) to the next morning."""
        if day not in self._stays:
            settings = self.settings

            def draw(what: str) -> float:
                return drawn(self.seed, self.name, what, day)

            arrival_hour = _normal(settings.ev_arrival_hour, settings.ev_arrival_spread, draw("arrival"))
            departure_hour = _normal(
                settings.ev_departure_hour, settings.ev_departure_spread, draw("departure")
            )
            need_wh = _between(settings.ev_energy_min_wh, settings.ev_energy_max_wh, draw("need"))
            self._stays[day] = Stay(
                arrival=day * DAY_S + int(arrival_hour * 3600),
                departure=(day + 1) * DAY_S + int(departure_hour * 3600),
                need_wh=need_wh,
            )
        return self._stays[day]

    def stay_at(self, time: int) -> Stay | None:
        """The stay during which ``time`` falls, if the household has a vehicle and it is at home."""
        if self.ev is None:
            return None
        for day in (time // DAY_S - 1, time // DAY_S):
            stay = self.stay(day)
            if stay.arrival <= time < stay.departure:
                return stay
        return None

    @cached_property
    def first_registers_wh(self) -> tuple[int, int]:
        """What the import and export registers show when the story begins: meters are not new."""
        return (
            int(_between(1e6, 2e7, drawn(self.seed, self.name, "import register"))),
            int(_between(0, 1e7, drawn(self.seed, self.name, "export register"))) if self.pv else 0,
        )


def households(profiles: Profiles, settings: HouseholdSettings, seed: int) -> tuple[Household, ...]:
    """All households of a feeder, in the order of their loads."""
    energy = profiles.load_p_w.sum(axis=0)
    # A household's past is read along its own column.
    load_p_w, load_q_var = np.asfortranarray(profiles.load_p_w), np.asfortranarray(profiles.load_q_var)
    sgen_p_w = np.asfortranarray(profiles.sgen_p_w)
    made = []
    for column, (index, bus) in enumerate(zip(profiles.load_index, profiles.load_bus, strict=True)):
        name = f"load:{index}"
        neighbours = profiles.load_bus == bus
        bus_energy = float(energy[neighbours].sum())
        share = float(energy[column]) / bus_energy if bus_energy > 0 else 1 / int(neighbours.sum())
        modules_w = Series(
            tuple(
                (sgen_p_w[:, sgen], share * settings.pv_scale)
                for sgen in range(len(profiles.sgen_index))
                if profiles.sgen_bus[sgen] == bus and share * settings.pv_scale > 0
            )
        )
        made.append(
            Household(
                name=name,
                index=int(index),
                bus=int(bus),
                seed=seed,
                settings=settings,
                load_w=Series(((load_p_w[:, column], settings.load_scale),)),
                load_q_var=Series(((load_q_var[:, column], settings.load_scale),)),
                modules_w=modules_w,
                pv=_pv(modules_w, settings, seed, name),
                battery=_battery(profiles, int(bus), share, settings, seed, name),
                ev=_ev(settings, seed, name),
            )
        )
    return tuple(made)


def _pv(modules_w: Series, settings: HouseholdSettings, seed: int, name: str) -> Pv | None:
    peak_w = modules_w.peak()
    if peak_w <= 0:
        return None
    price = _between(settings.pv_price_min, settings.pv_price_max, drawn(seed, name, "pv price"))
    return Pv(rated_w=peak_w * settings.pv_inverter_ratio, price=_rounded(price))


def _battery(
    profiles: Profiles, bus: int, share: float, settings: HouseholdSettings, seed: int, name: str
) -> Battery | None:
    """The household's part of its bus's storages and, where drawn, one of the scenario's own."""
    here = profiles.storage_bus == bus
    capacity_wh = share * float(profiles.storage_capacity_wh[here].sum())
    power_w = share * float(profiles.storage_power_w[here].sum())
    if drawn(seed, name, "battery") < settings.battery_share:
        capacity_wh += settings.battery_capacity_wh
        power_w += settings.battery_power_w
    if capacity_wh <= 0 or power_w <= 0:
        return None
    return Battery(capacity_wh, power_w, settings.battery_efficiency)


def _ev(settings: HouseholdSettings, seed: int, name: str) -> Ev | None:
    if drawn(seed, name, "ev") >= settings.ev_share:
        return None
    price = _between(settings.ev_price_min, settings.ev_price_max, drawn(seed, name, "ev price"))
    return Ev(power_w=settings.ev_power_w, price=_rounded(price))
