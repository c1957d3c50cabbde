"""How far each meter's readings are settled: what cumulative receipts say."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

Progress = tuple[int, bytes]
"""Every seq up to this one is stored or refused by name; the digest of the message that got there."""

Refused = tuple[str, int, int, bytes, str]
"""Meter, epoch, seq, digest, reason."""


def epochs(connection: Connection, per_meter_max: int) -> list[tuple[str, int]]:
    """The newest epochs of each meter, oldest first."""
    return [
        (meter, epoch)
        for meter, epoch in connection.exec_driver_sql(
            "SELECT meter, epoch FROM (SELECT meter, epoch, ROW_NUMBER() OVER (PARTITION BY meter"
            " ORDER BY epoch DESC) AS age FROM reading_progress) AS known"
            " WHERE age <= ? ORDER BY meter, epoch",
            (per_meter_max,),
        )
    ]


def of(connection: Connection, meter: str, epoch: int) -> Progress | None:
    row = connection.exec_driver_sql(
        "SELECT up_to, digest FROM reading_progress WHERE meter = ? AND epoch = ?", (meter, epoch)
    ).one_or_none()
    return (row[0], row[1]) if row else None


def ahead(connection: Connection, meter: str, epoch: int, up_to: int) -> dict[int, bytes]:
    """The digests of what is settled beyond a gap, by seq."""
    rows = connection.exec_driver_sql(
        "SELECT seq, digest FROM reading WHERE meter = ? AND epoch = ? AND seq > ?"
        " UNION ALL SELECT seq, digest FROM reading_refused WHERE meter = ? AND epoch = ? AND seq > ?",
        (meter, epoch, up_to, meter, epoch, up_to),
    )
    return {row[0]: row[1] for row in rows}


def put(tx: Connection, changed: Iterable[tuple[str, int, int, bytes]]) -> None:
    """Meter, epoch, up_to, digest."""
    rows = list(changed)
    if rows:
        tx.exec_driver_sql(
            "INSERT INTO reading_progress (meter, epoch, up_to, digest) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (meter, epoch) DO UPDATE SET up_to = excluded.up_to, digest = excluded.digest",
            rows,
        )


def refuse(tx: Connection, refused: Iterable[Refused]) -> None:
    rows = list(refused)
    if rows:
        tx.exec_driver_sql(
            "INSERT INTO reading_refused (meter, epoch, seq, digest, reason)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            rows,
        )
