"""What came late is found again by a process that begins after one that ended while it settled."""

from __future__ import annotations

import json
from pathlib import Path

from market.service.store import Store, input_journal
from market.service.store.input_journal import Entry, decision


def reading(at: int, taken_at: int) -> Entry:
    return Entry(at, "reading", "0x1", json.dumps({"taken_at": taken_at}).encode())


def test_late_readings_are_looked_at_again_until_a_later_settlement_was_made(tmp_path: Path) -> None:
    with Store(tmp_path / "market.sqlite", {}) as store:

        def from_after(*entries: Entry) -> int | None:
            with store.transaction() as tx:
                input_journal.add(tx, *entries)
            with store.reading() as connection:
                return input_journal.unsettled_readings_from(connection)

        assert from_after() is None
        assert from_after(reading(900, 900), decision(960, "post", 0)) == 900
        # It came while the settlement at 960 went on, or after it; the one at 1860 may have ended early.
        late = reading(970, 300)
        assert from_after(late, reading(1800, 1800), decision(1860, "post", 900)) == 300
        assert from_after(reading(2700, 2700), decision(2760, "post", 1800)) == 300
        assert from_after(reading(3600, 3600), decision(3660, "post", 2700)) == 2700
