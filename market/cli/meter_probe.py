"""``peergrid meter probe``: what a Modbus device says, and what is wrong, in front of the meter cabinet."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from grid.errors import InputError
from market.cli.messages import say

if TYPE_CHECKING:
    from meters.modbus.line import Line
    from meters.modbus.probing import Look
    from meters.modbus.profile import RegisterProfile, SunSpecProfile

_SCAN_TIMEOUT_S = 0.5
_UNITS_TCP = "1-10,126,200,240"
_UNITS_SERIAL = "1-32"
_LIKELY_UNITS = (1, 2, 3, 126, 200, 240)


@click.command("probe")
@click.argument("url")
@click.option("--profile", metavar="NAME", help="The meter type, or a YAML file of your own.")
@click.option("--scan", is_flag=True, help="Find the units, and the profiles that fit them.")
@click.option("--unit", type=click.IntRange(0, 255), help="Unit id; default: the profile's.")
@click.option("--units", metavar="RANGES", help="With --scan: the unit ids to ask, such as 1-10,126.")
@click.option("--fuse-a", type=click.FloatRange(0, min_open=True), default=63.0, show_default=True,
              help="Main fuse, A for each of three phases: more is called implausible.")  # fmt: skip
@click.option("--baud", type=int, help="Of a serial line; default: the profile's.")
@click.option("--parity", type=click.Choice(["N", "E", "O"]), help="Of a serial line.")
@click.option("--seconds", type=click.FloatRange(0, 60), default=3.0, show_default=True,
              help="Between two looks, so that it shows which counter grows.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def probe(
    url: str,
    profile: str | None,
    scan: bool,
    unit: int | None,
    units: str | None,
    fuse_a: float,
    baud: int | None,
    parity: Any,
    seconds: float,
    as_json: bool,
) -> int:
    """Show what the device at URL says (tcp://host:502 or rtu:///dev/ttyUSB0), and what looks wrong.

    Nothing is written to it. Exit status 1 where it does not answer or something looks wrong.
    """
    from meters.modbus.line import Line, parse_place
    from meters.modbus.profile import Serial, find_profile

    if scan == (profile is not None):
        raise InputError.single("meter probe", "--profile", profile, "either that, or --scan")
    place = parse_place(url)
    fuse_w = round(3 * 230 * fuse_a)
    kind = find_profile(profile) if profile is not None else None
    serial = kind.serial if kind is not None else Serial()
    told = {"baud": baud, "parity": parity}
    serial = serial.model_copy(update={name: value for name, value in told.items() if value})

    async def run() -> int:
        line = Line(place, serial, _SCAN_TIMEOUT_S if scan else 2.0)
        try:
            if kind is None:
                asked = _ranges(units or (_UNITS_SERIAL if place.device else _UNITS_TCP))
                return await _scan(line, asked, fuse_w, as_json)
            return await _look(line, kind, kind.unit if unit is None else unit, fuse_w, seconds, as_json)
        finally:
            line.close()

    return asyncio.run(run())


async def _scan(line: Line, units: list[int], fuse_w: int, as_json: bool) -> int:
    from meters.modbus.probing import answering, fitting
    from meters.modbus.profile import shipped

    found = {unit: await fitting(line, unit, shipped(), fuse_w) for unit in await answering(line, units)}
    if as_json:
        click.echo(json.dumps({str(unit): [asdict(fit) for fit in fits] for unit, fits in found.items()}))
    else:
        for unit, fits in found.items():
            if fits:
                named = [fit.profile + ("" if fit.how == "sure" else " (possible)") for fit in fits]
                click.echo(f"unit {unit}: {', '.join(named)}")
    if not found:
        say(f"{line.place}: none of the units {_shown(units)} answers")
    elif not any(found.values()):  # else: many devices answer under every number
        say(f"no profile makes sense of what unit {_shown(list(found))} says")
    return 0 if any(found.values()) else 1


async def _look(
    line: Line,
    profile: RegisterProfile | SunSpecProfile,
    unit: int,
    fuse_w: int,
    seconds: float,
    as_json: bool,
) -> int:
    from meters.modbus.line import Line
    from meters.modbus.probing import answering, answers, look
    from meters.source import SourceError

    try:
        seen = await look(line, profile, unit, fuse_w, seconds)
    except SourceError as error:
        say(str(error))
        line.close()
        impatient = Line(line.place, line.serial, _SCAN_TIMEOUT_S)
        try:
            if await answers(impatient, unit):
                say(f"unit {unit} is there: does the profile fit? --scan tells which ones do")
            elif others := await answering(impatient, [one for one in _LIKELY_UNITS if one != unit]):
                say(f"wrong unit id? there are answers from unit {_shown(others)}")
        finally:
            impatient.close()
        return 1
    if as_json:
        click.echo(json.dumps(asdict(seen), indent=2))
    else:
        _show(seen)
    return 1 if seen.problems else 0


def _show(seen: Look) -> None:
    click.echo(f"unit {seen.unit}" + (f", {seen.identity}" if seen.identity else ""))
    for row in seen.rows:
        name = row.quantity.rpartition("_")[0]
        digits = 0 if row.unit == "Wh" else 2
        value = "not there" if row.value is None else f"{row.value:,.{digits}f} {row.unit}"
        mark = "-" if row.value is None else "ok" if row.plausible else "WRONG"
        into = " (into the grid)" if name == "power" and row.value and row.value > 0 else ""
        click.echo(f"  {name:10} {value:>22}  {mark}{into}")
    for problem in seen.problems:
        say(problem)


def _ranges(text: str) -> list[int]:
    """Unit ids from ``1-10,126``."""
    units: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", part.strip())
        if match is None or not int(match[1]) <= int(match[2] or match[1]) <= 255:
            raise InputError.single("meter probe", "--units", text, "is no list such as 1-10,126")
        units += range(int(match[1]), int(match[2] or match[1]) + 1)
    return units


def _shown(units: list[int]) -> str:
    """The other way round."""
    runs: list[list[int]] = []
    for unit in units:
        if runs and unit == runs[-1][-1] + 1:
            runs[-1].append(unit)
        else:
            runs.append([unit])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
