"""Who may join, leave, move or have another meter: what operators ask for, checked and entered.

A change counts from an interval on whose gate has not opened. What is to be had on the chain's registry is
the registrar's to bring there (``peergrid meter register``): a meter that is not bound there has no owner
who could be paid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection

from grid.errors import PeergridError
from market.service.roster import Roster
from market.service.settings import Member
from market.service.store import membership
from market.service.store.membership import Change


class JoiningError(Exception):
    """Why a change of membership cannot be."""


class Joining:
    """``bus_of`` is the bus of a connection point, or raises."""

    def __init__(self, roster: Roster, bus_of: Callable[[str], int]) -> None:
        self._roster = roster
        self._bus_of = bus_of

    def change(self, tx: Connection, body: Mapping[str, Any], first_start: int) -> None:
        """Raises :class:`JoiningError`."""
        self._roster.load(tx)
        match body["change"]:
            case "join":
                self._join(tx, body["member"], first_start)
            case "leave":
                self._leave(tx, body["meter"], first_start)
            case "move":
                member = self._leaving(body["meter"], first_start)
                self._enter(tx, self._placed(member, body["connection_point"]), first_start, member.meter)
            case "replace":
                member = self._leaving(body["meter"], first_start)
                self._leave(tx, member.meter, first_start)
                self._roster.load(tx)
                new = {**member.model_dump(mode="json"), "meter": body["by"], "deposit_ueur": 0}
                self._join(tx, new, first_start)
            case "erase":
                if body["meter"] in self._roster.at(first_start) or body["meter"] not in self._roster:
                    raise JoiningError(f"{body['meter']} is a member, or never was one")
                membership.erase(tx, body["meter"])
            case other:
                raise JoiningError(f"change {other!r} is none of join, leave, move, replace, erase")

    def _join(self, tx: Connection, document: Mapping[str, Any], first_start: int) -> None:
        member = Member.model_validate({"bus": 0, "deposit_ueur": 0, **document})
        if member.meter in self._roster.at(first_start) or self._roster.later(first_start, member.meter):
            raise JoiningError(f"{member.meter} is a member already, or will be")
        owner = membership.owner_of(tx, member.meter)
        if owner not in (None, member.owner):
            raise JoiningError(f"{member.meter} is {owner}'s in these books: give the device a new key")
        self._enter(tx, self._placed(member, member.connection_point), first_start, joins=True)

    def _leave(self, tx: Connection, meter: str, first_start: int) -> None:
        self._leaving(meter, first_start)
        membership.add(tx, Change(first_start, meter, None))

    def _leaving(self, meter: str, first_start: int) -> Member:
        member = self._roster.at(first_start).get(meter)
        if member is None or self._roster.later(first_start, meter):
            raise JoiningError(f"{meter} is no member at {first_start}, or has a later change already")
        return member

    def _placed(self, member: Member, connection_point: str) -> Member:
        try:
            bus = self._bus_of(connection_point)
        except (PeergridError, KeyError, ValueError):
            raise JoiningError(f"{connection_point} is no connection point of this feeder") from None
        return member.model_copy(update={"connection_point": connection_point, "bus": bus})

    def _enter(
        self, tx: Connection, member: Member, first_start: int, but: str = "", *, joins: bool = False
    ) -> None:
        """Raises where another meter stands at the connection point at that time or later."""
        known = [*self._roster.at(first_start).values()]
        known += [c.member for c in membership.changes(tx) if c.member and c.first_start > first_start]
        for other in known:
            if other.connection_point == member.connection_point and other.meter not in (but, member.meter):
                raise JoiningError(f"{other.meter} stands at {member.connection_point}")
        if (first_start, member.meter) in {(c.first_start, c.meter) for c in membership.changes(tx)}:
            raise JoiningError(f"{member.meter} has a change at {first_start} already")
        membership.add(tx, Change(first_start, member.meter, member, joins))
