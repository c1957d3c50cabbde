"""Running the command, in this process or as its users do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from market.cli.main import run


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as the one JSON document that it must be."""
        return json.loads(self.out)


@pytest.fixture
def peergrid(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs the command in this process."""

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


def start_process(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """The command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from market.cli.main import main; main()", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run_process(*arguments: object) -> Outcome:
    with start_process(*arguments, env=dict(os.environ)) as process:
        try:
            out, err = process.communicate(timeout=280)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return Outcome(process.returncode, out, err)


BOOK = {
    "feeder": "simbench:1-LV-rural1--2-sw",
    "interval": {"start": "2016-06-15T12:00:00Z", "minutes": 15},
    "tariff": {"import_price": 300000, "export_price": 80000, "floor": -500000, "cap": 2000000},
    "firm": [{"connection_point": "bus:3", "p_w": -1200, "q_var": -300}],
    "orders": [
        {"id": "a1", "connection_point": "bus:7", "side": "ask", "energy_wh": 900, "limit_price": 90000},
        {"id": "b1", "connection_point": "load:5", "side": "bid", "energy_wh": 400, "limit_price": 250000},
    ],
}


def book_file(folder: Path, **changes: Any) -> Path:
    """A small book that clears, with ``changes`` on top."""
    path = folder / "book.json"
    path.write_text(json.dumps(BOOK | changes), encoding="utf-8")
    return path


def order(**changes: Any) -> dict[str, Any]:
    """The book's ask with ``changes``."""
    return BOOK["orders"][0] | changes  # type: ignore[index,return-value]
