"""Households that contest what an interval came to, and what was decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from market.accounts.metering import Flag, Metered
from market.service.store.schema import dispute as table


@dataclass(frozen=True, slots=True)
class Dispute:
    """``held_neur`` is what the household earned in the interval (< 0: what it owed), held back meanwhile.

    ``import_wh`` and ``export_wh`` are what the operator decided that the meter should have said.
    """

    id: int
    interval_start: int
    meter: str
    opened_at: int
    reason: str
    held_neur: int
    closed_at: int | None
    decision: str | None
    decision_reason: str | None
    import_wh: int | None
    export_wh: int | None


def open_one(tx: Connection, interval_start: int, meter: str, at: int, reason: str, held_neur: int) -> None:
    row = {
        "interval_start": interval_start,
        "meter": meter,
        "opened_at": at,
        "reason": reason,
        "held_neur": held_neur,
    }
    tx.execute(insert(table), row)


def close_one(
    tx: Connection, number: int, at: int, decision: str, reason: str, energy: Metered | None
) -> None:
    values: dict[str, Any] = {"closed_at": at, "decision": decision, "decision_reason": reason}
    if energy is not None:
        values |= {"import_wh": energy.import_wh, "export_wh": energy.export_wh}
    tx.execute(update(table).where(table.c.id == number).values(values))


def standing(connection: Connection, number: int) -> Dispute | None:
    """An open dispute."""
    return _first(connection, table.c.id == number, table.c.closed_at.is_(None))


def standing_of(connection: Connection, interval_start: int, meter: str) -> Dispute | None:
    """A household's open dispute of an interval."""
    return _first(
        connection,
        table.c.interval_start == interval_start,
        table.c.meter == meter,
        table.c.closed_at.is_(None),
    )


def of_interval(connection: Connection, interval_start: int) -> list[Dispute]:
    """The open ones."""
    query = (
        select(table)
        .where(table.c.interval_start == interval_start, table.c.closed_at.is_(None))
        .order_by(table.c.id)
    )
    return [Dispute(**row._asdict()) for row in connection.execute(query)]


def everything(connection: Connection) -> list[Dispute]:
    """All disputes, the newest first."""
    return [Dispute(**row._asdict()) for row in connection.execute(select(table).order_by(table.c.id.desc()))]


def decided(connection: Connection, interval_start: int) -> dict[str, Metered]:
    """The energy that operators decided on, by meter; the last decision counts."""
    query = (
        select(table)
        .where(table.c.interval_start == interval_start, table.c.decision == "upheld")
        .order_by(table.c.closed_at, table.c.id)
    )
    return {
        row.meter: Metered(row.import_wh, row.export_wh, Flag.ESTIMATED) for row in connection.execute(query)
    }


def _first(connection: Connection, *conditions: Any) -> Dispute | None:
    row = connection.execute(select(table).where(*conditions)).first()
    return None if row is None else Dispute(**row._asdict())
