"""How a household turns what it knows into an offer: one small interface, about a page a strategy.

A strategy is named by an entry point of the group ``peergrid.strategies``, in this distribution or in any
other that is installed beside it.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meters.strategies.interface import Strategy

GROUP = "peergrid.strategies"


def strategy_names() -> list[str]:
    """The strategies that are installed."""
    return sorted(_entry_points())


@cache
def load_strategy(name: str) -> Strategy:
    """The strategy of that name; ValueError says why there is none."""
    found = _entry_points()
    if name not in found:
        raise ValueError(f"is no strategy; installed are {', '.join(sorted(found))}")
    try:
        strategy: Strategy = found[name].load()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"({found[name].value}) cannot be loaded: {error}") from error
    if not callable(strategy):
        raise ValueError(f"({found[name].value}) is no function of a situation")
    return strategy


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
