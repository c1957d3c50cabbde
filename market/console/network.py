"""The feeder over a day: values of every bus and branch by interval, and how hard its limits were felt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from grid.feeder import Feeder
from market.auction.schedule import injections_of
from market.console.market import Market, NetworkVersion
from market.drawing.interval import topology_of
from market.service.store import views
from market.service.store.tables import TABLES

SHOWN = ("voltage", "loading", "price", "energy")


def day_values(market: Market, connection: Connection, moment: int | None) -> dict[str, Any]:
    """Voltages (pu) and loadings (percent of the limit) of the schedule, prices (µEUR/kWh) and scheduled net
    energy (Wh, export positive), by interval and node or branch; null where there is none.

    They are those of the UTC day that ``moment`` lies in, as far as its network stood then.
    """
    version = shown_network(market, connection, moment)
    feeder = market.feeder(version.name if version else None)
    topology = topology_of(feeder)
    branches = [name for _, _, name in topology.branches]
    rows = views.intervals_between(connection, version.since, version.until) if version else []
    found: dict[int, dict[str, list[Any]]] = {}
    # A clearing is read once for all that is shown of it.
    for clearing in market.clearings(connection, [row["interval_start"] for row in rows if row["cleared"]]):
        state = market.state_of(clearing)
        price: list[int | None] = [None] * topology.node_count
        energy = [0] * topology.node_count
        for node_price in clearing.record.prices:
            node = feeder.node_of(f"bus:{node_price.bus}")
            if node is not None:
                price[node] = node_price.price
        for point, (p_w, _) in injections_of(clearing.book, clearing.record).items():
            node = feeder.node_of(point)
            if node is not None:
                energy[node] += round(p_w * clearing.book.interval.hours)
        found[clearing.start] = {"price": price, "energy": energy}
        if state is not None:
            found[clearing.start]["voltage"] = [round(v, 4) for v in state.v_pu]
            found[clearing.start]["loading"] = [
                round(state.loading_percent[name], 1) if name in state.loading_percent else None
                for name in branches
            ]
    starts = [row["interval_start"] for row in rows]
    return {
        "starts": starts,
        "states": [row["state"] for row in rows],
        **{key: [found.get(start, {}).get(key) for start in starts] for key in SHOWN},
    }


def shown_network(market: Market, connection: Connection, moment: int | None) -> NetworkVersion | None:
    """The network at a moment, by default the newest, within its day; None before the first gate."""
    day, span = market.day(connection, moment), views.span(connection)
    if day is None or span is None:
        return None
    return market.version_at(connection, span[1] if moment is None else moment, *day)


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
    rows = views.intervals_between(connection, since, until)
    minutes = {row["interval_start"]: row["minutes"] for row in rows}
    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for start, element, _side, kind, _loading, _v_pu, shadow in TABLES["binding"].rows(
        connection, since, until
    ):
        at = found[element, kind]
        at[start] = max(at.get(start, 0.0), shadow)
    ratings = [
        (version, _ratings_va(market.feeder(version.name)))
        for version in market.versions(connection, since, until)
    ]

    def rating_va(element: str, start: int) -> float:
        return next(known for version, known in reversed(ratings) if version.since <= start)[element]

    limits = []
    for (element, kind), shadows in found.items():
        hours_eur = {start: shadow * minutes[start] / 60 for start, shadow in shadows.items()}
        eur_hours = sum(hours_eur.values())
        current = kind == "current"
        limits.append(
            Felt(
                element=element,
                kind=kind,
                seconds=sum(60 * minutes[start] for start in shadows),
                intervals=len(shadows),
                shadow_max=max(shadows.values()),
                worth_eur=eur_hours / 1000 if current else eur_hours,
                rent_eur=sum(eur * rating_va(element, start) for start, eur in hours_eur.items()) / 1e6
                if current
                else None,
            )
        )
    return sorted(limits, key=lambda limit: (-limit.seconds, -limit.worth_eur, limit.element))


def _ratings_va(feeder: Feeder) -> dict[str, float]:
    return dict(zip(feeder.branch.tolist(), feeder.rating_va.tolist(), strict=True))


def duration_curves(
    market: Market, connection: Connection, since: int, until: int, elements: Sequence[str]
) -> dict[str, list[float]]:
    """Loadings of branches over a period, percent of the limit, the highest first."""
    rows = views.intervals_between(connection, since, until)
    starts = [row["interval_start"] for row in rows if row["cleared"]]
    states = market.states(connection, starts) if elements else {}
    curves = {
        element: sorted(
            (
                round(state.loading_percent[element], 2)
                for state in states.values()
                if element in state.loading_percent
            ),
            reverse=True,
        )
        for element in elements
    }
    return {element: curve for element, curve in curves.items() if curve}
