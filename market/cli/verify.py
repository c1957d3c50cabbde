"""``peergrid verify``: one clearing record and its book in, what holds and what does not out."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grid.errors import InputError

if TYPE_CHECKING:
    from market.auction.record import ClearingRecord
    from market.verify.report import Check, Report

FAILED_STATUS = 1


@click.command("verify")
@click.argument("record", type=click.Path(path_type=Path), required=False)
@click.argument("book", type=click.Path(path_type=Path), required=False)
@click.option("--feeder", "feeder_name", metavar="NAME", help="The feeder; wins over the book's own.")
@click.option("--proof", type=click.Path(path_type=Path), help="Check what `chain proof` printed instead.")
@click.option("--rpc", metavar="URL", help="With --proof: the node to check it against.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="With --proof: a run's folder, for its own chain."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON document.")
@click.pass_context
def command(
    context: click.Context,
    record: Path | None,
    book: Path | None,
    feeder_name: str | None,
    proof: Path | None,
    rpc: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Check RECORD, a clearing record as `peergrid clear --json` prints it, against its BOOK.

    Everything is recomputed from pandapower's power flow and Jacobian; no solver runs, and none of the
    clearing's own code. Exit status 0 says that all holds, 1 that something does not.
    """
    # A process this short has nothing to collect, and would look for it for a sixth of its time.
    gc.disable()
    context.call_on_close(gc.enable)
    from grid.catalogue import open_feeder, open_net
    from market.auction.book import read_book
    from market.verify.verify import verify

    if proof is not None:
        from market.cli.verify_proof import verify_proof

        if not verify_proof(proof, rpc, out, as_json):
            context.exit(FAILED_STATUS)
        return
    if record is None or book is None:
        raise click.UsageError("RECORD and BOOK are needed, or --proof")
    clearing = read_record(record)
    orders = read_book(book)
    name = feeder_name or orders.feeder or clearing.feeder
    report = verify(clearing, orders, open_net(name), open_feeder(name).sha256)
    if as_json:
        click.echo(json.dumps(report.json_document(), ensure_ascii=False))
    else:
        show_report(report)
    if not report.ok:
        context.exit(FAILED_STATUS)


def read_record(path: Path) -> ClearingRecord:
    """The clearing record in a JSON file. Raises :class:`InputError` for what is none."""
    from pydantic import ValidationError

    from market.auction.book import validation_problems
    from market.auction.record import ClearingRecord

    def refuse(constant: str) -> object:
        raise ValueError(f"{constant} is not a JSON number")

    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text, parse_constant=refuse)
    except OSError as error:
        raise InputError.single(str(path), "", error.strerror, "so the record cannot be read") from None
    except ValueError as error:
        raise InputError.single(str(path), "", str(error), "so it is no JSON document") from None
    try:
        return ClearingRecord.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise InputError(validation_problems(str(path), error)) from None


def show_report(report: Report) -> None:
    """One sentence for each check, and what all of them together prove, on standard output."""
    from rich.console import Console
    from rich.padding import Padding

    from market.verify.report import DOES_NOT_PROVE, PROVES, SUBJECTS

    console = Console(highlight=False)
    console.print(f"[bold]{report.feeder}[/] · {report.interval_start} · {report.status}")
    for subject in SUBJECTS:
        if not report.of(subject):
            continue
        console.print(f"[dim]{subject}[/]")
        for check in report.of(subject):
            mark = "[green]✓[/]" if check.ok else "[red]✗ does not hold:[/]"
            console.print(Padding(f"{mark} {_account(check)}", (0, 0, 0, 2)))
    failed = sum(not check.ok for check in report.checks)
    if failed:
        console.print(f"[red]{failed} of {len(report.checks)} checks do not hold.[/]")
        return
    console.print(f"[green]All {len(report.checks)} checks hold.[/]")
    if report.status == "cleared":
        console.print(f"They prove that {PROVES}. They do not prove {DOES_NOT_PROVE}.")


def _account(check: Check) -> str:
    """The check's sentence, with measured value and tolerance unless there is no more to tell."""
    from rich.markup import escape

    if not check.measured and not check.tolerance:
        return escape(check.says)
    return f"{escape(check.says)} [dim]({check.measured:.2g} of {check.tolerance:.2g} {check.unit})[/]"
