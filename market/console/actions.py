"""What can be done from the console, and what can be taken along."""

from __future__ import annotations

import time
from typing import Any

from fastapi import HTTPException
from sqlalchemy import Connection

from market.accounts.ledger import household
from market.accounts.merkle import LEAF_TYPES
from market.console.alarms import alarms_of
from market.console.market import Market
from market.console.security import Visitor
from market.service.store import commitments, meter_views, views
from market.service.store.audit import ACKNOWLEDGE, AuditLog


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


def proofs(connection: Connection, meter: str, since: int, until: int) -> dict[str, Any] | None:
    """A household's leaves of every batch with intervals in ``[since, until)``, as OpenZeppelin's
    StandardMerkleTree takes them; None where there is no such meter.
    """
    if meter_views.meter(connection, meter) is None:
        return None
    account = household(meter)
    batches = []
    for sequence in views.account_batches(connection, account, since, until):
        tree = commitments.batch_tree(connection, sequence)
        batch = views.batch(connection, sequence)
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
