"""Who may join, leave, move, have another meter or wallet: what operators ask for, checked and entered.

A change counts from an interval on whose gate has not opened. What is to be had on the chain's registry is
the registrar's to bring there (``peergrid meter register``): a meter that is not bound there has no owner
who could be paid. What is to be paid by then goes to the wallet that the member has when the batch is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection

from grid.errors import PeergridError
from market.service.clock import utc
from market.service.roster import Roster
from market.service.settings import Member
from market.service.store import membership
from market.service.store.membership import Change


class JoiningError(Exception):
    """Why a change of membership cannot be."""


class Joining:
    """``bus_of`` is the bus of a connection point in the network of an interval, or raises.

    ``objection`` is what the chain has against a member as it is to be, given its former wallet where that
    changes; empty where it has nothing. Only what nobody objected to is journalled: a replay asks no chain.
    """

    def __init__(self, roster: Roster, bus_of: Callable[[Connection, int, str], int]) -> None:
        self._roster = roster
        self._bus_of = bus_of
        self.objection: Callable[[Member, str], str] = lambda _member, _former: ""

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
            case "owner":
                self._change_owner(tx, body["meter"], body["owner"], first_start)
            case "erase":
                if body["meter"] in self._roster.at(first_start) or body["meter"] not in self._roster:
                    raise JoiningError(f"{body['meter']} is a member, or never was one")
                membership.erase(tx, body["meter"])
            case other:
                raise JoiningError(f"change {other!r} is none of join, leave, move, replace, owner, erase")

    def _join(self, tx: Connection, document: Mapping[str, Any], first_start: int) -> None:
        member = Member.model_validate({"bus": 0, "deposit_ueur": 0, **document})
        if member.meter in self._roster.at(first_start) or self._roster.has_change(member.meter, first_start):
            raise JoiningError(f"{member.meter} is a member already, or will be")
        owner = membership.owner_of(tx, member.meter)
        if owner not in (None, member.owner):
            raise JoiningError(f"{member.meter} is {owner}'s in these books: give the device a new key")
        self._enter(tx, member, member.connection_point, first_start)

    def _change_owner(self, tx: Connection, meter: str, owner: str, first_start: int) -> None:
        """A wallet is changed with all its meters: on the chain it has one successor."""
        former = self._leaving(meter, first_start).owner
        if former == owner:
            raise JoiningError(f"{meter} is {owner}'s already")
        for other in self._roster.later(first_start):
            if other.owner == former:
                raise JoiningError(f"{other.meter} has a change later than {utc(first_start)} already")
        for member in list(self._roster.at(first_start).values()):
            if member.owner == former:
                document = self._leaving(member.meter, first_start).model_dump()
                changed = Member.model_validate({**document, "owner": owner})
                self._check(changed, former)
                membership.add(tx, Change(first_start, member.meter, changed))

    def _check(self, member: Member, former: str = "") -> None:
        if problem := self.objection(member, former):
            raise JoiningError(problem)

    def _leave(self, tx: Connection, meter: str, first_start: int) -> None:
        self._leaving(meter, first_start)
        membership.add(tx, Change(first_start, meter, None))

    def _leaving(self, meter: str, first_start: int) -> Member:
        member = self._roster.at(first_start).get(meter)
        if member is None or self._roster.has_change(meter, first_start):
            raise JoiningError(
                f"{meter} is no member at {utc(first_start)}, or has a change then or later already"
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
        self._check(placed)
        membership.add(tx, Change(first_start, member.meter, placed))
