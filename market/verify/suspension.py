"""Checks of a suspended interval: nothing was traded, and what the firm energy does to the feeder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from grid.errors import PowerFlowError
from market.verify.case import Case
from market.verify.feasibility import LIMIT_TOLERANCE_PU, excess, figures, violations
from market.verify.report import Check


def checks(case: Case) -> Iterator[Check]:
    record = case.record
    yield _nothing_traded(case)
    other = int(record.interval != case.book.interval)
    says = "Record and book are of the same interval."
    if other:
        says = f"The record is of {record.interval.start}, the book of {case.book.interval.start}."
    yield Check("format", "interval", other, 0, "findings", says)
    says = f"The reason given: {record.reason}" if record.reason else "No reason is given."
    yield Check("format", "reason", int(not record.reason), 0, "findings", says)
    yield _setpoints(case)
    yield from _ac_state(case)


def _nothing_traded(case: Case) -> Check:
    record = case.record
    found = [name for name in ("fills", "trades", "prices", "binding") if getattr(record, name)]
    found += [n for n in ("welfare_eur", "import_wh", "export_wh", "losses_wh") if getattr(record, n)]
    says = "Nothing was filled, traded or priced."
    if found:
        says = f"A suspended interval has no {', no '.join(found)}; the record has."
    return Check("format", "nothing traded", len(found), 0, "findings", says)


def _setpoints(case: Case) -> Check:
    times = Counter(setpoint.order_id for setpoint in case.record.setpoints)
    findings = [f"{order_id!r} has {n} setpoints" for order_id, n in times.items() if n > 1]
    for setpoint in case.record.setpoints:
        entry = case.entry_of.get(setpoint.order_id)
        if entry is None:
            findings.append(f"{setpoint.order_id!r} is no order of the book")
        elif not 0 <= setpoint.energy_wh <= entry.order.energy_wh:
            findings.append(
                f"{setpoint.order_id!r} is to move {setpoint.energy_wh} of {entry.order.energy_wh} Wh"
            )
    says = f"{findings[0]}." if findings else "Relieving setpoints are within the orders."
    return Check("format", "setpoints", len(findings), 0, "findings", says)


def _ac_state(case: Case) -> Iterator[Check]:
    """Whether firm energy alone would have been feasible, and the record's figures at its setpoints."""
    told = case.record.ac.violations > 0
    worst_alone = float("inf")
    try:
        alone = case.solve({})
    except PowerFlowError:
        says = "Firm energy alone has no power flow: the interval had to be suspended."
        yield Check("AC feasibility", "firm energy alone", 0.0, LIMIT_TOLERANCE_PU, "pu", says)
    else:
        worst, where = excess(alone)
        worst_alone = worst
        count = violations(alone)
        says = f"Firm energy alone breaks {count} limits; worst is {where}."
        if not count:
            says = f"Firm energy alone keeps every limit; nearest its limit is {where}."
        if not count and told:
            says += " The interval could have been cleared, without trades at least."
        # Suspended for want of a feasible point, though there is one: that is what must not be.
        wrong = max(-worst, 0.0) + 2 * LIMIT_TOLERANCE_PU if told and not count else 0.0
        yield Check("AC feasibility", "firm energy alone", wrong, LIMIT_TOLERANCE_PU, "pu", says)
    if not told:
        return
    setpoints = {setpoint.order_id: setpoint.energy_wh for setpoint in case.record.setpoints}
    try:
        relieved = case.solve(setpoints)
    except PowerFlowError as error:
        says = f"{error}, though the record tells voltages and loadings at its setpoints."
        yield Check("AC feasibility", "the record's figures", 1, 0, "findings", says)
        return
    yield from figures(case, relieved)
    if setpoints:
        left, where = excess(relieved)
        says = f"With the setpoints the worst limit is {where}."
        more = max(left - worst_alone, 0.0)
        yield Check("AC feasibility", "setpoints relieve", more, LIMIT_TOLERANCE_PU, "pu", says)
