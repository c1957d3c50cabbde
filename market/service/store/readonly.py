"""A market's database for those who only look: a connection that cannot write, however it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from sqlalchemy import Connection, func, inspect, select
from sqlalchemy.exc import DatabaseError

from grid.errors import OtherStoreError, StoreError
from market.service.store import schema
from market.service.store.database import READ_ONLY, looking_engine


class StoredMarket:
    """One market's database, opened read-only; use it as a context manager.

    ``place`` is a file, or a URL as SQLAlchemy has it. A market that runs meanwhile is neither held up nor
    waited for. Raises :class:`StoreError` where there is no such database or it is of another version.
    """

    def __init__(self, place: Path | str) -> None:
        self.place = Path(place) if "://" not in str(place) else str(place)
        if isinstance(self.place, Path) and not self.place.is_file():
            raise StoreError(f"{self.place}: there is no such database")
        self._engine, self.title = looking_engine(self.place)
        try:
            with self.reading() as connection:
                if not inspect(connection).has_table(schema.run.name):
                    raise OtherStoreError(f"{self.title}: is no market's database")
                self.identity: Mapping[str, str] = {
                    row.key: row.value
                    for row in connection.execute(select(schema.run))
                    if row.key != "leaf_secret"
                }
        except DatabaseError as error:
            self.close()
            if "not a database" in str(error.orig):
                raise OtherStoreError(f"{self.title}: is no market's database") from None
            raise StoreError(f"{self.title}: {' '.join(str(error.orig).split())}") from None
        except StoreError:
            self.close()
            raise
        version = self.identity.get("schema_version")
        if version != str(schema.SCHEMA_VERSION):
            self.close()
            words = f"schema_version is {version}, this Peergrid reads {schema.SCHEMA_VERSION}"
            older = str(version).isdigit() and int(str(version)) < schema.SCHEMA_VERSION
            hint = ": `peergrid run --upgrade` brings it up to date" if older else ""
            raise OtherStoreError(f"{self.title}: {words}{hint}")

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
        with self._engine.connect().execution_options(**READ_ONLY[self._engine.dialect.name]) as connection:
            yield connection

    def written_at(self) -> float:
        """When the database last changed, by the machine's clock, Unix seconds. A server's files are its own:
        there it is what the market's process noted last, every few seconds while it runs.
        """
        if isinstance(self.place, Path):
            files = (self.place, self.place.with_name(self.place.name + "-wal"))
            return max(file.stat().st_mtime for file in files if file.exists())
        with self.reading() as connection:
            noted: int | None = connection.execute(select(func.max(schema.health.c.seen_at))).scalar()
        return float(noted or 0)
