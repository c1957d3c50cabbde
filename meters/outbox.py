"""What a fleet of meters must not lose: one SQLite file, one transaction for a batch of many meters.

A meter's state after an interval is stored together with the messages that tell of it, before they are
sent; a message leaves only when the market's receipt covers it. A restarted fleet so continues with the
same values and the same signed bytes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from grid.errors import StoreError

_FORMAT = 2

_SCHEMA = (
    """CREATE TABLE meter (
    meter TEXT PRIMARY KEY, epoch INTEGER NOT NULL, next_seq INTEGER NOT NULL,
    next_version INTEGER NOT NULL, state TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE plan (
    meter TEXT NOT NULL, interval_start INTEGER NOT NULL, plan TEXT NOT NULL,
    PRIMARY KEY (meter, interval_start)) WITHOUT ROWID""",
    """CREATE TABLE outbox (
    meter TEXT NOT NULL, kind INTEGER NOT NULL, epoch INTEGER NOT NULL, number INTEGER NOT NULL,
    time INTEGER NOT NULL, digest BLOB NOT NULL, payload BLOB NOT NULL,
    PRIMARY KEY (meter, kind, epoch, number)) WITHOUT ROWID""",
    """CREATE TABLE history (
    meter TEXT NOT NULL, start INTEGER NOT NULL, import_wh INTEGER NOT NULL, export_wh INTEGER NOT NULL,
    PRIMARY KEY (meter, start)) WITHOUT ROWID""",
    "CREATE TABLE fleet (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)


@dataclass(frozen=True, slots=True)
class MeterRow:
    """``state`` and a plan's ``plan`` are the agent's own JSON; the store does not look inside."""

    meter: str
    epoch: int
    next_seq: int
    next_version: int
    state: str


@dataclass(frozen=True, slots=True)
class PlanRow:
    meter: str
    interval_start: int
    plan: str


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A message that waits for its receipt: ``kind`` is a ReceiptKind, ``number`` its seq (in its ``epoch``)
    or version, ``time`` what it is about (a reading's ``taken_at``, an order's ``interval_start``)."""

    meter: str
    kind: int
    epoch: int
    number: int
    time: int
    digest: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """What a meter saw in the interval from ``start`` (Unix s) on, Wh."""

    meter: str
    start: int
    import_wh: int
    export_wh: int


@dataclass
class Writes:
    """Changes to commit together."""

    meters: dict[str, MeterRow] = field(default_factory=dict)
    plans: dict[tuple[str, int], PlanRow] = field(default_factory=dict)
    sent: list[OutboxRow] = field(default_factory=list)
    covered: list[tuple[str, int, int, int]] = field(default_factory=list)
    """(meter, kind, epoch, number) of messages that need no longer be kept."""
    ended: list[tuple[str, int]] = field(default_factory=list)
    """(meter, interval start) of plans that are no longer needed."""
    history: list[HistoryRow] = field(default_factory=list)
    forgotten: list[tuple[str, int]] = field(default_factory=list)
    """(meter, time): what it saw in intervals that started before is no longer needed."""

    def __bool__(self) -> bool:
        return any(vars(self).values())


class Outbox:
    """The fleet's database. ``identity`` tells whose it is; another fleet's file is refused (StoreError), and
    one that another process holds ``exclusive``.
    """

    def __init__(self, path: Path, identity: str, *, exclusive: bool = False) -> None:
        try:
            self._connection = sqlite3.connect(path, isolation_level=None)
            if exclusive:
                self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._open(path, identity)
        except sqlite3.Error as error:
            held = getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY")
            raise StoreError(f"{path}: {'another process runs these meters' if held else error}") from None

    def _open(self, path: Path, identity: str) -> None:
        run = self._connection
        run.execute("BEGIN IMMEDIATE")
        version = run.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            for statement in _SCHEMA:
                run.execute(statement)
            run.execute("INSERT INTO fleet VALUES ('identity', ?)", (identity,))
            run.execute(f"PRAGMA user_version={_FORMAT}")
        elif version != _FORMAT:
            raise StoreError(f"{path}: format {version} is not {_FORMAT}, the one of this program")
        owner = run.execute("SELECT value FROM fleet WHERE name = 'identity'").fetchone()[0]
        if owner != identity:
            raise StoreError(f"{path} belongs to another fleet: {owner}, not {identity}")
        run.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()

    def meters(self) -> Iterator[MeterRow]:
        rows = self._connection.execute("SELECT meter, epoch, next_seq, next_version, state FROM meter")
        return (MeterRow(*row) for row in rows.fetchall())

    def plans(self) -> Iterator[PlanRow]:
        rows = self._connection.execute("SELECT meter, interval_start, plan FROM plan")
        return (PlanRow(*row) for row in rows.fetchall())

    def waiting(self) -> Iterator[OutboxRow]:
        """What waits for a receipt, oldest first within a meter."""
        rows = self._connection.execute(
            "SELECT meter, kind, epoch, number, time, digest, payload FROM outbox"
            " ORDER BY meter, kind, epoch, number"
        )
        return (OutboxRow(*row) for row in rows.fetchall())

    def history(self, meter: str) -> Iterator[HistoryRow]:
        """What one meter saw, oldest first."""
        rows = self._connection.execute(
            "SELECT meter, start, import_wh, export_wh FROM history WHERE meter = ? ORDER BY start", (meter,)
        )
        return (HistoryRow(*row) for row in rows.fetchall())

    def commit(self, writes: Writes) -> None:
        """All of it or nothing, on the disk when this returns."""
        if not writes:
            return
        run = self._connection
        try:
            run.execute("BEGIN IMMEDIATE")
            run.executemany(
                "INSERT OR REPLACE INTO meter VALUES (?, ?, ?, ?, ?)",
                [(m.meter, m.epoch, m.next_seq, m.next_version, m.state) for m in writes.meters.values()],
            )
            run.executemany(
                "INSERT OR REPLACE INTO plan VALUES (?, ?, ?)",
                [(p.meter, p.interval_start, p.plan) for p in writes.plans.values()],
            )
            run.executemany(
                "INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(o.meter, o.kind, o.epoch, o.number, o.time, o.digest, o.payload) for o in writes.sent],
            )
            run.executemany(
                "DELETE FROM outbox WHERE meter = ? AND kind = ? AND epoch = ? AND number = ?", writes.covered
            )
            run.executemany(
                "INSERT OR REPLACE INTO history VALUES (?, ?, ?, ?)",
                [(h.meter, h.start, h.import_wh, h.export_wh) for h in writes.history],
            )
            run.executemany("DELETE FROM history WHERE meter = ? AND start < ?", writes.forgotten)
            run.executemany("DELETE FROM plan WHERE meter = ? AND interval_start = ?", writes.ended)
            run.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreError(f"the meters' database refused a write: {error}") from None
