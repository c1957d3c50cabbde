"""A market in simulated time: its clock moves on when all have spoken.

Wave j opens the gate of interval j, waits for orders and for the readings that end interval j − 2, closes
the gate, settles j − 2 on metered energy, clears j and tells everybody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from market.messages.models import GateState
from market.service.clock import SimulatedClock
from market.service.engine import Engine
from market.service.ports import Tally, never
from market.service.store import input_journal, intervals
from market.service.store.money import StoredBatch

_PATIENCE_WITH_THE_SLOW = 0.1


class SimulatedMarket(Engine):
    """``await market.run()`` finishes what the database says is not finished; ``clock`` is simulated."""

    _clock: SimulatedClock
    _unheard: frozenset[str] = frozenset()
    _chain_task: asyncio.Task[None] | None = None

    async def run(self) -> Tally:
        """Runs all intervals to the end and reconciles ledger and chain.

        Raises :class:`LedgerError`, :class:`ChainError`, :class:`StoreError` or :class:`BrokerError`: run
        it again on the same database once the cause is gone.
        """
        count = self._settings.intervals
        assert count is not None, "a simulated day ends"
        self._restore()
        self._gateway.listen()
        await self._gateway.publish_outbox()
        try:
            await self._send_batches(self._settings.first_interval_start)
            for index in range(count):
                await self._wave(index)
            for index in range(count, count + 2):
                await self._announce_end(index)
            await self._finish()
        finally:
            if self._chain_task is not None:
                # A thread cannot be stopped: what it signed is in the journal, wait until it has let go.
                await asyncio.gather(self._chain_task, return_exceptions=True)
        return self._gateway.tally

    def _restore(self) -> None:
        """The gate that a former process left open, and the collateral that it held."""
        self._collateral.restore()
        with self._store.reading() as connection:
            stored = intervals.intervals_in(connection, "OPEN")
            self._clock.advance_to(input_journal.last_at(connection) or 0)
        for start, interval in stored.items():
            self._clock.advance_to(interval.opens_at)
            self._collateral.renew(interval.opens_at, self._standing)
            self._gateway.intake.open_gate(start, interval.closes_at, interval.tariff)

    async def _wave(self, index: int) -> None:
        start = self._settings.start_of(index)
        opens_at, closes_at = self._gate_times(start)
        state = self._state(start)
        if state in (None, "OPEN"):
            self._clock.advance_to(opens_at)
            self._steps.instructing.carry_out_waiting(opens_at)
            if state is None:
                self._open(start)
            with self._stage("gate", start):
                await self._say(start, "OPEN")
                await self._hear_all(start, opens_at)
            self._clock.advance_to(closes_at)
            self._close(start, closes_at)
            await self._say(start, "CLOSED")
        else:
            self._clock.advance_to(closes_at)
        await self._chain_idle()
        # The next gate's collateral: what accounts withdraw stays liable for longer than that takes.
        self._standing = await asyncio.to_thread(self._settler.standing)
        if index >= 2:
            await self._settle_now(self._settings.start_of(index - 2))
        if self._state(start) == "CLOSED":
            await self._clear(start)
        with self._stage("publish", start):
            await self._gateway.publish_outbox()
        self._chain_task = asyncio.create_task(self._send_batches(start), name="chain")

    async def _announce_end(self, index: int) -> None:
        """After the last interval: a gate that never opens, so that the meters read their registers once
        more.
        """
        start = self._settings.start_of(index)
        opens_at, _ = self._gate_times(start)
        last = self._settings.start_of(index - 2)
        self._clock.advance_to(opens_at)
        self._steps.reach(opens_at)
        self._gateway.intake.readings.watch_boundary(opens_at)
        with self._stage("gate", start):
            await self._say(start, "CLOSED")
            await self._wait(lambda: self._gateway.intake.readings.unread(opens_at))
        await self._chain_idle()
        if last >= self._settings.first_interval_start:
            await self._settle_now(last)

    async def _say(self, start: int, state: GateState) -> None:
        self._announce(start, state)
        await self._gateway.publish_outbox()

    async def _settle_now(self, start: int) -> None:
        """A day does not end with intervals that wait."""
        for error in (await self._settle(start)).values():
            raise error

    async def _finish(self) -> None:
        await self._chain_idle()
        await asyncio.to_thread(self._settling.close_books, self._clock.now(), self._room())
        end = self._settings.start_of(self._settings.intervals or 0)
        await self._send_batches(end)
        with self._stage("chain", end):
            await asyncio.to_thread(self._steps.batches.reconcile, self._settler)

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
        self._unheard = frozenset(missing())

    async def _chain_idle(self) -> None:
        """Until batches made in earlier waves are final; raises what went wrong with them."""
        if self._chain_task is not None:
            task, self._chain_task = self._chain_task, None
            await task

    def _final_at(self, batch: StoredBatch) -> int:
        # The chain mines a batch at the time it was made, however long that takes in real time.
        return batch.made_at

    def _deadline(self, start: int) -> Callable[[], bool]:
        return never
