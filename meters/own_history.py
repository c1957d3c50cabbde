"""Trading for a real meter: its forecast is made from what its own registers have told so far."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import numpy as np

from grid.feeder import Floats
from market.messages.models import Gate, Side
from meters.household.devices import Pv
from meters.household.forecast import HISTORY_DAYS, Forecast, analogues, persistence, seasonal
from meters.outbox import HistoryRow
from meters.strategies.interface import BatteryNow, Memory, Situation, Strategy
from meters.trader import Ordered, Orders, Proposal

DAY_S = 86_400
_SEASONAL_DAYS = 2
_REACHED = 0.95


class OwnHistory:
    """A :class:`meters.trader.Trader`. All that the meter sees is firm energy, at its forecast; what the
    ``device`` behind it can choose is offered by ``strategy``.
    """

    def __init__(
        self,
        name: str,
        device: Callable[[], Pv | BatteryNow | None],
        strategy: Strategy,
        interval_s: int,
        past: Iterable[HistoryRow] = (),
    ) -> None:
        self._name = name
        self._device = device
        self._strategy = strategy
        self._interval_s = interval_s
        self._memory: Memory = {}
        self._seen = {row.start: (row.import_wh, row.export_wh) for row in past}

    def recall(self, memory: str) -> None:
        self._memory = json.loads(memory)

    def observe(self, start: int, import_wh: int, export_wh: int, ordered: Ordered | None) -> tuple[int, int]:
        """Remembers an interval; the energies to keep of it, Wh: without what a battery was awarded, and with
        what a generator was not let give.
        """
        device = self._device()
        if ordered is not None and isinstance(device, BatteryNow):
            net_wh = export_wh - import_wh - _flexible_wh(ordered)
            import_wh, export_wh = max(0, -net_wh), max(0, net_wh)
        elif ordered is not None and isinstance(device, Pv):
            export_wh += _curtailed_wh(ordered, export_wh)
        self._seen[start] = (import_wh, export_wh)
        for old in [at for at in self._seen if at < start - HISTORY_DAYS * DAY_S]:
            del self._seen[old]
        return import_wh, export_wh

    def propose(self, gate: Gate, orders: Orders) -> Proposal | None:
        if not self._seen:
            return None
        import_wh, export_wh = (max(0, round(value)) for value in self._forecasts(gate.interval_start))
        device = self._device()
        surplus_wh = 0 if isinstance(device, Pv) else max(0, export_wh - import_wh)
        if device is None:
            return Proposal(max(0, import_wh - export_wh), surplus_wh, 0, ())
        offer = self._strategy(
            Situation(
                hours=self._interval_s / 3600,
                tariff=gate.tariff,
                load_wh=import_wh,
                load_q_var=0.0,
                pv=device if isinstance(device, Pv) else None,
                pv_wh=export_wh,
                battery=device if isinstance(device, BatteryNow) else None,
                ev=None,
                household=self._name,
                interval_start=gate.interval_start,
                memory=self._memory,
            )
        )
        self._memory = offer.memory
        return Proposal(offer.firm_import_wh, surplus_wh, 0, offer.steps, json.dumps(offer.memory))

    def _forecasts(self, interval_start: int) -> tuple[float, float]:
        """Import and export of the interval, Wh; by the best method that the past is long enough for."""
        first, last = min(self._seen), max(self._seen)
        per_day = DAY_S // self._interval_s
        count = min((last - first) // self._interval_s + 1, HISTORY_DAYS * per_day)
        starts = range(last - (count - 1) * self._interval_s, last + 1, self._interval_s)
        known, rows = self._seen[first], []
        for start in starts:
            known = self._seen.get(start, known)  # a gap goes on as it was
            rows.append(known)
        ahead = (interval_start - last) // self._interval_s
        method = _method(count, ahead, per_day)
        past: Floats = np.array(rows, dtype=np.float64)
        return method(past[:, 0], ahead, per_day), method(past[:, 1], ahead, per_day)


def _method(count: int, ahead: int, per_day: int) -> Forecast:
    if ahead > per_day or count < _SEASONAL_DAYS * per_day:
        return persistence
    return seasonal if count < HISTORY_DAYS * per_day else analogues


def _curtailed_wh(ordered: Ordered, export_wh: int) -> int:
    """What was offered and not awarded, where the award was reached: else its sun was less than that. Without
    it a limit would become the next offer, be awarded in full, and so be lifted every other interval.
    """
    if ordered.awarded_wh is None or export_wh < _REACHED * _flexible_wh(ordered):
        return 0
    return sum(step.energy_wh for step in ordered.proposal.steps) - sum(ordered.awarded_wh)


def _flexible_wh(ordered: Ordered) -> int:
    """Net energy into the grid that was awarded to the steps."""
    if ordered.awarded_wh is None:
        return 0
    both = zip(ordered.proposal.steps, ordered.awarded_wh, strict=True)
    return sum(wh if step.side == Side.ASK else -wh for step, wh in both)
