"""Checks of the price rule: parts, agreement with the duals, and complementary slackness with the fills."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from market.verify.case import Case
from market.verify.duals import (
    PRICE_TOLERANCE,
    UEUR_PER_KWH,
    Linearised,
    marginal_groups,
    net_tariffs,
)
from market.verify.network import Floats, State
from market.verify.report import Check


def price_checks(case: Case, state: State, linear: Linearised, tolerance: float) -> Iterator[Check]:
    yield prices_from_duals(case, state, linear, tolerance)
    yield slackness(case, tolerance)
    yield left_out(case)
    wh_uncertain = float(len(marginal_groups(case, state, linear)) + 1)
    yield retailer_price(case, linear, wh_uncertain)
    if choice := choice_of_dual(case, state, linear, wh_uncertain, tolerance):
        yield choice


def price_parts(case: Case, state: State) -> Check:
    """Every energised bus has one price, whose parts add up to it."""
    prices, buses = case.record.prices, set(state.node_of_bus)
    findings = [f"bus {bus} has no price" for bus in sorted(buses - set(case.price_at))]
    findings += [
        f"bus {bus} has a price, but is not in service" for bus in sorted(set(case.price_at) - buses)
    ]
    if len(prices) != len(case.price_at):
        findings.append("a bus has more than one price")
    for row in prices:
        total = row.energy + row.losses + row.congestion + row.voltage
        if total != row.price:
            findings.append(f"the parts of bus {row.bus} add up to {total}, its price is {row.price}")
    says = f"{findings[0].capitalize()}." if findings else "Every bus has a price, whose parts add up to it."
    return Check("prices", "parts", len(findings), 0, "findings", says)


def prices_from_duals(case: Case, state: State, linear: Linearised, tolerance: float) -> Check:
    """Published prices and parts against those that the published duals make."""
    worst, says = 0.0, "Every price and its parts follow from the published duals and pandapower's gradients."
    for bus, row in case.price_at.items():
        node = state.node_of_bus.get(bus)
        if node is None:
            continue
        pairs = (
            ("price", row.price, linear.price[node]),
            ("energy part", row.energy, linear.energy),
            ("loss part", row.losses, linear.losses[node]),
            ("congestion part", row.congestion, linear.congestion[node]),
            ("voltage part", row.voltage, linear.voltage[node]),
            ("reactive price", row.price_q, linear.price_q[node]),
        )
        for name, told, found in pairs:
            off = abs(told - float(found))
            if not off <= worst:
                worst = off
                if not off <= tolerance:
                    says = f"The {name} of bus {bus} is {told}; the published duals make it {found:.2f}."
    return Check("prices", "prices from duals", worst, tolerance, "µEUR/kWh", says)


def slackness(case: Case, tolerance: float) -> Check:
    """Orders left out would not have gained, orders taken do not lose, at the published prices.

    An order with a minimum fill may be left out although the prices would have taken it: see ``left_out``.
    """
    worst, says = 0.0, ""
    for entry in case.entries:
        rent = case.rent(entry)
        if rent is None:
            continue
        if entry.order.min_fill_percent and not entry.fill_wh:
            continue
        if rent > worst and not entry.whole:
            worst = rent
            verb = "would have gained" if not entry.fill_wh else "was not filled and would have gained"
            says = f"Order {entry.order.id!r} {verb} {rent:.1f} more on each kWh."
        if -rent > worst and entry.fill_wh:
            worst = -rent
            says = f"Order {entry.order.id!r} loses {-rent:.1f} on each kWh."
    if worst <= tolerance:
        says = "No order left out would have gained at its bus's price, and none taken loses."
    return Check("prices", "complementary slackness", worst, tolerance, "µEUR/kWh", says)


def left_out(case: Case) -> Check:
    """The orders that the record says were left out for their minimum fill although the prices met theirs."""
    found = set()
    for entry in case.entries:
        at_bus = case.price_at.get(entry.bus)
        if at_bus is not None and entry.order.min_fill_percent and not entry.fill_wh:
            at_point = at_bus.price + round(entry.order.tan_phi * at_bus.price_q)
            if entry.sign * (at_point - case.net_limit(entry)) > 0:
                found.add(entry.order.id)
    told = case.record.paradoxically_rejected
    wrong = sorted(found.symmetric_difference(told))
    says = f"{len(found)} orders were left out for their minimum fill alone, as the record says."
    if wrong:
        says = f"Order {wrong[0]!r} was left out for its minimum fill alone; the record does not say so."
        if wrong[0] in told:
            says = f"Order {wrong[0]!r} was not left out for its minimum fill alone, as the record says."
    return Check("prices", "orders left out for their minimum fill", len(wrong), 0, "orders", says)


def retailer_price(case: Case, linear: Linearised, wh_uncertain: float) -> Check:
    """The energy dual is the tariff of the way the retailer trades, and between the two where it does not."""
    buy, sell = net_tariffs(case)
    net_wh = case.record.import_wh - case.record.export_wh
    low = buy if net_wh > wh_uncertain else sell
    high = sell if net_wh < -wh_uncertain else buy
    off = max(low - linear.energy, linear.energy - high, 0.0)
    span = f"{low}" if low == high else f"from {low} to {high}"
    says = f"The energy dual is {linear.energy:.2f}; with {net_wh} Wh net import it is to be {span}."
    return Check("prices", "energy price", off, PRICE_TOLERANCE, "µEUR/kWh", says)


def _free_span(
    slope: Floats, fixed: Floats, lowest: Floats, highest: Floats, span: tuple[float, float]
) -> tuple[float, float]:
    """Where t may be so that ``lowest ≤ fixed + slope·t ≤ highest``."""
    used = np.abs(slope) > 1e-12
    at_low, at_high = (lowest[used] - fixed[used]) / slope[used], (highest[used] - fixed[used]) / slope[used]
    low, high = np.minimum(at_low, at_high), np.maximum(at_low, at_high)
    return float(max(span[0], low.max(initial=-np.inf))), float(min(span[1], high.min(initial=np.inf)))


def choice_of_dual(
    case: Case, state: State, linear: Linearised, wh_uncertain: float, tolerance: float
) -> Check | None:
    """Where one dual alone is free, it is in the middle of what the awards allow (rule 6).

    None where more than one is free: to tell their choice takes a solver.
    """
    buy, sell = net_tariffs(case)
    net_wh = case.record.import_wh - case.record.export_wh
    free_energy = abs(net_wh) <= wh_uncertain and buy > sell
    if len(linear.rows) + free_energy != 1:
        return None
    entries = [e for e in case.entries if e.fill_wh or not e.order.min_fill_percent]
    nodes = np.array([state.node_of_bus[entry.bus] for entry in entries], dtype=np.int64)
    tan_phi = np.array([entry.order.tan_phi for entry in entries])
    limit = np.array([case.net_limit(entry) for entry in entries], dtype=np.float64)
    delivery = linear.delivery[nodes] + tan_phi * linear.delivery_q[nodes]
    if free_energy:
        slope, fixed, now, span = delivery, np.zeros(len(entries)), linear.energy, (float(sell), float(buy))
    else:
        row = linear.rows[0]
        slope = -UEUR_PER_KWH * (row.by_p[nodes] + tan_phi * row.by_q[nodes])
        fixed, now, span = linear.energy * delivery, row.dual, (0.0, float("inf"))
    asks = np.array([entry.sign > 0 for entry in entries], dtype=bool)
    some = np.array([entry.fill_wh > 0 for entry in entries], dtype=bool)
    not_all = np.array([not entry.whole for entry in entries], dtype=bool)
    tariff = case.book.tariff
    lowest = np.where(np.where(asks, some, not_all), limit, tariff.floor - tariff.local_fee)
    highest = np.where(np.where(asks, not_all, some), limit, tariff.cap)
    low, high = _free_span(slope, fixed, lowest, highest, span)
    if not np.isfinite(low + high):
        return None
    # An order that got less than 1 Wh before rounding pins its price, and so does the retailer.
    price = fixed + slope * now
    pinned = bool((~some & (np.abs(price - limit) <= tolerance)).any()) or (
        free_energy and min(abs(now - buy), abs(now - sell)) <= tolerance
    )
    unit = 1.0 if free_energy else float(np.abs(slope).max(initial=0.0))
    # Where rounding makes awards contradict each other a little, there is no middle, but a span all the same.
    off = abs(now - (low + high) / 2) if low <= high else max(high - now, now - low, 0.0)
    off = 0.0 if pinned else off * unit
    name = "energy" if free_energy else linear.rows[0].name
    says = f"The one free dual, of {name}, is {now:.4f}; the awards allow {low:.4f} to {high:.4f}, "
    says += "and the price rule takes the middle." if not pinned else "and an order pins it."
    return Check("prices", "choice of duals", off, tolerance, "µEUR/kWh", says)
