"""Which units are on a line, which profile fits them, what they say and what is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from meters.modbus.line import ExceptionCodeError, Line, LineError
from meters.modbus.plausibility import diagnose, direction, implausible
from meters.modbus.profile import QUANTITIES, Quantity, RegisterProfile, SunSpecProfile
from meters.modbus.source import make_unit
from meters.modbus.unit import Poll
from meters.source import SourceError

Profiles = Mapping[str, RegisterProfile | SunSpecProfile]
_GATEWAY_CODES = (10, 11)
_UNITS = {
    "import_wh": "Wh",
    "export_wh": "Wh",
    "power_w": "W",
    "voltage_v": "V",
    "current_a": "A",
    "frequency_hz": "Hz",
    "charge_percent": "%",
}


@dataclass(frozen=True)
class Row:
    """One quantity: its number (None: not there) and whether it can be. ``power_w`` > 0 is export."""

    quantity: Quantity
    value: float | None
    unit: str
    plausible: bool


@dataclass(frozen=True)
class Look:
    """What a unit said, read by a profile; ``problems`` in plain words, empty if all looks right."""

    unit: int
    identity: str
    rows: tuple[Row, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Fit:
    """How well a profile fits a unit: ``sure`` where volts and hertz are right, else ``possible``."""

    profile: str
    how: Literal["sure", "possible"]


async def answers(line: Line, unit: int) -> bool:
    """Whether anybody of that number is there; a refusal is an answer, a gateway's is not."""
    try:
        await line.read(unit, 3, 0, 1)
    except ExceptionCodeError as error:
        return error.code not in _GATEWAY_CODES
    except LineError:
        return False
    return True


async def answering(line: Line, units: Iterable[int]) -> list[int]:
    """Those of ``units`` that are there, asked one after the other."""
    return [unit for unit in units if await answers(line, unit)]


async def fitting(line: Line, unit: int, profiles: Profiles, fuse_w: int) -> list[Fit]:
    """The profiles whose numbers make sense for that unit, the surest first."""
    transport = "rtu" if line.place.device else "tcp"
    fits = []
    for name, profile in profiles.items():
        if transport not in profile.transports and transport == "rtu":
            continue
        try:
            poll = await make_unit(line, profile, unit).poll()
        except SourceError:
            continue
        told = {quantity for quantity, number in poll.found.items() if number is not None and number.value}
        if implausible(poll.found, fuse_w) or not told:
            continue
        fits.append(Fit(name, "sure" if {"voltage_v", "frequency_hz"} <= told else "possible"))
    return sorted(fits, key=lambda fit: (fit.how != "sure", fit.profile))


async def look(
    line: Line, profile: RegisterProfile | SunSpecProfile, unit: int, fuse_w: int, pause_s: float
) -> Look:
    """Reads twice, ``pause_s`` apart, so that the direction of the counters can be told from the power's.

    Raises :class:`SourceError`.
    """
    device = make_unit(line, profile, unit)
    earlier = await device.poll()
    await asyncio.sleep(pause_s)
    poll = await device.poll()
    rows = []
    for quantity in QUANTITIES:
        if quantity not in poll.found:
            continue
        number = poll.found[quantity]
        plausible = not implausible({quantity: number}, fuse_w)
        value = None if number is None else float(number.value)
        rows.append(Row(quantity, value, _UNITS[quantity], plausible))
    return Look(unit, poll.identity, tuple(rows), tuple(_problems(profile, earlier, poll, fuse_w)))


def _problems(profile: RegisterProfile | SunSpecProfile, earlier: Poll, poll: Poll, fuse_w: int) -> list[str]:
    if isinstance(profile, RegisterProfile):
        return diagnose(profile, poll.fetched, fuse_w, earlier.found)
    return implausible(poll.found, fuse_w) + direction(poll.found, earlier.found)
