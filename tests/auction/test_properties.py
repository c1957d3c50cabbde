"""What holds for every book: hypothesis tries hundreds in each run, thousands with the long tests."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grid.limits import network_limits
from market.auction.book import Book
from market.auction.clearing import clear_book, power_flow
from market.auction.columns import Columns, arrange
from market.auction.merit import merit_order
from market.auction.record import ClearingRecord
from tests.auction.books import TARIFF, book_of, order
from tests.auction.nets import feeder_of

RURAL1 = feeder_of("rural1")
BUSES = [
    int(bus)
    for bus in RURAL1.bus_index
    if not np.isin(RURAL1.bus_node[RURAL1.bus_index == bus], RURAL1.slack)
]
LONG = os.environ.get("PEERGRID_TEST_LONG") == "1"

many = settings(
    max_examples=2000 if LONG else 120, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

orders_ = st.builds(
    lambda bus, side, energy_wh, price, tan_phi: {
        "side": side,
        "bus": bus,
        "energy_wh": energy_wh,
        "limit_price": price,
        "tan_phi": tan_phi,
    },
    st.sampled_from(BUSES),
    st.sampled_from(["bid", "ask"]),
    st.one_of(st.integers(1, 50), st.integers(1, 30_000)),
    st.one_of(st.integers(-6, 30).map(lambda step: 15_000 * step), st.integers(-500_000, 2_000_000)),
    st.sampled_from([0.0, 0.0, 0.0, 0.3, -0.2]),
)
firm_ = st.builds(
    lambda bus, p_w: {"connection_point": f"bus:{bus}", "p_w": p_w, "q_var": 0.2 * p_w},
    st.sampled_from(BUSES),
    st.floats(-3000, 3000).map(lambda value: round(value, 1)),
)
tariffs_ = st.sampled_from(
    [
        {},
        {"local_fee": 30_000},
        {"export_price": -50_000},
        {"import_price": 100_000, "export_price": 100_000},
        {"import_price": -20_000, "export_price": -60_000},
    ]
)


@st.composite
def books(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Orders, and everything else that a book takes."""
    raw = draw(st.lists(orders_, max_size=20))
    orders = [order(f"o{index}", **item) for index, item in enumerate(raw)]
    return orders, {
        "firm": draw(st.lists(firm_, max_size=3)),
        "limits": {"max_loading_percent": draw(st.sampled_from([15.0, 40.0, 100.0]))},
        "minutes": draw(st.sampled_from([15, 60])),
        **draw(tariffs_),
    }


def fills_of(record: ClearingRecord) -> dict[str, int]:
    return {fill.order_id: fill.energy_wh for fill in record.fills}


def price_at(book: Book, record: ClearingRecord) -> dict[str, float]:
    """What one more injected kWh earns where each order is, with its reactive power; µEUR/kWh."""
    rows = {row.bus: row for row in record.prices}
    at = {}
    for item in book.orders:
        row = rows[int(item.connection_point.removeprefix("bus:"))]
        at[item.id] = row.price + item.tan_phi * row.price_q
    return at


@many
@given(books())
def test_energy_balances_and_everyone_gets_what_the_price_says(
    case: tuple[list[Any], dict[str, Any]],
) -> None:
    orders, rest = case
    book = book_of(orders, **rest)
    record = clear_book(book, RURAL1)
    assert record.status == "cleared"
    fills, at = fills_of(record), price_at(book, record)
    injected_wh = sum(round(firm.p_w * book.interval.hours) for firm in book.firm or ())
    for item in book.orders:
        sign = 1 if item.side == "ask" else -1
        got = fills.get(item.id, 0)
        assert 0 <= got <= item.energy_wh
        injected_wh += sign * got
        limit = item.limit_price - (book.tariff.local_fee if item.side == "bid" else 0)
        gain = sign * (at[item.id] - limit)
        # Whole prices, whole Wh, and what linear programs leave open where Newton's last step found no hold.
        tolerance = 8 + 1e-4 * abs(limit)
        assert got == item.energy_wh or gain <= tolerance, f"{item.id} was left out at a gain of {gain}"
        assert got == 0 or gain >= -tolerance, f"{item.id} was taken at a loss of {-gain}"
    assert record.import_wh - record.export_wh + injected_wh == record.losses_wh
    assert min(record.import_wh, record.export_wh) == 0
    for row in record.prices:
        assert row.price == row.energy + row.losses + row.congestion + row.voltage
    low, high = book.tariff.export_price, book.tariff.import_price - book.tariff.local_fee
    (slack,) = {row.price for row in record.prices if row.bus == 0}
    assert low - 1 <= slack <= high + 1
    assert sum(t.energy_wh for t in record.trades if t.buy == "retailer") == record.export_wh
    assert sum(t.energy_wh for t in record.trades if t.sell == "retailer") == record.import_wh


