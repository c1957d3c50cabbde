"""A small market of four households on a real feeder, broker and chain, for tests of the service.

``python -m tests.service.scene FOLDER PORT INTERVALS`` runs its market process, to be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eth_hash.auto import keccak

from contracts.chain import Chain
from contracts.deployment import EscrowTerms, deploy
from contracts.embedded import EMBEDDED_CHAIN_ID, EmbeddedChain
from contracts.market_contracts import MarketContracts
from contracts.sender import Sender
from grid.catalogue import open_feeder
from grid.errors import BrokerError
from market.auction.book import Book, Firm
from market.auction.clearing import clear_book
from market.auction.record import ClearingRecord
from market.messages.models import Gate, Order, Reading, Receipt, ReceiptKind, Side, Step, Tariff
from market.messages.signing import UNSIGNED, Domain, Signer, feeder_hash
from market.service.clock import Clock, SimulatedClock, WallClock
from market.service.gateway import Gateway
from market.service.lease_holder import LeaseHolder
from market.service.live import LiveMarket
from market.service.ports import Clear, Physics, Progress, Settler, never
from market.service.registered import Registered
from market.service.settings import MarketSettings, Member, Treasury
from market.service.settler import ContractSettler
from market.service.solver import SolverProcess
from market.service.store import Store
from market.service.store.database import BUSY_S
from market.service.store.journal import StoreJournal
from market.service.waves import SimulatedMarket
from meters.broker import HOST, Broker
from meters.mqtt import Inbox, Message, Session, Tls

FEEDER = "pandapower:panda_four_load_branch"
FEEDER_ID = "four-loads"
START = 1_465_948_800  # 2016-06-15T00:00Z
SECONDS = 900
TARIFF = Tariff(import_price=300_000, export_price=80_000, floor=-500_000, cap=2_000_000, local_fee=20_000)
DOMAIN = Domain(EMBEDDED_CHAIN_ID, "0x" + "11" * 20)


def secret(role: str) -> bytes:
    return keccak(b"test of the service" + role.encode())


def signer(role: str) -> Signer:
    return Signer(secret(role))


METERS = [signer(f"meter:load:{index}") for index in range(4)]
MARKET = signer("market")
MEMBERS = [
    Member(
        meter=meter.address,
        owner=signer(f"owner:load:{index}").address,
        connection_point=f"load:{index}",
        bus=2 + index,
        deposit_ueur=100_000_000,
        fuse_w=20_000,
    )
    for index, meter in enumerate(METERS)
]


DEPOSITS = {member.owner: member.deposit_ueur for member in MEMBERS}


def settings(intervals: int | None, **changes: Any) -> MarketSettings:
    roles = ("retailer", "network", "imbalance", "rounding")
    document: dict[str, Any] = {
        "feeder": FEEDER_ID,
        "feeder_name": FEEDER,
        "seed": 1,
        "first_interval_start": START,
        "intervals": intervals,
        "tariff": TARIFF,
        "settle_every": "interval",
        "patience_s": 60.0,
        "treasuries": {
            role: Treasury(address=signer(role).address, deposit_ueur=1_000_000_000) for role in roles
        },
    }
    return MarketSettings(**{**document, **changes})


def physics() -> Physics:
    feeder = open_feeder(FEEDER)

    def without_network(book: Book) -> dict[str, Any]:
        return {"ac": clear_book(book, feeder, network=False).ac.model_dump(mode="json")}

    def clear(book: Book, out_of_time: Callable[[], bool] = never) -> ClearingRecord:
        return clear_book(book, feeder, out_of_time=out_of_time)

    def outsiders(interval_start: int, with_orders: frozenset[str]) -> list[Firm]:
        silent = [m for m in MEMBERS if m.connection_point not in with_orders]
        flows = [Firm(connection_point=m.connection_point, p_w=-333.3) for m in silent]
        return [*flows, Firm(connection_point="bus:5", p_w=-1000.0, q_var=-200.0)]

    return Physics(
        clear=clear,
        without_network=without_network,
        check=lambda flows: {"injected_w": sum(flow.p_w for flow in flows)},
        outsiders=outsiders,
        bus_of=lambda point: (
            int(feeder.element_bus[list(feeder.element).index(point)])
            if point.startswith("load:")
            else int(point.removeprefix("bus:"))
        ),
    )


def settler_on(
    chain: Chain,
    store: Store,
    of: MarketSettings,
    block_clock: SimulatedClock,
    gift_ueur: Mapping[str, int],
    withdrawal_delay_s: int,
) -> ContractSettler:
    journal = StoreJournal(store)
    operator = Sender(chain, signer("deployer"), journal)
    terms = EscrowTerms(
        name="Peergrid test",
        symbol="PGT",
        withdrawal_delay_s=withdrawal_delay_s,
        position_debit_max=10**9,
        window_debit_max=10**12,
        guarantee_max=10**9,
        window_s=86400,
    )
    deployment = deploy(chain, operator, journal, terms, signer("settler").address)
    contracts = MarketContracts(chain, deployment)
    deposits = {m.owner: m.deposit_ueur for m in MEMBERS}
    deposits |= {t.address: t.deposit_ueur for t in of.treasuries.values()}
    contracts.fund(operator, "fund", deposits)
    sender = Sender(chain, signer("settler"), journal)
    if gift_ueur:
        contracts.settle(sender, feeder_hash("another market"), 0, bytes(32), gift_ueur)
    return ContractSettler(contracts, sender, of.feeder, block_clock)


def gateway_on(port: int, of: MarketSettings, store: Store, clock: Clock, tls: Tls | None = None) -> Gateway:
    """The market's end of the broker on this port."""
    return Gateway(
        settings=of,
        members=MEMBERS,
        signer=MARKET,
        domain=DOMAIN,
        store=store,
        clock=clock,
        host=HOST,
        port=port,
        tls=tls,
    )


