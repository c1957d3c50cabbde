"""pandapower's AC optimal power flow on a book's columns: another's optimum, found by interior points."""

from __future__ import annotations

import warnings
from typing import Any

import pandapower as pp
from pandapower.auxiliary import OPFNotConverged

from market.auction.columns import Columns

EXT_GRID_MW_MAX = 10.0
"""More than any low-voltage feeder carries; with much wider bounds it does not converge."""


def least_cost_eur_per_h(net: Any, columns: Columns, max_loading_percent: float) -> float | None:
    """Cost of the AC optimum (asks − bids + import − export); None where pandapower finds none.

    ``net`` is changed.  It must have one slack, and the book no firm energy and no tan φ.
    """
    feeder = columns.feeder
    for table in ("load", "sgen", "storage"):
        net[table]["in_service"] = False
    for table in ("poly_cost", "pwl_cost"):
        net[table].drop(net[table].index, inplace=True)
    bus_of_node: dict[int, int] = {}
    for bus, node in zip(feeder.bus_index.tolist(), feeder.bus_node.tolist(), strict=True):
        bus_of_node.setdefault(node, bus)
        net.bus.loc[bus, "min_vm_pu"] = max(float(columns.limits.v_min_pu[node]), 0.5)
        net.bus.loc[bus, "max_vm_pu"] = min(float(columns.limits.v_max_pu[node]), 1.5)
    for group, kw in enumerate(columns.group_kw.tolist()):
        offered_mw = int(columns.group_sign[group]) * kw / 1e3
        element = pp.create_sgen(
            net,
            bus_of_node[int(columns.group_node[group])],
            p_mw=0.0,
            q_mvar=0.0,
            min_p_mw=min(offered_mw, 0.0),
            max_p_mw=max(offered_mw, 0.0),
            min_q_mvar=0.0,
            max_q_mvar=0.0,
            controllable=True,
        )
        pp.create_poly_cost(net, element, "sgen", cp1_eur_per_mw=columns.group_price[group] / 1e3)
    (grid,) = net.ext_grid.index
    net.ext_grid["controllable"] = False  # else the slack's voltage is free
    for quantity in ("p_mw", "q_mvar"):
        net.ext_grid[f"min_{quantity}"], net.ext_grid[f"max_{quantity}"] = -EXT_GRID_MW_MAX, EXT_GRID_MW_MAX
    pp.create_pwl_cost(
        net,
        grid,
        "ext_grid",
        [
            [-EXT_GRID_MW_MAX, 0, columns.export_price / 1e3],
            [0, EXT_GRID_MW_MAX, columns.import_price / 1e3],
        ],
    )
    for table in ("line", "trafo", "trafo3w"):
        net[table]["max_loading_percent"] = max_loading_percent
    for start in ("flat", "pf"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                pp.runopp(net, init=start, numba=False)
            except OPFNotConverged:
                continue
        return float(net.res_cost)
    return None
