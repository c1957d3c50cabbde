"""Contesting what an interval came to for a household, and deciding on it, as ``peergrid dispute`` does.

A token is an operator's or a viewer's and no household's: an operator contests in a household's name, and the
log keeps who it was.
"""

from __future__ import annotations

from typing import Literal

from fastapi import HTTPException
from sqlalchemy import Connection

from market.console.actions import ask
from market.console.market import Market
from market.console.security import Visitor
from market.service.store import disputes, meter_views
from market.service.store.audit import AuditLog
from market.service.store.views import Rows

Decision = Literal["upheld", "dismissed"]
Energy = tuple[int, int]
"""Import and export, Wh."""


def contest(
    audit: AuditLog, market: Market, visitor: Visitor, meter: str, interval_start: int, reason: str
) -> int:
    """Asks the market to hold back what an interval came to for a meter's household; the number under which
    its answer will be found. Raises 404 for a meter that is none, 409 where no market will look at it.
    """
    with market.stored.reading() as connection:
        if meter_views.meter(connection, meter) is None:
            raise HTTPException(404, f"there is no meter {meter!r}")
    body = {"interval_start": interval_start, "meter": meter}
    return ask(audit, market, visitor, "dispute", body, reason)


def decide(
    audit: AuditLog,
    market: Market,
    visitor: Visitor,
    number: int,
    decision: Decision,
    energy: Energy | None,
    reason: str,
) -> int:
    """Asks the market to end an open dispute: dismissed, or upheld with what the meter should have said.

    Raises 404 for a dispute that is none, 409 for one that was decided or where no market will look at it,
    422 where energy and decision do not go together.
    """
    if (decision == "upheld") != (energy is not None):
        raise HTTPException(422, "import_wh and export_wh: upheld needs both, dismissed none")
    with market.stored.reading() as connection:
        known = {one.id: one for one in disputes.everything(connection)}
    if number not in known:
        raise HTTPException(404, f"there is no dispute {number}")
    if known[number].closed_at is not None:
        raise HTTPException(409, f"dispute {number} was {known[number].decision}")
    body: dict[str, int | str] = {"dispute": number, "decision": decision}
    if energy is not None:
        body |= {"import_wh": energy[0], "export_wh": energy[1]}
    return ask(audit, market, visitor, "resolve", body, reason)


def open_ones(connection: Connection, contested: Rows, asked: Rows) -> Rows:
    """Open disputes with what was awarded and metered, and whether a decision waits for the market."""
    waiting = {row["dispute"] for row in asked if row["refusal"] is None}
    found: Rows = []
    for row in contested:
        if row["closed_at"] is None:
            start = row["interval_start"]
            (own,) = meter_views.meter_day(connection, row["meter"], start, start + 1)
            energy = {name: own[name] for name in ("net_wh", "import_wh", "export_wh", "flag")}
            found.append({**row, **energy, "waits": row["id"] in waiting})
    return found
