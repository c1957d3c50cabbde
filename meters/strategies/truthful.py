"""Every step at what it is worth to the household: no guess about others, no wish to move the price."""

from __future__ import annotations

from market.messages.models import Side, Tariff
from meters.strategies.interface import BatteryNow, EvNow, HeatPumpNow, Offer, OfferedStep, Situation
from meters.strategies.steps import add_step

WEAR = 20_000
"""What a kWh through a battery wears off it, µEUR/kWh."""

_PARTS = 2

_EVEN_CHANCE = 0.5
_NEVER_SURE = 0.05
"""The last part of a forecast of the sun, however alike the days were that it was made from."""

_STILL_SOLD = 0.93
"""Of the export tariff: what is left of it at a bus behind losses, where nothing limits what is exported."""


def truthful(situation: Situation) -> Offer:
    """Firm is the forecast load that the own PV leaves, and the heat that comfort cannot wait for; surplus,
    battery, vehicle and more heat are steps at their own value.
    """
    tariff = situation.tariff
    steps: list[OfferedStep] = []
    load_wh = situation.load_wh + least_heat_wh(situation)
    own_wh = min(load_wh, situation.pv_wh)  # it never leaves the house, and pays no fee
    if situation.pv is not None:
        offer_sun(steps, situation, situation.pv_wh - own_wh)
    if situation.battery is not None:
        _offer_battery(steps, situation.battery, situation.hours, tariff)
    if situation.ev is not None:
        _offer_ev(steps, situation.ev, situation.hours, tariff)
    if situation.heat_pump is not None:
        _offer_heat_pump(steps, situation.heat_pump, situation.hours, tariff)
    return Offer(
        firm_import_wh=round(load_wh - own_wh),
        firm_q_var=-round(situation.load_q_var),
        steps=tuple(steps),
    )


def offer_sun(steps: list[OfferedStep], situation: Situation, surplus_wh: float) -> None:
    """Asks for ``surplus_wh`` of the forecast sun, the surest part first.

    A promise that fails is bought at the import tariff: each part asks what that costs with the chance that
    it fails, beside what producing costs. Nothing asks more than what the retailer takes it for, except
    behind a limit: there, the last parts are left out, and the inverter holds the award. So the feeder's
    limits are checked on all that is expected to flow, and the doubtful Wh are the first to be curtailed.
    """
    tariff, pv = situation.tariff, situation.pv
    assert pv is not None
    own_wh = situation.pv_wh - surplus_wh
    dearest = max(_STILL_SOLD * tariff.export_price, pv.price)
    surest_wh = (1 - _NEVER_SURE) * situation.pv_wh
    low = [(chance, min(energy_wh, surest_wh)) for chance, energy_wh in situation.pv_low]
    offered_wh = before = 0.0
    for chance, energy_wh in [*low, (_EVEN_CHANCE, situation.pv_wh)]:
        part_wh = max(0.0, energy_wh - own_wh - offered_wh)
        fails = (before + chance) / 2 * max(tariff.import_price, 0) if low else 0.0
        add_step(steps, tariff, "pv", Side.ASK, part_wh, min(pv.price + fails, dearest))
        offered_wh, before = offered_wh + part_wh, chance


def _offer_battery(steps: list[OfferedStep], now: BatteryNow, hours: float, tariff: Tariff) -> None:
    """A stored kWh is worth between the import tariff (empty) and the export tariff (full).

    Charging bids that value less the loss on the way in, discharging asks it plus the loss on the way
    out and the wear, each in parts along the change of charge: the bid stays below the ask.
    """
    battery, span = now.battery, tariff.import_price - tariff.export_price

    def value(stored_wh: float) -> float:
        return tariff.import_price - span * min(max(stored_wh / battery.capacity_wh, 0.0), 1.0)

    room_wh = battery.charge_room_wh(now.stored_wh, hours)
    for part in range(_PARTS):
        stored_wh = now.stored_wh + room_wh * (part + 0.5) / _PARTS * battery.one_way
        bid = (value(stored_wh) - WEAR / 2) * battery.one_way
        add_step(steps, tariff, "battery", Side.BID, room_wh / _PARTS, bid)
    room_wh = battery.discharge_room_wh(now.stored_wh, hours)
    for part in range(_PARTS):
        stored_wh = now.stored_wh - room_wh * (part + 0.5) / _PARTS / battery.one_way
        ask = value(stored_wh) / battery.one_way + WEAR / 2
        add_step(steps, tariff, "battery", Side.ASK, room_wh / _PARTS, ask)


def _offer_ev(steps: list[OfferedStep], now: EvNow, hours: float, tariff: Tariff) -> None:
    """What cannot wait bids the cap. While there is time, the rest bids no more than the retailer will take
    later; with urgency that rises to the owner's price, and to the cap.

    Half of the rest is patient: it bids the tariffs' middle as long as there is time.
    """
    now_wh = now.ev.charge_room_wh(now.remaining_wh, hours)
    later_wh = (now.intervals_left - 1) * now.ev.power_w * hours
    must_wh = min(now_wh, max(0.0, now.remaining_wh - later_wh))
    urgency = min(1.0, now.remaining_wh / (now.intervals_left * now.ev.power_w * hours))
    later = min(now.ev.price, tariff.import_price)
    eager = later + (now.ev.price - later) * urgency + (tariff.cap - now.ev.price) * urgency**3
    middle = (tariff.import_price + tariff.export_price) / 2
    patient = middle + (eager - middle) * urgency
    add_step(steps, tariff, "ev", Side.BID, must_wh, tariff.cap)
    add_step(steps, tariff, "ev", Side.BID, (now_wh - must_wh) / 2, eager)
    add_step(steps, tariff, "ev", Side.BID, (now_wh - must_wh) / 2, patient)


def least_heat_wh(situation: Situation) -> float:
    """The electricity without which the heat store would leave the comfort band."""
    now = situation.heat_pump
    return now.pump.least_wh(now.stored_wh, now.demand_wh, now.cop, situation.hours) if now else 0.0


def _offer_heat_pump(steps: list[OfferedStep], now: HeatPumpNow, hours: float, tariff: Tariff) -> None:
    """Heat that can wait is worth between the import tariff (store empty) and the export tariff (full)."""
    pump = now.pump
    least_wh = pump.least_wh(now.stored_wh, now.demand_wh, now.cop, hours)
    room_wh = pump.most_wh(now.stored_wh, now.demand_wh, now.cop, hours) - least_wh
    for part in range(_PARTS):
        stored_wh = now.stored_wh + room_wh * (part + 0.5) / _PARTS * now.cop
        full = min(max(stored_wh / pump.capacity_wh, 0.0), 1.0)
        bid = tariff.import_price - (tariff.import_price - tariff.export_price) * full
        add_step(steps, tariff, "heat_pump", Side.BID, room_wh / _PARTS, bid)
