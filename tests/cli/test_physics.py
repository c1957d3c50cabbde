"""What flows without an order: the household's own past tells it."""

from __future__ import annotations

from pathlib import Path

import pandapower as pp
import pandapower.networks as pn
import pytest

from grid.catalogue import open_feeder, year_profiles
from market.auction.book import Firm, Limits
from market.cli.physics import check, physics_of
from market.service.ports import Network
from meters.household.settings import HouseholdSettings
from meters.household.sites import households

FEEDER = "simbench:1-LV-rural3--2-sw"
WINTER_NOON = 1_453_291_200  # 20 January 2016


def test_a_silent_heat_pump_is_expected_to_draw_what_its_house_needs() -> None:
    profiles = year_profiles(FEEDER)
    homes = households(profiles, HouseholdSettings(), 1)
    outsiders = physics_of(open_feeder(FEEDER), Limits(), profiles, HouseholdSettings(), 1).outsiders
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


def test_new_points_of_a_changed_network_are_forecast_and_old_ones_go_on(tmp_path: Path) -> None:
    """A house is built, another is torn down, one gets a roof; the others are expected as before."""
    net = pn.panda_four_load_branch()
    pp.to_json(net, str(tmp_path / "before.json"))
    net.load.drop(net.load.index[1], inplace=True)
    built = pp.create_load(net, net.load.bus.iloc[-1], p_mw=0.004)
    roof_at = int(net.load.bus.iloc[0])
    pp.create_sgen(net, roof_at, p_mw=0.009)
    pp.to_json(net, str(tmp_path / "after.json"))
    name = str(tmp_path / "before.json")
    before = physics_of(
        open_feeder(name), Limits(), year_profiles(name), HouseholdSettings(), 1, base=tmp_path
    )
    assert before.changed is not None
    after = before.changed(Network("after.json", Limits()))
    noon = 1_465_992_000  # 15 June 2016
    was, becomes = (
        {firm.connection_point: firm for firm in one.outsiders(noon, frozenset())} for one in (before, after)
    )
    assert set(was) == {"load:0", "load:1", "load:2", "load:3"}
    assert set(becomes) == {"load:0", "load:2", "load:3", f"load:{built}"}
    assert becomes["load:2"] == was["load:2"], "nothing came or went at its bus"
    assert becomes["load:0"].p_w > was["load:0"].p_w + 1_000, "the roof feeds in"
    assert becomes[f"load:{built}"].p_w < 0
    ordered = frozenset({f"load:{built}", "load:2"})
    assert {firm.connection_point for firm in after.outsiders(noon, ordered)} == {"load:0", "load:3"}
