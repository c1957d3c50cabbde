"""Why an order got what it got, told from book, record and feeder alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from grid.errors import InputError
from market.auction.book import Book
from market.auction.clearing import clear_book
from market.auction.explain import explain
from market.auction.record import ClearingRecord
from market.cli.main import cli
from tests.auction.books import book_of, order
from tests.auction.nets import binding_book, feeder_of

RURAL3 = feeder_of("rural3")


def told(book: Book, order_id: str, feeder_name: str = "rural3") -> str:
    """The explanation, from a record that has been stored and read again."""
    feeder = feeder_of(feeder_name)
    stored = json.dumps(clear_book(book, feeder).json_document())
    record = ClearingRecord.model_validate_json(stored)
    return "\n".join(explain(book, record, feeder, order_id))


def test_an_order_taken_in_full_is_told_its_gain_and_its_partners() -> None:
    offers = [order("a", "ask", 7, 2000, 100_000), order("b", "bid", 9, 500, 250_000)]
    text = told(book_of(offers, firm=[]), "b")
    assert "b buys up to 500 Wh at bus:9 for at most 25.00 ct/kWh." in text
    assert "All of it was bought, for 10.0" in text
    assert re.search(r"Its limit is 14\.9\d ct/kWh above that, so it is taken in full\.", text)
    assert "500 Wh from a" in text
    assert "No limit of the feeder binds." in text


def test_an_order_left_out_is_told_by_how_much_its_limit_misses_the_price() -> None:
    offers = [order("a", "ask", 7, 2000, 100_000), order("b", "bid", 9, 500, 60_000)]
    text = told(book_of(offers, firm=[]), "b")
    assert "Nothing was bought." in text
    assert "below that, so it is left out." in text


def test_tied_orders_are_told_what_they_share() -> None:
    offers = [order(f"b{index}", "bid", 7, 500, 150_000) for index in range(3)]
    offers.append(order("a", "ask", 7, 1200, 60_000))
    text = told(book_of(offers, firm=[]), "b1")
    assert "it is the marginal order here and sets the price" in text
    assert "with 2 other orders alike, pro rata: it offers 33.3 % of their 1\u202f500 Wh." in text


def test_each_binding_limit_is_named_with_its_effect_on_the_price_here() -> None:
    book = binding_book("rural3", 1)
    record = clear_book(book, RURAL3)
    for item in book.orders[:25]:
        text = "\n".join(explain(book, record, RURAL3, item.id))
        bus = int(item.connection_point.removeprefix("bus:"))
        row = next(row for row in record.prices if row.bus == bus)
        named = re.findall(r"which (raises|lowers) the price here by (\d+\.\d+) ct/kWh", text)
        total_ct = sum(float(ct) * (1 if way == "raises" else -1) for way, ct in named)
        unnamed = re.search(r"(\d+) (?:more )?limits? binds? elsewhere", text)
        loose_ct = 0.01 * (int(unnamed.group(1)) if unnamed else 0) + 0.005 * (len(named) + 1)
        assert total_ct == pytest.approx((row.congestion + row.voltage) / 10_000, abs=loose_ct)
        assert len(named) + (int(unnamed.group(1)) if unnamed else 0) == len(record.binding)


def test_a_voltage_limit_is_told_in_per_unit() -> None:
    offers = [order(f"b{bus}", "bid", bus, 60_000, 400_000) for bus in (20, 33, 43)]
    book = book_of(offers, firm=[])
    texts = [told(book, f"b{bus}", "cigre_lv") for bus in (20, 33, 43)]
    assert any(
        "at the lowest voltage allowed, 0.9000 pu; each kW fed in here raises it by" in text for text in texts
    )


def test_the_local_fee_is_named_where_a_buyer_pays_it() -> None:
    offers = [order("a", "ask", 7, 2000, 100_000), order("b", "bid", 9, 500, 250_000)]
    book = book_of(offers, firm=[], local_fee=30_000)
    assert "the local network fee adds 3.00 ct/kWh: 13.0" in told(book, "b")
    assert "fee adds" not in told(book, "a")


def test_reactive_power_is_named_where_it_counts() -> None:
    firm = [{"connection_point": "bus:120", "p_w": -100_000.0}]
    offers = [order("b", "bid", 120, 60_000, 900_000, tan_phi=0.5)]
    offers.append(order("a", "ask", 120, 1000, 350_000))
    text = told(book_of(offers, firm=firm), "b")
    assert "its reactive power (tan φ 0.5) counts for" in text


def test_firm_energy_is_told_its_collar() -> None:
    firm = [{"connection_point": "bus:120", "p_w": -200_000.0}]
    book = book_of([order("a", "ask", 120, 100_000, 350_000)], firm=firm)
    text = told(book, "firm:bus:120")
    assert "50\u202f000 Wh at bus:120 are drawn as firm energy" in text
    assert "firm energy pays at most that: 30.00 ct/kWh. The network's account bears the difference." in text


def test_a_suspended_interval_is_told_with_its_reason_and_setpoint() -> None:
    firm = [{"connection_point": "bus:120", "p_w": -250_000.0}]
    book = book_of([order("a", "ask", 120, 10_000, 200_000)], firm=firm)
    text = told(book, "a")
    assert "The interval was suspended: no schedule keeps every limit: at the least violation line:" in text
    assert "energy is settled with the retailer at its tariffs" in text
    assert "To relieve the feeder it is asked to feed in 10\u202f000 Wh." in text


def test_a_minimum_fill_that_the_price_would_have_taken_is_told_so() -> None:
    offers = [order("k", "ask", 7, 1000, 100_000, min_fill_percent=100), order("b", "bid", 7, 600, 200_000)]
    text = told(book_of(offers, firm=[]), "k")
    assert "so the price alone would have taken it. But it is to be filled whole or not at all" in text


def test_an_unknown_order_is_refused_by_its_id() -> None:
    with pytest.raises(InputError, match="'nobody' is the id of no order"):
        told(book_of([order("a", "ask", 7, 100, 100_000)], firm=[]), "nobody")


def test_the_command_explains_on_standard_output_and_beside_json_on_standard_error(tmp_path: Path) -> None:
    book = book_of([order("a", "ask", 7, 100, 50_000)], firm=[])
    path = tmp_path / "book.json"
    path.write_text(book.model_dump_json(), encoding="utf-8")
    arguments = ["clear", str(path), "--feeder", "simbench:1-LV-rural1--2-sw", "--explain", "a"]
    plain = CliRunner().invoke(cli, arguments)
    assert plain.exit_code == 0
    assert "All of it was sold" in plain.stdout
    with_json = CliRunner().invoke(cli, [*arguments, "--json"])
    assert json.loads(with_json.stdout)["status"] == "cleared"
    assert "All of it was sold" in with_json.stderr
