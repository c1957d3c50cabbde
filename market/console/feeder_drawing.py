"""The feeder as an SVG whose branches and buses the page colours: on the map where places are known, else as
a one-line layout that follows from the topology.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from grid.feeder import Feeder
from market.drawing.feeder_map import Topology, layout
from market.drawing.interval import topology_of
from market.drawing.plot import Point, number

WIDTH, HEIGHT_MAX, MARGIN = 1040, 640, 26
DEGREES_MAX = 180


@dataclass(frozen=True)
class Drawing:
    """``nodes`` and ``branches`` are the names in the order of the page's values."""

    svg: Markup
    nodes: list[str]
    branches: list[str]


def has_places(feeder: Feeder) -> bool:
    """Whether the net says where its buses are, most of them apart from each other."""
    if len(feeder.bus_x) != len(feeder.bus_index) or not len(feeder.bus_x):
        return False
    known = np.isfinite(feeder.bus_x) & np.isfinite(feeder.bus_y)
    places = set(zip(feeder.bus_x[known].tolist(), feeder.bus_y[known].tolist(), strict=True))
    return bool(known.all()) and len(places) >= 0.8 * len(feeder.bus_x) and len(places) > 2


def _places(feeder: Feeder) -> list[Point]:
    """Every node's place, in units of equal length both ways, the north above."""
    scale = 1.0
    if np.abs(feeder.bus_y).max() <= DEGREES_MAX / 2 and np.abs(feeder.bus_x).max() <= DEGREES_MAX:
        scale = math.cos(math.radians(float(feeder.bus_y.mean())))
    found: list[Point] = [(0.0, 0.0)] * feeder.node_count
    for node, x, y in zip(feeder.bus_node.tolist(), feeder.bus_x, feeder.bus_y, strict=True):
        found[node] = (float(x) * scale, -float(y))
    return found


def _uncovered(points: list[Point], topology: Topology) -> list[Point]:
    """Some nets give the grid above the place of another bus: then it is drawn above what it is tied to."""
    found = list(points)
    (low_x, low_y), (high_x, high_y) = np.min(points, axis=0), np.max(points, axis=0)
    step = max(high_x - low_x, high_y - low_y) / 10
    for root in topology.roots:
        tied = {end for branch in topology.branches for end in branch[:2] if root in branch[:2]} - {root}
        if points.count(points[root]) > 1 and tied:
            x, y = points[min(tied)]
            found[root] = (x, y - step)
    return found


def drawing(feeder: Feeder, places: bool) -> Drawing:
    """The whole drawing; one element of it can be reached by Tab, the arrow keys go to the others."""
    topology = topology_of(feeder)
    points = _uncovered(_places(feeder), topology) if places else layout(topology)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    span_x, span_y = (max(xs) - min(xs)) or 1.0, (max(ys) - min(ys)) or 1.0
    width = WIDTH
    if places:
        factor = min((WIDTH - 2 * MARGIN) / span_x, (HEIGHT_MAX - 2 * MARGIN) / span_y)
        factor_x = factor_y = factor
        width, height = round(span_x * factor) + 2 * MARGIN, round(span_y * factor) + 2 * MARGIN
    else:
        height = 460
        factor_x, factor_y = (WIDTH - 2 * MARGIN) / span_x, (height - 2 * MARGIN) / span_y
    at = [(MARGIN + (x - min(xs)) * factor_x, MARGIN + (y - min(ys)) * factor_y) for x, y in points]
    marks = []
    for index, (start, end, name) in enumerate(topology.branches):
        (x1, y1), (x2, y2) = at[start], at[end]
        if places:
            path = f"M{number(x1)} {number(y1)}L{number(x2)} {number(y2)}"
        else:
            if x1 > x2:
                (x1, y1), (x2, y2) = (x2, y2), (x1, y1)
            path = f"M{number(x1)} {number(y1)}V{number(y2)}H{number(x2)}"
        marks.append(_element("branch", index, name, f'<path d="{path}"/><path class="hit" d="{path}"/>'))
    roots = set(topology.roots)
    # The connection to the grid above comes last: it often shares its place with a transformer's other side.
    for node in sorted(range(topology.node_count), key=lambda node: node in roots):
        name = topology.node_names[node]
        x, y = at[node]
        if node in roots:
            shape = f'<rect x="{number(x - 7)}" y="{number(y - 7)}" width="14" height="14" rx="3"/>'
            marks.append(_element("bus slack", node, f"{name}, connection to the grid above", shape))
        else:
            shape = f'<circle cx="{number(x)}" cy="{number(y)}" r="5.5"/>'
            marks.append(_element("bus", node, name, shape))
    svg = (
        f'<svg id="feeder" viewBox="0 0 {width} {height}" role="group" aria-label="Drawing of the feeder">'
        + "".join(marks)
        + "</svg>"
    )
    names = [name or f"node:{node}" for node, name in enumerate(topology.node_names)]
    return Drawing(Markup(svg), names, [name for _, _, name in topology.branches])  # noqa: S704  our own marks


def _element(css: str, index: int, name: str, shape: str) -> str:
    kind = css.split()[0]
    label = Markup("{}").format(name)
    return (
        f'<g class="{css}" tabindex="-1" role="button" aria-label="{label}" data-kind="{kind}" '
        f'data-index="{index}">{shape}</g>'
    )
