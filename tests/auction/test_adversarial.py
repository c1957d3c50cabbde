"""Books made to break an auction, and the defects seen in other tools, each as what holds here instead."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandapower.networks as pn
import pytest

from grid.errors import InputError
from grid.feeder import Feeder, feeder_from_net
from market.auction.book import Book
from market.auction.clearing import clear_book
from market.auction.record import ClearingRecord
from tests.auction.books import TARIFF, book_of, order, violations_by_pandapower
from tests.auction.nets import feeder_of, fresh_net

RURAL1 = feeder_of("rural1")
RURAL3 = feeder_of("rural3")
SLACK_BUS = 0


def fills_of(record: ClearingRecord) -> dict[str, int]:
    return {fill.order_id: fill.energy_wh for fill in record.fills}


def cleared(book: Book, feeder: Feeder) -> ClearingRecord:
    """The record, after what must hold for each."""
    record = clear_book(book, feeder)
    assert record.status == "cleared", record.reason
    assert record.ac.violations == record.ac.stale_rows == 0
    fills = fills_of(record)
    net_wh = sum(round(firm.p_w * book.interval.hours) for firm in book.firm or ())
    for item in book.orders:
        got = fills.get(item.id, 0)
        assert 0 <= got <= item.energy_wh
        net_wh += got if item.side == "ask" else -got
    assert record.import_wh - record.export_wh + net_wh == record.losses_wh
    assert all(row.price == row.energy + row.losses + row.congestion + row.voltage for row in record.prices)
    return record


def price_of(record: ClearingRecord, bus: int) -> int:
    return next(row.price for row in record.prices if row.bus == bus)


def test_where_all_orders_are_tied_everyone_gets_the_same_share() -> None:
    offers = [order(f"b{index}", "bid", 7, 100 + index, 150_000) for index in range(40)]
    offers += [order(f"a{index}", "ask", 7, 50, 150_000) for index in range(40)]
    record = cleared(book_of(offers, firm=[]), RURAL3)
    fills = fills_of(record)
    assert sum(fills[f"a{index}"] for index in range(40)) == 2000
    bought = sum(fills[f"b{index}"] for index in range(40))
    offered = sum(100 + index for index in range(40))
    for index in range(40):
        assert abs(fills[f"b{index}"] - bought * (100 + index) / offered) < 1
    assert price_of(record, 7) == 150_000


@pytest.mark.parametrize(
    ("side", "limit_price", "got"), [("bid", 400_000, 900), ("bid", 200_000, 0), ("ask", 50_000, 900)]
)
def test_one_order_trades_with_the_retailer_or_not_at_all(side: str, limit_price: int, got: int) -> None:
    record = cleared(book_of([order("o", side, 7, 900, limit_price)], firm=[]), RURAL3)
    assert fills_of(record).get("o", 0) == got


def test_an_empty_book_only_pays_for_the_idle_feeder() -> None:
    record = cleared(book_of([], firm=[]), RURAL1)
    assert record.fills == ()
    assert record.import_wh == record.losses_wh > 0
    assert all(price.price >= TARIFF["import_price"] for price in record.prices if price.bus == SLACK_BUS)


def test_only_bids_are_served_by_the_retailer_as_far_as_they_pay() -> None:
    offers = [order(f"b{step}", "bid", 7, 500, 20_000 * step) for step in range(10, 21)]
    fills = fills_of(cleared(book_of(offers, firm=[]), RURAL3))
    assert all(
        fills.get(f"b{step}", 0) == (500 if 20_000 * step > 310_000 else 0)
        for step in range(10, 21)
        if step != 15
    )


def test_only_asks_go_to_the_retailer_as_far_as_it_pays() -> None:
    offers = [order(f"a{step}", "ask", 7, 500, 10_000 * step) for step in range(-5, 12)]
    fills = fills_of(cleared(book_of(offers, firm=[]), RURAL3))
    assert all(fills.get(f"a{step}", 0) == (500 if step < 8 else 0) for step in range(-5, 12) if step != 8)


def test_orders_that_cross_at_floor_and_cap_are_cleared_at_prices_between_their_limits() -> None:
    offers = [
        order("a", "ask", 7, 3000, TARIFF["floor"]),
        order("b", "bid", 7, 2000, TARIFF["cap"]),
        order("never a", "ask", 7, 1000, TARIFF["cap"]),
        order("never b", "bid", 7, 1000, TARIFF["floor"]),
    ]
    record = cleared(book_of(offers, firm=[]), RURAL3)
    assert fills_of(record) == {"a": 3000, "b": 2000}
    assert TARIFF["export_price"] * 0.9 <= price_of(record, 7) <= TARIFF["import_price"]


def test_energies_a_millionfold_apart_are_all_met_to_the_watt_hour() -> None:
    offers = [
        order("huge", "ask", 3, 10_000_000, 100_000),
        order("tiny", "bid", 3, 1, 400_000),
        order("small", "bid", 7, 10, 350_000),
        order("large", "bid", 9, 10_000, 360_000),
    ]
    fills = fills_of(cleared(book_of(offers, firm=[]), RURAL1))
    assert (fills["tiny"], fills["small"], fills["large"]) == (1, 10, 10_000)
    assert 10_011 <= fills["huge"] < 20_000


def test_a_million_watt_hours_that_the_feeder_cannot_carry_are_cut_to_what_it_can() -> None:
    offers = [order("huge", "ask", 7, 10_000_000, 10_000), order("tiny", "ask", 7, 1, 5_000)]
    book = book_of(offers, firm=[])
    record = cleared(book, RURAL1)
    assert fills_of(record)["tiny"] == 1
    assert 0 < fills_of(record)["huge"] < 200_000
    assert record.binding
    assert violations_by_pandapower(fresh_net("rural1"), RURAL1, book, record) == []


def test_an_order_at_the_slack_bus_trades_at_the_energy_price_alone() -> None:
    offers = [order("a", "ask", SLACK_BUS, 5000, 100_000), order("b", "bid", 7, 2000, 290_000)]
    record = cleared(book_of(offers, firm=[]), RURAL3)
    assert fills_of(record)["b"] == 2000
    assert 2000 < fills_of(record)["a"] < 5000, "it serves the bid and the losses"
    assert price_of(record, SLACK_BUS) == 100_000
    slack = next(row for row in record.prices if row.bus == SLACK_BUS)
    assert (slack.losses, slack.congestion, slack.voltage) == (0, 0, 0)


def test_an_order_at_the_slack_bus_does_not_load_the_feeder() -> None:
    offers = [order("a", "ask", SLACK_BUS, 10**9, 10_000)]
    record = cleared(book_of(offers, firm=[]), RURAL3)
    assert fills_of(record) == {"a": 10**9}
    assert record.binding == ()


def long_feeder() -> Feeder:
    """The 907-bus European low-voltage feeder of IEEE, balanced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = pn.ieee_european_lv_asymmetric()
        net.asymmetric_load["in_service"] = False
        return feeder_from_net(net, "ieee_european_lv")


