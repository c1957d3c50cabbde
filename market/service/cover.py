"""Whether an account covers an order (rule 3 of design section 3), kept up to date as the market goes on.

An account's cover is what it deposited and did not withdraw, what final batches brought it, and what it owes
for intervals that are settled but not final. Against it stand the worst cases of its orders for intervals
that are not settled, and one interval at its fuse. What an interval that is not final would bring counts for
nothing. Who owes to the market's guarantee is barred, whatever it covers.
"""

from __future__ import annotations

from collections.abc import Mapping

from market.accounts.collateral import fuse_worst_neur, shortfall_neur
from market.accounts.ledger import NEUR_PER_UEUR, household
from market.messages.models import Order, Tariff
from market.service.orderbook import order_worst_neur
from market.service.ports import Standing
from market.service.settings import MarketSettings, Member


class Cover:
    def __init__(self, settings: MarketSettings, members: Mapping[str, Member]) -> None:
        self._tariff = settings.tariff
        self._tariffs: dict[int, Tariff] = {}
        self._minutes = settings.minutes
        self._members = members
        self._cover_neur: dict[str, int] = {}
        self._debt_ueur: dict[str, int] = {}
        self._worst_neur: dict[str, dict[int, int]] = {meter: {} for meter in members}
        self._fuse_neur = self._fuses_neur(settings.tariff)

    def _fuses_neur(self, tariff: Tariff) -> dict[str, int]:
        return {
            meter: fuse_worst_neur(member.fuse_w, self._minutes, tariff)
            for meter, member in self._members.items()
        }

    def price(self, interval_start: int, tariff: Tariff) -> None:
        """The prices of an interval, before orders for it are looked at."""
        if tariff != self._tariff:
            self._tariff, self._fuse_neur = tariff, self._fuses_neur(tariff)
        self._tariffs[interval_start] = tariff

    def _worst_of(self, order: Order) -> int:
        tariff = self._tariffs.get(order.interval_start, self._tariff)
        return order_worst_neur(order, self._members[order.meter], tariff)

    def renew(
        self, standing: Standing, final_ueur: Mapping[str, int], pending_neur: Mapping[str, int]
    ) -> None:
        """Takes how owners stand, and by account what is final (positions, µEUR) and what is owed before it
        is (≤ 0, nEUR).
        """
        for meter, member in self._members.items():
            self._cover_neur[meter] = _cover_neur(member, standing, final_ueur, pending_neur)
            self._debt_ueur[meter] = standing.debts_ueur.get(member.owner, 0)

    def debt_ueur(self, meter: str) -> int:
        """What the meter's owner owes to the guarantee; no order of it is accepted while that is not 0."""
        return self._debt_ueur[meter]

    def room_neur(
        self, standing: Standing, final_ueur: Mapping[str, int], pending_neur: Mapping[str, int]
    ) -> dict[str, int | None]:
        """What each meter's account covers beside its orders, given the same as :meth:`renew`; None where it
        is barred.
        """
        return {
            meter: None
            if standing.debts_ueur.get(member.owner)
            else _cover_neur(member, standing, final_ueur, pending_neur)
            - sum(self._worst_neur[meter].values())
            for meter, member in self._members.items()
        }

    def shortfall_neur(self, order: Order) -> int:
        """How much is missing for an order, in place of any earlier one for its interval; 0 where it is
        covered.
        """
        worst = {
            **self._worst_neur[order.meter],
            order.interval_start: self._worst_of(order),
        }
        return shortfall_neur(self._cover_neur[order.meter], worst.values(), self._fuse_neur[order.meter])

    def hold(self, order: Order) -> None:
        """An accepted order counts with its worst case."""
        self.set(order.meter, order.interval_start, self._worst_of(order))

    def set(self, meter: str, interval_start: int, worst_neur: int) -> None:
        """After the clearing it counts with what it got."""
        self._worst_neur[meter][interval_start] = worst_neur

    def release(self, interval_start: int) -> None:
        """After settlement the ledger has it."""
        self._tariffs.pop(interval_start, None)
        for worst in self._worst_neur.values():
            worst.pop(interval_start, None)


def _cover_neur(
    member: Member, standing: Standing, final_ueur: Mapping[str, int], pending_neur: Mapping[str, int]
) -> int:
    account = household(member.meter)
    final = standing.equity_ueur.get(member.owner, 0) + final_ueur.get(account, 0)
    return final * NEUR_PER_UEUR + pending_neur.get(account, 0)
