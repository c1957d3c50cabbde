"""What is committed is on the disk when it is answered."""

from __future__ import annotations

from pathlib import Path

from market.service.store import Store
from tests.faults.promise import promise

FULL = 2


def test_every_commit_reaches_the_disk(tmp_path: Path) -> None:
    """No kill of a process shows it: only a power cut does."""
    promise("what is receipted survives a power cut: each commit waits for the disk")
    with Store(tmp_path / "market.sqlite", {}) as store:
        for begin in (store.transaction, store.reading):
            with begin() as connection:
                assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == FULL
                assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
                assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
