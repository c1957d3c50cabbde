"""The last step to the optimum: Newton's method on its conditions, by active set.

Linear programs settle powers to a watt, but a price error goes as the square root of a power error.  Near
the optimum only few groups may still move, and the conditions are smooth:

- what is traded in part has its limit price at its point, in full it gains, not at all it would lose,
- limits are kept, and those with a price reached exactly,
- the retailer sells at the import tariff, buys at the export tariff, and does neither between the two.

Each iteration linearises at an AC operating point and solves the quadratic program whose curvature is that of
the Lagrangian: of losses at the price of energy μ, and of the limits at their duals ν.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from grid.errors import PowerFlowError
from grid.feeder import Bools, Floats, Ints
from grid.limits import LimitCheck, check_limits
from grid.powerflow import OperatingPoint
from market.auction import quadratic
from market.auction.columns import Columns
from market.auction.lp import TRADE_PREFERENCE_EUR_PER_MWH
from market.auction.rows import LimitKey, Tangent, excess_of, independent, limits_near, tangents

ITERATIONS_MAX = 30
CANDIDATES_MAX = 150
ENTRANTS_MAX = 40
"""So many of the groups that would rather trade otherwise join those that may move in one iteration."""
PRICE_TOLERANCE = 4e-4
"""EUR/MWh to which prices and limit prices agree in the end: well within the smallest step of a price."""
EXCESS_TOLERANCE_PU = 1e-8
BINDING_PU = 1e-6
"""Limits this near at the optimum bind."""
BALANCE_TOLERANCE_KW = 2e-5
SNAP_KW = 1e-9
"""What is this near to a bound is at it."""
NEAR_PU = 1e-3
"""Limits nearer than this are rows of the quadratic program."""
PATIENCE = 6
"""Steps in a row that may fail to halve the residual."""


@dataclass(frozen=True, eq=False)
class Polished:
    """Powers [g] in kW at which the conditions hold, their operating point, and the limits that bind."""

    kw: Floats
    net_import_kw: float
    point: OperatingPoint
    check: LimitCheck
    binding: tuple[LimitKey, ...]


class _Here:
    """An operating point with what was linearised at it, each limit once."""

    def __init__(self, columns: Columns, point: OperatingPoint, check: LimitCheck) -> None:
        self._columns = columns
        self.point = point
        self.check = check
        self._known: dict[LimitKey, Tangent] = {}

    def tangents(self, keys: Iterable[LimitKey]) -> list[Tangent]:
        wanted = list(keys)
        missing = [key for key in wanted if key not in self._known]
        if missing:
            found = tangents(self._columns, self.point, self.check, missing)
            self._known.update((row.key, row) for row in found)
        return [self._known[key] for key in wanted]

    def told_apart(self, keys: Iterable[LimitKey]) -> list[LimitKey]:
        """Of limits that orders cannot tell apart the most exceeded one."""
        return [row.key for row in independent(self.tangents(keys))]

    @cached_property
    def effect(self) -> Floats:
        """Effect of a kW injected at each point [k] on net import."""
        return self._columns.at_points(*self.point.slack_gradient)

    def slopes(self, keys: list[LimitKey]) -> Floats:
        """Effect of a kW injected at each point on the limits [j, k], pu."""
        rows = [row.at_points for row in self.tangents(keys)]
        return np.array(rows).reshape(len(keys), len(self.effect))

    def excess(self, keys: list[LimitKey]) -> Floats:
        return np.array([excess_of(self.check, key) for key in keys])

    def curvature(self, points: Ints, duals: _Duals) -> Floats:
        """The Lagrangian's [p, p]: how the prices at these points fall per kW injected at each of them."""
        columns, rows = self._columns, self.tangents(duals.keys)
        by_p, by_q = (duals.energy * part for part in self.point.slack_gradient)
        weights = 1e3 * duals.values  # of functions of W instead of kW
        for row, weight in zip(rows, weights / 1e3, strict=True):
            by_p, by_q = by_p + weight * row.by_p, by_q + weight * row.by_q
        sign = np.array([-1.0 if key.kind == "v_min" else 1.0 for key in duals.keys])
        index = np.array([key.index for key in duals.keys], dtype=np.int64)
        current = np.array([key.kind == "current" for key in duals.keys], dtype=bool)
        return 1e3 * columns.flow.curvature(
            self.point,
            columns.point_node[points],
            columns.point_tan_phi[points],
            (by_p, by_q),
            (index[current], weights[current]),
            (index[~current], (sign * weights)[~current]),
        )