def test_the_radial_end_of_a_feeder_with_900_buses_is_served_up_to_its_voltage_limit() -> None:
    feeder = long_feeder()
    assert feeder.node_count > 900
    depth = np.abs(feeder.bus_node - feeder.slack[0])
    end = int(feeder.bus_index[int(np.argmax(depth))])
    offers = [order("b", "bid", end, 50_000, 500_000), order("a", "ask", end, 1000, 310_000)]
    record = cleared(book_of(offers, firm=[], limits={"v_min_pu": 1.0}), feeder)
    fills = fills_of(record)
    assert 0 < fills["b"] < 50_000
    assert fills["a"] == 1000
    assert {limit.kind for limit in record.binding} == {"v_min"}
    at_end = next(row for row in record.prices if row.bus == end)
    assert at_end.price == 500_000
    assert at_end.voltage > 0


def test_flexible_demand_that_cannot_be_served_is_served_as_far_as_the_limits_go() -> None:
    offers = [order(f"b{bus}", "bid", bus, 500_000, 1_000_000) for bus in (5, 7, 9, 11)]
    book = book_of(offers, firm=[])
    record = cleared(book, RURAL1)
    assert record.binding
    assert 0 < sum(fills_of(record).values()) < 4 * 500_000
    assert violations_by_pandapower(fresh_net("rural1"), RURAL1, book, record) == []


