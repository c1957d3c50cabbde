"""Registers that only rise: measured or nothing, whatever the device's register does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meters.modbus.energy import (
    CONFIRM_S,
    CONFIRM_SAMPLES,
    Counter,
    Event,
    Outcome,
    RawRegister,
    Sample,
    State,
    accumulate,
    bound_wh,
)

FUSE_W = 43_470
NOW = 1_763_800_000
WIDTH = 2**32


def sample(
    at: int, import_wh: int, export_wh: int = 0, *, modulus: int | None = WIDTH, who: str = "A"
) -> Sample:
    return Sample(NOW + at, RawRegister(import_wh, 1, modulus), RawRegister(export_wh, 1, modulus), who)


def follow(samples: list[Sample], elapsed: list[float | None] | None = None) -> list[Outcome]:
    state, outcomes = None, []
    for number, one in enumerate(samples):
        outcome = accumulate(state, one, FUSE_W, elapsed[number] if elapsed else None)
        outcomes.append(outcome)
        state = outcome.state
    return outcomes


def test_what_the_register_says_is_what_goes_on() -> None:
    last = follow([sample(0, 1000, 7), sample(900, 1100, 9), sample(1800, 1100, 12)])[-1]
    assert (last.state.imported.total_wh, last.state.exported.total_wh) == (1100, 12)
    assert last.event is Event.MEASURED


def test_a_register_that_rolls_over_goes_on() -> None:
    outcomes = follow([sample(0, WIDTH - 3), sample(900, 4), sample(1800, 10)])
    assert [outcome.event for outcome in outcomes[1:]] == [Event.ROLLED_OVER, Event.MEASURED]
    assert outcomes[-1].state.imported.total_wh == WIDTH + 10
    assert outcomes[-1].state.epoch == 0


def test_a_gap_keeps_the_total_exact() -> None:
    last = follow([sample(0, 1000), sample(36 * 3600, 250_000)])[-1]
    assert last.state.imported.total_wh == 250_000


def test_a_reset_is_believed_when_it_stays_and_starts_an_epoch() -> None:
    outcomes = follow([sample(0, 500_000), *(sample(900 + 30 * n, 3 + n) for n in range(CONFIRM_SAMPLES))])
    assert [outcome.event for outcome in outcomes[1:]] == [Event.SUSPECT, Event.SUSPECT, Event.NEW_EPOCH]
    assert outcomes[-2].state.imported.total_wh == 500_000
    assert (outcomes[-1].state.epoch, outcomes[-1].state.imported.total_wh) == (1, 5)


def test_a_glitch_leaves_nothing_behind() -> None:
    outcomes = follow([sample(0, 500_000), sample(900, 0), sample(910, 500_100)])
    assert [outcome.event for outcome in outcomes[1:]] == [Event.SUSPECT, Event.MEASURED]
    assert outcomes[-1].state == replace(
        outcomes[0].state, taken_at=NOW + 910, imported=Counter(500_100, 500_100)
    )


def test_glitches_that_do_not_go_on_from_each_other_are_never_believed() -> None:
    wild = [0, 4_000_000_000, 17, 2_000_000_000, 99_000_000, 0]
    outcomes = follow([sample(0, 500_000), *(sample(900 + 60 * n, wh) for n, wh in enumerate(wild))])
    assert all(outcome.event is Event.SUSPECT for outcome in outcomes[1:])


def test_a_quick_reset_waits_until_the_time_is_up() -> None:
    outcomes = follow([sample(0, 500_000), *(sample(900 + n, 3) for n in range(CONFIRM_S))])
    assert all(outcome.event is Event.SUSPECT for outcome in outcomes[1:])


def test_two_samples_are_not_enough_however_far_apart() -> None:
    outcomes = follow([sample(0, 500_000), sample(900, 3), sample(1800, 4), sample(2700, 5)])
    assert [outcome.event for outcome in outcomes[1:]] == [Event.SUSPECT, Event.SUSPECT, Event.NEW_EPOCH]


def test_a_spike_above_the_fuse_adds_nothing() -> None:
    most = bound_wh(FUSE_W, 900, 1)
    assert follow([sample(0, 0), sample(900, most)])[-1].event is Event.MEASURED
    spike = follow([sample(0, 0), sample(900, most + 1), sample(1800, 100)])
    assert [outcome.event for outcome in spike[1:]] == [Event.SUSPECT, Event.MEASURED]
    assert spike[-1].state.imported.total_wh == 100


def test_a_new_serial_number_is_a_new_epoch_at_once() -> None:
    last = follow([sample(0, 500_000), sample(900, 500_050, who="B")])[-1]
    assert (last.event, last.state.epoch) == (Event.NEW_EPOCH, 1)
    assert last.reason == "serial number A became B"


def test_a_device_that_hides_its_number_for_once_stays_the_same() -> None:
    last = follow([sample(0, 1000), sample(900, 1010, who=""), sample(1800, 1020)])[-1]
    assert (last.event, last.state.epoch, last.state.identity) == (Event.MEASURED, 0, "A")


def test_a_value_that_falls_within_its_resolution_neither_falls_nor_counts_twice() -> None:
    def coarse(at: int, wh: int) -> Sample:
        return Sample(NOW + at, RawRegister(wh, 100), RawRegister(0))

    totals = [
        outcome.state.imported.total_wh
        for outcome in follow([coarse(0, 1000), coarse(60, 900), coarse(120, 1000)])
    ]
    assert totals == [1000, 1000, 1000]


@pytest.mark.parametrize("jump", [3600, -3600, 86_400 * 365])
def test_a_clock_that_was_set_is_told_and_changes_no_energy(jump: int) -> None:
    samples = [sample(0, 1000), sample(900 + jump, 1100)]
    last = follow(samples, [None, 900.0])[-1]
    assert last.clock_jumped
    assert (last.event, last.state.imported.total_wh) == (Event.MEASURED, 1100)


def test_a_clock_set_ahead_does_not_make_room_for_a_spike() -> None:
    samples = [sample(0, 1000), sample(86_400 * 365, 1_000_000)]
    assert follow(samples, [None, 900.0])[-1].event is Event.SUSPECT


def test_the_state_survives_a_restart() -> None:
    for outcome in follow([sample(0, 500_000), sample(900, 0), sample(1800, 500_000)]):
        assert State.from_json(outcome.state.to_json()) == outcome.state


raws = st.integers(0, WIDTH - 1) | st.integers(0, 2_000_000)
steps = st.tuples(st.integers(-100, 4000), raws, raws, st.sampled_from(["", "A", "B"]))


@given(st.lists(steps, min_size=2, max_size=30), st.booleans())
def test_whatever_is_read_energy_is_never_negative_and_never_invented(
    walk: list[tuple[int, int, int, str]], by_clock: bool
) -> None:
    """Within an epoch registers only rise, and no faster than the fuse lets them."""
    state, at = None, NOW
    for seconds, import_wh, export_wh, who in walk:
        at += seconds
        before = state
        one = Sample(at, RawRegister(import_wh, 1, WIDTH), RawRegister(export_wh, 1, WIDTH), who)
        elapsed = None if by_clock else max(0.0, float(seconds))
        outcome = accumulate(state, one, FUSE_W, elapsed)
        state = outcome.state
        if before is None or state.epoch != before.epoch:
            continue
        since = max(0, at - before.taken_at) if by_clock else max(0, seconds)
        for now, then in ((state.imported, before.imported), (state.exported, before.exported)):
            assert 0 <= now.total_wh - then.total_wh <= bound_wh(FUSE_W, since, 1)
        if outcome.event is Event.SUSPECT:
            assert (state.imported, state.exported) == (before.imported, before.exported)


@given(
    st.integers(0, WIDTH - 1),
    st.lists(st.tuples(st.integers(1, 90_000), st.integers(0, FUSE_W)), max_size=30),
    st.data(),
)
def test_true_energy_comes_through_whatever_is_lost_on_the_way(
    first_wh: int, walk: list[tuple[int, int]], data: st.DataObject
) -> None:
    """A meter behind its fuse, read now and then, with glitches between: the last total is exact."""
    true_wh, at = first_wh, NOW
    state = accumulate(None, Sample(at, RawRegister(true_wh, 1, WIDTH), RawRegister(0)), FUSE_W, None).state
    for seconds, power_w in walk:
        at += seconds
        true_wh += seconds * power_w // 3600
        if data.draw(st.booleans(), label="glitch"):
            glitch = Sample(at, RawRegister((true_wh + WIDTH // 2) % WIDTH, 1, WIDTH), RawRegister(0))
            state = accumulate(state, glitch, FUSE_W, None).state
        one = Sample(at, RawRegister(true_wh % WIDTH, 1, WIDTH), RawRegister(0))
        outcome = accumulate(state, one, FUSE_W, None)
        assert outcome.event in (Event.MEASURED, Event.ROLLED_OVER)
        state = outcome.state
    assert state.imported.total_wh == true_wh
    assert state.epoch == 0
