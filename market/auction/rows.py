"""Limits as tangent rows: ``value + Σ slope·(x − x0) ≤ limit`` about an operating point.

A row is scaled so that its largest slope among the points is one: it is then in kW, and its dual in
the price unit of the linear program.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from grid.feeder import Feeder, Floats
from grid.limits import LimitCheck
from grid.powerflow import OperatingPoint
from market.auction.columns import Columns

PARALLEL_TOLERANCE = 1e-6

RowKind = Literal["current", "v_min", "v_max"]


@dataclass(frozen=True, order=True)
class LimitKey:
    """Which limit: a row of the feeder's limited currents, or a node's voltage."""

    kind: RowKind
    index: int


@dataclass(frozen=True, eq=False)
class Tangent:
    """A limit linearised at an operating point.

    ``at_points`` [k] is its change in pu per kW injected at each point; ``excess_pu`` how far beyond the
    limit (> 0) the operating point is; ``by_p``/``by_q`` [n] the same change per kW and kvar at each node.
    """

    key: LimitKey
    excess_pu: float
    by_p: Floats
    by_q: Floats
    at_points: Floats

    @property
    def scale(self) -> float:
        """pu per kW of the most effective point."""
        return float(np.abs(self.at_points).max(initial=0.0)) or 1.0


def excess_of(check: LimitCheck, key: LimitKey) -> float:
    """How far beyond its limit (> 0) the checked point has the value, pu."""
    values = {"current": check.excess_current, "v_min": check.excess_v_min, "v_max": check.excess_v_max}
    return float(values[key.kind][key.index])


def limits_near(
    check: LimitCheck, margin_pu: float, current_margins_pu: Floats | None = None
) -> list[LimitKey]:
    """Limits violated, or nearer than ``margin_pu`` (currents: than their own margin [m], if given)."""
    near: list[LimitKey] = []
    kinds: tuple[tuple[RowKind, Floats], ...] = (
        ("current", check.excess_current),
        ("v_max", check.excess_v_max),
        ("v_min", check.excess_v_min),
    )
    for kind, excess in kinds:
        margin = margin_pu if kind != "current" or current_margins_pu is None else current_margins_pu
        near.extend(LimitKey(kind, int(index)) for index in np.flatnonzero(excess > -margin))
    return near


def one_end_each(feeder: Feeder, check: LimitCheck, keys: Iterable[LimitKey]) -> list[LimitKey]:
    """The same limits, of a branch only the end that carries more: both ends are one limit twice."""
    kept: dict[tuple[str, str], LimitKey] = {}
    for key in sorted(keys):
        name = str(feeder.branch[key.index]) if key.kind == "current" else str(key.index)
        rival = kept.get((key.kind, name))
        if rival is None or excess_of(check, key) > excess_of(check, rival):
            kept[key.kind, name] = key
    return list(kept.values())


def tangents(
    columns: Columns, point: OperatingPoint, check: LimitCheck, keys: Iterable[LimitKey]
) -> list[Tangent]:
    """The tangents of the named limits at an operating point, in the order of the keys."""
    wanted = sorted(set(keys))  # currents come first
    if not wanted:
        return []
    currents = np.array([key.index for key in wanted if key.kind == "current"], dtype=np.int64)
    nodes = np.array([key.index for key in wanted if key.kind != "current"], dtype=np.int64)
    per_k = np.array([-1e3 if key.kind == "v_min" else 1e3 for key in wanted])[:, None]
    by_p, by_q = (per_k * part for part in columns.flow.limit_gradient(point, currents, nodes))
    each = zip(wanted, by_p, by_q, columns.at_points(by_p, by_q), strict=True)
    return [Tangent(key, excess_of(check, key), *gradients) for key, *gradients in each]


def independent(rows: Iterable[Tangent], *, at_nodes: bool = False) -> tuple[Tangent, ...]:
    """The rows that orders (with ``at_nodes``: injections anywhere) can tell apart.

    Of parallel ones the most exceeded, of those that no order moves none.

    Lines in series carry the same current, and so do both ends of one; which of them a price is due to is
    no fact of the market.
    """
    kept: list[Tangent] = []
    directions: list[Floats] = []
    for row in sorted(rows, key=lambda row: (-row.excess_pu, row.key)):
        if not row.at_points.any():
            continue
        direction = row.by_p if at_nodes else row.at_points
        direction = direction / float(np.linalg.norm(direction))
        if all(float(direction @ other) < 1 - PARALLEL_TOLERANCE for other in directions):
            kept.append(row)
            directions.append(direction)
    return tuple(sorted(kept, key=lambda row: row.key))
