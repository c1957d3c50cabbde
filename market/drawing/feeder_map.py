"""The feeder as a tree from its slack, coloured by voltage and loading.

The layout follows from the topology alone: a branch's depth is its distance from the slack in buses, the
longest way runs straight, side ways leave it on both sides. A meshed feeder shows its spanning tree with
the remaining branches across.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from market.drawing.plot import Point, Size, document, number


@dataclass(frozen=True)
class Topology:
    """Nodes 0 … n−1, of which ``roots`` are slack, and the branches that join them."""

    node_count: int
    roots: Sequence[int]
    branches: Sequence[tuple[int, int, str]]
    node_names: Sequence[str]


@dataclass(frozen=True)
class State:
    """One interval: node voltages (pu) with their limits, loading (percent of the limit) by branch."""

    v_pu: Sequence[float]
    v_min_pu: Sequence[float]
    v_max_pu: Sequence[float]
    loading_percent: Mapping[str, float]


def spanning_tree(topology: Topology) -> tuple[list[int], list[int], list[list[int]]]:
    """Breadth first from the slack: depth and parent by node (−1 for roots), children by node."""
    neighbours: list[list[int]] = [[] for _ in range(topology.node_count)]
    for start, end, _ in topology.branches:
        neighbours[start].append(end)
        neighbours[end].append(start)
    depth = [-1] * topology.node_count
    parent = [-1] * topology.node_count
    children: list[list[int]] = [[] for _ in range(topology.node_count)]
    queue = deque(topology.roots)
    for root in topology.roots:
        depth[root] = 0
    while queue:
        node = queue.popleft()
        for other in neighbours[node]:
            if depth[other] < 0:
                depth[other] = depth[node] + 1
                parent[other] = node
                children[node].append(other)
                queue.append(other)
    return depth, parent, children


def layout(topology: Topology) -> list[Point]:
    """A place (depth, lane) for each node; subtrees have lanes of their own, so nothing overlaps."""
    depth, _, children = spanning_tree(topology)
    upwards = sorted(range(topology.node_count), key=lambda node: -depth[node])
    height = [0] * topology.node_count
    for node in upwards:
        height[node] = max((height[child] + 1 for child in children[node]), default=0)
    trunk = [max(below, key=lambda child: height[child]) if below else -1 for below in children]
    lane = [-1.0] * topology.node_count
    free = 0
    stack = list(reversed(topology.roots))
    while stack:  # depth first, side ways on both sides of the trunk; a lane is taken at the end of a way
        node = stack.pop()
        if trunk[node] < 0:
            lane[node] = free
            free += 1
        sides = [child for child in children[node] if child != trunk[node]]
        ordered = [*sides[::2], *([trunk[node]] if trunk[node] >= 0 else []), *sides[1::2]]
        stack.extend(reversed(ordered))
    for node in upwards:
        if trunk[node] >= 0:
            lane[node] = lane[trunk[node]]
    return [(float(depth[node]), lane[node]) for node in range(topology.node_count)]


def voltage_class(v_pu: float, low: float, high: float) -> str:
    """``v0`` in the middle between the limits, ``h3`` near the upper one, ``l3`` near the lower, ``bad``."""
    if not low - 1e-4 <= v_pu <= high + 1e-4:
        return "bad"
    if high > 10 or low <= 0:
        return "v0"
    middle, half = (low + high) / 2, (high - low) / 2
    share = (v_pu - middle) / half
    step = min(int(abs(share) * 4), 3)
    return "v0" if step == 0 else f"{'h' if share > 0 else 'l'}{step}"


def loading_class(percent: float) -> str:
    if percent > 100.01:
        return "over"
    return "full" if percent >= 99 else "high" if percent >= 70 else "calm"


def price_class(price: float, reference: float, span: float) -> str:
    """``v0`` at the reference, ``h1`` to ``h3`` dearer, ``l1`` to ``l3`` cheaper, by thirds of ``span``."""
    share = (price - reference) / span if span else 0.0
    step = min(math.ceil(abs(share) * 3 - 0.05), 3)
    return "v0" if step <= 0 else f"{'h' if share > 0 else 'l'}{step}"


def feeder_figure(
    size: Size, topology: Topology, state: State, title: str, prices: Sequence[float] | None = None
) -> str:
    """The tree from left to right, or from top to bottom where the page is narrow.

    Buses are coloured by voltage, or by their ``prices`` (ct/kWh by node) against the first root's.
    """
    reference = prices[topology.roots[0]] if prices else 0.0
    span = max((abs(price - reference) for price in prices), default=0.0) if prices else 0.0
    places = layout(topology)
    depth_max = max((depth for depth, _ in places), default=0) or 1
    lane_max = max((lane for _, lane in places), default=0) or 1
    margin = 14
    width, height = size.width - 2 * margin, size.height - 2 * margin

    def at(node: int) -> Point:
        along, across = places[node][0] / depth_max, places[node][1] / lane_max
        if size.is_narrow:
            return margin + across * width, margin + along * height
        return margin + along * width, margin + across * height

    marks = []
    for start, end, name in sorted(
        topology.branches, key=lambda branch: state.loading_percent.get(branch[2], 0.0)
    ):
        near, far = (start, end) if places[start][0] <= places[end][0] else (end, start)
        (x1, y1), (x2, y2) = at(near), at(far)
        percent = state.loading_percent.get(name)
        css = "calm" if percent is None else loading_class(percent)
        stroke = 1.2 + 3.4 * min((percent or 0.0) / 100, 1.5)
        elbow = f"H{number(x2)}V{number(y2)}" if size.is_narrow else f"V{number(y2)}H{number(x2)}"
        tip = name if percent is None else f"{name}: {percent:.1f} % of its limit"
        marks.append(
            f'<path class="branch {css}" stroke-width="{stroke:.1f}" d="M{number(x1)} {number(y1)}{elbow}">'
            f"<title>{escape(tip)}</title></path>"
        )
    roots = set(topology.roots)
    for node in range(topology.node_count):
        x, y = at(node)
        volts = state.v_pu[node]
        value = f"{prices[node]:.2f} ct/kWh" if prices else f"{volts:.4f} pu"
        tip = f"{topology.node_names[node]}: {value}"
        if node in roots:
            marks.append(
                f'<rect class="slack" x="{number(x - 5)}" y="{number(y - 5)}" width="10" height="10" rx="2">'
                f"<title>{escape(tip)}, slack</title></rect>"
            )
            continue
        if prices:
            css = price_class(prices[node], reference, span)
        else:
            css = voltage_class(volts, state.v_min_pu[node], state.v_max_pu[node])
        marks.append(
            f'<circle class="bus {css}" cx="{number(x)}" cy="{number(y)}" r="{2.6 if size.is_narrow else 4}">'
            f"<title>{escape(tip)}</title></circle>"
        )
    return document(size, title, marks)
