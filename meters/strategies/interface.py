"""What a strategy is told and what it answers. Energies Wh, prices µEUR/kWh.

A strategy is a function from a :class:`Situation` to an :class:`Offer`. What it wants to know next time it
puts into ``Offer.memory``; it finds it in ``Situation.memory`` again, also after a restart. It draws no
randomness but from ``seed``, ``household`` and ``interval_start``, so that a day can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from grid.feeder import Floats
from market.messages.models import Side, Tariff
from meters.household.devices import Battery, Ev, HeatPump, Pv

Device = Literal["pv", "battery", "ev", "heat_pump"]

Memory = dict[str, Any]
"""A JSON object: numbers, strings, lists, objects with string keys."""


@dataclass(frozen=True)
class BatteryNow:
    """``stored_wh`` is what will be in it when the interval starts, if awards so far are followed."""

    battery: Battery
    stored_wh: float


@dataclass(frozen=True)
class EvNow:
    """``remaining_wh`` is what it will still need when the interval starts; ``intervals_left`` ≥ 1 counts
    this one and those after it before the departure."""

    ev: Ev
    remaining_wh: float
    intervals_left: int


@dataclass(frozen=True)
class HeatPumpNow:
    """``stored_wh`` is the heat in its store when the interval starts, if awards so far are followed;
    ``demand_wh`` the heat that the house is expected to take from it, ``cop`` heat per electricity then."""

    pump: HeatPump
    stored_wh: float
    demand_wh: float
    cop: float


@dataclass(frozen=True)
class OfferedStep:
    """A step of the order, and the device that will follow its award."""

    device: Device
    side: Side
    energy_wh: int
    limit_price: int


@dataclass(frozen=True)
class Plan:
    """What was ordered for an interval, the energy awarded to each step and the price of its steps, which
    for bids includes the local fee (None: no award known)."""

    steps: tuple[OfferedStep, ...]
    firm_import_wh: int
    awarded_wh: tuple[int, ...] | None = None
    price: int | None = None

    def offered(self, device: Device) -> int:
        return sum(step.energy_wh for step in self.steps if step.device == device)

    def awarded(self, device: Device, side: Side) -> int:
        if self.awarded_wh is None:
            return 0
        both = zip(self.steps, self.awarded_wh, strict=True)
        return sum(wh for step, wh in both if step.device == device and step.side == side)

    def bus_price(self, local_fee: int) -> int | None:
        """The price at the bus, which a seller gets and a buyer pays the local fee on."""
        if self.awarded_wh is None or self.price is None:
            return None
        both = zip(self.steps, self.awarded_wh, strict=True)
        filled = {step.side for step, wh in both if wh > 0}
        sides = filled or {step.side for step in self.steps}
        return self.price if sides == {Side.ASK} else self.price - local_fee


@dataclass(frozen=True)
class Outlook:
    """Forecasts for equal steps from the interval's start on; each array has one value a step.

    ``load_wh``, ``pv_wh`` and ``heat_wh`` (heat, not electricity) are of a whole step, ``cop`` and
    ``sun_height`` (the sine of the sun's elevation, 0 at night) of its middle.
    """

    load_wh: Floats
    pv_wh: Floats
    heat_wh: Floats
    cop: Floats
    sun_height: Floats


def _no_outlook(_steps: int, _seconds: int) -> Outlook | None:
    return None


@dataclass(frozen=True)
class Situation:
    """What a household knows when the gate of an interval of ``hours`` is open.

    ``load_wh``, ``load_q_var`` and ``pv_wh`` are forecasts for the interval, as likely too high as too low;
    ``pv_low`` tells with what (smaller) chance the sun gives less than how many Wh, rising.
    ``outlook(steps, seconds)`` looks further, where there is a past to look from. ``last`` is the plan of the
    interval before it.
    """

    hours: float
    tariff: Tariff
    load_wh: float
    load_q_var: float
    pv: Pv | None
    pv_wh: float
    battery: BatteryNow | None
    ev: EvNow | None
    heat_pump: HeatPumpNow | None = None
    pv_low: tuple[tuple[float, float], ...] = ()
    household: str = ""
    seed: int = 0
    interval_start: int = 0
    last: Plan | None = None
    memory: Memory = field(default_factory=dict)
    outlook: Callable[[int, int], Outlook | None] = field(default=_no_outlook, compare=False, repr=False)


@dataclass(frozen=True)
class Offer:
    """``firm_q_var`` is an injection: a load that consumes var has it negative."""

    firm_import_wh: int
    firm_q_var: int
    steps: tuple[OfferedStep, ...]
    memory: Memory = field(default_factory=dict)


Strategy = Callable[[Situation], Offer]
