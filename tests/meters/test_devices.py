"""Devices neither make nor burn energy, and stay within what they can hold."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meters.household.devices import Battery, Ev, HeatPump, Pv

energies = st.floats(0, 20_000)
batteries = st.builds(
    Battery,
    capacity_wh=st.floats(100, 30_000),
    power_w=st.floats(100, 15_000),
    efficiency=st.floats(0.5, 1),
)


@settings(deadline=None)
@given(batteries, st.floats(0, 1), st.lists(st.tuples(energies, energies), max_size=30))
def test_a_battery_stays_within_its_capacity_and_gives_no_more_than_it_took(
    battery: Battery, fraction: float, awards: list[tuple[float, float]]
) -> None:
    stored_wh = first_wh = fraction * battery.capacity_wh
    given_wh = taken_wh = 0.0
    for charge_wh, discharge_wh in awards:
        stored_wh, net_wh = battery.run(stored_wh, charge_wh, discharge_wh, 0.25)
        assert 0 <= stored_wh <= battery.capacity_wh
        assert abs(net_wh) <= battery.power_w * 0.25 + 1e-9
        given_wh += max(net_wh, 0.0)
        taken_wh += max(-net_wh, 0.0)
    balance_wh = first_wh + taken_wh * battery.one_way - given_wh / battery.one_way
    assert stored_wh == pytest.approx(balance_wh, abs=1e-6)


@settings(deadline=None)
@given(batteries, st.floats(0, 1), energies)
def test_a_battery_follows_an_award_that_it_offered(
    battery: Battery, fraction: float, energy_wh: float
) -> None:
    stored_wh = fraction * battery.capacity_wh
    charge_wh = min(energy_wh, battery.charge_room_wh(stored_wh, 0.25))
    assert battery.run(stored_wh, charge_wh, 0.0, 0.25)[1] == pytest.approx(-charge_wh)
    discharge_wh = min(energy_wh, battery.discharge_room_wh(stored_wh, 0.25))
    assert battery.run(stored_wh, 0.0, discharge_wh, 0.25)[1] == pytest.approx(discharge_wh)


@settings(deadline=None)
@given(st.floats(-1, 50_000), st.floats(100, 20_000))
def test_an_inverter_clips_and_never_consumes(modules_w: float, rated_w: float) -> None:
    assert 0 <= Pv(rated_w, 20_000).available_w(modules_w) <= rated_w


@settings(deadline=None)
@given(energies, energies, st.integers(0, 20_000), st.integers(0, 20_000))
def test_only_an_award_below_the_offer_curtails_and_never_below_the_own_load(
    available_wh: float, load_wh: float, offered: int, awarded: int
) -> None:
    flows_wh = Pv.delivered_wh(available_wh, load_wh, offered, awarded)
    if awarded >= offered:
        assert flows_wh == available_wh
    else:
        assert flows_wh == min(available_wh, awarded + load_wh)
        assert flows_wh - load_wh <= awarded + 1e-6


@settings(deadline=None)
@given(st.floats(-100, 20_000), st.floats(1000, 22_000))
def test_a_charger_takes_what_is_needed_within_its_power(remaining_wh: float, power_w: float) -> None:
    room_wh = Ev(power_w, 300_000).charge_room_wh(remaining_wh, 0.25)
    assert 0 <= room_wh <= power_w * 0.25
    assert room_wh <= max(remaining_wh, 0)


heat_pumps = st.builds(
    HeatPump,
    power_w=st.floats(500, 20_000),
    capacity_wh=st.floats(1_000, 100_000),
    loss_w_per_k=st.floats(0, 20),
    ground=st.booleans(),
)


@settings(deadline=None)
@given(heat_pumps, st.floats(0, 1), st.lists(st.tuples(energies, st.floats(0, 5_000)), max_size=30))
def test_a_heat_stores_balance_closes_and_it_stays_in_its_band(
    pump: HeatPump, fraction: float, intervals: list[tuple[float, float]]
) -> None:
    stored_wh = first_wh = fraction * pump.capacity_wh
    made_wh = taken_wh = lost_wh = lacked_wh = surplus_wh = 0.0
    for electric_wh, demand_wh in intervals:
        loss_wh, most_wh = pump.loss_wh(stored_wh, 0.25), pump.power_w * 0.25
        before_wh = stored_wh
        stored_wh, used_wh, lacking_wh = pump.run(stored_wh, electric_wh, demand_wh, 3.0, 0.25)
        assert 0 <= stored_wh <= pump.capacity_wh
        assert 0 <= used_wh <= most_wh
        if lacking_wh > 1e-6:
            assert used_wh == most_wh, "comfort is given up only where the power does not suffice"
        if before_wh + 3.0 * most_wh >= demand_wh + loss_wh:
            assert lacking_wh <= 1e-6
        made_wh += 3.0 * used_wh
        taken_wh += demand_wh
        lost_wh += loss_wh
        lacked_wh += lacking_wh
    balance_wh = first_wh + made_wh + lacked_wh - taken_wh - lost_wh - surplus_wh
    assert stored_wh == pytest.approx(balance_wh, abs=1e-5)


@settings(deadline=None)
@given(heat_pumps, st.floats(0, 1), energies, st.floats(0, 5_000))
def test_a_heat_pump_follows_an_award_between_its_least_and_its_most(
    pump: HeatPump, fraction: float, electric_wh: float, demand_wh: float
) -> None:
    stored_wh = fraction * pump.capacity_wh
    least_wh = pump.least_wh(stored_wh, demand_wh, 3.0, 0.25)
    most_wh = pump.most_wh(stored_wh, demand_wh, 3.0, 0.25)
    assert least_wh <= most_wh
    awarded_wh = min(max(electric_wh, least_wh), most_wh)
    assert pump.run(stored_wh, awarded_wh, demand_wh, 3.0, 0.25)[1] == awarded_wh


def test_heat_costs_most_electricity_on_a_winters_night_and_the_ground_is_steadier() -> None:
    air, ground = HeatPump(5_000, 10_000, 1.0), HeatPump(5_000, 10_000, 1.0, ground=True)
    winter, summer = 1_453_276_800 + 4 * 3600, 1_468_404_000  # 20 January 4:00, 13 July 10:00
    assert 1.5 < air.cop(winter) < air.cop(summer) < 5
    assert ground.cop(winter) == ground.cop(summer)
    assert ground.cop(winter) > air.cop(winter)
