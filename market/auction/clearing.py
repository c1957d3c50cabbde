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
from market.auction.certificate import certificate, limit_name
from market.auction.columns import Columns, columns_of
from market.auction.dispatch import Dispatch, ProgramMaker, dispatch
from market.auction.prices import Prices, price, whole_parts
from market.auction.record import (
    AcCheck,
    BindingLimit,
    ClearingRecord,
    Fill,
    NodePrice,
    Setpoint,
    Trade,
    suspended_record,
)
from market.auction.rows import LimitKey
from market.auction.trades import Position, match
from market.auction.whole import WholeAwards, share_among_orders, whole_awards

NEUR_PER_EUR = 10**9

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
    try:
        if any(order.min_fill_percent for order in book.orders):
            from market.auction.blocks import dispatch_blocks  # Pyomo, as below

            columns, found, awards = dispatch_blocks(book, columns, network=network, out_of_time=out_of_time)
        else:
            program = _program_of(engine)
            found = dispatch(columns, network=network, program=program, out_of_time=out_of_time)
            awards = whole_awards(columns, found, network=network)
    except PowerFlowError as error:
        return suspended_record(feeder.name, book.interval, str(error))
    if network and awards.check.violations:
        return _suspended(book, columns, found, awards, out_of_time())
    return _cleared(book, columns, found, awards)


def _program_of(engine: Engine) -> ProgramMaker | None:
    if engine == "highs":
        return None
    from market.auction.reference import ReferenceProgram  # Pyomo takes a second to import

    return ReferenceProgram


def _ac(found: Dispatch, check: LimitCheck) -> AcCheck:
    return AcCheck(
        v_min_pu=round(check.v_min_pu, 6),
        v_max_pu=round(check.v_max_pu, 6),
        loading_max_percent=round(check.loading_max * 100, 4),
        violations=check.violations,
        slack_mismatch_w=round(found.mismatch_w, 6),
        iterations=found.iterations,
        stale_rows=found.stale_rows,
    )


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


def _net_import_wh(columns: Columns, slack_w: float) -> int:
    return round(slack_w * columns.hours)


def _firm_positions(book: Book, columns: Columns) -> list[tuple[str, int, int]]:
    """Firm energy by name: (connection point, node, injected Wh)."""
    feeder, hours = columns.feeder, columns.hours
    if book.firm is None:
        return [
            (str(name), int(node), round(float(p_w) * hours))
            for name, node, p_w in zip(feeder.element, feeder.element_node, feeder.element_p_w, strict=True)
        ]
    return [
        (firm.connection_point, feeder.node_of(firm.connection_point) or 0, round(firm.p_w * hours))
        for firm in book.firm
    ]


