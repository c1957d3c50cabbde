"""Feeder data that ships with Peergrid: one folder each, with its source, licence and scenario.

A folder holds ``scenario.toml`` (whose ``feeder`` names the net, and whose tables configure a market on it)
and a README.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
SCENARIO = "scenario.toml"


def scenario_names() -> list[str]:
    """The names of the folders that ship, sorted."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{SCENARIO}"))


def scenario_path(name: str) -> Path | None:
    """The scenario file of the folder ``name``, or None where no such folder ships."""
    return FOLDER / name / SCENARIO if name in scenario_names() else None
