"""What the market takes from meters, and what it refuses with which reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from grid.errors import StoreError
from market.messages.models import Message, Order, Reading, ReadingEntry, Readings, ReceiptKind, ReceiptResult
from market.messages.signing import UNSIGNED
from market.service.answer import Answer
from market.service.clock import SimulatedClock
from market.service.cover import Cover
from market.service.intake import Intake
from market.service.parse import Heard, Refusal, hear, topic_of
from market.service.ports import Standing
from market.service.readings import AHEAD_MAX
from market.service.settings import MarketSettings
from market.service.store import Store, alarms, inputs
from tests.service.scene import (
    DEPOSITS,
    DOMAIN,
    FEEDER_ID,
    MEMBERS,
    METERS,
    SECONDS,
    START,
    order_of,
    reading_of,
    settings,
    signer,
)

CLOSES_AT = START - 300
OF = settings(4)
BY_METER = {member.meter: member for member in MEMBERS}


class Desk:
    """An intake on a database of its own, with the first gate open."""

    def __init__(self, folder: Path, of: MarketSettings = OF) -> None:
        self.of = of
        self.store = Store(folder / "market.sqlite", of.identity())
        with self.store.transaction() as tx:
            inputs.register(tx, OF, MEMBERS)
        self.clock = SimulatedClock(START - SECONDS)
        self.cover = Cover(OF, BY_METER)
        self.cover.renew(Standing(DEPOSITS, {}), {}, {})
        self.intake = self.new_intake()

    def new_intake(self) -> Intake:
        intake = Intake(self.of, BY_METER, self.store, self.clock, self.cover)
        intake.open_gate(START, CLOSES_AT)
        intake.readings.watch_boundary(START - SECONDS)
        return intake

    def say(self, *messages: Message | tuple[str, bytes]) -> list[Answer]:
        heard, refused = [], []
        for message in messages:
            if isinstance(message, tuple):
                topic, payload = message
            else:
                subject = "order" if isinstance(message, Order) else "reading"
                topic = topic_of(FEEDER_ID, message.meter, subject)  # type: ignore[attr-defined]
                payload = message.model_dump_json().encode()
            said = hear(topic, payload, feeder=FEEDER_ID, members=BY_METER, domain=DOMAIN)
            assert said is not None
            if isinstance(said, Heard):
                heard.append(said)
            else:
                assert isinstance(said, Refusal)
                refused.append(self.intake.refused(said))
        return self.intake.take(heard) + refused

    def count(self, table: str) -> int:
        with self.store.reading() as connection:
            found: int = connection.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one()
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.store.close()


def resigned(order: Order, **changes: Any) -> Order:
    meter = METERS[[m.address for m in METERS].index(order.meter)]
    return meter.sign(DOMAIN, order.model_copy(update=changes))


def refusal(answers: list[Answer]) -> tuple[str, str]:
    (answer,) = answers
    assert answer.result == ReceiptResult.REJECTED
    return answer.field, answer.reason


def test_an_order_is_accepted_once_and_a_duplicate_afterwards_even_when_the_gate_has_closed(
    desk: Desk,
) -> None:
    order = order_of(0, START)
    (first,) = desk.say(order)
    assert (first.kind, first.up_to, first.result) == (ReceiptKind.ORDER, 0, ReceiptResult.ACCEPTED)
    assert desk.say(order)[0].result == ReceiptResult.DUPLICATE
    desk.intake.close_gate(START)
    assert desk.say(order)[0].result == ReceiptResult.DUPLICATE
    assert desk.count("orders") == 1
    assert desk.count("evidence") == 0


def test_the_same_version_with_other_content_is_refused_and_kept_as_evidence(desk: Desk) -> None:
    order = order_of(0, START)
    desk.say(order)
    field, reason = refusal(desk.say(resigned(order, firm_import_wh=1)))
    assert (field, reason) == ("version", "version 0 is stored with other content")
    assert (desk.count("orders"), desk.count("evidence")) == (1, 1)


def test_the_highest_version_stands(desk: Desk) -> None:
    for version in (0, 2, 1):
        answers = desk.say(order_of(0, START, version))
    assert refusal(answers) == ("version", "version 2 is stored already")
    with desk.store.reading() as connection:
        assert inputs.live_orders(connection, START)[METERS[0].address].order.version == 2


def test_an_order_after_gate_closure_or_for_another_interval_is_refused(desk: Desk) -> None:
    desk.clock.advance_to(CLOSES_AT)
    assert desk.say(order_of(0, START))[0].result == ReceiptResult.ACCEPTED
    desk.clock.advance_to(CLOSES_AT + 1)
    assert refusal(desk.say(order_of(1, START)))[0] == "interval_start"
    assert refusal(desk.say(order_of(1, START + SECONDS)))[0] == "interval_start"


def test_orders_beyond_tariff_fuse_feeder_or_collateral_are_refused_by_name(desk: Desk) -> None:
    order = order_of(0, START)
    step = order.steps[0]
    dear = resigned(order, steps=(step, step.model_copy(update={"limit_price": 2_000_001})))
    assert refusal(desk.say(dear))[0] == "steps[1].limit_price"
    assert refusal(desk.say(resigned(order, firm_import_wh=5_000)))[0] == "steps"
    assert refusal(desk.say(resigned(order, feeder="elsewhere")))[0] == "feeder"
    desk.cover.renew(Standing(DEPOSITS, {}), {f"household:{order.meter}": -99_000_000}, {})
    assert "µEUR short" in refusal(desk.say(order))[1]
    assert desk.count("orders") == 0


def test_forged_malformed_and_foreign_messages_are_refused_with_the_field(desk: Desk) -> None:
    order = order_of(0, START)
    meter = METERS[0].address
    topic = topic_of(FEEDER_ID, meter, "order")
    forged = signer("meter:load:1").sign(DOMAIN, order)
    assert refusal(desk.say(forged))[0] == "sig"
    document = order.model_dump(mode="json")
    assert refusal(desk.say((topic, json.dumps({**document, "v": 2}).encode())))[0] == "v"
    assert refusal(desk.say((topic, json.dumps({**document, "bribe": 1}).encode())))[0] == "bribe"
    assert (
        refusal(
            desk.say((topic_of(FEEDER_ID, METERS[1].address, "order"), order.model_dump_json().encode()))
        )[0]
        == "meter"
    )
    (answer,) = desk.say((topic, b"\xff{"))
    assert (answer.result, answer.up_to) == (ReceiptResult.REJECTED, 0)
    stranger = signer("stranger").address
    assert refusal(desk.say((topic_of(FEEDER_ID, stranger, "order"), b"{}")))[0] == "meter"
    assert desk.count("orders") == 0


def test_readings_are_answered_once_a_meter_up_to_the_first_gap(desk: Desk) -> None:
    readings = [reading_of(0, START + SECONDS * number) for number in range(-1, 4)]
    first, second, third, fourth, *_ = readings
    (answer,) = desk.say(first, second, fourth)
    assert (answer.up_to, answer.result) == (second.seq, ReceiptResult.ACCEPTED)
    (answer,) = desk.say(second)
    assert (answer.up_to, answer.result) == (second.seq, ReceiptResult.DUPLICATE)
    desk.intake = desk.new_intake()
    (answer,) = desk.say(third)
    assert (answer.up_to, answer.result) == (fourth.seq, ReceiptResult.ACCEPTED)
    assert desk.count("reading") == 4


def test_many_readings_under_one_signature_count_like_single_ones(desk: Desk) -> None:
    singles = [reading_of(0, START + SECONDS * number) for number in range(-1, 2)]
    entries = tuple(ReadingEntry(**r.model_dump(exclude={"v", "meter", "sig"})) for r in singles)
    together = Readings(meter=METERS[0].address, readings=entries, sig=UNSIGNED)
    desk.say(singles[1])
    (answer,) = desk.say(METERS[0].sign(DOMAIN, together))
    assert answer.up_to == singles[2].seq
    assert desk.count("reading") == 3


def test_a_reading_that_contradicts_a_stored_one_is_refused_and_kept_as_evidence(desk: Desk) -> None:
    reading = reading_of(0, START - SECONDS)
    changed = METERS[0].sign(DOMAIN, reading.model_copy(update={"import_wh": reading.import_wh + 1}))
    refused, standing = desk.say(reading, changed)
    assert (refused.result, refused.field) == (ReceiptResult.REJECTED, "seq")
    assert standing.result == ReceiptResult.ACCEPTED
    assert (desk.count("reading"), desk.count("evidence")) == (1, 1)
    desk.say(changed)
    assert desk.count("evidence") == 1
    with desk.store.reading() as connection:
        (alarm,) = alarms.alarms(connection)
    assert (alarm.kind, alarm.subject, alarm.count) == ("contradiction", reading.meter, 2)


def numbered(seq: int, epoch: int = 0, **changes: Any) -> Reading:
    reading = reading_of(0, START - SECONDS)
    return METERS[0].sign(DOMAIN, reading.model_copy(update={"epoch": epoch, "seq": seq, **changes}))


def test_nothing_is_receipted_before_the_first_reading_of_an_epoch(desk: Desk) -> None:
    assert desk.say(numbered(1)) == []
    (answer,) = desk.say(numbered(0))
    assert (answer.up_to, answer.result) == (1, ReceiptResult.ACCEPTED)


def test_every_epoch_counts_for_itself_and_both_are_told_to_who_asks(desk: Desk) -> None:
    desk.say(numbered(0), numbered(1))
    (answer,) = desk.say(numbered(0, epoch=1))
    assert (answer.epoch, answer.up_to, answer.result) == (1, 0, ReceiptResult.ACCEPTED)
    desk.intake = desk.new_intake()
    told = desk.intake.readings.progress_answers(METERS[0].address, START)
    assert [(answer.epoch, answer.up_to) for answer in told] == [(0, 1), (1, 0)]
    desk.say(*(numbered(0, epoch=epoch) for epoch in range(2, 9)))
    assert len(desk.intake.readings.progress_answers(METERS[0].address, START)) == 4
    (answer,) = desk.say(numbered(2))
    assert (answer.epoch, answer.up_to) == (0, 2)


def test_a_signed_reading_that_is_refused_leaves_no_gap_that_stops_receipts(tmp_path: Path) -> None:
    desk = Desk(tmp_path, settings(4, clock_skew_s=60))
    now = desk.clock.now()
    refused, first = desk.say(numbered(0), numbered(1, taken_at=now + 61))
    assert (refused.up_to, refused.result, refused.field) == (1, ReceiptResult.REJECTED, "taken_at")
    assert "61 s ahead" in refused.reason
    assert first.up_to == 1
    refused, first = desk.say(numbered(3, taken_at=now + 3600))
    assert (refused.up_to, first.up_to) == (3, 1)
    desk.intake = desk.new_intake()
    (answer,) = desk.say(numbered(2))
    assert answer.up_to == 3
    assert desk.count("reading") == 2
    desk.clock.advance_to(now + 3600)
    desk.say(numbered(3, taken_at=now + 3600))
    assert desk.count("reading") == 3
    desk.store.close()


def test_a_refusal_that_anybody_could_have_caused_settles_nothing(desk: Desk) -> None:
    desk.say(numbered(0))
    forged = signer("stranger").sign(DOMAIN, numbered(1))
    assert refusal(desk.say(forged)) == ("sig", "is not the meter's signature of this message")
    (answer,) = desk.say(numbered(2))
    assert answer.up_to == 0


def test_readings_far_beyond_a_gap_are_refused_so_that_memory_is_bounded(desk: Desk) -> None:
    field, reason = refusal(desk.say(numbered(AHEAD_MAX)))
    assert (field, reason) == ("seq", "seq 0 is missing since long: send it, or begin a new epoch")
    assert desk.say(numbered(AHEAD_MAX - 1)) == []
    assert desk.count("reading") == 1


def test_numbers_that_the_store_cannot_hold_are_refused_by_name(desk: Desk) -> None:
    for name in ("seq", "taken_at", "import_wh", "export_wh"):
        assert (
            refusal(desk.say(numbered(0, **{name: 2**63})) if name != "seq" else desk.say(numbered(2**63)))[0]
            == name
        )
    order = resigned(order_of(0, START), interval_start=2**63)
    assert refusal(desk.say(order))[0] == "interval_start"


def test_a_list_with_refused_readings_is_answered_once_and_keeps_the_others(tmp_path: Path) -> None:
    desk = Desk(tmp_path, settings(4, clock_skew_s=60))
    ahead = desk.clock.now() + 1000
    singles = [numbered(0), *(numbered(seq, taken_at=ahead) for seq in (1, 2, 3)), numbered(4)]
    entries = tuple(ReadingEntry(**r.model_dump(exclude={"v", "meter", "sig"})) for r in singles)
    together = Readings(meter=METERS[0].address, readings=entries, sig=UNSIGNED)
    refused, answer = desk.say(METERS[0].sign(DOMAIN, together))
    assert (refused.up_to, refused.field) == (1, "readings[1].taken_at")
    assert refused.reason.endswith("(and 2 more readings of this list are refused)")
    assert (answer.up_to, desk.count("reading")) == (4, 2)
    desk.store.close()


def test_what_could_not_be_stored_is_not_remembered_either(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(inputs, "add_orders", _disk_full)
        with pytest.raises(StoreError):
            desk.say(order_of(0, START), reading_of(0, START - SECONDS))
    assert desk.intake.silent(START) == set(BY_METER)
    assert desk.intake.readings.unread(START - SECONDS) == set(BY_METER)
    answers = desk.say(order_of(0, START), reading_of(0, START - SECONDS))
    assert [answer.result for answer in answers] == [ReceiptResult.ACCEPTED] * 2


def _disk_full(*_: object) -> None:
    raise StoreError("disk full")


def test_a_database_of_another_market_is_not_opened(tmp_path: Path) -> None:
    Store(tmp_path / "market.sqlite", OF.identity()).close()
    with pytest.raises(StoreError, match="seed is '1' there and '2' here"):
        Store(tmp_path / "market.sqlite", settings(4, seed=2).identity())
    (tmp_path / "none.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="not a database"):
        Store(tmp_path / "none.sqlite", OF.identity())


def test_members_cannot_change_under_a_market(desk: Desk) -> None:
    changed = [MEMBERS[0].model_copy(update={"bus": 5}), *MEMBERS[1:]]
    with desk.store.transaction() as tx, pytest.raises(StoreError, match="meters are not those of this run"):
        inputs.register(tx, OF, changed)


def test_what_is_no_topic_of_this_market_is_passed_over() -> None:
    for topic in (
        "peergrid/v1/elsewhere/0x/reading",
        f"peergrid/v1/{FEEDER_ID}/no-address/reading",
        f"peergrid/v1/{FEEDER_ID}/gate",
    ):
        assert hear(topic, b"", feeder=FEEDER_ID, members=BY_METER, domain=DOMAIN) is None


def test_a_reading_that_comes_after_its_time_is_told_of_once(desk: Desk) -> None:
    desk.say(reading_of(0, START - SECONDS))
    assert desk.intake.readings.take_late() is None
    desk.intake.readings.watch_boundary(START + SECONDS)
    desk.say(reading_of(0, START))
    assert desk.intake.readings.take_late() == START
    assert desk.intake.readings.take_late() is None


def test_between_a_restart_and_the_next_gate_every_reading_may_be_late(desk: Desk) -> None:
    """Nobody is watched yet: without this, what a long silent meter says then would change nothing."""
    desk.intake = Intake(desk.of, BY_METER, desk.store, desk.clock, desk.cover)
    desk.say(reading_of(0, START - SECONDS))
    assert desk.intake.readings.take_late() == START - SECONDS
