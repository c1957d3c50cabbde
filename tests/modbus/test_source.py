"""A Modbus source as an agent sees it: settings that cannot work, registers, setpoints by registers."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from grid.errors import InputError
from market.messages.models import Quality
from meters.modbus.emulator import Emulator, image_of, serving
from meters.modbus.line import Line, Place, parse_place
from meters.modbus.plant import DevicePlant
from meters.modbus.profile import FOLDER, RegisterProfile, find_profile
from meters.modbus.rates import Actuator
from meters.modbus.source import ModbusSource, ModbusSourceSettings, make_unit
from meters.source import SOURCES, Setpoint, Source, SourceError, Surroundings
from tests.modbus.faulty import Device
from tests.modbus.faulty import serving as serving_device
from tests.modbus.servers import libmodbus_tcp, write_image

NOW = 1_763_800_200


def settings(**more: Any) -> ModbusSourceSettings:
    known = {"kind": "modbus", "url": "tcp://127.0.0.1:502", "profile": "eastron-sdm630"}
    return ModbusSourceSettings.model_validate({**known, **more})


@contextlib.asynccontextmanager
async def surroundings(base: Path = Path()) -> Any:
    async with contextlib.AsyncExitStack() as stack:
        yield Surroundings(lambda: NOW, 900, base, stack)


def test_the_interface_names_these_settings() -> None:
    assert SOURCES["modbus"] == f"{ModbusSourceSettings.__module__}:{ModbusSourceSettings.__name__}"


@pytest.mark.parametrize(
    ("wrong", "blamed"),
    [
        ({"profile": "eastron-sdm631"}, "profile"),
        ({"url": "serial:/dev/x"}, "url"),
        ({"url": "rtu:///dev/ttyUSB0", "profile": "shelly-pro-3em"}, "url"),
        ({"pv": {"rated_w": 5000}}, "pv"),
        ({"battery": {"capacity_wh": 5000, "power_w": 100}, "profile": "sunspec-inverter"}, "battery"),
        (
            {
                "battery": {"capacity_wh": 5000, "power_w": 100},
                "pv": {"rated_w": 5000},
                "profile": "sunspec-battery",
            },
            "battery",
        ),
    ],
)
async def test_settings_that_cannot_work_are_refused_by_name(wrong: dict[str, Any], blamed: str) -> None:
    async with surroundings() as around:
        with pytest.raises(InputError) as told:
            await settings(**wrong).open(around)
    assert [problem.source for problem in told.value.problems] == [blamed]


async def test_meters_on_a_serial_line_have_its_settings() -> None:
    async with surroundings() as around:
        line = {"url": "rtu:///dev/ttyUSB0", "profile": "eastron-sdm630"}
        await settings(**line).open(around)
        await settings(**line, unit=2).open(around)
        with pytest.raises(InputError, match="another meter on rtu:///dev/ttyUSB0 has 9600 N1"):
            await settings(**line, unit=3, baud=19200).open(around)


async def test_a_profile_of_one_s_own_is_found_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text((FOLDER / "eastron-sdm630.yaml").read_text())
    async with surroundings(tmp_path) as around:
        source: Source = await settings(profile="mine.yaml").open(around)
        assert source.name == "tcp://127.0.0.1:502 unit 1 (mine.yaml)"
        assert source.device() is None


def meter(**values: float) -> Device:
    device = Device()
    for address, value in ((0x00, 230.0), (0x06, 1.0), (0x46, 50.0)):
        device.put(address, "f", value)
    device.put(0x48, "f", values.get("import_kwh", 10.0))
    device.put(0x4A, "f", values.get("export_kwh", 20.0))
    device.put(0x34, "f", values.get("power_w", 300.0))
    return device


@pytest.mark.parametrize(
    ("turned", "expected"),
    [
        ({}, (10_000, 20_000, -300)),
        ({"invert": True}, (20_000, 10_000, 300)),
        ({"invert_power": True}, (10_000, 20_000, 300)),
    ],
)
async def test_a_meter_mounted_the_other_way_round(
    turned: dict[str, bool], expected: tuple[int, int, int]
) -> None:
    async with serving_device(meter()) as url, surroundings() as around:
        reading = await (await settings(url=url, **turned).open(around)).read(NOW)
    assert (reading.import_wh, reading.export_wh, reading.power_w) == expected
    assert (reading.taken_at, reading.quality, reading.epoch) == (NOW, Quality.MEASURED, 0)


async def test_power_beyond_the_fuse_is_not_believed() -> None:
    async with serving_device(meter(power_w=9000.0)) as url, surroundings() as around:
        small = await settings(url=url, fuse_a=16, phases=1).open(around)
        with pytest.raises(SourceError, match="power -9000 W is more than twice the fuse rating of 3680 W"):
            await small.read(NOW)


async def test_a_serial_line_that_is_not_there_is_told(tmp_path: Path) -> None:
    async with surroundings() as around:
        source = await settings(url=f"rtu://{tmp_path}/ttyUSB7").open(around)
        with pytest.raises(SourceError, match=r"ttyUSB7 unit 1: .*no connection"):
            await source.read(NOW)


@pytest.mark.needs("gcc", "libmodbus")
async def test_a_setpoint_by_registers_is_read_back_and_released(
    register_server: Path, tmp_path: Path
) -> None:
    """SMA's registers on libmodbus: 40149 holds watts, 40151 says whether they count."""
    profile = find_profile("sma-sunny-boy-storage")
    tables = {"holding": {"9CD5": "0000 0000 0000 0323"}}  # 40149 to 40152; 803 is "off"
    image = write_image(tmp_path / "image", {3: tables})
    battery = Actuator("battery", 3000)
    with libmodbus_tcp(register_server, image) as url, closing(Line(parse_place(url))) as line:
        unit = make_unit(line, profile, 3)
        await unit.obey(-1500, battery)
        assert await line.read(3, 3, 40149, 4) == [0xFFFF, 0xFA24, 0, 802]
        await unit.obey(None, battery)
        assert await line.read(3, 3, 40151, 2) == [0, 803]


