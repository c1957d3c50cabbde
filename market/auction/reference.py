"""The clearing program in Pyomo, as it stands on paper: what the fast path is tested against.

Sets: groups g, points k (where groups inject), balance tangents b, limit tangents l.
Parameters: limit price c_g (EUR/MWh), side s_g (+1 asks, −1 bids), powers between low_g and high_g (kW);
effects a_bk of injections on the slack power with constants f_b (kW); slopes h_lk of limits with rooms r_l
(kW); import tariff π⁺ and export tariff π⁻ (EUR/MWh); ε, by which trade is preferred among equal welfare.

    max   Σ_g −s_g·c_g·x_g + ε·Σ_g x_g − π⁺·imported + π⁻·exported − M·Σ_l excess_l

    injection_k = Σ_{g at k} s_g·x_g                              price_k is the dual of this
    imported − exported ≥ f_b + Σ_k a_bk·injection_k        ∀ b   (= where energy could be burnt at a gain)
    Σ_k h_lk·injection_k ≤ r_l + excess_l                   ∀ l   ν_l is the dual of this
    low_g ≤ x_g ≤ high_g,   imported, exported ≥ 0,   excess_l = 0 (≥ 0 where nothing else is feasible)

All groups are columns: no price windows, no merit order.  It is solved by HiGHS through Pyomo, anew each
time, which costs some hundred times what :mod:`market.auction.lp` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyomo.environ as pyo
from pyomo.contrib.solver.common.factory import SolverFactory
from pyomo.contrib.solver.common.results import SolutionStatus, TerminationCondition

from grid.errors import SolverError
from grid.feeder import Floats
from market.auction.columns import Columns
from market.auction.lp import EXCESS_COST_FACTOR, TRADE_PREFERENCE_EUR_PER_MWH, LpSolution
from market.auction.rows import LimitKey, Tangent

TOLERANCE = 1e-9
"""HiGHS's primal, dual and integer feasibility, and the gap at which a mixed-integer program is optimal."""


@dataclass(frozen=True, eq=False)
class BalanceTangent:
    """``imported − exported ≥ fixed_kw + Σ effect·injection``; ``effect`` [k]."""

    effect: Floats
    fixed_kw: float


@dataclass(frozen=True, eq=False)
class LimitTangent:
    """``Σ slope·injection ≤ room_kw``; ``slope`` [k]."""

    key: LimitKey
    slope: Floats
    room_kw: float


def clearing_model(
    columns: Columns,
    lower: Floats,
    upper: Floats,
    balances: Sequence[BalanceTangent],
    limits: Sequence[LimitTangent],
    *,
    balance_as_equation: bool,
) -> Any:
    """The program above as a Pyomo model; ``lower`` and ``upper`` [g] in kW."""
    sign, limit_price = columns.group_sign, columns.group_price / 1e3
    import_price, export_price = columns.import_price / 1e3, columns.export_price / 1e3
    dearest = max(1.0, float(np.abs(limit_price).max(initial=0.0)), abs(import_price), abs(export_price))
    at_point: list[list[int]] = [[] for _ in columns.point_node]
    for group, point in enumerate(columns.group_point.tolist()):
        at_point[point].append(group)

    model = pyo.ConcreteModel("clearing")
    model.groups = pyo.RangeSet(0, len(limit_price) - 1)
    model.points = pyo.RangeSet(0, len(at_point) - 1)
    model.balances = pyo.RangeSet(0, len(balances) - 1)
    model.limits = pyo.RangeSet(0, len(limits) - 1)

    model.x = pyo.Var(model.groups, bounds=lambda _, g: (float(lower[g]), float(upper[g])))
    model.injection = pyo.Var(model.points)
    model.imported = pyo.Var(domain=pyo.NonNegativeReals)
    model.exported = pyo.Var(domain=pyo.NonNegativeReals)
    model.excess = pyo.Var(model.limits, domain=pyo.NonNegativeReals)
    model.excess.fix(0.0)

    model.trade = pyo.Expression(
        expr=pyo.quicksum(
            (-int(sign[g]) * float(limit_price[g]) + TRADE_PREFERENCE_EUR_PER_MWH) * model.x[g]
            for g in model.groups
        )
    )
    model.welfare = pyo.Objective(
        expr=model.trade
        - import_price * model.imported
        + export_price * model.exported
        - EXCESS_COST_FACTOR * dearest * pyo.quicksum(model.excess[row] for row in model.limits),
        sense=pyo.maximize,
    )

    def injected(model: Any, k: int) -> Any:
        return model.injection[k] == pyo.quicksum(int(sign[g]) * model.x[g] for g in at_point[k])

    def balance(model: Any, b: int) -> Any:
        needed = balances[b].fixed_kw + pyo.quicksum(
            float(balances[b].effect[k]) * model.injection[k] for k in model.points
        )
        net_import = model.imported - model.exported
        return net_import == needed if balance_as_equation else net_import >= needed

    def limit(model: Any, row: int) -> Any:
        used = pyo.quicksum(float(limits[row].slope[k]) * model.injection[k] for k in model.points)
        return used <= limits[row].room_kw + model.excess[row]

    model.injected = pyo.Constraint(model.points, rule=injected)
    model.balance = pyo.Constraint(model.balances, rule=balance)
    model.limit = pyo.Constraint(model.limits, rule=limit)
    return model


