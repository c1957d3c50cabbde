"""The journal of signed transactions, for :class:`contracts.sender.Sender`, in the market's own database."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from contracts.chain import Receipt
from contracts.journal import SignedTransaction
from grid.errors import ChainError
from market.service.store.database import Store
from market.service.store.schema import chain_transaction as table

_COLUMNS = (table.c.batch_id, table.c.sender, table.c.nonce, table.c.hash, table.c.raw)


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
        try:
            with self._store.transaction() as tx:
                tx.execute(insert(table), row)
        except IntegrityError as error:
            raise ChainError(f"{transaction.batch_id} cannot be recorded: {error.orig}") from error

    def find(self, batch_id: str) -> SignedTransaction | None:
        with self._store.reading() as connection:
            row = connection.execute(select(*_COLUMNS).where(table.c.batch_id == batch_id)).one_or_none()
        return SignedTransaction(*row) if row else None

    def pending(self, sender: str) -> Sequence[SignedTransaction]:
        query = (
            select(*_COLUMNS).where(table.c.sender == sender, table.c.block.is_(None)).order_by(table.c.nonce)
        )
        with self._store.reading() as connection:
            return [SignedTransaction(*row) for row in connection.execute(query)]

    def close(self, transaction: SignedTransaction, receipt: Receipt) -> None:
        with self._store.transaction() as tx:
            tx.execute(
                update(table)
                .where(table.c.hash == transaction.hash)
                .values(block=receipt.block, gas_used=receipt.gas_used, succeeded=int(receipt.succeeded))
            )
