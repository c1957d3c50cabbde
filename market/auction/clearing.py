"""Clears one book on one feeder: the whole path from orders to the clearing record."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np

from grid.errors import PowerFlowError
from grid.feeder import Feeder
from grid.limits import LimitCheck, check_limits
from grid.powerflow import PowerFlow
from market.auction.book import Book
from market.auction.certificate import limit_name
from market.auction.columns import Columns, columns_of
from market.auction.dispatch import Dispatch, ProgramMaker, dispatch
from market.auction.record import ClearingRecord, Setpoint, suspended_record
from market.auction.recording import ac_check, record_of
from market.auction.rows import LimitKey
from market.auction.whole import WholeAwards, share_among_orders, whole_awards

Engine = Literal["highs", "pyomo"]
"""The fast path, or the readable reference model of the same programs."""


@lru_cache(maxsize=16)
def power_flow(feeder: Feeder) -> PowerFlow:
    """The power flow of a feeder, made once: its matrices follow from the feeder alone."""
    return PowerFlow(feeder)


def clear_book(
    book: Book,
    feeder: Feeder,
    *,
    network: bool = True,
    engine: Engine = "highs",
    out_of_time: Callable[[], bool] = lambda: False,
    source: str = "book",
) -> ClearingRecord:
    """Clears the book under the feeder's limits.

    With ``network`` False the limits are ignored (losses are not): what an auction that does not know
    the feeder would do; ``ac.violations`` then counts what it breaks.  ``out_of_time`` is asked between
    the rounds of the search; once true the best AC-feasible point so far is the result, and its
    ``ac.stale_rows`` or mismatch say that it is not known to be optimal.  The record's status is
    ``suspended``, with the reason, where no AC-feasible point exists.  Raises :class:`InputError` for a
    book that does not fit the feeder and :class:`SolverError` where HiGHS fails.
    """
    columns = columns_of(book, power_flow(feeder), source)
    minimum_fills = None
    try:
        if book.has_minima:
            from market.auction.blocks import dispatch_blocks  # Pyomo, as below

            columns, found, awards, minimum_fills = dispatch_blocks(
                book, columns, network=network, out_of_time=out_of_time
            )
        else:
            program = _program_of(engine)
            found = dispatch(columns, network=network, program=program, out_of_time=out_of_time)
            awards = whole_awards(columns, found, network=network)
    except PowerFlowError as error:
        return suspended_record(feeder.name, book.interval, str(error))
    if network and awards.check.violations:
        return suspended_interval(book, columns, found, awards, too_late=out_of_time())
    return record_of(book, columns, found, awards, minimum_fills)


def _program_of(engine: Engine) -> ProgramMaker | None:
    if engine == "highs":
        return None
    from market.auction.reference import ReferenceProgram  # Pyomo takes a second to import

    return ReferenceProgram


def _worst(columns: Columns, check: LimitCheck) -> str:
    """The worst violation in words."""
    excess = (
        ("current", check.excess_current),
        ("v_max", check.excess_v_max),
        ("v_min", check.excess_v_min),
    )
    kind, values = max(excess, key=lambda item: float(item[1].max(initial=-np.inf)))
    index = int(np.argmax(values))
    name = limit_name(columns, LimitKey(kind, index))  # type: ignore[arg-type]
    if kind == "current":
        loading = float(columns.limits.loading[index] + values[index]) * 100
        return f"{name} is loaded to {loading:.1f} %"
    limit = columns.limits.v_max_pu if kind == "v_max" else columns.limits.v_min_pu
    voltage = float(limit[index] + values[index] * (1 if kind == "v_max" else -1))
    return f"{name} is at {voltage:.4f} pu"


def suspended_interval(
    book: Book, columns: Columns, found: Dispatch, awards: WholeAwards, *, too_late: bool
) -> ClearingRecord:
    """No trades; the setpoints are what flexibility can do for the feeder (design rule 11).

    Where firm energy alone exceeds its limits no more than that, nothing is asked of anybody: a search that a
    deadline cut short may have found worse.
    """
    search = (
        "no schedule that keeps every limit was found by the deadline: in the nearest one"
        if too_late
        else "no schedule keeps every limit: at the least violation"
    )
    reason = f"{search} {_worst(columns, awards.check)}"
    alone = _without_trades(columns)
    if alone is not None and alone.worst_excess <= awards.check.worst_excess:
        if not alone.violations:
            reason += "; without trades every limit is kept"
        return suspended_record(columns.feeder.name, book.interval, reason, ac=ac_check(found, alone))
    ids = book.order_ids.tolist()
    shares = share_among_orders(columns, awards.group_wh, ids, book.interval.start)
    setpoints = tuple(
        Setpoint(order_id=order_id, energy_wh=int(wh)) for order_id, wh in zip(ids, shares, strict=True) if wh
    )
    ac = ac_check(found, awards.check)
    return suspended_record(columns.feeder.name, book.interval, reason, ac=ac, setpoints=setpoints)


def _without_trades(columns: Columns) -> LimitCheck | None:
    """How firm energy alone stands to the limits; None where it has no power flow."""
    try:
        point = columns.flow.solve(columns.firm_p_w, columns.firm_q_var)
    except PowerFlowError:
        return None
    return check_limits(point, columns.limits)
