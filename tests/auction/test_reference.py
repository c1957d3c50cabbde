"""The fast path against its oracles: the Pyomo reference, pandapower's power flow and its AC optimum."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from grid.feeder import Floats
from market.auction import dispatch as dispatch_module
from market.auction.clearing import clear_book, power_flow
from market.auction.columns import Columns, columns_of
from market.auction.dispatch import Dispatch, dispatch
from market.auction.lp import TRADE_PREFERENCE_EUR_PER_MWH, ClearingProgram, LpSolution
from market.auction.reference import ReferenceProgram
from market.auction.rows import LimitKey, Tangent, limits_near, one_end_each, tangents
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


@dataclass(frozen=True)
class Judged:
    """One book: whether limits bound in it, and how far its welfare is from the reference's, relatively.

    ``on_its_rows``: the last linear program against Pyomo's of the same rows (None: it took none);
    ``at_its_point``: the dispatch against the best that Pyomo finds on all tangents at the dispatch's own
    point; ``rounding_eur``: what whole Wh cost.
    """

    binding: bool
    on_its_rows: float | None
    at_its_point: float
    rounding_eur: float


def difference(one: float, other: float) -> float:
    return abs(one - other) / max(abs(one), abs(other), 1e-9)


def best_at_the_point_of(columns: Columns, found: Dispatch) -> float:
    """What Pyomo finds with slack power and limits linearised where the dispatch ended, EUR an hour."""
    reference = ReferenceProgram(columns, balance_as_equation=True)
    injected_kw = columns.point_injections(found.kw)
    effect = columns.at_points(*found.point.slack_gradient)
    reference.add_balance(effect, found.point.slack_w / 1e3 - float(effect @ injected_kw))
    keys = one_end_each(columns.feeder, found.check, limits_near(found.check, 1e-6))
    for tangent in tangents(columns, found.point, found.check, keys):
        reference.add_limit(tangent, injected_kw)
    best = reference.solve(None)
    return welfare_of(columns, best.kw, best.net_import_kw)


def judged(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> Judged:
    """Asserts what must hold for one book, and returns how well it does."""
    monkeypatch.setattr(dispatch_module, "ClearingProgram", Twin)
    book, feeder = binding_book(name, seed), feeder_of(name)
    columns = columns_of(book, power_flow(feeder))
    if hasattr(Twin, "latest"):
        del Twin.latest
    found = dispatch(columns)
    assert found.feasible
    assert found.stale_rows == 0
    on_its_rows = None
    if hasattr(Twin, "latest"):
        fast, reference = Twin.latest.solution, Twin.latest.reference.solve(None)
        assert fast.excess_kw == pytest.approx(0.0, abs=1e-9)
        on_its_rows = difference(
            welfare_of(columns, fast.kw, fast.net_import_kw),
            welfare_of(columns, reference.kw, reference.net_import_kw),
        )
        assert on_its_rows <= 1e-9, f"{name}, book {seed}: not the optimum of its own rows"
    own = welfare_of(columns, found.kw, found.point.slack_w / 1e3)
    at_its_point = difference(own, best_at_the_point_of(columns, found))
    assert at_its_point <= 1e-7, f"{name}, book {seed}: not the optimum at its own point"
    rounding_eur = assert_rounding_is_cheap(columns, found)
    record = clear_book(book, feeder)
    assert record.status == "cleared"
    assert record.ac.stale_rows == 0
    assert violations_by_pandapower(fresh_net(name), feeder, book, record) == []
    return Judged(bool(record.binding), on_its_rows, at_its_point, rounding_eur)


def assert_rounding_is_cheap(columns: Columns, found: Dispatch) -> float:
    """Whole Wh cost less than the Wh that they move are worth at most; returns what they cost, EUR."""
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
    return lost


def note(record_property: Callable[[str, object], None], name: str, books: Sequence[Judged]) -> int:
    """Puts a net's figures on record; returns in how many of its books limits bound."""
    binding = sum(book.binding for book in books)
    on_rows = [book.on_its_rows for book in books if book.on_its_rows is not None]
    figures = {
        "net": name,
        "books": len(books),
        "binding": binding,
        "largest difference from Pyomo on the same rows": f"{max(on_rows, default=0.0):.1e} ({len(on_rows)})",
        "at the final point": f"{max(book.at_its_point for book in books):.1e}",
        "rounding cost at most": f"{max(book.rounding_eur for book in books):.6f} EUR",
    }
    record_property("oracle: Pyomo reference, runpp", figures)
    return binding


@pytest.mark.parametrize("name", sorted(KINDS))
def test_the_fast_path_is_as_good_as_the_reference_and_keeps_every_limit(
    name: str, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    books = [judged(name, seed, monkeypatch) for seed in range(3)]
    assert note(record_property, name, books) > 0, "the books are meant to make limits bind"


BINDING_EACH = 26
"""Binding books of each of the eight nets: 208 in all."""
BOOKS_MAX = 60


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(KINDS))
def test_more_than_two_hundred_binding_books_agree_with_the_reference(
    name: str, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    assert BINDING_EACH * len(KINDS) >= 200
    books: list[Judged] = []
    while sum(book.binding for book in books) < BINDING_EACH and len(books) < BOOKS_MAX:
        books.append(judged(name, 100 + len(books), monkeypatch))
    assert note(record_property, name, books) >= BINDING_EACH, "too few books of this net make limits bind"


COMPARED = ("cigre_lv", "kerber_frozen", "rural1", "rural3")
COMPARED_EACH = 8
"""Binding books of each of these nets in which pandapower's optimal power flow converges: 32 in all."""


def compare_with_ac_optimum(name: str, seed: int) -> float | None:
    """By how much the AC optimum costs less, as a share of its cost; None where pandapower finds none.

    Also None where no limit binds.
    """
    book = binding_book(name, seed, 40)
    columns = columns_of(book, power_flow(feeder_of(name)))
    found = dispatch(columns)
    if not found.binding:
        return None
    least = least_cost_eur_per_h(fresh_net(name), columns, KINDS[name].max_loading_percent)
    if least is None:
        return None
    cost = -welfare_of(columns, found.kw, found.point.slack_w / 1e3)
    less = (cost - least) / abs(least)
    assert less <= 1e-5, f"{name}, book {seed}: the AC optimum is better"
    return less


def compare(name: str, wanted: int, record_property: Callable[[str, object], None]) -> None:
    """Compares in so many books in which pandapower finds an AC optimum."""
    found: list[float] = []
    seed = 0
    while len(found) < wanted and seed < BOOKS_MAX:
        less = compare_with_ac_optimum(name, seed)
        found += [] if less is None else [less]
        seed += 1
    figures = {
        "net": name,
        "books": seed,
        "compared": len(found),
        "AC optimum better by at most": f"{max(found, default=0.0):.1e}",
    }
    record_property("oracle: pandapower.runopp", figures)
    assert len(found) == wanted, "pandapower's optimal power flow converges too seldom"


@pytest.mark.parametrize("name", ["cigre_lv", "rural1"])
def test_the_ac_optimal_power_flow_finds_nothing_better(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    compare(name, 2, record_property)


@pytest.mark.long
@pytest.mark.parametrize("name", COMPARED)
def test_the_ac_optimal_power_flow_finds_nothing_better_in_thirty_books(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    assert COMPARED_EACH * len(COMPARED) >= 30
    compare(name, COMPARED_EACH, record_property)


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
