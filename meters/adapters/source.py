"""A device on a home broker as a source of readings: the thin shell around adapters.

It hears the device's topics all the time, asks it to tell its counters at a boundary, and hands what it said
to the pure parts: an adapter reads payloads, :mod:`meters.adapters.fold` makes samples of them,
:mod:`meters.modbus.energy` registers that only rise.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from grid.errors import InputError
from market.messages.models import Quality
from meters.adapters import AnyAdapter, fold, relay
from meters.adapters.interface import PayloadError, Stretch
from meters.adapters.relay import Relay
from meters.adapters.shelly import Shelly
from meters.adapters.stored import state_at
from meters.adapters.tasmota import Tasmota
from meters.household.devices import Pv
from meters.modbus.energy import Event, Sample, State, accumulate
from meters.modbus.rates import reverts_s
from meters.mqtt import Inbox, Incoming, Login, Message, Session
from meters.source import (
    TOLERANCE_S,
    RegisterReading,
    Setpoint,
    SourceError,
    SourceSettings,
    Surroundings,
)

ANSWER_S = 5.0
"""How long a device may take to answer a question."""
_BATCH_S = 1.0
_VOLTS = 230
_PAGES_MAX = 200
_COARSE_WH = 10

_log = logging.getLogger(__name__)


class MqttSourceSettings(SourceSettings):
    """A device on the broker at ``host``; ``device`` says which, and in whose language it speaks.

    ``invert`` is for a device that stands the other way round, such as a plug in front of a generator: what
    it counts as drawn is fed in. The main fuse (A for each phase) bounds what is believed, ``stale_s`` how
    old it may be. With ``estimate`` power is integrated where the device counts no energy, and every reading
    says so.
    """

    kind: Literal["mqtt"]
    host: str = "127.0.0.1"
    port: Annotated[int, Field(gt=0, lt=65536)] = 1883
    user: str | None = None
    password_file: str | None = None
    device: AnyAdapter
    invert: bool = False
    fuse_a: Annotated[float, Field(gt=0, le=6300)] = 63
    phases: Literal[1, 3] = 3
    stale_s: Annotated[int, Field(ge=60, le=86_400)] = 900
    estimate: bool = False
    relay: Relay | None = None

    @property
    def fuse_w(self) -> int:
        return round(self.fuse_a * _VOLTS * self.phases)

    @model_validator(mode="after")
    def _relay_of_a_device_that_has_one(self) -> MqttSourceSettings:
        if self.relay is not None and not isinstance(self.device, Tasmota | Shelly):
            raise ValueError(f"relay: {self.device.adapter} has none that can be switched")
        if (self.password_file is None) != (self.user is None):
            raise ValueError("user and password_file belong together")
        return self

    async def open(self, around: Surroundings) -> MqttSource:
        source = MqttSource(self, around, self._login(around.base))
        around.stack.push_async_callback(source.close)
        source.start()
        return source

    def _login(self, base: Path) -> Login | None:
        if self.user is None or self.password_file is None:
            return None
        path = base / self.password_file
        try:
            mode = path.stat().st_mode
            password = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError.single(str(path), "", str(error), "so the password cannot be read") from None
        if mode & 0o077:
            reason = "lets others at the password: chmod 600 it"
            raise InputError.single(str(path), "mode", oct(mode & 0o777), reason)
        return Login(self.user, password)


@dataclass
class _Pages:
    """What is being asked of the device's memory: stretches by component and start, and what is to come."""

    found: dict[str, dict[int, Stretch]]
    open: set[str]
    pages: int = 0


