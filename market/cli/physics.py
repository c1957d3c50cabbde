"""The feeder as the market's engine sees it: clearing, AC checks, and what flows without an order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grid.catalogue import Profiles, open_feeder, year_profiles
from grid.errors import FeederError, InputError, PowerFlowError
from grid.feeder import Feeder
from grid.limits import check_limits, network_limits
from market.auction.book import Book, Firm, Limits
from market.auction.clearing import clear_book, power_flow
from market.cli.settings import INTERVAL_S
from market.service.ports import Network, Physics, never
from meters.household.forecast import seasonal
from meters.household.settings import HouseholdSettings
from meters.household.sites import DAY_S, Household, Series, households

Forecast = Callable[[int, frozenset[str]], Sequence[Firm]]
"""What flows in the interval at a time (Unix seconds) at the connection points that sent no order."""


def physics_of(
    feeder: Feeder,
    limits: Limits,
    profiles: Profiles,
    wishes: HouseholdSettings,
    seed: int,
    interval_s: int = INTERVAL_S,
    base: Path | None = None,
) -> Physics:
    """What the engine needs of ``feeder``, with forecasts by ``profiles`` and by what ``wishes`` and ``seed``
    add to its households.

    Names of other networks that it may be changed to are paths from ``base``.
    """

    def forecast(profiles: Profiles) -> _Outsiders:
        return _Outsiders(profiles, households(profiles, wishes, seed), wishes.pv_scale, interval_s)

    known = forecast(profiles)

    def on(name: str) -> Forecast:
        return _continued(known, forecast(year_profiles(name, base)))

    return _physics(feeder, limits, interval_s, known, on, base)


def replay_physics(feeder: Feeder, limits: Limits, interval_s: int, base: Path | None = None) -> Physics:
    """The same, where the forecasts are known already."""
    return _physics(feeder, limits, interval_s, _nothing, lambda _: _nothing, base)


def _nothing(_start: int, _ordered: frozenset[str]) -> Sequence[Firm]:
    return ()


def _physics(
    feeder: Feeder,
    limits: Limits,
    interval_s: int,
    outsiders: Forecast,
    outsiders_on: Callable[[str], Forecast],
    base: Path | None,
) -> Physics:
    def changed(network: Network) -> Physics:
        other = open_feeder(network.feeder_name, base)
        check_band(other, network.limits, other.name, "limits.")
        forecast = outsiders_on(network.feeder_name)
        return _physics(other, network.limits, interval_s, forecast, outsiders_on, base)

    return Physics(
        clear=lambda book, out_of_time=never: clear_book(book, feeder, out_of_time=out_of_time),
        without_network=lambda book: without_network(book, feeder),
        check=lambda injections: check(injections, feeder, limits, interval_s),
        outsiders=outsiders,
        bus_of=lambda point: bus_of(feeder, point),
        feeder_sha256=feeder.sha256,
        changed=changed,
    )


def check_band(feeder: Feeder, limits: Limits, source: str, place: str = "") -> None:
    """Raises :class:`FeederError` where ``limits``, which stand at ``place`` of ``source``, leave no voltage
    at a bus, beside each other or beside the net's own.
    """
    band = network_limits(feeder, **limits.model_dump())
    if not (without := np.flatnonzero(band.v_min_pu >= band.v_max_pu)).size:
        return
    node = int(without[0])
    low, high = float(feeder.v_min_pu[node]), float(feeder.v_max_pu[node])
    at = f"at bus:{feeder.v_bus[node]}"
    if limits.v_min_pu is not None:
        whose = f"{high:g}, the net's own {at}" if limits.v_max_pu is None else f"{limits.v_max_pu:g}"
        raise FeederError.single(
            source, f"{place}v_min_pu", limits.v_min_pu, f"is not below v_max_pu, {whose}"
        )
    if limits.v_max_pu is not None:
        reason = f"is not above v_min_pu, {low:g}, the net's own {at}"
        raise FeederError.single(source, f"{place}v_max_pu", limits.v_max_pu, reason)
    raise FeederError.single(feeder.name, "v_min_pu", low, f"is not below v_max_pu, {high:g}, {at}")


def bus_of(feeder: Feeder, connection_point: str) -> int:
    """The bus of ``bus:12`` or ``load:7``. Raises :class:`InputError` where the feeder has no such point."""
    kind, _, index = connection_point.partition(":")
    if kind == "bus" and feeder.node_of(connection_point) is not None:
        return int(index)
    found = np.flatnonzero(feeder.element == connection_point)
    if not len(found):
        raise InputError.single(feeder.name, "connection_point", connection_point, "is not on this feeder")
    return int(feeder.element_bus[found[0]])


def without_network(book: Book, feeder: Feeder) -> dict[str, Any]:
    """The book cleared as if there were no limits, and what the AC power flow says of that."""
    record = clear_book(book, feeder, network=False)
    return {
        "ac": record.ac.model_dump(mode="json"),
        "reason": record.reason,
        "import_wh": record.import_wh,
        "export_wh": record.export_wh,
        "losses_wh": record.losses_wh,
    }


def check(
    injections: Sequence[Firm], feeder: Feeder, limits: Limits, interval_s: int = INTERVAL_S
) -> dict[str, Any]:
    """What the AC power flow says of given injections. Voltages pu, energy Wh of one interval.

    What was metered may use up the security margin, which is there for that.
    """
    p_w, q_var = np.zeros(feeder.node_count), np.zeros(feeder.node_count)
    for firm in injections:
        node = feeder.node_of(firm.connection_point)
        assert node is not None, firm.connection_point
        p_w[node] += firm.p_w
        q_var[node] += firm.q_var
    flow = power_flow(feeder)
    try:
        point = flow.solve(p_w, q_var)
    except PowerFlowError as error:
        return {"reason": str(error)}
    whole = limits.model_dump(exclude={"security_margin_percent"})
    found = check_limits(point, network_limits(feeder, **whole))
    slack_wh = round(point.slack_w * interval_s / 3600)
    return {
        "v_min_pu": round(found.v_min_pu, 6),
        "v_max_pu": round(found.v_max_pu, 6),
        "loading_max_percent": round(100 * found.loading_max, 4),
        "violations": found.violations,
        "import_wh": max(slack_wh, 0),
        "export_wh": max(-slack_wh, 0),
    }


def _together(profiles: Profiles) -> Mapping[str, frozenset[str]]:
    at: dict[int, set[str]] = {}
    for kind in ("load", "sgen", "storage"):
        indices, buses = getattr(profiles, f"{kind}_index"), getattr(profiles, f"{kind}_bus")
        for index, bus in zip(indices.tolist(), buses.tolist(), strict=True):
            at.setdefault(bus, set()).add(f"{kind}:{index}")
    return {name: frozenset(names) for names in at.values() for name in names}


def _continued(known: _Outsiders, new: _Outsiders) -> Forecast:
    """The forecast on a changed network: what was known of a bus goes on where the same things stand at it;
    where something came or went, it is the changed network's own.
    """
    same = {name for name, names in new.together.items() if known.together.get(name) == names}

    def forecast(start: int, ordered: frozenset[str]) -> list[Firm]:
        kept = [firm for firm in known(start, ordered) if firm.connection_point in same]
        return kept + [firm for firm in new(start, ordered) if firm.connection_point not in same]

    return forecast


class _Outsiders:
    """What flows at connection points without an order, W and var as injections.

    A household that said nothing is expected to draw what its load's own past tells, and to feed in the same
    way. Generators at buses without a household run as their profile says: nobody could curtail them.
    """

    def __init__(
        self, profiles: Profiles, homes: Sequence[Household], pv_scale: float, interval_s: int
    ) -> None:
        self._homes = homes
        self._interval_s = interval_s
        self.together = _together(profiles)
        """What shares a bus with each connection point, itself included."""
        served = {home.bus for home in homes}
        self._alone = [
            (f"sgen:{index}", profiles.sgen_p_w[:, column])
            for column, (index, bus) in enumerate(zip(profiles.sgen_index, profiles.sgen_bus, strict=True))
            if int(bus) not in served
        ]
        self._pv_scale = pv_scale

    def __call__(self, start: int, ordered: frozenset[str]) -> list[Firm]:
        firm = []
        for home in self._homes:
            if home.name in ordered:
                continue
            modules_w = max(self._expected(home.modules_w, start), 0.0)
            fed_in_w = home.pv.available_w(modules_w) if home.pv else 0.0
            heat_pump_w = self._expected(home.heat_w, start) / home.cop(start, self._interval_s)
            firm.append(
                Firm(
                    connection_point=home.name,
                    p_w=fed_in_w - max(self._expected(home.load_w, start), 0.0) - heat_pump_w,
                    q_var=-self._expected(home.load_q_var, start),
                )
            )
        for name, column in self._alone:
            p_w = Series(((column, self._pv_scale),)).mean(start, self._interval_s)
            firm.append(Firm(connection_point=name, p_w=p_w))
        return firm

    def _expected(self, series: Series, start: int) -> float:
        """The forecast for the interval at ``start`` that is possible while the one before it runs."""
        per_day = DAY_S // self._interval_s
        history = series.past(start - self._interval_s, per_day + 1, self._interval_s)
        return seasonal(history, 2, per_day)
