"""What operators decided about coming intervals: prices, the network, and where trading is suspended."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter
from sqlalchemy import Connection, delete, insert, or_, select, update

from market.accounts.timeofuse import Prices, tariff_at
from market.auction.book import Limits
from market.messages.models import Tariff
from market.service.store.schema import grid_change, suspension, tariff_change

_PRICES: TypeAdapter[Prices] = TypeAdapter(Prices)


def tariff_of(connection: Connection, start: int) -> Tariff | None:
    """The prices of an interval by the latest change; None where there was none before it."""
    table = tariff_change
    text = connection.execute(
        select(table.c.tariff)
        .where(table.c.first_start <= start)
        .order_by(table.c.first_start.desc())
        .limit(1)
    ).scalar()
    return None if text is None else tariff_at(_PRICES.validate_json(text), start)


def change_tariff(tx: Connection, first_start: int, prices: Prices) -> None:
    """From an interval on; what was decided for that interval before is replaced."""
    table = tariff_change
    text = prices.model_dump_json()
    changed = tx.execute(update(table).where(table.c.first_start == first_start).values(tariff=text))
    if changed.rowcount == 0:
        tx.execute(insert(table), {"first_start": first_start, "tariff": text})


@dataclass(frozen=True, slots=True)
class GridChange:
    """From ``first_start`` on: the network by name and sha256, and its limits."""

    first_start: int
    feeder_name: str
    feeder_sha256: str
    limits: Limits


def grid_of(connection: Connection, start: int) -> GridChange | None:
    """The network of an interval by the latest change; None where there was none before it."""
    table = grid_change
    row = connection.execute(
        select(table).where(table.c.first_start <= start).order_by(table.c.first_start.desc()).limit(1)
    ).one_or_none()
    if row is None:
        return None
    return GridChange(**{**row._asdict(), "limits": Limits.model_validate_json(row.limits)})


def change_grid(tx: Connection, change: GridChange) -> None:
    """From an interval on; what was decided for that interval before is replaced."""
    table = grid_change
    tx.execute(delete(table).where(table.c.first_start == change.first_start))
    tx.execute(
        insert(table),
        {
            "first_start": change.first_start,
            "feeder_name": change.feeder_name,
            "feeder_sha256": change.feeder_sha256,
            "limits": change.limits.model_dump_json(),
        },
    )


def suspension_of(connection: Connection, start: int) -> str | None:
    """Why there is no trading in an interval; None where there is."""
    table = suspension
    reason: str | None = connection.execute(
        select(table.c.reason)
        .where(
            table.c.first_start <= start,
            or_(table.c.until_start.is_(None), table.c.until_start > start),
        )
        .limit(1)
    ).scalar()
    return reason


def standing_suspension(connection: Connection) -> tuple[int, str] | None:
    """The one that nobody has ended: its first interval, and why."""
    table = suspension
    row = connection.execute(
        select(table.c.first_start, table.c.reason).where(table.c.until_start.is_(None))
    ).first()
    return None if row is None else (row.first_start, row.reason)


def suspend(tx: Connection, first_start: int, reason: str) -> None:
    tx.execute(insert(suspension), {"first_start": first_start, "reason": reason})


def resume(tx: Connection, until_start: int) -> None:
    """Ends the suspension: trading begins again with the interval ``until_start``."""
    table = suspension
    tx.execute(update(table).where(table.c.until_start.is_(None)).values(until_start=until_start))


@dataclass(frozen=True, slots=True)
class Decided:
    """Something that an operator decided: ``what`` counts from the interval at ``first_start`` on."""

    first_start: int
    what: str


def decided(connection: Connection) -> list[Decided]:
    """All that was ever decided of prices, network and trading, by when it counts."""
    prices = select(tariff_change.c.first_start, tariff_change.c.tariff)
    nets = select(grid_change.c.first_start, grid_change.c.feeder_name, grid_change.c.limits)
    found = [Decided(row.first_start, _of_prices(row.tariff)) for row in connection.execute(prices)]
    for row in connection.execute(nets):
        limits = Limits.model_validate_json(row.limits).model_dump(exclude_none=True)
        words = ", ".join(f"{name} {value:g}" for name, value in limits.items())
        found.append(Decided(row.first_start, f"network {row.feeder_name}" + (f", {words}" if words else "")))
    for row in connection.execute(select(suspension)):
        found.append(Decided(row.first_start, f"no trading: {row.reason}"))
        if row.until_start is not None:
            found.append(Decided(row.until_start, "trading again"))
    return sorted(found, key=lambda one: (one.first_start, one.what))


def _of_prices(text: str) -> str:
    prices = _PRICES.validate_json(text)
    if isinstance(prices, Tariff):
        return f"prices, import {prices.import_price} and export {prices.export_price} µEUR/kWh"
    return f"prices by time of use: {', '.join(band.name for band in prices.bands)}"
