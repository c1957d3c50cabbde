"""Settling on the escrow: what it moves, and what it refuses by name."""

from __future__ import annotations

from contracts.market_contracts import Limits
from contracts.positions import pack_positions

ZERO = "0x" + "00" * 20
EUR = 1_000_000


def test_a_batch_moves_credit_and_leaves_the_supply(stand) -> None:
    receipt = stand.settle({"rich": -7 * EUR, "poor": 2 * EUR, "idle": 5 * EUR})

    assert receipt.succeeded
    assert stand.balances() == {"rich": 53 * EUR, "poor": 3 * EUR, "idle": 5 * EUR}
    assert stand.contracts.total_supply() == stand.contracts.backing() == 61 * EUR
    assert stand.contracts.is_settled(stand.market, 0)
    assert not stand.contracts.is_settled(stand.market, 1)


def test_each_position_is_a_transfer_event_through_the_clearing_account(stand) -> None:
    before = stand.chain.block_number()
    receipt = stand.settle({"rich": -7 * EUR, "poor": 2 * EUR, "idle": 5 * EUR})
    clearing = stand.deployment.escrow

    moved = {
        (transfer.sender, transfer.receiver, transfer.amount_ueur)
        for transfer in stand.contracts.transfers(from_block=before + 1)
    }

    assert moved == {
        (stand.address("rich"), clearing, 7 * EUR),
        (clearing, stand.address("poor"), 2 * EUR),
        (clearing, stand.address("idle"), 5 * EUR),
    }
    assert {t.transaction for t in stand.contracts.transfers(from_block=before + 1)} == {receipt.hash}
    assert stand.contracts.balances([clearing]) == {clearing: 0}


def test_balances_are_the_sum_of_all_transfers(stand) -> None:
    stand.settle({"rich": -7 * EUR, "poor": 7 * EUR}, sequence=0)
    stand.settle({"poor": -3 * EUR, "idle": 3 * EUR}, sequence=1)
    found = dict.fromkeys((stand.address(name) for name in stand.households), 0)
    for transfer in stand.contracts.transfers():
        for account, amount in (
            (transfer.sender, -transfer.amount_ueur),
            (transfer.receiver, transfer.amount_ueur),
        ):
            if account in found:
                found[account] += amount
    assert found == stand.contracts.balances(found)


def test_a_settled_batch_is_not_sent_again(stand) -> None:
    first = stand.settle({"rich": -EUR, "poor": EUR})
    blocks = stand.chain.block_number()

    assert stand.settle({"rich": -EUR, "poor": EUR}) == first
    assert stand.chain.block_number() == blocks
    assert stand.balances()["poor"] == 2 * EUR


def test_the_contract_refuses_a_sequence_that_was_settled(stand) -> None:
    packed = pack_positions({stand.address("rich"): -EUR, stand.address("poor"): EUR})
    stand.settle_packed(packed, sequence=5)
    with stand.refuses("AlreadySettled", sequence=5):
        stand.settle_packed(packed, sequence=5)
    with stand.refuses("AlreadySettled", sequence=5):
        stand.settle_packed(b"", sequence=5)
    stand.settle_packed(packed, sequence=4)
    assert stand.balances()["poor"] == 3 * EUR


def test_an_overdraft_beyond_the_guarantee_stops_the_batch_and_it_goes_on_when_there_is_one(stand) -> None:
    net = {"rich": -EUR, "poor": -EUR - 1, "idle": 2 * EUR + 1}
    with stand.refuses("GuaranteeExhausted", account=stand.address("poor"), missing=1, guarantee=0):
        stand.settle(net)

    assert stand.balances() == {"rich": 60 * EUR, "poor": EUR, "idle": 0}
    assert not stand.contracts.is_settled(stand.market, 0)

    guarantee(stand, 5)
    stand.settle(net)
    assert stand.balances() == {"rich": 59 * EUR, "poor": 0, "idle": 2 * EUR + 1}
    assert stand.contracts.guarantee() == 4
    assert stand.contracts.debts([stand.address(name) for name in stand.households]) == {
        stand.address("poor"): 1
    }


def guarantee(stand, amount: int) -> None:
    operator = stand.sender(stand.operator)
    stand.contracts.mint(operator, "guarantee/mint", operator.address, amount)
    stand.contracts.deposit_guarantee(operator, "guarantee", amount)


def test_a_shortfall_is_drawn_from_what_its_account_wants_to_withdraw_before_the_guarantee(stand) -> None:
    guarantee(stand, 5 * EUR)
    poor = stand.households["poor"]
    stand.contracts.announce_withdrawal(stand.sender(poor), "announce", EUR)

    stand.settle({"poor": -3 * EUR, "idle": 3 * EUR})

    assert stand.contracts.pending_withdrawal(poor.address).amount_ueur == 0
    assert stand.contracts.guarantee() == 3 * EUR
    assert stand.contracts.debts([poor.address]) == {poor.address: 2 * EUR}
    # What backs everything is where it was.
    assert stand.contracts.total_supply() == 63 * EUR
    assert stand.contracts.backing() == 66 * EUR


