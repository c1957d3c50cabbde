"""Operators contest intervals in households' names and decide on them, by the API and by the pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, get_args

import pytest

from market.accounts.metering import Flag, Metered
from market.console.alarms import TITLES
from market.service.store import Store, alarms, disputes, instructions
from market.service.store.alarms import AlarmKind
from tests.console.conftest import Console
from tests.console.test_trading import change, reopen

REASON = "the register stood still"
UPHELD = {"decision": "upheld", "reason": "display photo", "import_wh": 120, "export_wh": 0}
DISMISSED = {"decision": "dismissed", "reason": "the register ran"}


def contested(console: Console) -> tuple[str, int]:
    """A settled interval of some meter."""
    start: int = console.ask("SELECT MIN(interval_start) FROM interval")[0][0]
    ((meter,),) = console.ask("SELECT meter FROM meter ORDER BY connection_point LIMIT 1")
    return meter, start


def opened(console: Console) -> int:
    """What the market does with a household's dispute, here a part of the test; the dispute's number."""
    meter, start = contested(console)
    with Store(console.folder / "market.sqlite", {}) as store, store.transaction() as tx:
        disputes.open_one(tx, start, meter, start + 7200, REASON, -1_000_000)
        found = disputes.standing_of(tx, start, meter)
    assert found is not None
    return found.id


@pytest.mark.parametrize(("role", "refused"), [(None, 401), ("viewer", 403), ("operator", None)])
def test_only_an_operator_contests_and_decides(
    fresh_console: Callable[..., Any], role: str | None, refused: int | None
) -> None:
    with fresh_console() as console, console.client(role) as client:
        number = opened(console)
        meter, start = contested(console)
        body = {"meter": meter, "interval_start": start, "reason": REASON}
        # Of this market every interval is final: nobody would carry out what an operator asks.
        for address, sent in (
            (f"{console.api}/disputes", body),
            (f"{console.api}/disputes/{number}/decision", UPHELD),
        ):
            assert client.post(address, json=sent).status_code == (refused or 409)
        for address, sent in (
            (f"{console.page}/disputes", body),
            (f"{console.page}/disputes/{number}", UPHELD),
        ):
            assert client.post(address, data=sent).status_code == (refused or 409)
        assert console.ask("SELECT COUNT(*) FROM instruction") == [(0,)]


def test_by_the_api_the_market_is_asked_as_by_the_command(fresh_console: Callable[..., Any]) -> None:
    with fresh_console() as console, console.client("operator") as client:
        reopen(console)
        meter, start = contested(console)
        body = {"meter": meter, "interval_start": start, "reason": REASON}
        asked = client.post(f"{console.api}/disputes", json=body)
        assert (asked.status_code, asked.json()["kind"]) == (202, "dispute")
        number = opened(console)
        decision = f"{console.api}/disputes/{number}/decision"
        for wrong in (
            {**UPHELD, "export_wh": None},
            {**DISMISSED, "import_wh": 1, "export_wh": 1},
            {**UPHELD, "import_wh": -1},
            {**UPHELD, "decision": "perhaps"},
        ):
            assert client.post(decision, json=wrong).status_code == 422, wrong
        assert client.post(decision, json=UPHELD).status_code == 202
        assert client.post(decision, json=DISMISSED).status_code == 202
        with Store(console.folder / "market.sqlite", {}) as store, store.transaction() as tx:
            given = instructions.waiting(tx)
            assert [(one.kind, one.actor, dict(one.body)) for one in given] == [
                ("dispute", "some operator", {"interval_start": start, "meter": meter}),
                (
                    "resolve",
                    "some operator",
                    {"dispute": number, "decision": "upheld", "import_wh": 120, "export_wh": 0},
                ),
                ("resolve", "some operator", {"dispute": number, "decision": "dismissed"}),
            ]
            disputes.close_one(tx, number, start + 9000, "dismissed", "the register ran", None)
        assert client.post(decision, json=UPHELD).status_code == 409
        assert client.post(f"{console.api}/disputes/77/decision", json=UPHELD).status_code == 404
        body["meter"] = "0x" + "0" * 40
        assert client.post(f"{console.api}/disputes", json=body).status_code == 404
        actions = [line["action"] for line in client.get(f"{console.api}/audit").json()]
        assert actions == ["decide dispute", "decide dispute", "contest an interval"]


def test_by_the_pages_the_sessions_own_forms_are_needed(fresh_console: Callable[..., Any]) -> None:
    with fresh_console() as console, console.client(follow_redirects=True) as client:
        client.headers["accept"] = "text/html"
        reopen(console)
        meter, start = contested(console)
        household = f"{console.page}/households/{meter}?day={start}"
        assert "Contest an interval" not in client.get(household).text
        client.post(f"{console.address}/sign-in", data={"token": console.tokens["operator"]})
        page = client.get(household).text
        form = {"meter": meter, "interval_start": str(start), "reason": REASON}
        assert client.post(f"{console.page}/disputes", data=form).status_code == 403
        csrf = re.search(r'/disputes" class="act"><input type="hidden" name="csrf" value="([^"]+)"', page)
        assert csrf is not None
        assert client.post(f"{console.page}/disputes", data={**form, "csrf": csrf[1]}).status_code == 200
        number = opened(console)
        page = client.get(f"{console.page}/alarms").text
        assert REASON in page and f'action="/f/{console.market}/disputes/{number}"' in page
        assert re.search(r"Metered [\d\s]+ Wh drawn, [\d\s]+ Wh fed in \(\w+\)", page)
        address = f"{console.page}/disputes/{number}"
        incomplete = {**UPHELD, "export_wh": "", "csrf": csrf[1]}
        assert client.post(address, data=incomplete).status_code == 422
        # What was typed before the decision was dismissed does not count.
        dismissed = {**DISMISSED, "import_wh": "120", "export_wh": "", "csrf": csrf[1]}
        assert "The decision waits for the market" in client.post(address, data=dismissed).text
        with Store(console.folder / "market.sqlite", {}) as store, store.reading() as connection:
            assert dict(instructions.waiting(connection)[-1].body) == {
                "dispute": number,
                "decision": "dismissed",
            }
        change(
            console,
            "UPDATE dispute SET closed_at = ?, decision = 'dismissed', decision_reason = 'it ran'",
            start + 9000,
        )
        page = client.get(f"{console.page}/alarms").text
        assert "No household contests anything" in page and "dismissed: it ran" in page


def test_energy_that_was_decided_is_called_so(fresh_console: Callable[..., Any]) -> None:
    with fresh_console() as console, console.client() as client:
        number = opened(console)
        meter, start = contested(console)
        household, interval = (
            f"{console.page}/households/{meter}?day={start}",
            f"{console.page}/intervals/{start}",
        )
        assert "decided in a dispute" not in client.get(household).text + client.get(interval).text
        with Store(console.folder / "market.sqlite", {}) as store, store.transaction() as tx:
            energy = Metered(120, 0, Flag.ESTIMATED)
            disputes.close_one(tx, number, start + 9000, "upheld", "display photo", energy)
        for page in (client.get(household).text, client.get(interval).text):
            assert page.count("decided in a dispute") == 1
            assert "It was upheld (120 Wh drawn, 0 Wh fed in): display photo" in page


def test_alarms_and_what_was_done_about_them_name_places_and_times(fresh_console: Callable[..., Any]) -> None:
    with fresh_console() as console, console.client("operator") as client:
        client.headers["accept"] = "text/html"
        meter, start = contested(console)
        ((place, owner),) = console.ask("SELECT connection_point, owner FROM meter WHERE meter = ?", meter)
        unknown = "0x" + "e" * 40
        with Store(console.folder / "market.sqlite", {}) as store, store.transaction() as tx:
            for kind, subject in (("offline", meter), ("balance", owner), ("offline", unknown)):
                alarms.raise_alarm(tx, start, kind, subject, "some trouble")
            alarms.raise_alarm(tx, start, "solver", f"interval:{start}", "it gave no answer")
            alarms.add_evidence(tx, start, meter, b"digest", "topic", b"payload", "other content")
        for subject in (f"offline:{meter}:{start}", f"solver:interval:{start}:{start}"):
            body = {"subject": subject, "reason": "looked at"}
            assert client.post(f"{console.api}/acknowledgements", json=body).status_code == 201
        page = client.get(f"{console.page}/alarms").text
        at = f"{datetime.fromtimestamp(start, UTC):%Y-%m-%d %H:%M} UTC"
        short, of_owner, of_unknown = (f"{one[:8]}…{one[-4:]}" for one in (meter, owner, unknown))
        for about in (f"{place} ({short})", f"{place} ({of_owner})", of_unknown):
            assert f"<br>{about}: some trouble" in page
        assert f'<a href="/f/{console.market}/intervals/{start}">The solver gave no answer</a>' in page
        assert f"Interval of {at}: it gave no answer" in page
        assert f'/meters/{meter}">{place}</a>' in page.partition("<h2>Evidence</h2>")[2]
        log = page.partition("<h2>Log</h2>")[2]
        assert f">Meter is offline: {place} ({short}), {at}</td>" in log
        assert f">The solver gave no answer: interval of {at}, {at}</td>" in log
        assert str(start) not in re.sub(r"<[^>]*>", "", page), "no Unix seconds among the words"


def test_every_kind_of_alarm_has_words() -> None:
    assert set(get_args(AlarmKind)) <= set(TITLES)
