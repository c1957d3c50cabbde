"""What a database's disk and its other users do to a market: it takes nothing that it cannot keep."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from market.messages.models import ReceiptKind, ReceiptResult
from market.service.ports import Settler
from market.service.settings import MarketSettings
from market.service.solver import SolverProcess
from market.service.store import Store
from meters.broker import Broker
from tests.faults.live_stand import Stand, stand
from tests.faults.promise import promise
from tests.service.scene import FEEDER, Meters, living_meters, own_chain

pytestmark = pytest.mark.needs("mosquitto")
DISK_BYTES = 4 << 20
BLOCKED_S_MAX = 1.5
LOCKED_S = 3.0


@pytest.fixture(scope="module")
def solver() -> Iterator[SolverProcess]:
    with SolverProcess(FEEDER) as running:
        yield running


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder], check=False)
    if made.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", folder], check=True)


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


async def test_a_full_disk(tmp_path: Path, small_disk: Path, solver: SolverProcess) -> None:
    promise("disk full: the market stops accepting, says so, loses nothing receipted, resumes")
    ballast = small_disk / "ballast"
    async with Broker("mosquitto") as broker, living_meters(broker.port) as meters:
        settler = partial(chain_in, tmp_path)
        async with stand(small_disk, broker.port, solver, settler=settler) as market:
            await market.whole(0)
            with contextlib.suppress(OSError), ballast.open("wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()
            receipts = len(meters.receipts)
            market.go_to(market.machine_s + 299)
            await market.until(lambda: sum("full" in words for words in market.failures) >= 2)
            assert len(meters.receipts) == receipts, "what it cannot keep it does not receipt"
            ballast.unlink()
            await market.whole(1)
            await market.whole(2)
    assert market.clearings() == ["CLEARED"] * 3
    check_receipted(market, meters)
    assert market.follows_from_its_journal()


async def test_a_disk_that_is_read_only(tmp_path: Path, small_disk: Path, solver: SolverProcess) -> None:
    promise("read-only database: the market does not begin, says so, and begins when it can write")
    async with Broker("mosquitto") as broker, living_meters(broker.port) as meters:
        settler = partial(chain_in, tmp_path)
        async with stand(small_disk, broker.port, solver, settler=settler) as market:
            await market.whole(0)
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        receipts, now_s = len(meters.receipts), market.machine_s
        async with stand(small_disk, broker.port, solver, settler=settler) as market:
            market.go_to(now_s + 299)
            await market.until(lambda: len(market.failures) >= 3)
            assert any("readonly" in words or "unable to open" in words for words in market.failures)
            assert len(meters.receipts) == receipts
            subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
            await market.whole(1)
    assert market.clearings() == ["CLEARED", "CLEARED"]
    check_receipted(market, meters)


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
        stand(tmp_path, broker.port, solver) as market,
    ):
        await market.whole(0)
        other = sqlite3.connect(market.database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        market.go_to(market.machine_s + 299)
        ticks = asyncio.create_task(ticking())
        await asyncio.sleep(LOCKED_S)
        ticks.cancel()
        assert any("locked" in words for words in market.failures), market.failures
        other.execute("ROLLBACK")
        other.close()
        await market.whole(1)
        await market.whole(2)
    assert max(pauses) < BLOCKED_S_MAX
    assert market.clearings() == ["CLEARED"] * 3
    check_receipted(market, meters)
    assert market.follows_from_its_journal()
