"""The feeder over a day: values of every bus and branch by interval, and how hard its limits were felt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from market.auction.schedule import injections_of
from market.console.market import Market
from market.drawing.interval import topology_of
from market.service.store.tables import TABLES


def day_values(market: Market, connection: Connection, moment: int | None) -> dict[str, Any]:
    """Voltages (pu) and loadings (percent of the limit) of the schedule, prices (µEUR/kWh) and scheduled net
    energy (Wh, export positive), by interval and node or branch; null where there is none.
    """
    feeder = market.feeder
    topology = topology_of(feeder)
    branches = [name for _, _, name in topology.branches]
    day = market.day(connection, moment)
    lines = market.lines(connection, *day) if day else []
    values: dict[str, list[Any]] = {"voltage": [], "loading": [], "price": [], "energy": []}
    for line in lines:
        state = market.state(connection, line.start) if line.digest else None
        clearing = market.clearing(connection, line.start) if line.digest else None
        values["voltage"].append([round(v, 4) for v in state.v_pu] if state else None)
        values["loading"].append(
            [
                round(state.loading_percent[name], 1) if name in state.loading_percent else None
                for name in branches
            ]
            if state
            else None
        )
        price: list[int | None] = [None] * topology.node_count
        energy = [0] * topology.node_count
        if clearing:
            for node_price in clearing.record.prices:
                node = feeder.node_of(f"bus:{node_price.bus}")
                if node is not None:
                    price[node] = node_price.price
            for point, (p_w, _) in injections_of(clearing.book, clearing.record).items():
                node = feeder.node_of(point)
                if node is not None:
                    energy[node] += round(p_w * clearing.book.interval.hours)
        values["price"].append(price if clearing else None)
        values["energy"].append(energy if clearing else None)
    return {"starts": [line.start for line in lines], "states": [line.state for line in lines], **values}


@dataclass(frozen=True)
class Felt:
    """A limit over a period. ``worth`` is EUR for one more kVA of a current's rating or 0.01 pu of voltage;
    ``rent_eur`` is what the limit earned: shadow price times rating (currents only).
    """

    element: str
    kind: str
    seconds: int
    intervals: int
    shadow_max: float
    worth_eur: float
    rent_eur: float | None


def felt_limits(market: Market, connection: Connection, since: int, until: int) -> list[Felt]:
    """Limits that bound in ``[since, until)``, the longest first; a branch that binds at both ends once."""
    minutes = {line.start: line.minutes for line in market.lines(connection, since, until)}
    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for start, element, _side, kind, _loading, _v_pu, shadow in TABLES["binding"].rows(
        connection, since, until
    ):
        at = found[element, kind]
        at[start] = max(at.get(start, 0.0), shadow)
    feeder = market.feeder
    rating_va = dict(zip(feeder.branch.tolist(), feeder.rating_va.tolist(), strict=True))
    limits = []
    for (element, kind), shadows in found.items():
        eur_hours = sum(shadow * minutes[start] / 60 for start, shadow in shadows.items())
        current = kind == "current"
        limits.append(
            Felt(
                element=element,
                kind=kind,
                seconds=sum(60 * minutes[start] for start in shadows),
                intervals=len(shadows),
                shadow_max=max(shadows.values()),
                worth_eur=eur_hours / 1000 if current else eur_hours,
                rent_eur=eur_hours * rating_va[element] / 1e6 if current else None,
            )
        )
    return sorted(limits, key=lambda limit: (-limit.seconds, -limit.worth_eur, limit.element))


def duration_curves(
    market: Market, connection: Connection, since: int, until: int, elements: Sequence[str]
) -> dict[str, list[float]]:
    """Loadings of branches over a period, percent of the limit, the highest first."""
    curves: dict[str, list[float]] = {element: [] for element in elements}
    for line in market.lines(connection, since, until):
        state = market.state(connection, line.start) if line.digest else None
        if state:
            for element, curve in curves.items():
                if element in state.loading_percent:
                    curve.append(round(state.loading_percent[element], 2))
    return {element: sorted(curve, reverse=True) for element, curve in curves.items() if curve}
