"""Two processes at chosen moments: who is the market, and what is made up for; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from eth_abi.abi import encode

from contracts.artifacts import load
from contracts.chain import ContractRevertError
from market.auction.book import Book
from market.service.clock import WallClock
from market.service.lease_holder import LeaseHolder
from market.service.ports import Sent
from market.service.steps import Solved
from market.service.store import Store, leases
from market.service.store.leases import FencedError, Lease
from tests.faults.promise import promise
from tests.service.process import query
from tests.service.scene import MEMBERS, SECONDS, START
from tests.sim import virtual_time
from tests.sim.faults import Faults, FaultyStore, inline_threads
from tests.sim.live_meters import Meters
from tests.sim.live_simulation import SETTINGS, Network, live_market, take_over
from tests.sim.simulation import PHYSICS, SimulatedChain
from tests.sim.virtual_time import VirtualLoop

LEASE_S = 60.0
CALM = Faults(0)


class Quick:
    """A solver that has its answer at once, however late it is asked."""

    def clear(self, book: Book, seconds: float) -> Solved:
        return Solved(PHYSICS.clear(book))


class World:
    """One market after the other on one database, and the meters that they hear."""

    def __init__(self, folder: Path, loop: VirtualLoop) -> None:
        self.database = folder / "market.sqlite"
        self.loop = loop
        self.clock = self._clock()
        self.meters = Meters(CALM, self.clock)
        self.chain = SimulatedChain(CALM)
        self._network: Network | None = None
        self.chain.deposits |= {t.address: t.deposit_ueur for t in SETTINGS.treasuries.values()}

    def _clock(self) -> WallClock:
        began = START - SECONDS - 100
        return WallClock(time_of_day=lambda: began + self.loop.time(), monotonic=self.loop.time)

    def room_neur(self) -> Mapping[str, int | None]:
        """What the running market has its households' accounts cover beside their orders."""
        assert self._network is not None
        return self._network.cover.room_neur(self.chain.standing(), {}, {})

    @asynccontextmanager
    async def market(self) -> AsyncIterator[asyncio.Task[None]]:
        """It runs for as long as the block, unless it ends by itself."""
        with FaultyStore(self.database, SETTINGS.identity()) as store:
            lease, clock, stop = LeaseHolder(store, LEASE_S, self.loop.time), self._clock(), asyncio.Event()
            assert await lease.acquire(stop)
            self._network = network = Network(SETTINGS, store, clock, CALM, self.meters)
            async with lease:
                market = live_market(store, network, clock, self.chain, Quick(), lease)
                running = asyncio.create_task(market.run(stop))
                try:
                    yield running
                finally:
                    stop.set()
                    await asyncio.wait({running})
                    await network.end()

    async def until(self, moment: int) -> None:
        await asyncio.sleep(moment - self.clock.exactly())


@pytest.fixture(autouse=True)
def calm() -> None:
    FaultyStore.faults = CALM


def test_a_market_that_was_taken_over_ends_though_nothing_is_to_be_written(folder: Path) -> None:
    promise("a market that lost its lease ends within a lease, also where nothing happens between two gates")

    async def main(loop: VirtualLoop) -> None:
        world = World(folder, loop)
        living = asyncio.create_task(world.meters.live())
        async with world.market() as running:
            await world.until(START - SECONDS + 400)
            assert not running.done()
            with Store(world.database, SETTINGS.identity()) as other:
                take_over(other)
            await asyncio.wait({running}, timeout=LEASE_S)
            assert running.done() and isinstance(running.exception(), FencedError)
        living.cancel()

    with inline_threads(CALM):
        virtual_time.run(main)


def test_what_was_not_cleared_by_its_deadline_is_suspended_by_the_next_process(folder: Path) -> None:
    promise("a gate that closed while no market ran is suspended after its deadline, not cleared late")

    async def main(loop: VirtualLoop) -> None:
        world = World(folder, loop)
        living = asyncio.create_task(world.meters.live())
        closes_at = START - SETTINGS.gate_closure_s
        async with world.market():
            await world.until(closes_at - 10)
        late = closes_at + SETTINGS.clearing_s + 1
        assert late < START, "the next gate has not opened"
        await world.until(late)
        async with world.market():
            await asyncio.sleep(60.0)
        living.cancel()

    with inline_threads(CALM):
        virtual_time.run(main)
    database = folder / "market.sqlite"
    assert query(database, "SELECT COUNT(*) FROM orders") == [(4,)]
    assert query(database, "SELECT interval_start, status FROM clearing") == [(START, "SUSPENDED")]


