"""What is stored first and told then: receipts and acknowledgements of what came in, and of what goes out
that it has left.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from sqlalchemy.exc import DatabaseError

from market.messages.models import Receipt, ReceiptKind, ReceiptResult
from market.service.clock import SimulatedClock
from market.service.gateway import Gateway
from market.service.ports import Standing
from market.service.store import Store, inputs, outbox
from meters.broker import Broker, free_port
from meters.mqtt import Inbox, Session
from tests.faults.promise import promise
from tests.service.process import query
from tests.service.scene import (
    DEPOSITS,
    DOMAIN,
    FEEDER_ID,
    MARKET,
    MEMBERS,
    SECONDS,
    START,
    Meters,
    order_of,
    reading_of,
    settings,
)

pytestmark = pytest.mark.needs("mosquitto")
OF = settings(4)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "market.sqlite"
    with Store(path, OF.identity()) as store, store.transaction() as tx:
        inputs.register(tx, OF, MEMBERS)
    return path


@asynccontextmanager
async def gateway(database: Path, port: int) -> AsyncIterator[Gateway]:
    """One that takes in what comes, the first gate being open."""
    clock = SimulatedClock(START - SECONDS)
    with Store(database, OF.identity(), busy_s=0.1) as store:
        async with Gateway(
            settings=OF,
            members=MEMBERS,
            signer=MARKET,
            domain=DOMAIN,
            store=store,
            clock=clock,
            host="127.0.0.1",
            port=port,
        ) as it:
            it.cover.renew(Standing(DEPOSITS, {}), {}, {})
            it.intake.open_gate(START, START - 300)
            it.intake.readings.watch_boundary(START - SECONDS)
            yield it


async def test_what_cannot_be_stored_is_neither_receipted_nor_taken_off_the_broker(database: Path) -> None:
    promise(
        "what a market cannot store it does not receipt, and the broker keeps it: the next market stores it "
        "and receipts it without its being sent again"
    )
    receipts = Inbox()
    subscriptions = [f"peergrid/v1/{FEEDER_ID}/+/receipt"]
    async with (
        Broker("mosquitto") as broker,
        Session("127.0.0.1", broker.port, "meters", receipts, subscriptions=subscriptions) as meters,
    ):
        async with gateway(database, broker.port) as first:
            with closing(sqlite3.connect(database, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                first.listen()
                await meters.publish(
                    Meters.message(order_of(0, START)), Meters.message(reading_of(1, START - SECONDS))
                )
                with pytest.raises(DatabaseError, match="locked"):
                    await first.news(60.0)
        async with gateway(database, broker.port) as second:
            assert query(database, "SELECT * FROM journal") == []
            # What the first one had sent before it ended is here by now: it said goodbye after it.
            assert len(receipts) == 0
            second.listen()
            async with asyncio.timeout(60):
                while len(receipts) < 2:
                    await second.news(0.1)
    told = [Receipt.model_validate_json(incoming.payload) for incoming in await receipts.batch()]
    assert {(receipt.kind, receipt.result) for receipt in told} == {
        (kind, ReceiptResult.ACCEPTED) for kind in (ReceiptKind.ORDER, ReceiptKind.READING)
    }
    assert query(database, "SELECT COUNT(*) FROM journal") == [(2,)]


async def test_what_is_to_leave_stays_in_the_outbox_until_the_broker_has_it(database: Path) -> None:
    promise("what was stored to be told is told, whatever dies before the broker has it")
    port = free_port()
    broker = Broker("mosquitto", port=port)
    await broker.__aenter__()
    topic = f"peergrid/v1/{FEEDER_ID}/clearing"
    async with gateway(database, port) as first:
        with Store(database, OF.identity()) as store, store.transaction() as tx:
            outbox.put(tx, topic, "what was cleared")
        await broker.__aexit__(None, None, None)
        publishing = asyncio.create_task(first.publish_outbox())
        # It tries, and the market ends before anybody has heard of it.
        await asyncio.wait({publishing}, timeout=0.5)
        assert not publishing.done()
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
    heard = Inbox()
    async with (
        Broker("mosquitto", port=port),
        Session("127.0.0.1", port, "all", heard, subscriptions=[topic]),
        gateway(database, port) as second,
    ):
        await second.publish_outbox()
        (told,) = await heard.batch(timeout_s=60)
    assert told.payload == b"what was cleared"
    assert query(database, "SELECT * FROM outbox") == []
