"""Bad input ends with status 2 and one line that names file, field and value; nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import BOOK, Outcome, book_file, order


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a user who has nothing there but the book."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(outcome: Outcome, *words: str) -> None:
    assert outcome.status == 2
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1, outcome.err
    assert outcome.err.startswith("peergrid: ")
    for word in words:
        assert word in outcome.err, outcome.err


def text_book(folder: Path, old: str, new: str) -> Path:
    """The book with a piece of its text replaced: for what json.dumps would not write."""
    text = json.dumps(BOOK)
    assert old in text
    path = folder / "book.json"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"orders": [order(energy_wh=-5)]}, ["orders[0].energy_wh", "-5"]),
        ({"orders": [order(energy_wh=0)]}, ["orders[0].energy_wh", "0"]),
        ({"orders": [order(energy_wh=2.5)]}, ["orders[0].energy_wh", "2.5"]),
        ({"orders": [order(limit_price=2_000_001)]}, ["orders[0].limit_price", "2000001", "2000000"]),
        ({"orders": [order(limit_price=-500_001)]}, ["orders[0].limit_price", "-500001"]),
        ({"orders": [order(connection_point="bus:9999")]}, ["orders[0].connection_point", "bus:9999"]),
        ({"orders": [order(connection_point="kitchen")]}, ["orders[0].connection_point", "kitchen"]),
        ({"orders": [order(), order()]}, ["orders[1].id", "a1"]),
        ({"orders": [order(side="sell")]}, ["orders[0].side", "sell"]),
        ({"orders": [order(colour="red")]}, ["orders[0].colour", "red"]),
        (
            {"firm": [{"connection_point": "load:9999", "p_w": 1.0}]},
            ["firm[0].connection_point", "load:9999"],
        ),
        ({"interval": {"start": "noon", "minutes": 15}}, ["interval.start", "noon"]),
        ({"interval": {"start": "2016-06-15T12:00:00Z", "minutes": 7}}, ["interval.minutes", "7"]),
        ({"feeder": "simbench:nowhere"}, ["simbench:nowhere"]),
        ({"feeder": None}, ["feeder"]),
    ],
)
def test_a_bad_book_is_refused_by_field_and_value(
    peergrid: Callable[..., Outcome], empty_folder: Path, changes: dict[str, Any], words: list[str]
) -> None:
    path = book_file(empty_folder, **changes)
    refused(peergrid("clear", path, "--json"), *words)
    assert list(empty_folder.iterdir()) == [path]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(
    peergrid: Callable[..., Outcome], empty_folder: Path, number: str
) -> None:
    path = text_book(empty_folder, "-1200", number)
    refused(peergrid("clear", path, "--json"), "book.json")


def test_every_problem_of_a_book_is_told_at_once(
    peergrid: Callable[..., Outcome], empty_folder: Path
) -> None:
    path = book_file(empty_folder, orders=[order(energy_wh=-5), order(id="a2", limit_price=True)])
    outcome = peergrid("clear", path)
    assert outcome.status == 2
    assert outcome.err.count("\n") == 2
    assert "orders[0].energy_wh" in outcome.err
    assert "orders[1].limit_price" in outcome.err


def test_problems_of_every_kind_are_told_at_once(
    peergrid: Callable[..., Outcome], empty_folder: Path
) -> None:
    orders = [
        order(energy_wh=0),
        order(),
        order(id="far", connection_point="bus:9999"),
        order(id="dear", limit_price=2_000_001),
        order(id="large", energy_wh=2**63),
        order(id="strange", tan_phi="inf"),
    ]
    path = book_file(empty_folder, orders=orders, firm=[{"connection_point": "load:9999", "p_w": "nan"}])
    outcome = peergrid("clear", path, "--json")
    assert outcome.status == 2
    assert outcome.out == ""
    fields = [line.removeprefix("peergrid: ").split(": ")[1] for line in outcome.err.splitlines()]
    assert sorted(fields) == [
        "firm[0].connection_point",
        "firm[0].p_w",
        "orders[0].energy_wh",
        "orders[1].id",
        "orders[2].connection_point",
        "orders[3].limit_price",
        "orders[4].energy_wh",
        "orders[5].tan_phi",
    ]


def test_a_missing_book_is_named(peergrid: Callable[..., Outcome]) -> None:
    refused(peergrid("clear", "nowhere.json"), "nowhere.json")


def test_a_book_that_is_no_json_is_named(peergrid: Callable[..., Outcome], empty_folder: Path) -> None:
    (empty_folder / "book.json").write_text("{")
    refused(peergrid("clear", "book.json"), "book.json")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["feeder", "check", "simbench:nowhere"], ["simbench:nowhere"]),
        (["feeder", "check", "nowhere.json"], ["nowhere.json"]),
        (["feeder", "check", "pandapower:create_kerber_landnetz_freileitung_1"], ["kerber"]),
        (["clear", "--colour", "red"], ["--colour"]),
        (["clear"], ["BOOK"]),
        (["fly"], ["fly"]),
        (["demo", "--feeder", "simbench:nowhere"], ["simbench:nowhere"]),
        (["demo", "--scenario", "nowhere.toml"], ["nowhere.toml"]),
        (["demo", "--date", "2017-06-10"], ["date", "2017-06-10"]),
        (["demo", "--date", "tomorrow"], ["date", "tomorrow"]),
        (["demo", "--intervals", "0"], ["intervals", "0"]),
        (["demo", "--intervals", "35000"], ["intervals", "35000"]),
        (["demo", "--seed", "-1"], ["seed", "-1"]),
        (["demo", "--seed", "x"], ["--seed", "x"]),
        (["demo", "--pv-scale", "-1"], ["pv_scale", "-1"]),
        (["demo", "--load-scale", "nan"], ["load_scale", "nan"]),
        (["demo", "--settle-every", "week"], ["settle_every", "week"]),
    ],
)
def test_bad_arguments_are_named(
    peergrid: Callable[..., Outcome], empty_folder: Path, arguments: list[str], words: list[str]
) -> None:
    refused(peergrid(*arguments), *words)
    assert list(empty_folder.iterdir()) == []


def test_an_unknown_setting_in_the_environment_is_named(
    peergrid: Callable[..., Outcome], empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEERGRID_MARKET__COLOUR", "red")
    refused(peergrid("demo"), "the environment", "market.colour", "red")
    assert list(empty_folder.iterdir()) == []


def test_limits_of_a_demonstration_that_leave_no_voltage_are_named(
    peergrid: Callable[..., Outcome], empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEERGRID_MARKET__LIMITS__V_MIN_PU", "1.2")
    refused(peergrid("demo"), "market.limits.v_min_pu: 1.2 is not below v_max_pu, 1.065")
    assert list(empty_folder.iterdir()) == []


def test_a_folder_of_something_else_is_refused(peergrid: Callable[..., Outcome], empty_folder: Path) -> None:
    (empty_folder / "letters").mkdir()
    (empty_folder / "letters" / "to my aunt").write_text("Dear aunt")
    refused(peergrid("demo", "--out", "letters"), "letters")
    (empty_folder / "file").write_text("")
    refused(peergrid("demo", "--out", "file"), "file")
    assert len(list(empty_folder.rglob("*"))) == 3


def test_the_folder_of_another_run_is_refused_by_what_differs(
    peergrid: Callable[..., Outcome], empty_folder: Path
) -> None:
    from market.cli.folder import open_folder
    from market.cli.settings import read_settings

    open_folder(empty_folder / "run", read_settings(None, None, {}, {"seed": 8}))
    refused(peergrid("demo", "--out", "run", "--seed", 9), "settings.json", "seed", "8", "9")
    assert len(list((empty_folder / "run").iterdir())) == 1
