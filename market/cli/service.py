"""Running markets on the wall clock, from their configuration: each is opened, run, and opened again when a
part of it failed. There is no other way to recover: what a restart does is what a crash needs.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlalchemy.exc import DatabaseError, OperationalError

from contracts.deployment import Deployment
from contracts.market_contracts import MarketContracts
from contracts.registry import RegisteredMeters
from contracts.rpc import RpcChain
from contracts.sender import Patience, Sender
from grid.catalogue import open_feeder, year_profiles
from grid.errors import BrokerError, InputError, OtherStoreError, PeergridError
from grid.feeder import Feeder
from market.cli.alerts_config import channels_of
from market.cli.chain import market_chain
from market.cli.console import beside
from market.cli.physics import physics_of
from market.cli.service_config import MarketSection, ServiceConfig, read_members, treasuries_of
from market.cli.settings import DEFAULT_DATE, Settings
from market.cli.settings import MarketSection as DemoMarket
from market.cli.world import World, build_world
from market.messages.signing import Domain, Signer
from market.service.alerts import deliver_all
from market.service.clock import WallClock
from market.service.gateway import Gateway
from market.service.lease_holder import LeaseHolder
from market.service.live import LiveMarket
from market.service.ports import Physics, Settler
from market.service.registered import Registered
from market.service.settings import MarketSettings, Member, Role, Treasury
from market.service.settler import ContractSettler, LateSettler
from market.service.solver import SolverProcess
from market.service.store import Store, input_journal
from market.service.store.journal import StoreJournal
from market.service.store.leases import FencedError
from meters.broker import Broker, free_port
from meters.fleet import FleetConfig
from meters.fleet import running as running_fleet
from meters.household.settings import HouseholdSettings
from meters.identity import read_key
from meters.mqtt import Tls
from meters.secure_broker import market_tls, read_salt

RETRY_MAX_S = 30.0
BUSY_S = 1.0
"""Other markets in this process do not wait long for one whose database is locked: it is opened again."""
_PAUSE_S = 0.5
"""Before what has ended is begun again."""
_COLLECT_S = 60.0
_HEALTHY_S = 120.0
"""Who ran for so long begins again with a short wait."""

_log = logging.getLogger("peergrid.market")


@dataclass(frozen=True)
class Place:
    """One market of a configuration: ``base`` is where its paths start."""

    config: ServiceConfig
    market: MarketSection
    base: Path
    clock: WallClock
    upgrade: bool

    @property
    def folder(self) -> Path:
        return self.base / self.config.folder / self.market.name

    @property
    def database(self) -> Path | str:
        return self.config.database_of(self.market, self.base)


async def serve(
    config: ServiceConfig, path: Path, clock: WallClock, stop: asyncio.Event, *, upgrade: bool
) -> None:
    """Runs all markets of ``config``, the content of ``path``, until ``stop``. Raises what no restart of a
    market can mend.
    """
    base = path.resolve().parent
    places = [Place(config, market, base, clock, upgrade) for market in config.markets]
    for place in places:
        place.folder.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as parts:
        parts.push_async_callback(_ended, asyncio.create_task(_collect(), name="collect"))
        if config.console is not None:
            shown = beside(path, log=base / config.folder, options=config.console.options(base))
            await parts.enter_async_context(shown)
        broker = config.broker
        host, port, tls = broker.host or "", broker.port, None
        if broker.host is None:
            host, port = Broker.host, free_port()
        elif broker.tls is not None:
            tls = market_tls(base / broker.tls)
        if broker.host is None:
            own = asyncio.create_task(_own_broker(port), name="broker")
            parts.push_async_callback(_ended, own)
        try:
            async with asyncio.TaskGroup() as running:
                for place in places:
                    running.create_task(_supervised(place, host, port, tls, stop), name=place.market.name)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None


async def _collect() -> None:
    """Takes away every minute what died in cycles, so that memory stays as it is for months: left to itself
    Python waits for tens of thousands of objects. What was imported is never looked at again; the rest takes
    a millisecond.
    """
    gc.freeze()
    while True:
        gc.collect()
        await asyncio.sleep(_COLLECT_S)


async def _own_broker(port: int) -> None:
    """A broker on this machine, and another one when it has ended."""
    while True:
        try:
            async with Broker(port=port) as own:
                _log.info("broker", extra={"event": {"port": port, "program": own.kind}})
                raise await own.ended()
        except BrokerError as error:
            _log.error("broker", extra={"event": {"port": port, "error": str(error)}})
        await asyncio.sleep(_PAUSE_S)


async def _meters(config: FleetConfig, folder: Path) -> None:
    """The households of a simulation, and others when they have ended: they go on from what those stored."""
    while True:
        async with running_fleet(config, folder) as fleet:
            status = await fleet.wait()
            what = {"feeder": config.feeder, "status": status, "error": fleet.last_words()}
            _log.error("meters", extra={"event": what})
        await asyncio.sleep(_PAUSE_S)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _supervised(place: Place, host: str, port: int, tls: Tls | None, stop: asyncio.Event) -> None:
    name, wait_s = place.market.name, 1.0
    while not stop.is_set():
        began = time.monotonic()
        try:
            async with opened(place, host, port, tls, stop) as market:
                if market is not None:
                    _log.info("market runs", extra={"event": {"feeder": name}})
                    await market.run(stop)
        except (InputError, OtherStoreError, FencedError):
            raise
        except (PeergridError, DatabaseError, OSError) as error:
            what = str(error.orig) if isinstance(error, OperationalError) else str(error)
            _log.error("market failed", extra={"event": {"feeder": name, "error": what, "again_s": wait_s}})
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait_s)
            healthy = time.monotonic() - began > _HEALTHY_S
            wait_s = 1.0 if healthy else min(2 * wait_s, RETRY_MAX_S)


@asynccontextmanager
async def opened(
    place: Place, host: str, port: int, tls: Tls | None, stop: asyncio.Event
) -> AsyncIterator[LiveMarket | None]:
    """One market with all its parts; None where it was told to stop before it was its turn."""
    market, clock = place.market, place.clock
    async with AsyncExitStack() as parts:
        world = await asyncio.to_thread(simulated_world, market, place.base) if market.simulation else None
        feeder = world.feeder if world else await asyncio.to_thread(open_feeder, market.feeder, place.base)
        identity = _settings(market, 0, {}, world).identity()
        store = parts.enter_context(Store(place.database, identity, upgrade=place.upgrade, busy_s=BUSY_S))
        lease = LeaseHolder(store, place.config.lease_s)
        if not await lease.acquire(stop):
            yield None
            return
        await parts.enter_async_context(lease)
        if channels := channels_of(place.config.alerts, place.base):
            telling = asyncio.create_task(deliver_all(store, market.name, channels), name="alerts")
            parts.push_async_callback(_ended, telling)
        settings = _settings(market, _first_start(store, clock, market), _treasuries(market, world), world)
        settler: Settler
        registered: Registered | None = None
        if world is not None:
            made = parts.enter_context(market_chain(world, place.folder, store, live_clock=clock))
            members: Sequence[Member] = world.members
            signer, domain, settler = world.market, made.domain, made.settler
        else:
            members = read_members(place.base / (market.members or ""), bus_of(feeder))
            signer = read_key(place.base / (market.key or ""))
            domain, settler, registered = _on_a_node(place, store)
        solver = await asyncio.to_thread(parts.enter_context, SolverProcess(market.feeder, base=place.base))
        gateway = Gateway(
            settings=settings,
            members=members,
            signer=signer,
            domain=domain,
            store=store,
            clock=clock,
            host=host,
            port=port,
            tls=tls,
        )
        gateway.start()
        parts.push_async_exit(gateway)
        if world is not None:
            fleet = _fleet(place, world, settings, domain, host, port)
            metering = asyncio.create_task(_meters(fleet, place.folder), name="meters")
            parts.push_async_callback(_ended, metering)
        # It asks the chain first of all, and a node that hangs must not hold up other markets.
        yield await asyncio.to_thread(
            LiveMarket,
            settings=settings,
            signer=signer,
            domain=domain,
            store=store,
            gateway=gateway,
            clock=clock,
            physics=physics(feeder, market, place.base),
            settler=settler,
            progress=lambda _: None,
            solver=solver,
            lease=lease,
            registered=registered,
        )


def physics(feeder: Feeder, market: MarketSection, base: Path) -> Physics:
    """The feeder, with forecasts by its profiles for those without an order."""
    profiles = year_profiles(market.feeder, base)
    simulation = market.simulation
    wishes, seed = (simulation.households, simulation.seed) if simulation else (HouseholdSettings(), 0)
    return physics_of(feeder, market.limits, profiles, wishes, seed, 60 * market.minutes, base)


def simulated_world(market: MarketSection, base: Path) -> World:
    assert market.simulation is not None
    settings = Settings(
        name=market.name,
        feeder=market.feeder,
        date=DEFAULT_DATE,
        seed=market.simulation.seed,
        households=market.simulation.households,
        market=DemoMarket(
            tariff=market.tariff,
            limits=market.limits,
            settle_every=market.settle_every,
        ),
    )
    return build_world(settings, base)


def _settings(
    market: MarketSection, first_start: int, treasuries: dict[Role, Treasury], world: World | None
) -> MarketSettings:
    return MarketSettings(
        feeder=market.name,
        feeder_name=market.feeder,
        seed=market.simulation.seed if market.simulation else 0,
        minutes=market.minutes,
        first_interval_start=first_start,
        gate_closure_s=market.gate_closure_s,
        clearing_s=market.clearing_s,
        metering_s=market.metering_s,
        clock_skew_s=market.clock_skew_s,
        dispute_window_s=market.dispute_window_s,
        tariff=market.tariff,
        limits=market.limits,
        settle_every=market.settle_every,
        treasuries=treasuries or _treasuries(market, world),
    )


def _treasuries(market: MarketSection, world: World | None) -> dict[Role, Treasury]:
    return world.market_settings.treasuries if world else treasuries_of(market.treasuries or {})


def _first_start(store: Store, clock: WallClock, market: MarketSection) -> int:
    """When this market's story began; of a new one, the next boundary."""
    with store.reading() as connection:
        entry = input_journal.newest(connection, "market")
    if entry is not None:
        first: int = entry.document()["settings"]["first_interval_start"]
        return first
    seconds = 60 * market.minutes
    return clock.now() // seconds * seconds + seconds


