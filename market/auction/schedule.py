"""The operating point that a clearing record's awards make: what limits, prices and drawings refer to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from grid.feeder import Feeder
from grid.limits import LimitCheck, check_limits
from grid.powerflow import OperatingPoint
from market.auction.book import Book
from market.auction.clearing import power_flow
from market.auction.columns import Columns, columns_of
from market.auction.record import ClearingRecord


@dataclass(frozen=True, eq=False)
class Schedule:
    """A book as columns, and the AC power flow of its fills and firm energy."""

    columns: Columns
    point: OperatingPoint
    check: LimitCheck


def schedule_of(
    book: Book, record: ClearingRecord, feeder: Feeder, *, with_setpoints: bool = False
) -> Schedule:
    """The schedule of a record of this book on this feeder.

    Of a suspended record that is firm energy alone, or what its relieving setpoints make of it.
    Raises :class:`PowerFlowError` where it has no power flow, which only a suspended record's can.
    """
    columns = columns_of(book, power_flow(feeder))
    moved = record.setpoints if with_setpoints else record.fills
    filled = {item.order_id: item.energy_wh for item in moved}
    order_wh = np.array([filled.get(order.id, 0) for order in book.orders], dtype=np.float64)
    group_wh = np.bincount(columns.order_group, order_wh, len(columns.group_wh))
    point = columns.flow.solve(*columns.injections(group_wh / columns.hours / 1e3))
    return Schedule(columns, point, check_limits(point, columns.limits))


def injections_of(book: Book, record: ClearingRecord) -> Mapping[str, tuple[float, float]]:
    """The injections that a clearing scheduled: W and var by connection point, fills and firm energy."""
    found: dict[str, tuple[float, float]] = {}

    def add(point: str, p_w: float, q_var: float) -> None:
        before = found.get(point, (0.0, 0.0))
        found[point] = (before[0] + p_w, before[1] + q_var)

    for firm in book.firm or ():
        add(firm.connection_point, firm.p_w, firm.q_var)
    orders = {order.id: order for order in book.orders}
    for fill in record.fills:
        order = orders[fill.order_id]
        p_w = fill.energy_wh / book.interval.hours * (1 if order.side == "ask" else -1)
        add(order.connection_point, p_w, order.tan_phi * p_w)
    return found
