"""The fast path against its oracles: the Pyomo reference, pandapower's power flow and its AC optimum."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from grid.feeder import Floats
from market.auction import dispatch as dispatch_module
from market.auction.clearing import clear_book, power_flow
from market.auction.columns import Columns, columns_of
from market.auction.dispatch import Dispatch, dispatch
from market.auction.lp import TRADE_PREFERENCE_EUR_PER_MWH, ClearingProgram, LpSolution
from market.auction.reference import ReferenceProgram
from market.auction.rows import LimitKey, Tangent
from market.auction.whole import whole_awards
from tests.auction.acopf import least_cost_eur_per_h
from tests.auction.books import violations_by_pandapower
from tests.auction.nets import KINDS, binding_book, feeder_of, fresh_net

EUR_PER_HOUR = 1e-3
"""EUR/MWh · kW."""


class Twin(ClearingProgram):
    """The fast program, and beside it the reference with the same rows."""

    latest: Twin

    def __init__(self, columns: Columns, *, balance_as_equation: bool) -> None:
        super().__init__(columns, balance_as_equation=balance_as_equation)
        self.reference = ReferenceProgram(columns, balance_as_equation=balance_as_equation)
        Twin.latest = self

    def bound(self, lower: Floats, upper: Floats) -> None:
        super().bound(lower, upper)
        self.reference.bound(lower, upper)

    def add_balance(self, effect: Floats, fixed_kw: float) -> None:
        super().add_balance(effect, fixed_kw)
        self.reference.add_balance(effect, fixed_kw)

    def add_limit(self, tangent: Tangent, injected_kw: Floats) -> None:
        super().add_limit(tangent, injected_kw)
        self.reference.add_limit(tangent, injected_kw)

    def drop_limits(self, keys: set[LimitKey] | None = None) -> None:
        super().drop_limits(keys)
        self.reference.drop_limits(keys)

    def solve(self, predicted: Floats | None) -> LpSolution:
        self.solution = super().solve(predicted)
        return self.solution


def welfare_of(columns: Columns, kw: Floats, net_import_kw: float) -> float:
    """EUR per hour, without what excess costs."""
    tariff = columns.import_price if net_import_kw > 0 else columns.export_price
    gain = -columns.group_sign * columns.group_price / 1e3 + TRADE_PREFERENCE_EUR_PER_MWH
    return EUR_PER_HOUR * float(gain @ kw - tariff / 1e3 * net_import_kw)


def assert_optimal_and_feasible(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Judges one book; returns whether limits bound in it."""
    monkeypatch.setattr(dispatch_module, "ClearingProgram", Twin)
    book, feeder = binding_book(name, seed), feeder_of(name)
    columns = columns_of(book, power_flow(feeder))
    if hasattr(Twin, "latest"):
        del Twin.latest
    found = dispatch(columns)
    assert found.feasible
    assert found.stale_rows == 0
    if hasattr(Twin, "latest"):
        fast, reference = Twin.latest.solution, Twin.latest.reference.solve(None)
        assert fast.excess_kw == pytest.approx(0.0, abs=1e-9)
        assert welfare_of(columns, fast.kw, fast.net_import_kw) == pytest.approx(
            welfare_of(columns, reference.kw, reference.net_import_kw), rel=1e-9, abs=1e-9
        )
    assert_rounding_is_cheap(columns, found)
    record = clear_book(book, feeder)
    assert record.status == "cleared"
    assert violations_by_pandapower(fresh_net(name), feeder, book, record) == []
    return bool(record.binding)


def assert_rounding_is_cheap(columns: Columns, found: Dispatch) -> None:
    """Whole Wh cost less than the Wh that they move are worth at most."""
    awards = whole_awards(columns, found)
    hours = columns.hours
    whole_kw = awards.group_wh / hours / 1e3
    lost = hours * (
        welfare_of(columns, found.kw, found.point.slack_w / 1e3)
        - welfare_of(columns, whole_kw, awards.point.slack_w / 1e3)
    )
    prices = np.concatenate([columns.group_price, [columns.import_price, columns.export_price]])
    moved_kwh = hours * float(np.abs(whole_kw - found.kw).sum())
    assert lost <= moved_kwh * float(np.ptp(prices)) / 1e6 + 1e-9
    partly = np.count_nonzero((found.kw > 0) & (found.kw < columns.group_kw))
    assert moved_kwh * 1e3 <= 2 * partly + 1


@pytest.mark.parametrize("name", sorted(KINDS))
def test_the_fast_path_is_as_good_as_the_reference_and_keeps_every_limit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = [assert_optimal_and_feasible(name, seed, monkeypatch) for seed in range(3)]
    assert any(bound), "the books are meant to make limits bind"


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(KINDS))
def test_two_hundred_binding_books_agree_with_the_reference(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = [assert_optimal_and_feasible(name, seed, monkeypatch) for seed in range(100, 160)]
    assert sum(bound) >= 25


SMALL = ("cigre_lv", "kerber_frozen", "rural1", "rural3")
"""One slack, low voltage: where pandapower's optimal power flow converges for most books."""


def compare_with_ac_optimum(name: str, seed: int) -> bool:
    """Asserts that the AC optimum costs no less; returns whether pandapower found one."""
    book = binding_book(name, seed, 40)
    columns = columns_of(book, power_flow(feeder_of(name)))
    found = dispatch(columns)
    least = least_cost_eur_per_h(fresh_net(name), columns, KINDS[name].max_loading_percent)
    if least is None:
        return False
    cost = -welfare_of(columns, found.kw, found.point.slack_w / 1e3)
    assert cost - least <= 1e-5 * abs(least)
    return True


@pytest.mark.parametrize("name", ["cigre_lv", "rural1"])
def test_the_ac_optimal_power_flow_finds_nothing_better(name: str) -> None:
    assert sum(compare_with_ac_optimum(name, seed) for seed in range(3)) >= 2


@pytest.mark.long
@pytest.mark.parametrize("name", SMALL)
def test_the_ac_optimal_power_flow_finds_nothing_better_in_thirty_books(name: str) -> None:
    assert sum(compare_with_ac_optimum(name, seed) for seed in range(16)) >= 8


def test_the_whole_path_with_the_reference_model_gives_the_same_welfare() -> None:
    for seed in range(3):
        book = binding_book("rural1", seed, 60)
        fast = clear_book(book, feeder_of("rural1"))
        slow = clear_book(book, feeder_of("rural1"), engine="pyomo")
        assert slow.status == "cleared"
        assert slow.ac.violations == slow.ac.stale_rows == 0
        assert slow.welfare_eur == pytest.approx(fast.welfare_eur, rel=1e-5)


def test_pyomo_is_imported_only_when_it_is_asked_for() -> None:
    program = "import sys, market.auction.clearing; assert 'pyomo' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
