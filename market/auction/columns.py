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
from grid.feeder import Bools, Feeder, Floats, Ints
from grid.limits import NetworkLimits, network_limits
from grid.powerflow import PowerFlow
from market.auction.book import Book, unknown_point

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
    floor: int
    cap: int
    """No price lies beyond these, µEUR/kWh."""

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
            problems.append(unknown_point(source, f"firm[{index}]", firm.connection_point, feeder))
            continue
        for name, value in (("p_w", firm.p_w), ("q_var", firm.q_var)):
            if abs(value) > FIRM_W_MAX:
                problems.append(Problem(source, f"firm[{index}].{name}", value, "is more than 1e12 W"))
        p_w[node] += firm.p_w
        q_var[node] += firm.q_var
    return p_w, q_var, problems


def columns_of(book: Book, flow: PowerFlow, source: str = "book") -> Columns:
    """The book on the feeder as arrays.

    Raises :class:`InputError` naming every order or firm injection at a point that the feeder does
    not have, and limits that contradict the net's own.
    """
    feeder = flow.feeder
    firm_p_w, firm_q_var, problems = _firm(book, feeder, source)
    limits = network_limits(feeder, **book.limits.model_dump())
    if (limits.v_min_pu >= limits.v_max_pu).any():
        given = book.limits.v_min_pu if book.limits.v_min_pu is not None else book.limits.v_max_pu
        problems.append(Problem(source, "limits", given, "leaves no voltage band at some bus"))
    nodes = [feeder.node_of(order.connection_point) for order in book.orders]
    for index, (order, node) in enumerate(zip(book.orders, nodes, strict=True)):
        if node is None:
            problems.append(unknown_point(source, f"orders[{index}]", order.connection_point, feeder))
    if problems:
        raise InputError(problems)
    fee = book.tariff.local_fee
    return arrange(
        flow,
        limits,
        hours=book.interval.hours,
        firm_p_w=firm_p_w,
        firm_q_var=firm_q_var,
        import_price=book.tariff.import_price - fee,
        export_price=book.tariff.export_price,
        floor=book.tariff.floor - fee,
        cap=book.tariff.cap,
        node=np.array(nodes, dtype=np.int64),
        tan_phi=np.array([order.tan_phi for order in book.orders], dtype=np.float64),
        sign=np.array([1 if order.side == "ask" else -1 for order in book.orders], dtype=np.int64),
        price=np.array(
            [order.limit_price - (fee if order.side == "bid" else 0) for order in book.orders],
            dtype=np.int64,
        ),
        wh=np.array([order.energy_wh for order in book.orders], dtype=np.int64),
    )


def arrange(
    flow: PowerFlow,
    limits: NetworkLimits,
    *,
    hours: float,
    firm_p_w: Floats,
    firm_q_var: Floats,
    import_price: int,
    export_price: int,
    floor: int,
    cap: int,
    node: Ints,
    tan_phi: Floats,
    sign: Ints,
    price: Ints,
    wh: Ints,
) -> Columns:
    """The columns of orders given as arrays [o]; prices net of fees.  Points and groups come sorted."""
    if len(tan_phi) and (tan_phi == tan_phi[0]).all():
        phis, phi = tan_phi[:1], np.zeros(len(tan_phi), dtype=np.int64)
    else:
        phis, phi = np.unique(tan_phi, return_inverse=True)
    code = node * len(phis) + phi
    present = np.zeros(flow.feeder.node_count * max(len(phis), 1), dtype=bool)
    present[code] = True
    point_code = np.flatnonzero(present)
    point = (np.cumsum(present) - 1)[code]
    sorted_orders, starts = _ranked(point, sign, price)
    first = np.flatnonzero(starts)
    order_group = np.empty(len(sorted_orders), dtype=np.int64)
    order_group[sorted_orders] = np.cumsum(starts) - 1
    heads = sorted_orders[first]
    return Columns(
        flow=flow,
        limits=limits,
        hours=hours,
        firm_p_w=firm_p_w,
        firm_q_var=firm_q_var,
        import_price=import_price,
        export_price=export_price,
        floor=floor,
        cap=cap,
        point_node=point_code // max(len(phis), 1),
        point_tan_phi=phis[point_code % max(len(phis), 1)] if len(phis) else np.zeros(0),
        group_point=point[heads],
        group_sign=sign[heads],
        group_price=price[heads],
        group_wh=np.add.reduceat(wh[sorted_orders], first) if len(first) else np.zeros(0, dtype=np.int64),
        order_group=order_group,
        order_wh=wh,
    )


def _ranked(point: Ints, sign: Ints, price: Ints) -> tuple[Ints, Bools]:
    """Orders by point, side and price, and which of them begin a group."""
    span = int(price.max(initial=0)) - int(price.min(initial=0)) + 1
    starts = np.zeros(len(point), dtype=bool)
    starts[:1] = True
    if int(point.max(initial=0)) * 2 * span < 2**62:
        key = (point * 2 + (sign > 0)) * span + (price - price.min(initial=0))
        ranked = np.argsort(key)
        starts[1:] = np.diff(key[ranked]) != 0
    else:
        ranked = np.lexsort((price, sign, point))
        for values in (point, sign, price):
            starts[1:] |= np.diff(values[ranked]) != 0
    return ranked, starts
