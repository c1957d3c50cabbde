"""Between the meters' orders and the auction: the book of an interval, and what its record means for each
meter.

Pure functions. A step's id in the book is ``<meter>:<step index>``. Energies are net into the grid where they
are called so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from eth_hash.auto import keccak

from market.accounts.collateral import Exposure, firm_worst_neur, flexible_worst_neur
from market.accounts.ledger import household
from market.accounts.metering import Metered
from market.accounts.settlement import (
    Customer,
    Outsider,
    Participant,
    Taken,
    award_neur,
    firm_neur,
)
from market.accounts.tariff import firm_export_price, firm_import_price
from market.auction.book import Book, BookOrder, Firm, Interval
from market.auction.record import ClearingRecord
from market.messages.models import Award, AwardStep, BusPrice, Clearing, Order, Side, Tariff, Totals
from market.messages.signing import UNSIGNED, canonical_json
from market.service.ports import Network
from market.service.settings import MarketSettings, Member

PPM = 1_000_000
Orders = Mapping[str, Order]
Members = Mapping[str, Member]


@dataclass(frozen=True, slots=True)
class SettlementInputs:
    """What :func:`market.accounts.settlement.settle_cleared` is asked."""

    participants: list[Participant]
    outsiders: list[Outsider]
    customers: list[Customer]


def firm_net_wh(order: Order) -> int:
    return order.firm_export_wh - order.firm_import_wh


def step_id(meter: str, index: int) -> str:
    return f"{meter}:{index}"


def build_book(
    settings: MarketSettings,
    interval_start: int,
    orders: Orders,
    members: Members,
    outsiders: Sequence[Firm],
    tariff: Tariff,
    network: Network | None = None,
) -> Book:
    """The book on ``network``, by default the configured one, in whole Wh: every order by meter, and the
    forecast of who sent none, by connection point.
    """
    per_hour = 60 // settings.minutes
    firm = []
    steps = []
    for meter, order in sorted(orders.items()):
        member = members[meter]
        net_wh = firm_net_wh(order)
        if net_wh or order.firm_q_var:
            point = member.connection_point
            firm.append(
                Firm(connection_point=point, p_w=float(net_wh * per_hour), q_var=float(order.firm_q_var))
            )
        steps += [
            BookOrder(
                id=step_id(meter, index),
                connection_point=member.connection_point,
                side="bid" if step.side == Side.BID else "ask",
                energy_wh=step.energy_wh,
                limit_price=step.limit_price,
                tan_phi=member.tan_phi_ppm / PPM,
                min_fill_percent=step.min_fill_percent,
            )
            for index, step in enumerate(order.steps)
        ]
    for forecast in sorted(outsiders, key=lambda f: (f.connection_point, f.p_w, f.q_var)):
        whole_wh = round(forecast.p_w / per_hour)
        firm.append(forecast.model_copy(update={"p_w": float(whole_wh * per_hour)}))
    return Book(
        feeder=network.feeder_name if network else settings.feeder_name,
        interval=Interval.at(interval_start, settings.minutes),
        tariff=tariff,
        limits=network.limits if network else settings.limits,
        firm=tuple(firm),
        orders=tuple(steps),
    )


def root_of(record: ClearingRecord) -> str:
    """What the chain commits to for an interval."""
    return "0x" + keccak(canonical_json(record.json_document())).hex()


def taken_steps(record: ClearingRecord, orders: Orders) -> dict[str, list[tuple[int, Taken]]]:
    """Each meter's filled steps with their index."""
    taken: dict[str, list[tuple[int, Taken]]] = {}
    for fill in record.fills:
        meter, _, index = fill.order_id.rpartition(":")
        side = Side(orders[meter].steps[int(index)].side)
        taken.setdefault(meter, []).append((int(index), Taken(side, fill.energy_wh, fill.price)))
    return {meter: sorted(steps, key=lambda step: step[0]) for meter, steps in taken.items()}


def awards(
    settings: MarketSettings,
    interval_start: int,
    record: ClearingRecord,
    orders: Orders,
    members: Members,
    tariff: Tariff,
) -> list[tuple[Award, int]]:
    """Each order's award, unsigned, and its net energy.

    A suspended interval awards the retail tariffs; its steps are the relieving setpoints, where there are
    any.
    """
    cleared = record.status == "cleared"
    taken = taken_steps(record, orders) if cleared else _setpoints(record, orders)
    dlmps = {node.bus: node.price for node in record.prices}
    per_hour = 60 // settings.minutes
    result = []
    for meter, order in sorted(orders.items()):
        steps = taken.get(meter, [])
        firm_wh = firm_net_wh(order)
        net_wh = firm_wh + sum(step.net_wh for _, step in steps)
        if cleared:
            dlmp = dlmps[members[meter].bus]
            price = _step_price(order, [step for _, step in steps], dlmp, tariff)
            firm_price = (firm_export_price if firm_wh > 0 else firm_import_price)(tariff, dlmp)
            amount = firm_neur(tariff, dlmp, firm_wh) + award_neur(step for _, step in steps)
        else:
            price = firm_price = tariff.export_price if net_wh > 0 else tariff.import_price
            amount = 0
        award = Award(
            meter=meter,
            interval_start=interval_start,
            status="CLEARED" if cleared else "SUSPENDED",
            price=price,
            firm_price=firm_price,
            steps=tuple(AwardStep(index=index, energy_wh=step.energy_wh) for index, step in steps),
            setpoint_w=net_wh * per_hour,
            amount_neur=amount,
            sig=UNSIGNED,
        )
        result.append((award, net_wh))
    return result


