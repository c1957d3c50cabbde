"""A database of an earlier Peergrid opens after its upgrade, with everything that was in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from grid.errors import StoreError
from market.service.store import Store, schema
from market.service.store.database import open_engine
from market.service.store.migrations import upgrade_to


def old_database(path: Path, version: str) -> None:
    engine, _ = open_engine(path)
    with engine.begin() as tx:
        upgrade_to(tx, "base", version)
        tx.execute(schema.run.insert(), [{"key": "schema_version", "value": version}])
        tx.execute(schema.run.insert(), [{"key": "feeder", "value": "lane"}])
    engine.dispose()


def test_an_upgraded_database_has_the_schema_of_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    old_database(path, "3")
    with pytest.raises(StoreError, match=r"schema_version is 3, .* with --upgrade"):
        Store(path, {"feeder": "lane"})
    with Store(path, {"feeder": "lane"}, upgrade=True) as upgraded, upgraded.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
        triggers = {
            row[0] for row in connection.execute(text("SELECT name FROM sqlite_master WHERE type='trigger'"))
        }
    with Store(tmp_path / "new.sqlite", {}) as new, new.reading() as connection:
        assert triggers == {
            row[0] for row in connection.execute(text("SELECT name FROM sqlite_master WHERE type='trigger'"))
        }
        assert inspect(connection).has_table("journal")
    with Store(path, {"feeder": "lane"}):
        pass


def test_what_is_too_old_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ancient.sqlite"
    old_database(path, "3")
    engine, _ = open_engine(path)
    with engine.begin() as tx:
        tx.execute(schema.run.update().where(schema.run.c.key == "schema_version").values(value="2"))
    engine.dispose()
    with pytest.raises(StoreError, match="schema_version 2 cannot be upgraded"):
        Store(path, {"feeder": "lane"}, upgrade=True)
