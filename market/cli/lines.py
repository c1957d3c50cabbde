"""The lines of a CSV file that a person wrote, each with its number."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from grid.errors import InputError, Problem
from meters.configuration import read_text


@dataclass(frozen=True)
class Line:
    """``where`` is file and number, as ``members.csv:3``; ``values`` are by the header's names."""

    where: str
    number: int
    values: dict[str, str]


def read_lines(path: Path) -> tuple[tuple[str, ...], list[Line]]:
    """The header and the lines below it; empty ones are left out. Raises :class:`InputError` where a line has
    not the header's columns.
    """
    rows = csv.reader(io.StringIO(read_text(path).removeprefix("\ufeff"), newline=""))
    header = tuple(next(rows, ()))
    if twice := [name for name in header if header.count(name) > 1]:
        raise InputError.single(f"{path}:1", "header", twice[0], "names two columns")
    lines: list[Line] = []
    problems: list[Problem] = []
    number = rows.line_num + 1
    for row in rows:
        where = f"{path}:{number}"
        if len(row) == len(header):
            lines.append(Line(where, number, dict(zip(header, row, strict=True))))
        elif row:
            reason = f"has {len(row)} columns where the header has {len(header)}"
            problems.append(Problem(where, "", "…", reason))
        number = rows.line_num + 1
    if problems:
        raise InputError(problems)
    return header, lines
