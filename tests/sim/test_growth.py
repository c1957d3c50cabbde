"""A market that has run for months asks of its database what one of yesterday asks."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from tests.faults.promise import promise
from tests.sim.live_simulation import simulate_live

GROWING = [
    "interval",
    "transition",
    "orders",
    "reading",
    "clearing",
    "award",
    "metered",
    "posting",
    "batch",
    "position",
    "journal",
    "chain_books",
    "chain_transaction",
    "notice",
    "delivery",
    "dispute",
]


def test_no_question_reads_all_of_a_table_that_grows(folder: Path) -> None:
    promise("nothing that a running market asks of its database takes longer the longer it has run")
    asked: dict[str, Any] = {}

    def listen(_connection: Any, _cursor: Any, text: str, values: Any, _context: Any, many: bool) -> None:
        asked.setdefault(text, values[0] if many else values)

    event.listen(Engine, "before_cursor_execute", listen)
    try:
        simulate_live(folder, 4, 2, 3)
    finally:
        event.remove(Engine, "before_cursor_execute", listen)
    with closing(sqlite3.connect(folder / "market.sqlite")) as connection:
        ways = {
            text: [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", values)]
            for text, values in asked.items()
            if text.startswith(("SELECT", "INSERT", "UPDATE", "DELETE"))
        }
    assert len(ways) > 50, "the market did something"
    scans = {text: way for text, way in ways.items() for table in GROWING if f"SCAN {table}" in way}
    assert scans == {}
