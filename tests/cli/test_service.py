"""``peergrid run`` with all its parts as an operator has them: processes, signals, a configuration."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from market.cli.main import run as peergrid
from tests.faults.promise import promise
from tests.service.process import NAME, Service, configuration, is_event, query


@pytest.fixture
def config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = configuration(tmp_path / "market.toml")
    assert capsys.readouterr().out == f"{path}\n"
    return path


@pytest.fixture
def start(config: Path) -> Iterator[Callable[[str], Service]]:
    services: list[Service] = []

    def begin(name: str) -> Service:
        services.append(Service(config, name))
        return services[-1]

    yield begin
    for service in services:
        service.kill()


def kill_broker_of(service: Service) -> None:
    """The broker is a child of the market's process."""
    children = subprocess.check_output(["ps", "--ppid", str(service.pid), "-o", "pid=,args="], text=True)
    brokers = [line.split()[0] for line in children.splitlines() if "mosquitto" in line or "iotcore" in line]
    assert len(brokers) == 1, children
    os.kill(int(brokers[0]), signal.SIGKILL)


def status(config: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert peergrid(["status", str(config), "--json"]) == 0
    (market,) = json.loads(capsys.readouterr().out)["markets"]
    return dict(market)


def test_it_is_killed_and_goes_on_is_told_to_stop_and_can_be_proven(
    config: Path, start: Callable[[str], Service], capsys: pytest.CaptureFixture[str]
) -> None:
    promise(
        "killed, its broker killed, told to stop: the market goes on, and everything follows from its journal"
    )
    first = start("first")
    first.until(is_event("cleared"))
    first.send(signal.SIGKILL)
    first.ended()

    second = start("second")
    second.until(is_event("settled"))
    kill_broker_of(second)
    before = len(second.events())
    second.until(lambda event: event.get("state") == "CLEARED", after=before)
    now = status(config, capsys)
    assert now["feeder"] == NAME and now["held_by"]
    assert now["intervals"], "the newest is not final"
    second.send(signal.SIGTERM)
    assert second.ended() == 0, second.words()
    assert status(config, capsys)["held_by"] == "", "the lease was given back"

    database = config.parent / "market" / NAME / "market.sqlite"
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
    first.send(signal.SIGSTOP)
    # The chain in the first one's process is still its own: the second has the lease, and waits for that.
    second.until(lambda event: event["event"] in ("market failed", "market runs"))
    first.send(signal.SIGCONT)
    assert first.ended() == 1
    assert "taken over by" in first.words().splitlines()[-1]
    second.until(is_event("market runs"))
    second.until(is_event("cleared"))
    second.send(signal.SIGTERM)
    assert second.ended() == 0, second.words()
    database = config.parent / "market" / NAME / "market.sqlite"
    assert peergrid(["replay", str(database)]) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("gate_closure_s = 300", "gate_closure_s = -1"), "markets[0].gate_closure_s: -1"),
        (("[markets.simulation]", "[markets.simulations]"), "markets[0].simulations"),
        (('name = "', 'name = "Ä'), "markets[0].name"),
        (("seed = 1", 'seed = 1\nkey = "k"'), "key"),
    ],
)
def test_a_configuration_that_is_wrong_is_refused_by_field(
    config: Path, change: tuple[str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(config.read_text().replace(*change, 1))
    assert peergrid(["run", str(config)]) == 2
    assert words in capsys.readouterr().err
    assert not (config.parent / "market").exists()


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
