"""A market with its parts: an interval's steps, and the messages, money and collateral that go with them.

When each is done is the business of :class:`market.service.waves.SimulatedMarket` and
:class:`market.service.live.LiveMarket`. All is written so that doing it again after a crash finds what is
done and goes on from there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from eth_hash.auto import keccak

from grid.errors import InputError, PowerFlowError, SolverError
from market.messages.models import Gate, GateState
from market.messages.signing import Domain, Signer
from market.service.clock import Clock
from market.service.collateral import Collateral, Room
from market.service.gateway import Gateway
from market.service.ports import BehindError, ChainBooks, Physics, Progress, Settler, Stage, Standing
from market.service.settings import MarketSettings, Member
from market.service.steps import Draft, RoundsCounted, Solved, Steps
from market.service.store import Store, chain_books, intervals, money, outbox
from market.service.store.money import StoredBatch


class Engine:
    """One market on one feeder.

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
        clock: Clock,
        physics: Physics,
        settler: Settler,
        progress: Callable[[Progress], None],
    ) -> None:
        self._settings = settings
        self._members = gateway.members
        self._store = store
        self._gateway = gateway
        self._clock = clock
        self._settler = settler
        self._steps = Steps(
            settings=settings,
            members=gateway.members,
            signer=signer,
            domain=domain,
            store=store,
            physics=physics,
            leaf_secret=leaf_secret(signer),
        )
        self._settling = self._steps.settling
        self._collateral = Collateral(settings, gateway.members, store, gateway.cover)
        self._progress = progress
        self._standing = self._first_standing()
        self._books: ChainBooks | None = None
        self._steps.instructing.joining.objection = self._objection
        self._steps.begin(clock.now())

    def _objection(self, member: Member, former: str) -> str:
        """What the chain has against a member as it is to be; ``former`` was its wallet where it changes."""
        if former and self._standing.wallet(former) != self._standing.wallet(member.owner):
            return f"on the chain {former} has not handed over to {member.owner}, as far as it is final"
        return ""

    def _first_standing(self) -> Standing:
        return self._settler.standing()

    # Gates

    def _gate_times(self, start: int) -> tuple[int, int]:
        return start - self._settings.seconds, start - self._settings.gate_closure_s

    def _state(self, start: int) -> str | None:
        with self._store.reading() as connection:
            return intervals.state_of(connection, start)

    @property
    def _gate_topic(self) -> str:
        return f"peergrid/v1/{self._settings.feeder}/gate"

    def _open(self, start: int) -> None:
        """Opens a gate with the collateral that stands now."""
        opens_at, closes_at = self._gate_times(start)
        self._collateral.renew(opens_at, self._standing)
        tariff = self._steps.tariff(start)
        self._steps.open(start, opens_at, closes_at, tariff)
        self._gateway.intake.open_gate(start, closes_at, tariff)

    def _close(self, start: int, at: int) -> None:
        self._gateway.intake.close_gate(start)
        self._steps.close(start, at)

    def _announce(self, start: int, state: GateState) -> None:
        """Told once the outbox is published."""
        opens_at, closes_at = self._gate_times(start)
        gate = Gate(
            feeder=self._settings.feeder,
            interval_start=start,
            minutes=self._settings.minutes,
            opens_at=opens_at,
            closes_at=closes_at,
            tariff=self._steps.tariff(start),
            state=state,
        )
        with self._store.transaction() as tx:
            outbox.put(tx, self._gate_topic, gate.model_dump_json(), retain=True)
        self._gateway.tally.gates += 1

    # Clearing

    async def _clear(self, start: int) -> None:
        draft = self._steps.draft(start)
        with self._stage("clear", start):
            if draft.problem:
                solved = self._steps.suspended(draft, draft.problem)
            else:
                solved = await asyncio.to_thread(self._solved, draft)
        comparison = None
        if not solved.problem:
            with self._stage("compare", start):
                comparison = await asyncio.to_thread(
                    self._steps.networks.of(draft.book).without_network, draft.book
                )
        with self._stage("store", start):
            awards = self._steps.publish(draft, solved, comparison, self._clock.now())
        self._collateral.hold_awards(start, solved.record, draft.orders, draft.book.tariff)
        self._gateway.tally.clearings += 1
        self._gateway.tally.awards += awards

    def _solved(self, draft: Draft) -> Solved:
        """The clearing, or why there is none: then the interval is suspended (rule 11)."""
        deadline = RoundsCounted(self._deadline(draft.start))
        try:
            return Solved(
                self._steps.networks.of(draft.book).clear(draft.book, deadline), rounds=deadline.rounds
            )
        except (SolverError, PowerFlowError) as error:
            return self._steps.suspended(draft, str(error))

    def _deadline(self, start: int) -> Callable[[], bool]:
        raise NotImplementedError

    # Money

    async def _settle(self, start: int) -> Mapping[int, InputError]:
        """Returns the intervals that wait for their network; whoever ordered in them stays liable."""
        with self._stage("settle", start):
            late_from = self._gateway.intake.readings.take_late()
            waiting = await asyncio.to_thread(
                self._settling.settle, start, self._clock.now(), self._room(), late_from=late_from
            )
        if start not in waiting:
            self._gateway.cover.release(start)
        return waiting

    def _final_at(self, batch: StoredBatch) -> int:
        """What the market's clock shows when a batch that was just sent is final."""
        return self._clock.now()

    def _room(self) -> Room:
        """What accounts cover beside their orders."""
        return self._collateral.room(self._clock.now(), self._standing)

    async def _send_batches(self, start: int) -> None:
        """Puts batches on the chain that are not final, or not any more, in order."""
        began = time.monotonic()
        await asyncio.to_thread(self._steps.batches.reopen_lost, self._settler, self._clock.now())
        await self._compare()
        with self._store.reading() as connection:
            batches = money.pending_batches(connection)
        for batch in batches:
            sent = await asyncio.to_thread(
                self._settler.settle, batch.sequence, batch.root, batch.positions, batch.made_at
            )
            self._steps.finish(batch.sequence, sent, self._final_at(batch))
            self._gateway.tally.transactions += 1
            self._gateway.tally.gas += sent.gas
        if batches or self._books is None:
            await self._keep_books()
        if batches:
            self._tell_stage("chain", start, time.monotonic() - began)

    async def _compare(self) -> None:
        """Raises :class:`BehindError` where the chain has batches that this database lacks."""
        first = self._first_unsent()
        ahead = await asyncio.to_thread(self._settler.ahead, first)
        # Meanwhile they may have been taken in.
        if ahead and self._first_unsent() == first:
            raise BehindError(ahead)

    def _first_unsent(self) -> int:
        with self._store.reading() as connection:
            return money.first_unsent(connection)

    async def _keep_books(self) -> None:
        """What the contracts hold now, for those who have only the store."""
        books = await asyncio.to_thread(self._settler.books)
        with self._store.transaction() as tx:
            chain_books.keep(tx, self._clock.now(), books)
        self._books = books

    # Progress

    @contextmanager
    def _stage(self, stage: Stage, start: int) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._tell_stage(stage, start, time.monotonic() - began)

    def _tell_stage(self, stage: Stage, start: int, seconds: float) -> None:
        total = self._gateway.tally.seconds
        total[stage] = total.get(stage, 0.0) + seconds
        index = (start - self._settings.first_interval_start) // self._settings.seconds
        self._progress(Progress(index, start, stage, seconds))


def leaf_secret(signer: Signer) -> bytes:
    """What only the market can make from its key, the same each time."""
    return keccak(bytes.fromhex(signer.sign_digest(keccak(b"Peergrid leaf salts"))[2:]))
