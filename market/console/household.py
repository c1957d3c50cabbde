"""One household: its statement, why it got what it got, and its day in two figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from fastapi import HTTPException
from sqlalchemy import Connection

from market.accounts.ledger import Kind, household
from market.accounts.statement import Side, side_of, words
from market.accounts.tariff import retail_neur
from market.auction.explain import explain
from market.console.market import Market
from market.drawing.plot import Size, day_plot
from market.messages.models import Tariff
from market.service.store import meter_views

Figures = tuple[str, str]
SIZES = (Size(1040, 230), Size(340, 210))


@dataclass(frozen=True)
class Statement:
    """A household's period. Money is nEUR, earned > 0; ``saved`` is against the retail tariffs for the same
    metered energy: ``fees_saved`` by network fees that were not due, ``energy_saved`` the rest.
    """

    lines: Sequence[tuple[str, int, int]]
    total_neur: int
    retail_neur: int
    import_wh: int
    export_wh: int
    intervals: int
    provisional: int
    fees_saved_neur: int
    deposit_ueur: int
    balance_neur: int
    on_chain_ueur: int

    @property
    def saved_neur(self) -> int:
        return self.total_neur - self.retail_neur

    @property
    def energy_saved_neur(self) -> int:
        return self.saved_neur - self.fees_saved_neur


def month_of(moment: int) -> tuple[int, int]:
    """The UTC month of a moment, as ``[since, until)``."""
    at = datetime.fromtimestamp(moment, UTC).replace(day=1, hour=0, minute=0, second=0)
    following = at.replace(year=at.year + at.month // 12, month=at.month % 12 + 1)
    return int(at.timestamp()), int(following.timestamp())


def statement(connection: Connection, meter: str, since: int, until: int) -> Statement:
    """What a household's energy came to in ``[since, until)``.

    Retail fees are due on what the feeder imports. Its share of that is, in every interval, its share of all
    that households drew; on the rest it pays the local fee instead. Without trading there is no rest.
    """
    account = household(meter)
    tariffs = _Tariffs(connection, since, until)
    sums: dict[tuple[Kind, Side], tuple[int, int]] = {}
    supply_wh: dict[int, int] = {}
    from_retailer: set[int] = set()
    for row in meter_views.posted(connection, account, since, until):
        if row.account == account:
            key = (Kind(row.kind), side_of(row.energy_wh))
            wh, neur = sums.get(key, (0, 0))
            sums[key] = (wh + row.energy_wh, neur + row.amount_neur)
            if key[0] in (Kind.RETAIL, Kind.CARRIED):
                from_retailer.add(row.interval_start)
        else:
            supply_wh[row.interval_start] = row.energy_wh
    retail = import_wh = export_wh = fees_saved = counted = provisional = 0
    for own in meter_views.drawn(connection, meter, since, until):
        if own.import_wh is None or own.export_wh is None:
            provisional += own.flag is not None
            continue
        counted += 1
        tariff = tariffs[own.interval_start]
        net_wh = own.export_wh - own.import_wh
        import_wh, export_wh = import_wh + own.import_wh, export_wh + own.export_wh
        retail += retail_neur(tariff, net_wh)
        imported_wh = max(0, supply_wh.get(own.interval_start, 0))
        if net_wh < 0 and own.all_drawn_wh and own.interval_start not in from_retailer:
            local_wh = -net_wh * max(0, own.all_drawn_wh - imported_wh) // own.all_drawn_wh
            fees_saved += local_wh * (tariff.import_fees - tariff.local_fee)
    deposit_ueur, ledger_neur, settled_ueur = meter_views.balance_of(connection, account)
    return Statement(
        lines=[(words(*key), *sums[key]) for key in sorted(sums)],
        total_neur=sum(neur for _, neur in sums.values()),
        retail_neur=retail,
        import_wh=import_wh,
        export_wh=export_wh,
        intervals=counted,
        provisional=provisional,
        fees_saved_neur=fees_saved,
        deposit_ueur=deposit_ueur,
        balance_neur=1000 * deposit_ueur + ledger_neur,
        on_chain_ueur=deposit_ueur + settled_ueur,
    )


class _Tariffs:
    """The tariffs of a period by interval: few are different."""

    def __init__(self, connection: Connection, since: int, until: int) -> None:
        self._texts = meter_views.tariff_texts(connection, since, until)
        self._read = cache(Tariff.model_validate_json)

    def __getitem__(self, start: int) -> Tariff:
        return self._read(self._texts[start])


@dataclass(frozen=True)
class Line:
    """One household among all, for a period; money as in :class:`Statement`. ``kind`` is what its meter says
    that it is, which nobody can check.
    """

    meter: str
    owner: str
    connection_point: str
    kind: str
    total_neur: int
    retail_neur: int
    balance_neur: int
    disputes: int

    @property
    def saved_neur(self) -> int:
        return self.total_neur - self.retail_neur


@dataclass(frozen=True)
class KindLine:
    """The households of one kind."""

    kind: str
    households: int
    saved_neur: int
    better: int

    @property
    def mean_neur(self) -> float:
        return self.saved_neur / self.households


def everyone(connection: Connection, since: int, until: int) -> list[Line]:
    """All households of the market."""
    retail: Counter[str] = Counter()
    tariffs = _Tariffs(connection, since, until)
    for start, meter, import_wh, export_wh in meter_views.metered_between(connection, since, until):
        retail[meter] += retail_neur(tariffs[start], export_wh - import_wh)
    return [
        Line(
            meter=row["meter"],
            owner=row["owner"],
            connection_point=row["connection_point"],
            kind=(row["software"] or "").partition(": ")[2],
            total_neur=row["total_neur"],
            retail_neur=retail[row["meter"]],
            balance_neur=row["balance_neur"],
            disputes=row["disputes"],
        )
        for row in meter_views.households(connection, since, until)
    ]


def by_kind(lines: Sequence[Line]) -> list[KindLine]:
    """What the households of each kind saved, the largest mean first; nobody where no meter says its kind."""
    kinds: dict[str, list[int]] = {}
    for line in lines:
        if line.kind:
            kinds.setdefault(line.kind, []).append(line.saved_neur)
    found = [
        KindLine(kind, len(saved), sum(saved), sum(neur > 0 for neur in saved))
        for kind, saved in kinds.items()
    ]
    return sorted(found, key=lambda one: (-one.mean_neur, one.kind))


def reasons(
    market: Market, connection: Connection, about: Mapping[str, Any], start: int
) -> list[tuple[str, Sequence[str]]]:
    """Why, for each of the household's steps and its firm energy in one interval: a name and sentences.

    Raises 404 where the interval has no clearing.
    """
    clearing = market.clearing(connection, start)
    if clearing is None:
        raise HTTPException(404, "no interval was cleared that starts then")
    book, record = clearing.book, clearing.record
    point, meter = about["connection_point"], about["meter"]
    found: list[tuple[str, Sequence[str]]] = []
    if any(firm.connection_point == point for firm in book.firm or ()):
        found.append(("Firm energy", explain(book, record, market.feeder_of(book), f"firm:{point}")))
    for order in book.orders:
        if order.id.startswith(f"{meter}:"):
            sentences = explain(book, record, market.feeder_of(book), order.id)
            side = "Bid" if order.side == "bid" else "Ask"
            words = [text.replace(order.id, f"{side} {order.id.rpartition(':')[2]}") for text in sentences]
            found.append((f"{side} {order.id.rpartition(':')[2]}", words))
    return found


def energy_figures(rows: Sequence[Mapping[str, Any]], day: tuple[int, int] | None) -> Figures | None:
    """Awarded and metered net energy of the day; None where nothing was metered."""
    if day is None:
        return None
    awarded = [(row["interval_start"], row["net_wh"]) for row in rows if row["net_wh"] is not None]
    metered = [
        (row["interval_start"], row["export_wh"] - row["import_wh"])
        for row in rows
        if row["import_wh"] is not None
    ]
    values = [wh / 1000 for _, wh in (*awarded, *metered)]
    if not values:
        return None
    low, high = min(0.0, *values), max(0.0, *values)
    margin = 0.06 * (high - low) + 0.02

    def draw(size: Size) -> str:
        plot = day_plot(
            size,
            0,
            24,
            (low - margin, high + margin),
            title="Awarded and metered net energy",
            y_label="kWh in the interval, export above",
        )
        for series, css in ((metered, "delivered"), (awarded, "with")):
            points: list[tuple[float, float]] = []
            for start, wh in series:
                hour = (start - day[0]) / 3600
                points += [(hour, wh / 1000), (hour + 0.25, wh / 1000)]
            if points:
                plot.line(points, css)
        return plot.svg()

    return draw(SIZES[0]), draw(SIZES[1])
