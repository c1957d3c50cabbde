"""All household agents of a feeder in one process: ``python -m meters.fleet fleet.json``.

Each meter has its own key, MQTT connection and outbox rows; they share one loop, one inbox and one
database, so that a wave of the whole fleet costs a few transactions.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from grid.catalogue import year_profiles
from grid.errors import InputError, PeergridError, Problem
from market.messages.models import Address, FeederId, UnixTime
from market.messages.signing import Domain
from meters import lifeline
from meters.agent import Agent, MarketPlace, Patience
from meters.household.life import State
from meters.household.settings import HouseholdSettings
from meters.household.sites import households
from meters.identity import derived_signer
from meters.mqtt import Inbox, Session
from meters.outbox import Outbox, Writes
from meters.strategies import load_strategy

_TICK_S = 0.25
# Not the whole fleet at once: the market takes in the first part while the rest is still computed.
_BATCH_MAX = 64
_CONNECT_TIMEOUT_S = 30.0
_FAREWELL_TIMEOUT_S = 5.0


class FleetConfig(BaseModel):
    """What a fleet is told; times Unix seconds, ``database`` a path, waiting times real seconds."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    host: str
    port: Annotated[int, Field(gt=0, lt=65536)]
    feeder: FeederId
    feeder_name: str
    market: Address
    chain_id: Annotated[int, Field(ge=0)]
    registry: Address
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)]
    first_interval_start: UnixTime
    minutes: Literal[5, 15, 30, 60] = 15
    household: HouseholdSettings = HouseholdSettings()
    database: str
    resend_s: Annotated[float, Field(gt=0)] = 5.0
    award_patience_s: Annotated[float, Field(gt=0)] = 5.0

    def identity(self) -> str:
        """Whose database it is: another seed, feeder, time or household must not continue it."""
        what = self.model_dump_json(exclude={"host", "port", "database", "resend_s", "award_patience_s"})
        return f"{self.feeder} {hashlib.sha256(what.encode()).hexdigest()[:16]}"


def read_config(path: Path) -> FleetConfig:
    """The configuration in a JSON file (:class:`InputError` names what is wrong with it)."""
    try:
        return FleetConfig.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError.single(str(path), "", error.strerror, "so it cannot be read") from None
    except ValidationError as error:
        raise InputError(
            Problem(str(path), ".".join(map(str, item["loc"])), item["input"], item["msg"])
            for item in error.errors(include_url=False)
        ) from None


def agents_of(config: FleetConfig) -> tuple[Agent, ...]:
    """One agent for each household of the feeder."""
    place = MarketPlace(
        feeder=config.feeder,
        market=config.market,
        domain=Domain(config.chain_id, config.registry),
        interval_s=config.minutes * 60,
        first_interval_start=config.first_interval_start,
    )
    patience = Patience(resend_s=config.resend_s, award_s=config.award_patience_s)
    profiles = year_profiles(config.feeder_name)
    return tuple(
        Agent(
            household,
            derived_signer(config.seed, f"meter:{household.name}"),
            place,
            load_strategy(household.strategy),
            patience,
        )
        for household in households(profiles, config.household, config.seed)
    )


