"""``peergrid demo`` with all its real parts, on a small feeder and a few intervals."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Outcome, run_process, start_process
from tests.cli.oracle import Oracle, stored_clearings

FEEDER = "simbench:1-LV-rural1--2-sw"
INTERVALS = 10
DAY = (
    "demo",
    "--feeder",
    FEEDER,
    "--intervals",
    INTERVALS,
    "--seed",
    7,
    "--date",
    "2016-06-10",
    "--pv-scale",
    4,
)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A finished run and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    return folder, run_process(*DAY, "--out", folder, "--json")


def without_elapsed(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "elapsed"}


def ledger(folder: Path) -> dict[str, list[Any]]:
    """Everything of the run that must not depend on time, from its database."""
    with sqlite3.connect(folder / "market.sqlite") as connection:
        return {
            table: connection.execute(f"SELECT {columns} FROM {table} ORDER BY {columns}").fetchall()
            for table, columns in (
                ("posting", "interval_start, revision, account, kind, amount_neur, energy_wh, batch"),
                ("clearing", "interval_start, status, root, book, record"),
                ("position", "sequence, account, amount_ueur"),
                ("batch", "sequence, root, state"),
                ("interval", "interval_start, state, revision"),
                ("orders", "interval_start, meter, version, body"),
                ("reading", "meter, seq, taken_at, import_wh, export_wh"),
            )
        }


def test_a_day_ends_with_one_document_and_a_report(day: tuple[Path, Outcome]) -> None:
    folder, outcome = day
    assert outcome.status == 0, outcome.err
    assert outcome.out.count("\n") == 1
    summary = outcome.document
    assert summary["run"]["households"] == 28
    assert summary["run"]["cleared"] == INTERVALS
    assert summary["run"]["suspended"] == 0
    assert summary["network"]["schedule"]["count"] == 0
    assert summary["messages"]["orders"] == 28 * INTERVALS
    assert summary["messages"]["readings"] == 28 * (INTERVALS + 2)
    assert summary["chain"]["balances_equal_ledger"] is True
    assert summary["chain"]["total_supply_ueur"] == summary["chain"]["deposits_ueur"]
    assert sum(summary["accounts_neur"].values()) == 0
    assert {"gate", "clear", "settle", "chain"} <= set(summary["elapsed"]["stages_s"])
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert (folder / "report.html").stat().st_size > 20_000


def test_the_same_seed_gives_the_same_day_but_for_times(day: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder, first = day
    second = run_process(*DAY, "--out", tmp_path / "again", "--json")
    assert without_elapsed(second.document) == without_elapsed(first.document)
    assert ledger(tmp_path / "again") == ledger(folder)


def test_killed_in_the_middle_it_goes_on_and_settles_nothing_twice(
    day: tuple[Path, Outcome], tmp_path: Path
) -> None:
    folder, undisturbed = day
    run = tmp_path / "run"
    for cleared_before_kill in (2, 6):
        process = start_process(*DAY, "--out", run, "--json")
        wait_for_clearings(run, cleared_before_kill)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert no_process_works_in(run), "its children end with it"
    finished = run_process(*DAY, "--out", run, "--json")
    assert finished.status == 0, finished.err
    assert without_elapsed(finished.document) == without_elapsed(undisturbed.document)
    assert ledger(run) == ledger(folder)


def wait_for_clearings(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with sqlite3.connect(f"file:{folder / 'market.sqlite'}?mode=ro", uri=True) as connection:
                if connection.execute("SELECT COUNT(*) FROM clearing").fetchone()[0] >= count:
                    return
        except sqlite3.OperationalError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"{count} clearings did not come")


def no_process_works_in(folder: Path) -> bool:
    """Whether soon nobody is left whose command line names ``folder``."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not any(str(folder) in words for words in command_lines()):
            return True
        time.sleep(0.05)
    return False


def command_lines() -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def test_every_stored_clearing_passes_pandapowers_own_power_flow(day: tuple[Path, Outcome]) -> None:
    folder, _ = day
    oracle = Oracle(FEEDER)
    clearings = stored_clearings(folder)
    assert len(clearings) == INTERVALS
    for book, record in clearings:
        oracle.judge(book, record)


class _References(HTMLParser):
    """Everything in a page that a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.figures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.figures += tag == "svg"
        if tag in ("script", "link", "img", "iframe", "object", "embed", "base"):
            self.found.append(tag)
        self.found += [
            f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "xlink:href", "srcset")
        ]


def test_the_report_asks_nothing_of_the_network(day: tuple[Path, Outcome]) -> None:
    folder, _ = day
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = _References()
    page.feed(text)
    assert page.found == []
    assert "url(http" not in text
    assert "@import" not in text
    assert page.figures == 14, "seven figures, each for a wide and a narrow page"
    assert "NaN" not in text


def test_a_terminal_reader_gets_the_numbers_with_units(day: tuple[Path, Outcome]) -> None:
    folder, _ = day
    outcome = run_process(*DAY, "--out", folder)
    assert outcome.status == 0, outcome.err
    for words in ("kWh", "ct/kWh", "EUR", "gas", "limits broken by the schedule", "report.html"):
        assert words in outcome.out
    assert outcome.err == "", "no progress bar where there is no terminal"
