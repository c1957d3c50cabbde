"""What a Shelly stored fills a gap: counted back minute by minute, or not at all.

That a record bears the start of its minute, and that the counters move at its end, is in a device's own log
(iobroker-community-adapters/ioBroker.shelly issue 787: "Saving record ts = 1678699380" at 1678699440.9, then
the status of emdata:0). The form of answers is the documentation's (EMData.GetData, EM1Data.GetData).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.messages.models import Quality
from meters.adapters import listening
from meters.adapters.interface import PayloadError, Stretch
from meters.adapters.shelly import Shelly
from meters.adapters.stored import state_at
from meters.broker import Broker
from meters.modbus.energy import Counter, State
from meters.mqtt import Message
from tests.adapters.cases import Recorded
from tests.adapters.home import Clock, answering, opened, say, until

NAME = "shellypro3em-1"
DEVICE = {"adapter": "shelly", "device": NAME}
NOW = 1_799_999_100  # a quarter of an hour
KEYS = [f"{phase}_total_act{flow}_energy" for phase in "abc" for flow in ("", "_ret")]
PAGE = 20


def minute(start: int) -> list[float]:
    """Its record: 30 Wh drawn on each of two phases, 5.25 Wh delivered on the third."""
    return [30.0, 0, 30.0, 0, 0, 5.25] if start >= NOW - 1800 else [1.0, 0, 0, 0, 0, 0]


class Device:
    """Answers GetData from its memory, a page at a time."""

    def __init__(self, *, forgot: int | None = None) -> None:
        self.forgot = forgot
        self.questions: list[dict] = []

    def __call__(self, topic: str, payload: bytes) -> Iterable[Message]:
        asked = json.loads(payload)
        self.questions.append(asked)
        if asked["method"] == "Shelly.GetStatus":
            return
        start, end = asked["params"]["ts"], asked["params"]["end_ts"]
        blocks: list[dict] = []
        for at in range(start, min(end, start + 60 * PAGE), 60):
            if at == self.forgot:
                blocks.append({"ts": at + 60, "period": 60, "values": []})
                continue
            if not blocks:
                blocks.append({"ts": at, "period": 60, "values": []})
            blocks[-1]["values"].append(minute(at))
        result: dict = {"keys": KEYS, "data": blocks}
        if start + 60 * PAGE < end:
            result["next_record_ts"] = start + 60 * PAGE
        answer = {"id": asked["id"], "src": NAME, "dst": asked["src"], "result": result}
        yield Message(f"{asked['src']}/rpc", json.dumps(answer).encode())


def counters(ts: int, drawn: str, returned: str) -> Recorded:
    payload = (
        f'{{"method":"NotifyStatus","params":{{"ts":{ts}.21,"emdata:0":'
        f'{{"id":0,"total_act":{drawn},"total_act_ret":{returned}}}}}}}'
    )
    return Recorded(f"{NAME}/events/rpc", payload.encode(), retained=False)


async def test_an_hour_that_nobody_read_is_told_by_the_device(broker: Broker) -> None:
    clock = Clock(NOW - 3600 + 0.3)
    device = Device()
    async with contextlib.AsyncExitStack() as stack, answering(broker, [f"{NAME}/rpc"], device):
        source = await opened(broker, stack, clock, DEVICE)
        await say(broker, [counters(NOW - 3600, "100000.94", "2000.10")])
        await until(lambda: source._state is not None)
        first = await source.read(NOW - 3600)
        assert (first.taken_at, first.import_wh, first.export_wh) == (NOW - 3600, 100_000, 2_000)
        clock.time_s = NOW + 2.0
        await say(broker, [counters(NOW, "101830.94", "2157.60")])
        await until(lambda: source._state is not None and source._state.taken_at == NOW)
        readings = [await source.read(at) for at in range(NOW - 2700, NOW + 1, 900)]
    told = [(r.taken_at, r.import_wh, r.export_wh) for r in readings]
    assert told == [
        (NOW - 2700, 100_015, 2_000),
        (NOW - 1800, 100_030, 2_000),
        (NOW - 900, 100_930, 2_078),
        (NOW, 101_830, 2_157),
    ]
    assert {(r.quality, r.epoch) for r in readings} == {(Quality.MEASURED, 0)}
    asked = [q["params"] for q in device.questions if q["method"] == "EMData.GetData"]
    assert [params["ts"] for params in asked] == [NOW - 2700, NOW - 1500, NOW - 300]  # pages, asked for once


async def test_a_forgotten_minute_leaves_the_split_to_the_agent(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "RECORDS_S", 0.5)
    clock = Clock(NOW - 3600 + 0.3)
    device = Device(forgot=NOW - 600)
    async with contextlib.AsyncExitStack() as stack, answering(broker, [f"{NAME}/rpc"], device):
        source = await opened(broker, stack, clock, DEVICE)
        clock.time_s = NOW + 2.0
        await say(broker, [counters(NOW, "101830.94", "2157.60")])
        await until(lambda: source._state is not None)
        reading = await source.read(NOW - 900)
    assert (reading.taken_at, reading.import_wh) == (NOW, 101_830)


async def test_records_of_a_clock_that_is_wrong_are_not_used(broker: Broker) -> None:
    clock = Clock(NOW + 2.0)
    device = Device()
    async with contextlib.AsyncExitStack() as stack, answering(broker, [f"{NAME}/rpc"], device):
        source = await opened(broker, stack, clock, DEVICE)
        await say(broker, [counters(NOW - 120, "101830.94", "2157.60")])
        await until(lambda: source._state is not None)
        reading = await source.read(NOW - 900)
    assert reading.taken_at == NOW
    assert not [question for question in device.questions if question["method"] != "Shelly.GetStatus"]


@pytest.mark.parametrize(("second", "known"), [(0, False), (1, False), (2, True), (59, True)])
def test_an_answer_may_come_before_its_minute_is_counted(second: int, known: bool) -> None:
    status = {"emdata:0": {"total_act": 1.0, "total_act_ret": 0.0}, "sys": {"unixtime": NOW + second}}
    device = Shelly(adapter="shelly", device=NAME)
    heard = device.hear(f"{device.source}/rpc", json.dumps({"id": 0, "result": status}).encode())
    assert bool(heard.counters) is known


@given(
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 2000)), min_size=1, max_size=40),
    st.integers(0, 10**9),
    st.data(),
)
def test_energy_counted_back_is_what_was_stored(
    minutes: list[tuple[int, int]], raw_mwh: int, data: st.DataObject
) -> None:
    """Never negative, never more than the total, and exact where every minute is known."""
    stored = {
        60 * i: Stretch(60 * i, 60 * i + 60, Decimal(drawn).scaleb(-2), Decimal(returned).scaleb(-2))
        for i, (drawn, returned) in enumerate(minutes)
    }
    end = 60 * len(minutes)
    raw = (Decimal(raw_mwh).scaleb(-2), Decimal(raw_mwh).scaleb(-2))
    register = Counter(int(raw[0]), int(raw[0]) + 5)
    state = State(0, end, register, register)
    at = 60 * data.draw(st.integers(0, len(minutes) - 1))
    lost = data.draw(st.none() | st.integers(0, len(minutes) - 1))
    if lost is not None:
        del stored[60 * lost]
    past = state_at(state, raw, {"em:0": stored}, at, invert=False)
    drawn = sum((s.import_wh for s in stored.values() if s.start >= at), Decimal(0))
    returned = sum((s.export_wh for s in stored.values() if s.start >= at), Decimal(0))
    if (lost is not None and 60 * lost >= at) or max(drawn, returned) > raw[0]:
        assert past is None
        return
    assert past is not None
    assert past.imported.raw_wh == int(raw[0] - drawn)
    assert past.exported.raw_wh == int(raw[1] - returned)
    for counter in (past.imported, past.exported):
        assert counter.total_wh - counter.raw_wh == 5
        assert 0 <= counter.total_wh <= register.total_wh


@pytest.mark.parametrize(
    "result",
    [
        {"keys": KEYS, "data": [{"ts": NOW, "period": 60, "values": [[1.0]]}]},
        {"keys": KEYS, "data": [{"ts": NOW, "period": 60, "values": [[-1.0, 0, 0, 0, 0, 0]]}]},
        {"keys": KEYS, "data": [{"ts": None, "period": 60, "values": []}]},
        {"keys": ["a_avg_voltage"], "data": []},
        {"keys": KEYS, "data": {}},
    ],
)
def test_records_of_another_form_are_refused(result: dict) -> None:
    payload = json.dumps({"id": 1, "result": result}).encode()
    with pytest.raises(PayloadError):
        Shelly(adapter="shelly", device=NAME).history(payload)
