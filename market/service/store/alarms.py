"""What went wrong with somebody's messages: evidence of contradictions, and an alarm each to be looked at.

Both are bounded: a meter that contradicts itself without end fills neither the disk nor the list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, select

from market.service.store import notices, schema

EVIDENCE_MAX = 200
"""Messages kept of one meter."""

AlarmKind = Literal[
    "contradiction",
    "flood",
    "reading",
    "solver",
    "chain",
    "clock",
    "balance",
    "network",
    "registry",
    "offline",
    "broker",
]


@dataclass(frozen=True, slots=True)
class Alarm:
    """How often something happened with one meter, and when on the market's clock."""

    kind: AlarmKind
    subject: str
    first_at: int
    last_at: int
    count: int
    detail: str


def raise_alarm(tx: Connection, at: int, kind: AlarmKind, subject: str, detail: str, count: int = 1) -> None:
    """Records it, and has operators told of it."""
    tx.exec_driver_sql(
        "INSERT INTO alarm (kind, subject, first_at, last_at, count, detail) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (kind, subject) DO UPDATE SET last_at = excluded.last_at,"
        " count = alarm.count + excluded.count, detail = excluded.detail",
        (kind, subject, at, at, count, detail),
    )
    notices.tell(tx, at, kind, subject, detail)


def clear(tx: Connection, kind: AlarmKind, subject: str) -> None:
    """What it told of is over."""
    tx.exec_driver_sql("DELETE FROM alarm WHERE kind = ? AND subject = ?", (kind, subject))


def standing(connection: Connection, kind: AlarmKind) -> dict[str, str]:
    """What alarms of a kind say now, by subject."""
    table = schema.alarm
    rows = connection.execute(select(table.c.subject, table.c.detail).where(table.c.kind == kind))
    return {row.subject: row.detail for row in rows}


def alarms(connection: Connection) -> list[Alarm]:
    """All alarms, the latest first."""
    table = schema.alarm
    rows = connection.execute(select(table).order_by(table.c.last_at.desc(), table.c.kind, table.c.subject))
    return [Alarm(**row._asdict()) for row in rows]


def add_evidence(
    tx: Connection, at: int, meter: str, digest: bytes, topic: str, payload: bytes, reason: str
) -> None:
    """Keeps a signed message that contradicts a stored one (once, however often it comes) and raises the
    alarm.
    """
    tx.exec_driver_sql(
        "INSERT INTO evidence (received_at, meter, digest, topic, payload, reason)"
        " SELECT ?, ?, ?, ?, ?, ? WHERE (SELECT COUNT(*) FROM evidence WHERE meter = ?) < ?"
        " ON CONFLICT DO NOTHING",
        (at, meter, digest, topic, payload, reason, meter, EVIDENCE_MAX),
    )
    raise_alarm(tx, at, "contradiction", meter, reason)
