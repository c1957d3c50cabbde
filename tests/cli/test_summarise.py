"""The summary's numbers, by hand on one interval."""

from __future__ import annotations

from dataclasses import replace

from market.accounts.ledger import NETWORK, RETAILER, Kind, Posting, household
from market.accounts.metering import Flag, Metered
from market.auction.book import Book, BookOrder, Firm, Interval
from market.auction.record import AcCheck, BindingLimit, ClearingRecord, Fill, NodePrice
from market.cli.alone import Alone, Bill
from market.cli.day import Day, DayInterval
from market.cli.settings import read_settings
from market.cli.summarise import ledger_on_chain_ueur, summarise
from market.cli.summary import Chain, Elapsed, Summary
from market.drawing.interval import neighbours_wh
from market.messages.models import Tariff
from market.service.store.money import AccountState
from meters.fleet import Comfort
from meters.household.settings import HouseholdSettings
from meters.household.sites import households
from tests.meters.places import PROFILES

ROOF, FLAT, CAR = "0x" + "a" * 40, "0x" + "b" * 40, "0x" + "c" * 40
TARIFF = Tariff(
    import_price=300_000, export_price=80_000, floor=0, cap=2_000_000, local_fee=20_000, import_fees=100_000
)
AC = AcCheck(
    v_min_pu=0.99,
    v_max_pu=1.02,
    loading_max_percent=60.0,
    violations=0,
    slack_mismatch_w=0.0,
    iterations=1,
    stale_rows=0,
)
# A roof feeds in 1000 Wh; a flat draws 600 Wh of it, a car 300 Wh at 100000 µEUR/kWh; 100 Wh are lost.
INTERVAL = DayInterval(
    start=1_465_516_800,
    state="FINAL",
    tariff=TARIFF,
    book=Book(
        interval=Interval.at(1_465_516_800),
        tariff=TARIFF,
        firm=(Firm(connection_point="load:1", p_w=-2400.0),),
        orders=(
            BookOrder(id="r", connection_point="load:0", side="ask", energy_wh=1200, limit_price=20_000),
            BookOrder(id="c", connection_point="load:2", side="bid", energy_wh=300, limit_price=320_000),
        ),
    ),
    record=ClearingRecord(
        status="cleared",
        feeder="f",
        interval=Interval.at(1_465_516_800),
        welfare_eur=0.0,
        import_wh=0,
        export_wh=0,
        losses_wh=100,
        fills=(
            Fill(order_id="r", energy_wh=1000, price=100_000),
            Fill(order_id="c", energy_wh=300, price=120_000),
        ),
        trades=(),
        prices=tuple(
            NodePrice(bus=bus, price=price, energy=price, losses=0, congestion=0, voltage=0, price_q=0)
            for bus, price in ((0, 100_000), (1, 110_000))
        ),
        binding=(
            BindingLimit(
                element="line:4", side="from", kind="current", loading_percent=100, shadow_price_eur_per_mwh=3
            ),
            BindingLimit(
                element="line:4", side="to", kind="current", loading_percent=100, shadow_price_eur_per_mwh=5
            ),
        ),
        ac=AC,
        certificate=None,
    ),
    without_network={"ac": AC.model_dump() | {"violations": 3, "loading_max_percent": 130.0}},
    delivered=AC.model_dump() | {"import_wh": 0, "export_wh": 0},
    metered={
        ROOF: Metered(0, 1000, Flag.MEASURED),
        FLAT: Metered(600, 0, Flag.MEASURED),
        CAR: Metered(300, 0, Flag.MEASURED),
    },
    postings=(
        Posting(household(ROOF), Kind.AWARD, 1000 * 100_000, 1000),
        Posting(household(FLAT), Kind.FIRM, -600 * 120_000, -600),
        Posting(household(CAR), Kind.AWARD, -300 * 120_000, -300),
        Posting(NETWORK, Kind.FEES, 900 * 20_000),
        Posting(NETWORK, Kind.LOSSES, -10_000_000, -100),
    ),
)
ACCOUNTS = [
    AccountState(household(ROOF), "0x1", 5_000_000, 100_000_000, 100_000),
    AccountState(household(FLAT), "0x2", 5_000_000, -72_000_000, -72_000),
    AccountState(household(CAR), "0x3", 5_000_000, -36_000_500, -36_001),
    AccountState(NETWORK, "0x4", 5_000_000, 8_000_500, 8_000),
    AccountState(RETAILER, "0x5", 5_000_000, 0, 0),
    AccountState("imbalance", "0x6", 5_000_000, 0, 0),
    AccountState("rounding", "0x7", 0, 0, 1),
]


