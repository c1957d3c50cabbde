"""SunSpec with pysunspec2 on the other side, as client and as device; setpoints and their end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from sunspec2 import device as sunspec_device
from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP

from meters.household.devices import Pv
from meters.modbus.emulator import Emulator, image_of, serving
from meters.modbus.line import Line, Place, parse_place
from meters.modbus.plant import DevicePlant
from meters.modbus.profile import find_profile
from meters.modbus.rates import Actuator
from meters.modbus.source import BatterySettings, ModbusSource, ModbusSourceSettings, PvSettings, make_unit
from meters.source import Setpoint, SourceError, Surroundings
from meters.strategies.interface import BatteryNow
from tests.modbus.faulty import Device
from tests.modbus.faulty import serving as serving_device
from tests.modbus.servers import libmodbus_tcp, modbus_tk_tcp, write_image

NOW = 1_763_800_200
RATED_W = 5000
MODELS = {"sunspec-meter": 203, "sunspec-inverter": 103, "sunspec-battery": 701}


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def emulated(profile_name: str, clock: Clock, free_w: float) -> AsyncIterator[Place]:
    profile = find_profile(profile_name)
    capacity_wh = 10_000.0 if "battery" in profile_name else None
    plant = DevicePlant(lambda _: free_w, clock.now, capacity_wh=capacity_wh, import_wh=500, export_wh=7000)
    emulator = Emulator(image_of(profile, RATED_W), plant, profile.unit, clock)
    async with serving([emulator], Place("127.0.0.1", 0)) as place:
        yield place


@contextlib.contextmanager
def pysunspec2(place: Place, unit: int = 1) -> Any:
    """pysunspec2's own client, scanned."""
    device = SunSpecModbusClientDeviceTCP(slave_id=unit, ipaddr=place.host, ipport=place.port, timeout=5)
    try:
        device.scan()
        yield device
    finally:
        device.disconnect()


@pytest.mark.parametrize("name", MODELS)
async def test_pysunspec2_reads_our_emulated_device(name: str) -> None:
    clock = Clock()

    def look(place: Place) -> None:
        with pysunspec2(place) as device:
            model = device.models[MODELS[name]][0]
            common = device.models[1][0]
            assert (common.Mn.value, common.SN.value) == ("Peergrid", "EMULATED1")
            assert not model.error_info
            assert model.points["Hz"].cvalue == 50
            assert model.points["VL1" if name == "sunspec-battery" else "PhVphA"].cvalue == 230
            if name == "sunspec-meter":
                assert model.points["W"].cvalue == -2000  # import is positive
                assert (model.points["TotWhImp"].cvalue, model.points["TotWhExp"].cvalue) == (500, 7000)
            elif name == "sunspec-battery":
                assert model.points["W"].cvalue == 2000
                assert (model.points["TotWhAbs"].cvalue, model.points["TotWhInj"].cvalue) == (500, 7000)
            else:
                assert (model.points["W"].cvalue, model.points["WH"].cvalue) == (2000, 7000)

    async with emulated(name, clock, 2000) as place:
        await asyncio.to_thread(look, place)


def image_of_models(models: list[Any], folder: Path) -> Path:
    data = b"SunS" + b"".join(model.get_mb() for model in models) + b"\xff\xff\0\0"
    words = " ".join(data[at : at + 2].hex() for at in range(0, len(data), 2))
    return write_image(folder / "image", {1: {"holding": {"9C40": words}}})


def image_of_file(name: str, folder: Path) -> Path:
    """A device that pysunspec2 brings for its own tests."""
    content = json.loads((files("sunspec2") / "tests" / "test_data" / name).read_text())
    models = [
        sunspec_device.Model(model["ID"], data=model) for model in content["models"] if model["ID"] != 0xFFFF
    ]
    return image_of_models(models, folder)


async def test_our_client_reads_pysunspec2_s_own_device(tmp_path: Path) -> None:
    """``device_1547.json``: 9800 W, 150 × 10³ Wh injected, none absorbed."""
    with (
        modbus_tk_tcp(image_of_file("device_1547.json", tmp_path)) as url,
        closing(Line(parse_place(url))) as line,
    ):
        poll = await make_unit(line, find_profile("sunspec-inverter"), 1).poll()
    told = {name: number.value for name, number in poll.found.items() if number is not None}
    assert (told["power_w"], told["export_wh"], told["import_wh"]) == (9800, 150_000, 0)
    assert float(told["frequency_hz"]) == 60.01


