"""What the book of an interval says of the meters' orders, and its record of each meter."""

from __future__ import annotations

from market.accounts.metering import Flag, Metered
from market.auction.book import Firm
from market.messages.models import Order, Side, Step
from market.service import orderbook
from market.service.cover import Cover
from market.service.ports import Standing
from tests.service.scene import MEMBERS, METERS, START, TARIFF, order_of, physics, settings

OF = settings(1)
BY_METER = {member.meter: member for member in MEMBERS}
ORDERS = {order.meter: order for order in (order_of(index, START) for index in range(3))}


def cleared() -> tuple[orderbook.Book, orderbook.ClearingRecord]:
    parts = physics()
    points = frozenset(BY_METER[meter].connection_point for meter in ORDERS)
    book = orderbook.build_book(OF, START, ORDERS, BY_METER, parts.outsiders(START, points), OF.tariff)
    return book, parts.clear(book)


def test_the_book_is_the_same_in_whatever_order_the_orders_came() -> None:
    backwards = dict(reversed(ORDERS.items()))
    outsiders = [Firm(connection_point="load:3", p_w=-333.3), Firm(connection_point="bus:5", p_w=-1000.0)]
    first = orderbook.build_book(OF, START, ORDERS, BY_METER, outsiders, OF.tariff)
    assert orderbook.build_book(OF, START, backwards, BY_METER, outsiders[::-1], OF.tariff) == first
    assert [order.id.partition(":")[0] for order in first.orders] == sorted(
        order.id.partition(":")[0] for order in first.orders
    )


def test_all_firm_energy_in_the_book_is_whole_watt_hours() -> None:
    book, _ = cleared()
    assert book.firm is not None
    assert all((firm.p_w / 4).is_integer() for firm in book.firm)
    assert {firm.connection_point for firm in book.firm} == {"load:0", "load:1", "load:3", "bus:5"}


def test_awards_have_the_money_that_settlement_posts_where_meters_keep_to_them() -> None:
    book, record = cleared()
    awards = {
        a.meter: (a, net_wh) for a, net_wh in orderbook.awards(OF, START, record, ORDERS, BY_METER, OF.tariff)
    }
    assert set(awards) == set(ORDERS)
    metered: dict[str, Metered | None] = {
        meter: Metered(max(-net_wh, 0), max(net_wh, 0), Flag.MEASURED)
        for meter, (_, net_wh) in awards.items()
    }
    metered[METERS[3].address] = None
    parts = orderbook.settlement_inputs(book, record, ORDERS, BY_METER, metered, physics().bus_of, ())
    assert [p.awarded_wh == p.metered_wh for p in parts.participants] == [True] * 3
    assert sorted(o.net_wh for o in parts.outsiders) == [-250, -83]
    assert [c.account for c in parts.customers] == [f"household:{METERS[3].address}"]
    for award, net_wh in awards.values():
        assert award.setpoint_w == net_wh * 4
        order = ORDERS[award.meter]
        flexible = sum(
            step.energy_wh * (1 if order.steps[step.index].side == Side.ASK else -1) for step in award.steps
        )
        firm_wh = orderbook.firm_net_wh(order)
        assert award.amount_neur == flexible * award.price + firm_wh * award.firm_price
        assert net_wh == flexible + firm_wh


def test_what_was_delivered_covers_every_connection_point_once() -> None:
    book, record = cleared()
    metered: dict[str, Metered | None] = {
        meter: Metered(100 * index, 0, Flag.MEASURED) for index, meter in enumerate(BY_METER)
    }
    flows = orderbook.delivered(book, record, ORDERS, BY_METER, metered)
    by_point = {flow.connection_point: flow.p_w for flow in flows}
    assert len(by_point) == len(flows) == 5
    assert by_point == {
        "load:0": 0.0,
        "load:1": -400.0,
        "load:2": -800.0,
        "load:3": -1200.0,
        "bus:5": -1000.0,
    }


def test_an_account_covers_orders_until_its_deposit_is_spoken_for() -> None:
    member = MEMBERS[0].model_copy(update={"deposit_ueur": 2_000_000, "fuse_w": 4_000})
    cover = Cover(OF, {member.meter: member})
    account = f"household:{member.meter}"
    cover.renew(Standing({member.owner: 2_000_000}, {}), {}, {})

    def order(start: int, energy_wh: int) -> Order:
        step = Step(side=Side.BID, energy_wh=energy_wh, limit_price=TARIFF.import_price)
        return order_of(0, start).model_copy(update={"steps": (step,), "firm_import_wh": 0})

    # 2 EUR less a kWh at the fuse (0.30 EUR) leave 1.70 EUR: 5,666 Wh at 0.30 EUR/kWh.
    assert cover.shortfall_neur(order(START, 5_666)) == 0
    assert cover.shortfall_neur(order(START, 5_667)) == 100_000
    cover.hold(order(START, 4_000))
    assert cover.shortfall_neur(order(START, 5_666)) == 0, "a new version replaces the old one"
    assert cover.shortfall_neur(order(START + 900, 1_667)) > 0
    cover.release(START)
    assert cover.shortfall_neur(order(START + 900, 5_666)) == 0
    cover.renew(Standing({member.owner: 2_000_000}, {}), {account: -500_000}, {account: -100_000_000})
    assert cover.shortfall_neur(order(START + 900, 3_666)) == 0
    assert cover.shortfall_neur(order(START + 900, 3_667)) > 0


def test_who_owes_to_the_guarantee_orders_nothing_until_it_has_repaid() -> None:
    member = MEMBERS[0]
    cover = Cover(OF, {member.meter: member})
    account = f"household:{member.meter}"
    nothing = order_of(0, START).model_copy(update={"steps": (), "firm_import_wh": 0})
    # It deposited 5 EUR, and batches took 9 from it: the guarantee lent it 4.
    cover.renew(Standing({member.owner: 5_000_000}, {}), {account: -9_000_000}, {})
    assert cover.shortfall_neur(nothing) >= 4_000_000_000
    # It repays 4 EUR and brings 6 more.
    cover.renew(Standing({member.owner: 15_000_000}, {}), {account: -9_000_000}, {})
    assert cover.shortfall_neur(nothing) == 0
