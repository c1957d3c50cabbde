"""What the console costs, for docs/console.md; run by hand on a quiet machine, it asserts nothing.

python -m tests.console.measure year out/RUN/market.sqlite YEAR.sqlite   # a year made of a stored day
python -m tests.console.measure pages YEAR.sqlite                        # each page, cold and warm
python -m tests.console.measure paint out/RUN/market.sqlite              # weight and first paint
python -m tests.console.measure streams                                  # a market with 0 and 200 streams
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

DAYS = 365
DAY_S = 86_400
PROGRAM = "from market.cli.main import main; main()"
CHROMIUM = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
]
# By table: columns that are times, and columns that count on (with how far, by another query).
SHIFTED = {
    "interval": ("interval_start", "opens_at", "closes_at"),
    "transition": ("interval_start", "at"),
    "clearing": ("interval_start",),
    "award": ("interval_start",),
    "orders": ("interval_start", "received_at"),
    "metered": ("interval_start",),
    "posting": ("interval_start",),
    "batch": ("made_at",),
    "position": (),
    "reading": ("taken_at", "received_at"),
    "chain_books": ("at",),
}
COUNTED = {"posting": ("batch",), "batch": ("sequence",), "position": ("sequence",), "reading": ("seq",)}


def make_year(day: Path, year: Path) -> None:
    """The stored day, and the same again on each of the 364 days before it."""
    shutil.copy(day, year)
    with sqlite3.connect(year) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA foreign_keys = OFF")
        for table, times in SHIFTED.items():
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            counted = COUNTED.get(table, ())
            step = 0
            for column in counted:
                step = connection.execute(f"SELECT MAX({column}) + 1 FROM {table}").fetchone()[0]
            if table == "position":
                step = connection.execute("SELECT MAX(sequence) + 1 FROM position").fetchone()[0]
            connection.execute(f"CREATE TEMP TABLE one AS SELECT * FROM {table}")
            if counted:  # the stored day is the last one
                shift = ", ".join(f"{column} = {column} + {step * (DAYS - 1)}" for column in counted)
                connection.execute(f"DELETE FROM {table}")
                connection.execute(f"INSERT INTO {table} SELECT * FROM one")
                connection.execute(f"UPDATE OR REPLACE {table} SET {shift}")
            for ago in range(1, DAYS):
                terms = [
                    f"{name} - {ago * DAY_S}"
                    if name in times
                    else f"{name} + {step * (DAYS - 1 - ago)}"
                    if name in counted
                    else name
                    for name in columns
                ]
                connection.execute(f"INSERT OR IGNORE INTO {table} SELECT {', '.join(terms)} FROM one")
            connection.execute("DROP TABLE one")
            connection.commit()
            print(table, connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0], file=sys.stderr)
        connection.execute(
            "UPDATE balance SET ledger_neur = (SELECT COALESCE(SUM(amount_neur), 0) FROM posting"
            " WHERE posting.account = balance.account)"
        )
        connection.execute(f"UPDATE balance SET settled_ueur = settled_ueur * {DAYS}")
    connection.close()


@contextmanager
def served(database: Path) -> Iterator[str]:
    """The console over a database, in a process of its own; its first page's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", PROGRAM, "console", "--db", str(database), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                (market,) = httpx.get(f"{address}/api/v1/feeders", timeout=60).json()
                break
            except httpx.TransportError:
                if process.poll() is not None:
                    raise SystemExit(f"no console over {database}") from None
                time.sleep(0.2)
        yield f"{address}/f/{market['name']}"
    finally:
        process.terminate()
        process.wait(30)


def measure_pages(database: Path) -> None:
    """Milliseconds from asking to the last byte: the first time, and the median of ten more."""
    with sqlite3.connect(database) as connection:
        intervals, low, high = connection.execute(
            "SELECT COUNT(*), MIN(interval_start), MAX(interval_start) FROM clearing"
        ).fetchone()
        meter = connection.execute("SELECT meter FROM meter LIMIT 1").fetchone()[0]
    connection.close()
    middle = (low + high) // 2 // 900 * 900
    print(f"{intervals} intervals, {database.stat().st_size / 1e9:.2f} GB")
    with served(database) as page, httpx.Client(timeout=120) as client:
        for path in (
            f"/intervals/{middle}",
            f"/intervals/{high}",
            "",
            f"?day={middle}",
            f"/network?day={middle}",
            f"/congestion?day={middle}",
            f"/meters?day={middle}",
            f"/meters/{meter}?day={middle}",
            f"/households?day={middle}",
            f"/households/{meter}?day={middle}",
            f"/households/{meter}?day={middle}&month=1",
            "/settlement",
            "/alarms",
        ):
            taken = []
            for _ in range(11):
                began = time.perf_counter()
                assert client.get(page + path).status_code == 200, path
                taken.append(1000 * (time.perf_counter() - began))
            name = re.sub(r"0x[0-9a-f]{40}", "METER", path) or "/"
            print(f"{name:45} cold {taken[0]:7.0f} ms  warm {statistics.median(taken[1:]):6.0f} ms")


