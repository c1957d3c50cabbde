"""Taking in batches that the chain has and this database lost, and what stays unknown of them.

What the chain paid until a boundary stands: nothing before it is settled again. Intervals after it that
nobody has paid are settled on what the registers say over the gap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from market.accounts.ledger import MARKET_ACCOUNTS, NEUR_PER_UEUR, ROUNDING, Kind, Posting, household
from market.messages.signing import feeder_hash
from market.service.ports import OnChain
from market.service.store import intervals, membership, money, schema

Gap = tuple[int, int]
"""Registers were lost between these times, both on the market's clock."""


def enter(
    tx: Connection, at: int, batches: Sequence[OnChain], known_until: int, paid_until: int, reason: str
) -> None:
    """Until when intervals were paid before the gap and by its batches; the next reading of every meter goes
    on from wherever it is: what a lost receipt covered is not sent again.
    """
    table = schema.recovery
    row = {
        "at": at,
        "first_sequence": batches[0].sequence,
        "last_sequence": batches[-1].sequence,
        "known_until": known_until,
        "paid_until": paid_until,
        "reason": reason,
    }
    tx.execute(insert(table), row)
    tx.exec_driver_sql(
        "INSERT INTO reading_gap (meter) SELECT meter FROM meter WHERE true ON CONFLICT DO NOTHING"
    )


def everything(connection: Connection) -> Sequence[Row[Any]]:
    """What was taken in so far: ``first_sequence``, ``last_sequence``, ``known_until`` and ``paid_until``."""
    return connection.execute(select(schema.recovery).order_by(schema.recovery.c.at)).all()


def closed_before(connection: Connection) -> int:
    """Nothing that starts before this is settled again: what the chain paid for it stands."""
    table = schema.recovery
    paid_until: int | None = connection.execute(select(func.max(table.c.paid_until))).scalar()
    return 0 if paid_until is None else paid_until


def gap_of(connection: Connection, interval_start: int) -> Gap | None:
    """Where the registers around an interval are to be looked for that nobody paid, and whose readings were
    lost; None for all others.
    """
    table = schema.recovery
    row = connection.execute(
        select(table.c.known_until, table.c.at).where(
            table.c.paid_until <= interval_start, table.c.at > interval_start
        )
    ).first()
    return None if row is None else (row.known_until, row.at)


def unpaid(connection: Connection) -> list[Gap]:
    """The times of which the readings were lost and that nobody had paid."""
    table = schema.recovery
    return [(row.paid_until, row.at) for row in connection.execute(select(*table.c["paid_until", "at"]))]


def unheard_since(connection: Connection) -> set[str]:
    """The meters of which no reading came since a recovery."""
    return set(connection.execute(select(schema.reading_gap.c.meter)).scalars())


def heard(tx: Connection, meters: Iterable[str]) -> None:
    rows = [(meter,) for meter in meters]
    if rows:
        tx.exec_driver_sql("DELETE FROM reading_gap WHERE meter = ?", rows)


def settled_until(connection: Connection, first: int) -> int | None:
    """The start of the last interval that the batch before ``first`` brought to the chain."""
    table = schema.posting
    newest: int | None = connection.execute(
        select(func.max(table.c.interval_start)).where(table.c.batch == first - 1)
    ).scalar()
    return newest


def accounts_by_address(connection: Connection) -> dict[str, str]:
    """One account of each wallet that there was: by name the first, the market's own after households. What a
    wallet with several got is known in sum only, and all of it is booked to that one.
    """
    return {address: accounts[0] for address, accounts in _all_by_address(connection).items()}


def shared_addresses(connection: Connection, batches: Iterable[OnChain]) -> list[str]:
    """The wallets with several accounts that ``batches`` paid."""
    paid = {address for batch in batches for address in batch.positions}
    return sorted(a for a, accounts in _all_by_address(connection).items() if a in paid and len(accounts) > 1)


def _all_by_address(connection: Connection) -> dict[str, list[str]]:
    table = schema.account
    of = {(row.address, row.account) for row in connection.execute(select(*table.c["address", "account"]))}
    joined = (change.member for change in membership.changes(connection))
    of |= {(member.owner, household(member.meter)) for member in joined if member is not None}
    found: dict[str, list[str]] = {}
    for address, account in sorted(
        of, key=lambda one: (one[1] in MARKET_ACCOUNTS, one[1] == ROUNDING, one[1])
    ):
        found.setdefault(address, []).append(account)
    return found


