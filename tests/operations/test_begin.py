"""How a market of real households begins: its keys, and a configuration to be filled in."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from market.cli.main import run
from market.cli.service_config import read_members, read_service

FEEDER = "pandapower:panda_four_load_branch"
WALLET = "0x" + "ab" * 20


def test_keys_are_made_once_and_their_addresses_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    market, settler = tmp_path / "market.key", tmp_path / "settler.key"
    assert run(["chain", "key", str(market)]) == 0
    (made,) = capsys.readouterr().out.splitlines()
    assert stat.S_IMODE(market.stat().st_mode) == 0o600
    assert run(["chain", "key", str(market), str(settler)]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[0] == made and len(told.out.splitlines()) == 2
    assert market.read_text().strip() not in told.out + told.err


def test_what_is_to_be_filled_in_is_named_and_then_all_is_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "market.toml"
    assert run(["init", FEEDER, "--real", "--out", str(config)]) == 0
    capsys.readouterr()
    assert run(["run", str(config)]) == 2
    assert [line.split(": ")[2] for line in capsys.readouterr().err.splitlines()] == [
        f"markets[0].treasuries.{role}" for role in ("retailer", "network", "imbalance", "rounding")
    ]
    config.write_text(config.read_text().replace("0x…", WALLET))
    (market,) = read_service(config).markets
    assert (market.key, market.members, market.simulation) == ("market.key", "members.csv", None)
    assert market.chain is not None and market.chain.registry_salt == "broker/authority/salt"


def test_every_line_of_members_that_is_wrong_is_told(tmp_path: Path) -> None:
    path = tmp_path / "members.csv"
    path.write_text(
        "meter,owner,connection_point,fuse_w,tan_phi_ppm\n"
        f"1ESY-0001,,load:0,43500,0\n{WALLET},{WALLET},load:9,43500,0\n{WALLET},{WALLET},load:1,63 A,0\n"
    )
    with pytest.raises(Exception, match="members") as told:
        read_members(path, {"load:0": 1, "load:1": 2})
    lines = str(told.value).splitlines()
    assert ["is no address" in line for line in lines] == [True, True, False, False]
    assert "members.csv:3: connection_point: 'load:9' is not on this feeder" in lines[2]
    assert "members.csv:4: fuse_w: '63 A' is no whole number" in lines[3]
