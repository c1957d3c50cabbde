"""``peergrid meter run`` and ``example``: meters in wall-clock time against any broker."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grid.errors import InputError
from market.cli.messages import say

if TYPE_CHECKING:
    from meters.run_config import RunSetup


@click.command("run")
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--check", "only_check", is_flag=True, help="Read every meter once, try the broker, show it and end."
)
@click.option("--json", "as_json", is_flag=True, help="With --check: print one JSON document.")
def run(config: Path, only_check: bool, as_json: bool) -> int:
    """Run the meters of CONFIG: read at every interval's end, sign, send, order, follow the awards.

    Until it is ended by Ctrl-C or SIGTERM; started again it goes on where it was. It tells once an interval
    how it stands. `peergrid meter example` prints a CONFIG to begin with.
    """
    from meters.run_config import read_setup

    setup = read_setup(config)
    if only_check:
        return _check(setup, as_json)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    asyncio.run(_until_told(setup))
    say("the meters said farewell; what has no receipt is sent when they run again")
    return 0


async def _until_told(setup: RunSetup) -> None:
    from meters.running import run as run_meters

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    await run_meters(setup, stop)


def _check(setup: RunSetup, as_json: bool) -> int:
    """1 where a meter cannot be read or has no connection."""
    from meters.check import check

    findings = asyncio.run(check(setup))
    if as_json:
        click.echo(json.dumps({"meters": [vars(finding) for finding in findings]}))
    else:
        for f in findings:
            registers = f"import {f.import_wh} Wh, export {f.export_wh} Wh, {f.power_w} W"
            click.echo(f"{f.name}  {f.meter}  {f.trouble or registers}; broker: {f.broker}")
    return 0 if all(finding.ok for finding in findings) else 1


@click.command("example")
@click.argument("kind", default="household")
def example(kind: str) -> None:
    """Print a commented configuration for meters of KIND: household, modbus or mqtt."""
    from meters.example import EXAMPLES

    if kind not in EXAMPLES:
        raise InputError.single("meter example", "kind", kind, f"is none of {', '.join(EXAMPLES)}")
    click.echo(EXAMPLES[kind], nl=False)
