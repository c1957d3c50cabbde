"""Zero intelligence under a budget: limits at random, never at a loss.

Gode and Sunder (1993), "Allocative efficiency of markets with zero-intelligence traders: market as a partial
substitute for individual rationality", Journal of Political Economy 101(1): ZI-C traders draw their limits
evenly between their own value and the end of the price range. Here the range ends at the retail tariffs, with
whom anybody can deal; what cannot wait (a bid at the cap) is no trader's to gamble with and stays.
"""

from __future__ import annotations

from dataclasses import replace

from market.messages.models import Side
from meters.household.sites import drawn
from meters.strategies.interface import Offer, OfferedStep, Situation
from meters.strategies.truthful import truthful


def zero_intelligence(situation: Situation) -> Offer:
    """The truthful offer at random limits: below the value for a bid, above it for an ask."""
    honest = truthful(situation)
    return replace(honest, steps=tuple(_drawn(situation, i, step) for i, step in enumerate(honest.steps)))


def _drawn(situation: Situation, index: int, step: OfferedStep) -> OfferedStep:
    tariff, value = situation.tariff, step.limit_price
    if value >= tariff.cap:
        return step
    end = max(value, tariff.import_price) if step.side == Side.ASK else min(value, tariff.export_price)
    part = drawn(situation.seed, situation.household, "limit", situation.interval_start, index)
    return replace(step, limit_price=round(value + part * (end - value)))
