"""Whether an account covers an order (rule 3 of design section 3), kept up to date as the market goes on.

An account's cover is what it deposited and did not withdraw, what final batches brought it, and what it owes
for intervals that are settled but not final. Against it stand the worst cases of its orders for intervals
that are not settled, and one interval at its fuse. What an interval that is not final would bring counts for
nothing. Who owes to the market's guarantee is barred, whatever it covers, and so is a meter that the chain's
registry speaks against. A wallet that took another's place covers for what that one is registered with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from market.accounts.collateral import fuse_worst_neur, shortfall_neur
from market.accounts.ledger import NEUR_PER_UEUR, household
from market.messages.models import Order, Tariff
from market.service.orderbook import order_worst_neur
from market.service.ports import Standing
from market.service.settings import MarketSettings, Member


class Cover:
    """Meters of one owner are covered by the same wallet, and all that they could owe stands against it."""

    def __init__(self, settings: MarketSettings, members: Mapping[str, Member]) -> None:
        self._tariff = settings.tariff
        self._tariffs: dict[int, Tariff] = {}
        self._minutes = settings.minutes
        self._members = members
        self._standing = Standing({}, {})
        self._cover_neur: dict[str, int] = {}
        self._debts_ueur: Mapping[str, int] = {}
        self._worst_neur: dict[str, dict[int, int]] = {}
        self._meters: dict[str, list[str]] = {}
        self._wallet_of: dict[str, str] = {}
        self._low: frozenset[str] = frozenset()

    def _fuse_neur(self, meters: Iterable[str]) -> int:
        return sum(fuse_worst_neur(self._members[m].fuse_w, self._minutes, self._tariff) for m in meters)

    def price(self, interval_start: int, tariff: Tariff) -> None:
        """The prices of an interval, before orders for it are looked at."""
        self._tariff = tariff
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
        self._standing = standing
        self._meters = self._by_wallet(standing)
        self._wallet_of = {meter: wallet for wallet, meters in self._meters.items() for meter in meters}
        self._cover_neur = _covers_neur(self._meters, standing, final_ueur, pending_neur)
        self._debts_ueur = standing.by_wallet(standing.debts_ueur)

    def _by_wallet(self, standing: Standing) -> dict[str, list[str]]:
        meters: dict[str, list[str]] = {}
        for meter, member in self._members.items():
            meters.setdefault(standing.wallet(member.owner), []).append(meter)
        return meters

    @property
    def low(self) -> frozenset[str]:
        """Whose cover was low when :meth:`newly_low` was last asked."""
        return self._low

    def newly_low(self) -> dict[str, int]:
        """Wallets whose cover beside their orders came below two intervals at their fuses, and what it is,
        nEUR: with less than one their orders are refused.
        """
        low = {}
        for owner, meters in self._meters.items():
            left_neur = self._cover_neur[owner] - self._worst(meters)
            if left_neur < 2 * self._fuse_neur(meters):
                low[owner] = left_neur
        before, self._low = self._low, frozenset(low)
        return {owner: left_neur for owner, left_neur in low.items() if owner not in before}

    def _worst(self, meters: Iterable[str]) -> int:
        return sum(sum(self._worst_neur.get(meter, {}).values()) for meter in meters)

    def debt_ueur(self, meter: str) -> int:
        """What the meter's owner owes to the guarantee; no order of it is accepted while that is not 0."""
        return self._debts_ueur.get(self._wallet_of[meter], 0)

    def unregistered(self, meter: str) -> str:
        """What the chain's registry has against the meter; empty where it has nothing."""
        return self._standing.unregistered.get(meter, "")

    def room_neur(
        self, standing: Standing, final_ueur: Mapping[str, int], pending_neur: Mapping[str, int]
    ) -> dict[str, int | None]:
        """What each meter's account covers beside its orders, given the same as :meth:`renew`; None where it
        is barred. Meters of one owner have equal shares of what the wallet covers.
        """
        wallets = self._by_wallet(standing)
        debts_ueur = standing.by_wallet(standing.debts_ueur)
        covers_neur = _covers_neur(wallets, standing, final_ueur, pending_neur)
        room: dict[str, int | None] = {}
        for wallet, meters in wallets.items():
            share_neur = (covers_neur[wallet] - self._worst(meters)) // len(meters)
            for meter in meters:
                barred = debts_ueur.get(wallet) or meter in standing.unregistered
                room[meter] = None if barred else share_neur
        return room

    def shortfall_neur(self, order: Order) -> int:
        """How much is missing for an order, in place of any earlier one for its interval; 0 where it is
        covered.
        """
        wallet = self._wallet_of[order.meter]
        meters = self._meters[wallet]
        worst = {
            **self._worst_neur.get(order.meter, {}),
            order.interval_start: self._worst_of(order),
        }
        others = self._worst(meter for meter in meters if meter != order.meter)
        return shortfall_neur(self._cover_neur[wallet], [*worst.values(), others], self._fuse_neur(meters))

    def hold(self, order: Order) -> None:
        """An accepted order counts with its worst case."""
        self.set(order.meter, order.interval_start, self._worst_of(order))

    def set(self, meter: str, interval_start: int, worst_neur: int) -> None:
        """After the clearing it counts with what it got."""
        self._worst_neur.setdefault(meter, {})[interval_start] = worst_neur

    def release(self, interval_start: int) -> None:
        """After settlement the ledger has it."""
        self._tariffs.pop(interval_start, None)
        for worst in self._worst_neur.values():
            worst.pop(interval_start, None)


def _covers_neur(
    wallets: Mapping[str, Iterable[str]],
    standing: Standing,
    final_ueur: Mapping[str, int],
    pending_neur: Mapping[str, int],
) -> dict[str, int]:
    """What each wallet covers, given its meters."""
    equity_ueur = standing.by_wallet(standing.equity_ueur)
    covers_neur = {}
    for wallet, meters in wallets.items():
        accounts = [household(meter) for meter in meters]
        final = equity_ueur[wallet] + sum(final_ueur.get(account, 0) for account in accounts)
        covers_neur[wallet] = final * NEUR_PER_UEUR + sum(pending_neur.get(a, 0) for a in accounts)
    return covers_neur
