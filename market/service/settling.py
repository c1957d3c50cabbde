"""Settling intervals from what the store has, batch by batch, and the proof at the end that it all agrees.

Everything here works inside the market's database and can be done again after a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass

from sqlalchemy import Connection

from grid.errors import InputError, LedgerError
from market.accounts.ledger import (
    IMBALANCE,
    NEUR_PER_UEUR,
    ROUNDING,
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
from market.messages.models import Order, Tariff
from market.service import orderbook
from market.service.cover import Cover
from market.service.networks import Networks
from market.service.ports import Settler, Standing
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

_LOOKED_BACK_AT_ONCE = 100
"""Batches, where a reorganisation took the newest."""
_ENOUGH_NEUR = 2**62
_NEVER_MADE = 2**62
"""No batch has so high a sequence."""
_CLEARINGS_KEPT = 8

Energies = dict[str, Metered | None]
Room = dict[str, int | None]


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
        leaf_secret: bytes,
    ) -> None:
        self._settings = settings
        self._members = members
        self._store = store
        self._networks = networks
        self._leaf_secret = leaf_secret
        self._known: dict[int, _Cleared] = {}
        self._waited: set[int] = set()
        """Intervals that could not be settled: a batch that was due with one of them went without it."""
        with store.reading() as connection:
            told = input_journal.newest(connection, "waiting")
        self._to_adjust: frozenset[int] = frozenset(told.document()["intervals"] if told else ())
        """Settled intervals that could not be adjusted yet."""

    def settle(self, start: int, now: int, room: Room, *, late_from: int | None) -> Mapping[int, InputError]:
        """Settles an interval on what the meters say by now, and earlier ones that they say more of.

        ``room`` is what accounts cover, see :meth:`room`; what is billed here is taken off. ``late_from`` is
        the earliest time of a reading that came late: then all intervals from then on are looked at, else
        only those that had to do without and that a new reading lets interpolate. Does nothing where that is
        done, or was paid by batches whose records are lost. Returns the intervals that have to wait, because
        their network is not to be had: nothing else waits for those.
        """
        seconds = self._settings.seconds
        since = start - _INTERPOLATION_INTERVALS * seconds
        if late_from is not None:
            told_of = late_from - (_INTERPOLATION_INTERVALS + 1) * seconds - BOUNDARY_TOLERANCE_S
            since = min(since, told_of)
        with self._store.reading() as connection:
            state = intervals.state_of(connection, start)
            closed_before = recovery.closed_before(connection)
            earlier = {*intervals.incomplete_intervals(connection, since), *self._to_adjust}
            if late_from is not None:
                earlier.update(intervals.settled_between(connection, late_from - seconds, start))
            for first, last in recovery.unpaid(connection):
                # What is read after a gap lets all of it be interpolated.
                if (start if late_from is None else late_from) <= last + _INTERPOLATION_INTERVALS * seconds:
                    in_gap = intervals.incomplete_intervals(connection, first)
                    earlier.update(one for one in in_gap if one < last)
        waiting: dict[int, InputError] = {}
        try:
            if state in ("CLEARED", "SUSPENDED"):
                self.meter(start, now)
            if state in ("CLEARED", "SUSPENDED", "METERED"):
                self.post(start, now, room)
        except InputError as error:
            waiting[start] = error
            if start not in self._waited and self._is_due(start):
                self.make_batch(now)
            self._waited.add(start)
        earlier.discard(start)
        if state == "METERED" and start not in waiting:
            earlier.add(start)  # its meters may have said more since it was metered
        to_adjust = set()
        for one in sorted(one for one in earlier if one >= closed_before):
            try:
                self.adjust(one, now, room)
            except InputError as error:
                waiting[one] = error
                to_adjust.add(one)
        self._note_waiting(to_adjust, now)
        return waiting

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
        self.make_batch(now)

    def make_batch(self, now: int) -> None:
        """A batch of all postings that are in none."""
        with self._store.transaction() as tx:
            if money.make_batch(tx, now, self._leaf_secret):
                input_journal.add(tx, decision(now, "batch"))

    def reconcile(self, settler: Settler) -> None:
        """Proves that chain and ledger agree to the unit. Raises :class:`LedgerError` where they do not."""
        with self._store.reading() as connection:
            accounts = money.account_states(connection)
            settled = money.settled_by_wallet(connection)
        if total := sum(account.ledger_neur for account in accounts):
            raise LedgerError(f"the ledger sums to {total} nEUR instead of zero")
        wallets = sorted({*settled, *(account.address for account in accounts)})
        balances, brought = settler.balances(wallets), settler.credit_moved()
        for wallet in wallets:
            if (moved := balances[wallet] - brought.get(wallet, 0)) != settled[wallet]:
                whose = ", ".join(a.account for a in accounts if a.address == wallet) or "nobody any more"
                raise LedgerError(
                    f"{wallet}, the wallet of {whose}: the chain moved {moved} µEUR by settlement, "
                    f"batches {settled[wallet]} µEUR"
                )
        for account in accounts:
            expected = account.ledger_neur // NEUR_PER_UEUR
            if account.account != ROUNDING and account.settled_ueur != expected:
                raise LedgerError(
                    f"{account.account}: batches came to {account.settled_ueur} µEUR, and the ledger stands"
                    f" at {account.ledger_neur} nEUR"
                )
        supply, deposits = settler.total_supply(), sum(brought.values())
        if supply != deposits:
            raise LedgerError(f"there are {supply} µEUR of tokens for deposits of {deposits}")

    def reopen_lost(self, settler: Settler, now: int) -> None:
        """Batches that are final here and not on the chain any more are pending again, and raise an alarm.

        A reorganisation takes the newest ones: while that is there, so are all before it.
        """
        before, count = _NEVER_MADE, 1
        while True:
            with self._store.reading() as connection:
                final = money.final_batches(connection, before, count)
            lost = settler.lost({batch.sequence: batch.positions for batch in final})
            for sequence in reversed(lost):
                self.reopen(sequence, now)
            if len(lost) < max(1, len(final)):
                return
            before, count = final[0].sequence, _LOOKED_BACK_AT_ONCE

    def reopen(self, sequence: int, now: int) -> None:
        """A reorganisation took a final batch off the chain."""
        with self._store.transaction() as tx:
            input_journal.add(tx, decision(now, "lost", content={"sequence": sequence}))
            money.reopen_batch(tx, sequence, now)

    # Collateral

    def renew(self, cover: Cover, opens_at: int, standing: Standing) -> None:
        """What accounts cover when a gate opens; ``standing`` is as the settler tells it."""
        cover.renew(standing, *self._settled(opens_at))
        for owner, left_neur in cover.newly_low().items():
            words = (
                f"{max(0, left_neur) // NEUR_PER_UEUR} µEUR are left beside orders: they will soon be refused"
            )
            with self._store.transaction() as tx:
                alarms.raise_alarm(tx, opens_at, "balance", owner, words)
        with self._store.reading() as connection:
            told = alarms.standing(connection, "balance")
        for owner in sorted(told.keys() - cover.low):
            with self._store.transaction() as tx:
                alarms.clear(tx, "balance", owner)

    def room(self, cover: Cover, now: int, standing: Standing) -> Room:
        """What accounts cover beside their orders, nEUR by meter; None where they are barred."""
        return cover.room_neur(standing, *self._settled(now))

    def _settled(self, now: int) -> tuple[dict[str, int], dict[str, int]]:
        """By account, what is final (µEUR) and what is owed before it is (nEUR).

        A batch counts from the gate after next on, however fast it was final: what is accepted does not
        depend on the speed of a machine.
        """
        made_before = now - self._settings.seconds
        with self._store.reading() as connection:
            return money.settled_ueur(connection, made_before), money.pending_neur(connection, made_before)

    def restore(self, cover: Cover) -> None:
        """The worst cases of intervals that a former process left unsettled."""
        with self._store.reading() as connection:
            unsettled = intervals.intervals_in(connection, "CLOSED", "CLEARED", "SUSPENDED", "METERED")
            for start, interval in unsettled.items():
                orders = _orders(connection, start)
                cover.price(start, interval.tariff)
                if interval.state == "CLOSED":
                    for order in orders.values():
                        cover.hold(order)
                else:
                    record = intervals.clearing(connection, start).record
                    hold_awards(cover, self._members, start, record, orders, interval.tariff)

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
                money.make_batch(tx, now, self._leaf_secret)

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
            if energy is not None and max(energy.import_wh, energy.export_wh) > self._most_wh(meter):
                on_impossible(meter, energy)
                energies[meter] = None
        return {**energies, **disputes.decided(connection, start)}

    def _most_wh(self, meter: str) -> int:
        """What a fuse carries from the earliest moment that counts as the interval's start to the latest that
        counts as its end.
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