def test_a_debtor_repays_before_it_has_credit_again(stand) -> None:
    guarantee(stand, 5 * EUR)
    poor = stand.households["poor"]
    stand.settle({"poor": -3 * EUR, "idle": 3 * EUR})

    stand.settle({"rich": -EUR, "poor": EUR}, sequence=1)
    with stand.refuses("ERC20InsufficientBalance"):
        stand.contracts.announce_withdrawal(stand.sender(poor), "announce", EUR)
    stand.contracts.collect_debt(stand.sender(stand.settler), "collect", poor.address)
    assert stand.balances()["poor"] == 0
    assert stand.contracts.debts([poor.address]) == {poor.address: EUR}

    stand.contracts.fund(stand.sender(stand.operator), "rescue", {poor.address: 4 * EUR})
    assert stand.contracts.debts([poor.address]) == {}
    assert stand.balances()["poor"] == 3 * EUR
    assert stand.contracts.guarantee() == 5 * EUR


def test_a_batch_of_many_accounts_goes_in_chunks_that_are_settled_once_each(stand) -> None:
    rich = stand.address("rich")
    net = {f"0x{number:040x}": 2 for number in range(1, 501)} | {rich: -1000}
    sender = stand.sender(stand.settler)
    receipts = stand.contracts.settle(sender, stand.market, 0, stand.root, net)

    assert len(receipts) == 2
    assert stand.contracts.settle(sender, stand.market, 0, stand.root, net) == receipts
    found = stand.contracts.balances(net)
    assert {account: amount for account, amount in found.items() if account != rich} == {
        account: 2 for account in net if account != rich
    }
    events = stand.contracts.settled(stand.market, 0)
    assert [(event.chunk, event.root, event.positions) for event in events] == [
        (0, stand.root, 450),
        (1, stand.root, 52),
    ]
    assert sum(event.volume_ueur for event in events) == 1000
    assert [stand.contracts.is_settled(stand.market, 0, chunk) for chunk in range(3)] == [True, True, False]
    with stand.refuses("AlreadySettled", sequence=0, chunk=1):
        stand.settle_packed(b"", chunk=1)


def test_debits_and_credits_must_be_equal(stand) -> None:
    rich, poor = stand.address("rich"), stand.address("poor")
    with stand.refuses("UnbalancedPositions", debits=5, credits=4):
        stand.settle_packed(stand.position(rich, -5) + stand.position(poor, 4))
    with stand.refuses("UnbalancedPositions", debits=5, credits=6):
        stand.settle_packed(stand.position(rich, -5) + stand.position(poor, 6))
    with stand.refuses("UnbalancedPositions", debits=0, credits=6):
        stand.settle_packed(stand.position(poor, 6))


def test_debits_come_before_credits_and_accounts_ascend(stand) -> None:
    low, high = sorted((stand.address("rich"), stand.address("poor")))
    idle = stand.address("idle")
    at = stand.position
    batches = {
        "the same account twice": (at(low, -2) + at(low, -3) + at(idle, 5), 1),
        "debits descend": (at(high, -2) + at(low, -3), 1),
        "a zero": (at(low, -2) + at(idle, 0), 1),
        "a debit after the credits": (at(low, -2) + at(idle, 2) + at(high, -1), 2),
        "credits descend": (at(idle, -2) + at(high, 1) + at(low, 1), 2),
        "the zero address": (at(ZERO, -1), 0),
    }
    # What the third household owes in one of them, it must have.
    stand.settle({"rich": -2, "idle": 2}, sequence=99)
    for packed, index in batches.values():
        with stand.refuses("PositionOutOfOrder", index=index):
            stand.settle_packed(packed)
    with stand.refuses("PositionOutOfOrder", index=1):
        stand.settle_packed(at(low, 5) + at(high, -5))


def test_the_clearing_account_has_no_position(stand) -> None:
    clearing = stand.deployment.escrow
    with stand.refuses("ClearingAccountRefused"):
        stand.settle_packed(stand.position(clearing, -1))
    with stand.refuses("ClearingAccountRefused"):
        stand.settle_packed(stand.position(stand.address("rich"), -1) + stand.position(clearing, 1))


def test_bytes_that_are_no_whole_positions_are_refused(stand) -> None:
    with stand.refuses("MalformedPositions", length=27):
        stand.settle_packed(bytes(27))


