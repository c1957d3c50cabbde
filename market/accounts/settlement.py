"""From a clearing and the metered energy to postings (rules 6 to 11 of design section 3).

Every posting is an integer of nEUR = Wh × µEUR/kWh. Net energies are positive into the grid. The network's
account is posted from the parts of the prices and the energy flows; that these meet what everybody else pays
and earns, to the last nEUR but for prices rounded to whole µEUR/kWh, is checked and not assumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from grid.errors import LedgerError
from market.accounts.ledger import IMBALANCE, NETWORK, RETAILER, Kind, Posting, combine
from market.accounts.tariff import (
    firm_export_price,
    firm_import_price,
    long_price,
    retail_neur,
    short_price,
)
from market.auction.record import ClearingRecord, NodePrice
from market.messages.models import Side, Tariff


@dataclass(frozen=True, slots=True)
class Taken:
    """A step's award: ``price`` is what the order pays or earns, fees included, µEUR/kWh."""

    side: Side
    energy_wh: int
    price: int

    @property
    def net_wh(self) -> int:
        return self.energy_wh if self.side == Side.ASK else -self.energy_wh


@dataclass(frozen=True, slots=True)
class Participant:
    """A household with an order: what it was awarded and what its meter says.

    ``firm_wh`` and ``metered_wh`` are net into the grid; ``metered_wh`` is None where no reading tells.
    """

    account: str
    bus: int
    firm_wh: int
    taken: tuple[Taken, ...]
    metered_wh: int | None
    tan_phi_ppm: int = 0

    @property
    def awarded_wh(self) -> int:
        return self.firm_wh + sum(step.net_wh for step in self.taken)


@dataclass(frozen=True, slots=True)
class Outsider:
    """Firm energy of a connection point without an order: the retailer is its counterparty."""

    bus: int
    net_wh: int


@dataclass(frozen=True, slots=True)
class Customer:
    """A registered household without an order: its metered energy has the retail tariffs.

    ``carried`` tells that the account cannot pay them: then the retailer supplies it as anyone outside the
    market, and bills it there.
    """

    account: str
    metered_wh: int | None
    carried: bool = False


@dataclass(frozen=True, slots=True)
class Settlement:
    """The postings of one interval, and the accounts whose registers have not spoken yet."""

    postings: tuple[Posting, ...]
    missing: tuple[str, ...]


def firm_neur(tariff: Tariff, dlmp: int, net_wh: int) -> int:
    """What firm energy earns (> 0) or costs within the collar, nEUR."""
    if net_wh > 0:
        return net_wh * firm_export_price(tariff, dlmp)
    return net_wh * firm_import_price(tariff, dlmp)


def award_neur(taken: Iterable[Taken]) -> int:
    """What awarded flexible energy earns (> 0) or costs, nEUR."""
    return sum(step.net_wh * step.price for step in taken)


def settle_cleared(
    record: ClearingRecord,
    participants: Sequence[Participant],
    outsiders: Sequence[Outsider],
    customers: Sequence[Customer],
    tariff: Tariff,
) -> Settlement:
    """The postings of a cleared interval. Raises :class:`LedgerError` where an invariant does not hold."""
    prices = {node.bus: node for node in record.prices}
    postings = [
        *_awards(participants, prices, tariff),
        *_supply(record, tariff),
        *_outsiders(outsiders, prices, tariff),
        *_retail(customers, tariff),
        *_imbalances(participants, prices, tariff),
    ]
    counterpart = -sum(p.amount_neur for p in postings)
    network = _network(record, prices, participants, outsiders, tariff)
    residual = counterpart - sum(p.amount_neur for p in network)
    bound = 1 + sum(step.energy_wh for p in participants for step in p.taken)
    if abs(residual) > bound:
        raise LedgerError(
            f"interval {record.interval.start}: what others pay leaves the network {counterpart} nEUR, but "
            f"its prices and flows make {counterpart - residual}: more than the {bound} of rounding apart"
        )
    rounding = Posting(NETWORK, Kind.ROUNDING, residual)
    return Settlement(combine([*postings, *network, rounding]), _missing(participants, customers))


def settle_suspended(
    participants: Sequence[Participant], customers: Sequence[Customer], tariff: Tariff
) -> Settlement:
    """Everybody's metered energy at the retail tariffs (rule 11).

    Where registers are missing, firm demand is deemed taken and generation not delivered.
    """
    known = [
        Customer(p.account, min(p.firm_wh, 0) if p.metered_wh is None else p.metered_wh) for p in participants
    ]
    postings = _retail([*known, *customers], tariff)
    return Settlement(combine(postings), _missing(participants, customers))


def _missing(participants: Sequence[Participant], customers: Sequence[Customer]) -> tuple[str, ...]:
    silent = [p.account for p in participants if p.metered_wh is None]
    return tuple(sorted(silent + [c.account for c in customers if c.metered_wh is None]))


def _awards(
    participants: Sequence[Participant], prices: Mapping[int, NodePrice], tariff: Tariff
) -> list[Posting]:
    postings = []
    for p in participants:
        flexible_wh = sum(step.net_wh for step in p.taken)
        postings.append(Posting(p.account, Kind.AWARD, award_neur(p.taken), flexible_wh))
        firm = firm_neur(tariff, prices[p.bus].price, p.firm_wh)
        postings.append(Posting(p.account, Kind.FIRM, firm, p.firm_wh))
    return postings


def _supply(record: ClearingRecord, tariff: Tariff) -> list[Posting]:
    """The retailer sells the import and buys the export; the network's side of it is among its parts."""
    amount = record.import_wh * tariff.import_price - record.export_wh * tariff.export_price
    return [Posting(RETAILER, Kind.SUPPLY, amount, record.import_wh - record.export_wh)]


