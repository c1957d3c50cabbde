"""Everything of one interval, for its page."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import HTTPException
from sqlalchemy import Connection

from market.auction.record import ClearingRecord
from market.console.market import Clearing, Market
from market.drawing.curves import curve_figure, price_interval
from market.drawing.interval import curves_of, price_band
from market.drawing.parts import parts_figure
from market.drawing.plot import Size
from market.service.store import batch_views, meter_views, views
from market.service.store.tables import TABLES

WIDE, NARROW = Size(1040, 330), Size(340, 280)


def content(market: Market, connection: Connection, start: int) -> dict[str, Any]:
    """Raises 404 where there is no such interval."""
    lines = market.lines(connection, start, start + 1)
    if not lines:
        raise HTTPException(404, "no interval starts then")
    clearing = market.clearing(connection, start)
    before, after = views.neighbours_of(connection, start)
    points = {row["meter"]: row["connection_point"] for row in _meters(connection)}
    return {
        "line": lines[0],
        "start": start,
        "ends": start + 60 * lines[0].minutes,
        "before": before,
        "after": after,
        "transitions": views.transitions_of(connection, start),
        "clearing": clearing,
        "awards": meter_views.awards_of_interval(connection, start) if clearing else [],
        "trades": _trades(clearing.record, points) if clearing else [],
        "fills": len(clearing.record.fills) if clearing else 0,
        "adjustments": batch_views.adjustments_of(connection, start) if lines[0].revision else [],
        "disputes": views.disputes(connection, start=start),
        "batches": [
            _batch(connection, number) for number in batch_views.batches_of_interval(connection, start)
        ],
        "curves": _curves(market, clearing) if clearing and clearing.record.status == "cleared" else None,
    }


def _meters(connection: Connection) -> list[dict[str, Any]]:
    names = ("meter", "owner", "connection_point")
    return [dict(zip(names, row, strict=False)) for row in TABLES["meters"].rows(connection, 0, 0)]


def _trades(record: ClearingRecord, points: dict[str, str]) -> list[dict[str, Any]]:
    """Trades with their parties as connection points; ``*_link`` is the meter where it is a household's."""
    bare = {point: meter for meter, point in points.items()}
    rows = []
    for trade in record.trades:
        row: dict[str, Any] = asdict(trade)
        for side in ("buy", "sell"):
            name = row[side]
            meter = name.partition(":")[0] if name.startswith("0x") else bare.get(name.removeprefix("firm:"))
            row[f"{side}_meter"] = meter
            row[f"{side}_name"] = points.get(meter or "", name)
            row[f"{side}_firm"] = name.startswith("firm:")
        rows.append(row)
    return rows


def _batch(connection: Connection, number: int) -> dict[str, Any]:
    """A batch with the block that holds it; ``state`` is OPEN while it is still being filled."""
    found = batch_views.batch(connection, number)
    if found is None:
        return {"sequence": number, "state": "OPEN", "tx_hash": None, "block": None, "confirmations": None}
    mined = [
        row["block"]
        for row in (batch_views.attempts(connection, found["tx_hash"]) if found["tx_hash"] else [])
        if row["block"] is not None
    ]
    newest = batch_views.newest_block(connection)
    confirmations = newest - mined[0] + 1 if mined and newest is not None else None
    return {**found, "block": mined[0] if mined else None, "confirmations": confirmations}


def _curves(market: Market, clearing: Clearing) -> dict[str, Any] | None:
    """Both figures in two sizes, and the prices that would have balanced the orders alone."""
    if not market.has_network(clearing):
        return None
    band = price_band(clearing.book, clearing.record, market.buses_of(clearing.book))
    if band is None:
        return None
    curves = curves_of(clearing.book, clearing.record, band)
    low, high = price_interval(curves)
    return {
        "wide": curve_figure(WIDE, curves),
        "narrow": curve_figure(NARROW, curves),
        "parts_wide": parts_figure(WIDE, clearing.record.prices),
        "parts_narrow": parts_figure(NARROW, clearing.record.prices),
        "valid_low": low,
        "valid_high": high,
        "band": band,
        "left_wh": sum(step.left_wh for step in (*curves.demand, *curves.supply)),
    }
