"""A device on a real broker is a source of readings: asked, doubted, remembered, never believed blindly."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import os
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from grid.errors import InputError
from market.messages.models import Quality
from meters.adapters import listening
from meters.adapters.source import MqttSourceSettings
from meters.broker import Broker, free_port, mosquitto_path
from meters.certificates import Authority, Period
from meters.mqtt import Message
from meters.source import SourceError, Surroundings
from tests.adapters.cases import Recorded, case
from tests.adapters.home import Clock, answering, opened, say, until

TASMOTA = {"adapter": "tasmota", "topic": "pow1"}
LONG_AGO = 0
MONDAY = 1_800_000_000.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANSWER_S", "PUSH_S"):
        monkeypatch.setattr(listening, name, 0.3)


def total(kwh: str, topic: str = "tele/pow1/SENSOR", power: str = "0") -> Recorded:
    payload = f'{{"Time":"2018-02-15T17:37:10","ENERGY":{{"Total":{kwh},"Power":{power}}}}}'
    return Recorded(topic, payload.encode(), retained=False)


@pytest.mark.parametrize(
    "name",
    [
        "tasmota-two-channels",
        "tasmota-sml-mt681",
        "shelly-pro3em",
        "shelly-proem-answer",
        "dsmr-v5",
        "dsmr-reader-topics",
        "homeassistant-glow",
        "homeassistant-short-keys",
        "generic-glow",
    ],
)
async def test_what_was_recorded_comes_through_a_broker_to_the_last_wh(broker: Broker, name: str) -> None:
    recorded = case(name)
    async with contextlib.AsyncExitStack() as stack:
        await say(broker, [message for message in recorded.messages if message.retained])
        source = await opened(broker, stack, time.time, recorded.settings, fuse_a=6000)
        announced = sum(message.retained for message in recorded.messages)
        if announced:
            await until(lambda: len(source._sessions) > 1)
            await until(lambda: all(session.connected.is_set() for session in source._sessions))
        await say(broker, [message for message in recorded.messages if not message.retained])
        await until(lambda: source._state is not None and source._problem == "")
        told = recorded.said[-1]
        assert told is not None
        await until(lambda: source._state is not None and source._state.imported.raw_wh == told[0])
        reading = await source.read(LONG_AGO)
    assert [reading.import_wh, reading.export_wh] == told[:2]
    assert (reading.epoch, reading.quality) == (0, Quality.MEASURED)
    assert 0 <= time.time() - reading.taken_at < 120


async def test_a_device_is_asked_at_the_boundary(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "ANSWER_S", 30.0)

    def answer(topic: str, payload: bytes) -> Iterable[Message]:
        assert (topic, payload) == ("cmnd/pow1/STATUS", b"10")
        yield Message("stat/pow1/STATUS10", b'{"StatusSNS":{"ENERGY":{"Total":6.404,"Power":100}}}')

    async with contextlib.AsyncExitStack() as stack, answering(broker, ["cmnd/pow1/STATUS"], answer):
        source = await opened(broker, stack, Clock(MONDAY), TASMOTA)
        reading = await source.read(int(MONDAY))
    assert (reading.import_wh, reading.power_w) == (6404, -100)
    assert reading.taken_at == MONDAY


async def test_a_device_that_cannot_be_asked_is_waited_for(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A telegram of eight seconds ago is not the boundary's when the next one is due."""
    monkeypatch.setattr(listening, "PUSH_S", 30.0)
    clock = Clock(MONDAY - 8)
    recorded = case("dsmr-v5")
    async with contextlib.AsyncExitStack() as stack:
        source = await opened(broker, stack, clock, recorded.settings)
        await say(broker, recorded.messages)
        await until(lambda: source._state is not None)
        clock.time_s = MONDAY + 2
        reading = asyncio.create_task(source.read(int(MONDAY)))
        await asyncio.sleep(0.05)
        assert not reading.done()
        await say(broker, recorded.messages)
        assert (await reading).taken_at == MONDAY + 2


