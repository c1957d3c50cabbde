"""A meter enrolled by the command is registered on the chain by what it signed."""

from __future__ import annotations

import datetime as dt
import stat
from pathlib import Path

from click.testing import CliRunner

from contracts.registry import SignedBinding
from market.cli.main import cli
from meters.enrol import Terms, read_entry, read_terms
from meters.identity import read_key

FEEDER = "four-loads"


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout.strip()


def test_an_enrolled_meter_is_bound_to_its_owner_and_only_its_folder_holds_the_keys(
    stand, tmp_path: Path
) -> None:
    run("broker", "config", "--feeder", FEEDER, "--out", tmp_path)
    meter = run(
        *("meter", "enroll", "--owner", stand.address("rich"), "--connection-point", "load:7"),
        *("--chain-id", stand.domain.chain_id, "--registry", stand.domain.verifying_contract),
        *("--authority", tmp_path / "authority", "--out", tmp_path / "meter", "--days", 36500),
        *("--fuse-w", 24_000),
    )
    private = [
        "meter/meter.key",
        "meter/tls.key",
        "authority/ca.key",
        "authority/salt",
        "server.key",
        "market.key",
    ]
    for name in private:
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600, name
    assert read_key(tmp_path / "meter" / "meter.key").address == meter
    entry = read_entry(tmp_path / "meter" / "registry.json")
    assert "load:7" not in (tmp_path / "meter" / "registry.json").read_text()
    assert entry.deadline > dt.datetime.now(dt.UTC).timestamp()
    assert read_terms(tmp_path / "meter") == Terms(fuse_w=24_000)
    signed = SignedBinding(entry.binding(), entry.signature)
    stand.contracts.registry.register(stand.sender(stand.operator), "enrolled", [signed])
    bound = stand.contracts.registry.meter(meter)
    assert bound is not None
    assert bound.owner.lower() == stand.address("rich")


def test_a_key_is_never_replaced_and_bad_input_is_named(tmp_path: Path) -> None:
    run("broker", "config", "--feeder", FEEDER, "--out", tmp_path)
    again = CliRunner().invoke(cli, ["broker", "config", "--feeder", FEEDER, "--out", str(tmp_path)])
    assert "exists already: keys are not replaced" in str(again.exception)
    common = [
        "meter",
        "enroll",
        "--connection-point",
        "load:7",
        "--chain-id",
        "1",
        "--out",
        str(tmp_path / "m"),
    ]
    registry = "0x" + "bb" * 20
    bad = CliRunner().invoke(
        cli, [*common, "--owner", "0x12", "--registry", registry, "--authority", str(tmp_path / "authority")]
    )
    assert "--owner" in str(bad.exception)
    lost = CliRunner().invoke(
        cli, [*common, "--owner", registry, "--registry", registry, "--authority", str(tmp_path / "nowhere")]
    )
    assert "holds no authority" in str(lost.exception)
    assert not (tmp_path / "m").exists()
