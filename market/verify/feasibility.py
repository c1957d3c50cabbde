"""Checks of the AC state: every limit kept, and the record's figures true."""

from __future__ import annotations

from collections.abc import Iterator

from market.verify.case import Case
from market.verify.network import State
from market.verify.report import Check

LIMIT_TOLERANCE_PU = 1e-4
"""Voltage and loading beyond their limits that still count as kept (design rule 5)."""
FIGURE_TOLERANCE_PU = 2e-6
"""The record's figures have six decimals of a pu."""
MISMATCH_W_MAX = 1.0


def excess(state: State) -> tuple[float, str]:
    """The worst limit's excess in pu (< 0: room left), and which that is in words."""
    worst, says = -1.0, "nothing is limited"
    for current in state.currents:
        beyond = current.loading - current.limit
        if beyond > worst:
            worst = beyond
            says = f"{current.element} ({current.side}) at {100 * current.loading:.3f} % "
            says += f"of {100 * current.limit:g} %"
    for voltage in state.voltages:
        beyond = max(voltage.v_pu - voltage.v_max_pu, voltage.v_min_pu - voltage.v_pu)
        if beyond > worst:
            worst = beyond
            says = f"bus:{voltage.bus} at {voltage.v_pu:.5f} pu "
            says += f"of {voltage.v_min_pu:g} to {voltage.v_max_pu:g} pu"
    return worst, says


def violations(state: State) -> int:
    """Voltages and branch ends beyond their limit by more than the tolerance."""
    currents = sum(current.loading - current.limit > LIMIT_TOLERANCE_PU for current in state.currents)
    high = sum(voltage.v_pu - voltage.v_max_pu > LIMIT_TOLERANCE_PU for voltage in state.voltages)
    low = sum(voltage.v_min_pu - voltage.v_pu > LIMIT_TOLERANCE_PU for voltage in state.voltages)
    return currents + high + low


def limits_kept(state: State) -> Check:
    worst, where = excess(state)
    count = violations(state)
    verdict = "keeps every limit" if not count else f"breaks {count} limits"
    return Check(
        "AC feasibility",
        "voltages and loadings",
        max(worst, 0.0),
        LIMIT_TOLERANCE_PU,
        "pu",
        f"pandapower's power flow {verdict}; nearest its limit is {where}.",
    )


def figures(case: Case, state: State) -> Iterator[Check]:
    """The record's own account of the AC state."""
    ac = case.record.ac
    loading = max((current.loading for current in state.currents), default=0.0)
    pairs = (
        ("lowest voltage", ac.v_min_pu, state.v_min_pu),
        ("highest voltage", ac.v_max_pu, state.v_max_pu),
        (
            "highest loading",
            None if ac.loading_max_percent is None else ac.loading_max_percent / 100,
            loading,
        ),
    )
    worst, says = 0.0, "The record's voltages, loading and count of violations are pandapower's."
    for name, told, found in pairs:
        off = float("inf") if told is None else abs(told - found)
        if off > worst:
            worst = off
            if off > FIGURE_TOLERANCE_PU:
                says = f"The record's {name} is {told} pu, pandapower's {found:.6f} pu."
    count = violations(state)
    if ac.violations != count:
        worst = float("inf")
        says = f"The record counts {ac.violations} violations, pandapower {count}."
    yield Check("AC feasibility", "the record's figures", worst, FIGURE_TOLERANCE_PU, "pu", says)


def linear_mismatch(case: Case) -> Check:
    """Before rounding the linear slack power agreed with AC, by the record's word."""
    off = abs(case.record.ac.slack_mismatch_w)
    says = f"By the record, linear and AC slack power differed by {off:g} W before rounding."
    return Check("AC complementarity", "slack mismatch", off, MISMATCH_W_MAX, "W", says)
