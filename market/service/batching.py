"""Batches: what goes to the chain, what a reorganisation brought back, and the proof that it all agrees."""

from __future__ import annotations

from sqlalchemy import Connection

from grid.errors import LedgerError
from market.accounts.ledger import NEUR_PER_UEUR, ROUNDING
from market.service.ports import Settler
from market.service.store import Store, input_journal, money
from market.service.store.input_journal import decision

_LOOKED_BACK_AT_ONCE = 100
"""Batches, where a reorganisation took the newest."""
_NEVER_MADE = 2**62
"""No batch has so high a sequence."""


class Batches:
    """``leaf_secret`` is what the salts of commitments are made from."""

    def __init__(self, store: Store, leaf_secret: bytes) -> None:
        self._store = store
        self._leaf_secret = leaf_secret

    def make(self, now: int) -> None:
        """A batch of all postings that are in none."""
        with self._store.transaction() as tx:
            if money.make_batch(tx, now, self._leaf_secret):
                input_journal.add(tx, decision(now, "batch"))

    def make_in(self, tx: Connection, now: int) -> None:
        """The same as a part of a decision that is journaled by itself."""
        money.make_batch(tx, now, self._leaf_secret)

    def reconcile(self, settler: Settler) -> None:
        """Proves that chain and ledger agree to the unit. Raises :class:`LedgerError` where they do not."""
        with self._store.reading() as connection:
            accounts = money.account_states(connection)
            settled = money.settled_by_wallet(connection)
        if total := sum(account.ledger_neur for account in accounts):
            raise LedgerError(f"the ledger sums to {total} nEUR instead of zero")
        wallets = sorted({*settled, *(account.address for account in accounts)})
        balances, brought = settler.balances(wallets), settler.credit_moved()
        for wallet in wallets:
            if (moved := balances[wallet] - brought.get(wallet, 0)) != settled[wallet]:
                whose = ", ".join(a.account for a in accounts if a.address == wallet) or "nobody any more"
                raise LedgerError(
                    f"{wallet}, the wallet of {whose}: the chain moved {moved} µEUR by settlement, "
                    f"batches {settled[wallet]} µEUR"
                )
        for account in accounts:
            expected = account.ledger_neur // NEUR_PER_UEUR
            if account.account != ROUNDING and account.settled_ueur != expected:
                raise LedgerError(
                    f"{account.account}: batches came to {account.settled_ueur} µEUR, and the ledger stands"
                    f" at {account.ledger_neur} nEUR"
                )
        supply, deposits = settler.total_supply(), sum(brought.values())
        if supply != deposits:
            raise LedgerError(f"there are {supply} µEUR of tokens for deposits of {deposits}")

    def reopen_lost(self, settler: Settler, now: int) -> None:
        """Batches that are final here and not on the chain any more are pending again, and raise an alarm.

        A reorganisation takes the newest ones: while that is there, so are all before it.
        """
        before, count = _NEVER_MADE, 1
        while True:
            with self._store.reading() as connection:
                final = money.final_batches(connection, before, count)
            lost = settler.lost({batch.sequence: batch.positions for batch in final})
            for sequence in reversed(lost):
                self.reopen(sequence, now)
            if len(lost) < max(1, len(final)):
                return
            before, count = final[0].sequence, _LOOKED_BACK_AT_ONCE

    def reopen(self, sequence: int, now: int) -> None:
        """A reorganisation took a final batch off the chain."""
        with self._store.transaction() as tx:
            input_journal.add(tx, decision(now, "lost", content={"sequence": sequence}))
            money.reopen_batch(tx, sequence, now)
