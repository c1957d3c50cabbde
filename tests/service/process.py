"""``peergrid run`` as an operator has it: a process, its configuration, what it logs and what it takes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from market.cli.main import run as peergrid

FEEDER = "pandapower:panda_four_load_branch"
NAME = "pandapower-panda-four-load-branch"
SPEED = 150
_QUICK = {
    "[console]\nport = 8440\n": "",
    'settle_every = "hour"': 'settle_every = "interval"',
    "lease_s = 15.0": "lease_s = 3.0",
    "clearing_s = 120": "clearing_s = 300",
    "clock_skew_s = 60": "clock_skew_s = 900",
}


def configuration(path: Path, changes: Mapping[str, str] = _QUICK) -> Path:
    """What ``peergrid init`` writes, with ``changes``: those for a market that runs at ``SPEED``."""
    assert peergrid(["init", FEEDER, "--out", str(path)]) == 0
    text = path.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


@pytest.fixture
def config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = configuration(tmp_path / "market.toml")
    assert capsys.readouterr().out == f"{path}\n"
    return path


class Service:
    """A market's process; what it logs is read as events."""

    def __init__(self, config: Path, name: str, speed: int = SPEED) -> None:
        self._log = config.with_name(f"{name}.log")
        command = [sys.executable, "-c", "from market.cli.main import main; main()"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*command, "run", str(config), "--speed", str(speed)],
                stderr=log,
                cwd=Path(__file__).parents[2],
            )

    def events(self) -> list[dict[str, Any]]:
        lines = self._log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def until(
        self, is_there: Callable[[dict[str, Any]], bool], timeout_s: float = 240, after: int = 0
    ) -> None:
        """Until there is such an event; the first ``after`` ones do not count."""
        deadline = time.monotonic() + timeout_s
        while not any(is_there(event) for event in self.events()[after:]):
            self.assert_lives()
            assert time.monotonic() < deadline, self.words()
            time.sleep(0.1)

    def assert_lives(self) -> None:
        assert self._process.poll() is None, self.words()

    def send(self, what: signal.Signals) -> None:
        os.kill(self._process.pid, what)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> int:
        return self._process.wait(120)

    def words(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()


@pytest.fixture
def start(config: Path) -> Iterator[Callable[[str], Service]]:
    """Begins a market's process of this configuration; none outlives the test."""
    services: list[Service] = []

    def begin(name: str) -> Service:
        services.append(Service(config, name))
        return services[-1]

    yield begin
    for service in services:
        service.kill()


def is_event(what: str) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["event"] == what


def query(database: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(statement).fetchall()