def _outsiders(
    outsiders: Sequence[Outsider], prices: Mapping[int, NodePrice], tariff: Tariff
) -> list[Posting]:
    return [
        Posting(RETAILER, Kind.FIRM, firm_neur(tariff, prices[o.bus].price, o.net_wh), o.net_wh)
        for o in outsiders
    ]


def _retail(customers: Sequence[Customer], tariff: Tariff) -> list[Posting]:
    postings = []
    for customer in customers:
        net_wh = customer.metered_wh or 0
        kind, amount = Kind.RETAIL, retail_neur(tariff, net_wh)
        if customer.carried:
            kind, amount = Kind.CARRIED, 0
        postings.append(Posting(customer.account, kind, amount, net_wh))
        postings.append(Posting(RETAILER, kind, -amount, -net_wh))
    return postings


def _imbalances(
    participants: Sequence[Participant], prices: Mapping[int, NodePrice], tariff: Tariff
) -> list[Posting]:
    """Households settle with the imbalance account, and that settles the net deviation with the retailer.

    Its surplus is never negative: who is short pays at least the import tariff, who is long gets at most the
    export tariff, and what the two have in common is never bought from the retailer. (Held payments are
    positive.)
    """
    postings: list[Posting] = []
    deviation_wh = 0
    for p in participants:
        dlmp = prices[p.bus].price
        if p.metered_wh is None:
            kind, wh = Kind.HELD, 0
            earned = sum(s.energy_wh * s.price for s in p.taken if s.side == Side.ASK)
            amount = -max(0, earned + max(0, p.firm_wh) * firm_export_price(tariff, dlmp))
        else:
            kind, wh = Kind.IMBALANCE, p.metered_wh - p.awarded_wh
            amount = wh * (long_price(tariff, dlmp) if wh > 0 else short_price(tariff, dlmp))
        deviation_wh += wh
        postings.append(Posting(p.account, kind, amount, wh))
        postings.append(Posting(IMBALANCE, kind, -amount, -wh))
    amount = retail_neur(tariff, deviation_wh)
    postings.append(Posting(IMBALANCE, Kind.SUPPLY, amount, deviation_wh))
    postings.append(Posting(RETAILER, Kind.IMBALANCE, -amount, -deviation_wh))
    surplus = sum(p.amount_neur for p in postings if p.account == IMBALANCE)
    if surplus < 0:
        raise LedgerError(f"the imbalance account would lose {-surplus} nEUR")
    return postings


def _network(
    record: ClearingRecord,
    prices: Mapping[int, NodePrice],
    participants: Sequence[Participant],
    outsiders: Sequence[Outsider],
    tariff: Tariff,
) -> list[Posting]:
    """What the network earns, from the prices' parts and the flows alone: no payment is looked at.

    With n the net demand of a bus and μ the energy price: Σ n·congestion, Σ n·voltage, Σ n·losses − μ·losses,
    fees on all that is bought, the margin μ·(import − export) − import·tariff + export·tariff, and what the
    collar costs.
    """
    energy_prices = {node.energy for node in record.prices}
    if len(energy_prices) > 1:
        raise LedgerError(f"the energy part of the price differs between buses: {sorted(energy_prices)}")
    energy_price = energy_prices.pop() if energy_prices else 0
    congestion = voltage = losses = bought_wh = reactive_ppm = demand_wh = collar = 0

    def flow(bus: int, net_wh: int) -> None:
        nonlocal congestion, voltage, losses, demand_wh, bought_wh
        node = prices[bus]
        congestion -= net_wh * node.congestion
        voltage -= net_wh * node.voltage
        losses -= net_wh * node.losses
        demand_wh -= net_wh
        if net_wh < 0:
            bought_wh -= net_wh

    firm = [(p.bus, p.firm_wh) for p in participants] + [(o.bus, o.net_wh) for o in outsiders]
    for bus, net_wh in firm:
        flow(bus, net_wh)
        dlmp = sum((prices[bus].energy, prices[bus].losses, prices[bus].congestion, prices[bus].voltage))
        if net_wh < 0:
            collar += net_wh * max(0, dlmp + tariff.local_fee - tariff.import_price)
        else:
            collar -= net_wh * max(0, tariff.export_price - dlmp)
    for p in participants:
        for step in p.taken:
            flow(p.bus, step.net_wh)
            reactive_ppm -= step.net_wh * p.tan_phi_ppm * prices[p.bus].price_q
    if demand_wh + record.losses_wh != record.import_wh - record.export_wh:
        raise LedgerError(
            f"interval {record.interval.start}: net demand {demand_wh} Wh and losses {record.losses_wh} Wh "
            f"are not import {record.import_wh} Wh less export {record.export_wh} Wh"
        )
    net_import_wh = record.import_wh - record.export_wh
    cost = record.import_wh * tariff.import_price - record.export_wh * tariff.export_price
    return [
        Posting(NETWORK, Kind.CONGESTION, congestion),
        Posting(NETWORK, Kind.VOLTAGE, voltage),
        Posting(NETWORK, Kind.LOSSES, losses - energy_price * record.losses_wh, -record.losses_wh),
        Posting(NETWORK, Kind.FEES, bought_wh * tariff.local_fee),
        Posting(NETWORK, Kind.COLLAR, collar),
        Posting(NETWORK, Kind.REACTIVE, reactive_ppm // 1_000_000),
        Posting(NETWORK, Kind.SUPPLY, energy_price * net_import_wh - cost),
    ]