def _suspended(
    book: Book, columns: Columns, found: Dispatch, awards: WholeAwards, too_late: bool
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
        return suspended_record(columns.feeder.name, book.interval, reason, ac=_ac(found, alone))
    ids = [order.id for order in book.orders]
    shares = share_among_orders(columns, awards.group_wh, ids, book.interval.start)
    setpoints = tuple(
        Setpoint(order_id=order_id, energy_wh=int(wh)) for order_id, wh in zip(ids, shares, strict=True) if wh
    )
    ac = _ac(found, awards.check)
    return suspended_record(columns.feeder.name, book.interval, reason, ac=ac, setpoints=setpoints)


def _without_trades(columns: Columns) -> LimitCheck | None:
    """How firm energy alone stands to the limits; None where it has no power flow."""
    try:
        point = columns.flow.solve(columns.firm_p_w, columns.firm_q_var)
    except PowerFlowError:
        return None
    return check_limits(point, columns.limits)


def _cleared(book: Book, columns: Columns, found: Dispatch, awards: WholeAwards) -> ClearingRecord:
    prices = price(columns, found, awards.point, awards.check)
    parts = whole_parts(columns, prices)
    order_ids = [order.id for order in book.orders]
    order_wh = share_among_orders(columns, awards.group_wh, order_ids, book.interval.start)
    fills = _fills(book, columns, parts, order_wh.tolist())
    net_import_wh = _net_import_wh(columns, awards.point.slack_w)
    import_wh, export_wh = max(net_import_wh, 0), max(-net_import_wh, 0)
    firm = _firm_positions(book, columns)
    sides = {order.id: order.side for order in book.orders}
    bid_wh = sum(fill.energy_wh for fill in fills if sides[fill.order_id] == "bid")
    ask_wh = sum(fill.energy_wh for fill in fills if sides[fill.order_id] == "ask")
    losses_wh = net_import_wh + ask_wh + sum(wh for _, _, wh in firm) - bid_wh
    return ClearingRecord(
        status="cleared",
        feeder=columns.feeder.name,
        interval=book.interval,
        welfare_eur=_welfare_neur(book, order_wh.tolist(), import_wh, export_wh) / NEUR_PER_EUR,
        import_wh=import_wh,
        export_wh=export_wh,
        losses_wh=losses_wh,
        fills=fills,
        trades=_trades(book, columns, parts, fills, firm, import_wh, export_wh, losses_wh),
        prices=tuple(
            NodePrice(
                bus=int(bus),
                price=int(row[0]),
                energy=int(row[1]),
                losses=int(row[2]),
                congestion=int(row[3]),
                voltage=int(row[4]),
                price_q=int(row[5]),
            )
            for bus, row in zip(columns.feeder.bus_index, parts, strict=True)
        ),
        binding=_binding(columns, awards, prices),
        paradoxically_rejected=_paradoxically_rejected(book, columns, parts, order_wh.tolist()),
        ac=_ac(found, awards.check),
        certificate=certificate(book, columns, awards, prices),
    )


def _fills(book: Book, columns: Columns, parts: np.ndarray, order_wh: list[int]) -> tuple[Fill, ...]:
    """Fills at the price of their bus; no buyer pays above its limit, no seller gets below its own."""
    row_of_node = {int(node): row for row, node in reversed(list(enumerate(columns.feeder.bus_node)))}
    fills = []
    for order, group, energy_wh in zip(book.orders, columns.order_group, order_wh, strict=True):
        if not energy_wh:
            continue
        row = parts[row_of_node[int(columns.group_node[group])]]
        at_point = int(row[0]) + round(order.tan_phi * int(row[5]))
        if order.side == "bid":
            paid = min(at_point + book.tariff.local_fee, order.limit_price)
        else:
            paid = max(at_point, order.limit_price)
        fills.append(Fill(order_id=order.id, energy_wh=energy_wh, price=paid))
    return tuple(fills)


def _paradoxically_rejected(
    book: Book, columns: Columns, parts: np.ndarray, order_wh: list[int]
) -> tuple[str, ...]:
    """Orders with a minimum fill that the prices would have taken, by id."""
    node_price = dict(zip(columns.feeder.bus_node.tolist(), parts[:, [0, 5]].tolist(), strict=True))
    rejected = []
    for order, group, energy_wh in zip(book.orders, columns.order_group, order_wh, strict=True):
        if order.min_fill_percent and not energy_wh:
            price, price_q = node_price[int(columns.group_node[group])]
            gain = price + round(order.tan_phi * price_q) - int(columns.group_price[group])
            if gain * int(columns.group_sign[group]) > 0:
                rejected.append(order.id)
    return tuple(sorted(rejected))


def _welfare_neur(book: Book, order_wh: list[int], import_wh: int, export_wh: int) -> int:
    """Σ bids × limit − Σ asks × limit − import × tariff + export × tariff, in nEUR."""
    gain = sum(
        order.limit_price * energy_wh * (1 if order.side == "bid" else -1)
        for order, energy_wh in zip(book.orders, order_wh, strict=True)
    )
    return gain - import_wh * book.tariff.import_price + export_wh * book.tariff.export_price


def _trades(
    book: Book,
    columns: Columns,
    parts: np.ndarray,
    fills: tuple[Fill, ...],
    firm: list[tuple[str, int, int]],
    import_wh: int,
    export_wh: int,
    losses_wh: int,
) -> tuple[Trade, ...]:
    """Firm energy pays at most the import tariff and earns at least the export tariff (firm collar)."""
    tariff = book.tariff
    node_price = dict(zip(columns.feeder.bus_node.tolist(), parts[:, 0].tolist(), strict=True))
    asks = {order.id for order in book.orders if order.side == "ask"}
    sellers = [Position(f.order_id, f.energy_wh, f.price) for f in fills if f.order_id in asks]
    buyers = [Position(f.order_id, f.energy_wh, f.price) for f in fills if f.order_id not in asks]
    for name, node, wh in firm:
        if wh > 0:
            sellers.append(Position(f"firm:{name}", wh, max(node_price[node], tariff.export_price)))
        elif wh < 0:
            paid = min(node_price[node] + tariff.local_fee, tariff.import_price)
            buyers.append(Position(f"firm:{name}", -wh, paid))
    sellers.sort(key=lambda position: (position.price, position.party))
    buyers.sort(key=lambda position: (-position.price, position.party))
    # Losses are the network's own: what they cost is what buyers paid and sellers did not get.
    sellers += [
        Position("retailer", import_wh, tariff.import_price),
        Position("network", max(-losses_wh, 0), 0),
    ]
    buyers += [
        Position("retailer", export_wh, tariff.export_price),
        Position("network", max(losses_wh, 0), 0),
    ]
    return match(sellers, buyers)


def _binding(columns: Columns, awards: WholeAwards, prices: Prices) -> tuple[BindingLimit, ...]:
    """Limits with a shadow price: EUR/MWh of rated power; for voltages EUR/h per 0.01 pu."""
    feeder = columns.feeder
    limits = []
    for row, dual in zip(prices.rows, prices.limit_duals, strict=True):
        key = row.key
        if key.kind == "current":
            loading = float(awards.check.excess_current[key.index] + columns.limits.loading[key.index]) * 100
            limits.append(
                BindingLimit(
                    element=limit_name(columns, key),
                    side=str(feeder.side[key.index]),
                    kind=key.kind,
                    loading_percent=round(loading, 4),
                    shadow_price_eur_per_mwh=round(float(dual / (feeder.rating_va[key.index] / 1e6)), 6),
                )
            )
        else:
            limits.append(
                BindingLimit(
                    element=limit_name(columns, key),
                    kind=key.kind,
                    v_pu=round(float(awards.point.v_pu[key.index]), 6),
                    shadow_price_eur_per_mwh=round(float(dual) * 0.01, 6),
                )
            )
    return tuple(limits)
