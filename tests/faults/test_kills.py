"""Whatever dies, nothing that was receipted is missing, and nothing counts twice.

Broker (mosquitto), market and meters are killed at random points, the network is cut in between, and every
message is sent three times out of order.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import sys
from pathlib import Path

import pytest

from meters.broker import Broker, free_port
from meters.lifeline import Child
from tests.faults.promise import promise
from tests.faults.proxy import Proxy
from tests.faults.stand import METERS
from tests.faults.stand_meters import reading

pytestmark = [pytest.mark.needs("mosquitto"), pytest.mark.timeout(900)]
PROMISE = "whatever dies, nothing that was receipted is missing, and nothing counts twice"


async def start(folder: Path, part: str, *arguments: object) -> Child:
    command = [sys.executable, "-m", f"tests.faults.stand_{part}", str(folder), *map(str, arguments)]
    return await Child.start(command, folder / f"{part}.log")


async def storm(folder: Path, seed: int, readings: int, pause_s: float) -> dict[str, int]:
    """Runs until the meters are through; how often each thing was done to them."""
    fate, port = random.Random(seed), free_port()
    done = dict.fromkeys(("broker", "market", "meters", "cut", "outage"), 0)
    async with Proxy(port) as proxy:
        broker = Broker("mosquitto", port=port)
        await broker.__aenter__()
        market = await start(folder, "market", port)
        meters = await start(folder, "meters", proxy.port, readings)
        try:
            while meters.status != 0:
                await asyncio.wait(
                    {asyncio.create_task(meters.wait())}, timeout=fate.uniform(0.5, 1.5) * pause_s
                )
                if meters.status == 0:
                    break
                assert meters.status is None, meters.last_words()
                assert market.status is None, market.last_words()
                # Every kind at least once, then as it comes.
                never = [kind for kind, count in done.items() if not count]
                kind = fate.choice(never or list(done))
                done[kind] += 1
                match kind:
                    case "broker":
                        os.kill(broker.pid, signal.SIGKILL)
                        await broker.ended()
                        await broker.__aexit__(None, None, None)
                        broker = Broker("mosquitto", port=port)
                        await broker.__aenter__()
                    case "market":
                        os.kill(market.pid, signal.SIGKILL)
                        await market.wait()
                        market = await start(folder, "market", port)
                    case "meters":
                        os.kill(meters.pid, signal.SIGKILL)
                        await meters.wait()
                        meters = await start(folder, "meters", proxy.port, readings)
                    case "cut":
                        proxy.cut()
                    case "outage":
                        await proxy.outage(fate.uniform(0.2, 1.0))
        finally:
            await meters.stop()
            await market.stop()
            await broker.__aexit__(None, None, None)
    return done


def check(folder: Path, readings: int) -> None:
    connection = sqlite3.connect(folder / "market.sqlite")
    try:
        stored = connection.execute(
            "SELECT meter, epoch, seq, taken_at, import_wh, export_wh, power_w FROM reading"
        ).fetchall()
        progress = dict(connection.execute("SELECT meter, up_to FROM reading_progress"))
        alarms = connection.execute("SELECT * FROM alarm").fetchall()
    finally:
        connection.close()
    expected = {
        (r.meter, 0, seq, r.taken_at, r.import_wh, r.export_wh, r.power_w)
        for index in range(len(METERS))
        for seq in range(readings)
        for r in [reading(index, seq)]
    }
    assert len(stored) == len(expected), "something is missing or counts twice"
    assert set(stored) == expected
    assert progress == {meter.address: readings - 1 for meter in METERS}
    assert alarms == []
    kept = {(row[0], row[2]) for row in stored}
    for line in (folder / "receipted.log").read_text().splitlines():
        meter, up_to = line.split()
        assert (meter, int(up_to)) in kept
    waiting = sqlite3.connect(folder / "meters.sqlite")
    try:
        assert waiting.execute("SELECT COUNT(*) FROM outbox").fetchone() == (0,)
    finally:
        waiting.close()


async def test_20_000_readings_through_kills_cuts_copies_and_disorder(tmp_path: Path) -> None:
    promise(PROMISE)
    readings = 20_000 // len(METERS)
    done = await storm(tmp_path, seed=5, readings=readings, pause_s=3.0)
    assert min(done.values()) >= 1, f"too calm to prove anything: {done}"
    check(tmp_path, readings)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
async def test_many_storms(tmp_path: Path, seed: int) -> None:
    promise(PROMISE)
    readings = 100_000 // len(METERS)
    await storm(tmp_path, seed=seed, readings=readings, pause_s=3.0)
    check(tmp_path, readings)
