"""What an adapter is: settings that say what to listen to, and a pure reading of what is heard.

An adapter turns one payload into :class:`Heard`: counters in Wh, powers in W, both exact decimals as the
device wrote them. It does no I/O and keeps no clock; what a sequence of messages comes to is
:mod:`meters.adapters.fold`'s, connections are :mod:`meters.adapters.source`'s.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from meters.mqtt import Message

PAYLOAD_BYTES_MAX = 65_536
_SHOWN_CHARS_MAX = 60
_DIGITS_MAX = 15
_FINEST = Decimal("1e-9")
_PLAIN_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d{1,18})?\Z", re.ASCII)

Flow = Literal["import", "export"]
Counter = tuple[Flow, str]
"""A register of the device: the flow it counts, and which of several (a channel, a tariff, a phase)."""

Topic = Annotated[str, Field(pattern=r"^[^+#\x00]+$", max_length=200)]
TopicFilter = Annotated[
    str, Field(pattern=r"^([^+#\x00/]+|\+)?(/([^+#\x00/]+|\+)?)*$", min_length=1, max_length=200)
]

ENERGY_UNITS = {"Wh": Decimal("1"), "kWh": Decimal("1E3"), "MWh": Decimal("1E6")}
"""Wh in a unit, as powers of ten: a product keeps the resolution of what was written (2173.5 kWh: 100 Wh)."""
POWER_UNITS = {"W": Decimal("1"), "kW": Decimal("1E3")}
"""W in a unit."""


class PayloadError(ValueError):
    """A payload that tells nothing: one line that says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Clock:
    """What the device's own clock said, Unix s; ``zone_known`` is False where it told local time only."""

    unix_s: float
    zone_known: bool


@dataclass(frozen=True, slots=True)
class Heard:
    """What one payload said: ``counters`` in Wh, ``powers`` in W with consumption positive.

    ``whole`` is True where it tells all counters of the device, False for a part of them.
    """

    counters: Mapping[Counter, Decimal] = field(default_factory=dict)
    powers: Mapping[str, Decimal] = field(default_factory=dict)
    clock: Clock | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Stretch:
    """Energy that the device itself stored for ``[start, end)``, Unix s on its clock, in Wh."""

    start: int
    end: int
    import_wh: Decimal
    export_wh: Decimal


class Reader(Protocol):
    """Reads what one device says."""

    def topics(self) -> tuple[str, ...]:
        """Topic filters to hear."""

    def hear(self, topic: str, payload: bytes) -> Heard:
        """What ``payload`` says (:class:`PayloadError` where it cannot be believed)."""

    def question(self) -> tuple[Message, ...]:
        """What makes the device tell its counters now; nothing where it cannot be asked."""

    def registers(self, counters: Mapping[Counter, Decimal]) -> tuple[Decimal, Decimal] | None:
        """(import, export) in Wh from the counters heard so far; None while some are still missing."""


class Adapter(BaseModel):
    """What a user says of a device; the kinds in :data:`meters.adapters.AnyAdapter` narrow ``adapter``."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    adapter: str

    @property
    def period_s(self) -> int:
        """Counters stand still between multiples of it (Unix s); 0 where they always move."""
        return 0

    @property
    def counts(self) -> bool:
        """Whether it counts energy; one that does not tells power only."""
        return True

    @abstractmethod
    def topics(self) -> tuple[str, ...]:
        """Topic filters to begin with."""
        raise NotImplementedError

    @abstractmethod
    def reader(self) -> Reader:
        """A new reader for the device."""
        raise NotImplementedError


class Plain(Adapter):
    """A device whose payloads speak for themselves: its settings are its reader."""

    def reader(self) -> Reader:
        return self

    @abstractmethod
    def hear(self, topic: str, payload: bytes) -> Heard:
        raise NotImplementedError

    def question(self) -> tuple[Message, ...]:
        return ()

    def registers(self, counters: Mapping[Counter, Decimal]) -> tuple[Decimal, Decimal] | None:
        return sum_of(counters, "import"), sum_of(counters, "export")


def sum_of(counters: Mapping[Counter, Decimal], flow: Flow) -> Decimal:
    return sum((value for (counted, _), value in counters.items() if counted == flow), Decimal(0))


# Reading payloads


def json_of(payload: bytes) -> Any:
    """The JSON in ``payload``, numbers as exact decimals."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise PayloadError(f"{len(payload)} bytes are more than the {PAYLOAD_BYTES_MAX} that are read")
    try:
        return json.loads(payload, parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, ArithmeticError, RecursionError):
        raise PayloadError(f"{shown(text_of(payload))} is not JSON") from None


def object_of(payload: bytes) -> dict[str, Any]:
    """The JSON object in ``payload``."""
    found = json_of(payload)
    if not isinstance(found, dict):
        raise PayloadError(f"{shown(found)} is not a JSON object")
    return found


def text_of(payload: bytes) -> str:
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise PayloadError(f"{len(payload)} bytes are more than the {PAYLOAD_BYTES_MAX} that are read")
    return payload.decode("utf-8", errors="replace")


def number(value: object, where: str) -> Decimal:
    """``value``, a JSON number or the text of one, as a decimal."""
    if isinstance(value, str) and _PLAIN_NUMBER.match(value.strip()):
        value = Decimal(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise PayloadError(f"{where}: {shown(value)} is not a number")
    exact = Decimal(value)
    if not exact.is_finite() or exact.adjusted() >= _DIGITS_MAX:
        raise PayloadError(f"{where}: {shown(value)} is beyond any meter")
    exponent = exact.as_tuple().exponent
    assert isinstance(exponent, int)
    return exact if exponent >= -9 else exact.quantize(_FINEST, rounding=ROUND_DOWN)


def energy_wh(value: object, unit: str, where: str) -> Decimal:
    """A counter in Wh: never negative."""
    found = number(value, where)
    if found < 0:
        raise PayloadError(f"{where}: {shown(value)} is negative, which no counter is")
    return found * ENERGY_UNITS[unit]


def power_w(value: object, unit: str, where: str) -> Decimal:
    return number(value, where) * POWER_UNITS[unit]


def clock_of(text: object) -> Clock | None:
    """The moment in an ISO 8601 text; local time without a zone is kept as if it were UTC, and says so."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            return Clock(moment.replace(tzinfo=UTC).timestamp(), zone_known=False)
        return Clock(moment.timestamp(), zone_known=True)
    except (ValueError, OverflowError):
        return None


def unix_clock(value: object) -> Clock | None:
    """The moment of Unix seconds; None where the device does not know the time (null, 0, nonsense)."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 < value < 2**40:
        return None
    return Clock(float(value), zone_known=True)


def shown(value: object) -> str:
    """``value`` in one line of bounded length, for messages."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, nesting without end
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN_CHARS_MAX else text[: _SHOWN_CHARS_MAX - 1] + "…"


def _no_number(name: str) -> Decimal:
    raise ValueError(name)
