"""``peergrid run`` with its console: open to read, roles to act, two hundred streams, and a market that keeps
its times and does what it is asked.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from market.cli.main import run as peergrid
from market.console.security import grant
from tests.cli.conftest import start_process

FEEDER = "pandapower:panda_four_load_branch"
NAME = "pandapower-panda-four-load-branch"
SPEED = 150
STREAMS = 200
INTERVALS_HEARD = 2


class Run:
    """A market on a clock that runs fast, and its console as others reach it."""

    def __init__(self, folder: Path, address: str, tokens: dict[str, str]) -> None:
        self.database = folder / "market" / NAME / "market.sqlite"
        self.address = address
        self.page = f"{address}/f/{NAME}"
        self.api = f"{address}/api/v1/feeders/{NAME}"
        self._tokens = tokens

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True) as connection:
            found = connection.execute(query).fetchall()
        connection.close()
        return found

    def bearer(self, role: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self._tokens[role]}"}

    def post(self, path: str, body: dict[str, Any], role: str | None) -> httpx.Response:
        headers = self.bearer(role) if role else None
        return httpx.post(f"{self.api}/{path}", json=body, headers=headers, timeout=30)

    def until(self, is_so: Callable[[], object], seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def answered(self, body: dict[str, Any]) -> dict[str, Any]:
        """What the market made of an instruction."""
        given = self.post("instructions", body, "operator")
        assert given.status_code == 202, given.text
        number = given.json()["number"]

        def row() -> dict[str, Any]:
            rows = httpx.get(f"{self.api}/instructions", timeout=30).json()["rows"]
            return next(dict(row) for row in rows if row["id"] == number)

        self.until(lambda: row()["refusal"] is not None)
        return row()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("running")
    config = folder / "market.toml"
    assert peergrid(["init", FEEDER, "--out", str(config)]) == 0
    tokens = {role: grant(folder / "tokens.json", f"some {role}", role) for role in ("viewer", "operator")}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = config.read_text()
    for old, new in {
        "port = 8440": f"port = {port}",
        '# tokens = "tokens.json"': 'tokens = "tokens.json"',
        'settle_every = "hour"': 'settle_every = "interval"',
        "clearing_s = 120": "clearing_s = 300",
        "clock_skew_s = 60": "clock_skew_s = 900",
    }.items():
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)
    market = start_process("run", config, "--speed", SPEED)
    try:
        found = Run(folder, f"http://127.0.0.1:{port}", tokens)

        def shows() -> bool:
            assert market.poll() is None, market.stderr and market.stderr.read()
            try:
                return bool(httpx.get(f"{found.api}/transitions", timeout=30).json()["rows"])
            except (httpx.TransportError, KeyError):
                return False

        found.until(shows)
        yield found
    finally:
        market.send_signal(signal.SIGTERM)
        market.communicate(timeout=60)


def test_everybody_here_reads_and_only_an_operator_acts(running: Run) -> None:
    assert httpx.get(running.page, timeout=30).status_code == 200
    body = {"kind": "resume", "reason": "nothing to resume"}
    for role, status in ((None, 401), ("viewer", 403)):
        assert running.post("instructions", body, role).status_code == status
    answer = running.answered(body)
    assert (answer["actor"], answer["refusal"]) == ("some operator", "trading is not suspended")


async def test_the_market_keeps_its_times_while_two_hundred_watch(running: Run) -> None:
    heard: list[set[int]] = [set() for _ in range(STREAMS)]
    everybody = asyncio.Event()

    async def watch(client: httpx.AsyncClient, mine: set[int]) -> None:
        async with client.stream("GET", f"{running.api}/events") as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: {") and '"state":"CLEARED"' in line:
                    mine.add(json.loads(line[6:])["interval_start"])
                    if all(len(starts) >= INTERVALS_HEARD for starts in heard):
                        everybody.set()
                if everybody.is_set():
                    return

    limits = httpx.Limits(max_connections=STREAMS + 10)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client, asyncio.timeout(120):
        await asyncio.gather(*(watch(client, mine) for mine in heard))
    starts = set.intersection(*heard)
    assert len(starts) >= INTERVALS_HEARD
    times = {
        (row[0], row[1]): row[2] for row in running.ask("SELECT interval_start, state, at FROM transition")
    }
    for start in starts:
        assert times[start, "OPEN"] < times[start, "CLOSED"] <= times[start, "CLEARED"] <= start
    ran = [row[0] for row in running.ask("SELECT interval_start FROM interval ORDER BY 1")]
    assert {after - before for before, after in itertools.pairwise(ran)} == {900}


def test_an_operator_decides_a_dispute(running: Run) -> None:
    """Asked by the console, carried out by the market: what was held back is paid, on other energy."""
    # In the very first interval its meters may have come too late for an award.
    settled = (
        "SELECT interval_start, meter FROM interval JOIN award USING (interval_start)"
        " WHERE state IN ('SETTLED', 'FINAL') AND incomplete = 0 ORDER BY interval_start LIMIT 1"
    )
    running.until(lambda: running.ask(settled))
    ((start, meter),) = running.ask(settled)
    body = {"meter": meter, "interval_start": start, "reason": "the register stood still"}
    given = running.post("disputes", body, "operator")
    assert given.status_code == 202, given.text
    running.until(lambda: running.ask("SELECT id FROM dispute"))
    ((number,),) = running.ask("SELECT id FROM dispute")
    kept = running.ask(
        f"SELECT SUM(amount_neur) FROM posting WHERE account = 'household:{meter}'"
        f" AND interval_start = {start}"
    )
    assert kept == [(0,)], "all of it is held back"
    decision = {"decision": "upheld", "reason": "photo", "import_wh": 1000, "export_wh": 0}
    for role, status in (("viewer", 403), ("operator", 202)):
        assert running.post(f"disputes/{number}/decision", decision, role).status_code == status
    running.until(lambda: running.ask("SELECT closed_at FROM dispute")[0][0])
    assert running.ask("SELECT decision, decision_reason, import_wh FROM dispute") == [
        ("upheld", "photo", 1000)
    ]
    page = httpx.get(f"{running.page}/alarms", timeout=30).text
    assert "upheld (1" in page


def test_an_operator_suspends_trading_and_resumes_it_at_boundaries(running: Run) -> None:
    newest: int = running.ask("SELECT MAX(interval_start) FROM interval")[0][0]
    first = newest + 900
    suspended = running.answered({"kind": "suspend", "reason": "line work", "first_start": first})
    assert suspended["refusal"] == ""
    page = httpx.get(f"{running.page}/alarms", timeout=30).text
    assert re.search("Trading (stops|is suspended)", page) and "line work" in page
    too_early = running.answered({"kind": "resume", "reason": "at once", "first_start": newest})
    assert "too early" in too_early["refusal"]

    def outcome(start: int) -> str | None:
        rows = running.ask(f"SELECT status FROM clearing WHERE interval_start = {start}")
        return str(rows[0][0]) if rows else None

    running.until(lambda: outcome(first) == "SUSPENDED")
    resumed = running.answered({"kind": "resume", "reason": "line is back"})
    assert resumed["refusal"] == ""
    ((begin, end),) = running.ask("SELECT first_start, until_start FROM suspension")
    assert begin == first and end > first and end % 900 == 0
    running.until(lambda: outcome(end))
    assert [outcome(start) for start in range(first, end, 900)] == ["SUSPENDED"] * ((end - first) // 900)
    assert outcome(end) == "CLEARED"
    actions = httpx.get(f"{running.api}/audit", timeout=30).json()
    assert [line["action"] for line in actions][:3] == ["resume trading", "resume trading", "suspend trading"]
