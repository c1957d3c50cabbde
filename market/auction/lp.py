"""The clearing as a linear program in HiGHS.

Columns: the power of each group, net import and net export of the feeder (kW), and for each limit row
how far it is exceeded (fixed at zero unless nothing else is feasible).  Costs are EUR/MWh.  The model is
kept while rows come and go, so that each solve starts from the last basis.
"""

from __future__ import annotations

from dataclasses import dataclass

import highspy
import numpy as np

from grid.errors import SolverError
from grid.feeder import Floats
from market.auction.columns import Columns
from market.auction.rows import LimitKey, Tangent

TRADE_PREFERENCE_EUR_PER_MWH = 1e-6
"""Among equal welfare most is traded: every bid is worth, and every ask costs, this much more and less.
It is a thousandth of the smallest price step, so it never changes what a price decides."""
EXCESS_COST_FACTOR = 1e3
"""What a kW beyond a limit costs in terms of the dearest price, once nothing feasible is left."""


@dataclass(frozen=True, eq=False)
class LpSolution:
    """Powers [g] and net import in kW, the dual of each limit row, and the largest excess of a row."""

    kw: Floats
    net_import_kw: float
    dual_of_row: dict[LimitKey, float]
    excess_kw: float


class ClearingProgram:
    """Maximises welfare subject to the tangents given so far."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._groups = len(columns.group_kw)
        self._rows: list[LimitKey | None] = []
        self._excess_columns = 0
        solver = highspy.Highs()
        self._solver = solver
        for option, value in (
            ("output_flag", False),
            ("presolve", "off"),
            ("solver", "simplex"),
            ("threads", 1),
            ("random_seed", 1),
            ("primal_feasibility_tolerance", 1e-9),
            ("dual_feasibility_tolerance", 1e-9),
        ):
            solver.setOptionValue(option, value)
        signed = columns.group_sign * columns.group_price / 1e3
        cost = np.concatenate(
            [
                signed - TRADE_PREFERENCE_EUR_PER_MWH,
                [columns.import_price / 1e3, -columns.export_price / 1e3],
            ]
        )
        if not np.isfinite(cost).all():
            raise SolverError("a price is not finite")
        upper = np.concatenate([columns.group_kw, [highspy.kHighsInf, highspy.kHighsInf]])
        count = self._groups + 2
        solver.addVars(count, np.zeros(count), upper)
        solver.changeColsCost(count, np.arange(count, dtype=np.int32), cost)
        self._excess_cost = EXCESS_COST_FACTOR * max(1.0, float(np.abs(cost).max()))

    def bound(self, lower: Floats, upper: Floats) -> None:
        """Keeps the groups' powers within these [g], kW (a step limit about a point)."""
        self._solver.changeColsBounds(self._groups, np.arange(self._groups, dtype=np.int32), lower, upper)

    def add_balance(self, effect: Floats, fixed_kw: float, *, as_equation: bool) -> None:
        """``import − export − Σ effect·x ≥ fixed`` (or ``=``): a tangent of the slack power."""
        values = np.concatenate([-effect, [1.0, -1.0]])
        index = np.arange(self._groups + 2, dtype=np.int32)
        upper = fixed_kw if as_equation else highspy.kHighsInf
        self._solver.addRow(fixed_kw, upper, len(index), index, values)
        self._rows.append(None)

    def drop_balances(self) -> None:
        self._drop([row for row, key in enumerate(self._rows) if key is None])

    def add_limit(self, tangent: Tangent, kw: Floats) -> None:
        """A limit's tangent at powers ``kw``: one row and its excess column."""
        scale = tangent.scale
        slope = self._columns.at_groups(tangent.at_points) / scale
        room = -tangent.excess_pu / scale + float(slope @ kw)
        if not (np.isfinite(slope).all() and np.isfinite(room)):
            raise SolverError(f"the tangent of {tangent.key} is not finite")
        column = self._groups + 2 + self._excess_columns
        self._solver.addVar(0.0, 0.0)
        self._solver.changeColCost(column, self._excess_cost)
        self._excess_columns += 1
        used = np.flatnonzero(slope)
        index = np.concatenate([used, [column]]).astype(np.int32)
        values = np.concatenate([slope[used], [-1.0]])
        self._solver.addRow(-highspy.kHighsInf, room, len(index), index, values)
        self._rows.append(tangent.key)

    def drop_limits(self, keys: set[LimitKey]) -> None:
        self._drop([row for row, key in enumerate(self._rows) if key in keys])

    def drop_all_limits(self) -> None:
        self._drop([row for row, key in enumerate(self._rows) if key is not None])

    def _drop(self, rows: list[int]) -> None:
        if rows:
            self._solver.deleteRows(len(rows), np.array(rows, dtype=np.int32))
            gone = set(rows)
            self._rows = [key for row, key in enumerate(self._rows) if row not in gone]

    def _bound_excess(self, upper: float) -> None:
        for column in range(self._excess_columns):
            self._solver.changeColBounds(self._groups + 2 + column, 0.0, upper)

    def _run(self) -> highspy.HighsModelStatus:
        if self._solver.run() == highspy.HighsStatus.kError:
            self._solver.clearSolver()  # a basis gone bad: once more, from scratch
            if self._solver.run() == highspy.HighsStatus.kError:
                raise SolverError("HiGHS failed to run")
        model_status: highspy.HighsModelStatus = self._solver.getModelStatus()
        return model_status

    def solve(self) -> LpSolution:
        """The optimum; where no point keeps all rows, the least excess.

        Raises :class:`SolverError` for any other end of HiGHS.
        """
        status = self._run()
        elastic = status == highspy.HighsModelStatus.kInfeasible
        if elastic:
            self._bound_excess(highspy.kHighsInf)
            status = self._run()
        if status != highspy.HighsModelStatus.kOptimal:
            raise SolverError(f"HiGHS ended with {self._solver.modelStatusToString(status)}")
        solution = self._solver.getSolution()
        values = np.array(solution.col_value)
        if not np.isfinite(values).all():
            raise SolverError("HiGHS returned values that are not finite")
        duals: dict[LimitKey, float] = {}
        for key, dual in zip(self._rows, solution.row_dual, strict=True):
            if key is not None:
                duals[key] = max(duals.get(key, 0.0), -dual)
        if elastic:
            self._bound_excess(0.0)
        kw = np.clip(values[: self._groups], 0.0, self._columns.group_kw)
        return LpSolution(
            kw=kw,
            net_import_kw=float(values[self._groups] - values[self._groups + 1]),
            dual_of_row=duals,
            excess_kw=float(values[self._groups + 2 :].max(initial=0.0)),
        )