def test_orders_are_covered_after_a_restart_as_before_it(folder: Path) -> None:
    promise(
        "begun again, a market holds for each order and award what it held before: nobody orders beyond it"
    )

    async def main(loop: VirtualLoop) -> None:
        world = World(folder, loop)
        living = asyncio.create_task(world.meters.live())
        async with world.market():
            await asyncio.sleep(1.0)
            free = world.room_neur()
            # One interval is cleared and not over, the next one's gate is open.
            await world.until(START + 100)
            before = world.room_neur()
        async with world.market():
            await asyncio.sleep(1.0)
            assert world.room_neur() == before
        assert all((before[meter] or 0) < (free[meter] or 0) for meter in free)
        living.cancel()

    with inline_threads(CALM):
        virtual_time.run(main)
    states = query(folder / "market.sqlite", "SELECT state FROM interval ORDER BY interval_start")
    assert states == [("CLEARED",), ("OPEN",)]


def test_gates_open_again_when_a_batch_that_nobody_could_pay_is_paid(folder: Path) -> None:
    promise("a batch that the contract refuses stops orders until it is paid; why is public, who is not")
    (beyond,) = (one for one in load("MarketEscrow").errors.values() if one.name == "PositionBeyondLimit")
    wallet = MEMBERS[0].owner

    def refuse(*_: object) -> Sent:
        data = encode(beyond.inputs, (wallet, 30_000_000_000, 1_000_000_000))
        raise ContractRevertError("MarketEscrow.settle", beyond.selector + data)

    async def main(loop: VirtualLoop) -> None:
        world = World(folder, loop)
        living = asyncio.create_task(world.meters.live())
        async with world.market():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(world.chain, "settle", refuse)
                await world.until(START + 3 * SECONDS + 10)
            await world.until(START + 5 * SECONDS + 10)
        living.cancel()

    with inline_threads(CALM):
        virtual_time.run(main)
    cleared = query(folder / "market.sqlite", "SELECT status FROM clearing ORDER BY interval_start")
    states = [status for (status,) in cleared]
    assert states[0] == "CLEARED" and "SUSPENDED" in states and states[-1] == "CLEARED"
    said = query(
        folder / "market.sqlite",
        "SELECT DISTINCT json_extract(record, '$.reason') FROM clearing WHERE status = 'SUSPENDED'",
    )
    public = "settlement waits: somebody would pay more in one batch than the contract lets the settler take"
    assert said == [(public,)]
    ((told,),) = query(folder / "market.sqlite", "SELECT detail FROM alarm WHERE kind = 'chain'")
    assert told.startswith(public) and wallet in told


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "market.sqlite", {})


def held(store: Store) -> Lease | None:
    with store.reading() as connection:
        return leases.current(connection)


def test_a_lease_that_beats_is_nobody_elses(store: Store) -> None:
    promise(
        "who finds a market that lives waits, however long; who saw it live a moment ago does not take over"
    )

    async def main(loop: VirtualLoop) -> None:
        stop = asyncio.Event()
        with Store(store.name, {}) as other, store:
            first, second = LeaseHolder(store, LEASE_S, loop.time), LeaseHolder(other, LEASE_S, loop.time)
            assert await first.acquire(stop)
            async with first:
                taking = asyncio.create_task(second.acquire(stop))
                await asyncio.sleep(10 * LEASE_S)
                assert not taking.done()
                seen = held(other)
                with store.transaction() as tx:
                    leases.beat(tx)
                with other.transaction() as tx:
                    assert leases.take(tx, "another", seen) is None, "it beat meanwhile"
            assert await taking, "it was given back"

    virtual_time.run(main)
