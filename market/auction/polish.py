"""The last step to the optimum: Newton's method on its conditions, by active set.

Linear programs settle powers to a watt, but a price error goes as the square root of a power error.  Near
the optimum it is known which groups are marginal and which limits bind; what remains are smooth equations:

- the price at the point of each marginal group is its limit price,
- each binding limit is reached exactly,
- net import is zero where the retailer neither sells nor buys (else energy has its tariff).

Unknown are the marginal groups' powers, the price of energy μ and the duals ν of the limits.  The
curvature of losses enters only where marginal groups outnumber the other conditions.
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
from market.auction.columns import Columns
from market.auction.rows import LimitKey, Tangent, excess_of, independent, limits_near, tangents

ITERATIONS_MAX = 14
MARGINAL_MAX = 80
PRICE_TOLERANCE = 4e-4
"""EUR/MWh to which prices and limit prices agree in the end: well within the smallest step of a price."""
EXCESS_TOLERANCE_PU = 1e-7
BALANCE_TOLERANCE_KW = 2e-5
PATIENCE = 3
"""Steps in a row that may fail to halve the residual."""


@dataclass(frozen=True, eq=False)
class Polished:
    """Powers [g] in kW at which the conditions hold, their operating point, and the limits that bind."""

    kw: Floats
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
    keys = here.told_apart(binding)
    energy_fixed = None
    if abs(net_import_kw) > 1e-3:
        energy_fixed = (columns.import_price if net_import_kw > 0 else columns.export_price) / 1e3
    limit = columns.group_price / 1e3
    cap = columns.group_kw
    marginal = (kw > 0) & (kw < cap)
    energy, duals = _first_duals(columns, here, keys, marginal, energy_fixed)
    patience, least = PATIENCE, np.inf
    for _ in range(ITERATIONS_MAX):
        if np.count_nonzero(marginal) > MARGINAL_MAX:
            return None
        price = (-energy * here.effect - duals @ here.slopes(keys))[columns.group_point]
        gain = columns.group_sign * (price - limit)
        balance_kw = here.point.slack_w / 1e3 if energy_fixed is None else 0.0
        residual = max(
            float(np.abs(gain[marginal]).max(initial=0.0)) / PRICE_TOLERANCE,
            float(np.abs(here.excess(keys)).max(initial=0.0)) / EXCESS_TOLERANCE_PU,
            abs(balance_kw) / BALANCE_TOLERANCE_KW,
        )
        if residual <= 1.0:
            changed = _next_set(columns, kw, gain, marginal, keys, duals, here, network)
            if changed is None:
                return Polished(kw, here.point, here.check, tuple(keys))
            marginal, keys = changed
            patience, least = PATIENCE, np.inf
            energy, duals = _first_duals(columns, here, keys, marginal, energy_fixed)
        elif residual < least / 2:
            patience, least = PATIENCE, residual
        else:
            patience -= 1
        if not patience:
            return None  # the wrong set: a round of the linear program finds a better one
        groups = np.flatnonzero(marginal)
        linear = _linear(columns, here, keys, groups, balance_kw, energy, energy_fixed)
        moved, blocked, energy, duals = _step(linear, kw[groups], cap[groups])
        kw = kw.copy()
        kw[groups] = np.clip(kw[groups] + moved, 0.0, cap[groups])
        stopped = groups[blocked]
        kw[stopped] = np.where(kw[stopped] < cap[stopped] / 2, 0.0, cap[stopped])
        marginal = marginal.copy()
        marginal[stopped] = False
        try:
            point = columns.flow.solve(*columns.injections(kw), here.point)
        except PowerFlowError:
            return None
        here = _Here(columns, point, check_limits(point, columns.limits))
    return None


def _first_duals(
    columns: Columns, here: _Here, keys: list[LimitKey], marginal: Bools, energy_fixed: float | None
) -> tuple[float, Floats]:
    """μ and ν that fit the marginal groups' limit prices best."""
    groups = np.flatnonzero(marginal)
    at = columns.group_point[groups]
    matrix = np.column_stack([-here.effect[at], -here.slopes(keys)[:, at].T])
    wanted = columns.group_price[groups] / 1e3
    if energy_fixed is not None:
        duals = np.linalg.lstsq(matrix[:, 1:], wanted - matrix[:, 0] * energy_fixed, rcond=None)[0]
        return energy_fixed, np.maximum(duals, 0.0)
    found = np.linalg.lstsq(matrix, wanted, rcond=None)[0]
    return float(found[0]), np.maximum(found[1:], 0.0)


