"""Prices predicted from smoothed supply and demand, so that the linear program may look at few columns.

The dual of the clearing program has few variables: the price of energy μ and one ν for each limit row.
With ``π = −μ·e − Σ ν_j·s_j`` the prices at the points (e the effect of injections on net import, s_j
the slopes of limit j), it minimises ``Σ_k h_k(π_k) − μ·fixed + Σ ν_j·room_j``, where ``h_k′`` is the net
supply at a point.  Between limit prices that supply is a staircase; joining its steps by straight lines
makes the function smooth enough for a projected Newton method, whose result is right to about one step.
"""

from __future__ import annotations

import numpy as np

from grid.feeder import Floats
from market.auction.columns import Columns

ITERATIONS_MAX = 30
HALVINGS_MAX = 12
PIVOTS_MAX = 20
NEIGHBOURS = 4
GRADIENT_SHARE = 1e-4
"""Done when rows are off by no more than this share of what could trade."""


class _Supply:
    """Net supply at each point as a function of its price, piecewise linear, with its integral.

    The groups of a point and side are an ascending run of limit prices; the cumulative power along it is
    interpolated over price.
    """

    def __init__(self, columns: Columns) -> None:
        price = columns.group_price / 1e3
        self._run = columns.group_point * 2 + (columns.group_sign > 0)
        runs = 2 * len(columns.point_node)
        self._first = np.searchsorted(self._run, np.arange(runs))
        self._end = np.searchsorted(self._run, np.arange(runs), side="right")
        self._last = np.maximum(self._end - 1, 0)
        self._price = price
        self._low = float(price.min(initial=0.0)) - 1.0
        self._span = float(price.max(initial=0.0)) - self._low + 2.0
        self._runs = np.arange(runs) * self._span
        self._key = self._run * self._span + (price - self._low)
        # Power up to each group and, for interpolation, its integral over price since the run began.
        cumulative = np.cumsum(columns.group_kw)
        before = np.concatenate([[0.0], cumulative])[self._first]
        self._up_to = cumulative - before[self._run]
        steps = np.diff(price, prepend=price[:1])
        area = np.cumsum(np.where(np.diff(self._run, prepend=-1) != 0, 0.0, steps * self._midpoints()))
        self._area = area - area[np.minimum(self._first, len(area) - 1)][self._run]
        empty = self._first == self._end
        self._total = np.where(empty, 0.0, self._up_to[np.maximum(self._end - 1, 0)])

    def _midpoints(self) -> Floats:
        middle: Floats = (self._up_to + np.concatenate([[0.0], self._up_to[:-1]])) / 2
        return middle

    def at(self, point_price: Floats) -> tuple[Floats, Floats, Floats]:
        """Net supply [k] in kW at these prices, its slope, and its integral over price."""
        price = np.repeat(point_price, 2)
        query = self._runs + np.minimum(np.maximum(price - self._low, 0.5), self._span - 0.5)
        after = np.minimum(np.maximum(np.searchsorted(self._key, query), self._first), self._end)
        below, beyond = after == self._first, after == self._end
        left = np.maximum(after - 1, 0)
        right = np.minimum(after, len(self._key) - 1)
        inside = ~below & ~beyond
        apart = self._price[right] - self._price[left]
        width = np.where(inside & (apart > 0), apart, 1.0)  # groups may differ in more than their price
        slope = np.where(inside, (self._up_to[right] - self._up_to[left]) / width, 0.0)
        offset = price - self._price[left]
        reached = np.where(below, 0.0, np.where(beyond, self._total, self._up_to[left] + slope * offset))
        area = np.where(below, 0.0, self._area[left] + (self._up_to[left] + slope * offset / 2) * offset)
        # For Newton's steps the slope is taken over some neighbours: from one gap to the next it jumps.
        wide_left = np.minimum(np.maximum(left - NEIGHBOURS, self._first), self._last)
        wide_right = np.minimum(np.maximum(right + NEIGHBOURS, self._first), self._last)
        rise = self._up_to[wide_right] - self._up_to[wide_left]
        run = self._price[wide_right] - self._price[wide_left]
        wide = np.where(run > 0, rise / np.where(run > 0, run, 1.0), 0.0)
        # Bids are withdrawn as the price rises: what they draw is their total less what lies below.
        asks, bids = slice(1, None, 2), slice(0, None, 2)
        supply = reached[asks] + reached[bids] - self._total[bids]
        integral = area[asks] + area[bids] - self._total[bids] * point_price
        return supply, wide[asks] + wide[bids], integral


def predict_prices(
    columns: Columns,
    effect: Floats,
    fixed_kw: float,
    slopes: Floats,
    room_kw: Floats,
    accuracy: float,
) -> Floats:
    """Prices at the points [k], EUR/MWh, for one balance tangent and limit rows [rows, k].

    Done once a step moves no price by more than ``accuracy``.
    """
    supply = _Supply(columns)
    matrix = np.vstack([-effect, -slopes])
    constant = np.concatenate([[-fixed_kw], room_kw])
    low = np.concatenate([[columns.export_price / 1e3], np.zeros(len(room_kw))])
    high = np.concatenate([[columns.import_price / 1e3], np.full(len(room_kw), np.inf)])
    vector = np.zeros(len(low))
    vector[0] = (low[0] + high[0]) / 2
    enough = GRADIENT_SHARE * float(columns.group_kw.sum())

    def evaluate(at: Floats) -> tuple[float, Floats, Floats]:
        # A step far too long may overflow: that is no less than the value before, and the step is halved.
        with np.errstate(over="ignore", invalid="ignore"):
            quantity, slope, integral = supply.at(at @ matrix)
            value = float(integral.sum() + constant @ at)
            return value, np.asarray(matrix @ quantity + constant), slope

    value, gradient, slope = evaluate(vector)
    for _ in range(ITERATIONS_MAX):
        free = ~(((vector <= low) & (gradient > 0)) | ((vector >= high) & (gradient < 0)))
        if not free.any() or np.abs(gradient[free]).max() < enough:
            break
        step = _newton((matrix * slope) @ matrix.T, gradient, low - vector, high - vector)
        for _ in range(HALVINGS_MAX):
            found = evaluate(vector + step)
            if found[0] < value:
                break
            step = step / 2
        else:
            break
        vector, (value, gradient, slope) = vector + step, found
        if float(np.abs(step @ matrix).max()) < accuracy:
            break
    return np.asarray(vector @ matrix)


def _newton(hessian: Floats, gradient: Floats, low: Floats, high: Floats) -> Floats:
    """The step within bounds to the minimum of the quadratic model, by block principal pivoting.

    Where supply is rigid (no slope) it is damped, along the gradient.
    """
    size = len(gradient)
    hessian = hessian + (1e-6 * float(np.trace(hessian)) / size + 1e-9) * np.eye(size)
    at_low, at_high = (low >= 0.0) & (gradient > 0), (high <= 0.0) & (gradient < 0)
    step = np.zeros(size)
    for _ in range(PIVOTS_MAX):
        step = np.where(at_low, low, np.where(at_high, high, 0.0))
        free = np.flatnonzero(~(at_low | at_high))
        step[free] = np.linalg.solve(hessian[np.ix_(free, free)], -(gradient + hessian @ step)[free])
        pull = gradient + hessian @ step
        below, above = step < low, step > high
        if not (below | above | (at_low & (pull < 0)) | (at_high & (pull > 0))).any():
            break
        at_low, at_high = (at_low & (pull >= 0)) | below, (at_high & (pull <= 0)) | above
    return np.minimum(np.maximum(step, low), high)
