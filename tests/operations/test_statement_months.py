"""Monthly statements where months are hard: clocks that change, members who come late, a meter that was
replaced, suspended intervals, corrections after the month's end. Whoever adds up the files gets the ledger.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from market.accounts.ledger import IMBALANCE, NETWORK, RETAILER, Kind, Posting, household
from market.accounts.metering import Flag, Metered
from market.accounts.settlement import Customer, settle_suspended
from market.accounts.timeofuse import TimeOfUse
from market.cli.main import run
from market.cli.statement.leaflet import _prices
from market.cli.statement.page import _hours
from market.messages.models import PriceParts, Tariff
from market.service.store import Store, disputes, intervals, membership, money
from market.service.store.inputs import register
from market.service.store.membership import Change
from tests.service.scene import MEMBERS, settings

HOUR_S = 3600
FIRST, SECOND = household(MEMBERS[0].meter), household(MEMBERS[1].meter)
NEW_METER = "0x" + "cc" * 20


def tariff(energy: int, vat: int) -> Tariff:
    parts = PriceParts(energy=energy, network=70_000, levies=20_000, vat=vat)
    return Tariff(
        import_price=energy + 90_000 + vat,
        export_price=80_000,
        floor=-500_000,
        cap=2_000_000,
        local_fee=23_800,
        import_fees=90_000,
        import_parts=parts,
        local_parts=PriceParts(network=15_000, levies=5_000, vat=3_800),
    )


PRICES = TimeOfUse.model_validate(
    {
        "timezone": "Europe/Berlin",
        "bands": [
            {"name": "night", "hours": ["22:00-06:00"], "tariff": tariff(120_084, 39_916).model_dump()},
            {"name": "day", "tariff": tariff(162_101, 47_899).model_dump()},
        ],
    }
)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


# Around both ends of summer time and of the months that have them, in UTC.
SPANS = [
    range(at("2026-03-28T00:00"), at("2026-04-02T00:00"), HOUR_S),
    range(at("2026-10-24T00:00"), at("2026-11-02T00:00"), HOUR_S),
]
MARCH_ENDS, OCTOBER_ENDS = at("2026-03-31T22:00"), at("2026-10-31T23:00")
JOINED = at("2026-03-30T12:00")
CORRECTED = MARCH_ENDS - 3 * HOUR_S


def suspended(start: int) -> list[Posting]:
    """Everybody at the retail tariffs; the second household has joined or not."""
    customers = [Customer(FIRST, -400)] + [Customer(SECOND, 250)] * (start >= JOINED)
    return list(settle_suspended([], customers, PRICES.tariff_at(start)).postings)


def traded(start: int) -> list[Posting]:
    """The first buys 300 Wh, 200 of them from the second, who gives 20 less than it sold."""
    of = PRICES.tariff_at(start)
    lines = [
        Posting(FIRST, Kind.FIRM, -300 * 180_000, -300),
        Posting(SECOND, Kind.AWARD, 200 * 150_000, 200),
        Posting(SECOND, Kind.IMBALANCE, -20 * of.import_price, -20),
        Posting(RETAILER, Kind.SUPPLY, 100 * of.import_price, 100),
        Posting(IMBALANCE, Kind.IMBALANCE, 20 * of.import_price, 20),
    ]
    return [*lines, Posting(NETWORK, Kind.FEES, -sum(line.amount_neur for line in lines))]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("months") / "market.sqlite"
    of = settings(None, minutes=60, first_interval_start=SPANS[0].start)
    with Store(path, of.identity()) as store, store.transaction() as tx:
        register(tx, of, MEMBERS[:2])
        membership.add(
            tx, Change(SPANS[1].start, NEW_METER, MEMBERS[0].model_copy(update={"meter": NEW_METER}))
        )
        for span in SPANS:
            for start in span:
                intervals.open_interval(
                    tx,
                    interval_start=start,
                    minutes=60,
                    opens_at=start - HOUR_S,
                    closes_at=start - 300,
                    tariff=PRICES.tariff_at(start),
                )
                calm = start >= JOINED and start // HOUR_S % 3
                money.add_postings(tx, start, 0, traded(start) if calm else suspended(start))
    yield path


def statements(path: Path, month: str, out: Path) -> dict[str, dict[str, int]]:
    """Every account's line of `all-<month>.csv`, after its sheet was added up."""
    assert run(["statement", str(path), "--month", month, "--zone", "Europe/Berlin", "--out", str(out)]) == 0
    found = {}
    for row in rows(out / f"all-{month}.csv"):
        account = row.pop("account")
        found[account] = {
            name: at(text) if name in ("since", "until") else int(text) for name, text in row.items()
        }
    sheets = set(out.glob(f"*-{month}.csv")) - {out / f"all-{month}.csv"}
    assert len(sheets) == len(found) == len(list(out.glob(f"*-{month}.html"))), "no file stands for two"
    for sheet in sheets:
        *lines, total = rows(sheet)
        assert sum(int(line["amount_neur"]) for line in lines) == int(total["amount_neur"])
        assert int(total["amount_neur"]) == found[total["account"]]["amount_neur"]
    assert sum(one["amount_neur"] for one in found.values()) == 0
    return found


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def vat_of_first(start: int) -> int:
    """By hand: in a suspended interval all has the retailer's VAT, else a third of it."""
    of = PRICES.tariff_at(start)
    assert of.import_parts is not None and of.local_parts is not None
    if start >= JOINED and start // HOUR_S % 3:
        return -(100 * of.import_parts.vat + 200 * of.local_parts.vat)
    return -400 * of.import_parts.vat


