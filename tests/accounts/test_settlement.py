"""What settlement promises, on clearings that a feeder could have had."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from grid.errors import LedgerError
from market.accounts.collateral import (
    Exposure,
    firm_worst_neur,
    flexible_worst_neur,
    fuse_worst_neur,
    shortfall_neur,
)
from market.accounts.ledger import (
    IMBALANCE,
    NETWORK,
    RETAILER,
    Kind,
    Posting,
    adjustment,
    balances_neur,
    combine,
)
from market.accounts.settlement import (
    Customer,
    Outsider,
    Participant,
    Taken,
    settle_cleared,
    settle_suspended,
)
from market.auction.book import Interval
from market.auction.record import AcCheck, ClearingRecord, NodePrice
from market.messages.models import Side, Tariff

AC = AcCheck(
    v_min_pu=1.0,
    v_max_pu=1.0,
    loading_max_percent=10.0,
    violations=0,
    slack_mismatch_w=0.0,
    iterations=1,
    stale_rows=0,
)
PLAIN = Tariff(import_price=300_000, export_price=80_000, floor=-500_000, cap=2_000_000, local_fee=20_000)

energies = st.integers(0, 5_000)
parts = st.integers(-400_000, 400_000)


@st.composite
def tariffs(draw: st.DrawFn) -> Tariff:
    export_price = draw(st.integers(-50_000, 100_000))
    import_price = export_price + draw(st.integers(0, 400_000))
    return Tariff(
        import_price=import_price,
        export_price=export_price,
        floor=min(export_price, -500_000),
        cap=2_000_000,
        local_fee=draw(st.integers(0, import_price - export_price)),
    )


@st.composite
def nodes(draw: st.DrawFn) -> tuple[NodePrice, ...]:
    energy = draw(st.integers(-100_000, 400_000))
    result = []
    for bus in range(4):
        losses, congestion, voltage = draw(parts), draw(parts), draw(parts)
        price = energy + losses + congestion + voltage
        price_q = draw(st.integers(-50_000, 50_000))
        result.append(
            NodePrice(
                bus=bus,
                price=price,
                energy=energy,
                losses=losses,
                congestion=congestion,
                voltage=voltage,
                price_q=price_q,
            )
        )
    return tuple(result)


@st.composite
def participants(draw: st.DrawFn, prices: tuple[NodePrice, ...], tariff: Tariff) -> tuple[Participant, ...]:
    result = []
    for number in range(draw(st.integers(0, 5))):
        node = prices[draw(st.integers(0, 3))]
        tan_phi_ppm = draw(st.sampled_from([0, 0, 250_000, -330_000]))
        reactive = round(tan_phi_ppm * node.price_q / 1_000_000)
        taken = tuple(
            Taken(side, energy, node.price + reactive + (tariff.local_fee if side == Side.BID else 0))
            for side, energy in draw(
                st.lists(st.tuples(st.sampled_from(Side), st.integers(1, 3_000)), max_size=3)
            )
        )
        metered = draw(st.one_of(st.none(), st.integers(-8_000, 8_000)))
        firm = draw(st.integers(-3_000, 3_000))
        result.append(Participant(f"household:{number}", node.bus, firm, taken, metered, tan_phi_ppm))
    return tuple(result)


def record_of(
    prices: tuple[NodePrice, ...],
    members: tuple[Participant, ...],
    outsiders: tuple[Outsider, ...],
    losses_wh: int,
) -> ClearingRecord:
    net = losses_wh - sum(p.awarded_wh for p in members) - sum(o.net_wh for o in outsiders)
    return ClearingRecord(
        status="cleared",
        feeder="test",
        interval=Interval(start="2016-06-15T12:00:00Z"),
        welfare_eur=0.0,
        import_wh=max(net, 0),
        export_wh=max(-net, 0),
        losses_wh=losses_wh,
        fills=(),
        trades=(),
        prices=prices,
        binding=(),
        ac=AC,
        certificate=None,
    )


@st.composite
def days(draw: st.DrawFn, tariff: Tariff | None = None):
    tariff = tariff or draw(tariffs())
    prices = draw(nodes())
    members = draw(participants(prices, tariff))
    outsiders = tuple(
        Outsider(bus, wh)
        for bus, wh in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(-4_000, 4_000)), max_size=3))
    )
    customers = tuple(
        Customer(f"customer:{n}", wh)
        for n, wh in enumerate(draw(st.lists(st.one_of(st.none(), st.integers(-2_000, 2_000)), max_size=2)))
    )
    return (
        record_of(prices, members, outsiders, draw(st.integers(-50, 500))),
        members,
        outsiders,
        customers,
        tariff,
    )


@given(days())
def test_every_batch_sums_to_zero_with_the_network_computed_from_prices_and_flows_alone(day) -> None:
    record, members, outsiders, customers, tariff = day
    settlement = settle_cleared(record, members, outsiders, customers, tariff)
    assert sum(p.amount_neur for p in settlement.postings) == 0
    residual = sum(p.amount_neur for p in settlement.postings if p.kind == Kind.ROUNDING)
    reactive = [p for p in members if p.tan_phi_ppm and p.taken]
    assert abs(residual) <= 1 + sum(s.energy_wh for p in reactive for s in p.taken)


@given(days())
def test_the_imbalance_account_never_loses(day) -> None:
    settlement = settle_cleared(*day)
    assert balances_neur(settlement.postings).get(IMBALANCE, 0) >= 0


@given(days(), st.data())
def test_a_payment_that_the_prices_do_not_explain_is_refused(day, data) -> None:
    record, members, outsiders, customers, tariff = day
    assume(any(p.taken for p in members))
    index = data.draw(st.sampled_from([i for i, p in enumerate(members) if p.taken]))
    step = members[index].taken[0]
    total = sum(s.energy_wh for p in members for s in p.taken)
    wrong = replace(step, price=step.price + (3 * total + 3) // step.energy_wh + 3)
    changed = replace(members[index], taken=(wrong, *members[index].taken[1:]))
    with pytest.raises(LedgerError):
        settle_cleared(
            record, (*members[:index], changed, *members[index + 1 :]), outsiders, customers, tariff
        )


@given(days())
def test_energy_that_the_record_does_not_balance_is_refused(day) -> None:
    record, *rest = day
    with pytest.raises(LedgerError, match="net demand"):
        settle_cleared(record.model_copy(update={"losses_wh": record.losses_wh + 1}), *rest)


@given(days())
def test_a_late_reading_ends_where_a_timely_one_would_have(day) -> None:
    record, members, outsiders, customers, tariff = day
    silent = tuple(replace(p, metered_wh=None) for p in members)
    before = settle_cleared(record, silent, outsiders, customers, tariff)
    after = settle_cleared(record, members, outsiders, customers, tariff)
    change = adjustment(before.postings, after.postings)
    assert combine([*before.postings, *change]) == after.postings


@given(days(), st.integers(-8_000, 8_000))
def test_nobody_gains_by_not_delivering(day, metered_wh) -> None:
    """Against its own award, a deviation never pays more than the same energy at the bus price would have."""
    record, members, outsiders, customers, tariff = day
    prices = {node.bus: node.price for node in record.prices}
    assume(members and members[0].metered_wh is not None)
    who = members[0]
    assume(tariff.floor <= prices[who.bus] and prices[who.bus] + tariff.local_fee <= tariff.cap)
    settlement = settle_cleared(
        record, (replace(who, metered_wh=metered_wh), *members[1:]), outsiders, customers, tariff
    )
    deviation = metered_wh - who.awarded_wh
    got = sum(
        p.amount_neur for p in settlement.postings if p.account == who.account and p.kind == Kind.IMBALANCE
    )
    traded_at = prices[who.bus] + (tariff.local_fee if deviation < 0 else 0)
    assert got <= deviation * traded_at


@given(
    st.lists(
        st.tuples(st.sampled_from(Side), st.integers(1, 3_000), st.integers(-200_000, 600_000)), max_size=4
    ),
    st.integers(-3_000, 3_000),
    st.integers(0, 280_000),
    st.data(),
)
def test_an_order_never_costs_more_than_the_collateral_it_needed(steps, firm_wh, dlmp, data) -> None:
    """At any price within its limits and any delivery up to the fuse, where the bus is no dearer than the
    tariff.
    """
    fuse_w = 12_000
    taken, exposures = [], []
    for side, energy_wh, limit in steps:
        exposures.append(Exposure(side, energy_wh, limit))
        price = dlmp + (PLAIN.local_fee if side == Side.BID else 0)
        if (price <= limit) if side == Side.BID else (price >= limit):
            taken.append(Taken(side, data.draw(st.integers(1, energy_wh)), price))
    node = NodePrice(bus=0, price=dlmp, energy=dlmp, losses=0, congestion=0, voltage=0, price_q=0)
    metered = data.draw(st.integers(-fuse_w // 4, fuse_w // 4))
    who = Participant("household:1", 0, firm_wh, tuple(taken), metered)
    settlement = settle_cleared(record_of((node,), (who,), (), 0), (who,), (), (), PLAIN)
    earned = balances_neur(settlement.postings).get("household:1", 0)
    worst = (
        flexible_worst_neur(exposures, PLAIN, reactive=False)
        + firm_worst_neur(firm_wh, PLAIN)
        + fuse_worst_neur(fuse_w, 15, PLAIN)
    )
    assert -earned <= worst
    assert shortfall_neur(worst, [worst - 5], 5) == 0
    assert shortfall_neur(worst, [worst], 5) == 5


def test_firm_energy_pays_at_most_and_earns_at_least_the_tariff() -> None:
    nodes = tuple(
        NodePrice(
            bus=bus, price=price, energy=200_000, losses=0, congestion=price - 200_000, voltage=0, price_q=0
        )
        for bus, price in ((0, 900_000), (1, -100_000))
    )
    members = (Participant("household:a", 0, -1_000, (), -1_000), Participant("household:b", 1, 500, (), 500))
    settlement = settle_cleared(record_of(nodes, members, (), 0), members, (), (), PLAIN)
    totals = balances_neur(settlement.postings)
    assert totals["household:a"] == -1_000 * 300_000
    assert totals["household:b"] == 500 * 80_000
    collar = next(p for p in settlement.postings if p.kind == Kind.COLLAR)
    assert collar == Posting(NETWORK, Kind.COLLAR, -1_000 * 620_000 - 500 * 180_000)


def test_at_the_slack_an_importing_buyer_pays_exactly_the_import_tariff_and_the_network_keeps_nothing() -> (
    None
):
    price = PLAIN.import_price - PLAIN.local_fee
    node = NodePrice(bus=0, price=price, energy=price, losses=0, congestion=0, voltage=0, price_q=0)
    who = Participant("household:a", 0, 0, (Taken(Side.BID, 1_000, 300_000),), -1_000)
    settlement = settle_cleared(record_of((node,), (who,), (), 0), (who,), (), (), PLAIN)
    assert balances_neur(settlement.postings) == {
        "household:a": -300_000_000,
        RETAILER: 300_000_000,
        NETWORK: 0,
    }


def test_a_silent_seller_is_not_paid_until_its_registers_speak() -> None:
    node = NodePrice(bus=0, price=150_000, energy=150_000, losses=0, congestion=0, voltage=0, price_q=0)
    buyer = Participant("household:a", 0, 0, (Taken(Side.BID, 1_000, 170_000),), -1_000)
    seller = Participant("household:b", 0, 0, (Taken(Side.ASK, 1_000, 150_000),), None)
    settlement = settle_cleared(record_of((node,), (buyer, seller), (), 0), (buyer, seller), (), (), PLAIN)
    assert settlement.missing == ("household:b",)
    totals = balances_neur(settlement.postings)
    assert totals["household:b"] == 0
    assert totals[IMBALANCE] == 150_000_000


def test_a_suspended_interval_is_at_the_retail_tariffs() -> None:
    members = (Participant("household:a", 0, -700, (), -800), Participant("household:b", 0, -200, (), None))
    settlement = settle_suspended(members, (Customer("household:c", 300),), PLAIN)
    assert balances_neur(settlement.postings) == {
        "household:a": -800 * 300_000,
        "household:b": -200 * 300_000,
        "household:c": 300 * 80_000,
        RETAILER: 1_000 * 300_000 - 300 * 80_000,
    }
    assert settlement.missing == ("household:b",)
