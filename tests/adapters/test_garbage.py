"""Whatever is on the broker: a line that says why, or numbers that stand in the payload. Never a crash."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meters.adapters import fold
from meters.adapters.homeassistant import HomeAssistant
from meters.adapters.interface import PAYLOAD_BYTES_MAX, Heard, PayloadError, Reader
from meters.adapters.shelly import Shelly
from tests.adapters.cases import NAMES, Case, case

CASES = [case(name) for name in NAMES]
KINDS = sorted({recorded.device.adapter for recorded in CASES})
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**15, 10**40)
    | st.floats()
    | st.sampled_from(["", "12.5", "-3", "1e5", "١٢", "NaN", "ON", "0" * 400]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def heard(reader: Reader, topic: str, payload: bytes) -> Heard | None:
    """What the reader says; None with one line of bounded length where it says nothing."""
    try:
        return reader.hear(topic, payload)
    except PayloadError as error:
        assert str(error)
        assert "\n" not in str(error)
        assert len(str(error)) < 400
        return None


def of_kind(kind: str) -> list[Case]:
    return [recorded for recorded in CASES if recorded.device.adapter == kind]


def prepared(recorded: Case) -> Reader:
    """A reader that has heard what announces its device."""
    reader = recorded.device.reader()
    for message in recorded.messages:
        if message.retained:
            reader.hear(message.topic, message.payload)
    return reader


def check(reader: Reader, said: Heard | None) -> None:
    if said is None:
        return
    for value in said.counters.values():
        assert value.is_finite()
        assert 0 <= value < 10**22
    sample = fold.counted(fold.learn(fold.Known(), said, 1_800_000_000.0), reader, invert=False)
    if sample is not None:
        assert sample.imported.wh >= 0
        assert sample.exported.wh >= 0
        assert sample.imported.wh + sample.exported.wh <= 2 * sum(said.counters.values())


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(payload=st.binary(max_size=300))
@example(payload=b"[" * 60_000)
@example(payload=b'{"a":' * 10_000)
@example(payload=b"1" * 5_000)
@example(payload=b'{"ENERGY":{"Total":1e999999999999999999999}}')
@example(payload=b'{"ENERGY":{"Total":[[[1]]]}}')
@example(payload=b"x" * (PAYLOAD_BYTES_MAX + 1))
def test_any_bytes(kind: str, payload: bytes) -> None:
    recorded = of_kind(kind)[0]
    reader = prepared(recorded)
    for topic in {message.topic for message in recorded.messages}:
        check(reader, heard(reader, topic, payload))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=120)
@given(data=st.data())
def test_a_recorded_payload_with_a_value_exchanged(kind: str, data: st.DataObject) -> None:
    """Whatever stands where a number stood, no energy comes of it that is not written there."""
    recorded = data.draw(st.sampled_from(of_kind(kind)))
    reader = prepared(recorded)
    message = data.draw(st.sampled_from(recorded.messages))
    try:
        content = json.loads(message.payload)
    except ValueError:
        text = message.payload.decode()
        at = data.draw(st.integers(0, len(text) - 1))
        payload = (text[:at] + data.draw(st.text(max_size=3)) + text[at + 1 :]).encode()
    else:
        payload = json.dumps(_exchanged(content, data)).encode()
    check(reader, heard(reader, message.topic, payload))


def _exchanged(content: object, data: st.DataObject) -> object:
    if isinstance(content, dict) and content and data.draw(st.integers(0, 9)):
        key = data.draw(st.sampled_from(sorted(content)))
        return {**content, key: _exchanged(content[key], data)}
    if isinstance(content, list) and content:
        index = data.draw(st.integers(0, len(content) - 1))
        return [*content[:index], _exchanged(content[index], data), *content[index + 1 :]]
    return data.draw(JSON)


@given(JSON)
def test_any_answer_about_stored_records(content: object) -> None:
    device = Shelly(adapter="shelly", device="x")
    for answer in (
        content,
        {"id": 1, "result": content},
        {"id": 1, "result": {"keys": content, "data": content}},
    ):
        try:
            device.history(json.dumps(answer).encode())
        except PayloadError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for i in range(10) %}1{% endfor %}", "For is not read"),
        ("{{ ''.__class__.__mro__ }}", "is not read|unsafe|fails"),
        ("{{ value_json.total() }}", "Call is not read"),
        ("{{ 'a' * 100000000 }}", "fails"),
        ("{{ 10 ** 100000 }}", "Pow is not read"),
        ("{{ states('sensor.x') }}", "Call is not read|is not known"),
        ("{{ now }}", "'now' is not known"),
        ("{{ value_json.energy", "value_template"),
        ("{% import 'x' as y %}", "is not read"),
        ("{{ value_json.energy | float(0) }}", "a value is missing"),
        ("{{ value_json.energy | default(0) }}", "a value is missing"),
        ("{{ value_json['a']['b'] }}", "fails"),
        ("{{ value | int // 0 }}", "is not read"),
        ("{{ (value | int) / 0 }}", "fails"),
    ],
)
def test_templates_are_expressions_and_what_is_missing_stays_missing(template: str, reason: str) -> None:
    config = {
        "state_topic": "a",
        "unit_of_measurement": "kWh",
        "device_class": "energy",
        "state_class": "total_increasing",
        "value_template": template,
    }
    reader = HomeAssistant.model_validate({"adapter": "homeassistant", "import": "c"}).reader()
    with pytest.raises(PayloadError, match=reason):
        reader.hear("c", json.dumps(config).encode())
        reader.hear("a", b'{"power": 5}')


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"unit_of_measurement": "m³"}, "unit_of_measurement: 'm³' is none of Wh, kWh, MWh"),
        ({"unit_of_measurement": []}, "unit_of_measurement"),
        ({"device_class": "gas"}, "device_class: 'gas' is not 'energy'"),
        ({"state_class": "measurement"}, "state_class: 'measurement' is not 'total_increasing'"),
        ({"state_topic": "a/#"}, "state_topic: 'a/#' is no topic"),
        ({"state_topic": None}, "state_topic"),
        ({"value_template": 7}, "value_template: 7 is no template"),
    ],
)
def test_a_sensor_that_is_no_energy_counter_is_refused(changed: dict, reason: str) -> None:
    config = {
        "state_topic": "a",
        "unit_of_measurement": "kWh",
        "device_class": "energy",
        "state_class": "total_increasing",
        **changed,
    }
    reader = HomeAssistant.model_validate({"adapter": "homeassistant", "import": "c"}).reader()
    with pytest.raises(PayloadError, match=reason):
        reader.hear("c", json.dumps(config).encode())


def test_resolution_is_what_was_written() -> None:
    known = fold.Known()
    for text, step_wh in (("2173", 1000), ("2173.5", 100), ("2173.51", 10), ("2173.6", 10)):
        value = Decimal(text) * Decimal("1E3")
        known = fold.learn(known, Heard(counters={("import", "1"): value}), 1_800_000_000.0)
        assert fold._whole_step(known, "import") == step_wh
