"""What belongs together is one write: a crash leaves all of it or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from tests.faults.promise import promise
from tests.service.scene import METERS
from tests.sim import simulation
from tests.sim.faults import FaultyStore

INTERVALS = 2
TABLES = ("transition", "clearing", "award", "outbox", "metered", "posting", "batch")
CLEARED = {"transition": 1, "clearing": 1, "award": len(METERS), "outbox": len(METERS) + 1}
KINDS = {"open", "close", "clear", "meter", "post", "final"}


def counts(tx: Connection) -> Counter[str]:
    return Counter({t: tx.exec_driver_sql(f"SELECT COUNT(*) FROM {t}").scalar_one() for t in TABLES})


def test_a_step_of_an_interval_is_one_write(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promise("a clearing, its awards, what is to be told of it and its journal entry are stored together")
    writes: list[tuple[list[str], Counter[str]]] = []

    class Watched(FaultyStore):
        @contextmanager
        def transaction(self) -> Iterator[Connection]:
            with super().transaction() as tx:
                before = counts(tx)
                known = tx.exec_driver_sql("SELECT COALESCE(MAX(id), 0) FROM journal").scalar_one()
                yield tx
                kinds = tx.exec_driver_sql("SELECT kind FROM journal WHERE id > ?", (known,)).scalars()
                writes.append((list(kinds), counts(tx) - before))

    monkeypatch.setattr(simulation, "FaultyStore", Watched)
    simulation.simulate(folder, 0, INTERVALS)
    assert {kind for kinds, _ in writes for kind in kinds} >= KINDS
    assert [dict(change) for kinds, change in writes if kinds == ["clear"]] == [CLEARED] * INTERVALS
    for kinds, change in writes:
        if change.keys() - {"outbox"}:
            assert len(kinds) == 1, f"{dict(change)} without a decision of its own: {kinds}"
        if kinds == ["post"]:
            assert change.keys() == {"transition", "posting", "batch"}
