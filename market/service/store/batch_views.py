"""What the console asks of a market's money: batches, what they brought to the chain, what that has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, func, select, tuple_

from market.service.store import membership, schema
from market.service.store.dialects import in_bytes, positive, total
from market.service.store.views import Rows, account_of, between, first, rows_of

_ADJUSTMENTS_MAX = 200

_interval, _batch, _position = schema.interval.c, schema.batch.c, schema.position.c
_sent, _posting, _meter = schema.chain_transaction.c, schema.posting.c, schema.meter.c
_account, _books = schema.account.c, schema.chain_books.c


def batches_of_interval(connection: Connection, start: int) -> list[int]:
    query = select(_posting.batch).distinct().where(_posting.interval_start == start)
    return list(connection.execute(query.order_by(_posting.batch)).scalars())


def batch(connection: Connection, sequence: int) -> Mapping[str, Any] | None:
    return first(connection, select(schema.batch).where(_batch.sequence == sequence))


def attempts(connection: Connection, tx_hash: str) -> Rows:
    """All transactions on the nonce of one: what was signed and what was mined."""
    one = schema.chain_transaction.alias("one")
    same = select(one.c.sender, one.c.nonce).where(one.c.hash == tx_hash)
    return rows_of(
        connection,
        select(
            _sent.number,
            _sent.batch_id,
            _sent.sender,
            _sent.nonce,
            _sent.hash,
            _sent.block,
            _sent.gas_used,
            _sent.succeeded,
        )
        .where(tuple_(_sent.sender, _sent.nonce).in_(same))
        .order_by(_sent.number),
    )


def newest_block(connection: Connection) -> int | None:
    block: int | None = connection.execute(select(func.max(_sent.block))).scalar()
    return block


def positions(connection: Connection, sequence: int) -> Rows:
    """A batch's positions, each with the wallet that its account had when the batch was made."""
    rows = rows_of(
        connection,
        select(
            _position.account,
            _account.address,
            _position.amount_ueur,
            _batch.made_at,
            _meter.meter,
            _meter.connection_point,
        )
        .join_from(schema.position, schema.account)
        .join(schema.batch, _batch.sequence == _position.sequence)
        .join(schema.meter, _position.account == account_of(_meter.meter), isouter=True)
        .where(_position.sequence == sequence)
        .order_by(_position.amount_ueur, in_bytes(_position.account)),
    )
    known = membership.wallets(connection)
    return [
        {**row, "address": membership.wallet_at(known, row["account"], row["address"], row["made_at"])}
        for row in rows
    ]


def recent_batches(connection: Connection, rows_max: int) -> list[dict[str, Any]]:
    """The newest batches with what they move and the block that holds them."""
    newest = select(schema.batch).order_by(_batch.sequence.desc()).limit(rows_max).cte("newest").c
    moved = (
        select(
            _position.sequence,
            func.count().label("positions"),
            total(positive(_position.amount_ueur)).label("volume_ueur"),
        )
        .where(_position.sequence.in_(select(newest.sequence)))
        .group_by(_position.sequence)
        .subquery("moved")
        .c
    )
    block = select(_sent.block).where(_sent.hash == newest.tx_hash).scalar_subquery()
    rows = connection.execute(
        select(
            newest.sequence,
            newest.state,
            newest.made_at,
            newest.root,
            newest.tx_hash,
            newest.gas,
            func.coalesce(moved.positions, 0).label("positions"),
            func.coalesce(moved.volume_ueur, 0).label("volume_ueur"),
            block.label("block"),
        )
        .outerjoin(moved.sequence.table, moved.sequence == newest.sequence)
        .order_by(newest.sequence.desc())
    )
    return [dict(row) for row in rows.mappings()]


def batches_waiting(connection: Connection, made_before: int) -> list[tuple[int, int]]:
    """Batches that are not final: sequence and when they were made."""
    rows = connection.execute(
        select(_batch.sequence, _batch.made_at)
        .where(_batch.state == "PENDING", _batch.made_at < made_before)
        .order_by(_batch.sequence)
    )
    return [(row[0], row[1]) for row in rows]


def gas_total(connection: Connection) -> int:
    """Gas of all batches."""
    gas: int = connection.execute(select(func.coalesce(total(_batch.gas), 0))).scalar_one()
    return gas


def batch_counts(connection: Connection) -> dict[str, int]:
    rows = connection.execute(select(_batch.state, func.count()).group_by(_batch.state))
    return {row[0]: row[1] for row in rows}


def adjustments(connection: Connection, since: int) -> Rows:
    """Settlements that readings or decisions changed later, the newest first."""
    start, revision = _interval.interval_start, _posting.revision
    return rows_of(
        connection,
        select(
            start,
            revision,
            func.count(_posting.account.distinct()).label("accounts"),
            total(positive(_posting.amount_neur)).label("moved_neur"),
            func.min(_posting.batch).label("batch"),
        )
        .join_from(schema.interval, schema.posting)
        .where(_interval.revision > 0, start >= since, revision > 0)
        .group_by(start, revision)
        .order_by(start.desc(), revision.desc())
        .limit(_ADJUSTMENTS_MAX),
    )


def adjustments_of(connection: Connection, start: int) -> Rows:
    """The postings of an interval beyond its settlement."""
    return rows_of(
        connection,
        select(
            _posting.revision,
            _posting.account,
            _posting.kind,
            _posting.amount_neur,
            _posting.energy_wh,
            _posting.batch,
            _meter.connection_point,
        )
        .join_from(schema.posting, schema.meter, _posting.account == account_of(_meter.meter), isouter=True)
        .where(_posting.interval_start == start, _posting.revision > 0)
        .order_by(_posting.revision, in_bytes(_posting.account), in_bytes(_posting.kind)),
    )


def account_batches(connection: Connection, account: str, since: int, until: int) -> list[int]:
    rows = connection.execute(
        select(_posting.batch)
        .distinct()
        .where(_posting.account == account, between(_posting.interval_start, since, until))
        .order_by(_posting.batch)
    )
    return list(rows.scalars())


def chain_books(connection: Connection) -> Mapping[str, Any] | None:
    """What the market's contracts held when it last looked, with the meters of those who owe or withdraw."""
    found = first(connection, select(schema.chain_books).order_by(_books.at.desc()))
    if found is None:
        return None
    named = select(_meter.owner, _meter.meter, _meter.connection_point).order_by(in_bytes(_meter.meter))
    meters = {row["owner"]: row for row in rows_of(connection, named)}
    accounts = [
        {"address": address, "debt_ueur": 0, "withdrawal_ueur": 0, "due_at": None}
        | {"meter": None, "connection_point": None}
        | dict(meters.get(address, {}))
        | held
        for address, held in json.loads(found["accounts"]).items()
    ]
    return {**found, "accounts": accounts}
