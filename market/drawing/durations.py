"""Loadings over a period, the highest first: how long a branch is how full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from market.drawing.plot import Plot, Size, ticks


def duration_figure(size: Size, curves: Mapping[str, Sequence[float]]) -> str:
    """One line for each branch, percent of its limit, over the share of the period; classes ``curve0`` on."""
    top = max([105.0, *(curve[0] for curve in curves.values())]) * 1.04
    plot = Plot(
        size,
        (0, 100),
        (0, top),
        title="Duration curves of the loading",
        y_label="% of the limit",
        x_label="share of the period, %",
    )
    plot.x_axis([(value, f"{value:.0f}") for value in ticks(0, 100, 6)])
    plot.y_axis(ticks(0, top, 6))
    plot.box(0, 100, 100, top, "beyond")
    plot.level(100, "limit", "limit", at_right=True)
    for number, curve in enumerate(curves.values()):
        points = [
            (100 * (index + end) / len(curve), value) for index, value in enumerate(curve) for end in (0, 1)
        ]
        plot.line(points, f"curve{number % 4}")
    return plot.svg()