def test_more_than_1500_positions_are_refused(stand) -> None:
    with stand.refuses("TooManyPositions", positions=1501):
        stand.settle_packed(bytes(28 * 1501))


def test_only_the_settler_settles(stand) -> None:
    for signer in (stand.operator, stand.households["rich"]):
        with stand.refuses("AccessControlUnauthorizedAccount", account=signer.address):
            stand.settle_packed(b"", signer=signer)


def test_a_position_owes_at_most_its_bound(stand) -> None:
    stand.settle({"rich": -50 * EUR, "idle": 50 * EUR}, sequence=0)
    stand.settle({"idle": -50 * EUR, "rich": 50 * EUR}, sequence=1)
    stand.clock.now += 86400
    with stand.refuses("PositionBeyondLimit", debit=50 * EUR + 1, debitMax=50 * EUR):
        stand.settle({"rich": -50 * EUR - 1, "idle": 50 * EUR + 1}, sequence=2)


def test_a_window_moves_at_most_its_bound_and_the_next_one_starts_anew(stand) -> None:
    # Windows are aligned to whole days: this is the start of one.
    stand.clock.now += 86400 - stand.clock.now % 86400
    stand.settle({"rich": -50 * EUR, "idle": 50 * EUR}, sequence=0)
    stand.settle({"idle": -50 * EUR, "rich": 50 * EUR}, sequence=1)
    with stand.refuses("WindowBeyondLimit", debits=100 * EUR + 1, debitMax=100 * EUR):
        stand.settle({"rich": -1, "idle": 1}, sequence=2)
    stand.clock.now += 86400
    assert stand.settle({"rich": -1, "idle": 1}, sequence=2).succeeded


def test_only_the_timelock_sets_the_bounds_and_takes_back_the_guarantee(stand) -> None:
    for signer in (stand.settler, stand.operator):
        with stand.refuses("AccessControlUnauthorizedAccount", account=signer.address):
            stand.send(signer, "MarketEscrow", "setLimits", 1, 1, 1, 1)
    operator, limits = stand.sender(stand.operator), Limits(10, 15, 5, 3600)
    stand.contracts.propose_limits(operator, "tighter", limits)
    with stand.refuses("TimelockUnexpectedOperationState"):
        stand.contracts.apply_limits(operator, "tighter", limits)
    stand.clock.now += stand.terms.admin_delay_s + 100
    stand.contracts.apply_limits(operator, "tighter", limits)
    assert stand.contracts.limits() == limits
    with stand.refuses("PositionBeyondLimit", debit=11, debitMax=10):
        stand.settle({"rich": -11, "idle": 11})
    stand.settle({"rich": -10, "idle": 10})
    with stand.refuses("AccessControlUnauthorizedAccount", account=stand.operator.address):
        stand.send(stand.operator, "MarketEscrow", "withdrawGuarantee", stand.operator.address, 1)


def test_a_window_draws_at_most_its_share_of_the_guarantee_and_the_batch_waits_for_the_next_one(
    stand,
) -> None:
    operator, limits = stand.sender(stand.operator), Limits(10 * EUR, 100 * EUR, 3 * EUR, 3600)
    stand.contracts.mint(operator, "guarantee/mint", operator.address, 9 * EUR)
    stand.contracts.deposit_guarantee(operator, "guarantee", 9 * EUR)
    stand.contracts.propose_limits(operator, "share", limits)
    stand.clock.now += stand.terms.admin_delay_s + 100
    stand.contracts.apply_limits(operator, "share", limits)

    stand.settle({"idle": -2 * EUR, "rich": 2 * EUR})
    with stand.refuses("GuaranteeBeyondLimit", drawn=4 * EUR, drawnMax=3 * EUR):
        stand.settle({"idle": -2 * EUR, "rich": 2 * EUR}, sequence=1)
    assert stand.contracts.guarantee() == 7 * EUR
    stand.clock.now += 3600
    stand.settle({"idle": -2 * EUR, "rich": 2 * EUR}, sequence=1)
    assert stand.contracts.guarantee() == 5 * EUR
    assert stand.contracts.debts([stand.address("idle")]) == {stand.address("idle"): 4 * EUR}


def test_a_batch_without_positions_commits_its_root_alone(stand) -> None:
    assert stand.settle({}).succeeded
    assert stand.contracts.is_settled(stand.market, 0)
    assert stand.balances()["rich"] == 60 * EUR


def test_sequences_of_different_markets_are_independent(stand) -> None:
    sender = stand.sender(stand.settler)
    for market in (b"\1" * 32, b"\2" * 32):
        stand.contracts.settle(
            sender,
            market,
            7,
            stand.root,
            {stand.address("rich"): -1, stand.address("poor"): 1},
        )
    assert stand.balances()["poor"] == EUR + 2
