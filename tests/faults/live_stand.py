"""A market on the wall clock whose clock a test moves by hand, begun again whenever it fails, as the service
does it, with a real broker, chain, database and solver. An interval takes what the machine needs for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sqlalchemy.exc import DatabaseError

from grid.errors import PeergridError
from market.service import live
from market.service.clock import WallClock
from market.service.live import LiveMarket
from market.service.replay import Replay
from market.service.settings import MarketSettings
from market.service.solver import SolverProcess
from market.service.store import Store
from tests.service.process import query
from tests.service.scene import SECONDS, START, alongside, live_market, physics, settings

CLOSURE_S = 300
PATIENCE_S = 60
AGAIN_S = 0.1


def live_settings(**changes: Any) -> MarketSettings:
    return settings(None, **{"clock_skew_s": SECONDS, "clearing_s": 290, **changes})


class Stand:
    """``failures`` are what the market ended with and was begun again after."""

    def __init__(
        self, folder: Path, port: int, of: MarketSettings, solver: SolverProcess, parts: Any
    ) -> None:
        self.database = folder / "market.sqlite"
        self.failures: list[str] = []
        self.machine_s = float(START - SECONDS - 5)
        self.stepped_s = 0.0
        """What the machine's clock shows beside the true time."""
        self.market: LiveMarket | None = None
        self._market = lambda: live_market(folder, port, of, self.clock(), solver, **parts)
        self._stop = asyncio.Event()

    def clock(self) -> WallClock:
        return WallClock(
            time_of_day=lambda: self.machine_s + self.stepped_s, monotonic=lambda: self.machine_s
        )

    async def serve(self) -> None:
        while not self._stop.is_set():
            try:
                async with self._market() as self.market:
                    await self.market.run(self._stop)
            except (PeergridError, DatabaseError) as error:
                self.failures.append(str(error))
                await asyncio.sleep(AGAIN_S)

    def stop(self) -> None:
        self._stop.set()

    # Time

    def go_to(self, moment: float) -> None:
        assert moment >= self.machine_s, "time does not go back"
        self.machine_s = moment

    async def open(self, number: int) -> None:
        """The gate of interval ``number`` opens, and the registers are read."""
        self.go_to(START + (number - 1) * SECONDS)
        await self.until_state(number, "OPEN")

    async def close(self, number: int, late_s: float = 1) -> None:
        """It closes, which is seen ``late_s`` after it, and the interval is cleared or not."""
        self.go_to(START + number * SECONDS - CLOSURE_S + late_s)
        await self.until_state(number, "CLEARED", "SUSPENDED")

    async def whole(self, number: int, orders: int = 4, late_s: float = 1) -> None:
        """Its gate opens, all say what they want, it closes; what ended half a minute ago is settled."""
        await self.open(number)
        await self.until_ordered(number, orders)
        if number >= 2:
            self.go_to(self.machine_s + 31)
        await self.close(number, late_s)

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():
                await asyncio.sleep(0.02)

    async def until_state(self, number: int, *wanted: str) -> None:
        try:
            await self.until(lambda: self.state(number) in wanted)
        except TimeoutError:
            raise AssertionError(f"interval {number} is {self.state(number)}; {self.failures[-3:]}") from None

    async def until_ordered(self, number: int, orders: int) -> None:
        try:
            await self.until(lambda: self.orders(number) >= orders)
        except TimeoutError:
            raise AssertionError(f"{self.orders(number)} orders; {self.failures[-3:]}") from None

    # What is stored

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        return query(self.database, statement) if self.database.exists() else []

    def state(self, number: int) -> str:
        start = START + number * SECONDS
        found = self.query(f"SELECT state FROM interval WHERE interval_start = {start}")
        return str(found[0][0]) if found else ""

    def orders(self, number: int) -> int:
        start = START + number * SECONDS
        return len(self.query(f"SELECT DISTINCT meter FROM orders WHERE interval_start = {start}"))

    def clearings(self) -> list[str]:
        return [row[0] for row in self.query("SELECT status FROM clearing ORDER BY interval_start")]

    def follows_from_its_journal(self) -> bool:
        scratch = self.database.with_name("replayed.sqlite")
        with Store(self.database, {}) as stored, Store(scratch, {}) as empty:
            found = Replay(stored, empty, lambda _: physics()).run()
        assert found is None, found
        return True


@asynccontextmanager
async def stand(
    folder: Path, port: int, solver: SolverProcess, of: MarketSettings | None = None, **parts: Any
) -> AsyncIterator[Stand]:
    """A market that runs until the block ends; ``parts`` are further ones of :func:`scene.live_market`."""
    it = Stand(folder, port, of or live_settings(), solver, parts)
    with patch.multiple(live, _LOOK_S=0.05, _CHAIN_LOOK_S=0.1, _CHAIN_RETRY_MAX_S=0.2, _HEALTH_S=0.5):
        async with alongside(it.serve()) as serving:
            try:
                yield it
            finally:
                it.stop()
                await asyncio.wait({serving}, timeout=PATIENCE_S)
            assert serving.done(), "it did not stop"
