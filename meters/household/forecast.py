"""Forecasts from a household's own past, and nothing else: their errors are real.

``past(k)`` is the mean of the k-th interval before now, k ≥ 1 (1 is the last that has ended).
``ahead`` = 1 is the interval that runs now, 2 the one whose gate is open.
"""

from __future__ import annotations

from collections.abc import Callable

Past = Callable[[int], float]

# How much of the last error stays half an hour later, about the autocorrelation of household loads.
_TRUST_IN_LAST_ERROR = 0.6


def persistence(past: Past, ahead: int, intervals_per_day: int) -> float:
    """As it was last."""
    return past(1)


def seasonal(past: Past, ahead: int, intervals_per_day: int) -> float:
    """As yesterday at that time, corrected by how far yesterday is off now."""
    yesterday = past(intervals_per_day - ahead + 1)
    error = past(1) - past(intervals_per_day + 1)
    return yesterday + _TRUST_IN_LAST_ERROR * error


FORECASTS: dict[str, Callable[[Past, int, int], float]] = {
    "persistence": persistence,
    "seasonal": seasonal,
}
