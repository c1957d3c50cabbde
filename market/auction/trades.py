"""Awards told as trades: who bought from whom, at which prices (design rule 8)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from market.auction.record import Trade


@dataclass(frozen=True)
class Position:
    """Energy of one party on one side, at the price it pays or earns."""

    party: str
    energy_wh: int
    price: int


def match(sellers: Iterable[Position], buyers: Iterable[Position]) -> tuple[Trade, ...]:
    """Pairs sellers in order with buyers in order; both sides must offer the same energy."""
    sold = [seller for seller in sellers if seller.energy_wh]
    bought = [buyer for buyer in buyers if buyer.energy_wh]
    assert sum(s.energy_wh for s in sold) == sum(b.energy_wh for b in bought), "trades do not balance"
    trades = []
    seller = buyer = 0
    seller_left = sold[0].energy_wh if sold else 0
    buyer_left = bought[0].energy_wh if bought else 0
    while seller < len(sold):
        energy_wh = min(seller_left, buyer_left)
        trades.append(
            Trade(
                buy=bought[buyer].party,
                sell=sold[seller].party,
                energy_wh=energy_wh,
                buy_price=bought[buyer].price,
                sell_price=sold[seller].price,
            )
        )
        seller_left -= energy_wh
        buyer_left -= energy_wh
        if not seller_left:
            seller += 1
            seller_left = sold[seller].energy_wh if seller < len(sold) else 0
        if not buyer_left:
            buyer += 1
            buyer_left = bought[buyer].energy_wh if buyer < len(bought) else 0
    return tuple(trades)
