"""Where simulated markets have their databases."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sim.simulation import one_engine

MEMORY = Path("/dev/shm")  # these disks fail by the seed, not by themselves


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as made, one_engine():
        yield Path(made)
