"""Whatever is changed in a record or its book is caught, and by the check that is for it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from market.auction.book import Book, parse_book
from market.auction.clearing import clear_book
from market.auction.record import sha256_of
from tests.verify.records import (
    RURAL3,
    Document,
    document_of,
    failed,
    feeder_of,
    record_from,
    report_of,
    tied_book,
)

BOOK = tied_book(8)
RECORD = document_of(clear_book(BOOK, feeder_of(RURAL3)))
ORDERS = {order.id: order for order in BOOK.orders}
FILLED = {fill["order_id"]: fill["energy_wh"] for fill in RECORD["fills"]}

Tampering = Callable[[Document], None]


def caught(document: Document, book: Book = BOOK) -> set[str]:
    return set(failed(report_of(record_from(document), book, RURAL3)))


def fill(document: Document, order_id: str) -> Document:
    return next(item for item in document["fills"] if item["order_id"] == order_id)


def price_at(document: Document, bus: int) -> Document:
    return next(item for item in document["prices"] if item["bus"] == bus)


def bus_of(order_id: str) -> int:
    return int(ORDERS[order_id].connection_point.removeprefix("bus:"))


def reassign(document: Document, side: str, old: str, new: str, wh: int) -> None:
    """Makes ``new`` the counterparty of some energy that ``old`` buys or sells, at the price of its fill."""
    trade = next(item for item in document["trades"] if item[side] == old and item["energy_wh"] > wh)
    trade["energy_wh"] -= wh
    price = fill(document, new)["price"]
    document["trades"].append({**trade, side: new, f"{side}_price": price, "energy_wh": wh})


def add_from_losses(document: Document, order_id: str, wh: int) -> None:
    """Gives an order more energy, and puts losses, trades and welfare right as a careful forger would."""
    order, item = ORDERS[order_id], fill(document, order_id)
    item["energy_wh"] += wh
    sign = 1 if order.side == "ask" else -1
    document["losses_wh"] += sign * wh
    welfare_neur = round(document["welfare_eur"] * 1e9) - sign * wh * order.limit_price
    document["welfare_eur"] = welfare_neur / 1e9
    if order.side == "bid":
        reassign(document, "buy", "network", order_id, wh)
    else:
        sold = {"buy": "network", "sell": order_id, "buy_price": 0, "sell_price": item["price"]}
        document["trades"].append({**sold, "energy_wh": wh})


def partly_filled() -> Iterator[str]:
    for order in BOOK.orders:
        if 100 < FILLED.get(order.id, 0) < order.energy_wh - 100:
            yield order.id


def tied_pair() -> tuple[str, str]:
    """Two equal orders that share less than they offer."""
    for order_id in partly_filled():
        if f"t{order_id}" in FILLED:
            return order_id, f"t{order_id}"
    raise AssertionError("the book is meant to have ties that share")


def test_the_record_itself_verifies() -> None:
    assert failed(report_of(record_from(RECORD), BOOK, RURAL3)) == {}


def test_a_fill_of_one_more_wh_is_out_of_balance() -> None:
    document = copy.deepcopy(RECORD)
    document["fills"][0]["energy_wh"] += 1
    assert {"balance: energy", "balance: trades", "balance: welfare"} <= caught(document)


@pytest.mark.parametrize("side", ["bid", "ask"])
def test_a_fill_put_right_in_every_sum_still_disagrees_with_the_power_flow(side: str) -> None:
    document = copy.deepcopy(RECORD)
    order_id = next(order_id for order_id in partly_filled() if ORDERS[order_id].side == side)
    add_from_losses(document, order_id, 3)
    found = caught(document)
    assert "balance: slack power" in found
    assert not found & {"balance: energy", "balance: trades", "balance: welfare"}


def test_energy_moved_between_tied_orders_breaks_the_tie_rule_alone() -> None:
    document = copy.deepcopy(RECORD)
    one, other = tied_pair()
    fill(document, one)["energy_wh"] += 1
    fill(document, other)["energy_wh"] -= 1
    reassign(document, "sell" if ORDERS[one].side == "ask" else "buy", other, one, 1)
    assert caught(document) == {"ties: pro rata"}


def test_a_fill_beyond_its_order_is_caught() -> None:
    document = copy.deepcopy(RECORD)
    order_id = document["fills"][0]["order_id"]
    fill(document, order_id)["energy_wh"] = ORDERS[order_id].energy_wh + 1
    assert "format: fills within orders" in caught(document)


def test_fills_of_unknown_orders_and_second_fills_are_caught() -> None:
    for change in ({"order_id": "nobody"}, {}, {"energy_wh": 0}):
        document = copy.deepcopy(RECORD)
        document["fills"].append({**document["fills"][0], **change})
        assert "format: known orders" in caught(document)


def test_a_hidden_violation_is_seen_by_the_power_flow() -> None:
    record = clear_book(BOOK, feeder_of(RURAL3), network=False)
    document = document_of(record)
    assert record.ac.violations
    document["ac"] |= {"violations": 0, "loading_max_percent": 45.0}
    found = caught(document)
    assert {"AC feasibility: voltages and loadings", "AC feasibility: the record's figures"} <= found


def _loose_limit(document: Document) -> str:
    names = {name.partition("/")[0] for name in document["certificate"]["duals"]}
    return next(f"line:{index}/from" for index in range(1, 100) if f"line:{index}" not in names)


def _change(path: str, value: Any) -> Tampering:
    """Sets a field, adds to it, or (a function) computes it from what it was."""

    def tamper(document: Document) -> None:
        keys: list[Any] = [int(key) if key.isdecimal() else key for key in path.split(" ")]
        place: Any = document
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value(place[keys[-1]]) if callable(value) else value

    return tamper


def _plus(step: float) -> Callable[[Any], Any]:
    return lambda before: before + step


def _drop_dual_and_its_row(document: Document) -> None:
    limit = max(document["binding"], key=lambda item: item["shadow_price_eur_per_mwh"])
    document["binding"].remove(limit)
    del document["certificate"]["duals"][f"{limit['element']}/{limit['side']}"]


def _price_a_loose_limit(document: Document) -> None:
    name = _loose_limit(document)
    document["certificate"]["duals"][name] = 2.0


def _halve_the_largest_dual(document: Document) -> None:
    duals = document["certificate"]["duals"]
    name = max((name for name in duals if name != "energy"), key=lambda name: duals[name])
    duals[name] /= 2


def _negative_dual(document: Document) -> None:
    duals = document["certificate"]["duals"]
    name = next(name for name in duals if name != "energy")
    duals[name] = -1.0


def _dual_of_nothing(document: Document) -> None:
    document["certificate"]["duals"]["line:9999/from"] = 1.0


def _whole_price(step: int) -> Tampering:
    """A price and its loss part changed alike, where an order is filled."""

    def tamper(document: Document) -> None:
        price = price_at(document, bus_of(document["fills"][0]["order_id"]))
        price["price"] += step
        price["losses"] += step

    return tamper


def _price_where_nobody_is(document: Document) -> None:
    price = document["prices"][0]
    price["price"] += 60
    price["losses"] += 60


def _pay_above_the_limit(document: Document) -> None:
    item = next(item for item in document["fills"] if ORDERS[item["order_id"]].side == "bid")
    item["price"] = ORDERS[item["order_id"]].limit_price + 1


def _sell_below_the_limit(document: Document) -> None:
    item = next(item for item in document["fills"] if ORDERS[item["order_id"]].side == "ask")
    item["price"] = ORDERS[item["order_id"]].limit_price - 1


def _import_and_losses(document: Document) -> None:
    document["import_wh"] += 5
    document["losses_wh"] += 5


def _both_ways(document: Document) -> None:
    document["import_wh"] += 10
    document["export_wh"] += 10


def _swap_buyers(document: Document) -> None:
    trades = document["trades"]
    other = next(i for i, trade in enumerate(trades) if trade["energy_wh"] != trades[0]["energy_wh"]
                 and trade["buy"] != trades[0]["buy"])  # fmt: skip
    for key in ("buy", "buy_price"):
        trades[0][key], trades[other][key] = trades[other][key], trades[0][key]


def _firm_trade(document: Document) -> None:
    trade = next(item for item in document["trades"] if item["buy"].startswith("firm:"))
    trade["buy_price"] += 1


TAMPERINGS: dict[str, tuple[Tampering, set[str]]] = {
    "fill price": (_change("fills 0 price", _plus(1)), {"prices: prices of fills", "balance: trades"}),
    "buyer above its limit": (_pay_above_the_limit, {"order limits: limit prices", "balance: trades"}),
    "seller below its limit": (_sell_below_the_limit, {"order limits: limit prices", "balance: trades"}),
    "price": (_change("prices 3 price", _plus(1)), {"prices: parts"}),
    "price part": (_change("prices 3 congestion", _plus(-1)), {"prices: parts"}),
    "price and part": (_whole_price(1), {"prices: prices of fills"}),
    "price and part, by much": (_whole_price(-400), {"prices: prices from duals"}),
    "price of an empty bus": (_price_where_nobody_is, {"prices: prices from duals"}),
    "reactive price": (_change("prices 3 price_q", _plus(60)), {"prices: prices from duals"}),
    "bus without price": (lambda document: document["prices"].pop(), {"prices: parts"}),
    "bus priced twice": (
        lambda document: document["prices"].append(document["prices"][0]),
        {"prices: parts"},
    ),
    "energy dual": (
        _change("certificate duals energy", _plus(100)),
        {"prices: prices from duals", "optimality: dual recomputed"},
    ),
    "energy dual outside the tariffs": (
        _change("certificate duals energy", 400_000.0),
        {"prices: energy price", "optimality: dual feasibility"},
    ),
    "limit dual": (_halve_the_largest_dual, {"prices: prices from duals", "optimality: dual recomputed"}),
    "limit dual left out": (_drop_dual_and_its_row, {"prices: prices from duals"}),
    "negative dual": (_negative_dual, {"optimality: dual feasibility"}),
    "dual of no limit": (_dual_of_nothing, {"optimality: duals"}),
    "price on a loose limit": (
        _price_a_loose_limit,
        {"AC complementarity: limits with a shadow price", "optimality: gap recomputed"},
    ),
    "losses": (_change("losses_wh", _plus(1)), {"balance: energy", "balance: trades"}),
    "import and losses": (_import_and_losses, {"balance: slack power"}),
    "import and export": (_both_ways, {"balance: one direction"}),
    "welfare": (_change("welfare_eur", _plus(1e-6)), {"balance: welfare"}),
    "energy of a trade": (_change("trades 0 energy_wh", _plus(1)), {"balance: trades"}),
    "price of a trade": (_change("trades 0 sell_price", _plus(1)), {"balance: trades"}),
    "buyer of a trade": (_change("trades 0 buy", "retailer"), {"balance: trades"}),
    "buyers of two trades": (_swap_buyers, {"balance: trades"}),
    "firm price of a trade": (_firm_trade, {"balance: trades"}),
    "trade left out": (lambda document: document["trades"].pop(), {"balance: trades"}),
    "primal": (_change("certificate primal_eur", _plus(1e-3)), {"optimality: primal recomputed"}),
    "dual objective": (_change("certificate dual_eur", _plus(1e-3)), {"optimality: dual recomputed"}),
    "gap": (_change("certificate gap_eur", 0.5), {"optimality: gap recomputed"}),
    "shadow price": (
        _change("binding 0 shadow_price_eur_per_mwh", _plus(1)),
        {"AC complementarity: list of binding limits"},
    ),
    "loading of a binding limit": (
        _change("binding 0 loading_percent", _plus(-1)),
        {"AC complementarity: list of binding limits"},
    ),
    "binding limit left out": (
        lambda document: document["binding"].pop(),
        {"AC complementarity: list of binding limits"},
    ),
    "lowest voltage": (_change("ac v_min_pu", _plus(0.01)), {"AC feasibility: the record's figures"}),
    "highest loading": (
        _change("ac loading_max_percent", _plus(-1)),
        {"AC feasibility: the record's figures"},
    ),
    "violations": (_change("ac violations", 1), {"AC feasibility: the record's figures"}),
    "stale rows": (_change("ac stale_rows", 2), {"AC complementarity: stale rows"}),
    "slack mismatch": (_change("ac slack_mismatch_w", 3.0), {"AC complementarity: slack mismatch"}),
    "another interval": (_change("interval start", "2016-06-15T12:15:00Z"), {"format: interval"}),
    "another book": (_change("certificate book_sha256", "0" * 64), {"format: book hash"}),
    "another feeder": (_change("certificate feeder_sha256", "0" * 64), {"format: feeder hash"}),
    "other limits": (_change("certificate limits_sha256", "0" * 64), {"format: limits hash"}),
    "no certificate": (_change("certificate", None), {"format: certificate", "optimality: duals"}),
}


@pytest.mark.parametrize("name", sorted(TAMPERINGS))
def test_what_is_changed_in_a_record_is_caught_by_the_check_for_it(name: str) -> None:
    tamper, expected = TAMPERINGS[name]
    document = copy.deepcopy(RECORD)
    tamper(document)
    assert document != RECORD
    assert expected <= caught(document)


def forged(change: Callable[[list[Document]], None], *, rehash: bool) -> tuple[Document, Book]:
    """The record with a changed book, and where ``rehash`` with that book's hash."""
    document, orders = copy.deepcopy(RECORD), json.loads(BOOK.model_dump_json())
    change(orders["orders"])
    book = parse_book(orders, "book")
    if rehash:
        content = book.model_dump(mode="json", exclude={"feeder"})
        document["certificate"]["book_sha256"] = sha256_of(content)
    return document, book


