"""Solar power of a roof by its tilt and azimuth, by pvlib (the extra ``peergrid[pvlib]``).

The sky without clouds is pvlib's (solar position, Ineichen and Perez (2002) with the Linke turbidity below,
Hay and Davies' transposition, PVWatts' module); how much of it comes through the clouds is told by
SimBench's own generators: their power over that of their clearest days at the same time of day.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from grid.catalogue import Profiles
from grid.errors import InputError
from grid.feeder import Floats
from meters.household.weather import YEAR_MIDDLES, outdoor_c

_DAY_STEPS, _YEAR_STEPS = 96, 35_136
_LINKE_TURBIDITY = 3.0  # a European year's mean over land; PVGIS and SoDa tell 2.5 in winter to 4 in summer
_CLEAR_WITHIN_DAYS = 14
_TWILIGHT = 0.02
_GAMMA_PER_K = -0.004  # of power, crystalline silicon: PVWatts version 5 manual, NREL/TP-6A20-62641
_SYSTEM_EFFICIENCY = 0.86  # PVWatts' 14 % losses


@dataclass(frozen=True)
class Roof:
    """``tilt_deg`` from the horizontal, ``azimuth_deg`` clockwise from north: 180 looks south."""

    tilt_deg: float
    azimuth_deg: float


def clearness(profiles: Profiles) -> Floats:
    """How much of the clear sky's light arrives, [35136], 0 to 1, from the feeder's generators together.

    The clear sky is the second-best power at each time of day within a fortnight to either side; in twilight
    the sky is as clear as it was last. Without generators every day is clear.
    """
    if profiles not in _CLEARNESS:
        _CLEARNESS[profiles] = _clearness(profiles.sgen_p_w.sum(axis=1))
    return _CLEARNESS[profiles]


_CLEARNESS: WeakKeyDictionary[Profiles, Floats] = WeakKeyDictionary()


def _clearness(power_w: Floats) -> Floats:
    if not power_w.size or power_w.max() <= 0:
        return np.ones(_YEAR_STEPS)
    days = power_w.reshape(-1, _DAY_STEPS)
    around = np.arange(-_CLEAR_WITHIN_DAYS, _CLEAR_WITHIN_DAYS + 1)
    near = np.stack([np.roll(days, shift, axis=0) for shift in around])
    clear = np.partition(near, -2, axis=0)[-2]
    light = clear > _TWILIGHT * clear.max()
    index = np.ones_like(days)
    np.divide(days, clear, out=index, where=light)
    flat = np.minimum(index, 1.0).ravel()
    last_light = np.maximum.accumulate(np.where(light.ravel(), np.arange(len(flat)), 0))
    filled: Floats = flat[last_light]
    return filled


@lru_cache(maxsize=64)
def _clear_roof(roof: Roof, latitude: float, longitude: float) -> tuple[Floats, Floats]:
    """Light on the roof under a clear sky, W/m², direct from the sun's disc and diffuse, [35136]."""
    pvlib = _pvlib()
    times, position, sky = _clear_sky(latitude, longitude)
    total = pvlib.irradiance.get_total_irradiance(
        roof.tilt_deg,
        roof.azimuth_deg,
        position["apparent_zenith"],
        position["azimuth"],
        sky["dni"],
        sky["ghi"],
        sky["dhi"],
        dni_extra=pvlib.irradiance.get_extra_radiation(times),
        model="haydavies",
    ).fillna(0.0)
    return total["poa_direct"].to_numpy(), total["poa_diffuse"].to_numpy()


@lru_cache(maxsize=4)
def _clear_sky(latitude: float, longitude: float) -> tuple[Any, Any, Any]:
    """The steps' middles, the sun's positions and the clear sky's irradiances."""
    import pandas as pd

    pvlib = _pvlib()
    times = pd.to_datetime(YEAR_MIDDLES, unit="s", utc=True)
    position = pvlib.solarposition.get_solarposition(times, latitude, longitude, method="nrel_numpy")
    airmass = pvlib.atmosphere.get_absolute_airmass(
        pvlib.atmosphere.get_relative_airmass(position["apparent_zenith"])
    )
    sky = pvlib.clearsky.ineichen(
        position["apparent_zenith"],
        airmass,
        _LINKE_TURBIDITY,
        dni_extra=pvlib.irradiance.get_extra_radiation(times),
    )
    return times, position, sky


def roof_w(roof: Roof, latitude: float, longitude: float, clear: Floats) -> Floats:
    """Power of 1 kW of modules (at 1000 W/m², 25 °C), W, [35136]; ``clear`` [35136] is the sky's clearness.

    Clouds take the sun's disc first: its light falls with the square of the clearness. Raises
    :class:`InputError` where pvlib is not installed.
    """
    pvlib = _pvlib()
    direct, diffuse = _clear_roof(roof, latitude, longitude)
    light = direct * clear**2 + diffuse * clear
    cell_c = pvlib.temperature.faiman(light, outdoor_c(YEAR_MIDDLES))
    power = pvlib.pvsystem.pvwatts_dc(light, cell_c, 1000.0, _GAMMA_PER_K) * _SYSTEM_EFFICIENCY
    return np.asarray(np.maximum(power, 0.0))


def _pvlib() -> Any:
    try:
        import pvlib
    except ImportError:
        reason = "needs pvlib: pip install 'peergrid[pvlib]'"
        raise InputError.single("the settings", "households.pv_share", "above 0", reason) from None
    return pvlib
