"""A statement adds up to the postings to the nEUR, whatever the prices are made of."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid.errors import LedgerError
from market.accounts.ledger import RETAILER, Kind, household
from market.accounts.settlement import Customer, settle_suspended
from market.accounts.statement import Booked, Flows, Parts, statement_of
from market.messages.models import PriceParts, Tariff

TARIFF = Tariff(
    import_price=300_000,
    export_price=80_000,
    floor=-500_000,
    cap=2_000_000,
    local_fee=23_800,
    import_fees=90_000,
    import_parts=PriceParts(energy=162_101, network=70_000, levies=20_000, vat=47_899),
    export_parts=PriceParts(energy=82_000, network=-2_000),
    local_parts=PriceParts(network=15_000, levies=5_000, vat=3_800),
)
ACCOUNT = household("0x" + "11" * 20)
PERIOD = (0, 900)


def one(
    kind: Kind, amount_neur: int, energy_wh: int, flows: Flows, account: str = ACCOUNT
) -> Sequence[Parts]:
    made = statement_of(account, PERIOD, 7, [Booked(0, kind, amount_neur, energy_wh)], {0: flows})
    assert made.total_neur == amount_neur
    assert made.closing_neur == 7 + amount_neur
    return [line.parts for line in made.lines]


def test_retail_energy_has_the_tariffs_parts() -> None:
    flows = Flows(TARIFF, retail_drawn_wh=-10)
    parts = Parts(-1_621_010, -700_000, -200_000, -478_990)
    assert one(Kind.RETAIL, -3_000_000, -10, flows) == [parts]
    (line,) = one(Kind.RETAIL, 3_000_000, 10, flows, RETAILER)
    assert line == Parts(1_621_010, 700_000, 200_000, 478_990), "what one pays the other one gets"


def test_a_purchase_is_partly_imported_and_partly_a_neighbours() -> None:
    """Of 400 Wh, 300 were imported: 75 of 100 Wh have the retailer's parts, 25 the local fee's."""
    flows = Flows(TARIFF, fed_in_wh=100, supply_wh=300)
    (parts,) = one(Kind.AWARD, -100 * 250_000, -100, flows)
    assert parts.network_neur == -(75 * 70_000 + 25 * 15_000)
    assert parts.vat_neur == -(75 * 47_899 + 25 * 3_800)
    (all_local,) = one(Kind.FIRM, -100 * 250_000, -100, Flows(TARIFF, fed_in_wh=400, supply_wh=-10))
    assert all_local.levies_neur == -100 * 5_000
    (sold,) = one(Kind.AWARD, 100 * 90_000, 100, Flows(TARIFF, fed_in_wh=400, supply_wh=-200))
    assert sold == Parts(energy_neur=100 * 90_000 + 50 * 2_000, network_neur=-50 * 2_000)


def test_what_is_beside_the_schedule_pays_its_surcharge_as_energy() -> None:
    (parts,) = one(Kind.IMBALANCE, -10 * 500_000, -10, Flows(TARIFF))
    assert parts == Parts(-10 * (162_101 + 200_000), -700_000, -200_000, -478_990)
    assert one(Kind.CARRIED, 0, -10, Flows(TARIFF)) == [Parts()]
    assert one(Kind.HELD, -50, 0, Flows(TARIFF)) == [Parts(energy_neur=-50)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-5_000, 5_000), min_size=1, max_size=6))
def test_customers_and_their_retailer_have_the_same_parts(nets_wh: list[int]) -> None:
    accounts = [household(f"0x{number:040x}") for number in range(len(nets_wh))]
    customers = [Customer(a, wh) for a, wh in zip(accounts, nets_wh, strict=True)]
    postings = settle_suspended([], customers, TARIFF).postings
    flows = Flows(
        TARIFF,
        retail_drawn_wh=sum(min(0, wh) for wh in nets_wh),
        retail_fed_wh=sum(max(0, wh) for wh in nets_wh),
    )
    total = Parts()
    for account in (*accounts, RETAILER):
        booked = [Booked(0, p.kind, p.amount_neur, p.energy_wh) for p in postings if p.account == account]
        total += statement_of(account, PERIOD, 0, booked, {0: flows}).parts
    assert total == Parts()


def test_a_statement_that_does_not_add_up_is_refused() -> None:
    flows = {0: Flows(TARIFF, retail_drawn_wh=-11)}
    with pytest.raises(
        LedgerError, match="retailer: the statement comes to 3300000 nEUR and its postings to 3000000"
    ):
        statement_of(RETAILER, PERIOD, 0, [Booked(0, Kind.RETAIL, 3_000_000, 10)], flows)