class MqttSource:
    """One device; see :class:`meters.source.Source`."""

    def __init__(self, settings: MqttSourceSettings, around: Surroundings, login: Login | None) -> None:
        self._settings = settings
        self._now = around.now
        self._monotonic = around.monotonic
        self._login = login
        self._reader = settings.device.reader()
        self._inbox = Inbox()
        self._sessions: list[Session] = []
        self._task: asyncio.Task[None] | None = None
        self._known = fold.Known()
        self._state: State | None = None
        self._state_monotonic_s: float | None = None
        self._jumped = False
        self._doubt = ""
        self._problem = ""
        self._given = -1
        self._news = asyncio.Event()
        self._relay_on: bool | None = None
        self._pages: _Pages | None = None
        self._stored: dict[str, dict[int, Stretch]] = {}
        self._told: set[str] = set()

    @property
    def name(self) -> str:
        device = self._settings.device
        what = next(iter(device.topics()), "")
        return f"{device.adapter} {what} on {self._settings.host}:{self._settings.port}"

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
        self._state, self._state_monotonic_s = State.from_json(json.dumps(content["state"])), None
        if content["integral"] is not None:
            self._known = fold.Known(integral=fold.Integral(*content["integral"]))

    def _topics(self) -> tuple[str, ...]:
        extra: tuple[str, ...] = ()
        if self._settings.relay is not None and isinstance(self._settings.device, Tasmota | Shelly):
            extra = relay.topics(self._settings.relay, self._settings.device)
        return (*self._reader.topics(), *extra)

    def _listen(self, topics: tuple[str, ...]) -> None:
        session = Session(
            self._settings.host,
            self._settings.port,
            f"peergrid-{secrets.token_hex(6)}",
            self._inbox,
            subscriptions=topics,
            login=self._login,
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
            if new := set(self._topics()) - topics:  # announced by the device itself
                topics |= new
                self._listen(tuple(new))

    # What it hears

    def _hear(self, incoming: Incoming) -> None:
        try:
            self._take(incoming)
        except PayloadError as error:
            self._tell_once(f"{incoming.topic}: {error}")

    def _take(self, incoming: Incoming) -> None:
        device, switched = self._settings.device, self._settings.relay
        if switched is not None and isinstance(device, Tasmota | Shelly):
            on = relay.state(switched, device, incoming.payload)
            if on is not None and not incoming.retained:
                self._relay_on = on
                self._news.set()
            if incoming.topic in relay.topics(switched, device):
                return
        if (
            self._pages is not None
            and isinstance(device, Shelly)
            and self._turn_page(device, incoming.payload)
        ):
            return
        heard = self._reader.hear(incoming.topic, incoming.payload)
        if incoming.retained or not (heard.counters or heard.powers):
            return  # what the broker kept may be of any age
        period_s = device.period_s
        self._known = fold.learn(self._known, heard, self._now(), period_s)
        self._tell_of_its_clock()
        sample = fold.counted(self._known, self._reader, self._settings.invert)
        if sample is None and self._settings.estimate:
            sample = fold.estimated(self._known, self._settings.invert)
        if sample is None:
            self._problem = "it has not told all its counters yet"
        elif period_s == 0 or self._state is None or sample.taken_at > self._state.taken_at:
            self._go_on(sample)
        self._news.set()

    def _go_on(self, sample: Sample) -> None:
        now_s = self._monotonic() - max(0.0, self._now() - sample.taken_at)
        elapsed_s = None if self._state_monotonic_s is None else now_s - self._state_monotonic_s
        outcome = accumulate(self._state, sample, self._settings.fuse_w, elapsed_s)
        if outcome.event is Event.SUSPECT:
            self._doubt = outcome.reason
            self._tell_once(f"{Event.SUSPECT.value}: {outcome.reason}")
        else:
            self._doubt = ""
            self._jumped = outcome.clock_jumped
            self._state_monotonic_s = now_s
            if outcome.event is Event.NEW_EPOCH:
                _log.warning("%s: %s (%s)", self.name, Event.NEW_EPOCH.value, outcome.reason)
        self._state = outcome.state
        step_wh = max(sample.imported.step_wh, sample.exported.step_wh)
        if outcome.event is Event.FIRST and step_wh >= _COARSE_WH:
            _log.info("%s: it counts in steps of %d Wh", self.name, step_wh)

    def _tell_of_its_clock(self) -> None:
        drift_s = self._known.drift_s
        if drift_s is not None and abs(drift_s) > fold.DRIFT_S_MAX and "clock" not in self._told:
            self._told.add("clock")
            _log.warning("%s: its clock is %+.0f s from ours", self.name, drift_s)

    def _tell_once(self, problem: str) -> None:
        """One line for a problem as long as it stays the same."""
        if problem != self._problem:
            self._problem = problem
            _log.warning("%s: %s", self.name, problem)

    # What it reads

    async def read(self, at: int) -> RegisterReading:
        """The registers; for a boundary long past from the device's own records, where it keeps some."""
        await self._wait(lambda: self._state is not None and self._state.taken_at >= at, ask=True)
        state = self._believed()
        if self._now() - at > TOLERANCE_S and state.taken_at > at:
            past = await self._from_its_records(state, at)
            if past is not None:
                return self._reading(past, Quality.MEASURED)
        if state.taken_at <= self._given:
            raise SourceError(f"{self.name}: nothing new since the last reading")
        estimated = self._jumped or not self._known.counters
        return self._reading(state, Quality.ESTIMATED if estimated else Quality.MEASURED)

    def _believed(self) -> State:
        state = self._state
        if self._doubt:
            raise SourceError(f"{self.name}: {Event.SUSPECT.value}: {self._doubt}")
        if state is None or not (self._known.counters or self._known.powers):
            raise SourceError(f"{self.name}: {self._problem or self._sessions[0].problem}")
        age_s = self._now() - state.taken_at
        if age_s > self._settings.stale_s:
            raise SourceError(f"{self.name}: last heard {age_s:.0f} s ago")
        return state

    def _reading(self, state: State, quality: Quality) -> RegisterReading:
        self._given = max(self._given, state.taken_at)
        integral = self._known.integral
        memory = {
            "state": json.loads(state.to_json()),
            "integral": None if integral.at is None else [integral.import_wh, integral.export_wh],
        }
        return RegisterReading(
            taken_at=state.taken_at,
            import_wh=state.imported.total_wh,
            export_wh=state.exported.total_wh,
            power_w=fold.export_w(self._known, self._settings.invert),
            quality=quality,
            epoch=state.epoch,
            memory=json.dumps(memory, separators=(",", ":")),
        )

    async def _from_its_records(self, state: State, at: int) -> State | None:
        device = self._settings.device
        drift_s = self._known.drift_s
        if (
            not isinstance(device, Shelly)
            or device.period_s == 0
            or drift_s is None
            or abs(drift_s) > fold.DRIFT_S_MAX
        ):
            return None
        if not all(at in minutes for minutes in self._stored.values()) or not self._stored:
            await self._ask_for_records(device, at, state.taken_at)
        raw_wh = self._reader.registers({name: value.value for name, value in self._known.counters.items()})
        if raw_wh is None or self._state is not state:
            return None
        return state_at(state, raw_wh, self._stored, at, self._settings.invert)

    async def _ask_for_records(self, device: Shelly, start: int, end: int) -> None:
        self._pages = _Pages({}, set(device.components))
        for component in device.components:
            self._send(device.history_request(component, start, end))
        await self._wait(lambda: self._pages is not None and not self._pages.open, ask=False)
        if not self._pages.open:
            self._stored = dict(self._pages.found)
        self._pages = None

    def _turn_page(self, device: Shelly, payload: bytes) -> bool:
        """Takes a page of the device's records; False where the payload is none."""
        assert self._pages is not None
        page = device.history(payload)
        if page is None:
            return False
        component, stretches, following = page
        self._pages.found.setdefault(component, {}).update({stretch.start: stretch for stretch in stretches})
        self._pages.pages += 1
        if following is None or self._pages.pages >= _PAGES_MAX or self._state is None:
            self._pages.open.discard(component)
        else:
            self._send(device.history_request(component, following, self._state.taken_at))
        self._news.set()
        return True

    async def _wait(self, done: Callable[[], bool], *, ask: bool) -> None:
        """Until ``done``, or for as long as a device may take to answer."""
        if done():
            return
        if ask:
            for message in self._reader.question():
                self._send(message)
        try:
            async with asyncio.timeout(ANSWER_S):
                while not done():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return

    def _send(self, message: Message) -> bool:
        return self._sessions[0].send(message)

    # What it switches

    def device(self) -> Pv | None:
        return None if self._settings.relay is None else self._settings.relay.generator

    async def apply(self, setpoint: Setpoint | None) -> None:
        switched, device = self._settings.relay, self._settings.device
        assert switched is not None
        assert isinstance(device, Tasmota | Shelly)
        on = switched.wanted(setpoint)
        hold_s = None
        if setpoint is not None and on != switched.wanted(None):
            hold_s = reverts_s(setpoint, self._now())
        for _ in range(2):
            self._relay_on = None
            for message in relay.switch(switched, device, on, hold_s):
                self._send(message)
            await self._wait(lambda: self._relay_on is on, ask=False)
            if self._relay_on is on:
                return
        told = "said nothing" if self._relay_on is None else "stayed as it was"
        raise SourceError(f"{self.name}: told to switch {'on' if on else 'off'}, the relay {told}")
