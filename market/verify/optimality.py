"""Checks of optimality: the dual bound on welfare, and limits that bind where they have a price."""

from __future__ import annotations

from collections.abc import Iterator

from market.verify.case import Case
from market.verify.duals import Linearised, marginal_groups, net_tariffs
from market.verify.feasibility import LIMIT_TOLERANCE_PU
from market.verify.network import State
from market.verify.report import Check

NEUR_PER_EUR = 1e9
FIGURE_TOLERANCE_EUR = 1e-6
SHADOW_PRICE_TOLERANCE = 1e-5
LOADING_TOLERANCE_PERCENT = 2e-4
V_TOLERANCE_PU = 2e-6


def optimality_checks(case: Case, state: State, linear: Linearised, tolerance: float) -> Iterator[Check]:
    """``tolerance`` is how far prices may be from the duals', µEUR/kWh."""
    yield dual_signs(case, linear)
    yield from certificate_checks(case, state, linear, tolerance)
    yield priced_limits(case, state, linear)
    yield binding_list(case, state, linear)


def dual_signs(case: Case, linear: Linearised) -> Check:
    """Duals of limits are not negative, that of energy lies between the tariffs; else they bound nothing."""
    buy, sell = net_tariffs(case)
    worst = max(sell - linear.energy, linear.energy - buy, 0.0)
    says = "Duals of limits are not negative, and that of energy lies between the tariffs."
    if worst:
        says = f"The energy dual {linear.energy:.2f} is not between {sell} and {buy}."
    for row in linear.rows:
        if -row.dual > worst:
            worst = -row.dual
            says = f"The dual of {row.name} is negative: {row.dual}."
    return Check("optimality", "dual feasibility", worst, 1e-6, "µEUR/kWh or EUR/h", says)


def price_range(case: Case) -> int:
    """From the lowest to the highest price in the auction: tariffs and limits net of fees."""
    prices = [*net_tariffs(case), *(case.net_limit(entry) for entry in case.entries)]
    return max(prices) - min(prices)


def certificate_checks(
    case: Case, state: State, linear: Linearised, price_tolerance: float
) -> Iterator[Check]:
    """Primal, dual and gap of the clearing linearised at the final point (EUR), from scratch."""
    certificate = case.record.certificate
    assert certificate is not None
    hours = case.book.interval.hours
    slack_wh = state.slack_w * hours
    buy, sell = net_tariffs(case)
    tariff = buy if slack_wh > 0 else sell
    primal_neur = -tariff * slack_wh - sum(e.sign * case.net_limit(e) * e.fill_wh for e in case.entries)
    regret_neur = (tariff - linear.energy) * slack_wh
    for entry in case.entries:
        if entry.order.min_fill_percent and not entry.fill_wh:
            continue  # the bound is that of the orders with a minimum fill that were taken
        rent = entry.sign * (linear.at(entry, state) - case.net_limit(entry))
        regret_neur += max(rent, 0.0) * entry.order.energy_wh - rent * entry.fill_wh
    spare_eur = sum(row.dual * -row.excess_pu for row in linear.rows) * hours
    primal = primal_neur / NEUR_PER_EUR
    gap = regret_neur / NEUR_PER_EUR + spare_eur
    for name, told, found in (
        ("primal", certificate.primal_eur, primal),
        ("dual", certificate.dual_eur, primal + gap),
        ("gap", certificate.gap_eur, gap),
    ):
        tolerance = FIGURE_TOLERANCE_EUR * max(1.0, abs(primal))
        says = f"The {name} is {found:.9f} EUR by pandapower, {told:.9f} EUR by the record."
        yield Check("optimality", f"{name} recomputed", abs(told - found), tolerance, "EUR", says)
    # Rounding moves what prices follow from: what it may make a price wrong by, it may make a rent of.
    touched = marginal_groups(case, state, linear, price_tolerance)
    marginal_wh = sum(entry.order.energy_wh for group in touched for entry in group)
    bound_neur = (len(touched) + 1) * price_range(case) + price_tolerance * marginal_wh
    bound = bound_neur / NEUR_PER_EUR
    says = (
        f"No awards are worth more than {primal + gap:.6f} EUR at these duals; these are worth {primal:.6f} "
        f"EUR. Rounding {len(touched)} groups and the retailer by up to 1 Wh, and the price tolerance on "
        f"their {marginal_wh} Wh, may cost {bound:.6f} EUR."
    )
    yield Check("optimality", "gap", gap, bound, "EUR", says)
    # A limit exceeded within its tolerance makes the awards worth more than the bound, by its dual.
    least = -sum(row.dual for row in linear.rows) * LIMIT_TOLERANCE_PU * hours - FIGURE_TOLERANCE_EUR
    says = f"Limits exceeded within their tolerance may make the gap {least:.6f} EUR; it is {gap:.6f} EUR."
    yield Check("optimality", "gap not negative", -gap, -least, "EUR", says)


