"""All numbers of a day in words and units, for the terminal and the report alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from market.cli.summary import Summary, Violations
from market.drawing.units import count, ct_per_kwh, eur, kwh, percent, shadow_price


@dataclass(frozen=True)
class Row:
    name: str
    value: str


@dataclass(frozen=True)
class Group:
    title: str
    rows: Sequence[Row]


def number_groups(summary: Summary) -> list[Group]:
    """Everything that the summary tells, in the order of a reader's interest."""
    return [
        _energy(summary),
        _money(summary),
        _strategies(summary),
        _network(summary),
        _settlement(summary),
        _elapsed(summary),
    ]


def _energy(summary: Summary) -> Group:
    energy, kept, vehicles = summary.energy, summary.self_sufficiency, summary.vehicles
    solar = f"{kwh(energy.solar_wh, 1)}; {kwh(energy.solar_curtailed_wh, 1)} more were curtailed"
    short = f"{vehicles.short} of {vehicles.departures}"
    if vehicles.short:
        short += f", by {kwh(vehicles.short_wh, 1)}"
    return Group(
        "Energy",
        [
            Row("traded between neighbours", kwh(energy.traded_locally_wh, 1)),
            Row("imported", kwh(energy.imported_wh, 1)),
            Row("exported", kwh(energy.exported_wh, 1)),
            Row("lost in lines and transformers", kwh(energy.losses_wh, 1)),
            Row("used by the households", kwh(energy.consumption_wh, 1)),
            Row("solar generation", solar),
            Row("batteries gave", kwh(energy.from_batteries_wh, 1)),
            Row("metered otherwise than awarded", kwh(energy.imbalance_wh, 1)),
            Row("self-sufficiency with the market", percent(kept.with_market)),
            Row("self-sufficiency without", f"{percent(kept.without_market)}, each for itself"),
            Row("cars that left with less than needed", short),
            Row("heat that lacked for comfort", kwh(summary.heat.lacking_wh, 1)),
        ],
    )


def _money(summary: Summary) -> Group:
    prices, savings, accounts = summary.prices, summary.savings, summary.accounts_neur
    span = (
        "none"
        if prices.low is None or prices.high is None
        else f"{ct_per_kwh(prices.low)} to {ct_per_kwh(prices.high)}"
    )
    return Group(
        "Money",
        [
            Row("prices at the buses", span),
            Row("households saved against the retail tariffs", eur(savings.total_neur)),
            Row("  on energy, after congestion and imbalance", eur(savings.energy_neur)),
            Row("  on network fees", eur(savings.network_fees_neur)),
            Row("households that paid more", f"{savings.households_worse_off} of {summary.run.households}"),
            Row("households gained over a day alone, in all", eur(savings.against_alone_neur)),
            Row(
                "households that lost by it", f"{savings.households_worse_alone} of {summary.run.households}"
            ),
            Row("network account (congestion, losses, fees)", eur(accounts["network"])),
            Row("imbalance account", eur(accounts["imbalance"])),
            Row("retailer", eur(accounts["retailer"])),
            Row("all households", eur(accounts["households"])),
        ],
    )


def _strategies(summary: Summary) -> Group:
    """Each strategy's mean gain, how far it is ahead of its like, and the kinds where it can be compared."""
    rows = []
    for one in summary.strategies:
        rows.append(Row(f"{one.strategy}, {household_words(one.households)}", f"{eur(one.mean_neur)} each"))
        if one.ahead_neur is not None and one.ahead_error_neur is not None:
            error = eur(one.ahead_error_neur)
            rows.append(Row("  ahead of its like by", f"{eur(one.ahead_neur)} ± {error} ({one.compared})"))
    if len(summary.strategies) > 1:
        for kind in sorted({one.kind for one in summary.kinds}):
            same = [one for one in summary.kinds if one.kind == kind]
            if len(same) > 1:
                words = ", ".join(f"{one.strategy} {eur(one.mean_neur)} ({one.households})" for one in same)
                rows.append(Row(f"  {kind}", words))
    return Group("Gain over a day alone, by strategy", rows)


def household_words(number: int) -> str:
    return "1 household" if number == 1 else f"{number} households"


def _network(summary: Summary) -> Group:
    network, run = summary.network, summary.run
    limits = [
        Row(
            f"  {limit.element}, {limit_words(limit.kind)}",
            f"{interval_words(limit.intervals)}, worth up to "
            f"{shadow_price(limit.shadow_price_max_eur_per_mwh, limit.kind)}",
        )
        for limit in network.limits
    ]
    return Group(
        "Network",
        [
            Row("intervals cleared", f"{run.cleared} of {run.intervals}, {run.suspended} suspended"),
            Row("intervals in which a limit bound", f"{network.intervals_bound} of {run.intervals}"),
            *limits,
            Row("limits broken by the schedule", violation_words(network.schedule)),
            Row("limits broken by the metered energy", violation_words(network.metered)),
            Row("the same orders, network ignored", violation_words(network.ignored)),
        ],
    )


def limit_words(kind: str) -> str:
    return {"current": "current", "v_max": "highest voltage", "v_min": "lowest voltage"}[kind]


def interval_words(number: int) -> str:
    return "1 interval" if number == 1 else f"{number} intervals"


def violation_words(found: Violations) -> str:
    words = count(found.count)
    if found.count:
        words += f" in {interval_words(found.intervals)}"
    if found.unsolvable:
        words += f", {interval_words(found.unsolvable)} without any solution"
    if found.loading_max_percent is not None:
        voltages = f"{found.v_min_pu:.3f} to {found.v_max_pu:.3f} pu"
        words += f" (loading up to {found.loading_max_percent:.1f} %, {voltages})"
    return words


def _settlement(summary: Summary) -> Group:
    messages, chain = summary.messages, summary.chain
    equal = "equal to the unit" if chain.balances_equal_ledger else "NOT EQUAL"
    return Group(
        "Messages and settlement",
        [
            Row("orders, readings", f"{count(messages.orders)}, {count(messages.readings)}"),
            Row("receipts, awards", f"{count(messages.receipts)}, {count(messages.awards)}"),
            Row("settlement transactions", f"{chain.batches} with {count(chain.transfers)} transfers"),
            Row("gas", f"{count(chain.gas)} for settlement"),
            Row(
                "setup on the chain",
                f"{chain.setup_transactions} transactions, {count(chain.setup_gas)} gas",
            ),
            Row("token balances and ledger", equal),
            Row(
                "token supply and deposits",
                f"{eur(1000 * chain.total_supply_ueur)}, {eur(1000 * chain.deposits_ueur)}",
            ),
        ],
    )


def _elapsed(summary: Summary) -> Group:
    elapsed = summary.elapsed
    stages = [Row(f"  {name}", f"{seconds:.1f} s") for name, seconds in elapsed.stages_s.items()]
    return Group(
        "Time",
        [
            Row("all in all", f"{elapsed.total_s:.1f} s"),
            *stages,
            Row("broker", elapsed.broker),
            Row("messages in, receipts out", f"{count(elapsed.messages_in)}, {count(elapsed.receipts)}"),
        ],
    )
