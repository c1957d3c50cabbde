"""A small quadratic program by a primal active set: the step of the last Newton iterations to the optimum.

    min  ½ xᵀQx + gᵀx    with  rows·x = room for the first rows, ≤ room for the others,  low ≤ x ≤ high

from x = 0, which keeps the bounds but need not keep the rows.  It starts with a guess of which rows hold with
equality, and is meant to be warm: near the optimum few of them change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from grid.feeder import Bools, Floats

ROUNDS_PER_SIZE = 4
RANK_TOLERANCE = 1e-11
DEPENDENCE_TOLERANCE = 1e-8
"""A row no further than this from the active ones is not added to them."""
MULTIPLIER_TOLERANCE = 1e-5
"""How negative a multiplier, in the unit of g, may be before its row or bound is let go."""
CURVATURE_MIN = 1e-9
"""Of the largest curvature: a direction with less is flat."""
INVERSE_MAX = 1e8
"""Largest condition, about, with which a matrix is inverted instead of taken apart."""
STEP_MIN = 1e-12
REACHED = 1e-9
"""Relative: how near to their room active rows count as met."""
EXCESS_COST_FACTOR = 1e3
"""What a unit beyond a row costs in terms of the largest gradient, once bounds are in the way."""


@dataclass(frozen=True, eq=False)
class Step:
    """The values x, the multipliers of the rows (≥ 0 but for equations), and which rows bind."""

    values: Floats
    multipliers: Floats
    active: Bools


def solve(
    hessian: Callable[[], Floats],
    gradient: Floats,
    bounds: tuple[Floats, Floats],
    rows: Floats,
    room: Floats,
    *,
    equations: int,
    active: Bools,
) -> Step | None:
    """The minimum, local where Q is not convex; None where the search does not end.

    ``active`` [r] are the rows guessed to bind, and ``hessian`` is asked for Q only where the rows and bounds
    leave a direction open.  Rows that no x within the bounds can keep are exceeded as little as possible.
    """
    hessian = cache(hessian)
    found, reached = _search(hessian, gradient, bounds, rows, room, equations, active, elastic=False)
    if reached:
        return found
    # The bounds are in the way of keeping the active rows at once: each missed row may be missed, at a price.
    equation = np.arange(len(room)) < equations
    missed = np.flatnonzero((room < 0.0) | equation)
    size, extra = len(gradient), len(missed)
    side = np.where(room[missed] < 0.0, -1.0, 1.0)
    own = np.zeros((len(rows), extra))
    own[missed, np.arange(extra)] = side
    penalty = EXCESS_COST_FACTOR * max(1.0, float(np.abs(gradient).max(initial=0.0)))

    def padded() -> Floats:
        whole = np.zeros((size + extra, size + extra))
        whole[:size, :size] = hessian()
        return whole

    found, _ = _search(
        cache(padded),
        np.concatenate([gradient, np.full(extra, penalty)]),
        (
            np.concatenate([bounds[0], -np.abs(room[missed])]),
            np.concatenate([bounds[1], np.full(extra, np.inf)]),
        ),
        np.hstack([rows, own]),
        np.where((room < 0.0) | equation, 0.0, room),
        equations,
        active & (room <= 0.0) | equation,
        elastic=True,
    )
    return found and Step(found.values[:size], found.multipliers, found.active)


def _search(
    hessian: Callable[[], Floats],
    gradient: Floats,
    bounds: tuple[Floats, Floats],
    rows: Floats,
    room: Floats,
    equations: int,
    active: Bools,
    *,
    elastic: bool,
) -> tuple[Step | None, bool]:
    """The minimum, and whether the first step reached all active rows (without ``elastic`` it has to)."""
    low, high = bounds
    size = len(gradient)
    x = np.zeros(size)
    held = (low >= 0.0) | (high <= 0.0)
    active = _independent(rows, room, ~held, active, equations)
    room = np.where(active, room, np.maximum(room, 0.0))
    q: Floats | None = None
    for round_ in range(ROUNDS_PER_SIZE * (size + len(rows)) + 10):
        free, taken = np.flatnonzero(~held), np.flatnonzero(active)
        if q is None and len(free) > len(taken):
            q = hessian()
        slope = gradient if q is None else gradient + q @ x
        open_rows, left = rows[:, free], room - rows @ x
        direction, multipliers, exact = _towards(
            None if q is None else q[:, free][free], slope[free], open_rows[taken], left[taken]
        )
        share, row, position = _first_block(
            direction, low[free] - x[free], high[free] - x[free], open_rows, left, active
        )
        x[free] += min(share, 1.0) * direction
        if not round_ and not elastic:
            missing = np.abs(room - rows @ x)[taken].max(initial=0.0)
            if share < 1.0 or missing > REACHED * (1.0 + np.abs(room).max(initial=0.0)):
                return None, False
        if share < 1.0:
            if row >= 0:
                active[row] = True
            else:
                variable = free[position]
                x[variable] = high[variable] if direction[position] > 0 else low[variable]
                held[variable] = True
            continue
        if not exact:
            continue
        every = np.zeros(len(rows))
        every[taken] = multipliers
        rent = every @ rows + (gradient if q is None else gradient + q @ x)
        loss = np.where(x <= low, -rent, rent) * (held & (low < high))
        against = -every
        against[:equations] = 0.0
        variable, row = int(loss.argmax()), int(against.argmax())
        if max(loss[variable], against[row]) <= MULTIPLIER_TOLERANCE:
            return Step(x, every, active), True
        if loss[variable] >= against[row]:
            held[variable] = False
        else:
            active[row] = False
    return None, True


def _independent(rows: Floats, room: Floats, free: Bools, active: Bools, equations: int) -> Bools:
    """Active rows that do not depend, in the free variables, on such with less room (and the equations)."""
    kept = np.zeros(len(rows), dtype=bool)
    basis = np.zeros((0, int(free.sum())))
    order = [int(row) for row in np.argsort(room, kind="stable") if active[row] and row >= equations]
    for row in [*range(equations), *order]:
        way = rows[row, free]
        rest = way - (basis @ way) @ basis
        left = float(np.linalg.norm(rest))
        if row < equations or left > 10 * DEPENDENCE_TOLERANCE * float(np.linalg.norm(rows[row])):
            kept[row] = True
            if left:
                basis = np.vstack([basis, rest / left])
    return kept


def _towards(q: Floats | None, slope: Floats, rows: Floats, missing: Floats) -> tuple[Floats, Floats, bool]:
    """The way to the minimum on the active rows, their multipliers, and whether it is the exact way.

    Where the curvature is negative the way goes down all the same, as far as a bound or row lets it.
    """
    if len(rows) == len(slope):
        inverse = _inverse(rows)
        if inverse is not None:
            direction = inverse @ missing
            along = slope if q is None else slope + q @ direction
            return direction, -along @ inverse, True
    left, values, right = np.linalg.svd(rows)
    rank = int(np.count_nonzero(values > RANK_TOLERANCE * values.max(initial=0.0)))
    direction = right[:rank].T @ ((left.T @ missing)[:rank] / values[:rank])
    exact = True
    if rank < len(slope) and q is not None:
        open_ = right[rank:]
        along = open_ @ (slope + q @ direction)
        curvature, ways = np.linalg.eigh(open_ @ q @ open_.T)
        least = CURVATURE_MIN * max(float(np.abs(curvature).max()), 1e-12)
        convex = bool(curvature[0] > -least)
        pull = ways.T @ along
        flat = np.abs(curvature) <= least
        pull[flat & (np.abs(pull) < MULTIPLIER_TOLERANCE / 100)] = 0.0
        move = -open_.T @ (ways @ (pull / np.maximum(np.abs(curvature), least)))
        exact = convex or bool(np.abs(move).max() < STEP_MIN)
        direction = direction + move
    along = slope if q is None else slope + q @ direction
    multipliers = -left[:, :rank] @ ((right[:rank] @ along) / values[:rank])
    return direction, multipliers, exact


def _inverse(matrix: Floats) -> Floats | None:
    """The inverse, where it can be trusted."""
    try:
        inverse = np.asarray(np.linalg.inv(matrix))
    except np.linalg.LinAlgError:
        return None
    size = float(np.abs(matrix).max(initial=0.0) * np.abs(inverse).max(initial=0.0))
    return inverse if size < INVERSE_MAX else None


def _first_block(
    direction: Floats, low: Floats, high: Floats, rows: Floats, left: Floats, active: Bools
) -> tuple[float, int, int]:
    """How far the way is open, in terms of the way, and the row (else −1) or variable that stops it first.

    ``low`` and ``high`` are how far the variables may move, and ``left`` what is left to each row.
    """
    first, row, position = np.inf, -1, -1
    size = np.abs(direction)
    moving = np.flatnonzero(size > STEP_MIN)
    if len(moving):
        way = direction[moving]
        share = np.where(way > 0, high[moving], low[moving]) / way
        position = int(share.argmin())
        first, position = float(share[position]), int(moving[position])
    speed = rows @ direction
    closing = np.flatnonzero(
        ~active & (speed > np.maximum(STEP_MIN, DEPENDENCE_TOLERANCE * (np.abs(rows) @ size)))
    )
    if len(closing):
        share = np.maximum(left[closing], 0.0) / speed[closing]
        nearest = int(share.argmin())
        if share[nearest] < first:
            first, row = float(share[nearest]), int(closing[nearest])
    return max(first, 0.0), row, position