def _of(orders: list[Document], order_id: str) -> Document:
    return next(order for order in orders if order["id"] == order_id)


BOOK_TAMPERINGS: dict[str, tuple[Callable[[list[Document]], None], set[str]]] = {
    "an order left out": (
        lambda orders: orders.remove(_of(orders, RECORD["fills"][0]["order_id"])),
        {"format: known orders", "balance: energy"},
    ),
    "a limit raised": (
        lambda orders: _of(orders, RECORD["fills"][0]["order_id"]).update(limit_price=359_999),
        {"balance: welfare"},
    ),
    "a smaller order": (
        lambda orders: _of(orders, RECORD["fills"][0]["order_id"]).update(energy_wh=1),
        {"format: fills within orders"},
    ),
    "a minimum fill": (
        lambda orders: _of(orders, next(partly_filled())).update(min_fill_percent=100),
        {"format: minimum fills"},
    ),
    "a bid that would have been taken": (
        lambda orders: orders.append({**orders[0], "id": "new", "side": "bid", "limit_price": 1_900_000}),
        {"prices: complementary slackness", "optimality: gap recomputed"},
    ),
    "a tied order that got nothing": (
        lambda orders: orders.append({**_of(orders, next(partly_filled())), "id": "new"}),
        {"ties: pro rata"},
    ),
}


