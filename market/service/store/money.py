"""The ledger's postings and the batches in which they go to the chain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from market.accounts.ledger import Kind, Posting, chain_positions
from market.service.store import alarms, commitments, intervals, membership, schema

_EVER = 2**62
"""A time after all others."""


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch and its positions, µEUR by the holder's address."""

    sequence: int
    root: bytes
    made_at: int
    positions: dict[str, int]


@dataclass(frozen=True, slots=True)
class AccountState:
    """An account in the ledger (nEUR) and on the chain (µEUR), as this database has it."""

    account: str
    address: str
    deposit_ueur: int
    ledger_neur: int
    settled_ueur: int


def next_sequence(connection: Connection) -> int:
    """The batch that postings made now go with."""
    newest: int | None = connection.execute(select(func.max(schema.batch.c.sequence))).scalar()
    return 0 if newest is None else newest + 1


def first_unsent(connection: Connection) -> int:
    """The batch that goes to the chain next: the first that is not final, or the one to be made."""
    table = schema.batch
    pending: int | None = connection.execute(
        select(func.min(table.c.sequence)).where(table.c.state == "PENDING")
    ).scalar()
    return next_sequence(connection) if pending is None else pending


def add_postings(
    tx: Connection,
    interval_start: int,
    revision: int,
    postings: Iterable[Posting],
    sequence: int | None = None,
) -> None:
    """Postings go with the next batch, where no ``sequence`` is told."""
    if sequence is None:
        sequence = next_sequence(tx)
    rows = [
        (interval_start, revision, p.account, p.kind, p.amount_neur, p.energy_wh, sequence) for p in postings
    ]
    if not rows:
        return
    tx.exec_driver_sql(
        "INSERT INTO posting (interval_start, revision, account, kind, amount_neur, energy_wh, batch)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        rows,
    )
    change: Counter[str] = Counter()
    for _, _, account, _, amount_neur, _, _ in rows:
        change[account] += amount_neur
    _add_to_balance(tx, "ledger_neur", change)


def _add_to_balance(tx: Connection, column: str, change: Mapping[str, int]) -> None:
    other = "settled_ueur" if column == "ledger_neur" else "ledger_neur"
    tx.exec_driver_sql(
        f"INSERT INTO balance (account, {column}, {other}) VALUES (?, ?, 0) ON CONFLICT (account)"  # noqa: S608
        f" DO UPDATE SET {column} = balance.{column} + excluded.{column}",
        list(change.items()),
    )


def postings(connection: Connection, interval_start: int) -> list[Posting]:
    """All postings of an interval, its adjustments included."""
    rows = connection.exec_driver_sql(
        "SELECT account, kind, amount_neur, energy_wh FROM posting WHERE interval_start = ?"
        " ORDER BY revision, account, kind",
        (interval_start,),
    )
    return [Posting(account, Kind(kind), amount, energy) for account, kind, amount, energy in rows]


def ledger_neur(connection: Connection) -> dict[str, int]:
    """Every account's ledger balance without its deposit, nEUR."""
    rows = connection.exec_driver_sql("SELECT account, ledger_neur FROM balance ORDER BY account")
    return {row[0]: row[1] for row in rows}


def pending_neur(connection: Connection, made_before: int) -> dict[str, int]:
    """What each account owes (≤ 0) by intervals that no final batch made by ``made_before`` brought to the
    chain.
    """
    rows = connection.exec_driver_sql(
        "SELECT account, CAST(SUM(amount_neur) AS BIGINT) FROM posting WHERE batch >"
        " (SELECT COALESCE(MAX(sequence), -1) FROM batch WHERE state = 'FINAL' AND made_at <= ?)"
        " GROUP BY account, interval_start",
        (made_before,),
    )
    owed: dict[str, int] = {}
    for account, amount in rows:
        owed[account] = owed.get(account, 0) + min(0, amount)
    return owed


