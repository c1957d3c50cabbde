"""``peergrid status``: every interval that is not final, and what else waits."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grid.errors import InputError

if TYPE_CHECKING:
    from sqlalchemy import Connection

_LINES_MAX = 12
_SPANS_MAX = 5


@click.command("status")
@click.argument("place")
@click.option("--ready", is_flag=True, help="Exit status 1 unless all markets run and have what they need.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(place: str, ready: bool, as_json: bool) -> int:
    """Show the intervals that are not final of the markets of PLACE: a configuration or a database's file or
    URL. With --ready also what /readyz tells, without a console: for a monitor, or a timer.
    """
    from market.service.store import booked

    markets: list[dict[str, Any]] = []
    places: dict[str, str] = {}
    for database in databases_of(place):
        with looked_into(database) as connection:
            markets.append(status(connection, database))
            places |= booked.places(connection)
        if ready:
            markets[-1]["lacks"] = lacks(database)
    if as_json:
        click.echo(json.dumps({"markets": markets}))
    else:
        for market in markets:
            show(market, places)
    return int(any(market.get("lacks") for market in markets))


def lacks(database: Path | str) -> dict[str, str]:
    """What a market does not have that it needs, and why, by name of the part."""
    from market.console.market import Market
    from market.console.readiness import readiness

    market = Market(database)
    try:
        found = readiness(market, time.time())
    finally:
        market.close()
    if found is None:
        return {"market": "never ran on the wall clock"}
    return {check.name: check.detail for check in found.checks if not check.ok}


def databases_of(place: str) -> list[Path | str]:
    """The databases of a configuration, or the one that is named by file or URL."""
    from market.cli.service_config import read_service

    databases: list[Path | str] = [place if "://" in place else Path(place)]
    if place.endswith(".toml"):
        config = read_service(Path(place))
        base = Path(place).resolve().parent
        databases = [config.database_of(market, base) for market in config.markets]
    for database in databases:
        if isinstance(database, Path) and not database.is_file():
            raise InputError.single(place, "database", str(database), "is not there: run the market first")
    return databases


def database_at(place: str, feeder: str | None) -> Path | str:
    """The one database of PLACE, or that of ``feeder``. Raises :class:`InputError` where that is not one."""
    from market.service.store import money

    found = {}
    for database in databases_of(place):
        with looked_into(database) as connection:
            found[money.market_of(connection)] = database
    if feeder is None and len(found) > 1:
        raise InputError.single("--feeder", "", None, f"is needed: one of {', '.join(found)}")
    chosen = feeder or next(iter(found))
    if chosen not in found:
        raise InputError.single("--feeder", "", chosen, f"is none of {', '.join(found)}")
    return found[chosen]


@contextmanager
def looked_into(database: Path | str) -> Iterator[Connection]:
    """A view of a database that writes nothing: it tells how a market stands whose disk is full, too."""
    from market.service.store.readonly import StoredMarket

    with StoredMarket(database) as market, market.reading() as connection:
        yield connection


def status(connection: Connection, database: Path | str) -> dict[str, Any]:
    """As JSON values; times are Unix seconds."""
    from market.cli.effects import effects
    from market.service.store import (
        disputes,
        health,
        input_journal,
        instructions,
        intervals,
        leases,
        money,
        terms,
    )

    lease = leases.current(connection)
    suspension = terms.standing_suspension(connection)
    last_at = input_journal.last_at(connection)
    return {
        "feeder": money.market_of(connection),
        "database": str(database),
        "held_by": lease.holder if lease else "",
        "runs": leases.is_held(lease),
        "last_at": last_at,
        "away": {
            part.part: {"since": part.since, "detail": part.detail}
            for part in health.parts(connection).values()
            if not part.ok
        },
        "suspended_since": suspension[0] if suspension else None,
        "suspended_because": suspension[1] if suspension else None,
        "coming": [one._asdict() for one in sorted(effects(connection)) if one.at > (last_at or 0)],
        "intervals": [
            {
                "interval_start": one.interval_start,
                "state": one.state,
                "closes_at": one.closes_at,
                "incomplete": one.incomplete,
                "revision": one.revision,
            }
            for one in intervals.not_final(connection)
        ],
        "batches_pending": [batch.sequence for batch in money.pending_batches(connection)],
        "disputes_open": [
            {"id": d.id, "interval_start": d.interval_start, "meter": d.meter, "reason": d.reason}
            for d in disputes.everything(connection)
            if d.closed_at is None
        ],
        "instructions_waiting": [one.id for one in instructions.waiting(connection)],
    }


def show(market: dict[str, Any], places: Mapping[str, str]) -> None:
    """Says it in words; ``places`` is where meters stand."""
    from market.cli.effects import Effect, brief

    click.echo(f"{market['feeder']}  {market['database']}")
    for part, why in market.get("lacks", {}).items():
        click.echo(f"  not ready: {part}: {why}")
    click.echo(f"  {_who_runs(market)}; last entry at {_time(market['last_at'])}")
    for part, why in market["away"].items() if market["runs"] and "lacks" not in market else ():
        click.echo(f"  trouble with the {part} since {_time(why['since'])}: {why['detail']}")
    if market["suspended_since"] is not None:
        click.echo(f"  suspended since {_time(market['suspended_since'])}: {market['suspended_because']}")
    for line in interval_lines(market["intervals"]):
        click.echo(f"  {line}")
    if batches := market["batches_pending"]:
        click.echo(f"  {numbered('batch', 'batches', batches)} pending")
    if waiting := market["instructions_waiting"]:
        click.echo(f"  {numbered('instruction', 'instructions', waiting)} waiting for the market")
    for dispute in market["disputes_open"]:
        start, meter = _time(dispute["interval_start"]), dispute["meter"]
        place = f"{places[meter]} ({meter})" if meter in places else meter
        click.echo(f"  dispute {dispute['id']}: {place} at {start}: {dispute['reason']}")
    for line in brief(Effect(**one) for one in market["coming"]):
        click.echo(f"  from {line}")


def numbered(one: str, many: str, numbers: list[int]) -> str:
    """How many there are of something that has numbers, and which: those that follow each other as a span."""
    if len(numbers) == 1:
        return f"1 {one} (number {numbers[0]})"
    spans = []
    for _, alike in groupby(enumerate(sorted(numbers)), key=lambda place: place[1] - place[0]):
        found = [number for _, number in alike]
        spans.append(str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}")
    if len(spans) > _SPANS_MAX:
        spans[_SPANS_MAX - 1 : -1] = ["…"]
    return f"{len(numbers)} {many} ({', '.join(spans)})"


def interval_lines(intervals: list[dict[str, Any]]) -> list[str]:
    """A line each; of many, those of one state that follow each other share one."""
    if not intervals:
        return ["no interval waits for anything"]
    if len(intervals) <= _LINES_MAX:
        return [" ".join((_time(one["interval_start"]), one["state"], *_notes([one]))) for one in intervals]
    lines = []
    for state, alike in groupby(intervals, key=lambda one: one["state"]):
        found = list(alike)
        first, last = found[0]["interval_start"], found[-1]["interval_start"]
        span = _time(first) if first == last else f"{_time(first)} to {_time(last)}"
        count = [f"({len(found)} intervals)"] if len(found) > 1 else []
        lines.append(" ".join((span, state, *count, *_notes(found))))
    return lines


def _notes(intervals: list[dict[str, Any]]) -> list[str]:
    unread, adjusted = (sum(one[name] > 0 for one in intervals) for name in ("incomplete", "revision"))
    notes = []
    if len(intervals) == 1:
        (one,) = intervals
        if unread:
            notes.append(f"{one['incomplete']} meter{'s' if one['incomplete'] > 1 else ''} to be read")
        if adjusted:
            notes.append(f"revision {one['revision']}")
    else:
        if unread:
            notes.append(f"{unread} with meters to be read")
        if adjusted:
            notes.append(f"{adjusted} revised")
    return [", ".join(notes)] if notes else []


def _who_runs(market: dict[str, Any]) -> str:
    machine, _, process = market["held_by"].partition(" ")
    who = f"process {process.partition(' ')[0]} on {machine.partition('/')[0]}"
    if market["runs"]:
        return f"run by {who}"
    return f"nobody runs it: {who} has ended" if machine else "nobody runs it"


def _time(moment: int | None) -> str:
    from market.service.clock import utc

    return "never" if moment is None else utc(moment)
