"""What operators are told by webhook and e-mail: an outbox, written with what it tells of.

A notice is delivered once by each channel that is configured, or once more where a process died between the
delivery and its entry: then receivers know it by its number.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, and_, func, insert, or_, select, update

from market.service.store.schema import delivery, meter, notice

QUIET_S = 3600
"""The same thing is told once in so long, on the market's clock."""
EXPIRES_S = 2 * 86_400
"""What could not be delivered for so long is not news any more; real time."""
_ROWS_MAX = 20
_RETRY_MIN_S, _RETRY_MAX_S = 5, 3600


@dataclass(frozen=True, slots=True)
class Notice:
    """``at`` is on the market's clock. ``place`` is where the meter stands that it is about, or those of the
    wallet; empty where it is about neither.
    """

    id: int
    at: int
    kind: str
    subject: str
    detail: str
    place: str = ""


def tell(tx: Connection, at: int, kind: str, subject: str, detail: str) -> None:
    """Has operators told, unless they were told the same within the last hour."""
    newest = tx.exec_driver_sql(
        "SELECT MAX(at) FROM notice WHERE kind = ? AND subject = ?", (kind, subject)
    ).scalar()
    if newest is None or at - newest >= QUIET_S:
        tx.exec_driver_sql(
            "INSERT INTO notice (at, made_at, kind, subject, detail) VALUES (?, ?, ?, ?, ?)",
            (at, int(time.time()), kind, subject, detail),
        )


def due(connection: Connection, channel: str, now: int) -> list[Notice]:
    """What is to be tried by a channel at ``now`` (real time), the oldest first, a few at a time."""
    joined = notice.outerjoin(delivery, and_(delivery.c.notice == notice.c.id, delivery.c.channel == channel))
    rows = connection.execute(
        select(notice.c.id, notice.c.at, notice.c.kind, notice.c.subject, notice.c.detail)
        .select_from(joined)
        .where(
            notice.c.made_at > now - EXPIRES_S,
            or_(
                delivery.c.notice.is_(None),
                and_(delivery.c.sent_at.is_(None), delivery.c.next_at <= now),
            ),
        )
        .order_by(notice.c.id)
        .limit(_ROWS_MAX)
    )
    return [Notice(**row._asdict(), place=_place(connection, row.subject)) for row in rows]


def _place(connection: Connection, subject: str) -> str:
    address = subject.partition(" ")[0]
    points = select(meter.c.connection_point).where(or_(meter.c.meter == address, meter.c.owner == address))
    return ", ".join(connection.execute(points.order_by(meter.c.connection_point)).scalars())


def tried(tx: Connection, number: int, channel: str, now: int, error: str) -> None:
    """Enters an attempt: delivered where ``error`` is empty, else to be tried again, later each time."""
    where = and_(delivery.c.notice == number, delivery.c.channel == channel)
    attempts = tx.execute(select(delivery.c.attempts).where(where)).scalar() or 0
    wait_s = min(_RETRY_MIN_S * 2 ** min(attempts, 20), _RETRY_MAX_S)
    values = {
        "attempts": attempts + 1,
        "next_at": now + wait_s,
        "sent_at": None if error else now,
        "error": error,
    }
    if attempts:
        tx.execute(update(delivery).where(where).values(**values))
    else:
        tx.execute(insert(delivery), {"notice": number, "channel": channel, **values})


def undelivered(connection: Connection, channels: Iterable[str], now: int) -> int:
    """How many notices wait for one of the channels."""
    fresh = notice.c.made_at > now - EXPIRES_S
    count = 0
    for channel in channels:
        done = select(delivery.c.notice).where(delivery.c.channel == channel, delivery.c.sent_at.is_not(None))
        count += connection.execute(
            select(func.count()).select_from(notice).where(fresh, notice.c.id.not_in(done))
        ).scalar_one()
    return count
