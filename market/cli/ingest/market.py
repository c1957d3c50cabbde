"""The market's side of the bench: the gateway that trades, on a database of its own.

``python -m market.cli.ingest.market PLAN.json`` serves until SIGTERM, then writes when each message was on
the disk (``durable.json``) and what this process spent.
"""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from market.cli.ingest.plan import DOMAIN, Plan, members, settings, signer
from market.messages.models import Sync
from market.service.answer import Answer
from market.service.clock import WallClock
from market.service.gateway import Gateway
from market.service.parse import sender_of
from market.service.store import Store, inputs
from meters import lifeline
from meters.mqtt import Incoming


class _TimedGateway(Gateway):
    """Notes when a message's transaction was committed; a meter's messages come in order."""

    def __init__(self, **arguments: object) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]
        self.durable_s: dict[str, list[float]] = {}
        self.batches = 0

    def _take(self, batch: Sequence[Incoming]) -> tuple[list[Answer], list[Sync]]:
        result = super()._take(batch)
        now_s = time.monotonic()
        for incoming in batch:
            self.durable_s.setdefault(sender_of(incoming.topic), []).append(now_s)
        self.batches += 1
        return result


async def _serve(plan: Plan) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    lifeline.end_with_stdin()
    folder, of, all_members = Path(plan.folder), settings(), members(plan.connections)
    with Store(folder / "market.sqlite", of.identity()) as store:
        with store.transaction() as tx:
            inputs.register(tx, of, all_members)
        gateway = _TimedGateway(
            settings=of,
            members=all_members,
            signer=signer("market"),
            domain=DOMAIN,
            store=store,
            clock=WallClock(),
            host="127.0.0.1",
            port=plan.port,
        )
        async with gateway:
            gateway.listen()
            before = resource.getrusage(resource.RUSAGE_SELF)
            (folder / "market.ready").touch()
            await stop.wait()
            after = resource.getrusage(resource.RUSAGE_SELF)
    report = {
        "durable_s": gateway.durable_s,
        "batches": gateway.batches,
        "receipts": gateway.tally.receipts,
        "rejected": gateway.tally.messages_rejected,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "memory_mib": after.ru_maxrss / 1024,
    }
    (folder / "durable.json").write_text(json.dumps(report))


if __name__ == "__main__":
    asyncio.run(_serve(Plan(**json.loads(Path(sys.argv[1]).read_text()))))