async def test_a_silent_device_and_a_missing_broker_are_told(broker: Broker) -> None:
    async with contextlib.AsyncExitStack() as stack:
        source = await opened(broker, stack, time.time, TASMOTA)
        with pytest.raises(SourceError, match=r"tasmota tele/pow1/SENSOR on .*nothing heard yet"):
            await source.read(int(time.time()))
        settings = {"kind": "mqtt", "port": 1, "device": TASMOTA}
        around = Surroundings(time.time, 900, Path(), stack)
        nowhere = await MqttSourceSettings.model_validate(settings).open(around)
        with pytest.raises(SourceError, match="no broker"):
            await nowhere.read(int(time.time()))


async def test_what_the_broker_kept_is_of_no_known_age(broker: Broker) -> None:
    clock = Clock(MONDAY)
    async with contextlib.AsyncExitStack() as stack:
        old = total("5.000")
        await say(broker, [Recorded(old.topic, old.payload, retained=True)])
        source = await opened(broker, stack, clock, TASMOTA)
        with pytest.raises(SourceError, match="nothing heard yet"):
            await source.read(LONG_AGO)
        await say(broker, [total("6.000")])
        await until(lambda: source._state is not None)
        assert (await source.read(LONG_AGO)).import_wh == 6000


async def test_garbage_costs_one_line_and_no_energy(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "meters.adapters")
    garbage = [b"", b"\xff\x00", b"[1,2]", b'{"ENERGY":{"Total":-1}}', b'{"ENERGY":{"Total":NaN}}']
    async with contextlib.AsyncExitStack() as stack:
        source = await opened(broker, stack, Clock(MONDAY), TASMOTA)
        await say(broker, [total("6.000")])
        await until(lambda: source._state is not None)
        await say(broker, [Recorded("tele/pow1/SENSOR", b"not json", retained=False)] * 5)
        await say(broker, [Recorded("tele/pow1/SENSOR", payload, retained=False) for payload in garbage])
        await say(broker, [Recorded("stat/pow1/STATUS8", b"last", retained=False)])
        await until(lambda: "STATUS8" in source._problem)
        reading = await source.read(LONG_AGO)
    assert reading.import_wh == 6000
    lines = [record.message for record in caplog.records if "is not JSON" in record.message]
    assert sum("'not json'" in line for line in lines) == 1
    assert all("\n" not in record.message for record in caplog.records)


async def test_a_fall_is_doubted_then_a_new_epoch(broker: Broker) -> None:
    clock = Clock(MONDAY)
    async with contextlib.AsyncExitStack() as stack:
        source = await opened(broker, stack, clock, TASMOTA)

        async def hears(kwh: str, seconds: float) -> None:
            clock.time_s += seconds
            source._news.clear()
            await say(broker, [total(kwh)])
            await until(source._news.is_set)

        await hears("6.400", 0)
        assert (await source.read(LONG_AGO)).epoch == 0
        await hears("0.000", 30)  # a single zero is what a restarting device may say
        with pytest.raises(SourceError, match=r"6400 → 0 Wh.*not believed yet"):
            await source.read(LONG_AGO)
        await hears("6.410", 30)
        reading = await source.read(LONG_AGO)
        assert (reading.epoch, reading.import_wh) == (0, 6410)
        for kwh in ("0.000", "0.003", "0.007"):
            await hears(kwh, 60)
        reading = await source.read(LONG_AGO)
        assert (reading.epoch, reading.import_wh) == (1, 7)


async def test_a_jump_beyond_the_fuse_is_not_energy(broker: Broker) -> None:
    clock = Clock(MONDAY)
    async with contextlib.AsyncExitStack() as stack:
        source = await opened(broker, stack, clock, TASMOTA, fuse_a=16, phases=1)
        await say(broker, [total("6.400")])
        await until(lambda: source._state is not None)
        clock.time_s += 300
        await say(broker, [total("9.400")])
        await until(lambda: bool(source._doubt))
        with pytest.raises(SourceError, match="6400 → 9400 Wh"):
            await source.read(LONG_AGO)


