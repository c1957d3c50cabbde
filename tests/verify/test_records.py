"""What the clearing makes of any book verifies; what is suspended says why, and does verify too."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import numpy as np
import pytest

from grid.errors import InputError
from market.auction.book import parse_book
from market.auction.clearing import clear_book
from market.auction.record import ClearingRecord
from market.verify.orders import fair_shares
from tests.auction.books import book_of, order
from tests.verify.records import (
    CIGRE,
    KERBER,
    OBERRHEIN,
    RURAL1,
    RURAL3,
    document_of,
    failed,
    feeder_of,
    record_from,
    report_of,
    tied_book,
    varied_book,
)


@pytest.mark.parametrize("feeder_name", [RURAL1, RURAL3, KERBER, CIGRE, OBERRHEIN])
@pytest.mark.parametrize("seed", range(8))
def test_records_of_random_books_verify(feeder_name: str, seed: int) -> None:
    book = varied_book(feeder_name, seed)
    record = clear_book(book, feeder_of(feeder_name))
    assert failed(report_of(record, book, feeder_name)) == {}


@pytest.mark.parametrize("seed", range(4))
def test_records_with_minimum_fills_verify(seed: int) -> None:
    random = np.random.default_rng(seed)
    document = json.loads(varied_book(RURAL1, seed).model_dump_json())
    document["orders"] = document["orders"][:30]
    for item in document["orders"]:
        item["min_fill_percent"] = int(random.choice([0, 0, 30, 100]))
    book = parse_book(document, "book")
    record = clear_book(book, feeder_of(RURAL1))
    assert failed(report_of(record, book, RURAL1)) == {}


def test_an_order_left_out_for_its_minimum_fill_must_be_told_and_no_other() -> None:
    orders = [order("a", "ask", 7, 1000, 100_000), order("b", "bid", 7, 1500, 200_000, min_fill_percent=100)]
    book = book_of(orders, firm=[], import_price=900_000)
    record = clear_book(book, feeder_of(RURAL1))
    document = document_of(record)
    assert failed(report_of(record, book, RURAL1)) == {}
    document["paradoxically_rejected"] = ["a"]
    assert any("minimum fill" in name for name in failed(report_of(record_from(document), book, RURAL1)))


def test_an_empty_book_verifies() -> None:
    book = book_of([], firm=[])
    assert failed(report_of(clear_book(book, feeder_of(RURAL3)), book, RURAL3)) == {}


def test_energy_at_a_negative_price_verifies() -> None:
    orders = [order("a", "ask", 120, 20_000, -100_000), order("b", "bid", 110, 1000, -60_000)]
    book = book_of(orders, firm=[], export_price=-50_000)
    assert failed(report_of(clear_book(book, feeder_of(RURAL3)), book, RURAL3)) == {}


def suspended() -> tuple[ClearingRecord, object]:
    firm = [{"connection_point": "bus:120", "p_w": -250_000.0}]
    orders = [order("a", "ask", 120, 10_000, 350_000), order("b", "bid", 110, 10, 200_000)]
    book = book_of(orders, firm=firm)
    record = clear_book(book, feeder_of(RURAL3))
    assert record.status == "suspended"
    return record, book


def test_a_suspended_record_verifies_with_what_firm_energy_does() -> None:
    record, book = suspended()
    report = report_of(record, book, RURAL3)
    assert failed(report) == {}
    assert any("Firm energy alone breaks" in check.says for check in report.checks)


def test_firm_energy_without_any_power_flow_is_told() -> None:
    book = book_of([], firm=[{"connection_point": "bus:120", "p_w": -50_000_000.0}])
    report = report_of(clear_book(book, feeder_of(RURAL3)), book, RURAL3)
    assert failed(report) == {}
    assert any("no power flow" in check.says for check in report.checks)


def test_a_suspended_interval_has_no_fills_and_a_reason_and_setpoints_within_orders() -> None:
    record, book = suspended()
    document = document_of(record)
    filled = {**document, "fills": [{"order_id": "b", "energy_wh": 10, "price": 200_000}]}
    assert "format: nothing traded" in failed(report_of(record_from(filled), book, RURAL3))
    without = {key: value for key, value in document.items() if key != "reason"}
    assert "format: reason" in failed(report_of(record_from(without), book, RURAL3))
    beyond = {**document, "setpoints": [{"order_id": "a", "energy_wh": 10_001}]}
    assert "format: setpoints" in failed(report_of(record_from(beyond), book, RURAL3))
    voltage = copy.deepcopy(document)
    voltage["ac"]["v_min_pu"] += 0.01
    assert "AC feasibility: the record's figures" in failed(report_of(record_from(voltage), book, RURAL3))


def test_a_feasible_interval_cannot_be_called_infeasible() -> None:
    record, _ = suspended()
    book = book_of([order("b", "bid", 110, 10, 200_000)], firm=[])
    document = {**document_of(record), "setpoints": []}
    found = failed(report_of(record_from(document), book, RURAL3))
    assert "could have been cleared" in found["AC feasibility: firm energy alone"]


def test_shares_are_pro_rata_to_the_wh_and_do_not_depend_on_the_order_of_orders() -> None:
    offered = {"a": 501, "b": 501, "c": 1000, "d": 1}
    shares = fair_shares(offered, 777, "2016-06-15T12:00:00Z")
    assert sum(shares.values()) == 777
    for order_id, wh in offered.items():
        assert abs(shares[order_id] - 777 * wh / 2003) < 1
    backwards = dict(reversed(list(offered.items())))
    assert fair_shares(backwards, 777, "2016-06-15T12:00:00Z") == shares


def test_the_verifier_needs_neither_a_solver_nor_the_clearing() -> None:
    code = (
        "import sys, market.verify.verify\n"
        "shared = {'market.auction.' + name for name in ('book', 'record')}\n"
        "used = {name for name in sys.modules if name.startswith('market.auction.')}\n"
        "assert used == shared, used\n"
        "assert not {'highspy', 'pyomo', 'grid.powerflow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_security_margin_narrows_what_the_book_and_the_net_allow() -> None:
    """By a tenth of every rating and of the band's width; what has none says nothing of it."""
    book, feeder = tied_book(1), feeder_of(RURAL3)
    document = json.loads(book.model_dump_json())
    assert "security_margin_percent" not in document["limits"]
    document["limits"]["security_margin_percent"] = 10.0
    narrower = parse_book(document, "book")
    record = clear_book(narrower, feeder)
    assert failed(report_of(record, narrower, RURAL3)) == {}
    assert set(failed(report_of(record, book, RURAL3))) >= {"format: book hash", "format: limits hash"}
    loading = clear_book(book, feeder).ac.loading_max_percent, record.ac.loading_max_percent
    assert loading == pytest.approx((45.0, 40.5), abs=0.01)
    with pytest.raises(InputError, match=r"limits\.security_margin_percent"):
        parse_book({**document, "limits": {"security_margin_percent": 100.0}}, "book")
