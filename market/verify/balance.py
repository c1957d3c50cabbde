"""Checks of energy and money: the balance to the Wh, welfare, and trades."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from market.verify.case import Case
from market.verify.network import State
from market.verify.report import Check

ROUNDING_WH = 0.5
POWER_FLOW_WH = 0.01
"""What two power flows may differ by over an interval."""

Party = tuple[str, int]
"""A counterparty and the price it trades at."""


def balance_checks(case: Case) -> Iterator[Check]:
    """What the record's own integers say."""
    record = case.record
    injected = sum(entry.sign * entry.fill_wh for entry in case.entries)
    firm = sum(energy.energy_wh for energy in case.firm)
    net_import = record.import_wh - record.export_wh
    off = abs(net_import + injected + firm - record.losses_wh)
    words = "balance exactly" if not off else f"are {off} Wh out of balance"
    yield Check(
        "balance",
        "energy",
        off,
        0,
        "Wh",
        f"Import {record.import_wh} − export {record.export_wh}, fills {injected:+}, firm energy {firm:+} "
        f"and losses {record.losses_wh} Wh {words}.",
    )
    both = min(record.import_wh, record.export_wh)
    lower = min(both, 0)
    says = "The feeder imports or exports, not both."
    if both:
        says = f"Import {record.import_wh} and export {record.export_wh} Wh: one must be zero, none negative."
    yield Check("balance", "one direction", both - 2 * lower, 0, "Wh", says)
    tariff = case.book.tariff
    welfare_neur = -record.import_wh * tariff.import_price + record.export_wh * tariff.export_price
    welfare_neur -= sum(e.sign * e.fill_wh * e.order.limit_price for e in case.entries)
    off_eur = abs(record.welfare_eur - welfare_neur / 1e9)
    says = f"The record's integers make a welfare of {welfare_neur / 1e9!r} EUR"
    says += ", as it says." if not off_eur else f"; it says {record.welfare_eur!r} EUR."
    yield Check("balance", "welfare", off_eur, 0.0, "EUR", says)


def slack_balance(case: Case, state: State) -> Check:
    """Import − export is pandapower's slack power over the interval, rounded to Wh."""
    net_import = case.record.import_wh - case.record.export_wh
    slack_wh = state.slack_w * case.book.interval.hours
    return Check(
        "balance",
        "slack power",
        abs(net_import - slack_wh),
        ROUNDING_WH + POWER_FLOW_WH,
        "Wh",
        f"pandapower's slack power is {slack_wh:.3f} Wh over the interval; the record says {net_import} Wh.",
    )


def _expected(case: Case) -> tuple[Counter[Party], Counter[Party]]:
    """Who must have sold and bought how much, at which price."""
    record, tariff = case.record, case.book.tariff
    sold: Counter[Party] = Counter()
    bought: Counter[Party] = Counter()
    for fill, entry in case.known_fills():
        (sold if entry.sign > 0 else bought)[fill.order_id, fill.price] += fill.energy_wh
    for firm in case.firm:
        at_bus = case.price_at.get(firm.bus)
        if at_bus is None:
            continue  # told by the check of prices
        name = f"firm:{firm.name}"
        if firm.energy_wh > 0:
            sold[name, max(at_bus.price, tariff.export_price)] += firm.energy_wh
        else:
            paid = min(at_bus.price + tariff.local_fee, tariff.import_price)
            bought[name, paid] += -firm.energy_wh
    sold["retailer", tariff.import_price] += record.import_wh
    bought["retailer", tariff.export_price] += record.export_wh
    (bought if record.losses_wh > 0 else sold)["network", 0] += abs(record.losses_wh)
    return +sold, +bought


def _difference(found: Counter[Party], expected: Counter[Party], verb: str) -> tuple[int, str]:
    """The largest difference in Wh, and what it is in words."""
    worst, says = 0, ""
    for party in sorted(set(found) | set(expected)):
        off = abs(found[party] - expected[party])
        if off > worst:
            name, price = party
            worst = off
            says = (
                f"{name} {verb} {found[party]} Wh at {price}; fills and totals make it {expected[party]} Wh."
            )
    return worst, says


def trades_check(case: Case) -> Check:
    """Trades add up to fills, firm energy (with its collar), retailer and losses, at the right prices."""
    trades = case.record.trades
    sold: Counter[Party] = Counter()
    bought: Counter[Party] = Counter()
    strange = ""
    for trade in trades:
        sold[trade.sell, trade.sell_price] += trade.energy_wh
        bought[trade.buy, trade.buy_price] += trade.energy_wh
        if trade.energy_wh <= 0:
            strange = f"A trade of {trade.sell} with {trade.buy} has {trade.energy_wh} Wh."
    expected_sold, expected_bought = _expected(case)
    off_sold, says_sold = _difference(sold, expected_sold, "sells")
    off_bought, says_bought = _difference(bought, expected_bought, "buys")
    fine = f"{len(trades)} trades add up to fills, firm energy, retailer and losses, at their prices."
    return Check(
        "balance",
        "trades",
        max(off_sold, off_bought, int(bool(strange))),
        0,
        "Wh",
        says_sold or says_bought or strange or fine,
    )
