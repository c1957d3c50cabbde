"""What the market was worth to each household, and whose strategy did better among its like: pure functions.

Two yardsticks. *Retail* is the retail tariffs for the same metered energy: what the market's prices changed,
the household's behaviour left as it was. *Alone* is the household's own day without a market
(:mod:`market.cli.alone`): what prices and behaviour changed together. What it has stored, charged and heated
more or less than alone at the day's end is counted to its disadvantage: less at the import tariff, more at
the export tariff. Both let everybody feed in everything, which the feeder may not carry: they flatter life
without a market.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from market.accounts.ledger import household
from market.cli.alone import Alone
from market.cli.day import Day
from market.cli.summary import KindSavings, StrategySavings
from market.messages.models import Tariff
from meters.household.sites import Household

_COMPARABLE_MIN = 2


@dataclass(frozen=True)
class Gain:
    """One household's gain over its day alone, nEUR."""

    strategy: str
    kind: str
    neur: int


def gains(
    day: Day,
    homes: Mapping[str, Household],
    alone: Alone,
    at_hand_wh: Mapping[str, float],
    tariff: Tariff,
) -> list[Gain]:
    """Each household's gain; ``homes`` and ``at_hand_wh`` (at the day's end) are by meter."""
    posted: defaultdict[str, int] = defaultdict(int)
    for interval in day.intervals:
        for posting in interval.postings:
            posted[posting.account] += posting.amount_neur
    result = []
    for meter, home in homes.items():
        bill = alone.bills[home.name]
        more_wh = round(at_hand_wh.get(meter, bill.at_hand_wh) - bill.at_hand_wh)
        stored_neur = more_wh * (tariff.export_price if more_wh > 0 else tariff.import_price)
        gained_neur = posted[household(meter)] - bill.amount_neur + stored_neur
        result.append(Gain(home.strategy, home.kind, gained_neur))
    return result


def by_strategy(found: Sequence[Gain], usual: str) -> tuple[StrategySavings, ...]:
    """The mean gain of each strategy, and how far it is ahead of ``usual`` among households of its like.

    Only kinds with at least two households of either are compared: each kind's difference of means, weighted
    by how many of the kind go by the strategy. The error is that of the weighted difference, one standard
    deviation, from the spread within each group.
    """
    groups = _groups(found)
    result = []
    for strategy in sorted({gain.strategy for gain in found}):
        own = [gain.neur for gain in found if gain.strategy == strategy]
        kinds = [
            kind
            for (kind, other), members in groups.items()
            if other == strategy != usual
            and min(len(members), len(groups.get((kind, usual), ()))) >= _COMPARABLE_MIN
        ]
        compared = sum(len(groups[kind, strategy]) for kind in kinds)
        ahead = squared_error = 0.0
        for kind in kinds:
            ours, theirs = groups[kind, strategy], groups[kind, usual]
            weight = len(ours) / compared
            ahead += weight * (fmean(ours) - fmean(theirs))
            squared_error += weight**2 * (variance(ours) / len(ours) + variance(theirs) / len(theirs))
        result.append(
            StrategySavings(
                strategy=strategy,
                households=len(own),
                mean_neur=round(fmean(own)),
                compared=compared,
                ahead_neur=round(ahead) if compared else None,
                ahead_error_neur=round(squared_error**0.5) if compared else None,
            )
        )
    return tuple(result)


def by_kind(found: Sequence[Gain]) -> tuple[KindSavings, ...]:
    """The mean gain of each kind of household and strategy."""
    return tuple(
        KindSavings(kind=kind, strategy=strategy, households=len(members), mean_neur=round(fmean(members)))
        for (kind, strategy), members in sorted(_groups(found).items())
    )


def _groups(found: Sequence[Gain]) -> dict[tuple[str, str], list[int]]:
    groups: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for gain in found:
        groups[gain.kind, gain.strategy].append(gain.neur)
    return dict(groups)
