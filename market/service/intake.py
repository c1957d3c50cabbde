"""Judging what meters say: accepted into the store and answered, or refused with a reason.

A batch of messages is one database transaction; nothing is answered before it is on the disk. The state
kept here is only what the store says, remembered: it is loaded anew when a transaction fails.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from sqlalchemy import Connection

from market.messages.models import Order, ReceiptKind, ReceiptResult, Side, Status, Sync, Tariff
from market.service.answer import Answer
from market.service.clock import Clock
from market.service.cover import Cover
from market.service.parse import Heard, Refusal, entries_of
from market.service.readings import Batch, ReadingDesk
from market.service.roster import members_at
from market.service.settings import MarketSettings, Member
from market.service.store import Store, alarms, input_journal, inputs, presence
from market.service.store.input_journal import Entry
from market.service.store.inputs import StoredOrder


class Intake:
    """Open gates and the orders that stand in them; ``readings`` is the desk for the rest."""

    def __init__(
        self,
        settings: MarketSettings,
        members: Mapping[str, Member],
        store: Store,
        clock: Clock,
        cover: Cover,
    ) -> None:
        self._settings = settings
        self._members = members
        self._store = store
        self._clock = clock
        self._cover = cover
        self._closes_at: dict[int, int] = {}
        self._tariffs: dict[int, Tariff] = {}
        self._orders: dict[int, dict[str, StoredOrder]] = {}
        self._spoken: dict[int, set[str]] = {}
        self.readings = ReadingDesk(settings, members, store)

    def open_gate(self, interval_start: int, closes_at: int, tariff: Tariff | None = None) -> None:
        """From now on orders for the interval are taken, at ``tariff`` where that is not the market's first
        one; those in the store stand.
        """
        with self._store.reading() as connection:
            orders = inputs.live_orders(connection, interval_start)
        self._closes_at[interval_start] = closes_at
        self._tariffs[interval_start] = tariff or self._settings.tariff
        self._cover.price(interval_start, self._tariffs[interval_start])
        self._orders[interval_start] = orders
        self._spoken[interval_start] = set(orders)
        for stored in orders.values():
            self._cover.hold(stored.order)

    def close_gate(self, interval_start: int) -> None:
        for remembered in (self._closes_at, self._tariffs, self._orders, self._spoken):
            remembered.pop(interval_start, None)

    def silent(self, interval_start: int) -> set[str]:
        """The meters that have neither an order for the interval nor had one refused."""
        return set(members_at(self._members, interval_start)) - self._spoken[interval_start]

    def take(self, heard: Iterable[Heard], floods: Mapping[str, int] | None = None) -> list[Answer]:
        """Stores what is acceptable, durably, and tells what to answer: one answer an order, one an epoch
        of a meter's readings, and one a refusal. ``floods`` are meters and how many of their messages were
        not looked at.
        """
        now = self._clock.now()
        answers: list[Answer] = []
        batch = Batch(now)
        try:
            with self._store.transaction() as tx:
                orders: list[StoredOrder] = []
                accepted: list[Entry] = []
                for said in heard:
                    message = said.message
                    if isinstance(message, Order):
                        answers.append(self._judge_order(tx, said, message, now, orders))
                        if answers[-1].result == ReceiptResult.ACCEPTED:
                            accepted.append(Entry(now, "order", said.meter, said.payload))
                    elif not isinstance(message, Sync):
                        before = len(batch.stored)
                        answers += self.readings.judge(tx, said, message, batch)
                        if new := list(islice(batch.stored, before, None)):
                            all_new = len(new) == len(entries_of(message))
                            counts = "" if all_new else ",".join(f"{epoch}/{seq}" for _, epoch, seq in new)
                            accepted.append(Entry(now, "reading", said.meter, said.payload, counts))
                inputs.add_orders(tx, orders)
                input_journal.add_all(tx, accepted)
                answers += self.readings.write(tx, batch)
                for meter, count in (floods or {}).items():
                    detail = "messages beyond its budget were not looked at"
                    alarms.raise_alarm(tx, now, "flood", meter, detail, count)
        except BaseException:
            self._reload()
            raise
        return answers

    def note(self, statuses: Sequence[Status], refusals: Sequence[Refusal]) -> None:
        """Keeps what meters say of themselves, and whose signatures were wrong."""
        forged = Counter(refusal.meter for refusal in refusals if refusal.field == "sig")
        if statuses or forged:
            with self._store.transaction() as tx:
                presence.keep(tx, self._clock.now(), statuses, forged)

    def note_absent(self) -> None:
        """Raises an alarm for members who have been offline for longer than two intervals."""
        now = self._clock.now()
        with self._store.transaction() as tx:
            presence.raise_absent(tx, now, 2 * self._settings.seconds, members_at(self._members, now))

    def refused(self, refusal: Refusal) -> Answer:
        """The answer to what could not even be judged."""
        return Answer(
            refusal.meter,
            refusal.kind,
            refusal.up_to,
            ReceiptResult.REJECTED,
            refusal.digest,
            self._clock.now(),
            refusal.reason,
            refusal.field,
        )

    def _reload(self) -> None:
        self.readings.reload()
        for interval_start, closes_at in list(self._closes_at.items()):
            self.open_gate(interval_start, closes_at, self._tariffs[interval_start])

    def _judge_order(
        self, tx: Connection, said: Heard, order: Order, now: int, accepted: list[StoredOrder]
    ) -> Answer:
        def answer(result: ReceiptResult, reason: str = "", field: str = "") -> Answer:
            return Answer(
                order.meter, ReceiptKind.ORDER, order.version, result, said.digest, now, reason, field
            )

        if order.feeder != self._settings.feeder:
            return answer(
                ReceiptResult.REJECTED, f"this market's feeder is {self._settings.feeder}", "feeder"
            )
        standing = self._orders.get(order.interval_start, {}).get(order.meter)
        known = standing.digest if standing and standing.order.version == order.version else None
        if known is None and (standing or order.interval_start not in self._closes_at):
            known = inputs.order_digest(tx, order.interval_start, order.meter, order.version)
        if known == said.digest:
            return answer(ReceiptResult.DUPLICATE)
        if known is not None:
            reason = f"version {order.version} is stored with other content"
            alarms.add_evidence(tx, now, order.meter, said.digest, said.topic, said.payload, reason)
            return answer(ReceiptResult.REJECTED, reason, "version")
        problem = self._problem(order, standing)
        if order.interval_start in self._closes_at:
            self._spoken[order.interval_start].add(order.meter)
        if problem is not None:
            return answer(ReceiptResult.REJECTED, *problem)
        stored = StoredOrder(order, said.digest, now)
        accepted.append(stored)
        self._orders[order.interval_start][order.meter] = stored
        self._cover.hold(order)
        return answer(ReceiptResult.ACCEPTED)

    def _problem(self, order: Order, standing: StoredOrder | None) -> tuple[str, str] | None:
        """Why an order that is neither known nor forged cannot be taken (reason, field)."""
        closes_at = self._closes_at.get(order.interval_start)
        if closes_at is None or self._clock.exactly() > closes_at:
            return "the gate of this interval is not open", "interval_start"
        if standing and order.version < standing.order.version:
            return f"version {standing.order.version} is stored already", "version"
        tariff = self._tariffs[order.interval_start]
        for index, step in enumerate(order.steps):
            if not tariff.floor <= step.limit_price <= tariff.cap:
                reason = f"{step.limit_price} is outside floor {tariff.floor} and cap {tariff.cap}"
                return reason, f"steps[{index}].limit_price"
        member = members_at(self._members, order.interval_start).get(order.meter)
        if member is None:
            return "is no member in this interval", "meter"
        fuse_wh = member.fuse_w * self._settings.minutes // 60
        for side, firm_wh in ((Side.BID, order.firm_import_wh), (Side.ASK, order.firm_export_wh)):
            total_wh = firm_wh + sum(step.energy_wh for step in order.steps if step.side == side)
            if total_wh > fuse_wh:
                return f"{total_wh} Wh are more than the {fuse_wh} Wh that the fuse carries", "steps"
        if problem := self._cover.unregistered(order.meter):
            return problem, "meter"
        if debt_ueur := self._cover.debt_ueur(order.meter):
            return f"the account owes {debt_ueur} µEUR to the market's guarantee: barred until repaid", ""
        shortfall_neur = self._cover.shortfall_neur(order)
        if shortfall_neur:
            return f"the account is {-(-shortfall_neur // 1000)} µEUR short of this order's worst case", ""
        return None
