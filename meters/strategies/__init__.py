"""How a household turns what it knows into an offer: one small interface, about a page a strategy."""

from __future__ import annotations

from meters.strategies.interface import Strategy
from meters.strategies.truthful import truthful

STRATEGIES: dict[str, Strategy] = {"truthful": truthful}
