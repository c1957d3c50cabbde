"""Metrics in Prometheus' text format."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from market.console.market import Market
from market.console.readiness import readiness
from market.console.trading import trading
from market.service.store import alarms, batch_views, disputes, health, instructions, views

HELP = {
    "peergrid_market_clock_seconds": "the market's clock at its last change of state",
    "peergrid_data_age_seconds": "since the database last changed",
    "peergrid_intervals": "intervals of the newest day, by state",
    "peergrid_batches": "settlement batches, by state",
    "peergrid_price_ueur_per_kwh": "bus price of the newest clearing",
    "peergrid_traded_wh": "traded between neighbours in the newest cleared interval",
    "peergrid_limits_bound": "limits that bind in the newest cleared interval",
    "peergrid_suspended_intervals": "suspended intervals of the newest day",
    "peergrid_trading_suspended": "1 while an operator's suspension stands",
    "peergrid_guarantee_debts_ueur": "what accounts owe to the market's guarantee",
    "peergrid_ready": "1 where the market runs and has what it needs",
    "peergrid_part_ok": "1 where that part of a running market is as it should be",
    "peergrid_clearing_age_seconds": "from the newest cleared interval's start to the market's clock",
    "peergrid_alarms": "how often something went wrong, by kind, since the market began",
    "peergrid_waiting": "messages and notices that have not left yet",
    "peergrid_instructions_waiting": "what operators asked and the market has not looked at",
    "peergrid_disputes_open": "disputes that nobody has decided on",
}


def exposition(markets: Iterable[Market]) -> str:
    """One sample for each thing and feeder."""
    samples: dict[str, list[tuple[str, float]]] = {name: [] for name in HELP}
    for market in markets:
        for name, labels, value in _samples(market):
            samples[name].append((",".join([f'feeder="{market.name}"', *labels]), value))
    lines = []
    for name, words in HELP.items():
        lines += [f"# HELP {name} {words}", f"# TYPE {name} gauge"]
        lines += [f"{name}{{{labels}}} {value!r}" for labels, value in samples[name]]
    return "\n".join(lines) + "\n"


def _samples(market: Market) -> Iterable[tuple[str, list[str], float]]:
    with market.stored.reading() as connection:
        now = views.market_now(connection)
        day = market.day(connection)
        lines = market.lines(connection, *day) if day else []
        batches = batch_views.batch_counts(connection)
        stand, books = trading(connection), batch_views.chain_books(connection)
        raised = alarms.alarms(connection)
        waiting = health.waiting(connection)
        asked = len(instructions.waiting(connection))
        disputed = sum(one.closed_at is None for one in disputes.everything(connection))
    if now is not None:
        yield "peergrid_market_clock_seconds", [], now
    yield "peergrid_trading_suspended", [], int(stand.now)
    if books is not None:
        yield "peergrid_guarantee_debts_ueur", [], sum(one["debt_ueur"] for one in books["accounts"])
    yield "peergrid_data_age_seconds", [], max(0.0, time.time() - market.stored.written_at())
    yield from _readiness(market)
    counts = Counter[str]()
    for alarm in raised:
        counts[alarm.kind] += alarm.count
    for kind, count in counts.items():
        yield "peergrid_alarms", [f'kind="{kind}"'], count
    for place, count in waiting.items():
        yield "peergrid_waiting", [f'for="{place}"'], count
    yield "peergrid_instructions_waiting", [], asked
    yield "peergrid_disputes_open", [], disputed
    states: dict[str, int] = {}
    for line in lines:
        states[line.state] = states.get(line.state, 0) + 1
    for state, count in states.items():
        yield "peergrid_intervals", [f'state="{state}"'], count
    for state, count in batches.items():
        yield "peergrid_batches", [f'state="{state}"'], count
    cleared = [line.digest for line in lines if line.digest and line.digest.status == "cleared"]
    yield (
        "peergrid_suspended_intervals",
        [],
        sum(line.digest.status == "suspended" for line in lines if line.digest),
    )
    if cleared:
        newest = cleared[-1]
        for bound, price in (
            ("low", newest.price_low),
            ("mean", newest.price_mean),
            ("high", newest.price_high),
        ):
            if price is not None:
                yield "peergrid_price_ueur_per_kwh", [f'of="{bound}"'], price
        yield "peergrid_traded_wh", [], newest.traded_wh
        yield "peergrid_limits_bound", [], newest.bound


def _readiness(market: Market) -> Iterable[tuple[str, list[str], float]]:
    found = readiness(market, time.time())
    if found is None:
        return
    yield "peergrid_ready", [], int(found.ready)
    for check in found.checks:
        yield "peergrid_part_ok", [f'part="{check.name}"'], int(check.ok)
    if found.clearing_age_s is not None:
        yield "peergrid_clearing_age_seconds", [], found.clearing_age_s
