"""What a broker, unruly messages and a machine's clock do to a market on the wall clock."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from market.messages.models import Clearing, Order, ReceiptKind, ReceiptResult
from market.messages.signing import UNSIGNED
from market.service.solver import SolverProcess
from market.service.store import Store, instructions
from meters.broker import Broker, free_port
from meters.mqtt import Inbox, Message, Session
from tests.faults import live_stand
from tests.faults.live_stand import CLOSURE_S, PATIENCE_S, stand
from tests.faults.promise import promise
from tests.service import scene
from tests.service.scene import (
    DOMAIN,
    FEEDER,
    FEEDER_ID,
    METERS,
    SECONDS,
    START,
    Meters,
    alongside,
    living_meters,
    order_of,
    reading_of,
)

pytestmark = [pytest.mark.needs("mosquitto"), pytest.mark.timeout(240)]
AT_ONCE, SENT_MIN = 50, 1_500
BETTER, CONTRARY, IN_TIME, LATE = 100, 101, 102, 103


def answers(meters: Meters, version: int) -> list[ReceiptResult]:
    return [r.result for r in meters.receipts if (r.kind, r.up_to) == (ReceiptKind.ORDER, version)]


def gates_heard(meters: Meters) -> int:
    return sum(topic.endswith("/gate") for topic in meters.topics)


def other_body(order: Order) -> Order:
    changed = order.model_copy(update={"firm_import_wh": order.firm_import_wh + 1, "sig": UNSIGNED})
    return METERS[0].sign(DOMAIN, changed)


@pytest.fixture(scope="module")
def solver() -> Iterator[SolverProcess]:
    with SolverProcess(FEEDER) as running:
        yield running


async def test_broker_messages_and_clock(tmp_path: Path, solver: SolverProcess) -> None:
    promise(
        "broker killed in the gate; each message three times and out of order; same id with another body; "
        "orders at gate closure ± 1 ms; machine's clock stepped ± 1 h: each order counts once or is refused, "
        "and every interval is cleared on the market's clock"
    )
    port, fate = free_port(), random.Random(2)
    first = Broker("mosquitto", port=port)
    await first.__aenter__()
    async with stand(tmp_path, port, solver) as market, living_meters(port) as meters:
        await market.whole(0)
        # The broker dies while the gate is open.
        await market.open(1)
        os.kill(first.pid, signal.SIGKILL)
        await first.ended()
        await first.__aexit__(None, None, None)
        heard = gates_heard(meters)
        async with Broker("mosquitto", port=port), Session("127.0.0.1", port, "rude", Inbox()) as rude:
            # The market tells the new broker of its gate, the households hear it there: both are back.
            await market.until(lambda: gates_heard(meters) > heard)
            await market.until_ordered(1, 4)
            start = START + SECONDS
            closes_at = start - CLOSURE_S
            # Each three times, out of order, and one with the number of another.
            good = order_of(0, start, BETTER)
            unruly = [good] * 3 + [order_of(0, start, CONTRARY)] * 3
            fate.shuffle(unruly)
            await rude.publish(*map(Meters.message, unruly))
            await market.until(lambda: len(answers(meters, CONTRARY)) >= 3)
            await rude.publish(Meters.message(other_body(order_of(0, start, CONTRARY))))
            await market.until(lambda: answers(meters, CONTRARY)[-1] == ReceiptResult.REJECTED)
            assert answers(meters, CONTRARY).count(ReceiptResult.ACCEPTED) == 1
            # A millisecond before the gate closes, and one after.
            market.go_to(closes_at - 0.001)
            await rude.publish(Meters.message(order_of(0, start, IN_TIME)))
            await market.until(lambda: bool(answers(meters, IN_TIME)))
            market.go_to(closes_at + 0.001)
            await rude.publish(Meters.message(order_of(0, start, LATE)))
            await market.until(lambda: bool(answers(meters, LATE)))
            assert answers(meters, IN_TIME) == [ReceiptResult.ACCEPTED]
            assert answers(meters, LATE) == [ReceiptResult.REJECTED]
            await market.close(1)
            # The machine's clock is set an hour ahead, then an hour back: the market's goes on.
            for number, stepped_s in ((2, 3600.0), (3, -3600.0)):
                market.stepped_s = stepped_s
                await market.whole(number)
            alarms = market.query("SELECT detail FROM alarm WHERE kind = 'clock'")
            assert "-3600 s" in alarms[0][0]
    assert market.clearings() == ["CLEARED"] * 4
    counted = market.query(f"SELECT MAX(version) FROM orders WHERE interval_start = {START + SECONDS}")
    assert counted == [(IN_TIME,)]
    assert market.query("SELECT COUNT(*) FROM alarm WHERE kind = 'contradiction'") == [(1,)]
    assert market.follows_from_its_journal()


async def test_a_market_without_a_broker_goes_on(tmp_path: Path, solver: SolverProcess) -> None:
    promise(
        "broker away for two gates: they are suspended and say why, what went before is settled, the market "
        "stops when it is told to, begins again and hears its operators; with the broker all that was stored "
        "to be told is told, and the next interval is cleared"
    )
    port, away = free_port(), ("the broker was away: nobody could hear of its gate",)
    first, later = Broker("mosquitto", port=port), Inbox()
    await first.__aenter__()
    async with living_meters(port) as meters:
        async with stand(tmp_path, port, solver) as market:
            for number in range(3):
                await market.whole(number)
            await market.until(lambda: len(meters.payloads.get("clearing", ())) == 3)
            await first.__aexit__(None, None, None)
            for number in (3, 4):
                await market.open(number)
                await market.close(number)
            await market.until_state(1, "FINAL")
        assert market.query("SELECT reason FROM transition WHERE state = 'SUSPENDED'") == [away] * 2
        now_s = market.machine_s
        async with stand(tmp_path, port, solver) as again:
            again.go_to(now_s)
            await again.until_state(2, "FINAL")
            with Store(again.database, {}) as store, store.transaction() as tx:
                instructions.give(tx, "op", "suspend", {"first_start": START + 6 * SECONDS}, "line work")
            await again.until(lambda: bool(again.query("SELECT * FROM journal WHERE kind = 'instruction'")))
            async with (
                Broker("mosquitto", port=port),
                Session("127.0.0.1", port, "all", later, subscriptions=[f"peergrid/v1/{FEEDER_ID}/clearing"]),
            ):
                await again.whole(5)
                await again.until(lambda: again.query("SELECT * FROM outbox") == [])
                told: list[Clearing] = []
                async with asyncio.timeout(PATIENCE_S):
                    while not told or told[-1].interval_start < START + 5 * SECONDS:
                        told += [Clearing.model_validate_json(one.payload) for one in await later.batch()]
    assert told[-1].status == "CLEARED"
    assert market.failures == again.failures == []
    assert again.clearings() == ["CLEARED"] * 3 + ["SUSPENDED"] * 2 + ["CLEARED"]
    assert again.follows_from_its_journal()


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize("change", ["2016-03-27T01:00:00+00:00", "2016-10-30T01:00:00+00:00"])
async def test_a_change_of_daylight_saving_time(
    tmp_path: Path, change: str, solver: SolverProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    promise("when the machine's local time jumps by an hour, intervals follow each other as ever")
    at = int(datetime.fromisoformat(change).timestamp())
    start = at - 2 * SECONDS
    assert abs(time.localtime(at).tm_hour - time.localtime(at - 1).tm_hour) != 1, "it jumps"
    for module in (scene, live_stand):
        monkeypatch.setattr(module, "START", start)
    async with Broker("mosquitto") as broker, living_meters(broker.port) as meters:
        meters._taken_at = start - 2 * SECONDS
        async with stand(tmp_path, broker.port, solver) as market:
            for number in range(5):
                await market.whole(number)
            await market.until_state(2, "FINAL")
    assert market.failures == [] and market.clearings() == ["CLEARED"] * 5
    starts = [row[0] for row in market.query("SELECT interval_start FROM interval ORDER BY 1")]
    assert starts == [start + number * SECONDS for number in range(5)]
    assert market.query("SELECT * FROM alarm") == []
    assert market.follows_from_its_journal()


async def test_the_others_clear_on_time(tmp_path: Path, solver: SolverProcess) -> None:
    promise(
        "for an hour one household sends garbage without a pause and another floods, half the meters fall "
        "silent: the others clear on time"
    )
    of_rude = f"peergrid/v1/{FEEDER_ID}/{METERS[3].address}"
    fate, sent = random.Random(7), 0

    def garbage() -> Message:
        return Message(f"{of_rude}/{fate.choice(('order', 'reading', 'sync'))}", fate.randbytes(200))

    def flood() -> Message:
        """Well formed, each another one, and signed by nobody."""
        reading = reading_of(2, START).model_copy(update={"seq": fate.randrange(1, 2**31)})
        return Meters.message(reading)

    async def misbehave(rude: Session) -> None:
        nonlocal sent
        while True:
            await rude.publish(*(make() for _ in range(AT_ONCE) for make in (garbage, flood)))
            sent += 2 * AT_ONCE

    async with (
        Broker("mosquitto") as broker,
        living_meters(broker.port) as meters,
        Session("127.0.0.1", broker.port, "rude", Inbox(), timeout_s=60) as rude,
        stand(tmp_path, broker.port, solver) as market,
    ):
        await market.whole(0)
        meters.silent |= {2, 3}
        async with alongside(misbehave(rude)):
            for number in range(1, 5):
                await market.open(number)
                before = sent
                await market.until_ordered(number, 2)
                await market.until(lambda before=before: sent >= before + SENT_MIN)
                if number >= 2:
                    market.go_to(START + (number - 1) * SECONDS + 181)  # readings are not waited for longer
                await market.close(number)
        assert market.failures == []
    assert market.clearings() == ["CLEARED"] * 5
    late = "SELECT * FROM transition WHERE state = 'CLEARED' AND at >= interval_start"
    assert market.query(late) == []
    assert market.orders(4) == 2
    (settled,) = market.query("SELECT COUNT(*) FROM interval WHERE state IN ('SETTLED', 'FINAL')")
    assert settled == (3,)
    assert market.query("SELECT COUNT(*) FROM evidence") == [(0,)]
    floods = {row[0] for row in market.query("SELECT subject FROM alarm WHERE kind = 'flood'")}
    assert floods == {METERS[2].address, METERS[3].address}
    assert market.follows_from_its_journal()
