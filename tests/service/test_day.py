"""A market's day over a real broker, feeder, database and chain."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from market.messages.models import Award, Clearing, ReceiptResult
from market.messages.signing import is_signed_by
from meters.broker import Broker
from tests.service.scene import DOMAIN, MARKET, METERS, Meters, market, settings, state_of

ROOT = Path(__file__).parents[2]
INTERVALS = 6


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker() as running:
        yield running


async def day(folder: Path, port: int, meters: Meters | None = None, **changes: object) -> Meters:
    meters = meters or Meters(port)
    living = asyncio.create_task(meters.run())
    try:
        async with market(folder, port, settings(INTERVALS, **changes)) as engine:
            await engine.run()
        await asyncio.sleep(0.2)
    finally:
        living.cancel()
    return meters


async def test_a_day_ends_final_with_chain_and_ledger_equal_to_the_unit(
    tmp_path: Path, broker: Broker
) -> None:
    meters = await day(tmp_path, broker.port)
    state = state_of(tmp_path)
    assert {row[1] for row in state["interval"]} == {"FINAL"}
    assert {row[1] for row in state["clearing"]} == {"cleared".upper()}
    assert state["outbox"] == []
    assert sum(row[3] for row in state["posting"]) == 0
    assert sum(row[1] for row in state["chain"]) == 0
    assert {receipt.result for receipt in meters.receipts} <= {
        ReceiptResult.ACCEPTED,
        ReceiptResult.DUPLICATE,
    }
    awards = [Award.model_validate_json(payload) for payload in meters.payloads["award"]]
    assert len(awards) == INTERVALS * len(METERS)
    assert all(is_signed_by(DOMAIN, award, MARKET.address) for award in awards)
    clearings = [Clearing.model_validate_json(payload) for payload in meters.payloads["clearing"]]
    assert all(is_signed_by(DOMAIN, clearing, MARKET.address) for clearing in clearings)
    assert len(clearings) == INTERVALS


async def test_the_day_is_the_same_when_the_batches_are_not(tmp_path: Path, broker: Broker) -> None:
    folders = [tmp_path / every for every in ("interval", "hour", "day")]
    for folder in folders:
        folder.mkdir()
        await day(folder, broker.port, settle_every=folder.name)
    first, *others = [state_of(folder) for folder in folders]
    assert all(other["posting"] == first["posting"] for other in others)
    assert all(other["chain"] == first["chain"] for other in others)
    assert [other["batch"][0][1] for other in [first, *others]] == [6, 2, 1]


async def test_a_market_killed_at_any_moment_ends_with_the_same_ledger(
    tmp_path: Path, broker: Broker
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    killed.mkdir()
    await day(undisturbed, broker.port)
    meters = Meters(broker.port)
    living = asyncio.create_task(meters.run())
    chance, kills, output = random.Random(7), 0, ""
    command = [sys.executable, "-m", "tests.service.scene", str(killed), str(broker.port), str(INTERVALS)]
    try:
        for _ in range(30):
            process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            assert process.stdout is not None and process.stderr is not None
            if kills < 8:
                await process.stdout.readline()
                await asyncio.sleep(chance.uniform(0, 0.25))
                if process.returncode is None:
                    process.kill()
                    kills += 1
            output = (await process.stdout.read()).decode()
            errors = (await process.stderr.read()).decode()
            assert await process.wait() in (0, -9), errors
            if output.endswith("DONE\n"):
                break
    finally:
        living.cancel()
    assert output.endswith("DONE\n")
    assert kills >= 3
    assert state_of(killed) == state_of(undisturbed)
