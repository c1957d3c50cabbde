"""What tests against oracles counted and measured, as tables of docs/oracles.md.

A test puts its figures on record with ``record_property("oracle: <which>", {column: value, …})``. At the end
of a run they are printed; ``PEERGRID_ORACLES=docs/oracles.md`` also puts them into that file, below its
marker, with date, commit and command.
"""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PREFIX = "oracle: "
MARKER = "<!-- What follows is written by the tests. -->"

Figures = dict[str, Any]


def figures_of(properties: Iterable[tuple[str, Any]]) -> dict[str, list[Figures]]:
    """The figures by oracle."""
    found: dict[str, list[Figures]] = {}
    for name, figures in properties:
        if name.startswith(PREFIX):
            found.setdefault(name.removeprefix(PREFIX), []).append(figures)
    return {name: sorted(rows, key=lambda row: str(row["net"])) for name, rows in sorted(found.items())}


def tables(found: dict[str, list[Figures]]) -> str:
    """One Markdown table for each oracle; whole numbers are added up below it."""
    parts = []
    for name, rows in found.items():
        columns = list(rows[0])
        lines = [f"## {name}", "", _line(columns), _line(["---"] * len(columns))]
        lines += [_line([row[column] for column in columns]) for row in rows]
        totals = [
            sum(row[column] for row in rows) if isinstance(rows[0][column], int) else "" for column in columns
        ]
        parts.append("\n".join([*lines, _line(["all", *totals[1:]])]))
    return "\n\n".join(parts)


def _line(cells: Iterable[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def write(path: Path, found: dict[str, list[Figures]]) -> None:
    """Replaces what stands below the marker."""
    text = path.read_text(encoding="utf-8")
    head, marker, _ = text.partition(MARKER)
    if not marker:
        raise ValueError(f"{path} has no line {MARKER!r}")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
    ).stdout.strip()
    day = dt.datetime.now(dt.UTC).date().isoformat()
    arguments = [arg for arg in sys.argv[1:] if not Path(arg).is_absolute()]
    command = f"PEERGRID_TEST_LONG=1 pytest {' '.join(arguments)}"
    origin = f"{day}, commit `{commit}`, `{command}`"
    path.write_text(f"{head}{MARKER}\n\n{origin}\n\n{tables(found)}\n", encoding="utf-8")
