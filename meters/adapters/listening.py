"""Hears a device on a home broker, asks it, switches it: the thin shell around the adapters.

It hears the device's topics all the time, asks it to tell its counters at a boundary, and hands what it said
to the pure parts: an adapter reads payloads, :mod:`meters.adapters.fold` makes samples of them,
:mod:`meters.modbus.energy` registers that only rise.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

from market.messages.models import Quality
from meters.adapters import fold
from meters.adapters import relay as relays
from meters.adapters.interface import Adapter, PayloadError, Stretch
from meters.adapters.relay import Relay
from meters.adapters.shelly import Shelly
from meters.adapters.stored import state_at
from meters.adapters.tasmota import Tasmota
from meters.household.devices import Pv
from meters.modbus.energy import Event, Sample, State, accumulate
from meters.modbus.rates import reverts_s
from meters.mqtt import Inbox, Incoming, Login, Message, Session, Trust
from meters.source import TOLERANCE_S, RegisterReading, Setpoint, SourceError, Surroundings

ANSWER_S = 5.0
"""How long a device may take to tell its counters; it is asked again every ``ASK_AGAIN_S``."""
ASK_AGAIN_S = 2.0
PUSH_S = 12.0
"""How long one that cannot be asked may let wait: smart meters report every ten seconds."""
RECORDS_S = 10.0
RELAY_S = 3.0
_BATCH_S = 1.0
_PAGES_MAX = 200
_COARSE_WH = 10
_ATTEMPTS = 2
_TELL_PAUSE_S = 10.0
_TELL_AGAIN_S = 3600.0
_TOLD_MAX = 50

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where the home broker is, and how it is spoken to."""

    host: str
    port: int
    login: Login | None = None
    tls: Trust | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass
class _Records:
    """What the device is being asked for: stretches by component and start, and which are still to come."""

    open: set[str]
    found: dict[str, dict[int, Stretch]] = field(default_factory=dict)
    pages: int = 0


