"""What a strategy is told and what it answers. Energies Wh, prices µEUR/kWh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from market.messages.models import Side, Tariff
from meters.household.devices import Battery, Ev, Pv

Device = Literal["pv", "battery", "ev"]


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
class Situation:
    """What a household knows when the gate of an interval of ``hours`` is open.

    ``load_wh``, ``load_q_var`` and ``pv_wh`` are forecasts for the interval.
    """

    hours: float
    tariff: Tariff
    load_wh: float
    load_q_var: float
    pv: Pv | None
    pv_wh: float
    battery: BatteryNow | None
    ev: EvNow | None


@dataclass(frozen=True)
class OfferedStep:
    """A step of the order, and the device that will follow its award."""

    device: Device
    side: Side
    energy_wh: int
    limit_price: int


@dataclass(frozen=True)
class Offer:
    """``firm_q_var`` is an injection: a load that consumes var has it negative."""

    firm_import_wh: int
    firm_q_var: int
    steps: tuple[OfferedStep, ...]


Strategy = Callable[[Situation], Offer]