def optimise(model: Any) -> Any:
    """Solves the model by HiGHS and loads the values; exceeds limits only where nothing else is feasible.

    Returns Pyomo's results, for the duals.  Raises :class:`SolverError` for any end but an optimum.
    """
    results = _run(model)
    if results.solution_status != SolutionStatus.optimal and len(model.limits):
        model.excess.unfix()
        results = _run(model)
    if (
        results.solution_status != SolutionStatus.optimal
        or results.termination_condition != TerminationCondition.convergenceCriteriaSatisfied
    ):
        raise SolverError(f"HiGHS (through Pyomo) ended with {results.termination_condition.name}")
    results.solution_loader.load_vars()
    return results


def _run(model: Any) -> Any:
    return SolverFactory("highs").solve(
        model,
        load_solutions=False,
        raise_exception_on_nonoptimal_result=False,
        threads=1,
        rel_gap=0.0,
        abs_gap=TOLERANCE,
        solver_options={
            "random_seed": 1,
            "primal_feasibility_tolerance": TOLERANCE,
            "dual_feasibility_tolerance": TOLERANCE,
            "mip_feasibility_tolerance": TOLERANCE,
        },
    )


class ReferenceProgram:
    """The interface of :class:`market.auction.lp.ClearingProgram` over the Pyomo model."""

    def __init__(self, columns: Columns, *, balance_as_equation: bool) -> None:
        self._columns = columns
        self._as_equation = balance_as_equation
        self._balances: list[BalanceTangent] = []
        self._limits: list[LimitTangent] = []
        self._lower, self._upper = np.zeros(len(columns.group_kw)), columns.group_kw

    def bound(self, lower: Floats, upper: Floats) -> None:
        """Keeps the groups' powers within these [g], kW (a step limit about a point)."""
        self._lower, self._upper = lower, upper

    def add_balance(self, effect: Floats, fixed_kw: float) -> None:
        """``import − export − Σ effect·injection ≥ fixed`` (or =): a tangent of the slack power, by point."""
        if self._as_equation:
            self._balances.clear()
        self._balances.append(BalanceTangent(effect, fixed_kw))

    def add_limit(self, tangent: Tangent, injected_kw: Floats) -> None:
        """A limit's tangent where ``injected_kw`` [k] are the injections at the points."""
        slope = tangent.at_points / tangent.scale
        room_kw = -tangent.excess_pu / tangent.scale + float(slope @ injected_kw)
        if not (np.isfinite(slope).all() and np.isfinite(room_kw)):
            raise SolverError(f"the tangent of {tangent.key} is not finite")
        self._limits.append(LimitTangent(tangent.key, slope, room_kw))

    def drop_limits(self, keys: set[LimitKey] | None = None) -> None:
        """Forgets the tangents of these limits; of all limits without ``keys``."""
        self._limits = [] if keys is None else [row for row in self._limits if row.key not in keys]

    def solve(self, predicted: Floats | None) -> LpSolution:
        """The optimum over all columns; predicted prices are not needed here."""
        model = self.model()
        return self.solution(model, optimise(model))

    def model(self) -> Any:
        """The Pyomo model of the tangents given so far."""
        return clearing_model(
            self._columns,
            self._lower,
            self._upper,
            self._balances,
            self._limits,
            balance_as_equation=self._as_equation,
        )

    def solution(self, model: Any, results: Any) -> LpSolution:
        """What a solved model says, in the order of the columns."""
        duals = results.solution_loader.get_duals()
        dual_of_limit: dict[LimitKey, float] = {}
        for row, limit in enumerate(self._limits):
            dual = float(duals[model.limit[row]])
            dual_of_limit[limit.key] = max(dual_of_limit.get(limit.key, 0.0), dual)
        kw = np.array([model.x[g].value for g in model.groups], dtype=np.float64)
        return LpSolution(
            kw=np.clip(kw, self._lower, self._upper),
            net_import_kw=float(model.imported.value - model.exported.value),
            point_price=np.array([duals[model.injected[k]] for k in model.points], dtype=np.float64),
            dual_of_limit=dual_of_limit,
            excess_kw=max((float(model.excess[row].value) for row in model.limits), default=0.0),
        )
