"""``peergrid demo``: one simulated day of the whole market, with its summary and report."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from market.cli.messages import say

if TYPE_CHECKING:
    from market.cli.run import Running, Stopwatch
    from market.cli.summary import Summary
    from market.cli.world import World

REPORT = "report.html"
SUMMARY = "summary.json"
TOKENS = "tokens.json"


@click.command("demo")
@click.option("--feeder", metavar="NAME", help="A shipped scenario, or any feeder with default settings.")
@click.option("--scenario", type=click.Path(path_type=Path), help="A scenario file of your own.")
@click.option("--date", metavar="YYYY-MM-DD", help="The day, in 2016: the year of the profiles.")
@click.option("--intervals", type=int, help="How many intervals of 15 minutes, from midnight UTC.")
@click.option("--pv-scale", type=float, help="Multiplies the feeder's solar power.")
@click.option("--load-scale", type=float, help="Multiplies the households' loads.")
@click.option("--seed", type=int, help="Everything drawn, and every key, follows from it.")
@click.option("--settle-every", metavar="interval|hour|day", help="How often a batch goes on the chain.")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder; an interrupted run goes on.")
@click.option("--keep-running", is_flag=True, help="Serve the console, and leave all parts up until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON document.")
def command(
    feeder: str | None,
    scenario: Path | None,
    out: Path | None,
    keep_running: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Run one simulated day of a local energy market with all its parts.

    Meters are MQTT clients of a real broker, the feeder's limits hold by AC power flow, money moves as
    tokens on an embedded EVM chain. Prints a summary and writes report.html.
    """
    from market.cli.folder import check_folder, fresh_folder, open_folder
    from market.cli.run import Stopwatch
    from market.cli.settings import read_settings
    from market.cli.summary_view import show_summary
    from market.cli.world import build_world

    watch = Stopwatch()
    with watch.stage("feeder and profiles"):
        settings = read_settings(feeder, scenario, os.environ, given(flags))
        folder = out or fresh_folder(settings)
        check_folder(folder, settings)
        world = build_world(settings, scenario.parent if scenario else None)
    open_folder(folder, settings)

    def tell(summary: Summary) -> None:
        if as_json:
            click.echo(summary.model_dump_json())
        else:
            show_summary(summary, folder / REPORT)

    try:
        asyncio.run(run_day(world, folder, watch, tell, keep_running))
    except KeyboardInterrupt:
        say(f"interrupted; the same command with --out {folder} finishes the day")
        raise click.exceptions.Exit(1) from None


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given, as the settings name them."""
    from market.cli.settings import date_from

    places = {
        "intervals": (),
        "seed": (),
        "date": (),
        "pv_scale": ("households",),
        "load_scale": ("households",),
        "settle_every": ("market",),
    }
    document: dict[str, Any] = {}
    for name, value in flags.items():
        if value is None:
            continue
        table = document
        for part in places[name]:
            table = table.setdefault(part, {})
        table[name] = date_from(value) if name == "date" else value
    return document


async def run_day(
    world: World, folder: Path, watch: Stopwatch, tell: Callable[[Summary], None], keep_running: bool
) -> None:
    """Runs the day in ``folder`` to its end, writes summary and report there, and tells the summary."""
    from market.cli.progress import Bar
    from market.cli.run import market_day

    console = acted_on(folder) if keep_running else nullcontext()
    with Bar(world.settings.intervals, watch) as bar:
        async with console, market_day(world, folder, watch, bar.advance) as running:
            bar.close()
            tell(conclude(world, folder, running, watch))
            if keep_running:
                await stay(running, world.settings.name)


@asynccontextmanager
async def acted_on(folder: Path) -> AsyncIterator[None]:
    """The console of the day in ``folder``, with an operator's token for as long as it is served.

    The link holds the token behind its #, which browsers keep to themselves.
    """
    from market.cli.console import add_grant, beside, free_port
    from market.service.settings import DATABASE

    tokens, port = folder / TOKENS, free_port()
    token = add_grant(tokens, "demo=operator")
    options = ["--port", str(port), "--tokens", str(tokens)]
    try:
        async with beside(folder / DATABASE, log=folder, options=options):
            say(f"to act there, for as long as this runs: http://127.0.0.1:{port}/sign-in#{token}")
            yield
    finally:
        tokens.unlink(missing_ok=True)


def conclude(world: World, folder: Path, running: Running, watch: Stopwatch) -> Summary:
    """The summary of a day that is over; it and the report are written into ``folder``."""
    from market.cli.alone import alone
    from market.cli.day import read_day
    from market.cli.numbers import number_groups
    from market.cli.report.build import build_report
    from market.cli.report.figures import Story
    from market.cli.summarise import chain_summary, summarise
    from market.cli.summary import Elapsed
    from meters.fleet import comfort

    settings = world.settings
    with watch.stage("summary"):
        day = read_day(running.store)
        tariff = settings.market.tariff
        by_itself = alone(world.homes, settings.first_interval_start, settings.intervals, tariff)
        chain = chain_summary(day, running.chain)
    elapsed = Elapsed(
        total_s=round(watch.total_s(), 3),
        stages_s={name: round(seconds, 3) for name, seconds in watch.seconds.items()},
        broker=running.broker.kind,
        messages_in=running.tally.messages_in,
        receipts=running.tally.receipts,
    )
    felt = comfort(running.fleet, world.homes)
    summary = summarise(settings, day, world.home_of, by_itself, felt, chain, elapsed)
    story = Story(
        day=day,
        summary=summary,
        feeder=world.feeder,
        bus_of=world.bus_of,
        households=frozenset(home.name for home in world.homes),
    )
    replace_file(folder / REPORT, build_report(story, number_groups(summary)))
    replace_file(folder / SUMMARY, summary.model_dump_json(indent=2) + "\n")
    return summary


def replace_file(path: Path, text: str) -> None:
    """The whole new content, or the old one."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


async def stay(running: Running, name: str) -> None:
    """Keeps everything running until Ctrl-C, or until the broker ends."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_name, stop.set)
    broker = running.broker
    say(f"MQTT on {broker.host}:{broker.port}, topics peergrid/v1/{name}/#; Ctrl-C ends it")
    stopped = asyncio.create_task(stop.wait())
    lost = asyncio.create_task(broker.ended())
    try:
        await asyncio.wait([stopped, lost], return_when=asyncio.FIRST_COMPLETED)
        if lost.done():
            raise lost.result()
    finally:
        stopped.cancel()
        lost.cancel()
