"""What accounts cover, from what the store knows and the settler tells (rule 3 of design section 3)."""

from __future__ import annotations

from collections.abc import Mapping

from market.auction.record import ClearingRecord
from market.messages.models import Order, Tariff
from market.service import orderbook
from market.service.cover import Cover
from market.service.ports import Standing
from market.service.settings import MarketSettings, Member
from market.service.store import Store, alarms, inputs, intervals, money

Room = dict[str, int | None]
"""What accounts cover beside their orders, nEUR by meter; None where they are barred."""


class Collateral:
    """Keeps ``cover`` up to date; ``standing`` is as the settler tells it, in every call."""

    def __init__(
        self, settings: MarketSettings, members: Mapping[str, Member], store: Store, cover: Cover
    ) -> None:
        self._settings = settings
        self._members = members
        self._store = store
        self._cover = cover

    def renew(self, opens_at: int, standing: Standing) -> None:
        """What accounts cover when a gate opens; who has become low is told, who is not any more as well."""
        self._cover.renew(standing, *self._settled(opens_at))
        for owner, left_neur in self._cover.newly_low().items():
            left_eur = max(0, left_neur) / 1e9
            words = f"{left_eur:.2f} EUR are left beside orders: they will soon be refused"
            with self._store.transaction() as tx:
                alarms.raise_alarm(tx, opens_at, "balance", owner, words)
        with self._store.reading() as connection:
            told = alarms.standing(connection, "balance")
        for owner in sorted(told.keys() - self._cover.low):
            with self._store.transaction() as tx:
                alarms.clear(tx, "balance", owner)

    def room(self, now: int, standing: Standing) -> Room:
        return self._cover.room_neur(standing, *self._settled(now))

    def _settled(self, now: int) -> tuple[dict[str, int], dict[str, int]]:
        """By account, what is final (µEUR) and what is owed before it is (nEUR).

        A batch counts from the gate after next on, however fast it was final: what is accepted does not
        depend on the speed of a machine.
        """
        made_before = now - self._settings.seconds
        with self._store.reading() as connection:
            return money.settled_ueur(connection, made_before), money.pending_neur(connection, made_before)

    def restore(self) -> None:
        """The worst cases of intervals that a former process left unsettled."""
        with self._store.reading() as connection:
            unsettled = intervals.intervals_in(connection, "CLOSED", "CLEARED", "SUSPENDED", "METERED")
            for start, interval in unsettled.items():
                orders = inputs.orders_of(connection, start)
                self._cover.price(start, interval.tariff)
                if interval.state == "CLOSED":
                    for order in orders.values():
                        self._cover.hold(order)
                else:
                    record = intervals.clearing(connection, start).record
                    self.hold_awards(start, record, orders, interval.tariff)

    def hold_awards(
        self, start: int, record: ClearingRecord, orders: Mapping[str, Order], tariff: Tariff
    ) -> None:
        """After the clearing, orders count with what they got."""
        taken = orderbook.taken_steps(record, orders)
        for meter, order in orders.items():
            steps = [step for _, step in taken.get(meter, [])]
            worst_neur = orderbook.award_worst_neur(order, steps, self._members[meter], tariff)
            self._cover.set(meter, start, worst_neur)
