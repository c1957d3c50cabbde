"""A market on the wall clock, in virtual time: the real :class:`LiveMarket` with its lease, intake, store and
settlement; network, disk, power, chain and solver fail as a seed says.

Other than a simulated day it does not come to the same end whatever happens: time does not wait for it. What
must hold all the same is told in :mod:`tests.sim.test_seeds`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sqlalchemy.exc import DatabaseError

from grid.errors import PeergridError, SolverError
from market.auction.book import Book
from market.messages.models import Order, Reading
from market.messages.signing import message_digest
from market.service import live
from market.service.clock import WallClock
from market.service.cover import Cover
from market.service.intake import Intake
from market.service.lease_holder import LeaseHolder
from market.service.live import LiveMarket
from market.service.parse import Heard
from market.service.ports import Tally
from market.service.settings import MarketSettings
from market.service.steps import Solved
from market.service.store import Store, leases, outbox
from tests.service import scene
from tests.service.scene import DOMAIN, MARKET, SECONDS, START
from tests.sim import virtual_time
from tests.sim.faults import Faults, FaultyStore, PowerCutError, inline_threads
from tests.sim.live_meters import Meters
from tests.sim.simulation import BY_METER, PHYSICS, SimulatedChain
from tests.sim.virtual_time import VirtualLoop

SETTINGS = scene.settings(None, clock_skew_s=60)
OUTAGE_S_MAX = 1_500.0
TOLD_EVERY = 1_000
STEP_S_MAX, STEPPED_S_MAX = 900.0, 300.0
LEASE_S, LEASE_S_MAX = 120.0, 600.0
_ENDS = (PowerCutError, PeergridError, DatabaseError)
"""What ends a process."""
LOOK_S = 30.0
"""To look at the database every second of hours on end would be most of the work."""


class Network:
    """In the place of the gateway; like that one it takes in messages by a task of its own."""

    def __init__(
        self, of: MarketSettings, store: FaultyStore, clock: WallClock, faults: Faults, meters: Meters
    ) -> None:
        self.members = BY_METER
        self.tally = Tally()
        self.cover = Cover(of, BY_METER)
        self.intake = Intake(of, BY_METER, store, clock, self.cover)
        self.arrived: asyncio.Queue[Order | Reading] = asyncio.Queue()
        self._store = store
        self._faults = faults
        self._meters = meters
        self._news = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    @property
    def trouble(self) -> str:
        return "it is away" if self._meters.broker.is_away else ""

    def listen(self) -> None:
        self._reader = asyncio.create_task(self._read())
        self._meters.reached = self._reached

    def _reached(self, message: Order | Reading) -> None:
        self.arrived.put_nowait(message)

    async def news(self, timeout_s: float) -> None:
        assert self._reader is not None
        waiting = asyncio.create_task(self._news.wait())
        await asyncio.wait({waiting, self._reader}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        self._news.clear()
        if self._reader.done():
            self._reader.result()

    async def end(self) -> None:
        if self._meters.reached == self._reached:  # and nobody has taken its place
            self._meters.reached = None
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def publish_outbox(self) -> None:
        self._meters.broker.may_go()
        while self._meters.broker.is_away:
            await asyncio.sleep(5.0)
        with self._store.reading() as connection:
            rows = outbox.waiting(connection)
        for _, topic, text, _ in rows:
            self._meters.hear(topic, text)
        if rows:
            with self._store.transaction() as tx:
                outbox.done(tx, rows[-1][0])

    async def _read(self) -> None:
        while True:
            batch = [await self.arrived.get()]
            while not self.arrived.empty():
                batch.append(self.arrived.get_nowait())
            heard = [
                Heard("", m.model_dump_json().encode(), m.meter, m, message_digest(DOMAIN, m)) for m in batch
            ]
            try:
                answers = self.intake.take(heard)
            except DatabaseError:
                self._forgot_what_was_not_stored()
                raise
            for answer in answers:
                if not self._faults.happens(self._faults.lost):
                    self._meters.answered(answer)
            self._news.set()

    def _forgot_what_was_not_stored(self) -> None:
        """Until the market has noticed that a write failed, it goes by what is stored."""
        fresh = Intake(SETTINGS, BY_METER, self._store, WallClock(), Cover(SETTINGS, BY_METER))
        for start, closes_at in self.intake._closes_at.items():
            fresh.open_gate(start, closes_at)
            assert self.intake.silent(start) == fresh.silent(start), "an order is remembered and not stored"
        for boundary in self.intake.readings._read_at:
            fresh.readings.watch_boundary(boundary)
            unread = fresh.readings.unread(boundary)
            assert self.intake.readings.unread(boundary) == unread, "a reading is remembered and not stored"


class Solver:
    """In the place of the solver's process: sometimes it dies, or hangs and has no answer by the deadline."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def clear(self, book: Book, seconds: float) -> Solved:
        if seconds <= 0:
            raise SolverError("the solver has no answer by the deadline")
        if self._faults.happens(self._faults.solver_dies):
            raise SolverError("the solver's process ended")
        return Solved(PHYSICS.clear(book))


