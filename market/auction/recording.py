"""From whole awards to the clearing record: prices, what everybody pays or earns, trades and certificate."""

from __future__ import annotations

from operator import mul

import numpy as np

from grid.feeder import Ints
from grid.limits import LimitCheck
from market.auction.book import Book
from market.auction.certificate import certificate, limit_name
from market.auction.columns import Columns
from market.auction.dispatch import Dispatch
from market.auction.prices import Prices, price, whole_parts
from market.auction.record import (
    AcCheck,
    BindingLimit,
    ClearingRecord,
    Fill,
    Lines,
    MinimumFills,
    NodePrice,
    Trade,
)
from market.auction.trades import Parties, match
from market.auction.whole import WholeAwards, share_among_orders

NEUR_PER_EUR = 10**9


def record_of(
    book: Book,
    columns: Columns,
    found: Dispatch,
    awards: WholeAwards,
    minimum_fills: MinimumFills | None = None,
) -> ClearingRecord:
    """The record of awards that keep every limit: prices, fills, trades and certificate."""
    prices = price(columns, found, awards.point, awards.check)
    parts = whole_parts(columns, prices)
    order_wh = share_among_orders(columns, awards.group_wh, book.order_ids, book.interval.start)
    taken = np.flatnonzero(order_wh)
    sign, limit_price = _sides_and_limits(book, columns)
    paid = _paid(book, columns, parts, sign, limit_price)
    net_import_wh = _net_import_wh(columns, awards.point.slack_w)
    import_wh, export_wh = max(net_import_wh, 0), max(-net_import_wh, 0)
    firm = _firm_positions(book, columns)
    losses_wh = net_import_wh + int(sign @ order_wh) + sum(wh for _, _, wh in firm)
    gain_neur = -_total(sign * limit_price, order_wh)
    tariff = book.tariff
    welfare_neur = gain_neur - import_wh * tariff.import_price + export_wh * tariff.export_price
    by_id = book.by_id[order_wh[book.by_id] > 0]
    sellers, buyers = (
        Parties(book.order_ids[side], order_wh[side], paid[side])
        for side in (by_id[sign[by_id] > 0], by_id[sign[by_id] < 0])
    )
    return ClearingRecord(
        status="cleared",
        feeder=columns.feeder.name,
        interval=book.interval,
        welfare_eur=welfare_neur / NEUR_PER_EUR,
        import_wh=import_wh,
        export_wh=export_wh,
        losses_wh=losses_wh,
        fills=Lines(Fill, book.order_ids[taken], order_wh[taken], paid[taken]),
        trades=_trades(book, columns, parts, sellers, buyers, firm, net_import_wh, losses_wh),
        prices=Lines(NodePrice, columns.feeder.bus_index, *parts.T),
        binding=_binding(columns, awards, prices),
        paradoxically_rejected=_paradoxically_rejected(book, columns, parts, order_wh.tolist()),
        minimum_fills=minimum_fills,
        ac=ac_check(found, awards.check),
        certificate=certificate(book, columns, awards, prices),
    )


def _sides_and_limits(book: Book, columns: Columns) -> tuple[Ints, Ints]:
    """Side (+1 asks, −1 bids) and limit price of each order [o]; the local fee is none of the columns'."""
    sign = columns.group_sign[columns.order_group]
    return sign, columns.group_price[columns.order_group] + np.where(sign < 0, book.tariff.local_fee, 0)


def _paid(book: Book, columns: Columns, parts: Ints, sign: Ints, limit_price: Ints) -> Ints:
    """What each order [o] pays or earns a kWh: the price at its bus, a bid's with the local fee.

    No buyer pays above its limit, no seller gets below its own.
    """
    row_of_node = np.zeros(columns.feeder.node_count, dtype=np.int64)
    row_of_node[columns.feeder.bus_node[::-1]] = np.arange(len(columns.feeder.bus_node))[::-1]
    row = parts[row_of_node[columns.group_node]]
    at_point = row[:, 0] + np.rint(columns.group_tan_phi * row[:, 5]).astype(np.int64)
    at_order = at_point[columns.order_group]
    return np.where(
        sign < 0,
        np.minimum(at_order + book.tariff.local_fee, limit_price),
        np.maximum(at_order, limit_price),
    )


def _paradoxically_rejected(
    book: Book, columns: Columns, parts: np.ndarray, order_wh: list[int]
) -> tuple[str, ...]:
    """Orders with a minimum fill that the prices would have taken, by id."""
    if not book.has_minima:
        return ()
    node_price = dict(zip(columns.feeder.bus_node.tolist(), parts[:, [0, 5]].tolist(), strict=True))
    rejected = []
    for order, group, energy_wh in zip(book.orders, columns.order_group, order_wh, strict=True):
        if order.min_fill_percent and not energy_wh:
            price, price_q = node_price[int(columns.group_node[group])]
            gain = price + round(order.tan_phi * price_q) - int(columns.group_price[group])
            if gain * int(columns.group_sign[group]) > 0:
                rejected.append(order.id)
    return tuple(sorted(rejected))


def _trades(
    book: Book,
    columns: Columns,
    parts: Ints,
    sellers: Parties,
    buyers: Parties,
    firm: list[tuple[str, int, int]],
    net_import_wh: int,
    losses_wh: int,
) -> Lines[Trade]:
    """Sides trade by price, firm energy and then orders by id.

    Firm energy pays at most the import tariff and earns at least the export tariff (firm collar)."""
    tariff = book.tariff
    node_price = dict(zip(columns.feeder.bus_node.tolist(), parts[:, 0].tolist(), strict=True))
    fed_in = [
        (f"firm:{name}", wh, max(node_price[node], tariff.export_price)) for name, node, wh in firm if wh > 0
    ]
    drawn = [
        (f"firm:{name}", -wh, min(node_price[node] + tariff.local_fee, tariff.import_price))
        for name, node, wh in firm
        if wh < 0
    ]
    # Losses are the network's own: what they cost is what buyers paid and sellers did not get.
    return match(
        Parties.of(fed_in)
        .then(sellers)
        .ranked(dearest_first=False)
        .then(
            Parties.of(
                [("retailer", max(net_import_wh, 0), tariff.import_price), ("network", max(-losses_wh, 0), 0)]
            )
        ),
        Parties.of(drawn)
        .then(buyers)
        .ranked(dearest_first=True)
        .then(
            Parties.of(
                [("retailer", max(-net_import_wh, 0), tariff.export_price), ("network", max(losses_wh, 0), 0)]
            )
        ),
    )


def _total(price: Ints, energy_wh: Ints) -> int:
    """Σ price × energy in nEUR, exact: Python's integers have no end where 2**63 is not enough."""
    if int(np.abs(price).max(initial=0)) * int(energy_wh.sum()) < 2**63:
        return int(price @ energy_wh)
    return sum(map(mul, price.tolist(), energy_wh.tolist()))


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


def ac_check(found: Dispatch, check: LimitCheck) -> AcCheck:
    """What AC power flow says of these awards, for the record."""
    return AcCheck(
        v_min_pu=round(check.v_min_pu, 6),
        v_max_pu=round(check.v_max_pu, 6),
        loading_max_percent=round(check.loading_max * 100, 4),
        violations=check.violations,
        slack_mismatch_w=round(found.mismatch_w, 6),
        iterations=found.iterations,
        stale_rows=found.stale_rows,
    )


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
