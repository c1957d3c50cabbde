"""``peergrid statement`` says what a month lacks yet, and makes nothing of a month without intervals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from market.service.store import Store, intervals
from market.service.store.inputs import register
from tests.cli.conftest import Outcome
from tests.service.scene import MEMBERS, START, TARIFF, settings

DAY_S = 86_400
STATES = ("CLOSED", "CLEARED", "METERED", "SETTLED")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Three intervals from 2016-06-15T00:00Z on: the last one is open."""
    path = tmp_path / "market.sqlite"
    of = settings(None)
    with Store(path, of.identity()) as store, store.transaction() as tx:
        register(tx, of, MEMBERS[:1])
        for index in range(3):
            start = START + index * 900
            times = {"opens_at": start - 1200, "closes_at": start - 300}
            intervals.open_interval(tx, interval_start=start, minutes=15, tariff=TARIFF, **times)
            for state in STATES if index < 2 else ():
                intervals.advance(tx, start, state, start, "")
    return path


@pytest.mark.parametrize(
    ("month", "told"),
    [
        ("2016-07", "--month: '2016-07' has no interval yet: the last one starts 2016-06-15T00:30Z"),
        ("2016-05", "--month: '2016-05' has no interval: the first one starts 2016-06-15T00:00Z"),
    ],
)
def test_months_without_an_interval_have_no_statements(
    database: Path, tmp_path: Path, month: str, told: str, peergrid: Callable[..., Outcome]
) -> None:
    refused = peergrid("statement", database, "--month", month, "--out", tmp_path / "out")
    assert (refused.status, refused.err) == (2, f"peergrid: {told}\n")
    assert not (tmp_path / "out").exists()


def test_a_month_that_is_not_over_is_said_to_be_unfinished(
    database: Path, tmp_path: Path, peergrid: Callable[..., Outcome]
) -> None:
    words = "June 2016 is unfinished: from 2016-06-15 02:30 on not everything is settled"
    arguments = ("statement", database, "--zone", "Europe/Berlin", "--out", tmp_path / "out")
    made = peergrid(*arguments)
    assert made.status == 0 and words in made.err
    pages = list((tmp_path / "out").glob("*.html"))
    assert pages and all(words in page.read_text() for page in pages)


def test_a_month_that_is_settled_is_not(
    database: Path, tmp_path: Path, peergrid: Callable[..., Outcome]
) -> None:
    with Store(database, {}) as store, store.transaction() as tx:
        for state in STATES:
            intervals.advance(tx, START + 1800, state, START, "")
        later = START + 16 * DAY_S  # the first of July
        times = {"opens_at": later - 1200, "closes_at": later - 300}
        intervals.open_interval(tx, interval_start=later, minutes=15, tariff=TARIFF, **times)
    made = peergrid("statement", database, "--month", "2016-06", "--out", tmp_path / "out")
    assert made.status == 0 and "unfinished" not in made.err
