"""The last step to the optimum: Newton's method on its conditions, by active set.

Linear programs settle powers to a watt, but a price error goes as the square root of a power error.  Near
the optimum it is known which groups are marginal and which limits bind; what remains are smooth equations:

- the price at the point of each marginal group is its limit price,
- each binding limit is reached exactly,
- net import is zero where the retailer neither sells nor buys (else energy has its tariff).

Unknown are the marginal groups' powers, the price of energy μ and the duals ν of the limits.  The Hessian
of losses and limits enters only where marginal groups outnumber the other conditions; it is taken by
differences of the adjoint gradients.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from grid.errors import PowerFlowError
from grid.feeder import Bools, Floats
from grid.limits import LimitCheck, check_limits
from grid.powerflow import OperatingPoint
from market.auction.columns import Columns
from market.auction.rows import LimitKey, excess_of, limits_near, one_end_each, tangents

ITERATIONS_MAX = 14
MARGINAL_MAX = 80
PRICE_TOLERANCE = 2e-4
"""EUR/MWh to which prices and limit prices agree in the end: a fifth of the smallest step of a price."""
EXCESS_TOLERANCE_PU = 1e-9
BALANCE_TOLERANCE_KW = 1e-6
PROBE_KW = 0.5


@dataclass(frozen=True, eq=False)
class Polished:
    """Powers [g] in kW at which the conditions hold, their operating point, and the limits that bind."""

    kw: Floats
    point: OperatingPoint
    check: LimitCheck
    binding: tuple[LimitKey, ...]


@dataclass(frozen=True, eq=False)
class _Gradients:
    """At the points [k]: effect on net import (per kW), and on each binding limit [j, k] (pu per kW)."""

    effect: Floats
    slopes: Floats

    def prices(self, energy: float, duals: Floats) -> Floats:
        """Prices at the points [k] in EUR/MWh."""
        return np.asarray(-energy * self.effect - duals @ self.slopes)


def _gradients(
    columns: Columns, point: OperatingPoint, check: LimitCheck, keys: list[LimitKey]
) -> _Gradients:
    effect = columns.at_points(*point.slack_gradient)
    rows = {row.key: row.at_points for row in tangents(columns, point, check, keys)}
    slopes = np.array([rows[key] for key in keys]).reshape(len(keys), len(effect))
    return _Gradients(effect, slopes)


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
    keys = one_end_each(columns.feeder, check, binding)
    energy_fixed = None
    if abs(net_import_kw) > 1e-3:
        energy_fixed = (columns.import_price if net_import_kw > 0 else columns.export_price) / 1e3
    limit = columns.group_price / 1e3
    cap = columns.group_kw
    marginal = (kw > 0) & (kw < cap)
    hessian: Floats | None = None
    energy, duals = _first_duals(columns, _gradients(columns, point, check, keys), marginal, energy_fixed)
    for _ in range(ITERATIONS_MAX):
        if np.count_nonzero(marginal) > MARGINAL_MAX:
            return None
        gradients = _gradients(columns, point, check, keys)
        price = gradients.prices(energy, duals)[columns.group_point]
        gain = columns.group_sign * (price - limit)
        excess = np.array([excess_of(check, key) for key in keys])
        balance_kw = point.slack_w / 1e3 if energy_fixed is None else 0.0
        off_price = float(np.abs(gain[marginal]).max(initial=0.0))
        off_limit = float(np.abs(excess).max(initial=0.0))
        if (
            off_price <= PRICE_TOLERANCE
            and off_limit <= EXCESS_TOLERANCE_PU
            and abs(balance_kw) <= BALANCE_TOLERANCE_KW
        ):
            changed = _next_set(columns, kw, gain, marginal, keys, duals, check, network)
            if changed is None:
                return Polished(kw, point, check, tuple(keys))
            marginal, keys = changed
            hessian = None
            energy, duals = _first_duals(
                columns, _gradients(columns, point, check, keys), marginal, energy_fixed
            )
            gradients = _gradients(columns, point, check, keys)
            excess = np.array([excess_of(check, key) for key in keys])
        groups = np.flatnonzero(marginal)
        conditions = len(keys) + (energy_fixed is None)
        if len(groups) > conditions and (hessian is None or len(hessian) != len(groups)):
            try:
                hessian = _hessian(columns, kw, point, keys, energy, duals, groups)
            except PowerFlowError:
                return None
        step = _step(
            columns,
            gradients,
            groups,
            hessian if len(groups) > conditions else None,
            excess,
            balance_kw,
            energy_fixed,
        )
        if step is None:
            return None
        moved, energy, duals = step
        kw = kw.copy()
        kw[groups] += moved
        outside = (kw < 0) | (kw > cap)
        if outside.any():
            kw = np.clip(kw, 0.0, cap)
            marginal = marginal & ~outside
            hessian = None
        try:
            point = columns.flow.solve(*columns.injections(kw), point)
        except PowerFlowError:
            return None
        check = check_limits(point, columns.limits)
    return None


def _first_duals(
    columns: Columns, gradients: _Gradients, marginal: Bools, energy_fixed: float | None
) -> tuple[float, Floats]:
    """μ and ν that fit the marginal groups' limit prices best."""
    groups = np.flatnonzero(marginal)
    at = columns.group_point[groups]
    matrix = np.column_stack([-gradients.effect[at], -gradients.slopes[:, at].T])
    wanted = columns.group_price[groups] / 1e3
    if energy_fixed is not None:
        duals = np.linalg.lstsq(matrix[:, 1:], wanted - matrix[:, 0] * energy_fixed, rcond=None)[0]
        return energy_fixed, np.maximum(duals, 0.0)
    found = np.linalg.lstsq(matrix, wanted, rcond=None)[0]
    return float(found[0]), np.maximum(found[1:], 0.0)


