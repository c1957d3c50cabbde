"""The home's plan: what a hand would reckon, balances that close, and never worse than doing nothing."""

from __future__ import annotations

from dataclasses import replace

import highspy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid.errors import SolverError
from grid.feeder import Floats
from meters.strategies import home_plan
from meters.strategies.home_plan import STEPS, Home, plan_home

NOTHING = np.zeros(STEPS)
BARE = Home(
    buy=np.full(STEPS, 300_000.0),
    sell=np.full(STEPS, 80_000.0),
    demand=NOTHING,
    sun=NOTHING,
    ev_max=NOTHING,
    heat_max=NOTHING,
    heat_out=NOTHING,
    cop=np.full(STEPS, 3.0),
    battery_max=0.0,
    battery_step=0.0,
    battery_stored=0.0,
    battery_end=0.0,
    charged_part=1.0,
    wear=0.0,
    ev_need=0.0,
    unmet=2_000_000.0,
    heat_store_max=0.0,
    heat_stored=0.0,
    heat_end=0.0,
)


def steps(**values: float) -> Floats:
    """Zeros but at the named steps: ``_3=100`` is 100 at step 3."""
    made = np.zeros(STEPS)
    for name, value in values.items():
        made[int(name[1:])] = value
    return made


def random_home(seed: int) -> Home:
    random = np.random.default_rng(seed)
    price = random.uniform(-20_000, 300_000, STEPS)
    return Home(
        buy=price + 20_000,
        sell=price,
        demand=random.uniform(0, 2_000, STEPS),
        sun=random.uniform(0, 6_000, STEPS) * (random.random(STEPS) < 0.5),
        ev_max=np.where(np.arange(STEPS) < random.integers(1, STEPS), 9_000.0, 0.0),
        heat_max=np.full(STEPS, 3_000.0),
        heat_out=random.uniform(0, 6_000, STEPS),
        cop=random.uniform(2, 4, STEPS),
        battery_max=10_000.0,
        battery_step=5_000.0,
        battery_stored=random.uniform(0, 10_000),
        battery_end=random.uniform(0, 300_000),
        charged_part=0.95,
        wear=20_000.0,
        ev_need=random.uniform(0, 40_000),
        unmet=2_000_000.0,
        heat_store_max=12_000.0,
        heat_stored=random.uniform(0, 12_000),
        heat_end=random.uniform(0, 100_000),
    )


homes = st.integers(0, 10_000).map(random_home)


def test_a_battery_by_hand() -> None:
    """1 kWh of sun at noon, sold at 8 ct or kept for an evening's kWh at 30 ct: 0.81 of it arrive, for 1 ct
    of wear each way. Kept: 24.3 ct less, 1 ct + 0.81 ct wear, 5.7 ct for the rest of the evening's kWh.
    """
    home = replace(
        BARE,
        sun=steps(_2=1000),
        demand=steps(_8=1000),
        battery_max=5_000,
        battery_step=5_000,
        charged_part=0.9,
        wear=20_000,
    )
    plan = plan_home(home)
    assert plan.charge_wh[2] == pytest.approx(1000)
    assert plan.discharge_wh[8] == pytest.approx(810)
    assert plan.cost_ueur == pytest.approx(0.19 * 300_000 + 10_000 * (1 + 0.81))
    # A stored kWh gives 0.9 kWh in the evening, each of them worth 30 ct less 1 ct of wear.
    assert plan.battery_value == pytest.approx(0.9 * (300_000 - 10_000))


def test_a_battery_that_would_lose_rests() -> None:
    home = replace(
        BARE,
        buy=np.full(STEPS, 100_000.0),
        sell=np.full(STEPS, 90_000.0),
        sun=steps(_2=1000),
        demand=steps(_8=1000),
        battery_max=5_000,
        battery_step=5_000,
        charged_part=0.9,
        wear=20_000,
    )
    plan = plan_home(home)
    assert plan.charge_wh.sum() == plan.discharge_wh.sum() == 0
    assert plan.cost_ueur == pytest.approx(100_000 - 90_000)


def test_a_vehicle_by_hand() -> None:
    """12 kWh by step 4, at most 5 an hour: the three cheapest of four hours, of the third 2 kWh. One more
    kWh would be charged there."""
    home = replace(
        BARE,
        buy=np.r_[[300_000.0, 100_000.0, 200_000.0, 250_000.0], np.full(STEPS - 4, 10_000.0)],
        sell=np.zeros(STEPS),
        ev_max=np.r_[np.full(4, 5_000.0), np.zeros(STEPS - 4)],
        ev_need=12_000,
    )
    plan = plan_home(home)
    assert plan.ev_wh[:4] == pytest.approx([0, 5_000, 5_000, 2_000])
    assert plan.ev_value == pytest.approx(250_000)
    assert plan.cost_ueur == pytest.approx(5 * 100_000 + 5 * 200_000 + 2 * 250_000)


