"""What a statement's page shows, as words and numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from market.accounts.ledger import NETWORK, RETAILER, Kind
from market.accounts.statement import Booked, Flows, Line, Side, Statement, side_of
from market.accounts.tariff import export_parts, import_parts, local_parts
from market.cli.statement.about import About, Period
from market.drawing.units import plain
from market.messages.models import PriceParts, Tariff
from market.service import statements
from market.service.statements import Consumption
from market.service.store import booked

_PRICES_MAX = 6
_EXPLAINED = {
    (Kind.AWARD, "bought"): "by what was ordered for flexible devices",
    (Kind.AWARD, "sold"): "by what was ordered for flexible devices",
    (Kind.FIRM, "bought"): "as announced; never dearer than from the retailer",
    (Kind.FIRM, "sold"): "as announced; never for less than from the retailer",
    (Kind.IMBALANCE, "bought"): "drew more, or fed in less, than announced and awarded",
    (Kind.IMBALANCE, "sold"): "drew less, or fed in more, than announced and awarded",
    (Kind.RETAIL, "bought"): "no trading, or no order came in time",
    (Kind.RETAIL, "sold"): "no trading, or no order came in time",
}
"""A household's lines."""
_METERED = (Kind.IMBALANCE, Kind.RETAIL, Kind.CARRIED)
"""What follows from an interval's metered energy, and not from an order alone."""
_PRICES: Sequence[tuple[str, Callable[[Tariff], int], Callable[[Tariff], PriceParts]]] = (
    ("From the retailer", lambda tariff: tariff.import_price, import_parts),
    ("To the retailer", lambda tariff: tariff.export_price, export_parts),
    ("On a neighbour's energy", lambda tariff: tariff.local_fee, local_parts),
)


@dataclass(frozen=True)
class Bar:
    """A day's (or an hour's) energy: ``sold_wh`` ≥ 0, ``bought_wh`` ≤ 0."""

    name: str
    sold_wh: int
    bought_wh: int


@dataclass(frozen=True)
class Price:
    """One that stood, or where there were too many the lowest and the highest of each column, which need not
    be those of one price. ``minutes`` is how long they stood, ``count`` how many they were.
    """

    name: str
    is_fee: bool
    count: int
    minutes: int
    lowest: tuple[int, ...]
    highest: tuple[int, ...]
    """µEUR/kWh: energy, network, levies, VAT, and all of it."""


@dataclass(frozen=True)
class Leaflet:
    market: str
    about: About
    period: Period
    statement: Statement
    consumption: Consumption | None
    decided_wh: Mapping[tuple[Kind, Side], int]
    bars: Sequence[Bar]
    prices: Sequence[Price]

    def explained(self, line: Line) -> str:
        """What a household's line is about, and how much of it somebody decided and no meter said."""
        if not self.about.meter:
            return ""
        why = _EXPLAINED.get((line.kind, line.side), "")
        decided_wh = self.decided_wh.get((line.kind, line.side), 0)
        if not decided_wh:
            return why
        share = "" if decided_wh == line.energy_wh else f"{plain(abs(decided_wh) / 1000, 3)} kWh of it "
        return "; ".join(filter(None, (f"{share}decided in a dispute", why)))

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
    rows = booked.of_account(connection, about.account, *span) if meter else []
    decided = booked.decided_of(connection, meter, *span)
    decided_wh: Counter[tuple[Kind, Side]] = Counter()
    for row in rows:
        if row.interval_start in decided and row.kind in _METERED:
            decided_wh[row.kind, side_of(row.energy_wh)] += row.energy_wh
    used = Counter(flow.tariff for flow in flows.values())
    return Leaflet(
        market=market,
        about=about,
        period=period,
        statement=statement,
        consumption=statements.consumption(connection, meter, *span, flows) if meter else None,
        decided_wh=decided_wh,
        bars=_bars(rows, period),
        prices=_prices(used, booked.interval_minutes(connection)),
    )


def _prices(used: Mapping[Tariff, int], minutes: int) -> list[Price]:
    """Each price once, though it stood in several tariffs."""
    found: list[Price] = []
    for name, total_of, parts_of in _PRICES:
        stood: Counter[tuple[int, ...]] = Counter()
        for tariff, intervals in used.items():
            parts = parts_of(tariff)
            columns = (parts.energy, parts.network, parts.levies, parts.vat, total_of(tariff))
            stood[columns] += intervals
        sets = [[one] for one in stood] if len(stood) <= _PRICES_MAX else [list(stood)]
        found += [
            Price(
                name=name,
                is_fee=parts_of is local_parts,
                count=len(prices),
                minutes=minutes * sum(stood[price] for price in prices),
                lowest=tuple(map(min, zip(*prices, strict=True))),
                highest=tuple(map(max, zip(*prices, strict=True))),
            )
            for prices in sets
        ]
    return found


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
