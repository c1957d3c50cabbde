"""Where the sun stands and how cold it is outside. Pure functions of the time.

Temperatures are no measurements: no profile of the feeders comes with any. They are the normal course of year
and day in Germany, so a heat pump's coefficient of performance has its seasons but no cold spells; those
are in the demand for heat, which SimBench's profiles of 2016 tell.
"""

from __future__ import annotations

import numpy as np

from grid.feeder import Floats

YEAR_START = 1_451_606_400
"""2016-01-01T00:00Z, the profiles' first step."""

YEAR_MIDDLES: Floats = YEAR_START + 900.0 * (np.arange(35_136, dtype=np.float64) + 0.5)
"""The middles of the profiles' steps, Unix seconds."""

_DAY_S, _YEAR_DAYS = 86_400, 365.25

# Germany 1991-2020 (Deutscher Wetterdienst, multi-annual means): year 9.3 °C, January 0.9 °C, July 18.3 °C.
YEAR_MEAN_C = 9.3
_YEAR_SWING_C = 8.7
_COLDEST_DAY = 20.0
# Half the mean difference of a day's highest and lowest temperature, in midwinter and in midsummer.
_DAY_SWING_WINTER_C, _DAY_SWING_SUMMER_C = 2.5, 5.5
_WARMEST_HOUR_UTC = 14.0


def outdoor_c(time: int | Floats) -> Floats:
    """The air's normal temperature, °C, at ``time`` (Unix seconds)."""
    days = (np.asarray(time, dtype=np.float64) - YEAR_START) / _DAY_S
    winter = np.cos(2 * np.pi * (days - _COLDEST_DAY) / _YEAR_DAYS)
    middle = (_DAY_SWING_WINTER_C + _DAY_SWING_SUMMER_C) / 2
    day_swing = middle + (_DAY_SWING_WINTER_C - middle) * winter
    day = np.cos(2 * np.pi * (days - _WARMEST_HOUR_UTC / 24))
    return np.asarray(YEAR_MEAN_C - _YEAR_SWING_C * winter + day_swing * day)


def sun_height(time: int | Floats, latitude: float, longitude: float) -> Floats:
    """The sine of the sun's elevation, 0 at night, within about 0.03; degrees north and east.

    Declination by Cooper (1969), "The absorption of radiation in solar stills", Solar Energy 12(3); the
    equation of time is left out.
    """
    days = (np.asarray(time, dtype=np.float64) - YEAR_START) / _DAY_S
    declination = np.radians(23.45) * np.sin(2 * np.pi * (284 + days % _YEAR_DAYS + 1) / 365)
    hour_angle = 2 * np.pi * (days % 1 - 0.5) + np.radians(longitude)
    phi = np.radians(latitude)
    height = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(hour_angle)
    return np.asarray(np.maximum(height, 0.0))


def coefficient_of_performance(source_c: Floats, flow_c: float, *, ground: bool) -> Floats:
    """Heat per electricity of a heat pump that lifts heat from ``source_c`` to ``flow_c``.

    The regressions over field trials and makers' data of Staffell, Brett, Brandon and Hawkes (2012), "A
    review of domestic heat pumps", Energy & Environmental Science 5(11), for air and for ground source;
    the lift is kept within the 15 K to 60 K that they are stated for.
    """
    lift = np.clip(flow_c - source_c, 15.0, 60.0)
    if ground:
        return np.asarray(8.77 - 0.150 * lift + 0.000734 * lift**2)
    return np.asarray(6.81 - 0.121 * lift + 0.000630 * lift**2)
