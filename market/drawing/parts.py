"""The price of every bus as its parts, bus beside bus in the order of price."""

from __future__ import annotations

from collections.abc import Sequence

from market.auction.record import NodePrice
from market.drawing.plot import Plot, Size, decimals_of, ticks

CT = 1 / 10_000
PARTS = (
    ("energy", "energy"),
    ("losses", "losses"),
    ("congestion", "lines and transformers"),
    ("voltage", "voltage"),
)


def parts_figure(size: Size, prices: Sequence[NodePrice]) -> str:
    """Parts above zero are stacked upwards, those below it downwards; the line is their sum, the price."""
    ordered = sorted(prices, key=lambda node: (node.price, node.bus))
    ups = [sum(max(getattr(node, part), 0) for part, _ in PARTS) * CT for node in ordered]
    downs = [sum(min(getattr(node, part), 0) for part, _ in PARTS) * CT for node in ordered]
    low, high = min([*downs, 0.0]), max([*ups, 0.1])
    margin = 0.05 * (high - low)
    low = low - margin if low < 0 else 0.0
    plot = Plot(
        size,
        (0, len(ordered)),
        (low, high + margin),
        title="Price of every bus, split into its parts",
        y_label="ct/kWh",
        x_label="buses, from the lowest price to the highest",
    )
    plot.y_axis(ticks(low, high + margin, 6), decimals=decimals_of((low, high + margin)))
    for index, node in enumerate(ordered):
        up = down = 0.0
        for part, name in PARTS:
            value = getattr(node, part) * CT
            if abs(value) < 0.005:
                continue
            base = up if value > 0 else down
            tip = f"bus:{node.bus}, {name}: {value:.2f} of {node.price * CT:.2f} ct/kWh"
            plot.box(index, index + 1, min(base, base + value), max(base, base + value), f"part {part}", tip)
            if value > 0:
                up += value
            else:
                down += value
    plot.x_axis([])
    corners = [(index + end, node.price * CT) for index, node in enumerate(ordered) for end in (0, 1)]
    plot.line(corners, "total")
    plot.level(0, "axis")
    return plot.svg()
