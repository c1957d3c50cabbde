"""``/readyz`` is true: about the database, the market's process, its lease, broker, chain and clearing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from market.cli.main import run
from market.cli.systemd import told_of
from market.console.app import create_app
from market.console.market import Market
from market.console.readiness import SILENT_S, readiness
from market.messages.models import Tariff
from market.service.store import Store, health, intervals, leases
from meters.broker import Broker
from tests.operations.test_alerts import Receiver, private
from tests.service.process import NAME, Service

AT = 1_800_000_000 // 900 * 900
FEEDER = "pandapower:panda_four_load_branch"
IDENTITY = {"feeder": "lane", "feeder_name": FEEDER, "minutes": "15"}
PATIENCE_S = 120
TARIFF = Tariff(import_price=300_000, export_price=80_000, floor=-500_000, cap=2_000_000)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "market.sqlite"
    with Store(path, IDENTITY) as store, store.transaction() as tx:
        assert leases.take(tx, "this process", None)
        for part in (health.MARKET, health.BROKER, health.CHAIN):
            health.note(tx, AT, part, True)
    return path


def changed(path: Path, act: Callable[[Any], None]) -> None:
    with Store(path, {}) as store, store.transaction() as tx:
        act(tx)


def found(path: Path, at: float | None = None) -> dict[str, bool] | None:
    market = Market(path)
    try:
        state = readiness(market, time.time() if at is None else at)
        return None if state is None else {check.name: check.ok for check in state.checks}
    finally:
        market.close()


def opened(tx: Any, start: int) -> None:
    intervals.open_interval(
        tx, interval_start=start, minutes=15, opens_at=start - 900, closes_at=start - 300, tariff=TARIFF
    )


def test_a_market_with_all_it_needs_is_ready(place: Path) -> None:
    state = found(place)
    assert state == dict.fromkeys(("database", "market", "lease", "broker", "chain", "clearing"), True)


async def test_everybody_is_told_whether_it_is_ready_and_no_more(place: Path) -> None:
    """``/readyz`` is for what watches the machine, which has no token: a word for each part."""
    market = Market(place)
    transport = httpx.ASGITransport(create_app([market], open_reading=False))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        ready = await client.get("/readyz")
        (parts,) = ready.json()["markets"].values()
        assert (ready.status_code, ready.json()["status"], set(parts.values())) == (200, "ready", {True})
        changed(place, lambda tx: health.note(tx, AT, health.BROKER, False, "broker.example is away"))
        lacking = await client.get("/readyz")
        (parts,) = lacking.json()["markets"].values()
        assert (lacking.status_code, lacking.json()["status"]) == (503, "not ready")
        assert [name for name, ok in parts.items() if not ok] == ["broker"]
        assert "example" not in lacking.text and lacking.headers["cache-control"] == "no-store"
        assert (await client.get("/metrics")).status_code == 401
    market.close()


@pytest.mark.parametrize(
    ("part", "act"),
    [
        ("broker", lambda tx: health.note(tx, AT, health.BROKER, False, "there is no connection")),
        ("chain", lambda tx: health.note(tx, AT, health.CHAIN, False, "the node cannot be reached")),
        ("lease", leases.give_back),
        ("clearing", lambda tx: opened(tx, AT - 1800)),
    ],
)
def test_what_is_missing_is_told_by_name_and_nothing_else(
    place: Path, part: str, act: Callable[[Any], None]
) -> None:
    changed(place, act)
    state = found(place)
    assert state is not None and [name for name, ok in state.items() if not ok] == [part]


def test_a_market_whose_process_is_known_to_have_ended_is_not_ready_at_once(place: Path) -> None:
    ended = leases.myself().replace(f" {os.getpid()} ", " 999999999 ")
    changed(place, lambda tx: leases.take(tx, ended, leases.current(tx)))
    state = found(place)
    assert state is not None and [name for name, ok in state.items() if not ok] == ["lease"]


def test_a_market_that_is_silent_is_not_ready_and_nothing_of_it_is_known(place: Path) -> None:
    with Store(place, {}) as store, store.reading() as connection:
        noted_at = health.parts(connection)[health.MARKET].seen_at
    assert found(place, noted_at + SILENT_S) == found(place, noted_at)
    state = found(place, noted_at + SILENT_S + 1)
    assert state is not None and [name for name, ok in state.items() if ok] == ["database", "lease"]


def test_a_monitor_without_a_console_hears_the_same_by_exit_status(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["status", str(place), "--ready"]) == 0
    changed(place, lambda tx: health.note(tx, AT, health.BROKER, False, "there is no connection"))
    capsys.readouterr()
    assert run(["status", str(place), "--ready", "--json"]) == 1
    (told,) = json.loads(capsys.readouterr().out)["markets"]
    assert told["lacks"] == {"broker": "there is no connection"}
    assert run(["status", str(place)]) == 0, "who does not ask is not told"


async def test_systemd_hears_that_a_service_began_lives_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        async with told_of():
            assert systemd.recv(100) == b"READY=1"
            for _ in range(3):
                assert await asyncio.to_thread(systemd.recv, 100) == b"WATCHDOG=1"
        while (last := systemd.recv(100)) == b"WATCHDOG=1":
            pass
        assert last == b"STOPPING=1"


def test_a_stored_day_has_no_process_to_be_ready(tmp_path: Path) -> None:
    with Store(tmp_path / "day.sqlite", IDENTITY):
        pass
    assert found(tmp_path / "day.sqlite") is None


@pytest.fixture
def services() -> Iterator[list[Service]]:
    started: list[Service] = []
    yield started
    for service in started:
        service.kill()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def configured(tmp_path: Path, broker_port: int, hook: str) -> Path:
    config = tmp_path / "market.toml"
    assert run(["init", FEEDER, "--out", str(config)]) == 0
    text = config.read_text()
    for old, new in {
        "[broker]\n": f'[broker]\nhost = "127.0.0.1"\nport = {broker_port}\n',
        "[console]\nport = 8440\n": "",
        "# [alerts.webhook]\n# url_file": "[alerts.webhook]\nurl_file",
        "clearing_s = 120": "clearing_s = 300",
        "clock_skew_s = 60": "clock_skew_s = 900",
    }.items():
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)
    private(tmp_path / "webhook.url", hook)
    return config


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Callable[[], Any]]:
    """Asks a console over the running market's database, as a monitoring system does."""
    clients: list[httpx.AsyncClient] = []

    async def ready() -> tuple[int, dict[str, bool]]:
        if not clients:
            app = create_app([Market(tmp_path / "market" / NAME / "market.sqlite")])
            transport = httpx.ASGITransport(app=app)
            clients.append(httpx.AsyncClient(transport=transport, base_url="http://localhost"))
        answer = await clients[0].get("/readyz")
        return answer.status_code, answer.json()["markets"].get(NAME, {})

    yield ready
    for client in clients:
        metrics = (await client.get("/metrics")).text
        assert f'peergrid_part_ok{{feeder="{NAME}",part="broker"}}' in metrics
        await client.aclose()


