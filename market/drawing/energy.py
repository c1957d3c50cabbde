"""The energy balance of the day: where energy came from above the line, where it went below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from market.drawing.plot import Size, day_plot


@dataclass(frozen=True)
class Layer:
    """One part of the balance: ``power_kw`` by interval, all of them ≥ 0."""

    name: str
    css: str
    power_kw: Sequence[float]


def balance_figure(
    size: Size, start_hour: float, interval_hours: float, sources: Sequence[Layer], sinks: Sequence[Layer]
) -> str:
    """Sources stacked upwards, sinks downwards, as bars of mean power; both sides have one height."""
    count = len(sources[0].power_kw)
    totals = [sum(layer.power_kw[index] for layer in sources) for index in range(count)]
    drained = [sum(layer.power_kw[index] for layer in sinks) for index in range(count)]
    top = max([*totals, *drained, 1e-9]) * 1.05
    plot = day_plot(
        size,
        start_hour,
        count * interval_hours,
        (-top, top),
        title="Energy balance over the day",
        y_label="kW, sources above, uses below",
    )
    for layers, sign in ((sources, 1), (sinks, -1)):
        base = [0.0] * count
        for layer in layers:
            upper = [low + sign * value for low, value in zip(base, layer.power_kw, strict=True)]
            outline = [*_steps(upper, interval_hours), *reversed(_steps(base, interval_hours))]
            plot.area(outline, layer.css)
            base = upper
    plot.level(0, "axis")
    return plot.svg()


def _steps(values: Sequence[float], width: float) -> list[tuple[float, float]]:
    """The corners of a step function that starts at 0."""
    points = []
    for index, value in enumerate(values):
        points += [(index * width, value), ((index + 1) * width, value)]
    return points
