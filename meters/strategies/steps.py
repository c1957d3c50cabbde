"""Putting a step into an order: whole Wh, and a limit within the market's range."""

from __future__ import annotations

from market.messages.models import Side, Tariff
from meters.strategies.interface import Device, OfferedStep


def add_step(
    steps: list[OfferedStep], tariff: Tariff, device: Device, side: Side, energy_wh: float, price: float
) -> None:
    """Adds a step, unless it is of less than a Wh."""
    if int(energy_wh) > 0:
        limit = min(max(round(price), tariff.floor), tariff.cap)
        steps.append(OfferedStep(device, side, int(energy_wh), limit))
