"""Orders with a minimum fill: taken at their minimum or more, or not at all, and never at a loss."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from market.auction.blocks import apart
from market.auction.book import Book
from market.auction.choice import without
from market.auction.clearing import clear_book, power_flow
from market.auction.columns import columns_of
from market.auction.dispatch import dispatch
from market.auction.explain import explain
from market.auction.record import ClearingRecord, MinimumFills
from market.verify.report import Subject
from market.verify.verify import verify
from tests.auction.books import book_of, order, random_orders, violations_by_pandapower
from tests.auction.nets import KINDS, feeder_of, fresh_net

RURAL3 = feeder_of("rural3")


def block(
    id_: str, side: str, bus: int, energy_wh: int, limit_price: int, percent: int = 100
) -> dict[str, Any]:
    return order(id_, side, bus, energy_wh, limit_price, min_fill_percent=percent)


def fills_of(record: ClearingRecord) -> dict[str, int]:
    return {fill.order_id: fill.energy_wh for fill in record.fills}


def book_with_blocks(name: str, seed: int, count: int) -> tuple[Book, Book]:
    """A random binding book in which a third of the orders has a minimum, and the same without minima."""
    draw = random.Random(seed)
    plain = random_orders(feeder_of(name), seed, count, KINDS[name].energy_wh_max)
    blocks = [
        {**item, "min_fill_percent": draw.choice([20, 50, 100])} if draw.random() < 0.3 else item
        for item in plain
    ]
    limits = {"max_loading_percent": KINDS[name].max_loading_percent}
    return book_of(blocks, firm=[], limits=limits), book_of(plain, firm=[], limits=limits)


def assert_minima_kept_without_loss(book: Book, record: ClearingRecord) -> None:
    assert record.status == "cleared"
    fills = fills_of(record)
    price_of_bus = {row.bus: row.price for row in record.prices}
    for item in book.orders:
        got = fills.get(item.id, 0)
        if not item.min_fill_percent:
            continue
        at = price_of_bus[int(item.connection_point.removeprefix("bus:"))]
        gain = (item.limit_price - at) * (1 if item.side == "bid" else -1)
        if got:
            assert 100 * got >= item.min_fill_percent * item.energy_wh
            assert gain >= -3, "a taken order loses money"
        else:
            assert (gain > 0) == (item.id in record.paradoxically_rejected)


def failed_checks(book: Book, record: ClearingRecord, name: str) -> list[str]:
    """What ``peergrid verify`` finds wrong in what minima touch."""
    report = verify(record, book, fresh_net(name), feeder_of(name).sha256)
    subjects: tuple[Subject, ...] = ("format", "order limits", "ties", "balance", "AC feasibility")
    return [check.says for subject in subjects for check in report.of(subject) if not check.ok]


@pytest.mark.parametrize("name", ["rural1", "rural3", "cigre_lv", "oberrhein_two_slacks"])
@pytest.mark.parametrize("seed", range(2))
def test_random_books_keep_minima_limits_and_individual_rationality(name: str, seed: int) -> None:
    book, without_minima = book_with_blocks(name, seed, 50)
    record = clear_book(book, feeder_of(name))
    assert_minima_kept_without_loss(book, record)
    assert record.ac.stale_rows == 0
    assert violations_by_pandapower(fresh_net(name), feeder_of(name), book, record) == []
    assert failed_checks(book, record, name) == []
    free = clear_book(without_minima, feeder_of(name))
    assert record.welfare_eur <= free.welfare_eur + 2e-3, "minima can only cost, but for the rounding"
    bare = [item.model_dump() for item in book.orders if not item.min_fill_percent]
    floor = clear_book(book_of(bare, firm=[], limits=book.limits.model_dump()), feeder_of(name))
    assert record.welfare_eur >= floor.welfare_eur - 2e-3


@pytest.mark.long
@pytest.mark.parametrize("name", ["rural1", "rural3", "cigre_lv", "kerber_frozen", "mv_rural"])
def test_many_random_books_keep_minima_limits_and_individual_rationality(name: str) -> None:
    for seed in range(100, 120):
        book, _ = book_with_blocks(name, seed, 50)
        record = clear_book(book, feeder_of(name))
        assert_minima_kept_without_loss(book, record)
        assert violations_by_pandapower(fresh_net(name), feeder_of(name), book, record) == []
        assert failed_checks(book, record, name) == []


def book_of_rivals(name: str, seed: int) -> Book:
    """A few orders between the tariffs, and large blocks that get into each other's way."""
    draw, feeder, most_wh = random.Random(seed), feeder_of(name), KINDS[name].energy_wh_max
    buses = feeder.bus_index[~np.isin(feeder.bus_node, feeder.slack)].tolist()
    orders = [
        order(
            f"p{index}",
            draw.choice(["bid", "ask"]),
            draw.choice(buses),
            draw.randrange(100, most_wh // 2),
            draw.randrange(85_000, 295_000),
        )
        for index in range(8)
    ]
    for index in range(5):
        side = draw.choice(["bid", "ask"])
        dearest = 220_000 if side == "ask" else 295_000
        orders.append(
            block(
                f"k{index}",
                side,
                draw.choice(buses),
                draw.randrange(most_wh // 4, most_wh),
                draw.randrange(dearest - 135_000, dearest),
                draw.choice([60, 100, 100]),
            )
        )
    limits = {"max_loading_percent": draw.choice([KINDS[name].max_loading_percent, 100.0])}
    return book_of(orders, firm=[], limits=limits)


def best_of_every_choice(book: Book, name: str) -> tuple[float, float]:
    """The greatest welfare of all choices of blocks without losers, EUR: where minima are kept, and to 1 Wh.

    Without losers is a choice whose optimum without minima keeps them all the same.
    """
    columns, least_wh = apart(book, columns_of(book, power_flow(feeder_of(name))))
    least_kw = least_wh / columns.hours / 1e3
    kept = to_one_wh = -np.inf
    blocks = np.flatnonzero(least_wh).tolist()
    for taken in itertools.product([False, True], repeat=len(blocks)):
        rejected = np.zeros(len(least_wh), dtype=bool)
        rejected[[g for g, is_taken in zip(blocks, taken, strict=True) if not is_taken]] = True
        found = dispatch(without(columns, rejected))
        short_wh = (np.where(rejected, 0.0, least_kw) - found.kw).max() * columns.hours * 1e3
        import_kw = found.point.slack_w / 1e3
        tariff = columns.import_price if import_kw > 0 else columns.export_price
        worth = -float((columns.group_sign * columns.group_price) @ found.kw) - tariff * import_kw
        worth_eur = worth * columns.hours / 1e6
        if short_wh <= 1.0:
            to_one_wh = max(to_one_wh, worth_eur)
        if short_wh <= 1e-3:
            kept = max(kept, worth_eur)
    return kept, to_one_wh


def assert_best_choice(name: str, seed: int) -> bool:
    """Whether the book had blocks that the price would have taken."""
    book = book_of_rivals(name, seed)
    record = clear_book(book, feeder_of(name))
    assert_minima_kept_without_loss(book, record)
    assert record.minimum_fills is not None
    assert record.minimum_fills.proven
    # A minimum that is missed by less than the 1 Wh of rounding may be kept or not.
    kept, to_one_wh = best_of_every_choice(book, name)
    assert kept - 2e-3 <= record.welfare_eur <= to_one_wh + 2e-3
    return bool(record.paradoxically_rejected)


def test_no_choice_of_blocks_without_a_loser_is_worth_more() -> None:
    rejected = [assert_best_choice("rural1", seed) for seed in range(10)]
    assert sum(rejected) >= 3, "the books are meant to have blocks that stand in each other's way"


@pytest.mark.long
@pytest.mark.parametrize("name", ["rural1", "rural3", "cigre_lv", "kerber_frozen"])
def test_no_choice_of_blocks_without_a_loser_is_worth_more_in_many_books(name: str) -> None:
    rejected = [assert_best_choice(name, seed) for seed in range(100, 140)]
    assert sum(rejected) >= 5


def test_a_search_that_ends_early_says_so_and_what_it_may_have_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("market.auction.choice.OPTIMA_MAX", 1)
        tried = ((book, _clear(book)) for book in (book_of_rivals("rural1", seed) for seed in range(20)))
        book, record = next(found for found in tried if not _known(found[1]).proven)
    known, best = _known(record), _clear(book)
    assert _known(best).proven
    assert known.missed_eur is not None
    assert record.welfare_eur <= best.welfare_eur + 1e-3 <= record.welfare_eur + known.missed_eur + 2e-3
    name = next(item.id for item in book.orders if item.min_fill_percent)
    assert any("ended before" in says for says in explain(book, record, feeder_of("rural1"), name))
    report = verify(record, book, fresh_net("rural1"), feeder_of("rural1").sha256)
    check = next(check for check in report.checks if check.name == "choice of orders")
    assert check.ok
    assert "ended early" in check.says
    claimed = known.model_copy(update={"proven": True})
    false = record.model_copy(update={"minimum_fills": claimed})
    report = verify(false, book, fresh_net("rural1"), feeder_of("rural1").sha256)
    assert "choice of orders" in {check.name for check in report.checks if not check.ok}


def _clear(book: Book) -> ClearingRecord:
    return clear_book(book, feeder_of("rural1"))


def _known(record: ClearingRecord) -> MinimumFills:
    assert record.minimum_fills is not None
    return record.minimum_fills


def test_fill_or_kill_is_all_or_nothing() -> None:
    offers = [block("fits", "ask", 7, 1000, 100_000), order("b", "bid", 7, 1500, 250_000)]
    assert fills_of(clear_book(book_of(offers, firm=[]), RURAL3))["fits"] == 1000
    # What neither the bid nor the feeder's losses take would have to be exported below its limit.
    offers = [block("too large", "ask", 7, 2000, 100_000), order("b", "bid", 7, 1500, 250_000)]
    assert "too large" not in fills_of(clear_book(book_of(offers, firm=[]), RURAL3))


def test_what_raises_welfare_at_a_loss_to_itself_is_rejected_and_reported() -> None:
    # Taking it is worth 600 Wh · (200 − 100) − 400 Wh · (100 − 80) and more, but at the export's price.
    offers = [block("k", "ask", 7, 1000, 100_000), order("b", "bid", 7, 600, 200_000)]
    record = clear_book(book_of(offers, firm=[]), RURAL3)
    assert record.fills == ()
    assert record.paradoxically_rejected == ("k",)
    assert record.json_document()["paradoxically_rejected"] == ["k"]


def test_the_field_is_left_out_where_nothing_is_rejected_so() -> None:
    record = clear_book(book_of([order("b", "bid", 7, 600, 400_000)], firm=[]), RURAL3)
    assert "paradoxically_rejected" not in record.json_document()


def test_a_partly_filled_order_gets_at_least_its_minimum_and_sets_the_price() -> None:
    offers = [block("k", "ask", 7, 1000, 100_000, percent=40), order("b", "bid", 7, 600, 200_000)]
    record = clear_book(book_of(offers, firm=[]), RURAL3)
    assert 600 < fills_of(record)["k"] < 1000  # the bid, and the feeder's losses
    assert next(row.price for row in record.prices if row.bus == 7) == 100_000


def test_a_minimum_is_rounded_up_to_whole_watt_hours() -> None:
    offers = [block("k", "bid", 7, 3, 400_000, percent=34)]
    assert fills_of(clear_book(book_of(offers, firm=[]), RURAL3))["k"] == 3


def test_equal_orders_beside_a_block_still_share_pro_rata() -> None:
    offers = [block("k", "bid", 7, 700, 200_000), order("a", "ask", 7, 2000, 100_000)]
    offers += [order(f"b{index}", "bid", 7, 400, 190_000) for index in range(3)]
    record = clear_book(book_of(offers, firm=[]), RURAL3)
    fills = fills_of(record)
    assert fills["k"] == 700
    shares = [fills[f"b{index}"] for index in range(3)]
    assert max(shares) - min(shares) <= 1


def test_the_order_of_the_book_does_not_matter() -> None:
    book, _ = book_with_blocks("rural1", 5, 40)
    items = [item.model_dump() for item in book.orders]
    random.Random(1).shuffle(items)
    shuffled = book_of(items, firm=[], limits=book.limits.model_dump())
    one, other = clear_book(book, feeder_of("rural1")), clear_book(shuffled, feeder_of("rural1"))
    assert fills_of(one) == fills_of(other)
    assert one.prices == other.prices
    assert one.paradoxically_rejected == other.paradoxically_rejected


def test_books_without_a_minimum_never_touch_this_path() -> None:
    program = """
import sys
from grid.catalogue import open_feeder
from market.auction.clearing import clear_book
from market.verify.report import Subject
from market.verify.verify import verify
from tests.auction.books import book_of, order
feeder = open_feeder("simbench:1-LV-rural1--2-sw")
clear_book(book_of([order("a", "ask", 7, 900, 100_000)], firm=[]), feeder)
assert "market.auction.blocks" not in sys.modules and "pyomo" not in sys.modules
clear_book(book_of([order("a", "ask", 7, 900, 100_000, min_fill_percent=1)], firm=[]), feeder)
assert "market.auction.blocks" in sys.modules
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)
