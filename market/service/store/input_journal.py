"""The append-only journal: every accepted message as it came, and every decision of clock and operator, in
the order in which they were accepted. The market's state follows from it alone (``peergrid replay``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, func, select

from market.service.store.schema import journal as table

Kind = Literal[
    "market",  # terms and members, when they are new
    "order",
    "reading",
    "open",  # a gate, with its tariff
    "close",
    "boundary",  # after the last gate: meters are read once more
    "clear",  # with the forecast of those without an order, and what was decided outside of the auction
    "meter",
    "post",
    "adjust",
    "waiting",  # the settled intervals that cannot be adjusted yet, whenever they are others
    "batch",  # of what was left over at the end
    "final",  # what the chain said
    "lost",  # a final batch that a reorganisation took off the chain
    "standing",  # what the chain said of deposits and debts: what orders were judged by
    "instruction",
]
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """``subject`` is a meter or the start of an interval, ``detail`` which part of a message counts."""

    at: int
    kind: Kind
    subject: str
    body: bytes
    detail: str = ""

    def document(self) -> dict[str, Any]:
        """A decision's content."""
        document: dict[str, Any] = json.loads(self.body)
        return document


def decision(
    at: int, kind: Kind, start: int | None = None, content: Mapping[str, Any] | None = None
) -> Entry:
    """An entry that the market made itself."""
    body = json.dumps(content or {}, separators=(",", ":"), sort_keys=True).encode()
    return Entry(at, kind, "" if start is None else str(start), body)


def add(tx: Connection, *entries: Entry) -> None:
    add_all(tx, entries)


def add_all(tx: Connection, entries: Iterable[Entry]) -> None:
    rows = [(e.at, e.kind, e.subject, e.body, e.detail) for e in entries]
    if rows:
        tx.exec_driver_sql(
            "INSERT INTO journal (at, kind, subject, body, detail) VALUES (?, ?, ?, ?, ?)", rows
        )


def entries(connection: Connection) -> Iterator[Entry]:
    """All of it, in order."""
    last = 0
    while rows := connection.execute(
        select(table).where(table.c.id > last).order_by(table.c.id).limit(_ROWS_AT_ONCE)
    ).all():
        yield from (Entry(row.at, row.kind, row.subject, row.body, row.detail) for row in rows)
        last = rows[-1].id


def newest(connection: Connection, kind: Kind) -> Entry | None:
    row = connection.execute(
        select(table).where(table.c.kind == kind).order_by(table.c.id.desc()).limit(1)
    ).one_or_none()
    return None if row is None else Entry(row.at, row.kind, row.subject, row.body, row.detail)


def unsettled_readings_from(connection: Connection) -> int | None:
    """The earliest time that readings tell of which may not have been looked at by a settlement; None where
    there are none.

    A settlement takes what came until it began, posts its own interval and then adjusts earlier ones: where
    the process ended in between, that is to be done again, and what it took may have come before the entry
    of the settlement before it was written.
    """
    settled = (
        select(table.c.id)
        .where(table.c.kind == "post")
        .order_by(table.c.id.desc())
        .offset(2)
        .limit(1)
        .scalar_subquery()
    )
    bodies = connection.execute(
        select(table.c.body).where(table.c.kind == "reading", table.c.id > func.coalesce(settled, 0))
    ).scalars()
    messages = map(json.loads, bodies)
    times = [entry["taken_at"] for message in messages for entry in message.get("readings", [message])]
    return min(times, default=None)


def last_at(connection: Connection) -> int | None:
    """The latest that the market's clock is known to have shown."""
    newest = select(table.c.at).order_by(table.c.id.desc()).limit(_ROWS_AT_ONCE).subquery()
    at: int | None = connection.execute(select(func.max(newest.c.at))).scalar()
    return at


def has(document: Mapping[str, Any], entry: Entry | None) -> bool:
    """Whether an entry says exactly this."""
    return entry is not None and entry.document() == document
