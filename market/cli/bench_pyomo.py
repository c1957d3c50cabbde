"""The reference model kept in Pyomo's persistent interface to HiGHS, a yardstick of ``bench clear``.

The model is built once, with the rows that the search for one interval ended with; the next interval comes as
new costs and bounds of its columns, and Pyomo passes on what changed.
"""

from __future__ import annotations

from typing import Any

import pyomo.environ as pyo
from pyomo.contrib.appsi.base import TerminationCondition
from pyomo.contrib.appsi.solvers.highs import Highs

from grid.errors import SolverError
from grid.feeder import Floats
from market.auction.columns import Columns
from market.auction.lp import TRADE_PREFERENCE_EUR_PER_MWH, ClearingProgram
from market.auction.reference import ReferenceProgram
from market.auction.rows import LimitKey, Tangent


class _Recorded(ClearingProgram):
    """The fast program, whose rows the reference gets too."""

    def __init__(self, columns: Columns, reference: ReferenceProgram) -> None:
        super().__init__(columns, balance_as_equation=False)
        self._reference = reference

    def add_balance(self, effect: Floats, fixed_kw: float) -> None:
        super().add_balance(effect, fixed_kw)
        self._reference.add_balance(effect, fixed_kw)

    def add_limit(self, tangent: Tangent, injected_kw: Floats) -> None:
        super().add_limit(tangent, injected_kw)
        self._reference.add_limit(tangent, injected_kw)

    def drop_limits(self, keys: set[LimitKey] | None = None) -> None:
        super().drop_limits(keys)
        self._reference.drop_limits(keys)


class PersistentReference:
    """The reference model of a book, solved again and again with other costs and bounds."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._reference = ReferenceProgram(columns, balance_as_equation=False)
        self._solver = Highs()
        self._model: Any = None

    def recorded(self, columns: Columns, *, balance_as_equation: bool) -> ClearingProgram:
        """A program for the search; its rows become the model's."""
        assert not balance_as_equation, "the books of the benchmark have no negative price"
        return _Recorded(columns, self._reference)

    def build(self) -> None:
        """The model, with the costs of trade as parameters, in the solver."""
        model = self._reference.model()
        model.cost = pyo.Param(model.groups, mutable=True, initialize=0.0)
        model.trade.set_value(pyo.quicksum(model.cost[g] * model.x[g] for g in model.groups))
        settings = self._solver.update_config
        for check in ("constraints", "vars", "params"):
            setattr(settings, f"check_for_new_or_removed_{check}", False)
        settings.update_constraints = settings.update_named_expressions = False
        settings.check_for_new_objective = settings.update_objective = False
        self._solver.highs_options = {"threads": 1, "random_seed": 1}
        self._solver.set_instance(model)
        self._model = model

    @property
    def rows(self) -> int:
        return len(self._model.balance) + len(self._model.limit)

    def solve_with(self, price: Floats, upper_kw: Floats) -> None:
        """The optimum when the groups have these limit prices [g], EUR/MWh, and powers [g].

        Raises :class:`SolverError` for any end but an optimum.
        """
        cost = -self._columns.group_sign * price + TRADE_PREFERENCE_EUR_PER_MWH
        for g, (value, most) in enumerate(zip(cost.tolist(), upper_kw.tolist(), strict=True)):
            self._model.cost[g].set_value(value)
            self._model.x[g].setub(most)
        results = self._solver.solve(self._model)
        if results.termination_condition != TerminationCondition.optimal:
            raise SolverError(f"HiGHS (through Pyomo) ended with {results.termination_condition.name}")