# Each alone: the roof feeds in 1300 Wh, flat and car draw what they draw here, the car 300 Wh more for later.
ALONE = {"load:0": 1300 * 80_000, "load:1": -600 * 300_000, "load:2": -600 * 300_000}
HOMES = dict(zip((ROOF, FLAT, CAR), households(PROFILES, HouseholdSettings(), 7), strict=True))
HOMES = {meter: replace(home, name=f"load:{number}") for number, (meter, home) in enumerate(HOMES.items())}


def summary_of(day: Day) -> Summary:
    return summarise(
        read_settings(None, None, {}, {}),
        day,
        HOMES,
        Alone(
            import_wh=900,
            export_wh=1300,
            pv_available_wh=1300.0,
            battery_wh=0.0,
            battery_left_wh=0.0,
            bills={name: Bill(amount, 500.0) for name, amount in ALONE.items()},
        ),
        Comfort(
            pv_curtailed_wh=300,
            battery_wh=0,
            ev_departures=1,
            ev_unmet=0,
            ev_unmet_wh=0,
            heat_lacking_wh=0,
            at_hand_wh={ROOF: 500.0, FLAT: 600.0, CAR: 200.0},
        ),
        Chain(
            batches=1,
            transfers=4,
            gas=1,
            setup_transactions=1,
            setup_gas=1,
            deposits_ueur=1,
            total_supply_ueur=1,
            balances_equal_ledger=True,
        ),
        Elapsed(total_s=1.0, stages_s={}, broker="b", messages_in=1, receipts=1),
    )


DAY = Day([INTERVAL], ACCOUNTS, {"orders": 3, "readings": 9, "awards": 3}, [1])


def test_neighbours_trade_what_some_feed_in_and_others_draw() -> None:
    assert neighbours_wh(INTERVAL.book, INTERVAL.record) == 900


def test_a_households_own_solar_power_in_its_own_load_is_no_trade() -> None:
    book = INTERVAL.book.model_copy(
        update={"firm": (*(INTERVAL.book.firm or ()), Firm(connection_point="load:0", p_w=-2000.0))}
    )
    assert neighbours_wh(book, INTERVAL.record) == 500


def test_energy_adds_up() -> None:
    energy = summary_of(DAY).energy
    assert (energy.traded_locally_wh, energy.losses_wh) == (900, 100)
    assert energy.solar_wh == 1000
    assert energy.solar_curtailed_wh == 300
    assert energy.consumption_wh == 900


def test_savings_are_against_the_retail_tariffs_for_the_same_metered_energy() -> None:
    savings = summary_of(DAY).savings
    retail = 1000 * 80_000 - 900 * 300_000
    actual = 1000 * 100_000 - 900 * 120_000
    assert savings.total_neur == actual - retail
    assert savings.network_fees_neur == 900 * (100_000 - 20_000)
    assert savings.energy_neur == savings.total_neur - savings.network_fees_neur
    assert savings.households_worse_off == 0


def test_gains_are_against_each_households_own_day_alone() -> None:
    """What it stored less than alone costs the import tariff, what it stored more earns the export tariff."""
    savings = summary_of(DAY).savings
    roof = 1000 * 100_000 - 1300 * 80_000
    flat = -600 * 120_000 + 600 * 300_000 + 100 * 80_000
    car = -300 * 120_000 + 600 * 300_000 - 300 * 300_000
    assert savings.against_alone_neur == roof + flat + car
    assert savings.households_worse_alone == 1


def test_a_limit_that_binds_at_both_ends_binds_once_at_its_highest_price() -> None:
    network = summary_of(DAY).network
    assert network.intervals_bound == 1
    assert [(limit.element, limit.intervals) for limit in network.limits] == [("line:4", 1)]
    assert network.limits[0].shadow_price_max_eur_per_mwh == 5
    assert (network.schedule.count, network.ignored.count, network.ignored.intervals) == (0, 3, 1)


def test_an_interval_without_a_power_flow_is_counted_as_such() -> None:
    collapsed = replace(INTERVAL, without_network={"ac": AC.model_dump() | {"v_min_pu": None}})
    network = summary_of(replace(DAY, intervals=[INTERVAL, collapsed])).network
    assert network.ignored.unsolvable == 1
    assert network.ignored.count == 3


def test_self_sufficiency_compares_the_feeders_import_with_each_households() -> None:
    kept = summary_of(DAY).self_sufficiency
    assert kept.with_market == 1.0
    assert kept.without_market == 0.0


def test_the_chain_stands_at_the_floor_of_the_ledger_and_rounding_has_the_rest() -> None:
    expected = ledger_on_chain_ueur(DAY)
    assert expected == {state.address: state.deposit_ueur + state.settled_ueur for state in ACCOUNTS}
    assert sum(expected.values()) == sum(state.deposit_ueur for state in ACCOUNTS)
