"""What the feeder would have carried, interval by interval, with its limits in the auction and without."""

from __future__ import annotations

from collections.abc import Sequence

from market.drawing.plot import Plot, Size, day_plot


def _line(plot: Plot, values: Sequence[float | None], width: float, css: str) -> None:
    points: list[tuple[float, float]] = []
    for index, value in enumerate([*values, None]):
        if value is not None:
            points += [(index * width, value), ((index + 1) * width, value)]
        elif points:
            plot.line(points, css)
            points = []


def loading_figure(
    size: Size,
    start_hour: float,
    interval_hours: float,
    with_network: Sequence[float | None],
    without_network: Sequence[float | None],
    delivered: Sequence[float | None],
) -> str:
    """Highest loading of any line or transformer, percent of its limit."""
    known = [
        value
        for series in (with_network, without_network, delivered)
        for value in series
        if value is not None
    ]
    top = max([*known, 105.0]) * 1.06
    plot = day_plot(
        size,
        start_hour,
        len(with_network) * interval_hours,
        (0, top),
        title="Highest loading over the day",
        y_label="% of rating",
    )
    plot.box(0, len(with_network) * interval_hours, 100, top, "beyond")
    plot.level(100, "limit", "limit", at_right=False)
    _line(plot, without_network, interval_hours, "without")
    _line(plot, delivered, interval_hours, "delivered")
    _line(plot, with_network, interval_hours, "with")
    return plot.svg()


def voltage_figure(
    size: Size,
    start_hour: float,
    interval_hours: float,
    with_network: Sequence[tuple[float, float] | None],
    without_network: Sequence[tuple[float, float] | None],
    delivered: Sequence[tuple[float, float] | None],
    limits_pu: tuple[float, float],
) -> str:
    """Lowest and highest bus voltage, pu."""
    known = [
        value
        for series in (with_network, without_network, delivered)
        for pair in series
        if pair
        for value in pair
    ]
    low = min([*known, limits_pu[0]])
    high = max([*known, limits_pu[1]])
    margin = 0.08 * (high - low)
    count = len(with_network)
    plot = day_plot(
        size,
        start_hour,
        count * interval_hours,
        (low - margin, high + margin),
        title="Voltages over the day",
        y_label="pu",
    )
    plot.box(0, count * interval_hours, limits_pu[1], high + margin, "beyond")
    plot.box(0, count * interval_hours, low - margin, limits_pu[0], "beyond")
    for value in limits_pu:
        plot.level(value, "limit", "limit", at_right=False)
    for series, css in ((without_network, "without"), (delivered, "delivered"), (with_network, "with")):
        for side in (0, 1):
            _line(plot, [pair[side] if pair else None for pair in series], interval_hours, css)
    return plot.svg()
