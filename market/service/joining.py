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
    """``bus_of`` is the bus of a connection point in the network of an interval, or raises."""

    def __init__(self, roster: Roster, bus_of: Callable[[Connection, int, str], int]) -> None:
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
                self._enter(tx, member, body["connection_point"], first_start)
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
        if member.meter in self._roster.at(first_start) or self._roster.has_change(member.meter, first_start):
            raise JoiningError(f"{member.meter} is a member already, or will be")
        owner = membership.owner_of(tx, member.meter)
        if owner not in (None, member.owner):
            raise JoiningError(f"{member.meter} is {owner}'s in these books: give the device a new key")
        self._enter(tx, member, member.connection_point, first_start)

    def _leave(self, tx: Connection, meter: str, first_start: int) -> None:
        self._leaving(meter, first_start)
        membership.add(tx, Change(first_start, meter, None))

    def _leaving(self, meter: str, first_start: int) -> Member:
        member = self._roster.at(first_start).get(meter)
        if member is None or self._roster.has_change(meter, first_start):
            raise JoiningError(
                f"{meter} is no member at {first_start}, or has a change then or later already"
            )
        return member

    def _enter(self, tx: Connection, member: Member, connection_point: str, first_start: int) -> None:
        try:
            bus = self._bus_of(tx, first_start, connection_point)
        except (PeergridError, KeyError, ValueError):
            raise JoiningError(f"{connection_point} is no connection point of this feeder") from None
        for other in [*self._roster.at(first_start).values(), *self._roster.later(first_start)]:
            if other.connection_point == connection_point and other.meter != member.meter:
                raise JoiningError(f"{other.meter} stands at {connection_point}")
        placed = member.model_copy(update={"connection_point": connection_point, "bus": bus})
        membership.add(tx, Change(first_start, member.meter, placed))
