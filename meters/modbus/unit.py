"""One unit on a line, read as its profile says."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from meters.modbus.decoding import Number, Span, encode, numbers, spans
from meters.modbus.line import ExceptionCodeError, Line, LineError
from meters.modbus.profile import Quantity, RegisterProfile, SunSpecProfile
from meters.modbus.profile import Value as ProfileValue
from meters.modbus.rates import Actuator
from meters.source import SourceError

_ILLEGAL_ADDRESS = 2
_BUSY = 6
_ATTEMPTS = 2


@dataclass(frozen=True)
class Poll:
    """What a unit said at ``taken_at`` (Unix s); ``moduli_wh`` is where its registers roll over.

    ``identity`` tells the device from another, "" where it does not. ``fetched`` is what was on the wire.
    """

    taken_at: int
    found: Mapping[Quantity, Number | None]
    moduli_wh: Mapping[Quantity, int]
    identity: str = ""
    fetched: Mapping[Span, Sequence[int] | None] = field(default_factory=dict)


class Unit(Protocol):
    """What is read and, where its profile says so, set."""

    @property
    def name(self) -> str: ...

    @property
    def profile(self) -> RegisterProfile | SunSpecProfile: ...

    async def poll(self) -> Poll:
        """Raises :class:`SourceError`."""

    async def obey(self, power_w: int | None, actuator: Actuator) -> None:
        """Have the device give ``power_w`` (into the grid), read it back; None releases it.

        Raises :class:`SourceError`.
        """


class RegisterUnit:
    """A unit with a profile of registers; ``now`` is the wall clock, Unix s."""

    def __init__(
        self, line: Line, profile: RegisterProfile, unit: int, now: Callable[[], float] = time.time
    ) -> None:
        self.name = f"{line.place} unit {unit}"
        self.profile = profile
        self._line = line
        self._unit = unit
        self._now = now
        self._spans = spans(profile)
        self._identity: str | None = None

    async def poll(self) -> Poll:
        fetched: dict[Span, Sequence[int] | None] = {}
        taken_at = 0
        try:
            for span in self._spans:
                fetched[span] = await self._fetch(span)
                taken_at = taken_at or int(self._now())  # energy comes first
            if self._identity is None:
                self._identity = await self._identify()
        except BaseException:
            self._identity = None  # what answers next may be another device
            raise
        registers = self.profile.registers
        moduli = {
            name: round(register.modulus * register.factor)
            for name, register in registers.items()
            if register.modulus is not None
        }
        return Poll(taken_at, numbers(self.profile, fetched), moduli, self._identity, fetched)

    async def obey(self, power_w: int | None, actuator: Actuator) -> None:
        control = self.profile.control
        if control is None:
            raise SourceError(f"{self.name}: its profile has no registers for setpoints")
        if power_w is not None:
            value = control.setpoint
            in_percent = value.unit == "%"
            wanted = power_w * 100 / actuator.rated_w if in_percent else power_w
            sign = 1 if value.positive == "export" else -1
            await self._put(value, encode(value, self.profile.order_of(value), round(sign * wanted)))
        if control.switch is not None:
            state = control.switch.inactive if power_w is None else control.switch.active
            register = ProfileValue(address=control.switch.address, type=control.switch.type, unit="W")
            await self._put(register, encode(register, self.profile.word_order, state))
        elif power_w is None:
            released = actuator.rated_w if control.device == "generator" else 0
            await self.obey(released, actuator)

    async def _put(self, value: ProfileValue, words: Sequence[int]) -> None:
        assert self.profile.control is not None
        await self._line.write(self._unit, value.address, words, self.profile.control.function)
        held = await self._line.read(self._unit, 3, value.address, len(words))
        if held != list(words):
            raise SourceError(
                f"{self.name}: 0x{value.address:04X} holds {held}, not the {list(words)} written"
            )

    async def _fetch(self, span: Span) -> list[int] | None:
        """None where the device refuses what only some devices have."""
        for attempt in range(_ATTEMPTS):
            try:
                return await self._line.read(self._unit, span.function, span.address, span.words)
            except ExceptionCodeError as error:
                if span.optional and error.code == _ILLEGAL_ADDRESS:
                    return None
                if error.code != _BUSY or attempt + 1 == _ATTEMPTS:
                    raise
            except LineError:
                if attempt + 1 == _ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    async def _identify(self) -> str:
        identity = self.profile.identity
        if identity is None:
            return ""
        try:
            words = await self._line.read(self._unit, identity.function, identity.address, identity.words)
        except LineError:
            return ""  # not every device of a type tells it; some are silent instead of refusing
        return "".join(f"{word:04X}" for word in words)