async def test_a_device_without_the_models_is_told_by_name(tmp_path: Path) -> None:
    with (
        modbus_tk_tcp(image_of_file("inverter_123.json", tmp_path)) as url,
        closing(Line(parse_place(url))) as line,
    ):
        with pytest.raises(SourceError, match=r"none of the models 201, 202, .* it has 1, 129"):
            await make_unit(line, find_profile("sunspec-meter"), 1).poll()
        with pytest.raises(SourceError, match="no model 704 or 123"):
            unit = make_unit(line, find_profile("sunspec-inverter"), 1)
            await unit.obey(100, Actuator("generator", RATED_W))


@pytest.mark.needs("gcc", "libmodbus")
async def test_what_is_no_sunspec_device_is_told(libmodbus: str) -> None:
    with (
        closing(Line(parse_place(libmodbus))) as line,
        pytest.raises(SourceError, match="Error scanning SunSpec base addresses"),
    ):
        await make_unit(line, find_profile("sunspec-meter"), 1).poll()


def award(clock: Clock, flexible_w: int, offered_w: int) -> Setpoint:
    start = int(clock.now)
    return Setpoint(start, start + 900, net_w=flexible_w, flexible_w=flexible_w, offered_w=offered_w)


@contextlib.asynccontextmanager
async def source(
    profile: str, place: Place, clock: Clock, **device: PvSettings | BatterySettings
) -> AsyncIterator[ModbusSource]:
    async with contextlib.AsyncExitStack() as stack:
        settings = ModbusSourceSettings(kind="modbus", url=str(place), profile=profile, **device)  # type: ignore[arg-type]
        opened = await settings.open(Surroundings(clock, 900, Path(), stack))
        assert isinstance(opened, ModbusSource)
        opened._monotonic = clock
        yield opened


async def test_an_inverter_is_curtailed_and_released() -> None:
    clock = Clock()
    async with (
        emulated("sunspec-inverter", clock, 4000) as place,
        source("sunspec-inverter", place, clock, pv=PvSettings(rated_w=RATED_W, price=1000)) as inverter,
    ):
        assert inverter.device() == Pv(5000.0, 1000)
        assert (await inverter.read(NOW)).power_w == 4000
        await inverter.apply(award(clock, 1500, 4000))
        clock.now += 900
        curtailed = await inverter.read(NOW)
        assert (curtailed.power_w, curtailed.export_wh) == (1500, 7000 + 375)
        await inverter.apply(award(clock, 4000, 4000))
        assert (await inverter.read(NOW)).power_w == 4000, "awarded all: free"
        await inverter.apply(award(clock, 0, 4000))
        assert (await inverter.read(NOW)).power_w == 0
        await inverter.apply(None)
        assert (await inverter.read(NOW)).power_w == 4000


async def test_an_inverter_frees_itself_when_nobody_speaks_any_more() -> None:
    """The gateway is gone: two intervals after the award's the limit ends all the same."""
    clock = Clock()
    async with emulated("sunspec-inverter", clock, 4000) as place:
        async with source("sunspec-inverter", place, clock, pv=PvSettings(rated_w=RATED_W)) as inverter:
            await inverter.read(NOW)
            await inverter.apply(award(clock, 1000, 4000))
        async with source("sunspec-inverter", place, clock) as watcher:
            clock.now += 3 * 900 - 1
            assert (await watcher.read(NOW)).power_w == 1000
            clock.now += 2
            assert (await watcher.read(NOW)).power_w == 4000


async def test_a_battery_charges_and_discharges_as_awarded() -> None:
    clock = Clock()
    battery = BatterySettings(capacity_wh=10_000, power_w=3000)
    async with (
        emulated("sunspec-battery", clock, 0) as place,
        source("sunspec-battery", place, clock, battery=battery) as store,
    ):
        assert store.device() is None, "nobody knows yet what is in it"
        assert (await store.read(NOW)).power_w == 0
        known = store.device()
        assert isinstance(known, BatteryNow)
        assert known.stored_wh == 5000
        await store.apply(award(clock, 2000, 3000))
        assert (await store.read(NOW)).power_w == 2000
        clock.now += 900
        await store.apply(award(clock, -9000, 9000))
        assert (await store.read(NOW)).power_w == -3000, "within its limits"
        known = store.device()
        assert isinstance(known, BatteryNow)
        assert known.stored_wh == 4500
        await store.apply(None)
        assert (await store.read(NOW)).power_w == 0


