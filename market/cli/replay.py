"""``peergrid replay``: a market's database rebuilt from its journal alone, and compared."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from grid.errors import InputError
from market.cli.messages import say


@click.command("replay")
@click.argument("database")
@click.option(
    "--base",
    type=click.Path(file_okay=False, path_type=Path),
    help="The configuration's folder, where feeders are paths; else the working directory.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(database: str, base: Path | None, as_json: bool) -> int:
    """Rebuild every clearing, award, posting and batch of DATABASE (file or URL) from its journal; compare.

    Exit status 1 and the first difference, where there is one. It proves that the stored results follow from
    the accepted messages and decisions; signatures of the market are checked, not made again.
    """
    from grid.catalogue import open_feeder
    from market.cli.physics import replay_physics
    from market.service.ports import Physics
    from market.service.replay import Replay
    from market.service.settings import MarketSettings
    from market.service.store import Store

    if "://" not in database and not Path(database).is_file():
        raise InputError.single("DATABASE", "", database, "is no market's database")

    def physics(settings: MarketSettings) -> Physics:
        feeder = open_feeder(settings.feeder_name, base)
        return replay_physics(feeder, settings.limits, settings.seconds, base)

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
