"""A market on the wall clock: each interval goes through its steps when its time has come.

Gates open one interval ahead and close ``gate_closure_s`` before delivery; the clearing has ``clearing_s``
after that, or the interval is suspended; ``metering_s`` after its end, or when all have been read, it is
settled. What was due while no market ran is made up for: a gate that nobody could have used is suspended, and
its energy is settled at the retail tariffs. Chain and broker have tasks of their own: one that is away is
waited for there, and the market goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.exc import DatabaseError

from contracts.chain import ContractRevertError, UnfinalError
from grid.errors import BrokerError, ChainError, SolverError, StoreError
from market.accounts.metering import BOUNDARY_TOLERANCE_S
from market.messages.models import Gate, GateState
from market.service.clock import WallClock, utc
from market.service.engine import Engine
from market.service.lease_holder import LeaseHolder
from market.service.ports import BehindError, OnChain, Standing, never
from market.service.registered import Registered
from market.service.settings import Member
from market.service.settler import refused_because
from market.service.solver import SolverProcess
from market.service.steps import Draft, Solved
from market.service.store import alarms, health, inputs, intervals, outbox
from market.service.store.alarms import AlarmKind

_LOOK_S = 1.0
"""Real seconds between two looks at instructions and clock."""
_HEALTH_S = 5.0
_LAST_WORDS_S = 5.0
"""Real seconds for what is in the outbox when the market is stopped; the rest is told when it runs again."""
_BROKER_PATIENCE_S = 15.0
_CHAIN_LOOK_S = 2.0
_CHAIN_RETRY_MAX_S = 60.0
_NOTED_S = 6 * 3600
"""What the chain says of deposits is journalled at least so often, in market time."""
_NETWORK_RETRY_S = 60
_NEVER = -(2**62)
_MISSED_MAX = 20_000
"""Intervals that are made up for; more were missed only where a clock is wrong."""

_log = logging.getLogger("peergrid.market")


class LiveMarket(Engine):
    """``await market.run(stop)`` until ``stop`` is set; ``clock`` is a :class:`WallClock`."""

    _clock: WallClock
    _blocked = ""
    """Why no gate opens; empty while they do."""
    _behind: Sequence[OnChain] = ()
    """What the chain has and the database lacks; until that is taken in nothing is settled."""
    _chain_trouble = ""
    """What the last attempt to reach the chain ended with; empty when it went well."""
    _stepped_s = 0
    """How far the machine's clock was set away from the market's."""
    _watched = 0
    """The boundary at which it is known who was read."""

    _standing_at = _NEVER
    """When the chain last told how accounts stand."""
    _noted: Standing | None = None
    _noted_at = _NEVER
    """What of that was last journalled, and when."""

    def __init__(
        self,
        *,
        solver: SolverProcess,
        lease: LeaseHolder,
        registered: Registered | None = None,
        **parts: Any,
    ) -> None:
        self._registered = registered
        super().__init__(**parts)
        self._solver = solver
        self._unpublished = asyncio.Event()
        self._unpublished.set()
        self._lease = lease
        self._waits_until: dict[int, int] = {}
        """When intervals that lack their network are tried again."""
        if self._standing != self._noted:
            self._note_standing()

    def _first_standing(self) -> Standing:
        """Without a chain, what it said last."""
        self._noted_at, self._noted = self._steps.noted_standing() or (_NEVER, None)
        try:
            standing, self._standing_at = self._told_standing(), self._clock.now()
        except ChainError as error:
            if self._noted is None:
                raise
            self._standing_at = self._noted_at
            self._chain_trouble = str(error)
            return self._noted
        return standing

    async def run(self, stop: asyncio.Event) -> None:
        """Raises what it cannot go on after: start it again on the same database."""
        self._collateral.restore()
        reopened = self._reopen()
        self._gateway.listen()
        if reopened is not None:
            # The broker may have been begun again as well, and have forgotten the gate.
            self._announce(reopened, "OPEN")
        with contextlib.suppress(ChainError):
            await self._look_at_sequences()
        ended = asyncio.Event()
        chain = asyncio.create_task(self._settle_on_chain(ended), name="chain")
        telling = asyncio.create_task(self._publish_outbox(ended), name="outbox")
        heartbeat = asyncio.create_task(self._note_health(), name="health")
        try:
            while not stop.is_set():
                await self._look()
                await self._rest(chain, telling)
        finally:
            ended.set()
            self._unpublished.set()
            heartbeat.cancel()
            await asyncio.wait({telling}, timeout=0 if self._gateway.trouble else _LAST_WORDS_S)
            telling.cancel()
            # A thread cannot be stopped: what it signed is in the journal, wait until it has let go.
            await asyncio.gather(chain, telling, heartbeat, return_exceptions=True)

    def _reopen(self) -> int | None:
        """The gate that a former process left open stands as it did; its interval."""
        reopened = None
        with self._store.reading() as connection:
            stored = intervals.intervals_in(connection, "OPEN")
        for start, interval in stored.items():
            if self._clock.now() <= interval.closes_at:
                self._collateral.renew(interval.opens_at, self._standing)
                self._gateway.intake.open_gate(start, interval.closes_at, interval.tariff)
                self._watch(interval.opens_at)
                self._tell("gate reopened", start)
                reopened = start
        return reopened

    async def _rest(self, *others: asyncio.Task[None]) -> None:
        """Until the next look; an event of the gateway shows at once what is wrong with it."""
        wait_s = min(_LOOK_S, max(0.01, self._clock.wait_s(self._next_moment())))
        await self._gateway.news(wait_s)
        self._lease.check()
        for other in others:
            if other.done():
                other.result()

    def _next_moment(self) -> float:
        """When a gate opens or closes next; everything else has time."""
        now, seconds = self._clock.exactly(), self._settings.seconds
        boundary = now // seconds * seconds + seconds
        closes_at = boundary - self._settings.gate_closure_s + 1
        return closes_at if closes_at > now else boundary

    # What is due

    async def _look(self) -> None:
        stepped_s = round(self._clock.follow())
        if stepped_s != self._stepped_s:
            self._stepped_s = stepped_s
            words = f"is {stepped_s:+d} s off the market's, which goes on as it was until a restart"
            self._alarm("clock", "clock", words)
        if not self._behind:
            self._carry_out()
        await self._open_gates()
        with self._store.reading() as connection:
            unsettled = intervals.unsettled(connection)
        for start, state in unsettled.items():
            await self._advance(start, state)
        if self._behind:
            # What is taken in closes intervals, which have to be there first.
            self._carry_out()

    def _carry_out(self) -> None:
        """What operators ask. After a recovery all goes on from what is stored then."""
        instructing = self._steps.instructing
        instructing.behind = self._behind
        if instructing.carry_out_waiting(self._clock.now()):
            self._behind, self._blocked = (), ""
            self._gateway.intake.readings.reload()

    async def _open_gates(self) -> None:
        """The gate whose time it is, and those that went by since the last one."""
        now, seconds = self._clock.now(), self._settings.seconds
        with self._store.reading() as connection:
            newest = intervals.newest_start(connection)
        current = now // seconds * seconds + seconds
        start = newest + seconds if newest is not None else current
        if newest is None and now > self._gate_times(current)[1]:
            return  # the very first gate is a whole one
        if (current - start) // seconds > _MISSED_MAX:
            raise StoreError(
                f"the last interval began at {utc(newest or 0)} and it is {utc(now)}: a clock is wrong"
            )
        while start <= current:
            if now > self._gate_times(start)[1]:
                why = self._lost_words(start) or "the market did not run when its gate was to be open"
                self._make_up_for(start, why)
            elif problem := self._problem():
                self._make_up_for(start, problem)
            else:
                self._open(start)
                self._watch(start - seconds)
                self._tell("gate opened", start)
                self._announce(start, "OPEN")
            start += seconds
            await asyncio.sleep(0)  # after weeks there is much to make up for, and the lease must beat

    def _make_up_for(self, start: int, problem: str) -> None:
        """An interval without a gate: no orders, no trades, everybody at the retail tariffs."""
        opens_at, closes_at = self._gate_times(start)
        now = self._clock.now()
        self._steps.open(start, opens_at, closes_at, self._steps.tariff(start))
        self._steps.close(start, now)
        self._suspend(start, problem)
        if opens_at <= now < start:
            self._watch(opens_at)
            self._announce(start, "SUSPENDED")

    async def _advance(self, start: int, state: str) -> None:
        now = self._clock.now()
        closes_at = self._gate_times(start)[1]
        end = start + self._settings.seconds
        if state == "OPEN" and now > closes_at:
            self._close(start, now)
            state = "CLOSED"
            self._tell("gate closed", start)
            self._announce(start, "CLOSED")
        if state == "CLOSED":
            if now > closes_at + self._settings.clearing_s:
                self._suspend(start, "no clearing by its deadline: the market did not run")
            elif self._is_unheard(start):
                self._suspend(start, "the broker was away: nobody could hear of its gate")
            else:
                await self._clear(start)
                self._unpublished.set()
                self._tell("cleared", start, state=self._state(start))
        elif state in ("CLEARED", "SUSPENDED", "METERED"):
            late = now >= end + self._settings.metering_s
            is_time = late or (now > end + BOUNDARY_TOLERANCE_S and self._is_read(end))
            if is_time and not self._behind and now >= self._waits_until.get(start, 0):
                await self._settle_or_wait(start)

    async def _settle_or_wait(self, start: int) -> None:
        waiting = await self._settle(start)
        for one, error in waiting.items():
            words = f"interval {utc(one)} waits to be settled: {error}"
            self._alarm("network", f"interval:{one}", words)
        if start in waiting:
            self._waits_until[start] = self._clock.now() + _NETWORK_RETRY_S
        else:
            self._waits_until.pop(start, None)
            self._tell("settled", start)

    def _suspend(self, start: int, problem: str) -> None:
        draft = self._steps.draft(start)
        self._steps.publish(draft, self._steps.suspended(draft, problem), None, self._clock.now())
        self._unpublished.set()
        self._tell("suspended", start, reason=problem)

    # Readings

    def _watch(self, boundary: int) -> None:
        """Who is read at the boundary that is now, or was last."""
        self._gateway.intake.readings.watch_boundary(boundary)
        self._gateway.intake.note_absent()
        self._watched = boundary

    def _is_read(self, boundary: int) -> bool:
        return boundary == self._watched and not self._gateway.intake.readings.unread(boundary)

    # Clearing

    def _deadline(self, start: int) -> Callable[[], bool]:
        return never

    def _solved(self, draft: Draft) -> Solved:
        closes_at = self._gate_times(draft.start)[1]
        seconds = self._clock.wait_s(closes_at + self._settings.clearing_s)
        try:
            return self._solver.clear(draft.book, seconds)
        except SolverError as error:
            self._alarm("solver", f"interval:{draft.start}", str(error))
            return self._steps.suspended(draft, str(error))

    # Chain

    async def _settle_on_chain(self, ended: asyncio.Event) -> None:
        """Batches go out and collateral comes in; a chain that is away is waited for, the market goes on."""
        wait_s = _CHAIN_LOOK_S
        while not ended.is_set():
            try:
                with contextlib.suppress(UnfinalError):  # a chain's finality may take its quarter of an hour
                    await self._send_batches(self._clock.now())
                asked_at = self._clock.now()
                standing = await asyncio.to_thread(self._told_standing)
                self._standing_at = asked_at
                self._standing = standing
                if standing != self._noted:
                    self._note_standing()
                    await self._keep_books()
                elif asked_at > self._noted_at + _NOTED_S:
                    self._note_standing()
                self._blocked, self._chain_trouble, wait_s = "", "", _CHAIN_LOOK_S
            except BehindError as error:
                self._lacks(error)
                wait_s = _CHAIN_LOOK_S
            except ChainError as error:
                self._chain_trouble = str(error)
                if isinstance(error, ContractRevertError):
                    # Nobody can pay this batch: no order is taken until somebody has. That is public, and
                    # whose account it is for operators.
                    self._blocked = f"settlement waits: {refused_because(error)}"
                    self._chain_trouble = f"{self._blocked} ({error})"
                self._alarm("chain", "chain", self._chain_trouble)
                wait_s = min(2 * wait_s, _CHAIN_RETRY_MAX_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), wait_s)

    async def _look_at_sequences(self) -> None:
        """Before anything is settled."""
        try:
            await self._compare()
        except BehindError as error:
            self._lacks(error)

    def _lacks(self, error: BehindError) -> None:
        if error.batches != self._behind:
            self._alarm("chain", "database", str(error))
        self._behind, self._blocked, self._chain_trouble = error.batches, str(error), str(error)

    def _lost_words(self, start: int) -> str:
        """Why an interval is not known whose gate was open when the newest lost batch went out."""
        if not self._behind or self._gate_times(start)[0] > self._behind[-1].at:
            return ""
        first, last = self._behind[0].sequence, self._behind[-1].sequence
        return f"lost with its records: the chain has batches {first} to {last}, and the database has not"

    def _problem(self) -> str:
        """Why no gate may open, empty where one may. Without a chain orders go on by what was last known of
        deposits, until what somebody may have withdrawn since then could be paid out before they are settled.
        """
        ends_at = self._standing_at + self._standing.liable_s
        if self._chain_trouble and self._clock.now() + self._until_settled_s() > ends_at:
            return f"the chain has been away since {utc(self._standing_at)}: deposits may be gone"
        return self._blocked

    def _until_settled_s(self) -> int:
        """From a gate's opening to the batch that has its interval."""
        of = self._settings
        return 2 * of.seconds + of.metering_s + of.settled_every_s

    def _told_standing(self) -> Standing:
        """How accounts stand on the chain, and whom its registry speaks against."""
        standing = self._settler.standing()
        if self._registered is None:
            return standing
        self._registered.look()
        now = self._clock.now()
        # Of a meter that is to have other terms, those count: the chain has them first.
        members = [*self._members.at(now).values(), *self._members.later(now)]
        return replace(standing, unregistered=self._registered.problems(members, standing))

    def _objection(self, member: Member, former: str) -> str:
        problem = super()._objection(member, former)
        if not problem and self._registered is not None:
            problem = self._registered.problem(member, self._standing)
        return problem

    def _note_standing(self) -> None:
        before = self._noted.unregistered if self._noted else {}
        for meter, problem in self._standing.unregistered.items():
            if before.get(meter) != problem:
                self._alarm("registry", meter, f"{problem}: its orders are refused until that is mended")
        self._noted, self._noted_at = self._standing, self._clock.now()
        self._steps.note_standing(self._noted, self._noted_at)

    # Telling

    def _announce(self, start: int, state: GateState) -> None:
        super()._announce(start, state)
        self._unpublished.set()

    def _is_unheard(self, start: int) -> bool:
        """Whether no broker has been told that this gate opened, and nobody knew it from a former process."""
        with self._store.reading() as connection:
            gates = map(Gate.model_validate_json, outbox.holds(connection, self._gate_topic))
            is_waiting = any(gate.interval_start == start and gate.state == "OPEN" for gate in gates)
            return is_waiting and not inputs.live_orders(connection, start)

    async def _publish_outbox(self, ended: asyncio.Event) -> None:
        """What was stored to be told; a broker that is away is waited for, the market goes on."""
        while not ended.is_set():
            await self._unpublished.wait()
            self._unpublished.clear()
            try:
                await self._gateway.publish_outbox()
            except BrokerError:
                if not self._gateway.trouble:
                    raise  # it is there, and refuses
                self._unpublished.set()

    async def _note_health(self) -> None:
        """Tells those who only see the database that the market lives, and what it has of what it needs."""
        away_since, told = time.monotonic(), False
        while True:
            now, trouble = self._clock.now(), self._gateway.trouble
            with contextlib.suppress(DatabaseError, StoreError), self._store.transaction() as tx:
                health.note(tx, now, health.MARKET, True)
                health.note(tx, now, health.BROKER, not trouble, trouble)
                health.note(tx, now, health.CHAIN, not self._chain_trouble, self._chain_trouble)
            if not trouble:
                away_since, told = time.monotonic(), False
            elif not told and time.monotonic() - away_since >= _BROKER_PATIENCE_S:
                with contextlib.suppress(DatabaseError, StoreError):
                    self._alarm("broker", "broker", f"{trouble}; gates that nobody can reach are suspended")
                    told = True
            await asyncio.sleep(_LOOK_S if trouble else _HEALTH_S)

    def _alarm(self, kind: AlarmKind, subject: str, words: str) -> None:
        with self._store.transaction() as tx:
            alarms.raise_alarm(tx, self._clock.now(), kind, subject, words)
        _log.warning("alarm", extra={"event": {"kind": kind, "subject": subject, "detail": words}})

    def _tell(self, what: str, start: int, **more: Any) -> None:
        place = {"feeder": self._settings.feeder, "interval_start": start, "at": self._clock.now()}
        _log.info(what, extra={"event": {**place, **more}})
