"""A statement: what an account bought, sold and paid in a period, and what each amount is made of.

It follows from the ledger's postings and the tariffs alone, and adds up to the postings to the nEUR. Amounts
are positive where they were earned, energies where they went into the grid, as in the ledger.

What a neighbour's energy costs is the auction's to say; what came through the slack has the retailer's parts.
Nobody can tell whose the imported energy is: of all that was fed in, every purchase has the same share of it
(whole Wh, rounded down), and every sale the same share of what was exported. Network charges, levies and VAT
are those of the tariff for that energy; the energy's own part is the rest of the amount. What the network
account earns is all network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from grid.errors import LedgerError
from market.accounts.ledger import NETWORK, RETAILER, Kind
from market.accounts.tariff import export_parts, import_parts, local_parts
from market.messages.models import PriceParts, Tariff

Side = Literal["bought", "sold", ""]


_WORDS: Mapping[tuple[Kind, Side], str] = {
    (Kind.AWARD, "bought"): "Flexible energy bought in the market",
    (Kind.AWARD, "sold"): "Flexible energy sold in the market",
    (Kind.FIRM, "bought"): "Consumption at the market's price",
    (Kind.FIRM, "sold"): "Generation at the market's price",
    (Kind.IMBALANCE, "bought"): "Energy beside the schedule, bought",
    (Kind.IMBALANCE, "sold"): "Energy beside the schedule, sold",
    (Kind.RETAIL, "bought"): "Bought at the retail tariff",
    (Kind.RETAIL, "sold"): "Sold at the retail tariff",
    (Kind.CARRIED, "bought"): "Billed by the retailer itself",
    (Kind.CARRIED, "sold"): "Paid for by the retailer itself",
    (Kind.RECOVERED, ""): "Paid on the chain; its records were lost",
    (Kind.HELD, ""): "Held until readings or a decision come",
    (Kind.SUPPLY, "bought"): "Surplus of the feeder bought",
    (Kind.SUPPLY, "sold"): "Supply of the feeder",
}


def words(kind: Kind, side: Side) -> str:
    """What a line of a statement is for, for people."""
    return _WORDS.get((kind, side), f"{kind.capitalize()}, {side}" if side else kind.capitalize())


def side_of(energy_wh: int) -> Side:
    """Whether energy that was booked was sold (> 0), bought, or is none."""
    return "sold" if energy_wh > 0 else "bought" if energy_wh < 0 else ""


@dataclass(frozen=True, slots=True)
class Parts:
    """An amount's parts, nEUR."""

    energy_neur: int = 0
    network_neur: int = 0
    levies_neur: int = 0
    vat_neur: int = 0

    @property
    def total_neur(self) -> int:
        return self.energy_neur + self.network_neur + self.levies_neur + self.vat_neur

    def __add__(self, other: Parts) -> Parts:
        return Parts(
            self.energy_neur + other.energy_neur,
            self.network_neur + other.network_neur,
            self.levies_neur + other.levies_neur,
            self.vat_neur + other.vat_neur,
        )


@dataclass(frozen=True, slots=True)
class Flows:
    """What a statement has to know of an interval besides the account's own postings.

    ``fed_in_wh`` is what households and non-participants sold in it, ``supply_wh`` what came through the
    slack (< 0: what went out). ``retail_drawn_wh`` (≤ 0) and ``retail_fed_wh`` (≥ 0) are what those without
    an order drew and fed in at the retail tariffs.
    """

    tariff: Tariff
    fed_in_wh: int = 0
    supply_wh: int = 0
    retail_drawn_wh: int = 0
    retail_fed_wh: int = 0

    def through_slack_wh(self, net_wh: int) -> int:
        """How much of an account's energy was imported (of < 0) or exported (of > 0)."""
        slack_wh = max(0, -self.supply_wh if net_wh > 0 else self.supply_wh)
        all_wh = max(0, self.supply_wh) + self.fed_in_wh
        share_wh = abs(net_wh) * slack_wh // all_wh if all_wh else 0
        return min(share_wh, abs(net_wh)) * (1 if net_wh > 0 else -1)


@dataclass(frozen=True, slots=True)
class Booked:
    """What was posted for an interval under one kind, adjustments included."""

    interval_start: int
    kind: Kind
    amount_neur: int
    energy_wh: int


