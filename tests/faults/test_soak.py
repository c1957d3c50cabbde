"""Promise: a market that runs on and on needs no more memory than at its beginning, and loses no interval."""

from __future__ import annotations

import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.faults.promise import promise
from tests.service.process import NAME, Service, configuration, is_event, query

SPEED = 60
LONG = os.environ.get("PEERGRID_TEST_LONG") == "1"
MARKET_S = 86_400 if LONG else 1_200
SAMPLES = 48 if LONG else 10
GROWTH_MIB_MAX = 6.0
CHANGES = {
    "[console]\nport = 8440\n": "",
    "minutes = 15": "minutes = 5",
    "gate_closure_s = 300": "gate_closure_s = 120",
    "metering_s = 180": "metering_s = 120",
    "clock_skew_s = 60": "clock_skew_s = 300",
}


@pytest.mark.timeout(3600)
def test_memory_stays_flat_and_no_interval_is_lost(tmp_path: Path) -> None:
    promise("over a day at 60 times the speed memory stays flat and every interval is cleared and settled")
    service = Service(configuration(tmp_path / "market.toml", CHANGES), "soak", SPEED)
    try:
        service.until(is_event("settled"))  # by then it has loaded and done everything once
        sizes = []
        for _ in range(SAMPLES):
            time.sleep(MARKET_S / SPEED / SAMPLES)
            service.assert_lives()
            sizes.append(service.resident_mib())
            print(f"{len(sizes) * MARKET_S // SAMPLES // 60:5d} min: {sizes[-1]:.1f} MiB", flush=True)
        service.send(signal.SIGTERM)
        assert service.ended() == 0, service.words()
    finally:
        service.kill()
    database = tmp_path / "market" / NAME / "market.sqlite"
    found = query(database, "SELECT interval_start, state FROM interval ORDER BY interval_start")
    states = dict(found)
    assert all(later - earlier == 300 for earlier, later in pairwise(states))
    came_to = query(database, "SELECT status, COUNT(*) FROM clearing GROUP BY status")
    print(f"{len(states)} intervals, {came_to}, {max(sizes) - sizes[0]:.1f} MiB more at most")
    assert dict(came_to).keys() == {"CLEARED"}
    assert set(list(states.values())[:-4]) <= {"SETTLED", "FINAL"}
    assert max(sizes) - sizes[0] < GROWTH_MIB_MAX
