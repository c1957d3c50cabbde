"""The registers at a boundary that nobody was there to read, from what the device itself stored. Pure.

They are counted back from the registers now: what flowed since is known minute by minute. Every second of the
time between has to be covered, by every component, exactly once; otherwise nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal

from meters.adapters.interface import Stretch
from meters.modbus.energy import Counter, State

Minutes = Mapping[int, Stretch]
"""Stored stretches by their start."""


ROUNDING_WH = 2
"""What the roundings of a long record may come to."""


def state_at(
    state: State,
    raw_wh: tuple[Decimal, Decimal],
    stored: Mapping[str, Minutes],
    at: int,
    *,
    invert: bool,
    last: State | None = None,
) -> State | None:
    """The state of the registers at an earlier time ``at``; None where it is not known.

    ``raw_wh`` are the device's import and export when ``state`` was taken, ``stored`` the stretches of each
    of its components, ``last`` a state before ``at``, below which no register may be.
    """
    drawn, returned = Decimal(0), Decimal(0)
    for minutes in stored.values():
        time = at
        while time < state.taken_at:
            stretch = minutes.get(time)
            if stretch is None:
                return None
            drawn, returned = drawn + stretch.import_wh, returned + stretch.export_wh
            time = stretch.end
        if time != state.taken_at:
            return None
    before = [math.floor(raw_wh[0] - drawn), math.floor(raw_wh[1] - returned)]
    if invert:
        before.reverse()
    same_epoch = last is not None and last.epoch == state.epoch and last.taken_at <= at
    imported = _back(state.imported, before[0], last.imported if last and same_epoch else None)
    exported = _back(state.exported, before[1], last.exported if last and same_epoch else None)
    if imported is None or exported is None or not stored:
        return None
    return State(state.epoch, at, imported, exported, state.identity)


def _back(counter: Counter, raw_wh: int, last: Counter | None) -> Counter | None:
    """The counter when its raw register said ``raw_wh``."""
    total_wh = counter.total_wh - (counter.raw_wh - raw_wh)
    lacking_wh = 0 if last is None else max(0, last.total_wh - total_wh)
    if lacking_wh > ROUNDING_WH or raw_wh + lacking_wh < 0 or total_wh + lacking_wh > counter.total_wh:
        return None
    return Counter(raw_wh + lacking_wh, total_wh + lacking_wh)
