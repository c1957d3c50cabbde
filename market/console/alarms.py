"""What is not as it should be, from the database alone, and who has seen it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from market.console.market import Market
from market.service.store import batch_views, booked, views
from market.service.store.tables import TABLES

FOREVER = 2**62
LOOK_BACK_S = 7 * 86_400
"""Unless a period is asked for: this long before the newest interval."""
PENDING_S = 3600
"""A batch that is not final after this time on the market's clock is an alarm."""
ALARMS_MAX = 2000
_INTERVAL = re.compile(r"interval:(\d+)")
_MOMENT = re.compile(r"\d{9,10}")
TITLES = {
    "contradiction": "Meter contradicts itself",
    "flood": "Meter floods the market",
    "reading": "Impossible reading",
    "solver": "The solver gave no answer",
    "chain": "The chain does not settle",
    "clock": "The machine's clock was set",
    "balance": "Balance runs low",
    "network": "An interval lacks its network",
    "broker": "The broker is away",
    "offline": "Meter is offline",
    "registry": "Registry and members differ",
}


@dataclass(frozen=True)
class Alarm:
    """``subject`` names it for good; ``severity`` is alarm (act) or notice (know). ``seen`` is the
    acknowledgement.
    """

    subject: str
    severity: str
    title: str
    detail: str
    at: int
    link: str
    seen: Mapping[str, Any] | None


def utc(moment: int) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"


def places_of(connection: Connection) -> dict[str, str]:
    """Where meters stand, and the meters of a wallet, by address."""
    places: dict[str, list[str]] = {}
    for meter, owner, point in booked.households(connection).values():
        for address in (meter, owner):
            places.setdefault(address, []).append(point)
    return {address: ", ".join(points) for address, points in places.items()}


def _named(address: str, places: Mapping[str, str]) -> str:
    """A meter or a wallet as people know it."""
    short = f"{address[:8]}…{address[-4:]}"
    return f"{places[address]} ({short})" if address in places else short


def subject_in_words(subject: str, places: Mapping[str, str]) -> str:
    """What the log says that somebody acted on: an alarm's name is made for programs."""
    kind, *parts = subject.split(":")
    about = [
        utc(int(part)) if _MOMENT.fullmatch(part) else _named(part, places) if part[:2] == "0x" else part
        for part in parts
        if part != kind
    ]
    words = ", ".join(about).replace("interval, ", "interval of ")
    return f"{TITLES.get(kind, kind.capitalize())}: {words}" if parts else subject


def _covers(stop: Mapping[str, Any], start: int) -> bool:
    until = stop["until_start"]
    return bool(stop["first_start"] <= start and (until is None or start < until))


