"""The feeder as the market's engine sees it: clearing, AC checks, and what flows without an order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grid.catalogue import Profiles, open_feeder
from grid.errors import FeederError, InputError, PowerFlowError
from grid.feeder import Feeder
from grid.limits import check_limits, network_limits
from market.auction.book import Book, Firm, Limits
from market.auction.clearing import clear_book, power_flow
from market.cli.settings import INTERVAL_S
from market.service.ports import Network, Physics, never
from meters.household.forecast import seasonal
from meters.household.sites import DAY_S, Household, Series


def physics_of(
    feeder: Feeder,
    limits: Limits,
    profiles: Profiles,
    homes: Sequence[Household],
    pv_scale: float,
    interval_s: int = INTERVAL_S,
    base: Path | None = None,
) -> Physics:
    """What the engine needs of ``feeder``; ``pv_scale`` multiplies generators that belong to no household.

    Names of other networks that it may be changed to are paths from ``base``.
    """
    return _physics(feeder, limits, interval_s, _Outsiders(profiles, homes, pv_scale, interval_s), base)


def replay_physics(feeder: Feeder, limits: Limits, interval_s: int, base: Path | None = None) -> Physics:
    """The same, where the forecasts are known already."""
    return _physics(feeder, limits, interval_s, lambda _start, _ordered: [], base)


def _physics(
    feeder: Feeder,
    limits: Limits,
    interval_s: int,
    outsiders: Callable[[int, frozenset[str]], Sequence[Firm]],
    base: Path | None,
) -> Physics:
    def changed(network: Network) -> Physics:
        other = open_feeder(network.feeder_name, base)
        band = network_limits(other, **network.limits.model_dump())
        if (band.v_min_pu >= band.v_max_pu).any():
            given = network.limits.model_dump(exclude_none=True)
            raise FeederError.single("feeder", "limits", given, "leave no voltage band at some bus")

        def there(start: int, ordered: frozenset[str]) -> list[Firm]:
            """Of what is forecast, what the other network has."""
            forecast = outsiders(start, ordered)
            return [firm for firm in forecast if other.node_of(firm.connection_point) is not None]

        return _physics(other, network.limits, interval_s, there, base)

    return Physics(
        clear=lambda book, out_of_time=never: clear_book(book, feeder, out_of_time=out_of_time),
        without_network=lambda book: without_network(book, feeder),
        check=lambda injections: check(injections, feeder, limits, interval_s),
        outsiders=outsiders,
        bus_of=lambda point: bus_of(feeder, point),
        feeder_sha256=feeder.sha256,
        changed=changed,
    )


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
    """What the AC power flow says of given injections. Voltages pu, energy Wh of one interval."""
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
    found = check_limits(point, network_limits(feeder, **limits.model_dump()))
    slack_wh = round(point.slack_w * interval_s / 3600)
    return {
        "v_min_pu": round(found.v_min_pu, 6),
        "v_max_pu": round(found.v_max_pu, 6),
        "loading_max_percent": round(100 * found.loading_max, 4),
        "violations": found.violations,
        "import_wh": max(slack_wh, 0),
        "export_wh": max(-slack_wh, 0),
    }


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
