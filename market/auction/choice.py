"""Which orders with a minimum fill are taken, where the best choice of all would have losers.

With V(S) the welfare when the orders S are taken at their minimum or more, and V0(S) what the same orders
are worth without their minima, the prices are those of V0(S).  Where V0(S) = V(S) nobody who was taken loses
money at them; where it is more, somebody would rather give energy back.  Sought is the best S without losers.

Branch and bound, on the feeder itself: each node is an AC-feasible optimum of the fast path.  A node requires
some orders (their minimum is fixed, the rest of them ordinary), allows others (ordinary, without minimum) and
has no more; its worth bounds that of every S in it from above, and all branches together have every S but
those without hope:

- an order that a node's optimum takes below its minimum is required in one branch, left out in the other;
- where there is none the node's S is its best.  With losers, no S' of the node that has all of S is without:
  V(S') ≤ V(S) < V0(S) ≤ V0(S').  So each branch leaves out one of S, and requires those before it;
- for the same reason a node whose required orders R have V0(R) above the node's own worth is without hope.

The worth of the best node left open bounds what any choice could be worth, where the search ends early.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from grid.feeder import Bools, Floats, Ints
from market.auction.columns import Columns
from market.auction.dispatch import Dispatch, dispatch

SHORT_KW = 1e-7
"""An order is short of its minimum beyond the solver's error."""
WORTH_TOLERANCE = 1e-8
"""Relative difference of two optima that are worth the same."""
OPTIMA_MAX = 1000
"""After so many optima the best choice found stands, though it need not be the best there is."""


@dataclass(frozen=True, eq=False)
class Choice:
    """Orders taken, by group, and the dispatch that takes each at its minimum or more.

    ``bound`` is what no choice without losers could be worth more than, µEUR/kWh · kW (∞ where that is not
    known), and ``proven`` that this one is worth as much, but for what linear programs may be wrong by.
    """

    taken: frozenset[int]
    found: Dispatch
    bound: float
    proven: bool


@dataclass(frozen=True)
class _Node:
    required: frozenset[int]
    allowed: frozenset[int]
    """Those required among them."""


def without(columns: Columns, rejected: Bools) -> Columns:
    """The columns as if the orders of these groups [g] offered nothing."""
    return replace(
        columns,
        group_wh=np.where(rejected, 0, columns.group_wh),
        order_wh=np.where(rejected[columns.order_group], 0, columns.order_wh),
    )