def test_months_of_local_time_follow_each_other_without_gap_or_overlap(stored: Path, tmp_path: Path) -> None:
    months = {m: statements(stored, m, tmp_path / m) for m in ("2026-03", "2026-04", "2026-10", "2026-11")}
    assert months["2026-03"][FIRST]["since"] == at("2026-02-28T23:00")
    assert months["2026-03"][FIRST]["until"] == MARCH_ENDS == months["2026-04"][FIRST]["since"]
    assert months["2026-10"][FIRST]["until"] == OCTOBER_ENDS == months["2026-11"][FIRST]["since"]
    (sheet, *_) = (tmp_path / "2026-03").glob("[!a]*.csv")
    for name in ("all-2026-03.csv", sheet.name):
        line = rows(tmp_path / "2026-03" / name)[0]
        assert (line["since"], line["until"]) == ("2026-02-28T23:00Z", "2026-03-31T22:00Z"), name
    for account in months["2026-03"]:
        closing = 0
        for month in months.values():
            assert month[account]["opening_neur"] == closing
            closing = month[account]["closing_neur"]
    with Store(stored, {}) as store, store.reading() as connection:
        ledger = money.ledger_neur(connection)
    assert {a: one["closing_neur"] for a, one in months["2026-11"].items() if a in ledger} == ledger
    for month, (since, until) in {
        "2026-03": (SPANS[0].start, MARCH_ENDS),
        "2026-04": (MARCH_ENDS, SPANS[0].stop),
        "2026-10": (SPANS[1].start, OCTOBER_ENDS),
        "2026-11": (OCTOBER_ENDS, SPANS[1].stop),
    }.items():
        expected = sum(vat_of_first(start) for start in range(since, until, HOUR_S))
        assert months[month][FIRST]["vat_neur"] == expected


