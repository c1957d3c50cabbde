"""A market on the wall clock, in virtual time: the real :class:`LiveMarket` with its lease, intake, store and
settlement; network, disk, power, chain and solver fail as a seed says.

Other than a simulated day it does not come to the same end whatever happens: time does not wait for it. What
must hold all the same is told in :mod:`tests.sim.test_seeds`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import patch

from sqlalchemy.exc import DatabaseError

from grid.errors import PeergridError, SolverError
from market.auction.book import Book
from market.messages.models import Gate, Order, Reading, ReceiptKind, ReceiptResult
from market.messages.signing import message_digest
from market.service import live
from market.service.answer import Answer
from market.service.clock import WallClock
from market.service.cover import Cover
from market.service.intake import Intake
from market.service.lease_holder import LeaseHolder
from market.service.live import LiveMarket
from market.service.parse import Heard
from market.service.ports import Tally
from market.service.settings import MarketSettings
from market.service.steps import Solved
from market.service.store import outbox
from tests.service import scene
from tests.service.scene import DOMAIN, MARKET, METERS, SECONDS, START
from tests.sim import virtual_time
from tests.sim.simulation import (
    BY_METER,
    PHYSICS,
    Faults,
    FaultyStore,
    PowerCutError,
    SimulatedChain,
    inline_threads,
)
from tests.sim.virtual_time import VirtualLoop

SETTINGS = scene.settings(None, clock_skew_s=60)
RESEND_S = 45.0
DELAY_S_MAX = 20.0
OUTAGE_S_MAX = 1_500.0
LEASE_S = 120.0
LOOK_S = 30.0
"""To look at the database every second of hours on end would be most of the work."""


class Meters:
    """Four meters that outlive the market: they read their registers at every boundary, order when they hear
    of a gate, and send again what has no receipt.
    """

    def __init__(self, faults: Faults, clock: WallClock) -> None:
        self._faults = faults
        self._clock = clock
        self._waiting: dict[tuple[str, str, int], Order | Reading] = {}
        self._ordered = START - SECONDS
        self.receipted: set[tuple[str, str, int]] = set()
        self.network: Network | None = None
        self.told: list[str] = []

    async def live(self) -> None:
        boundary = START - SECONDS
        while True:
            now = self._clock.now()
            if now >= boundary:
                for index in range(len(METERS)):
                    reading = scene.reading_of(index, boundary)
                    self._waiting[reading.meter, "reading", reading.seq] = reading
                boundary += SECONDS
            for message in list(self._waiting.values()):
                self._send(message)
            await asyncio.sleep(min(RESEND_S, max(1.0, boundary - now)))

    def hear(self, topic: str, text: str) -> None:
        self.told.append(topic)
        if not topic.endswith("/gate") or self._faults.happens(self._faults.lost / 4):
            return
        gate = Gate.model_validate_json(text)
        if gate.state == "OPEN" and gate.interval_start > self._ordered:
            self._ordered = gate.interval_start
            for index in range(len(METERS)):
                order = scene.order_of(index, gate.interval_start, (gate.interval_start - START) // SECONDS)
                self._waiting[order.meter, "order", order.version] = order
                self._send(order)

    def answered(self, answer: Answer) -> None:
        kind = "order" if answer.kind == ReceiptKind.ORDER else "reading"
        for key in list(self._waiting):
            meter, what, number = key
            covered = number == answer.up_to if kind == "order" else number <= answer.up_to
            if (meter, what) == (answer.meter, kind) and covered:
                if answer.result == ReceiptResult.REJECTED:
                    assert kind == "order" and "gate" in answer.reason, answer
                else:
                    self.receipted.add(key)
                del self._waiting[key]

    def _send(self, message: Order | Reading) -> None:
        faults = self._faults
        copies = int(not faults.happens(faults.lost)) + int(faults.happens(faults.repeated))
        for _ in range(copies):
            delay_s = 0.0 if faults.calm else faults.random.uniform(0.0, DELAY_S_MAX)
            asyncio.get_running_loop().call_later(delay_s, self._arrives, message)

    def _arrives(self, message: Order | Reading) -> None:
        if self.network is not None:
            self.network.arrived.put_nowait(message)


class Network:
    """In the place of the gateway; like that one it takes in messages by a task of its own."""

    is_connected = True

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

    def listen(self) -> None:
        self._reader = asyncio.create_task(self._read())
        self._meters.network = self

    async def news(self, timeout_s: float) -> None:
        assert self._reader is not None
        waiting = asyncio.create_task(self._news.wait())
        await asyncio.wait({waiting, self._reader}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        self._news.clear()
        if self._reader.done():
            self._reader.result()

    async def end(self) -> None:
        self._meters.network = None
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def publish_outbox(self) -> None:
        while self._faults.happens(self._faults.chain_away):  # the broker, here
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
    """In the place of the solver's process: sometimes it dies, or has no answer by the deadline."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def clear(self, book: Book, seconds: float) -> Solved:
        if self._faults.happens(self._faults.solver_dies):
            raise SolverError("the solver's process ended")
        return Solved(PHYSICS.clear(book))