def _visit(tab: Any, address: str) -> str:
    session = tab.context.new_cdp_session(tab)
    sizes: list[int] = []
    session.send("Network.enable")
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    tab.goto(address, wait_until="load")
    tab.wait_for_selector("#chart-prices canvas")
    paint = tab.evaluate(
        "new Promise((done) => new PerformanceObserver((seen) => done(seen.getEntries()[0].startTime))"
        ".observe({ type: 'paint', buffered: true }))"
    )
    return f"{len(sizes)} requests, {sum(sizes) / 1024:.1f} KB, first paint after {paint:.0f} ms"


def measure_paint(database: Path) -> None:
    """Weight of the first page over the wire, and the browser's first contentful paint."""
    from playwright.sync_api import sync_playwright

    with served(database) as address, sync_playwright() as started:
        chromium = started.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        for number in range(5):
            context = chromium.new_context(viewport={"width": 1240, "height": 900})
            print(f"visit {number}: {_visit(context.new_page(), address)}")
            context.close()
        chromium.close()


async def _watch(address: str, count: int, stop: asyncio.Event) -> int:
    """Holds streams open; how many events they heard."""
    heard = 0

    async def one(client: httpx.AsyncClient) -> None:
        nonlocal heard
        async with client.stream("GET", address) as answer:
            async for line in answer.aiter_lines():
                heard += line.startswith("event: interval")
                if stop.is_set():
                    return

    limits = httpx.Limits(max_connections=count + 10)
    async with httpx.AsyncClient(timeout=300, limits=limits) as client:
        tasks = [asyncio.create_task(one(client)) for _ in range(count)]
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return heard


async def _lateness(log: Path, seconds: float) -> list[float]:
    """Real seconds from a gate's closing to its interval's clearing, of those in the next ``seconds``."""
    began = len(log.read_text().splitlines())
    await asyncio.sleep(seconds)
    closed: dict[int, float] = {}
    found = []
    for line in log.read_text().splitlines()[began:]:
        if not line.startswith("{"):
            continue
        event = json.loads(line)
        at = time.mktime(time.strptime(event["time"][:19], "%Y-%m-%dT%H:%M:%S")) + float(event["time"][19:23])
        if event["event"] == "gate closed":
            closed[event["interval_start"]] = at
        elif event["event"] == "cleared" and event["interval_start"] in closed:
            assert event["state"] == "CLEARED", event
            found.append(at - closed[event["interval_start"]])
    return found


def measure_streams(seconds: float = 45, count: int = 200, speed: int = 100) -> None:
    """A running market's clearings without anybody who watches, and with many."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "market.toml"
        feeder = "simbench:1-LV-rural1--2-sw"
        subprocess.run([sys.executable, "-c", PROGRAM, "init", feeder, "--out", str(config)], check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        text = config.read_text().replace("port = 8440", f"port = {port}")
        text = text.replace("clearing_s = 120", "clearing_s = 300").replace("skew_s = 60", "skew_s = 900")
        config.write_text(text)
        log = Path(folder) / "log"
        with log.open("w") as output:
            command = [sys.executable, "-c", PROGRAM, "run", str(config), "--speed", str(speed)]
            market = subprocess.Popen(command, stderr=output)
        try:
            while '"cleared"' not in log.read_text():
                time.sleep(0.5)
            (name,) = [one["name"] for one in httpx.get(f"http://127.0.0.1:{port}/api/v1/feeders").json()]
            events = f"http://127.0.0.1:{port}/api/v1/feeders/{name}/events"

            async def both() -> None:
                alone = await _lateness(log, seconds)
                stop = asyncio.Event()
                watching = asyncio.create_task(_watch(events, count, stop))
                await asyncio.sleep(5)
                watched = await _lateness(log, seconds)
                stop.set()
                heard = await watching
                for label, found in (("0 streams", alone), (f"{count} streams", watched)):
                    took = [round(one, 3) for one in found]
                    print(f"{label}: {len(found)} clearings, {took} s after their gates")
                print(f"{heard} events heard, {heard / count:.1f} by each")

            asyncio.run(both())
        finally:
            market.terminate()
            market.wait(60)


def main() -> None:
    what, *paths = sys.argv[1:]
    given = [Path(path) for path in paths]
    {"year": make_year, "pages": measure_pages, "paint": measure_paint, "streams": measure_streams}[what](
        *given
    )


if __name__ == "__main__":
    main()