class World:
    """What goes on whether a market runs or not."""

    def __init__(
        self, folder: Path, faults: Faults, loop: VirtualLoop, lease_s: float, tell: Callable[[str], None]
    ) -> None:
        self.faults = faults
        self.lease_s = lease_s
        self._tell = tell
        self.folder = folder
        self.loop = loop
        began = START - SECONDS - 100
        self.stepped_s = 0.0
        self.clock = self._clock(began)
        self._began = began
        self.meters = Meters(self.faults, self.clock)
        self.chain = SimulatedChain(self.faults)
        self.chain.deposits = {owner: 10**6 * ueur for owner, ueur in self.chain.deposits.items()}
        self.chain.deposits |= {t.address: t.deposit_ueur for t in SETTINGS.treasuries.values()}
        self._running: set[FaultyStore] = set()
        self.begun = self.taken_over = self.clock_steps = 0

    def _clock(self, began: int) -> WallClock:
        return WallClock(
            time_of_day=lambda: began + self.loop.time() + self.stepped_s, monotonic=self.loop.time
        )

    async def run(self, intervals: int, calm_intervals: int) -> None:
        """So many intervals with faults and so many without; then until all that ended is final."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            others = [tasks.create_task(one) for one in (self.meters.live(), self._clock_steps())]
            markets = [tasks.create_task(one) for one in (self._market(stop), self._rivals(stop))]
            for count in range(1, intervals + 1):
                await asyncio.sleep(SECONDS)
                if count % TOLD_EVERY == 0:
                    self._tell(f"{count} intervals, {self.begun} times begun")
            self.faults.cease()
            await asyncio.sleep(calm_intervals * SECONDS)
            stop.set()
            await asyncio.wait(markets)
            for task in others:
                task.cancel()

    async def _market(self, stop: asyncio.Event) -> None:
        """Begun again whenever it ended, as :mod:`market.cli.service` does."""
        while not stop.is_set():
            with contextlib.suppress(*_ENDS):
                await self._process(stop)
            most_s = OUTAGE_S_MAX if self.faults.happens(0.2) else 1.0
            await asyncio.sleep(self.faults.random.uniform(0.0, most_s))

    async def _rivals(self, stop: asyncio.Event) -> None:
        """Now and then a second process takes over, as it does from one that was paused through its lease;
        the first finds out when it writes, ends, and stands by from then on.
        """
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), SECONDS)
            if self.faults.happens(self.faults.rival):
                self.taken_over += 1
                with contextlib.suppress(*_ENDS):
                    await self._process(stop, takes_over=True)

    async def _clock_steps(self) -> None:
        """The machine's clock is set wrong for a while; then somebody sees it and begins the market again."""
        while True:
            await asyncio.sleep(SECONDS)
            if self.faults.happens(self.faults.clock_stepped):
                self.clock_steps += 1
                self.stepped_s = self.faults.random.uniform(-STEP_S_MAX, STEP_S_MAX)
                await asyncio.sleep(self.faults.random.uniform(0.0, STEPPED_S_MAX))
                self.stepped_s = 0.0
                for store in list(self._running):
                    store.cut()

    async def _process(self, stop: asyncio.Event, *, takes_over: bool = False) -> None:
        self.begun += 1
        with FaultyStore(self.folder / "market.sqlite", SETTINGS.identity()) as store:
            self._running.add(store)
            try:
                await self._market_on(store, stop, takes_over)
            finally:
                self._running.discard(store)

    async def _market_on(self, store: FaultyStore, stop: asyncio.Event, takes_over: bool) -> None:
        lease = LeaseHolder(store, self.lease_s, self.loop.time)
        if takes_over:
            take_over(store)
        elif not await lease.acquire(stop):
            return
        # A process that begins takes the time of day as it is.
        clock = self._clock(self._began)
        network = Network(SETTINGS, store, clock, self.faults, self.meters)
        async with lease:
            try:
                await live_market(store, network, clock, self.chain, Solver(self.faults), lease).run(stop)
            finally:
                await network.end()


def live_market(
    store: Store, network: Network, clock: WallClock, chain: SimulatedChain, solver: Any, lease: LeaseHolder
) -> LiveMarket:
    return LiveMarket(
        settings=SETTINGS,
        signer=MARKET,
        domain=DOMAIN,
        store=store,
        gateway=network,
        clock=clock,
        physics=PHYSICS,
        settler=chain,
        progress=lambda _: None,
        solver=solver,
        lease=lease,
    )


def take_over(store: Store) -> None:
    with store.transaction() as tx:
        fence = leases.take(tx, leases.myself(), leases.current(tx))
    assert fence is not None
    store.hold(fence)


def simulate_live(
    folder: Path,
    seed: int,
    intervals: int,
    calm_intervals: int,
    *,
    rarity: float = 1.0,
    tell: Callable[[str], None] = lambda _: None,
) -> World:
    """A market with ``intervals`` of faults and ``calm_intervals`` after them. Where faults are rarer, it
    looks at its database more rarely, too.
    """
    worlds: list[World] = []
    FaultyStore.faults = faults = Faults(seed, rarity, live=True)
    look_s = LOOK_S * rarity

    async def main(loop: VirtualLoop) -> None:
        worlds.append(World(folder, faults, loop, min(LEASE_S * rarity, LEASE_S_MAX), tell))
        await worlds[0].run(intervals, calm_intervals)

    with (
        patch.multiple(live, _LOOK_S=look_s, _CHAIN_LOOK_S=2 * look_s, _HEALTH_S=7 * look_s),
        inline_threads(faults),
    ):
        virtual_time.run(main)
    return worlds[0]
