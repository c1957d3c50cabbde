"""``peergrid export``: what a market's database holds, as CSV or Parquet, by day or over any time."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grid.errors import InputError
from market.cli.messages import say
from market.cli.operate import moment_of, start_of
from market.cli.status import database_at

if TYPE_CHECKING:
    from market.console.frames import Form


@click.command("export")
@click.argument("place")
@click.argument("names", nargs=-1, metavar="[TABLE]...")
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="One UTC day.")
@click.option("--since", metavar="TIME", help="From then on, as 2026-11-22T12:00:00Z.")
@click.option("--until", metavar="TIME", help="Before then.")
@click.option("--format", "form", type=click.Choice(["csv", "parquet"]), default="csv", show_default=True)
@click.option("--feeder", help="Which market, where the configuration has several.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("export"))
@click.option("--list", "listing", is_flag=True, help="Say which tables there are, and what they hold.")
def command(
    place: str,
    names: tuple[str, ...],
    day: dt.datetime | None,
    since: str | None,
    until: str | None,
    form: Form,
    feeder: str | None,
    out: Path,
    listing: bool,
) -> None:
    """Write TABLEs, or all, of the market of PLACE, one file each. PLACE is a configuration, or a database's
    file or URL.

    Columns and units are those of the console's API and of `market.console.frames` in Python. A market that
    runs is not held up.
    """
    from market.console.frames import FOREVER, write
    from market.service.store.readonly import StoredMarket
    from market.service.store.tables import TABLES

    if listing:
        for table in TABLES.values():
            click.echo(f"{table.name:<14} {table.says}")
        return
    for name in names:
        if name not in TABLES:
            raise InputError.single("TABLE", "", name, f"is none of {', '.join(TABLES)}")
    begin = start_of(since, "--since") or 0
    end = FOREVER if until is None else moment_of(until, "--until")
    if day is not None:
        if since is not None or until is not None:
            raise InputError.single("--day", "", f"{day:%Y-%m-%d}", "leaves nothing to --since and --until")
        begin = int(day.replace(tzinfo=dt.UTC).timestamp())
        end = begin + 86_400
    with StoredMarket(database_at(place, feeder)) as market, market.reading() as connection:
        for name in names or TABLES:
            file = out / f"{market.name}-{name}.{form}"
            try:
                out.mkdir(parents=True, exist_ok=True)
                with file.open("wb") as opened:
                    count = write(connection, TABLES[name], begin, end, form, opened)
            except OSError as error:
                raise InputError.single(
                    "--out", "", str(file), f"cannot be written: {error.strerror}"
                ) from None
            say(f"{file}: {count} rows")
    click.echo(str(out))
