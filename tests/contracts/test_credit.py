"""Credit: how it comes, how it goes, and that it stays where it is in between."""

from __future__ import annotations

EUR = 1_000_000
DELAY_S = 3600


def test_a_deposit_is_backed_one_to_one(stand) -> None:
    assert stand.balances() == {"rich": 60 * EUR, "poor": EUR, "idle": 0}
    assert stand.contracts.total_supply() == stand.contracts.backing() == 61 * EUR
    assert stand.contracts.stablecoin_balance(stand.operator.address) == 0


def test_a_wallet_sees_a_token_with_six_decimals(stand) -> None:
    contracts = stand.contracts
    read = contracts._escrow.read
    assert read("name") == ("Peergrid test",)
    assert read("symbol") == ("PGT",)
    assert read("decimals") == (6,)
    assert read("stablecoin") == (stand.deployment.stablecoin,)
    assert contracts._stablecoin.read("decimals") == (6,)


def test_a_household_deposits_by_a_permit_that_another_sends(stand) -> None:
    idle = stand.households["idle"]
    operator = stand.sender(stand.operator)
    stand.contracts.mint(operator, "mint", idle.address, 9 * EUR)
    permit = stand.contracts.permit(idle, 5 * EUR, stand.clock.now + 600)

    stand.contracts.deposit_with_permits(operator, "deposit", [permit])

    assert stand.balances()["idle"] == 5 * EUR
    assert stand.contracts.stablecoin_balance(idle.address) == 4 * EUR


def test_a_permit_that_was_brought_to_the_stablecoin_already_still_counts(stand) -> None:
    idle = stand.households["idle"]
    operator = stand.sender(stand.operator)
    stand.contracts.mint(operator, "mint", idle.address, 9 * EUR)
    permit = stand.contracts.permit(idle, 5 * EUR, stand.clock.now + 600)
    signature = permit.signature
    stand.send(
        stand.households["poor"],
        "DemoEuro",
        "permit",
        idle.address,
        stand.deployment.escrow,
        permit.amount_ueur,
        permit.deadline,
        signature[64],
        signature[:32],
        signature[32:64],
    )
    stand.contracts.deposit_with_permits(operator, "deposit", [permit])
    assert stand.balances()["idle"] == 5 * EUR


def test_a_permit_counts_once_and_not_after_its_deadline(stand) -> None:
    idle = stand.households["idle"]
    operator = stand.sender(stand.operator)
    stand.contracts.mint(operator, "mint", idle.address, 20 * EUR)
    permit = stand.contracts.permit(idle, 5 * EUR, stand.clock.now + 600)
    stand.contracts.deposit_with_permits(operator, "deposit/first", [permit])
    with stand.refuses("ERC20InsufficientAllowance", allowance=0, needed=5 * EUR):
        stand.contracts.deposit_with_permits(operator, "deposit/again", [permit])

    late = stand.contracts.permit(idle, 5 * EUR, stand.clock.now + 600)
    stand.clock.now += 1000
    with stand.refuses("ERC20InsufficientAllowance"):
        stand.contracts.deposit_with_permits(operator, "deposit/late", [late])
    assert stand.balances()["idle"] == 5 * EUR


def test_holders_cannot_move_credit_among_themselves(stand) -> None:
    rich, poor = stand.households["rich"], stand.address("poor")
    for function, arguments in {
        "transfer": (poor, 1),
        "approve": (poor, 1),
        "transferFrom": (rich.address, poor, 1),
    }.items():
        with stand.refuses("CreditNotTransferable"):
            stand.send(rich, "MarketEscrow", function, *arguments)


def test_nothing_can_be_deposited_for_the_clearing_account_or_for_nobody(stand) -> None:
    stand.contracts.mint(stand.sender(stand.operator), "mint", stand.operator.address, EUR)
    stand.send(stand.operator, "DemoEuro", "approve", stand.deployment.escrow, EUR)
    with stand.refuses("ClearingAccountRefused"):
        stand.send(stand.operator, "MarketEscrow", "depositFor", stand.deployment.escrow, EUR)
    with stand.refuses("ERC20InvalidReceiver"):
        stand.send(stand.operator, "MarketEscrow", "depositFor", "0x" + "00" * 20, EUR)
    with stand.refuses("ZeroAmount"):
        stand.send(stand.operator, "MarketEscrow", "depositFor", stand.address("idle"), 0)


