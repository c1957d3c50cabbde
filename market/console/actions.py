"""What can be done from the console, and what can be taken along."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException
from sqlalchemy import Connection

from market.accounts.ledger import household
from market.accounts.merkle import LEAF_TYPES
from market.console.alarms import alarms_of
from market.console.market import Market
from market.console.security import Visitor
from market.service.store import Store, batch_views, commitments, instructions, meter_views, views
from market.service.store.audit import ACKNOWLEDGE, AuditLog
from market.service.store.instructions import InstructionKind

WORDS: Mapping[str, str] = {
    "suspend": "suspend trading",
    "resume": "resume trading",
    "dispute": "contest an interval",
    "resolve": "decide dispute",
}
"""What the log calls an instruction."""


def acknowledge(audit: AuditLog, market: Market, visitor: Visitor, subject: str, reason: str) -> None:
    """Writes into the log who has seen an alarm and why it may rest. Raises 404 for one that is none."""
    with market.stored.reading() as connection:
        known = {alarm.subject for alarm in alarms_of(market, connection, {})}
    if subject not in known:
        raise HTTPException(404, f"there is no alarm {subject!r}")
    audit.add(
        at=int(time.time()),
        actor=visitor.name,
        role=visitor.role or "",
        action=ACKNOWLEDGE,
        feeder=market.name,
        subject=subject,
        reason=reason,
    )


def ask(
    audit: AuditLog,
    market: Market,
    visitor: Visitor,
    kind: InstructionKind,
    body: Mapping[str, Any],
    reason: str,
) -> int:
    """Leaves an instruction for the market, which carries it out and answers; the number under which its
    answer will be found. Raises 409 where no market will look at it.
    """
    with market.stored.reading() as connection:
        if not views.is_going_on(connection):
            raise HTTPException(409, "every interval of this market is final: nobody would carry it out")
    with Store(market.stored.place, {}) as store, store.transaction() as tx:
        number = instructions.give(tx, visitor.name, kind, body, reason)
    audit.add(
        at=int(time.time()),
        actor=visitor.name,
        role=visitor.role or "",
        action=WORDS[kind],
        feeder=market.name,
        subject=f"instruction {number}",
        reason=reason,
    )
    return number


def proofs(connection: Connection, meter: str, since: int, until: int) -> dict[str, Any] | None:
    """A household's leaves of every batch with intervals in ``[since, until)``, as OpenZeppelin's
    StandardMerkleTree takes them; None where there is no such meter.
    """
    if meter_views.meter(connection, meter) is None:
        return None
    account = household(meter)
    batches = []
    for sequence in batch_views.account_batches(connection, account, since, until):
        tree = commitments.batch_tree(connection, sequence)
        batch = batch_views.batch(connection, sequence)
        if tree is None or batch is None:
            continue
        leaves = [
            {"value": leaf.value(), "proof": ["0x" + node.hex() for node in path]}
            for leaf, path in tree.proofs(account)
            if since <= leaf.interval_start < until
        ]
        batches.append(
            {
                "sequence": sequence,
                "state": batch["state"],
                "root": batch["root"],
                "transaction": batch["tx_hash"],
                "leaves": leaves,
            }
        )
    return {"meter": meter, "leaf_encoding": list(LEAF_TYPES), "batches": batches}
