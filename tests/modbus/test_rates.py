"""What an award asks of a device, and when it is free again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meters.modbus.rates import Actuator, ramp, reverts_s, wanted_w
from meters.source import Setpoint

PV = Actuator("generator", 5000)
BATTERY = Actuator("battery", 3000)
START, END = 900_000, 900_900


def setpoint(flexible_w: int, offered_w: int = 10_000) -> Setpoint:
    return Setpoint(START, END, net_w=flexible_w, flexible_w=flexible_w, offered_w=offered_w)


@pytest.mark.parametrize(
    ("actuator", "flexible_w", "wanted"),
    [
        (PV, 2000, 2000),
        (PV, 0, 0),
        (PV, -50, 0),
        (PV, 9000, 5000),
        (BATTERY, -9000, -3000),
        (BATTERY, 10, 10),
    ],
)
def test_an_award_is_followed_within_the_device_s_limits(
    actuator: Actuator, flexible_w: int, wanted: int
) -> None:
    assert wanted_w(setpoint(flexible_w), actuator) == wanted


def test_a_generator_that_was_awarded_everything_is_free() -> None:
    assert wanted_w(setpoint(4000, offered_w=4000), PV) is None
    assert wanted_w(setpoint(3000, offered_w=3000), BATTERY) == 3000


def test_no_award_is_freedom() -> None:
    assert wanted_w(None, PV) is None
    assert wanted_w(None, BATTERY) is None


def test_the_device_frees_itself_two_intervals_after_the_award_s() -> None:
    assert reverts_s(setpoint(1), START) == 3 * 900
    assert reverts_s(setpoint(1), END + 2 * 900 - 10) == 10


@given(st.integers(0, 10**12))
def test_it_is_never_told_to_hold_for_ever(now: int) -> None:
    assert reverts_s(setpoint(1), now) >= 1  # 0 would mean that


@given(st.integers(-10_000, 10_000), st.integers(-10_000, 10_000), st.integers(0, 15))
def test_a_ramp_goes_one_way_in_equal_steps_and_arrives(from_w: int, to_w: int, steps: int) -> None:
    powers = ramp(from_w, to_w, steps)
    assert powers[-1] == to_w
    assert len(powers) <= max(1, steps)
    changes = [after - before for before, after in zip([from_w, *powers], powers, strict=False)]
    assert max(changes) - min(changes) <= 1 or to_w < from_w
    assert all(change * (to_w - from_w) >= 0 for change in changes)