@asynccontextmanager
async def market(
    folder: Path,
    port: int,
    of: MarketSettings,
    progress: Callable[[Progress], None] = lambda _: None,
    clear: Clear | None = None,
    gift_ueur: Mapping[str, int] | None = None,
    withdrawal_delay_s: int = 86_400,
    database: str | None = None,
    parts: Physics | None = None,
) -> AsyncIterator[SimulatedMarket]:
    """A market whose state is in ``folder``, or in ``database``, a URL."""
    clock, block_clock = SimulatedClock(START - SECONDS), SimulatedClock(START - SECONDS)
    with Store(database or folder / "market.sqlite", of.identity()) as store:
        funded = [signer("deployer").address, signer("settler").address, *DEPOSITS]
        chain = EmbeddedChain(folder / "chain.sqlite", block_clock.now, funded)
        try:
            settler = settler_on(chain, store, of, block_clock, gift_ueur or {}, withdrawal_delay_s)
            async with gateway_on(port, of, store, clock) as gateway:
                yield SimulatedMarket(
                    settings=of,
                    signer=MARKET,
                    domain=DOMAIN,
                    store=store,
                    gateway=gateway,
                    clock=clock,
                    physics=replace(parts or physics(), clear=clear) if clear else parts or physics(),
                    settler=settler,
                    progress=progress,
                )
        finally:
            chain.close()


@contextmanager
def own_chain(folder: Path, store: Store, of: MarketSettings) -> Iterator[Settler]:
    block_clock = SimulatedClock(START - SECONDS)
    funded = [signer("deployer").address, signer("settler").address, *DEPOSITS]
    chain = EmbeddedChain(folder / "chain.sqlite", block_clock.now, funded)
    try:
        yield settler_on(chain, store, of, block_clock, {}, 86_400)
    finally:
        chain.close()


