"""Books, their records, and what the verifier says of them, for its tests."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import numpy as np

from grid.catalogue import open_feeder, open_net
from grid.feeder import Feeder
from market.auction.book import Book
from market.auction.record import ClearingRecord
from market.verify.report import Report
from market.verify.verify import verify
from tests.auction.books import book_of, random_orders

RURAL1 = "simbench:1-LV-rural1--2-sw"
RURAL3 = "simbench:1-LV-rural3--2-sw"
KERBER = "tests/cases/nets/kerber_landnetz_frozen.json"
CIGRE = "pandapower:create_cigre_network_lv"
OBERRHEIN = "pandapower:mv_oberrhein"
"""With two slacks as shipped."""

Document = dict[str, Any]


@cache
def net_of(feeder_name: str) -> Any:
    return open_net(feeder_name)


@cache
def feeder_of(feeder_name: str) -> Feeder:
    return open_feeder(feeder_name)


def report_of(record: ClearingRecord, book: Book, feeder_name: str) -> Report:
    return verify(record, book, net_of(feeder_name), feeder_of(feeder_name).sha256)


def failed(report: Report) -> dict[str, str]:
    """The checks that do not hold, by subject and name, and what they say."""
    return {f"{check.subject}: {check.name}": check.says for check in report.checks if not check.ok}


def document_of(record: ClearingRecord) -> Document:
    return copy.deepcopy(record.json_document())


def record_from(document: Document) -> ClearingRecord:
    return ClearingRecord.model_validate_json(json.dumps(document), strict=True)


def varied_book(feeder_name: str, seed: int) -> Book:
    """Bids and asks of very different size, with ties, reactive power, firm energy and a fee, by turns."""
    feeder = feeder_of(feeder_name)
    random = np.random.default_rng(seed)
    size = 1_000_000 if feeder_name == OBERRHEIN else int(random.choice([2_000, 20_000]))
    orders = random_orders(feeder, seed, int(random.integers(5, 150)), size)
    for order in orders:
        order["tan_phi"] = float(random.choice([0.0, 0.2, -0.3])) if seed % 2 else 0.0
    orders += [
        {**order, "id": f"twin-{order['id']}", "energy_wh": int(random.integers(1, size))}
        for order in orders[::3]
    ]
    firm = None
    if seed % 3:
        buses = random.choice(feeder.bus_index, 12)
        firm = [
            {"connection_point": f"bus:{bus}", "p_w": float(random.uniform(-900, 400)), "q_var": -60.0}
            for bus in buses
        ]
    limits = {"max_loading_percent": float(random.choice([45.0, 100.0]))}
    fee = int(random.choice([0, 20_000]))
    minutes = int(random.choice([15, 60]))
    return book_of(orders, firm=firm, limits=limits, minutes=minutes, local_fee=fee)


def tied_book(seed: int) -> Book:
    """A rural3 book in which some twenty limits bind and equal orders share what is left."""
    feeder = feeder_of(RURAL3)
    random = np.random.default_rng(seed)
    orders = random_orders(feeder, seed, 150, 20_000)
    twins = [{**order, "id": f"t{order['id']}"} for order in orders[:60]]
    for twin in twins:
        twin["energy_wh"] = int(random.integers(1, 20_000))
    for order in orders + twins:
        order["tan_phi"] = 0.1 if int(order["id"].lstrip("to")) % 5 == 0 else 0.0
    firm = [
        {"connection_point": f"bus:{bus}", "p_w": -float(random.integers(0, 900)) - 0.25, "q_var": -50.0}
        for bus in feeder.bus_index[10:60:3]
    ]
    limits = {"max_loading_percent": 45.0}
    return book_of(orders + twins, firm=firm, limits=limits, local_fee=10_000)