class Fleet:
    """Agents on their connections: restored from the outbox, then run until told to stop."""

    def __init__(self, config: FleetConfig, agents: Iterable[Agent]) -> None:
        self._config = config
        self._agents = {agent.meter: agent for agent in agents}
        self._outbox = Outbox(Path(config.database), config.identity())
        self._inbox = Inbox()
        self._sessions: dict[str, Session] = {}
        self._next_tick_s = 0.0
        for meter in self._outbox.meters():
            self._agents[meter.meter].restore(meter)
        for plan in self._outbox.plans():
            self._agents[plan.meter].restore_plan(plan)
        for message in self._outbox.waiting():
            self._agents[message.meter].restore_waiting(message)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set. Raises :class:`BrokerError`, :class:`StoreError`."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._outbox.close)
            try:
                async with asyncio.TaskGroup() as connecting:
                    for agent in self._agents.values():
                        connecting.create_task(stack.enter_async_context(self._session(agent)))
            except BaseExceptionGroup as group:  # one reason is enough: they are all alike
                raise group.exceptions[0] from None
            while not stop.is_set():
                await self._serve_batch()
            await self._say_farewell()

    def _session(self, agent: Agent) -> Session:
        session = Session(
            self._config.host,
            self._config.port,
            agent.meter,
            self._inbox,
            subscriptions=agent.subscriptions,
            will=agent.farewell(),
            timeout_s=_CONNECT_TIMEOUT_S,
            on_connect=self._greet,
        )
        self._sessions[agent.meter] = session
        return session

    def _greet(self, session: Session) -> None:
        for message in self._agents[session.client_id].greeting():
            session.send(message)

    async def _serve_batch(self) -> None:
        """Hear a batch, store what follows from it, then acknowledge and answer."""
        batch = await self._inbox.batch(messages_max=_BATCH_MAX, timeout_s=_TICK_S)
        now_s = asyncio.get_running_loop().time()
        writes = Writes()
        for incoming in batch:
            agent = self._agents[incoming.session.client_id]
            agent.hear(incoming.topic, incoming.payload, now_s, writes)
        tick = now_s >= self._next_tick_s
        if tick:
            self._next_tick_s = now_s + _TICK_S
            for agent in self._agents.values():
                agent.wake(now_s, writes)
        self._outbox.commit(writes)
        Inbox.done(batch)
        for meter in self._agents if tick else {row.meter for row in writes.sent}:
            self._send_due(self._agents[meter], self._sessions[meter], now_s)

    @staticmethod
    def _send_due(agent: Agent, session: Session, now_s: float) -> None:
        for waiting in agent.due(now_s):
            if not session.send(waiting.message):
                break
            agent.sent(waiting, now_s)
        for question in agent.questions(now_s):
            session.send(question)

    async def _say_farewell(self) -> None:
        with contextlib.suppress(PeergridError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_TIMEOUT_S):
                for meter, session in self._sessions.items():
                    session.send(self._agents[meter].farewell())


@dataclass(frozen=True)
class Comfort:
    """What the day was for the households, besides money; ``battery_wh`` is in the batteries at its end."""

    pv_curtailed_wh: int
    battery_wh: int
    ev_departures: int
    ev_unmet: int
    ev_unmet_wh: int


def comfort(config: FleetConfig) -> Comfort:
    """The day's comfort as the fleet's database tells it."""
    outbox = Outbox(Path(config.database), config.identity())
    try:
        states = [State(**json.loads(row.state)) for row in outbox.meters()]
    finally:
        outbox.close()
    return Comfort(
        pv_curtailed_wh=round(sum(state.pv_curtailed_wh for state in states)),
        battery_wh=round(sum(state.battery_wh for state in states)),
        ev_departures=sum(state.ev_departures for state in states),
        ev_unmet=sum(state.ev_unmet for state in states),
        ev_unmet_wh=round(sum(state.ev_unmet_wh for state in states)),
    )


@contextlib.asynccontextmanager
async def running(config: FleetConfig, folder: Path) -> AsyncIterator[lifeline.Child]:
    """The fleet as a child process; its configuration and log are written into ``folder``."""
    path = folder / "fleet.json"
    path.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "meters.fleet", str(path)]
    child = await lifeline.Child.start(command, folder / "fleet.log")
    try:
        yield child
    finally:
        await child.stop(2 * _FAREWELL_TIMEOUT_S)


async def _main(config: FleetConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    lifeline.end_with_stdin()
    await Fleet(config, agents_of(config)).run(stop)


def main(arguments: list[str]) -> int:
    """The exit status of the command; errors go to standard error, one line each."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        if len(arguments) != 1:
            raise InputError.single("meters.fleet", "", arguments, "is not one configuration file")
        asyncio.run(_main(read_config(Path(arguments[0]))))
    except PeergridError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
