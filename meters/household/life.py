"""What a household knows before an interval, and what physically happens in it. Pure.

Net energy at the connection point is PV + discharge − charge − vehicle − heat pump − load, Wh, export
positive. The registers count it in whole Wh; what is below one stays in their rest, so that nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from grid.feeder import Floats
from market.messages.models import Side, Tariff
from meters.household.devices import Battery, Stay
from meters.household.forecast import FORECASTS, HISTORY_DAYS, persistence
from meters.household.outlook import outlook
from meters.household.sites import DAY_S, Household, Series
from meters.strategies.interface import BatteryNow, EvNow, HeatPumpNow, Memory, Situation
from meters.strategies.interface import Plan as Plan

_FIRST_CHARGE = 0.5
_CHANCES = (0.1, 0.25, 0.5)
"""Of less sun than is told."""

_ORDERED_AHEAD = 1
"""Intervals after the running one that are ordered already, as if all awards until then were followed."""


Plans = Callable[[int], Plan | None]
"""The plan for the interval that starts at the given time, if there is one."""


@dataclass(frozen=True)
class State:
    """A household at ``time``, the end of the last interval it lived through (Unix seconds).

    ``power_w`` is that interval's mean, export positive. ``ev_arrival`` tells the stay to which
    ``ev_charged_wh`` belongs, ``heat_wh`` is the heat in the heat pump's store, ``memory`` what the strategy
    keeps for itself. The rest is kept for the summary: energy curtailed, departures of the vehicle, how
    many of them with less than needed, and how much less; heat that lacked for comfort.
    """

    time: int
    import_wh: int
    export_wh: int
    import_rest_wh: float = 0.0
    export_rest_wh: float = 0.0
    power_w: int = 0
    battery_wh: float = 0.0
    ev_arrival: int = 0
    ev_charged_wh: float = 0.0
    pv_curtailed_wh: float = 0.0
    ev_departures: int = 0
    ev_unmet: int = 0
    ev_unmet_wh: float = 0.0
    heat_wh: float = 0.0
    heat_lacking_wh: float = 0.0
    memory: Memory = field(default_factory=dict)


def first_state(household: Household, time: int) -> State:
    """The household when the story begins: stores half full, the vehicle charged since it came home."""
    import_wh, export_wh = household.first_registers_wh
    state = State(
        time=time,
        import_wh=import_wh,
        export_wh=export_wh,
        battery_wh=household.battery.capacity_wh * _FIRST_CHARGE if household.battery else 0.0,
        heat_wh=household.heat_pump.capacity_wh * _FIRST_CHARGE if household.heat_pump else 0.0,
    )
    stay = household.stay_at(time)
    if stay is None or household.ev is None:
        return state
    charged_wh = min(stay.need_wh, household.ev.power_w * (time - stay.arrival) / 3600)
    return replace(state, ev_arrival=stay.arrival, ev_charged_wh=charged_wh)


def at_hand_wh(household: Household, state: State) -> float:
    """Electricity that the household has already taken for later, Wh: what the battery would give, what is in
    the vehicle for its next departure and in the heat pump's store, less all need that stayed unmet.

    Two days of one household differ by it in what the morrow will cost.
    """
    stay, at_hand_wh = household.stay_at(state.time), -state.ev_unmet_wh
    if household.battery is not None:
        at_hand_wh += state.battery_wh * household.battery.one_way
    if stay is not None and stay.arrival == state.ev_arrival:
        at_hand_wh += state.ev_charged_wh
    if household.heat_pump is not None:
        cop = float(household.heat_pump.cop(state.time))
        at_hand_wh += (state.heat_wh - state.heat_lacking_wh) / cop
    return at_hand_wh


def situation(
    household: Household, state: State, plans: Plans, interval_start: int, seconds: int, tariff: Tariff
) -> Situation:
    """What the household knows at ``state.time`` about the interval at ``interval_start``.

    Between the two, batteries, vehicles and heat pumps are expected to follow what was awarded. A vehicle
    that is not yet at home is not yet known. What modules could have given while they were curtailed is
    known: inverters tell it as available power.
    """
    hours = seconds / 3600
    ahead = (interval_start - state.time) // seconds + 1
    method = FORECASTS[household.settings.forecast]
    per_day = DAY_S // seconds

    def past(series: Series) -> Floats:
        return series.past(state.time, HISTORY_DAYS * per_day, seconds)

    battery_wh, heat_wh = state.battery_wh, state.heat_wh
    demand_wh = persistence(household.heat_w.past(state.time, 1, seconds), ahead, per_day) * hours
    stay = household.stay_at(state.time)
    charged_wh = state.ev_charged_wh if stay and stay.arrival == state.ev_arrival else 0.0
    for start in range(state.time, interval_start, seconds):
        plan = plans(start)
        if plan is None:
            continue
        if household.battery is not None:
            battery_wh, _ = _run_battery(household.battery, battery_wh, plan, 0.0, hours)
        charged_wh += plan.awarded("ev", Side.BID)
        if household.heat_pump is not None:
            taken_wh = plan.awarded("heat_pump", Side.BID)
            cop = household.cop(start, seconds)
            heat_wh, _, _ = household.heat_pump.run(heat_wh, taken_wh, demand_wh, cop, hours)

    pv_wh = 0.0
    pv_low: tuple[tuple[float, float], ...] = ()
    if household.pv is not None:
        sun_w = method.sun(past(household.modules_w), ahead, per_day, _CHANCES)
        *low, (_, pv_wh) = [
            (chance, household.pv.available_w(power_w) * hours)
            for chance, power_w in zip(_CHANCES, sun_w, strict=True)
        ]
        pv_low = tuple(low)
    return Situation(
        hours=hours,
        tariff=tariff,
        load_wh=max(0.0, method.load(past(household.load_w), ahead, per_day)) * hours,
        load_q_var=method.load(past(household.load_q_var), ahead, per_day),
        pv=household.pv,
        pv_wh=pv_wh,
        pv_low=pv_low,
        battery=BatteryNow(household.battery, battery_wh) if household.battery else None,
        ev=_ev_now(household, stay, charged_wh, interval_start, seconds),
        heat_pump=HeatPumpNow(household.heat_pump, heat_wh, demand_wh, household.cop(interval_start, seconds))
        if household.heat_pump
        else None,
        household=household.name,
        seed=household.seed,
        interval_start=interval_start,
        last=plans(interval_start - seconds),
        memory=state.memory,
        outlook=lambda steps, step_s: outlook(
            household, state.time, interval_start, seconds, steps=steps, step_s=step_s
        ),
    )


def live(household: Household, state: State, plan: Plan | None, seconds: int) -> State:
    """The household after the interval of ``seconds`` from ``state.time``.

    With an award it follows it as far as physics lets it: where load or sun come otherwise than ordered, the
    heat pump makes up for it within the comfort band, then the vehicle as long as it can wait, then the
    battery, and the rest is imbalance; comfort goes before an award. Without (the market was silent) it does
    what it would do without a market: PV feeds in, the vehicle charges, the heat pump keeps its store half
    full, the battery keeps the surplus for the household's own use.
    """
    hours, end = seconds / 3600, state.time + seconds
    if plan is not None and plan.awarded_wh is None:
        plan = None
    load_wh = max(0.0, household.load_w.mean(state.time, seconds)) * hours

    available_wh = pv_wh = 0.0
    if household.pv is not None:
        available_wh = household.pv.available_w(household.modules_w.mean(state.time, seconds)) * hours
        pv_wh = available_wh
        if plan is not None:
            offered_wh, awarded_wh = plan.offered("pv"), plan.awarded("pv", Side.ASK)
            pv_wh = household.pv.delivered_wh(available_wh, load_wh, offered_wh, awarded_wh)

    spare_wh = 0.0
    if plan is not None:
        spare_wh = pv_wh - load_wh - (plan.awarded("pv", Side.ASK) - plan.firm_import_wh)
    state, heat_pump_wh = _heat(household, state, plan, spare_wh, hours)
    if plan is not None:
        spare_wh += plan.awarded("heat_pump", Side.BID) - heat_pump_wh
    state, ev_wh = _charge_ev(household, state, plan, spare_wh, end, hours)

    battery_wh, battery_net_wh = state.battery_wh, 0.0
    if household.battery is not None and plan is not None:
        spare_wh += plan.awarded("ev", Side.BID) - ev_wh
        battery_wh, battery_net_wh = _run_battery(household.battery, state.battery_wh, plan, spare_wh, hours)
    elif household.battery is not None:
        left_wh = pv_wh - ev_wh - heat_pump_wh - load_wh
        battery_wh, battery_net_wh = household.battery.run(
            state.battery_wh, max(left_wh, 0.0), max(-left_wh, 0.0), hours
        )

    net_wh = pv_wh + battery_net_wh - ev_wh - heat_pump_wh - load_wh
    counted = _count(state, net_wh)
    return replace(
        counted,
        time=end,
        power_w=round(net_wh / hours),
        battery_wh=battery_wh,
        pv_curtailed_wh=state.pv_curtailed_wh + available_wh - pv_wh,
    )


def _run_battery(
    battery: Battery, stored_wh: float, plan: Plan, spare_wh: float, hours: float
) -> tuple[float, float]:
    """It follows its award and takes what the household has to spare besides (< 0: gives what it lacks).

    Always worth it: what a household is short of costs the import tariff at least, what it has too much
    earns the export tariff at most, and stored energy is worth something between.
    """
    charge_wh = plan.awarded("battery", Side.BID) + max(spare_wh, 0.0)
    discharge_wh = plan.awarded("battery", Side.ASK) + max(-spare_wh, 0.0)
    return battery.run(stored_wh, charge_wh, discharge_wh, hours)


def _heat(
    household: Household, state: State, plan: Plan | None, spare_wh: float, hours: float
) -> tuple[State, float]:
    """The state with the heat pump's part of the interval, and the electricity that it took, Wh: what was
    awarded and ``spare_wh`` besides (< 0: less), within the comfort band.
    """
    pump = household.heat_pump
    if pump is None:
        return state, 0.0
    seconds = round(hours * 3600)
    cop = household.cop(state.time, seconds)
    demand_wh = household.heat_w.mean(state.time, seconds) * hours
    if plan is not None:
        wanted_wh = plan.awarded("heat_pump", Side.BID) + spare_wh
    else:
        middle_wh = pump.capacity_wh * _FIRST_CHARGE
        wanted_wh = (middle_wh + demand_wh + pump.loss_wh(state.heat_wh, hours) - state.heat_wh) / cop
    heat_wh, taken_wh, lacking_wh = pump.run(state.heat_wh, wanted_wh, demand_wh, cop, hours)
    lacked_wh = state.heat_lacking_wh + lacking_wh
    return replace(state, heat_wh=heat_wh, heat_lacking_wh=lacked_wh), taken_wh


def _count(state: State, net_wh: float) -> State:
    """The registers after ``net_wh`` has passed the meter."""
    imported = state.import_rest_wh + max(0.0, -net_wh)
    exported = state.export_rest_wh + max(0.0, net_wh)
    return replace(
        state,
        import_wh=state.import_wh + int(imported),
        export_wh=state.export_wh + int(exported),
        import_rest_wh=imported - int(imported),
        export_rest_wh=exported - int(exported),
    )


def _ev_now(
    household: Household, stay: Stay | None, charged_wh: float, interval_start: int, seconds: int
) -> EvNow | None:
    if household.ev is None or stay is None or stay.departure < interval_start + seconds:
        return None
    remaining_wh = stay.need_wh - charged_wh
    if remaining_wh < 1:
        return None
    return EvNow(household.ev, remaining_wh, (stay.departure - interval_start) // seconds)


def _charge_ev(
    household: Household, state: State, plan: Plan | None, spare_wh: float, end: int, hours: float
) -> tuple[State, float]:
    """The state with the vehicle's part of the interval until ``end``, and what it took, Wh.

    It charges in the intervals that lie wholly in its stay; after the last of them its departure is
    counted. It takes what was awarded and ``spare_wh`` besides (< 0: less), but never so little that full
    power could not make up for it before the departure, in intervals that are not yet ordered.
    """
    stay = household.stay_at(state.time)
    if household.ev is None or stay is None or stay.departure < end:
        return state, 0.0
    if stay.arrival != state.ev_arrival:
        state = replace(state, ev_arrival=stay.arrival, ev_charged_wh=0.0)
    room_wh = household.ev.charge_room_wh(stay.need_wh - state.ev_charged_wh, hours)
    seconds = end - state.time
    taken_wh = room_wh
    if plan is not None:
        awarded_wh = min(room_wh, float(plan.awarded("ev", Side.BID)))
        later = max(0, (stay.departure - end) // seconds - _ORDERED_AHEAD)
        later_wh = later * household.ev.power_w * hours
        must_wh = stay.need_wh - state.ev_charged_wh - later_wh
        least_wh = min(awarded_wh, max(0.0, must_wh))
        taken_wh = min(room_wh, max(least_wh, awarded_wh + spare_wh))
    state = replace(state, ev_charged_wh=state.ev_charged_wh + taken_wh)
    if stay.departure < end + seconds:
        missing_wh = stay.need_wh - state.ev_charged_wh
        unmet = missing_wh >= 1
        state = replace(
            state,
            ev_departures=state.ev_departures + 1,
            ev_unmet=state.ev_unmet + unmet,
            ev_unmet_wh=state.ev_unmet_wh + (missing_wh if unmet else 0.0),
        )
    return state, taken_wh
