"""The embedded chain's key-value store: one SQLite file, one transaction for each block."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from eth.db.backends.base import BaseDB

from grid.errors import ChainError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS node (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_LOCK_WAIT_S = 5.0


class ChainStore(BaseDB):
    """A mapping of bytes to bytes, as py-evm wants it.

    What is written can be read at once and is kept in memory until :meth:`commit` makes all of it durable
    together; :meth:`discard` forgets it. So a process that dies leaves whole blocks behind. The file belongs
    to one process at a time: a second one gets a :class:`ChainError`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unwritten: dict[bytes, bytes | None] = {}
        try:
            # The owner serialises access; threads may take turns.
            self._connection = sqlite3.connect(
                path, timeout=_LOCK_WAIT_S, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA mmap_size = 268435456")
            self._connection.executescript(f"BEGIN EXCLUSIVE; {_SCHEMA} COMMIT;")
        except sqlite3.Error as error:
            raise ChainError(f"{path}: cannot be opened as the embedded chain: {error}") from error

    def __getitem__(self, key: bytes) -> bytes:
        if key in self._unwritten:
            value = self._unwritten[key]
        else:
            row = self._connection.execute("SELECT value FROM node WHERE key = ?", (key,)).fetchone()
            value = row[0] if row else None
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._unwritten[key] = value

    def __delitem__(self, key: bytes) -> None:
        if key not in self:
            raise KeyError(key)
        self._unwritten[key] = None

    def _exists(self, key: bytes) -> bool:
        try:
            self[key]
        except KeyError:
            return False
        return True

    def about(self, name: str) -> str | None:
        """A fact about the chain that was noted when it was made."""
        row = self._connection.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def commit(self, **about: str) -> None:
        """Makes all that was written durable, with the facts ``about`` the chain, before it returns."""
        written = [(key, value) for key, value in self._unwritten.items() if value is not None]
        deleted = [(key,) for key, value in self._unwritten.items() if value is None]
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR REPLACE INTO node VALUES (?, ?)", written)
            self._connection.executemany("DELETE FROM node WHERE key = ?", deleted)
            self._connection.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", about.items())
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise ChainError(f"{self._path}: the embedded chain cannot be written: {error}") from error
        self._unwritten.clear()

    def discard(self) -> None:
        """Forgets what was written since the last commit."""
        self._unwritten.clear()

    def close(self) -> None:
        self._connection.close()
