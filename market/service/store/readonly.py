"""A market's database for those who only look: a connection that cannot write, however the file is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from sqlalchemy import Connection, create_engine, select
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import QueuePool

from grid.errors import StoreError
from market.service.store import schema

_CONNECTIONS = 4


class StoredMarket:
    """One market's database, opened read-only; use it as a context manager.

    A market that runs meanwhile is neither held up nor waited for. Raises :class:`StoreError` where there is
    no such database or it is of another version.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise StoreError(f"{path}: there is no such database")
        self.path = path
        uri = f"file:{quote(str(path.resolve()))}?mode=ro&uri=true"
        self._engine = create_engine(
            f"sqlite:///{uri}",
            connect_args={"timeout": 5, "check_same_thread": False},
            poolclass=QueuePool,
            pool_size=_CONNECTIONS,
        )
        try:
            with self.reading() as connection:
                self.identity: Mapping[str, str] = {
                    row.key: row.value
                    for row in connection.execute(select(schema.run))
                    if row.key != "leaf_secret"
                }
        except DatabaseError as error:
            self.close()
            raise StoreError(f"{path}: {error.orig}") from None
        version = self.identity.get("schema_version")
        if version != str(schema.SCHEMA_VERSION):
            self.close()
            raise StoreError(
                f"{path}: schema_version is {version}, this Peergrid reads {schema.SCHEMA_VERSION}"
            )

    @property
    def name(self) -> str:
        """The market's id on the wire."""
        return self.identity["feeder"]

    @property
    def feeder_name(self) -> str:
        """The name of its net."""
        return self.identity["feeder_name"]

    def __enter__(self) -> StoredMarket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent view of the database as it is now."""
        with self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            try:
                yield connection
            finally:
                connection.exec_driver_sql("ROLLBACK")

    def data_version(self) -> int:
        """A number that changes with every write of somebody else's, seen from one connection."""
        with self._engine.connect() as connection:
            version: int = connection.exec_driver_sql("PRAGMA data_version").scalar_one()
            return version

    def written_at(self) -> float:
        """When the database last changed, by the machine's clock, Unix seconds."""
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        return max(file.stat().st_mtime for file in files if file.exists())
