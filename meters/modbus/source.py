"""A Modbus meter as what an agent reads: settings, polling, energy that only rises, setpoints."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from grid.errors import InputError
from market.messages.models import Quality
from meters.household.devices import Battery, Pv
from meters.modbus.decoding import Number
from meters.modbus.energy import Event, RawRegister, Sample, State, accumulate
from meters.modbus.line import TIMEOUT_S, Line, parse_place
from meters.modbus.plausibility import implausible, swapped
from meters.modbus.profile import Part, Quantity, RegisterProfile, Serial, SunSpecProfile, find_profile
from meters.modbus.rates import RAMP_S_MAX, Actuator, ramp, reverts_s, wanted_w
from meters.modbus.sunspec import SunSpecUnit
from meters.modbus.unit import Poll, RegisterUnit, Unit
from meters.source import RegisterReading, Setpoint, Source, SourceError, SourceSettings, Surroundings
from meters.strategies.interface import BatteryNow

_BACKOFF_FIRST_S = 1.0
_BACKOFF_MAX_S = 60.0

_log = logging.getLogger(__name__)


class PvSettings(Part):
    """A generator that the device can limit: ``rated_w``, and what producing costs, µEUR/kWh."""

    rated_w: Annotated[int, Field(gt=0)]
    price: Annotated[int, Field(ge=0)] = 0


class BatterySettings(Part):
    """A battery that the device can charge and discharge."""

    capacity_wh: Annotated[int, Field(gt=0)]
    power_w: Annotated[int, Field(gt=0)]
    efficiency: Annotated[float, Field(gt=0, le=1)] = 0.9


class ModbusSourceSettings(SourceSettings):
    """A meter (or inverter) on Modbus."""

    kind: Literal["modbus"]
    url: str
    """``tcp://192.0.2.7:502`` or ``rtu:///dev/ttyUSB0``."""
    profile: str
    """A name from ``peergrid meter profiles``, or the path of a YAML file of your own."""
    unit: Annotated[int, Field(ge=0, le=255)] | None = None
    """The unit id; default: the one that the device is delivered with."""
    invert: bool = False
    """The meter is mounted the other way round: what it calls import is export."""
    invert_power: bool = False
    """Only the sign of its power is the other way round."""
    timeout_s: Annotated[float, Field(gt=0, le=5)] = TIMEOUT_S
    baud: Annotated[int, Field(ge=300, le=1_000_000)] | None = None
    parity: Literal["N", "E", "O"] | None = None
    stop_bits: Literal[1, 2] | None = None
    pv: PvSettings | None = None
    battery: BatterySettings | None = None
    ramp_s: Annotated[int, Field(ge=0, le=RAMP_S_MAX)] = 0
    """Seconds over which a change of the setpoint is spread."""

    async def open(self, around: Surroundings) -> Source:
        profile = find_profile(self.profile, around.base)
        self._check_device(profile)
        place = parse_place(self.url)
        transport = "rtu" if place.device else "tcp"
        if transport not in profile.transports and transport == "rtu":
            raise InputError.single("url", "", self.url, f"is a serial line; {self.profile} has TCP only")
        serial = self._serial(profile)
        # Units on a serial bus take turns; over TCP each has a connection of its own and waits for nobody.
        key = ("modbus", place.device) if place.device else ("modbus", place, self._unit(profile))
        line: Line | None = around.shared.get(key)
        if line is None:
            line = around.shared[key] = Line(place, serial, self.timeout_s)
            around.stack.callback(line.close)
        elif line.serial != serial:
            told = f"{line.serial.baud} {line.serial.parity}{line.serial.stop_bits}"
            raise InputError.single("baud", "", serial.baud, f"but another meter on {place} has {told}")
        unit = make_unit(line, profile, self._unit(profile), around.now)
        return ModbusSource(self, unit, around.now, around.monotonic)

    def _unit(self, profile: RegisterProfile | SunSpecProfile) -> int:
        return profile.unit if self.unit is None else self.unit

    def _serial(self, profile: RegisterProfile | SunSpecProfile) -> Serial:
        told = {"baud": self.baud, "parity": self.parity, "stop_bits": self.stop_bits}
        return profile.serial.model_copy(update={name: value for name, value in told.items() if value})

    def _check_device(self, profile: RegisterProfile | SunSpecProfile) -> None:
        if self.pv is not None and self.battery is not None:
            raise InputError.single("battery", "", "given", "together with pv: one of them obeys")
        control = profile.control
        can = control if control is None or isinstance(control, str) else control.device
        for name, device in (("pv", "generator"), ("battery", "battery")):
            if getattr(self, name) is not None and can != device:
                reason = f"but {self.profile} sets {f'a {can}' if can else 'nothing'}"
                raise InputError.single(name, "", "given", reason)


