"""The folder of a run: everything that it writes, and whose it is.

``settings.json`` is written first. A run that was interrupted goes on when it is started with the same
settings and the same folder; any other run is refused before it changes anything.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from grid.errors import InputError, Problem
from market.cli.settings import Settings

SETTINGS = "settings.json"
DEFAULT_PARENT = Path("out")
# Who waits how long changes no result.
NOT_COMPARED = ("market.patience_s",)


def fresh_folder(settings: Settings) -> Path:
    """A folder that does not exist yet, named by the run."""
    name = f"{settings.name}-{settings.date.isoformat()}-seed{settings.seed}"
    number = 1
    while (path := DEFAULT_PARENT / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return path


def check_folder(path: Path, settings: Settings) -> None:
    """Raises :class:`InputError` where ``path`` holds something else than this run; changes nothing."""
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError.single("--out", "", str(path), "is no folder")
    stored = path / SETTINGS
    if not stored.exists():
        if any(path.iterdir()):
            raise InputError.single("--out", "", str(path), "is not empty and holds no run of Peergrid")
        return
    try:
        there = _flat(json.loads(stored.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError.single(str(stored), "", str(error), "so the run cannot be told") from None
    here = _flat(settings.model_dump(mode="json"))
    problems = [
        Problem(str(stored), field, there.get(field), f"is another run's: here it is {here.get(field)!r}")
        for field in sorted(there.keys() | here.keys())
        if field not in NOT_COMPARED and there.get(field) != here.get(field)
    ]
    if problems:
        raise InputError(problems)


def open_folder(path: Path, settings: Settings) -> None:
    """Makes the folder this run's own. Raises :class:`InputError` where that cannot be."""
    stored = path / SETTINGS
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not stored.exists():
            unfinished = path / f"{SETTINGS}.new"
            with unfinished.open("w", encoding="utf-8") as file:
                file.write(settings.model_dump_json(indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(stored)
    except OSError as error:
        raise InputError.single("--out", "", str(path), f"cannot be written: {error.strerror}") from None


def _flat(document: Any, prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted path."""
    if not isinstance(document, dict):
        return {prefix: document}
    found: dict[str, Any] = {}
    for key, value in document.items():
        found |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found