def take_in(
    tx: Connection, feeder: str, batches: Sequence[OnChain], paid_until: int, at: int
) -> list[Posting]:
    """Replaces what this database has from the first of ``batches`` on by them; the postings that bring the
    ledger of all intervals before ``paid_until`` to what the chain paid.
    """
    first, last = batches[0].sequence, batches[-1].sequence
    _take_back(tx, first)
    accounts = accounts_by_address(tx)
    for batch in batches:
        row = {"sequence": batch.sequence, "root": "0x" + batch.root.hex(), "state": "FINAL"}
        more = {"made_at": min(batch.at, at), "tx_hash": batch.tx_hash, "gas": batch.gas}
        tx.execute(insert(schema.batch), row | more)
        net: Counter[str] = Counter()
        for address, amount in batch.positions.items():
            net[accounts[address]] += amount
        money.add_positions(tx, batch.sequence, {name: amount for name, amount in net.items() if amount})
        # Signed before the backup, and overtaken by what was signed after it.
        tx.exec_driver_sql(
            "UPDATE chain_transaction SET block = 0, gas_used = 0, succeeded = 0"
            " WHERE batch_id LIKE ? AND block IS NULL",
            (f"settle/{feeder_hash(feeder).hex()}/{batch.sequence}/%",),
        )
    tx.exec_driver_sql(
        "UPDATE posting SET batch = ? WHERE batch >= ? AND interval_start >= ?", (last + 1, first, paid_until)
    )
    tx.exec_driver_sql(
        "UPDATE posting SET batch = ? WHERE batch > ? AND interval_start < ?", (last, last, paid_until)
    )
    return _missing(_ledger_before(tx, paid_until), money.settled_ueur(tx))


def _take_back(tx: Connection, first: int) -> None:
    """Batches that were made here and are not on the chain, because others have their numbers."""
    rows = tx.exec_driver_sql(
        "SELECT account, CAST(SUM(amount_ueur) AS BIGINT) FROM position WHERE sequence >= ? GROUP BY account",
        (first,),
    )
    money.add_to_settled(tx, {account: -amount for account, amount in rows.all()})
    for table in ("position", "batch"):
        tx.exec_driver_sql(f"DELETE FROM {table} WHERE sequence >= ?", (first,))  # noqa: S608


def _ledger_before(connection: Connection, until: int) -> dict[str, int]:
    """Every account's postings for intervals before ``until``, nEUR: what was posted later is not the
    lost batches' business.
    """
    ledger = dict.fromkeys(connection.execute(select(schema.account.c.account)).scalars(), 0)
    ledger |= money.ledger_neur(connection)
    rows = connection.exec_driver_sql(
        "SELECT account, CAST(SUM(amount_neur) AS BIGINT) FROM posting WHERE interval_start >= ?"
        " GROUP BY account",
        (until,),
    )
    for account, later in rows:
        ledger[account] -= later
    return ledger


def _missing(ledger_neur: Mapping[str, int], settled_ueur: Mapping[str, int]) -> list[Posting]:
    """What turns a ledger into one that the settled positions follow from.

    What an account had below 1 µEUR beside that is not known any more: as far as what lies with ``rounding``
    allows, it is what it was.
    """
    own = {name: neur for name, neur in sorted(ledger_neur.items()) if name != ROUNDING}
    rest = {name: neur % NEUR_PER_UEUR for name, neur in own.items()}
    off_neur = NEUR_PER_UEUR * settled_ueur.get(ROUNDING, 0) - sum(rest.values())
    for name, known in rest.items():
        change = max(-known, min(NEUR_PER_UEUR - 1 - known, off_neur))
        rest[name] += change
        off_neur -= change
    found = []
    for name, neur in own.items():
        amount = NEUR_PER_UEUR * settled_ueur.get(name, 0) + rest[name] - neur
        if amount:
            found.append(Posting(name, Kind.RECOVERED, amount))
    return found


def close_intervals(tx: Connection, paid_until: int, at: int, reason: str) -> None:
    """Every interval before ``paid_until`` is paid for good, also those whose records are lost."""
    for state in ("CLEARED", "SUSPENDED", "METERED", "DISPUTED", "SETTLED"):
        for start in intervals.intervals_in(tx, state):
            if start >= paid_until:
                break
            if state in ("CLEARED", "SUSPENDED"):
                intervals.advance(tx, start, "METERED", at)
            if state in ("CLEARED", "SUSPENDED", "METERED"):
                intervals.advance(tx, start, "SETTLED", at, reason)
            intervals.advance(tx, start, "FINAL", at, reason if state == "DISPUTED" else "")
