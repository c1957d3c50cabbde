"""What a meter in real time does with its clock, its registers and its awards."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.messages.models import Gate, Quality, Side
from meters.household.devices import Battery, Pv
from meters.outbox import HistoryRow
from meters.own_history import OwnHistory
from meters.source import RegisterReading, Setpoint, SourceError, between
from meters.strategies.interface import BatteryNow, OfferedStep
from meters.strategies.truthful import truthful
from meters.trader import Ordered, Proposal
from meters.wall_clock import CAUGHT_UP_MAX, due_boundaries, energies, readings_to_record, setpoint
from tests.meters.scripted_market import SECONDS, gate_of

NOON = 1_795_348_800
PV = Pv(rated_w=5_000, price=20_000)


def read_at(time: int, import_wh: int = 0, export_wh: int = 0, epoch: int = 0) -> RegisterReading:
    return RegisterReading(time, import_wh, export_wh, power_w=0, epoch=epoch)


def test_a_new_meter_reads_at_once_and_then_at_every_boundary() -> None:
    assert list(due_boundaries(None, NOON + 100, SECONDS)) == [NOON]
    assert list(due_boundaries(read_at(NOON + 100), NOON + 899, SECONDS)) == []
    assert list(due_boundaries(read_at(NOON + 100), NOON + 900, SECONDS)) == [NOON + 900]


@pytest.mark.parametrize("early_or_late", [-30, 0, 30])
def test_a_reading_within_half_a_minute_is_the_boundarys(early_or_late: int) -> None:
    last = read_at(NOON + early_or_late)
    assert list(due_boundaries(last, NOON + 899, SECONDS)) == []
    assert list(due_boundaries(last, NOON + 900, SECONDS)) == [NOON + 900]


def test_an_absence_is_caught_up_with_as_far_as_a_week() -> None:
    assert list(due_boundaries(read_at(NOON), NOON + 4 * SECONDS, SECONDS)) == [
        NOON + k * SECONDS for k in range(1, 5)
    ]
    year = due_boundaries(read_at(NOON), NOON + 365 * 86_400, SECONDS)
    assert (len(year), year[-1]) == (CAUGHT_UP_MAX, NOON + 365 * 86_400)


def test_a_clock_that_was_wrong_is_believed_once_it_is_right() -> None:
    ahead = read_at(NOON + 10 * 365 * 86_400, 5_000)
    assert list(due_boundaries(ahead, NOON, SECONDS)) == [NOON]
    assert readings_to_record(ahead, read_at(NOON + 1, 5_010), [NOON], SECONDS) == [read_at(NOON + 1, 5_010)]


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**5),
    st.integers(0, 10**5),
    st.integers(1, 50),
    st.integers(0, SECONDS - 1),
)
def test_missed_boundaries_are_filled_exactly_in_total_and_marked_as_estimated(
    before_wh: int, import_wh: int, export_wh: int, intervals: int, late_s: int
) -> None:
    last = read_at(NOON, before_wh, before_wh)
    now = NOON + intervals * SECONDS + late_s
    read = read_at(now, before_wh + import_wh, before_wh + export_wh)
    due = due_boundaries(last, now, SECONDS)
    recorded = readings_to_record(last, read, due, SECONDS)
    assert recorded[-1] == read
    filled = recorded[:-1]
    assert all(r.quality == Quality.ESTIMATED for r in filled)
    assert [r.taken_at for r in filled] == [at for at in due if at < now - 30]
    for earlier, later in pairwise([last, *recorded]):
        assert earlier.taken_at < later.taken_at
        assert earlier.import_wh <= later.import_wh
        assert earlier.export_wh <= later.export_wh


def test_nothing_is_filled_in_across_a_new_epoch() -> None:
    last, read = read_at(NOON, 5_000), read_at(NOON + 4 * SECONDS, 3, epoch=1)
    due = due_boundaries(last, read.taken_at, SECONDS)
    assert readings_to_record(last, read, due, SECONDS) == [read]


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (read_at(NOON, 5_000), "900 s older than the boundary"),
        (read_at(NOON + 4_000, 5_000), "of the future"),
        (read_at(NOON + 900, 4_999), "import_wh fell from 5000 to 4999 Wh"),
    ],
)
def test_registers_that_are_old_or_of_the_future_or_run_backwards_are_not_believed(
    read: RegisterReading, reason: str
) -> None:
    with pytest.raises(SourceError, match=reason):
        readings_to_record(read_at(NOON - 900, 5_000), read, [NOON + 900], SECONDS)


def test_between_two_readings_registers_are_shared_by_time() -> None:
    middle = between(read_at(NOON, 100, 7), read_at(NOON + 900, 200, 7), NOON + 300)
    assert (middle.import_wh, middle.export_wh, middle.power_w) == (133, 7, -400)


def test_the_energy_of_an_interval_is_known_when_both_its_ends_were_read() -> None:
    first, last = read_at(NOON + 20, 100, 5), read_at(NOON + 880, 300, 5)
    assert energies(first, last, SECONDS) == (NOON, 200, 0)
    assert energies(None, last, SECONDS) is None
    assert energies(read_at(NOON + 100), last, SECONDS) is None
    assert energies(read_at(NOON - 900), last, SECONDS) is None
    assert energies(read_at(NOON, epoch=1), last, SECONDS) is None


def ordered(awarded_wh: tuple[int, ...] | None) -> Ordered:
    steps = (OfferedStep("pv", Side.ASK, 500, 20_000), OfferedStep("pv", Side.ASK, 250, 90_000))
    return Ordered(Proposal(0, 0, 0, steps), awarded_wh, 100_000, None if awarded_wh is None else 1_600)


def test_a_setpoint_is_the_award_of_the_interval_that_runs() -> None:
    orders = {NOON: ordered((500, 100))}
    assert setpoint(orders, NOON, SECONDS) == Setpoint(NOON, NOON + 900, 1_600, 2_400, 3_000)
    assert setpoint({NOON: ordered(None)}, NOON, SECONDS) is None


def test_a_device_is_released_when_the_market_was_silent_for_two_intervals() -> None:
    orders = {NOON: ordered((500, 100)), NOON + SECONDS: ordered(None)}
    assert setpoint(orders, NOON + SECONDS, SECONDS) == setpoint(orders, NOON, SECONDS)
    assert setpoint(orders, NOON + 2 * SECONDS, SECONDS) is None


# Trading from its own past


def past(days: int, import_wh: int = 0, export_wh: int = 0) -> list[HistoryRow]:
    first = NOON - days * 86_400
    return [HistoryRow("m", start, import_wh, export_wh) for start in range(first, NOON, SECONDS)]


def gate() -> Gate:
    return gate_of(NOON + SECONDS, "OPEN")


def no_orders(_start: int) -> None:
    return None


def test_a_meter_that_never_read_orders_nothing() -> None:
    assert OwnHistory("m", lambda: None, truthful, SECONDS).propose(gate(), no_orders) is None


@pytest.mark.parametrize("days", [1, 3, 30])
def test_without_a_device_all_is_firm_at_its_forecast(days: int) -> None:
    for import_wh, export_wh in ((250, 0), (0, 400), (100, 300)):
        trader = OwnHistory("m", lambda: None, truthful, SECONDS, past(days, import_wh, export_wh))
        proposal = trader.propose(gate(), no_orders)
        assert proposal is not None
        net = export_wh - import_wh
        assert (proposal.firm_import_wh, proposal.firm_export_wh) == (max(0, -net), max(0, net))
        assert proposal.steps == ()


def test_a_generator_that_can_be_set_offers_what_it_will_feed_in() -> None:
    proposal = OwnHistory("m", lambda: PV, truthful, SECONDS, past(3, 0, 400)).propose(gate(), no_orders)
    assert proposal is not None
    assert [(step.side, step.energy_wh, step.limit_price) for step in proposal.steps] == [
        (Side.ASK, 400, 20_000)
    ]
    assert (proposal.firm_import_wh, proposal.firm_export_wh) == (0, 0)


@pytest.mark.parametrize(
    ("given_wh", "kept_wh"),
    [(100, 500), (99, 499), (60, 60), (0, 0)],
    ids=["curtailed", "nearly", "less sun than that", "none"],
)
def test_what_a_generator_was_not_let_give_is_in_its_forecast(given_wh: int, kept_wh: int) -> None:
    trader = OwnHistory("m", lambda: PV, truthful, SECONDS)
    curtailed = Ordered(Proposal(0, 0, 0, (OfferedStep("pv", Side.ASK, 500, 20_000),)), (100,), 30_000, 400)
    assert trader.observe(NOON - SECONDS, 0, given_wh, curtailed) == (0, kept_wh)


def test_what_a_battery_was_awarded_is_no_forecast_of_the_house() -> None:
    battery = BatteryNow(Battery(10_000, 5_000, 0.9), 5_000)
    trader = OwnHistory("m", lambda: battery, truthful, SECONDS)
    steps = (OfferedStep("battery", Side.BID, 600, 90_000),)
    awarded = Ordered(Proposal(200, 0, 0, steps), (500,), 90_000, -2_800)
    assert trader.observe(NOON - SECONDS, 700, 0, awarded) == (200, 0)
    proposal = trader.propose(gate(), no_orders)
    assert proposal is not None
    assert proposal.firm_import_wh == 200
    assert {step.device for step in proposal.steps} == {"battery"}
