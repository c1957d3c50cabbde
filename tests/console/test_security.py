"""Who may read, who may act, and where the console refuses to listen."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import DatabaseError

from market.console.security import HEADERS, Buckets, is_loopback
from market.service.store.audit import AuditLog
from market.service.store.readonly import StoredMarket
from tests.cli.conftest import Outcome, peergrid  # noqa: F401  a fixture
from tests.console.conftest import Console

ACKNOWLEDGEMENT = {"subject": "nothing:1", "reason": "seen by a test"}


@pytest.mark.parametrize(("role", "status"), [(None, 401), ("viewer", 403), ("operator", 404)])
def test_only_an_operator_acknowledges(console: Console, role: str | None, status: int) -> None:
    with console.client(role) as client:
        assert client.post(f"{console.api}/acknowledgements", json=ACKNOWLEDGEMENT).status_code == status
        assert client.post(f"{console.page}/alarms", data=ACKNOWLEDGEMENT).status_code == status


@pytest.mark.parametrize("role", [None, "viewer", "operator"])
def test_everybody_reads_on_loopback(console: Console, role: str | None) -> None:
    with console.client(role) as client:
        assert client.get(console.page).status_code == 200
        assert client.get(f"{console.api}/intervals").status_code == 200


@pytest.mark.parametrize(("role", "status"), [(None, 401), ("viewer", 200), ("operator", 200)])
def test_elsewhere_reading_needs_a_token(
    fresh_console: Callable[..., Any], role: str | None, status: int
) -> None:
    with fresh_console(open_reading=False) as console, console.client(role) as client:
        for path in (
            console.page,
            f"{console.api}/intervals",
            f"{console.api}/network",
            console.address + "/metrics",
        ):
            assert client.get(path).status_code == status, path


def test_a_wrong_token_is_refused_and_soon_held_up(fresh_console: Callable[..., Any]) -> None:
    with fresh_console() as console:
        wrong = {"authorization": "Bearer nobody's"}
        found = [httpx.get(f"{console.api}/intervals", headers=wrong).status_code for _ in range(8)]
    assert found[0] == 401
    assert found[-1] == 429


def test_people_are_told_of_errors_on_a_page(fresh_console: Callable[..., Any]) -> None:
    with fresh_console(open_reading=False) as console:
        for headers in ({}, {"authorization": "Bearer nobody's"}):
            answer = httpx.get(console.page, headers={"accept": "text/html", **headers})
            assert answer.status_code == 401
            assert "Sign in" in answer.text
            assert console.market not in answer.text


def test_an_acknowledgement_needs_the_sessions_own_form(fresh_console: Callable[..., Any]) -> None:
    with fresh_console() as console, console.client(follow_redirects=False) as client:
        incomplete = console.ask("SELECT MIN(interval_start) FROM interval")[0][0]
        with sqlite3.connect(console.folder / "market.sqlite") as connection:
            connection.execute("UPDATE interval SET incomplete = 1 WHERE interval_start = ?", (incomplete,))
        connection.close()
        answer = client.post(f"{console.address}/sign-in", data={"token": console.tokens["operator"]})
        assert answer.status_code == 303
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie
        form = {"subject": f"incomplete:{incomplete}", "reason": "the meter is being replaced"}
        assert client.post(f"{console.page}/alarms", data=form).status_code == 403
        page = client.get(f"{console.page}/alarms", headers={"accept": "text/html"}).text
        csrf = page.split('name="csrf" value="')[1].split('"')[0]
        assert client.post(f"{console.page}/alarms", data={**form, "csrf": csrf}).status_code == 303
        log = client.get(f"{console.api}/audit").json()
        assert [(line["actor"], line["role"], line["subject"]) for line in log] == [
            ("some operator", "operator", form["subject"])
        ]
        assert "the meter is being replaced" in client.get(f"{console.page}/alarms").text


def test_the_log_refuses_changes(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "console.sqlite")
    log.add(at=1, actor="a", role="operator", action="b", feeder="f", subject="s", reason="because")
    log.close()
    with sqlite3.connect(tmp_path / "console.sqlite") as connection:
        for statement in ("DELETE FROM log", "UPDATE log SET actor = 'b'"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)
    connection.close()


def test_a_log_that_is_just_being_made_has_no_lines(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "console.sqlite")
    (tmp_path / "console.sqlite").touch()
    assert log.lines() == []
    log.close()


def test_behind_tls_cookies_travel_by_tls_only(fresh_console: Callable[..., Any]) -> None:
    with fresh_console(secure=True) as console:
        answer = httpx.post(f"{console.address}/sign-in", data={"token": console.tokens["viewer"]})
        assert answer.headers["set-cookie"].startswith("__Host-")
        assert "secure" in answer.headers["set-cookie"].lower()
        assert "strict-transport-security" in answer.headers


def test_every_answer_carries_the_security_headers(console: Console) -> None:
    for path in ("/", f"/f/{console.market}", "/nothing", "/api/v1/feeders", "/static/console.js"):
        answer = httpx.get(console.address + path)
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, (path, name)


def test_another_hosts_name_is_refused(console: Console) -> None:
    assert httpx.get(console.page, headers={"host": "example.org"}).status_code == 400


def test_the_markets_database_cannot_be_written_through_the_console(run_folder: Path) -> None:
    with (
        StoredMarket(run_folder / "market.sqlite") as stored,
        stored.reading() as connection,
        pytest.raises(DatabaseError, match="readonly"),
    ):
        connection.exec_driver_sql("DELETE FROM posting")


def test_looking_changes_nothing(console: Console) -> None:
    before = hashlib.sha256((console.folder / "market.sqlite").read_bytes()).hexdigest()
    with console.client() as client:
        for page in ("", "/network", "/congestion", "/meters", "/settlement", "/alarms", "/data"):
            assert client.get(console.page + page).status_code == 200
    assert hashlib.sha256((console.folder / "market.sqlite").read_bytes()).hexdigest() == before


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("--host", "0.0.0.0"), "--host"),
        (("--host", "192.0.2.1", "--tokens", "{tokens}"), "--tls-cert"),
        (("--host", "0.0.0.0", "--behind-proxy"), "--tokens"),
        (("--host", "0.0.0.0", "--tls-cert", "c.pem"), "--tls-cert"),
        (("--db", "nowhere.sqlite"), "nowhere.sqlite"),
    ],
)
def test_an_unsafe_place_to_listen_is_refused(
    run_folder: Path,
    tmp_path: Path,
    peergrid: Callable[..., Outcome],  # noqa: F811
    arguments: tuple[str, ...],
    names: str,
) -> None:
    tokens = tmp_path / "tokens.json"
    peergrid("console", "--tokens", tokens, "--grant", "ann=operator")
    given = [argument.replace("{tokens}", str(tokens)) for argument in arguments]
    outcome = peergrid("console", "--db", run_folder / "market.sqlite", *given)
    assert outcome.status in (1, 2)
    assert names in outcome.err


def test_the_tokens_file_keeps_no_token(tmp_path: Path, peergrid: Callable[..., Outcome]) -> None:  # noqa: F811
    tokens = tmp_path / "tokens.json"
    token = peergrid("console", "--tokens", tokens, "--grant", "ann=operator").out.strip()
    assert len(token) > 30
    assert token not in tokens.read_text()
    assert tokens.stat().st_mode & 0o077 == 0


def test_a_client_that_asks_too_fast_waits() -> None:
    buckets = Buckets(rate=0.001, burst=3)
    assert [buckets.wait_s("a") == 0 for _ in range(4)] == [True, True, True, False]
    assert buckets.wait_s("b") == 0


def test_loopback_is_told_from_the_rest() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost")] == [True] * 3
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "market.local")] == [False] * 4
