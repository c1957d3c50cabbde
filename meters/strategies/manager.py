"""A home energy manager: it plans a day ahead, and offers by what the plan says that energy is worth.

Every hour it solves :mod:`meters.strategies.home_plan` for the next 24 hours. What it trades between, it does
not take from the plan's quantities, which hold for one guess of the prices, but from its duals: a battery
asks above what its energy is worth and bids below; a vehicle bids what the same kWh would cost in the dearest
hour that the plan still needs. Its own sun goes into its own devices, without the local fee, where that is
worth more than the price that it expects.

Prices are expected as they were heard at that hour before, and until then to fall from the import tariff to
the export tariff as the sun rises; how far the last one was off fades with the hours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from grid.feeder import Floats
from market.messages.models import Side
from meters.household.sites import drawn
from meters.strategies.home_plan import STEPS, Home, plan_home
from meters.strategies.interface import EvNow, Memory, Offer, OfferedStep, Outlook, Situation
from meters.strategies.steps import add_step
from meters.strategies.truthful import WEAR, least_heat_wh, offer_sun, truthful

_STEP_S = 3600
_HEARD_WEIGHT = 0.5
_HIGH_SUN = 0.5
"""The sine of 30°: with the sun that high, solar power is expected to set the price."""

_OFF_HALF_LIFE_HOURS = 2.0
_FIRST_ERROR, _ERROR_MIN, _ERROR_WEIGHT = 30_000.0, 5_000.0, 0.1
_SPARE_INTERVALS = 2
_CHARGER_PART = 0.8
"""Of the charger's power, as far as the plan trusts it: other cars may want the lines at the same time."""


@dataclass(frozen=True)
class Values:
    """What a kWh is worth in each device now, µEUR/kWh; ``heat`` of electricity into the heat pump."""

    battery: float
    ev: float
    heat: float


def manager(situation: Situation) -> Offer:
    """The plan's values as an offer; the truthful one where there is nothing to plan with, or no outlook."""
    memory = _listen(situation)
    if not (situation.battery or situation.ev or situation.heat_pump):
        return replace(truthful(situation), memory=memory | {"plan": None, "usual": None})
    values, memory = _values(situation, memory)
    if values is None:
        return replace(truthful(situation), memory=memory)
    tariff, hours = situation.tariff, situation.hours
    price = memory["expected"]
    error = max(memory["error"], _ERROR_MIN)
    steps: list[OfferedStep] = []

    load_wh = situation.load_wh + least_heat_wh(situation)
    own_wh = min(load_wh, situation.pv_wh)
    surplus_wh, lacking_wh = situation.pv_wh - own_wh, load_wh - own_wh

    if situation.ev is not None:
        kept_wh = _offer_ev(steps, situation, values.ev, error, surplus_wh if values.ev > price else 0.0)
        surplus_wh -= kept_wh
    if situation.battery is not None:
        battery, stored_wh = situation.battery.battery, situation.battery.stored_wh
        way = battery.one_way
        bid, ask = values.battery * way - WEAR / 2, values.battery / way + WEAR / 2
        charge_wh = battery.charge_room_wh(stored_wh, hours)
        discharge_wh = battery.discharge_room_wh(stored_wh, hours)
        kept_wh = min(surplus_wh, charge_wh) if bid > price else 0.0
        given_wh = min(lacking_wh, discharge_wh) if ask < price + tariff.local_fee else 0.0
        surplus_wh, lacking_wh = surplus_wh - kept_wh, lacking_wh - given_wh
        for part in (0.0, 1.0):
            add_step(steps, tariff, "battery", Side.BID, (charge_wh - kept_wh) / 2, bid - part * error)
            add_step(steps, tariff, "battery", Side.ASK, (discharge_wh - given_wh) / 2, ask + part * error)
    if situation.heat_pump is not None:
        now = situation.heat_pump
        most_wh = now.pump.most_wh(now.stored_wh, now.demand_wh, now.cop, hours) - least_heat_wh(situation)
        for part in (0.0, 1.0):
            add_step(steps, tariff, "heat_pump", Side.BID, most_wh / 2, values.heat - part * error)
    if situation.pv is not None:
        offer_sun(steps, situation, surplus_wh)
    return Offer(
        firm_import_wh=round(lacking_wh),
        firm_q_var=-round(situation.load_q_var),
        steps=tuple(steps),
        memory=memory,
    )


def _offer_ev(
    steps: list[OfferedStep], situation: Situation, value: float, error: float, surplus_wh: float
) -> float:
    """Bids for the vehicle; what it takes of ``surplus_wh`` besides.

    What cannot wait bids the cap. Half of the rest bids what the plan says, the other half more, and the
    more the less time is left: the plan does not know who else waits for the same hour.
    """
    now, tariff, hours = situation.ev, situation.tariff, situation.hours
    assert now is not None
    room_wh = now.ev.charge_room_wh(now.remaining_wh, hours)
    left = _intervals_left(now)
    later_wh = (left - 1) * now.ev.power_w * hours
    must_wh = min(room_wh, max(0.0, now.remaining_wh - later_wh))
    kept_wh = min(surplus_wh, room_wh - must_wh)
    urgency = min(1.0, now.remaining_wh / (left * now.ev.power_w * hours))
    eager = value + error + max(0.0, tariff.cap - value) * urgency**3
    add_step(steps, tariff, "ev", Side.BID, must_wh, tariff.cap)
    add_step(steps, tariff, "ev", Side.BID, (room_wh - must_wh - kept_wh) / 2, eager)
    add_step(steps, tariff, "ev", Side.BID, (room_wh - must_wh - kept_wh) / 2, value)
    return kept_wh


