"""Promise: a market that runs on and on needs no more memory than at its beginning, and loses no interval."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import pytest

from tests.faults.promise import promise
from tests.service.process import NAME, Service, configuration, is_event, query

SPEED = 60
LONG = os.environ.get("PEERGRID_TEST_LONG") == "1"
MARKET_S = 86_400 if LONG else 1_200
INTERVAL_S = 300
SAMPLES = 48 if LONG else 12
GROWTH_MIB_MAX = 1.0 if LONG else 0.75
"""Of each process from the first third to the last. SQLite's page caches grow in the first days, to 2 MB
a connection."""
DESCRIPTORS_MORE_MAX = 4
PARTS = {
    "mosquitto": "broker",
    "iotcore": "broker",
    "resource_tracker": "resource tracker",
    "spawn_main": "solver",
    "fleet": "meters",
    "market.cli.main": "market",
}
CHANGES = {
    "[console]\nport = 8440\n": "",
    "minutes = 15": "minutes = 5",
    "gate_closure_s = 300": "gate_closure_s = 120",
    "metering_s = 180": "metering_s = 120",
    "clock_skew_s = 60": "clock_skew_s = 300",
}


def processes(pid: int) -> Iterator[int]:
    """A process and those that it began, from whichever of its threads."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = (thread / "children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        for child in children:
            yield from processes(int(child))


def name_of(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_text()
    return next((name for mark, name in PARTS.items() if mark in command), str(pid))


def private_mib(pid: int) -> float:
    """The memory that is its own; what it maps of files belongs to the system."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024


@pytest.mark.timeout(3600)
def test_memory_stays_flat_and_no_interval_is_lost(tmp_path: Path) -> None:
    promise(
        "at 60 times the speed memory stays flat, in every process; every interval is cleared and settled"
    )
    service = Service(configuration(tmp_path / "market.toml", CHANGES), "soak", SPEED)
    sizes: dict[int, list[float]] = {}
    descriptors = []
    try:
        service.until(is_event("settled"))  # by then it has loaded and done everything once
        names = {pid: name_of(pid) for pid in processes(service.pid)}
        for number in range(1, SAMPLES + 1):
            time.sleep(MARKET_S / SPEED / SAMPLES)
            service.assert_lives()
            for pid in names:
                sizes.setdefault(pid, []).append(private_mib(pid))
            descriptors.append(len(list(Path(f"/proc/{service.pid}/fd").iterdir())))
            shown = ", ".join(f"{names[pid]} {of[-1]:.1f}" for pid, of in sizes.items())
            print(f"{number * MARKET_S // SAMPLES // 60:5d} min: {shown} MiB", flush=True)
        assert set(processes(service.pid)) == set(names), "no part was begun again"
        service.send(signal.SIGTERM)
        assert service.ended() == 0, service.words()
    finally:
        service.kill()
    database = tmp_path / "market" / NAME / "market.sqlite"
    states = dict(query(database, "SELECT interval_start, state FROM interval ORDER BY interval_start"))
    assert len(states) >= MARKET_S // INTERVAL_S
    assert all(later - earlier == INTERVAL_S for earlier, later in pairwise(states))
    came_to = query(database, "SELECT status, COUNT(*) FROM clearing GROUP BY status")
    third = SAMPLES // 3
    grown = {names[pid]: round(fmean(of[-third:]) - fmean(of[:third]), 2) for pid, of in sizes.items()}
    print(f"{len(states)} intervals, {came_to}, MiB more in the last third than in the first: {grown}")
    assert dict(came_to).keys() == {"CLEARED"}
    assert set(list(states.values())[:-4]) <= {"SETTLED", "FINAL"}
    assert max(grown.values()) < GROWTH_MIB_MAX
    assert descriptors[-1] - descriptors[0] <= DESCRIPTORS_MORE_MAX
