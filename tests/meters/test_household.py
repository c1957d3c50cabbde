"""Households: who owns what, what they offer, and what then physically happens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from grid.catalogue import year_profiles
from market.messages.models import STEPS_MAX, Side, Tariff
from meters.household.forecast import FORECASTS
from meters.household.life import Plan, State, first_state, live, situation
from meters.household.settings import HouseholdSettings
from meters.household.sites import DAY_S, Household, Series, households
from meters.strategies.interface import OfferedStep
from meters.strategies.truthful import truthful
from tests.meters.places import NOON, PROFILES, RICH, STEPS, profiles_with_other_future, rich_household

SECONDS = 900
TARIFF = Tariff(import_price=300_000, export_price=80_000, floor=-500_000, cap=2_000_000)

fractions = st.lists(st.floats(0, 1), min_size=8, max_size=8)
times = st.integers(0, 35_000).map(lambda step: NOON - 166 * DAY_S - 12 * 3600 + step * SECONDS)


def no_plans(_start: int) -> Plan | None:
    return None


def offered(household: Household, state: State) -> Plan:
    known = situation(household, state, no_plans, state.time, SECONDS, TARIFF)
    offer = truthful(known)
    return Plan(offer.steps, offer.firm_import_wh)


def awarded(plan: Plan, parts: list[float]) -> Plan:
    """Each step filled to its part; battery bids and asks are never filled at once."""
    fills = [int(step.energy_wh * parts[i % 8]) for i, step in enumerate(plan.steps)]
    if parts[0] < 0.5:
        sides = [(step.device, step.side) for step in plan.steps]
        fills = [0 if side == ("battery", Side.ASK) else f for f, side in zip(fills, sides, strict=True)]
    return replace(plan, awarded_wh=tuple(fills))


def test_a_bus_shares_its_generators_by_its_loads_energy() -> None:
    first, second, alone = households(PROFILES, HouseholdSettings(pv_scale=2.0), 7)
    energy = PROFILES.load_p_w.sum(axis=0)
    assert first.modules_w.mean(NOON, SECONDS) / second.modules_w.mean(NOON, SECONDS) == pytest.approx(
        energy[0] / energy[1]
    )
    together = first.modules_w.mean(NOON, SECONDS) + second.modules_w.mean(NOON, SECONDS)
    step = (NOON - 1_451_606_400) // 900
    assert together == pytest.approx(2.0 * PROFILES.sgen_p_w[step, 0])
    assert first.battery is not None
    assert second.battery is not None
    assert first.battery.capacity_wh + second.battery.capacity_wh == pytest.approx(8000.0)
    assert alone.pv is None
    assert alone.battery is None
    assert [household.name for household in (first, second, alone)] == ["load:0", "load:2", "load:4"]


def test_the_seed_alone_draws_what_the_scenario_adds() -> None:
    settings = HouseholdSettings(ev_share=0.5, battery_share=0.5)

    def drawn(seed: int) -> list[object]:
        made = households(PROFILES, settings, seed)
        return [(h.ev, h.battery, h.pv, h.stay(16_000), h.first_registers_wh) for h in made]

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(16_000, 17_000))
def test_a_vehicles_stays_do_not_overlap(seed: int, day: int) -> None:
    household = rich_household(seed)
    stay, following = household.stay(day), household.stay(day + 1)
    assert stay.arrival < stay.departure < following.arrival
    assert RICH.ev_energy_min_wh <= stay.need_wh <= RICH.ev_energy_max_wh


@settings(deadline=None)
@given(times, fractions, st.integers(0, 50))
def test_the_registers_count_exactly_what_flows(time: int, parts: list[float], seed: int) -> None:
    household = rich_household(seed)
    state = first_state(household, time)
    assert household.pv and household.battery and household.ev
    for part in range(6):
        plan = awarded(offered(household, state), parts[part:] + parts[:part])
        after = live(household, state, plan, SECONDS)

        assert after.import_wh >= state.import_wh
        assert after.export_wh >= state.export_wh
        assert 0 <= after.import_rest_wh < 1
        assert 0 <= after.export_rest_wh < 1
        assert 0 <= after.battery_wh <= household.battery.capacity_wh

        load_wh = household.load_w.mean(state.time, SECONDS) / 4
        sun_wh = household.pv.available_w(household.modules_w.mean(state.time, SECONDS)) / 4
        curtailed_wh = after.pv_curtailed_wh - state.pv_curtailed_wh
        stored_wh = after.battery_wh - state.battery_wh
        way = household.battery.one_way
        battery_wh = -stored_wh / way if stored_wh > 0 else -stored_wh * way
        started_wh = state.ev_charged_wh if after.ev_arrival == state.ev_arrival else 0.0
        ev_wh = after.ev_charged_wh - started_wh
        flowed_wh = (after.export_wh + after.export_rest_wh - state.export_wh - state.export_rest_wh) - (
            after.import_wh + after.import_rest_wh - state.import_wh - state.import_rest_wh
        )
        assert flowed_wh == pytest.approx(sun_wh - curtailed_wh + battery_wh - ev_wh - load_wh, abs=1e-3)
        assert -1e-9 <= curtailed_wh <= sun_wh + 1e-9
        assert ev_wh >= 0
        state = after


@settings(deadline=None)
@given(times, st.integers(0, 50), st.floats(0, 1))
def test_every_offer_is_a_valid_order(time: int, seed: int, charge: float) -> None:
    household = rich_household(seed)
    assert household.battery
    state = replace(first_state(household, time), battery_wh=charge * household.battery.capacity_wh)
    offer = truthful(situation(household, state, no_plans, time + SECONDS, SECONDS, TARIFF))
    assert len(offer.steps) <= STEPS_MAX
    assert offer.firm_import_wh >= 0
    for step in offer.steps:
        assert step.energy_wh > 0
        assert TARIFF.floor <= step.limit_price <= TARIFF.cap
    bids = [s.limit_price for s in offer.steps if s.device == "battery" and s.side == Side.BID]
    asks = [s.limit_price for s in offer.steps if s.device == "battery" and s.side == Side.ASK]
    if bids and asks:
        assert max(bids) < min(asks), "a battery must never buy from itself"


@settings(deadline=None)
@given(
    st.sampled_from(sorted(FORECASTS)),
    times.filter(lambda time: time > NOON - 136 * DAY_S),  # before it the year's end is the past
)
def test_an_offer_knows_nothing_of_the_future(kind: str, time: int) -> None:
    one = households(PROFILES, replace_settings(forecast=kind), 7)[0]
    state = first_state(one, time)
    profiles = profiles_with_other_future(time)
    share = one.modules_w.parts[0][1]
    other = replace(
        one,
        load_w=Series(((profiles.load_p_w[:, 0], 1.0),)),
        load_q_var=Series(((profiles.load_q_var[:, 0], 1.0),)),
        modules_w=Series(((profiles.sgen_p_w[:, 0], share),)),
    )
    assert one.load_w.mean(time, SECONDS) != other.load_w.mean(time, SECONDS)
    know = [situation(h, state, no_plans, time + SECONDS, SECONDS, TARIFF) for h in (one, other)]
    assert know[0] == know[1]
    looks = [known.outlook(24, 3600) for known in know]
    assert looks[0] is not None
    assert looks[1] is not None
    assert all((vars(looks[0])[name] == vars(looks[1])[name]).all() for name in vars(looks[0]))


def test_forecasts_have_real_errors() -> None:
    household = rich_household()
    for kind in FORECASTS:
        choice = replace_settings(forecast=kind)
        household = households(PROFILES, choice, 7)[0]
        errors = []
        for step in range(96):
            time = NOON + step * SECONDS
            state = first_state(household, time)
            known = situation(household, state, no_plans, time + SECONDS, SECONDS, TARIFF)
            errors.append(known.load_wh - household.load_w.mean(time + SECONDS, SECONDS) / 4)
        assert 1 < np.abs(errors).mean() < 200


def replace_settings(**changes: object) -> HouseholdSettings:
    return HouseholdSettings(**{**RICH.model_dump(), **changes})


@settings(deadline=None, max_examples=25)
@given(times, fractions, st.integers(0, 50))
def test_what_a_heat_pump_takes_passes_the_registers_and_keeps_the_house_warm(
    time: int, parts: list[float], seed: int
) -> None:
    home = households(PROFILES, HouseholdSettings(heat_pump_share=1.0), seed)[2]
    pump = home.heat_pump
    assert pump
    assert home.kind == "heat pump"
    state = first_state(home, time)
    for part in range(6):
        after = live(home, state, awarded(offered(home, state), parts[part:] + parts[:part]), SECONDS)
        demand_wh = home.heat_w.mean(state.time, SECONDS) / 4
        made_wh = after.heat_wh - state.heat_wh + demand_wh + pump.loss_wh(state.heat_wh, 0.25)
        load_wh = home.load_w.mean(state.time, SECONDS) / 4
        taken_wh = -net_wh(state, after) - load_wh
        assert taken_wh == pytest.approx(made_wh / home.cop(state.time, SECONDS), abs=1e-3)
        assert after.heat_lacking_wh < 1e-6
        state = after


def test_simbenchs_heat_pumps_heat_by_their_own_profiles_energy() -> None:
    profiles = year_profiles("simbench:1-LV-rural3--2-sw")
    village = households(profiles, HouseholdSettings(), 1)
    pumps = [home for home in village if home.heat_pump]
    assert len(pumps) == 18
    for home in pumps:
        assert home.heat_pump
        column = int(np.flatnonzero(profiles.load_index == home.index)[0])
        electric_w = profiles.load_p_w[:, column]
        assert home.heat_pump.power_w == pytest.approx(electric_w.max())
        assert not home.load_w.parts, "its load is the heat pump and nothing else"
        (heat_w, _), *_ = home.heat_w.parts
        mean_cop = heat_w.mean() / electric_w.mean()
        assert 2.3 < mean_cop < 4.5, "field trials tell seasonal factors of 2.5 to 4"


def test_going_it_alone_a_heat_pump_keeps_its_store_half_full() -> None:
    home = next(
        home
        for home in households(year_profiles("simbench:1-LV-rural3--2-sw"), HouseholdSettings(), 1)
        if home.heat_pump
    )
    assert home.heat_pump
    state = first_state(home, NOON)
    for _ in range(96):
        state = live(home, state, None, SECONDS)
    assert state.heat_wh == pytest.approx(home.heat_pump.capacity_wh / 2)


def test_a_consuming_load_injects_negative_var() -> None:
    household = rich_household()
    known = situation(household, first_state(household, NOON), no_plans, NOON + SECONDS, SECONDS, TARIFF)
    assert known.load_q_var > 0
    assert truthful(known).firm_q_var == -round(known.load_q_var)


def steady_household() -> Household:
    """One whose load is always 100 Wh an interval, under a sky without sun: nothing comes unexpected."""
    load, dark = np.full(STEPS, 400.0), np.zeros(STEPS)
    return replace(rich_household(), load_w=Series(((load, 1.0),)), modules_w=Series(((dark, 1.0),)))


def test_batteries_and_vehicles_are_expected_to_follow_their_awards() -> None:
    household = steady_household()
    assert household.battery and household.ev
    evening = household.stay(NOON // DAY_S).arrival // SECONDS * SECONDS + SECONDS
    state = live(household, first_state(household, evening), awarded_all(household, evening), SECONDS)
    plan = awarded_all(household, state.time, state)
    known = situation(household, state, {state.time: plan}.get, state.time + SECONDS, SECONDS, TARIFF)
    after = live(household, state, plan, SECONDS)
    assert known.battery is not None
    assert known.battery.stored_wh == pytest.approx(after.battery_wh)
    assert known.ev is not None
    stay = household.stay_at(state.time)
    assert stay is not None
    assert known.ev.remaining_wh == pytest.approx(stay.need_wh - after.ev_charged_wh, abs=1e-6)


def awarded_all(household: Household, time: int, state: State | None = None) -> Plan:
    plan = offered(household, state or first_state(household, time))
    return replace(plan, awarded_wh=tuple(step.energy_wh for step in plan.steps))


def test_a_vehicle_that_gets_nothing_leaves_with_its_need_unmet_and_is_counted_once() -> None:
    household = steady_household()
    state = replace(first_state(household, NOON), ev_arrival=0)
    for _ in range(96):
        nothing = replace(plan := offered(household, state), awarded_wh=tuple(0 for _ in plan.steps))
        state = live(household, state, nothing, SECONDS)
    assert (state.ev_departures, state.ev_unmet) == (1, 1)
    assert state.ev_unmet_wh == pytest.approx(household.stay(NOON // DAY_S).need_wh)


def net_wh(before: State, after: State) -> float:
    """What flowed into the grid, exactly."""
    exported = after.export_wh + after.export_rest_wh - before.export_wh - before.export_rest_wh
    return exported - (after.import_wh + after.import_rest_wh - before.import_wh - before.import_rest_wh)


def with_load(household: Household, load_wh: float) -> Household:
    """The same with this load in every interval."""
    return replace(household, load_w=Series(((np.full(STEPS, 4 * load_wh), 1.0),)))


@settings(deadline=None)
@given(st.floats(-600, 600), st.floats(0, 1))
def test_a_battery_makes_up_for_what_comes_otherwise_than_ordered(error_wh: float, charge: float) -> None:
    household = with_load(steady_household(), 700 + error_wh)
    battery = household.battery
    assert battery
    state = replace(first_state(household, NOON), battery_wh=charge * battery.capacity_wh)
    bought_wh = min(400, int(battery.charge_room_wh(state.battery_wh, 0.25)))
    plan = Plan((OfferedStep("battery", Side.BID, 400, 100_000),), 700, (bought_wh,))
    off_wh = net_wh(state, live(household, state, plan, SECONDS)) + 700 + bought_wh
    lacks_wh, spare_wh = error_wh - bought_wh, bought_wh - error_wh
    beyond_wh = max(
        lacks_wh - battery.discharge_room_wh(state.battery_wh, 0.25),
        spare_wh - battery.charge_room_wh(state.battery_wh, 0.25),
        0.0,
    )
    assert abs(off_wh) == pytest.approx(beyond_wh, abs=1e-6)


@settings(deadline=None)
@given(st.floats(-600, 400))
def test_a_vehicle_that_can_wait_makes_up_for_what_comes_otherwise(error_wh: float) -> None:
    household = with_load(replace(steady_household(), battery=None), 700 + error_wh)
    assert household.ev
    stay = household.stay(NOON // DAY_S)
    home = (stay.arrival // SECONDS + 1) * SECONDS
    state = replace(first_state(household, home), ev_arrival=stay.arrival, ev_charged_wh=0.0)
    room_wh = household.ev.charge_room_wh(stay.need_wh, 0.25)
    plan = Plan((OfferedStep("ev", Side.BID, 400, 300_000),), 700, (400,))
    off_wh = net_wh(state, live(household, state, plan, SECONDS)) + 700 + 400
    assert off_wh == pytest.approx(max(0.0, -error_wh - (room_wh - 400)), abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 20), st.floats(0, 3000))
def test_a_vehicle_that_cannot_wait_makes_up_for_nothing(seed: int, error_wh: float) -> None:
    """However much more load comes than was ordered, who is awarded what it must have leaves with it."""
    household = with_load(replace(steady_household(), seed=seed, battery=None, _stays={}), 100 + error_wh)
    stay = household.stay(NOON // DAY_S)
    state = replace(first_state(household, NOON), ev_arrival=0)
    while state.time < stay.departure:
        known = situation(household, state, no_plans, state.time, SECONDS, TARIFF)
        steps = tuple(step for step in truthful(known).steps if step.device == "ev")
        plan = Plan(steps, 100, tuple(step.energy_wh for step in steps))
        state = live(household, state, plan, SECONDS)
    assert state.ev_departures == 1
    assert state.ev_unmet_wh < 100


def test_urgency_raises_a_vehicles_bid_up_to_the_cap() -> None:
    household = rich_household()
    stay = household.stay(NOON // DAY_S)
    start = (stay.arrival // SECONDS + 1) * SECONDS
    best = []
    for time in range(start, stay.departure - 2 * SECONDS, SECONDS):
        state = replace(first_state(household, time), ev_arrival=stay.arrival, ev_charged_wh=0.0)
        offer = truthful(situation(household, state, no_plans, time + SECONDS, SECONDS, TARIFF))
        best.append(max(step.limit_price for step in offer.steps if step.device == "ev"))
    assert best == sorted(best)
    assert best[0] < TARIFF.cap
    assert best[-1] == TARIFF.cap


def test_without_an_award_a_household_lives_as_without_a_market() -> None:
    household = rich_household()
    assert household.pv
    state = first_state(household, NOON)
    after = live(household, state, offered(household, state), SECONDS)
    assert after == live(household, state, None, SECONDS)
    assert after.pv_curtailed_wh == 0
    assert after.battery_wh > state.battery_wh, "the noon's surplus is kept"
    midnight = NOON - 12 * 3600
    stay = household.stay_at(midnight)
    assert stay is not None
    charged = {"ev_arrival": stay.arrival, "ev_charged_wh": stay.need_wh}
    alone = replace(first_state(household, midnight), battery_wh=5000.0, **charged)
    later = live(household, alone, None, SECONDS)
    assert later.import_wh == alone.import_wh, "the battery serves the load"
    assert later.battery_wh < alone.battery_wh


@pytest.mark.parametrize(
    ("field", "value"),
    [("pv_scale", -1.0), ("ev_share", 1.5), ("pv_price_min", 40_000), ("ev_departure_hour", 16.0), ("x", 1)],
)
def test_settings_that_make_no_sense_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        HouseholdSettings(**{field: value})
