"""The summary of a day on a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from market.cli.numbers import number_groups
from market.cli.summary import Summary
from market.drawing.units import count, eur, percent

WIDTH_MAX = 100


def show_summary(summary: Summary, report: Path) -> None:
    """Headline, then every number with its unit, then where the report is; on standard output."""
    console = Console(highlight=False)
    console.width = min(console.width, WIDTH_MAX)
    run = summary.run
    console.print()
    console.print(
        Text.assemble((f"{run.name} ", "bold"), (f"{run.feeder}, {run.date}, seed {run.seed}", "dim"))
    )
    headlines = Table.grid(expand=True)
    for _ in range(3):
        headlines.add_column(ratio=1)
    headlines.add_row(*_headlines(summary))
    console.print(headlines)
    for group in number_groups(summary):
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(justify="right", overflow="fold")
        for row in group.rows:
            table.add_row(row.name, row.value)
        console.print(Text(group.title, style="bold"))
        console.print(table)
        console.print()
    console.print(Text.assemble(("report  ", "dim"), str(report)))


def _headlines(summary: Summary) -> list[Panel]:
    savings, network, kept = summary.savings, summary.network, summary.self_sufficiency
    alarm = "red" if network.schedule.count else "green"
    return [
        _panel(eur(savings.total_neur), "saved together,", "against retail"),
        _panel(
            percent(kept.with_market, 0), "self-sufficient,", f"{percent(kept.without_market, 0)} each alone"
        ),
        _panel(
            count(network.schedule.count),
            "limits broken,",
            f"{count(network.ignored.count)} without network",
            alarm,
        ),
    ]


def _panel(value: str, words: str, more: str, style: str = "none") -> Panel:
    text = Text.assemble((value, f"bold {style}"), "\n", (f"{words}\n{more}", "dim"))
    return Panel(text, border_style="dim")