def _hessian(
    columns: Columns,
    kw: Floats,
    point: OperatingPoint,
    keys: list[LimitKey],
    energy: float,
    duals: Floats,
    groups: np.ndarray,
) -> Floats:
    """Change of the price at each marginal group's point per kW traded by each of them [g, g]."""
    at = columns.group_point[groups]
    by_point: dict[int, Floats] = {}
    here = _gradients(columns, point, check_limits(point, columns.limits), keys).prices(energy, duals)[at]
    for k in set(at.tolist()):
        p_w, q_var = point.p_w.copy(), point.q_var.copy()
        node = columns.point_node[k]
        p_w[node] += PROBE_KW * 1e3
        q_var[node] += PROBE_KW * 1e3 * columns.point_tan_phi[k]
        probed = columns.flow.solve(p_w, q_var, point)
        there = _gradients(columns, probed, check_limits(probed, columns.limits), keys).prices(energy, duals)
        by_point[k] = (there[at] - here) / PROBE_KW
    return np.asarray(np.column_stack([by_point[k] for k in at.tolist()]) * columns.group_sign[groups])


def _step(
    columns: Columns,
    gradients: _Gradients,
    groups: np.ndarray,
    hessian: Floats | None,
    excess: Floats,
    balance_kw: float,
    energy_fixed: float | None,
) -> tuple[Floats, float, Floats] | None:
    """One Newton step: what the marginal groups move by, and the new μ and ν."""
    at, sign = columns.group_point[groups], columns.group_sign[groups]
    count, limits = len(groups), len(excess)
    size = count + limits + 1
    matrix, right = np.zeros((size, size)), np.zeros(size)
    if hessian is not None:
        matrix[:count, :count] = hessian
    matrix[:count, count] = -gradients.effect[at]
    matrix[:count, count + 1 :] = -gradients.slopes[:, at].T
    right[:count] = columns.group_price[groups] / 1e3
    if energy_fixed is None:
        matrix[count, :count] = gradients.effect[at] * sign
        right[count] = -balance_kw
    else:
        matrix[count, count] = 1.0
        right[count] = energy_fixed
    matrix[count + 1 :, :count] = gradients.slopes[:, at] * sign
    right[count + 1 :] = -excess
    scale = np.abs(matrix).max(axis=1)
    scale[scale == 0.0] = 1.0
    found = np.linalg.lstsq(matrix / scale[:, None], right / scale, rcond=1e-12)[0]
    if not np.isfinite(found).all():
        return None
    return found[:count], float(found[count]), found[count + 1 :]


def _next_set(
    columns: Columns,
    kw: Floats,
    gain: Floats,
    marginal: Bools,
    keys: list[LimitKey],
    duals: Floats,
    check: LimitCheck,
    network: bool,
) -> tuple[Bools, list[LimitKey]] | None:
    """Groups and limits to go on with where the conditions of the others fail; None where they hold."""
    full, empty = kw >= columns.group_kw, kw <= 0
    wrong = ~marginal & ((full & (gain < -PRICE_TOLERANCE)) | (empty & (gain > PRICE_TOLERANCE)))
    # Both are optimal to a linearisation already: only the few worst are worth a place.
    if np.count_nonzero(wrong) > MARGINAL_MAX:
        return marginal | wrong, keys
    relaxed = [key for key, dual in zip(keys, duals, strict=True) if dual < -PRICE_TOLERANCE]
    fresh: list[LimitKey] = []
    if network:
        over = [key for key in limits_near(check, -10 * EXCESS_TOLERANCE_PU) if key not in keys]
        branches = {(key.kind, columns.feeder.branch[key.index]) for key in keys if key.kind == "current"}
        fresh = [
            key
            for key in one_end_each(columns.feeder, check, over)
            if key.kind != "current" or (key.kind, columns.feeder.branch[key.index]) not in branches
        ]
    if not wrong.any() and not relaxed and not fresh:
        return None
    return marginal | wrong, [key for key in keys if key not in relaxed] + fresh
