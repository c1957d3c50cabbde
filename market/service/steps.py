"""What an interval goes through, one database transaction a step.

Each step writes its change of state, what follows from it and its entry in the journal together, so that a
crash leaves all of it or none. The same steps make a simulated day, a market on the wall clock and the replay
of a journal; who calls them when is told in :mod:`waves`, :mod:`live` and :mod:`replay`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection

from grid.errors import InputError
from market.auction.book import Book, Firm
from market.auction.record import ClearingRecord, suspended_record
from market.messages.models import Order, Tariff
from market.messages.signing import Domain
from market.service import orderbook
from market.service.batching import Batches
from market.service.clock import utc
from market.service.instructing import Instructing
from market.service.networks import Networks
from market.service.parse import topic_of
from market.service.ports import Document, Network, Physics, Sent, Signing, Standing
from market.service.roster import Roster, members_at
from market.service.settings import MarketSettings
from market.service.settling import Settling
from market.service.store import Store, input_journal, inputs, intervals, money, notices, outbox, terms
from market.service.store.input_journal import decision


@dataclass(frozen=True)
class Draft:
    """An interval's closed book. ``problem`` says why it must not be cleared; else it is empty."""

    start: int
    orders: Mapping[str, Order]
    book: Book
    outsiders: Sequence[Firm]
    problem: str
    network: Network


@dataclass(frozen=True)
class Solved:
    """What became of a book. ``problem`` is what happened outside of the auction (empty where nothing did),
    ``rounds`` how often the auction asked for the time before it was up, None where it never was.
    """

    record: ClearingRecord
    problem: str = ""
    rounds: int | None = None