@asynccontextmanager
async def live_market(
    folder: Path,
    port: int,
    of: MarketSettings,
    clock: WallClock,
    solver: SolverProcess,
    settler: Callable[[Path, Store, MarketSettings], AbstractContextManager[Settler]] = own_chain,
    seen: Physics | None = None,
    registered: Registered | None = None,
    busy_s: float = BUSY_S,
) -> AsyncIterator[LiveMarket]:
    """The same on the wall clock."""
    async with AsyncExitStack() as parts:
        store = parts.enter_context(Store(folder / "market.sqlite", of.identity(), busy_s=busy_s))
        lease = LeaseHolder(store, 3.0)
        assert await lease.acquire(asyncio.Event())
        await parts.enter_async_context(lease)
        chain = parts.enter_context(settler(folder, store, of))
        gateway = gateway_on(port, of, store, clock)
        gateway.start()
        parts.push_async_exit(gateway)
        yield await asyncio.to_thread(
            LiveMarket,
            settings=of,
            signer=MARKET,
            domain=DOMAIN,
            store=store,
            gateway=gateway,
            clock=clock,
            physics=seen or physics(),
            settler=chain,
            progress=lambda _: None,
            solver=solver,
            lease=lease,
            registered=registered,
        )


def order_of(index: int, interval_start: int, version: int = 0) -> Order:
    """The first two households buy, the others sell; what they want follows from the interval alone, and
    comes again every 96 intervals.
    """
    meter, number = METERS[index], (interval_start - START) // SECONDS % 96
    if index < 2:
        firm = {"firm_import_wh": 200 + 10 * number, "firm_q_var": -100}
        steps = (Step(side=Side.BID, energy_wh=400 + 7 * index, limit_price=250_000 + 1_000 * number),)
    else:
        firm = {"firm_export_wh": 50 * (index - 2)}
        steps = (
            Step(side=Side.ASK, energy_wh=300, limit_price=60_000 + 10_000 * index),
            Step(side=Side.ASK, energy_wh=100, limit_price=200_000),
        )
    order = Order(
        meter=meter.address,
        feeder=FEEDER_ID,
        interval_start=interval_start,
        version=version,
        steps=steps,
        sig=UNSIGNED,
        **firm,
    )
    return meter.sign(DOMAIN, order)