@pytest.mark.needs("gcc", "libmodbus")
async def test_a_limit_in_percent_without_a_switch_is_released_to_all(
    register_server: Path, tmp_path: Path
) -> None:
    """A profile of one's own: tenths of a percent of the rating in a single register, by function 6."""
    own = tmp_path / "mine.yaml"
    setpoint = "{address: 0x100, type: u16, scale: 0.1, unit: '%', positive: export}"
    own.write_text(
        (FOLDER / "eastron-sdm72.yaml").read_text()
        + f"control: {{device: generator, function: 6, setpoint: {setpoint}}}\n"
    )
    image = write_image(tmp_path / "image", {1: {"holding": {"0100": "03E8"}}})
    inverter = Actuator("generator", 5000)
    with libmodbus_tcp(register_server, image) as url, closing(Line(parse_place(url))) as line:
        unit = make_unit(line, find_profile(str(own)), 1)
        await unit.obey(1250, inverter)
        assert await line.read(1, 3, 0x100, 1) == [250]
        await unit.obey(None, inverter)
        assert await line.read(1, 3, 0x100, 1) == [1000]


async def test_a_setpoint_that_the_device_does_not_take_is_an_error() -> None:
    """It says yes to the write and holds what it held."""
    profile = find_profile("sma-sunny-boy-storage")
    device = Device()
    async with serving_device(device) as url:
        with closing(Line(parse_place(url))) as line:

            def deaf(request: Any) -> bytes:
                if request.function != 16:
                    answer: bytes = request.success([7] * request.words)
                    return answer
                echo: bytes = request.frame(bytes([16]) + bytes([0x9C, 0xD5, 0, 2]))
                return echo

            device.answer = deaf
            with pytest.raises(SourceError, match=r"holds \[7, 7\], not the \[0, 100\] written"):
                await make_unit(line, profile, 3).obey(100, Actuator("battery", 3000))


async def test_a_change_is_spread_over_a_ramp(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float | None] = []

    class Listening(DevicePlant):
        def obey(self, power_w: float | None, now: float, reverts_s: float) -> None:
            told.append(power_w)
            super().obey(power_w, now, reverts_s)

    profile = find_profile("sma-sunny-boy-storage")
    assert isinstance(profile, RegisterProfile)
    plant = Listening(lambda _: 0.0, NOW, capacity_wh=10_000)
    emulator = Emulator(image_of(profile, 3000), plant, 3, lambda: NOW)
    battery = {"capacity_wh": 10_000, "power_w": 3000}
    async with serving([emulator], Place("127.0.0.1", 0)) as place, surroundings() as around:
        source = await settings(
            url=str(place), profile="sma-sunny-boy-storage", battery=battery, ramp_s=3
        ).open(around)
        assert isinstance(source, ModbusSource)
        assert (await source.read(NOW)).power_w == 0
        pauses: list[float] = []
        ramping = asyncio.current_task()
        real_sleep = asyncio.sleep

        async def sleep(seconds: float) -> None:
            if asyncio.current_task() is ramping:  # others wait as well
                pauses.append(seconds)
            await real_sleep(0)

        monkeypatch.setattr("meters.modbus.source.asyncio.sleep", sleep)
        await source.apply(Setpoint(NOW, NOW + 900, net_w=900, flexible_w=900, offered_w=3000))
        assert [power for power, _ in groupby(told) if power is not None] == [300, 600, 900]
        assert pauses == [1, 1]
        assert (await source.read(NOW)).power_w == 900
        await source.apply(None)
        assert (await source.read(NOW)).power_w == 0
