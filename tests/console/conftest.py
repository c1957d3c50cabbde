"""A stored run, and the console over it served as its users meet it."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from market.console.app import create_app
from market.console.market import Market
from market.console.security import grant, read_grants
from tests.cli.conftest import run_process

FEEDER = "simbench-1-lv-rural1-2-sw"


@dataclass(frozen=True)
class Console:
    """A served console: where it is, its market's folder, and tokens by role."""

    address: str
    folder: Path
    tokens: dict[str, str]
    app: Any

    @property
    def market(self) -> str:
        return next(iter(self.app.state.markets))

    @property
    def page(self) -> str:
        return f"{self.address}/f/{self.market}"

    @property
    def api(self) -> str:
        return f"{self.address}/api/v1/feeders/{self.market}"

    def client(self, role: str | None = None, **options: Any) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.tokens[role]}"} if role else {}
        return httpx.Client(headers=headers, timeout=30, **options)

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Looks into the market's database beside the console."""
        with sqlite3.connect(self.folder / "market.sqlite") as connection:
            return connection.execute(query, values).fetchall()


def addresses(console: Console) -> list[str]:
    """Every page of the market, after its own."""
    start = console.ask("SELECT MAX(interval_start) FROM clearing")[0][0]
    meter = console.ask("SELECT meter FROM meter ORDER BY connection_point")[0][0]
    return [
        "",
        f"/intervals/{start}?verify=1",
        "/network",
        "/network?layout=line",
        "/congestion",
        "/meters",
        f"/meters/{meter}",
        "/households",
        f"/households/{meter}?day={start}&why={start}",
        "/settlement",
        "/settlement/0",
        "/alarms",
        "/data",
    ]


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few intervals on a small feeder, run by the demo with all its parts."""
    folder = tmp_path_factory.mktemp("console") / "run"
    arguments = ("--feeder", "simbench:1-LV-rural1--2-sw", "--intervals", 6, "--pv-scale", 4)
    outcome = run_process("demo", *arguments, "--settle-every", "interval", "--out", folder, "--json")
    assert outcome.status == 0, outcome.err
    return folder


@contextmanager
def serving(folder: Path, databases: Sequence[Path | str] = (), **options: Any) -> Iterator[Console]:
    """A console over the run in ``folder``, or over several databases."""
    tokens_file = folder / "tokens.json"
    tokens = {role: grant(tokens_file, f"some {role}", role) for role in ("viewer", "operator")}
    app = create_app(
        [Market(path) for path in databases or [folder / "market.sqlite"]],
        read_grants(tokens_file),
        **options,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    try:
        yield Console(f"http://127.0.0.1:{listener.getsockname()[1]}", folder, tokens, app)
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()


@pytest.fixture(scope="session")
def console(run_folder: Path) -> Iterator[Console]:
    """The console over the stored run."""
    with serving(run_folder) as console:
        # Tests ask faster than any operator.
        console.app.state.guard.requests._burst = 1e9
        yield console


@pytest.fixture
def fresh_console(run_folder: Path, tmp_path: Path) -> Callable[..., Any]:
    """Consoles over copies of the stored run, which a test may change."""

    def make(**options: Any) -> Any:
        folder = tmp_path / "copy"
        shutil.copytree(run_folder, folder)
        return serving(folder, **options)

    return make
