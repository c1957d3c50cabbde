"""How a net hangs together: what is supplied, what is open, what is a ring."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import networkx

from grid.validation.finding import Finding


def topology(net: Any) -> Iterator[Finding]:
    """Islands, rings and lines that hang at one end, as switches stand now."""
    import pandapower.topology  # slow to import, and seldom needed

    logging.getLogger("pandapower").setLevel(logging.ERROR)
    graph = pandapower.topology.create_nxgraph(net, nogobuses=set(net.bus.index[~net.bus.in_service]))
    fed = set(net.ext_grid.bus[net.ext_grid.in_service.astype(bool)])
    if len(net.gen):
        fed |= set(net.gen.bus[net.gen.in_service.astype(bool) & net.gen.slack.astype(bool)])
    parts = list(networkx.connected_components(graph))
    dark = [sorted(part) for part in parts if not part & fed]
    if dark:
        buses = tuple(f"bus:{bus}" for part in dark for bus in part)
        count = "1 bus" if len(buses) == 1 else f"{len(buses)} buses"
        count += " in 1 island" if len(dark) == 1 else f" in {len(dark)} islands"
        words = f"{count} without a supply: close a switch, or take them out of service"
        yield Finding("error", "islands", words, buses)
        held = [f"load:{index}" for index, bus in net.load.bus.items() if f"bus:{bus}" in set(buses)]
        if held:
            yield Finding("warning", "islands", "stands in an island: nobody supplies it", tuple(held))
    alive = [part for part in parts if part & fed]
    rings = sum(graph.subgraph(part).number_of_edges() - len(part) + 1 for part in alive)
    form = "radial" if rings == 0 else f"meshed, rings closed: {rings}"
    supplies = "1 supply" if len(fed) == 1 else f"{len(fed)} supplies"
    yield Finding("note", "topology", f"{sum(map(len, alive))} buses, {supplies}, {form}")
    yield from _open_ends(net)


def _open_ends(net: Any) -> Iterator[Finding]:
    opened = net.switch[(net.switch.et == "l") & ~net.switch.closed.astype(bool)]
    running = net.line.index[net.line.in_service.astype(bool)]
    ends = opened.element[opened.element.isin(running)].value_counts()
    hanging = tuple(f"line:{index}" for index in ends.index[ends == 1].sort_values())
    if hanging:
        yield Finding("note", "open points", "is open at one end: only its charging current flows", hanging)