def make_unit(
    line: Line, profile: RegisterProfile | SunSpecProfile, unit: int, now: Callable[[], float] = time.time
) -> Unit:
    """The unit with that id on the line, read as the profile says."""
    if isinstance(profile, SunSpecProfile):
        return SunSpecUnit(line, profile, unit, now)
    return RegisterUnit(line, profile, unit, now)


class ModbusSource:
    """One unit: a :class:`meters.source.Source`. ``monotonic`` is a clock that nobody sets."""

    def __init__(
        self,
        settings: ModbusSourceSettings,
        unit: Unit,
        now: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"{unit.name} ({settings.profile})"
        self._settings = settings
        self._unit = unit
        self._now = now
        self._monotonic = monotonic
        self._state: State | None = None
        self._believed_s: float | None = None
        self._rests_until_s = 0.0
        self._backoff_s = 0.0
        self._charge_percent: float | None = None
        self._counts_import = True
        self._power_w = 0
        self._coarse = False

    def restore(self, memory: str) -> None:
        self._state = State.from_json(memory)

    async def read(self, at: int) -> RegisterReading:
        """The device has no memory of boundaries: it is read now, whatever ``at`` is."""
        now_s = self._monotonic()
        if now_s < self._rests_until_s:
            raise SourceError(
                f"{self.name}: did not answer; asked again in {self._rests_until_s - now_s:.0f} s"
            )
        try:
            poll = await self._unit.poll()
        except SourceError:
            self._backoff_s = min(max(_BACKOFF_FIRST_S, 2 * self._backoff_s), _BACKOFF_MAX_S)
            self._rests_until_s = self._monotonic() + self._backoff_s
            raise
        self._backoff_s = 0.0
        return self._reading(poll)

    def device(self) -> Pv | BatteryNow | None:
        if self._settings.pv is not None:
            return Pv(float(self._settings.pv.rated_w), self._settings.pv.price)
        battery = self._settings.battery
        if battery is None or self._charge_percent is None or not self._counts_import:
            # What is in it nobody knows, or what it took: that cannot be traded.
            return None
        known = Battery(float(battery.capacity_wh), float(battery.power_w), battery.efficiency)
        return BatteryNow(known, battery.capacity_wh * self._charge_percent / 100)

    async def apply(self, setpoint: Setpoint | None) -> None:
        actuator = self._actuator(setpoint)
        wanted = wanted_w(setpoint, actuator)
        if wanted is None:
            await self._unit.obey(None, actuator)
            return
        steps = ramp(actuator.limited(self._power_w), wanted, actuator.ramp_s)
        for step, power_w in enumerate(steps):
            if step:
                await asyncio.sleep(1)
            await self._unit.obey(power_w, actuator)

    def _actuator(self, setpoint: Setpoint | None) -> Actuator:
        pv, battery = self._settings.pv, self._settings.battery
        assert pv is not None or battery is not None
        return Actuator(
            device="generator" if pv is not None else "battery",
            rated_w=pv.rated_w if pv is not None else battery.power_w if battery is not None else 0,
            ramp_s=self._settings.ramp_s,
            reverts_s=0 if setpoint is None else reverts_s(setpoint, self._now()),
        )

    def _reading(self, poll: Poll) -> RegisterReading:
        self._check(poll)
        sample, coarse = self._sample(poll)
        now_s = self._monotonic()
        elapsed_s = None if self._believed_s is None else now_s - self._believed_s
        outcome = accumulate(self._state, sample, self._settings.fuse_w, elapsed_s)
        self._state = outcome.state
        if outcome.event is Event.SUSPECT:
            raise SourceError(f"{self.name}: {outcome.reason}: {outcome.event.value}")
        self._believed_s = now_s
        if outcome.event in (Event.NEW_EPOCH, Event.ROLLED_OVER):
            _log.warning("%s: %s %s", self.name, outcome.event.value, outcome.reason)
        if outcome.clock_jumped:
            _log.warning("%s: the clock of this machine was set; the reading is marked", self.name)
        if coarse and not self._coarse:
            _log.warning("%s: its float register no longer holds every Wh; readings are marked", self.name)
        self._coarse = coarse
        charge = poll.found.get("charge_percent")
        self._charge_percent = None if charge is None else float(charge.value)
        self._power_w = self._power(poll)
        counts_import = poll.found.get("import_wh") is not None
        if self._settings.battery is not None and self._counts_import and not counts_import:
            _log.warning("%s: it does not count what it takes: its battery is not offered", self.name)
        self._counts_import = counts_import
        return RegisterReading(
            taken_at=poll.taken_at,
            import_wh=outcome.state.imported.total_wh,
            export_wh=outcome.state.exported.total_wh,
            power_w=self._power_w,
            quality=Quality.ESTIMATED if coarse or outcome.clock_jumped else Quality.MEASURED,
            epoch=outcome.state.epoch,
            memory=outcome.state.to_json(),
        )

    def _check(self, poll: Poll) -> None:
        """Refuses numbers that cannot be."""
        lines = implausible(poll.found, self._settings.fuse_w)
        if lines:
            profile = self._unit.profile
            turned = isinstance(profile, RegisterProfile) and swapped(
                profile, poll.fetched, self._settings.fuse_w
            )
            if turned:
                lines.append("the words look swapped")
            raise SourceError(f"{self.name}: {'; '.join(lines)}")

    def _sample(self, poll: Poll) -> tuple[Sample, bool]:
        """The registers, and whether a float among them has lost whole Wh."""
        imported, exported = self._register(poll, "import_wh"), self._register(poll, "export_wh")
        if self._settings.invert:
            imported, exported = exported, imported
        energies = (poll.found.get("import_wh"), poll.found.get("export_wh"))
        coarse = any(number is not None and number.floating and number.step > 1 for number in energies)
        return Sample(poll.taken_at, imported, exported, poll.identity), coarse

    def _register(self, poll: Poll, name: Quantity) -> RawRegister:
        """A register that the device does not have counts nothing; one that it had must not vanish."""
        number = poll.found.get(name)
        if number is None:
            if name in poll.found and self._had(name):
                raise SourceError(f"{self.name}: {name} reads as undefined")
            return RawRegister(0)
        return _raw(number, poll.moduli_wh.get(name))

    def _had(self, name: Quantity) -> bool:
        if self._state is None:
            return name == "import_wh"
        counts_import = (name == "import_wh") != self._settings.invert
        counter = self._state.imported if counts_import else self._state.exported
        return name == "import_wh" or counter.raw_wh > 0

    def _power(self, poll: Poll) -> int:
        power = poll.found.get("power_w")
        if power is None:
            return 0
        sign = -1 if self._settings.invert != self._settings.invert_power else 1
        return sign * round(power.value)


def _raw(number: Number, modulus_wh: int | None) -> RawRegister:
    return RawRegister(round(number.value), max(1, math.ceil(number.step)), modulus_wh)
