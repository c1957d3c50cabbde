"""The console's own database: who did what and why. Rows are only added; the database refuses the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Integer, MetaData, Table, Text, create_engine, event, insert, inspect, select

metadata = MetaData()

log = Table(
    "log",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Integer, nullable=False, comment="by the machine's clock, Unix seconds"),
    Column("actor", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("feeder", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", Text, nullable=False),
    sqlite_autoincrement=True,
)

_APPEND_ONLY = (
    "CREATE TRIGGER IF NOT EXISTS log_is_not_changed BEFORE UPDATE ON log"
    " BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END",
    "CREATE TRIGGER IF NOT EXISTS log_is_not_deleted BEFORE DELETE ON log"
    " BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END",
)

ACKNOWLEDGE = "acknowledge alarm"


class AuditLog:
    """An append-only log in a file of its own, so that the market's database stays read-only here."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 10})
        event.listen(self._engine, "connect", _durable)
        if path.exists():
            self._prepare()

    def close(self) -> None:
        self._engine.dispose()

    def _prepare(self) -> None:
        with self._engine.begin() as tx:
            metadata.create_all(tx)
            for statement in _APPEND_ONLY:
                tx.exec_driver_sql(statement)

    def add(
        self, *, at: int, actor: str, role: str, action: str, feeder: str, subject: str, reason: str
    ) -> None:
        """Adds a line; it is on the disk when this returns. The file is made with the first one."""
        self._prepare()
        with self._engine.begin() as tx:
            tx.execute(
                insert(log),
                {
                    "at": at,
                    "actor": actor,
                    "role": role,
                    "action": action,
                    "feeder": feeder,
                    "subject": subject,
                    "reason": reason,
                },
            )

    def lines(self, feeder: str | None = None, rows_max: int = 500) -> list[Mapping[str, Any]]:
        """The newest lines first."""
        if not self.path.exists():
            return []
        query = select(log).order_by(log.c.id.desc()).limit(rows_max)
        if feeder is not None:
            query = query.where(log.c.feeder == feeder)
        with self._engine.connect() as connection:
            if not inspect(connection).has_table(log.name):
                return []  # somebody is just making it
            return [dict(row) for row in connection.execute(query).mappings()]

    def acknowledged(self, feeder: str) -> dict[str, Mapping[str, Any]]:
        """The newest acknowledgement by what it is about."""
        found: dict[str, Mapping[str, Any]] = {}
        for line in self.lines(feeder, rows_max=10_000):
            if line["action"] == ACKNOWLEDGE:
                found.setdefault(line["subject"], line)
        return found


def _durable(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous = FULL")
