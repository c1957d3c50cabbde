"""What was signed and sent, so that a restart sends the same bytes again instead of another transaction.

A batch is what a transaction is for (``settle/<market>/<sequence>/<chunk>``). It can have several
transactions: with the same nonce but higher fees, of which one is mined, and with a new nonce after one that
was mined and reverted. One key publishes through one journal.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from contracts.chain import Receipt
from grid.errors import ChainError


@dataclass(frozen=True)
class SignedTransaction:
    """A transaction as it is broadcast; ``sender`` signed it.

    ``succeeded`` is None until it is known to be mined and confirmed.
    """

    batch_id: str
    sender: str
    nonce: int
    hash: str
    raw: bytes
    succeeded: bool | None = None


class Journal(Protocol):
    """Where signed transactions are kept. What a method wrote is durable when it returns."""

    def record(self, transaction: SignedTransaction) -> None:
        """Keeps a transaction before it is broadcast.

        Raises :class:`ChainError` where it is there already, or its nonce is another batch's.
        """

    def attempts(self, batch_id: str) -> Sequence[SignedTransaction]:
        """The transactions of a batch in the order in which they were signed."""

    def pending(self, sender: str) -> Sequence[SignedTransaction]:
        """The transactions of ``sender`` with nonces of which none is closed, by nonce, then as signed."""

    def close(self, transaction: SignedTransaction, receipt: Receipt) -> None:
        """Keeps that a transaction is mined and confirmed. To do it twice changes nothing."""

    def reopen(self, sender: str, nonce: int) -> None:
        """Takes back that transactions of ``sender`` from ``nonce`` on are mined: a reorganisation
        undid it.
        """


_SCHEMA = """
CREATE TABLE IF NOT EXISTS chain_transaction (
    number INTEGER PRIMARY KEY,
    batch_id TEXT NOT NULL,
    sender TEXT NOT NULL,
    nonce INTEGER NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    raw BLOB NOT NULL,
    block INTEGER,
    gas_used INTEGER,
    succeeded INTEGER
);
CREATE INDEX IF NOT EXISTS chain_transaction_by_batch ON chain_transaction (batch_id);
CREATE INDEX IF NOT EXISTS chain_transaction_by_nonce ON chain_transaction (sender, nonce);
"""
_INSERT = "INSERT INTO chain_transaction (batch_id, sender, nonce, hash, raw) VALUES (?, ?, ?, ?, ?)"
_SELECT = "SELECT batch_id, sender, nonce, hash, raw, succeeded FROM chain_transaction AS t"
_PENDING = (
    _SELECT  # noqa: S608  two constants
    + """ WHERE sender = ? AND NOT EXISTS (
    SELECT * FROM chain_transaction AS closed
    WHERE closed.sender = t.sender AND closed.nonce = t.nonce AND closed.block IS NOT NULL
) ORDER BY nonce, number"""
)


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
        with self._transaction(transaction.batch_id):
            owner = self._connection.execute(
                "SELECT batch_id FROM chain_transaction WHERE sender = ? AND nonce = ? AND batch_id != ?",
                (transaction.sender, transaction.nonce, transaction.batch_id),
            ).fetchone()
            if owner is not None:
                raise nonce_taken(transaction, owner[0])
            self._connection.execute(_INSERT, row)

    def attempts(self, batch_id: str) -> Sequence[SignedTransaction]:
        rows = self._connection.execute(_SELECT + " WHERE batch_id = ? ORDER BY number", (batch_id,))
        return [_signed(*row) for row in rows]

    def pending(self, sender: str) -> Sequence[SignedTransaction]:
        return [_signed(*row) for row in self._connection.execute(_PENDING, (sender,))]

    def close(self, transaction: SignedTransaction, receipt: Receipt) -> None:
        self._connection.execute(
            "UPDATE chain_transaction SET block = ?, gas_used = ?, succeeded = ? WHERE hash = ?",
            (receipt.block, receipt.gas_used, receipt.succeeded, transaction.hash),
        )

    def reopen(self, sender: str, nonce: int) -> None:
        self._connection.execute(
            "UPDATE chain_transaction SET block = NULL, gas_used = NULL, succeeded = NULL"
            " WHERE sender = ? AND nonce >= ? AND block IS NOT NULL",
            (sender, nonce),
        )

    def disconnect(self) -> None:
        self._connection.close()

    @contextmanager
    def _transaction(self, batch_id: str) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise ChainError(f"{self._path}: {batch_id} cannot be recorded: {error}") from error


def nonce_taken(transaction: SignedTransaction, owner: str) -> ChainError:
    """What a journal says to a transaction whose nonce is the batch ``owner``'s."""
    return ChainError(
        f"{transaction.batch_id} cannot be recorded: nonce {transaction.nonce} is that of {owner}"
    )


def _signed(
    batch_id: str, sender: str, nonce: int, transaction_hash: str, raw: bytes, succeeded: int | None
) -> SignedTransaction:
    known = None if succeeded is None else bool(succeeded)
    return SignedTransaction(batch_id, sender, nonce, transaction_hash, raw, known)
