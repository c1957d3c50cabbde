"""How far a day is, on standard error, where that is a terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from market.cli.run import Stopwatch
from market.service.ports import Progress


class Bar:
    """A bar over the day's intervals; :meth:`advance` is what the engine calls after every stage."""

    def __init__(self, intervals: int, watch: Stopwatch) -> None:
        self._intervals = intervals
        self._watch = watch
        console = Console(stderr=True)
        self._bar = RichProgress(
            TextColumn("[bold]{task.fields[clock]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[stage]}", style="dim"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("day", total=intervals, clock="     ", stage="broker, chain, meters")

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._bar.stop()

    def advance(self, progress: Progress) -> None:
        self._watch.add(progress.stage, progress.seconds)
        clock = datetime.fromtimestamp(progress.interval_start, UTC)
        done = min(progress.index, self._intervals)
        self._bar.update(self._task, completed=done, clock=f"{clock:%H:%M}", stage=progress.stage)