def settled_ueur(connection: Connection, made_before: int | None = None) -> dict[str, int]:
    """The sum of each account's positions, µEUR; with ``made_before`` only those final by then."""
    if made_before is None:
        later: dict[str, int] = {}
    else:
        # What is not final by then is little; what is grows for as long as the market runs.
        rows = connection.exec_driver_sql(
            "SELECT account, CAST(SUM(amount_ueur) AS BIGINT) FROM position JOIN batch USING (sequence)"
            " WHERE state = 'PENDING' OR made_at > ? GROUP BY account",
            (made_before,),
        )
        later = {row[0]: row[1] for row in rows}
    rows = connection.exec_driver_sql("SELECT account, settled_ueur FROM balance ORDER BY account")
    return {row[0]: row[1] - later.get(row[0], 0) for row in rows}


def make_batch(tx: Connection, made_at: int, leaf_secret: bytes) -> bool:
    """Nets all postings that are in no batch into a new one; False where there are none.

    ``leaf_secret`` is what the salts of the batch's commitments are made from.
    """
    sequence = next_sequence(tx)
    commitments.keep_secret(tx, leaf_secret)
    tree = commitments.batch_tree(tx, sequence)
    if tree is None:
        return False
    positions = chain_positions(ledger_neur(tx), settled_ueur(tx))
    tx.execute(
        insert(schema.batch),
        {"sequence": sequence, "root": "0x" + tree.root.hex(), "state": "PENDING", "made_at": made_at},
    )
    add_positions(tx, sequence, positions)
    return True


def add_positions(tx: Connection, sequence: int, positions: Mapping[str, int]) -> None:
    """A batch's positions, µEUR by account."""
    if positions:
        tx.exec_driver_sql(
            "INSERT INTO position (sequence, account, amount_ueur) VALUES (?, ?, ?)",
            [(sequence, account, amount) for account, amount in positions.items()],
        )
        add_to_settled(tx, positions)


def add_to_settled(tx: Connection, positions: Mapping[str, int]) -> None:
    if positions:
        _add_to_balance(tx, "settled_ueur", positions)


def is_final(connection: Connection, interval_start: int) -> bool:
    """Whether all that was posted for an interval is on the chain for good."""
    open_ones = connection.exec_driver_sql(
        "SELECT COUNT(*) FROM posting LEFT JOIN batch ON sequence = batch"
        " WHERE interval_start = ? AND (state IS NULL OR state <> 'FINAL')",
        (interval_start,),
    ).scalar_one()
    return bool(open_ones == 0)


def pending_batches(connection: Connection) -> list[StoredBatch]:
    """Batches that are not final, in order."""
    rows = connection.execute(
        select(schema.batch).where(schema.batch.c.state == "PENDING").order_by(schema.batch.c.sequence)
    )
    return _batches(connection, rows.all())


def _batches(connection: Connection, rows: Sequence[Any]) -> list[StoredBatch]:
    """Batches of some rows in order, with their positions."""
    positions: dict[int, Counter[str]] = {row.sequence: Counter() for row in rows}
    if positions:
        wallets, made_at = membership.wallets(connection), {row.sequence: row.made_at for row in rows}
        for sequence, account, first, amount_ueur in connection.exec_driver_sql(
            "SELECT sequence, account, address, amount_ueur FROM position JOIN account USING (account)"
            " WHERE sequence BETWEEN ? AND ?",
            (rows[0].sequence, rows[-1].sequence),
        ):
            if sequence in positions:
                address = membership.wallet_at(wallets, account, first, made_at[sequence])
                positions[sequence][address] += amount_ueur
    return [
        StoredBatch(
            row.sequence,
            bytes.fromhex(row.root[2:]),
            row.made_at,
            {address: amount for address, amount in sorted(positions[row.sequence].items()) if amount},
        )
        for row in rows
    ]


def settled_by_wallet(connection: Connection) -> Counter[str]:
    """What all batches together brought each wallet, µEUR by address."""
    rows = connection.execute(select(schema.batch).order_by(schema.batch.c.sequence)).all()
    found: Counter[str] = Counter()
    for batch in _batches(connection, rows):
        found.update(batch.positions)
    return found


