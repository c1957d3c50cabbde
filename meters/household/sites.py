"""Which household sits where, and what it owns.

One household for each in-service load of the feeder, named by it (``load:7``); a load that is a heat pump
in the feeder's data is a household of its own, as such pumps have meters of their own. The generators and
storages of a bus belong to the households of that bus, shared in proportion to their loads' energy over
the year (equally where that is zero); those of a bus without loads belong to none. What the scenario
adds (vehicles, batteries, heat pumps, roofs, prices, strategies) is drawn from the seed by sha256, the same
on every machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from grid.catalogue import Profiles
from grid.feeder import Floats
from meters.household.devices import Battery, Ev, HeatPump, Pv, Stay
from meters.household.settings import HouseholdSettings
from meters.household.weather import (
    YEAR_MEAN_C,
    YEAR_MIDDLES,
    YEAR_START,
    coefficient_of_performance,
    outdoor_c,
)

STEP_S = 900
DAY_S = 86_400

_NORMAL_CUT = 4.0
_FUSE_W_MIN = 43_500  # 3 × 63 A
_FUSE_STEP_W = 500

# SimBench's heat pumps: outdoor air or soil as their source.
_HEAT_PUMP_PROFILES = ("Air_", "Soil_")
_GROUND_PROFILES = "Soil_"

# A store's loss at its middle, as part of what it holds between the comfort band's edges, per hour.
_STORE_LOSS_PER_HOUR = 0.01
# What a house needs on the coldest usual night (°C), and above which it needs no heating but warm water.
_DESIGN_C, _HEATING_LIMIT_C = -12.0, 15.0
_WARM_WATER_W = 200.0
_YEAR_STEPS = 35_136


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
    heat_pump: HeatPump | None = None
    heat_w: Series = Series(())
    """What the house takes from the heat pump's store, thermal W."""
    strategy: str = "truthful"
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

    def cop(self, start: int, seconds: int) -> float:
        """Heat per electricity in the middle of an interval; 1 without a heat pump."""
        return float(self.heat_pump.cop(start + seconds // 2)) if self.heat_pump else 1.0

    @property
    def kind(self) -> str:
        """What it owns: ``PV + battery``, say; empty where it owns no device that could be offered."""
        owned = (("PV", self.pv), ("battery", self.battery), ("EV", self.ev), ("heat pump", self.heat_pump))
        return " + ".join(name for name, device in owned if device is not None)

    @cached_property
    def fuse_w(self) -> int:
        """Of its connection: it carries everything that draws at once, or all its sun."""
        peak_w = (
            self.load_w.peak()
            + (self.ev.power_w if self.ev else 0)
            + (self.battery.power_w if self.battery else 0)
            + (self.heat_pump.power_w if self.heat_pump else 0)
        )
        most_w = int(max(peak_w, self.pv.rated_w if self.pv else 0))
        return max(_FUSE_W_MIN, -(-most_w // _FUSE_STEP_W) * _FUSE_STEP_W)

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
        own_w = Series(((load_p_w[:, column], settings.load_scale),))
        own_q_var = Series(((load_q_var[:, column], settings.load_scale),))
        parts = [
            (sgen_p_w[:, sgen], share * settings.pv_scale)
            for sgen in range(len(profiles.sgen_index))
            if profiles.sgen_bus[sgen] == bus and share * settings.pv_scale > 0
        ]
        profile = str(profiles.load_profile[column])
        heat_pump, heat_w = _drawn_heat_pump(settings, seed, name)
        if only_heat := profile.startswith(_HEAT_PUMP_PROFILES):
            heat_pump, heat_w = _profiled_heat_pump(profile, own_w, settings)
            own_w = own_q_var = Series(())
        else:
            parts += _roof(profiles, settings, seed, name)
        modules_w = Series(tuple(parts))
        household = Household(
            name=name,
            index=int(index),
            bus=int(bus),
            seed=seed,
            settings=settings,
            load_w=own_w,
            load_q_var=own_q_var,
            modules_w=modules_w,
            pv=_pv(modules_w, settings, seed, name),
            battery=_battery(profiles, int(bus), share, settings, seed, name),
            ev=None if only_heat else _ev(settings, seed, name),
            heat_pump=heat_pump,
            heat_w=heat_w,
        )
        made.append(replace(household, strategy=_strategy(household)))
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


def _profiled_heat_pump(
    profile: str, electric_w: Series, settings: HouseholdSettings
) -> tuple[HeatPump, Series]:
    """The pump behind a load of SimBench, and its house's demand for heat.

    The profile tells when a thermostat ran the pump; each day's mean is what its house needed.
    """
    pump = _heat_pump(max(electric_w.peak(), 1.0), settings, ground=profile.startswith(_GROUND_PROFILES))
    days_w = electric_w.past(YEAR_START + _YEAR_STEPS * STEP_S, _YEAR_STEPS * STEP_S // DAY_S, DAY_S)
    heat_w: Floats = np.repeat(days_w, DAY_S // STEP_S) * pump.cop(YEAR_MIDDLES)
    return pump, Series(((heat_w, 1.0),))


def _drawn_heat_pump(settings: HouseholdSettings, seed: int, name: str) -> tuple[HeatPump | None, Series]:
    """One for a house that loses heat in proportion to the cold, sized for the coldest usual night."""
    if drawn(seed, name, "heat pump") >= settings.heat_pump_share:
        return None, Series(())
    loss_w_per_k = _between(
        settings.heat_loss_min_w_per_k, settings.heat_loss_max_w_per_k, drawn(seed, name, "heat loss")
    )
    heat_w = loss_w_per_k * np.maximum(_HEATING_LIMIT_C - outdoor_c(YEAR_MIDDLES), 0.0) + _WARM_WATER_W
    design_w = loss_w_per_k * (_HEATING_LIMIT_C - _DESIGN_C) + _WARM_WATER_W
    coldest = float(coefficient_of_performance(np.array(_DESIGN_C), HeatPump.high_c, ground=False))
    return _heat_pump(design_w / coldest, settings, ground=False), Series(((heat_w, 1.0),))


def _heat_pump(power_w: float, settings: HouseholdSettings, *, ground: bool) -> HeatPump:
    """The store holds what the pump makes at the mean outdoor temperature in the settings' hours."""
    mean_cop = float(coefficient_of_performance(np.array(YEAR_MEAN_C), HeatPump.high_c, ground=ground))
    capacity_wh = settings.heat_store_hours * power_w * mean_cop
    middle_k = (HeatPump.low_c + HeatPump.high_c) / 2 - HeatPump.room_c
    return HeatPump(
        power_w=power_w,
        capacity_wh=capacity_wh,
        loss_w_per_k=_STORE_LOSS_PER_HOUR * capacity_wh / middle_k,
        ground=ground,
    )


def _roof(
    profiles: Profiles, settings: HouseholdSettings, seed: int, name: str
) -> list[tuple[Floats, float]]:
    """A roof of the household's own beyond the feeder's generators, where one is drawn."""
    if drawn(seed, name, "roof") >= settings.pv_share:
        return []
    from meters.household.roof import Roof, clearness, roof_w

    roof = Roof(
        tilt_deg=round(_between(20, 50, drawn(seed, name, "tilt")), -1),
        azimuth_deg=round(_between(90, 270, drawn(seed, name, "azimuth")) / 15) * 15.0,
    )
    peak_w = _between(settings.pv_peak_min_w, settings.pv_peak_max_w, drawn(seed, name, "peak"))
    sky = clearness(profiles)
    return [(roof_w(roof, settings.latitude, settings.longitude, sky), peak_w / 1000)]


def _strategy(household: Household) -> str:
    """The household's strategy: a share's, where it is drawn and owns what can be offered."""
    settings = household.settings
    if household.kind:
        draw = drawn(household.seed, household.name, "strategy")
        for name, share in sorted(settings.strategies.items()):
            if draw < share:
                return name
            draw -= share
    return settings.strategy
