"""The loss-aware merit order: the optimum where no limit of the feeder binds.

Seen from the slack, a group at a point with delivery factor df = −∂P_slack/∂p trades ``df`` times its
energy at ``price / df``.  Sorted by that price, supply and demand cross between the export and the
import price, and the retailer takes or gives the rest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grid.feeder import Floats
from market.auction.columns import Columns

Bools = npt.NDArray[np.bool_]


def merit_order(columns: Columns, effect: Floats, fixed_kw: float) -> tuple[Floats, float] | None:
    """The welfare-maximising powers [g] in kW and the net import in kW.

    ``effect`` [g] is the change of net import per traded kW (> 0 for bids, < 0 for asks) and
    ``fixed_kw`` the net import when no group trades.  Among equal welfare most is traded.  None where
    an effect has the wrong sign, so that the price order means nothing.
    """
    asks = columns.group_sign > 0
    if (effect * columns.group_sign >= 0).any():
        return None
    price = columns.group_price / np.abs(effect)
    need = np.abs(effect) * columns.group_kw

    def net_import(taken: Bools) -> float:
        return float(fixed_kw + need[taken & ~asks].sum() - need[taken & asks].sum())

    for tariff, sign in ((columns.import_price, 1.0), (columns.export_price, -1.0)):
        taken = np.where(asks, price <= tariff, price >= tariff)
        remaining = net_import(taken)
        if sign * remaining >= 0:
            return np.where(taken, columns.group_kw, 0.0), remaining
    at = _crossing(price, need, asks, fixed_kw)
    better, marginal = np.where(asks, price < at, price > at), price == at
    remaining = net_import(better)
    demand, supply = float(need[marginal & ~asks].sum()), float(need[marginal & asks].sum())
    sold = min(supply, max(remaining + demand, 0.0))
    bought = min(demand, max(sold - remaining, 0.0))
    kw = np.where(better, columns.group_kw, 0.0)
    for side, traded, offered in ((marginal & asks, sold, supply), (marginal & ~asks, bought, demand)):
        if offered:
            kw[side] = columns.group_kw[side] * (traded / offered)
    return kw, remaining + bought - sold


def _crossing(price: Floats, need: Floats, asks: Bools, fixed_kw: float) -> float:
    """The price of the marginal groups: the lowest above which supply covers demand.

    Just above a price all asks up to it and all bids beyond it are taken; net import falls as the
    price rises, from import at the export price to export at the import price.
    """
    order = np.argsort(price, kind="stable")
    sold = np.cumsum(np.where(asks, need, 0.0)[order])
    bought = np.where(asks, 0.0, need)[order]
    net_import = fixed_kw + bought.sum() - np.cumsum(bought) - sold
    return float(price[order][np.argmax(net_import <= 0)])
