"""``peergrid statement``: the month of every account, or of some, compared with the ledger."""

from __future__ import annotations

from pathlib import Path

import click

from grid.errors import InputError
from market.cli.messages import say
from market.cli.status import database_at, looked_into


@click.command("statement")
@click.argument("place")
@click.option("--month", metavar="YYYY-MM", help="By default the month of the last interval.")
@click.option("--account", "names", multiple=True, help="A meter, its connection point, retailer, network, …")
@click.option("--zone", default="UTC", show_default=True, help="Where months and days begin.")
@click.option("--feeder", help="Which market, where the configuration has several.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("statements"))
def command(
    place: str, month: str | None, names: tuple[str, ...], zone: str, feeder: str | None, out: Path
) -> None:
    """Write the month's statements of the market of PLACE: a configuration or a database's file or URL.

    For each account a page to print and a CSV file, with what every amount is made of (energy, network,
    levies, VAT), and `all-<month>.csv` over all accounts, which sums to zero. Each was added up and compared
    with the ledger, to the nEUR, before it is written. Those of a month that is not over say so.
    """
    from market.cli.statement.about import chosen, everybody, period_of, settled
    from market.cli.statement.leaflet import leaflet
    from market.cli.statement.page import render
    from market.cli.statement.sheet import write_lines, write_totals
    from market.service import statements
    from market.service.store import booked, money, views

    with looked_into(database_at(place, feeder)) as connection:
        span = views.span(connection)
        if span is None:
            raise InputError.single(place, "", "…", "has no interval yet")
        period = settled(connection, period_of(month, zone, span), span[1])
        accounts = chosen(everybody(connection), names)
        market = money.market_of(connection)
        flows = booked.flows(connection, period.since, period.until)
        made = statements.statements(connection, period.since, period.until, flows)
        try:
            out.mkdir(parents=True, exist_ok=True)
            write_totals(out / f"all-{period.key}.csv", made.values())
            for about in accounts:
                one = made[about.account]
                write_lines(out / f"{about.slug}-{period.key}.csv", one)
                page = render(leaflet(connection, market, about, period, one, flows))
                (out / f"{about.slug}-{period.key}.html").write_text(page, encoding="utf-8")
        except OSError as error:
            raise InputError.single("--out", "", str(out), f"cannot be written: {error.strerror}") from None
    say(f"{len(accounts)} statements of {period.words}, which add up to the ledger")
    if period.unfinished:
        say(f"{period.words} is {period.unfinished}")
    click.echo(str(out))
