"""``peergrid run`` with all its parts as an operator has them: processes, signals, a configuration."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from grid.errors import InputError
from market.cli.main import run as peergrid
from market.cli.service import simulated_world
from market.cli.service_config import read_members, read_service
from tests.faults.promise import promise
from tests.service.process import FEEDER, NAME, Service, is_event, query
from tests.service.process import config as config  # the fixtures
from tests.service.process import start as start

pytestmark = pytest.mark.timeout(900)


def kill_child_of(service: Service, *programs: str) -> None:
    """Broker and meters are children of the market's process."""
    children = subprocess.check_output(["ps", "--ppid", str(service.pid), "-o", "pid=,args="], text=True)
    found = [line.split()[0] for line in children.splitlines() if any(name in line for name in programs)]
    assert len(found) == 1, children
    os.kill(int(found[0]), signal.SIGKILL)


def pause(service: Service, database: Path) -> None:
    """Stops a market's process, at a moment when it writes nothing: what it held would be locked."""
    while True:
        service.send(signal.SIGSTOP)
        with closing(sqlite3.connect(database, timeout=0.5, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                service.send(signal.SIGCONT)
            else:
                return
        time.sleep(0.1)


def status(config: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert peergrid(["status", str(config), "--json"]) == 0
    (market,) = json.loads(capsys.readouterr().out)["markets"]
    return dict(market)


def test_it_is_killed_and_goes_on_is_told_to_stop_and_can_be_proven(
    config: Path, start: Callable[[str], Service], capsys: pytest.CaptureFixture[str]
) -> None:
    promise(
        "killed, its broker or its meters killed, told to stop: the market goes on, and everything follows "
        "from its journal"
    )
    database = config.parent / "market" / NAME / "market.sqlite"

    def newest_order() -> int:
        return int(query(database, "SELECT COALESCE(MAX(interval_start), 0) FROM orders")[0][0])

    first = start("first")
    first.until(is_event("cleared"))
    first.send(signal.SIGKILL)
    first.ended()

    second = start("second")
    second.until(is_event("settled"))
    kill_child_of(second, "mosquitto", "iotcore")
    before = len(second.events())
    second.until(lambda event: event.get("state") == "CLEARED", after=before)
    kill_child_of(second, "meters.fleet")
    second.until(is_event("meters"))
    ordered = newest_order()
    second.until(lambda _: newest_order() > ordered)
    now = status(config, capsys)
    assert now["feeder"] == NAME and now["held_by"]
    assert now["intervals"], "the newest is not final"
    second.send(signal.SIGTERM)
    assert second.ended() == 0, second.words()
    assert status(config, capsys)["held_by"] == "", "the lease was given back"

    assert peergrid(["replay", str(database), "--json"]) == 0
    replayed = json.loads(capsys.readouterr().out)
    assert replayed["same"] and replayed["entries"] > 20


def test_a_second_market_waits_and_one_that_overslept_its_lease_is_fenced(
    config: Path, start: Callable[[str], Service], capsys: pytest.CaptureFixture[str]
) -> None:
    promise("two markets on one database, a paused one that wakes up: one is the market, the other is fenced")
    first = start("first")
    first.until(is_event("gate opened"))
    second = start("second")
    second.until(lambda event: event["event"] == "lease" and bool(event["held_by"]))
    database = config.parent / "market" / NAME / "market.sqlite"
    pause(first, database)
    # The chain in the first one's process is still its own: the second has the lease, and waits for that.
    second.until(lambda event: event["event"] in ("market failed", "market runs"))
    first.send(signal.SIGCONT)
    assert first.ended() == 1
    assert "taken over by" in first.words().splitlines()[-1]
    second.until(is_event("market runs"))
    second.until(is_event("cleared"))
    second.send(signal.SIGTERM)
    assert second.ended() == 0, second.words()
    assert peergrid(["replay", str(database)]) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("gate_closure_s = 300", "gate_closure_s = -1"), "markets[0].gate_closure_s: -1"),
        (("[markets.simulation]", "[markets.simulations]"), "markets[0].simulations"),
        (('name = "', 'name = "Ä'), "markets[0].name"),
        (("seed = 1", 'seed = 1\nkey = "k"'), "key"),
        (
            ("gate_closure_s = 300", "gate_closure_s = 900"),
            "market.toml: markets[0].gate_closure_s: 900 is not below the interval's length of 900 s",
        ),
        (
            ("metering_s = 180", "metering_s = 1000"),
            "markets[0].metering_s: 1000 is not below the interval's",
        ),
        (
            ("minutes = 15", "minutes = 5"),
            "markets[0].gate_closure_s: 300 is not below the interval's length",
        ),
        (
            ("clearing_s = 300", "clearing_s = 301"),
            "markets[0].clearing_s: 301 is above gate_closure_s of 300",
        ),
        (
            (f'feeder = "{FEEDER}"', 'feeder = "simbench:x"'),
            "market.toml: markets[0].feeder: 'simbench:x' is no SimBench code",
        ),
        ((f'feeder = "{FEEDER}"', 'feeder = "lost.json"'), "markets[0].feeder: 'lost.json' is no file"),
        (
            ("# v_min_pu = 0.95", "v_min_pu = 1.2"),
            "market.toml: markets[0].limits.v_min_pu: 1.2 is not below v_max_pu, 1.1, the net's own at bus:",
        ),
        (
            ("# v_min_pu = 0.95", "v_min_pu = 1.02\nv_max_pu = 1.01"),
            "markets[0].limits.v_min_pu: 1.02 is not below v_max_pu, 1.01",
        ),
        (("[[markets]]", '[alerts.webhook]\nurl_file = "hook"\n[[markets]]'), "market.toml: alerts: "),
        (
            ("import_fees = 100000", "import_fees = 400000"),
            "markets[0].tariff: import_fees of 400000 is above import_price of 300000",
        ),
    ],
)
def test_a_configuration_that_is_wrong_is_refused_by_field(
    config: Path, change: tuple[str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(config.read_text().replace(*change, 1))
    assert peergrid(["run", str(config), "--speed", "2"]) == 2
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1, told
    assert [path.name for path in config.parent.iterdir()] == [config.name]


def test_everything_that_a_real_market_names_is_looked_at_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "market.toml"
    assert peergrid(["init", FEEDER, "--real", "--out", str(config)]) == 0
    config.write_text(config.read_text().replace("0x…", "0x" + "ab" * 20))
    capsys.readouterr()
    assert peergrid(["run", str(config)]) == 2
    told = capsys.readouterr().err.splitlines()
    fields = ["broker.tls", *(f"markets[0].{name}" for name in ("members", "key"))]
    fields += [f"markets[0].chain.{name}" for name in ("deployment", "settler_key", "registry_salt")]
    assert [line.split(": ")[2] for line in told] == fields
    config.write_text(config.read_text().replace('rounding = "', '# rounding = "'))
    assert peergrid(["run", str(config)]) == 2
    assert capsys.readouterr().err.endswith("market.toml: markets[0].treasuries: lacks rounding\n")
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("{0},{0},load:0,43500,0,77,88\n", "members.csv:2: has 7 columns where the header has 5"),
        (
            "{0},{0},load:0,43500,0\n\n{0},{0},load:1,43500,0\n",
            "members.csv:4: meter: '{0}' stands in line 2 already",
        ),
    ],
)
def test_lines_of_members_that_are_wrong_are_told_by_number(tmp_path: Path, lines: str, told: str) -> None:
    path, wallet = tmp_path / "members.csv", "0x" + "ab" * 20
    path.write_text("meter,owner,connection_point,fuse_w,tan_phi_ppm\n" + lines.format(wallet))
    with pytest.raises(InputError) as error:
        read_members(path, {"load:0": 1, "load:1": 2})
    assert str(error.value) == str(path.with_name(told.format(wallet)))


def test_gates_of_long_intervals_close_as_early_as_is_asked(config: Path) -> None:
    text = config.read_text()
    for old, new in (("minutes = 15", "minutes = 60"), ("gate_closure_s = 300", "gate_closure_s = 1800")):
        text = text.replace(old, new)
    config.write_text(text)
    (market,) = read_service(config).markets
    assert simulated_world(market, config.parent).members


def test_two_feeders_in_one_process(config: Path, start: Callable[[str], Service]) -> None:
    promise("several markets run in one process, each on its own database")
    head, section = config.read_text().split("[[markets]]")
    second = section.replace(f'name = "{NAME}"', 'name = "second"')
    config.write_text(f"{head}[[markets]]{section}[[markets]]{second}")
    service = start("both")
    for name in (NAME, "second"):
        service.until(lambda event, name=name: event["event"] == "settled" and event["feeder"] == name)
    service.send(signal.SIGTERM)
    assert service.ended() == 0, service.words()
    for name in (NAME, "second"):
        found = query(config.parent / "market" / name / "market.sqlite", "SELECT status FROM clearing")
        assert ("CLEARED",) in found
