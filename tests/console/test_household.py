"""A household's statement, and where its numbers come from."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from market.console.household import month_of, reasons, statement
from market.console.market import Market
from market.service.store import meter_views
from tests.console.conftest import Console


def test_the_statements_add_up_to_the_days_savings(console: Console) -> None:
    summary = json.loads((console.folder / "summary.json").read_text())
    market = Market(console.folder / "market.sqlite")
    with market.stored.reading() as connection:
        day = market.day(connection)
        assert day is not None
        found = [statement(connection, meter, *day) for (meter,) in console.ask("SELECT meter FROM meter")]
    market.close()
    assert sum(item.saved_neur for item in found) == summary["savings"]["total_neur"]
    assert all(item.saved_neur == item.energy_saved_neur + item.fees_saved_neur for item in found)
    assert all(item.total_neur == sum(neur for _, _, neur in item.lines) for item in found)
    assert all(0 <= item.balance_neur - 1000 * item.on_chain_ueur < 1000 for item in found)


def test_every_award_is_told_in_words(console: Console) -> None:
    market = Market(console.folder / "market.sqlite")
    start = console.ask("SELECT MAX(interval_start) FROM clearing")[0][0]
    with market.stored.reading() as connection:
        clearing = market.clearing(connection, start)
        assert clearing is not None
        firm = {item.connection_point for item in clearing.book.firm or ()}
        for (meter,) in console.ask("SELECT meter FROM meter"):
            about = meter_views.meter(connection, meter)
            assert about is not None
            told = reasons(market, connection, about, start)
            steps = sum(order.id.startswith(f"{meter}:") for order in clearing.book.orders)
            assert len(told) == steps + (about["connection_point"] in firm)
            assert all(sentence.endswith(".") for _, sentences in told for sentence in sentences)
            assert meter not in str(told)
    market.close()


def test_a_month_is_a_calendar_month() -> None:
    def at(year: int, month: int, day: int) -> int:
        return int(datetime(year, month, day, tzinfo=UTC).timestamp())

    assert month_of(at(2016, 2, 29) + 5) == (at(2016, 2, 1), at(2016, 3, 1))
    assert month_of(at(2016, 12, 31)) == (at(2016, 12, 1), at(2017, 1, 1))