def finish_batch(tx: Connection, sequence: int, *, tx_hash: str, gas: int, at: int) -> None:
    """A batch is final on the chain, and so are the intervals of which all is: also those that came to
    nothing, because nobody has said anything of them.
    """
    table = schema.batch
    tx.execute(
        update(table).where(table.c.sequence == sequence).values(state="FINAL", tx_hash=tx_hash, gas=gas)
    )
    for start in intervals.intervals_in(tx, "SETTLED"):
        if is_final(tx, start):
            intervals.advance(tx, start, "FINAL", at)


def _intervals_of(connection: Connection, sequence: int, state: str) -> list[int]:
    """The intervals in a state that have postings in a batch."""
    starts = connection.exec_driver_sql(
        "SELECT DISTINCT interval_start FROM posting JOIN interval USING (interval_start)"
        " WHERE batch = ? AND state = ? ORDER BY interval_start",
        (sequence, state),
    ).scalars()
    return list(starts)


def final_batches(connection: Connection, before: int, count: int) -> list[StoredBatch]:
    """The last ``count`` final batches of those before the sequence ``before``, in order."""
    table = schema.batch
    rows = connection.execute(
        select(table)
        .where(table.c.state == "FINAL", table.c.sequence < before)
        .order_by(table.c.sequence.desc())
        .limit(count)
    )
    return _batches(connection, rows.all()[::-1])


def reopen_batch(tx: Connection, sequence: int, at: int) -> None:
    """A batch that was final is not on the chain any more: it waits again, and its intervals with it."""
    table = schema.batch
    tx.execute(
        update(table).where(table.c.sequence == sequence).values(state="PENDING", tx_hash=None, gas=None)
    )
    alarms.raise_alarm(
        tx,
        at,
        "chain",
        f"batch {sequence}",
        "A reorganisation of the chain took away what counted as final; the batch is sent again.",
    )
    for start in _intervals_of(tx, sequence, "FINAL"):
        intervals.advance(tx, start, "SETTLED", at, f"a reorganisation took batch {sequence} off the chain")


def account_states(connection: Connection) -> list[AccountState]:
    """Every account, by name, with the wallet that it is registered with."""
    wallets = membership.wallets(connection)
    ledger, settled = ledger_neur(connection), settled_ueur(connection)
    rows = connection.execute(select(schema.account).order_by(schema.account.c.account))
    return [
        AccountState(
            row.account,
            membership.wallet_at(wallets, row.account, row.address, _EVER),
            row.deposit_ueur,
            ledger.get(row.account, 0),
            settled.get(row.account, 0),
        )
        for row in rows
    ]


def gas_by_batch(connection: Connection) -> Mapping[int, int]:
    """Gas of the final batches, by sequence."""
    table = schema.batch
    rows = connection.execute(select(table.c.sequence, table.c.gas).where(table.c.gas.is_not(None)))
    return {row.sequence: row.gas for row in rows}


def batches_of(connection: Connection, interval_start: int) -> list[int]:
    """The batches that bring postings of an interval to the chain, in order."""
    table = schema.posting
    rows = connection.execute(
        select(table.c.batch)
        .where(table.c.interval_start == interval_start)
        .distinct()
        .order_by(table.c.batch)
    )
    return list(rows.scalars())


def connection_points(connection: Connection) -> dict[str, str]:
    """Where households stand, by their owner's address."""
    table = schema.meter
    return {row.owner: row.connection_point for row in connection.execute(select(table))}


def meter_at(connection: Connection, connection_point: str) -> tuple[str, int] | None:
    """The meter at a connection point, and its bus."""
    table = schema.meter
    row = connection.execute(
        select(table.c.meter, table.c.bus).where(table.c.connection_point == connection_point)
    ).first()
    return None if row is None else (row.meter, row.bus)


def market_of(connection: Connection) -> str:
    """The id of the feeder that this database is the market of."""
    table = schema.run
    name: str = connection.execute(select(table.c.value).where(table.c.key == "feeder")).scalar_one()
    return name
