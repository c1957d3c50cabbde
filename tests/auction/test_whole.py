"""Whole Wh where a single one counts: feeders whose ratings are a few hundred VA."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pandapower.networks as pn
import pytest

from grid.feeder import feeder_from_net
from market.auction.clearing import clear_book
from market.verify.verify import verify
from tests.auction.books import book_of, order


@pytest.fixture
def net() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandapower's own, about pandas
        yield pn.panda_four_load_branch()


@pytest.mark.parametrize("rating_va", [350, 485, 555, 624, 630])
def test_a_marginal_bid_is_rounded_up_where_down_would_break_a_limit(net: Any, rating_va: float) -> None:
    net.line.loc[0, "max_i_ka"] = rating_va / (3**0.5 * 400) / 1e3
    feeder = feeder_from_net(net, "four loads")
    orders = [
        order("b0", "bid", 2, 400, 250_000),
        order("b1", "bid", 3, 407, 250_000),
        *(order(f"a{bus}", "ask", bus, 300, 60_000 + 10_000 * bus) for bus in (4, 5)),
        *(order(f"c{bus}", "ask", bus, 100, 200_000) for bus in (4, 5)),
    ]
    firm = [{"connection_point": f"bus:{bus}", "p_w": -800.0, "q_var": -100.0} for bus in (2, 3)]
    book = book_of(orders, firm=firm)
    record = clear_book(book, feeder)
    assert record.binding[0].element == "line:0"
    assert record.ac.violations == 0
    assert [check.says for check in verify(record, book, net, feeder.sha256).checks if not check.ok] == []
    asks = {fill.order_id: fill.energy_wh for fill in record.fills if fill.order_id[0] in "ac"}
    assert asks == {"a4": 300, "a5": 300, "c4": 100, "c5": 100}, "none far from the margin pays for rounding"
