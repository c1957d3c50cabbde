"""Promise: a market that is killed after any single write ends as if it had never been: no interval is
cleared twice, nothing is posted twice, no batch is sent twice, and every row of its database is the same.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from meters.broker import Broker
from tests.faults import crash_market
from tests.service.scene import Meters

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.crash_market"])
TABLES = {
    "interval": "*",
    "transition": "*",
    "orders": "*",
    "reading": "*",
    "reading_progress": "meter, epoch, up_to",
    "clearing": "*",
    "award": "*",
    "metered": "*",
    "posting": "*",
    "batch": "*",
    "position": "*",
    "chain_transaction": "batch_id, sender, nonce, hash, raw, block, gas_used, succeeded",
    "outbox": "topic, payload",
    "alarm": "*",
    "evidence": "*",
    "journal": "at, kind, subject, body, detail",
}
RANDOM_POINTS = 8


def rows(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row but for the order in which messages came."""
    connection = sqlite3.connect(folder / "market.sqlite")
    try:
        return {
            table: sorted(connection.execute(f"SELECT {columns} FROM {table}"), key=repr)
            for table, columns in TABLES.items()
        }
    finally:
        connection.close()


async def ended(process: Any) -> int:
    while process.exitcode is None:
        await asyncio.sleep(0.02)
    code: int = process.exitcode
    process.close()
    return code


async def a_day(folder: Path, fatal: int) -> list[str]:
    """Runs it, with its meters alive all the time; who made the writes up to the kill, or all of them."""
    folder.mkdir()
    async with Broker() as broker:
        living = asyncio.create_task(Meters(broker.port).run())
        try:
            for number in (fatal, 0) if fatal else (0,):
                process = CONTEXT.Process(target=crash_market.run, args=(folder, broker.port, number))
                process.start()
                code = await ended(process)
                assert code == (-signal.SIGKILL if number else 0)
        finally:
            living.cancel()
    return (folder / "writes.txt").read_text().splitlines()[: fatal or None]


async def test_each_kind_of_write_and_some_at_random(tmp_path: Path) -> None:
    writes = await a_day(tmp_path / "undisturbed", 0)
    expected = rows(tmp_path / "undisturbed")
    first_of_kind = {writer: number for number, writer in reversed(list(enumerate(writes, start=1)))}
    chosen = set(first_of_kind.values()) | set(random.Random(8).sample(range(1, len(writes)), RANDOM_POINTS))
    await check(tmp_path, sorted(chosen), expected)


@pytest.mark.long
@pytest.mark.timeout(7200)
async def test_every_single_write(tmp_path: Path) -> None:
    writes = await a_day(tmp_path / "undisturbed", 0)
    await check(tmp_path, range(1, len(writes)), rows(tmp_path / "undisturbed"))


async def check(tmp_path: Path, points: Any, expected: dict[str, list[tuple[Any, ...]]]) -> None:
    for point in points:
        folder = tmp_path / str(point)
        writes = await a_day(folder, point)
        got = rows(folder)
        different = {
            table: sorted(set(map(repr, got[table])) ^ set(map(repr, expected[table])))[:2]
            for table in TABLES
            if got[table] != expected[table]
        }
        assert not different, f"killed after write {point} ({writes[-1]}): {different}"