def polish(
    columns: Columns,
    kw: Floats,
    point: OperatingPoint,
    check: LimitCheck,
    binding: Iterable[LimitKey],
    net_import_kw: float,
    *,
    network: bool,
) -> Polished | None:
    """The optimum near ``kw``, or None where the conditions do not come to hold.

    ``binding`` are the limits thought to bind and ``net_import_kw`` the retailer's trade, of which only the
    sign counts (within a watt of zero: none).
    """
    here = _Here(columns, point, check)
    near = limits_near(check, NEAR_PU) if network else []
    binding = list(binding)
    here.tangents({*binding, *near})  # all at once costs little more than one
    trade = np.zeros(2)  # import and export, kW
    if abs(net_import_kw) > 1e-3:
        trade[0 if net_import_kw > 0 else 1] = abs(point.slack_w) / 1e3
    limit, cap, sign = columns.group_price / 1e3, columns.group_kw, columns.group_sign
    kw = np.where(kw < SNAP_KW, 0.0, np.where(kw > cap - SNAP_KW, cap, kw))
    candidates = (kw > 0) & (kw < cap)
    duals = _first_duals(columns, here, here.told_apart(binding), candidates, trade)
    patience, least = PATIENCE, np.inf
    for _ in range(ITERATIONS_MAX):
        gain = sign * (duals.prices(here)[columns.group_point] - limit)
        regret = np.maximum(np.where(kw < cap, gain, 0.0), np.where(kw > 0, -gain, 0.0))
        residual = max(
            float(regret.max(initial=0.0)) / PRICE_TOLERANCE,
            float(np.abs(here.excess(duals.priced(here))).max(initial=0.0)) / EXCESS_TOLERANCE_PU,
            here.check.worst_excess / EXCESS_TOLERANCE_PU if network else 0.0,
            abs(here.point.slack_w / 1e3 - trade[0] + trade[1]) / BALANCE_TOLERANCE_KW,
        )
        if residual <= 1.0:
            bind = limits_near(here.check, BINDING_PU) if network else []
            kept = here.told_apart({*duals.priced(here), *bind})
            return Polished(kw, float(trade[0] - trade[1]), here.point, here.check, tuple(kept))
        patience, least = (PATIENCE, residual) if residual < least / 2 else (patience - 1, least)
        candidates = candidates | _worst(regret)
        if not patience or np.count_nonzero(candidates) > CANDIDATES_MAX:
            return None
        found = _step(columns, here, kw, trade, np.flatnonzero(candidates), duals, near)
        if found is None:
            return None
        kw, trade, duals = found
        try:
            point = columns.flow.solve(*columns.injections(kw), here.point)
        except PowerFlowError:
            return None
        here = _Here(columns, point, check_limits(point, columns.limits))
        near = limits_near(here.check, NEAR_PU) if network else []
        here.tangents({*duals.keys, *near})
        if trade.any():
            trade = np.maximum(np.array([point.slack_w, -point.slack_w]) / 1e3, 0.0)
    return None


def _worst(regret: Floats) -> Bools:
    """The groups that would gain most per kWh by trading otherwise."""
    wrong = regret > PRICE_TOLERANCE
    if np.count_nonzero(wrong) > ENTRANTS_MAX:
        wrong &= regret >= np.partition(regret, -ENTRANTS_MAX)[-ENTRANTS_MAX]
    return wrong


