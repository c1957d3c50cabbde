"""Orders with a minimum fill: taken at no less than that share, or not at all (fill or kill at 100 %).

Each such order g is a column of its own with a binary z_g in the reference model:

    least_g·z_g ≤ x_g ≤ full_g·z_g

The mixed-integer program takes the place of the linear one in the search for an AC-feasible point, on the
same tangents.  Prices need duals, so after each optimum the integers are fixed and the program solved again
with the taken orders as ordinary ones.  Where that is worth more, some of them would rather give energy
back: at the prices it would lose money, is rejected, and the program solved anew.  Where it is worth the
same, its duals are prices at which nobody who was taken loses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyomo.environ as pyo

from grid.feeder import Bools, Floats, Ints
from market.auction.book import Book
from market.auction.columns import Columns
from market.auction.dispatch import Dispatch, dispatch
from market.auction.lp import LpSolution
from market.auction.reference import ReferenceProgram, optimise
from market.auction.whole import WholeAwards, whole_awards

SHORT_KW = 1e-7
"""An order is short of its minimum beyond the solver's error."""
WORTH_TOLERANCE = 1e-9
"""Relative difference of two optima that are worth the same."""


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


def without(columns: Columns, rejected: Bools) -> Columns:
    """The columns as if the orders of these groups [g] offered nothing."""
    return replace(
        columns,
        group_wh=np.where(rejected, 0, columns.group_wh),
        order_wh=np.where(rejected[columns.order_group], 0, columns.order_wh),
    )


class BlockProgram(ReferenceProgram):
    """The reference program in which some groups are taken at their minimum or more, or not at all."""

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
        """The best choice of orders at which none that is taken loses money, with prices that show it."""
        rejected: set[int] = set()
        while True:
            model = self._with_choice(rejected)
            optimise(model)
            worth = pyo.value(model.welfare)
            taken = [g for g in self._blocks if model.taken[g].value > 0.5]
            kw = self._powers(model, taken)
            net_import_kw = float(model.imported.value - model.exported.value)
            excess_kw = max((float(model.excess[row].value) for row in model.limits), default=0.0)
            priced_model = self._as_ordinary(taken)
            priced = self.solution(priced_model, optimise(priced_model))
            gained = pyo.value(priced_model.welfare) - worth
            short = [g for g in taken if priced.kw[g] < self._least_kw[g] - SHORT_KW]
            if not short or gained <= WORTH_TOLERANCE * max(1.0, abs(worth)):
                return replace(priced, kw=kw, net_import_kw=net_import_kw, excess_kw=excess_kw)
            rejected.add(min(short, key=lambda g: (self._gain(priced, g), g)))

    def _with_choice(self, rejected: set[int]) -> Any:
        model = self.model()
        model.blocks = pyo.Set(initialize=self._blocks)
        model.taken = pyo.Var(model.blocks, domain=pyo.Binary)
        for g in rejected:
            model.taken[g].fix(0)
            model.x[g].setlb(0.0)

        def least(model: Any, g: int) -> Any:
            return float(self._least_kw[g]) * model.taken[g] <= model.x[g]

        def most(model: Any, g: int) -> Any:
            return model.x[g] <= float(self._columns.group_kw[g]) * model.taken[g]

        model.least = pyo.Constraint(model.blocks, rule=least)
        model.most = pyo.Constraint(model.blocks, rule=most)
        return model

    def _powers(self, model: Any, taken: list[int]) -> Floats:
        kw = np.array([model.x[g].value for g in model.groups], dtype=np.float64)
        kw = np.clip(kw, self._lower, self._upper)
        kw[self._blocks] = 0.0
        for g in taken:
            kw[g] = min(max(model.x[g].value, self._least_kw[g]), self._columns.group_kw[g])
        return kw

    def _as_ordinary(self, taken: list[int]) -> Any:
        """The linear program in which the taken orders have no minimum, and the others are not there."""
        model = self.model()
        for g in self._blocks:
            if g not in taken:
                model.x[g].setlb(0.0)
                model.x[g].setub(0.0)
        return model

    def _gain(self, priced: LpSolution, group: int) -> float:
        """What the order at its minimum gains at these prices, EUR/MWh · kW; losses are negative."""
        columns = self._columns
        price = priced.point_price[columns.group_point[group]] - columns.group_price[group] / 1e3
        return float(columns.group_sign[group] * price * self._least_kw[group])


def dispatch_blocks(
    book: Book, columns: Columns, *, network: bool, out_of_time: Callable[[], bool]
) -> tuple[Columns, Dispatch, WholeAwards]:
    """Clears a book that has orders with a minimum fill.

    Returns the columns without the rejected orders, the powers and the whole awards.  Orders whose
    minimum could not be kept, for AC power flow or rounding, are rejected one by one.
    """
    columns, least_wh = apart(book, columns)
    least_kw = least_wh / columns.hours / 1e3
    rejected = np.zeros(len(least_wh), dtype=bool)
    while True:
        offered = without(columns, rejected)
        make = partial(BlockProgram, least_kw=least_kw)
        found = dispatch(offered, network=network, program=make, out_of_time=out_of_time)
        taken = (least_wh > 0) & (found.kw > SHORT_KW)
        settled = without(offered, (least_wh > 0) & ~taken)
        found = replace(found, kw=np.where((least_wh > 0) & ~taken, 0.0, found.kw))
        # None of the taken loses money, so without their minima the optimum is worth the same: the fast
        # path finds it to the last digit, and unless a tie is in the way, with the minima kept.
        ordinary = dispatch(settled, network=network, out_of_time=out_of_time)
        kept = bool((ordinary.kw[taken] >= least_kw[taken] - SHORT_KW).all())
        if kept and ordinary.feasible >= found.feasible and ordinary.stale_rows <= found.stale_rows:
            found = ordinary
        awards = whole_awards(settled, found, network=network, least_wh=np.where(taken, least_wh, 0))
        short = taken & (awards.group_wh < least_wh)
        if not short.any():
            if not (network and awards.check.violations and taken.any()) or out_of_time():
                return settled, found, awards
            short = taken
        # The smallest of those in question: whoever takes most energy stays longest.
        candidates = np.flatnonzero(short)
        rejected[candidates[np.argmin(columns.group_wh[candidates])]] = True
