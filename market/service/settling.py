"""Settling intervals on what the store has of their meters.

Everything here works inside the market's database and can be done again after a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass

from sqlalchemy import Connection

from grid.errors import InputError
from market.accounts.ledger import (
    IMBALANCE,
    Kind,
    Posting,
    adjustment,
    combine,
    household,
)
from market.accounts.metering import BOUNDARY_TOLERANCE_S, Flag, Metered, metered_energy
from market.accounts.settlement import Settlement, settle_cleared, settle_suspended
from market.accounts.tariff import retail_neur
from market.auction.book import Book
from market.auction.record import ClearingRecord
from market.messages.models import Order
from market.service import orderbook
from market.service.batching import Batches
from market.service.clock import utc
from market.service.collateral import Room
from market.service.networks import Networks
from market.service.roster import members_at
from market.service.settings import MarketSettings, Member
from market.service.store import (
    Store,
    alarms,
    disputes,
    input_journal,
    inputs,
    intervals,
    money,
    recovery,
)
from market.service.store.input_journal import decision

# How far a reading may be from an interval to tell, by interpolation, what its meter saw in it.
_INTERPOLATION_INTERVALS = 4

_ENOUGH_NEUR = 2**62
_CLEARINGS_KEPT = 8

Energies = dict[str, Metered | None]


@dataclass(frozen=True)
class _Cleared:
    """A cleared (or suspended) interval as the store has it."""

    start: int
    book: Book
    record: ClearingRecord
    orders: Mapping[str, Order]


class Settling:
    def __init__(
        self,
        settings: MarketSettings,
        members: Mapping[str, Member],
        store: Store,
        networks: Networks,
        batches: Batches,
    ) -> None:
        self._settings = settings
        self._members = members
        self._store = store
        self._networks = networks
        self._batches = batches
        self._known: dict[int, _Cleared] = {}
        self._waited: set[int] = set()
        """Intervals that could not be settled: a batch that was due with one of them went without it."""
        with store.reading() as connection:
            told = input_journal.newest(connection, "waiting")
        self._to_adjust: frozenset[int] = frozenset(told.document()["intervals"] if told else ())
        """Settled intervals that could not be adjusted yet."""

    def settle(self, start: int, now: int, room: Room, *, late_from: int | None) -> Mapping[int, InputError]:
        """Settles an interval on what the meters say by now, and earlier ones that they say more of.

        ``room`` is what accounts cover beside their orders; what is billed here is taken off. ``late_from``
        is the earliest time of a reading that came late: then all intervals from then on are looked at, else
        only those that had to do without and that a new reading lets interpolate. Does nothing where that is
        done, or was paid by batches whose records are lost. Returns the intervals that have to wait, because
        their network is not to be had: nothing else waits for those.
        """
        with self._store.reading() as connection:
            state = intervals.state_of(connection, start)
            earlier = self._earlier(connection, start, late_from)
        waiting: dict[int, InputError] = {}
        try:
            if state in ("CLEARED", "SUSPENDED"):
                self.meter(start, now)
            if state in ("CLEARED", "SUSPENDED", "METERED"):
                self.post(start, now, room)
        except InputError as error:
            waiting[start] = error
            if start not in self._waited and self._is_due(start):
                self._batches.make(now)
            self._waited.add(start)
        if state == "METERED" and start not in waiting:
            earlier.add(start)  # its meters may have said more since it was metered
        to_adjust = set()
        for one in sorted(earlier):
            try:
                self.adjust(one, now, room)
            except InputError as error:
                waiting[one] = error
                to_adjust.add(one)
        self._note_waiting(to_adjust, now)
        return waiting

    def _earlier(self, connection: Connection, start: int, late_from: int | None) -> set[int]:
        """The settled intervals before ``start`` of which more may be known by now."""
        seconds = self._settings.seconds
        reach_s = _INTERPOLATION_INTERVALS * seconds
        since = start - reach_s
        if late_from is not None:
            since = min(since, late_from - seconds - reach_s - BOUNDARY_TOLERANCE_S)
        found = {*intervals.incomplete_intervals(connection, since), *self._to_adjust}
        if late_from is not None:
            found.update(intervals.settled_between(connection, late_from - seconds, start))
        for first, last in recovery.unpaid(connection):
            # What is read after a gap lets all of it be interpolated.
            if (start if late_from is None else late_from) <= last + reach_s:
                found.update(one for one in intervals.incomplete_intervals(connection, first) if one < last)
        closed_before = recovery.closed_before(connection)
        return {one for one in found if closed_before <= one != start}

    def _note_waiting(self, to_adjust: Set[int], now: int) -> None:
        """What cannot be adjusted yet is known again after a crash."""
        if to_adjust != self._to_adjust:
            with self._store.transaction() as tx:
                content = {"intervals": sorted(to_adjust)}
                input_journal.add(tx, decision(now, "waiting", content=content))
            self._to_adjust = frozenset(to_adjust)

    def close_books(self, now: int, room: Room) -> None:
        """After the last interval: everything that the ledger has goes into a batch."""
        with self._store.reading() as connection:
            incomplete = intervals.incomplete_intervals(connection, recovery.closed_before(connection))
        for start in incomplete:
            self.adjust(start, now, room)
        self._batches.make(now)

    # One interval

    def meter(self, start: int, now: int) -> None:
        """What the meters say of a cleared interval."""
        # What is read and that it was read are one transaction: no reading comes in between.
        with self._store.transaction() as tx:
            cleared = self._cleared(tx, start)
            energies = self._energies(tx, start, lambda *what: _raise_impossible(tx, now, start, *what))
            members = members_at(self._members, start)
            flows = orderbook.delivered(cleared.book, cleared.record, cleared.orders, members, energies)
            delivered = self._networks.of(cleared.book).check(flows)
            input_journal.add(tx, decision(now, "meter", cleared.start))
            intervals.add_metered(tx, cleared.start, 0, energies)
            intervals.set_delivered(tx, cleared.start, delivered)
            intervals.advance(tx, cleared.start, "METERED", now)

    def post(self, start: int, now: int, room: Room) -> None:
        """What a metered interval comes to in the ledger; who is not in ``room`` can pay."""
        with self._store.reading() as connection:
            cleared = self._cleared(connection, start)
            energies = intervals.metered(connection, cleared.start)
        carried = self._carried(cleared, energies, (), room)
        settlement = self._settlement(cleared, energies, carried)
        with self._store.transaction() as tx:
            money.add_postings(tx, cleared.start, 0, settlement.postings)
            intervals.set_settled(tx, cleared.start, incomplete=_incomplete(energies), revision=0)
            input_journal.add(tx, decision(now, "post", cleared.start, {"carried": sorted(carried)}))
            intervals.advance(tx, cleared.start, "SETTLED", now)
            if self._is_due(cleared.start):
                self._batches.make_in(tx, now)

    def adjust(self, start: int, now: int, room: Room) -> None:
        """Posts the difference that readings make which came after the settlement; mostly there is none."""
        with self._store.reading() as connection:
            if self._energies(connection, start) == intervals.metered(connection, start):
                return
        with self._store.transaction() as tx:
            carried = self.adjust_in(tx, start, room)
            input_journal.add(tx, decision(now, "adjust", start, {"carried": sorted(carried)}))

    def adjust_in(self, tx: Connection, start: int, room: Room) -> frozenset[str]:
        """Does the same inside a transaction; the meters whose energy the retailer bills by itself."""
        cleared, energies = self._cleared(tx, start), self._energies(tx, start)
        before = combine(money.postings(tx, start))
        carried = self._carried(cleared, energies, before, room)
        after = list(self._settlement(cleared, energies, carried).postings)
        for dispute in disputes.of_interval(tx, start):
            after += held(dispute.meter, dispute.held_neur)
        change = adjustment(before, after)
        revision = intervals.revision_of(tx, start) + 1
        intervals.add_metered(tx, start, revision, energies)
        money.add_postings(tx, start, revision, change)
        intervals.set_settled(tx, start, incomplete=_incomplete(energies), revision=revision)
        return carried

    def _cleared(self, connection: Connection, start: int) -> _Cleared:
        """A clearing never changes; those looked at last are kept."""
        if start not in self._known:
            if len(self._known) >= _CLEARINGS_KEPT:
                del self._known[next(iter(self._known))]
            self._known[start] = _cleared(connection, start)
        return self._known[start]

    def _is_due(self, start: int) -> bool:
        return (start + self._settings.seconds) % self._settings.settled_every_s == 0

    def _energies(
        self,
        connection: Connection,
        start: int,
        on_impossible: Callable[[str, Metered], None] = lambda _meter, _energy: None,
    ) -> Energies:
        """What every meter says of an interval; those further away are asked where near readings do not
        tell. More than a fuse carries is as good as nothing said, and ``on_impossible`` is told.
        """
        seconds, meters = self._settings.seconds, sorted(members_at(self._members, start))
        reach_s = BOUNDARY_TOLERANCE_S
        near = [
            inputs.registers_between(connection, boundary - reach_s, boundary + reach_s)
            for boundary in (start, start + seconds)
        ]
        energies = {
            meter: metered_energy([r for read in near for r in read.get(meter, ())], start, start + seconds)
            for meter in meters
        }
        if None in energies.values():
            reach_s += _INTERPOLATION_INTERVALS * seconds
            first, last = recovery.gap_of(connection, start) or (start, start + seconds)
            far = inputs.registers_between(connection, first - reach_s, last + reach_s)
            for meter in meters:
                if energies[meter] is None:
                    energies[meter] = metered_energy(far.get(meter, ()), start, start + seconds)
        for meter, energy in energies.items():
            if energy is not None and max(energy.import_wh, energy.export_wh) > self.most_wh(meter):
                on_impossible(meter, energy)
                energies[meter] = None
        return {**energies, **disputes.decided(connection, start)}

    def most_wh(self, meter: str) -> int:
        """The most energy of an interval that is believed: what a fuse carries from the earliest moment that
        counts as the interval's start to the latest that counts as its end.
        """
        return -(-self._members[meter].fuse_w * (self._settings.seconds + 2 * BOUNDARY_TOLERANCE_S) // 3600)

    def _carried(
        self, cleared: _Cleared, energies: Energies, before: Iterable[Posting], room: Room
    ) -> frozenset[str]:
        """The meters without an order that cannot pay for their energy: the guarantee is not for those.

        What was decided when the interval was settled (``before``) stays; who is not in ``room`` can pay.
        """
        decided = {p.account: p.kind for p in before if p.kind in (Kind.RETAIL, Kind.CARRIED)}
        carried = set()
        for meter in energies.keys() - cleared.orders.keys():
            kind, energy = decided.get(household(meter)), energies[meter]
            left = room.get(meter, _ENOUGH_NEUR)
            bill = -retail_neur(cleared.book.tariff, energy.net_wh if energy else 0)
            if kind == Kind.CARRIED or (kind is None and (left is None or bill > max(0, left))):
                carried.add(meter)
            elif left is not None:
                room[meter] = left - max(0, bill)
        return frozenset(carried)

    def _settlement(self, cleared: _Cleared, energies: Energies, carried: frozenset[str]) -> Settlement:
        parts = orderbook.settlement_inputs(
            cleared.book,
            cleared.record,
            cleared.orders,
            self._networks.placed(cleared.book, members_at(self._members, cleared.start)),
            energies,
            self._networks.of(cleared.book).bus_of,
            carried,
        )
        tariff = cleared.book.tariff
        if cleared.record.status == "suspended":
            return settle_suspended(parts.participants, parts.customers, tariff)
        return settle_cleared(cleared.record, parts.participants, parts.outsiders, parts.customers, tariff)


def _cleared(connection: Connection, start: int) -> _Cleared:
    clearing = intervals.clearing(connection, start)
    return _Cleared(start, clearing.book, clearing.record, inputs.orders_of(connection, start))


def held(meter: str, amount_neur: int) -> list[Posting]:
    """Holds back what a household earned; what it owed, the imbalance account advances."""
    if amount_neur == 0:
        return []
    return [
        Posting(household(meter), Kind.HELD, -amount_neur),
        Posting(IMBALANCE, Kind.HELD, amount_neur),
    ]


def _raise_impossible(tx: Connection, now: int, start: int, meter: str, energy: Metered) -> None:
    words = (
        f"in interval {utc(start)} {energy.import_wh} Wh in and {energy.export_wh} Wh out: more than its fuse"
    )
    alarms.raise_alarm(tx, now, "reading", meter, f"{words} carries")


def _incomplete(energies: Energies) -> int:
    """How many meters can still tell more."""
    return sum(energy is None or energy.flag == Flag.INTERPOLATED for energy in energies.values())
