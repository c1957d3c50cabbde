"""What was signed and sent, so that a restart sends the same bytes again instead of another transaction.

A transaction is identified by what it is for: its ``batch_id`` (``settle/<market>/<sequence>``). One key
publishes through one journal.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from contracts.chain import Receipt
from grid.errors import ChainError


@dataclass(frozen=True)
class SignedTransaction:
    """A transaction as it is broadcast; ``sender`` signed it."""

    batch_id: str
    sender: str
    nonce: int
    hash: str
    raw: bytes


class Journal(Protocol):
    """Where signed transactions are kept. What a method wrote is durable when it returns."""

    def record(self, transaction: SignedTransaction) -> None:
        """Keeps a transaction before it is broadcast. Its batch must not be there yet."""

    def find(self, batch_id: str) -> SignedTransaction | None:
        """The transaction of a batch."""

    def pending(self, sender: str) -> Sequence[SignedTransaction]:
        """The transactions of ``sender`` that are not closed, by nonce."""

    def close(self, transaction: SignedTransaction, receipt: Receipt) -> None:
        """Keeps that a transaction is mined and confirmed. To do it twice changes nothing."""


_SCHEMA = """
CREATE TABLE IF NOT EXISTS chain_transaction (
    batch_id TEXT PRIMARY KEY,
    sender TEXT NOT NULL,
    nonce INTEGER NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    raw BLOB NOT NULL,
    block INTEGER,
    gas_used INTEGER,
    succeeded INTEGER,
    UNIQUE (sender, nonce)
);
"""
_INSERT = "INSERT INTO chain_transaction (batch_id, sender, nonce, hash, raw) VALUES (?, ?, ?, ?, ?)"
_SELECT = "SELECT batch_id, sender, nonce, hash, raw FROM chain_transaction"


class SqliteJournal:
    """A journal in an SQLite file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise ChainError(f"{path}: cannot be opened as a journal of transactions: {error}") from error

    def record(self, transaction: SignedTransaction) -> None:
        row = (
            transaction.batch_id,
            transaction.sender,
            transaction.nonce,
            transaction.hash,
            transaction.raw,
        )
        try:
            self._connection.execute(_INSERT, row)
        except sqlite3.Error as error:
            raise ChainError(f"{self._path}: {transaction.batch_id} cannot be recorded: {error}") from error

    def find(self, batch_id: str) -> SignedTransaction | None:
        row = self._connection.execute(_SELECT + " WHERE batch_id = ?", (batch_id,)).fetchone()
        return SignedTransaction(*row) if row else None

    def pending(self, sender: str) -> Sequence[SignedTransaction]:
        open_ones = _SELECT + " WHERE sender = ? AND block IS NULL ORDER BY nonce"
        return [SignedTransaction(*row) for row in self._connection.execute(open_ones, (sender,))]

    def close(self, transaction: SignedTransaction, receipt: Receipt) -> None:
        self._connection.execute(
            "UPDATE chain_transaction SET block = ?, gas_used = ?, succeeded = ? WHERE hash = ?",
            (receipt.block, receipt.gas_used, receipt.succeeded, transaction.hash),
        )

    def disconnect(self) -> None:
        self._connection.close()