def _setpoints(record: ClearingRecord, orders: Orders) -> dict[str, list[tuple[int, Taken]]]:
    setpoints: dict[str, list[tuple[int, Taken]]] = {}
    for setpoint in record.setpoints:
        meter, _, index = setpoint.order_id.rpartition(":")
        side = Side(orders[meter].steps[int(index)].side)
        setpoints.setdefault(meter, []).append((int(index), Taken(side, setpoint.energy_wh, 0)))
    return setpoints


def _step_price(order: Order, taken: Sequence[Taken], dlmp: int, tariff: Tariff) -> int:
    """The price of what was filled, bids first; of what could have been where nothing was."""
    for side in Side:
        for step in taken:
            if step.side == side:
                return step.price
    only_asks = bool(order.steps) and all(step.side == Side.ASK for step in order.steps)
    return dlmp if only_asks else dlmp + tariff.local_fee


def public_clearing(settings: MarketSettings, interval_start: int, record: ClearingRecord) -> Clearing:
    """What everybody may know of an interval, unsigned. Traded is what orders bought."""
    traded_wh = sum(trade.energy_wh for trade in record.trades if _is_local(trade.buy, trade.sell))
    return Clearing(
        feeder=settings.feeder,
        interval_start=interval_start,
        status="CLEARED" if record.status == "cleared" else "SUSPENDED",
        prices=tuple(BusPrice(bus=node.bus, price=node.price) for node in record.prices),
        totals=Totals(
            import_wh=record.import_wh,
            export_wh=record.export_wh,
            losses_wh=record.losses_wh,
            traded_wh=traded_wh,
        ),
        root=root_of(record),
        sig=UNSIGNED,
    )


def _is_local(buy: str, sell: str) -> bool:
    return not {"retailer", "network"} & {buy, sell}


def settlement_inputs(
    book: Book,
    record: ClearingRecord,
    orders: Orders,
    members: Members,
    metered: Mapping[str, Metered | None],
    bus_of: Callable[[str], int],
    carried: Collection[str],
) -> SettlementInputs:
    """Who had what part in an interval. ``metered`` has every member, None where no reading tells;
    ``carried`` are the meters without an order whose energy the retailer bills by itself.
    """
    taken = taken_steps(record, orders)
    inputs = SettlementInputs([], [], [])
    for meter, member in sorted(members.items()):
        energy = metered[meter]
        net_wh = energy.net_wh if energy else None
        if (order := orders.get(meter)) is None:
            inputs.customers.append(Customer(household(meter), net_wh, meter in carried))
            continue
        inputs.participants.append(
            Participant(
                account=household(meter),
                bus=member.bus,
                firm_wh=firm_net_wh(order),
                taken=tuple(step for _, step in taken.get(meter, [])),
                metered_wh=net_wh,
                tan_phi_ppm=member.tan_phi_ppm,
            )
        )
    for forecast in _outsiders(book, orders, members):
        net_wh = round(forecast.p_w * book.interval.minutes / 60)
        inputs.outsiders.append(Outsider(bus_of(forecast.connection_point), net_wh))
    return inputs


def _outsiders(book: Book, orders: Orders, members: Members) -> list[Firm]:
    with_orders = {members[meter].connection_point for meter in orders}
    return [firm for firm in book.firm or () if firm.connection_point not in with_orders]


def delivered(
    book: Book,
    record: ClearingRecord,
    orders: Orders,
    members: Members,
    metered: Mapping[str, Metered | None],
) -> list[Firm]:
    """What flowed at each connection point as far as the meters tell, for the AC check.

    Reactive power is that of the firm energy as ordered, and tan φ times the rest. Where registers are
    missing, and at points without a meter, the award or the forecast stands.
    """
    per_hour = 60 // book.interval.minutes
    taken = taken_steps(record, orders) if record.status == "cleared" else {}
    flows = []
    for meter, order in sorted(orders.items()):
        member = members[meter]
        firm_wh = firm_net_wh(order)
        energy = metered[meter]
        flexible_wh = sum(step.net_wh for _, step in taken.get(meter, []))
        net_wh = energy.net_wh if energy else firm_wh + flexible_wh
        reactive = (net_wh - firm_wh) * per_hour * member.tan_phi_ppm / PPM
        flows.append(
            Firm(
                connection_point=member.connection_point,
                p_w=float(net_wh * per_hour),
                q_var=order.firm_q_var + reactive,
            )
        )
    by_point = {
        members[meter].connection_point: energy.net_wh
        for meter, energy in metered.items()
        if energy is not None and meter not in orders
    }
    for forecast in _outsiders(book, orders, members):
        metered_wh = by_point.pop(forecast.connection_point, None)
        p_w = forecast.p_w if metered_wh is None else float(metered_wh * per_hour)
        flows.append(forecast.model_copy(update={"p_w": p_w}))
    for point, metered_wh in sorted(by_point.items()):
        flows.append(Firm(connection_point=point, p_w=float(metered_wh * per_hour)))
    return flows


def order_worst_neur(order: Order, member: Member, tariff: Tariff) -> int:
    """The most that an order can cost its household before it is cleared."""
    steps = [Exposure(Side(step.side), step.energy_wh, step.limit_price) for step in order.steps]
    return firm_worst_neur(firm_net_wh(order), tariff) + flexible_worst_neur(
        steps, tariff, reactive=member.tan_phi_ppm != 0
    )


def award_worst_neur(order: Order, taken: Sequence[Taken], member: Member, tariff: Tariff) -> int:
    """The most that it can cost after the clearing, at its actual prices."""
    steps = [Exposure(step.side, step.energy_wh, step.price) for step in taken]
    return firm_worst_neur(firm_net_wh(order), tariff) + flexible_worst_neur(
        steps, tariff, reactive=member.tan_phi_ppm != 0
    )
