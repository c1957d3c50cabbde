"""A small feeder's profiles that tests can reason about, and households on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from grid.catalogue import Profiles
from meters.household.settings import HouseholdSettings
from meters.household.sites import YEAR_START, Household, households

STEPS = 35_136
NOON = YEAR_START + 166 * 86_400 + 12 * 3600
RICH = HouseholdSettings(pv_scale=4.0, ev_share=1.0, ev_power_w=3_700, battery_share=1.0)


def small_profiles(seed: int = 1) -> Profiles:
    """Two loads and a PV generator with a storage at bus 3, one load at bus 5, a lone generator at 9."""
    random = np.random.default_rng(seed)
    hours = np.arange(STEPS) / 4
    day = 1 + 0.5 * np.sin(2 * np.pi * hours / 24)
    load_p_w = day[:, None] * random.uniform(100, 900, (STEPS, 3))
    sun = np.clip(np.sin(2 * np.pi * (hours / 24 - 0.25)), 0, None)
    sgen_p_w = sun[:, None] * random.uniform(500, 4000, (STEPS, 2))
    return Profiles(
        load_index=np.array([0, 2, 4]),
        load_bus=np.array([3, 3, 5]),
        load_profile=np.array(["H0-A", "H0-B", "H0-C"]),
        load_p_w=load_p_w,
        load_q_var=load_p_w * 0.3,
        sgen_index=np.array([0, 1]),
        sgen_bus=np.array([3, 9]),
        sgen_p_w=sgen_p_w,
        storage_index=np.array([0]),
        storage_bus=np.array([3]),
        storage_capacity_wh=np.array([8000.0]),
        storage_power_w=np.array([4000.0]),
    )


PROFILES = small_profiles()


def rich_household(seed: int = 7) -> Household:
    """One with PV, battery and vehicle."""
    return households(PROFILES, RICH, seed)[0]


def profiles_with_other_future(time: int) -> Profiles:
    """The same until ``time``, everything different afterwards."""
    step = (time - YEAR_START) // 900
    other = small_profiles(seed=2)

    def mixed(past: np.ndarray, future: np.ndarray) -> np.ndarray:
        return np.concatenate([past[:step], future[step:]])

    return replace(
        PROFILES,
        load_p_w=mixed(PROFILES.load_p_w, other.load_p_w),
        load_q_var=mixed(PROFILES.load_q_var, -other.load_q_var),
        sgen_p_w=mixed(PROFILES.sgen_p_w, other.sgen_p_w),
    )
