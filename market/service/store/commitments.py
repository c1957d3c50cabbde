"""What a batch's root commits: awards, prices, metered energy and postings of its intervals, leaf by leaf.

A batch's tree stands over one tree for each interval (and each later adjustment of one) whose postings the
batch brings to the chain. Nothing of it is stored: rows are never changed, so the same trees are built again
when somebody asks for a proof.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, insert, select

from grid.errors import StoreError
from market.accounts.ledger import household
from market.accounts.merkle import Kind, Leaf, MerkleTree, salt
from market.messages.signing import canonical_json
from market.service.store import schema

_SECRET = "leaf_secret"  # noqa: S105  the name of a row


@dataclass(frozen=True)
class Committed:
    """A leaf and whose it is: an account's name, or ``public``."""

    subject: str
    leaf: Leaf
    leaf_hash: bytes


PUBLIC = "public"


@dataclass(frozen=True)
class BatchTree:
    """A batch's leaves, by inner tree, and the tree over those."""

    parts: list[tuple[list[Committed], MerkleTree]]
    outer: MerkleTree

    @property
    def root(self) -> bytes:
        return self.outer.root

    def proofs(self, subject: str) -> Iterator[tuple[Leaf, list[bytes]]]:
        """The leaves of a subject, each with its path to the batch's root."""
        for leaves, inner in self.parts:
            outer_path = self.outer.path(inner.root)
            for committed in leaves:
                if committed.subject == subject:
                    yield committed.leaf, inner.path(committed.leaf_hash) + outer_path


def keep_secret(tx: Connection, secret: bytes) -> None:
    """Keeps what salts are made from; the first one stays."""
    run = schema.run
    if tx.execute(select(run.c.value).where(run.c.key == _SECRET)).first() is None:
        tx.execute(insert(run), {"key": _SECRET, "value": secret.hex()})


def secret(connection: Connection) -> bytes:
    """What salts are made from; nothing where no batch was made yet."""
    run = schema.run
    return bytes.fromhex(connection.execute(select(run.c.value).where(run.c.key == _SECRET)).scalar() or "")


def batch_tree(connection: Connection, sequence: int) -> BatchTree | None:
    """The tree of the batch ``sequence``; None where no postings go with it, or what it commits was lost."""
    run, lost = schema.run, schema.recovery
    if connection.execute(
        select(lost.c.at).where(lost.c.first_sequence <= sequence, lost.c.last_sequence >= sequence)
    ).first():
        return None
    secret = connection.execute(select(run.c.value).where(run.c.key == _SECRET)).scalar()
    if secret is None:
        raise StoreError(f"{_SECRET} is missing: the market has made no batch")
    rows = connection.exec_driver_sql(
        "SELECT interval_start, revision, account, kind, amount_neur, energy_wh FROM posting"
        " WHERE batch = ? ORDER BY interval_start, revision, account, kind",
        (sequence,),
    ).all()
    parts = []
    for (start, revision), group in groupby(rows, key=lambda row: (row[0], row[1])):
        contents = [*_records(connection, start, revision), *_postings(group)]
        leaves = [
            _commit(bytes.fromhex(secret), start, revision, subject, kind, content)
            for subject, kind, content in contents
        ]
        parts.append((leaves, MerkleTree(committed.leaf_hash for committed in leaves)))
    if not parts:
        return None
    return BatchTree(parts, MerkleTree(inner.root for _, inner in parts))


def _commit(
    secret: bytes, start: int, revision: int, subject: str, kind: Kind, content: dict[str, Any]
) -> Committed:
    text = canonical_json({**content, "revision": revision}).decode()
    # Two leaves of one kind and subject (prices of buses) differ in content.
    leaf = Leaf(salt(secret, f"{start}/{revision}/{subject}/{kind}/{text}"), kind, start, text)
    return Committed(subject, leaf, leaf.hash())


def _records(connection: Connection, start: int, revision: int) -> Iterator[tuple[str, Kind, dict[str, Any]]]:
    """Metered energy, and with the first settlement also awards and prices."""
    metered = schema.metered
    for row in connection.execute(
        select(*metered.c["meter", "import_wh", "export_wh", "flag"])
        .where(metered.c.interval_start == start, metered.c.revision == revision)
        .order_by(metered.c.meter)
    ):
        yield household(row.meter), "reading", dict(row._mapping)
    if revision > 0:
        return
    award = schema.award
    for meter, body in connection.execute(
        select(award.c.meter, award.c.body).where(award.c.interval_start == start).order_by(award.c.meter)
    ):
        yield household(meter), "award", json.loads(body)
    clearing = schema.clearing
    root, record = connection.execute(
        select(clearing.c.root, clearing.c.record).where(clearing.c.interval_start == start)
    ).one()
    document = json.loads(record)
    yield PUBLIC, "clearing", {"root": root, "status": document["status"]}
    for price in document["prices"]:
        yield PUBLIC, "price", price


def _postings(rows: Iterable[Any]) -> Iterator[tuple[str, Kind, dict[str, Any]]]:
    """All of an account's postings are one leaf."""
    for account, group in groupby(rows, key=lambda row: row[2]):
        lines = [{"kind": kind, "amount_neur": neur, "energy_wh": wh} for _, _, _, kind, neur, wh in group]
        yield account, "posting", {"account": account, "postings": lines}
