"""Roofs by pvlib: the right yield, the right hours, and SimBench's clouds."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from grid.catalogue import year_profiles
from meters.household.roof import Roof, clearness, roof_w
from meters.household.settings import HouseholdSettings
from meters.household.sites import households
from tests.meters.places import PROFILES

PLACE = (53.65, 11.41)
CLEAR = np.ones(35_136)
SOUTH, EAST, WEST = Roof(35, 180), Roof(35, 90), Roof(35, 270)


def test_a_south_roof_near_schwerin_yields_what_atlases_say() -> None:
    """PVGIS tells about 950 to 1050 kWh a year and kW for 35° south."""
    sky = clearness(year_profiles("simbench:1-LV-rural3--2-sw"))
    yearly_kwh = roof_w(SOUTH, *PLACE, sky).sum() / 4000
    assert 800 < yearly_kwh < 1150
    assert roof_w(SOUTH, *PLACE, CLEAR).sum() / 4000 > 1.2 * yearly_kwh


def test_the_east_has_the_morning_and_the_west_the_evening() -> None:
    june = slice(161 * 96, 162 * 96)
    peaks = [int(np.argmax(roof_w(roof, *PLACE, CLEAR)[june])) / 4 for roof in (EAST, SOUTH, WEST)]
    assert peaks[0] < 10 < peaks[1] < 12.5 < peaks[2]


def test_nothing_shines_at_night_and_clouds_only_take() -> None:
    power = roof_w(SOUTH, *PLACE, CLEAR)
    assert (power[::96] == 0).all()
    assert 500 < power.max() < 1100
    assert (roof_w(SOUTH, *PLACE, CLEAR * 0.4) <= power).all()


def test_the_sky_is_as_clear_as_the_feeders_generators_tell() -> None:
    found = clearness(PROFILES)
    assert found.shape == (35_136,)
    assert found.min() >= 0
    assert found.max() == 1


def test_a_share_of_the_households_gets_a_roof_of_its_drawn_size() -> None:
    settings = HouseholdSettings(pv_share=1.0, pv_peak_min_w=5_000, pv_peak_max_w=5_000)
    made = households(PROFILES, settings, 7)
    alone = made[2]
    assert alone.pv is not None, "no generator of the feeder stands at its bus"
    assert 3_000 < alone.pv.rated_w < 5_500
    assert households(PROFILES, HouseholdSettings(), 7)[2].pv is None


def test_pvlib_is_loaded_only_where_a_roof_asks_for_it() -> None:
    code = """
import sys
from tests.meters.places import PROFILES
from meters.household.settings import HouseholdSettings
from meters.household.sites import households
households(PROFILES, HouseholdSettings(), 7)
assert "pvlib" not in sys.modules
sys.modules["pvlib"] = None
try:
    households(PROFILES, HouseholdSettings(pv_share=1.0), 7)
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("InputError")
    assert "households.pv_share" in done.stdout
    assert "pip install 'peergrid[pvlib]'" in done.stdout
