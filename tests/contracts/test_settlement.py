"""Settling on the escrow: what it moves, and what it refuses by name."""

from __future__ import annotations

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


def test_an_account_that_owes_more_than_it_has_stops_the_whole_batch(stand) -> None:
    with stand.refuses("ERC20InsufficientBalance", sender=stand.address("poor"), balance=EUR, needed=EUR + 1):
        stand.settle({"rich": -EUR, "poor": -EUR - 1, "idle": 2 * EUR + 1})

    assert stand.balances() == {"rich": 60 * EUR, "poor": EUR, "idle": 0}
    assert not stand.contracts.is_settled(stand.market, 0)


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
    with stand.refuses("UnbalancedPositions", debits=0):
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


def test_only_the_admin_sets_the_bounds(stand) -> None:
    with stand.refuses("AccessControlUnauthorizedAccount", account=stand.settler.address):
        stand.send(stand.settler, "MarketEscrow", "setLimits", 1, 1, 1)
    with stand.refuses("EmptyWindow"):
        stand.send(stand.operator, "MarketEscrow", "setLimits", 1, 1, 0)
    stand.send(stand.operator, "MarketEscrow", "setLimits", 10, 15, 3600)
    with stand.refuses("PositionBeyondLimit", debit=11, debitMax=10):
        stand.settle({"rich": -11, "idle": 11})
    stand.settle({"rich": -10, "idle": 10})


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