def test_firm_demand_that_cannot_be_served_suspends_with_the_element_that_is_overloaded() -> None:
    firm = [{"connection_point": f"bus:{bus}", "p_w": -120_000.0} for bus in (5, 7, 9)]
    record = clear_book(book_of([order("b", "bid", 7, 10, 400_000)], firm=firm), RURAL1)
    assert record.status == "suspended"
    assert "loaded to" in (record.reason or "") or "pu" in (record.reason or "")
    assert record.fills == record.trades == record.prices == ()


def test_firm_demand_that_breaks_a_limit_suspends_a_book_without_orders_too() -> None:
    record = clear_book(book_of([], firm=[{"connection_point": "bus:7", "p_w": -250_000.0}]), RURAL1)
    assert record.status == "suspended"
    assert record.setpoints == ()


def test_firm_demand_beyond_any_power_flow_suspends_with_the_reason() -> None:
    firm = [{"connection_point": "bus:7", "p_w": -1e8}]
    record = clear_book(book_of([], firm=firm), RURAL1)
    assert record.status == "suspended"
    assert "no power flow" in (record.reason or "")


def test_pv_that_must_be_curtailed_everywhere_shares_what_the_feeder_carries() -> None:
    buses = [int(bus) for bus in RURAL3.bus_index if bus not in (0, 1)]
    offers = [order(f"pv{bus}", "ask", bus, 20_000, 0) for bus in buses]
    book = book_of(offers, firm=[])
    record = cleared(book, RURAL3)
    total = sum(fills_of(record).values())
    assert 0 < total < 0.5 * 20_000 * len(buses)
    assert record.binding
    assert any(row.price == 0 for row in record.prices), "the marginal ones earn nothing"
    assert violations_by_pandapower(fresh_net("rural3"), RURAL3, book, record) == []


def test_pv_that_would_pay_to_run_is_curtailed_at_its_own_price() -> None:
    offers = [order(f"pv{bus}", "ask", bus, 100_000, -20_000) for bus in (5, 7, 9, 11)]
    record = cleared(book_of(offers, firm=[]), RURAL1)
    assert any(row.price == -20_000 for row in record.prices)


def test_prices_of_two_pinned_power_factors_at_one_bus_keep_the_retailers_price() -> None:
    # Both asks are marginal at the same limit; their prices contradict each other by the curvature of the
    # transformer's limit. The energy price is the export tariff all the same.
    offers = [
        order("o0", "bid", 1, 1, 0),
        order("o1", "bid", 1, 1, 0),
        order("o2", "bid", 1, 78, 0, tan_phi=0.3),
        order("o3", "ask", 1, 140, 0, tan_phi=0.3),
        order("o4", "ask", 1, 6387, 0),
    ]
    record = cleared(book_of(offers, firm=[], limits={"max_loading_percent": 15.0}), RURAL1)
    assert record.export_wh > 0
    assert price_of(record, SLACK_BUS) == TARIFF["export_price"]
    assert price_of(record, 1) == 0


# Defects seen in other tools.


def test_two_orders_of_one_user_at_one_price_lose_no_energy() -> None:
    offers = [order("b", "bid", 7, 3000, 200_000)]
    offers += [order("same user 1", "ask", 7, 700, 100_000), order("same user 2", "ask", 7, 300, 100_000)]
    record = cleared(book_of(offers, firm=[]), RURAL3)
    fills = fills_of(record)
    assert fills["same user 1"] + fills["same user 2"] == 1000
    sold = sum(trade.energy_wh for trade in record.trades if trade.sell.startswith("same user"))
    assert sold == 1000