def reading_of(index: int, taken_at: int, seq: int | None = None, more_wh: int = 0) -> Reading:
    """Registers that run on steadily, with 11 Wh more each interval for 96 of them; ``seq`` counts intervals
    where it is not told.
    """
    count = (taken_at - START) // SECONDS + 2
    rounds, rest = divmod(count, 96)
    energy_wh = (rounds * 4560 + rest * (rest + 1) // 2) * 11 + 450 * count + more_wh
    reading = Reading(
        meter=METERS[index].address,
        epoch=0,
        seq=count - 1 if seq is None else seq,
        taken_at=taken_at,
        import_wh=energy_wh if index < 2 else 0,
        export_wh=energy_wh if index >= 2 else 0,
        power_w=0,
        sig=UNSIGNED,
    )
    return METERS[index].sign(DOMAIN, reading)


@dataclass
class Meters:
    """All the households' meters on one connection. They send again what has no receipt at every gate."""

    port: int
    silent: set[int] = field(default_factory=set)
    receipts: list[Receipt] = field(default_factory=list)
    topics: list[str] = field(default_factory=list)
    payloads: dict[str, list[bytes]] = field(default_factory=dict)
    on_open: Callable[[int, Gate], Sequence[Message]] | None = None
    withheld: Callable[[Reading], bool] = lambda _: False
    _unconfirmed: dict[tuple[str, int, int], Message] = field(default_factory=dict)
    _taken_at: int = START - 2 * SECONDS
    _ordered: int = 0

    async def run(self) -> None:
        inbox = Inbox()
        topics = [f"peergrid/v1/{FEEDER_ID}/+/{kind}" for kind in ("receipt", "award")]
        topics += [f"peergrid/v1/{FEEDER_ID}/{kind}" for kind in ("gate", "clearing")]
        async with Session(HOST, self.port, "meters", inbox, subscriptions=topics, timeout_s=60) as session:
            while True:
                batch = await inbox.batch()
                for incoming in batch:
                    self._hear(incoming.topic, incoming.payload)
                    if incoming.topic.endswith("/gate"):
                        # Without a broker nothing goes out; the gate comes again with the next one.
                        with contextlib.suppress(BrokerError):
                            await session.publish(*self._unconfirmed.values(), *self._extra(incoming.payload))
                inbox.done(batch)

    @property
    def all_is_receipted(self) -> bool:
        return not self._unconfirmed

    def _extra(self, payload: bytes) -> Sequence[Message]:
        gate = Gate.model_validate_json(payload)
        if self.on_open is None or gate.state != "OPEN":
            return ()
        return self.on_open((gate.interval_start - START) // SECONDS, gate)

    def _hear(self, topic: str, payload: bytes) -> None:
        self.topics.append(topic)
        self.payloads.setdefault(topic.rsplit("/", 1)[1], []).append(payload)
        if topic.endswith("/receipt"):
            receipt = Receipt.model_validate_json(payload)
            self.receipts.append(receipt)
            for kind, meter, number in [(k[2], k[0], k[1]) for k in self._unconfirmed]:
                exact = kind == ReceiptKind.ORDER
                covered = number == receipt.up_to if exact else number <= receipt.up_to
                if (kind, meter) == (receipt.kind, receipt.meter) and covered:
                    del self._unconfirmed[meter, number, kind]
        elif topic.endswith("/gate"):
            self._open(Gate.model_validate_json(payload))

    def _open(self, gate: Gate) -> None:
        while self._taken_at + SECONDS <= gate.opens_at:
            self._taken_at += SECONDS
            for index, meter in enumerate(METERS):
                if index not in self.silent:
                    reading = reading_of(index, self._taken_at)
                    if not self.withheld(reading):
                        self._keep(meter.address, reading.seq, ReceiptKind.READING, reading)
        if gate.state == "OPEN" and gate.interval_start > self._ordered:
            self._ordered = gate.interval_start
            version = (gate.interval_start - START) // SECONDS
            for index, meter in enumerate(METERS):
                if index not in self.silent:
                    order = order_of(index, gate.interval_start, version)
                    self._keep(meter.address, version, ReceiptKind.ORDER, order)

    def _keep(self, meter: str, number: int, kind: ReceiptKind, message: Order | Reading) -> None:
        self._unconfirmed[meter, number, kind] = self.message(message)

    @staticmethod
    def message(message: Order | Reading) -> Message:
        name = "order" if isinstance(message, Order) else "reading"
        topic = f"peergrid/v1/{FEEDER_ID}/{message.meter}/{name}"
        return Message(topic, message.model_dump_json().encode())


@asynccontextmanager
async def alongside(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """It runs for as long as the block; where it fails, the block ends at once with its error."""
    try:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(work)
            yield task
            task.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


@asynccontextmanager
async def living_meters(port: int, **of_meters: Any) -> AsyncIterator[Meters]:
    meters = Meters(port, **of_meters)
    async with alongside(meters.run()):
        yield meters


async def a_day(
    folder: Path,
    of: MarketSettings,
    progress: Callable[[Progress], None] = lambda _: None,
    meters: Callable[[int], Meters] = Meters,
    **of_market: Any,
) -> Meters:
    """A market and its meters on a broker of their own, from the first interval to the last."""
    async with Broker() as broker:
        living = meters(broker.port)
        async with alongside(living.run()), market(folder, broker.port, of, progress, **of_market) as running:
            await running.run()
    return living


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "market.sqlite")) as connection:
        return connection.execute(query).fetchall()


def state_of(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All that must be the same however often a market was killed."""
    tables = {
        "interval": "SELECT interval_start, state, incomplete FROM interval",
        "orders": "SELECT interval_start, meter, version, digest FROM orders",
        "clearing": "SELECT interval_start, status, root, book, record, delivered FROM clearing",
        "award": "SELECT interval_start, meter, net_wh, amount_neur, body FROM award",
        "posting": "SELECT interval_start, account, kind, SUM(amount_neur), SUM(energy_wh) FROM posting"
        " GROUP BY 1, 2, 3",
        "chain": "SELECT account, SUM(amount_ueur) FROM position GROUP BY 1",
        "batch": "SELECT state, COUNT(tx_hash) FROM batch GROUP BY 1",
        "outbox": "SELECT topic FROM outbox",
    }
    return {name: sorted(rows(folder, query)) for name, query in tables.items()}


async def _main(folder: Path, port: int, intervals: int) -> None:
    def tell(progress: Progress) -> None:
        print(progress.index, progress.stage, flush=True)

    async with market(folder, port, settings(intervals), tell) as engine:
        await engine.run()
    print("DONE", flush=True)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
