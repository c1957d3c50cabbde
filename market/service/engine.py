"""The interval state machine: the waves of a market on a clock that is passed in.

Wave j opens the gate of interval j, waits for orders and for the readings that end interval j − 2, closes
the gate, settles j − 2 on metered energy, clears j and tells everybody. All that a wave does is written so
that doing it again after a crash finds what is done and goes on from there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from eth_hash.auto import keccak

from grid.errors import PowerFlowError, SolverError
from market.auction.book import Book
from market.auction.record import ClearingRecord, suspended_record
from market.messages.models import Gate, GateState
from market.messages.signing import Domain, Signer
from market.service import orderbook
from market.service.clock import SimulatedClock
from market.service.gateway import Gateway
from market.service.parse import topic_of
from market.service.ports import Physics, Progress, Settler, Stage, Tally
from market.service.settings import MarketSettings
from market.service.settling import Settling, hold_awards
from market.service.store import Store, inputs, intervals, money, outbox

_PATIENCE_WITH_THE_SLOW = 0.1


class Engine:
    """One market on one feeder. ``await engine.run()`` finishes what the database says is not finished.

    ``store`` was opened with ``settings.identity()`` and ``gateway`` is connected, with the same settings
    and members. ``progress`` is called in the event loop after every stage.
    """

    def __init__(
        self,
        *,
        settings: MarketSettings,
        signer: Signer,
        domain: Domain,
        store: Store,
        gateway: Gateway,
        clock: SimulatedClock,
        physics: Physics,
        settler: Settler,
        progress: Callable[[Progress], None],
    ) -> None:
        self._settings = settings
        self._members = gateway.members
        self._signer = signer
        self._domain = domain
        self._store = store
        self._gateway = gateway
        self._clock = clock
        self._physics = physics
        self._settler = settler
        self._settling = Settling(settings, self._members, store, physics, _leaf_secret(signer))
        self._progress = progress
        self._index = 0
        self._unheard: set[str] = set()
        self._chain_task: asyncio.Task[None] | None = None
        self._equity_ueur = settler.equity()
        with store.transaction() as tx:
            inputs.register(tx, settings, list(self._members.values()))

    async def run(self) -> Tally:
        """Runs all intervals to the end and reconciles ledger and chain.

        Raises :class:`LedgerError`, :class:`ChainError`, :class:`StoreError` or :class:`BrokerError`: run
        it again on the same database once the cause is gone.
        """
        self._restore()
        self._gateway.listen()
        await self._gateway.publish_outbox()
        try:
            await self._send_batches()
            for index in range(self._settings.intervals):
                await self._wave(index)
            for index in range(self._settings.intervals, self._settings.intervals + 2):
                await self._announce_end(index)
            await self._finish()
        finally:
            if self._chain_task is not None:
                # A thread cannot be stopped: what it signed is in the journal, wait until it has let go.
                await asyncio.gather(self._chain_task, return_exceptions=True)
        return self._gateway.tally

    def _restore(self) -> None:
        """The gate that a former process left open, and the collateral that it held."""
        self._settling.restore(self._gateway.cover)
        with self._store.reading() as connection:
            stored = intervals.intervals(connection)
        for start, interval in stored.items():
            if interval.state == "OPEN":
                self._clock.advance_to(interval.opens_at)
                self._settling.renew(self._gateway.cover, interval.opens_at, self._equity_ueur)
                self._gateway.intake.open_gate(start, interval.closes_at)

    # A wave

    async def _wave(self, index: int) -> None:
        self._index = index
        start = self._settings.start_of(index)
        opens_at, closes_at = self._gate_times(start)
        state = self._state(start)
        if state in (None, "OPEN"):
            self._clock.advance_to(opens_at)
            if state is None:
                self._settling.renew(self._gateway.cover, opens_at, self._equity_ueur)
                with self._store.transaction() as tx:
                    intervals.open_interval(
                        tx,
                        interval_start=start,
                        minutes=self._settings.minutes,
                        opens_at=opens_at,
                        closes_at=closes_at,
                        tariff=self._settings.tariff,
                    )
                self._gateway.intake.open_gate(start, closes_at)
            with self._stage("gate"):
                await self._announce(start, "OPEN")
                await self._hear_all(start, opens_at)
            self._clock.advance_to(closes_at)
            self._gateway.intake.close_gate(start)
            with self._store.transaction() as tx:
                intervals.advance(tx, start, "CLOSED", closes_at)
            await self._announce(start, "CLOSED")
        else:
            self._clock.advance_to(closes_at)
        await self._chain_idle()
        # The next gate's collateral: what accounts withdraw stays liable for longer than that takes.
        self._equity_ueur = await asyncio.to_thread(self._settler.equity)
        if index >= 2:
            await self._settle(self._settings.start_of(index - 2))
        if self._state(start) == "CLOSED":
            await self._clear(start)
        with self._stage("publish"):
            await self._gateway.publish_outbox()
        self._chain_task = asyncio.create_task(self._send_batches(), name="chain")

    async def _announce_end(self, index: int) -> None:
        """After the last interval: a gate that never opens, so that the meters read their registers once
        more.
        """
        self._index = index
        start = self._settings.start_of(index)
        opens_at, _ = self._gate_times(start)
        last = self._settings.start_of(index - 2)
        self._clock.advance_to(opens_at)
        self._gateway.intake.readings.watch_boundary(opens_at)
        with self._stage("gate"):
            await self._announce(start, "CLOSED")
            await self._wait(lambda: self._gateway.intake.readings.unread(opens_at))
        await self._chain_idle()
        if last >= self._settings.first_interval_start:
            await self._settle(last)

    async def _finish(self) -> None:
        await self._chain_idle()
        await asyncio.to_thread(self._settling.close_books, self._clock.now())
        await self._send_batches()
        with self._stage("chain"):
            await asyncio.to_thread(self._settling.reconcile, self._settler)

    def _gate_times(self, start: int) -> tuple[int, int]:
        return start - self._settings.seconds, start - self._settings.gate_closure_s

    def _state(self, start: int) -> str | None:
        with self._store.reading() as connection:
            return intervals.state_of(connection, start)

    async def _announce(self, start: int, state: GateState) -> None:
        opens_at, closes_at = self._gate_times(start)
        gate = Gate(
            feeder=self._settings.feeder,
            interval_start=start,
            minutes=self._settings.minutes,
            opens_at=opens_at,
            closes_at=closes_at,
            tariff=self._settings.tariff,
            state=state,
        )
        with self._store.transaction() as tx:
            outbox.put(tx, f"peergrid/v1/{gate.feeder}/gate", gate.model_dump_json(), retain=True)
        await self._gateway.publish_outbox()
        self._gateway.tally.gates += 1

    async def _hear_all(self, start: int, boundary: int) -> None:
        """Waits for every meter's order and reading."""
        intake = self._gateway.intake
        intake.readings.watch_boundary(boundary)
        await self._wait(lambda: intake.silent(start) | intake.readings.unread(boundary))

    async def _wait(self, missing: Callable[[], set[str]]) -> None:
        """Waits until nobody is missing, or patience ends: sooner with those who let the last wave wait."""
        began = time.monotonic()
        while absent := missing():
            known_to_be_slow = absent <= self._unheard
            patience_s = self._settings.patience_s * (_PATIENCE_WITH_THE_SLOW if known_to_be_slow else 1)
            remaining_s = began + patience_s - time.monotonic()
            if remaining_s <= 0:
                break
            await self._gateway.news(remaining_s)
        self._unheard = missing()

    # Clearing

    async def _clear(self, start: int) -> None:
        with self._store.reading() as connection:
            stored = inputs.live_orders(connection, start)
        orders = {meter: live.order for meter, live in stored.items()}
        points = frozenset(self._members[meter].connection_point for meter in orders)
        outsiders = self._physics.outsiders(start, points)
        book = orderbook.build_book(self._settings, start, orders, self._members, outsiders)
        with self._stage("clear"):
            record = await asyncio.to_thread(self._cleared, book)
        with self._stage("compare"):
            comparison = await asyncio.to_thread(self._physics.without_network, book)
        with self._stage("store"):
            sign = partial(self._signer.sign, self._domain)
            awards = [
                (sign(award), net_wh)
                for award, net_wh in orderbook.awards(self._settings, start, record, orders, self._members)
            ]
            public = sign(orderbook.public_clearing(self._settings, start, record))
            feeder = self._settings.feeder
            messages = [
                (topic_of(feeder, award.meter, "award"), award.model_dump_json()) for award, _ in awards
            ]
            messages.append((f"peergrid/v1/{feeder}/clearing", public.model_dump_json()))
            with self._store.transaction() as tx:
                intervals.add_clearing(tx, start, book, record, public.root, comparison)
                intervals.add_awards(tx, awards)
                outbox.put_all(tx, messages)
                state = record.status.upper()
                intervals.advance(tx, start, state, self._clock.now(), record.reason or "")
        hold_awards(self._gateway.cover, self._settings, self._members, start, record, orders)
        self._gateway.tally.clearings += 1
        self._gateway.tally.awards += len(awards)

    def _cleared(self, book: Book) -> ClearingRecord:
        """The clearing, or why there is none: then the interval is suspended (rule 11)."""
        try:
            return self._physics.clear(book)
        except (SolverError, PowerFlowError) as error:
            return suspended_record(self._settings.feeder_name, book.interval, str(error))

    # Money

    async def _settle(self, start: int) -> None:
        with self._stage("settle"):
            late = self._gateway.intake.readings.take_late()
            await asyncio.to_thread(self._settling.settle, start, self._clock.now(), late=late)
        self._gateway.cover.release(start)

    async def _send_batches(self) -> None:
        """Puts batches on the chain that are not final, in order."""
        began = time.monotonic()
        with self._store.reading() as connection:
            batches = money.pending_batches(connection)
        for batch in batches:
            sent = await asyncio.to_thread(
                self._settler.settle, batch.sequence, batch.root, batch.positions, batch.made_at
            )
            with self._store.transaction() as tx:
                money.finish_batch(
                    tx, batch.sequence, tx_hash=sent.tx_hash, gas=sent.gas, at=self._clock.now()
                )
            self._gateway.tally.transactions += 1
            self._gateway.tally.gas += sent.gas
        if batches:
            self._tell_stage("chain", time.monotonic() - began)

    async def _chain_idle(self) -> None:
        """Until batches made in earlier waves are final; raises what went wrong with them."""
        if self._chain_task is not None:
            task, self._chain_task = self._chain_task, None
            await task

    # Progress

    @contextmanager
    def _stage(self, stage: Stage) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._tell_stage(stage, time.monotonic() - began)

    def _tell_stage(self, stage: Stage, seconds: float) -> None:
        total = self._gateway.tally.seconds
        total[stage] = total.get(stage, 0.0) + seconds
        start = self._settings.start_of(self._index)
        self._progress(Progress(self._index, start, stage, seconds))


def _leaf_secret(signer: Signer) -> bytes:
    """What only the market can make from its key, the same each time."""
    return keccak(bytes.fromhex(signer.sign_digest(keccak(b"Peergrid leaf salts"))[2:]))
