"""Importing a net: what is wrong with it is named, and what is right becomes a feeder."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandapower as pp
import pandapower.networks as pn
import pandas as pd
import pytest
from pandapower.io_utils import to_dict_of_dfs

from grid.catalogue import open_feeder
from grid.errors import InputError
from grid.formats import read_net
from grid.limits import check_limits, network_limits
from grid.powerflow import PowerFlow
from grid.validation.connections import MeterRow, read_meters
from grid.validation.report import Validation
from market.cli.main import run

CASE_M = """function mpc = lane
mpc.version = '2';
mpc.baseMVA = 1;
mpc.bus = [
 1 3 0 0 0 0 1 1.0 0 0.4 1 1.1 0.9;
 2 1 0.01 0.002 0 0 1 1.0 0 0.4 1 1.1 0.9;
 3 1 0.02 0.002 0 0 1 1.0 0 0.4 1 1.1 0.9;
];
mpc.gen = [
 1 0 0 1 -1 1.0 1 1 1 -1 0 0 0 0 0 0 0 0 0 0 0;
];
mpc.branch = [
 1 2 0.1 0.05 0 0.1 0.1 0.1 0 0 1 -360 360;
 2 3 0.1 0.05 0 0.1 0.1 0.1 0 0 1 -360 360;
];
"""


@pytest.fixture
def net() -> Any:
    return pn.create_cigre_network_lv()


def meters_of(net: Any, fuse_a: float = 35) -> list[MeterRow]:
    return [MeterRow(i + 2, f"meter-{i}", str(bus), fuse_a=fuse_a) for i, bus in enumerate(net.load.bus)]


def found(net: Any, severity: str, meters: list[MeterRow] | None = None) -> dict[str, tuple[str, ...]]:
    findings = Validation(net, "a net", meters or []).findings
    return {f.check: f.elements for f in findings if f.severity == severity}


def test_a_sound_net_has_neither_errors_nor_warnings(net: Any) -> None:
    validation = Validation(net, "a net", meters_of(net))
    assert [f for f in validation.findings if f.severity != "note"] == []
    assert [meter.connection_point for meter in validation.connected] == [f"load:{i}" for i in net.load.index]


def breaks(column: str, value: Any, row: int = 3, table: str = "line") -> Callable[[Any], None]:
    def act(net: Any) -> None:
        if column not in net[table]:
            net[table][column] = np.nan
        net[table][column] = net[table][column].astype(object if isinstance(value, str) else float)
        net[table].loc[row, column] = value

    return act


def _island(net: Any) -> None:
    net.line.loc[net.line.index[-1], "in_service"] = False


def _wrong_ends(net: Any) -> None:
    net.line.loc[3, "to_bus"] = net.trafo.hv_bus.iloc[0]


def _off_neutral(net: Any) -> None:
    net.trafo[["tap_pos", "tap_neutral", "tap_min", "tap_max"]] = [2.0, 0.0, -2.0, 2.0]
    net.trafo["tap_changer_type"] = None


def _beyond_its_range(net: Any) -> None:
    net.trafo[["tap_pos", "tap_neutral", "tap_min", "tap_max"]] = [9.0, 0.0, -2.0, 2.0]


def _motor(net: Any) -> None:
    pp.create_motor(net, 5, pn_mech_mw=0.01, cos_phi=0.9)


@pytest.mark.parametrize(
    ("act", "severity", "check", "element"),
    [
        (breaks("max_i_ka", np.nan), "warning", "missing rating", "line:3"),
        (breaks("max_i_ka", 145.0), "warning", "absurd rating", "line:3"),
        (breaks("r_ohm_per_km", 397.0), "warning", "absurd impedance", "line:3"),
        (breaks("r_ohm_per_km", -0.1), "error", "impedance", "line:3"),
        (breaks("length_km", 35.0), "warning", "absurd length", "line:3"),
        (_wrong_ends, "error", "voltage levels", "line:3"),
        (breaks("vn_lv_kv", 0.69, 0, "trafo"), "error", "voltage levels", "trafo:0"),
        (breaks("sn_mva", np.nan, 0, "trafo"), "error", "missing rating", "trafo:0"),
        (breaks("vkr_percent", 9.0, 0, "trafo"), "error", "impedance", "trafo:0"),
        (breaks("vk_percent", 0.4, 0, "trafo"), "error", "impedance", "trafo:0"),
        (_beyond_its_range, "error", "tap changer", "trafo:0"),
        (_off_neutral, "warning", "tap changer", "trafo:0"),
        (_motor, "error", "not supported", "motor:0"),
        (_island, "error", "islands", "bus:43"),
        (breaks("min_vm_pu", 1.2, 12, "bus"), "error", "voltage band", "bus:12"),
        (breaks("max_vm_pu", 1.3, 12, "bus"), "warning", "voltage band", "bus:12"),
        (breaks("vn_kv", 0.0, 12, "bus"), "error", "voltage level", "bus:12"),
    ],
)
def test_what_is_wrong_is_named(
    net: Any, act: Callable[[Any], None], severity: str, check: str, element: str
) -> None:
    assert check not in found(net, severity)
    act(net)
    assert element in found(net, severity)[check]


def test_voltages_beyond_the_band_without_any_load_are_an_error(net: Any) -> None:
    net.ext_grid["vm_pu"] = 1.12
    assert "no-load voltage" in found(net, "error")


def test_meters_without_a_place_are_named_with_their_bus(net: Any) -> None:
    net.bus.loc[7, "in_service"] = False
    rows = [
        MeterRow(2, "a", "Bus R11"),
        MeterRow(3, "b", "Bus R99"),
        MeterRow(4, "a", "bus:12"),
        MeterRow(5, "c", "7"),
    ]
    errors = found(net, "error", rows)
    assert errors["meters on unknown buses"] == ("b (Bus R99)",)
    findings = Validation(net, "a net", rows).findings
    assert ("a",) in [f.elements for f in findings if f.check == "meters"]
    assert ("c (bus:7)",) in [f.elements for f in findings if f.check == "meters"]


def test_a_name_that_two_buses_have_is_no_place(net: Any) -> None:
    net.bus.loc[12, "name"] = net.bus.name.at[13]
    assert found(net, "error", [MeterRow(2, "a", net.bus.name.at[13])])["meters on unknown buses"]


def test_a_fuse_above_its_line_is_named_with_the_line_that_is_weakest(net: Any) -> None:
    rows = meters_of(net)
    last = rows[-1]
    strong = MeterRow(last.line, last.meter, last.bus, fuse_a=2000)
    text = next(
        f for f in Validation(net, "n", [*rows[:-1], strong]).findings if f.check == "fuse above line"
    )
    assert text.elements == (f"{last.meter} (1385.6 kW)",)
    assert "line" in text.text or "trafo" in text.text
    assert "fuse above line" not in found(net, "warning", rows)


def test_the_share_of_all_fuses_is_what_the_limits_allow(net: Any) -> None:
    """The share that is told keeps all limits, and a little more breaks one."""
    validation = Validation(net, "a net", meters_of(net, 63))
    words = next(f.text for f in validation.findings if f.text.startswith("drawing: the feeder carries"))
    share = float(words.split("carries ")[1].split(" %")[0]) / 100
    feeder = validation.feeder
    assert feeder is not None and 0.1 < share < 1
    p_w = np.zeros(feeder.node_count)
    for meter in validation.connected:
        p_w[feeder.node_of(meter.connection_point)] -= meter.fuse_w

    def violations(of: float) -> int:
        return check_limits(PowerFlow(feeder).solve(of * p_w, 0 * p_w), network_limits(feeder)).violations

    assert violations(share - 0.001) == 0
    assert violations(share + 0.001) > 0


def test_each_meter_gets_a_connection_point_of_its_own(net: Any) -> None:
    bus = int(net.load.bus.iloc[0])
    before = len(net.load)
    rows = [MeterRow(i, f"m{i}", str(bus)) for i in range(3)]
    validation = Validation(net, "a net", rows)
    points = [meter.connection_point for meter in validation.connected]
    assert points == ["load:0", f"load:{before}", f"load:{before + 1}"]
    assert validation.feeder is not None and all(validation.feeder.node_of(point) for point in points)
    assert len(net.load) == before, "the net that was given stays as it is"


def write_excel(net: Any, path: Path) -> None:
    with pd.ExcelWriter(path, engine="openpyxl") as writer:
        for name, table in to_dict_of_dfs(net, include_results=False).items():
            table.to_excel(writer, sheet_name=name)


def test_json_and_excel_give_the_same_feeder(net: Any, tmp_path: Path) -> None:
    pp.to_json(net, str(tmp_path / "net.json"))
    write_excel(net, tmp_path / "net.xlsx")
    feeders = [Validation(read_net(tmp_path / f"net.{kind}"), "n").feeder for kind in ("json", "xlsx")]
    assert feeders[0] is not None and feeders[1] is not None
    assert feeders[0].sha256 == feeders[1].sha256 == Validation(net, "n").feeder.sha256  # type: ignore[union-attr]


def test_a_matpower_case_is_a_feeder(tmp_path: Path) -> None:
    path = tmp_path / "lane.m"
    path.write_text(CASE_M)
    validation = Validation(read_net(path), "lane", [MeterRow(2, "m", "3")])
    assert validation.errors == []
    (meter,) = validation.connected
    assert validation.feeder is not None
    assert meter.bus == 3, "as the file counts"
    assert validation.net.load.p_mw.at[int(meter.connection_point.partition(":")[2])] == 0.02
    assert set(validation.feeder.branch) == {"line:0", "line:1"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("net.dwg", "", "'.dwg' is none of"),
        ("net.json", "[1, 2]", "net.json: is no pandapower net: pandapower.to_json writes one$"),
        ("net.json", '{"a": 1}', "net.json: is no pandapower net: pandapower.to_json writes one$"),
        ("net.json", "{", "net.json: is no pandapower net: pandapower.to_json writes one"),
        ("net.m", "hello", "is no MATPOWER case"),
        ("net.xlsx", "hello", "net.xlsx: is no pandapower net: pandapower.to_excel writes one"),
    ],
)
def test_what_is_no_net_is_refused(name: str, content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        read_net(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("meter;bus\na;1\n", "header: 'meter;bus' is not meter,bus"),
        ("meter,bus,fuse_a\na,1,many\n", "meters.csv:2: fuse_a: 'many' is no possible number"),
        ("meter,bus,fuse_a,fuse_w\na,1,35,20000\n", "meters.csv:2: fuse_w: '20000' stands beside fuse_a"),
        ("meter,bus\n,1\n", "meters.csv:2: meter: '' is missing"),
        ("meter,bus\n\na,1,2\n", "meters.csv:3: has more columns than the header"),
    ],
)
def test_a_list_of_meters_that_cannot_be_read_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "meters.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_meters(path)
    assert words in str(error.value)


def test_the_command_makes_a_folder_that_is_a_feeder(
    net: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, meters, out = tmp_path / "net.json", tmp_path / "meters.csv", tmp_path / "village"
    pp.to_json(net, str(source))
    lines = [f"{row.meter},{row.bus},0x{'ab' * 20},{row.fuse_a}" for row in meters_of(net)]
    meters.write_text("\n".join(["meter,bus,owner,fuse_a", *lines]) + "\n")
    arguments = ["feeder", "import", str(source), "--meters", str(meters), "--out", str(out)]
    assert run([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["fit"] and len(told["meters"]) == len(lines)
    assert open_feeder("village", tmp_path).sha256 == told["sha256"]
    assert told["sha256"] in (out / "README.md").read_text()
    with (out / "members.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["connection_point"] == "load:0" and rows[0]["fuse_w"] == str(round(3**0.5 * 400 * 35))
    assert run(["init", str(out), "--out", str(tmp_path / "market.toml")]) == 0
    assert run(arguments) == 2
    assert "exists already" in capsys.readouterr().err


def test_faulty_meters_are_told_by_the_line_of_their_list(
    net: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pp.to_json(net, str(tmp_path / "net.json"))
    (tmp_path / "meters.csv").write_text("meter,bus\na,7\n\nb,kitchen\na,8\n")
    files = [str(tmp_path / "net.json"), "--meters", str(tmp_path / "meters.csv")]
    assert run(["feeder", "import", *files]) == 2
    assert [line.split("/")[-1] for line in capsys.readouterr().err.splitlines()] == [
        "meters.csv:5: meters: 'a' stands in the list more than once",
        "meters.csv:4: meters on unknown buses: 'b (kitchen)' no bus has that index or name, or several"
        " have it",
    ]


def test_an_error_writes_nothing_and_is_told_by_name(
    net: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _island(net)
    pp.to_json(net, str(tmp_path / "net.json"))
    assert run(["feeder", "import", str(tmp_path / "net.json"), "--out", str(tmp_path / "out")]) == 2
    assert "islands: 'bus:" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
