"""The interval state machine (rule 12 of design section 3) and what clearing and metering left behind.

``OPEN → CLOSED → CLEARED | SUSPENDED → METERED → SETTLED → FINAL``, and DISPUTED from CLEARED on. A
reorganisation of the chain takes FINAL back to SETTLED.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from grid.errors import StoreError
from market.accounts.metering import Flag, Metered
from market.auction.book import Book
from market.auction.record import ClearingRecord
from market.messages.models import Award, Tariff
from market.service.store import schema

NEXT_STATES: Mapping[str | None, frozenset[str]] = {
    None: frozenset({"OPEN"}),
    "OPEN": frozenset({"CLOSED"}),
    "CLOSED": frozenset({"CLEARED", "SUSPENDED"}),
    "CLEARED": frozenset({"METERED", "DISPUTED"}),
    "SUSPENDED": frozenset({"METERED", "DISPUTED"}),
    "METERED": frozenset({"SETTLED", "DISPUTED"}),
    "SETTLED": frozenset({"FINAL", "DISPUTED"}),
    "FINAL": frozenset({"SETTLED", "DISPUTED"}),
    "DISPUTED": frozenset({"METERED", "SETTLED", "FINAL"}),
}

# Looked at every second: made once.
_NEWEST_START = select(func.max(schema.interval.c.interval_start))
_UNSETTLED = (
    select(schema.interval.c.interval_start, schema.interval.c.state)
    .where(schema.interval.c.state.in_(("OPEN", "CLOSED", "CLEARED", "SUSPENDED", "METERED")))
    .order_by(schema.interval.c.interval_start)
)


@dataclass(frozen=True, slots=True)
class StoredInterval:
    interval_start: int
    minutes: int
    opens_at: int
    closes_at: int
    state: str
    tariff: Tariff
    incomplete: int
    revision: int


@dataclass(frozen=True, slots=True)
class StoredClearing:
    book: Book
    record: ClearingRecord
    root: str


def open_interval(
    tx: Connection, *, interval_start: int, minutes: int, opens_at: int, closes_at: int, tariff: Tariff
) -> None:
    tx.execute(
        insert(schema.interval),
        {
            "interval_start": interval_start,
            "minutes": minutes,
            "opens_at": opens_at,
            "closes_at": closes_at,
            "state": "OPEN",
            "tariff": tariff.model_dump_json(),
        },
    )
    _note(tx, interval_start, "OPEN", opens_at, "")


def advance(tx: Connection, interval_start: int, state: str, at: int, reason: str = "") -> None:
    """Moves an interval to its next state; :class:`StoreError` where that is none."""
    table = schema.interval
    earlier = [name for name, later in NEXT_STATES.items() if name is not None and state in later]
    changed = tx.execute(
        update(table)
        .where(table.c.interval_start == interval_start, table.c.state.in_(earlier))
        .values(state=state)
    ).rowcount
    if changed != 1:
        found = tx.execute(select(table.c.state).where(table.c.interval_start == interval_start)).scalar()
        raise StoreError(f"interval {interval_start} cannot go from {found} to {state}")
    _note(tx, interval_start, state, at, reason)


def _note(tx: Connection, interval_start: int, state: str, at: int, reason: str) -> None:
    tx.exec_driver_sql(
        "INSERT INTO transition (interval_start, number, state, at, reason)"
        " SELECT ?, COUNT(*), ?, ?, ? FROM transition WHERE interval_start = ?",
        (interval_start, state, at, reason, interval_start),
    )


def state_of(connection: Connection, interval_start: int) -> str | None:
    """An interval's state, None before its gate opened."""
    table = schema.interval
    state: str | None = connection.execute(
        select(table.c.state).where(table.c.interval_start == interval_start)
    ).scalar_one_or_none()
    return state


def tariff_of(connection: Connection, interval_start: int) -> Tariff:
    """The prices that an interval's gate opened with."""
    table = schema.interval
    text = connection.execute(
        select(table.c.tariff).where(table.c.interval_start == interval_start)
    ).scalar_one()
    return Tariff.model_validate_json(text)


def intervals(connection: Connection) -> dict[int, StoredInterval]:
    """All intervals by their start, in order."""
    rows = connection.execute(select(schema.interval).order_by(schema.interval.c.interval_start))
    return {row.interval_start: _interval(row) for row in rows}


def _interval(row: Any) -> StoredInterval:
    return StoredInterval(**{**row._asdict(), "tariff": Tariff.model_validate_json(row.tariff)})


def not_final(connection: Connection) -> list[StoredInterval]:
    """All that is not done with, in order; final ones that a reading can still change are."""
    table = schema.interval
    others = [state for state in schema.INTERVAL_STATES if state != "FINAL"]
    rows = connection.execute(select(table).where(table.c.state.in_(others)).order_by(table.c.interval_start))
    return [_interval(row) for row in rows]


def intervals_in(connection: Connection, *states: str) -> dict[int, StoredInterval]:
    """The intervals in one of the states by their start, in order."""
    table = schema.interval
    rows = connection.execute(select(table).where(table.c.state.in_(states)).order_by(table.c.interval_start))
    return {row.interval_start: _interval(row) for row in rows}


_ADJUSTABLE = ("SETTLED", "FINAL", "DISPUTED")
"""What is held back of a contested interval stays so; all else of it goes on."""


def incomplete_intervals(connection: Connection, since: int = 0) -> list[int]:
    """Settled intervals that start at ``since`` or later and that a later reading can still change."""
    table = schema.interval
    rows = connection.execute(
        select(table.c.interval_start)
        .where(
            table.c.interval_start >= since,
            table.c.incomplete > 0,
            table.c.state.in_(_ADJUSTABLE),
        )
        .order_by(table.c.interval_start)
    )
    return list(rows.scalars())