@dataclass(frozen=True, slots=True)
class Line:
    kind: Kind
    side: Side
    energy_wh: int
    parts: Parts

    @property
    def amount_neur(self) -> int:
        return self.parts.total_neur

    @property
    def words(self) -> str:
        return words(self.kind, self.side)


@dataclass(frozen=True, slots=True)
class Statement:
    """An account's period. ``opening_neur`` is its ledger balance before it."""

    account: str
    since: int
    until: int
    opening_neur: int
    lines: tuple[Line, ...]

    @property
    def parts(self) -> Parts:
        return sum((line.parts for line in self.lines), Parts())

    @property
    def total_neur(self) -> int:
        return self.parts.total_neur

    @property
    def closing_neur(self) -> int:
        return self.opening_neur + self.total_neur


def statement_of(
    account: str,
    period: tuple[int, int],
    opening_neur: int,
    booked: Iterable[Booked],
    flows: Mapping[int, Flows],
) -> Statement:
    """The statement of what was booked. Raises :class:`LedgerError` where it does not add up to that."""
    energies: dict[tuple[Kind, Side], int] = {}
    parts: dict[tuple[Kind, Side], Parts] = {}
    posted_neur = 0
    for item in booked:
        posted_neur += item.amount_neur
        for side, energy_wh, made_of in _split(account, item, flows[item.interval_start]):
            key = (item.kind, side)
            energies[key] = energies.get(key, 0) + energy_wh
            parts[key] = parts.get(key, Parts()) + made_of
    lines = tuple(Line(*key, energies[key], parts[key]) for key in sorted(parts))
    statement = Statement(account, *period, opening_neur, lines)
    if statement.total_neur != posted_neur:
        raise LedgerError(
            f"{account}: the statement comes to {statement.total_neur} nEUR and its postings to {posted_neur}"
        )
    return statement


def _split(account: str, item: Booked, flows: Flows) -> list[tuple[Side, int, Parts]]:
    """A posting by what was bought and what was sold in it."""
    if account == RETAILER and item.kind == Kind.RETAIL:
        # Its customers' purchases and sales of an interval are one posting; they do not have one price.
        each = (flows.retail_drawn_wh, flows.retail_fed_wh)
        return [_retailers(-wh, flows.tariff) for wh in each if wh]
    parts = _parts(account, item, flows)
    rest = item.amount_neur - parts.total_neur
    remainder = Parts(network_neur=rest) if account == NETWORK else Parts(energy_neur=rest)
    return [(side_of(item.energy_wh), item.energy_wh, parts + remainder)]


def _retailers(net_wh: int, tariff: Tariff) -> tuple[Side, int, Parts]:
    side: Side = "sold" if net_wh > 0 else "bought"
    return side, net_wh, _at(_retail_price(-net_wh, tariff), net_wh)


def _parts(account: str, item: Booked, flows: Flows) -> Parts:
    """The parts that the tariff names; the energy's own is adjusted to the amount afterwards."""
    tariff, net_wh = flows.tariff, item.energy_wh
    if item.kind == Kind.CARRIED or not net_wh:
        return Parts()
    if account == RETAILER:
        if item.kind in (Kind.SUPPLY, Kind.IMBALANCE):
            return _at(_retail_price(-net_wh, tariff), net_wh)
        return Parts()
    if item.kind in (Kind.RETAIL, Kind.IMBALANCE) and account.startswith("household:"):
        return _at(_retail_price(net_wh, tariff), net_wh)
    if item.kind in (Kind.AWARD, Kind.FIRM):
        slack_wh = flows.through_slack_wh(net_wh)
        local = local_parts(tariff) if net_wh < 0 else PriceParts()
        return _at(_retail_price(net_wh, tariff), slack_wh) + _at(local, net_wh - slack_wh)
    return Parts()


def _retail_price(net_wh: int, tariff: Tariff) -> PriceParts:
    """What a customer's net energy is charged with, or paid with."""
    return export_parts(tariff) if net_wh > 0 else import_parts(tariff)


def _at(price: PriceParts, net_wh: int) -> Parts:
    return Parts(net_wh * price.energy, net_wh * price.network, net_wh * price.levies, net_wh * price.vat)
