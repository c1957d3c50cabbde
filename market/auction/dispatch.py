"""From the book to AC-feasible powers: merit order, AC check, tangent rows, LP, AC again.

The path of one interval (design section 4).  The loss-aware merit order is followed while no limit is
violated; else tangents of what is violated or near are added to a linear program, solved, checked by AC
power flow and refreshed until nothing is violated, the linear slack power agrees with AC to 1 W, and no
priced row is stale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from grid.errors import PowerFlowError
from grid.feeder import Floats
from grid.limits import LimitCheck, check_limits
from grid.powerflow import OperatingPoint
from market.auction.columns import Columns
from market.auction.lp import ClearingProgram, LpSolution
from market.auction.merit import merit_order
from market.auction.polish import polish
from market.auction.rows import LimitKey, Tangent, excess_of, limits_near, one_end_each, tangents

MERIT_ROUNDS_MAX = 5
ROUNDS_MAX = 60
STEP_LIMIT_FROM_ROUND = 12
CAREFUL_STEP = 0.1
"""Share of its power by which a group may move at first on the way from where nothing trades.

Twice as much is next where that broke no limit by more than ``CAREFUL_EXCESS_PU``, else half."""
CAREFUL_EXCESS_PU = 1e-3
MISMATCH_W_MAX = 1.0
POLISHABLE_SHARE = 0.01
POLISHABLE_PU = 1e-2
"""From this near the exact conditions of the optimum are tried: a mismatch of that share of the mean group's
power (or of 1 W), and limits exceeded by no more."""
CLOSE_SHARE = 0.01
"""The merit order, whose rounds cost little, goes on until it is closer still by this factor."""
EXCESS_PU_MAX = 1e-6
"""A row that a solution rests on is within this of its AC limit, from either side."""
DUAL_MIN = 1e-9
"""EUR/MWh from which on a row counts as priced."""
EXCESS_KW_MIN = 1e-6
FUTILE_ROUNDS_MAX = 8
"""So many rounds of limited steps are the last whose tangents nothing keeps, and none with less violation."""
EXCESS_GAIN_PU = 1e-5
"""Less violation is less by this."""
STEP_SHRINKAGE = 0.7
STEP_GROWTH = 2.0
GAIN_MIN = 1e-3
"""EUR/MWh, the smallest step of a price."""
HALVINGS_MAX = 30
EXCESS_PU_TRUSTED = 0.2
"""Beyond this overload no tangents are taken."""
NEAR_VOLTAGE_PU = 0.002
NEAR_CURRENT_SHARE = 0.02
"""Limits nearer than this (currents: than this share of the limit) get a tangent before they are violated."""


@dataclass(frozen=True, eq=False)
class Dispatch:
    """Powers [g] in kW at an AC operating point, and how they were found.

    ``binding`` are the limits that the optimum rests on, ``feasible`` says whether AC keeps every limit
    (to 1e-6 pu).  ``stale_rows`` counts tangents that carry a price and no longer hold at the operating
    point: that of the slack power among them where it is off by 1 W (``mismatch_w``), and a step limit that
    still holds a group back.  With none left, the optimum is settled.
    """

    kw: Floats
    point: OperatingPoint
    check: LimitCheck
    binding: tuple[LimitKey, ...]
    mismatch_w: float
    iterations: int
    stale_rows: int
    feasible: bool

    @property
    def settled(self) -> bool:
        return self.stale_rows == 0


class Program(Protocol):
    """What solves one step: maximises welfare subject to the tangents given so far."""

    def bound(self, lower: Floats, upper: Floats) -> None: ...
    def add_balance(self, effect: Floats, fixed_kw: float) -> None: ...
    def add_limit(self, tangent: Tangent, injected_kw: Floats) -> None: ...
    def drop_limits(self, keys: set[LimitKey] | None = None) -> None: ...
    def solve(self, predicted: Floats | None) -> LpSolution: ...


class ProgramMaker(Protocol):
    def __call__(self, columns: Columns, *, balance_as_equation: bool) -> Program: ...


@dataclass(frozen=True, eq=False)
class _Balance:
    """Net import as a tangent: ``fixed_kw + Σ effect·injection`` over the points."""

    effect: Floats
    fixed_kw: float


@dataclass(frozen=True, eq=False)
class _State:
    """Powers [g] in kW, their operating point, and how that stands to the limits."""

    kw: Floats
    point: OperatingPoint
    check: LimitCheck


def _operate(columns: Columns, kw: Floats, start: OperatingPoint) -> _State:
    point = columns.flow.solve(*columns.injections(kw), start)
    return _State(kw, point, check_limits(point, columns.limits))


def _balance_idle(columns: Columns) -> _Balance:
    """The tangent at the feeder without any injection: a first guess that costs no power flow."""
    idle = columns.flow.idle
    by_p, by_q = idle.slack_gradient
    fixed_w = idle.slack_w + float(by_p @ columns.firm_p_w) + float(by_q @ columns.firm_q_var)
    return _Balance(columns.at_points(by_p, by_q), fixed_w / 1e3)


def _balance_at(columns: Columns, state: _State) -> _Balance:
    effect = columns.at_points(*state.point.slack_gradient)
    return _Balance(effect, state.point.slack_w / 1e3 - float(effect @ columns.point_injections(state.kw)))


def _never() -> bool:
    return False


def dispatch(
    columns: Columns,
    *,
    network: bool = True,
    program: ProgramMaker | None = None,
    out_of_time: Callable[[], bool] = _never,
) -> Dispatch:
    """The welfare-maximising powers that AC power flow confirms.

    With ``network`` False no limit is looked at (losses still are): what the same book would do to an
    unprotected feeder.  With a ``program`` every step is solved by it, and there is no merit order.  Once
    ``out_of_time`` says so the best found is returned: AC-feasible but not settled, or not feasible.
    Raises :class:`PowerFlowError` where even the book without trades has no power flow, and
    :class:`SolverError` where HiGHS fails.
    """
    balances = [_balance_idle(columns)]
    state: _State | None = None
    for round_ in range(1, MERIT_ROUNDS_MAX + 1 if program is None else 1):
        merit = merit_order(columns, balances[-1].effect, balances[-1].fixed_kw)
        if merit is None:
            break
        goal_kw, net_import_kw = merit
        state = _towards(columns, state, goal_kw, network)
        mismatch_w = state.point.slack_w - net_import_kw * 1e3
        feasible = state.check.worst_excess <= EXCESS_PU_MAX
        if network and not feasible:
            break
        last = round_ == MERIT_ROUNDS_MAX
        close = 1.0 if last else CLOSE_SHARE
        if found := _polished(columns, state, (), net_import_kw, round_, network, close):
            return found
        if last and abs(mismatch_w) < MISMATCH_W_MAX:
            binding = tuple(limits_near(state.check, EXCESS_PU_MAX)) if network else ()
            return Dispatch(state.kw, state.point, state.check, binding, mismatch_w, round_, 0, feasible)
        balances.append(_balance_at(columns, state))
        if out_of_time():
            return Dispatch(state.kw, state.point, state.check, (), mismatch_w, round_, 1, True)
    if state is None:
        state = _without_trades(columns)
    make = program or ClearingProgram
    found = _successive_programs(columns, state, balances, network, make, out_of_time)
    if found.feasible or not network or out_of_time():
        return found
    idle = _without_trades(columns)
    if idle.check.worst_excess > EXCESS_PU_MAX:
        return found
    # There is a feasible point, but steps too large led past it: from there, more carefully.
    return _successive_programs(columns, idle, balances[:1], network, make, out_of_time, careful=True)


def _successive_programs(
    columns: Columns,
    state: _State,
    balances: list[_Balance],
    network: bool,
    make: ProgramMaker,
    out_of_time: Callable[[], bool],
    *,
    careful: bool = False,
) -> Dispatch:
    """Successive linear programs from a state and the balances seen so far.

    With ``careful`` the state is feasible, steps are small from the first, and the result is feasible.
    """
    # What exporting does not pay for can be left out of an inequality: at a price of zero, too.
    program = make(columns, balance_as_equation=columns.export_price <= 0)
    for balance in balances:
        program.add_balance(balance.effect, balance.fixed_kw)
    predicted: Floats | None = None
    watched = _near(columns, state) if network else set()
    _add_limits(columns, program, state, watched)
    best = Dispatch(state.kw, state.point, state.check, (), 0.0, 0, 1, True) if careful else None
    step, limited_from = (CAREFUL_STEP, 1) if careful else (1.0, STEP_LIMIT_FROM_ROUND)
    exceeding, futile, least_excess = False, 0, np.inf
    for round_ in range(1, ROUNDS_MAX + 1):
        lower, upper = np.zeros(len(columns.group_kw)), columns.group_kw
        if round_ >= limited_from:
            lower = np.maximum(state.kw - step * columns.group_kw, 0.0)
            upper = np.minimum(state.kw + step * columns.group_kw, columns.group_kw)
            program.bound(lower, upper)
        solution = program.solve(predicted)
        held = _held(columns, solution, lower, upper)
        predicted = solution.point_price
        before, state = state, _towards(columns, state, solution.kw, network)
        mismatch_w = state.point.slack_w - solution.net_import_kw * 1e3
        violated = set(limits_near(state.check, -EXCESS_PU_MAX)) if network else set()
        priced = {key for key, dual in solution.dual_of_limit.items() if dual > DUAL_MIN}
        stale = {key for key in priced if excess_of(state.check, key) < -EXCESS_PU_MAX}
        tight = set(limits_near(state.check, EXCESS_PU_MAX)) if network else set()
        iterations = round_ + len(balances) - 1
        unkept = solution.excess_kw > EXCESS_KW_MIN
        # Other programs may know conditions that the polish does not.
        if (
            make is ClearingProgram
            and not unkept
            and (found := _polished(columns, state, priced, solution.net_import_kw, iterations, network))
        ):
            return found
        result = Dispatch(
            kw=state.kw,
            point=state.point,
            check=state.check,
            binding=tuple(sorted(priced - stale | tight)),
            mismatch_w=mismatch_w,
            iterations=iterations,
            stale_rows=len(stale) + (abs(mismatch_w) >= MISMATCH_W_MAX) + held,
            feasible=not violated,
        )
        if result.feasible and result.settled:
            return result
        if best is None or _merit(columns, result) >= _merit(columns, best):
            best = result
        if network and state.check.worst_excess < least_excess - EXCESS_GAIN_PU:
            least_excess, futile = state.check.worst_excess, 0
        futile = futile + 1 if unkept and round_ >= limited_from else 0
        if out_of_time() or futile > FUTILE_ROUNDS_MAX:
            return best
        if careful:
            step *= 2.0 if state.check.worst_excess < CAREFUL_EXCESS_PU else 0.5
        elif round_ >= limited_from:
            step *= STEP_GROWTH if held and result.stale_rows == 1 and result.feasible else STEP_SHRINKAGE
        balance = _balance_at(columns, state)
        program.add_balance(balance.effect, balance.fixed_kw)
        if not network:
            continue
        near = _near(columns, state)
        if unkept:
            # Nothing keeps all tangents. Far from the limits that can be the tangents' fault: take fresh
            # ones, unless these were fresh and led nowhere.
            if exceeding and np.abs(state.kw - before.kw).max(initial=0.0) < EXCESS_KW_MIN:
                return best
            exceeding = True
            program.drop_limits()
            renewed = near
        else:
            exceeding = False
            program.drop_limits(stale)
            renewed = (near - watched) | (near & (violated | stale))
        watched |= near
        _add_limits(columns, program, state, renewed)
    assert best is not None
    return best


def _polished(
    columns: Columns,
    state: _State,
    binding: Iterable[LimitKey],
    net_import_kw: float,
    iterations: int,
    network: bool,
    closeness: float = 1.0,
) -> Dispatch | None:
    """The exact optimum from a state close to it; None where it is not, or none is found."""
    mean_kw = float(columns.group_kw.sum()) / max(1, len(columns.group_kw))
    near_w = closeness * max(MISMATCH_W_MAX, POLISHABLE_SHARE * 1e3 * mean_kw)
    mismatch_w = state.point.slack_w - net_import_kw * 1e3
    if abs(mismatch_w) >= near_w or (network and state.check.worst_excess >= POLISHABLE_PU):
        return None
    exact = polish(columns, state.kw, state.point, state.check, binding, net_import_kw, network=network)
    if exact is None:
        return None
    mismatch_w = exact.point.slack_w - exact.net_import_kw * 1e3
    return Dispatch(exact.kw, exact.point, exact.check, exact.binding, mismatch_w, iterations, 0, True)


def _held(columns: Columns, solution: LpSolution, lower: Floats, upper: Floats) -> bool:
    """Whether it was the step limit that kept a group from moving on."""
    gain = columns.group_sign * (solution.point_price[columns.group_point] - columns.group_price / 1e3)
    up = (solution.kw >= upper) & (upper < columns.group_kw) & (gain > GAIN_MIN)
    down = (solution.kw <= lower) & (lower > 0.0) & (gain < -GAIN_MIN)
    return bool((up | down).any())


def _near(columns: Columns, state: _State) -> set[LimitKey]:
    margins = NEAR_CURRENT_SHARE * columns.limits.loading
    return set(limits_near(state.check, NEAR_VOLTAGE_PU, margins))


def _add_limits(columns: Columns, program: Program, state: _State, keys: set[LimitKey]) -> None:
    injected_kw = columns.point_injections(state.kw)
    for tangent in tangents(
        columns, state.point, state.check, one_end_each(columns.feeder, state.check, keys)
    ):
        program.add_limit(tangent, injected_kw)


def _merit(columns: Columns, result: Dispatch) -> tuple[bool, float]:
    """Feasible before infeasible; then more welfare (or less excess) is better."""
    if not result.feasible:
        return False, -result.check.worst_excess
    trade = -float((columns.group_sign * columns.group_price * result.kw).sum())
    tariff = columns.import_price if result.point.slack_w > 0 else columns.export_price
    return True, trade - tariff * result.point.slack_w / 1e3


def _without_trades(columns: Columns) -> _State:
    return _operate(columns, np.zeros(len(columns.group_kw)), columns.flow.idle)


def _towards(columns: Columns, state: _State | None, goal_kw: Floats, network: bool) -> _State:
    """The goal, or a point on the way to it (halving), that has a power flow and is no gross overload.

    The way begins at ``state``, or where nothing trades.  Tangents taken at a gross overload mislead:
    there a voltage rise makes currents look nearly constant.
    """
    if state is not None and np.array_equal(goal_kw, state.kw):
        return state
    allowed = EXCESS_PU_TRUSTED if network else np.inf
    if state is not None:
        allowed = max(allowed, state.check.worst_excess)
    try:
        reached = _operate(columns, goal_kw, columns.flow.idle if state is None else state.point)
        if reached.check.worst_excess <= allowed:
            return reached
    except PowerFlowError:
        pass
    if state is None:
        state = _without_trades(columns)
        allowed = max(allowed, state.check.worst_excess)
    share = 0.5
    for _ in range(HALVINGS_MAX):
        try:
            reached = _operate(columns, state.kw + share * (goal_kw - state.kw), state.point)
            if reached.check.worst_excess <= allowed:
                return reached
        except PowerFlowError:
            pass
        share /= 2
    return state
