"""The clearing as a linear program in HiGHS, with only those columns free that the price may move.

Columns: the power of groups near the predicted price, net import and net export of the feeder (kW), and
for each limit row how far it is exceeded (zero unless nothing else is feasible).  Rows: tangents of the
slack power, and tangents of limits.  Costs are EUR/MWh.  Groups whose limit price is far from the price
predicted at their point are held full or empty; reduced costs tell whether that was right, and where it
was not the window is widened and the program solved again, so that the result is that of all columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grid.feeder import Bools, Floats, Ints
from market.auction.columns import Columns
from market.auction.highs import INFINITY, InfeasibleProgramError, Optimum, solver
from market.auction.predict import predict_prices
from market.auction.rows import LimitKey, Tangent

TRADE_PREFERENCE_EUR_PER_MWH = 1e-6
"""Among equal welfare most is traded: every bid is worth, and every ask costs, this much more and less.
It is a thousandth of the smallest price step, so it never changes what a price decides."""
EXCESS_COST_FACTOR = 1e3
"""What a kW beyond a limit costs in terms of the dearest price, once nothing feasible is left."""
FREE_GROUPS_MAX = 400
"""With no more groups than this all are columns."""
FREE_GROUPS_PER_POINT = 3
"""About how many groups of a point the first price window lets in."""
REDUCED_COST_MIN = 1e-7
WINDOWS_MAX = 60
WINDOW_GROWTH = 3.0
LATER_WINDOW_SHARE = 0.01
"""Half the window, in terms of the span of prices, once a program before this one told the prices."""


@dataclass(frozen=True, eq=False)
class LpSolution:
    """Powers [g] and net import in kW, the price at each point [k] and the dual of each limit in EUR/MWh.

    ``excess_kw`` is how far the rows had to be exceeded.
    """

    kw: Floats
    net_import_kw: float
    point_price: Floats
    dual_of_limit: dict[LimitKey, float]
    excess_kw: float


@dataclass(frozen=True, eq=False)
class _Balance:
    effect: Floats
    fixed_kw: float


@dataclass(frozen=True, eq=False)
class _Limit:
    key: LimitKey
    slope: Floats
    room_kw: float


class ClearingProgram:
    """Maximises welfare subject to the tangents given so far."""

    def __init__(self, columns: Columns, *, balance_as_equation: bool) -> None:
        self._columns = columns
        self._as_equation = balance_as_equation
        self._balances: list[_Balance] = []
        self._limits: list[_Limit] = []
        self._cost = columns.group_sign * (columns.group_price / 1e3) - TRADE_PREFERENCE_EUR_PER_MWH
        tariffs = np.array([columns.import_price / 1e3, -columns.export_price / 1e3])
        self._tariffs = tariffs
        dearest = max(1.0, float(np.abs(self._cost).max(initial=0.0)), float(np.abs(tariffs).max()))
        self._excess_cost = EXCESS_COST_FACTOR * dearest
        groups_per_point = max(1.0, len(self._cost) / max(1, len(columns.point_node)))
        span = float(np.ptp(columns.group_price / 1e3)) if len(self._cost) else 0.0
        self._first_window = max(0.01, FREE_GROUPS_PER_POINT / 2 * span / groups_per_point)
        self._later_window = max(0.01, LATER_WINDOW_SHARE * span)
        self._lower = np.zeros(len(self._cost))
        self._upper = columns.group_kw
        self._highs = solver()

    def bound(self, lower: Floats, upper: Floats) -> None:
        """Keeps the groups' powers within these [g], kW (a step limit about a point)."""
        self._lower, self._upper = lower, upper

    def add_balance(self, effect: Floats, fixed_kw: float) -> None:
        """``import − export − Σ effect·injection ≥ fixed`` (or =): a tangent of the slack power, by point."""
        if self._as_equation:
            self._balances.clear()
        self._balances.append(_Balance(effect, fixed_kw))

    def add_limit(self, tangent: Tangent, injected_kw: Floats) -> None:
        """A limit's tangent where ``injected_kw`` [k] are the injections at the points."""
        scale = tangent.scale
        slope = tangent.at_points / scale
        room_kw = -tangent.excess_pu / scale + float(slope @ injected_kw)
        self._limits.append(_Limit(tangent.key, slope, room_kw))

    def drop_limits(self, keys: set[LimitKey] | None = None) -> None:
        """Forgets the tangents of these limits; of all limits without ``keys``."""
        self._limits = [] if keys is None else [row for row in self._limits if row.key not in keys]

    def solve(self, predicted: Floats | None) -> LpSolution:
        """The optimum; where no point keeps all rows, the least excess.

        ``predicted`` [k] are prices expected at the points, EUR/MWh; they only shorten the way.  Raises
        :class:`SolverError` for any other end of HiGHS.
        """
        columns = self._columns
        price, point = columns.group_price / 1e3, columns.group_point
        everything = len(price) <= FREE_GROUPS_MAX and predicted is None
        window = self._first_window
        if predicted is None:
            predicted = self._predict()
        else:
            window = min(window, self._later_window)
        low, high = predicted - window, predicted + window
        for _ in range(WINDOWS_MAX):
            free = everything | ((price >= low[point]) & (price <= high[point]))
            solution = self._solve_free(free, (low + high) / 2)
            if everything:
                break
            if solution.excess_kw > 0:
                # What is held may be what stands in the way.
                window *= WINDOW_GROWTH
                low, high = low - window, high + window
                everything = bool(free.all())
                continue
            gain = columns.group_sign * (solution.point_price[point] - price)
            wrong = ~free & np.where(solution.kw > self._lower, gain < 0, gain > 0)
            wrong &= (np.abs(gain) > REDUCED_COST_MIN) & (self._upper > self._lower)
            if not wrong.any():
                break
            moved = np.unique(point[wrong])
            low[moved] = np.minimum(low[moved], solution.point_price[moved] - window)
            high[moved] = np.maximum(high[moved], solution.point_price[moved] + window)
        else:
            solution = self._solve_free(np.ones(len(price), dtype=bool), predicted)
        return solution

    def _predict(self) -> Floats:
        """Prices [k] of smoothed supply and demand under the newest balance and the limits."""
        points = len(self._columns.point_node)
        if not points:
            return np.zeros(0)
        balance = self._balances[-1]
        slopes = np.array([limit.slope for limit in self._limits]).reshape(-1, points)
        room_kw = np.array([limit.room_kw for limit in self._limits])
        return predict_prices(
            self._columns, balance.effect, balance.fixed_kw, slopes, room_kw, self._first_window / 4
        )

    def _solve_free(self, free: Bools, predicted: Floats) -> LpSolution:
        """The optimum when only ``free`` [g] groups move; the others are full or empty by ``predicted``."""
        columns = self._columns
        gain = columns.group_sign * (predicted[columns.group_point] - columns.group_price / 1e3)
        kw = np.where(gain > 0, self._upper, self._lower)
        kw[free] = 0.0
        groups = np.flatnonzero(free)
        count, limits = len(groups), len(self._limits)
        held_kw = columns.point_injections(kw)
        try:
            optimum = self._minimise(groups, held_kw, excess_kw_max=0.0)
        except InfeasibleProgramError:
            optimum = self._minimise(groups, held_kw, excess_kw_max=INFINITY)
        kw[groups] = np.clip(optimum.values[:count], self._lower[groups], self._upper[groups])
        point_price = np.zeros(len(columns.point_node))
        for balance, dual in zip(self._balances, optimum.duals, strict=False):
            point_price -= dual * balance.effect
        dual_of_limit: dict[LimitKey, float] = {}
        for limit, dual in zip(self._limits, optimum.duals[len(self._balances) :], strict=True):
            point_price += dual * limit.slope
            dual_of_limit[limit.key] = max(dual_of_limit.get(limit.key, 0.0), -float(dual))
        return LpSolution(
            kw=kw,
            net_import_kw=float(optimum.values[count] - optimum.values[count + 1]),
            point_price=point_price,
            dual_of_limit=dual_of_limit,
            excess_kw=float(optimum.values[count + 2 : count + 2 + limits].max(initial=0.0)),
        )

    def _minimise(self, groups: Ints, held_kw: Floats, *, excess_kw_max: float) -> Optimum:
        """The program of these groups, with ``held_kw`` [k] injected by all others."""
        columns = self._columns
        point, sign = columns.group_point[groups], columns.group_sign[groups]
        count, balances, limits = len(groups), len(self._balances), len(self._limits)
        effects = np.array([balance.effect for balance in self._balances])
        slopes = np.array([limit.slope for limit in self._limits]).reshape(limits, len(columns.point_node))
        fixed = np.array([balance.fixed_kw for balance in self._balances]) + effects @ held_kw
        room = np.array([limit.room_kw for limit in self._limits]) - slopes @ held_kw
        # Row-wise: the groups, then import and export in a balance, its own excess in a limit.
        balance_values = np.hstack([-effects[:, point] * sign, np.tile([1.0, -1.0], (balances, 1))])
        limit_values = np.hstack([slopes[:, point] * sign, np.full((limits, 1), -1.0)])
        balance_index = np.tile(np.arange(count + 2), (balances, 1))
        limit_index = np.tile(np.arange(count + 1), (limits, 1))
        limit_index[:, count] = np.arange(count + 2, count + 2 + limits)
        widths = np.repeat([count + 2, count + 1], [balances, limits])
        return self._highs.minimise(
            cost=np.concatenate([self._cost[groups], self._tariffs, np.full(limits, self._excess_cost)]),
            columns=(
                np.concatenate([self._lower[groups], np.zeros(2 + limits)]),
                np.concatenate([self._upper[groups], [INFINITY, INFINITY], np.full(limits, excess_kw_max)]),
            ),
            rows=(
                np.concatenate([fixed, np.full(limits, -INFINITY)]),
                np.concatenate([fixed if self._as_equation else np.full(balances, INFINITY), room]),
            ),
            matrix=(
                np.concatenate([[0], np.cumsum(widths)]),
                np.concatenate([balance_index.ravel(), limit_index.ravel()]),
                np.concatenate([balance_values.ravel(), limit_values.ravel()]),
            ),
        )
