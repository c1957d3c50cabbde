"""What meters said: members, orders and readings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from grid.errors import StoreError
from market.accounts.ledger import household
from market.accounts.metering import Registers
from market.messages.models import Order, Reading, ReadingEntry
from market.service.settings import MarketSettings, Member
from market.service.store import schema


@dataclass(frozen=True, slots=True)
class StoredOrder:
    """An accepted version of an order."""

    order: Order
    digest: bytes
    received_at: int


@dataclass(frozen=True, slots=True)
class StoredReading:
    """A reading that came in the message with this digest and signature."""

    meter: str
    entry: Reading | ReadingEntry
    digest: bytes
    sig: str
    received_at: int


def register(tx: Connection, settings: MarketSettings, members: Sequence[Member]) -> None:
    """Enters members and accounts; on a database that has them, checks that they are the same.

    A market without end takes new ones; whoever has left stays in its books. What was changed since
    (:mod:`market.service.roster`) is as it was changed.
    """
    changed = set(tx.execute(select(schema.member_change.c.meter)).scalars())
    members = [member for member in members if member.meter not in changed]
    theirs = changed | {household(meter) for meter in changed}
    meters = [member.model_dump(exclude={"deposit_ueur"}) for member in members]
    accounts = [
        {"account": household(m.meter), "address": m.owner, "deposit_ueur": m.deposit_ueur} for m in members
    ] + [
        {"account": role, "address": treasury.address, "deposit_ueur": treasury.deposit_ueur}
        for role, treasury in settings.treasuries.items()
    ]
    for table, wanted, key in ((schema.meter, meters, "meter"), (schema.account, accounts, "account")):
        stored = {row[key]: dict(row) for row in tx.execute(select(table)).mappings()}
        if not stored:
            if wanted:
                tx.execute(insert(table), wanted)
            continue
        stored = {name: row for name, row in stored.items() if name not in theirs}
        rows = {row[key]: row for row in wanted}
        new = [row for name, row in rows.items() if name not in stored]
        if settings.intervals is None and all(rows.get(name, row) == row for name, row in stored.items()):
            if new:
                tx.execute(insert(table), new)
        elif stored != rows:
            raise StoreError(f"the stored {table.name}s are not those of this run")


def add_orders(tx: Connection, orders: Iterable[StoredOrder]) -> None:
    rows = [
        (
            stored.order.interval_start,
            stored.order.meter,
            stored.order.version,
            stored.digest,
            stored.received_at,
            stored.order.model_dump_json(),
        )
        for stored in orders
    ]
    if rows:
        tx.exec_driver_sql(
            "INSERT INTO orders (interval_start, meter, version, digest, received_at, body)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            rows,
        )


def live_orders(connection: Connection, interval_start: int) -> dict[str, StoredOrder]:
    """The highest version of each meter's order for an interval, by meter in ascending order."""
    table = schema.order
    rows = connection.execute(
        select(table.c.meter, table.c.digest, table.c.received_at, table.c.body)
        .where(table.c.interval_start == interval_start)
        .order_by(table.c.meter, table.c.version)
    )
    return {
        row.meter: StoredOrder(Order.model_validate_json(row.body), row.digest, row.received_at)
        for row in rows
    }


def orders_of(connection: Connection, interval_start: int) -> dict[str, Order]:
    """The same as plain orders: what the interval is cleared and settled with."""
    return {meter: stored.order for meter, stored in live_orders(connection, interval_start).items()}


def order_digest(connection: Connection, interval_start: int, meter: str, version: int) -> bytes | None:
    """The digest of an accepted version, None where there is none."""
    table = schema.order
    digest: bytes | None = connection.execute(
        select(table.c.digest).where(
            table.c.interval_start == interval_start, table.c.meter == meter, table.c.version == version
        )
    ).scalar_one_or_none()
    return digest


def orders_after(connection: Connection, meter: str, since: int) -> list[StoredOrder]:
    """A meter's orders for intervals that start after ``since``."""
    table = schema.order
    rows = connection.execute(
        select(table.c.body, table.c.digest, table.c.received_at)
        .where(table.c.interval_start > since, table.c.meter == meter)
        .order_by(table.c.interval_start, table.c.version)
    )
    return [StoredOrder(Order.model_validate_json(row.body), row.digest, row.received_at) for row in rows]


def add_readings(tx: Connection, readings: Iterable[StoredReading]) -> None:
    rows = [
        (
            stored.meter,
            stored.entry.epoch,
            stored.entry.seq,
            stored.entry.taken_at,
            stored.entry.import_wh,
            stored.entry.export_wh,
            stored.entry.power_w,
            stored.entry.quality,
            stored.received_at,
            stored.digest,
            stored.sig,
        )
        for stored in readings
    ]
    if rows:
        tx.exec_driver_sql(
            "INSERT INTO reading (meter, epoch, seq, taken_at, import_wh, export_wh, power_w, quality,"
            " received_at, digest, sig) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )


def stored_reading(connection: Connection, meter: str, epoch: int, seq: int) -> ReadingEntry | None:
    table = schema.reading
    row = connection.execute(
        select(*table.c["epoch", "seq", "taken_at", "import_wh", "export_wh", "power_w", "quality"]).where(
            table.c.meter == meter, table.c.epoch == epoch, table.c.seq == seq
        )
    ).one_or_none()
    return ReadingEntry(**row._asdict()) if row else None


def registers_between(connection: Connection, earliest: int, latest: int) -> dict[str, list[Registers]]:
    """Each meter's registers taken in ``[earliest, latest]``, by time."""
    rows = connection.exec_driver_sql(
        "SELECT meter, epoch, seq, taken_at, import_wh, export_wh, quality FROM reading"
        " WHERE taken_at BETWEEN ? AND ? ORDER BY taken_at, epoch, seq",
        (earliest, latest),
    )
    result: dict[str, list[Registers]] = {}
    for meter, *values in rows:
        result.setdefault(meter, []).append(Registers(*values))
    return result


def meters_read_at(connection: Connection, earliest: int, latest: int) -> set[str]:
    """The meters with a reading taken in ``[earliest, latest]``."""
    rows = connection.exec_driver_sql(
        "SELECT DISTINCT meter FROM reading WHERE taken_at BETWEEN ? AND ?", (earliest, latest)
    )
    return {meter for (meter,) in rows}