class World:
    """What goes on whether a market runs or not."""

    def __init__(self, folder: Path, faults: Faults, loop: VirtualLoop) -> None:
        self.faults = faults
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
        self.begun = 0

    def _clock(self, began: int) -> WallClock:
        return WallClock(
            time_of_day=lambda: began + self.loop.time() + self.stepped_s, monotonic=self.loop.time
        )

    async def run(self, intervals: int, calm_intervals: int) -> None:
        """So many intervals with faults and so many without; then until all that ended is final."""
        living = asyncio.create_task(self.meters.live())
        stop = asyncio.Event()
        market = asyncio.create_task(self._market(stop))
        try:
            await asyncio.sleep(intervals * SECONDS)
            self.faults.cease()
            await asyncio.sleep(calm_intervals * SECONDS)
            stop.set()
            await market
        finally:
            for task in (living, market):
                task.cancel()
            await asyncio.gather(living, market, return_exceptions=True)

    async def _market(self, stop: asyncio.Event) -> None:
        """Begun again whenever it ended, as :mod:`market.cli.service` does."""
        while not stop.is_set():
            self.begun += 1
            try:
                await self._process(stop)
            except (PowerCutError, PeergridError, DatabaseError):
                most_s = 1.0 if self.faults.happens(0.8) else OUTAGE_S_MAX
                await asyncio.sleep(self.faults.random.uniform(0.0, most_s))

    async def _process(self, stop: asyncio.Event) -> None:
        with FaultyStore(self.folder / "market.sqlite", SETTINGS.identity()) as store:
            lease = LeaseHolder(store, LEASE_S, self.loop.time)
            assert await lease.acquire(stop)
            # A process that begins takes the time of day as it is, but never goes back behind its journal.
            clock = self._clock(self._began)
            network = Network(SETTINGS, store, clock, self.faults, self.meters)
            async with lease:
                try:
                    await LiveMarket(
                        settings=SETTINGS,
                        signer=MARKET,
                        domain=DOMAIN,
                        store=store,
                        gateway=network,
                        clock=clock,
                        physics=PHYSICS,
                        settler=self.chain,
                        progress=lambda _: None,
                        solver=Solver(self.faults),  # type: ignore[arg-type]
                        lease=lease,
                    ).run(stop)
                finally:
                    await network.end()


def simulate_live(
    folder: Path, seed: int, intervals: int, calm_intervals: int, *, rarity: float = 1.0
) -> World:
    """A market with ``intervals`` of faults and ``calm_intervals`` after them. Where faults are rarer, it
    looks at its database more rarely, too.
    """
    worlds: list[World] = []
    FaultyStore.faults = faults = Faults(seed, rarity)
    look_s = LOOK_S * rarity

    async def main(loop: VirtualLoop) -> None:
        worlds.append(World(folder, faults, loop))
        await worlds[0].run(intervals, calm_intervals)

    with (
        patch.multiple(live, _LOOK_S=look_s, _CHAIN_LOOK_S=2 * look_s, _HEALTH_S=7 * look_s),
        inline_threads(faults),
    ):
        virtual_time.run(main)
    return worlds[0]