def settled_between(connection: Connection, since: int, until: int) -> list[int]:
    """Settled intervals that start in ``[since, until)``, in order."""
    table = schema.interval
    rows = connection.execute(
        select(table.c.interval_start)
        .where(
            table.c.interval_start >= since,
            table.c.interval_start < until,
            table.c.state.in_(_ADJUSTABLE),
        )
        .order_by(table.c.interval_start)
    )
    return list(rows.scalars())


def revision_of(connection: Connection, interval_start: int) -> int:
    table = schema.interval
    revision: int = connection.execute(
        select(table.c.revision).where(table.c.interval_start == interval_start)
    ).scalar_one()
    return revision


def set_revision(tx: Connection, interval_start: int, revision: int) -> None:
    table = schema.interval
    tx.execute(update(table).where(table.c.interval_start == interval_start).values(revision=revision))


def newest_start(connection: Connection) -> int | None:
    """The last interval whose gate opened."""
    newest: int | None = connection.execute(_NEWEST_START).scalar()
    return newest


def first_uncleared(connection: Connection) -> int | None:
    """The first interval whose gate has opened and that is not cleared."""
    table = schema.interval
    first: int | None = connection.execute(
        select(func.min(table.c.interval_start)).where(table.c.state.in_(("OPEN", "CLOSED")))
    ).scalar()
    return first


def unsettled(connection: Connection) -> dict[int, str]:
    """The states of the intervals that are not settled yet, in order."""
    return {row.interval_start: row.state for row in connection.execute(_UNSETTLED)}


def set_settled(tx: Connection, interval_start: int, *, incomplete: int, revision: int) -> None:
    table = schema.interval
    tx.execute(
        update(table)
        .where(table.c.interval_start == interval_start)
        .values(incomplete=incomplete, revision=revision)
    )


def add_clearing(
    tx: Connection,
    interval_start: int,
    book: Book,
    record: ClearingRecord,
    root: str,
    without_network: Mapping[str, Any] | None,
) -> None:
    tx.execute(
        insert(schema.clearing),
        {
            "interval_start": interval_start,
            "status": record.status.upper(),
            "root": root,
            "book": book.model_dump_json(),
            "record": json.dumps(record.json_document(), separators=(",", ":")),
            "without_network": None
            if without_network is None
            else json.dumps(without_network, separators=(",", ":")),
        },
    )


def clearing(connection: Connection, interval_start: int) -> StoredClearing:
    table = schema.clearing
    row = connection.execute(
        select(*table.c["book", "record", "root"]).where(table.c.interval_start == interval_start)
    ).one()
    return StoredClearing(
        Book.model_validate_json(row.book), ClearingRecord.model_validate_json(row.record), row.root
    )


def clearing_documents(connection: Connection) -> list[dict[str, Any]]:
    """For the report: every clearing in order, its documents decoded (``None`` where there is none)."""
    rows = connection.execute(select(schema.clearing).order_by(schema.clearing.c.interval_start))
    documents = ("book", "record", "without_network", "delivered")
    return [
        {key: json.loads(value) if key in documents and value else value for key, value in row.items()}
        for row in rows.mappings()
    ]


def set_delivered(tx: Connection, interval_start: int, delivered: Mapping[str, Any]) -> None:
    table = schema.clearing
    tx.execute(
        update(table)
        .where(table.c.interval_start == interval_start)
        .values(delivered=json.dumps(delivered, separators=(",", ":")))
    )


def add_awards(tx: Connection, awards: Iterable[tuple[Award, int]]) -> None:
    """Awards with their net energy, Wh into the grid."""
    rows = [
        (award.interval_start, award.meter, net_wh, award.amount_neur, award.model_dump_json())
        for award, net_wh in awards
    ]
    if rows:
        tx.exec_driver_sql(
            "INSERT INTO award (interval_start, meter, net_wh, amount_neur, body) VALUES (?, ?, ?, ?, ?)",
            rows,
        )


def award_body(connection: Connection, interval_start: int, meter: str) -> str | None:
    """The JSON of one award."""
    table = schema.award
    body: str | None = connection.execute(
        select(table.c.body).where(table.c.interval_start == interval_start, table.c.meter == meter)
    ).scalar()
    return body


def awards_after(connection: Connection, meter: str, since: int) -> list[str]:
    """The JSON of a meter's awards for intervals that start after ``since``."""
    table = schema.award
    rows = connection.execute(
        select(table.c.body)
        .where(table.c.interval_start > since, table.c.meter == meter)
        .order_by(table.c.interval_start)
    )
    return list(rows.scalars())


def add_metered(
    tx: Connection, interval_start: int, revision: int, energies: Mapping[str, Metered | None]
) -> None:
    rows = [
        (
            interval_start,
            revision,
            meter,
            metered.import_wh if metered else None,
            metered.export_wh if metered else None,
            metered.flag if metered else Flag.MISSING,
        )
        for meter, metered in energies.items()
    ]
    if rows:
        tx.exec_driver_sql(
            "INSERT INTO metered (interval_start, revision, meter, import_wh, export_wh, flag)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            rows,
        )


def metered(connection: Connection, interval_start: int) -> dict[str, Metered | None]:
    """What the meters say of an interval, as last settled (or about to be)."""
    table = schema.metered
    newest = (
        select(func.max(table.c.revision)).where(table.c.interval_start == interval_start).scalar_subquery()
    )
    rows = connection.execute(
        select(*table.c["meter", "import_wh", "export_wh", "flag"])
        .where(table.c.interval_start == interval_start, table.c.revision == newest)
        .order_by(table.c.meter)
    )
    return {
        row.meter: None if row.import_wh is None else Metered(row.import_wh, row.export_wh, Flag(row.flag))
        for row in rows
    }