def bus_of(feeder: Feeder) -> dict[str, int]:
    elements = dict(zip(feeder.element.tolist(), feeder.element_bus.tolist(), strict=True))
    return elements | {f"bus:{bus}": bus for bus in elements.values()}


def _on_a_node(place: Place, store: Store) -> tuple[Domain, Settler, Registered]:
    chosen = place.market.chain
    assert chosen is not None
    deployment = Deployment.read(place.base / chosen.deployment)
    key: Signer = read_key(place.base / chosen.settler_key)
    salt = read_salt(place.base / chosen.registry_salt) if chosen.registry_salt else None

    @cache
    def opened() -> tuple[ContractSettler, RegisteredMeters]:
        chain = RpcChain(chosen.rpc)
        contracts = MarketContracts(chain, deployment)
        sender = Sender(chain, key, StoreJournal(store), Patience(confirmations=chosen.confirmations or None))
        meters = RegisteredMeters(chain, deployment.registry, deployment.first_block, sender.final_block)
        return ContractSettler(contracts, sender, place.market.name, None), meters

    domain = Domain(deployment.chain_id, deployment.registry)
    return domain, LateSettler(lambda: opened()[0]), Registered(lambda: opened()[1].look(), salt)


def _fleet(
    place: Place, world: World, settings: MarketSettings, domain: Domain, host: str, port: int
) -> FleetConfig:
    return FleetConfig(
        host=host,
        port=port,
        feeder=settings.feeder,
        feeder_name=settings.feeder_name,
        market=world.market.address,
        chain_id=domain.chain_id,
        registry=domain.verifying_contract,
        seed=settings.seed,
        first_interval_start=settings.first_interval_start,
        minutes=settings.minutes,
        household=world.settings.households,
        database=str(place.folder / "meters.sqlite"),
        award_patience_s=5.0,
    )
