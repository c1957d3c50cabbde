"""Forecasts know the past only, learn from it, and beat what a naive look at it tells."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid.catalogue import year_profiles
from grid.feeder import Floats
from meters.household.forecast import (
    FORECASTS,
    HISTORY_DAYS,
    Forecast,
    analogues,
    clear_sky,
    clear_sky_day,
    persistence,
    seasonal,
    typical_day,
)
from meters.household.settings import HouseholdSettings
from meters.household.sites import DAY_S, Series, households
from meters.household.weather import YEAR_START
from tests.meters.places import NOON, PROFILES

PER_DAY, SECONDS, AHEAD = 96, 900, 2
LENGTH = HISTORY_DAYS * PER_DAY

histories = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).gamma(0.7, 300.0, LENGTH).round()
)


def sun(clearness: Floats) -> Floats:
    """Power on days of the given clearness, the last of which ends now, at noon."""
    hours = np.arange(LENGTH) / 4 + 12
    return np.clip(np.sin(2 * np.pi * (hours / 24 - 0.25)), 0, None) * 4000 * clearness


@pytest.mark.parametrize("per_day", [24, 48, 96, 288])
@pytest.mark.parametrize("ahead", [1, 2])
@pytest.mark.parametrize("kind", ["seasonal", "analogues"])
def test_a_day_that_repeats_itself_is_foreseen(kind: str, ahead: int, per_day: int) -> None:
    day = np.random.default_rng(1).uniform(100, 900, per_day)
    history = np.tile(day, HISTORY_DAYS)
    load, sun_of = FORECASTS[kind]
    assert load(history, ahead, per_day) == pytest.approx(day[ahead - 1])
    assert sun_of(history, ahead, per_day, (0.1, 0.5)) == pytest.approx([day[ahead - 1]] * 2)


@settings(deadline=None)
@given(histories)
def test_a_load_forecast_is_something_that_was_there(history: Floats) -> None:
    assert analogues(history, AHEAD, PER_DAY) in history


@settings(deadline=None)
@given(histories)
def test_solar_power_stays_between_nothing_and_a_little_above_the_best_days(history: Floats) -> None:
    best = history.reshape(HISTORY_DAYS, PER_DAY)[:, AHEAD - 1].max()
    assert 0 <= clear_sky(history, AHEAD, PER_DAY)[0] <= 1.3 * best


def test_a_switch_that_goes_on_and_off_is_foreseen_by_its_rhythm() -> None:
    """Three quarters on, two off, out of step with the day: neither the last value nor yesterday's tells."""
    errors = dict.fromkeys(FORECASTS, 0.0)
    switch = np.where(np.arange(LENGTH + 200) % 5 < 3, 800.0, 50.0)
    for now in range(LENGTH, LENGTH + 100):
        for kind, (load, _) in FORECASTS.items():
            errors[kind] += abs(load(switch[now - LENGTH : now], AHEAD, PER_DAY) - switch[now + AHEAD - 1])
    assert errors["analogues"] == 0
    assert min(errors["persistence"], errors["seasonal"]) > 100 * 200


def test_a_cloud_of_today_is_not_expected_of_yesterday() -> None:
    clearness = np.ones(LENGTH)
    clearness[-8:] = 0.3
    cloudy, clear = sun(clearness), sun(np.ones(LENGTH))
    assert clear_sky(cloudy, AHEAD, PER_DAY) == pytest.approx(
        [0.3 * clear_sky(clear, AHEAD, PER_DAY)[0]], rel=0.02
    )