def test_a_withdrawal_leaves_the_credit_at_once_and_is_paid_after_the_delay(stand) -> None:
    rich = stand.households["rich"]
    sender = stand.sender(rich)
    stand.contracts.announce_withdrawal(sender, "announce", 20 * EUR)

    pending = stand.contracts.pending_withdrawal(rich.address)
    assert pending.amount_ueur == 20 * EUR
    assert pending.due_at == stand.chain.block_time() + DELAY_S
    assert stand.balances()["rich"] == 40 * EUR
    assert stand.contracts.total_supply() == 41 * EUR
    assert stand.contracts.backing() == 61 * EUR

    with stand.refuses("WithdrawalNotDue", account=rich.address, dueAt=pending.due_at):
        stand.contracts.withdraw(sender, "early", rich.address)
    stand.clock.now = pending.due_at
    stand.contracts.withdraw(stand.sender(stand.settler), "due", rich.address)

    assert stand.contracts.stablecoin_balance(rich.address) == 20 * EUR
    assert stand.contracts.total_supply() == stand.contracts.backing() == 41 * EUR
    assert stand.contracts.pending_withdrawal(rich.address).amount_ueur == 0
    with stand.refuses("WithdrawalNotDue", dueAt=0):
        stand.contracts.withdraw(sender, "again", rich.address)


def test_a_further_announcement_starts_the_delay_again(stand) -> None:
    rich = stand.households["rich"]
    sender = stand.sender(rich)
    stand.contracts.announce_withdrawal(sender, "first", 20 * EUR)
    stand.clock.now += DELAY_S - 10
    stand.contracts.announce_withdrawal(sender, "second", 5 * EUR)
    pending = stand.contracts.pending_withdrawal(rich.address)
    assert pending.amount_ueur == 25 * EUR
    assert pending.due_at == stand.chain.block_time() + DELAY_S


def test_nobody_withdraws_more_than_its_credit(stand) -> None:
    with stand.refuses("ERC20InsufficientBalance", balance=EUR, needed=EUR + 1):
        stand.contracts.announce_withdrawal(stand.sender(stand.households["poor"]), "a", EUR + 1)
    with stand.refuses("ZeroAmount"):
        stand.contracts.announce_withdrawal(stand.sender(stand.households["poor"]), "b", 0)


def test_a_pause_stops_deposits_and_settlements_but_no_withdrawal(stand) -> None:
    rich = stand.households["rich"]
    stand.send(stand.operator, "MarketEscrow", "pause")
    with stand.refuses("EnforcedPause"):
        stand.settle({"rich": -1, "poor": 1})
    with stand.refuses("EnforcedPause"):
        stand.send(stand.operator, "MarketEscrow", "depositFor", rich.address, 1)
    permit = stand.contracts.permit(rich, 1, stand.clock.now + 600)
    with stand.refuses("EnforcedPause"):
        stand.contracts.deposit_with_permits(stand.sender(rich), "deposit", [permit])

    stand.contracts.announce_withdrawal(stand.sender(rich), "announce", 60 * EUR)
    stand.clock.now = stand.contracts.pending_withdrawal(rich.address).due_at
    stand.contracts.withdraw(stand.sender(rich), "withdraw", rich.address)
    assert stand.contracts.stablecoin_balance(rich.address) == 60 * EUR

    stand.send(stand.operator, "MarketEscrow", "unpause")
    stand.settle({"poor": -1, "idle": 1})


def test_only_the_pauser_pauses(stand) -> None:
    for function in ("pause", "unpause"):
        with stand.refuses("AccessControlUnauthorizedAccount", account=stand.settler.address):
            stand.send(stand.settler, "MarketEscrow", function)


def test_only_its_owner_mints_the_demo_euro(stand) -> None:
    with stand.refuses("OwnableUnauthorizedAccount", account=stand.settler.address):
        stand.contracts.mint(stand.sender(stand.settler), "mint", stand.settler.address, 1)
