"""``peergrid replay``: a market's database rebuilt from its journal alone, and compared."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from market.cli.messages import say


@click.command("replay")
@click.argument("place")
@click.option("--feeder", help="Which market, where there are several.")
@click.option(
    "--base",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where feeders that are paths start: the configuration's folder, else the working directory.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(place: str, feeder: str | None, base: Path | None, as_json: bool) -> int:
    """Rebuild every clearing, award, posting and batch of a market from its journal; compare.

    PLACE is a configuration, or a database's file or URL. Exit status 1 and the first difference, where there
    is one. It proves that the stored results follow from the accepted messages and decisions; signatures of
    the market are checked, not made again.
    """
    from grid.catalogue import open_feeder
    from market.cli.physics import replay_physics
    from market.cli.status import database_at
    from market.service.ports import Physics
    from market.service.replay import Replay
    from market.service.settings import MarketSettings
    from market.service.store import Store

    database = database_at(place, feeder)
    if base is None and place.endswith(".toml"):
        base = Path(place).resolve().parent

    def physics(settings: MarketSettings) -> Physics:
        network = open_feeder(settings.feeder_name, base)
        return replay_physics(network, settings.limits, settings.seconds, base)

    with (
        tempfile.TemporaryDirectory(prefix="peergrid-replay-") as folder,
        Store(database, {}) as stored,
        Store(Path(folder) / "replayed.sqlite", {}) as scratch,
    ):
        replay = Replay(stored, scratch, physics)
        found = replay.run()
    if as_json:
        first = None
        if found is not None:
            first = {**vars(found), "stored": str(found.stored), "replayed": str(found.replayed)}
        click.echo(json.dumps({"entries": replay.entries, "same": found is None, "first_difference": first}))
    elif found is None:
        say(f"{replay.entries} entries: everything follows from the journal, to the last byte")
    else:
        say(f"the first difference: {found}")
    return 0 if found is None else 1