def _intervals_left(now: EvNow) -> int:
    """As if the vehicle left a little earlier: what goes wrong in the last of them can still be made up."""
    return max(1, now.intervals_left - _SPARE_INTERVALS)


# Prices


def _listen(situation: Situation) -> Memory:
    """The memory with the last interval's price in it.

    ``prices`` is by hour, ``off`` how far the last price was from what was usual at its hour, ``error`` the
    mean distance from what was expected.
    """
    memory: Memory = {"prices": {}, "off": 0.0, "error": _FIRST_ERROR} | situation.memory
    heard = situation.last.bus_price(situation.tariff.local_fee) if situation.last else None
    usual = memory.get("usual")
    if heard is None or usual is None:
        return memory
    hour = _hour(situation.interval_start - round(situation.hours * 3600))
    known = memory["prices"].get(hour, heard)
    missed = abs(heard - memory["expected"])
    return memory | {
        "prices": memory["prices"] | {hour: known + _HEARD_WEIGHT * (heard - known)},
        "off": heard - usual,
        "error": memory["error"] + _ERROR_WEIGHT * (missed - memory["error"]),
    }


def _usual(situation: Situation, memory: Memory, sun_height: Floats) -> Floats:
    """The price at the bus in each hour from the interval's start on, as it was, or as the sun tells."""
    tariff = situation.tariff
    high, low = tariff.import_price - tariff.local_fee, tariff.export_price
    guess = high - (high - low) * np.minimum(sun_height / _HIGH_SUN, 1.0)
    hours = [_hour(situation.interval_start + step * _STEP_S) for step in range(len(guess))]
    known: Floats = np.array([memory["prices"].get(hour, guess[i]) for i, hour in enumerate(hours)], float)
    return known


def _hour(time: int) -> str:
    """The hour of the day; a string, as JSON wants it."""
    return str(time // 3600 % 24)


# The plan


def _values(situation: Situation, memory: Memory) -> tuple[Values | None, Memory]:
    """What energy is worth by the plan of this hour, which is made where there is none yet."""
    here = [situation.ev is not None]
    made = memory.get("plan")
    if made is None or situation.interval_start >= made["until"] or made["here"] != here:
        outlook = situation.outlook(STEPS, _STEP_S)
        if outlook is None:
            return None, memory
        usual = _usual(situation, memory, outlook.sun_height)
        off = memory["off"] * 0.5 ** (np.arange(STEPS) / _OFF_HALF_LIFE_HOURS)
        plan = plan_home(home_of(situation, outlook, usual + off))
        cop = float(outlook.cop[0])
        made = {
            "until": _next_plan(situation),
            "here": here,
            "usual": float(usual[0]),
            "values": [plan.battery_value, plan.ev_value, plan.heat_value * cop],
        }
    usual_now = memory["prices"].get(_hour(situation.interval_start), made["usual"])
    expected = usual_now + memory["off"]
    return Values(*made["values"]), memory | {"plan": made, "usual": usual_now, "expected": expected}


def _next_plan(situation: Situation) -> int:
    """When to plan again: each household at another quarter of the hour."""
    seconds = round(situation.hours * 3600)
    shift = int(drawn(situation.seed, situation.household, "plan") * _STEP_S) // seconds * seconds
    return (situation.interval_start - shift) // _STEP_S * _STEP_S + shift + _STEP_S


def home_of(situation: Situation, outlook: Outlook, price: Floats) -> Home:
    """The home as the plan sees it, at ``price`` [24] at its bus, µEUR/kWh."""
    tariff, step_hours = situation.tariff, _STEP_S / 3600
    battery, ev, heat = situation.battery, situation.ev, situation.heat_pump
    hours_left = _intervals_left(ev) * situation.hours if ev else 0.0
    at_home = np.clip(hours_left - np.arange(STEPS) * step_hours, 0.0, step_hours)
    losses_wh = heat.pump.loss_wh(heat.pump.capacity_wh / 2, step_hours) if heat else 0.0
    later = float(price.mean())
    way = battery.battery.one_way if battery else 1.0
    return Home(
        buy=price + tariff.local_fee,
        sell=price,
        demand=outlook.load_wh,
        sun=outlook.pv_wh,
        ev_max=at_home * (ev.ev.power_w * _CHARGER_PART if ev else 0.0),
        heat_max=np.full(STEPS, heat.pump.power_w * step_hours if heat else 0.0),
        heat_out=outlook.heat_wh + losses_wh,
        cop=outlook.cop,
        battery_max=battery.battery.capacity_wh if battery else 0.0,
        battery_step=battery.battery.power_w * step_hours if battery else 0.0,
        battery_stored=battery.stored_wh if battery else 0.0,
        battery_end=later * way,
        charged_part=way,
        wear=WEAR,
        ev_need=ev.remaining_wh if ev else 0.0,
        unmet=tariff.cap,
        heat_store_max=heat.pump.capacity_wh if heat else 0.0,
        heat_stored=heat.stored_wh if heat else 0.0,
        heat_end=(later + tariff.local_fee) / float(outlook.cop.mean()),
    )