def test_who_joined_in_the_month_pays_from_then_on(stored: Path, tmp_path: Path) -> None:
    found = statements(stored, "2026-03", tmp_path)[SECOND]
    posted = [
        line.amount_neur
        for start in range(JOINED, MARCH_ENDS, HOUR_S)
        for line in (traded(start) if start // HOUR_S % 3 else suspended(start))
        if line.account == SECOND
    ]
    assert found["opening_neur"] == 0 and found["amount_neur"] == sum(posted) != 0


def test_a_correction_after_the_months_end_is_in_the_month_that_it_corrects(
    stored: Path, tmp_path: Path
) -> None:
    before = {m: statements(stored, m, tmp_path / f"a{m}") for m in ("2026-03", "2026-04")}
    of = PRICES.tariff_at(CORRECTED)
    more = settle_suspended([], [Customer(FIRST, -50)], of).postings  # 50 Wh more than it was billed
    with Store(stored, {}) as store, store.transaction() as tx:
        intervals.set_revision(tx, CORRECTED, 1)
        money.add_postings(tx, CORRECTED, 1, more)
    after = {m: statements(stored, m, tmp_path / f"b{m}") for m in ("2026-03", "2026-04")}
    march, april = after["2026-03"], after["2026-04"]
    owed = -50 * of.import_price
    assert march[FIRST]["amount_neur"] - before["2026-03"][FIRST]["amount_neur"] == owed
    assert march[RETAILER]["vat_neur"] - before["2026-03"][RETAILER]["vat_neur"] == 50 * of.import_parts.vat  # type: ignore[union-attr]
    assert april[FIRST]["amount_neur"] == before["2026-04"][FIRST]["amount_neur"]
    assert april[FIRST]["opening_neur"] == march[FIRST]["closing_neur"]


def test_a_meter_and_the_one_that_took_its_place_have_a_statement_each(stored: Path, tmp_path: Path) -> None:
    statements(stored, "2026-10", tmp_path)
    old, new = (tmp_path / f"load-0-{meter}-2026-10.html" for meter in (MEMBERS[0].meter, NEW_METER))
    assert MEMBERS[0].meter in old.read_text() and NEW_METER in new.read_text()
    assert (tmp_path / "load-1-2026-10.html").exists()


def test_a_household_is_compared_with_what_the_same_energy_had_cost_by_retail(
    stored: Path, tmp_path: Path
) -> None:
    """Without a single reading all is provisional, and compared all the same."""
    statements(stored, "2026-11", tmp_path)
    page = (tmp_path / "load-1-2026-11.html").read_text()
    net = [200 - 20 if start // HOUR_S % 3 else 250 for start in range(OCTOBER_ENDS, SPANS[1].stop, HOUR_S)]
    assert f"+{sum(net) * 80_000 / 1e9:.4f}" in page
    assert "drew more, or fed in less" in page


def test_energy_that_somebody_decided_is_called_so(stored: Path, tmp_path: Path) -> None:
    """The first household's whole retail energy of November, and one interval of the second's."""
    november = range(OCTOBER_ENDS, SPANS[1].stop, HOUR_S)
    at_retail = [start for start in november if start // HOUR_S % 3 == 0]
    upheld = [(NEW_METER, start) for start in at_retail] + [(MEMBERS[1].meter, at_retail[0])]
    with Store(stored, {}) as store, store.transaction() as tx:
        for start in at_retail:
            own = settle_suspended([], [Customer(household(NEW_METER), -100)], PRICES.tariff_at(start))
            money.add_postings(tx, start, 1, own.postings)
        for number, (meter, start) in enumerate(upheld, 1):
            disputes.open_one(tx, start, meter, start, "the display says so", 0)
            energy = Metered(100, 0, Flag.ESTIMATED)
            disputes.close_one(tx, number, start, "upheld", "display photo", energy)
        dismissed = len(upheld) + 1
        disputes.open_one(tx, at_retail[1], MEMBERS[1].meter, at_retail[1], "too much", 0)
        disputes.close_one(tx, dismissed, at_retail[1], "dismissed", "the register ran", None)
    statements(stored, "2026-11", tmp_path)
    page = (tmp_path / f"load-0-{NEW_METER}-2026-11.html").read_text()
    assert "Bought at the retail tariff<small>decided in a dispute; no trading" in page
    page = (tmp_path / "load-1-2026-11.html").read_text()
    assert "Sold at the retail tariff<small>0.250 kWh of it decided in a dispute; no trading" in page
    assert page.count("decided in a dispute") == 1


def test_prices_are_shown_once_each_and_as_a_range_where_they_are_many() -> None:
    day, night = PRICES.bands[1].tariff, PRICES.bands[0].tariff
    found = _prices({day: 48, night: 24}, 15)
    assert [(one.name, _hours(one.minutes)) for one in found] == [
        ("From the retailer", "12 h"),
        ("From the retailer", "6 h"),
        ("To the retailer", "18 h"),
        ("On a neighbour's energy", "18 h"),
    ]
    market = {tariff(100_000 + step, 20_000): 1 for step in range(96)}
    first, *_ = _prices(market, 15)
    assert (first.count, first.lowest[-1], first.highest[-1]) == (96, 210_000, 210_095)
