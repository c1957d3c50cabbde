"""What a receipt is to say."""

from __future__ import annotations

from dataclasses import dataclass

from market.messages.models import ReceiptKind, ReceiptResult


@dataclass(frozen=True, slots=True)
class Answer:
    """The fields of a receipt; ``epoch`` is the one that a reading's ``up_to`` counts in."""

    meter: str
    kind: ReceiptKind
    up_to: int
    result: ReceiptResult
    digest: bytes
    received_at: int
    reason: str = ""
    field: str = ""
    epoch: int = 0
