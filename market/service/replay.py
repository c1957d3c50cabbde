"""Proving a market's database from its journal alone: the same steps once more, on an empty database.

What cannot follow from the journal is the market's own signature, for which its key would be needed: an
award's signature is taken over where it is the market's of the very award that the replay came to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from sqlalchemy import Connection, Table, select

from grid.errors import StoreError
from market.auction.book import Firm, Limits
from market.messages.models import Award, Order, Reading, Readings, Tariff
from market.messages.signing import Domain, is_signed_by, message_digest
from market.service.parse import entries_of
from market.service.ports import M, Network, Physics, Sent
from market.service.roster import Roster
from market.service.settings import MarketSettings, Member
from market.service.steps import Draft, Solved, Steps
from market.service.store import Store, commitments, input_journal, inputs, intervals, schema
from market.service.store.input_journal import Entry
from market.service.store.inputs import StoredOrder, StoredReading

COMPARED = (
    schema.meter,
    schema.account,
    schema.interval,
    schema.order,
    schema.reading,
    schema.suspension,
    schema.tariff_change,
    schema.grid_change,
    schema.member_change,
    schema.clearing,
    schema.award,
    schema.metered,
    schema.posting,
    schema.batch,
    schema.position,
    schema.dispute,
    schema.recovery,
    schema.transition,
)
"""What follows from the journal; on one interval a difference is told of the first table that has one."""
_MESSAGES_AT_ONCE = 2000
_NEVER = 2**63


@dataclass(frozen=True)
class Difference:
    """The first place where database and replay are not the same.

    Of a row that only one of them has, ``column`` is ``row``.
    """

    table: str
    key: Mapping[str, Any]
    column: str
    stored: Any
    replayed: Any

    def __str__(self) -> str:
        place = ", ".join(f"{name} {value}" for name, value in self.key.items())
        return (
            f"{self.table} ({place}): {self.column} is {self.stored!r:.200}, replayed {self.replayed!r:.200}"
        )


class Replay:
    """Rebuilds ``stored`` in ``scratch``, a new database. ``physics_of`` is told the terms of the market."""

    def __init__(
        self, stored: Store, scratch: Store, physics_of: Callable[[MarketSettings], Physics]
    ) -> None:
        self._stored = stored
        self._scratch = scratch
        self._physics_of = physics_of
        self._steps: Steps | None = None
        self._domain = Domain(0, "0x" + "00" * 20)
        self._messages: list[Entry] = []
        self.entries = 0

    def run(self) -> Difference | None:
        """The first difference, or None: all is as the journal says.

        Raises :class:`StoreError` where the journal does not begin with the market.
        """
        with self._stored.reading() as connection:
            for entry in input_journal.entries(connection):
                self.entries += 1
                if entry.kind in ("order", "reading"):
                    self._messages.append(entry)
                    if len(self._messages) < _MESSAGES_AT_ONCE:
                        continue
                self._take_messages()
                if entry.kind not in ("order", "reading"):
                    self._decide(entry, connection)
            self._take_messages()
            if self._steps is None:
                raise StoreError(f"{self._stored.name}: has no journal")
            with self._scratch.reading() as other:
                return difference(connection, other)

    def _take_messages(self) -> None:
        messages, self._messages = self._messages, []
        if not messages:
            return
        with self._scratch.transaction() as tx:
            inputs.add_orders(tx, (self._order(entry) for entry in messages if entry.kind == "order"))
            inputs.add_readings(
                tx, (r for entry in messages if entry.kind == "reading" for r in self._readings(entry))
            )
            input_journal.add_all(tx, messages)

    def _order(self, entry: Entry) -> StoredOrder:
        order = Order.model_validate_json(entry.body)
        return StoredOrder(order, message_digest(self._domain, order), entry.at)

    def _readings(self, entry: Entry) -> Iterator[StoredReading]:
        several = b'"readings"' in entry.body
        message = (Readings if several else Reading).model_validate_json(entry.body)
        digest = message_digest(self._domain, message)
        counts = set(entry.detail.split(",")) if entry.detail else None
        for reading in entries_of(message):
            if counts is None or f"{reading.epoch}/{reading.seq}" in counts:
                yield StoredReading(message.meter, reading, digest, message.sig, entry.at)

    def _decide(self, entry: Entry, stored: Connection) -> None:
        if entry.kind == "market":
            self._begin(entry, stored)
            return
        if self._steps is None:
            raise StoreError(f"{self._stored.name}: its journal begins in the middle, with {entry.kind!r}")
        steps, content, at = self._steps, entry.document(), entry.at
        start = int(entry.subject) if entry.subject else 0
        match entry.kind:
            case "open":
                tariff = Tariff.model_validate(content["tariff"])
                steps.open(start, content["opens_at"], content["closes_at"], tariff)
            case "close":
                steps.close(start, at)
            case "clear":
                self._clear(steps, start, content, at)
            case "meter":
                steps.settling.meter(start, at)
            case "post":
                steps.settling.post(start, at, dict.fromkeys(content["carried"]))
            case "adjust":
                steps.settling.adjust(start, at, dict.fromkeys(content["carried"]))
            case "batch":
                steps.batches.make(at)
            case "final":
                steps.finish(content["sequence"], Sent(content["tx_hash"], content["gas"]), at)
            case "lost":
                steps.batches.reopen(content["sequence"], at)
            case "standing" | "waiting":
                pass  # decides what is accepted, or when what is done, and that is in the journal itself
            case "instruction":
                steps.instructing.carry_out(content, at)

    def _begin(self, entry: Entry, stored: Connection) -> None:
        content = entry.document()
        settings = MarketSettings.model_validate(content["settings"], strict=False)
        members = Roster(Member.model_validate(member) for member in content["members"])
        with self._scratch.reading() as scratch:
            members.load(scratch)
        self._domain = Domain(content["chain_id"], content["registry"])
        self._steps = Steps(
            settings=settings,
            members=members,
            signer=_Witness(content["market"], stored),
            domain=self._domain,
            store=self._scratch,
            physics=self._physics_of(settings),
            leaf_secret=commitments.secret(stored),
        )
        self._steps.begin(entry.at)

    def _clear(self, steps: Steps, start: int, content: Mapping[str, Any], at: int) -> None:
        outsiders = [Firm.model_validate(firm) for firm in content["outsiders"]]
        with self._scratch.reading() as connection:
            orders = inputs.orders_of(connection, start)
        network = steps.networks.configured
        if changed := content.get("network"):
            network = Network(changed["feeder"], Limits.model_validate(changed["limits"]))
        book = steps.book(start, orders, outsiders, network)
        draft = Draft(start, orders, book, outsiders, content["problem"], network)
        if content["problem"]:
            steps.publish(draft, steps.suspended(draft, content["problem"]), None, at)
            return
        rounds: int | None = content["rounds"]
        physics = steps.networks.of(book)
        record = physics.clear(book, _after(rounds))
        comparison = physics.without_network(book)
        steps.publish(draft, Solved(record, rounds=rounds), comparison, at)


def _after(rounds: int | None) -> Callable[[], bool]:
    """A deadline that comes when it has been asked for ``rounds`` times."""
    asked = 0

    def out_of_time() -> bool:
        nonlocal asked
        asked += 1
        return rounds is not None and asked > rounds

    return out_of_time


class _Witness:
    """Has no key, but signatures that the market made."""

    def __init__(self, address: str, stored: Connection) -> None:
        self.address = address
        self._stored = stored

    def sign(self, domain: Domain, message: M) -> M:
        if isinstance(message, Award):
            body = intervals.award_body(self._stored, message.interval_start, message.meter)
            if body is not None:
                signed = message.model_copy(update={"sig": Award.model_validate_json(body).sig})
                if is_signed_by(domain, signed, self.address):
                    return signed
        return message


def difference(stored: Connection, replayed: Connection) -> Difference | None:
    """The first difference in time; of one time, in the order of ``COMPARED``; then what has no time."""
    found = [one for table in COMPARED if (one := _difference(table, stored, replayed)) is not None]
    return min(found, key=lambda one: one.key.get("interval_start", _NEVER), default=None)


def _difference(table: Table, stored: Connection, replayed: Connection) -> Difference | None:
    key = [column.name for column in table.primary_key]
    query = select(table).order_by(*table.primary_key)
    pairs = zip_longest(*(c.execute(query).mappings() for c in (stored, replayed)))
    for here, there in pairs:
        if here == there:
            continue
        row = min((r for r in (here, there) if r is not None), key=lambda r: tuple(r[name] for name in key))
        place = {name: row[name] for name in key}
        both = here is not None and there is not None and all(here[name] == there[name] for name in key)
        if not both:
            is_here, is_there = (_present(one, place) for one in (here, there))
            return Difference(table.name, place, "row", is_here, is_there)
        column = next(name for name in row if here[name] != there[name])
        return Difference(table.name, place, column, here[column], there[column])
    return None


def _present(row: Any, key: Mapping[str, Any]) -> str:
    """Whether there is a row, and it is the one with this key."""
    present = row is not None and all(row[name] == value for name, value in key.items())
    return "there" if present else "missing"
