"""Whose statements there are, and what a month is."""

from __future__ import annotations

import re
from calendar import month_name
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import Connection

from grid.errors import InputError
from market.service.clock import utc
from market.service.store import alarms, booked, intervals

_NOT_SETTLED = ("OPEN", "CLOSED", "CLEARED", "SUSPENDED", "METERED")


@dataclass(frozen=True)
class About:
    """An account and, of a household, its meter, its wallet and where it stands; ``alone`` unless other
    meters stand or stood there. ``warning`` is what its balance gives cause to say now.
    """

    account: str
    meter: str = ""
    owner: str = ""
    connection_point: str = ""
    alone: bool = True
    warning: str = ""

    @property
    def slug(self) -> str:
        """As it stands in file names: no two accounts have one."""
        place = re.sub(r"[^a-z0-9]+", "-", (self.connection_point or self.account).lower()).strip("-")
        return place if self.alone else f"{place}-{self.meter}"

    @property
    def title(self) -> str:
        return f"Household at {self.connection_point}" if self.meter else f"Account “{self.account}”"


@dataclass(frozen=True)
class Period:
    """A month: ``key`` as ``2026-10``, ``[since, until)`` in Unix seconds. ``waits_from`` is the first time
    in it that is not settled yet; None where all of it is.
    """

    key: str
    since: int
    until: int
    zone: ZoneInfo
    waits_from: int | None = None

    @property
    def words(self) -> str:
        year, month = self.key.split("-")
        return f"{month_name[int(month)]} {year}"

    def local(self, moment: int) -> datetime:
        return datetime.fromtimestamp(moment, self.zone)

    @property
    def unfinished(self) -> str:
        """What is to be said of a month that is not over, or waits for something."""
        if self.waits_from is None:
            return ""
        return f"unfinished: from {self.local(self.waits_from):%Y-%m-%d %H:%M} on not everything is settled"


def everybody(connection: Connection) -> list[About]:
    """All accounts, households by where they stand."""
    homes = booked.households(connection)
    warnings = alarms.standing(connection, "balance")
    at = Counter(point for _, _, point in homes.values())
    found = [
        About(
            account,
            *homes[account],
            alone=at[homes[account][2]] == 1,
            warning=warnings.get(homes[account][1], ""),
        )
        if account in homes
        else About(account)
        for account in booked.accounts(connection)
    ]
    return sorted(found, key=lambda one: (one.meter == "", one.connection_point, one.account))


def chosen(everyone: list[About], names: tuple[str, ...]) -> list[About]:
    """The accounts with these names; all where there is no name. Raises :class:`InputError`."""
    if not names:
        return everyone
    found = []
    for name in names:
        matches = [a for a in everyone if name.lower() in (a.account, a.meter, a.connection_point.lower())]
        if not matches:
            raise InputError.single("--account", "", name, "is no account, meter or connection point here")
        found += matches
    return found


def period_of(month: str | None, zone_name: str, span: tuple[int, int]) -> Period:
    """A month by its name, or that of the last interval; ``span`` is the first and the last one's start.
    Raises :class:`InputError`, also for a month that has none of them.
    """
    try:
        zone = ZoneInfo(zone_name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InputError.single("--zone", "", zone_name, "is no time zone, such as Europe/Berlin") from None
    text = month or f"{datetime.fromtimestamp(span[1], zone):%Y-%m}"
    found = re.fullmatch(r"(\d{4})-(0[1-9]|1[0-2])", text)
    if found is None or found[1] == "0000":
        raise InputError.single("--month", "", text, "is no month, such as 2026-10")
    year, number = int(found[1]), int(found[2])
    first = datetime(year, number, 1, tzinfo=zone)
    following = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=zone)
    period = Period(text, int(first.timestamp()), int(following.timestamp()), zone)
    if period.since > span[1]:
        raise InputError.single(
            "--month", "", text, f"has no interval yet: the last one starts {utc(span[1])}"
        )
    if period.until <= span[0]:
        raise InputError.single("--month", "", text, f"has no interval: the first one starts {utc(span[0])}")
    return period


def settled(connection: Connection, period: Period, last_start: int) -> Period:
    """The period, with what waits in it; ``last_start`` is that of the market's last interval."""
    end = last_start + 60 * booked.interval_minutes(connection)
    waiting = intervals.intervals_in(connection, *_NOT_SETTLED)
    times = [start for start in (*waiting, end) if period.since <= start < period.until]
    return replace(period, waits_from=min(times, default=None))
