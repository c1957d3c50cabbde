"""The journal of signed transactions, for :class:`contracts.sender.Sender`, in the market's own database."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from contracts.chain import Receipt
from contracts.journal import SignedTransaction, nonce_taken
from grid.errors import ChainError
from market.service.store.database import Store
from market.service.store.schema import chain_transaction as table

_COLUMNS = (table.c.batch_id, table.c.sender, table.c.nonce, table.c.hash, table.c.raw, table.c.succeeded)
_closed = table.alias()
_IS_CLOSED = exists().where(
    _closed.c.sender == table.c.sender, _closed.c.nonce == table.c.nonce, _closed.c.block.is_not(None)
)


class StoreJournal:
    """A :class:`contracts.journal.Journal`: what a method wrote is on the disk when it returns."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def record(self, transaction: SignedTransaction) -> None:
        row = {
            "batch_id": transaction.batch_id,
            "sender": transaction.sender,
            "nonce": transaction.nonce,
            "hash": transaction.hash,
            "raw": transaction.raw,
        }
        of_nonce = select(table.c.batch_id).where(
            table.c.sender == transaction.sender,
            table.c.nonce == transaction.nonce,
            table.c.batch_id != transaction.batch_id,
        )
        try:
            with self._store.transaction() as tx:
                owner = tx.execute(of_nonce).scalar()
                if owner is not None:
                    raise nonce_taken(transaction, owner)
                tx.execute(insert(table), row)
        except IntegrityError as error:
            raise ChainError(f"{transaction.batch_id} cannot be recorded: {error.orig}") from error

    def attempts(self, batch_id: str) -> Sequence[SignedTransaction]:
        query = select(*_COLUMNS).where(table.c.batch_id == batch_id).order_by(table.c.number)
        with self._store.reading() as connection:
            return [_signed(*row) for row in connection.execute(query)]

    def pending(self, sender: str) -> Sequence[SignedTransaction]:
        query = (
            select(*_COLUMNS)
            .where(table.c.sender == sender, table.c.block.is_(None), ~_IS_CLOSED)
            .order_by(table.c.nonce, table.c.number)
        )
        with self._store.reading() as connection:
            return [_signed(*row) for row in connection.execute(query)]

    def close(self, transaction: SignedTransaction, receipt: Receipt) -> None:
        with self._store.transaction() as tx:
            tx.execute(
                update(table)
                .where(table.c.hash == transaction.hash)
                .values(block=receipt.block, gas_used=receipt.gas_used, succeeded=int(receipt.succeeded))
            )

    def reopen(self, sender: str, nonce: int) -> None:
        undone = (table.c.sender == sender, table.c.nonce >= nonce, table.c.block.is_not(None))
        with self._store.reading() as connection:
            # Nearly always there is nothing to take back, and writers need not wait for that.
            if connection.execute(select(table.c.number).where(*undone).limit(1)).first() is None:
                return
        with self._store.transaction() as tx:
            tx.execute(update(table).where(*undone).values(block=None, gas_used=None, succeeded=None))


def _signed(
    batch_id: str, sender: str, nonce: int, transaction_hash: str, raw: bytes, succeeded: int | None
) -> SignedTransaction:
    known = None if succeeded is None else bool(succeeded)
    return SignedTransaction(batch_id, sender, nonce, transaction_hash, raw, known)
