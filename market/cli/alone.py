"""The same households without a market: each does what it can with what it owns, at the retail tariffs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from market.accounts.tariff import retail_neur
from market.cli.settings import INTERVAL_S
from market.messages.models import Tariff
from meters.household.life import at_hand_wh, first_state, live
from meters.household.sites import Household

HOURS = INTERVAL_S / 3600


@dataclass(frozen=True)
class Bill:
    """What one household's day came to: earned (> 0) or owed at the retail tariffs, and the electricity that
    it has taken for later at the end (:func:`meters.household.life.at_hand_wh`)."""

    amount_neur: int
    at_hand_wh: float


@dataclass(frozen=True)
class Alone:
    """Sums over households and intervals, Wh.

    ``pv_available_wh`` is what the sun gave, curtailed or not, ``battery_wh`` what batteries hold at first
    and ``battery_left_wh`` what they hold at last. ``bills`` is by household name.
    """

    import_wh: int
    export_wh: int
    pv_available_wh: float
    battery_wh: float
    battery_left_wh: float
    bills: Mapping[str, Bill]

    @property
    def consumption_wh(self) -> float:
        """What the households used: drawn from the grid and the batteries, or generated and not fed in."""
        from_batteries_wh = self.battery_wh - self.battery_left_wh
        return self.import_wh + self.pv_available_wh + from_batteries_wh - self.export_wh


def alone(homes: Sequence[Household], first_interval_start: int, intervals: int, tariff: Tariff) -> Alone:
    """Batteries keep what PV leaves over for later use, vehicles charge when they come home, heat pumps hold
    their stores half full. The feeder's limits are not asked: all that is left over is fed in.
    """
    import_wh = export_wh = 0
    pv_available_wh = battery_wh = battery_left_wh = 0.0
    bills = {}
    for home in homes:
        state = first_state(home, first_interval_start)
        first, amount_neur = state, 0
        battery_wh += state.battery_wh
        for index in range(intervals):
            if home.pv is not None:
                modules_w = home.modules_w.mean(first_interval_start + index * INTERVAL_S, INTERVAL_S)
                pv_available_wh += home.pv.available_w(modules_w) * HOURS
            before = state
            state = live(home, state, None, INTERVAL_S)
            net_wh = state.export_wh - before.export_wh - (state.import_wh - before.import_wh)
            amount_neur += retail_neur(tariff, net_wh)
        import_wh += state.import_wh - first.import_wh
        export_wh += state.export_wh - first.export_wh
        battery_left_wh += state.battery_wh
        bills[home.name] = Bill(amount_neur, at_hand_wh(home, state))
    return Alone(import_wh, export_wh, pv_available_wh, battery_wh, battery_left_wh, bills)