@pytest.mark.parametrize("name", sorted(BOOK_TAMPERINGS))
def test_what_is_changed_in_a_book_is_caught_by_its_hash_and_without_it(name: str) -> None:
    change, expected = BOOK_TAMPERINGS[name]
    document, book = forged(change, rehash=False)
    assert "format: book hash" in caught(document, book)
    document, book = forged(change, rehash=True)
    found = caught(document, book)
    assert "format: book hash" not in found
    assert expected <= found


def leaves(value: Any, path: str = "") -> Iterator[str]:
    """One path to each kind of number in a document: of a list, in its middle; of the duals, the first."""
    if isinstance(value, dict):
        if "energy" in value and "price" not in value:
            value = dict(list(value.items())[:3])
        for key, item in value.items():
            yield from leaves(item, f"{path} {key}" if path else key)
    elif isinstance(value, list) and value:
        yield from leaves(value[len(value) // 2], f"{path} {len(value) // 2}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path


NOT_A_CLAIM = {"ac iterations", "ac slack_mismatch_w"}
"""How the clearing went is its own account; a mismatch beyond 1 W is refused."""


@pytest.mark.parametrize("path", sorted(set(leaves(RECORD)) - NOT_A_CLAIM))
def test_no_number_of_a_record_can_be_changed_unnoticed(path: str) -> None:
    document = copy.deepcopy(RECORD)
    by_much = {"shadow": 1.0, "gap_eur": 0.01, "certificate duals": 50.0}
    step = next((step for part, step in by_much.items() if part in path), None)
    if step is None:
        step = 60 if path.endswith("price_q") else 15 if path.endswith("minutes") else 1
    if path.endswith("minutes"):
        _change(path, 30)(document)
    else:
        _change(path, _plus(step))(document)
    assert caught(document), path
