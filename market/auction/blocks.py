"""Orders with a minimum fill: taken at no less than that share, or not at all (fill or kill at 100 %).

Each such order g is a column of its own with a binary z_g in the reference model:

    least_g·z_g ≤ x_g ≤ full_g·z_g

The mixed-integer program takes the place of the linear one in the search for an AC-feasible point, on the
same tangents, and finds the choice of orders that is worth most.  Prices need duals, so the integers are then
fixed and the program solved again with the taken orders as ordinary ones.  Where that is worth the same, its
duals are prices at which nobody who was taken loses.  Where it is worth more, some of them would rather give
energy back; the best choice without such losers is then sought by :mod:`market.auction.choice`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyomo.environ as pyo

from grid.feeder import Floats, Ints
from market.auction.book import UEUR_PER_EUR, Book
from market.auction.choice import SHORT_KW, Choice, Choices, without
from market.auction.columns import Columns
from market.auction.dispatch import Dispatch, dispatch
from market.auction.lp import LpSolution
from market.auction.record import MinimumFills
from market.auction.reference import ReferenceProgram, optimise
from market.auction.whole import WholeAwards, whole_awards


def apart(book: Book, columns: Columns) -> tuple[Columns, Ints]:
    """The columns with each order that has a minimum fill in a group of its own, and minima [g] in Wh.

    The new groups follow the others, sorted, so that the order of the book does not matter.
    """
    limited = [index for index, order in enumerate(book.orders) if order.min_fill_percent]
    former = columns.order_group[limited]
    keys = [(int(group), book.orders[index].id) for group, index in zip(former, limited, strict=True)]
    ranked = sorted(range(len(limited)), key=keys.__getitem__)
    orders = np.array([limited[rank] for rank in ranked], dtype=np.int64)
    former = former[ranked]
    count = len(columns.group_wh)
    order_group = columns.order_group.copy()
    order_group[orders] = count + np.arange(len(orders))
    group_wh = columns.group_wh.copy()
    np.subtract.at(group_wh, former, columns.order_wh[orders])
    least_wh = [
        -(-book.orders[index].min_fill_percent * book.orders[index].energy_wh // 100) for index in orders
    ]
    return (
        replace(
            columns,
            group_point=np.append(columns.group_point, columns.group_point[former]),
            group_sign=np.append(columns.group_sign, columns.group_sign[former]),
            group_price=np.append(columns.group_price, columns.group_price[former]),
            group_wh=np.append(group_wh, columns.order_wh[orders]),
            order_group=order_group,
        ),
        np.append(np.zeros(count, dtype=np.int64), np.array(least_wh, dtype=np.int64)),
    )


class BlockProgram(ReferenceProgram):
    """The reference program in which some groups are taken at ``least_kw`` [g] or more, or not at all."""

    def __init__(self, columns: Columns, *, balance_as_equation: bool, least_kw: Floats) -> None:
        super().__init__(columns, balance_as_equation=balance_as_equation)
        self._least_kw = least_kw
        self._blocks = np.flatnonzero((least_kw > 0) & (columns.group_kw > 0)).tolist()

    def bound(self, lower: Floats, upper: Floats) -> None:
        """Step limits; where they leave no room for an order's minimum it is free, or not taken at all."""
        short = (self._least_kw > 0) & (upper < self._least_kw)
        super().bound(
            np.where(short, 0.0, lower), np.where(short & (lower > 0), self._columns.group_kw, upper)
        )

    def solve(self, predicted: Floats | None) -> LpSolution:
        """The best choice of orders; powers and duals are those of the program with the choice fixed."""
        model = self._with_choice()
        optimise(model)
        taken = {g for g in self._blocks if model.taken[g].value > 0.5}
        fixed = self.model()
        for g in self._blocks:
            fixed.x[g].setlb(self._least(g) if g in taken else 0.0)
            if g not in taken:
                fixed.x[g].setub(0.0)
        solution = self.solution(fixed, optimise(fixed))
        kw = solution.kw.copy()
        kw[[g for g in self._blocks if g not in taken]] = 0.0
        return replace(solution, kw=kw)

    def _least(self, group: int) -> float:
        return float(max(self._least_kw[group], self._lower[group]))

    def _with_choice(self) -> Any:
        model = self.model()
        model.blocks = pyo.Set(initialize=self._blocks)
        model.taken = pyo.Var(model.blocks, domain=pyo.Binary)
        for g in self._blocks:
            model.x[g].setlb(0.0)

        def least(model: Any, g: int) -> Any:
            return self._least(g) * model.taken[g] <= model.x[g]

        def most(model: Any, g: int) -> Any:
            return model.x[g] <= float(self._upper[g]) * model.taken[g]

        model.least = pyo.Constraint(model.blocks, rule=least)
        model.most = pyo.Constraint(model.blocks, rule=most)
        return model


def dispatch_blocks(
    book: Book, columns: Columns, *, network: bool, out_of_time: Callable[[], bool]
) -> tuple[Columns, Dispatch, WholeAwards, MinimumFills]:
    """Clears a book that has orders with a minimum fill.

    Returns the columns without the rejected orders, the powers, the whole awards, and how good the choice of
    orders is known to be.  Orders whose minimum rounding could not keep are rejected one by one.
    """
    columns, least_wh = apart(book, columns)
    first: Choice | None = None
    while True:
        choices = Choices(columns, least_wh, network=network, out_of_time=out_of_time)
        choice = _best_choice(choices, network=network, out_of_time=out_of_time)
        first = first or choice
        offered, taken = choices.offered(choice.taken), sorted(choice.taken)
        awards = whole_awards(offered, choice.found, network=network, least_wh=choices.minima(taken))
        short = [g for g in taken if awards.group_wh[g] < least_wh[g]]
        if not short and network and awards.check.violations:
            short = taken
        if not short or out_of_time():
            # What no choice could exceed before one was given up to rounding, none can exceed after it.
            share = columns.hours / UEUR_PER_EUR
            known = MinimumFills(
                proven=choice is first and choice.proven,
                welfare_eur=choices.worth(choice.found) * share if choice.found.feasible else None,
                bound_eur=first.bound * share if np.isfinite(first.bound) else None,
            )
            return offered, choice.found, awards, known
        # The smallest of those in question: whoever takes most energy stays longest.
        rejected = min(short, key=lambda g: (int(columns.group_wh[g]), g))
        columns = without(columns, np.arange(len(least_wh)) == rejected)


def _best_choice(choices: Choices, *, network: bool, out_of_time: Callable[[], bool]) -> Choice:
    make = partial(BlockProgram, least_kw=choices.least_kw)
    found = dispatch(choices.columns, network=network, program=make, out_of_time=out_of_time)
    taken = np.flatnonzero((choices.least_wh > 0) & (found.kw > SHORT_KW)).tolist()
    ordinary = choices.optimum(taken)
    if ordinary.feasible >= found.feasible:
        if not choices.short(ordinary, taken):
            # The same as what was found, to the last digit.
            return choices.judged(frozenset(taken), ordinary, settled=found.settled)
        if choices.is_more(ordinary, found):
            return choices.best_without_losers(taken, found)
    return choices.judged(frozenset(taken), found, settled=found.settled)
