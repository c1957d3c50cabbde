"""What each step of the intake costs, one after the other in one thread, on messages of the bench."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from market.cli.ingest.load import payloads
from market.cli.ingest.plan import DOMAIN, FEEDER, Plan, members, settings, signer
from market.messages.models import Reading, Readings, Receipt, ReceiptKind, ReceiptResult
from market.messages.signing import UNSIGNED, message_digest, recover
from market.service.clock import WallClock
from market.service.cover import Cover
from market.service.intake import Intake
from market.service.parse import Heard, topic_of
from market.service.store import Store, inputs

_MESSAGES = 4_000
_METERS = 40
_BATCH = 250
T = TypeVar("T")


def stages_us(per_message: int) -> dict[str, float]:
    """CPU microseconds a message; ``store`` is judging, inserting and the commit in batches of 250."""
    count = max(_BATCH, _MESSAGES // per_message)
    plan = Plan(0, "", _METERS, count, 1.0, per_message)
    said = [(index, payload) for index in range(_METERS) for payload in payloads(plan, index)]
    model: type[Reading] | type[Readings] = Reading if per_message == 1 else Readings
    made: dict[str, float] = {}

    def spend(name: str, step: Callable[[], list[T]]) -> list[T]:
        began = time.process_time()
        result = step()
        made[name] = (time.process_time() - began) / len(said) * 1e6
        return result

    messages = spend("validate", lambda: [model.model_validate_json(payload) for _, payload in said])
    digests = spend("hash", lambda: [message_digest(DOMAIN, message) for message in messages])
    signers = spend("verify", lambda: [recover(d, m.sig) for d, m in zip(digests, messages, strict=True)])
    assert all(who == message.meter for who, message in zip(signers, messages, strict=True))
    heard = [
        Heard(topic_of(FEEDER, message.meter, "reading"), payload, message.meter, message, digest)
        for (_, payload), message, digest in zip(said, messages, digests, strict=True)
    ]
    of, all_members = settings(), members(_METERS)
    by_meter = {member.meter: member for member in all_members}
    with (
        tempfile.TemporaryDirectory(prefix="peergrid-bench-") as folder,
        Store(Path(folder) / "market.sqlite", of.identity()) as store,
    ):
        with store.transaction() as tx:
            inputs.register(tx, of, all_members)
        intake = Intake(of, by_meter, store, WallClock(), Cover(of, by_meter))
        spend("store", lambda: [intake.take(heard[at : at + _BATCH]) for at in range(0, len(heard), _BATCH)])
    receipt = Receipt(
        meter=messages[0].meter,
        kind=ReceiptKind.READING,
        up_to=0,
        result=ReceiptResult.ACCEPTED,
        received_at=0,
        digest="0x" + digests[0].hex(),
        sig=UNSIGNED,
    )
    market = signer("market")
    spend("receipt", lambda: [market.sign(DOMAIN, receipt).model_dump_json() for _ in said])
    return made
