"""Prices that follow the time of use: which tariff an interval has, by the local clock at its start."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from market.messages.models import Tariff

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"([01]\d|2[0-3]):[0-5][05]-(([01]\d|2[0-3]):[0-5][05]|24:00)")


def _is_hours(text: str) -> str:
    if _HOURS.fullmatch(text) is None:
        raise ValueError("is no span of hours, such as 22:00-06:00, to five minutes")
    return text


Hours = Annotated[str, AfterValidator(_is_hours)]
"""``22:00-06:00`` goes over midnight, into the next day; to 5 minutes."""
_SLOT_MINUTES = 5
_SLOTS_A_DAY = 24 * 60 // _SLOT_MINUTES
_SLOTS = 7 * _SLOTS_A_DAY


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Band(_Part):
    """The tariff of some hours of some days; without ``hours``, of all that no other band has."""

    name: Annotated[str, Field(min_length=1, max_length=40)]
    days: Annotated[tuple[Day, ...], Field(strict=False, min_length=1)] = DAYS
    hours: Annotated[tuple[Hours, ...], Field(strict=False)] = ()
    tariff: Tariff

    def slots(self) -> list[int]:
        """Five minutes each, counted from Monday at midnight."""
        found = []
        for text in self.hours:
            begin, end = (_slot(clock) for clock in text.split("-"))
            length = (end - begin) % _SLOTS_A_DAY or _SLOTS_A_DAY
            for day in self.days:
                first = DAYS.index(day) * _SLOTS_A_DAY + begin
                found += [slot % _SLOTS for slot in range(first, first + length)]
        return found


class TimeOfUse(_Part):
    """A tariff for every moment of the week, by the clock of ``timezone`` (as ``Europe/Berlin``)."""

    timezone: str
    bands: Annotated[tuple[Band, ...], Field(strict=False, min_length=1)]

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is no time zone") from None
        return value

    @model_validator(mode="after")
    def _covers_the_week(self) -> Self:
        _week(self)
        return self

    def tariff_at(self, start: int) -> Tariff:
        """The tariff of the interval that starts at ``start``, Unix seconds."""
        return self.band_at(start).tariff

    def band_at(self, start: int) -> Band:
        local = datetime.fromtimestamp(start, ZoneInfo(self.timezone))
        minutes = (local.weekday() * 24 + local.hour) * 60 + local.minute
        return self.bands[_week(self)[minutes // _SLOT_MINUTES]]


Prices = Tariff | TimeOfUse
"""What stands from an interval on until it is changed."""


def tariff_at(prices: Prices, start: int) -> Tariff:
    return prices.tariff_at(start) if isinstance(prices, TimeOfUse) else prices


@cache
def _week(schedule: TimeOfUse) -> tuple[int, ...]:
    """The band of every slot of the week. Raises ``ValueError`` unless each has exactly one."""
    week: list[int | None] = [None] * _SLOTS
    rest = None
    for index, band in enumerate(schedule.bands):
        if not band.hours:
            if rest is not None or band.days != DAYS:
                raise ValueError(f"band {band.name!r} has no hours: only one band, of all days, is the rest")
            rest = index
        for slot in band.slots():
            if (other := week[slot]) is not None:
                raise ValueError(
                    f"{_moment(slot)} is in two bands: {schedule.bands[other].name}, {band.name}"
                )
            week[slot] = index
    found = [rest if index is None else index for index in week]
    if None in found:
        raise ValueError(f"{_moment(found.index(None))} is in no band")
    return tuple(index for index in found if index is not None)


def _slot(clock: str) -> int:
    hour, minute = clock.split(":")
    return (int(hour) * 60 + int(minute)) // _SLOT_MINUTES


def _moment(slot: int) -> str:
    day, rest = divmod(slot * _SLOT_MINUTES, 24 * 60)
    return f"{DAYS[day]} {rest // 60:02}:{rest % 60:02}"
