"""What operators' decisions come to, for people: from when on, and what."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection

from market.drawing.units import eur
from market.service.clock import utc
from market.service.store import booked, disputes, membership, recovery, terms

_LINES_MAX = 8


class Effect(NamedTuple):
    """``at`` is the start of the first interval that it counts for, Unix seconds."""

    at: int
    words: str


def effects(connection: Connection) -> frozenset[Effect]:
    """Everything that was decided so far."""
    found = {Effect(one.first_start, one.what) for one in terms.decided(connection)}
    places = booked.places(connection)
    for change in membership.changes(connection):
        member, gone = change.member, f"at {places[change.meter]}, no member any more"
        words = f"at {member.connection_point}, of {member.owner}" if member else gone
        found.add(Effect(change.first_start, f"{change.meter} {words}"))
    for one in disputes.everything(connection):
        state = one.decision or f"open, {eur(one.held_neur, 4)} held back"
        place = f"{places[one.meter]} ({one.meter})"
        found.add(Effect(one.interval_start, f"dispute {one.id} of {place}: {state}"))
    for taken in recovery.everything(connection):
        batches = f"batches {taken.first_sequence} to {taken.last_sequence} taken in from the chain"
        until = f"what was until {utc(taken.paid_until)} is paid, and known in sum only"
        found.add(Effect(taken.known_until, f"{batches}: {until}"))
    return frozenset(found)


def brief(decided: Iterable[Effect]) -> list[str]:
    """A line each, by time; of many the first ones and the last."""
    lines = [f"{utc(one.at)}  {one.words}" for one in sorted(decided)]
    if len(lines) <= _LINES_MAX:
        return lines
    return [*lines[: _LINES_MAX - 2], f"… {len(lines) - _LINES_MAX + 1} more", lines[-1]]
