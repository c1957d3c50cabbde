"""Awards told as trades: who bought from whom, at which prices (design rule 8)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grid.feeder import Ints, Objects
from market.auction.record import Lines, Trade


def names(parties: list[str]) -> Objects:
    """Names as a column: an array of objects, so that what is chosen from it are the same strings."""
    column = np.empty(len(parties), dtype=object)
    column[:] = parties
    return column


@dataclass(frozen=True, eq=False)
class Parties:
    """Who trades on one side: names, Wh, and what each pays or earns a kWh."""

    name: Objects
    energy_wh: Ints
    price: Ints

    @classmethod
    def of(cls, positions: list[tuple[str, int, int]]) -> Parties:
        name, energy_wh, price = zip(*positions, strict=True) if positions else ((), (), ())
        return cls(names(list(name)), np.array(energy_wh, dtype=np.int64), np.array(price, dtype=np.int64))

    def then(self, others: Parties) -> Parties:
        return Parties(
            np.append(self.name, others.name),
            np.append(self.energy_wh, others.energy_wh),
            np.append(self.price, others.price),
        )

    def ranked(self, *, dearest_first: bool) -> Parties:
        """By price; who has the same stays as they were."""
        rank = np.argsort(-self.price if dearest_first else self.price, kind="stable")
        return Parties(self.name[rank], self.energy_wh[rank], self.price[rank])


def match(sellers: Parties, buyers: Parties) -> Lines[Trade]:
    """Pairs sellers in order with buyers in order; both sides must offer the same energy."""
    sold, bought = np.cumsum(sellers.energy_wh), np.cumsum(buyers.energy_wh)
    assert sold[-1:].sum() == bought[-1:].sum(), "trades do not balance"
    # Between two sums of either side one seller and one buyer are at it; who has no energy never is.
    ends = np.sort(np.concatenate([sold, bought]), kind="stable")
    starts = np.append(0, ends)[:-1]
    starts, ends = starts[ends > starts], ends[ends > starts]
    seller = np.searchsorted(sold, starts, side="right")
    buyer = np.searchsorted(bought, starts, side="right")
    return Lines(
        Trade,
        buyers.name[buyer],
        sellers.name[seller],
        ends - starts,
        buyers.price[buyer],
        sellers.price[seller],
    )