async def test_a_running_market_is_ready_until_its_broker_is_away_and_again_after(
    tmp_path: Path, services: list[Service], receiver: Receiver, client: Callable[[], Any]
) -> None:
    port = free_port()
    config = configured(tmp_path, port, receiver.url)

    async def until(wanted: Callable[[int, dict[str, bool]], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not wanted(*await client()):
            assert time.monotonic() < deadline, (await client(), services[0].words())
            await asyncio.sleep(0.2)

    async def told(words: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not any(words.encode() in body for _, body in receiver.got):
            assert time.monotonic() < deadline, services[0].words()
            await asyncio.sleep(0.2)

    async with Broker(port=port):
        services.append(Service(config, "one"))
        await asyncio.to_thread(services[0].until, lambda event: event["event"] == "cleared")
        await until(lambda status, parts: status == 200 and all(parts.values()))
    await until(lambda status, parts: status == 503 and not parts["broker"] and parts["database"])
    await told("broker")
    async with Broker(port=port):
        await until(lambda status, parts: status == 200)
        asked = ["operate", "suspend", str(config), "--reason", "a fault on the line"]
        assert await asyncio.to_thread(run, asked) == 0
        await told("a fault on the line")
        services[0].send(signal.SIGTERM)
        assert await asyncio.to_thread(services[0].ended) == 0
    told = [json.loads(body) for _, body in receiver.got]
    assert len({one["id"] for one in told}) == len(told), "each once"
    status, parts = await client()
    assert status == 503 and not parts["lease"], "it gave its lease back"
    assert "a-very-secret-word" not in services[0].words()
