"""How the market's process last found what it needs: for those who only see its database."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from market.service.store.schema import clearing, delivery, health, outbox

MARKET, BROKER, CHAIN = "market", "broker", "chain"


@dataclass(frozen=True, slots=True)
class Part:
    """``since`` is when it last went from good to bad or back, ``seen_at`` when somebody looked (both by the
    machine's clock), ``at`` the same on the market's.
    """

    part: str
    ok: bool
    since: int
    seen_at: int
    at: int
    detail: str


def note(tx: Connection, at: int, part: str, ok: bool, detail: str = "") -> None:
    now = int(time.time())
    tx.exec_driver_sql(
        "INSERT INTO health (part, ok, since, seen_at, at, detail) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (part) DO UPDATE SET"
        " since = CASE WHEN health.ok = excluded.ok THEN health.since ELSE excluded.since END,"
        " ok = excluded.ok, seen_at = excluded.seen_at, at = excluded.at, detail = excluded.detail",
        (part, int(ok), now, now, at, detail),
    )


def parts(connection: Connection) -> dict[str, Part]:
    rows = connection.execute(select(health))
    return {row.part: Part(**{**row._asdict(), "ok": bool(row.ok)}) for row in rows}


def newest_cleared(connection: Connection) -> int | None:
    """The newest interval that was cleared or suspended."""
    found: int | None = connection.execute(select(func.max(clearing.c.interval_start))).scalar()
    return found


def waiting(connection: Connection) -> dict[str, int]:
    """How much has not left yet, by where to: messages for the broker, notices that a channel refused."""
    refused = select(func.count()).select_from(delivery).where(delivery.c.sent_at.is_(None))
    return {
        "broker": connection.execute(select(func.count()).select_from(outbox)).scalar_one(),
        "alerts": connection.execute(refused).scalar_one(),
    }
