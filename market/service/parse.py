"""From bytes on a topic to a message whose meter is known to have said it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from eth_hash.auto import keccak
from pydantic import ValidationError

from market.auction.book import validation_problems
from market.messages.models import Order, Reading, ReadingEntry, Readings, ReceiptKind, Status, Sync
from market.messages.signing import Domain, message_digest, recover
from market.service.settings import Member

Subject = Literal["order", "reading", "sync"]
PAYLOAD_BYTES_MAX = 128 * 1024
INTEGER_MAX = 2**63 - 1
"""What the store's integers hold."""
_ADDRESS = re.compile(r"0x[0-9a-f]{40}")
_KINDS = {"order": ReceiptKind.ORDER, "reading": ReceiptKind.READING, "sync": ReceiptKind.READING}


@dataclass(frozen=True, slots=True)
class Heard:
    """A message of the meter that the topic names; ``digest`` is what it signed."""

    topic: str
    payload: bytes
    meter: str
    message: Order | Reading | Readings | Sync
    digest: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message counts for nothing; ``field`` is the one to blame, ``up_to`` its seq or version."""

    meter: str
    kind: ReceiptKind
    up_to: int
    digest: bytes
    reason: str
    field: str = ""


def topic_of(feeder: str, meter: str, subject: str) -> str:
    return f"peergrid/v1/{feeder}/{meter}/{subject}"


def hear(
    topic: str, payload: bytes, *, feeder: str, members: Mapping[str, Member], domain: Domain
) -> Heard | Refusal | None:
    """What a message says, or why it is refused; None for what is no topic of a meter here."""
    parts = topic.split("/")
    if len(parts) != 5 or parts[2] != feeder or parts[4] not in _KINDS:
        return None
    meter, subject = parts[3], parts[4]
    if _ADDRESS.fullmatch(meter) is None:
        return None
    kind = _KINDS[subject]

    def refuse(reason: str, field: str = "") -> Refusal:
        return Refusal(meter, kind, _number(payload, kind), keccak(payload), reason, field)

    if meter not in members:
        return refuse("is no meter of this market", "meter")
    if len(payload) > PAYLOAD_BYTES_MAX:
        return refuse(f"the message has more than {PAYLOAD_BYTES_MAX} bytes")
    try:
        message = _decode(subject, payload)
    except ValidationError as error:
        problem = validation_problems(subject, error)[0]
        return refuse(f"{problem.value!r:.100} {problem.reason}"[:300], problem.field[:100])
    if message.meter != meter:
        return refuse("is not the meter of the topic", "meter")
    too_large = _too_large(message)
    if too_large:
        return refuse(f"is more than {INTEGER_MAX}", too_large)
    if isinstance(message, Sync):
        return Heard(topic, payload, meter, message, b"")
    digest = message_digest(domain, message)
    if recover(digest, message.sig) != meter:
        return refuse("is not the meter's signature of this message", "sig")
    return Heard(topic, payload, meter, message, digest)


def hear_status(topic: str, payload: bytes, feeder: str, members: Mapping[str, Member]) -> Status | None:
    """What a meter says of itself; None for what is malformed, or of nobody here. It is not signed: the
    broker's access list says whose topic it is, and nothing but a page depends on it.
    """
    meter = sender_of(topic)
    if topic != topic_of(feeder, meter, "status") or meter not in members or len(payload) > PAYLOAD_BYTES_MAX:
        return None
    try:
        status = Status.model_validate_json(payload)
    except ValidationError:
        return None
    return status if status.meter == meter and status.since <= INTEGER_MAX else None


def _decode(subject: str, payload: bytes) -> Order | Reading | Readings | Sync:
    if subject == "order":
        return Order.model_validate_json(payload)
    if subject == "sync":
        return Sync.model_validate_json(payload)
    if b'"readings"' in payload:
        return Readings.model_validate_json(payload)
    return Reading.model_validate_json(payload)


def entries_of(message: Reading | Readings) -> Sequence[Reading | ReadingEntry]:
    """The readings of a message that holds one or many."""
    if isinstance(message, Readings):
        return message.readings
    return (message,)


def _too_large(message: Order | Reading | Readings | Sync) -> str:
    """The first field that the store cannot hold, else nothing."""
    if isinstance(message, Order):
        return "interval_start" if message.interval_start > INTEGER_MAX else ""
    if isinstance(message, Sync):
        return "since" if message.since > INTEGER_MAX else ""
    for entry in entries_of(message):
        if max(entry.seq, entry.taken_at, entry.import_wh, entry.export_wh) > INTEGER_MAX:
            fields = ("seq", "taken_at", "import_wh", "export_wh")
            return next(name for name in fields if getattr(entry, name) > INTEGER_MAX)
    return ""


def _number(payload: bytes, kind: ReceiptKind) -> int:
    """The seq or version that a refused message claims, 0 where it cannot be told."""
    try:
        value = json.loads(payload)["version" if kind == ReceiptKind.ORDER else "seq"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return value if type(value) is int and 0 <= value < 2**64 else 0


def sender_of(topic: str) -> str:
    """The meter that a topic names, whoever it is."""
    parts = topic.split("/", 4)
    return parts[3] if len(parts) == 5 else ""
