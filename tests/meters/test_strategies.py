"""Strategies: what each promises, whatever the household and the hour; and that others can be added."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from market.messages.models import STEPS_MAX, Side, Tariff
from meters.household.devices import Ev
from meters.household.life import State, at_hand_wh, first_state, live, situation
from meters.household.settings import HouseholdSettings
from meters.household.sites import DAY_S, Household, households
from meters.strategies import load_strategy, strategy_names
from meters.strategies.adaptive import adaptive
from meters.strategies.interface import EvNow, Offer, OfferedStep, Plan, Situation
from meters.strategies.manager import manager
from meters.strategies.truthful import truthful
from meters.strategies.zero_intelligence import zero_intelligence
from tests.meters.places import NOON, PROFILES, RICH

SECONDS = 900
TARIFF = Tariff(
    import_price=300_000,
    export_price=80_000,
    floor=-500_000,
    cap=2_000_000,
    local_fee=20_000,
    import_fees=100_000,
)
OWN = ("adaptive", "manager", "truthful", "zero_intelligence")
EVERYTHING = HouseholdSettings(**{**RICH.model_dump(), "heat_pump_share": 1.0})
HOMES = households(PROFILES, EVERYTHING, 7)
times = st.integers(0, 2_000).map(lambda step: NOON - 10 * DAY_S + step * SECONDS)


def known(home: Household, state: State, plan: Plan | None = None) -> Situation:
    start = state.time + SECONDS
    return situation(home, state, {state.time: plan}.get, start, SECONDS, TARIFF)


def lived(strategy: str, home: Household, time: int, intervals: int, price: int) -> tuple[State, list[Offer]]:
    """Days at one price: bids above it (with the fee) and asks below it are filled."""
    state, plans, offers = first_state(home, time), dict[int, Plan](), []
    for _ in range(intervals):
        start = state.time + SECONDS
        offer = load_strategy(strategy)(situation(home, state, plans.get, start, SECONDS, TARIFF))
        offers.append(offer)
        filled = tuple(step.energy_wh if is_filled(step, price) else 0 for step in offer.steps)
        only_asks = bool(offer.steps) and all(step.side == Side.ASK for step in offer.steps)
        told = price if only_asks else price + TARIFF.local_fee
        if any(filled) and all(s.side == Side.ASK for s, wh in zip(offer.steps, filled, strict=True) if wh):
            told = price
        plans[start] = Plan(offer.steps, offer.firm_import_wh, filled, told)
        state = live(
            home, replace(state, memory=json.loads(json.dumps(offer.memory))), plans.get(state.time), SECONDS
        )
    return state, offers


def is_filled(step: OfferedStep, price: int) -> bool:
    if step.side == Side.ASK:
        return step.limit_price <= price
    return step.limit_price >= price + TARIFF.local_fee


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(OWN), st.sampled_from(HOMES), times, st.floats(0, 1))
def test_every_offer_is_a_valid_order_that_trades_with_nobody_of_the_same_house(
    name: str, home: Household, time: int, fraction: float
) -> None:
    state = first_state(home, time)
    state = replace(state, battery_wh=fraction * home.battery.capacity_wh if home.battery else 0.0)
    now = known(home, state)
    offer = load_strategy(name)(now)
    assert len(offer.steps) <= STEPS_MAX
    assert offer.firm_import_wh >= 0
    json.dumps(offer.memory)
    for step in offer.steps:
        assert step.energy_wh > 0
        assert TARIFF.floor <= step.limit_price <= TARIFF.cap
    for device in ("battery", "heat_pump", "ev"):
        mine = [step for step in offer.steps if step.device == device]
        bids = [step.limit_price for step in mine if step.side == Side.BID]
        asks = [step.limit_price for step in mine if step.side == Side.ASK]
        assert not bids or not asks or max(bids) < min(asks)
    if now.battery is not None:
        charge_wh = sum(s.energy_wh for s in offer.steps if (s.device, s.side) == ("battery", Side.BID))
        assert charge_wh <= now.battery.battery.charge_room_wh(now.battery.stored_wh, 0.25) + 1e-6


@pytest.mark.parametrize("price", [30_000, 290_000])
@pytest.mark.parametrize("name", OWN)
def test_a_day_at_any_price_keeps_comfort_and_charges_the_car(name: str, price: int) -> None:
    state, _ = lived(name, HOMES[0], NOON, 96, price)
    assert state.heat_lacking_wh < 1e-6
    assert state.ev_departures >= 1
    assert state.ev_unmet == 0


def test_the_same_day_again_is_the_same_day() -> None:
    for name in OWN:
        assert lived(name, HOMES[0], NOON, 40, 150_000) == lived(name, HOMES[0], NOON, 40, 150_000)


# Truthful


def test_the_sun_is_offered_as_sure_as_it_is() -> None:
    """The surest part at its cost and the little risk, the rest up to what the retailer takes it for."""
    home = replace(HOMES[0], battery=None, ev=None, heat_pump=None)
    now = replace(known(home, first_state(home, NOON)), load_wh=200.0, pv_wh=1000.0)
    assert home.pv is not None
    spread = truthful(replace(now, pv_low=((0.1, 600.0), (0.25, 900.0)))).steps
    assert [step.energy_wh for step in spread] == [400, 300, 100]
    cost, dearest = home.pv.price, round(0.93 * TARIFF.export_price)
    assert [step.limit_price for step in spread] == [cost + 15_000, min(cost + 52_500, dearest), dearest]
    alike = truthful(replace(now, pv_low=((0.1, 1000.0), (0.25, 1000.0)))).steps
    assert [step.energy_wh for step in alike] == [750, 50], "no forecast is sure to the last Wh"
    unknown = truthful(replace(now, pv_low=())).steps
    assert [(step.energy_wh, step.limit_price) for step in unknown] == [(800, cost)]
    dark = truthful(replace(now, load_wh=2000.0, pv_low=((0.1, 600.0), (0.25, 900.0))))
    assert dark.steps == ()


def test_a_car_with_time_pays_no_more_than_the_retailer_will_take_later() -> None:
    home = replace(HOMES[0], battery=None, heat_pump=None, pv=None)
    now = known(home, first_state(home, NOON))
    charger = Ev(power_w=11_000, price=400_000)
    bids = [
        max(s.limit_price for s in truthful(replace(now, ev=EvNow(charger, 20_000.0, left))).steps)
        for left in (96, 48, 16, 9, 7)
    ]
    assert bids == sorted(bids)
    assert TARIFF.import_price <= bids[0] < 1.05 * TARIFF.import_price
    assert charger.price < bids[3]
    assert bids[4] == TARIFF.cap


# Zero intelligence


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(HOMES), times)
def test_zero_intelligence_never_trades_at_a_loss(home: Household, time: int) -> None:
    now = known(home, first_state(home, time))
    for honest, drawn in zip(truthful(now).steps, zero_intelligence(now).steps, strict=True):
        assert replace(drawn, limit_price=0) == replace(honest, limit_price=0)
        if honest.side == Side.ASK:
            assert honest.limit_price <= drawn.limit_price <= max(honest.limit_price, TARIFF.import_price)
        elif honest.limit_price < TARIFF.cap:
            assert min(honest.limit_price, TARIFF.export_price) <= drawn.limit_price <= honest.limit_price
        else:
            assert drawn.limit_price == TARIFF.cap, "what cannot wait is no trader's to gamble with"


def test_zero_intelligence_draws_evenly_and_anew_for_each_household_and_interval() -> None:
    now = replace(known(HOMES[0], first_state(HOMES[0], NOON)), ev=None, battery=None, heat_pump=None)
    value = truthful(now).steps[0].limit_price
    limits = [
        zero_intelligence(replace(now, interval_start=start, household=household)).steps[0].limit_price
        for start in range(0, 200 * SECONDS, SECONDS)
        for household in ("load:1", "load:2")
    ]
    parts = (np.array(limits) - value) / (TARIFF.import_price - value)
    assert len(set(limits)) == len(limits)
    assert np.mean(parts) == pytest.approx(0.5, abs=0.05)
    assert np.std(parts) == pytest.approx(1 / 12**0.5, abs=0.03)


# Adaptive


def test_an_adaptive_seller_learns_to_ask_what_the_market_pays() -> None:
    home = replace(HOMES[0], battery=None, ev=None, heat_pump=None)
    value = truthful(known(home, first_state(home, NOON))).steps[0].limit_price
    _, offers = lived("adaptive", home, NOON - 3 * 3600, 28, 120_000)
    asks = [offer.steps[0].limit_price for offer in offers]
    assert asks[0] < 1.2 * value
    assert np.mean(asks[-8:]) == pytest.approx(120_000, rel=0.15)
    assert min(asks) >= value, "never below its own value"
    assert {step.limit_price for step in offers[-1].steps} == {asks[-1]}, "nor dearer than what it learnt"


def test_an_adaptive_seller_that_was_left_out_asks_less() -> None:
    home = replace(HOMES[0], battery=None, ev=None, heat_pump=None)
    now = known(home, first_state(home, NOON))
    first = adaptive(now)
    learnt = {"pv ask": first.memory["pv ask"] | {"markup": 3.0}}
    dear = adaptive(replace(now, memory=learnt))
    plan = Plan(dear.steps, 0, tuple(0 for _ in dear.steps), dear.steps[0].limit_price // 2)
    after = adaptive(replace(now, memory=dear.memory, last=plan))
    assert after.steps[0].limit_price < dear.steps[0].limit_price


# The manager


def test_the_manager_buys_the_vehicle_its_cheap_hours_by_what_it_heard() -> None:
    """At home from the evening on, told of dear evenings and cheap nights: it waits, and bids the night's
    price."""
    home = replace(HOMES[0], battery=None, heat_pump=None, pv=None)
    stay = home.stay(NOON // DAY_S)
    evening = (stay.arrival // SECONDS + 1) * SECONDS
    prices = {str(hour): 100_000.0 if hour < 5 else 290_000.0 for hour in range(24)}
    memory = {"prices": prices, "off": 0.0, "error": 5_000.0}
    state = replace(first_state(home, evening), memory=memory, ev_charged_wh=0.0)
    bids = [s.limit_price for s in manager(known(home, state)).steps if s.device == "ev"]
    assert bids
    assert max(bids) < 200_000
    ignorant = [s.limit_price for s in manager(known(home, replace(state, memory={}))).steps]
    assert max(ignorant) > max(bids)


def test_the_manager_keeps_its_sun_where_it_is_worth_more_than_the_price() -> None:
    home = replace(HOMES[0], ev=None, heat_pump=None)
    cheap = {str(hour): 30_000.0 if hour == 12 else 290_000.0 for hour in range(24)}
    state = replace(first_state(home, NOON), battery_wh=0.0)
    state = replace(state, memory={"prices": cheap, "off": 0.0, "error": 5_000.0})
    now = known(home, state)
    assert now.battery is not None
    surplus_wh = now.pv_wh - min(now.pv_wh, now.load_wh)
    sold_wh = sum(s.energy_wh for s in manager(now).steps if s.device == "pv")
    room_wh = now.battery.battery.charge_room_wh(0.0, 0.25)
    assert surplus_wh > 0
    assert sold_wh == pytest.approx(max(0.0, surplus_wh - room_wh), abs=1)


def test_the_manager_earns_more_than_the_truth_where_prices_have_a_rhythm() -> None:
    """Two days of the same household at a price that the truthful cannot foresee, by the retail value of what
    is left: planning pays."""

    def cost(name: str) -> float:
        home, time = replace(HOMES[0], heat_pump=None), NOON - 12 * 3600
        state, plans, total = first_state(home, time), dict[int, Plan](), 0.0
        for step in range(3 * 96):
            start = state.time + SECONDS
            price = 60_000 if (start // 3600) % 24 in range(1, 5) else 250_000
            offer = load_strategy(name)(situation(home, state, plans.get, start, SECONDS, TARIFF))
            filled = tuple(s.energy_wh if is_filled(s, price) else 0 for s in offer.steps)
            sides = {s.side for s, wh in zip(offer.steps, filled, strict=True) if wh}
            told = price if sides == {Side.ASK} else price + TARIFF.local_fee
            plans[start] = Plan(offer.steps, offer.firm_import_wh, filled, told)
            before, lived_price = state, 60_000 if (state.time // 3600) % 24 in range(1, 5) else 250_000
            state = live(home, replace(state, memory=offer.memory), plans.get(state.time), SECONDS)
            net_wh = state.export_wh - before.export_wh - state.import_wh + before.import_wh
            if step >= 96:  # the first day is for learning
                total -= net_wh * (lived_price + (TARIFF.local_fee if net_wh < 0 else 0)) / 1e9
        return total - at_hand_wh(home, state) * 150_000 / 1e9

    assert cost("manager") < cost("truthful")


# Choosing and adding strategies


def test_strategies_are_shared_out_among_those_with_a_choice() -> None:
    chosen = HouseholdSettings(ev_share=0.5, strategies={"manager": 0.5, "adaptive": 0.25})
    made = [home for seed in range(60) for home in households(PROFILES, chosen, seed)]
    bare = {home.strategy for home in made if not home.kind}
    assert bare == {"truthful"}
    owners = [home.strategy for home in made if home.kind]
    parts = {name: owners.count(name) / len(owners) for name in ("manager", "adaptive", "truthful")}
    assert parts == pytest.approx({"manager": 0.5, "adaptive": 0.25, "truthful": 0.25}, abs=0.12)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"strategy": "greedy"}, "is no strategy; installed are adaptive, manager, truthful"),
        ({"strategies": {"greedy": 0.5}}, "'greedy' is no strategy"),
        ({"strategies": {"manager": 0.7, "adaptive": 0.7}}, "sum to 1.4"),
    ],
)
def test_a_strategy_that_there_is_not_is_refused_by_name(setting: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        HouseholdSettings(**setting)


def test_all_own_strategies_are_entry_points() -> None:
    assert set(OWN) <= set(strategy_names())


def test_a_strategy_of_another_distribution_needs_no_change_here(tmp_path: Path) -> None:
    """A distribution as pip installs it: a module and its metadata on the path."""
    (tmp_path / "lazy.py").write_text(
        "from meters.strategies.interface import Offer, Situation\n"
        "def lazy(situation: Situation) -> Offer:\n"
        "    nights = situation.memory.get('nights', 0) + 1\n"
        "    return Offer(round(situation.load_wh), 0, (), {'nights': nights})\n"
    )
    metadata = tmp_path / "lazy_strategy-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lazy-strategy\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[peergrid.strategies]\nlazy = lazy:lazy\nbroken = lazy:industrious\n"
    )
    code = """
