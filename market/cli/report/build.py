"""The page of a day: cards, figures and all numbers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from market.cli.numbers import Group
from market.cli.report.figures import Story, day_figures
from market.cli.report.page import Card, Page, render
from market.cli.summary import Summary
from market.drawing.units import percent, plain


def build_report(story: Story, groups: Sequence[Group]) -> str:
    """The whole page as HTML. ``groups`` are the numbers that close it."""
    summary = story.summary
    run = summary.run
    day = datetime.fromtimestamp(story.day.intervals[0].start, UTC)
    return render(
        Page(
            title=f"A market day on {run.name}",
            lead=f"{day:%A}, {day.day} {day:%B %Y}: {run.households} households on {run.feeder} traded "
            f"{run.intervals} intervals of 15 minutes. All times are UTC.",
            cards=_cards(summary),
            figures=day_figures(story),
            groups=groups,
            notes=[
                "Balanced phases and 15-minute means are assumed. The schedule keeps every limit by an AC "
                "power flow of the whole Wh that were awarded; what meters saw differs by forecast errors.",
                f"Peergrid, seed {run.seed}: the same settings give the same day, to the last unit.",
            ],
        )
    )


def _cards(summary: Summary) -> list[Card]:
    energy, savings, network, prices = summary.energy, summary.savings, summary.network, summary.prices
    share = energy.traded_locally_wh / energy.consumption_wh if energy.consumption_wh else 0.0
    worst = ", ".join(limit.element for limit in network.limits[:3])
    kept = summary.self_sufficiency
    low, high = (prices.low or 0) / 10_000, (prices.high or 0) / 10_000
    return [
        Card(
            "Traded between neighbours",
            plain(energy.traded_locally_wh / 1000, 0),
            "kWh",
            f"{percent(share, 0)} of what the households used",
        ),
        Card(
            "Saved together",
            plain(savings.total_neur / 1e9, 2),
            "EUR",
            f"{plain(savings.energy_neur / 1e9, 2)} energy, "
            f"{plain(savings.network_fees_neur / 1e9, 2)} network fees",
        ),
        Card(
            "Self-sufficiency",
            f"{100 * kept.with_market:.0f}",
            "%",
            f"{percent(kept.without_market, 0)} when each acts for itself",
        ),
        Card("Prices at the buses", f"{plain(low, 1)} to {plain(high, 1)}", "ct/kWh", "lowest to highest"),
        Card(
            "A limit bound in", f"{network.intervals_bound}", f"of {summary.run.intervals} intervals", worst
        ),
        Card(
            "Limits broken by the schedule",
            f"{network.schedule.count}",
            "",
            f"{network.ignored.count} had the network been ignored",
            alarm=network.schedule.count > 0,
        ),
    ]