@pytest.mark.needs("gcc", "libmodbus")
@pytest.mark.parametrize(
    ("device", "power_w", "expected"),
    [
        ("generator", 1234, {"WMaxLimPctEna": 1, "WMaxLimPct": 24.68, "WMaxLimPctRvrtTms": 60}),
        ("generator", None, {"WMaxLimPctEna": 0}),
        ("battery", -1234, {"WSetEna": 1, "WSetMod": 1, "WSet": -1234, "WSetRvrtTms": 60}),
        ("battery", None, {"WSetEna": 0}),
    ],
)
async def test_model_704_as_pysunspec2_reads_it(
    device: str, power_w: int | None, expected: dict[str, float], register_server: Path, tmp_path: Path
) -> None:
    models = [
        sunspec_device.Model(1, data={"ID": 1, "L": 66, "Mn": "Maker"}),
        sunspec_device.Model(702, data={"ID": 702, "WMax": 5000, "W_SF": 0}),
        sunspec_device.Model(
            704, data={"ID": 704, "WMaxLimPct_SF": -2, "WSet_SF": 0, "WMaxLimPctRvrtTms": 0, "WSetRvrtTms": 0}
        ),
    ]
    for model in models:
        model.points["L"].value = len(model.get_mb()) // 2 - 2
    image = image_of_models(models, tmp_path)

    def look(url: str) -> None:
        with pysunspec2(parse_place(url)) as other:
            held = other.models[704][0]
            assert {name: held.points[name].cvalue for name in expected} == expected

    with libmodbus_tcp(register_server, image) as url, closing(Line(parse_place(url))) as line:
        unit = make_unit(line, find_profile("sunspec-inverter"), 1)
        await unit.obey(power_w, Actuator(device, 5000, reverts_s=60))  # type: ignore[arg-type]
        await asyncio.to_thread(look, url)


async def test_a_state_of_charge_is_read_anew_with_every_poll(tmp_path: Path) -> None:
    models = [
        sunspec_device.Model(1, data={"ID": 1, "Mn": "Maker"}),
        sunspec_device.Model(103, data={"ID": 103, "W": -700, "W_SF": 0, "WH": 5, "WH_SF": 0}),
        sunspec_device.Model(802, data={"ID": 802, "SoC": 555, "SoC_SF": -1}),
    ]
    for model in models:
        model.points["L"].value = len(model.get_mb()) // 2 - 2
    with (
        modbus_tk_tcp(image_of_models(models, tmp_path)) as url,
        closing(Line(parse_place(url))) as line,
    ):
        poll = await make_unit(line, find_profile("sunspec-battery"), 1).poll()
    charge = poll.found["charge_percent"]
    assert charge is not None
    assert float(charge.value) == 55.5


async def test_a_battery_that_does_not_count_what_it_takes_is_not_offered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = [
        sunspec_device.Model(1, data={"ID": 1, "Mn": "Maker"}),
        sunspec_device.Model(103, data={"ID": 103, "W": -700, "W_SF": 0, "WH": 5, "WH_SF": 0}),
        sunspec_device.Model(802, data={"ID": 802, "SoC": 555, "SoC_SF": -1}),
    ]
    for model in models:
        model.points["L"].value = len(model.get_mb()) // 2 - 2
    battery = BatterySettings(capacity_wh=10_000, power_w=3000)
    with modbus_tk_tcp(image_of_models(models, tmp_path)) as url:
        async with source("sunspec-battery", parse_place(url), Clock(), battery=battery) as store:
            for _ in range(2):
                assert (await store.read(NOW)).power_w == -700
            assert store.device() is None
    assert sum("its battery is not offered" in text for text in caplog.messages) == 1


async def test_a_read_that_is_cancelled_leaves_the_device_usable() -> None:
    """Silence while its models are read; the thread that waits is left behind, and nothing waits for it."""
    device = Device(words=dict(image_of(find_profile("sunspec-inverter"), RATED_W).words))
    clock = Clock()
    async with (
        serving_device(device) as url,
        source("sunspec-inverter", parse_place(url), clock) as inverter,
    ):
        assert (await inverter.read(NOW)).export_wh == 0
        device.answer = lambda request: None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await inverter.read(NOW)
        device.answer = None
        clock.now += 900
        assert (await inverter.read(NOW)).export_wh == 0
        device.answer = lambda request: request.exception(4)
        with pytest.raises(SourceError, match="exception code 4"):
            await inverter.read(NOW)
