"""A console over PostgreSQL is one over SQLite: each page and export of the same market, to the byte."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pandas.testing import assert_frame_equal
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError

from market.cli.main import run
from market.console.events import POLL_S
from market.console.frames import MarketFrames
from market.service.settings import Member
from market.service.store import Store, schema
from market.service.store.database import looking_engine, open_engine
from market.service.store.readonly import StoredMarket
from market.service.store.tables import TABLES
from tests.console.conftest import Console, addresses, serving
from tests.postgres import postgres_database, postgres_server  # noqa: F401  fixtures

pytestmark = pytest.mark.needs("postgres")


def moved(source: Path, url: str) -> None:
    """Every row of a market on SQLite, on PostgreSQL."""
    lite, _ = looking_engine(source)
    large, _ = open_engine(url)
    with lite.connect() as here, large.begin() as there:
        schema.metadata.create_all(there)
        for table in schema.metadata.sorted_tables:
            if rows := [row._asdict() for row in here.execute(select(table))]:
                there.execute(insert(table), rows)
            if (number := table.c.get("id")) is not None:
                there.execute(
                    text(
                        f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'),"
                        f" (SELECT COALESCE(MAX({number.name}), 0) + 1 FROM {table.name}), false)"
                    )
                )
    lite.dispose()
    large.dispose()


def troubled(database: Path) -> None:
    """What a quiet day has none of: disputes, alarms, evidence, instructions, a change of members."""
    with Store(database, {}) as store, store.transaction() as tx:
        start = tx.execute(select(schema.interval.c.interval_start).limit(1)).scalar_one()
        meters = list(tx.execute(select(schema.meter.c.meter).limit(2)).scalars())
        one = {
            "interval_start": start,
            "meter": meters[0],
            "opened_at": start,
            "reason": "no",
            "held_neur": 7,
        }
        decided = {"closed_at": start + 1, "decision": "dismissed", "decision_reason": "checked"}
        tx.execute(insert(schema.dispute), one)
        tx.execute(insert(schema.dispute), {**one, "meter": meters[1], **decided})
        for kind in ("flood", "reading"):
            row = {"kind": kind, "subject": meters[0], "first_at": start, "last_at": start, "count": 3}
            tx.execute(insert(schema.alarm), {**row, "detail": "so many"})
        tx.execute(
            insert(schema.evidence),
            {
                "received_at": start,
                "meter": meters[0],
                "digest": b"1",
                "topic": "t",
                "payload": b"",
                "reason": "r",
            },
        )
        tx.execute(
            insert(schema.instruction),
            {
                "given_at": 1,
                "actor": "ann",
                "kind": "suspend",
                "body": f'{{"first_start": {start}}}',
                "reason": "x",
            },
        )
        member = Member(
            meter=meters[0],
            owner="0x" + "1" * 40,
            connection_point="load:1",
            bus=1,
            fuse_w=10_000_000,
            deposit_ueur=0,
        )
        tx.execute(
            insert(schema.member_change),
            {"first_start": start, "meter": member.meter, "member": member.model_dump_json()},
        )
        seen_at = int(time.time()) + 600  # it does not fall silent while pages are compared
        tx.execute(
            insert(schema.health),
            {"part": "market", "ok": 1, "since": 1, "seen_at": seen_at, "at": start, "detail": ""},
        )


@pytest.fixture
def both(fresh_console: Any, postgres: str) -> Iterator[tuple[Console, Console]]:
    with fresh_console() as lite:
        troubled(lite.folder / "market.sqlite")
        moved(lite.folder / "market.sqlite", postgres)
        folder = lite.folder / "large"
        folder.mkdir()
        with serving(folder, [postgres], audit=folder / "console.sqlite") as large:
            for console in (lite, large):
                console.app.state.guard.requests._burst = 1e9
            yield lite, large


def same(text: str) -> str:
    """A page without how old its data is."""
    return re.sub(r'data-age="\d+">\d+ s', "", text)


def test_every_page_and_export_is_the_same_to_the_byte(
    both: tuple[Console, Console],
    postgres: str,
    tmp_path: Path,
) -> None:
    lite, large = both
    with lite.client() as here, large.client() as there:
        here.headers["accept"] = there.headers["accept"] = "text/html"
        for path in (path.replace("?verify=1", "") for path in addresses(lite)):
            shown, other = here.get(lite.page + path), there.get(large.page + path)
            assert shown.status_code == 200, path
            assert same(other.text) == same(shown.text), path
        starts = f"/intervals/{lite.ask('SELECT MAX(interval_start) FROM clearing')[0][0]}"
        paths = ["/network", starts, "/health", "/audit", *(f"/{name}.csv" for name in TABLES)]
        # That the three forms are one is shown elsewhere.
        paths += ["/binding?limit=7&offset=2", "/intervals?limit=3", "/tariffs.parquet", "/batches.parquet"]
        for path in paths:
            shown, other = here.get(lite.api + path), there.get(large.api + path)
            assert shown.status_code == 200, path
            assert other.content == shown.content, path
    folders = [tmp_path / "lite", tmp_path / "large"]
    for place, folder in zip((lite.folder / "market.sqlite", postgres), folders, strict=True):
        assert run(["export", str(place), "prices", "postings", "--out", str(folder)]) == 0
    exported = [{file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders]
    assert exported[0] == exported[1] and len(exported[0]) == 2
    with MarketFrames(lite.folder / "market.sqlite") as small, MarketFrames(postgres) as big:
        for name in ("trades", "binding", "tariffs"):
            assert_frame_equal(big.table(name), small.table(name))


def test_looking_cannot_write_and_acting_leaves_an_instruction(
    both: tuple[Console, Console],
    postgres: str,
) -> None:
    _, large = both
    with StoredMarket(postgres) as stored:
        with stored.reading() as connection, pytest.raises(DBAPIError, match="read-only transaction"):
            connection.execute(text("DELETE FROM posting"))
        assert abs(stored.written_at() - time.time()) < 3600
    with Store(postgres, {}) as store, store.transaction() as tx:
        newest = tx.execute(text("SELECT MAX(interval_start) FROM interval")).scalar_one()
        tx.execute(text(f"UPDATE interval SET state = 'SETTLED' WHERE interval_start = {newest}"))
        # A server that was started again has no connection any more.
        tx.execute(
            text(
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    with large.client("operator") as client:
        asked = client.post(f"{large.api}/instructions", json={"kind": "suspend", "reason": "a test"})
        assert asked.status_code == 202, asked.text
        rows = client.get(f"{large.api}/instructions").json()["rows"]
    assert (rows[-1]["id"], rows[-1]["reason"]) == (asked.json()["number"], "a test")


def test_a_database_that_is_away_is_told_of_and_found_again(
    both: tuple[Console, Console], postgres: str
) -> None:
    """The server takes no connection for a while; who listens hears what happened meanwhile."""
    _, large = both
    admin, name = (
        open_engine(re.sub("/[^/?]+\\?", "/postgres?", postgres))[0],
        postgres.split("/")[3].split("?")[0],
    )

    def allow(yes: bool) -> None:
        with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {str(yes).lower()}'))
            terminate = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = :name"
            connection.execute(text(terminate), {"name": name})

    with large.client() as client, client.stream("GET", f"{large.api}/events") as answer:
        lines = answer.iter_lines()
        while "event: hello" not in next(lines):
            pass
        allow(False)
        away = client.get(f"{large.api}/intervals")
        assert (away.status_code, away.json()["title"]) == (503, "Not ready")
        time.sleep(3 * POLL_S)  # the feed has looked in vain
        allow(True)
        with Store(postgres, {}) as store, store.transaction() as tx:
            start, at = tx.execute(text("SELECT MAX(interval_start), MAX(at) FROM transition")).one()
            row = {"interval_start": start, "number": 99, "state": "DISPUTED", "at": at + 60, "reason": "no"}
            tx.execute(insert(schema.transition), row)
        assert any("DISPUTED" in line for line in lines if line.startswith("data: {"))
        assert client.get(f"{large.api}/intervals").status_code == 200
    admin.dispose()