def chain_problems(books: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What does not agree in the contracts' books: a title and what is wrong."""
    if books is None:
        return []
    found = []
    supply, deposits, backing = books["supply_ueur"], books["deposits_ueur"], books["backing_ueur"]
    owed = supply + books["withdrawals_ueur"] + books["guarantee_ueur"]
    if supply != deposits:
        found.append(
            ("Supply is not deposits", f"{supply / 1e6:.6f} EUR of tokens for {deposits / 1e6:.6f} EUR.")
        )
    if backing < owed:
        found.append(
            ("Tokens are not backed", f"The escrow holds {backing / 1e6:.6f} EUR for {owed / 1e6:.6f}.")
        )
    if books["paused"]:
        found.append(("The escrow is paused", "No batch is settled; withdrawals that are due go on."))
    return found


def alarms_of(
    market: Market,
    connection: Connection,
    seen: Mapping[str, Mapping[str, Any]],
    period: tuple[int, int] | None = None,
) -> list[Alarm]:
    """All alarms of ``[since, until)``, those that nobody has seen before the others, the newest first."""
    span = views.span(connection)
    since, until = period or (max(0, span[1] - LOOK_BACK_S) if span else 0, FOREVER)
    found: list[Alarm] = []

    def add(subject: str, severity: str, title: str, detail: str, at: int, link: str) -> None:
        found.append(
            Alarm(subject, severity, title, detail, at, f"/f/{market.name}{link}", seen.get(subject))
        )

    stops = views.suspensions(connection, since, until)
    for row in stops:
        first, end = row["first_start"], row["until_start"]
        ahead = span is None or first > span[1]
        title = "Trading stops" if ahead else "Trading is suspended" if end is None else "No trading"
        ends = "somebody resumes it" if end is None else utc(end)
        severity = "alarm" if end is None else "notice"
        words = f"By an operator, from {utc(first)} until {ends}: {row['reason']}."
        add(f"suspension:{first}", severity, title, words, first, "/alarms")
    contested = [row for row in views.disputes(connection) if row["closed_at"] is None]
    for row in contested:
        words = f"{row['connection_point']}, interval of {utc(row['interval_start'])}: {row['reason']}."
        link = f"/intervals/{row['interval_start']}"
        add(f"dispute:{row['id']}", "alarm", "Household disputes", words, row["opened_at"], link)
    for row in views.troubles(connection, since, until):
        start = row["interval_start"]
        link = f"/intervals/{start}"
        stopped = any(_covers(stop, start) for stop in stops)
        if row["status"] == "SUSPENDED" and not stopped:
            add(f"suspended:{start}", "alarm", "Interval suspended", f"{row['reason']}.", start, link)
        if row["state"] == "DISPUTED" and all(one["interval_start"] != start for one in contested):
            add(f"disputed:{start}", "alarm", "Interval disputed", "It waits for a decision.", start, link)
        if row["scheduled_violations"] and row["status"] != "SUSPENDED":
            words = f"{row['scheduled_violations']} limits broken by the schedule."
            add(f"schedule:{start}", "alarm", "Schedule breaks limits", words, start, link)
        if row["metered_violations"]:
            loading = row["loading_max_percent"]
            volts = f"{row['v_min_pu']:.3f} to {row['v_max_pu']:.3f} pu"
            count = row["metered_violations"]
            limits = "1 limit" if count == 1 else f"{count} limits"
            words = f"{limits} broken by what meters measured: loading up to {loading:.1f} %, {volts}."
            add(f"metered:{start}", "notice", "Limits broken by metered energy", words, start, link)
        if row["incomplete"]:
            count = row["incomplete"]
            meters = "1 meter has" if count == 1 else f"{count} meters have"
            words = f"{meters} sent no reading yet; settlement is provisional."
            add(f"incomplete:{start}", "notice", "Readings missing", words, start, link)
    now = views.market_now(connection) or 0
    places = places_of(connection)
    for kind, subject, _first, last, count, detail in TABLES["alarms"].rows(connection, since, until):
        words = f"{detail} ({count} times)" if count > 1 else detail
        link = "/alarms"
        if subject.startswith("0x"):  # a household's wallet, else a meter
            link = "/households" if kind == "balance" else f"/meters/{subject}"
            words = f"{_named(subject, places)}: {words}"
        elif found_start := _INTERVAL.fullmatch(subject):
            link = f"/intervals/{found_start[1]}"
            words = words if kind == "network" else f"Interval of {utc(int(found_start[1]))}: {words}"
        severity = "notice" if kind == "balance" else "alarm"
        add(f"{kind}:{subject}:{last}", severity, TITLES.get(kind, kind.capitalize()), words, last, link)
    for sequence, made_at in batch_views.batches_waiting(connection, now - PENDING_S):
        words = "It is not final after an hour on the market's clock."
        add(f"batch:{sequence}", "alarm", f"Batch {sequence} is waiting", words, made_at, "/settlement")
    books = batch_views.chain_books(connection)
    for title, words in chain_problems(books):
        assert books is not None
        add(f"books:{title}:{books['block']}", "alarm", title, words, books["at"], "/settlement")
    for one in books["accounts"] if books else ():
        if one["debt_ueur"]:
            whose = one["connection_point"] or one["address"]
            words = f"{whose} owes {one['debt_ueur'] / 1e6:.2f} EUR to the guarantee: no orders until repaid."
            link = f"/households/{one['meter']}" if one["meter"] else "/settlement"
            add(f"debt:{one['address']}", "alarm", "Household barred", words, now, link)
    found.sort(
        key=lambda alarm: (alarm.seen is not None, alarm.severity != "alarm", -alarm.at, alarm.subject)
    )
    return found[:ALARMS_MAX]
