"""What flows without an order: the household's own past tells it."""

from __future__ import annotations

import pytest

from grid.catalogue import open_feeder, year_profiles
from market.auction.book import Firm, Limits
from market.cli.physics import check, physics_of
from meters.household.settings import HouseholdSettings
from meters.household.sites import households

FEEDER = "simbench:1-LV-rural3--2-sw"
WINTER_NOON = 1_453_291_200  # 20 January 2016


def test_a_silent_heat_pump_is_expected_to_draw_what_its_house_needs() -> None:
    profiles = year_profiles(FEEDER)
    homes = households(profiles, HouseholdSettings(), 1)
    outsiders = physics_of(open_feeder(FEEDER), Limits(), profiles, homes, 1.0).outsiders
    told = {firm.connection_point: firm.p_w for firm in outsiders(WINTER_NOON, frozenset())}
    pumps = [home for home in homes if home.heat_pump and not home.pv]
    assert pumps
    for home in pumps:
        needs_w = home.heat_w.mean(WINTER_NOON - 1800, 900) / home.cop(WINTER_NOON, 900)
        assert needs_w > 0
        assert told[home.name] == pytest.approx(-needs_w, rel=0.1)
    quiet = outsiders(WINTER_NOON, frozenset(home.name for home in homes))
    assert not {firm.connection_point for firm in quiet} & {home.name for home in homes}


@pytest.mark.parametrize("minutes", [5, 15, 30])
def test_slack_energy_is_that_of_the_intervals_length(minutes: int) -> None:
    feeder = open_feeder("pandapower:panda_four_load_branch")
    load = [Firm(connection_point="bus:5", p_w=-3_000.0)]
    hour = check(load, feeder, Limits(), 3600)
    assert hour["import_wh"] > 3_000  # and losses
    found = check(load, feeder, Limits(), 60 * minutes)
    assert found["import_wh"] == pytest.approx(hour["import_wh"] * minutes / 60, abs=1)
