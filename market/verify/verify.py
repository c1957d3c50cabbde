"""Verifies a clearing record against its book: what it proves is in :mod:`market.verify.report`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from grid.errors import PowerFlowError
from market.auction.book import Book
from market.auction.record import ClearingRecord
from market.verify import balance, feasibility, optimality, orders, prices, suspension
from market.verify.case import Case
from market.verify.duals import linearise, price_tolerance
from market.verify.network import Network
from market.verify.report import Check, Report, by_subject


def verify(record: ClearingRecord, book: Book, net: Any, feeder_sha256: str) -> Report:
    """Every check of ``record`` as an answer to ``book`` on the pandapower net ``net``.

    ``feeder_sha256`` is the hash that the record must name its feeder by.  Raises :class:`InputError` where
    the book names connection points that the net does not have.
    """
    case = Case(record, book, Network(net))
    checks = _cleared(case, feeder_sha256) if record.status == "cleared" else suspension.checks(case)
    return Report(record.feeder, record.interval.start, record.status, by_subject(checks))


def _cleared(case: Case, feeder_sha256: str) -> Iterator[Check]:
    yield from orders.format_checks(case, feeder_sha256)
    yield orders.limit_prices(case)
    yield orders.fill_prices(case)
    yield from balance.balance_checks(case)
    yield balance.trades_check(case)
    try:
        state = case.solve({entry.order.id: entry.fill_wh for entry in case.entries})
    except PowerFlowError as error:
        says = f"{error}: nothing that rests on it can be checked."
        yield Check("AC feasibility", "power flow", 1, 0, "findings", says)
        return
    yield orders.limits_hash(case, state)
    yield orders.ties(case, state)
    yield balance.slack_balance(case, state)
    yield prices.price_parts(case, state)
    linear = linearise(case, state)
    if isinstance(linear, str):
        yield Check("optimality", "duals", 1, 0, "findings", linear)
    else:
        tolerance = price_tolerance(case, state, linear)
        yield from prices.price_checks(case, state, linear, tolerance)
        yield from optimality.optimality_checks(case, state, linear, tolerance)
    yield feasibility.limits_kept(state)
    yield from feasibility.figures(case, state)
    yield feasibility.linear_mismatch(case)
    yield optimality.stale_rows(case)
    if choice := optimality.choice_of_orders(case):
        yield choice
