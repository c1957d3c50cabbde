"""``peergrid meter profiles``, ``probe`` and ``emulate``."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from market.cli.main import run
from meters.broker import free_port
from meters.modbus.line import Line, parse_place
from meters.modbus.probing import fitting
from meters.modbus.profile import FOLDER, json_schema, shipped
from tests.modbus.faulty import Device, serving
from tests.modbus.servers import cases, libmodbus_tcp, write_image

DOCUMENTED = Path(__file__).parents[2] / "docs" / "meters"
NAMED = [
    "abb-b23",
    "carlo-gavazzi-em24",
    "carlo-gavazzi-em340",
    "eastron-sdm120",
    "eastron-sdm230",
    "eastron-sdm630",
    "eastron-sdm72",
    "fronius-inverter",
    "janitza-umg",
    "schneider-iem3155",
    "shelly-pro-3em",
    "siemens-pac2200",
    "sma-inverter",
    "sunspec-inverter",
    "sunspec-meter",
]


def test_all_promised_types_are_there_with_their_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["meter", "profiles", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(NAMED) <= set(document)
    assert all(one["sources"] for one in document.values())
    assert not document["schneider-iem3155"]["verified"]
    assert document["schneider-iem3155"]["disputes"]


def test_the_published_schema_is_that_of_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["meter", "profiles", "--schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json_schema()
    assert json.loads((DOCUMENTED / "profile.schema.json").read_text()) == printed


def test_a_profile_of_one_s_own_is_shown_with_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text((FOLDER / "eastron-sdm72.yaml").read_text())
    assert run(["meter", "profiles", str(own)]) == 0
    assert "Eastron: SDM72D-M" in capsys.readouterr().out
    own.write_text(own.read_text().replace("address: 0x48", "address: 0x10048"))
    assert run(["meter", "profiles", str(own)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "mine.yaml: registers.import_wh.address: 65608" in line
    assert run(["meter", "profiles", "nothing"]) == 2
    assert "is no YAML file, and none of abb-b23" in capsys.readouterr().err


def unit_of(profile: str, name: str) -> str:
    return str(
        next(unit for unit, case in enumerate(cases(), 1) if (case.profile, case.name) == (profile, name))
    )


@pytest.mark.needs("gcc", "libmodbus")
def test_probe_shows_what_a_meter_says(libmodbus: str, capsys: pytest.CaptureFixture[str]) -> None:
    unit = unit_of("eastron-sdm630", "feeding in")
    words = ["meter", "probe", libmodbus, "--profile", "eastron-sdm630", "--unit", unit, "--seconds", "0"]
    assert run(words) == 0
    shown = capsys.readouterr().out
    assert "9,999,999 Wh  ok" in shown
    assert "7,890.25 W  ok (into the grid)" in shown
    assert run([*words, "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert seen["problems"] == []
    assert next(row for row in seen["rows"] if row["quantity"] == "power_w")["value"] == 7890.25


@pytest.mark.needs("gcc", "libmodbus")
def test_probe_says_what_is_wrong_in_plain_words(
    libmodbus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unit = unit_of("eastron-sdm630", "drawing")

    def told(*words: str) -> str:
        assert run(["meter", "probe", libmodbus, "--seconds", "0", *words]) == 1
        return capsys.readouterr().err

    def copy(change: Callable[[str], str]) -> str:
        own = tmp_path / "own.yaml"
        own.write_text(change((FOLDER / "eastron-sdm630.yaml").read_text()))
        return str(own)

    swapped = copy(lambda text: text.replace("words_max", "word_order: little\nwords_max"))
    assert "words are swapped: set word_order to big" in told("--profile", swapped, "--unit", unit)
    kilo = copy(lambda text: text.replace("type: f32, unit: W,", "type: f32, unit: W, scale: 0.001,"))
    assert "the register holds kW" in told("--profile", kilo, "--unit", unit)
    assert "does the profile fit?" in told("--profile", "abb-b23", "--unit", unit)
    assert "wrong unit id? there are answers from unit 1-3" in told("--profile", "abb-b23", "--unit", "199")


async def test_probe_sees_import_and_export_exchanged() -> None:
    """The power says export, and the import counter grows."""
    from meters.modbus.probing import look

    device = Device()
    for address, value in ((0x00, 230.0), (0x46, 50.0), (0x34, -1500.0), (0x48, 100.0), (0x4A, 50.0)):
        device.put(address, "f", value)
    async with serving(device) as url:
        with closing(Line(parse_place(url))) as line:
            looking = asyncio.ensure_future(look(line, shipped()["eastron-sdm630"], 1, 43_470, 0.3))
            while device.requests < 4:
                await asyncio.sleep(0.01)
            device.put(0x48, "f", 100.5)
            problems = (await looking).problems
    assert len(problems) == 1
    assert "import and export are exchanged" in problems[0]


@pytest.mark.needs("gcc", "libmodbus")
async def test_every_profile_is_found_by_its_own_image(libmodbus: str) -> None:
    profiles = shipped()
    first = {case.profile: unit for unit, case in reversed(list(enumerate(cases(), 1)))}
    for name, unit in first.items():
        with closing(Line(parse_place(libmodbus), timeout_s=10.0)) as line:
            fits = await fitting(line, unit, profiles, 43_470)
        assert name in [fit.profile for fit in fits], name
        if name not in ("eastron-sdm72", "sma-sunny-boy-storage"):  # they tell no volts
            assert next(fit for fit in fits if fit.profile == name).how == "sure"


@pytest.mark.needs("gcc", "libmodbus")
def test_scan_finds_units_and_profiles(
    register_server: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = next(case for case in cases() if case.profile == "abb-b23")
    strange = {"holding": {"0000": "0001 0002 0003"}}
    image = write_image(tmp_path / "image", {2: case.registers, 3: strange})
    with libmodbus_tcp(register_server, image) as url:
        assert run(["meter", "probe", url, "--scan", "--units", "2-3"]) == 0
        told = capsys.readouterr()
        assert told.out.startswith("unit 2: abb-b23")
        assert told.err == ""
        assert run(["meter", "probe", url, "--scan", "--units", "3"]) == 1
        assert "no profile makes sense of what unit 3 says" in capsys.readouterr().err
    assert run(["meter", "probe", url, "--scan", "--units", "9"]) == 1
    assert "none of the units 9 answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "blamed"),
    [
        (["ftp://somewhere", "--scan"], "is neither tcp://host:port nor rtu:///dev/name"),
        (["192.0.2.7:99999", "--scan"], "is no address"),
        (["192.0.2.7"], "either that, or --scan"),
        (["192.0.2.7", "--scan", "--units", "9-3"], "is no list such as 1-10,126"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(
    words: list[str], blamed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["meter", "probe", *words]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert blamed in told


def test_a_newcomer_tries_it_all_without_hardware(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    emulate = ["meter", "emulate", "--profile", "sunspec-inverter", "--url", url, "--power=1234"]
    with subprocess.Popen(
        [sys.executable, "-c", "from market.cli.main import main; main()", *emulate],
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stderr is not None
        assert "answers at" in server.stderr.readline()
        assert run(["meter", "probe", url, "--profile", "sunspec-inverter", "--seconds", "0"]) == 0
        assert "1,234.00 W  ok (into the grid)" in capsys.readouterr().out
        began = time.monotonic()
        server.terminate()
        assert server.wait(10) == 0
        assert time.monotonic() - began < 5
