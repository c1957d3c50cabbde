"""The pages in a browser: for everybody, in light and dark, by keyboard, on a telephone, light to load."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import shutil
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.conftest import start_process
from tests.console.conftest import Console, addresses, serving
from tests.console.test_live import dispute
from tests.faults.proxy import Proxy

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.needs("chromium")

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FIRST_PAGE_BYTES_MAX = 90 * 1024
CUT_S = 60
LIVE_INTERVALS = 8
PATIENCE_S = 120.0
WIDE, NARROW = {"width": 1240, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield chromium
        chromium.close()


@dataclass
class CutPage:
    """A page whose connections were cut, while its market went on; ``outage`` ends a minute later."""

    page: Any
    outage: Future[None]
    last_id: str
    asked_from: list[str]


@pytest.fixture(scope="module", autouse=True)
def cut_page(browser: Any, run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CutPage]:
    """Cut when this module begins: the other tests are done while it waits."""
    folder = tmp_path_factory.mktemp("cut") / "run"
    shutil.copytree(run_folder, folder)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, loop)

    with serving(folder) as console:
        proxy = Proxy(int(console.address.rpartition(":")[2]))
        run(proxy.__aenter__()).result(10)
        page = browser.new_context(viewport=WIDE).new_page()
        asked_from: list[str] = []
        feed = console.app.state.feeds[console.market]
        whole = feed.stream

        def stream(request: Any, last_event_id: str) -> Any:
            asked_from.append(last_event_id)
            return whole(request, last_event_id)

        feed.stream = stream
        now = console.ask("SELECT MAX(at) FROM transition")[0][0]
        listening(page, f"http://127.0.0.1:{proxy.port}/f/{console.market}")
        page.evaluate("window.untouched = true")
        outage = run(proxy.outage(CUT_S))
        wait_for(lambda: page.text_content("#link") == "▲ no connection")
        dispute(console, now + 60)
        yield CutPage(page, outage, str(now), asked_from)
        page.context.close()
        outage.cancel()
        run(proxy.__aexit__()).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Callable[..., Any]]:
    """Tabs that fail the test when a page logs an error or asks another host."""
    opened = []
    complaints: list[str] = []

    def make(**options: Any) -> Any:
        context = browser.new_context(**{"viewport": WIDE, "timezone_id": "Europe/Berlin", **options})
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda asked: None if "//127.0.0.1:" in asked.url else complaints.append(f"asked {asked.url}"),
        )
        opened.append(context)
        return page

    yield make
    for context in opened:
        context.close()
    assert not complaints


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Polls, as the pages allow no script from a string."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def listening(page: Any, address: str) -> None:
    """Shows a page, and waits until it has read the first event of its stream."""
    read: list[str] = []
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.eventSourceMessageReceived", lambda event: read.append(event["eventName"]))
    page.goto(address)
    wait_for(lambda: page.evaluate("1") and "hello" in read)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_an_accessibility_violation(
    console: Console, tab: Callable[..., Any], scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = tab(color_scheme=scheme)
    found = {}
    for address in (*addresses(console), "/../../sign-in"):
        page.goto(console.page + address)
        if "/network" in address:
            page.wait_for_selector("#network[data-ready]")
        result = axe.run(page)
        for violation in result.response["violations"]:
            nodes = [node["html"][:200] for node in violation["nodes"][:3]]
            found[address, violation["id"]] = nodes
    assert not found


def test_no_page_is_wider_than_a_telephone(console: Console, tab: Callable[..., Any]) -> None:
    page = tab(viewport=NARROW)
    for address in addresses(console):
        page.goto(console.page + address)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], address


def test_the_first_page_is_light(console: Console, tab: Callable[..., Any]) -> None:
    sizes: list[int] = []
    page = tab()
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    page.goto(console.page, wait_until="load")
    page.wait_for_selector("#chart-prices canvas")
    assert 4 <= len(sizes) <= 12
    assert sum(sizes) <= FIRST_PAGE_BYTES_MAX


def test_from_the_overview_to_a_verified_interval_by_keyboard_alone(
    console: Console, tab: Callable[..., Any]
) -> None:
    page = tab()
    page.goto(console.page)
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#intervals tbody') !== null"):
            break
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/intervals/\d+$"))
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Verify this interval":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector(".report.good", timeout=30_000)
    assert "checks hold" in page.text_content(".report")


def test_trades_sort_and_filter(console: Console, tab: Callable[..., Any]) -> None:
    page = tab()
    page.goto(console.page + addresses(console)[1])
    whole = page.locator("#awards tbody tr").count()
    page.fill("[data-filter=awards]", "load:1")
    assert 0 < page.locator("#awards tbody tr:visible").count() < whole
    page.fill("[data-filter=awards]", "")
    page.click("#awards thead th:nth-child(2) button")
    shown = page.locator("#awards tbody td:nth-child(2)").all_text_contents()
    numbers = [int(re.sub(r"\s", "", text).replace("−", "-")) for text in shown]
    assert numbers == sorted(numbers, reverse=True)


def test_the_feeder_page_switches_slides_plays_and_tells(console: Console, tab: Callable[..., Any]) -> None:
    page = tab()
    page.goto(f"{console.page}/network")
    page.wait_for_selector("#network[data-ready]")
    texts = set()
    for shown in ("voltage", "loading", "price", "energy"):
        page.check(f"input[value={shown}]", force=True)
        texts.add(page.text_content("#scale"))
    assert len(texts) == 4
    page.focus("#time")
    page.keyboard.press("Home")
    before = page.text_content("#at")
    page.keyboard.press("ArrowRight")
    assert page.text_content("#at") != before
    page.click("#play")
    wait_for(lambda: page.input_value("#time") == "4")
    page.click("#play")
    page.focus("svg#feeder g[tabindex='0']")
    page.keyboard.press("ArrowRight")
    assert "pu" in page.text_content("#about")
    assert page.locator("#history svg").count() == 1
    page.click("details summary")
    buses = page.locator("g.bus").count() + page.locator("g.branch").count()
    wait_for(lambda: page.locator("#twin tbody tr").count() == buses)


def test_times_are_local_with_utc_on_hover(console: Console, tab: Callable[..., Any]) -> None:
    page = tab(timezone_id="Asia/Tokyo")
    page.goto(console.page)
    moment = page.locator("#intervals time").first
    assert "UTC" in moment.get_attribute("title")
    utc = re.search(r"T(\d\d):(\d\d)", moment.get_attribute("datetime"))
    assert utc is not None
    assert moment.text_content() == f"{(int(utc[1]) + 9) % 24:02d}:{utc[2]}"


def test_an_hour_that_comes_twice_says_which_one_it_is(console: Console, tab: Callable[..., Any]) -> None:
    page = tab()
    page.goto(console.page)

    def local(moment: str) -> str:
        seconds = datetime.fromisoformat(moment).timestamp()
        shown: str = page.evaluate("async (s) => (await import('/static/local.js')).local(s)", seconds)
        return shown

    assert local("2026-10-25T00:15:00+00:00") == "02:15 GMT+2"
    assert local("2026-10-25T01:15:00+00:00") == "02:15 GMT+1"
    assert local("2026-10-25T02:15:00+00:00") == "03:15"
    assert local("2026-03-29T01:15:00+00:00") == "03:15"


def test_a_change_shows_without_a_reload(fresh_console: Callable[..., Any], tab: Callable[..., Any]) -> None:
    with fresh_console() as console:
        now = console.ask("SELECT MAX(at) FROM transition")[0][0]
        page = tab()
        listening(page, console.page)
        page.evaluate("window.untouched = true")
        dispute(console, now + 60)
        page.wait_for_selector(".state.disputed", timeout=15_000)
        assert page.evaluate("window.untouched")
        assert "1 alarm needs you" in page.text_content(".verdict")
        page.context.close()


def test_a_demo_that_runs_is_followed_live(tmp_path: Path, tab: Callable[..., Any]) -> None:
    folder = tmp_path / "run"
    arguments = (
        "--feeder",
        "simbench:1-LV-rural1--2-sw",
        "--intervals",
        LIVE_INTERVALS,
        "--out",
        folder,
        "--keep-running",
    )
    demo = start_process("demo", *arguments)
    try:
        assert demo.stderr is not None
        address = None
        while address is None:
            line = demo.stderr.readline()
            assert line, "the demo ended"
            found = re.search(r"console: (http\S+)", line)
            address = found[1] if found else None

        def listens() -> bool:
            try:
                return httpx.get(address, follow_redirects=True).status_code == 200
            except httpx.TransportError:
                return False

        wait_for(listens)
        page = tab()
        page.goto(address)
        page.wait_for_selector("#intervals", timeout=1000 * PATIENCE_S)
        page.evaluate("window.untouched = true")

        def shown(what: str) -> int:
            assert demo.poll() is None, demo.stderr and demo.stderr.read()
            return int(page.locator(f"#intervals {what}").count())

        wait_for(lambda: shown("tbody tr") == LIVE_INTERVALS, PATIENCE_S)
        wait_for(lambda: shown(".state.final") >= LIVE_INTERVALS // 2, PATIENCE_S)
        assert page.evaluate("window.untouched"), "it was followed without loading the page again"
        page.context.close()
    finally:
        demo.terminate()
        demo.communicate(timeout=PATIENCE_S)


def test_what_is_vendored_is_what_was_pinned() -> None:
    static = files("market.console") / "static"
    head = (files("market.console") / "templates" / "overview.html").read_text(encoding="utf-8")
    pinned = re.findall(r"asset\('(vendor/[^']+)'\) \}\}\" integrity=\"sha384-([^\"]+)\"", head)
    assert len(pinned) == 2
    for name, digest in pinned:
        content = (static / name).read_bytes()
        assert base64.b64encode(hashlib.sha384(content).digest()).decode() == digest, name


def test_a_page_that_was_cut_off_for_a_minute_misses_nothing(cut_page: CutPage) -> None:
    """The last test here, so that the minute is mostly over."""
    page = cut_page.page
    if not cut_page.outage.done():
        wait_for(lambda: page.text_content("#link") == "▲ no connection")
        wait_for(lambda: page.evaluate("1") and cut_page.outage.done(), CUT_S + 30)
    page.wait_for_selector(".state.disputed", timeout=30_000)
    assert page.evaluate("window.untouched")
    assert page.text_content("#link") == ""
    assert page.locator("#intervals .state.disputed").count() == 1
    assert cut_page.asked_from == ["", cut_page.last_id], "the stream was taken up where it was cut"
