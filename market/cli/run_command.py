"""``peergrid run``: markets on the wall clock, until they are told to stop."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grid.errors import InputError
from market.cli.messages import say

if TYPE_CHECKING:
    from market.service.clock import WallClock

CLOCK = "clock.json"


@click.command("run")
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--speed", type=click.FloatRange(1, 600), default=1.0, help="For trials: time runs so fast.")
@click.option("--upgrade", is_flag=True, help="Bring databases of an older Peergrid up to date.")
def command(config: Path, speed: float, upgrade: bool) -> None:
    """Run the markets of CONFIG until SIGTERM or Ctrl-C.

    Gates open and close by the clock, intervals are cleared within their deadline, metered and settled. It
    can be ended in any way at any time: started again it goes on. One line of JSON an event goes to standard
    error. `peergrid init` makes a CONFIG.
    """
    from market.cli.beforehand import check
    from market.cli.event_log import log_events
    from market.cli.service import serve
    from market.cli.service_config import read_service
    from market.cli.systemd import told_of

    settings = read_service(config)
    check(settings, config)
    base = config.resolve().parent
    clock = market_clock(base / settings.folder, speed)
    log_events()

    async def until_told() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop.set)
        async with told_of():
            await serve(settings, config, clock, stop, upgrade=upgrade)

    asyncio.run(until_told())
    say("stopped; the same command goes on from here")


def market_clock(folder: Path, speed: float) -> WallClock:
    """The machine's clock; one that runs faster is the same after a restart."""
    from market.service.clock import WallClock

    path = folder / CLOCK
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["speed"] != speed:
            raise InputError.single("--speed", "", speed, f"is not that of {folder}: {stored['speed']}")
        return WallClock(speed, stored["from"])
    if speed == 1.0:
        return WallClock()
    began = int(time.time())
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"speed": speed, "from": began}) + "\n", encoding="utf-8")
    return WallClock(speed, began)