class Steps:
    """``leaf_secret`` is what the salts of commitments are made from."""

    def __init__(
        self,
        *,
        settings: MarketSettings,
        members: Roster,
        signer: Signing,
        domain: Domain,
        store: Store,
        physics: Physics,
        leaf_secret: bytes,
    ) -> None:
        self._settings = settings
        self._members = members
        self._signer = signer
        self._domain = domain
        self._store = store
        self.networks = Networks(settings, members, physics)
        self.batches = Batches(store, leaf_secret)
        self.settling = Settling(settings, members, store, self.networks, self.batches)
        self.instructing = Instructing(settings, members, store, self.settling, self.networks)

    def begin(self, at: int) -> None:
        """Enters the market's terms and members, and journals them where they are new."""
        terms_document = {
            "settings": self._settings.model_dump(mode="json", exclude={"patience_s"}),
            "members": [member.model_dump(mode="json") for member in self._members.founders.values()],
            "market": self._signer.address,
            "chain_id": self._domain.chain_id,
            "registry": self._domain.verifying_contract,
        }
        with self._store.transaction() as tx:
            inputs.register(tx, self._settings, list(self._members.founders.values()))
            if not input_journal.has(terms_document, input_journal.newest(tx, "market")):
                input_journal.add(tx, decision(at, "market", content=terms_document))

    def tariff(self, start: int) -> Tariff:
        """The prices of the interval at ``start``."""
        with self._store.reading() as connection:
            return terms.tariff_of(connection, start) or self._settings.tariff

    def open(self, start: int, opens_at: int, closes_at: int, tariff: Tariff) -> None:
        with self._store.transaction() as tx:
            intervals.open_interval(
                tx,
                interval_start=start,
                minutes=self._settings.minutes,
                opens_at=opens_at,
                closes_at=closes_at,
                tariff=tariff,
            )
            content = {"opens_at": opens_at, "closes_at": closes_at, "tariff": tariff.model_dump(mode="json")}
            input_journal.add(tx, decision(opens_at, "open", start, content=content))

    def close(self, start: int, at: int) -> None:
        with self._store.transaction() as tx:
            intervals.advance(tx, start, "CLOSED", at)
            input_journal.add(tx, decision(at, "close", start))

    def reach(self, boundary: int) -> None:
        """The clock shows a boundary at which no gate opens."""
        with self._store.transaction() as tx:
            if (input_journal.last_at(tx) or 0) < boundary:
                input_journal.add(tx, decision(boundary, "boundary"))

    # Clearing

    def draft(self, start: int) -> Draft:
        """The book of a closed gate. A forecast that is none leaves only what the orders say."""
        with self._store.reading() as connection:
            orders = inputs.orders_of(connection, start)
            suspension = terms.suspension_of(connection, start)
            network, missing = self._network(connection, start)
        members = members_at(self._members, start)
        points = frozenset(members[meter].connection_point for meter in orders)
        problem = missing if suspension is None else f"suspended by the operator: {suspension}"
        outsiders: Sequence[Firm] = ()
        try:
            outsiders = self.networks.physics(network).outsiders(start, points)
            book = self.book(start, orders, outsiders, network)
        except (ValidationError, ValueError, OverflowError) as error:
            problem = problem or f"the forecast of those without an order is unusable: {_first(error)}"
            outsiders = ()
            book = self.book(start, orders, outsiders, network)
        return Draft(start, orders, book, outsiders, problem, network)

    def _network(self, connection: Connection, start: int) -> tuple[Network, str]:
        """The interval's network; without it the configured one, and why nothing can be cleared."""
        try:
            return self.networks.at(connection, start), ""
        except InputError as error:
            return self.networks.configured, f"its network is not to be had: {error}"

    def book(
        self, start: int, orders: Mapping[str, Order], outsiders: Sequence[Firm], network: Network
    ) -> Book:
        with self._store.reading() as connection:
            tariff = intervals.tariff_of(connection, start)
        members = members_at(self._members, start)
        return orderbook.build_book(self._settings, start, orders, members, outsiders, tariff, network)

    def suspended(self, draft: Draft, problem: str) -> Solved:
        record = suspended_record(draft.network.feeder_name, draft.book.interval, problem)
        return Solved(record, problem)

    def publish(self, draft: Draft, solved: Solved, comparison: Document | None, at: int) -> int:
        """Stores a clearing with its awards and what is to be told of it; how many awards there are."""
        start, record, orders = draft.start, solved.record, draft.orders
        awards = [
            (self._signer.sign(self._domain, award), net_wh)
            for award, net_wh in orderbook.awards(
                self._settings,
                start,
                record,
                orders,
                self.networks.placed(draft.book, members_at(self._members, start)),
                draft.book.tariff,
            )
        ]
        public = self._signer.sign(self._domain, orderbook.public_clearing(self._settings, start, record))
        feeder = self._settings.feeder
        messages = [(topic_of(feeder, award.meter, "award"), award.model_dump_json()) for award, _ in awards]
        messages.append((f"peergrid/v1/{feeder}/clearing", public.model_dump_json()))
        content: dict[str, Any] = {
            "outsiders": [firm.model_dump(mode="json") for firm in draft.outsiders],
            "problem": solved.problem,
            "rounds": solved.rounds,
        }
        if draft.network != self.networks.configured:
            limits = draft.network.limits.model_dump(mode="json")
            content["network"] = {"feeder": draft.network.feeder_name, "limits": limits}
        with self._store.transaction() as tx:
            intervals.add_clearing(tx, start, draft.book, record, public.root, comparison)
            intervals.add_awards(tx, awards)
            outbox.put_all(tx, messages)
            intervals.advance(tx, start, record.status.upper(), at, record.reason or "")
            if record.status == "suspended":
                notices.tell(tx, at, "suspended", "trading", f"interval {utc(start)}: {record.reason}")
            input_journal.add(tx, decision(at, "clear", start, content=content))
        return len(awards)

    # Chain

    def note_standing(self, standing: Standing, at: int) -> None:
        """What orders are judged by from now on; it is known again after a restart without a chain."""
        with self._store.transaction() as tx:
            input_journal.add(tx, decision(at, "standing", content=vars(standing)))

    def noted_standing(self) -> tuple[int, Standing] | None:
        """What was noted last, and when."""
        with self._store.reading() as connection:
            entry = input_journal.newest(connection, "standing")
        return None if entry is None else (entry.at, Standing(**entry.document()))

    def finish(self, sequence: int, sent: Sent, at: int) -> None:
        """A batch is final on the chain."""
        with self._store.transaction() as tx:
            money.finish_batch(tx, sequence, tx_hash=sent.tx_hash, gas=sent.gas, at=at)
            content = {"sequence": sequence, "tx_hash": sent.tx_hash, "gas": sent.gas}
            input_journal.add(tx, decision(at, "final", content=content))


class RoundsCounted:
    """A deadline that knows how often it was asked before it had come."""

    def __init__(self, out_of_time: Callable[[], bool]) -> None:
        self._out_of_time = out_of_time
        self._asked = 0
        self.rounds: int | None = None

    def __call__(self) -> bool:
        if self.rounds is None and self._out_of_time():
            self.rounds = self._asked
        self._asked += 1
        return self.rounds is not None


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        item = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, item['loc']))} {item['msg']}"
    return str(error)
