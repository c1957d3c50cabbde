"""A market on a wall clock that runs 150 times as fast, with real broker, chain and solver."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from grid.errors import BrokerError
from market.messages.models import Gate
from market.service.clock import WallClock
from market.service.gateway import Gateway
from market.service.replay import Replay
from market.service.solver import SolverProcess
from market.service.store import Store, instructions, intervals
from meters.broker import Broker
from tests.service.scene import (
    FEEDER,
    SECONDS,
    START,
    live_market,
    living_meters,
    physics,
    settings,
    state_of,
)

SPEED = 150
OF = settings(None, clock_skew_s=SECONDS, clearing_s=290, settle_every="interval")


def clock_at(moment: int) -> WallClock:
    """Shows ``moment`` now."""
    ahead_s = moment - time.time()
    return WallClock(SPEED, moment, time_of_day=lambda: time.time() + ahead_s)


def states(folder: Path) -> dict[int, str]:
    with Store(folder / "market.sqlite", {}) as store, store.reading() as connection:
        return {start: one.state for start, one in intervals.intervals(connection).items()}


def clearings(folder: Path) -> dict[int, str]:
    return {(row[0] - START) // SECONDS: row[1] for row in state_of(folder)["clearing"]}


async def until(folder: Path, number: int, *wanted: str) -> None:
    """Interval ``number`` is in one of the states ``wanted``."""
    async with asyncio.timeout(240):
        while states(folder).get(START + number * SECONDS) not in wanted:
            await asyncio.sleep(0.1)


async def test_gates_open_and_close_and_an_operator_suspends_and_resumes(tmp_path: Path) -> None:
    """Then the market is stopped, misses two gates, and makes up for them when it runs again."""
    database = tmp_path / "market.sqlite"
    async with Broker() as broker, living_meters(broker.port) as meters:
        with SolverProcess(FEEDER) as solver:
            stop = asyncio.Event()
            first = clock_at(START - SECONDS)
            async with live_market(tmp_path, broker.port, OF, first, solver) as market:
                running = asyncio.create_task(market.run(stop))
                await until(tmp_path, 1, "OPEN")
                with Store(database, {}) as store, store.transaction() as tx:
                    instructions.give(tx, "op", "suspend", {"first_start": START + SECONDS}, "line work")
                await until(tmp_path, 1, "SUSPENDED")
                with Store(database, {}) as store, store.transaction() as tx:
                    instructions.give(tx, "op", "resume", {}, "line is back")
                await until(tmp_path, 0, "FINAL")
                await until(tmp_path, 2, "CLEARED", "SUSPENDED", "METERED")
                stop.set()
                await running
            stop = asyncio.Event()
            later = clock_at(START + 5 * SECONDS + 10)
            async with live_market(tmp_path, broker.port, OF, later, solver) as market:
                running = asyncio.create_task(market.run(stop))
                await until(tmp_path, 6, "CLEARED")
                stop.set()
                await running

    came_to = clearings(tmp_path)
    assert (came_to[0], came_to[1], came_to[6]) == ("CLEARED", "SUSPENDED", "CLEARED")
    assert set(came_to) == set(range(7)), "no interval is lost"
    assert came_to[4] == came_to[5] == "SUSPENDED", "nobody could use their gates"
    gates = [Gate.model_validate_json(payload) for payload in meters.payloads["gate"]]
    assert {gate.state for gate in gates} >= {"OPEN", "CLOSED"}

    scratch = tmp_path / "scratch.sqlite"
    with Store(database, {}) as stored, Store(scratch, {}) as empty:
        assert Replay(stored, empty, lambda _: physics()).run() is None


async def test_a_broker_that_is_there_and_refuses_ends_the_market(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other than one that is away, which is waited for."""

    async def refused(gateway: Gateway) -> None:
        while gateway.trouble:
            await asyncio.sleep(0.01)
        raise BrokerError("the broker refused a message")

    monkeypatch.setattr(Gateway, "publish_outbox", refused)
    async with Broker() as broker:
        with SolverProcess(FEEDER) as solver:
            async with live_market(tmp_path, broker.port, OF, clock_at(START - SECONDS), solver) as market:
                with pytest.raises(BrokerError, match="refused"):
                    await market.run(asyncio.Event())
