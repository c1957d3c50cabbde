"""What a database's disk and its other users do to a market: it takes nothing that it cannot keep."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from market.cli.status import looked_into, status
from market.messages.models import ReceiptKind, ReceiptResult
from market.service.ports import Settler
from market.service.settings import MarketSettings
from market.service.solver import SolverProcess
from market.service.store import Store
from meters.broker import Broker
from tests.faults.live_stand import CLOSURE_S, Stand, stand
from tests.faults.promise import promise
from tests.faults.small_disk import Disk, LimitedDisk, TmpfsDisk
from tests.service.scene import FEEDER, METERS, SECONDS, START, Meters, living_meters, own_chain

pytestmark = pytest.mark.needs("mosquitto")
BLOCKED_S_MAX = 1.5
LOCKED_S = 1.0
LOCKS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def solver() -> Iterator[SolverProcess]:
    with SolverProcess(FEEDER) as running:
        yield running


@pytest.fixture(params=[TmpfsDisk, LimitedDisk])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with request.param.mounted(folder) as disk:
        yield disk


def status_of(market: Stand) -> dict[str, Any]:
    with looked_into(market.database) as connection:
        return status(connection, market.database)


def chain_in(place: Path, _: Path, store: Store, of: MarketSettings) -> AbstractContextManager[Settler]:
    """The chain's own file is on another disk."""
    return own_chain(place, store, of)


def check_receipted(market: Stand, meters: Meters) -> None:
    """All that was receipted is in the database."""
    orders = set(market.query("SELECT meter, version FROM orders"))
    readings = dict(market.query("SELECT meter, MAX(seq) FROM reading GROUP BY meter"))
    assert meters.receipts
    for receipt in meters.receipts:
        assert receipt.result != ReceiptResult.REJECTED
        if receipt.kind == ReceiptKind.ORDER:
            assert (receipt.meter, receipt.up_to) in orders
        else:
            assert receipt.up_to <= readings[receipt.meter]


async def test_a_full_disk(tmp_path: Path, disk: Disk, solver: SolverProcess) -> None:
    promise("disk full: the market stops accepting, says so, loses nothing receipted, resumes")
    async with Broker("mosquitto") as broker, living_meters(broker.port) as meters:
        settler = partial(chain_in, tmp_path)
        async with stand(disk.folder, broker.port, solver, settler=settler) as market:

            def is_full() -> bool:
                return sum("full" in words for words in market.failures) >= 2

            await market.whole(0)
            disk.fill()
            market.go_to(START)
            # What is left of the pages that it has may do for some orders, but not for a clearing.
            await market.until(lambda: is_full() or market.orders(1) == len(METERS))
            if not is_full():
                market.go_to(START + SECONDS - CLOSURE_S + 1)
                await market.until(is_full)
            check_receipted(market, meters)
            assert market.state(1) in ("", "OPEN", "CLOSED")
            assert status_of(market)["intervals"], "how it stands can be seen"
            disk.make_room()
            await market.until_ordered(1, len(METERS))
            await market.close(1)
            await market.whole(2)
    assert market.clearings() == ["CLEARED"] * 3
    check_receipted(market, meters)
    assert market.follows_from_its_journal()


async def test_a_disk_that_is_read_only_at_the_beginning(
    tmp_path: Path, disk: Disk, solver: SolverProcess
) -> None:
    promise("read-only database: the market does not begin, says so, and begins when it can write")
    async with Broker("mosquitto") as broker, living_meters(broker.port) as meters:
        settler = partial(chain_in, tmp_path)
        async with stand(disk.folder, broker.port, solver, settler=settler) as market:
            await market.whole(0)
            await market.until(lambda: meters.all_is_receipted)
        disk.be_writable(False)
        receipts, now_s = len(meters.receipts), market.machine_s
        async with stand(disk.folder, broker.port, solver, settler=settler) as market:
            market.go_to(now_s + 299)
            await market.until(lambda: len(market.failures) >= 3)
            assert any("readonly" in words or "unable to open" in words for words in market.failures)
            assert len(meters.receipts) == receipts
            disk.be_writable(True)
            await market.whole(1)
    assert market.clearings() == ["CLEARED", "CLEARED"]
    check_receipted(market, meters)


async def test_a_database_that_becomes_read_only(tmp_path: Path, solver: SolverProcess) -> None:
    promise("read-only database under a running market: it stops accepting, says so, and goes on")
    async with Broker("mosquitto") as broker, living_meters(broker.port) as meters:
        with LimitedDisk.mounted(tmp_path) as disk:
            async with stand(disk.folder, broker.port, solver) as market:
                await market.whole(0)
                await market.until(lambda: meters.all_is_receipted)
                disk.be_writable(False)
                receipts = len(meters.receipts)
                market.go_to(START)
                await market.until(lambda: sum("readonly" in words for words in market.failures) >= 2)
                assert len(meters.receipts) == receipts
                disk.be_writable(True)
                await market.whole(1)
                await market.whole(2)
    assert market.clearings() == ["CLEARED"] * 3
    check_receipted(market, meters)
    assert market.follows_from_its_journal()


async def test_a_database_that_is_locked(tmp_path: Path, solver: SolverProcess) -> None:
    promise("database locked by another process: nobody else in this process waits for it, and it goes on")
    pauses: list[float] = []

    async def ticking() -> None:
        clock = asyncio.get_running_loop().time
        while True:
            before = clock()
            await asyncio.sleep(0.01)
            pauses.append(clock() - before)

    async with (
        Broker("mosquitto") as broker,
        living_meters(broker.port) as meters,
        stand(tmp_path, broker.port, solver, busy_s=0.2) as market,
    ):
        await market.whole(0)
        await market.until(lambda: meters.all_is_receipted)
        receipts = len(meters.receipts)
        other = Popen([sys.executable, "-c", LOCKS, market.database], stdin=PIPE, stdout=PIPE, text=True)
        with other:
            assert other.stdout is not None and other.stdout.readline() == "locked\n"
            ticks = asyncio.create_task(ticking())
            market.go_to(START)
            await market.until(lambda: any("locked" in words for words in market.failures))
            await asyncio.sleep(LOCKED_S)
            ticks.cancel()
            assert len(meters.receipts) == receipts
        await market.whole(1)
        await market.whole(2)
    assert max(pauses) < BLOCKED_S_MAX
    assert market.clearings() == ["CLEARED"] * 3
    check_receipted(market, meters)
    assert market.follows_from_its_journal()