async def test_what_is_too_old_is_no_reading(broker: Broker) -> None:
    clock = Clock(MONDAY)
    async with contextlib.AsyncExitStack() as stack:
        source = await opened(broker, stack, clock, TASMOTA)
        await say(broker, [total("6.400")])
        await until(lambda: source._state is not None)
        clock.time_s += 901
        with pytest.raises(SourceError, match="last heard 901 s ago"):
            await source.read(LONG_AGO)


async def test_a_restarted_gateway_goes_on_with_the_same_register(broker: Broker) -> None:
    clock = Clock(MONDAY)
    async with contextlib.AsyncExitStack() as stack:
        source = await opened(broker, stack, clock, TASMOTA)
        await say(broker, [total("6.400")])
        await until(lambda: source._state is not None)
        before = await source.read(LONG_AGO)
    clock.time_s += 3600
    async with contextlib.AsyncExitStack() as stack:
        source = await opened(broker, stack, clock, TASMOTA)
        source.restore(before.memory)
        with pytest.raises(SourceError, match="nothing heard yet"):  # what it knew is no reading
            await source.read(LONG_AGO)
        await say(broker, [total("8.000")])
        await until(lambda: source._state is not None and source._state.imported.raw_wh == 8000)
        after = await source.read(LONG_AGO)
    assert (after.epoch, after.import_wh - before.import_wh) == (0, 1600)


async def test_a_plug_before_a_generator_counts_what_is_fed_in(broker: Broker) -> None:
    async with contextlib.AsyncExitStack() as stack:
        source = await opened(broker, stack, Clock(MONDAY), TASMOTA, invert=True)
        await say(broker, [total("6.400", power="350")])
        await until(lambda: source._state is not None)
        reading = await source.read(LONG_AGO)
    assert (reading.import_wh, reading.export_wh, reading.power_w) == (0, 6400, 350)


async def test_power_alone_is_an_estimate_and_only_when_asked_for(broker: Broker) -> None:
    clock = Clock(MONDAY)
    device = dict(case("generic-no-counter").settings)
    watts = [Recorded("shellies/shellyem-123456789012/emeter/0/power", b"600", retained=False)]
    async with contextlib.AsyncExitStack() as stack:
        with pytest.raises(ValueError, match="counts no energy; estimate = true"):
            await opened(broker, stack, clock, device)
        with pytest.raises(ValueError, match="its energy is counted, not estimated"):
            await opened(broker, stack, clock, TASMOTA, estimate=True)
        source = await opened(broker, stack, clock, device, estimate=True)
        for seconds in (0, 60, 60, 3600):  # an hour of silence counts nothing
            clock.time_s += seconds
            source._news.clear()
            await say(broker, watts)
            await until(source._news.is_set)
        reading = await source.read(LONG_AGO)
    assert (reading.import_wh, reading.export_wh, reading.power_w) == (20, 0, -600)
    assert reading.quality == Quality.ESTIMATED


async def test_an_estimate_goes_on_after_a_restart(broker: Broker) -> None:
    clock = Clock(MONDAY)
    device = dict(case("generic-no-counter").settings)
    watts = [Recorded("shellies/shellyem-123456789012/emeter/0/power", b"6000", retained=False)]
    readings = []
    for _ in range(2):
        async with contextlib.AsyncExitStack() as stack:
            source = await opened(broker, stack, clock, device, estimate=True)
            if readings:
                source.restore(readings[0].memory)
            for _ in range(3):
                clock.time_s += 60
                source._news.clear()
                await say(broker, watts)
                await until(source._news.is_set)
            readings.append(await source.read(LONG_AGO))
    assert [(reading.epoch, reading.import_wh) for reading in readings] == [(0, 200), (0, 400)]


