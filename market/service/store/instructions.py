"""What operators ask of the market: written here by anybody who may, carried out by the market itself.

So there is one writer of the market's state, and what was asked, by whom, why and what came of it stays.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, insert, select, update

from market.service.store.schema import instruction as table

InstructionKind = Literal["suspend", "resume", "tariff", "grid", "member", "dispute", "resolve", "recover"]


@dataclass(frozen=True, slots=True)
class Instruction:
    """``refusal`` is None until the market has looked at it, and empty where it was carried out."""

    id: int
    given_at: int
    actor: str
    kind: InstructionKind
    body: Mapping[str, Any]
    reason: str
    done_at: int | None = None
    refusal: str | None = None


def give(tx: Connection, actor: str, kind: InstructionKind, body: Mapping[str, Any], reason: str) -> int:
    """Asks the market for something; the number under which its answer will be found."""
    row = {
        "given_at": int(time.time()),
        "actor": actor,
        "kind": kind,
        "body": json.dumps(body, sort_keys=True),
        "reason": reason,
    }
    number: int = tx.execute(insert(table).returning(table.c.id), row).scalar_one()
    return number


def waiting(connection: Connection) -> list[Instruction]:
    """What nobody has looked at yet, in order."""
    rows = connection.execute(select(table).where(table.c.done_at.is_(None)).order_by(table.c.id))
    return [_instruction(row) for row in rows]


def one(connection: Connection, number: int) -> Instruction | None:
    row = connection.execute(select(table).where(table.c.id == number)).one_or_none()
    return None if row is None else _instruction(row)


def answer(tx: Connection, number: int, at: int, refusal: str) -> None:
    tx.execute(update(table).where(table.c.id == number).values(done_at=at, refusal=refusal))


def _instruction(row: Any) -> Instruction:
    return Instruction(**{**row._asdict(), "body": json.loads(row.body)})
