"""A market in one process on a virtual clock: the real engine, intake, store, clearing and settlement, with a
network, a disk and a power supply whose faults are drawn from a seed.

Messages are lost, repeated and reordered; writes fail; the process ends after any write and is begun again.
What comes of it must be what comes of a day without faults.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sqlalchemy.exc import OperationalError

from grid.errors import ChainError
from market.auction.book import Book
from market.auction.record import ClearingRecord
from market.messages.models import Gate, Order, Reading, ReceiptResult
from market.messages.signing import message_digest
from market.service.answer import Answer
from market.service.clock import SimulatedClock
from market.service.cover import Cover
from market.service.intake import Intake
from market.service.parse import Heard
from market.service.ports import ChainBooks, OnChain, Physics, Sent, Standing, Tally, never
from market.service.roster import Roster
from market.service.settings import MarketSettings
from market.service.store import Store, database, outbox
from market.service.waves import SimulatedMarket
from tests.service import scene
from tests.service.scene import DEPOSITS, DOMAIN, MARKET, MEMBERS, METERS, SECONDS, START
from tests.sim import virtual_time
from tests.sim.faults import Faults, FaultyStore, PowerCutError, inline_threads

RUNS_MAX = 200
BOOKS_KEPT = 1000
BY_METER = Roster(MEMBERS)


def remembering_physics() -> Physics:
    """Clearing is a pure function, and all seeds have the same few books."""
    physics = scene.physics()

    @lru_cache(BOOKS_KEPT)
    def clear(key: str) -> ClearingRecord:
        return physics.clear(Book.model_validate_json(key))

    @lru_cache(BOOKS_KEPT)
    def without_network(key: str) -> Any:
        return physics.without_network(Book.model_validate_json(key))

    return replace(
        physics,
        clear=lambda book, _=never: clear(book.model_dump_json()),
        without_network=lambda book: without_network(book.model_dump_json()),
    )


PHYSICS = remembering_physics()


class SimulatedChain:
    """Has what was settled, once; it outlives the market's process. Sometimes nobody can reach it, its answer
    is lost, or a reorganisation takes off what was settled last.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self.settled: dict[int, dict[str, int]] = {}
        self._taken_off: dict[int, dict[str, int]] = {}
        self.deposits = dict(DEPOSITS)

    def settle(self, sequence: int, root: bytes, positions: Mapping[str, int], at: int) -> Sent:
        self._may_be_away()
        assert sum(positions.values()) == 0
        for earlier in [taken for taken in self._taken_off if taken < sequence]:
            # Its transaction has an earlier nonce: it is mined again before a later one can be.
            self.settled[earlier] = self._taken_off.pop(earlier)
        assert self.settled.setdefault(sequence, dict(positions)) == positions, "a sequence has one content"
        self._may_be_away()
        return Sent(f"0x{sequence:064x}", 1)

    def _may_be_away(self) -> None:
        if self._faults.happens(self._faults.reorganised):
            for sequence in sorted(self.settled)[-self._faults.random.randint(1, 3) :]:
                self._taken_off[sequence] = self.settled.pop(sequence)
        if self._faults.happens(self._faults.chain_away):
            raise ChainError("the node does not answer")

    def lost(self, batches: Mapping[int, Mapping[str, int]]) -> Sequence[int]:
        self._may_be_away()
        return [sequence for sequence in batches if sequence not in self.settled]

    def ahead(self, first: int) -> Sequence[OnChain]:
        return []

    def standing(self) -> Standing:
        self._may_be_away()
        return Standing(self.deposits, {}, liable_s=86_400)

    def credit_moved(self) -> Mapping[str, int]:
        return self.deposits

    def balances(self, addresses: Sequence[str]) -> Mapping[str, int]:
        moved = [positions for _, positions in sorted(self.settled.items())]
        return {a: self.deposits.get(a, 0) + sum(p.get(a, 0) for p in moved) for a in addresses}

    def total_supply(self) -> int:
        return sum(self.deposits.values())

    def books(self) -> ChainBooks:
        supply = self.total_supply()
        return ChainBooks(len(self.settled), supply, supply, supply, 0, 0, False, {}, {})


