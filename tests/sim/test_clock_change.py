"""Local clocks change, the market's do not: a day of 23 hours and one of 25, from its gates to its bills."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from market.accounts.timeofuse import TimeOfUse
from market.cli.main import run
from market.messages.models import Tariff
from market.service.store import Store, instructions, intervals, money
from tests.faults.promise import promise
from tests.service import scene
from tests.service.process import query
from tests.service.scene import SECONDS, TARIFF
from tests.sim import live_meters, live_simulation
from tests.sim.live_simulation import SETTINGS, simulate_live

HOUR_S = 3600
NIGHT, CHANGING, DAY = 250_000, 270_000, 310_000
"""Import prices: at night, in the hour that is left out or comes twice, and by day."""


def at_price(import_price: int) -> Tariff:
    return TARIFF.model_copy(update={"import_price": import_price})


PRICES = TimeOfUse.model_validate(
    {
        "timezone": "Europe/Berlin",
        "bands": [
            {"name": "night", "hours": ["22:00-02:00", "03:00-06:00"], "tariff": at_price(NIGHT)},
            {"name": "changing", "hours": ["02:00-03:00"], "tariff": at_price(CHANGING)},
            {"name": "day", "tariff": at_price(DAY)},
        ],
    }
)


def hour_by_hand(start: int, change: int, before_h: int, after_h: int) -> int:
    """What Berlin's clocks show at ``start``: so many hours ahead of UTC before the change, so many after."""
    return (start // HOUR_S + (before_h if start < change else after_h)) % 24


def price_by_hand(hour: int) -> int:
    if hour == 2:
        return CHANGING
    return NIGHT if hour >= 22 or hour < 6 else DAY


@pytest.mark.parametrize(
    ("day", "ahead_h", "hours"),
    [
        ("2026-03-29", (1, 2), {NIGHT: 7, DAY: 16}),
        ("2026-10-25", (2, 1), {NIGHT: 7, CHANGING: 2, DAY: 16}),
    ],
)
def test_a_day_on_which_clocks_change(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    day: str,
    ahead_h: tuple[int, int],
    hours: Mapping[int, int],
) -> None:
    promise("where local clocks change, every interval is there once, at the price of the local hour")
    midnight = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo("Europe/Berlin"))
    since, until = (int(moment.timestamp()) for moment in (midnight, midnight + timedelta(days=1)))
    change = int(datetime.fromisoformat(f"{day}T01:00:00+00:00").timestamp())
    for module in (scene, live_meters, live_simulation):
        monkeypatch.setattr(module, "START", since)
    database = folder / "market.sqlite"
    with Store(database, SETTINGS.identity()) as store, store.transaction() as tx:
        body = {"changes": [{"time_of_use": PRICES.model_dump(mode="json")}]}
        instructions.give(tx, "operator", "tariff", body, "prices by the time of use")
    count = (until - since) // SECONDS
    simulate_live(folder, 0, 0, count + 3, rarity=20)

    with Store(database, {}) as store, store.reading() as connection:
        stored = intervals.intervals(connection)
        ledger = money.ledger_neur(connection)
    of_day = {start: one for start, one in stored.items() if start < until}
    assert list(of_day) == list(range(since, until, SECONDS)) and count == sum(hours.values()) * 4
    assert {(one.state, start - one.opens_at) for start, one in of_day.items()} == {("FINAL", SECONDS)}
    found = {start: one.tariff.import_price for start, one in of_day.items()}
    assert found == {start: price_by_hand(hour_by_hand(start, change, *ahead_h)) for start in of_day}
    assert Counter(found.values()) == {price: 4 * length for price, length in hours.items()}
    cleared = query(database, f"SELECT interval_start, status FROM clearing WHERE interval_start < {until}")
    assert cleared == [(start, "CLEARED") for start in of_day]

    ends = midnight + timedelta(days=1)
    spans = ["--since", midnight.isoformat(), "--until", ends.isoformat(), "--out", str(folder / "export")]
    assert run(["export", str(database), "intervals", *spans]) == 0
    (exported,) = (folder / "export").iterdir()
    assert len(rows(exported)) == count

    month = ["--month", day[:7], "--zone", "Europe/Berlin"]
    assert run(["statement", str(database), *month, "--out", str(folder / "statements")]) == 0
    lines = rows(folder / "statements" / f"all-{day[:7]}.csv")
    assert {
        line["account"]: int(line["amount_neur"]) for line in lines if line["account"] in ledger
    } == ledger


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
