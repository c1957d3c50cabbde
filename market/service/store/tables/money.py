"""The ledger, its batches and what the contracts hold."""

from __future__ import annotations

from sqlalchemy import func, select

from market.service.store import schema
from market.service.store.dialects import in_bytes, positive, total
from market.service.store.tables.table import START, Table, text, whole

_posting = schema.posting.c
_batch = schema.batch.c
_position = schema.position.c
_books = schema.chain_books.c
_account = schema.account.c
_balance = schema.balance.c

TABLES = (
    Table(
        "postings",
        "The ledger: each interval's postings sum to zero.",
        (
            START,
            whole("revision", "0 is the settlement, above are adjustments"),
            text("account", "household:<meter>, retailer, network, imbalance or rounding"),
            text("kind", "what it is for"),
            whole("amount_neur", "earned, nEUR"),
            whole("energy_wh", "into the grid or sold, Wh"),
            whole("batch", "the batch that brings it to the chain"),
        ),
        select(
            _posting.interval_start,
            _posting.revision,
            _posting.account,
            _posting.kind,
            _posting.amount_neur,
            _posting.energy_wh,
            _posting.batch,
        ).order_by(
            _posting.interval_start, _posting.revision, in_bytes(_posting.account), in_bytes(_posting.kind)
        ),
        _posting.interval_start,
    ),
    Table(
        "batches",
        "Settlement batches; times are those of their making.",
        (
            whole("sequence", "number of the batch"),
            text("state", "PENDING or FINAL"),
            whole("made_at", "on the market's clock, Unix seconds"),
            text("root", "what the chain commits to, hex"),
            text("tx_hash", "transaction, hex", True),
            whole("gas", "gas used", True),
            whole("positions", "accounts that change"),
            whole("volume_ueur", "what moves, µEUR"),
        ),
        select(
            _batch.sequence,
            _batch.state,
            _batch.made_at,
            _batch.root,
            _batch.tx_hash,
            _batch.gas,
            func.count(_position.account),
            func.coalesce(total(positive(_position.amount_ueur)), 0),
        )
        .join_from(schema.batch, schema.position, isouter=True)
        .group_by(_batch.sequence)
        .order_by(_batch.sequence),
        _batch.made_at,
    ),
    Table(
        "chain_books",
        "What the market's contracts held; a row for every change, by the market's clock.",
        (
            whole("at", "on the market's clock, Unix seconds"),
            whole("block", "the newest one then"),
            whole("supply_ueur", "tokens, µEUR"),
            whole("deposits_ueur", "came in less what went out, µEUR"),
            whole("backing_ueur", "stablecoin that the escrow holds, µEUR"),
            whole("guarantee_ueur", "what stands in for debtors, µEUR"),
            whole("withdrawals_ueur", "announced and not paid, µEUR"),
            whole("paused", "1 while the escrow is paused"),
            text("accounts", "debts and withdrawals by address, JSON"),
        ),
        select(
            _books.at,
            _books.block,
            _books.supply_ueur,
            _books.deposits_ueur,
            _books.backing_ueur,
            _books.guarantee_ueur,
            _books.withdrawals_ueur,
            _books.paused,
            _books.accounts,
        ).order_by(_books.at),
        _books.at,
    ),
    Table(
        "accounts",
        "Accounts in the ledger and on the chain.",
        (
            text("account", "household:<meter>, retailer, network, imbalance or rounding"),
            text("address", "its first holder on the chain; later ones are in member_changes"),
            whole("deposit_ueur", "µEUR"),
            whole("ledger_neur", "balance without the deposit, nEUR"),
            whole("settled_ueur", "brought to the chain, µEUR"),
        ),
        select(
            _account.account,
            _account.address,
            _account.deposit_ueur,
            func.coalesce(_balance.ledger_neur, 0),
            func.coalesce(_balance.settled_ueur, 0),
        )
        .join_from(schema.account, schema.balance, isouter=True)
        .order_by(in_bytes(_account.account)),
    ),
)
