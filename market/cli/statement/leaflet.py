"""What a statement's page shows, as words and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from market.accounts.ledger import NETWORK, RETAILER
from market.accounts.statement import Booked, Flows, Statement
from market.accounts.tariff import export_parts, import_parts, local_parts
from market.cli.statement.about import About, Period
from market.messages.models import PriceParts, Tariff
from market.service import statements
from market.service.statements import Consumption
from market.service.store import booked

_TARIFFS_MAX = 6


@dataclass(frozen=True)
class Bar:
    """A day's (or an hour's) energy: ``sold_wh`` ≥ 0, ``bought_wh`` ≤ 0."""

    name: str
    sold_wh: int
    bought_wh: int


@dataclass(frozen=True)
class Price:
    name: str
    total: int
    parts: PriceParts


@dataclass(frozen=True)
class Leaflet:
    """``tariffs`` are the prices that stood in the period, each with its count of intervals."""

    market: str
    about: About
    period: Period
    statement: Statement
    consumption: Consumption | None
    bars: Sequence[Bar]
    tariffs: Sequence[tuple[int, Sequence[Price]]]
    more_tariffs: int

    @property
    def has_parts(self) -> bool:
        """Of the market's own accounts, only the retailer's amounts have a customer's parts."""
        return bool(self.about.meter) or self.about.account in (RETAILER, NETWORK)


def leaflet(
    connection: Connection,
    market: str,
    about: About,
    period: Period,
    statement: Statement,
    flows: Mapping[int, Flows],
) -> Leaflet:
    meter, span = about.meter, (period.since, period.until)
    used: dict[Tariff, int] = {}
    for flow in flows.values():
        used[flow.tariff] = used.get(flow.tariff, 0) + 1
    tariffs = [(count, _prices(tariff)) for tariff, count in used.items()]
    return Leaflet(
        market=market,
        about=about,
        period=period,
        statement=statement,
        consumption=statements.consumption(connection, meter, *span, flows) if meter else None,
        bars=_bars(booked.of_account(connection, about.account, *span), period) if meter else (),
        tariffs=tariffs[:_TARIFFS_MAX],
        more_tariffs=max(0, len(tariffs) - _TARIFFS_MAX),
    )


def _prices(tariff: Tariff) -> list[Price]:
    return [
        Price("From the retailer", tariff.import_price, import_parts(tariff)),
        Price("To the retailer", tariff.export_price, export_parts(tariff)),
        Price("On a neighbour's energy", tariff.local_fee, local_parts(tariff)),
    ]


def _bars(rows: Sequence[Booked], period: Period) -> list[Bar]:
    """By day; by hour where only a day or two of the period have anything."""
    days = {period.local(row.interval_start).date() for row in rows}
    shape = {1: "%H:00", 2: "%d %H:00"}.get(len(days), "%d")
    sold: dict[str, int] = {}
    bought: dict[str, int] = {}
    nets: dict[int, int] = {}
    for row in rows:
        nets[row.interval_start] = nets.get(row.interval_start, 0) + row.energy_wh
    for start, net_wh in nets.items():
        name = period.local(start).strftime(shape)
        sold[name] = sold.get(name, 0) + max(0, net_wh)
        bought[name] = bought.get(name, 0) + min(0, net_wh)
    return [Bar(name, sold[name], bought[name]) for name in sold]
