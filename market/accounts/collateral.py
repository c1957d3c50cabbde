"""How much an account must cover before an order is accepted (rule 3 of design section 3), nEUR.

A worst case is what an account could owe for one interval, whatever the clearing does within the order's
limits and whatever the meter says within the award. Energy beyond the award is covered by one interval at the
fuse.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from market.messages.models import Side, Tariff


@dataclass(frozen=True, slots=True)
class Exposure:
    """Energy that an account answers for: a step at its limit, or an award at its price, µEUR/kWh."""

    side: Side
    energy_wh: int
    price: int


def flexible_worst_neur(exposures: Iterable[Exposure], tariff: Tariff, *, reactive: bool) -> int:
    """The most that steps, or their awards, can cost.

    A bid is paid and taken, or paid and sold back as long energy. An ask is delivered (which costs at a
    negative price), or earned and bought back as short energy: dearer by what the import tariff is above its
    price, or by the local fee. A step with reactive power has a price of its own, so only floor and cap bound
    the way back.
    """
    long_price_min = tariff.floor if reactive else min(0, tariff.export_price)
    short_price_max = tariff.cap if reactive else tariff.import_price
    total = 0
    for step in exposures:
        if step.side == Side.BID:
            worst = max(step.price, step.price - long_price_min, tariff.local_fee)
        else:
            worst = max(short_price_max - step.price, tariff.local_fee, -step.price)
        total += step.energy_wh * max(0, worst)
    return total


def firm_worst_neur(net_wh: int, tariff: Tariff) -> int:
    """The most that firm energy (net into the grid) can cost within the collar."""
    if net_wh < 0:
        return -net_wh * max(0, tariff.import_price, tariff.import_price - tariff.export_price)
    return net_wh * max(0, tariff.import_price - tariff.export_price, -tariff.export_price)


def fuse_worst_neur(fuse_w: int, minutes: int, tariff: Tariff) -> int:
    """One interval at the fuse's rating, unannounced, at the import tariff."""
    return -(-fuse_w * minutes // 60) * max(0, tariff.import_price)


def shortfall_neur(cover_neur: int, worst_neur: Iterable[int], fuse_neur: int) -> int:
    """How much is missing (0: nothing) when ``cover_neur`` stands against the worst cases of open
    intervals.
    """
    return max(0, sum(worst_neur) + fuse_neur - cover_neur)
