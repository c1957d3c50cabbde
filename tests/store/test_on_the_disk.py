"""What is committed is on the disk when it is answered."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

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


def test_writers_follow_each_other_from_their_first_statement_on(tmp_path: Path) -> None:
    """What a transaction read first, and then decided on, is still so when it writes."""
    promise("two processes that write take turns: neither decides on what the other is changing")
    path = tmp_path / "market.sqlite"
    with (
        Store(path, {}) as first,
        Store(path, {}, busy_s=0.05) as second,
        first.transaction() as reading_first,
    ):
        reading_first.exec_driver_sql("SELECT COUNT(*) FROM journal")
        with pytest.raises(OperationalError, match="locked"), second.transaction():
            pass
        with second.reading() as connection:
            assert connection.exec_driver_sql("SELECT COUNT(*) FROM journal").scalar() == 0
