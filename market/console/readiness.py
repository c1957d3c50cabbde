"""Whether a market runs and has what it needs, from what its process writes into its database.

The console is another process: that it answers says nothing of the market. So the market notes every few
seconds that it lives and what it sees of broker and chain, and what is not noted any more is not so.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.exc import DatabaseError

from market.console.market import Market
from market.service.store import health, leases, views

SILENT_S = 30
"""A market that has noted nothing for so long does not run, or cannot write."""
_PARTS = (health.BROKER, health.CHAIN)
_NAMES = ("database", "market", "lease", *_PARTS, "clearing")


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Readiness:
    """``clearing_age_s``: from the newest cleared interval to the market's clock; None before the first."""

    checks: tuple[Check, ...]
    clearing_age_s: int | None

    @property
    def ready(self) -> bool:
        return all(check.ok for check in self.checks)


def readiness(market: Market, now: float) -> Readiness | None:
    """How the market is at ``now``, Unix seconds; None where no process ever ran it on the wall clock."""
    try:
        with market.stored.reading() as connection:
            parts = health.parts(connection)
            lease = leases.current(connection)
            cleared = health.newest_cleared(connection)
            span = views.span(connection)
    except DatabaseError as error:
        unknown = tuple(Check(name, False, "unknown") for name in _NAMES[1:])
        return Readiness((Check("database", False, str(error.orig)), *unknown), None)
    seen = parts.get(health.MARKET)
    if seen is None:
        return None
    silent_s = round(now - seen.seen_at)
    alive = silent_s <= SILENT_S
    holder = lease.holder if lease else ""
    ended = holder != "" and leases.is_gone(holder)
    checks = [
        Check("database", True, ""),
        Check("market", alive, "" if alive else f"has noted nothing for {silent_s} s"),
        Check("lease", leases.is_held(lease), f"{holder} has ended" if ended else holder or "nobody has it"),
    ]
    for name in _PARTS:
        part = parts.get(name)
        ok = alive and part is not None and part.ok
        detail = part.detail if part else "was not looked at"
        checks.append(Check(name, ok, detail if alive or (not ok and detail) else "unknown"))
    clearing, age_s = _clearing(market, seen.at, cleared, span)
    checks.append(clearing if alive else Check("clearing", False, "unknown"))
    return Readiness(tuple(checks), age_s)


def _clearing(
    market: Market, at: int, cleared: int | None, span: tuple[int, int] | None
) -> tuple[Check, int | None]:
    """The interval that runs was to be cleared before it began; one interval's delay is let pass."""
    seconds = 60 * int(market.stored.identity.get("minutes", "15"))
    if cleared is None:
        late = span is not None and at > span[0] + seconds
        return Check("clearing", not late, "no interval was cleared" if late else "no interval is due"), None
    age_s = at - cleared
    ok = age_s < 2 * seconds
    return Check("clearing", ok, "" if ok else f"the newest cleared interval began {age_s} s ago"), age_s
