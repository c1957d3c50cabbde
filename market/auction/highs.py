"""HiGHS, asked for the optimum of one linear program at a time.

Status is checked before a number is read, and numbers are checked to be finite: a NaN cost would be
"Optimal".  Presolve is off: on programs this small and this degenerate it costs more than it saves.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import highspy
import numpy as np

from grid.errors import SolverError
from grid.feeder import Floats, Ints

INFINITY = highspy.kHighsInf
TOLERANCE = 1e-9
_LONG_WAYS = (("presolve", "on", "off"), ("solver", "ipm", "simplex"))
"""What is tried where simplex without presolve does not end: dozens of nearly equal rows can do that."""
_CERTAIN = (highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kInfeasible)


class InfeasibleProgramError(SolverError):
    """No point keeps all rows and bounds."""


@dataclass(frozen=True, eq=False)
class Optimum:
    """Values of the columns and duals of the rows (of a minimisation: ≥ 0 for ≥ rows)."""

    values: Floats
    duals: Floats


class Highs:
    """A solver that is kept for its memory, not for its state."""

    def __init__(self) -> None:
        self._solver = highspy.Highs()
        for option, value in (
            ("output_flag", False),
            ("presolve", "off"),
            ("solver", "simplex"),
            ("simplex_scale_strategy", 0),  # rows come scaled
            ("threads", 1),
            ("random_seed", 1),
            ("primal_feasibility_tolerance", TOLERANCE),
            ("dual_feasibility_tolerance", TOLERANCE),
        ):
            self._solver.setOptionValue(option, value)

    def minimise(
        self,
        cost: Floats,
        columns: tuple[Floats, Floats],
        rows: tuple[Floats, Floats],
        matrix: tuple[Ints, Ints, Floats],
    ) -> Optimum:
        """The cheapest column values within bounds ``columns`` (lower, upper) whose rows lie within ``rows``.

        ``matrix`` is row-wise: starts [rows + 1], column indices and values.  Raises
        :class:`InfeasibleProgramError`, and :class:`SolverError` for any other end.
        """
        start, index, value = matrix
        # Infinite bounds are meant; anything else that is not finite would be taken for a number.
        if not (np.isfinite(cost).all() and np.isfinite(value).all()):
            raise SolverError("a coefficient of the linear program is not finite")
        if np.isnan(np.concatenate([*columns, *rows])).any():
            raise SolverError("a bound of the linear program is not a number")
        status = self._solver.passModel(
            len(cost),
            len(start) - 1,
            len(value),
            int(highspy.MatrixFormat.kRowwise),
            int(highspy.ObjSense.kMinimize),
            0.0,
            cost,
            *columns,
            *rows,
            start.astype(np.int32),
            index.astype(np.int32),
            value,
            np.zeros(len(cost), dtype=np.int32),
        )
        if status == highspy.HighsStatus.kError:
            raise SolverError("HiGHS refused the linear program")
        end = self._run()
        for option, other, usual in _LONG_WAYS:
            if end in _CERTAIN:
                break
            # A basis gone bad, or tolerances that clash: once more from scratch, the long way.
            self._solver.clearSolver()
            self._solver.setOptionValue(option, other)
            end = self._run()
            self._solver.setOptionValue(option, usual)
        if end == highspy.HighsModelStatus.kInfeasible:
            raise InfeasibleProgramError("HiGHS found the linear program infeasible")
        if end != highspy.HighsModelStatus.kOptimal:
            raise SolverError(f"HiGHS ended with {self._solver.modelStatusToString(end)}")
        solution = self._solver.getSolution()
        optimum = Optimum(np.array(solution.col_value), np.array(solution.row_dual))
        if not (np.isfinite(optimum.values).all() and np.isfinite(optimum.duals).all()):
            raise SolverError("HiGHS returned values that are not finite")
        return optimum

    def _run(self) -> highspy.HighsModelStatus:
        if self._solver.run() == highspy.HighsStatus.kError:
            return highspy.HighsModelStatus.kSolveError
        status: highspy.HighsModelStatus = self._solver.getModelStatus()
        return status


_of_thread = threading.local()


def solver() -> Highs:
    """This thread's solver: to make one takes as long as a small program."""
    found: Highs | None = getattr(_of_thread, "solver", None)
    if found is None:
        found = _of_thread.solver = Highs()
    return found


def dense_rows(matrix: Floats) -> tuple[Ints, Ints, Floats]:
    """A dense matrix [r, c] as row-wise starts, indices and values."""
    rows, columns = matrix.shape
    return np.arange(rows + 1) * columns, np.tile(np.arange(columns), rows), matrix.ravel()
