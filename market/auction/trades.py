"""Awards told as trades: who bought from whom, at which prices (design rule 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grid.feeder import Ints
from market.auction.record import Trade


@dataclass(frozen=True, eq=False)
class Side:
    """Parties on one side in the order in which they trade: names, Wh, and what each pays or earns."""

    parties: list[str]
    energy_wh: Ints
    price: Ints

    def then(self, *positions: tuple[str, int, int]) -> Side:
        """The same, and after them these parties with energy and price."""
        names, energy_wh, price = zip(*positions, strict=True)
        return Side(
            [*self.parties, *names], np.append(self.energy_wh, energy_wh), np.append(self.price, price)
        )


def chosen(parties: Sequence[str], places: Ints) -> list[str]:
    """The parties at these places."""
    return list(map(parties.__getitem__, places.tolist()))


def ranked(parties: Sequence[str], energy_wh: Ints, price: Ints, *, dearest_first: bool) -> Side:
    """Parties by price, and by name where that is the same."""
    by_name = np.array(sorted(range(len(parties)), key=parties.__getitem__), dtype=np.int64)
    at = price[by_name]
    rank = by_name[np.argsort(-at if dearest_first else at, kind="stable")]
    return Side(chosen(parties, rank), energy_wh[rank], price[rank])


def match(sellers: Side, buyers: Side) -> tuple[Trade, ...]:
    """Pairs sellers in order with buyers in order; both sides must offer the same energy."""
    sold, bought = np.cumsum(sellers.energy_wh), np.cumsum(buyers.energy_wh)
    assert sold[-1:].sum() == bought[-1:].sum(), "trades do not balance"
    # Between two sums of either side one seller and one buyer are at it; who has no energy never is.
    ends = np.sort(np.concatenate([sold, bought]), kind="stable")
    starts = np.append(0, ends)[:-1]
    starts, ends = starts[ends > starts], ends[ends > starts]
    seller = np.searchsorted(sold, starts, side="right")
    buyer = np.searchsorted(bought, starts, side="right")
    return tuple(
        map(
            Trade,
            chosen(buyers.parties, buyer),
            chosen(sellers.parties, seller),
            (ends - starts).tolist(),
            buyers.price[buyer].tolist(),
            sellers.price[seller].tolist(),
        )
    )
