"""The book as arrays: what the merit order and the linear program work on.

Orders that the market must treat alike (same node, side, limit price and tan φ) form one *group*;
groups at one node with one tan φ share a *point* and therefore a price.  A bid's limit is net of the
local fee here, and the import price too, so that the fee is a wedge on local energy alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from grid.errors import InputError, Problem
from grid.feeder import Feeder, Floats, Ints
from grid.limits import NetworkLimits, network_limits
from grid.powerflow import PowerFlow
from market.auction.book import Book

FIRM_W_MAX = 1e12


@dataclass(frozen=True, eq=False)
class Columns:
    """One interval's clearing problem: k points, g groups, o orders, n nodes."""

    flow: PowerFlow
    limits: NetworkLimits
    hours: float
    firm_p_w: Floats
    firm_q_var: Floats
    """Fixed injections [n]."""
    import_price: int
    export_price: int
    """What energy from and to the retailer costs and earns inside the auction, µEUR/kWh."""

    point_node: Ints
    point_tan_phi: Floats
    group_point: Ints
    group_sign: Ints
    """+1 asks (injecting), −1 bids [g]."""
    group_price: Ints
    """Limit price net of fees, µEUR/kWh [g]."""
    group_wh: Ints
    """All energy of the group [g]."""
    order_group: Ints
    order_wh: Ints

    @property
    def feeder(self) -> Feeder:
        return self.flow.feeder

    @cached_property
    def group_kw(self) -> Floats:
        """Power of each group when filled, kW [g]."""
        return self.group_wh / self.hours / 1e3

    @cached_property
    def group_node(self) -> Ints:
        return self.point_node[self.group_point]

    @cached_property
    def group_tan_phi(self) -> Floats:
        return self.point_tan_phi[self.group_point]

    def point_injections(self, kw: Floats) -> Floats:
        """Injections at the points [k] in kW when groups run at ``kw`` [g]."""
        injected_kw = np.bincount(self.group_point, self.group_sign * kw, len(self.point_node))
        return injected_kw.astype(np.float64, copy=False)

    def injections(self, kw: Floats) -> tuple[Floats, Floats]:
        """Nodal injections [n] in W and var when groups run at ``kw`` [g]."""
        at_point = self.point_injections(kw) * 1e3
        nodes = len(self.firm_p_w)
        p_w = self.firm_p_w + np.bincount(self.point_node, at_point, nodes)
        if not self.point_tan_phi.any():
            return p_w, self.firm_q_var
        return p_w, self.firm_q_var + np.bincount(self.point_node, at_point * self.point_tan_phi, nodes)

    def at_points(self, by_p: Floats, by_q: Floats) -> Floats:
        """Nodal gradients [..., n] as the effect of one more injected watt at each point [..., k]."""
        effect = by_p[..., self.point_node]
        if self.point_tan_phi.any():
            effect = effect + by_q[..., self.point_node] * self.point_tan_phi
        return np.asarray(effect)

    def at_groups(self, by_point: Floats) -> Floats:
        """Effect of one more injected watt at points [..., k] as that of one more traded watt [..., g]."""
        return np.asarray(by_point[..., self.group_point] * self.group_sign)


def _firm(book: Book, feeder: Feeder, source: str) -> tuple[Floats, Floats, list[Problem]]:
    p_w, q_var = np.zeros(feeder.node_count), np.zeros(feeder.node_count)
    problems = []
    if book.firm is None:
        np.add.at(p_w, feeder.element_node, feeder.element_p_w)
        np.add.at(q_var, feeder.element_node, feeder.element_q_var)
    for index, firm in enumerate(book.firm or ()):
        node = feeder.node_of(firm.connection_point)
        if node is None:
            problems.append(_unknown_point(source, f"firm[{index}]", firm.connection_point, feeder))
            continue
        for name, value in (("p_w", firm.p_w), ("q_var", firm.q_var)):
            if abs(value) > FIRM_W_MAX:
                problems.append(Problem(source, f"firm[{index}].{name}", value, "is more than 1e12 W"))
        p_w[node] += firm.p_w
        q_var[node] += firm.q_var
    return p_w, q_var, problems


def _unknown_point(source: str, place: str, connection_point: str, feeder: Feeder) -> Problem:
    reason = f"is no connection point of {feeder.name} in service (bus:<index>, load:<index>, …)"
    return Problem(source, f"{place}.connection_point", connection_point, reason)


def columns_of(book: Book, flow: PowerFlow, source: str = "book") -> Columns:
    """The book on the feeder as arrays.

    Raises :class:`InputError` naming every order or firm injection at a point that the feeder does
    not have, and limits that contradict the net's own.
    """
    feeder = flow.feeder
    firm_p_w, firm_q_var, problems = _firm(book, feeder, source)
    limits = network_limits(
        feeder,
        v_min_pu=book.limits.v_min_pu,
        v_max_pu=book.limits.v_max_pu,
        max_loading_percent=book.limits.max_loading_percent,
    )
    if (limits.v_min_pu >= limits.v_max_pu).any():
        given = book.limits.v_min_pu if book.limits.v_min_pu is not None else book.limits.v_max_pu
        problems.append(Problem(source, "limits", given, "leaves no voltage band at some bus"))
    fee = book.tariff.local_fee
    keys = []
    for index, order in enumerate(book.orders):
        node = feeder.node_of(order.connection_point)
        if node is None:
            problems.append(_unknown_point(source, f"orders[{index}]", order.connection_point, feeder))
            continue
        bid = order.side == "bid"
        keys.append((node, order.tan_phi, bid, order.limit_price - (fee if bid else 0)))
    if problems:
        raise InputError(problems)
    groups = {key: index for index, key in enumerate(sorted(set(keys)))}
    points = {key: index for index, key in enumerate(sorted({key[:2] for key in groups}))}
    order_group = np.array([groups[key] for key in keys], dtype=np.int64)
    order_wh = np.array([order.energy_wh for order in book.orders], dtype=np.int64)
    group_wh = np.zeros(len(groups), dtype=np.int64)
    np.add.at(group_wh, order_group, order_wh)
    return Columns(
        flow=flow,
        limits=limits,
        hours=book.interval.hours,
        firm_p_w=firm_p_w,
        firm_q_var=firm_q_var,
        import_price=book.tariff.import_price - fee,
        export_price=book.tariff.export_price,
        point_node=np.array([node for node, _ in points], dtype=np.int64),
        point_tan_phi=np.array([tan_phi for _, tan_phi in points], dtype=np.float64),
        group_point=np.array([points[key[:2]] for key in groups], dtype=np.int64),
        group_sign=np.array([-1 if key[2] else 1 for key in groups], dtype=np.int64),
        group_price=np.array([key[3] for key in groups], dtype=np.int64),
        group_wh=group_wh,
        order_group=order_group,
        order_wh=order_wh,
    )
