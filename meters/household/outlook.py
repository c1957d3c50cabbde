"""What a household expects of the hours ahead: its load, its sun, its need for heat. Pure."""

from __future__ import annotations

import numpy as np

from grid.feeder import Floats
from meters.household.forecast import HISTORY_DAYS, clear_sky_day, typical_day
from meters.household.sites import DAY_S, Household
from meters.household.weather import sun_height
from meters.strategies.interface import Outlook


def outlook(
    household: Household, now: int, start: int, interval_s: int, *, steps: int, step_s: int
) -> Outlook:
    """Forecasts from ``start`` for ``steps`` of ``step_s`` each, from the past before ``now`` alone.

    ``step_s`` is a multiple of ``interval_s`` and a part of a day. The demand for heat stays as it was last.
    """
    per_day = DAY_S // interval_s
    first = (start - now) // interval_s
    at = (first + np.arange(steps * step_s // interval_s)) % per_day
    hours = interval_s / 3600

    def by_step(day_w: Floats) -> Floats:
        energy: Floats = day_w[at].reshape(steps, -1).sum(axis=1) * hours
        return energy

    load_w = typical_day(household.load_w.past(now, HISTORY_DAYS * per_day, interval_s), per_day)
    pv_w = np.zeros(per_day)
    if household.pv is not None:
        sun_w = clear_sky_day(household.modules_w.past(now, HISTORY_DAYS * per_day, interval_s), per_day)
        pv_w = np.clip(sun_w, 0.0, household.pv.rated_w)
    heat_w = float(household.heat_w.past(now, 1, interval_s)[-1])
    middles: Floats = start + step_s * (np.arange(steps, dtype=np.float64) + 0.5)
    return Outlook(
        load_wh=by_step(np.maximum(load_w, 0.0)),
        pv_wh=by_step(pv_w),
        heat_wh=np.full(steps, heat_w * step_s / 3600),
        cop=household.heat_pump.cop(middles) if household.heat_pump else np.ones(steps),
        sun_height=sun_height(middles, household.settings.latitude, household.settings.longitude),
    )