def test_a_heat_pump_by_hand() -> None:
    """6 kWh of heat at step 3, a store of 4: 2 kWh of heat at the cheap step 1 and what the band allows."""
    home = replace(
        BARE,
        buy=np.r_[[300_000.0, 100_000.0, 300_000.0, 200_000.0], np.full(STEPS - 4, 300_000.0)],
        sell=np.zeros(STEPS),
        heat_max=np.full(STEPS, 3_000.0),
        heat_out=steps(_3=6_000),
        cop=np.full(STEPS, 2.0),
        heat_store_max=4_000,
    )
    plan = plan_home(home)
    assert plan.heat_pump_wh[:4] == pytest.approx([0, 2_000, 0, 1_000])
    assert plan.cost_ueur == pytest.approx(2 * 100_000 + 1 * 200_000)


def test_need_that_cannot_be_met_is_left_unmet_and_told_by_its_price() -> None:
    home = replace(BARE, ev_max=steps(_0=5_000), ev_need=12_000)
    plan = plan_home(home)
    assert plan.ev_wh[0] == pytest.approx(5_000)
    assert plan.ev_value == pytest.approx(2_000_000)


@settings(deadline=None, max_examples=25)
@given(homes)
def test_every_balance_closes_within_the_devices(home: Home) -> None:
    plan = plan_home(home)
    stored = home.battery_stored + np.cumsum(
        home.charged_part * plan.charge_wh - plan.discharge_wh / home.charged_part
    )
    assert stored.min() > -1e-3
    assert stored.max() < home.battery_max + 1e-3
    assert max(plan.charge_wh.max(), plan.discharge_wh.max()) <= home.battery_step + 1e-3
    assert (plan.ev_wh <= home.ev_max + 1e-3).all()
    assert plan.ev_wh.sum() <= home.ev_need + 1e-3
    used = home.demand + plan.ev_wh + plan.heat_pump_wh + plan.charge_wh
    sun = used - plan.discharge_wh - plan.bought_wh + plan.sold_wh
    assert (sun > -1e-3).all()
    assert (sun < home.sun + 1e-3).all()
    for buy, bought, sold in zip(home.buy, plan.bought_wh, plan.sold_wh, strict=True):
        assert buy < 0 or min(bought, sold) < 1e-3, "nobody sells what it buys at the same time"


@settings(deadline=None, max_examples=25)
@given(homes)
def test_a_plan_is_never_worse_than_doing_nothing_under_its_own_prices(home: Home) -> None:
    """Nothing: the battery rests, the vehicle charges at once, the heat pump makes what the house takes."""
    left = home.ev_need - np.concatenate([[0.0], np.cumsum(home.ev_max)[:-1]])
    ev = np.clip(left, 0.0, home.ev_max)
    heat = np.minimum(home.heat_out / home.cop, home.heat_max)
    lacking = (home.heat_out - heat * home.cop).clip(0)
    net = home.demand + ev + heat - home.sun
    unmet = lacking.sum() + home.ev_need - ev.sum()
    cost = (home.buy * net.clip(0) - home.sell * (-net).clip(0)).sum() + home.unmet * unmet
    cost -= home.battery_end * home.battery_stored + home.heat_end * home.heat_stored
    assert plan_home(home).cost_ueur <= cost / 1e3 + 1


@settings(deadline=None, max_examples=10)
@given(homes)
def test_the_values_are_what_a_little_more_is_worth(home: Home) -> None:
    """Duals against differences: between those of a Wh more and a Wh less."""
    plan = plan_home(home)
    for field, value, sign in (
        ("battery_stored", plan.battery_value, -1),
        ("ev_need", plan.ev_value, 1),
        ("heat_stored", plan.heat_value, -1),
    ):
        here = getattr(home, field)
        more, less = (plan_home(replace(home, **{field: here + by})).cost_ueur for by in (1.0, -1.0))
        slopes = sorted([sign * (more - plan.cost_ueur) * 1e3, sign * (plan.cost_ueur - less) * 1e3])
        assert slopes[0] - 500 <= value <= slopes[1] + 500


def test_the_same_home_has_the_same_plan_whoever_was_planned_before() -> None:
    homes_made = [random_home(seed) for seed in range(6)]
    first = [plan_home(home) for home in homes_made]
    again = [plan_home(home) for home in reversed(homes_made)][::-1]
    for one, other in zip(first, again, strict=True):
        assert (one.battery_value, one.ev_value, one.heat_value) == (
            other.battery_value,
            other.ev_value,
            other.heat_value,
        )
        assert (one.charge_wh == other.charge_wh).all()


def test_highs_is_where_this_pyomo_is_known_to_keep_it() -> None:
    """A newer one that fails here still plans the same (below), but slowly: see ``_forget``."""
    _, solver = home_plan._program()
    assert isinstance(solver._solver_model, highspy.Highs)


def test_pyomos_public_way_of_forgetting_plans_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = [plan_home(random_home(seed)) for seed in range(5)]
    monkeypatch.setattr(home_plan, "_forget", lambda solver, model: solver.set_instance(model))
    for seed, plan in enumerate(plans):
        anew = plan_home(random_home(seed))
        for name, value in vars(plan).items():
            np.testing.assert_array_equal(getattr(anew, name), value)


def test_a_price_that_is_no_number_is_refused() -> None:
    with pytest.raises(SolverError, match="buy that is not finite"):
        plan_home(replace(BARE, buy=np.full(STEPS, np.nan)))
