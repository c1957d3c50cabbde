"""The settler brings on what a batch gives to a wallet that another one has the place of."""

from __future__ import annotations

from typing import Any

from contracts.succession import Word
from market.service.settler import ContractSettler

AMOUNT = 1_000_000


def hand_over(stand: Any, name: str) -> str:
    """The wallet that ``name`` has from now on."""
    owner, wallet, owners = stand.households[name], stand.key(f"wallet of {name}"), stand.contracts.owners
    word = Word("Succession", owner.address, wallet.address, owners.nonce(owner.address), 2**40)
    signatures = [word.signed_by(signer, owners.domain) for signer in (owner, wallet)]
    owners.hand_over(stand.sender(stand.operator), f"hand over {name}", word, *signatures)
    return str(wallet.address)


def test_a_settler_that_was_just_begun_follows_as_well(stand: Any) -> None:
    """After a crash batches go out before anybody asks how accounts stand."""
    wallet = hand_over(stand, "idle")
    begun = ContractSettler(stand.contracts, stand.sender(stand.settler), "test", None)
    net = {stand.address("rich"): -AMOUNT, stand.address("idle"): AMOUNT}
    begun.settle(0, stand.root, net, 0)
    assert stand.contracts.balances([stand.address("idle"), wallet]) == {
        stand.address("idle"): 0,
        wallet: AMOUNT,
    }


def test_a_wallet_that_was_handed_over_since_the_last_look_is_followed(stand: Any) -> None:
    settler = ContractSettler(stand.contracts, stand.sender(stand.settler), "test", None)
    assert settler.standing().successors == {}
    wallet = hand_over(stand, "idle")
    net = {stand.address("rich"): -AMOUNT, stand.address("idle"): AMOUNT}
    sent = settler.settle(0, stand.root, net, 0)
    assert stand.contracts.balances([wallet]) == {wallet: AMOUNT}
    # Brought again after a crash, nothing moves twice.
    assert settler.settle(0, stand.root, net, 0) == sent
    assert stand.contracts.balances([wallet]) == {wallet: AMOUNT}