@dataclass(frozen=True, eq=False)
class _Linear:
    """The conditions about an operating point: ``matrix · (moves, μ, ν) = right``, moves first."""

    matrix: Floats
    right: Floats
    count: int


def _linear(
    columns: Columns,
    here: _Here,
    keys: list[LimitKey],
    groups: Ints,
    balance_kw: float,
    energy: float,
    energy_fixed: float | None,
) -> _Linear:
    at, sign = columns.group_point[groups], columns.group_sign[groups]
    slopes = here.slopes(keys)[:, at]
    count, limits = len(groups), len(keys)
    size = count + limits + 1
    matrix, right = np.zeros((size, size)), np.zeros(size)
    if count > limits + (energy_fixed is None):
        # How prices change per kW: by the curvature of losses. That of limits is small beside it.
        curvature = columns.flow.slack_curvature(
            here.point, columns.point_node[at], columns.point_tan_phi[at]
        )
        matrix[:count, :count] = -energy * 1e3 * curvature * sign
    matrix[:count, count] = -here.effect[at]
    matrix[:count, count + 1 :] = -slopes.T
    right[:count] = columns.group_price[groups] / 1e3
    if energy_fixed is None:
        matrix[count, :count] = here.effect[at] * sign
        right[count] = -balance_kw
    else:
        matrix[count, count] = 1.0
        right[count] = energy_fixed
    matrix[count + 1 :, :count] = slopes * sign
    right[count + 1 :] = -here.excess(keys)
    return _Linear(matrix, right, count)


def _step(linear: _Linear, kw: Floats, cap: Floats) -> tuple[Floats, Bools, float, Floats]:
    """What the marginal groups move by, which of them end at a bound, and the new μ and ν.

    Where a move would leave the bounds all go as far as the first of them allows; that one stays there and
    has no condition of its own any more, and the others solve theirs again.
    """
    count = linear.count
    moved, blocked = np.zeros(count), np.zeros(count, dtype=bool)
    while True:
        free = np.flatnonzero(~blocked)
        kept = np.concatenate([free, np.arange(count, len(linear.right))])
        matrix = linear.matrix[np.ix_(kept, kept)]
        right = linear.right[kept] - linear.matrix[np.ix_(kept, np.flatnonzero(blocked))] @ moved[blocked]
        scale = np.abs(matrix).max(axis=1, initial=0.0)
        scale[scale == 0.0] = 1.0
        found = np.linalg.lstsq(matrix / scale[:, None], right / scale, rcond=1e-12)[0]
        way = found[: len(free)] - moved[free]
        room = np.where(way > 0, cap[free] - kw[free], kw[free]) - np.sign(way) * moved[free]
        share = np.divide(room, np.abs(way), out=np.full(len(free), np.inf), where=way != 0)
        first = float(share.min(initial=np.inf))
        moved[free] += way * min(1.0, max(first, 0.0))
        if first >= 1.0:
            return moved, blocked, float(found[len(free)]), found[len(free) + 1 :]
        blocked[free[np.argmin(share)]] = True


def _next_set(
    columns: Columns,
    kw: Floats,
    gain: Floats,
    marginal: Bools,
    keys: list[LimitKey],
    duals: Floats,
    here: _Here,
    network: bool,
) -> tuple[Bools, list[LimitKey]] | None:
    """Groups and limits to go on with where the conditions of the others fail; None where they hold."""
    full, empty = kw >= columns.group_kw, kw <= 0
    # A group that offers nothing (a rejected block) is both full and empty, and right at any price.
    wrong = (full & ~empty & (gain < -PRICE_TOLERANCE)) | (empty & ~full & (gain > PRICE_TOLERANCE))
    wrong &= ~marginal
    # Both are optimal to a linearisation already: only the few worst are worth a place.
    if np.count_nonzero(wrong) > MARGINAL_MAX:
        return marginal | wrong, keys
    relaxed = [key for key, dual in zip(keys, duals, strict=True) if dual < -PRICE_TOLERANCE]
    kept = [key for key in keys if key not in relaxed]
    fresh = limits_near(here.check, -10 * EXCESS_TOLERANCE_PU) if network else []
    chosen = here.told_apart({*kept, *fresh})
    if not wrong.any() and set(chosen) == set(keys):
        return None
    return marginal | wrong, chosen
