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
DUAL_MIN = 1e-9
"""EUR/MWh from which on a row counts as priced."""
EXCESS_KW_MIN = 1e-6
STEP_SHRINKAGE = 0.7
HALVINGS_MAX = 30
EXCESS_PU_TRUSTED = 0.2
"""Beyond this overload no tangents are taken."""
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
    check = check_limits(columns.flow, point, columns.limits)
    balances = [_balance_at(columns, point, kw)]
    for round_ in range(MERIT_ROUNDS_MAX):
        merit = merit_order(columns, balances[-1].effect, balances[-1].fixed_kw)
        if merit is None:
            break
        goal_kw, net_import_kw = merit
        kw, point, check = _reachable(columns, kw, goal_kw, point, check, network)
        feasible = not limits_near(check, -EXCESS_PU_MAX)
        mismatch_w = point.slack_w - net_import_kw * 1e3
        if network and not feasible:
            break
        if abs(mismatch_w) < MISMATCH_W_MAX:
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
    watched = set(limits_near(check, NEAR_PU)) if network else set()
    for tangent in tangents(columns, point, check, watched):
        program.add_limit(tangent, kw)
    best: Dispatch | None = None
    step = 1.0
    exceeding = False
    for round_ in range(1, ROUNDS_MAX + 1):
        if round_ >= STEP_LIMIT_FROM_ROUND:
            step *= STEP_SHRINKAGE
            reach = columns.group_kw * step
            program.bound(np.maximum(kw - reach, 0.0), np.minimum(kw + reach, columns.group_kw))
        solution = program.solve()
        before_kw = kw
        kw, point, check = _reachable(columns, kw, solution.kw, point, check, network)
        mismatch_w = point.slack_w - solution.net_import_kw * 1e3
        violated = set(limits_near(check, -EXCESS_PU_MAX)) if network else set()
        priced = {key for key, dual in solution.dual_of_row.items() if dual > DUAL_MIN}
        stale = {key for key in priced if excess_of(check, key) < -EXCESS_PU_MAX}
        binding = priced - stale | (set(limits_near(check, EXCESS_PU_MAX)) if network else set())
        settled = not stale and abs(mismatch_w) < MISMATCH_W_MAX
        result = Dispatch(
            kw, point, check, tuple(sorted(binding)), mismatch_w, round_, len(stale), not violated, settled
        )
        if result.feasible and settled:
            return result
        if best is None or _merit(columns, result) >= _merit(columns, best):
            best = result
        balance = _balance_at(columns, point, kw)
        if as_equation:
            program.drop_balances()
        program.add_balance(balance.effect, balance.fixed_kw, as_equation=as_equation)
        if not network:
            continue
        near = set(limits_near(check, NEAR_PU))
        if solution.excess_kw > EXCESS_KW_MIN:
            # Nothing keeps all tangents. Far from the limits that can be the tangents' fault: take fresh
            # ones, unless these were fresh and led nowhere.
            if exceeding and np.abs(kw - before_kw).max(initial=0.0) < EXCESS_KW_MIN:
                return best
            exceeding = True
            program.drop_all_limits()
            renewed = near
        else:
            exceeding = False
            program.drop_limits(stale)
            renewed = {key for key in near if key not in watched or key in violated | stale}
        watched |= near
        for tangent in tangents(columns, point, check, renewed):
            program.add_limit(tangent, kw)
    assert best is not None
    return best


def _excess(check: LimitCheck) -> float:
    """How far the worst limit is exceeded, pu."""
    worst = (check.excess_current, check.excess_v_max, check.excess_v_min)
    return max(float(excess.max(initial=-np.inf)) for excess in worst)


def _merit(columns: Columns, result: Dispatch) -> tuple[bool, float]:
    """Feasible before infeasible; then more welfare (or less excess) is better."""
    if not result.feasible:
        return False, -_excess(result.check)
    trade = -float((columns.group_sign * columns.group_price * result.kw).sum())
    tariff = columns.import_price if result.point.slack_w > 0 else columns.export_price
    return True, trade - tariff * result.point.slack_w / 1e3


def _reachable(
    columns: Columns,
    start_kw: Floats,
    goal_kw: Floats,
    point: OperatingPoint,
    check: LimitCheck,
    network: bool,
) -> tuple[Floats, OperatingPoint, LimitCheck]:
    """The goal, or a point on the way to it (halving), that has a power flow and is no gross overload.

    Tangents taken at a gross overload mislead: there a voltage rise makes currents look nearly constant.
    """
    allowed = max(EXCESS_PU_TRUSTED, _excess(check)) if network else np.inf
    share = 1.0
    for _ in range(HALVINGS_MAX):
        kw = goal_kw if share == 1.0 else start_kw + share * (goal_kw - start_kw)
        try:
            reached = _operate(columns, kw, point)
            reached_check = check_limits(columns.flow, reached, columns.limits)
            if _excess(reached_check) <= allowed:
                return kw, reached, reached_check
        except PowerFlowError:
            pass
        share /= 2
    return start_kw, point, check
