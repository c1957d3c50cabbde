"""Operators suspend trading and resume it from the console; what goes wrong is shown where they look."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from market.console.alarms import chain_problems
from market.console.household import by_kind, everyone, statement
from market.console.market import Market
from market.service.store import Store, instructions
from tests.console.conftest import Console

REASON = "work on the transformer"
ASKED = {"kind": "suspend", "reason": REASON}


def change(console: Console, statement: str, *values: Any) -> None:
    """Another process writes into the market's database."""
    with sqlite3.connect(console.folder / "market.sqlite") as connection:
        connection.execute(statement, values)
    connection.close()


def reopen(console: Console) -> int:
    """The newest interval is one that the market still has to do with."""
    start: int = console.ask("SELECT MAX(interval_start) FROM interval")[0][0]
    change(console, "UPDATE interval SET state = 'SETTLED' WHERE interval_start = ?", start)
    return start


@pytest.mark.parametrize(("role", "status"), [(None, 401), ("viewer", 403), ("operator", 409)])
def test_only_an_operator_of_a_market_that_goes_on_is_heard(
    console: Console, role: str | None, status: int
) -> None:
    with console.client(role) as client:
        assert client.post(f"{console.api}/instructions", json=ASKED).status_code == status
        assert client.post(f"{console.page}/trading", data=ASKED).status_code == status
    assert console.ask("SELECT COUNT(*) FROM instruction") == [(0,)]


def test_an_operator_suspends_trading_by_the_page(fresh_console: Callable[..., Any]) -> None:
    """The market itself, here a part of the test, carries it out and answers."""
    with fresh_console() as console, console.client() as client:
        client.headers["accept"] = "text/html"
        start = reopen(console)
        client.post(f"{console.address}/sign-in", data={"token": console.tokens["operator"]})
        form = {**ASKED, "first_start": str(start + 900)}
        assert client.post(f"{console.page}/trading", data=form).status_code == 403
        page = client.get(f"{console.page}/alarms").text
        csrf = page.split('action="/f/')[1].split('name="csrf" value="')[1].split('"')[0]
        assert client.post(f"{console.page}/trading", data={**form, "csrf": csrf}).status_code == 303
        assert "waits for the market" in client.get(f"{console.page}/alarms").text

        with Store(console.folder / "market.sqlite", {}) as store:
            with store.reading() as connection:
                (asked,) = instructions.waiting(connection)
            assert (asked.actor, asked.kind, asked.reason) == ("some operator", "suspend", REASON)
            assert asked.body == {"first_start": start + 900}
            with store.transaction() as tx:
                instructions.answer(tx, asked.id, start, "")
        change(console, "INSERT INTO suspension VALUES (?, NULL, ?)", start + 900, REASON)
        (line,) = client.get(f"{console.api}/audit").json()
        assert (line["actor"], line["action"], line["subject"], line["reason"]) == (
            "some operator",
            "suspend trading",
            f"instruction {asked.id}",
            REASON,
        )
        page = client.get(f"{console.page}/alarms").text
        assert "Trading stops" in page and "Resume trading" in page and "waits for the market" not in page
        assert "Trading stops" in client.get(console.page).text
        change(console, "UPDATE suspension SET first_start = ?", start)
        assert "Trading is suspended" in client.get(console.page).text
        metrics = client.get(f"{console.address}/metrics").text
        assert f'peergrid_trading_suspended{{feeder="{console.market}"}} 1' in metrics
        change(console, "UPDATE suspension SET until_start = ?", start + 1800)
        assert "Trading begins again" in client.get(console.page).text
        assert "Suspend trading" in client.get(f"{console.page}/alarms").text


def test_an_operator_resumes_trading_by_the_api(fresh_console: Callable[..., Any]) -> None:
    with fresh_console() as console, console.client("operator") as client:
        reopen(console)
        body = {"kind": "resume", "reason": "done"}
        answer = client.post(f"{console.api}/instructions", json=body)
        assert answer.status_code == 202
        rows = client.get(f"{console.api}/instructions").json()["rows"]
        assert [(row["id"], row["kind"], row["refusal"]) for row in rows] == [
            (answer.json()["number"], "resume", None)
        ]
        wrong = client.post(f"{console.api}/instructions", json={**body, "kind": "tariff"})
        assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "body.kind")


def test_suspended_by_an_operator_is_one_alarm(fresh_console: Callable[..., Any]) -> None:
    with fresh_console() as console, console.client() as client:
        starts = [row[0] for row in console.ask("SELECT interval_start FROM interval ORDER BY 1")]
        change(console, "UPDATE clearing SET status = 'SUSPENDED'")
        assert client.get(f"{console.page}/alarms").text.count("Interval suspended") == len(starts)
        change(console, "INSERT INTO suspension VALUES (?, ?, 'a test')", starts[0], starts[-1])
        page = client.get(f"{console.page}/alarms").text
        assert (page.count("Interval suspended"), page.count("No trading")) == (1, 1)


def test_a_dispute_is_shown_where_it_matters(fresh_console: Callable[..., Any]) -> None:
    with fresh_console() as console, console.client() as client:
        start = console.ask("SELECT MAX(interval_start) FROM interval")[0][0]
        ((meter,),) = console.ask("SELECT meter FROM meter ORDER BY meter LIMIT 1")
        change(
            console,
            "INSERT INTO dispute (interval_start, meter, opened_at, reason, held_neur)"
            " VALUES (?, ?, ?, 'the register stood still', -1000000)",
            start,
            meter,
            start + 7200,
        )
        for page in ("/alarms", f"/households/{meter}", f"/intervals/{start}"):
            assert "the register stood still" in client.get(console.page + page).text, page
        assert "contests 1" in client.get(f"{console.page}/households").text


