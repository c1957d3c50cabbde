"""What `make demo` shows a newcomer: the shipped scenario, all day."""

from __future__ import annotations

from pathlib import Path

import pytest

from grid.catalogue import open_feeder
from market.cli.physics import check
from tests.cli.conftest import Outcome, run_process
from tests.cli.oracle import Oracle, stored_clearings

NOON = range(10, 14)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("default") / "run"
    return folder, run_process("demo", "--out", folder, "--json")


def test_the_whole_day_is_cleared_settled_and_equal_on_the_chain(day: tuple[Path, Outcome]) -> None:
    _, outcome = day
    assert outcome.status == 0, outcome.err
    summary = outcome.document
    assert summary["run"]["households"] == 153
    assert summary["run"]["cleared"] == 96
    assert summary["chain"]["balances_equal_ledger"] is True
    assert summary["chain"]["total_supply_ueur"] == summary["chain"]["deposits_ueur"]
    assert summary["chain"]["batches"] == 24
    assert sum(summary["accounts_neur"].values()) == 0
    assert summary["messages"]["orders"] == 153 * 96
    assert summary["vehicles"]["short"] == 0


def test_the_households_gain_and_the_feeder_supplies_more_of_itself(day: tuple[Path, Outcome]) -> None:
    summary = day[1].document
    savings = summary["savings"]
    assert savings["total_neur"] > 0
    assert savings["energy_neur"] + savings["network_fees_neur"] == savings["total_neur"]
    kept = summary["self_sufficiency"]
    assert kept["with_market"] > kept["without_market"] > 0


def test_households_with_the_energy_manager_gain_more_than_their_like(day: tuple[Path, Outcome]) -> None:
    folder, outcome = day
    told = {one["strategy"]: one for one in outcome.document["strategies"]}
    manager, truthful = told["manager"], told["truthful"]
    assert manager["households"] + truthful["households"] == 153
    assert manager["households"] > 20
    assert manager["ahead_neur"] > 0
    assert manager["mean_neur"] > truthful["mean_neur"]
    assert outcome.document["heat"]["lacking_wh"] == 0
    gained = sum(one["households"] * one["mean_neur"] for one in outcome.document["kinds"])
    assert abs(gained - outcome.document["savings"]["against_alone_neur"]) < 153
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "Gain over a day alone, by strategy" in report
    assert "ahead of its like by" in report


def test_limits_bind_at_noon_and_only_ignoring_them_breaks_them(day: tuple[Path, Outcome]) -> None:
    folder, outcome = day
    bound = {int(book.interval.start[11:13]) for book, record in stored_clearings(folder) if record.binding}
    assert bound & set(NOON)
    assert bound <= set(range(8, 16)), "cars that can wait do not all charge when they come home"
    network = outcome.document["network"]
    assert network["schedule"]["count"] == 0
    assert network["ignored"]["count"] > 100
    assert {limit["kind"] for limit in network["limits"]} >= {"current", "v_max"}
    assert network["metered"]["count"] < network["ignored"]["count"] / 8


def test_few_households_pay_more_than_at_the_retail_tariffs(day: tuple[Path, Outcome]) -> None:
    """Those at the far ends whose sun the feeder cannot take at noon, and little else."""
    savings = day[1].document["savings"]
    assert savings["households_worse_off"] < 25
    assert savings["against_alone_neur"] > 80e9


def test_firm_load_alone_always_fits(day: tuple[Path, Outcome]) -> None:
    feeder = open_feeder("rural3-noon")
    for book, _ in stored_clearings(day[0]):
        found = check(book.firm or (), feeder, book.limits)
        assert found["violations"] == 0, book.interval


def test_every_clearing_of_the_day_passes_pandapowers_own_power_flow(day: tuple[Path, Outcome]) -> None:
    oracle = Oracle("rural3-noon")
    for book, record in stored_clearings(day[0]):
        oracle.judge(book, record)
