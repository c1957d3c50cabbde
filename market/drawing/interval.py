"""One interval's book and clearing record as what its figures show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from grid.errors import PowerFlowError
from grid.feeder import Feeder
from market.auction.book import Book
from market.auction.record import ClearingRecord
from market.auction.schedule import injections_of, schedule_of
from market.drawing.curves import Curves, Step
from market.drawing.feeder_map import State, Topology
from market.drawing.prices import PriceBand


def neighbours_wh(book: Book, record: ClearingRecord) -> int:
    """Energy that some connection points were to feed in and others to draw: what neighbours trade.

    A household's own solar power in its own load is none of it, though both stand in its order.
    """
    net_wh: defaultdict[str, int] = defaultdict(int)
    for point, (p_w, _) in injections_of(book, record).items():
        net_wh[point] += round(p_w * book.interval.hours)
    fed_in_wh = sum(wh for wh in net_wh.values() if wh > 0)
    return min(fed_in_wh, fed_in_wh - sum(net_wh.values()))


def consumption_by_price(
    book: Book, record: ClearingRecord, bus_of: Mapping[str, int]
) -> Iterable[tuple[int, int]]:
    """Scheduled consumption (Wh) with the price of its bus; ``bus_of`` is by connection point."""
    price = {node.bus: node.price for node in record.prices}
    orders = {order.id: order for order in book.orders}
    for firm in book.firm or ():
        if firm.p_w < 0:
            yield price[bus_of[firm.connection_point]], round(-firm.p_w * book.interval.hours)
    for fill in record.fills:
        order = orders[fill.order_id]
        if order.side == "bid":
            yield price[bus_of[order.connection_point]], fill.energy_wh


def price_band(book: Book, record: ClearingRecord, bus_of: Mapping[str, int]) -> PriceBand | None:
    """The bus prices, their mean weighted by consumption (plain where nobody consumes); None of a suspended
    interval.
    """
    if record.status != "cleared":
        return None
    prices = [node.price for node in record.prices]
    pairs = list(consumption_by_price(book, record, bus_of))
    energy_wh = sum(wh for _, wh in pairs)
    mean = sum(price * wh for price, wh in pairs) / energy_wh if energy_wh else sum(prices) / len(prices)
    return PriceBand(min(prices), mean, max(prices))


def curves_of(book: Book, record: ClearingRecord, band: PriceBand) -> Curves:
    """The merit orders of a cleared interval, bids net of the local fee."""
    tariff, hours = book.tariff, book.interval.hours
    demand = [Step(round(-firm.p_w * hours), None) for firm in book.firm or () if firm.p_w < 0]
    supply = [Step(round(firm.p_w * hours), None) for firm in book.firm or () if firm.p_w > 0]
    filled = {fill.order_id: fill.energy_wh for fill in record.fills}
    taken = {"bid": 0, "ask": 0}
    for order in book.orders:
        got_wh = filled.get(order.id, 0)
        taken[order.side] += got_wh
        left_wh = order.energy_wh - got_wh
        if order.side == "bid":
            demand.append(Step(order.energy_wh, order.limit_price - tariff.local_fee, left_wh))
        else:
            supply.append(Step(order.energy_wh, order.limit_price, left_wh))
    return Curves(
        demand=demand,
        supply=supply,
        demand_wh=taken["bid"] + sum(step.energy_wh for step in demand if step.price is None),
        supply_wh=taken["ask"] + sum(step.energy_wh for step in supply if step.price is None),
        low=band.low,
        mean=band.mean,
        high=band.high,
        import_price=tariff.import_price - tariff.local_fee,
        export_price=tariff.export_price,
    )


def topology_of(feeder: Feeder) -> Topology:
    """The nodes and branches of a feeder that are drawn."""
    names = [""] * feeder.node_count
    for bus, node in zip(feeder.bus_index.tolist(), feeder.bus_node.tolist(), strict=True):
        names[node] = names[node] or f"bus:{bus}"
    return Topology(
        node_count=feeder.node_count,
        roots=feeder.slack.tolist(),
        branches=list(
            zip(feeder.line_from.tolist(), feeder.line_to.tolist(), feeder.line_name.tolist(), strict=True)
        ),
        node_names=names,
    )


def grid_state(
    feeder: Feeder, book: Book, record: ClearingRecord, *, with_setpoints: bool = False
) -> State | None:
    """The AC power flow of a clearing's schedule; None where it has no solution.

    Of a suspended interval that is firm energy alone, or with the relieving setpoints.
    """
    try:
        schedule = schedule_of(book, record, feeder, with_setpoints=with_setpoints)
    except PowerFlowError:
        return None
    limits, point = schedule.columns.limits, schedule.point
    loading: dict[str, float] = {}
    for name, share, limit in zip(feeder.branch.tolist(), point.loading, limits.loading, strict=True):
        loading[name] = max(loading.get(name, 0.0), float(100 * share / limit))
    return State(
        v_pu=point.v_pu.tolist(),
        v_min_pu=limits.v_min_pu.tolist(),
        v_max_pu=limits.v_max_pu.tolist(),
        loading_percent=loading,
    )