class Choices:
    """A book's choices of the groups that have a minimum, ``least_wh`` [g] (0: none)."""

    def __init__(
        self, columns: Columns, least_wh: Ints, *, network: bool, out_of_time: Callable[[], bool]
    ) -> None:
        self.columns = columns
        self.least_wh = least_wh
        self.least_kw: Floats = least_wh / columns.hours / 1e3
        self._network = network
        self._out_of_time = out_of_time
        self._optima: dict[tuple[frozenset[int], frozenset[int]], Dispatch] = {}

    @cached_property
    def blocks(self) -> frozenset[int]:
        """The groups that have a minimum and are still offered."""
        return frozenset(np.flatnonzero((self.least_wh > 0) & (self.columns.group_wh > 0)).tolist())

    def offered(self, taken: Collection[int]) -> Columns:
        """The columns with only these of the groups that have a minimum."""
        left = self.least_wh > 0
        left[list(taken)] = False
        return without(self.columns, left)

    def minima(self, taken: Collection[int]) -> Ints:
        """The least Wh [g] when these are taken."""
        least_wh = np.zeros_like(self.least_wh)
        least_wh[list(taken)] = self.least_wh[list(taken)]
        return least_wh

    def short(self, found: Dispatch, taken: Iterable[int]) -> list[int]:
        """Which of these get less than their minimum."""
        return sorted(g for g in taken if found.kw[g] < self.least_kw[g] - SHORT_KW)

    def worth(self, found: Dispatch) -> float:
        """Welfare, µEUR/kWh · kW; none at all of what is not feasible."""
        if not found.feasible:
            return -np.inf
        columns, import_kw = self.columns, found.point.slack_w / 1e3
        tariff = columns.import_price if import_kw > 0 else columns.export_price
        return -float((columns.group_sign * columns.group_price) @ found.kw) - tariff * import_kw

    def optimum(self, allowed: Collection[int], required: Collection[int] = ()) -> Dispatch:
        """The fast path's, where these are allowed without minimum, or required at theirs at least."""
        key = frozenset(allowed), frozenset(required)
        if key not in self._optima:
            self._optima[key] = self._dispatch(*key)
        return self._optima[key]

    def _dispatch(self, allowed: frozenset[int], required: frozenset[int]) -> Dispatch:
        columns, least_wh = self.offered(allowed), self.minima(required)
        least_kw = least_wh / columns.hours / 1e3
        if required:
            firm_p_w, firm_q_var = columns.injections(least_kw)
            columns = replace(
                columns,
                group_wh=columns.group_wh - least_wh,
                firm_p_w=firm_p_w,
                firm_q_var=firm_q_var,
            )
        found = dispatch(columns, network=self._network, out_of_time=self._out_of_time)
        return replace(found, kw=found.kw + least_kw)

    def is_more(self, found: Dispatch, other: Dispatch) -> bool:
        """Whether the one is worth more than the other, beyond what linear programs may be wrong by."""
        worth = self.worth(other)
        if worth == -np.inf:
            return self.worth(found) > worth
        dearest = max(abs(self.columns.import_price), abs(self.columns.export_price))
        wrong_kw = (abs(found.mismatch_w) + abs(other.mismatch_w)) / 1e3
        return self.worth(found) > worth + wrong_kw * dearest + WORTH_TOLERANCE * abs(worth)

    def without_losers(self, taken: Collection[int]) -> tuple[frozenset[int], Dispatch]:
        """A choice among these, found at once: whoever would most rather give energy back is left out."""
        found = self.optimum(taken)
        while short := self.short(found, taken):
            rejected = min(short, key=lambda g: (float(found.kw[g] / self.least_kw[g]), g))
            taken = [g for g in taken if g != rejected]
            found = self.optimum(taken)
        return frozenset(g for g in taken if found.kw[g] > SHORT_KW), found

    def best_without_losers(self, best_of_all: Collection[int], most: Dispatch) -> Choice:
        """The best choice without losers, where ``most`` is the best of all choices, and has some."""
        best, best_found = self.without_losers(best_of_all)
        nodes: list[tuple[float, int, _Node]] = []
        number = itertools.count()

        def add(bound: float, required: frozenset[int], allowed: frozenset[int]) -> None:
            heapq.heappush(nodes, (-bound, next(number), _Node(required, allowed)))

        def branch(node: _Node, taken: frozenset[int], found: Dispatch) -> None:
            """What is left of a node whose best choice, ``found``, has losers."""
            required = node.required
            for g in self._reluctant(taken):
                if g not in required:
                    add(self.worth(found), required, node.allowed - {g})
                    required |= {g}

        branch(_Node(frozenset(), self.blocks), frozenset(best_of_all), most)
        while nodes and -nodes[0][0] > self.worth(best_found):
            if len(self._optima) >= OPTIMA_MAX or self._out_of_time():
                bound = -nodes[0][0] if most.settled and self._settled else np.inf
                return Choice(best, best_found, bound, proven=False)
            _, _, node = heapq.heappop(nodes)
            found = self.optimum(node.allowed, node.required)
            if not self.is_more(found, best_found):
                continue
            if node.required and self.is_more(self.optimum(node.required), found):
                continue
            taken = frozenset(g for g in node.allowed if found.kw[g] > SHORT_KW)
            if short := self.short(found, taken):
                g = max(short, key=lambda g: (min(found.kw[g], self.least_kw[g] - found.kw[g]), -g))
                add(self.worth(found), node.required | {g}, node.allowed)
                add(self.worth(found), node.required, node.allowed - {g})
                continue
            ordinary = self.optimum(taken)
            if not self.short(ordinary, taken):
                best, best_found = taken, ordinary
            elif not self.is_more(ordinary, found):
                best, best_found = taken, found
            else:
                branch(node, taken, found)
                fewer, fewer_found = self.without_losers(taken)
                if self.is_more(fewer_found, best_found):
                    best, best_found = fewer, fewer_found
        return self.judged(best, best_found, settled=most.settled and self._settled)

    def judged(self, taken: frozenset[int], found: Dispatch, *, settled: bool) -> Choice:
        """A choice that is the best there is, if the optima that say so were settled."""
        return Choice(taken, found, self.worth(found) if settled else np.inf, proven=settled)

    @property
    def _settled(self) -> bool:
        """Whether the optima found are known to be optima: none was cut short by a deadline."""
        return all(found.settled or not found.feasible for found in self._optima.values())

    def _reluctant(self, taken: Collection[int]) -> list[int]:
        """Those taken, first who would give most back."""
        found = self.optimum(taken)
        return sorted(taken, key=lambda g: (float(found.kw[g] / self.least_kw[g]), g))
