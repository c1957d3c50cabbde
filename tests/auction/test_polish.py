"""Prices are exact where limits are many, nearly parallel, or curved by reactive power."""

from __future__ import annotations

import numpy as np
import pytest

from grid.feeder import Floats
from market.auction.book import Book
from market.auction.clearing import clear_book
from market.auction.quadratic import solve
from market.verify.verify import verify
from tests.auction.books import book_of, random_orders
from tests.auction.nets import KINDS, feeder_of, fresh_net

TAN_PHI = (0.0, 0.0, 0.2, -0.3, 0.48)


def hard_book(name: str, seed: int, count: int, max_loading_percent: float, mixed: bool) -> Book:
    """Orders of a size that makes limits bind; ``mixed`` ones inject or draw reactive power too."""
    largest_wh = int(KINDS[name].energy_wh_max * 180 / max(count, 60)) + 2
    orders = random_orders(feeder_of(name), seed * 1000 + count, count, largest_wh)
    if mixed:
        random = np.random.default_rng(seed + 7)
        for item in orders:
            item["tan_phi"] = float(random.choice(TAN_PHI))
    return book_of(orders, firm=[], limits={"max_loading_percent": max_loading_percent})


@pytest.mark.parametrize(
    ("name", "seed", "count", "max_loading_percent", "mixed"),
    [
        ("rural1", 3, 20, 30, True),
        ("rural1", 3, 20, 60, False),  # the ends of a branch are limits that are all but the same
        ("rural3", 1, 50, 60, True),
        ("rural3", 2, 120, 30, True),  # twenty-odd limits bind
        ("semiurb5", 1, 50, 60, True),
        ("mv_rural", 3, 120, 30, True),
        ("kerber_frozen", 2, 120, 30, True),
        ("cigre_lv", 1, 50, 60, False),
        ("oberrhein_two_slacks", 0, 50, 30, True),
        ("oberrhein_meshed", 3, 50, 30, True),
    ],
)
def test_prices_hold_for_pandapower_where_they_used_to_be_loose(
    name: str, seed: int, count: int, max_loading_percent: float, mixed: bool
) -> None:
    book, feeder = hard_book(name, seed, count, max_loading_percent, mixed), feeder_of(name)
    record = clear_book(book, feeder)
    assert record.status == "cleared"
    assert record.binding
    assert record.ac.stale_rows == record.ac.violations == 0
    report = verify(record, book, fresh_net(name), feeder.sha256)
    assert [check for check in report.checks if not check.ok] == []


def test_a_large_book_whose_limits_curve_is_priced_exactly() -> None:
    feeder = feeder_of("cigre_lv")
    book = book_of(random_orders(feeder, 1, 50, 20_000), firm=[], limits={"max_loading_percent": 30})
    record = clear_book(book, feeder)
    report = verify(record, book, fresh_net("cigre_lv"), feeder.sha256)
    assert [check for check in report.checks if not check.ok] == []


def _convex(random: np.random.Generator, size: int) -> Floats:
    root = random.normal(size=(size, size))
    return np.asarray(root @ root.T / size + 0.01 * np.eye(size))


@pytest.mark.parametrize("seed", range(20))
def test_the_quadratic_program_ends_at_its_optimality_conditions(seed: int) -> None:
    random = np.random.default_rng(seed)
    size, count = int(random.integers(2, 12)), int(random.integers(1, 8))
    q, gradient = _convex(random, size), random.normal(size=size)
    low, high = -random.random(size), random.random(size)
    rows = random.normal(size=(count, size))
    inside = low + (high - low) * random.random(size)
    room = rows @ inside + np.append(0.0, 0.1 * random.random(count - 1))
    found = solve(
        lambda: q, gradient, (low, high), rows, room, equations=1, active=random.random(count) < 0.5
    )
    assert found is not None
    x, multipliers = found.values, found.multipliers
    assert (x >= low - 1e-9).all() and (x <= high + 1e-9).all()
    assert abs(rows[0] @ x - room[0]) < 1e-7
    assert (rows @ x <= room + 1e-7).all()
    assert (multipliers[1:] >= -1e-4).all()
    assert np.abs(multipliers * (rows @ x - room)).max() < 1e-6
    rent = gradient + q @ x + multipliers @ rows
    assert (rent[x > low + 1e-7] <= 1e-4).all()
    assert (rent[x < high - 1e-7] >= -1e-4).all()


def test_rows_that_bounds_keep_from_being_met_are_missed_as_little_as_possible() -> None:
    rows, room = np.array([[1.0, 1.0]]), np.array([5.0])
    found = solve(
        lambda: np.eye(2),
        np.ones(2),
        (np.zeros(2), np.ones(2)),
        rows,
        room,
        equations=1,
        active=np.array([True]),
    )
    assert found is not None
    assert found.values == pytest.approx([1.0, 1.0])
