"""``peergrid clear``: one book in, its clearing record out."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grid.errors import InputError

if TYPE_CHECKING:
    from market.auction.clearing import Engine
    from market.auction.record import ClearingRecord, MinimumFills

SUSPENDED_STATUS = 3


@click.command("clear")
@click.argument("book", type=click.Path(path_type=Path))
@click.option("--feeder", "feeder_name", metavar="NAME", help="The feeder; wins over the book's own.")
@click.option("--no-network", is_flag=True, help="Clear without the feeder's limits, for comparison.")
@click.option(
    "--deadline-ms",
    type=click.IntRange(min=1),
    help="Stop the search by then; what is not AC-feasible is suspended.",
)
@click.option(
    "--engine",
    type=click.Choice(["highs", "pyomo"]),
    default="highs",
    show_default=True,
    help="highs is the fast path, pyomo the readable reference model.",
)
@click.option("--explain", "explained", metavar="ORDER_ID", help="Say why an order got what it got.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw supply, demand and the feeder into an .svg, .png or .pdf.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the clearing record as one JSON document.")
@click.pass_context
def command(
    context: click.Context,
    book: Path,
    feeder_name: str | None,
    no_network: bool,
    deadline_ms: int | None,
    engine: Engine,
    explained: str | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Clear BOOK, a JSON file with the orders of one interval.

    Exit status 3 says that the interval was suspended.
    """
    from grid.catalogue import open_feeder
    from market.auction.book import parse_book, read_document
    from market.auction.clearing import clear_book

    if plot is not None:
        from market.cli.plot import check_plot_path, write_plot

        check_plot_path(plot)
    document = read_document(book)
    name = feeder_name or (document.get("feeder") if isinstance(document, dict) else None)
    if not isinstance(name, str):
        parse_book(document, str(book))
        raise InputError.single(str(book), "feeder", None, "is missing: name one here or with --feeder")
    feeder = open_feeder(name)
    orders = parse_book(document, str(book), feeder)
    deadline = math.inf if deadline_ms is None else time.monotonic() + deadline_ms / 1e3
    record = clear_book(
        orders,
        feeder,
        network=not no_network,
        engine=engine,
        out_of_time=lambda: time.monotonic() >= deadline,
        source=str(book),
    )
    sentences: tuple[str, ...] = ()
    if explained is not None:
        from market.auction.explain import explain

        sentences = explain(orders, record, feeder, explained)
    if plot is not None:
        write_plot(plot, orders, record, feeder)
    if as_json:
        click.echo(json.dumps(record.json_document(), ensure_ascii=False))
    elif explained is None:
        show_record(record)
    for sentence in sentences:
        click.echo(sentence, err=as_json)
    if record.status == "suspended":
        context.exit(SUSPENDED_STATUS)


def _choice(known: MinimumFills) -> str:
    """Whether the best choice of orders with a minimum fill was found."""
    if known.proven:
        return "the best choice of orders"
    missed = "" if known.missed_eur is None else f"; {known.missed_eur:.4f} EUR more is not ruled out"
    return f"the search for the best choice ended early{missed}"


def show_record(record: ClearingRecord) -> None:
    """The record's main figures for a reader, on standard output."""
    from rich.console import Console
    from rich.table import Table

    from market.drawing.units import ct_per_kwh, kwh, shadow_price

    console = Console(highlight=False)
    colour = "green" if record.status == "cleared" else "yellow"
    console.print(f"[bold]{record.feeder}[/] · {record.interval.start} · [{colour}]{record.status}[/]")
    if record.reason:
        console.print(record.reason)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    if record.status == "cleared":
        traded_wh = sum(
            trade.energy_wh
            for trade in record.trades
            if not {trade.buy, trade.sell} & {"retailer", "network"}
        )
        facts.add_row("traded inside the feeder", kwh(traded_wh))
        facts.add_row("imported, exported", f"{kwh(record.import_wh)}, {kwh(record.export_wh)}")
        facts.add_row("losses", kwh(record.losses_wh))
        facts.add_row("welfare", f"{record.welfare_eur:.4f} EUR")
        if known := record.minimum_fills:
            facts.add_row("minimum fills", _choice(known))
        if record.ac.stale_rows:
            facts.add_row("optimal", "[yellow]not known: the search ended early[/]")
        prices = [price.price for price in record.prices]
        facts.add_row("bus prices", f"{ct_per_kwh(min(prices))} to {ct_per_kwh(max(prices))}")
    if record.ac.v_min_pu is not None and record.ac.v_max_pu is not None:
        facts.add_row("voltage", f"{record.ac.v_min_pu:.4f} to {record.ac.v_max_pu:.4f} pu")
    if record.ac.loading_max_percent is not None:
        facts.add_row("highest loading", f"{record.ac.loading_max_percent:.1f} %")
        facts.add_row("limits violated", str(record.ac.violations))
    console.print(facts)
    if record.binding:
        limits = Table(title="limits that bind", title_justify="left", box=None, pad_edge=False)
        limits.add_column("element")
        limits.add_column("limit")
        limits.add_column("at", justify="right")
        limits.add_column("shadow price", justify="right")
        for limit in record.binding:
            at = f"{limit.loading_percent:.1f} %" if limit.v_pu is None else f"{limit.v_pu:.4f} pu"
            name = limit.element if limit.side is None else f"{limit.element} ({limit.side})"
            limits.add_row(name, limit.kind, at, shadow_price(limit.shadow_price_eur_per_mwh, limit.kind))
        console.print(limits)
    if record.setpoints:
        setpoints = Table(title="setpoints", title_justify="left", box=None, pad_edge=False)
        setpoints.add_column("order")
        setpoints.add_column("energy", justify="right")
        for setpoint in record.setpoints:
            setpoints.add_row(setpoint.order_id, kwh(setpoint.energy_wh))
        console.print(setpoints)
    if record.fills:
        fills = Table(title="fills", title_justify="left", box=None, pad_edge=False)
        fills.add_column("order")
        fills.add_column("energy", justify="right")
        fills.add_column("price", justify="right")
        for fill in record.fills:
            fills.add_row(fill.order_id, kwh(fill.energy_wh), ct_per_kwh(fill.price))
        console.print(fills)
