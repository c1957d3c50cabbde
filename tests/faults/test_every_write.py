"""Promise: a market that is killed after any single write ends as if it had never been: no interval is
cleared twice, nothing is posted twice, no batch is sent twice, and every row of its database is the same.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from meters.broker import Broker
from tests.faults import crash_market
from tests.faults.promise import promise
from tests.service.scene import living_meters

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.crash_market"])
# Every table is compared, with all its columns but for these.
COLUMNS = {
    "reading_progress": "meter, epoch, up_to",
    "chain_transaction": "batch_id, sender, nonce, hash, raw, block, gas_used, succeeded",
    "outbox": "topic, payload",
    "journal": "at, kind, subject, body, detail",
}
NOT_COMPARED = {
    "sqlite_sequence",  # numbers of messages that have left
    "chain_books",  # what a process saw of the chain, at the moments when it looked
}
RANDOM_POINTS, DAYS = 50, 5
WRITES_BETWEEN = 8
KINDS_MAX = 60


def rows(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row but for the order in which messages came."""
    connection = sqlite3.connect(folder / "market.sqlite")
    try:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return {
            table: sorted(connection.execute(f"SELECT {COLUMNS.get(table, '*')} FROM {table}"), key=repr)
            for table in tables - NOT_COMPARED
        }
    finally:
        connection.close()


async def ended(process: Any) -> int:
    while process.exitcode is None:
        await asyncio.sleep(0.02)
    code: int = process.exitcode
    process.close()
    return code


async def a_day(folder: Path, kills: Iterable[int] = (), *, at_news: bool = False) -> list[str]:
    """Runs it, with its meters alive all the time; who made the writes.

    A process is killed after its n-th write for every n of ``kills``, and the next one takes over; with
    ``at_news``, whenever somebody writes for the first time.
    """
    folder.mkdir()
    async with Broker() as broker, living_meters(broker.port):
        for fatal in (*kills, *([0] * KINDS_MAX if at_news else [0])):
            process = CONTEXT.Process(
                target=crash_market.run, args=(folder, broker.port, fatal), kwargs={"at_news": at_news}
            )
            process.start()
            code = await ended(process)
            if code == 0:
                break
            assert code == -signal.SIGKILL
        assert code == 0, "not done in so many runs"
        assert at_news or fatal == 0, f"over before the kill after {fatal} writes"
    return (folder / "writes.txt").read_text().splitlines()


async def test_each_kind_of_write_and_many_at_random(tmp_path: Path) -> None:
    """To be cheap, a day is killed again and again; each kill is after another write."""
    promise("killed after each kind of write and at 50 random ones, a market ends as an undisturbed one")
    kinds = set(await a_day(tmp_path / "undisturbed"))
    expected = rows(tmp_path / "undisturbed")
    again = await a_day(tmp_path / "kinds", at_news=True)
    assert set(again) >= kinds, "every kind has been a process's last write"
    sys.stdout.write(f"{len(set(again))} kinds\n")
    compare(rows(tmp_path / "kinds"), expected, f"killed after the first of each of {sorted(kinds)}")
    fate = random.Random(8)
    days = [
        [fate.randrange(1, 2 * WRITES_BETWEEN) for _ in range(RANDOM_POINTS // DAYS)] for _ in range(DAYS)
    ]
    async with asyncio.TaskGroup() as at_once:
        for day, kills in enumerate(days):
            at_once.create_task(a_day(tmp_path / str(day), kills))
    for day, kills in enumerate(days):
        compare(rows(tmp_path / str(day)), expected, f"killed after so many writes each: {kills}")


@pytest.mark.long
@pytest.mark.timeout(7200)
async def test_every_single_write(tmp_path: Path) -> None:
    promise("killed after any single write of three intervals, a market ends as an undisturbed one")
    writes = await a_day(tmp_path / "undisturbed")
    expected = rows(tmp_path / "undisturbed")
    for point in range(1, len(writes)):
        folder = tmp_path / str(point)
        await a_day(folder, [point])
        compare(rows(folder), expected, f"killed after write {point} ({writes[point - 1]})")
        shutil.rmtree(folder)
    sys.stdout.write(f"{len(writes) - 1} points, {len(set(writes))} kinds of writes\n")


def compare(got: dict[str, list[tuple[Any, ...]]], expected: dict[str, Any], what: str) -> None:
    assert got.keys() == expected.keys()
    different = {
        table: sorted(set(map(repr, got[table])) ^ set(map(repr, expected[table])))[:2]
        for table in expected
        if got[table] != expected[table]
    }
    assert not different, f"{what}: {different}"