class Meters:
    """Four meters; each keeps what it said until the market has answered it."""

    def __init__(self) -> None:
        self.waiting: dict[tuple[str, str, int], Order | Reading] = {}
        self.receipted: set[tuple[str, str, int]] = set()
        self._taken_at = START - 2 * SECONDS
        self._ordered = 0

    def hear(self, gate: Gate) -> None:
        while self._taken_at + SECONDS <= gate.opens_at:
            self._taken_at += SECONDS
            for index in range(len(METERS)):
                reading = scene.reading_of(index, self._taken_at)
                self.waiting[reading.meter, "reading", reading.seq] = reading
        if gate.state == "OPEN" and gate.interval_start > self._ordered:
            self._ordered = gate.interval_start
            for index in range(len(METERS)):
                order = scene.order_of(index, gate.interval_start, (gate.interval_start - START) // SECONDS)
                self.waiting[order.meter, "order", order.version] = order

    def answered(self, answer: Answer) -> None:
        assert answer.result != ReceiptResult.REJECTED, answer
        kind = answer.kind.name.lower()
        for key in list(self.waiting):
            meter, what, number = key
            covered = number == answer.up_to if kind == "order" else number <= answer.up_to
            if (meter, what) == (answer.meter, kind) and covered:
                self.receipted.add(key)
                del self.waiting[key]


class Network:
    """In the place of the gateway: what meters say comes in faultily, what the market says goes out so."""

    def __init__(
        self, of: MarketSettings, store: Store, clock: SimulatedClock, faults: Faults, meters: Meters
    ) -> None:
        self.members = BY_METER
        self.tally = Tally()
        self.cover = Cover(of, BY_METER)
        self.intake = Intake(of, BY_METER, store, clock, self.cover)
        self._store = store
        self._faults = faults
        self._meters = meters

    def listen(self) -> None: ...

    async def publish_outbox(self) -> None:
        with self._store.reading() as connection:
            rows = outbox.waiting(connection)
        for _, topic, text, _ in rows:
            if topic.endswith("/gate"):
                self._meters.hear(Gate.model_validate_json(text))
        if rows:
            with self._store.transaction() as tx:
                outbox.done(tx, rows[-1][0])

    async def news(self, _: float) -> None:
        """A round in which every meter sends again what has no answer."""
        faults = self._faults
        sent = [m for m in self._meters.waiting.values() if not faults.happens(faults.lost)]
        sent += [m for m in sent if faults.happens(faults.repeated)]
        faults.random.shuffle(sent)
        heard = []
        for message in sent:
            payload = message.model_dump_json().encode()
            heard.append(Heard("", payload, message.meter, message, message_digest(DOMAIN, message)))
        for answer in self.intake.take(heard):
            if not faults.happens(faults.lost):
                self._meters.answered(answer)


@contextmanager
def one_engine() -> Iterator[None]:
    """All that is in the same place has the same engine, which compiles each statement once."""
    with patch.object(database, "open_engine", lru_cache(database.open_engine)):
        yield


def simulate(folder: Path, seed: int, intervals: int) -> tuple[int, Meters, SimulatedChain]:
    """Runs a day to its end, however often its process ends; how often that was."""
    faults, meters = Faults(seed), Meters()
    chain = SimulatedChain(faults)
    of = scene.settings(intervals)
    chain.deposits |= {treasury.address: treasury.deposit_ueur for treasury in of.treasuries.values()}
    FaultyStore.faults = faults
    with inline_threads(faults):
        for run in range(RUNS_MAX):
            try:
                virtual_time.run(lambda _: _day(folder, of, faults, meters, chain))
            except (PowerCutError, OperationalError, ChainError):
                continue
            return run, meters, chain
    raise AssertionError(f"seed {seed}: not done after {RUNS_MAX} runs")


async def _day(
    folder: Path, of: MarketSettings, faults: Faults, meters: Meters, chain: SimulatedChain
) -> None:
    clock = SimulatedClock(START - SECONDS)
    with FaultyStore(folder / "market.sqlite", of.identity()) as store:
        await SimulatedMarket(
            settings=of,
            signer=MARKET,
            domain=DOMAIN,
            store=store,
            gateway=Network(of, store, clock, faults, meters),  # type: ignore[arg-type]
            clock=clock,
            physics=PHYSICS,
            settler=chain,
            progress=lambda _: None,
        ).run()


TABLES = {
    "interval": "*",
    "transition": "*",
    "orders": "*",
    "reading": "*",
    "clearing": "*",
    "award": "*",
    "metered": "*",
    "posting": "*",
    "batch": "*",
    "position": "*",
    "outbox": "topic, payload",
    "evidence": "*",
    "journal": "at, kind, subject, body, detail",
}


def rows(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row, but for the order in which messages came."""
    with closing(sqlite3.connect(folder / "market.sqlite")) as connection:
        return {
            table: sorted(connection.execute(f"SELECT {columns} FROM {table}"), key=repr)
            for table, columns in TABLES.items()
        }