class MqttSource:
    """One device: a :class:`meters.source.Source`. ``fuse_w`` is the most that can flow, ``stale_s`` how old
    what was last heard may be; with ``estimate`` power is integrated, for a device that counts no energy.
    """

    def __init__(
        self,
        device: Adapter,
        place: Place,
        around: Surroundings,
        *,
        fuse_w: int,
        stale_s: int,
        invert: bool = False,
        estimate: bool = False,
        relay: Relay | None = None,
    ) -> None:
        self.name = f"{device.adapter} {next(iter(device.topics()), '')} on {place}"
        self._device = device
        self._place = place
        self._now, self._monotonic = around.now, around.monotonic
        self._fuse_w, self._stale_s = fuse_w, stale_s
        self._invert, self._estimate = invert, estimate
        self._relay = relay if isinstance(device, Tasmota | Shelly) else None
        self._reader = device.reader()
        self._inbox = Inbox()
        self._sessions: list[Session] = []
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._known = fold.Known()
        self._state: State | None = None
        self._state_s: float | None = None
        self._raw_wh = (Decimal(0), Decimal(0))
        self._last: State | None = None
        self._jumped = False
        self._doubt = ""
        self._problem = ""
        self._told: dict[str, float] = {}
        self._clock_told = False
        self._relay_on: bool | None = None
        self._records: _Records | None = None
        self._stored: dict[str, dict[int, Stretch]] = {}

    # Its life

    def start(self) -> None:
        """Hear the device from now on, whenever the broker is there."""
        self._listen(self._topics())
        self._task = asyncio.create_task(self._hear_all(), name=self.name)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for session in self._sessions:
            await session.__aexit__(None, None, None)

    def restore(self, memory: str) -> None:
        content = json.loads(memory)
        self._state = self._last = State.from_json(json.dumps(content["state"]))
        self._state_s = None
        if content["integral"] is not None:
            self._known = fold.Known(integral=fold.Integral(*content["integral"]))

    def _topics(self) -> tuple[str, ...]:
        extra: tuple[str, ...] = ()
        if self._relay is not None and isinstance(self._device, Tasmota | Shelly):
            extra = relays.topics(self._device)
        return (*self._reader.topics(), *extra)

    def _listen(self, topics: tuple[str, ...]) -> None:
        session = Session(
            self._place.host,
            self._place.port,
            f"peergrid-{secrets.token_hex(6)}",
            self._inbox,
            subscriptions=topics,
            login=self._place.login,
            tls=self._place.tls,
        )
        session.start()
        self._sessions.append(session)

    async def _hear_all(self) -> None:
        topics = set(self._topics())
        while True:
            batch = await self._inbox.batch(timeout_s=_BATCH_S)
            for incoming in batch:
                self._hear(incoming)
            Inbox.done(batch)
            if new := set(self._topics()) - topics:  # the device itself has announced them
                topics |= new
                self._listen(tuple(new))

    # What it hears

    def _hear(self, incoming: Incoming) -> None:
        try:
            if not self._is_about_the_relay(incoming) and not self._is_a_record(incoming.payload):
                self._take(incoming)
        except PayloadError as error:
            self._tell(f"{incoming.topic}: {error}")

    def _is_about_the_relay(self, incoming: Incoming) -> bool:
        """Notes the relay's state; True where the message can say nothing else."""
        device, relay = self._device, self._relay
        if relay is None or not isinstance(device, Tasmota | Shelly):
            return False
        on = relays.state(relay, device, incoming.payload)
        if on is not None and not incoming.retained:
            self._relay_on = on
            self._news.set()
        return incoming.topic in relays.topics(device)

    def _take(self, incoming: Incoming) -> None:
        heard = self._reader.hear(incoming.topic, incoming.payload)
        if incoming.retained or not (heard.counters or heard.powers):
            return  # what the broker kept may be of any age
        period_s = self._device.period_s
        self._known = fold.learn(self._known, heard, self._now(), period_s)
        self._tell_of_its_clock()
        if self._estimate:
            sample = fold.estimated(self._known, self._invert)
        else:
            sample = fold.counted(self._known, self._reader, self._invert)
        if sample is None:
            self._problem = "it has not told all its counters yet"
        elif period_s == 0 or self._state is None or sample.taken_at > self._state.taken_at:
            self._go_on(sample)
        self._news.set()

    def _go_on(self, sample: Sample) -> None:
        sampled_s = self._monotonic() - max(0.0, self._now() - sample.taken_at)
        elapsed_s = None if self._state_s is None else sampled_s - self._state_s
        outcome = accumulate(self._state, sample, self._fuse_w, elapsed_s)
        self._state = outcome.state
        if outcome.event is Event.SUSPECT:
            self._doubt = f"{outcome.reason}: {outcome.event.value}"
            self._tell(self._doubt)
            return
        counters = {name: value.value for name, value in self._known.counters.items()}
        self._raw_wh = self._reader.registers(counters) or self._raw_wh
        self._doubt, self._problem = "", ""
        self._jumped, self._state_s = outcome.clock_jumped, sampled_s
        if outcome.event is Event.NEW_EPOCH:
            _log.warning("%s: %s (%s)", self.name, outcome.event.value, outcome.reason)
        step_wh = max(sample.imported.step_wh, sample.exported.step_wh)
        if outcome.event is Event.FIRST and step_wh >= _COARSE_WH:
            _log.warning("%s: it counts in steps of %d Wh", self.name, step_wh)

    def _tell_of_its_clock(self) -> None:
        drift_s = self._known.drift_s
        if drift_s is not None and abs(drift_s) > fold.DRIFT_S_MAX and not self._clock_told:
            self._clock_told = True
            _log.warning("%s: its clock is %+.0f s from ours; ours counts", self.name, drift_s)

    def _tell(self, problem: str) -> None:
        """One line for a problem, once an hour and not in a flood; it stays known until the next sample."""
        self._problem, now_s = problem, time.monotonic()
        recent = any(now_s - told_s < _TELL_PAUSE_S for told_s in self._told.values())
        again = now_s - self._told.get(problem, -math.inf) < _TELL_AGAIN_S
        _log.log(logging.DEBUG if recent or again else logging.WARNING, "%s: %s", self.name, problem)
        if not recent and not again:
            self._told = {**dict(list(self._told.items())[-_TOLD_MAX:]), problem: now_s}

    # What it reads

    async def read(self, at: int) -> RegisterReading:
        """The registers; for a boundary long past from the device's own records, where it keeps some."""
        if self._task is not None and self._task.done():
            self._task.result()  # a defect, not to be hidden
        timeout_s = ANSWER_S if self._reader.question() else PUSH_S
        await self._wait(lambda: self._state is not None and self._state.taken_at >= at, timeout_s, ask=True)
        state = self._believed()
        if self._now() - at > TOLERANCE_S and state.taken_at > at + TOLERANCE_S:
            past = await self._from_its_records(state, at)
            if past is not None:
                return self._reading(past, Quality.MEASURED)
        if self._last is not None and state.taken_at <= self._last.taken_at:
            raise SourceError(f"{self.name}: nothing new since the last reading")
        guessed = self._jumped or self._estimate
        return self._reading(state, Quality.ESTIMATED if guessed else Quality.MEASURED)

    def _believed(self) -> State:
        if self._doubt:
            raise SourceError(f"{self.name}: {self._doubt}")
        if self._state is None or not (self._known.counters or self._known.powers):
            connected = any(session.connected.is_set() for session in self._sessions)
            silent = "nothing heard yet" if connected else f"no broker: {self._sessions[0].problem}"
            raise SourceError(f"{self.name}: {self._problem or silent}")
        age_s = self._now() - self._state.taken_at
        if age_s > self._stale_s:
            raise SourceError(f"{self.name}: last heard {age_s:.0f} s ago")
        return self._state

    def _reading(self, state: State, quality: Quality) -> RegisterReading:
        self._last = state
        integral = self._known.integral
        memory = {
            "state": json.loads(state.to_json()),
            "integral": None if integral.at is None else [integral.import_wh, integral.export_wh],
        }
        return RegisterReading(
            taken_at=state.taken_at,
            import_wh=state.imported.total_wh,
            export_wh=state.exported.total_wh,
            power_w=fold.export_w(self._known, self._invert),
            quality=quality,
            epoch=state.epoch,
            memory=json.dumps(memory, separators=(",", ":")),
        )

    async def _wait(self, done: Callable[[], bool], timeout_s: float, *, ask: bool = False) -> None:
        """Until ``done``, or no longer than that."""
        if done():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                if ask:
                    await self._sessions[0].connected.wait()
                while not done():
                    self._news.clear()
                    if ask:
                        self._ask()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(ASK_AGAIN_S):
                            while not done():
                                await self._news.wait()
                                self._news.clear()

    def _ask(self) -> None:
        for message in self._reader.question():
            self._send(message)

    def _send(self, message: Message) -> None:
        """Without a connection nothing is sent, and the missing answer tells."""
        self._sessions[0].send(message)

    # What the device has stored

    async def _from_its_records(self, state: State, at: int) -> State | None:
        device, drift_s = self._device, self._known.drift_s
        if not isinstance(device, Shelly) or device.period_s == 0:
            return None
        if drift_s is None or abs(drift_s) > fold.DRIFT_S_MAX:
            return None
        raw_wh, last, invert = self._raw_wh, self._last, self._invert
        past = state_at(state, raw_wh, self._stored, at, invert=invert, last=last)
        if past is None:
            await self._ask_for_records(device, at, state.taken_at)
            past = state_at(state, raw_wh, self._stored, at, invert=invert, last=last)
        return past

    async def _ask_for_records(self, device: Shelly, start: int, end: int) -> None:
        self._records = records = _Records(set(device.components))
        for component in device.components:
            self._send(device.history_request(component, start, end))
        try:
            await self._wait(lambda: not records.open, RECORDS_S)
        finally:
            self._records = None
        self._stored = {} if records.open else records.found

    def _is_a_record(self, payload: bytes) -> bool:
        """Takes a page of the device's records, if the payload is one that was asked for."""
        device, records = self._device, self._records
        if records is None or self._state is None or not isinstance(device, Shelly):
            return False
        page = device.history(payload)
        if page is None:
            return False
        component, stretches, following = page
        records.found.setdefault(component, {}).update({stretch.start: stretch for stretch in stretches})
        records.pages += 1
        if following is None or records.pages >= _PAGES_MAX:
            records.open.discard(component)
        else:
            self._send(device.history_request(component, following, self._state.taken_at))
        self._news.set()
        return True

    # What it switches

    def device(self) -> Pv | None:
        return None if self._relay is None else self._relay.generator

    async def apply(self, setpoint: Setpoint | None) -> None:
        relay, device = self._relay, self._device
        assert relay is not None
        assert isinstance(device, Tasmota | Shelly)
        on = relay.wanted(setpoint)
        hold_s = None
        if setpoint is not None and on != relay.wanted(None):
            hold_s = reverts_s(setpoint, self._now())
        for _ in range(_ATTEMPTS):
            self._relay_on = None
            for message in relays.switch(relay, device, on, hold_s):
                self._send(message)
            await self._wait(lambda: self._relay_on is on, RELAY_S)
            if self._relay_on is on:
                return
        told = "said nothing" if self._relay_on is None else "stayed as it was"
        raise SourceError(f"{self.name}: told to switch {'on' if on else 'off'}, the relay {told}")
