"""An agent says the same whatever the network does, and believes only what the market signed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid.errors import StoreError
from market.messages.models import Award, Gate, Order, Reading, Receipt, ReceiptKind, ReceiptResult
from market.messages.signing import Signer, is_signed_by
from meters.agent import Agent, MarketPlace, Patience
from meters.mqtt import Message
from meters.outbox import Outbox, Writes
from meters.simulated import SimulatedAgent, SimulatedHousehold
from meters.strategies.truthful import truthful
from tests.meters.places import NOON, rich_household
from tests.meters.scripted_market import (
    DOMAIN,
    FEEDER,
    MARKET,
    SECONDS,
    award_for,
    gate_of,
    receipt_for,
)

PLACE = MarketPlace(FEEDER, MARKET.address, DOMAIN, SECONDS)
KEY = Signer(b"\x21" * 32)
STRANGER = Signer(b"\x22" * 32)


def new_agent() -> Agent:
    home = SimulatedHousehold(rich_household(), NOON - 2 * SECONDS, SECONDS, truthful)
    return SimulatedAgent(home, KEY, PLACE, Patience(resend_s=1.0, award_s=2.0))


@dataclass
class Bench:
    """An agent on a table: tells it things, and keeps what it says and stores."""

    agent: Agent = field(default_factory=new_agent)
    now_s: float = 0.0
    said: list[Message] = field(default_factory=list)
    store: Callable[[Writes], None] = lambda writes: None

    def tell(self, message: Gate | Award | Receipt) -> None:
        leaf = type(message).__name__.lower()
        self.tell_raw(leaf, message.model_dump_json().encode())

    def tell_raw(self, leaf: str, payload: bytes) -> None:
        writes = Writes()
        self.agent.hear(f"peergrid/v1/{FEEDER}/x/{leaf}", payload, self.now_s, writes)
        self.store(writes)
        self.speak()

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        writes = Writes()
        self.agent.wake(self.now_s, writes)
        self.store(writes)
        self.speak()

    def speak(self) -> None:
        for waiting in list(self.agent.due(self.now_s)):
            self.said.append(waiting.message)
            waiting.sent(self.now_s)

    def orders(self) -> list[Order]:
        return [
            Order.model_validate_json(m.payload) for m in self.said if m.topic == f"{self.agent.topic}/order"
        ]

    def readings(self) -> list[Reading]:
        topic = f"{self.agent.topic}/reading"
        return [Reading.model_validate_json(m.payload) for m in self.said if m.topic == topic]

    def waiting(self) -> list[tuple[int, int]]:
        return sorted((kind, number) for kind, _, number in self.agent._unreceipted)


def day(bench: Bench, waves: int, answer: bool = True) -> None:
    for wave in range(waves):
        start = NOON + wave * SECONDS
        bench.tell(gate_of(start, "OPEN"))
        bench.tell(gate_of(start, "CLOSED"))
        if answer:
            for reading in bench.readings():
                bench.tell(receipt_for(reading, start))
            order = bench.orders()[-1]
            bench.tell(receipt_for(order, start))
            bench.tell(award_for(order))


def test_each_wave_brings_one_reading_and_one_order_each_signed() -> None:
    bench = Bench()
    day(bench, 5)
    orders, readings = bench.orders(), bench.readings()
    assert [order.interval_start for order in orders] == [NOON + k * SECONDS for k in range(5)]
    assert [order.version for order in orders] == list(range(5))
    assert [reading.taken_at for reading in readings] == [NOON + k * SECONDS for k in range(-1, 4)]
    assert [reading.seq for reading in readings] == list(range(5))
    for message in (*orders, *readings):
        assert is_signed_by(DOMAIN, message, KEY.address)
    assert bench.waiting() == []


def test_the_last_two_readings_come_with_closed_gates_and_no_order_does() -> None:
    bench = Bench()
    day(bench, 3)
    bench.tell(gate_of(NOON + 3 * SECONDS, "CLOSED"))
    bench.tell(gate_of(NOON + 4 * SECONDS, "CLOSED"))
    assert bench.readings()[-1].taken_at == NOON + 3 * SECONDS
    assert len(bench.orders()) == 3


def test_gates_receipts_and_awards_may_come_twice_and_late() -> None:
    calm, wild = Bench(), Bench()
    day(calm, 4)
    awards: list[Award] = []
    for wave in range(4):
        start = NOON + wave * SECONDS
        for _ in range(3):
            wild.tell(gate_of(start, "OPEN"))
        for award in awards:
            wild.tell(award)
        wild.tell(gate_of(start, "OPEN"))
        wild.tell(gate_of(start, "CLOSED"))
        awards = [award_for(wild.orders()[-1])] * 2
    assert wild.orders() == calm.orders()
    assert wild.readings() == calm.readings()


def test_an_order_waits_for_the_last_award_but_not_for_ever() -> None:
    bench = Bench()
    bench.tell(gate_of(NOON, "OPEN"))
    bench.tell(gate_of(NOON, "CLOSED"))
    bench.tell(gate_of(NOON + SECONDS, "OPEN"))
    assert len(bench.orders()) == 1
    assert list(bench.agent.questions(bench.now_s)) == []
    bench.wait(0.5)
    assert [message.topic for message in bench.agent.questions(bench.now_s)] == [f"{bench.agent.topic}/sync"]
    assert list(bench.agent.questions(bench.now_s)) == []
    bench.wait(1.4)
    assert {order.version for order in bench.orders()} == {0}
    bench.wait(0.2)
    assert {order.version for order in bench.orders()} == {0, 1}


def test_what_has_no_receipt_is_sent_again_the_same_bytes_with_growing_waits() -> None:
    bench = Bench()
    bench.tell(gate_of(NOON, "OPEN"))
    at = [0.0, 0.0]
    for _ in range(600):
        before = len(bench.said)
        bench.wait(0.05)
        at += [bench.now_s] * (len(bench.said) - before)
    assert len(set(bench.said)) == 2
    at = [time for time, message in zip(at, bench.said, strict=True) if message == bench.said[0]]
    waits = [b - a for a, b in pairwise(at)]
    assert len(waits) >= 3
    assert 0.5 <= waits[0] <= 1.6
    assert waits[2] > waits[0]
    day(bench, 1)
    said = len(bench.said)
    bench.wait(100)
    assert len(bench.said) == said


def test_an_order_is_not_sent_again_after_its_gate_closed() -> None:
    bench = Bench()
    day(bench, 1, answer=False)
    bench.wait(100)
    assert len(bench.orders()) == 1


@pytest.mark.parametrize("kind", ["order", "reading"])
def test_a_forged_receipt_deletes_nothing(kind: str) -> None:
    bench = Bench()
    day(bench, 2)
    bench.tell(gate_of(NOON + 2 * SECONDS, "OPEN"))
    message = bench.orders()[-1] if kind == "order" else bench.readings()[-1]
    waiting = bench.waiting()
    assert len(waiting) == 2
    true = receipt_for(message, 0)
    forged = receipt_for(message, 0, STRANGER)
    for receipt in (
        forged,
        true.model_copy(update={"up_to": true.up_to + 1}),
        true.model_copy(update={"sig": forged.sig}),
        MARKET.sign(DOMAIN, true.model_copy(update={"meter": STRANGER.address})),
    ):
        bench.tell(receipt)
    assert bench.waiting() == waiting
    assert bench.agent.ignored == 4
    bench.tell(true)
    assert len(bench.waiting()) == 1


def test_a_receipt_for_other_content_than_was_sent_deletes_nothing() -> None:
    bench = Bench()
    bench.tell(gate_of(NOON, "OPEN"))
    receipt = receipt_for(bench.orders()[0], 0).model_copy(update={"digest": "0x" + "00" * 32})
    bench.tell(MARKET.sign(DOMAIN, receipt))
    assert (ReceiptKind.ORDER, 0) in bench.waiting()


def test_forged_or_impossible_awards_are_not_followed() -> None:
    true, false = Bench(), Bench()
    for bench in (true, false):
        bench.tell(gate_of(NOON, "OPEN"))
        bench.tell(gate_of(NOON, "CLOSED"))
    order = true.orders()[0]
    assert order.steps
    award = award_for(order)
    more = tuple(step.model_copy(update={"energy_wh": step.energy_wh * 9 + 9}) for step in award.steps)
    beyond = tuple(step.model_copy(update={"index": 15}) for step in award.steps[:1])
    for lie in (
        award_for(order, STRANGER),
        award.model_copy(update={"steps": ()}),
        award.model_copy(update={"price": 1}),
        MARKET.sign(DOMAIN, award.model_copy(update={"meter": STRANGER.address})),
        MARKET.sign(DOMAIN, award.model_copy(update={"steps": more})),
        MARKET.sign(DOMAIN, award.model_copy(update={"steps": beyond})),
    ):
        false.tell(lie)
    assert false.agent.ignored == 6
    for bench in (true, false):
        bench.tell(award)
        bench.tell(gate_of(NOON + SECONDS, "OPEN"))
        bench.tell(gate_of(NOON + 2 * SECONDS, "CLOSED"))
    assert false.readings() == true.readings()
    assert false.orders() == true.orders()


def test_a_refused_order_is_dropped_and_its_award_not_awaited() -> None:
    bench = Bench()
    bench.tell(gate_of(NOON, "OPEN"))
    refusal = receipt_for(bench.orders()[0], 0).model_copy(
        update={"result": ReceiptResult.REJECTED, "reason": "too late"}
    )
    bench.tell(MARKET.sign(DOMAIN, refusal))
    assert bench.waiting() == [(ReceiptKind.READING, 0)]
    bench.tell(gate_of(NOON + SECONDS, "OPEN"))
    assert len(bench.orders()) == 2


def test_what_is_malformed_is_ignored() -> None:
    bench = Bench()
    for payload in (b"", b"{", b"[]", b'{"v": 2}', b"\xff\xfe", b"9" * 10_000):
        for leaf in ("gate", "award", "receipt"):
            bench.tell_raw(leaf, payload)
    bench.tell_raw(
        "gate", gate_of(NOON, "OPEN").model_copy(update={"minutes": 30}).model_dump_json().encode()
    )
    assert bench.said == []
    assert bench.agent.ignored == 19


def test_an_absent_meter_reads_every_boundary_when_it_comes_back() -> None:
    bench = Bench()
    day(bench, 2)
    bench.tell(gate_of(NOON + 6 * SECONDS, "OPEN"))
    assert [reading.taken_at for reading in bench.readings()] == [NOON + k * SECONDS for k in range(-1, 6)]
    assert bench.orders()[-1].interval_start == NOON + 6 * SECONDS


def test_a_meter_with_a_past_asks_for_what_it_may_have_missed() -> None:
    bench = Bench()
    assert [m.topic.rsplit("/", 1)[1] for m in bench.agent.greeting()] == ["status"]
    day(bench, 3, answer=False)
    bench.wait(10)
    status, sync = bench.agent.greeting()
    assert status.retain
    assert sync.topic.endswith("/sync")
    assert f'"since":{NOON - 2 * SECONDS}' in sync.payload.decode()


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 40)))
def test_killed_and_restarted_at_any_point_it_says_the_same(tmp_path_factory, kills: set[int]) -> None:
    """Each thing told is a point at which it may die: before the commit, or just after it."""
    calm = Bench()
    day(calm, 4)

    folder = tmp_path_factory.mktemp("kill")
    outbox = Outbox(folder / "meters.sqlite", "test")
    bench = Bench()
    events = [0]

    def store(writes: Writes) -> None:
        dies = events[0] in kills
        events[0] += 1
        if not dies or events[0] % 2:
            outbox.commit(writes)
        if dies:
            bench.agent = restored(outbox)
            list(bench.agent.greeting())

    bench.store = store
    for wave in range(4):
        start = NOON + wave * SECONDS
        tries = 0
        while not any(order.interval_start == start for order in bench.orders()):
            tries += 1
            assert tries < 100
            bench.tell(gate_of(start, "OPEN"))
            for award in [award_for(order) for order in bench.orders()]:
                bench.tell(award)  # what sync brings
        bench.tell(gate_of(start, "CLOSED"))
        for reading in bench.readings():
            bench.tell(receipt_for(reading, start))
        bench.tell(award_for(bench.orders()[-1]))
    outbox.close()
    assert set(bench.said) == set(calm.said)


def restored(outbox: Outbox) -> Agent:
    agent = new_agent()
    for meter in outbox.meters():
        agent.restore(meter)
    for plan in outbox.plans():
        agent.restore_plan(plan)
    for row in outbox.waiting():
        agent.restore_waiting(row)
    return agent


def test_another_fleets_database_is_refused(tmp_path: Path) -> None:
    Outbox(tmp_path / "meters.sqlite", "one").close()
    Outbox(tmp_path / "meters.sqlite", "one").close()
    with pytest.raises(StoreError, match="another fleet"):
        Outbox(tmp_path / "meters.sqlite", "two")
    (tmp_path / "text").write_text("not a database, but long enough to be looked at" * 100)
    with pytest.raises(StoreError, match="text"):
        Outbox(tmp_path / "text", "one")
