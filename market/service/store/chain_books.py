"""What the chain had when the market last looked, for those who have only the database."""

from __future__ import annotations

import json

from sqlalchemy import Connection

from market.service.ports import ChainBooks


def keep(tx: Connection, at: int, books: ChainBooks) -> None:
    accounts = {address: {"debt_ueur": debt} for address, debt in sorted(books.debts_ueur.items())}
    for address, (amount, due_at) in sorted(books.withdrawals.items()):
        accounts.setdefault(address, {}).update(withdrawal_ueur=amount, due_at=due_at)
    tx.exec_driver_sql("DELETE FROM chain_books WHERE at = ?", (at,))
    tx.exec_driver_sql(
        "INSERT INTO chain_books (at, block, supply_ueur, deposits_ueur, backing_ueur, guarantee_ueur,"
        " withdrawals_ueur, paused, accounts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            at,
            books.block,
            books.supply_ueur,
            books.deposits_ueur,
            books.backing_ueur,
            books.guarantee_ueur,
            books.withdrawals_ueur,
            int(books.paused),
            json.dumps(accounts),
        ),
    )
