"""The loss-aware merit order: the optimum where no limit of the feeder binds.

Seen from the slack, a group at a point with delivery factor df = −∂P_slack/∂p trades ``df`` times its
energy at ``price / df``.  Raising the price at the slack turns bids away and brings asks in: either way net
import falls by what the group needs.  The clearing price is therefore a weighted quantile of all groups'
prices, found by selection, not by sorting; the retailer bounds it at both ends.
"""

from __future__ import annotations

import numpy as np

from grid.feeder import Floats
from market.auction.columns import Columns

SORTED_MAX = 2000
"""Up to this many groups are sorted; more are first narrowed down by a histogram."""
BINS = 1024


def merit_order(columns: Columns, effect: Floats, fixed_kw: float) -> tuple[Floats, float] | None:
    """The welfare-maximising powers [g] in kW and the net import in kW.

    ``effect`` [k] is the change of net import per kW injected at each point (about −1) and ``fixed_kw``
    the net import when no group trades.  Among equal welfare most is traded.  None where an effect is not
    negative, so that the price order means nothing.
    """
    if (effect >= 0).any():
        return None
    asks = columns.group_sign > 0
    delivery = -effect[columns.group_point]
    price = columns.group_price / delivery
    need = delivery * columns.group_kw
    drawn = np.where(asks, -need, need)
    """What taking a group adds to net import."""
    demanded = fixed_kw + float((need.sum() + drawn.sum()) / 2)

    def at_tariff(tariff: float) -> tuple[Floats, float]:
        taken = np.where(asks, price <= tariff, price >= tariff)
        return np.where(taken, columns.group_kw, 0.0), fixed_kw + float(drawn[taken].sum())

    at = _weighted_quantile(price, need, demanded)
    for tariff, sign in ((columns.import_price, 1.0), (columns.export_price, -1.0)):
        if sign * (at - tariff) >= 0:
            kw, remaining = at_tariff(tariff)
            if sign * remaining >= 0:
                return kw, remaining
    better = np.where(asks, price < at, price > at)
    remaining = fixed_kw + float(drawn[better].sum())
    kw = np.where(better, columns.group_kw, 0.0)
    marginal = np.flatnonzero(price == at)
    bids, sales = marginal[~asks[marginal]], marginal[asks[marginal]]
    demand, supply = float(need[bids].sum()), float(need[sales].sum())
    sold = min(supply, max(remaining + demand, 0.0))
    bought = min(demand, max(sold - remaining, 0.0))
    for side, traded, offered in ((sales, sold, supply), (bids, bought, demand)):
        if offered:
            kw[side] = columns.group_kw[side] * (traded / offered)
    return kw, remaining + bought - sold


def _weighted_quantile(values: Floats, weights: Floats, total: float) -> float:
    """The smallest value up to which (it included) the weights add up to ``total``; ∞ where they do not.

    −∞ where nothing is needed to reach it.
    """
    if total <= 0.0:
        return -np.inf
    if total > weights.sum():
        return np.inf
    while len(values) > SORTED_MAX:
        low, high = float(values.min()), float(values.max())
        if low == high:
            return low
        bins = np.minimum(((values - low) * (BINS / (high - low))).astype(np.int64), BINS - 1)
        up_to = np.cumsum(np.bincount(bins, weights, BINS))
        chosen = min(int(np.searchsorted(up_to, total)), BINS - 1)
        total -= float(up_to[chosen - 1]) if chosen else 0.0
        inside = bins == chosen
        values, weights = values[inside], weights[inside]
    order = np.argsort(values, kind="stable")
    reached = np.searchsorted(np.cumsum(weights[order]), total)
    return float(values[order[min(int(reached), len(order) - 1)]])
