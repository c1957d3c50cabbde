"""The limits of a feeder, and whether an operating point keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from grid.feeder import Feeder, Floats, Ints
from grid.powerflow import OperatingPoint

TOLERANCE_PU = 1e-4
"""An operating point keeps a limit within this, in pu of voltage and of rating (design rule 5)."""


@dataclass(frozen=True, eq=False)
class NetworkLimits:
    """Voltage limits [n] in pu (0 and inf where there are none) and loading limits [m], 1.0 = rating."""

    v_min_pu: Floats
    v_max_pu: Floats
    loading: Floats


def network_limits(
    feeder: Feeder,
    *,
    v_min_pu: float | None = None,
    v_max_pu: float | None = None,
    max_loading_percent: float | None = None,
    security_margin_percent: float = 0.0,
) -> NetworkLimits:
    """The net's own limits, each overridden where a value is given.

    ``security_margin_percent`` narrows loadings by that share, and voltage bands by that share of
    their width, half at each end.
    """
    low, high = feeder.v_min_pu.copy(), feeder.v_max_pu.copy()
    limited = (feeder.v_bus >= 0) & ~np.isin(np.arange(feeder.node_count), feeder.slack)
    if v_min_pu is not None:
        low[limited] = v_min_pu
    if v_max_pu is not None:
        high[limited] = v_max_pu
    percent = feeder.branch_limit_percent
    if max_loading_percent is not None:
        percent = np.full(len(percent), max_loading_percent)
    share = security_margin_percent / 100
    inward = (high[limited] - low[limited]) * share / 2
    low[limited] += inward
    high[limited] -= inward
    return NetworkLimits(low, high, percent / 100 * (1 - share))


@dataclass(frozen=True, eq=False)
class LimitCheck:
    """How an operating point stands to the limits.

    ``excess_*`` are what is beyond the limit (> 0) or left to it (< 0), in pu.
    """

    v_min_pu: float
    v_max_pu: float
    loading_max: float
    excess_v_min: Floats
    excess_v_max: Floats
    excess_current: Floats

    @cached_property
    def worst_excess(self) -> float:
        """How far the worst limit is exceeded (> 0) or kept (< 0), pu; −inf where there is no limit."""
        every = (self.excess_current, self.excess_v_max, self.excess_v_min)
        return max(float(excess.max(initial=-np.inf)) for excess in every)

    @property
    def violations(self) -> int:
        """Voltages and branch ends beyond their limit by more than the tolerance."""
        return int(
            np.count_nonzero(self.excess_v_min > TOLERANCE_PU)
            + np.count_nonzero(self.excess_v_max > TOLERANCE_PU)
            + np.count_nonzero(self.excess_current > TOLERANCE_PU)
        )

    def violated_nodes(self) -> Ints:
        beyond = np.maximum(self.excess_v_min, self.excess_v_max) > TOLERANCE_PU
        return np.flatnonzero(beyond)

    def violated_currents(self) -> Ints:
        return np.flatnonzero(self.excess_current > TOLERANCE_PU)


def check_limits(point: OperatingPoint, limits: NetworkLimits) -> LimitCheck:
    """The operating point against the limits; slack nodes have no voltage limit."""
    v, loading = point.v_pu, point.loading
    others = v[point.flow.feeder.pq]
    return LimitCheck(
        v_min_pu=float(others.min(initial=np.inf)),
        v_max_pu=float(others.max(initial=-np.inf)),
        loading_max=float(loading.max(initial=0.0)),
        excess_v_min=limits.v_min_pu - v,
        excess_v_max=v - limits.v_max_pu,
        excess_current=loading - limits.loading,
    )
