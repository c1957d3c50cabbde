"""Metrics in Prometheus' text format."""

from __future__ import annotations

import time
from collections.abc import Iterable

from market.console.market import Market
from market.service.store import views

HELP = {
    "peergrid_market_clock_seconds": "the market's clock at its last change of state",
    "peergrid_data_age_seconds": "since the database last changed",
    "peergrid_intervals": "intervals of the newest day, by state",
    "peergrid_batches": "settlement batches, by state",
    "peergrid_price_ueur_per_kwh": "bus price of the newest clearing",
    "peergrid_traded_wh": "traded between neighbours in the newest cleared interval",
    "peergrid_limits_bound": "limits that bind in the newest cleared interval",
    "peergrid_suspended_intervals": "suspended intervals of the newest day",
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
        batches = views.batch_counts(connection)
    if now is not None:
        yield "peergrid_market_clock_seconds", [], now
    yield "peergrid_data_age_seconds", [], max(0.0, time.time() - market.stored.written_at())
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