from meters.strategies import load_strategy, strategy_names
from meters.household.settings import HouseholdSettings
from tests.meters.test_strategies import HOMES, lived, NOON
assert {"lazy", "broken", "truthful"} <= set(strategy_names())
print(HouseholdSettings(strategies={"lazy": 0.5}).strategies)
state, offers = lived("lazy", HOMES[0], NOON, 3, 100_000)
print(state.memory, {len(offer.steps) for offer in offers})
try:
    HouseholdSettings(strategy="broken")
except ValueError as error:
    print(error)
"""
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert "{'lazy': 0.5}" in done.stdout
    assert "{'nights': 3} {0}" in done.stdout
    assert "(lazy:industrious) cannot be loaded" in done.stdout


def test_the_managers_vehicle_is_ready_half_an_hour_before_it_has_to_be() -> None:
    """At a price that it takes for dear until the last hour, so that it waits as long as it dares."""
    home = replace(HOMES[0], battery=None, heat_pump=None, pv=None)
    stay = home.stay(NOON // DAY_S)
    start = (stay.arrival // SECONDS + 1) * SECONDS
    state = replace(first_state(home, start), ev_charged_wh=0.0)
    plans = dict[int, Plan]()
    while state.time + 3 * SECONDS <= stay.departure:
        opens = state.time + SECONDS
        offer = manager(situation(home, state, plans.get, opens, SECONDS, TARIFF))
        filled = tuple(s.energy_wh if s.limit_price >= TARIFF.cap else 0 for s in offer.steps)
        plans[opens] = Plan(offer.steps, offer.firm_import_wh, filled, 900_000)
        state = live(home, replace(state, memory=offer.memory), plans.get(state.time), SECONDS)
    assert state.ev_charged_wh == pytest.approx(stay.need_wh, abs=SECONDS / 3600 * RICH.ev_power_w)
    while state.time + SECONDS <= stay.departure:
        opens = state.time + SECONDS
        offer = manager(situation(home, state, plans.get, opens, SECONDS, TARIFF))
        plans[opens] = Plan(offer.steps, offer.firm_import_wh, tuple(s.energy_wh for s in offer.steps), 1)
        state = live(home, replace(state, memory=offer.memory), plans.get(state.time), SECONDS)
    assert (state.ev_departures, state.ev_unmet) == (1, 0)