@many
@given(books(), st.integers(0, 2**32))
def test_the_order_of_the_orders_changes_nothing(case: tuple[list[Any], dict[str, Any]], seed: int) -> None:
    orders, rest = case
    record = clear_book(book_of(orders, **rest), RURAL1)
    shuffled = list(orders)
    random.Random(seed).shuffle(shuffled)
    other = clear_book(book_of(shuffled, **rest), RURAL1)
    assert {fill.order_id: fill for fill in other.fills} == {fill.order_id: fill for fill in record.fills}
    assert other.prices == record.prices
    assert sorted(map(str, other.trades)) == sorted(map(str, record.trades))


@many
@given(books(), st.integers(0, 2**32))
def test_an_order_split_in_two_gets_the_same(case: tuple[list[Any], dict[str, Any]], seed: int) -> None:
    orders, rest = case
    draw = random.Random(seed)
    large = [index for index, item in enumerate(orders) if item["energy_wh"] > 1]
    if not large:
        return
    chosen = draw.choice(large)
    whole = orders[chosen]
    first_wh = draw.randrange(1, whole["energy_wh"])
    parts = [
        {**whole, "id": "first", "energy_wh": first_wh},
        {**whole, "id": "second", "energy_wh": whole["energy_wh"] - first_wh},
    ]
    record = clear_book(book_of(orders, **rest), RURAL1)
    split = clear_book(book_of(orders[:chosen] + parts + orders[chosen + 1 :], **rest), RURAL1)
    before, after = fills_of(record), fills_of(split)
    together = after.pop("first", 0) + after.pop("second", 0)
    assert abs(together - before.pop(whole["id"], 0)) <= 1
    assert all(abs(after.get(id_, 0) - before.get(id_, 0)) <= 1 for id_ in before.keys() | after.keys())
    assert split.prices == record.prices


@many
@given(books(), st.sampled_from(BUSES), st.sampled_from(["bid", "ask"]), st.integers(1, 50_000))
def test_an_order_beyond_the_margin_changes_nothing(
    case: tuple[list[Any], dict[str, Any]], bus: int, side: str, energy_wh: int
) -> None:
    orders, rest = case
    record = clear_book(book_of(orders, **rest), RURAL1)
    at = next(row.price for row in record.prices if row.bus == bus)
    if not TARIFF["floor"] < at < TARIFF["cap"]:
        return
    beyond = TARIFF["cap"] if side == "ask" else TARIFF["floor"]
    added = clear_book(book_of([*orders, order("x", side, bus, energy_wh, beyond)], **rest), RURAL1)
    assert {fill.order_id: fill for fill in added.fills} == {fill.order_id: fill for fill in record.fills}
    ordered = {int(item["connection_point"].removeprefix("bus:")) for item in orders} | {0}
    before = [row for row in record.prices if row.bus in ordered]
    assert [row.price for row in added.prices if row.bus in ordered] == [row.price for row in before]


# The lossless, unlimited, unrounded core: the merit order with an effect of −1 at every point.


@st.composite
def markets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int, int]:
    """Signs, prices and whole kW of orders at one point, import price, export price, firm kW drawn."""
    count = draw(st.integers(0, 30))
    low = draw(st.integers(-100, 100))
    high = draw(st.integers(low, 150))

    def ints(least: int, most: int) -> np.ndarray:
        return np.array(
            draw(st.lists(st.integers(least, most), min_size=count, max_size=count)), dtype=np.int64
        )

    return 2 * ints(0, 1) - 1, ints(-150, 200), ints(1, 1000), high, low, draw(st.integers(-3000, 3000))