def hold_awards(
    cover: Cover,
    members: Mapping[str, Member],
    start: int,
    record: ClearingRecord,
    orders: Mapping[str, Order],
    tariff: Tariff,
) -> None:
    """After the clearing, orders count with what they got."""
    taken = orderbook.taken_steps(record, orders)
    for meter, order in orders.items():
        steps = [step for _, step in taken.get(meter, [])]
        cover.set(meter, start, orderbook.award_worst_neur(order, steps, members[meter], tariff))


def _cleared(connection: Connection, start: int) -> _Cleared:
    clearing = intervals.clearing(connection, start)
    return _Cleared(start, clearing.book, clearing.record, _orders(connection, start))


def _orders(connection: Connection, start: int) -> dict[str, Order]:
    return {meter: stored.order for meter, stored in inputs.live_orders(connection, start).items()}


def held(meter: str, amount_neur: int) -> list[Posting]:
    """Holds back what a household earned; what it owed, the imbalance account advances."""
    if amount_neur == 0:
        return []
    return [
        Posting(household(meter), Kind.HELD, -amount_neur),
        Posting(IMBALANCE, Kind.HELD, amount_neur),
    ]


def _raise_impossible(tx: Connection, now: int, start: int, meter: str, energy: Metered) -> None:
    words = f"in interval {start} {energy.import_wh} Wh in and {energy.export_wh} Wh out: more than its fuse"
    alarms.raise_alarm(tx, now, "reading", meter, f"{words} carries")


def _incomplete(energies: Energies) -> int:
    """How many meters can still tell more."""
    return sum(energy is None or energy.flag == Flag.INTERPOLATED for energy in energies.values())
