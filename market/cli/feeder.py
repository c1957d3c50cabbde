"""``peergrid feeder list``, ``check`` and ``import``."""

from __future__ import annotations

import json
import logging
import warnings
from typing import TYPE_CHECKING, Any

import click

from market.cli.feeder_import import import_feeder

if TYPE_CHECKING:
    from grid.feeder import Complexes, Feeder

AGREEMENT_PU = 1e-8


@click.group("feeder")
def command() -> None:
    """List feeders, check one, or import one's own."""


command.add_command(import_feeder)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_feeders(as_json: bool) -> None:
    """The feeders that can be named as they are; a pandapower JSON net is named by its path."""
    from feeders import scenario_names
    from grid.catalogue import feeder_names

    names = feeder_names()
    if as_json:
        click.echo(json.dumps({"feeders": names}))
        return
    scenarios = set(scenario_names())
    for name in names:
        click.echo(f"{name}  (scenario)" if name in scenarios else name)


@command.command("check")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def check_feeder(context: click.Context, name: str, as_json: bool) -> None:
    """What the feeder NAME is made of, and whether its power flow agrees with pandapower's.

    Exit status 1 says that it does not.
    """
    from grid.catalogue import load_net, open_feeder

    feeder = open_feeder(name)
    document = describe(feeder) | agreement(feeder, load_net(name))
    if as_json:
        click.echo(json.dumps(document))
    else:
        show(document)
    if not document["power_flow"]["agrees"]:
        context.exit(1)


def describe(feeder: Feeder) -> dict[str, Any]:
    """Counts and limits of a feeder, as JSON values."""
    kinds = [str(name).partition(":")[0] for name in feeder.line_name]
    elements = [str(name).partition(":")[0] for name in feeder.element]
    limited = feeder.v_bus[(feeder.v_bus >= 0) & (feeder.v_min_pu > 0)]
    lowest = feeder.v_min_pu[feeder.v_min_pu > 0]
    highest = feeder.v_max_pu[feeder.v_max_pu < 1e9]
    percent = feeder.branch_limit_percent
    return {
        "feeder": feeder.name,
        "sha256": feeder.sha256,
        "buses": len(feeder.bus_index),
        "nodes": feeder.node_count,
        "slacks": len(feeder.slack),
        "lines": kinds.count("line"),
        "transformers": len({str(name) for name in feeder.line_name if str(name).startswith("trafo")}),
        "loads": elements.count("load"),
        "generators": elements.count("sgen"),
        "storages": elements.count("storage"),
        "limits": {
            "buses": len(limited),
            "v_min_pu": [float(lowest.min()), float(lowest.max())] if len(lowest) else None,
            "v_max_pu": [float(highest.min()), float(highest.max())] if len(highest) else None,
            "currents": len(percent),
            "max_loading_percent": [float(percent.min()), float(percent.max())] if len(percent) else None,
        },
    }


def agreement(feeder: Feeder, net: Any) -> dict[str, Any]:
    """How far the feeder's power flow is from ``pandapower.runpp`` with the net's own injections."""
    import numpy as np

    from grid.powerflow import PowerFlow

    p_w, q_var = np.zeros(feeder.node_count), np.zeros(feeder.node_count)
    np.add.at(p_w, feeder.element_node, feeder.element_p_w)
    np.add.at(q_var, feeder.element_node, feeder.element_q_var)
    flow = PowerFlow(feeder)
    point = flow.solve(p_w, q_var)
    difference = np.abs(point.v[feeder.bus_node] - _pandapower_voltages(net, feeder)).max()
    loading = point.loading
    return {
        "power_flow": {
            "agrees": bool(difference <= AGREEMENT_PU),
            "difference_from_runpp_pu": float(difference),
            "v_min_pu": float(point.v_pu.min()),
            "v_max_pu": float(point.v_pu.max()),
            "loading_max_percent": float(100 * loading.max()) if len(loading) else None,
            "slack_w": point.slack_w,
        }
    }


def _pandapower_voltages(net: Any, feeder: Feeder) -> Complexes:
    import numpy as np
    import pandapower

    logging.getLogger("pandapower").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pandapower.runpp(net, numba=False, tolerance_mva=1e-10)
    found = net.res_bus.loc[feeder.bus_index]
    voltages: Complexes = found.vm_pu.to_numpy() * np.exp(1j * np.radians(found.va_degree.to_numpy()))
    return voltages


def show(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    def span(values: list[float] | None, unit: str) -> str:
        if values is None:
            return "none"
        low, high = values
        return f"{low:g} {unit}" if low == high else f"{low:g} to {high:g} {unit}"

    console = Console(highlight=False)
    flow, limits = document["power_flow"], document["limits"]
    console.print(f"[bold]{document['feeder']}[/]")
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    facts.add_row("buses", f"{document['buses']} ({document['slacks']} slack)")
    facts.add_row("lines, transformers", f"{document['lines']}, {document['transformers']}")
    loads = (document["loads"], document["generators"], document["storages"])
    facts.add_row("loads, generators, storages", ", ".join(map(str, loads)))
    low, high = span(limits["v_min_pu"], "pu"), span(limits["v_max_pu"], "pu")
    facts.add_row("voltage limits", f"from {low}, up to {high}, at {limits['buses']} nodes")
    facts.add_row(
        "current limits", f"{span(limits['max_loading_percent'], '%')} at {limits['currents']} branch ends"
    )
    facts.add_row("as the net stands", f"{flow['v_min_pu']:.4f} to {flow['v_max_pu']:.4f} pu")
    if flow["loading_max_percent"] is not None:
        facts.add_row("", f"highest loading {flow['loading_max_percent']:.1f} %")
    verdict = "[green]agrees[/]" if flow["agrees"] else "[red]does not agree[/]"
    facts.add_row("power flow", f"{verdict} with pandapower to {flow['difference_from_runpp_pu']:.1e} pu")
    console.print(facts)
