"""From the book to AC-feasible powers: merit order, AC check, tangent rows, LP, AC again.

The path of one interval (design section 4).  The loss-aware merit order is followed while no limit is
violated; else tangents of what is violated or near are added to a linear program, solved, checked by AC
power flow and refreshed until nothing is violated, the linear slack power agrees with AC to 1 W, and no
priced row is stale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grid.errors import PowerFlowError
from grid.feeder import Floats
from grid.limits import LimitCheck, check_limits
from grid.powerflow import OperatingPoint
from market.auction.columns import Columns
from market.auction.lp import ClearingProgram
from market.auction.merit import merit_order
from market.auction.rows import LimitKey, excess_of, limits_near, tangents

MERIT_ROUNDS_MAX = 4
ROUNDS_MAX = 60
STEP_LIMIT_FROM_ROUND = 12
MISMATCH_W_MAX = 1.0
EXCESS_PU_MAX = 1e-6
"""A row that a solution rests on is within this of its AC limit, from either side."""
NEAR_PU = 0.02
"""Limits nearer than this to the operating point get a tangent before they are violated."""


@dataclass(frozen=True, eq=False)
class Dispatch:
    """Powers [g] in kW at an AC operating point, and how they were found.

    ``binding`` are the limits that the optimum rests on. ``feasible`` says whether AC keeps every limit
    (to 1e-6 pu), ``settled`` whether nothing is stale and the linear slack power agreed.
    """

    kw: Floats
    point: OperatingPoint
    check: LimitCheck
    binding: tuple[LimitKey, ...]
    mismatch_w: float
    iterations: int
    stale_rows: int
    feasible: bool
    settled: bool


@dataclass(frozen=True, eq=False)
class _Balance:
    """Net import as a tangent: ``fixed_kw + Σ effect·x``."""

    effect: Floats
    fixed_kw: float


def _operate(columns: Columns, kw: Floats, start: OperatingPoint | None) -> OperatingPoint:
    p_w, q_var = columns.injections(kw)
    return columns.flow.solve(p_w, q_var, start)


def _balance_at(columns: Columns, point: OperatingPoint, kw: Floats) -> _Balance:
    effect = columns.at_groups(columns.at_points(*columns.flow.slack_gradient(point)))
    return _Balance(effect, point.slack_w / 1e3 - float(effect @ kw))


def dispatch(columns: Columns, *, network: bool = True) -> Dispatch:
    """The welfare-maximising powers that AC power flow confirms.

    With ``network`` False no limit is looked at (losses still are): what the same book would do to an
    unprotected feeder.  Raises :class:`PowerFlowError` where even the book without trades has no power
    flow, and :class:`SolverError` where HiGHS fails.
    """
    kw = np.zeros(len(columns.group_kw))
    point = _operate(columns, kw, None)
    balances = [_balance_at(columns, point, kw)]
    for round_ in range(MERIT_ROUNDS_MAX):
        merit = merit_order(columns, balances[-1].effect, balances[-1].fixed_kw)
        if merit is None:
            break
        goal_kw, net_import_kw = merit
        try:
            point = _operate(columns, goal_kw, point)
        except PowerFlowError:
            break
        kw = goal_kw
        check = check_limits(columns.flow, point, columns.limits)
        feasible = not limits_near(check, -EXCESS_PU_MAX)
        mismatch_w = point.slack_w - net_import_kw * 1e3
        settled = abs(mismatch_w) < MISMATCH_W_MAX
        if network and not feasible:
            break
        if settled:
            binding = tuple(limits_near(check, EXCESS_PU_MAX)) if network else ()
            return Dispatch(kw, point, check, binding, mismatch_w, round_ + 1, 0, feasible, True)
        balances.append(_balance_at(columns, point, kw))
    return _successive_programs(columns, kw, point, balances, network)


def _successive_programs(
    columns: Columns, kw: Floats, point: OperatingPoint, balances: list[_Balance], network: bool
) -> Dispatch:
    """Successive linear programs from powers ``kw`` and the balances seen so far."""
    program = ClearingProgram(columns)
    as_equation = columns.export_price < 0
    for balance in balances[-1:] if as_equation else balances:
        program.add_balance(balance.effect, balance.fixed_kw, as_equation=as_equation)
    check = check_limits(columns.flow, point, columns.limits)
    watched: set[LimitKey] = set()
    if network:
        keys = limits_near(check, NEAR_PU)
        watched.update(keys)
        for tangent in tangents(columns, point, check, keys):
            program.add_limit(tangent, kw)
    best: Dispatch | None = None
    step = 1.0
    for round_ in range(1, ROUNDS_MAX + 1):
        if round_ >= STEP_LIMIT_FROM_ROUND:
            step *= 0.7
            reach = columns.group_kw * step
            program.bound(np.maximum(kw - reach, 0.0), np.minimum(kw + reach, columns.group_kw))
        solution = program.solve()
        kw, point = _reachable(columns, kw, solution.kw, point)
        check = check_limits(columns.flow, point, columns.limits)
        mismatch_w = point.slack_w - solution.net_import_kw * 1e3
        violated = set(limits_near(check, -EXCESS_PU_MAX)) if network else set()
        stale = {
            key
            for key, dual in solution.dual_of_row.items()
            if dual > 1e-9 and excess_of(check, key) < -EXCESS_PU_MAX
        }
        binding = {key for key, dual in solution.dual_of_row.items() if dual > 1e-9} - stale
        if network:
            binding |= set(limits_near(check, EXCESS_PU_MAX))
        settled = not stale and abs(mismatch_w) < MISMATCH_W_MAX
        result = Dispatch(
            kw, point, check, tuple(sorted(binding)), mismatch_w, round_, len(stale), not violated, settled
        )
        if result.feasible and settled:
            return result
        if best is None or (result.feasible, -_largest(check)) >= (best.feasible, -_largest(best.check)):
            best = result
        balance = _balance_at(columns, point, kw)
        if as_equation:
            program.drop_balances()
        program.add_balance(balance.effect, balance.fixed_kw, as_equation=as_equation)
        program.drop_limits(stale)
        if network:
            keys = [
                key for key in limits_near(check, NEAR_PU) if key not in watched or key in violated | stale
            ]
            watched.update(keys)
            for tangent in tangents(columns, point, check, keys):
                program.add_limit(tangent, kw)
    assert best is not None
    return best


def _largest(check: LimitCheck) -> float:
    return max(
        float(check.excess_current.max(initial=-np.inf)),
        float(check.excess_v_max.max(initial=-np.inf)),
        float(check.excess_v_min.max(initial=-np.inf)),
    )


def _reachable(
    columns: Columns, start_kw: Floats, goal_kw: Floats, point: OperatingPoint
) -> tuple[Floats, OperatingPoint]:
    """The goal, or the nearest point on the way to it (halving) that has a power flow."""
    share = 1.0
    while True:
        kw = start_kw + share * (goal_kw - start_kw) if share < 1.0 else goal_kw
        try:
            return kw, _operate(columns, kw, point)
        except PowerFlowError:
            share /= 2
            if share < 1e-3:
                raise
