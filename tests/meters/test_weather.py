"""Sun and temperature: what almanacs and climate tables say."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from meters.household.weather import YEAR_MIDDLES, coefficient_of_performance, outdoor_c, sun_height


def at(month: int, day: int, hour: float) -> int:
    return int(datetime(2016, month, day, tzinfo=UTC).timestamp() + hour * 3600)


def test_the_years_and_months_mean_temperatures_are_those_of_the_climate_table() -> None:
    outdoor = outdoor_c(YEAR_MIDDLES).reshape(366, 96).mean(axis=1)
    assert outdoor.mean() == pytest.approx(9.3, abs=0.1)
    assert outdoor[:31].mean() == pytest.approx(0.9, abs=0.5)
    assert outdoor[182:213].mean() == pytest.approx(18.3, abs=0.8)


def test_afternoons_are_warmer_than_nights() -> None:
    assert outdoor_c(at(6, 10, 14)) - outdoor_c(at(6, 10, 2)) == pytest.approx(10.5, abs=0.5)
    assert outdoor_c(at(1, 20, 14)) - outdoor_c(at(1, 20, 2)) == pytest.approx(5, abs=0.5)


@pytest.mark.parametrize(
    ("month", "day", "noon_deg"), [(6, 21, 59.8), (12, 21, 12.9), (3, 20, 36.4), (9, 23, 36.3)]
)
def test_the_suns_noon_height_at_schwerin(month: int, day: int, noon_deg: float) -> None:
    found = np.degrees(np.arcsin(sun_height(at(month, day, 12 - 11.41 / 15), 53.65, 11.41)))
    assert found == pytest.approx(noon_deg, abs=1.7)
    assert sun_height(at(month, day, 23), 53.65, 11.41) == 0


def test_the_regressions_stay_within_the_lifts_that_they_were_made_for() -> None:
    lifts = np.array([0.0, 15.0, 30.0, 60.0, 90.0])
    air = coefficient_of_performance(50.0 - lifts, 50.0, ground=False)
    assert air == pytest.approx([5.13675, 5.13675, 3.747, 1.818, 1.818])
    assert np.all(coefficient_of_performance(50.0 - lifts, 50.0, ground=True) > air)
