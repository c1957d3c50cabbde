"""``peergrid operate`` and ``peergrid dispute``: what is asked of a market, and its answer.

They write an instruction into the market's database; the market carries it out within seconds, or when it
runs again, and answers it.
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from grid.errors import InputError, PeergridError, Problem
from market.cli.messages import say

if TYPE_CHECKING:
    from market.service.store import Store
    from market.service.store.instructions import InstructionKind

_POLL_S = 0.2
_place = click.argument("place")
_reason = click.option("--reason", required=True, help="Kept for good, and told.")
_wait = click.option("--wait-s", type=float, default=10.0, show_default=True, help="For the market's answer.")
_from = click.option("--from", "first", metavar="TIME", help="The first interval, as 2026-11-22T12:00:00Z.")
_feeder = click.option("--feeder", help="Which market, where the configuration has several.")


@click.group("operate")
def command() -> None:
    """Suspend a market and resume it, change its prices or its network, take in what a restore lost."""


@command.command("suspend")
@_place
@_reason
@_from
@_feeder
@_wait
def suspend(place: str, reason: str, first: str | None, feeder: str | None, wait_s: float) -> None:
    """Stop trading from the first interval that is not cleared: energy flows at the retail tariffs."""
    ask(place, feeder, "suspend", {"first_start": start_of(first)}, reason, wait_s, first_at(first))


@command.command("resume")
@_place
@_reason
@_from
@_feeder
@_wait
def resume(place: str, reason: str, first: str | None, feeder: str | None, wait_s: float) -> None:
    """Trade again from the next interval whose gate has not opened."""
    ask(place, feeder, "resume", {"first_start": start_of(first)}, reason, wait_s, first_at(first))


@command.command("tariff")
@_place
@click.argument("prices", type=click.Path(dir_okay=False, path_type=Path))
@_reason
@_from
@_feeder
@_wait
def tariff(
    place: str, prices: Path, reason: str, first: str | None, feeder: str | None, wait_s: float
) -> None:
    """Change the prices from an interval on, to those of PRICES: TOML as in [markets.tariff].

    A price may have parts that add up to it: import_parts, export_parts and local_parts (of local_fee), each
    with energy, network, levies and vat. With `timezone` and [[bands]], each with a name, days, hours and a
    [bands.tariff], prices follow the time of use until they are changed again.

    Or PRICES is a CSV file with a line for each change: the column `from` has a time, the others are named as
    the keys of [markets.tariff] (µEUR/kWh), parts as `import_parts.vat`: a market of the day before.
    """
    if prices.suffix == ".csv":
        if first is not None:
            raise InputError.single("--from", "", first, "is what the lines of a CSV file say themselves")
        changes, written = price_lines(prices)
    else:
        changes, written = [price_file(prices, first)], first_at(first)
    ask(place, feeder, "tariff", {"changes": changes}, reason, wait_s, written)


def price_file(prices: Path, first: str | None) -> dict[str, Any]:
    from market.accounts.timeofuse import TimeOfUse
    from market.messages.models import Tariff
    from meters.configuration import parsed, read_toml

    document = read_toml(prices)
    if "bands" in document:
        schedule = parsed(str(prices), TimeOfUse, document)
        return {"first_start": start_of(first), "time_of_use": schedule.model_dump(mode="json")}
    chosen = parsed(str(prices), Tariff, document)
    return {"first_start": start_of(first), "tariff": chosen.model_dump(mode="json")}


def price_lines(prices: Path) -> tuple[list[dict[str, Any]], Times]:
    """The changes in a CSV file, each with a time. Raises :class:`InputError` naming the line."""
    from market.cli.lines import read_lines
    from market.messages.models import Tariff
    from meters.configuration import parsed

    header, lines = read_lines(prices)
    if "from" not in header:
        raise InputError.single(f"{prices}:1", "header", ",".join(header), "has no column from, by commas")
    changes = []
    written: dict[int, tuple[str, str, str]] = {}
    line_of: dict[int, int] = {}
    for line in lines:
        document: dict[str, Any] = {}
        for name, text in line.values.items():
            if name == "from":
                continue
            group, _, part = name.rpartition(".")
            try:
                (document.setdefault(group, {}) if group else document)[part] = int(text)
            except ValueError:
                raise InputError.single(line.where, name, text, "is no whole number of µEUR/kWh") from None
        chosen = parsed(line.where, Tariff, document)
        text = line.values["from"]
        start = moment_of(text, line.where, "from")
        if (other := line_of.setdefault(start, line.number)) != line.number:
            raise InputError.single(line.where, "from", text, f"has prices in line {other} already")
        written[start] = (line.where, "from", text)
        changes.append({"first_start": start, "tariff": chosen.model_dump(mode="json")})
    if not changes:
        raise InputError.single(str(prices), "", "…", "has no line with prices")
    return changes, written


@command.command("grid")
@_place
@click.option("--net", metavar="NAME", help="The feeder from then on, named as in the configuration.")
@click.option("--limits", type=click.Path(dir_okay=False, path_type=Path), help="TOML as [markets.limits].")
@_reason
@_from
@_feeder
@_wait
def grid(
    place: str,
    net: str | None,
    limits: Path | None,
    reason: str,
    first: str | None,
    feeder: str | None,
    wait_s: float,
) -> None:
    """Change the network or its limits from an interval on; earlier intervals keep theirs.

    --net is a feeder's name, or the path of a net or of its folder. Where PLACE is a configuration, paths
    start at its folder, as those in the configuration do; else at the working directory.

    Every member's connection point must be on the new network. Import it into a folder of its own (`peergrid
    feeder import`): a net that is changed in place later is refused, and its intervals are suspended.
    """
    from grid.catalogue import open_feeder
    from market.auction.book import Limits
    from market.cli.physics import check_band
    from market.cli.status import database_at
    from market.service.store import Store
    from meters.configuration import parsed, read_toml

    if net is None and limits is None:
        raise InputError.single("--net", "", "nothing", "was given, nor --limits: say what changes")
    if net is None:
        with Store(database_at(place, feeder), {}) as store:
            name = standing_net(store, start_of(first))
    else:
        name = net
    base = Path(place).resolve().parent if place.endswith(".toml") else None
    try:
        opened = open_feeder(name, base)
    except InputError as error:
        raise InputError(
            Problem("--net", "", problem.value, problem.reason) if problem.source == "feeder" else problem
            for problem in error.problems
        ) from None
    chosen = parsed(str(limits), Limits, read_toml(limits)) if limits else None
    if chosen is not None:
        check_band(opened, chosen, str(limits))
    body = {
        "first_start": start_of(first),
        "feeder": net,
        "feeder_sha256": opened.sha256,
        "limits": chosen.model_dump(mode="json") if chosen else None,
    }
    ask(place, feeder, "grid", body, reason, wait_s, first_at(first))


def standing_net(store: Store, first: int | None) -> str:
    """The network that would count for an interval, by default for those to come."""
    from market.service.store import input_journal, terms

    with store.reading() as connection:
        change = terms.grid_of(connection, first if first is not None else 2**62)
        if change is not None:
            return change.feeder_name
        entry = input_journal.newest(connection, "market")
    assert entry is not None
    name: str = entry.document()["settings"]["feeder_name"]
    return name


@command.command("recover")
@_place
@click.option("--paid-until", metavar="TIME", help="The end of the last interval that the lost batches paid.")
@_reason
@_feeder
@_wait
def recover(place: str, paid_until: str | None, reason: str, feeder: str | None, wait_s: float) -> None:
    """Go on after a restore: take in the batches that the chain has and the database lacks.

    What they paid stands, in sum; their records are lost, and nothing until --paid-until is settled again.
    Without it their number and the last one's time have to agree. What nobody paid is settled at the retail
    tariffs, on what the registers say over the gap. Readings that the lost database had receipted do not come
    again.
    """
    ask(place, feeder, "recover", {"paid_until": start_of(paid_until, "--paid-until")}, reason, wait_s)


@click.group("dispute")
def dispute() -> None:
    """Contest what an interval came to for a household; decide on it."""


@dispute.command("open")
@_place
@click.option("--meter", required=True, help="Its address.")
@click.option("--interval", required=True, metavar="TIME", help="Its start, as 2026-11-22T12:00:00Z.")
@_reason
@_feeder
@_wait
def open_dispute(
    place: str, meter: str, interval: str, reason: str, feeder: str | None, wait_s: float
) -> None:
    """Hold back what the interval came to for the meter's household until it is decided on."""
    body = {"interval_start": moment_of(interval, "--interval"), "meter": meter.lower()}
    ask(place, feeder, "dispute", body, reason, wait_s)


@dispute.command("resolve")
@_place
@click.argument("number", type=int)
@click.option("--dismiss", is_flag=True, help="What was settled stands.")
@click.option("--import-wh", type=click.IntRange(min=0), help="What the meter should have said.")
@click.option("--export-wh", type=click.IntRange(min=0), help="What the meter should have said.")
@_reason
@_feeder
@_wait
def resolve(
    place: str,
    number: int,
    dismiss: bool,
    import_wh: int | None,
    export_wh: int | None,
    reason: str,
    feeder: str | None,
    wait_s: float,
) -> None:
    """Decide dispute NUMBER: dismiss it, or settle the interval anew on the energy that is right."""
    energy = (import_wh, export_wh)
    if dismiss == (None not in energy) or (dismiss and energy != (None, None)):
        reason = "stands alone; without it both --import-wh and --export-wh are needed"
        raise InputError.single("--dismiss", "", None, reason)
    body: dict[str, Any] = {"dispute": number, "decision": "dismissed" if dismiss else "upheld"}
    if not dismiss:
        body |= {"import_wh": import_wh, "export_wh": export_wh}
    ask(place, feeder, "resolve", body, reason, wait_s)


def moment_of(text: str, source: str, field: str = "") -> int:
    """Unix seconds of a time with its zone in ISO 8601, as it stands in an option or file."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.min
    if moment.tzinfo is None:
        raise InputError.single(source, field, text, "is no time with a zone, such as 2026-11-22T12:00:00Z")
    return int(moment.timestamp())


def start_of(text: str | None, source: str = "--from") -> int | None:
    """The same of an option that need not be given."""
    return None if text is None else moment_of(text, source)


Times = Mapping[int, tuple[str, str, str]]
"""Where somebody wrote a time (Unix seconds), in which field, and how."""


def first_at(text: str | None) -> Times:
    """Where the time of ``--from`` stands."""
    return {} if text is None else {moment_of(text, "--from"): ("--from", "", text)}


def ask(
    place: str,
    feeder: str | None,
    kind: InstructionKind,
    body: Mapping[str, Any],
    reason: str,
    wait_s: float,
    written: Times = MappingProxyType({}),
) -> None:
    """Gives an instruction and tells the market's answer, and what came of it. Raises :class:`PeergridError`
    where it refuses; where one of the ``written`` times is why, it is that which is bad input.
    """
    from market.cli.effects import brief, effects
    from market.cli.status import database_at
    from market.service.store import Store, instructions, leases

    if not reason.strip():
        raise InputError.single("--reason", "", reason, "is empty: it is kept for good, and told")
    store = Store(database_at(place, feeder), {})
    with store.transaction() as tx:
        before = effects(tx)
        number = instructions.give(tx, getpass.getuser(), kind, body, reason)
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        with store.reading() as connection:
            answer = instructions.one(connection, number)
            after = effects(connection)
        if answer is not None and answer.refusal is not None:
            if answer.refusal:
                raise _refused(answer.refusal, written)
            say("\n".join(["done", *(f"  {line}" for line in brief(after - before))]))
            return
        time.sleep(_POLL_S)
    with store.reading() as connection:
        runs = leases.is_held(leases.current(connection))
    why = "has not looked at it yet" if runs else "does not run"
    say(f"instruction {number} waits: the market {why}; it is carried out when it can be")


def _refused(refusal: str, written: Times) -> PeergridError:
    from market.service.clock import utc

    for start, (source, field, text) in written.items():
        if refusal.startswith(f"{utc(start)} is "):
            return InputError.single(source, field, text, refusal.removeprefix(f"{utc(start)} "))
    return PeergridError(f"refused: {refusal}")
