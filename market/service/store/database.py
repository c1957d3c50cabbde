"""Opening a market's database, and its transactions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, create_engine, event, insert, select
from sqlalchemy.exc import DatabaseError

from grid.errors import StoreError
from market.service.store import schema

_BUSY_TIMEOUT_S = 30


class Store:
    """One market's SQLite database; use it as a context manager.

    Opening creates the tables, or checks that the database was made by the same schema and with the same
    ``identity``: :class:`StoreError` names what differs. A database cannot serve two markets.
    """

    def __init__(self, path: Path, identity: Mapping[str, str]) -> None:
        self.path = path
        self._engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_TIMEOUT_S})
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        try:
            self._open({"schema_version": str(schema.SCHEMA_VERSION), **identity})
        except DatabaseError as error:
            self._engine.dispose()
            raise StoreError(f"{path}: {error.orig}") from None
        except StoreError:
            self._engine.dispose()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A write transaction: all of it is on the disk when the block ends, or none of it."""
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent view that neither waits for a writer nor holds one up."""
        with self._engine.connect().execution_options(read_only=True) as connection:
            yield connection

    def _open(self, identity: Mapping[str, str]) -> None:
        with self.transaction() as tx:
            schema.metadata.create_all(tx)
            stored = {row.key: row.value for row in tx.execute(select(schema.run))}
            if not stored:
                tx.execute(insert(schema.run), [{"key": k, "value": v} for k, v in identity.items()])
                return
        different = [
            f"{key} is {stored.get(key)!r} there and {value!r} here"
            for key, value in identity.items()
            if stored.get(key) != value
        ]
        if different:
            raise StoreError(f"{self.path} belongs to another run: {'; '.join(different)}")


def _configure(connection: Any, _record: Any) -> None:
    """The driver is to begin no transactions of its own."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
