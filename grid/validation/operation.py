"""What a feeder does under load: voltages without any, what it carries, fuses beyond their lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import networkx
import numpy as np

from grid.errors import PowerFlowError
from grid.feeder import Feeder, Floats
from grid.limits import TOLERANCE_PU, LimitCheck, check_limits, network_limits
from grid.powerflow import PowerFlow
from grid.validation.connections import Connected
from grid.validation.finding import Finding

_SHARE_STEPS = 12
"""Bisections: a share of all fuses to within a few hundredths of a percent."""


def operation(feeder: Feeder, connected: Sequence[Connected]) -> Iterator[Finding]:
    """Load cases by AC power flow, with the limits of the net itself."""
    flow = PowerFlow(feeder)
    limits = network_limits(feeder)
    idle = check_limits(flow.idle, limits)
    words = f"{idle.v_min_pu:.4f} to {idle.v_max_pu:.4f} pu without any load"
    if idle.violations:
        words += f"; {_broken(feeder, idle)}: no clearing could keep that"
        yield Finding("error", "no-load voltage", words)
    else:
        yield Finding("note", "no-load voltage", words)
    load = np.array([str(name).startswith("load:") for name in feeder.element], dtype=bool)
    everything = np.ones(len(load), dtype=bool)
    for case, mask in (
        ("as the net stands", everything),
        ("all loads, nothing fed in", load),
        ("all feeding in, no load", ~load),
    ):
        p_w, q_var = np.zeros(feeder.node_count), np.zeros(feeder.node_count)
        np.add.at(p_w, feeder.element_node[mask], feeder.element_p_w[mask])
        np.add.at(q_var, feeder.element_node[mask], feeder.element_q_var[mask])
        if mask.any():
            yield _case(case, flow, p_w, q_var)
    if connected:
        yield from _fuses(feeder, connected)
        fuses_w = np.zeros(feeder.node_count)
        for meter in connected:
            node = feeder.node_of(meter.connection_point)
            assert node is not None
            fuses_w[node] += meter.fuse_w
        for case, sign in (("drawing", -1.0), ("feeding in", 1.0)):
            yield _simultaneous(case, flow, sign * fuses_w)


def _solved(flow: PowerFlow, p_w: Floats, q_var: Floats) -> LimitCheck | None:
    try:
        return check_limits(flow.solve(p_w, q_var), network_limits(flow.feeder))
    except PowerFlowError:
        return None


def _case(case: str, flow: PowerFlow, p_w: Floats, q_var: Floats) -> Finding:
    found = _solved(flow, p_w, q_var)
    if found is None:
        return Finding(
            "warning", "worst case", f"{case}: no power flow: it is more than the feeder can carry"
        )
    loading = f"highest loading {100 * found.loading_max:.1f} %"
    words = f"{case}: {loading}, {found.v_min_pu:.4f} to {found.v_max_pu:.4f} pu"
    if found.violations:
        return Finding("warning", "worst case", f"{words}; {_broken(flow.feeder, found)}")
    return Finding("note", "worst case", words)


def _broken(feeder: Feeder, found: LimitCheck) -> str:
    """The limit that is exceeded most, and how many others."""
    candidates = []
    for excess, kind in ((found.excess_v_min, "voltage too low"), (found.excess_v_max, "voltage too high")):
        node = int(np.argmax(excess))
        candidates.append((float(excess[node]), f"{kind} at bus:{feeder.v_bus[node]}"))
    if len(feeder.branch):
        row = int(np.argmax(found.excess_current))
        candidates.append((float(found.excess_current[row]), f"{feeder.branch[row]} overloaded"))
    worst = max(candidates)[1]
    return worst if found.violations == 1 else f"{worst} and {found.violations - 1} more limits exceeded"


def _simultaneous(case: str, flow: PowerFlow, p_w: Floats) -> Finding:
    """Which share of all fuses the feeder carries at once."""
    nothing = np.zeros_like(p_w)
    low, high = 0.0, 1.0
    broken = _solved(flow, p_w, nothing)
    if broken is not None and not broken.violations:
        return Finding("note", "fuses", f"{case}: the feeder carries every meter at its fuse at once")
    for _ in range(_SHARE_STEPS):
        share = (low + high) / 2
        found = _solved(flow, share * p_w, nothing)
        if found is not None and not found.violations:
            low = share
        else:
            high, broken = share, found
    first = f"; then {_broken(flow.feeder, broken)}" if broken is not None else ""
    return Finding(
        "note", "fuses", f"{case}: the feeder carries {100 * low:.1f} % of all fuses at once{first}"
    )


def _fuses(feeder: Feeder, connected: Sequence[Connected]) -> Iterator[Finding]:
    """Fuses above what the strongest way from the supply can carry: nothing protects that line."""
    ways = _strongest_ways(feeder)
    beyond: dict[str, list[str]] = {}
    for meter in connected:
        node = feeder.node_of(meter.connection_point)
        rating_va, branch = ways.get(node if node is not None else -1, (np.inf, ""))
        if meter.fuse_w > rating_va * (1 + TOLERANCE_PU):
            beyond.setdefault(f"{branch} ({rating_va / 1000:.1f} kVA)", []).append(
                f"{meter.meter} ({meter.fuse_w / 1000:.1f} kW)"
            )
    for branch, meters in beyond.items():
        words = f"its fuse is above the rating of {branch} on its way: the fuse does not protect that line"
        yield Finding("warning", "fuse above line", words, tuple(meters))


def _strongest_ways(feeder: Feeder) -> dict[int, tuple[float, str]]:
    """By node: the rating of the weakest branch on the strongest way from a supply, VA, and its name.

    The strongest ways of a graph are those of its maximum spanning tree.
    """
    ratings: dict[str, float] = {}
    for name, rating, percent in zip(
        feeder.branch, feeder.rating_va, feeder.branch_limit_percent, strict=True
    ):
        ratings[str(name)] = min(ratings.get(str(name), np.inf), float(rating * percent / 100))
    graph = networkx.Graph()
    for start, end, name in zip(feeder.line_from, feeder.line_to, feeder.line_name, strict=True):
        rating = ratings.get(str(name), np.inf)
        held = graph.get_edge_data(int(start), int(end), {"weight": 0.0})["weight"]
        graph.add_edge(int(start), int(end), weight=held + rating, name=str(name))
    tree = networkx.maximum_spanning_tree(graph)
    ways: dict[int, tuple[float, str]] = {}
    for slack in feeder.slack.tolist():
        reached = {slack: (np.inf, "")}
        for near, far in networkx.bfs_edges(tree, slack) if slack in tree else ():
            edge = tree.edges[near, far]
            reached[far] = min(reached[near], (edge["weight"], edge["name"]))
        for node, way in reached.items():
            ways[node] = max(ways.get(node, (0.0, "")), way)
    return ways
