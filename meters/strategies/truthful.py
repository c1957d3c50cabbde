"""Every step at what it is worth to the household: no guess about others, no wish to move the price."""

from __future__ import annotations

from market.messages.models import Side, Tariff
from meters.strategies.interface import BatteryNow, Device, EvNow, Offer, OfferedStep, Situation

# What a kWh through a battery wears off it, µEUR/kWh.
_WEAR = 20_000
_PARTS = 2


def truthful(situation: Situation) -> Offer:
    """Firm is the forecast load that the own PV leaves; its surplus, battery and vehicle are steps at their
    own value.
    """
    tariff = situation.tariff
    steps: list[OfferedStep] = []
    own_wh = min(situation.load_wh, situation.pv_wh)  # it never leaves the house, and pays no fee
    if situation.pv is not None:
        _add(steps, tariff, "pv", Side.ASK, situation.pv_wh - own_wh, situation.pv.price)
    if situation.battery is not None:
        _offer_battery(steps, situation.battery, situation.hours, tariff)
    if situation.ev is not None:
        _offer_ev(steps, situation.ev, situation.hours, tariff)
    return Offer(
        firm_import_wh=round(situation.load_wh - own_wh),
        firm_q_var=-round(situation.load_q_var),
        steps=tuple(steps),
    )


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
        bid = (value(stored_wh) - _WEAR / 2) * battery.one_way
        _add(steps, tariff, "battery", Side.BID, room_wh / _PARTS, bid)
    room_wh = battery.discharge_room_wh(now.stored_wh, hours)
    for part in range(_PARTS):
        stored_wh = now.stored_wh - room_wh * (part + 0.5) / _PARTS / battery.one_way
        ask = value(stored_wh) / battery.one_way + _WEAR / 2
        _add(steps, tariff, "battery", Side.ASK, room_wh / _PARTS, ask)


def _offer_ev(steps: list[OfferedStep], now: EvNow, hours: float, tariff: Tariff) -> None:
    """What cannot wait bids the cap; the rest bids the owner's price, rising to the cap with urgency.

    Half of the rest is patient: it bids the tariffs' middle as long as there is time.
    """
    now_wh = now.ev.charge_room_wh(now.remaining_wh, hours)
    later_wh = (now.intervals_left - 1) * now.ev.power_w * hours
    must_wh = min(now_wh, max(0.0, now.remaining_wh - later_wh))
    urgency = min(1.0, now.remaining_wh / (now.intervals_left * now.ev.power_w * hours))
    eager = now.ev.price + (tariff.cap - now.ev.price) * urgency**3
    middle = (tariff.import_price + tariff.export_price) / 2
    patient = middle + (eager - middle) * urgency
    _add(steps, tariff, "ev", Side.BID, must_wh, tariff.cap)
    _add(steps, tariff, "ev", Side.BID, (now_wh - must_wh) / 2, eager)
    _add(steps, tariff, "ev", Side.BID, (now_wh - must_wh) / 2, patient)


def _add(
    steps: list[OfferedStep], tariff: Tariff, device: Device, side: Side, energy_wh: float, price: float
) -> None:
    if int(energy_wh) > 0:
        limit = min(max(round(price), tariff.floor), tariff.cap)
        steps.append(OfferedStep(device, side, int(energy_wh), limit))
