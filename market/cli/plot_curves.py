"""Supply and demand as the slack sees them: every order reduced by its losses on the way.

An order whose delivery factor is df (one kW there changes net import by −df kW) is worth ``price / df`` at
the slack and moves ``df`` times its energy.  With losses that no order moves as firm demand, the two curves
cross where import and export are zero.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from market.auction.book import Book
from market.auction.record import ClearingRecord
from market.auction.schedule import Schedule
from market.drawing.curves import Curves, Step, price_interval


def curves_at_slack(book: Book, record: ClearingRecord, schedule: Schedule) -> Curves:
    """The curves of a cleared record; parts of orders that were left out are marked so.

    The band is every price that would clear the curves if no limit bound, the line the energy price.
    """
    columns, point = schedule.columns, schedule.point
    by_p, by_q = point.slack_gradient
    delivery = -columns.at_points(by_p, by_q)[columns.group_point[columns.order_group]]
    filled = {fill.order_id: fill.energy_wh for fill in record.fills}
    demand, supply = _firm(columns.firm_p_w, -by_p, columns.hours)
    energy_wh = sum(step.energy_wh for step in demand) - sum(step.energy_wh for step in supply)
    for order, group, df in zip(book.orders, columns.order_group, delivery, strict=True):
        offered_wh = round(order.energy_wh * df)
        left_wh = round((order.energy_wh - filled.get(order.id, 0)) * df)
        step = Step(offered_wh, round(int(columns.group_price[group]) / df), left_wh)
        side = demand if order.side == "bid" else supply
        side.append(step)
        energy_wh += (offered_wh - left_wh) * (1 if order.side == "bid" else -1)
    # What is left of net import are losses that do not depend on the next kWh.
    standing_wh = record.import_wh - record.export_wh - energy_wh
    (demand if standing_wh > 0 else supply).append(Step(abs(standing_wh), None))
    energy = next(row.energy for row in record.prices)
    curves = Curves(
        demand=[step for step in demand if step.energy_wh],
        supply=[step for step in supply if step.energy_wh],
        demand_wh=sum(step.energy_wh - step.left_wh for step in demand),
        supply_wh=sum(step.energy_wh - step.left_wh for step in supply),
        low=energy,
        mean=energy,
        high=energy,
        import_price=columns.import_price,
        export_price=columns.export_price,
        band_name="every price that would clear these curves, if no limit bound",
        price_name="energy price",
    )
    low, high = price_interval(curves)
    return replace(curves, low=low, high=high)


def _firm(p_w: np.ndarray, delivery: np.ndarray, hours: float) -> tuple[list[Step], list[Step]]:
    """Firm energy that is drawn and fed in, all nodes together."""
    at_slack_wh = p_w * delivery * hours
    drawn_wh, fed_wh = -at_slack_wh[at_slack_wh < 0].sum(), at_slack_wh[at_slack_wh > 0].sum()
    return [Step(round(float(drawn_wh)), None)], [Step(round(float(fed_wh)), None)]