def priced_limits(case: Case, state: State, linear: Linearised) -> Check:
    """A limit with a shadow price is at its limit, but for what rounding to Wh leaves of it."""
    groups = marginal_groups(case, state, linear)
    kw_per_wh = 1.0 / case.book.interval.hours
    worst, says = 0.0, f"All {sum(row.dual > 0 for row in linear.rows)} limits with a shadow price bind."
    for row in linear.rows:
        if row.dual <= 0:
            continue
        rounding = sum(
            abs(row.by_p[node] + group[0].order.tan_phi * row.by_q[node]) * kw_per_wh
            for group in groups
            for node in [state.node_of_bus[group[0].bus]]
        )
        loose = max(-row.excess_pu - rounding, 0.0)
        if loose > worst:
            worst = loose
            if loose > LIMIT_TOLERANCE_PU:
                says = f"{row.name} has a shadow price, but {-row.excess_pu:.6f} pu of room."
    tolerance = LIMIT_TOLERANCE_PU
    return Check("AC complementarity", "limits with a shadow price", worst, tolerance, "pu", says)


def binding_list(case: Case, state: State, linear: Linearised) -> Check:
    """The published list of binding limits: each dual once, its shadow price, its loading or voltage."""
    currents = {current.name: current for current in state.currents}
    voltages = {f"bus:{voltage.bus}": voltage for voltage in state.voltages}
    rows = {row.name: row for row in linear.rows}
    findings = []
    listed = set()
    for limit in case.record.binding:
        name = f"{limit.element}/{limit.side if limit.kind == 'current' else limit.kind}"
        listed.add(name)
        row = rows.get(name)
        if row is None or row.kind != limit.kind:
            findings.append(f"{name} is said to bind, but has no dual")
            continue
        scale = 1e6 / row.rating_va if row.kind == "current" else 0.01
        if abs(limit.shadow_price_eur_per_mwh - row.dual * scale) > SHADOW_PRICE_TOLERANCE:
            findings.append(
                f"the shadow price of {name} is {limit.shadow_price_eur_per_mwh}, "
                f"its dual makes it {row.dual * scale:.6f}"
            )
        if row.kind == "current":
            at, found, tolerance = (
                limit.loading_percent,
                100 * currents[name].loading,
                LOADING_TOLERANCE_PERCENT,
            )
        else:
            at, found, tolerance = limit.v_pu, voltages[limit.element].v_pu, V_TOLERANCE_PU
        if at is None or abs(at - found) > tolerance:
            findings.append(f"{name} is said to be at {at}, pandapower has it at {found:.6f}")
    findings += [f"{name} has a dual, but is not listed as binding" for name in sorted(set(rows) - listed)]
    if len(case.record.binding) != len(listed):
        findings.append("a limit is listed twice as binding")
    says = "The list of binding limits agrees with the duals and with pandapower."
    if findings:
        says = f"{findings[0][0].upper()}{findings[0][1:]}."
    return Check("AC complementarity", "list of binding limits", len(findings), 0, "findings", says)


def stale_rows(case: Case) -> Check:
    """The record's own word on whether its optimum was settled (rule 11)."""
    count = case.record.ac.stale_rows
    says = "By the record no stale row was left: it is no mere feasible point at a deadline."
    if count:
        says = (
            f"The record has {count} stale rows: it is feasible, and says itself that it is not yet optimal."
        )
    return Check("AC complementarity", "stale rows", count, 0, "rows", says)


def choice_of_orders(case: Case) -> Check | None:
    """What the record says of its choice of orders with a minimum fill, as far as that can be told.

    To find that no other choice is worth more takes a search. But one that is called proven best is worth its
    bound, and none is worth more than that, but for rounding. None without such orders.
    """
    limited = sum(bool(entry.order.min_fill_percent) for entry in case.entries)
    known, certificate = case.record.minimum_fills, case.record.certificate
    if known is None or certificate is None:
        wrong = bool(limited) != (known is not None)
        says = "The record does not say how good its choice of orders with a minimum fill is."
        if not limited:
            says = "The record tells of a choice of orders with a minimum fill; the book has none."
        return Check("optimality", "choice of orders", 1, 0, "findings", says) if wrong else None
    ended = not known.proven
    says = f"By the record no other choice among {limited} orders with a minimum fill is worth more."
    if ended:
        more = known.missed_eur
        says = "By the record the search among orders with a minimum fill ended early: "
        says += (
            "how much more another choice is worth at most is not known."
            if more is None
            else (f"another choice might be worth up to {more:.6f} EUR more.")
        )
    if known.welfare_eur is None:
        return Check("optimality", "choice of orders", int(known.proven), 0, "findings", says)
    # Rounding changes what the awards are worth by 1 Wh of each order and the retailer at most.
    rounding_eur = (len(case.entries) + 1) * price_range(case) / NEUR_PER_EUR
    off = abs(known.welfare_eur - certificate.primal_eur)
    if known.bound_eur is not None:
        beyond = known.welfare_eur - known.bound_eur
        off = max(off, abs(beyond) if known.proven else beyond)
    if off > rounding_eur:
        says = (
            f"The choice of orders with a minimum fill is said to be worth {known.welfare_eur} EUR, and none "
            f"more than {known.bound_eur} EUR; its awards are worth {certificate.primal_eur:.6f} EUR."
        )
    return Check("optimality", "choice of orders", off, rounding_eur, "EUR", says)
