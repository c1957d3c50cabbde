"""Whole Wh: group totals rounded down, limits kept, and each group shared among its orders (rule 7)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from grid.feeder import Floats, Ints, Objects
from grid.limits import TOLERANCE_PU, LimitCheck, check_limits
from grid.powerflow import OperatingPoint
from market.auction.columns import Columns
from market.auction.dispatch import Dispatch
from market.auction.rows import limits_near, tangents

REPAIRS_MAX = 40
SNAP_WH = 1e-4
"""The solver's own error: a total this close below a whole Wh is that Wh."""


@dataclass(frozen=True, eq=False)
class WholeAwards:
    """Group totals [g] in Wh, at the AC operating point that they make."""

    group_wh: Ints
    point: OperatingPoint
    check: LimitCheck


def _operate(columns: Columns, group_wh: Ints, start: OperatingPoint) -> tuple[OperatingPoint, LimitCheck]:
    p_w, q_var = columns.injections(group_wh / columns.hours / 1e3)
    point = columns.flow.solve(p_w, q_var, start)
    return point, check_limits(point, columns.limits)


def whole_awards(
    columns: Columns, found: Dispatch, *, network: bool = True, least_wh: Ints | int = 0
) -> WholeAwards:
    """The dispatch in whole Wh, AC-feasible again.

    Only what is partly filled changes by rounding down, by less than 1 Wh for each such group.  Where
    that alone breaks a limit, groups whose whole Wh up relieves it are rounded up instead; else fills that
    feed the violation are reduced by as many Wh as it takes, but not below ``least_wh`` [g].  Where that does
    not keep all limits, the awards on this way that exceed one by least are the result.
    """
    real_wh = found.kw * columns.hours * 1e3
    group_wh = np.minimum(np.floor(real_wh + SNAP_WH).astype(np.int64), columns.group_wh)
    partly = (real_wh > SNAP_WH) & (group_wh < columns.group_wh)
    rounded_down = partly & (group_wh < real_wh)
    if np.array_equal(group_wh, real_wh):
        return WholeAwards(group_wh, found.point, found.check)
    point, check = _operate(columns, group_wh, found.point)
    if not network:
        return WholeAwards(group_wh, point, check)
    least = WholeAwards(group_wh.copy(), point, check)
    for _ in range(REPAIRS_MAX):
        violated = limits_near(check, -TOLERANCE_PU)
        if not violated:
            break
        if check.worst_excess < least.check.worst_excess:
            least = WholeAwards(group_wh.copy(), point, check)
        worst = max(tangents(columns, point, check, violated), key=lambda tangent: tangent.excess_pu)
        # pu of excess that one Wh less of each group takes away.
        relief = columns.at_groups(worst.at_points) / columns.hours / 1e3
        upward = np.where(rounded_down, -relief, 0.0)
        if upward.max() > 0:
            group = int(np.argmax(upward))
            group_wh[group] += 1
            rounded_down[group] = False
            point, check = _operate(columns, group_wh, point)
            continue
        able = (group_wh > least_wh) & (relief > 0)
        if not able.any():
            break
        group = int(np.argmax(np.where(able, relief + partly * relief.max(), -np.inf)))
        reduction = int(np.ceil((worst.excess_pu - TOLERANCE_PU / 2) / relief[group]))
        group_wh[group] -= min(max(reduction, 1), int((group_wh - least_wh)[group]))
        point, check = _operate(columns, group_wh, point)
    return min(least, WholeAwards(group_wh, point, check), key=lambda awards: awards.check.worst_excess)


def _tie_key(interval_start: str, order_id: str) -> bytes:
    return hashlib.sha256(f"{interval_start}|{order_id}".encode()).digest()


def share_among_orders(columns: Columns, group_wh: Ints, order_ids: Objects, interval_start: str) -> Ints:
    """Each order's Wh [o]: pro rata, by largest remainder, equal remainders by a hash (rule 7)."""
    full = group_wh == columns.group_wh
    shares = np.where(full[columns.order_group], columns.order_wh, 0)
    for group in np.flatnonzero(~full & (group_wh > 0)):
        members = np.flatnonzero(columns.order_group == group).tolist()
        total, offered = int(group_wh[group]), int(columns.group_wh[group])
        exact = [divmod(total * int(columns.order_wh[member]), offered) for member in members]
        left = total - sum(quotient for quotient, _ in exact)
        ranked = sorted(
            range(len(members)),
            key=lambda i: (-exact[i][1], _tie_key(interval_start, order_ids[members[i]])),
        )
        extra = set(ranked[:left])
        for i, member in enumerate(members):
            shares[member] = exact[i][0] + (i in extra)
    assert (shares <= columns.order_wh).all()
    return np.asarray(shares, dtype=np.int64)


def partly_filled(columns: Columns, kw: Floats) -> tuple[np.ndarray, np.ndarray]:
    """Which groups [g] got something, and which did not get all, by the real-valued powers."""
    tolerance = SNAP_WH / columns.hours / 1e3
    return kw > tolerance, kw < columns.group_kw - tolerance
