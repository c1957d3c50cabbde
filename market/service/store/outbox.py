"""What is to leave over MQTT: written with the change that it tells of, deleted once the broker has it."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

ROWS_MAX = 2000


def put(tx: Connection, topic: str, payload: str, *, retain: bool = False) -> None:
    put_all(tx, [(topic, payload)], retain=retain)


def put_all(tx: Connection, messages: Iterable[tuple[str, str]], *, retain: bool = False) -> None:
    rows = [(topic, payload, int(retain)) for topic, payload in messages]
    if rows:
        tx.exec_driver_sql("INSERT INTO outbox (topic, payload, retain) VALUES (?, ?, ?)", rows)


def waiting(connection: Connection) -> list[tuple[int, str, str, bool]]:
    """The oldest messages (id, topic, payload, retain), at most ``ROWS_MAX``."""
    rows = connection.exec_driver_sql(
        "SELECT id, topic, payload, retain FROM outbox ORDER BY id LIMIT ?", (ROWS_MAX,)
    )
    return [(number, topic, payload, bool(retain)) for number, topic, payload, retain in rows]


def holds(connection: Connection, topic: str) -> list[str]:
    """The payloads of this topic that no broker has yet, the oldest first."""
    rows = connection.exec_driver_sql("SELECT payload FROM outbox WHERE topic = ? ORDER BY id", (topic,))
    return [payload for (payload,) in rows]


def done(tx: Connection, up_to: int) -> None:
    """Everything up to this id has been acknowledged by the broker."""
    tx.exec_driver_sql("DELETE FROM outbox WHERE id <= ?", (up_to,))
