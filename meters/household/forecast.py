"""Forecasts from a household's own past, and nothing else: their errors are real.

``history[-k]`` is the mean of the k-th interval before now, k ≥ 1 (-1 is the last that has ended); it
reaches ``HISTORY_DAYS`` back. ``ahead`` = 1 is the interval that runs now, 2 the one whose gate is open.

``analogues`` and ``clear_sky`` tell the median: as likely too much as too little. Leaning to the cheaper
side would pay: what is sold and fails is bought dear, and what is withheld flows all the same and earns
hardly less. But then the feeder's limits are checked on flows that nobody expects, and break. What may
still be told is how sure each part is: the sun's forecast has quantiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from grid.feeder import Floats

HISTORY_DAYS = 29
_DAYS = HISTORY_DAYS - 1

# How much of the last error stays half an hour later, about the autocorrelation of household loads.
_TRUST_IN_LAST_ERROR = 0.6

# Two moments are alike while they differ by less than this part of the load's mean, and of the load now.
_LIKENESS = 0.1
_WEIGHT_OF_THE_ONE_BEFORE = 0.5

_CLEAR_DAYS = 14
_INDEX_LIKENESS = 0.1
_INDEX_MAX = 1.3
_TWILIGHT = 0.02
_INDEX_HALF_LIFE_HOURS = 3.0

Forecast = Callable[[Floats, int, int], float]
"""(history, ahead, intervals per day) → the forecast, in the history's unit."""

Quantiles = Callable[[Floats, int, int, Sequence[float]], list[float]]
"""(history, ahead, intervals per day, chances) → what with each of these chances is more than will come."""


def persistence(history: Floats, ahead: int, intervals_per_day: int) -> float:
    """As it was last."""
    return float(history[-1])


def seasonal(history: Floats, ahead: int, intervals_per_day: int) -> float:
    """As yesterday at that time, corrected by how far yesterday is off now."""
    yesterday = history[ahead - 1 - intervals_per_day]
    error = history[-1] - history[-1 - intervals_per_day]
    return float(yesterday + _TRUST_IN_LAST_ERROR * error)


def analogues(history: Floats, ahead: int, intervals_per_day: int) -> float:
    """What followed, around this time of four weeks' days, on moments like this one.

    A weighted median: the more alike the last two values then and now, the greater the weight. A fridge,
    a heat pump or an oven goes on and off in a rhythm of its own, which no mean of days can tell.
    """
    then = _same_time(ahead, intervals_per_day, intervals_per_day // 24)
    now, before = history[-1], history[-2]
    unlike = np.abs(history[then - ahead] - now)
    unlike += _WEIGHT_OF_THE_ONE_BEFORE * np.abs(history[then - ahead - 1] - before)
    scale = _LIKENESS * (np.abs(history).mean() + abs(now))
    return _weighted_quantiles(history[then], _closeness(unlike, scale), (0.5,))[0]


def clear_sky(
    history: Floats, ahead: int, intervals_per_day: int, chances: Sequence[float] = (0.5,)
) -> list[float]:
    """Solar power as the second-best of the last days at that time, times how clear it is going to be.

    The clear-sky index (power over that envelope) stays as it is but for a change like those that followed,
    around this time of four weeks' days, on an index like this one's. In twilight it tells nothing and is 1.
    """
    days = history[-_DAYS * intervals_per_day :].reshape(_DAYS, intervals_per_day)
    clear = np.partition(days[-_CLEAR_DAYS:], -2, axis=0)[-2]
    if clear[ahead - 1] <= 0:
        return [0.0] * len(chances)
    light = clear > _TWILIGHT * clear.max()
    indices = np.ones_like(days)
    np.divide(days, clear, out=indices, where=light)
    index: Floats = np.minimum(indices, _INDEX_MAX).ravel()
    then = _same_time(ahead, intervals_per_day, 0)[: _DAYS - 1]
    before = index[then - ahead]
    weights = _closeness(before - index[-1], _INDEX_LIKENESS)
    changes = _weighted_quantiles(index[then] - before, weights, chances)
    return [float(clear[ahead - 1] * min(max(index[-1] + by, 0.0), _INDEX_MAX)) for by in changes]


def typical_day(history: Floats, intervals_per_day: int) -> Floats:
    """The day ahead from now on, [intervals_per_day]: the mean of the last week's days at each time."""
    week: Floats = history[-7 * intervals_per_day :].reshape(7, intervals_per_day).mean(axis=0)
    return week


def clear_sky_day(history: Floats, intervals_per_day: int) -> Floats:
    """Solar power of the day ahead from now on, [intervals_per_day].

    As :func:`clear_sky`, but today's clear-sky index gives way to its mean over the last two weeks as the
    hours pass.
    """
    days = history[-_CLEAR_DAYS * intervals_per_day :].reshape(_CLEAR_DAYS, intervals_per_day)
    clear: Floats = np.partition(days, -2, axis=0)[-2]
    if clear.max() <= 0:
        return clear
    usual = min(float(days.sum() / (_CLEAR_DAYS * clear.sum())), 1.0)
    now = usual
    if clear[-1] > _TWILIGHT * clear.max():
        now = min(float(history[-1] / clear[-1]), _INDEX_MAX)
    hours = (np.arange(intervals_per_day) + 0.5) * 24 / intervals_per_day
    ahead: Floats = clear * (usual + (now - usual) * 0.5 ** (hours / _INDEX_HALF_LIFE_HOURS))
    return ahead


class Method(NamedTuple):
    """How a household forecasts its load, and the sun on its modules."""

    load: Forecast
    sun: Quantiles


def _sure(forecast: Forecast) -> Quantiles:
    """Of a forecast that does not know how far it may be off."""
    return lambda history, ahead, per_day, chances: [forecast(history, ahead, per_day)] * len(chances)


FORECASTS: dict[str, Method] = {
    "persistence": Method(persistence, _sure(persistence)),
    "seasonal": Method(seasonal, _sure(seasonal)),
    "analogues": Method(analogues, clear_sky),
}


@lru_cache
def _same_time(ahead: int, intervals_per_day: int, around: int) -> NDArray[np.int64]:
    """Where earlier days' intervals at the forecast's time, ± ``around``, stand in a history."""
    days = np.arange(1, _DAYS + 1) * intervals_per_day
    at = ahead - 1 - days[:, None] + np.arange(-around, around + 1)
    assert at.max() < 0, "a forecast may look at the past only"
    return at.ravel()


def _closeness(difference: Floats, scale: float) -> Floats:
    """Weights from differences; of products only, so that every machine gives the same."""
    if scale <= 0:
        return np.ones_like(difference)
    near = 1 / (1 + np.abs(difference) / scale)
    return near * near * near * near


def _weighted_quantiles(values: Floats, weights: Floats, parts: Sequence[float]) -> list[float]:
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weights[order])
    return [float(values[order[np.searchsorted(cumulated, cumulated[-1] * part)]]) for part in parts]
