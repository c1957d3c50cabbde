"""The same market on PostgreSQL: a day there is a day on SQLite, row by row."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import DBAPIError

from market.service.replay import Replay, difference
from market.service.statements import statements
from market.service.store import Store, booked, leases, schema
from market.service.store.leases import FencedError
from tests.postgres import postgres_database, postgres_server  # noqa: F401  fixtures
from tests.service.scene import a_day, physics, settings

pytestmark = pytest.mark.needs("postgres")
INTERVALS = 3


async def test_a_day_is_the_same_as_on_sqlite_and_follows_from_its_journal(
    tmp_path: Path, postgres: str
) -> None:
    for place in (None, postgres):
        folder = tmp_path / ("postgres" if place else "sqlite")
        folder.mkdir()
        await a_day(folder, settings(INTERVALS), database=place)
    with Store(tmp_path / "sqlite" / "market.sqlite", {}) as lite, Store(postgres, {}) as large:
        with lite.reading() as here, large.reading() as there:
            assert difference(here, there) is None
            period = (0, 2**62)
            told, same = (statements(c, *period, booked.flows(c, *period)) for c in (here, there))
            assert told == same
            assert any(one.total_neur for one in told.values())
        with Store(tmp_path / "scratch.sqlite", {}) as scratch:
            assert Replay(large, scratch, lambda _: physics()).run() is None


def test_the_schema_is_as_it_is_declared_and_the_journal_append_only(postgres: str) -> None:
    with Store(postgres, {"feeder": "lane"}) as store:
        with store.reading() as connection:
            assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
        row = {"at": 1, "kind": "close", "subject": "", "body": b""}
        with store.transaction() as tx:
            tx.execute(schema.journal.insert(), row)
        for statement in ("UPDATE journal SET at = 2", "DELETE FROM journal", "TRUNCATE journal"):
            with pytest.raises(DBAPIError, match="append-only"), store.transaction() as tx:
                tx.exec_driver_sql(statement)


def test_who_lost_its_lease_writes_nothing_more(postgres: str) -> None:
    with Store(postgres, {}) as first, Store(postgres, {}) as second:
        with first.transaction() as tx:
            fence = leases.take(tx, "first", None)
        assert fence is not None
        first.hold(fence)
        with second.transaction() as tx:
            taken = leases.take(tx, "second", leases.current(tx))
        assert taken == fence + 1
        with pytest.raises(FencedError, match="taken over by second"), first.transaction():
            pass
