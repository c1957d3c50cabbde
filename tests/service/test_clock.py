"""The market's clock beside the machine's: it follows a drift, passes over a step, and never goes back."""

from __future__ import annotations

import pytest

from market.service.clock import STEP_S, WallClock
from tests.faults.promise import promise

BEGAN = 1_465_948_800.0


class Machine:
    """``passed_s`` is true time; the time of day is ``off_s`` beside it."""

    def __init__(self) -> None:
        self.passed_s = self.off_s = 0.0
        self.clock = WallClock(
            time_of_day=lambda: BEGAN + self.passed_s + self.off_s, monotonic=lambda: self.passed_s
        )


@pytest.mark.parametrize("off_s", [-3600.0, 3600.0, STEP_S + 1, -STEP_S - 1])
def test_a_step_of_the_machines_clock_is_told_and_not_followed(off_s: float) -> None:
    promise("the machine's clock is set wrong: the market's goes on and tells how far they are apart")
    machine = Machine()
    machine.passed_s, machine.off_s = 10.0, off_s
    assert machine.clock.follow() == off_s
    assert machine.clock.exactly() == BEGAN + 10.0
    machine.off_s = 0.0
    assert machine.clock.follow() == 0.0


def test_a_drift_is_followed_and_time_never_goes_back() -> None:
    promise("a machine's clock that is put right by some seconds takes the market's with it, but never back")
    machine = Machine()
    machine.passed_s, machine.off_s = 10.0, 2.0
    assert machine.clock.follow() == 0.0
    assert machine.clock.exactly() == BEGAN + 12.0
    machine.off_s = -1.0
    assert machine.clock.follow() == 0.0
    assert machine.clock.exactly() == BEGAN + 12.0, "it waits"
    machine.passed_s = 20.0
    assert machine.clock.exactly() == BEGAN + 19.0
