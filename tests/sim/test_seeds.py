"""Promise: whatever network, disk and power do, the day ends as one without faults, to the last row.

A seed that fails is run again alone with ``PEERGRID_TEST_SEED=<number>``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sim.simulation import rows, simulate

INTERVALS = 3
SEEDS = 200
SEEDS_LONG = 10_000
MEMORY = Path("/dev/shm")


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where that can be: these disks fail by the seed, not by themselves."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as made:
        yield Path(made)


def check(folder: Path, seeds: Iterator[int]) -> None:
    calm = folder / "calm"
    calm.mkdir()
    simulate(calm, 0, INTERVALS)
    expected = rows(calm)
    begun_again = 0
    for seed in seeds:
        one = folder / str(seed)
        one.mkdir()
        again, meters, _ = simulate(one, seed, INTERVALS)
        begun_again += again
        got = rows(one)
        for table in expected:
            assert got[table] == expected[table], f"seed {seed}: {table}"
        stored = {(row[1], "order", row[2]) for row in got["orders"]}
        stored |= {(row[0], "reading", row[2]) for row in got["reading"]}
        assert meters.receipted <= stored, f"seed {seed}: receipted and lost"
        shutil.rmtree(one)
    assert begun_again, "no fault has happened"


def test_seeds(folder: Path) -> None:
    alone = os.environ.get("PEERGRID_TEST_SEED")
    check(folder, iter([int(alone)] if alone else range(1, SEEDS + 1)))


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_many_seeds(folder: Path) -> None:
    check(folder, iter(range(SEEDS + 1, SEEDS_LONG + 1)))
