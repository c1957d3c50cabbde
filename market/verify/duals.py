"""The published duals at the final point, with gradients recomputed by pandapower.

The price of a watt injected at a node is ``−μ·∂P_slack/∂p − Σ ν_j·∂f_j/∂p`` with the published duals μ
(energy at the slack, µEUR/kWh) and ν (limits f_j, EUR/h per pu).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from market.verify.case import Case, Entry
from market.verify.network import Floats, State
from market.verify.orders import tie_groups

UEUR_PER_KWH = 1e9
"""EUR/h per W in µEUR/kWh."""
PRICE_TOLERANCE = 5.0
"""µEUR/kWh: prices are whole, and the clearing's duals are found in floating point."""


@dataclass(frozen=True, eq=False)
class Row:
    """A limit with a published dual: ``excess_pu`` beyond it (< 0: room left), and its gradient [n]."""

    name: str
    kind: Literal["current", "v_min", "v_max"]
    dual: float
    excess_pu: float
    rating_va: float
    by_p: Floats
    by_q: Floats


@dataclass(frozen=True, eq=False)
class Linearised:
    """The clearing at the final point: duals, and the price parts that they make of each node [n]."""

    energy: float
    rows: tuple[Row, ...]
    losses: Floats
    congestion: Floats
    voltage: Floats
    price_q: Floats
    delivery: Floats
    """−∂P_slack/∂p [n]."""
    delivery_q: Floats

    @property
    def price(self) -> Floats:
        return self.energy + self.losses + self.congestion + self.voltage

    def at(self, entry: Entry, state: State) -> float:
        """The price of injection by this order."""
        node = state.node_of_bus[entry.bus]
        return float(self.price[node] + entry.order.tan_phi * self.price_q[node])


def linearise(case: Case, state: State) -> Linearised | str:
    """The published duals at pandapower's final point; or what is wrong with them, in words."""
    certificate = case.record.certificate
    if certificate is None:
        return "The record has no duals."
    duals = dict(certificate.duals)
    if "energy" not in duals:
        return "The record has no dual of energy."
    energy = duals.pop("energy")
    currents = {current.name: current for current in state.currents}
    voltages = {f"bus:{v.bus}/{kind}": v for v in state.voltages for kind in ("v_min", "v_max")}
    unknown = sorted(set(duals) - set(currents) - set(voltages))
    if unknown:
        return f"The record has a dual for {unknown[0]!r}, which is no limit of this feeder."
    rows: list[Row] = []
    for name, dual in duals.items():
        if name in currents:
            current = currents[name]
            by_p, by_q = state.current_gradients([current])
            excess = current.loading - current.limit
            rows.append(Row(name, "current", dual, excess, current.rating_va, by_p[0], by_q[0]))
            continue
        voltage = voltages[name]
        by_p, by_q = state.voltage_gradients([voltage.node])
        if name.endswith("v_max"):
            excess = voltage.v_pu - voltage.v_max_pu
            rows.append(Row(name, "v_max", dual, excess, np.nan, by_p[0], by_q[0]))
        else:
            excess = voltage.v_min_pu - voltage.v_pu
            rows.append(Row(name, "v_min", dual, excess, np.nan, -by_p[0], -by_q[0]))
    slack_by_p, slack_by_q = state.slack_gradient()
    congestion, voltage_part, price_q = np.zeros((3, state.node_count))
    price_q -= energy * slack_by_q
    for row in rows:
        part = congestion if row.kind == "current" else voltage_part
        part -= UEUR_PER_KWH * row.dual * row.by_p
        price_q -= UEUR_PER_KWH * row.dual * row.by_q
    losses = energy * (-slack_by_p - 1.0)
    return Linearised(
        energy, tuple(rows), losses, congestion, voltage_part, price_q, -slack_by_p, -slack_by_q
    )


def net_tariffs(case: Case) -> tuple[int, int]:
    """What energy from and to the retailer costs and earns inside the auction; the local fee is a wedge."""
    tariff = case.book.tariff
    return tariff.import_price - tariff.local_fee, tariff.export_price


def marginal_groups(
    case: Case, state: State, linear: Linearised, tolerance: float = PRICE_TOLERANCE
) -> list[list[Entry]]:
    """Groups of equal orders that rounding may have touched: partly filled, or without gain or loss.

    ``tolerance`` is up to which gain or loss (µEUR/kWh) there is none.
    """
    found = []
    for group in tie_groups(case, state):
        partly = any(entry.fill_wh for entry in group) and not all(entry.whole for entry in group)
        gain = group[0].sign * (linear.at(group[0], state) - case.net_limit(group[0]))
        if partly or abs(gain) <= tolerance:
            found.append(group)
    return found


def price_tolerance(case: Case, state: State, linear: Linearised) -> float:
    """How far prices may be from the duals', µEUR/kWh: the constant, and what rounding to Wh moves prices by.

    The latter is found by moving one Wh in every group that rounding may have touched, asks and bids apart,
    and taking the gradients again at pandapower's solution.
    """
    moved = 0.0
    for sign in (1, -1):
        touched = [g[0].order.id for g in marginal_groups(case, state, linear) if g[0].sign == sign]
        if touched:
            fills = {entry.order.id: entry.fill_wh for entry in case.entries}
            there = linearise(
                case, case.solve(fills | {order_id: fills[order_id] + 1 for order_id in touched})
            )
            assert not isinstance(there, str)
            moved += float(np.abs(there.price - linear.price).max(initial=0.0))
    return PRICE_TOLERANCE + moved
