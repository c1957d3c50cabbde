"""Every shipped profile reads images by its maker's definition from servers that are not pymodbus."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from meters.modbus.line import Line, parse_place
from meters.modbus.profile import Serial, find_profile, shipped
from meters.modbus.source import make_unit
from meters.modbus.unit import Poll
from tests.modbus.servers import (
    BAUD,
    Bus,
    Case,
    cases,
    libmodbus_rtu,
    write_image,
)

CASES = cases()
NOW = 1_763_800_000


def check(poll: Poll, case: Case) -> None:
    """To the last Wh; powers and volts to what the register holds."""
    told = {name: None if number is None else number.value for name, number in poll.found.items()}
    for name, expected in case.expected.items():
        if name == "identity":
            assert poll.identity == expected
        elif name.endswith("_wh") and expected is not None:
            value = told[name]  # type: ignore[index]
            assert value is not None
            assert round(value) == expected, name
        else:
            value = told[name]  # type: ignore[index]
            assert (value if value is None else float(value)) == pytest.approx(expected, abs=1e-9), name
    assert poll.taken_at == NOW


async def poll(url: str, case: Case, unit: int, serial: Serial | None = None) -> Poll:
    with closing(Line(parse_place(url), serial, timeout_s=10.0)) as line:
        return await make_unit(line, find_profile(case.profile), unit, lambda: NOW).poll()


@pytest.mark.needs("gcc", "libmodbus")
@pytest.mark.parametrize(("unit", "case"), list(enumerate(CASES, 1)), ids=map(str, CASES))
async def test_libmodbus_over_tcp(unit: int, case: Case, libmodbus: str) -> None:
    check(await poll(libmodbus, case, unit), case)


@pytest.mark.parametrize(("unit", "case"), list(enumerate(CASES, 1)), ids=map(str, CASES))
async def test_modbus_tk(unit: int, case: Case, modbus_tk: str) -> None:
    check(await poll(modbus_tk, case, unit), case)


RTU = [case for case in CASES if "rtu" in find_profile(case.profile).transports]


@pytest.mark.needs("gcc", "libmodbus")
@pytest.mark.parametrize("case", RTU, ids=str)
async def test_libmodbus_over_a_serial_line(case: Case, register_server: Path, tmp_path: Path) -> None:
    image = write_image(tmp_path / "image", {case.unit: case.registers})
    with Bus(units=1) as bus, libmodbus_rtu(register_server, image, bus.units[0]):
        check(await poll(bus.client, case, case.unit, Serial(baud=BAUD)), case)


@pytest.mark.needs("gcc", "libmodbus")
async def test_three_units_share_a_serial_line(register_server: Path, tmp_path: Path) -> None:
    some = [RTU[0], next(case for case in RTU if "em24" in case.profile), RTU[-1]]
    lines = [
        write_image(tmp_path / f"image{unit}", {unit: case.registers}) for unit, case in enumerate(some, 11)
    ]
    with (
        Bus(units=3) as bus,
        libmodbus_rtu(register_server, lines[0], bus.units[0]),
        libmodbus_rtu(register_server, lines[1], bus.units[1]),
        libmodbus_rtu(register_server, lines[2], bus.units[2]),
        closing(Line(parse_place(bus.client), Serial(baud=BAUD), timeout_s=10.0)) as line,
    ):
        for unit, case in enumerate(some, 11):
            profile = find_profile(case.profile)
            check(await make_unit(line, profile, unit, lambda: NOW).poll(), case)


def test_verified_means_that_an_image_was_read_back() -> None:
    for name, profile in shipped().items():
        covered = [case for case in CASES if case.profile == name]
        assert covered, name
        if profile.verified:
            assert len(covered) > 2, name
            assert profile.sources


def test_the_images_tell_export_and_rollover() -> None:
    for name, profile in shipped().items():
        expected = [case.expected for case in CASES if case.profile == name]
        if profile.verified and profile.protocol == "registers":
            assert any((values.get("power_w") or 0) > 0 for values in expected), name
            assert any((values.get("power_w") or 0) < 0 for values in expected), name