def test_at_night_the_sun_does_not_shine() -> None:
    midnight = np.roll(sun(np.ones(LENGTH)), PER_DAY // 2)
    assert clear_sky(midnight, AHEAD, PER_DAY) == [0]
    assert clear_sky(np.zeros(LENGTH), AHEAD, PER_DAY) == [0]
    assert analogues(np.zeros(LENGTH), AHEAD, PER_DAY) == 0


@settings(deadline=None)
@given(st.integers(-3000, 3000), st.integers(1, 200), st.sampled_from([300, 900, 1800, 3600]))
def test_a_past_is_the_means_of_its_intervals(day: int, intervals: int, seconds: int) -> None:
    series = Series(((PROFILES.load_p_w[:, 0], 0.7), (PROFILES.load_p_w[:, 1], 0.3)))
    end = NOON + day * DAY_S
    past = series.past(end, intervals, seconds)
    expected = [series.mean(end - back * seconds, seconds) for back in range(intervals, 0, -1)]
    assert past == pytest.approx(expected)
    assert not Series(()).past(end, intervals, seconds).any()


def test_a_day_ahead_that_repeats_itself_is_foreseen() -> None:
    day = np.random.default_rng(1).uniform(100, 900, PER_DAY)
    assert typical_day(np.tile(day, HISTORY_DAYS), PER_DAY) == pytest.approx(day)
    clear = sun(np.ones(LENGTH))
    assert clear_sky_day(clear, PER_DAY) == pytest.approx(clear[-PER_DAY:], abs=1)
    assert not clear_sky_day(np.zeros(LENGTH), PER_DAY).any()


def test_todays_cloud_passes_with_the_hours() -> None:
    clearness = np.ones(LENGTH)
    clearness[-8:] = 0.3
    expected = clear_sky_day(sun(clearness), PER_DAY) / np.maximum(sun(np.ones(LENGTH))[-PER_DAY:], 1)
    assert expected[0] == pytest.approx(0.3, abs=0.05)
    assert 0.5 < expected[12] < 0.75, "three hours later half of it has passed"
    assert expected[-4] > 0.95


@pytest.mark.parametrize("kind", ["load", "sun"])
def test_the_day_ahead_errs_and_still_beats_persistence(kind: str) -> None:
    village = households(year_profiles("simbench:1-LV-rural1--2-sw"), HouseholdSettings(), 1)
    series = [home.load_w if kind == "load" else home.modules_w for home in village if home.pv]
    look = typical_day if kind == "load" else clear_sky_day
    ours = naive = 0.0
    for one in series:
        for day in range(40, 350, 31):
            now = YEAR_START + day * DAY_S + 9 * 3600
            truth = one.past(now + DAY_S, PER_DAY, SECONDS)
            history = one.past(now, LENGTH, SECONDS)
            ours += np.abs(look(history, PER_DAY) - truth).mean()
            naive += np.abs(history[-1] - truth).mean()
    assert ours > 0.05 * naive, "errors are real"
    assert ours < 0.9 * naive


def errors_w(series: list[Series], forecast: Forecast) -> float:
    """Mean absolute error summed over the series, W, on days of all seasons."""
    total = 0.0
    for month, day in ((1, 31), (3, 20), (4, 25), (6, 10), (7, 14), (10, 5)):
        start = int(datetime(2016, month, day, tzinfo=UTC).timestamp())
        for one in series:
            for now in range(start, start + DAY_S, 4 * SECONDS):
                expected = forecast(one.past(now, LENGTH, SECONDS), AHEAD, PER_DAY)
                total += abs(expected - one.mean(now + SECONDS, SECONDS)) / (6 * PER_DAY / 4)
    return total


def test_on_real_profiles_the_forecasts_beat_the_naive_ones() -> None:
    village = households(year_profiles("simbench:1-LV-rural1--2-sw"), HouseholdSettings(), 1)
    loads = [household.load_w for household in village]
    assert errors_w(loads, analogues) < 0.75 * errors_w(loads, seasonal)
    assert errors_w(loads, analogues) < 0.9 * errors_w(loads, persistence)
    modules = [household.modules_w for household in village if household.pv]
    clear_sky_w = errors_w(modules, lambda *what: clear_sky(*what)[0])
    assert clear_sky_w < 0.75 * errors_w(modules, seasonal)
    assert clear_sky_w < 0.75 * errors_w(modules, persistence)


def test_less_sun_than_a_quantile_comes_about_as_often_as_it_says() -> None:
    village = households(year_profiles("simbench:1-LV-rural1--2-sw"), HouseholdSettings(), 1)
    chances, missed, seen = (0.1, 0.25, 0.5), np.zeros(3), 0
    for home in [home for home in village if home.pv][:3]:
        for month, day in ((3, 20), (4, 25), (6, 10), (7, 14), (10, 5)):
            noon = int(datetime(2016, month, day, 11, tzinfo=UTC).timestamp())
            for now in range(noon - 4 * 3600, noon + 4 * 3600, SECONDS):
                low = clear_sky(home.modules_w.past(now, LENGTH, SECONDS), AHEAD, PER_DAY, chances)
                assert low == sorted(low)
                missed += home.modules_w.mean(now + SECONDS, SECONDS) < np.array(low)
                seen += 1
    assert missed / seen == pytest.approx(chances, abs=0.15)
