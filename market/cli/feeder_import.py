"""``peergrid feeder import``: a net and its meters, checked and made a feeder in a folder of its own."""

from __future__ import annotations

import csv
import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grid.errors import FeederError, InputError, Problem
from market.cli.messages import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from grid.validation.connections import Connected, MeterRow
    from grid.validation.finding import Finding
    from grid.validation.report import Validation

NET, SCENARIO, MEMBERS, README = "net.json", "scenario.toml", "members.csv", "README.md"
_COLOURS = {"error": "red", "warning": "yellow", "note": "dim"}


@click.command("import")
@click.argument("net", type=click.Path(path_type=Path))
@click.option(
    "--meters", type=click.Path(path_type=Path), help="CSV: meter,bus[,owner,fuse_a|fuse_w,tan_phi_ppm]."
)
@click.option("--out", type=click.Path(path_type=Path), help="A new folder; without it NET is only checked.")
@click.option("--hertz", type=float, default=50.0, show_default=True, help="Of a net that does not tell.")
@click.option("--licence", default="not stated", help="Of the data, for the folder's README.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def import_feeder(
    net: Path, meters: Path | None, out: Path | None, hertz: float, licence: str, as_json: bool
) -> None:
    """Check the net in the file NET with its meters, and make a feeder of it.

    NET is a pandapower net (.json, .xlsx) or a MATPOWER case (.m, .mat). The report names errors (no market
    can run on it; nothing is written, exit status 2), warnings and notes. --out gets the net as JSON, every
    meter with a connection point of its own in members.csv as `peergrid run` reads it, a scenario and a
    README with source, checksums and the report. The folder's path is then the feeder's name; a changed net
    goes into a new folder.
    """
    from grid.formats import read_net
    from grid.validation.connections import read_meters
    from grid.validation.report import Validation

    if out is not None and out.exists():
        raise InputError.single("--out", "", str(out), "exists already: each revision of a net has its own")
    rows = read_meters(meters) if meters else []
    validation = Validation(read_net(net, hertz), net.name, rows)
    if as_json:
        click.echo(json.dumps(document(validation)))
    else:
        show(validation.findings)
    if validation.errors:
        raise FeederError(
            problem for error in validation.errors for problem in _told(error, net, meters, rows)
        )
    if out is not None:
        write_folder(out, validation, net, licence)
        count = len(validation.connected)
        say(f"{out}: a feeder with {count} meters; peergrid init {out} begins a market on it")


def _told(error: Finding, net: Path, meters: Path | None, rows: Sequence[MeterRow]) -> Iterator[Problem]:
    """What is wrong with the net, or with lines of the meters' list."""
    from grid.validation.connections import ON_METERS

    if error.check not in ON_METERS:
        yield Problem(str(net), error.check, ", ".join(error.elements[:5]), error.text)
        return
    line_of = {row.meter: row.line for row in rows}
    for element in error.elements:
        yield Problem(f"{meters}:{line_of[element.split(' (')[0]]}", error.check, element, error.text)


def document(validation: Validation) -> dict[str, Any]:
    return {
        "fit": not validation.errors,
        "sha256": validation.feeder.sha256 if validation.feeder else None,
        "findings": [finding.document() for finding in validation.findings],
        "meters": [vars(meter) for meter in validation.connected],
    }


def show(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        colour = _COLOURS[finding.severity]
        console.print(f"[{colour}]{finding.severity:<8}[/]{escape(str(finding))}")


def write_folder(out: Path, validation: Validation, source: Path, licence: str) -> None:
    """Everything that a market needs. Raises :class:`InputError` where the folder cannot be made."""
    import pandapower

    try:
        out.mkdir(parents=True)
        pandapower.to_json(validation.net, str(out / NET))
        _write_members(out / MEMBERS, validation.connected)
        (out / SCENARIO).write_text(_scenario(), encoding="utf-8")
        (out / README).write_text(_readme(out.name, validation, source, licence), encoding="utf-8")
    except OSError as error:
        raise InputError.single("--out", "", str(out), f"cannot be written: {error.strerror}") from None


def _write_members(path: Path, connected: Sequence[Connected]) -> None:
    from market.cli.service_config import MEMBER_COLUMNS

    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(MEMBER_COLUMNS)
        rows.writerows([getattr(meter, column) for column in MEMBER_COLUMNS] for meter in connected)


def _scenario() -> str:
    from market.cli.settings import DEFAULT_DATE

    return f'# For trials: peergrid demo --scenario scenario.toml\nfeeder = "{NET}"\ndate = {DEFAULT_DATE}\n'


def _readme(name: str, validation: Validation, source: Path, licence: str) -> str:
    assert validation.feeder is not None
    lines = "\n".join(f"- {finding.severity}: {finding}" for finding in validation.findings)
    return f"""# {name}

Made by `peergrid feeder import` (Peergrid {version("peergrid")}, pandapower {version("pandapower")}).

- Source: `{source.name}`, sha256 `{hashlib.sha256(source.read_bytes()).hexdigest()}`
- Licence of the data: {licence}
- The feeder's own sha256, which every clearing record names: `{validation.feeder.sha256}`

## Report

{lines}
"""
