"""Whether the market trades, and what it answered to those who asked it to stop or to begin again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from market.service.store import views

Kind = Literal["suspend", "resume"]
BOUNDARIES = 24
"""So many intervals ahead are offered for the first one."""


@dataclass(frozen=True)
class Trading:
    """``suspended_from`` is the first interval without trading, also where that lies ahead; ``until`` the
    first one with it again (None: nobody said so). ``now`` tells whether there is none now. ``going_on`` is a
    market that will look at what it is asked.
    """

    going_on: bool
    suspended_from: int | None
    until: int | None
    reason: str
    now: bool
    boundaries: Sequence[int]

    @property
    def standing(self) -> bool:
        """Trading does not begin again by itself."""
        return self.suspended_from is not None and self.until is None


def trading(connection: Connection) -> Trading:
    span = views.span(connection)
    going_on = views.is_going_on(connection)
    if span is None:
        return Trading(False, None, None, "", False, ())
    newest = span[1]
    (line,) = views.intervals_between(connection, newest, newest + 1)
    seconds = 60 * line["minutes"]
    found = views.suspensions(connection, newest, newest + 366 * 86_400)
    boundaries = [newest + number * seconds for number in range(BOUNDARIES)] if going_on else []
    if not found or (not going_on and found[0]["until_start"] is not None):
        return Trading(going_on, None, None, "", False, boundaries)
    first = found[0]
    now = first["first_start"] <= newest
    return Trading(going_on, first["first_start"], first["until_start"], first["reason"], now, boundaries)


def answer_of(row: Mapping[str, Any]) -> str:
    """What came of an instruction: waiting, done or refused."""
    if row["refusal"] is None:
        return "waiting"
    return "refused" if row["refusal"] else "done"
