"""A finished run whose report browsers open."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import run_process


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a few intervals on a small feeder."""
    folder = tmp_path_factory.mktemp("report") / "run"
    arguments = ("--feeder", "simbench:1-LV-rural1--2-sw", "--intervals", 6, "--pv-scale", 4)
    outcome = run_process("demo", *arguments, "--out", folder, "--json")
    assert outcome.status == 0, outcome.err
    return folder / "report.html"