def test_nobody_is_filled_twice_where_supply_and_demand_come_in_many_steps() -> None:
    # A double auction that trades min(in, out) at each price step overfills a book such as this by 66 %.
    offers = [order(f"b{step}", "bid", 7, 1000, 300_000 - 10_000 * step) for step in range(10)]
    offers += [order(f"a{step}", "ask", 7, 1000, 90_000 + 10_000 * step) for step in range(10)]
    record = cleared(book_of(offers, firm=[]), RURAL3)
    for id_, energy_wh in fills_of(record).items():
        assert energy_wh <= 1000
        told = sum(trade.energy_wh for trade in record.trades if id_ in (trade.buy, trade.sell))
        assert told == energy_wh


def test_an_unknown_bus_is_refused_and_not_moved_to_the_first() -> None:
    with pytest.raises(InputError, match=r"orders\[0\].connection_point: 'bus:4711'"):
        clear_book(book_of([order("a", "ask", 4711, 100, 100_000)], firm=[]), RURAL3)


def test_ties_are_broken_the_same_way_each_time_and_not_by_the_place_in_the_book() -> None:
    offers = [order(f"b{index}", "bid", 7, 1, 150_000) for index in range(20)]
    offers.append(order("a", "ask", 7, 330, 150_000))
    winners = fills_of(cleared(book_of(offers, firm=[]), RURAL3))
    assert 0 < sum(winners.get(f"b{index}", 0) for index in range(20)) < 20
    for again in (offers, offers[::-1], offers[7:] + offers[:7]):
        assert fills_of(cleared(book_of(again, firm=[]), RURAL3)) == winners


def test_the_price_lies_between_the_last_taken_and_the_first_left_out() -> None:
    offers: list[dict[str, Any]] = [
        order("taken ask", "ask", 7, 2000, 110_000),
        order("left ask", "ask", 7, 2000, 240_000),
        order("taken bid", "bid", 7, 1500, 220_000),
        order("left bid", "bid", 7, 1500, 105_000),
    ]
    record = cleared(book_of(offers, firm=[]), RURAL3)
    assert fills_of(record)["taken bid"] == 1500
    assert "left ask" not in fills_of(record)
    assert "left bid" not in fills_of(record)
    assert 110_000 <= price_of(record, 7) <= 220_000


def test_splitting_an_order_changes_nothing_for_anybody() -> None:
    whole = [
        order("a", "ask", 7, 1000, 100_000),
        order("b", "bid", 7, 901, 150_000),
        order("c", "bid", 7, 500, 150_000),
    ]
    split = [*whole[:1], order("b1", "bid", 7, 600, 150_000), order("b2", "bid", 7, 301, 150_000), whole[2]]
    one = fills_of(cleared(book_of(whole, firm=[]), RURAL3))
    two = fills_of(cleared(book_of(split, firm=[]), RURAL3))
    assert abs(one["b"] - two["b1"] - two["b2"]) <= 1
    assert abs(one["c"] - two["c"]) <= 1
    assert one["a"] == two["a"]


def test_different_power_factors_behind_one_full_line_mix_as_its_curved_limit_wants() -> None:
    orders = [
        order("o0", "ask", 1, 7243, 0, tan_phi=-0.2),
        order("o1", "ask", 5, 117, 15_000, tan_phi=0.3),
        order("o2", "ask", 1, 100, 0),
        order("o3", "ask", 1, 7101, 0, tan_phi=0.3),
    ]
    book = book_of(orders, firm=[], limits={"max_loading_percent": 15})
    record = clear_book(book, feeder_of("rural1"))
    filled = {fill.order_id for fill in record.fills}
    assert {"o0", "o3"} <= filled
    assert record.welfare_eur == pytest.approx(0.48224, abs=1e-4)
