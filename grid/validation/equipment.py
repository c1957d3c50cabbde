"""What the tables of a net say of its lines, transformers and buses, each for itself.

The bounds are far outside of what is built; they find wrong units and missing values, not bad engineering.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from grid.feeder import LOADING_PERCENT_DEFAULT, V_MAX_PU_DEFAULT, V_MIN_PU_DEFAULT, refused
from grid.validation.finding import Finding, Severity

_LOW_VOLTAGE_KV = 1.0
# Cables and overhead lines from 6 mm² copper (3.1 Ω/km) to bundled 380 kV conductors (0.02 Ω/km).
_OHM_PER_KM = (0.01, 4.0)
_X_OHM_PER_KM = (0.01, 0.6)
_RATING_KA = (0.02, 3.0)
_LENGTH_KM = {"low": (0.0005, 3.0), "high": (0.0005, 150.0)}
_SHORT_CIRCUIT_PERCENT = (2.0, 20.0)
_RATIO_OFF = 0.15
_BAND_PU = (0.85, 1.15)

Bools = npt.NDArray[np.bool_]


def equipment(net: Any, name: str) -> Iterator[Finding]:
    """What stands in the tables of a pandapower net."""
    for problem in refused(net, name):
        yield Finding("error", "not supported", problem.reason, (problem.field,))
    yield from _buses(net)
    if len(net.line):
        yield from _lines(net)
    if len(net.trafo):
        yield from _transformers(net)


def _of(table: str, rows: Any, mask: Bools) -> tuple[str, ...]:
    return tuple(f"{table}:{index}" for index in rows.index[mask])


def _told(severity: Severity, check: str, text: str, elements: tuple[str, ...]) -> Iterable[Finding]:
    return [Finding(severity, check, text, elements)] if elements else []


def _values(rows: Any, column: str, default: float = np.nan) -> npt.NDArray[np.float64]:
    if column not in rows:
        return np.full(len(rows), default)
    return np.asarray(rows[column], dtype=np.float64)


def _outside(values: npt.NDArray[np.float64], bounds: tuple[float, float]) -> Bools:
    return np.asarray((values < bounds[0]) | (values > bounds[1]))


def _buses(net: Any) -> Iterator[Finding]:
    rows = net.bus[net.bus.in_service.astype(bool)]
    volts = _values(rows, "vn_kv")
    bad = ~(volts > 0)
    yield from _told("error", "voltage level", "has no nominal voltage", _of("bus", rows, bad))
    levels = sorted({round(float(v), 3) for v in volts[~bad]})
    words = ", ".join(f"{level:g} kV" for level in levels)
    yield Finding("note", "voltage levels", words)
    low, high = _values(rows, "min_vm_pu"), _values(rows, "max_vm_pu")
    lowest = np.where(np.isnan(low), V_MIN_PU_DEFAULT, low)
    wrong = _of("bus", rows, lowest >= np.where(np.isnan(high), V_MAX_PU_DEFAULT, high))
    yield from _told("error", "voltage band", "has its limits the wrong way round", wrong)
    wide = (low < _BAND_PU[0]) | (high > _BAND_PU[1])
    words = f"allows voltages beyond {_BAND_PU[0]:g} to {_BAND_PU[1]:g} pu (EN 50160 has ±10 %)"
    yield from _told("warning", "voltage band", words, _of("bus", rows, wide))
    missing = int(np.count_nonzero(np.isnan(low) | np.isnan(high)))
    if missing:
        words = (
            f"{missing} buses have none of their own: {V_MIN_PU_DEFAULT:g} to {V_MAX_PU_DEFAULT:g} pu counts"
        )
        yield Finding("note", "voltage band", words)


def _lines(net: Any) -> Iterator[Finding]:
    rows = net.line[net.line.in_service.astype(bool)]
    rating = _values(rows, "max_i_ka") * _values(rows, "df", 1.0) * _values(rows, "parallel", 1.0)
    words = "has no rated current: the market would put no limit on it"
    yield from _told("warning", "missing rating", words, _of("line", rows, ~(rating > 0)))
    odd = _outside(rating, _RATING_KA) & (rating > 0)
    words = f"has a rated current outside of {1000 * _RATING_KA[0]:g} to {1000 * _RATING_KA[1]:g} A: kA or A?"
    yield from _told("warning", "absurd rating", words, _of("line", rows, odd))
    percent = _values(rows, "max_loading_percent")
    if np.isnan(percent).any():
        count = int(np.isnan(percent).sum())
        yield Finding(
            "note", "loading limit", f"{count} lines without one: {LOADING_PERCENT_DEFAULT:g} % counts"
        )
    r, x = _values(rows, "r_ohm_per_km"), _values(rows, "x_ohm_per_km")
    impossible = ~(r >= 0) | ~np.isfinite(x) | ((r == 0) & (x == 0))
    words = "has no impedance, or a negative resistance"
    yield from _told("error", "impedance", words, _of("line", rows, impossible))
    off = (_outside(r, _OHM_PER_KM) | _outside(np.abs(x), _X_OHM_PER_KM)) & ~impossible
    words = (
        f"is outside of R {_OHM_PER_KM[0]:g} to {_OHM_PER_KM[1]:g}, X {_X_OHM_PER_KM[0]:g} to"
        f" {_X_OHM_PER_KM[1]:g} Ω/km: Ω and Ω/km, or km and m, may have been mixed up"
    )
    yield from _told("warning", "absurd impedance", words, _of("line", rows, off))
    length = _values(rows, "length_km")
    volts = np.asarray(net.bus.vn_kv.reindex(rows.from_bus), dtype=np.float64)
    bounds = [_LENGTH_KM["low" if v <= _LOW_VOLTAGE_KV else "high"] for v in volts]
    strange = np.array(
        [not lo <= one <= hi for one, (lo, hi) in zip(length, bounds, strict=True)], dtype=bool
    )
    words = "has a length that is not built at its voltage: km or m?"
    yield from _told("warning", "absurd length", words, _of("line", rows, strange))
    ends = np.asarray(net.bus.vn_kv.reindex(rows.to_bus), dtype=np.float64)
    apart = np.abs(volts - ends) > 1e-6 * np.maximum(volts, ends)
    yield from _told(
        "error", "voltage levels", "joins two voltage levels without a transformer", _of("line", rows, apart)
    )


def _transformers(net: Any) -> Iterator[Finding]:
    rows = net.trafo[net.trafo.in_service.astype(bool)]
    words = "has no rated power: the market would put no limit on it"
    yield from _told("error", "missing rating", words, _of("trafo", rows, ~(_values(rows, "sn_mva") > 0)))
    vk, vkr = _values(rows, "vk_percent"), _values(rows, "vkr_percent")
    impossible = ~(vk > 0) | ~(vkr >= 0) | (vkr > vk)
    words = "needs a short-circuit voltage above 0 % with a real part of at most that"
    yield from _told("error", "impedance", words, _of("trafo", rows, impossible))
    odd = _outside(vk, _SHORT_CIRCUIT_PERCENT) & ~impossible
    low, high = _SHORT_CIRCUIT_PERCENT
    words = f"has a short-circuit voltage outside of {low:g} to {high:g} %"
    yield from _told("warning", "absurd impedance", words, _of("trafo", rows, odd))
    for side in ("hv", "lv"):
        bus = np.asarray(net.bus.vn_kv.reindex(rows[f"{side}_bus"]), dtype=np.float64)
        off = np.abs(_values(rows, f"vn_{side}_kv") / bus - 1) > _RATIO_OFF
        words = f"is rated for another voltage than its {side} bus has, by more than {100 * _RATIO_OFF:g} %"
        yield from _told("error", "voltage levels", words, _of("trafo", rows, off))
    yield from _taps(rows)


def _taps(rows: Any) -> Iterator[Finding]:
    position, neutral = _values(rows, "tap_pos"), _values(rows, "tap_neutral")
    low, high = _values(rows, "tap_min"), _values(rows, "tap_max")
    beyond = (position < low) | (position > high)
    yield from _told("error", "tap changer", "stands beyond its range", _of("trafo", rows, beyond))
    kinds = rows["tap_changer_type"] if "tap_changer_type" in rows else [None] * len(rows)
    unnamed = np.array([not isinstance(kind, str) or kind == "None" for kind in kinds], dtype=bool)
    ignored = unnamed & np.isfinite(position) & np.isfinite(neutral) & (position != neutral)
    words = "stands off neutral, but tap_changer_type is empty: the tap is ignored ('Ratio' is usual)"
    yield from _told("warning", "tap changer", words, _of("trafo", rows, ignored))
