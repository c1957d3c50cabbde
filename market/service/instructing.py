"""Carrying out what operators ask of the market: suspension, prices, disputes. One transaction each.

What cannot be done is refused with a reason, which is the answer to the instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DataError

from grid.errors import InputError
from market.accounts.ledger import household
from market.accounts.metering import Flag, Metered
from market.accounts.timeofuse import TimeOfUse
from market.auction.book import Limits
from market.messages.models import Tariff
from market.service.clock import utc
from market.service.joining import Joining, JoiningError
from market.service.networks import Networks
from market.service.ports import Network, OnChain
from market.service.recovering import RecoveringError, document, recover
from market.service.roster import Roster
from market.service.settings import MarketSettings
from market.service.settling import Settling, held
from market.service.store import (
    Store,
    disputes,
    input_journal,
    instructions,
    intervals,
    money,
    notices,
    recovery,
    terms,
)
from market.service.store.input_journal import decision
from market.service.store.terms import GridChange


class RefusedError(Exception):
    """Why an instruction is not carried out."""


_REFUSALS = (RefusedError, JoiningError, RecoveringError, InputError)
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, OverflowError, DataError)
"""What comes of an instruction that names the wrong things, also of numbers that no database takes: it is
answered. What ended the market would end it again whenever it is started.
"""


class Instructing:
    def __init__(
        self,
        settings: MarketSettings,
        members: Roster,
        store: Store,
        settling: Settling,
        networks: Networks,
    ) -> None:
        self._settings = settings
        self._members = members
        self._store = store
        self._settling = settling
        self._networks = networks
        self.joining = Joining(members, networks.bus_of)
        self._acts: Mapping[str, Callable[[Connection, Mapping[str, Any], str, int], None]] = {
            "suspend": self._suspend,
            "resume": self._resume,
            "tariff": self._tariff,
            "grid": self._grid,
            "member": self._member,
            "dispute": self._dispute,
            "resolve": self._resolve,
            "recover": self._recover,
        }
        self.behind: Sequence[OnChain] = ()
        """What the chain has and this database lacks."""

    def carry_out_waiting(self, at: int) -> bool:
        """Everything that was asked and not looked at yet, in order. Whether the chain's batches were taken
        in: then the store is not what it was.
        """
        with self._store.reading() as connection:
            waiting = instructions.waiting(connection)
        recovered = False
        for one in waiting:
            content: dict[str, Any] = {
                "number": one.id,
                "actor": one.actor,
                "kind": one.kind,
                "body": dict(one.body),
                "reason": one.reason,
            }
            if one.kind == "recover":
                # The journal has to say what nobody else can any more.
                content["body"]["batches"] = [document(batch) for batch in self.behind]
            done = not self.carry_out(content, at)
            if one.kind == "recover" and done:
                self.behind, recovered = (), True
        return recovered

    def carry_out(self, content: Mapping[str, Any], at: int) -> str:
        """Does it and journals it, or answers why not; the answer, empty where it was done."""
        number = content["number"]
        try:
            with self._store.transaction() as tx:
                self._acts[content["kind"]](tx, content["body"], content["reason"], at)
                instructions.answer(tx, number, at, "")
                input_journal.add(tx, decision(at, "instruction", content=content))
        except (*_REFUSALS, *_MALFORMED) as error:
            known = isinstance(error, _REFUSALS)
            refusal = str(error) if known else f"is malformed: {error}"
            with self._store.transaction() as tx:
                instructions.answer(tx, number, at, refusal)
            return refusal
        finally:
            if content["kind"] == "member":
                with self._store.reading() as connection:
                    self._members.load(connection)
        return ""

    def _recover(self, tx: Connection, body: Mapping[str, Any], reason: str, at: int) -> None:
        """Takes in what the chain has and a restored database lacks."""
        recover(tx, self._settings, body, reason, at)

    # Trading

    def _suspend(self, tx: Connection, body: Mapping[str, Any], reason: str, at: int) -> None:
        """From the first interval that is not cleared, or a later one."""
        standing = terms.standing_suspension(tx)
        if standing is not None:
            raise RefusedError(f"suspended since {utc(standing[0])} already: {standing[1]}")
        earliest = intervals.first_uncleared(tx) or self._next_start(tx, at)
        terms.suspend(tx, self._boundary(body.get("first_start"), earliest), reason)

    def _resume(self, tx: Connection, body: Mapping[str, Any], reason: str, at: int) -> None:
        """From the first interval whose gate has not opened, or a later one."""
        standing = terms.standing_suspension(tx)
        if standing is None:
            raise RefusedError("trading is not suspended")
        earliest = max(standing[0], self._next_start(tx, at))
        terms.resume(tx, self._boundary(body.get("first_start"), earliest))

    def _tariff(self, tx: Connection, body: Mapping[str, Any], reason: str, at: int) -> None:
        """Changes, each for an interval whose gate has not opened and all after it: all or none."""
        earliest = self._next_start(tx, at)
        for change in body["changes"]:
            prices = (
                TimeOfUse.model_validate(change["time_of_use"])
                if "time_of_use" in change
                else Tariff.model_validate(change["tariff"])
            )
            terms.change_tariff(tx, self._boundary(change.get("first_start"), earliest), prices)

    def _grid(self, tx: Connection, body: Mapping[str, Any], reason: str, at: int) -> None:
        """Another network, or other limits, for an interval whose gate has not opened, and all after it."""
        first = self._boundary(body.get("first_start"), self._next_start(tx, at))
        before = self._networks.named(tx, first)
        name = body["feeder"] or before.feeder_name
        limits = before.limits if body["limits"] is None else Limits.model_validate(body["limits"])
        try:
            self._networks.check(Network(name, limits), body["feeder_sha256"], first)
        except InputError as error:
            raise RefusedError(str(error)) from None
        terms.change_grid(tx, GridChange(first, name, body["feeder_sha256"], limits))

    def _member(self, tx: Connection, body: Mapping[str, Any], reason: str, at: int) -> None:
        """Somebody joins, leaves, moves or has another meter, from a gate on that has not opened."""
        self.joining.change(tx, body, self._boundary(body.get("first_start"), self._next_start(tx, at)))

    def _next_start(self, tx: Connection, at: int) -> int:
        """The first interval whose gate has not opened."""
        seconds = self._settings.seconds
        newest = intervals.newest_start(tx)
        return max(at // seconds * seconds + seconds, 0 if newest is None else newest + seconds)

    def _boundary(self, asked: int | None, earliest: int) -> int:
        if asked is None:
            return earliest
        if asked % self._settings.seconds:
            raise RefusedError(f"{utc(asked)} is no boundary of {self._settings.minutes} minutes")
        if asked < earliest:
            raise RefusedError(
                f"{utc(asked)} is too early: {utc(earliest)} is the first interval that can be changed"
            )
        return asked

    # Disputes

    def _dispute(self, tx: Connection, body: Mapping[str, Any], reason: str, at: int) -> None:
        """Holds back what a settled interval came to for a household, until somebody has decided."""
        start, meter = body["interval_start"], body["meter"]
        if meter not in self._members:
            raise RefusedError(f"{meter} is no meter of this market")
        state = intervals.state_of(tx, start)
        if state not in ("SETTLED", "FINAL", "DISPUTED"):
            raise RefusedError(f"interval {utc(start)} is not settled: it is {state or 'unknown'}")
        if start < recovery.closed_before(tx):
            raise RefusedError(f"interval {utc(start)}: what the chain paid stands, its records were lost")
        last = start + self._settings.seconds + self._settings.dispute_window_s
        if at > last:
            raise RefusedError(f"the window for interval {utc(start)} closed at {utc(last)}")
        if disputes.standing_of(tx, start, meter):
            raise RefusedError(f"interval {utc(start)} of {meter} is disputed already")
        account = household(meter)
        held_neur = sum(p.amount_neur for p in money.postings(tx, start) if p.account == account)
        disputes.open_one(tx, start, meter, at, reason, held_neur)
        self._hold(tx, start, meter, held_neur)
        if state != "DISPUTED":
            intervals.advance(tx, start, "DISPUTED", at, reason)
        notices.tell(tx, at, "dispute", f"{meter} {start}", reason)

    def _resolve(self, tx: Connection, body: Mapping[str, Any], reason: str, at: int) -> None:
        """Ends a dispute: ``upheld`` with what the meter should have said, or ``dismissed``."""
        found = disputes.standing(tx, body["dispute"])
        if found is None:
            raise RefusedError(f"there is no open dispute {body['dispute']}")
        start = found.interval_start
        match body["decision"]:
            case "dismissed":
                energy = None
            case "upheld":
                energy = Metered(int(body["import_wh"]), int(body["export_wh"]), Flag.ESTIMATED)
                if min(energy.import_wh, energy.export_wh) < 0:
                    raise RefusedError("import_wh and export_wh are not negative")
                most_wh = self._settling.most_wh(found.meter)
                if max(energy.import_wh, energy.export_wh) > most_wh:
                    fuse = f"the fuse of {self._members[found.meter].fuse_w} W"
                    raise RefusedError(f"{fuse} carries at most {most_wh} Wh in an interval")
            case other:
                raise RefusedError(f"decision {other!r} is neither upheld nor dismissed")
        disputes.close_one(tx, found.id, at, body["decision"], reason, energy)
        self._hold(tx, start, found.meter, -found.held_neur)
        if not disputes.of_interval(tx, start):
            state = "FINAL" if money.is_final(tx, start) else "SETTLED"
            intervals.advance(tx, start, state, at, reason)
        if energy is not None:
            self._settling.adjust_in(tx, start, {})

    def _hold(self, tx: Connection, start: int, meter: str, amount_neur: int) -> None:
        lines = held(meter, amount_neur)
        if not lines:
            return
        revision = intervals.revision_of(tx, start) + 1
        intervals.set_revision(tx, start, revision)
        money.add_postings(tx, start, revision, lines)
