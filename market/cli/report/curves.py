"""Supply and demand of one interval as stepped curves, with the prices that came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from market.cli.report.plot import Plot, Size, decimals_of, ticks

CT = 1 / 10_000


@dataclass(frozen=True)
class Step:
    """Energy at one limit price; ``price`` None is firm: it flows at any price."""

    energy_wh: int
    price: int | None


@dataclass(frozen=True)
class Curves:
    """One interval's orders and result. Prices are µEUR/kWh; ``low`` to ``high`` are its bus prices."""

    demand: Sequence[Step]
    supply: Sequence[Step]
    demand_wh: int
    supply_wh: int
    low: int
    mean: float
    high: int
    import_price: int
    export_price: int


def _stairs(steps: Sequence[Step], *, falling: bool, free: float) -> list[tuple[float, float]]:
    """Corners of a merit order in kWh and ct/kWh; firm energy comes first, at the price ``free``."""

    def level(step: Step) -> float:
        return free if step.price is None else step.price * CT

    points: list[tuple[float, float]] = []
    energy_kwh = 0.0
    for step in sorted(steps, key=level, reverse=falling):
        points.append((energy_kwh, level(step)))
        energy_kwh += step.energy_wh / 1000
        points.append((energy_kwh, level(step)))
    return points


def curve_figure(size: Size, curves: Curves) -> str:
    """Demand falls, supply rises; the retailer stands ready at its two tariffs beyond what the feeder has."""
    limits = [step.price for step in (*curves.demand, *curves.supply) if step.price is not None]
    shown = [*limits, curves.low, curves.high, curves.import_price, curves.export_price]
    low, high = min(shown) * CT, max(shown) * CT
    margin = 0.12 * (high - low) + 0.5
    bottom, top = low - margin, high + margin
    widest = max(sum(step.energy_wh for step in steps) for steps in (curves.demand, curves.supply)) / 1000
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
    plot.box(
        0, plot.x_range[1], curves.low * CT, curves.high * CT, "band", "bus prices from lowest to highest"
    )
    plot.level(curves.import_price * CT, "tariff", "retailer sells")
    plot.level(curves.export_price * CT, "tariff", "retailer buys")
    for steps, falling, free, css in (
        (curves.demand, True, top + margin, "demand"),
        (curves.supply, False, bottom - margin, "supply"),
    ):
        points = _stairs(steps, falling=falling, free=free)
        if points:
            # The last step falls to the axis: beyond it there is nothing more to sell or to buy.
            plot.line([*points, (points[-1][0], bottom - margin if falling else top + margin)], css)
    plot.level(curves.mean * CT, "mean")
    for energy_wh, css, name in (
        (curves.demand_wh, "dot demand", "taken"),
        (curves.supply_wh, "dot supply", "delivered"),
    ):
        plot.dot(energy_wh / 1000, curves.mean * CT, css, f"{energy_wh / 1000:.2f} kWh {name}")
    return plot.svg()
