"""Statements as CSV: whole nEUR, so that whoever adds them up gets the ledger; periods in UTC."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from market.accounts.statement import Parts, Statement
from market.service.clock import utc

_PARTS = ("energy_neur", "network_neur", "levies_neur", "vat_neur", "amount_neur")
LINES = ("account", "since", "until", "kind", "side", "energy_wh", *_PARTS)
TOTALS = ("account", "since", "until", "opening_neur", *_PARTS, "closing_neur")


def write_lines(path: Path, statement: Statement) -> None:
    """A line for each kind and side, and the total as the last one."""
    head = (statement.account, utc(statement.since), utc(statement.until))
    rows = [
        (*head, str(line.kind), line.side, line.energy_wh, *_amounts(line.parts)) for line in statement.lines
    ]
    total = (*head, "total", "", sum(line.energy_wh for line in statement.lines), *_amounts(statement.parts))
    _write(path, LINES, [*rows, total])


def write_totals(path: Path, statements: Iterable[Statement]) -> None:
    """A line for each account; every column of amounts but those of the parts sums to zero."""
    rows = [
        (s.account, utc(s.since), utc(s.until), s.opening_neur, *_amounts(s.parts), s.closing_neur)
        for s in statements
    ]
    _write(path, TOTALS, rows)


def _amounts(parts: Parts) -> tuple[int, ...]:
    energy, network = parts.energy_neur, parts.network_neur
    return energy, network, parts.levies_neur, parts.vat_neur, parts.total_neur


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