@dataclass(frozen=True, eq=False)
class _Duals:
    """The price of energy μ in EUR/MWh, and ν of limits in EUR/MWh·kW per pu."""

    energy: float
    keys: list[LimitKey]
    values: Floats

    def prices(self, here: _Here) -> Floats:
        """At the points [k]."""
        return -self.energy * here.effect - self.values @ here.slopes(self.keys)

    def priced(self, here: _Here) -> list[LimitKey]:
        """The limits whose dual moves a price."""
        rows = here.tangents(self.keys)
        least = PRICE_TOLERANCE
        return [row.key for row, dual in zip(rows, self.values, strict=True) if dual * row.scale > least]


def _first_duals(
    columns: Columns, here: _Here, keys: list[LimitKey], marginal: Bools, trade: Floats
) -> _Duals:
    """μ and ν that fit the marginal groups' limit prices best; μ is the tariff if the retailer trades."""
    groups = np.flatnonzero(marginal)
    at = columns.group_point[groups]
    matrix = np.column_stack([-here.effect[at], -here.slopes(keys)[:, at].T])
    wanted = columns.group_price[groups] / 1e3
    if trade.any():
        energy = (columns.import_price if trade[0] else columns.export_price) / 1e3
        found = np.linalg.lstsq(matrix[:, 1:], wanted - matrix[:, 0] * energy, rcond=None)[0]
        return _Duals(energy, keys, np.maximum(found, 0.0))
    found = np.linalg.lstsq(matrix, wanted, rcond=None)[0]
    return _Duals(float(found[0]), keys, np.maximum(found[1:], 0.0))


def _step(
    columns: Columns,
    here: _Here,
    kw: Floats,
    trade: Floats,
    groups: Ints,
    duals: _Duals,
    near: list[LimitKey],
) -> tuple[Floats, Floats, _Duals] | None:
    """Powers, the retailer's trade and duals at the optimum of the quadratic program about here.

    Variables are the moves of the groups, of import and of export; rows are the balance and the limits, each
    scaled to kW.
    """
    at, sign = columns.group_point[groups], columns.group_sign[groups]
    points, of_point = np.unique(at, return_inverse=True)
    keys = here.told_apart({*duals.keys, *near})
    scales = np.array([row.scale for row in here.tangents(keys)])
    count = len(groups)

    def hessian() -> Floats:
        curvature = here.curvature(points, duals)[np.ix_(of_point, of_point)]
        whole = np.zeros((count + 2, count + 2))
        whole[:count, :count] = sign[:, None] * curvature * sign
        return whole

    price = columns.group_price[groups] / 1e3
    tariffs = np.array([columns.import_price, -columns.export_price]) / 1e3
    rows = np.zeros((1 + len(keys), count + 2))
    rows[0, :count], rows[0, count:] = here.effect[at] * sign, (-1.0, 1.0)
    rows[1:, :count] = here.slopes(keys)[:, at] * sign / scales[:, None]
    balance_kw = here.point.slack_w / 1e3 - trade[0] + trade[1]
    excess = here.excess(keys)
    priced = set(duals.priced(here))
    found = quadratic.solve(
        hessian,
        np.concatenate([sign * price - TRADE_PREFERENCE_EUR_PER_MWH, tariffs]),
        (
            np.concatenate([-kw[groups], -trade]),
            np.concatenate([columns.group_kw[groups] - kw[groups], [np.inf, np.inf]]),
        ),
        rows,
        np.concatenate([[-balance_kw], -excess / scales]),
        equations=1,
        active=np.array([True, *(key in priced for key in keys)]) | np.concatenate([[True], excess > 0]),
    )
    if found is None:
        return None
    low, high = -kw[groups], columns.group_kw[groups] - kw[groups]
    moves = found.values[:count]
    following = kw.copy()
    following[groups] = np.clip(kw[groups] + moves, 0.0, columns.group_kw[groups])
    following[groups[moves <= low]] = 0.0
    full = groups[moves >= high]
    following[full] = columns.group_kw[full]
    traded = np.maximum(trade + found.values[count:], 0.0)
    energy, limit_duals = float(found.multipliers[0]), np.maximum(found.multipliers[1:], 0.0) / scales
    kept = found.active[1:]
    return (
        following,
        traded,
        _Duals(energy, [key for key, bind in zip(keys, kept, strict=True) if bind], limit_duals[kept]),
    )
