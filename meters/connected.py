"""Agents on their connections to a broker: heard, stored, acknowledged, answered, in this order.

Each meter has its own key, MQTT connection and outbox rows; they share one loop, one inbox and one
database, so that a wave of many meters costs a few transactions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from grid.errors import PeergridError
from meters.agent import Agent
from meters.mqtt import Inbox, Session, Tls
from meters.outbox import Outbox, Writes
from meters.source import RegisterReading

_TICK_S = 0.25
_WAKE_S_MAX = 1.0
# Not all at once: the market takes in the first part while the rest is still computed.
_BATCH_MAX = 64
_CONNECT_TIMEOUT_S = 30.0
_FAREWELL_TIMEOUT_S = 5.0
_SOON_S = 0.02

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BrokerAt:
    """Where the broker is, and what each meter (by its id) shows it; None: plain TCP."""

    host: str
    port: int
    tls_of: Callable[[str], Tls | None] = lambda _meter: None


class Connected:
    """Agents restored from the outbox, run until told to stop.

    With ``must_connect`` a broker that cannot be reached within half a minute is an error; without it the
    meters go on without a broker, until there is one.
    """

    def __init__(
        self, agents: Iterable[Agent], outbox: Outbox, broker: BrokerAt, *, must_connect: bool = True
    ) -> None:
        self._agents = {agent.meter: agent for agent in agents}
        self._outbox = outbox
        self._broker = broker
        self._must_connect = must_connect
        self._inbox = Inbox()
        self._sessions: dict[str, Session] = {}
        self._read: list[tuple[Agent, Sequence[RegisterReading], asyncio.Future[None]]] = []
        self._next_tick_s = 0.0
        for meter in outbox.meters():
            if meter.meter in self._agents:
                self._agents[meter.meter].restore(meter)
        for plan in outbox.plans():
            if plan.meter in self._agents:
                self._agents[plan.meter].restore_plan(plan)
        for message in outbox.waiting():
            if message.meter in self._agents:
                self._agents[message.meter].restore_waiting(message)

    @property
    def connections(self) -> int:
        """How many meters are connected now."""
        return sum(session.connected.is_set() for session in self._sessions.values())

    def problem(self) -> str:
        """Why one that is not connected is not."""
        lost = (session.problem for session in self._sessions.values() if not session.connected.is_set())
        return next(lost, "")

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set. Raises :class:`BrokerError`, :class:`StoreError`."""
        async with contextlib.AsyncExitStack() as stack:
            sessions = [self._session(agent) for agent in self._agents.values()]
            if self._must_connect:
                try:
                    async with asyncio.TaskGroup() as connecting:
                        for session in sessions:
                            connecting.create_task(stack.enter_async_context(session))
                except BaseExceptionGroup as group:  # one reason is enough: they are all alike
                    raise group.exceptions[0] from None
            else:
                for session in sessions:
                    session.start()
                    stack.push_async_exit(session)
            while not stop.is_set():
                await self._serve_batch()
            await self._serve_batch()
            await self._say_farewell()

    async def record(self, agent: Agent, readings: Sequence[RegisterReading]) -> None:
        """Returns when the readings are on the disk, and due to be sent. Raises :class:`StoreError`."""
        stored = asyncio.get_running_loop().create_future()
        self._read.append((agent, readings, stored))
        await stored

    def _session(self, agent: Agent) -> Session:
        session = Session(
            self._broker.host,
            self._broker.port,
            agent.meter,
            self._inbox,
            subscriptions=agent.subscriptions,
            will=agent.farewell(),
            timeout_s=_CONNECT_TIMEOUT_S,
            on_connect=self._greet,
            tls=self._broker.tls_of(agent.meter),
        )
        self._sessions[agent.meter] = session
        return session

    def _greet(self, session: Session) -> None:
        for message in self._agents[session.client_id].greeting():
            session.send(message)

    async def _serve_batch(self) -> None:
        """Hear a batch, store what follows from it and what was read, then acknowledge and answer."""
        batch = await self._inbox.batch(messages_max=_BATCH_MAX, timeout_s=_SOON_S if self._read else _TICK_S)
        read, self._read = self._read[:_BATCH_MAX], self._read[_BATCH_MAX:]
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        writes = Writes()
        for agent, readings, _ in read:
            for reading in readings:
                agent.record(reading, writes)
        for incoming in batch:
            agent = self._agents[incoming.session.client_id]
            agent.hear(incoming.topic, incoming.payload, now_s, writes)
        tick = now_s >= self._next_tick_s
        if tick:
            self._next_tick_s = now_s + _TICK_S
            for agent in self._agents.values():
                agent.wake(now_s, writes)
                if loop.time() - now_s > _WAKE_S_MAX:
                    break  # the rest in the next round: connections want their pings meanwhile
        self._outbox.commit(writes)
        Inbox.done(batch)
        for _, _, stored in read:
            if not stored.done():
                stored.set_result(None)
        for meter in self._agents if tick else {row.meter for row in writes.sent}:
            self._send_due(self._agents[meter], self._sessions[meter], now_s)

    @staticmethod
    def _send_due(agent: Agent, session: Session, now_s: float) -> None:
        for waiting in agent.due(now_s):
            if not session.send(waiting.message):
                break
            waiting.sent(now_s)
        for question in agent.questions(now_s):
            session.send(question)

    async def _say_farewell(self) -> None:
        with contextlib.suppress(PeergridError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_TIMEOUT_S):
                for meter, session in self._sessions.items():
                    if session.connected.is_set():
                        session.send(self._agents[meter].farewell())
