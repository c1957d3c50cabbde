"""Locational prices: the dual solutions that go with the awards, and the one the rules choose.

At an operating point, the price at a point k is ``μ·a_k − Σ ν_j·s_jk`` with delivery factors
a = −∂P_slack/∂p, tangent slopes s and the duals μ (energy at the slack) and ν ≥ 0 (limits).  Awards say
what each price may be: at least the limit of what was sold and of bids left out, at most the limit of
what was bought and of asks left out.  Among the duals that satisfy this, the price is the mean of the
two that minimise and maximise the sum of DLMPs over buses, ties bus by bus in index order (rule 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grid.errors import SolverError
from grid.feeder import Floats, Ints
from grid.limits import LimitCheck
from grid.powerflow import OperatingPoint
from market.auction.columns import Columns
from market.auction.dispatch import Dispatch
from market.auction.highs import INFINITY, dense_rows, solver
from market.auction.rows import Tangent, independent, tangents
from market.auction.whole import partly_filled

UNIT = 1e3
"""The programs here are in EUR/MWh, thousandths of which are µEUR/kWh."""
PRICE_NOISE = 1e-5
"""Relative error of a price that comes with awards found by linearisation to 1 W."""
RANK_TOLERANCE = 1e-7
NOISE = 1.0
"""EUR/MWh: rounding contradicts prices by less. More comes of awards that a deadline cut short."""
NOISE_COST = 1e-7
FACE_TOLERANCE = 1e-6
"""EUR/MWh by which an optimum found is loosened when the next objective is taken among its ties."""


@dataclass(frozen=True, eq=False)
class Prices:
    """Real-valued duals and what they make of each bus.

    ``energy`` is μ in µEUR/kWh; ``limit_duals`` in EUR/h per pu of the limit, by tangent;
    ``bus_parts`` [buses, 4] are energy, losses, congestion and voltage, ``bus_q`` [buses] the price
    of reactive injection (µEUR/kvarh); ``point`` [k] is the price of injection at each point.
    """

    energy: float
    rows: tuple[Tangent, ...]
    limit_duals: Floats
    bus_parts: Floats
    bus_q: Floats
    point: Floats
    lowest: Floats
    highest: Floats
    """What the awards allow the price at each point [k] to be, µEUR/kWh; ±∞ where they say nothing."""


def _bounds(columns: Columns, kw: Floats) -> tuple[Floats, Floats]:
    """The lowest and highest price at each point [k] that the awards allow, µEUR/kWh; else ±∞."""
    some, not_all = partly_filled(columns, kw)
    asks = columns.group_sign > 0
    lowest = np.full(len(columns.point_node), -np.inf)
    highest = np.full(len(columns.point_node), np.inf)
    at_least, at_most = np.where(asks, some, not_all), np.where(asks, not_all, some)
    price = columns.group_price.astype(np.float64)  # mixed with integers, .at() is ten times slower
    np.maximum.at(lowest, columns.group_point[at_least], price[at_least])
    np.minimum.at(highest, columns.group_point[at_most], price[at_most])
    return lowest, highest


class _DualFace:
    """The dual vectors z = (μ, ν) with ``lowest ≤ A·z ≤ highest`` and bounds on z, in EUR/MWh.

    Where the awards say nothing, ``ends`` (floor and cap) do, as far as the awards let them: a bus where one
    more kWh would break limits can be worth less than the floor or more than the cap.
    """

    def __init__(
        self,
        matrix: Floats,
        lowest: Floats,
        highest: Floats,
        weight: Floats,
        ends: tuple[float, float],
        bounds: Sequence[tuple[float, float]],
    ) -> None:
        self._highs = solver()
        self._bounds = list(bounds)
        self._pinned = matrix[lowest == highest]
        # The awards are optimal to within the solver's and the rounding's error. What little the bounds
        # contradict each other is shared by all, so that nobody's price is further off than it must be.
        both, most = np.vstack([-matrix, matrix]), np.concatenate([-lowest, highest])
        told, weight = np.isfinite(most), np.tile(weight, 2)
        self._matrix, self._most = np.zeros((0, matrix.shape[1])), np.zeros(0)
        self._some = self._loosened(both[told], most[told], weight[told])
        floor, cap = ends
        end = np.repeat([-floor, cap], len(lowest))
        self._some = self._loosened(both[~told], end[~told], weight[~told])

    def _loosened(self, matrix: Floats, most: Floats, weight: Floats) -> Floats:
        """A vector that keeps ``matrix·z ≤ most`` as well, loosened where nothing keeps all of it.

        Up to ``NOISE`` all rows are loosened alike, beyond that each on its own, at the least cost in energy.
        """
        rows, size, before = len(most), matrix.shape[1], len(self._most)
        whole = np.zeros((before + rows, size + 1 + rows))
        whole[:before, :size], whole[before:, :size] = self._matrix, matrix
        whole[before:, size] = -1.0
        whole[before:, size + 1 :] = -np.eye(rows)
        weight = weight / float(weight.max(initial=1.0))
        found = self._minimise(
            np.concatenate([np.zeros(size), [NOISE_COST], np.maximum(weight, 1e3 * NOISE_COST)]),
            whole,
            np.append(self._most, most),
            [*self._bounds, (0.0, NOISE), *[(0.0, np.inf)] * rows],
        )
        self._matrix = np.vstack([self._matrix, matrix])
        self._most = np.append(self._most, most + found[size] + found[size + 1 :] + FACE_TOLERANCE)
        return found[:size]

    def extreme(self, objectives: Sequence[Floats], sense: float) -> Floats:
        """The vector that is extreme in the first objective, then in the next among those, …"""
        matrix, most = self._matrix, self._most
        size = matrix.shape[1]
        settled = _Span(size)
        for row in self._pinned:
            settled.include(row)
        vector = self._some  # the only one, where the pinned prices leave no direction open
        for objective in objectives:
            if not settled.include(objective):
                continue
            try:
                vector = self._minimise(sense * objective, matrix, most, self._bounds)
            except SolverError:
                break  # what is left of the face is smaller than the solver's tolerance
            best = float(sense * objective @ vector)
            matrix = np.vstack([matrix, sense * objective])
            most = np.append(most, best + FACE_TOLERANCE * (1.0 + abs(best)))
            if settled.is_full:
                break
        return vector

    def _minimise(
        self, cost: Floats, matrix: Floats, most: Floats, bounds: Sequence[tuple[float, float]]
    ) -> Floats:
        """The vector of least ``cost`` with ``matrix · vector ≤ most``."""
        lower, upper = np.array(bounds).T
        least = np.full(len(most), -INFINITY)
        return self._highs.minimise(cost, (lower, upper), (least, most), dense_rows(matrix)).values


class _Span:
    """The directions that are settled already, as an orthonormal basis."""

    def __init__(self, size: int) -> None:
        self._basis = np.zeros((0, size))

    @property
    def is_full(self) -> bool:
        return len(self._basis) == self._basis.shape[1]

    def include(self, direction: Floats) -> bool:
        """Adds a direction; False where it was settled already."""
        length = float(np.linalg.norm(direction))
        rest = direction - (self._basis @ direction) @ self._basis
        rest -= (self._basis @ rest) @ self._basis
        left = float(np.linalg.norm(rest))
        if left <= RANK_TOLERANCE * length:
            return False
        self._basis = np.vstack([self._basis, rest / left])
        return True


def _unique(
    matrix: Floats, lowest: Floats, highest: Floats, bounds: Sequence[tuple[float, float]]
) -> Floats | None:
    """The only dual vector, where marginal orders (and a trading retailer) determine it; else None."""
    floor, top = np.array(bounds).T
    pinned = lowest == highest
    fixed = np.flatnonzero(floor == top)
    equations = np.vstack([matrix[pinned], np.eye(matrix.shape[1])[fixed]])
    values = np.concatenate([lowest[pinned], floor[fixed]])
    size = matrix.shape[1]
    if len(equations) < size or np.linalg.matrix_rank(equations, tol=RANK_TOLERANCE) < size:
        return None
    vector = np.asarray(np.linalg.lstsq(equations, values, rcond=None)[0])
    price = matrix @ vector
    slack = PRICE_NOISE * max(1.0, float(np.abs(values).max()))
    off = max(
        float((lowest - price).max(initial=0.0)),
        float((price - highest).max(initial=0.0)),
        float((floor - vector).max(initial=0.0)),
        float((vector - top).max(initial=0.0)),
    )
    return np.clip(vector, floor, top) if off <= slack else None


def _energy_only(factor: Floats, lowest: Floats, highest: Floats, floor: float, top: float) -> float:
    """μ where no limit binds: the middle of what all points allow."""
    low = max(floor, float((lowest / factor).max()))
    high = min(top, float((highest / factor).min()))
    return float(np.clip((low + high) / 2, floor, top))


def price(columns: Columns, found: Dispatch, point: OperatingPoint, check: LimitCheck) -> Prices:
    """The prices of a dispatch, with everything linearised at an operating point of (nearly) its awards."""
    feeder = columns.feeder
    by_p, by_q = point.slack_gradient
    rows = independent(tangents(columns, point, check, found.binding), at_nodes=True)
    scales = np.array([row.scale for row in rows])
    lowest, highest = _bounds(columns, found.kw)
    delivery = -columns.at_points(by_p, by_q)
    floor, top = _energy_bounds(columns, found)
    if not rows:
        within = np.maximum(lowest, columns.floor), np.minimum(highest, columns.cap)
        energy = (
            _energy_only(delivery, *within, floor * UNIT, top * UNIT)
            if len(delivery)
            else ((floor + top) / 2 * UNIT)
        )
        duals = np.zeros(0)
    else:
        matrix = np.column_stack([delivery, *(-row.at_points / row.scale for row in rows)])
        node_matrix = np.column_stack([-by_p, *(-row.by_p / row.scale for row in rows)])
        objectives = [node_matrix[feeder.bus_node].sum(axis=0), *node_matrix[feeder.bus_node]]
        bounds = [(floor, top), *[(0.0, np.inf)] * len(rows)]
        vector = _unique(matrix, lowest / UNIT, highest / UNIT, bounds)
        if vector is None:
            weight: Floats = np.bincount(columns.group_point, columns.group_kw, len(lowest)).astype(
                np.float64
            )
            ends = columns.floor / UNIT, columns.cap / UNIT
            face = _DualFace(matrix, lowest / UNIT, highest / UNIT, weight, ends, bounds)
            vector = (face.extreme(objectives, 1.0) + face.extreme(objectives, -1.0)) / 2
        energy, duals = float(vector[0]) * UNIT, vector[1:] / scales
    return _at_buses(columns, by_p, by_q, energy, rows, duals, lowest, highest)


def _energy_bounds(columns: Columns, found: Dispatch) -> tuple[float, float]:
    """μ is the tariff of the way the retailer trades, and between the two where it does not, EUR/MWh."""
    import_price, export_price = columns.import_price / UNIT, columns.export_price / UNIT
    net_import_w = found.point.slack_w - found.mismatch_w
    if net_import_w > 1.0:
        return import_price, import_price
    if net_import_w < -1.0:
        return export_price, export_price
    return export_price, import_price


def _at_buses(
    columns: Columns,
    by_p: Floats,
    by_q: Floats,
    energy: float,
    rows: tuple[Tangent, ...],
    duals: Floats,
    lowest: Floats,
    highest: Floats,
) -> Prices:
    """Prices and their parts from the duals; ``duals`` are EUR/MWh·kW per pu."""
    node = columns.feeder.bus_node
    parts = np.zeros((len(node), 4))
    parts[:, 0] = energy
    parts[:, 1] = (-by_p[node] - 1.0) * energy
    bus_q = -by_q[node] * energy
    point = -columns.at_points(by_p, by_q) * energy
    for row, dual in zip(rows, duals, strict=True):
        parts[:, 2 if row.key.kind == "current" else 3] -= UNIT * dual * row.by_p[node]
        bus_q -= UNIT * dual * row.by_q[node]
        point -= UNIT * dual * row.at_points
    return Prices(energy, rows, duals / UNIT, parts, bus_q, point, lowest, highest)


def whole_parts(columns: Columns, prices: Prices) -> Ints:
    """[buses, 6] whole µEUR/kWh: price, energy, losses, congestion, voltage, price_q.

    The loss part takes the rounding remainder.  A bus whose marginal order pins its price has exactly
    that price, unless the awards are no optimum.
    """
    total = prices.bus_parts.sum(axis=1)
    lowest, highest = np.full(columns.feeder.node_count, -np.inf), np.full(columns.feeder.node_count, np.inf)
    plain = columns.point_tan_phi == 0
    lowest[columns.point_node[plain]] = prices.lowest[plain]
    highest[columns.point_node[plain]] = prices.highest[plain]
    node = columns.feeder.bus_node
    whole = np.rint(total)
    pinned = np.rint(np.minimum(np.maximum(whole, lowest[node]), highest[node]))
    price_ = np.where(np.abs(pinned - whole) <= NOISE * UNIT, pinned, whole)
    energy, congestion, voltage = (np.rint(prices.bus_parts[:, part]) for part in (0, 2, 3))
    losses = price_ - energy - congestion - voltage
    return np.column_stack([price_, energy, losses, congestion, voltage, np.rint(prices.bus_q)]).astype(
        np.int64
    )
