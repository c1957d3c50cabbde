"""One meter that floods the market costs itself: the others are answered, and memory stays bounded."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from market.messages.models import Receipt, ReceiptResult
from market.service.budget import Allowance
from market.service.clock import SimulatedClock
from market.service.gateway import Gateway
from market.service.store import Store, alarms, inputs
from meters.broker import Broker
from meters.mqtt import Inbox, Message, Session
from tests.faults.promise import promise
from tests.service.scene import (
    DOMAIN,
    FEEDER_ID,
    MARKET,
    MEMBERS,
    METERS,
    SECONDS,
    START,
    reading_of,
    settings,
)

MESSAGES = 100_000 if os.environ.get("PEERGRID_TEST_LONG") == "1" else 20_000
AT_ONCE = 2_000
ANSWER_S_MAX = 10.0
GROWTH_MIB_MAX = 100


def topic(index: int, leaf: str) -> str:
    return f"peergrid/v1/{FEEDER_ID}/{METERS[index].address}/{leaf}"


@pytest.mark.needs("mosquitto")
async def test_a_flood_is_not_looked_at_and_others_are_answered_meanwhile(tmp_path: Path) -> None:
    promise(f"one meter sends {MESSAGES} messages at once: others are answered, and memory stays bounded")
    of, inbox = settings(4), Inbox()
    # Each is another message, signed by nobody: the market would have to check every signature.
    reading = reading_of(0, START - SECONDS)
    flood = [
        Message(topic(0, "reading"), reading.model_copy(update={"seq": n + 1}).model_dump_json().encode())
        for n in range(MESSAGES)
    ]
    async with Broker("mosquitto") as broker:
        with Store(tmp_path / "market.sqlite", of.identity()) as store:
            with store.transaction() as tx:
                inputs.register(tx, of, MEMBERS)
            async with (
                Gateway(
                    settings=of,
                    members=MEMBERS,
                    signer=MARKET,
                    domain=DOMAIN,
                    store=store,
                    clock=SimulatedClock(START - SECONDS),
                    host=broker.host,
                    port=broker.port,
                    allowance=Allowance(per_s=50.0, burst=1_000.0),
                ) as gateway,
                Session(broker.host, broker.port, "flood", Inbox(), timeout_s=120) as rude,
                Session(
                    broker.host, broker.port, "polite", inbox, subscriptions=[topic(1, "receipt")]
                ) as polite,
            ):
                gateway.listen()
                before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                await rude.publish(*flood[:AT_ONCE])
                flooding = asyncio.create_task(_publish(rude, flood[AT_ONCE:]))
                began, waits = time.monotonic(), []
                for k in range(5):
                    taken_at = START + (k - 1) * SECONDS
                    sent_s = time.monotonic()
                    await polite.publish(
                        Message(topic(1, "reading"), reading_of(1, taken_at).model_dump_json().encode())
                    )
                    async with asyncio.timeout(60):
                        receipt = await _receipt(inbox)
                    assert (receipt.result, receipt.up_to) == (ReceiptResult.ACCEPTED, k)
                    waits.append(time.monotonic() - sent_s)
                await flooding
                async with asyncio.timeout(120):
                    while gateway.tally.messages_in < MESSAGES + len(waits):
                        await gateway.news(0.2)
                growth_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024
            with store.reading() as connection:
                (alarm,) = alarms.alarms(connection)
                stored = connection.execute(text("SELECT meter FROM reading")).scalars().all()
    print(f"waits {waits}, {MESSAGES} in {time.monotonic() - began:.1f} s, {growth_mib:.0f} MiB more")
    assert max(waits) < ANSWER_S_MAX
    assert growth_mib < GROWTH_MIB_MAX
    assert set(stored) == {METERS[1].address}
    assert (alarm.kind, alarm.subject) == ("flood", METERS[0].address)
    assert alarm.count > 0.8 * MESSAGES


async def _publish(session: Session, messages: list[Message]) -> None:
    for first in range(0, len(messages), AT_ONCE):
        await session.publish(*messages[first : first + AT_ONCE])


async def _receipt(inbox: Inbox) -> Receipt:
    while True:
        batch = await inbox.batch()
        Inbox.done(batch)
        for incoming in batch:
            return Receipt.model_validate_json(incoming.payload)