def test_an_adjustment_is_shown_where_it_matters(fresh_console: Callable[..., Any]) -> None:
    with fresh_console() as console, console.client() as client:
        start = console.ask("SELECT MAX(interval_start) FROM interval")[0][0]
        assert "stands as it was settled" in client.get(f"{console.page}/settlement").text
        change(
            console,
            "INSERT INTO posting SELECT interval_start, 1, account, kind, 2 * amount_neur, energy_wh, batch"
            " FROM posting WHERE interval_start = ? AND revision = 0",
            start,
        )
        change(console, "UPDATE interval SET revision = 1 WHERE interval_start = ?", start)
        assert f"/intervals/{start}" in client.get(f"{console.page}/settlement").text
        assert "Adjusted after its settlement" in client.get(f"{console.page}/intervals/{start}").text
        assert "± adjusted" in client.get(console.page).text


def test_the_chains_books_are_kept_and_agree(console: Console) -> None:
    rows = console.ask(
        "SELECT supply_ueur, deposits_ueur, backing_ueur, guarantee_ueur, withdrawals_ueur, block"
        " FROM chain_books ORDER BY at"
    )
    assert len(rows) >= 6, "a line with every batch"
    for supply, deposits, backing, guarantee, withdrawals, _ in rows:
        assert supply == deposits > 0
        assert backing == supply + guarantee + withdrawals and guarantee > 0
    assert [row[5] for row in rows] == sorted(row[5] for row in rows)
    ((deposited,),) = console.ask("SELECT SUM(deposit_ueur) FROM account")
    assert rows[-1][0] == deposited
    with console.client() as client:
        page = client.get(f"{console.page}/settlement").text
    assert "equals deposits" in page and "covers supply, withdrawals, guarantee" in page


def test_running_balances_are_the_sums_of_the_ledger(console: Console) -> None:
    for column, table, amount in (
        ("ledger_neur", "posting", "amount_neur"),
        ("settled_ueur", "position", "amount_ueur"),
    ):
        wrong = console.ask(
            f"SELECT account, {column} FROM balance WHERE {column} <> (SELECT COALESCE(SUM({amount}), 0)"
            f" FROM {table} WHERE {table}.account = balance.account)"
        )
        assert wrong == []
    assert console.ask("SELECT COUNT(*) FROM balance WHERE ledger_neur <> 0")[0][0] > 5


def test_who_owes_and_who_withdraws_is_shown(fresh_console: Callable[..., Any]) -> None:
    with fresh_console() as console, console.client() as client:
        (debtor, owes), (leaver, leaves) = console.ask("SELECT meter, owner FROM meter LIMIT 2")
        accounts = {
            owes: {"debt_ueur": 12_500_000},
            leaves: {"withdrawal_ueur": 40_000_000, "due_at": 1_500_000_000},
        }
        change(console, "UPDATE chain_books SET accounts = ?", json.dumps(accounts))
        page = client.get(f"{console.page}/settlement").text
        assert "12.50 EUR" in page and "barred until repaid" in page and "40.00 EUR" in page
        assert "no order is taken" in client.get(f"{console.page}/households/{debtor}").text
        assert "40.00 EUR, due" in client.get(f"{console.page}/households/{leaver}").text
        assert "barred: owes" in client.get(f"{console.page}/households").text
        assert "Household barred" in client.get(f"{console.page}/alarms").text


def test_books_that_do_not_agree_are_named() -> None:
    sound = {
        "supply_ueur": 100,
        "deposits_ueur": 100,
        "backing_ueur": 115,
        "guarantee_ueur": 10,
        "withdrawals_ueur": 5,
        "paused": 0,
    }
    assert chain_problems(sound) == []
    for field, value, title in (
        ("supply_ueur", 101, "Supply is not deposits"),
        ("backing_ueur", 114, "Tokens are not backed"),
        ("paused", 1, "The escrow is paused"),
    ):
        assert title in [name for name, _ in chain_problems({**sound, field: value})]


def test_meters_say_what_they_are(console: Console) -> None:
    presence = console.ask("SELECT software, online, forged FROM meter_presence")
    assert len(presence) == console.ask("SELECT COUNT(*) FROM meter")[0][0]
    assert all(software.startswith("peergrid meter 1: ") and forged == 0 for software, _, forged in presence)
    with console.client() as client:
        assert "truthful" in client.get(f"{console.page}/meters").text
        assert "Who saves" in client.get(f"{console.page}/households").text


def test_every_household_is_in_the_list_with_what_its_own_page_says(console: Console) -> None:
    summary = json.loads((console.folder / "summary.json").read_text())
    market = Market(console.folder / "market.sqlite")
    with market.stored.reading() as connection:
        day = market.day(connection)
        assert day is not None
        lines = everyone(connection, *day)
        for line in lines:
            own = statement(connection, line.meter, *day)
            assert (line.saved_neur, line.balance_neur) == (own.saved_neur, own.balance_neur)
    market.close()
    assert sum(line.saved_neur for line in lines) == summary["savings"]["total_neur"]
    kinds = by_kind(lines)
    assert sum(one.households for one in kinds) == len(lines)
    assert sum(one.saved_neur for one in kinds) == summary["savings"]["total_neur"]
