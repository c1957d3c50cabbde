"""Runs a simulated market with all its parts: broker, chain, fleet of meters and engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from grid.errors import BrokerError, PeergridError
from market.cli.chain import MarketChain, market_chain
from market.cli.physics import physics_of
from market.cli.settings import INTERVAL_S
from market.cli.world import World
from market.service.clock import SimulatedClock
from market.service.gateway import Gateway
from market.service.ports import Progress, Tally
from market.service.settings import DATABASE
from market.service.store import Store
from market.service.waves import SimulatedMarket
from meters.broker import Broker
from meters.fleet import FleetConfig, running
from meters.lifeline import Child

AWARD_PATIENCE_S = 20.0  # awards leave before the next gate opens: only a lost one takes this long


class MetersEndedError(PeergridError):
    """The process of the meters ended by itself."""


@dataclass
class Stopwatch:
    """Real seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def total_s(self) -> float:
        """Since the stopwatch was made."""
        return time.perf_counter() - self.started

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


@dataclass(frozen=True)
class Running:
    """A market whose day is over while its parts still run."""

    broker: Broker
    store: Store
    chain: MarketChain
    fleet: FleetConfig
    tally: Tally


def fleet_config(world: World, chain: MarketChain, broker: Broker, folder: Path) -> FleetConfig:
    return FleetConfig(
        host=broker.host,
        port=broker.port,
        feeder=world.settings.name,
        feeder_name=world.settings.feeder,
        market=world.market.address,
        chain_id=chain.domain.chain_id,
        registry=chain.domain.verifying_contract,
        seed=world.settings.seed,
        first_interval_start=world.settings.first_interval_start,
        household=world.settings.households,
        database=str(folder / "meters.sqlite"),
        award_patience_s=AWARD_PATIENCE_S,
    )


@asynccontextmanager
async def market_day(
    world: World, folder: Path, watch: Stopwatch, progress: Callable[[Progress], None]
) -> AsyncIterator[Running]:
    """Runs the day in ``folder`` to its end, from wherever it stands; the parts end with the block.

    Raises :class:`PeergridError` when a part fails; started again, it goes on from there.
    """
    settings = world.settings
    clock = SimulatedClock(settings.first_interval_start - 2 * INTERVAL_S)
    async with AsyncExitStack() as parts:
        with watch.stage("chain setup"):
            store = parts.enter_context(Store(folder / DATABASE, world.market_settings.identity()))
            chain = parts.enter_context(market_chain(world, folder, store))
        with watch.stage("broker and meters"):
            broker = await parts.enter_async_context(Broker())
            gateway = Gateway(
                settings=world.market_settings,
                members=world.members,
                signer=world.market,
                domain=chain.domain,
                store=store,
                clock=clock,
                host=broker.host,
                port=broker.port,
            )
            await parts.enter_async_context(gateway)
            config = fleet_config(world, chain, broker, folder)
            fleet = await parts.enter_async_context(running(config, folder))
        engine = SimulatedMarket(
            settings=world.market_settings,
            signer=world.market,
            domain=chain.domain,
            store=store,
            gateway=gateway,
            clock=clock,
            physics=physics_of(
                world.feeder,
                settings.market.limits,
                world.profiles,
                settings.households,
                settings.seed,
            ),
            settler=chain.settler,
            progress=progress,
        )
        tally = await _first_to_end(engine, broker, fleet)
        yield Running(broker, store, chain, config, tally)


async def _first_to_end(engine: SimulatedMarket, broker: Broker, fleet: Child) -> Tally:
    """The engine's result; a broker or a fleet that ends before it is an error."""
    day = asyncio.create_task(engine.run(), name="engine")
    lost_broker = asyncio.create_task(broker.ended(), name="broker")
    lost_fleet = asyncio.create_task(fleet.wait(), name="fleet")
    tasks: list[asyncio.Task[Tally] | asyncio.Task[BrokerError] | asyncio.Task[int]]
    tasks = [day, lost_broker, lost_fleet]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if day.done():
            return day.result()
        if lost_broker.done():
            raise lost_broker.result()
        words = fleet.last_words()
        raise MetersEndedError(f"the meters ended with status {lost_fleet.result()}: {words}")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
