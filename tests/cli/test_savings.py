"""Whose strategy did better among its like, by hand."""

from __future__ import annotations

import pytest

from market.cli.savings import Gain, by_kind, by_strategy


def gains(strategy: str, kind: str, *amounts: int) -> list[Gain]:
    return [Gain(strategy, kind, amount) for amount in amounts]


FOUND = [
    *gains("manager", "EV", 130, 150),
    *gains("truthful", "EV", 100, 110, 120),
    *gains("manager", "battery", 900, 1000, 1100, 1200),
    *gains("truthful", "battery", 800, 840),
    *gains("manager", "PV", -5000),
    *gains("truthful", "PV", 7000, 7000),
    *gains("truthful", "", 1, 3),
]


def test_each_strategy_is_told_with_the_mean_of_its_households() -> None:
    manager, truthful = by_strategy(FOUND, "truthful")
    assert (manager.strategy, manager.households) == ("manager", 7)
    assert manager.mean_neur == round((130 + 150 + 900 + 1000 + 1100 + 1200 - 5000) / 7)
    assert (truthful.strategy, truthful.households, truthful.ahead_neur) == ("truthful", 9, None)


def test_households_are_compared_with_their_like_and_only_where_there_are_two_of_either() -> None:
    manager = by_strategy(FOUND, "truthful")[0]
    assert manager.compared == 6, "the one with PV alone has no second of its kind"
    # EV: 140 against 110, weight 2/6; battery: 1050 against 820, weight 4/6.
    assert manager.ahead_neur == round(30 * 2 / 6 + 230 * 4 / 6)
    ev_error = (2 / 6) ** 2 * (200 / 2 + 100 / 3)
    battery_error = (4 / 6) ** 2 * (50_000 / 3 / 4 + 800 / 2)
    assert manager.ahead_error_neur == pytest.approx((ev_error + battery_error) ** 0.5, abs=1)


def test_without_a_like_nothing_is_compared() -> None:
    found = [*gains("manager", "EV", 10, 20), *gains("truthful", "PV", 1, 2)]
    manager = by_strategy(found, "truthful")[0]
    assert (manager.compared, manager.ahead_neur, manager.ahead_error_neur) == (0, None, None)


def test_kinds_are_told_by_strategy() -> None:
    kinds = {(one.kind, one.strategy): (one.households, one.mean_neur) for one in by_kind(FOUND)}
    assert kinds["EV", "manager"] == (2, 140)
    assert kinds["EV", "truthful"] == (3, 110)
    assert kinds["", "truthful"] == (2, 2)
