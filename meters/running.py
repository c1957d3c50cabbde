"""Meters in wall-clock time, one or a thousand in a process: read at the boundaries, traded for, steered.

Every meter has a task of its own, so that one that hangs delays no other; what they read is stored and sent
by one loop (:mod:`meters.connected`).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from meters.agent import Patience
from meters.connected import BrokerAt, Connected
from meters.outbox import Outbox
from meters.own_history import OwnHistory
from meters.run_config import DATABASE, MeterSetup, RunSetup
from meters.simulated import SimulatedHousehold
from meters.source import READ_TIMEOUT_S, TOLERANCE_S, Setpoint, Source, SourceError, Surroundings
from meters.strategies import load_strategy
from meters.trader import Trader
from meters.wall_clock import WallClockAgent, readings_to_record

Clock = Callable[[], float]
"""Unix s."""

DEFAULT_STRATEGY = "truthful"
APPLY_TIMEOUT_S = 10.0
_LOOK_S = 1.0
_RETRY_MIN_S = 1.0
_RETRY_MAX_S = 30.0
_TOLD_EACH_MAX = 20
_TOLD_FIRST_AFTER_S = 20.0
_TOLD_AFTER_S = 45.0

_log = logging.getLogger(__name__)


@dataclass
class Point:
    """A meter in its process: its agent, what it reads, and how that goes."""

    agent: WallClockAgent
    source: Source
    steered: bool = False
    applied: Setpoint | None = None
    trouble: str = ""
    """Why it could not be read or steered the last time; nothing when it could."""
    retry_s: float = field(default=_RETRY_MIN_S, repr=False)

    def worked(self) -> None:
        if self.trouble:
            _log.warning("%s: works again", self.agent.name)
        self.trouble, self.retry_s = "", _RETRY_MIN_S

    def failed(self, error: Exception, timeout_s: float) -> None:
        """Says it once, however often it is tried."""
        reason = str(error)
        if isinstance(error, TimeoutError):
            reason = f"no answer within {timeout_s:.0f} s"
        elif not isinstance(error, SourceError):
            reason = f"{type(error).__name__}: {error}"
        if reason != self.trouble:
            _log.warning("%s: %s", self.agent.name, reason)
        self.trouble, self.retry_s = reason, min(2 * self.retry_s, _RETRY_MAX_S)


async def run(setup: RunSetup, stop: asyncio.Event, now: Clock = time.time) -> None:
    """Runs all meters until ``stop`` is set; then devices are released and the meters say farewell.

    Raises :class:`InputError` for sources that cannot work and :class:`StoreError` for the outbox. A broker
    or a device that is away is waited for.
    """
    async with contextlib.AsyncExitStack() as stack:
        setup.outbox.mkdir(mode=0o700, parents=True, exist_ok=True)  # it tells when somebody is at home
        outbox = Outbox(setup.outbox / DATABASE, setup.identity, exclusive=True)
        stack.callback(outbox.close)
        points = await opened(setup, stack, outbox, now)
        broker = BrokerAt(setup.host, setup.port, {m.signer.address: m.tls for m in setup.meters}.get)
        connected = Connected([point.agent for point in points], outbox, broker, must_connect=False)
        for point in points:
            if point.agent.last is not None:
                point.source.restore(point.agent.last.memory)
        try:
            async with asyncio.TaskGroup() as tasks:
                living = [tasks.create_task(_live(point, connected)) for point in points]
                living.append(tasks.create_task(_tell(setup, points, connected)))
                await connected.run(stop)
                for task in living:
                    task.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            await asyncio.gather(*map(_release, points))


async def opened(
    setup: RunSetup, stack: contextlib.AsyncExitStack, outbox: Outbox, now: Clock
) -> list[Point]:
    """The meters with their sources; what these hold open ends with ``stack``."""
    around = Surroundings(now, setup.market.interval_s, setup.path.resolve().parent, stack)
    patience = Patience(resend_s=setup.resend_s)
    points = []
    for meter in setup.meters:
        source = await meter.source.open(around)
        trader = _trader(meter, source, setup.market.interval_s, outbox)
        agent = WallClockAgent(
            meter.name, trader, meter.signer, setup.market, patience, now, fuse_w=meter.source.fuse_w
        )
        agent.software += f": {getattr(meter.source, 'profile', meter.source.kind)}"
        if isinstance(source, SimulatedHousehold):
            source.orders = agent.ordered
        points.append(Point(agent, source))
    return points


def _trader(meter: MeterSetup, source: Source, interval_s: int, outbox: Outbox) -> Trader:
    """A simulated household trades for itself, from what it lives through."""
    if isinstance(source, SimulatedHousehold):
        source.strategy = meter.strategy or source.strategy
        return source
    strategy = meter.strategy or load_strategy(DEFAULT_STRATEGY)
    past = outbox.history(meter.signer.address)
    return OwnHistory(meter.name, source.device, strategy, interval_s, past)


async def _live(point: Point, connected: Connected) -> None:
    agent = point.agent
    while True:
        read = await _read_due(point, connected)
        await _steer(point)
        if point.trouble:
            await asyncio.sleep(min(point.retry_s, agent.until_boundary_s()))
        elif not read or not agent.due_boundaries():
            await asyncio.sleep(min(_LOOK_S, agent.until_boundary_s()))


async def _read_due(point: Point, connected: Connected) -> bool:
    """Reads the oldest boundary that is due, if there is one; whether there was."""
    agent, due = point.agent, point.agent.due_boundaries()
    if not due:
        return False
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            read = await point.source.read(due[0])
        readings = readings_to_record(agent.last, read, due, agent.interval_s)
    except Exception as error:  # whatever a device or its driver does wrong, the others go on
        point.failed(error, READ_TIMEOUT_S)
        return True
    point.worked()
    await connected.record(agent, readings)
    return True


async def _steer(point: Point) -> None:
    wanted = point.agent.setpoint()
    if point.source.device() is None or (point.steered and wanted == point.applied):
        return
    try:
        async with asyncio.timeout(APPLY_TIMEOUT_S):
            await point.source.apply(wanted)
    except Exception as error:
        point.failed(error, APPLY_TIMEOUT_S)
    else:
        point.steered, point.applied = True, wanted


async def _release(point: Point) -> None:
    if point.source.device() is not None and point.applied is not None:
        try:
            async with asyncio.timeout(APPLY_TIMEOUT_S):
                await point.source.apply(None)
        except Exception as error:
            point.failed(error, APPLY_TIMEOUT_S)


# What the log tells


async def _tell(setup: RunSetup, points: Sequence[Point], connected: Connected) -> None:
    """The first reading of each meter (of few), then a line an interval."""
    where = f"{setup.host}:{setup.port}"
    _log.info("%d meter%s of %s, broker %s", len(points), "s" * (len(points) > 1), setup.market.feeder, where)
    new = {point.agent.meter: point.agent.last for point in points[:_TOLD_EACH_MAX]}
    interval_s, connections = setup.market.interval_s, -1
    tell_at = points[0].agent.clock() + _TOLD_FIRST_AFTER_S
    while True:
        await asyncio.sleep(_LOOK_S)
        for point in points[:_TOLD_EACH_MAX]:
            agent, last = point.agent, point.agent.last
            if agent.meter in new and last is not None and last is not new[agent.meter]:
                del new[agent.meter]
                _log.info(
                    "%s: meter %s reads %d Wh import, %d Wh export, %d W",
                    *(agent.name, agent.meter, last.import_wh, last.export_wh, last.power_w),
                )
        if connected.connections != connections:
            connections = connected.connections
            trouble = f": {connected.problem()}" if connections < len(points) else ""
            _log.info("%d of %d connected to %s%s", connections, len(points), where, trouble)
        now = points[0].agent.clock()
        if now >= tell_at:
            start = now // interval_s * interval_s
            tell_at = start + interval_s + _TOLD_AFTER_S
            _tell_interval(setup, [point.agent for point in points], start)


def _tell_interval(setup: RunSetup, agents: Sequence[WallClockAgent], start: int) -> None:
    following = start + setup.market.interval_s
    skews = [agent.skew_s for agent in agents if abs(agent.skew_s) > TOLERANCE_S]
    if skews:
        _log.warning(
            "this machine's clock is %d s %s the market's: is NTP running?",
            *(abs(skews[0]), "behind" if skews[0] > 0 else "ahead of"),
        )
    if not any(agent.gate for agent in agents):
        _log.warning("no gate of %s was announced yet: is its market running?", setup.market.feeder)
    orders = [ordered for agent in agents if (ordered := agent.ordered(following)) is not None]
    awards = [ordered for agent in agents if (ordered := agent.ordered(start)) is not None]
    refused = sum(ordered.refused for ordered in orders)
    _log.info(
        "%s: %d read, %d ordered for %s%s, %d awarded, %d messages without receipt",
        f"{dt.datetime.fromtimestamp(start, dt.UTC):%H:%M}",
        sum(a.last is not None and a.last.taken_at >= start - TOLERANCE_S for a in agents),
        len(orders) - refused,
        f"{dt.datetime.fromtimestamp(following, dt.UTC):%H:%M}",
        f" ({refused} refused)" if refused else "",
        sum(ordered.awarded_wh is not None for ordered in awards),
        sum(agent.waiting for agent in agents),
    )
