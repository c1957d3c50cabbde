"""Supply and demand of one interval as stepped curves, with the prices that came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from market.drawing.plot import Plot, Size, decimals_of, ticks

CT = 1 / 10_000
URGENT_ABOVE = 1.6  # of the import price: bids above are not drawn to scale


@dataclass(frozen=True)
class Step:
    """Energy at one limit price; ``price`` None is firm: it flows at any price.

    ``left_wh`` of it was left out by the clearing; such parts are drawn paler.
    """

    energy_wh: int
    price: int | None
    left_wh: int = 0


@dataclass(frozen=True)
class Curves:
    """One interval's orders and result. Prices are µEUR/kWh; ``low`` to ``high`` are its bus prices.

    Bids are net of the local fee, and so is ``import_price``: all prices are those at a bus.
    """

    demand: Sequence[Step]
    supply: Sequence[Step]
    demand_wh: int
    supply_wh: int
    low: int
    mean: float
    high: int
    import_price: int
    export_price: int
    band_name: str = "bus prices from lowest to highest"
    price_name: str = ""
    """What the price at ``mean`` is called, where it is to be drawn as a line of its own."""


def price_interval(curves: Curves) -> tuple[int, int]:
    """All prices that would balance the interval if the feeder had neither limits nor losses.

    The retailer is on both sides of it: it sells at ``import_price`` and buys at ``export_price``, without
    end.
    """

    def excess(price: float) -> tuple[int, int]:
        """Least and most demand left over at ``price``, Wh; an order at its limit may go either way."""
        least = most = 0
        for step in curves.demand:
            if step.price is None or step.price > price:
                least, most = least + step.energy_wh, most + step.energy_wh
            elif step.price == price:
                most += step.energy_wh
        for step in curves.supply:
            if step.price is None or step.price < price:
                least, most = least - step.energy_wh, most - step.energy_wh
            elif step.price == price:
                least -= step.energy_wh
        return least, most

    low, high = curves.export_price, curves.import_price
    limits = {step.price for step in (*curves.demand, *curves.supply) if step.price is not None}
    inside = sorted({low, high} | {price for price in limits if low < price < high})
    balancing = [price for price in inside if excess(price)[0] <= 0 <= excess(price)[1]]
    if balancing:
        return balancing[0], balancing[-1]
    return (high, high) if excess(high)[0] > 0 else (low, low)


def _stairs(steps: Sequence[Step], *, falling: bool, free: float) -> list[tuple[float, float]]:
    """Corners of a merit order in kWh and ct/kWh; firm energy comes first, at the price ``free``."""

    points: list[tuple[float, float]] = []
    energy_kwh = 0.0
    for step in _in_order(steps, falling=falling, free=free):
        level = _level(step, free)
        points.append((energy_kwh, level))
        energy_kwh += step.energy_wh / 1000
        points.append((energy_kwh, level))
    return points


def _level(step: Step, free: float) -> float:
    return free if step.price is None else step.price * CT


def _in_order(steps: Sequence[Step], *, falling: bool, free: float) -> list[Step]:
    """The steps as the merit order takes them; of equal price first what was taken most of."""
    sign = -1 if falling else 1
    return sorted(steps, key=lambda step: (sign * _level(step, free), step.left_wh / max(step.energy_wh, 1)))


def _taken(points: Sequence[tuple[float, float]], steps: Sequence[Step]) -> list[list[tuple[float, float]]]:
    """The runs of the stairs that were taken."""
    runs: list[list[tuple[float, float]]] = [[]]
    for (start, level), step in zip(points[::2], steps, strict=True):
        taken_kwh = (step.energy_wh - step.left_wh) / 1000
        if taken_kwh:
            runs[-1] += [(start, level), (start + taken_kwh, level)]
        if step.left_wh:
            runs.append([])
    return [run for run in runs if run]


def curve_figure(size: Size, curves: Curves) -> str:
    """Demand falls, supply rises; what is firm or urgent comes first and lies beyond the top."""
    highest_ask = max((step.price for step in curves.supply if step.price is not None), default=0)
    lowest = min(
        (step.price for step in (*curves.supply, *curves.demand) if step.price is not None), default=0
    )
    high = (
        max(curves.import_price * URGENT_ABOVE, curves.high, min(highest_ask, curves.import_price * 2)) * CT
    )
    low = min(0, lowest, curves.low, curves.export_price) * CT
    margin = 0.08 * (high - low) + 0.1
    bottom, top = low - margin, high
    demand = _stairs(curves.demand, falling=True, free=2 * top)
    supply = _stairs(curves.supply, falling=False, free=2 * bottom)
    widest = max([points[-1][0] for points in (demand, supply) if points], default=0.0)
    plot = Plot(
        size,
        (0, max(widest * 1.04, 0.1)),
        (bottom, top),
        title="Supply and demand of one interval",
        y_label="ct/kWh",
        x_label="energy in the interval, kWh",
    )
    x_ticks = ticks(*plot.x_range, 5 if size.is_narrow else 9)
    plot.x_axis([(value, f"{value:,.{decimals_of(plot.x_range)}f}") for value in x_ticks])
    plot.y_axis(ticks(bottom, top, 7), decimals=decimals_of((bottom, top)))
    plot.box(0, plot.x_range[1], curves.low * CT, curves.high * CT, "band", curves.band_name)
    plot.level(curves.import_price * CT, "tariff", "retailer sells")
    plot.level(curves.export_price * CT, "tariff", "retailer buys")
    if curves.price_name:
        plot.level(curves.mean * CT, "with", curves.price_name, at_right=False)
    # The last step goes on to the edge: beyond it there is nothing more to buy or to sell.
    for points, steps, css, free, edge in (
        (demand, curves.demand, "demand", 2 * top, 2 * bottom),
        (supply, curves.supply, "supply", 2 * bottom, 2 * top),
    ):
        if not points:
            continue
        if not any(step.left_wh for step in steps):
            plot.line([*points, (points[-1][0], edge)], css)
            continue
        plot.line([*points, (points[-1][0], edge)], f"{css} left")
        for run in _taken(points, _in_order(steps, falling=css == "demand", free=free)):
            plot.line(run, css)
    for energy_wh, css, name in (
        (curves.demand_wh, "dot demand", "taken"),
        (curves.supply_wh, "dot supply", "delivered"),
    ):
        plot.dot(energy_wh / 1000, curves.mean * CT, css, f"{energy_wh / 1000:.2f} kWh {name}")
    return plot.svg()