def core(sign: np.ndarray, price: np.ndarray, kw: np.ndarray, high: int, low: int) -> Columns:
    flow = power_flow(RURAL1)
    nothing = np.zeros(RURAL1.node_count)
    return arrange(
        flow,
        network_limits(RURAL1),
        hours=1.0,
        firm_p_w=nothing,
        firm_q_var=nothing,
        import_price=high,
        export_price=low,
        floor=-10_000,
        cap=10_000,
        node=np.full(len(sign), int(RURAL1.pq[0])),
        tan_phi=np.zeros(len(sign)),
        sign=sign,
        price=price,
        wh=kw * 1000,
    )


def cleared(columns: Columns, firm_kw: float) -> tuple[dict[tuple[int, int], float], float]:
    """Power by (sign, price), and net import."""
    result = merit_order(columns, np.full(len(columns.point_node), -1.0), float(firm_kw))
    assert result is not None
    kw, net_import_kw = result
    keys = zip(columns.group_sign.tolist(), columns.group_price.tolist(), strict=True)
    return dict(zip(keys, kw.tolist(), strict=True)), net_import_kw


@settings(max_examples=5000 if LONG else 300, deadline=None)
@given(markets(), st.integers(-1000, 1000))
def test_in_the_core_shifted_prices_shift_nothing_else(market: Any, shift: int) -> None:
    sign, price, kw, high, low, firm_kw = market
    powers, net = cleared(core(sign, price, kw, high, low), firm_kw)
    shifted, other_net = cleared(core(sign, price + shift, kw, high + shift, low + shift), firm_kw)
    assert shifted == {(side, limit + shift): power for (side, limit), power in powers.items()}
    assert other_net == net


@settings(max_examples=5000 if LONG else 300, deadline=None)
@given(markets(), st.integers(-3, 10))
def test_in_the_core_scaled_energy_scales_all_powers(market: Any, exponent: int) -> None:
    sign, price, kw, high, low, firm_kw = market
    factor = 2.0**exponent
    powers, net = cleared(core(sign, price, kw * 8, high, low), firm_kw * 8)
    scaled, other_net = cleared(
        core(sign, price, (kw * 8 * factor).astype(np.int64), high, low), firm_kw * 8 * factor
    )
    assert scaled == {key: power * factor for key, power in powers.items()}
    assert other_net == net * factor


@settings(max_examples=5000 if LONG else 300, deadline=None)
@given(markets())
def test_in_the_core_the_mirrored_market_is_the_mirror_image(market: Any) -> None:
    sign, price, kw, high, low, firm_kw = market
    powers, net = cleared(core(sign, price, kw, high, low), firm_kw)
    mirrored, other_net = cleared(core(-sign, -price, kw, -low, -high), -firm_kw)
    assert mirrored == {(-side, -limit): power for (side, limit), power in powers.items()}
    assert other_net == -net


@settings(max_examples=5000 if LONG else 300, deadline=None)
@given(markets())
def test_in_the_core_some_price_supports_every_award(market: Any) -> None:
    """The interval of prices at which all awards are what each order would choose is not empty."""
    sign, price, kw, high, low, firm_kw = market
    columns = core(sign, price, kw, high, low)
    powers, net = cleared(columns, firm_kw)
    offered = {
        (int(side), int(limit)): float(power)
        for side, limit, power in zip(columns.group_sign, columns.group_price, columns.group_kw, strict=True)
    }
    lowest, highest = (high if net > 0 else low), (low if net < 0 else high)
    for (side, limit), power in powers.items():
        assert 0.0 <= power <= offered[side, limit]
        if (side > 0 and power > 0) or (side < 0 and power < offered[side, limit]):
            lowest = max(lowest, limit)
        if (side < 0 and power > 0) or (side > 0 and power < offered[side, limit]):
            highest = min(highest, limit)
    assert lowest <= highest
    drawn = sum(-side * power for (side, _), power in powers.items()) + firm_kw
    assert drawn == pytest.approx(net, abs=1e-9)