async def test_a_wrong_clock_is_told_and_ours_counts(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """Local time without a zone is compared within a quarter of an hour."""
    clock = Clock(MONDAY + 5 * 60 + 3600)
    async with contextlib.AsyncExitStack() as stack:
        source = await opened(broker, stack, clock, TASMOTA)
        payload = b'{"Time":"2027-01-15T08:00:00","ENERGY":{"Total":6.4,"Power":1}}'
        await say(broker, [Recorded("tele/pow1/SENSOR", payload, retained=False)])
        await until(lambda: source._state is not None)
        assert (await source.read(LONG_AGO)).taken_at == int(clock())
    assert sum("its clock is -300 s from ours" in record.message for record in caplog.records) == 1


def test_settings_name_what_is_wrong() -> None:
    def problem(**content: object) -> str:
        with pytest.raises(ValueError, match="validation error") as caught:
            MqttSourceSettings.model_validate({"kind": "mqtt", **content})
        return str(caught.value)

    assert "no_such" in problem(device={"adapter": "no_such"})
    assert "is no JSON path" in problem(
        device={"adapter": "generic", "import": {"topic": "a", "path": "energy["}}
    )
    assert "has none that could be switched" in problem(
        device={"adapter": "dsmr", "topic": "a"}, relay={"rated_w": 600}
    )
    assert "device.tasmota.topic" in problem(device={"adapter": "tasmota", "topic": "a/#"})
    assert "extra" in problem(device=TASMOTA, pasword="x")


async def test_a_password_that_others_may_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret")
    (tmp_path / "password").chmod(0o644)
    content = {"kind": "mqtt", "device": TASMOTA, "user": "me", "password_file": "password"}
    async with contextlib.AsyncExitStack() as stack:
        with pytest.raises(InputError, match="chmod 600") as caught:
            await MqttSourceSettings.model_validate(content).open(
                Surroundings(time.time, 900, tmp_path, stack)
            )
    assert "secret" not in str(caught.value)


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.needs("mosquitto")
async def test_a_broker_that_asks_for_a_password_and_speaks_tls(tmp_path: Path) -> None:
    port, tls_port = free_port(), free_port()
    authority = Authority.create(tmp_path / "authority", "home", dt.datetime.now(dt.UTC))
    authority.issue_server(tmp_path, "server", ["127.0.0.1"], Period(dt.datetime.now(dt.UTC), 1))
    tls_listener = (
        f"listener {tls_port} 127.0.0.1\n"
        f"certfile {tmp_path / 'server.crt'}\nkeyfile {tmp_path / 'server.key'}\n"
    )
    passwords, conf = tmp_path / "passwords", tmp_path / "mosquitto.conf"
    passwords.write_text("me:secret\n")
    passwords.chmod(0o600)
    subprocess.run(["mosquitto_passwd", "-U", passwords], check=True)
    user = "user root\n" if os.geteuid() == 0 else ""
    common = f"allow_anonymous false\npassword_file {passwords}\n{user}"
    conf.write_text(f"listener {port} 127.0.0.1\n{tls_listener}{common}")
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / "secret").chmod(0o600)
    content = {"kind": "mqtt", "port": port, "device": TASMOTA}
    program = mosquitto_path()
    assert program is not None
    broker = await asyncio.create_subprocess_exec(program, "-c", conf, stderr=asyncio.subprocess.DEVNULL)
    try:
        async with contextlib.AsyncExitStack() as stack:
            around = Surroundings(time.time, 900, tmp_path, stack)
            login = {"user": "me", "password_file": "secret"}
            let_in = await MqttSourceSettings.model_validate(content | login).open(around)
            stranger = await MqttSourceSettings.model_validate(content).open(around)
            await until(let_in._sessions[0].connected.is_set)
            over_tls = content | login | {"port": tls_port, "tls": True}
            ca_file = {"ca_file": str(authority.certificate_path)}
            private = await MqttSourceSettings.model_validate(over_tls | ca_file).open(around)
            await until(private._sessions[0].connected.is_set)
            mistrusted = await MqttSourceSettings.model_validate(over_tls).open(around)
            await until(lambda: "certificate verify failed" in mistrusted._sessions[0].problem)
            with pytest.raises(SourceError, match=r"no broker: .*[Nn]ot authorized"):
                await stranger.read(LONG_AGO)
    finally:
        broker.terminate()
        await broker.wait()
