"""Opening a market's database, and its transactions.

It is SQLite, or PostgreSQL where it is named by a URL. SQL strings are written with SQLite's ``?`` and run on
both; writers follow each other on both, so that the journal's order is the order of what happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, make_url, select
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import QueuePool

from grid.errors import OtherStoreError, StoreError
from market.service.store import leases, schema

BUSY_S = 30.0
_LOOKING_BUSY_S = 5.0


class Store:
    """One market's database; use it as a context manager.

    ``place`` is a file, or a URL as SQLAlchemy has it. Opening creates the tables, or checks that the
    database was made by the same schema and with the same ``identity``: :class:`StoreError` names what
    differs. A database cannot serve two markets. With ``upgrade`` an older schema is brought up to date.
    ``busy_s`` is how long a transaction waits for another process that writes to the same file.
    """

    def __init__(
        self,
        place: Path | str,
        identity: Mapping[str, str],
        *,
        upgrade: bool = False,
        busy_s: float = BUSY_S,
    ) -> None:
        self._engine, self.name = open_engine(place, busy_s)
        self._fence: int | None = None
        try:
            self._open({"schema_version": str(schema.SCHEMA_VERSION), **identity}, upgrade)
        except DatabaseError as error:
            self._engine.dispose()
            raise StoreError(f"{self.name}: {error.orig}") from None
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

    def hold(self, fence: int) -> None:
        """From now on a transaction is refused (:class:`FencedError`) when another process has taken over."""
        self._fence = fence

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A write transaction: all of it is on the disk when the block ends, or none of it."""
        with self._engine.begin() as connection:
            leases.check(connection, self._fence)
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent view that neither waits for a writer nor holds one up."""
        with self._engine.connect().execution_options(**READ_ONLY[self._engine.dialect.name]) as connection:
            yield connection

    def _open(self, identity: Mapping[str, str], upgrade: bool) -> None:
        with self._engine.begin() as tx:
            if not inspect(tx).has_table(schema.run.name):
                schema.metadata.create_all(tx)
                tx.execute(insert(schema.run), [{"key": k, "value": v} for k, v in identity.items()])
                return
            stored = {row.key: row.value for row in tx.execute(select(schema.run))}
            if upgrade and stored["schema_version"] != identity["schema_version"]:
                if holder := _holder(tx):
                    raise StoreError(f"{self.name}: {holder} runs this market: stop it before the upgrade")
                from market.service.store.migrations import upgrade_to  # Alembic is rarely needed

                upgrade_to(tx, stored["schema_version"])
                stored["schema_version"] = identity["schema_version"]
        kept, here = stored.get("schema_version", ""), identity.get("schema_version", "")
        if kept != here:
            older = kept.isdigit() and here.isdigit() and int(kept) < int(here)
            how = "back it up, then let `peergrid run` migrate it with --upgrade" if older else "it is newer"
            raise OtherStoreError(f"{self.name}: schema_version is {kept}, this Peergrid's {here}: {how}")
        different = [
            f"{key} is {stored.get(key)!r} there and {value!r} here"
            for key, value in identity.items()
            if stored.get(key) != value
        ]
        if different:
            raise OtherStoreError(f"{self.name} belongs to another run: {'; '.join(different)}")


def _holder(tx: Connection) -> str:
    """The process that is the market now, as far as is known; also of a schema that had no leases."""
    lease = leases.current(tx) if inspect(tx).has_table(schema.lease.name) else None
    return lease.holder if lease is not None and leases.is_held(lease) else ""


READ_ONLY: Mapping[str, dict[str, Any]] = {
    "sqlite": {"read_only": True},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}


def open_engine(place: Path | str, busy_s: float = BUSY_S) -> tuple[Engine, str]:
    """The engine on a file or a URL, and the database's name for people, without a password."""
    if isinstance(place, Path) or "://" not in place:
        engine = create_engine(f"sqlite:///{place}", connect_args={"timeout": busy_s})
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
        return engine, str(place)
    return _server(place)


def looking_engine(place: Path | str) -> tuple[Engine, str]:
    """The same for those who only look: with the options of ``READ_ONLY`` nothing can be written."""
    if isinstance(place, str):
        # A server that began again meanwhile is not told of by the connections to it.
        return _server(place, pool_pre_ping=True)
    uri = f"file:{quote(str(place.resolve()))}?mode=ro&uri=true"
    threads = {"timeout": _LOOKING_BUSY_S, "check_same_thread": False}
    engine = create_engine(f"sqlite:///{uri}", connect_args=threads, poolclass=QueuePool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine, str(place)


def _server(place: str, **options: Any) -> tuple[Engine, str]:
    url = make_url(place)
    name = url.render_as_string()
    if url.get_backend_name() != "postgresql":
        raise StoreError(f"{name}: is not PostgreSQL; SQLite is named by its file")
    engine = create_engine(url, **options)
    event.listen(engine, "before_cursor_execute", _placeholders, retval=True)
    return engine, name


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


def _placeholders(
    _connection: Connection, _cursor: Any, statement: str, parameters: Any, context: Any, _many: bool
) -> tuple[str, Any]:
    """The driver writes ``%s`` where our SQL strings have ``?``; compiled statements stay as they are."""
    return (statement if context.compiled else statement.replace("?", "%s")), parameters
