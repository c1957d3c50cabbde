"""Trying to get away with an unpaid batch, in any order of steps: collateral's rules against the contracts.

A household with 60 EUR wants two orders of 40 EUR each, and all its money out. Whatever comes first, what was
accepted is paid by the household itself and the guarantee lends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from random import Random
from typing import Any

import pytest

from contracts.chain import ContractRevertError
from market.accounts.ledger import household
from market.messages.models import Order, Side, Step
from market.messages.signing import UNSIGNED
from market.service.cover import Cover
from market.service.settings import Member
from market.service.settler import ContractSettler
from tests.service.scene import FEEDER_ID, SECONDS, START, settings

EUR = 1_000_000
COST_UEUR = 40 * EUR
GUARANTEE_UEUR = 100 * EUR
STEP_S = 380  # all of them together are within the delay of a withdrawal
PARTS = ("order", "post", "settle")
STEPS = (*(f"{part} {k}" for part in PARTS for k in (0, 1)), "announce", "withdraw", "wait")
OF = settings(4)


def sequences() -> Iterator[tuple[str, ...]]:
    """Every order of the steps in which an interval is ordered, then posted, then settled.

    The delay of a withdrawal is longer than that takes: nobody can wait it out in between.
    """
    for steps in permutations(STEPS):
        waited = steps.index("wait")
        ways = [[steps.index(f"{part} {k}") for part in PARTS] for k in (0, 1)]
        if all(way == sorted(way) and not way[0] < waited < way[2] for way in ways):
            yield steps


ORDERS = Random(4).sample(list(sequences()), 330)


class Household:
    """One household's way through the market: the real rule of collateral, the real contracts."""

    def __init__(self, stand: Any) -> None:
        self.stand, self.owner = stand, stand.households["rich"]
        self.member = Member(
            meter=stand.key("meter").address,
            owner=self.owner.address,
            connection_point="load:0",
            bus=2,
            fuse_w=1,
            deposit_ueur=0,
        )
        self.account = household(self.member.meter)
        self.cover = Cover(OF, {self.member.meter: self.member})
        self.settler = ContractSettler(stand.contracts, stand.sender(stand.settler), "test", None)
        self.accepted: set[int] = set()
        self.pending_neur = 0
        self.final_ueur = 0

    def order(self, number: int) -> None:
        energy_wh = COST_UEUR * 1000 // OF.tariff.cap
        order = Order(
            meter=self.member.meter,
            feeder=FEEDER_ID,
            interval_start=START + number * SECONDS,
            version=0,
            steps=(Step(side=Side.BID, energy_wh=energy_wh, limit_price=OF.tariff.cap),),
            sig=UNSIGNED,
        )
        self.cover.renew(
            self.settler.standing(), {self.account: self.final_ueur}, {self.account: self.pending_neur}
        )
        if self.cover.shortfall_neur(order) == 0:
            self.cover.hold(order)
            self.accepted.add(number)

    def post(self, number: int) -> None:
        if number in self.accepted:
            self.pending_neur -= COST_UEUR * 1000
            self.cover.release(START + number * SECONDS)

    def settle(self, number: int) -> None:
        if number in self.accepted:
            net = {self.owner.address: -COST_UEUR, self.stand.address("idle"): COST_UEUR}
            self.settler.settle(number, bytes(32), net, 0)
            self.pending_neur += COST_UEUR * 1000
            self.final_ueur -= COST_UEUR

    def announce(self) -> None:
        contracts = self.stand.contracts
        held = contracts.balances([self.owner.address])[self.owner.address]
        if held:
            contracts.announce_withdrawal(self.stand.sender(self.owner), "announce", held)

    def wait(self) -> None:
        self.stand.clock.now += self.stand.terms.withdrawal_delay_s

    def withdraw(self, batch_id: str = "withdraw") -> None:
        try:
            self.stand.contracts.withdraw(self.stand.sender(self.owner), batch_id, self.owner.address)
        except ContractRevertError as refusal:
            assert refusal.reason.name == "WithdrawalNotDue"


def go(stand: Any, steps: tuple[str, ...]) -> None:
    operator = stand.sender(stand.operator)
    stand.contracts.mint(operator, "guarantee/mint", operator.address, GUARANTEE_UEUR)
    stand.contracts.deposit_guarantee(operator, "guarantee", GUARANTEE_UEUR)
    home = Household(stand)
    for step in steps:
        stand.clock.now += STEP_S
        name, _, number = step.partition(" ")
        getattr(home, name)(*([int(number)] if number else []))
    home.wait()
    home.withdraw("in the end")

    contracts, owner = stand.contracts, home.owner.address
    assert contracts.debts([owner]) == {}, steps
    assert contracts.guarantee() == GUARANTEE_UEUR, steps
    paid = COST_UEUR * len(home.accepted)
    left = contracts.balances([owner])[owner] + contracts.stablecoin_balance(owner)
    assert left == 60 * EUR - paid, steps
    assert len(home.accepted) <= 1
    # Who did not ask for its money before could order.
    assert home.accepted or steps.index("announce") < max(steps.index("order 0"), steps.index("order 1"))


@pytest.mark.parametrize("steps", ORDERS[:30], ids=" > ".join)
def test_what_was_accepted_is_paid_by_the_household_itself(stand, steps: tuple[str, ...]) -> None:
    go(stand, steps)


@pytest.mark.long
@pytest.mark.parametrize("steps", ORDERS[30:], ids=" > ".join)
def test_what_was_accepted_is_paid_in_more_orders_of_steps(stand, steps: tuple[str, ...]) -> None:
    go(stand, steps)
