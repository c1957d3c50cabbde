"""What a clearing promises: AC-feasible, balanced to the Wh, priced as the rules say."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid.catalogue import open_feeder
from grid.errors import InputError
from market.auction.book import Book, parse_book
from market.auction.clearing import clear_book, power_flow, suspended_interval
from market.auction.columns import columns_of
from market.auction.dispatch import dispatch
from market.auction.record import ClearingRecord
from market.auction.whole import whole_awards
from market.cli.clear import show_record
from tests.auction.books import TARIFF, book_of, fresh_net, order, random_orders, violations_by_pandapower

RURAL1 = open_feeder("simbench:1-LV-rural1--2-sw")
RURAL3 = open_feeder("simbench:1-LV-rural3--2-sw")


def assert_sound(book: Book, record: ClearingRecord) -> None:
    """What must hold for every cleared record."""
    orders = {item.id: item for item in book.orders}
    price_of_bus = {row.bus: row for row in record.prices}
    assert record.status == "cleared"
    assert record.ac.violations == 0
    for fill in record.fills:
        item = orders[fill.order_id]
        assert 0 < fill.energy_wh <= item.energy_wh
        if item.side == "bid":
            assert fill.price <= item.limit_price
        else:
            assert fill.price >= item.limit_price
    for row in record.prices:
        assert row.price == row.energy + row.losses + row.congestion + row.voltage
    assert record.import_wh == 0 or record.export_wh == 0
    bought = sum(trade.energy_wh for trade in record.trades)
    asks = sum(f.energy_wh for f in record.fills if orders[f.order_id].side == "ask")
    bids = sum(f.energy_wh for f in record.fills if orders[f.order_id].side == "bid")
    firm = sum(round(item.p_w * book.interval.hours) for item in book.firm or ())
    assert record.import_wh - record.export_wh == bids - firm - asks + record.losses_wh
    assert bought >= asks
    # An order left out wholly would not have been better off at its bus's price.
    filled = {fill.order_id: fill.energy_wh for fill in record.fills}
    slack_ueur = 3
    for item in book.orders:
        if item.tan_phi:
            continue
        at = price_of_bus[int(item.connection_point.removeprefix("bus:"))].price
        if item.side == "bid":
            at += book.tariff.local_fee
        gain = (item.limit_price - at) * (1 if item.side == "bid" else -1)
        if item.id not in filled:
            assert gain <= slack_ueur, (item, at)
        elif filled[item.id] == item.energy_wh:
            assert gain >= -slack_ueur, (item, at)


@pytest.mark.parametrize("code", ["1-LV-rural1--2-sw", "1-LV-rural3--2-sw", "1-LV-semiurb5--2-sw"])
@pytest.mark.parametrize("seed", range(4))
def test_cleared_awards_keep_every_limit_in_pandapowers_power_flow(code: str, seed: int) -> None:
    feeder = open_feeder(f"simbench:{code}")
    book = book_of(random_orders(feeder, seed, 150, 20_000), firm=[], limits={"max_loading_percent": 40})
    record = clear_book(book, feeder)
    assert_sound(book, record)
    assert record.binding, "the book is meant to make limits bind"
    assert violations_by_pandapower(fresh_net(f"simbench:{code}"), feeder, book, record) == []


def test_the_same_book_without_the_network_breaks_limits() -> None:
    book = book_of(random_orders(RURAL3, 3, 150, 20_000), firm=[])
    record = clear_book(book, RURAL3, network=False)
    assert record.ac.violations > 0
    assert violations_by_pandapower(fresh_net("simbench:1-LV-rural3--2-sw"), RURAL3, book, record)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(0, 40), size=st.sampled_from([50, 2_000, 60_000]))
def test_any_book_clears_soundly_and_in_any_order_of_its_orders(seed: int, count: int, size: int) -> None:
    orders = random_orders(RURAL1, seed, count, size)
    book = book_of(orders, firm=[])
    record = clear_book(book, RURAL1)
    assert_sound(book, record)
    shuffled = copy.copy(orders)
    random.Random(seed).shuffle(shuffled)
    other = clear_book(book_of(shuffled, firm=[]), RURAL1)
    assert {f.order_id: f for f in other.fills} == {f.order_id: f for f in record.fills}
    assert other.prices == record.prices
    assert set(other.trades) == set(record.trades)


def test_nothing_trades_in_an_empty_book_and_the_net_still_loses_energy() -> None:
    record = clear_book(book_of([], firm=[]), RURAL3)
    assert record.fills == ()
    assert record.import_wh == record.losses_wh > 0


def test_equal_orders_share_pro_rata_whatever_their_ids() -> None:
    orders = [order("a", "ask", 7, 1000, 100_000)]
    orders += [order(f"b{index}", "bid", 7, 501, 200_000) for index in range(4)]
    record = clear_book(book_of(orders, firm=[]), RURAL3)
    fills = [f.energy_wh for f in record.fills if f.order_id.startswith("b")]
    assert max(fills) - min(fills) <= 1


def test_a_bid_and_an_ask_at_one_price_trade() -> None:
    orders = [order("a", "ask", 7, 5000, 100_000), order("b", "bid", 7, 4000, 100_000)]
    record = clear_book(book_of(orders, firm=[]), RURAL3)
    assert sum(f.energy_wh for f in record.fills if f.order_id == "b") == 4000


def test_firm_energy_alone_beyond_a_limit_suspends_with_the_reason() -> None:
    firm = [{"connection_point": "bus:120", "p_w": -250_000.0}]
    record = clear_book(book_of([order("b", "bid", 110, 10, 200_000)], firm=firm), RURAL3)
    assert record.status == "suspended"
    assert "loaded to" in (record.reason or "")
    assert record.fills == () and record.trades == ()


def test_flexibility_that_can_relieve_a_firm_overload_is_used_and_priced() -> None:
    firm = [{"connection_point": "bus:120", "p_w": -200_000.0}]
    orders = [order("a", "ask", 120, 100_000, 350_000)]
    record = clear_book(book_of(orders, firm=firm), RURAL3)
    assert record.status == "cleared"
    assert record.fills[0].price == 350_000
    assert record.binding[0].shadow_price_eur_per_mwh > 0


def test_the_local_fee_is_a_wedge_that_energy_from_the_retailer_does_not_pay() -> None:
    orders = [order("b", "bid", 7, 1000, 2_000_000)]
    record = clear_book(book_of(orders, firm=[], local_fee=30_000), RURAL3)
    slack = next(row for row in record.prices if row.bus == 0)
    assert slack.price == TARIFF["import_price"] - 30_000
    at = next(row for row in record.prices if row.bus == 7).price
    assert record.fills[0].price == at + 30_000


def test_energy_is_not_burnt_when_its_price_is_negative() -> None:
    orders = [order("a", "ask", 120, 20_000, -100_000), order("b", "bid", 110, 1000, -60_000)]
    book = book_of(orders, firm=[], export_price=-50_000)
    record = clear_book(book, RURAL3)
    assert_sound(book, record)
    assert record.losses_wh < 2000
    assert record.fills == tuple(f for f in record.fills if f.order_id == "a")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "negative energy": ({"energy_wh": -5}, r"orders\[0\].energy_wh: -5"),
    "zero energy": ({"energy_wh": 0}, r"orders\[0\].energy_wh: 0"),
    "overflow": ({"energy_wh": 2**63}, r"orders\[0\].energy_wh: 9223372036854775808"),
    "fractional energy": ({"energy_wh": 1.5}, r"orders\[0\].energy_wh: 1.5"),
    "unknown side": ({"side": "buy"}, r"orders\[0\].side: 'buy'"),
    "above the cap": ({"limit_price": 3_000_000}, r"orders\[0\].limit_price: 3000000 is outside"),
    "below the floor": ({"limit_price": -600_000}, r"orders\[0\].limit_price: -600000 is outside"),
    "not a number": ({"tan_phi": float("nan")}, r"orders\[0\].tan_phi: nan"),
    "unknown point": ({"connection_point": "bus:999"}, r"orders\[0\].connection_point: 'bus:999'"),
    "unknown kind of point": ({"connection_point": "node:1"}, r"orders\[0\].connection_point: 'node:1'"),
    "reserved id": ({"id": "retailer"}, r"orders\[0\].id: 'retailer'"),
    "unknown field": ({"price": 1}, r"orders\[0\].price: 1"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_orders_are_refused_by_field_and_value(case: str) -> None:
    change, message = BAD[case]
    with pytest.raises(InputError, match=message):
        clear_book(book_of([{**order("a", "ask", 7, 100, 100_000), **change}]), RURAL3)


def test_all_problems_of_a_book_are_listed_at_once() -> None:
    orders = [order("a", "ask", 7, 100, 9_000_000), order("a", "bid", 8, 100, 100_000)]
    with pytest.raises(InputError) as caught:
        book_of(orders)
    assert len(caught.value.problems) == 2


def test_import_below_export_tariff_is_refused() -> None:
    with pytest.raises(InputError, match="export_price <= import_price"):
        parse_book(
            {
                "interval": {"start": "2016-06-15T12:00:00Z"},
                "tariff": {**TARIFF, "import_price": 70_000},
            },
            "book",
        )


def test_at_the_deadline_the_best_feasible_point_is_cleared_and_says_that_it_is_not_settled(
    capsys: pytest.CaptureFixture[str],
) -> None:
    orders = random_orders(RURAL3, 1, 150, 20_000)
    record = clear_book(book_of(orders, firm=[]), RURAL3, out_of_time=lambda: True)
    assert record.status == "cleared"
    rounds = iter(range(1000))
    patient = clear_book(book_of(orders, firm=[]), RURAL3, out_of_time=lambda: next(rounds) > 8)
    assert patient.status == "cleared"
    assert patient.ac.violations == 0
    show_record(record)
    assert record.ac.stale_rows and "not known: the search ended early" in capsys.readouterr().out
    assert clear_book(book_of(orders, firm=[]), RURAL3).welfare_eur >= patient.welfare_eur - 1e-3


def test_a_deadline_that_comes_too_early_asks_nobody_for_what_would_make_things_worse() -> None:
    book = book_of([order(f"b{bus}", "bid", bus, 50_000, 1_000_000) for bus in (5, 7, 9, 11)], firm=[])
    columns = columns_of(book, power_flow(RURAL1))
    careless = dispatch(columns, network=False)
    record = suspended_interval(
        book, columns, careless, whole_awards(columns, careless, network=False), too_late=True
    )
    assert record.status == "suspended"
    assert "by the deadline" in (record.reason or "")
    assert "without trades every limit is kept" in (record.reason or "")
    assert record.setpoints == ()
    assert record.ac.violations == 0
