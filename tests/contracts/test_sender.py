"""The sender: signed once, kept before it is broadcast, mined once."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from contracts.artifacts import load
from contracts.chain import (
    Call,
    ContractRevertError,
    TransactionFailedError,
    TransactionRefusedError,
    UnconfirmedError,
)
from contracts.sender import Patience, Sender
from grid.errors import ChainError

EUR = 1_000_000


@dataclass
class Node:
    """The embedded chain behind a network that fails as told."""

    chain: object
    fails: str = ""
    broadcasts: int = 0

    def __getattr__(self, name: str):
        return getattr(self.chain, name)

    def send_raw(self, raw: bytes) -> None:
        self.broadcasts += 1
        if self.fails == "before":
            raise ChainError("connection refused")
        if self.fails == "refused":
            raise TransactionRefusedError("insufficient funds")
        if self.fails == "known":
            raise TransactionRefusedError("already known")
        self.chain.send_raw(raw)
        if self.fails == "after":
            raise ChainError("connection reset")
        if self.fails == "late":
            raise TransactionRefusedError("nonce too low")


@pytest.fixture
def node(stand) -> Node:
    return Node(stand.chain)


def sender(stand, node: Node) -> Sender:
    return Sender(node, stand.operator, stand.journal, Patience(timeout_s=0, poll_s=0))


def mint(stand, amount: int = EUR) -> Call:
    data = load("DemoEuro").call_data("mint", stand.operator.address, amount)
    return Call("mint", stand.deployment.stablecoin, data, 100_000)


def minted(stand) -> int:
    return stand.contracts.stablecoin_balance(stand.operator.address)


@pytest.mark.parametrize("failure", ["before", "after", "refused", "known"])
def test_whatever_fails_while_sending_the_same_bytes_go_out_again_and_count_once(
    stand, node: Node, failure: str
) -> None:
    node.fails = failure
    with pytest.raises(ChainError):
        sender(stand, node).send("m", mint(stand))
    kept = stand.journal.find("m")
    assert stand.journal.pending(stand.operator.address) == [kept]

    node.fails = ""
    receipt = sender(stand, node).send("m", mint(stand))

    assert receipt.hash == kept.hash
    assert minted(stand) == EUR
    assert stand.journal.pending(stand.operator.address) == []


def test_a_crash_between_journal_and_broadcast_is_resumed(stand, node: Node) -> None:
    node.fails = "before"
    for batch_id in ("a", "b"):
        with pytest.raises(ChainError):
            sender(stand, node).send(batch_id, mint(stand))
    nonces = [transaction.nonce for transaction in stand.journal.pending(stand.operator.address)]
    assert nonces == [nonces[0], nonces[0] + 1]

    node.fails = ""
    receipts = sender(stand, node).resume()

    assert [receipt.hash for receipt in receipts] == [stand.journal.find(b).hash for b in ("a", "b")]
    assert minted(stand) == 2 * EUR
    assert sender(stand, node).resume() == []


def test_nonce_too_low_is_success_only_with_a_receipt(stand, node: Node) -> None:
    node.fails = "late"
    assert sender(stand, node).send("m", mint(stand)).succeeded

    node.fails = "before"
    with pytest.raises(ChainError):
        sender(stand, node).send("n", mint(stand))
    # Someone else with the same key takes the nonce.
    thief = Sender(stand.chain, stand.operator, ForgetfulJournal())
    thief.send("other", mint(stand, 3))
    node.fails = ""
    with pytest.raises(ChainError, match="nonce"):
        sender(stand, node).send("n", mint(stand))
    assert minted(stand) == EUR + 3


class ForgetfulJournal:
    """Of another publisher, that this one's journal knows nothing of."""

    def record(self, transaction) -> None: ...

    def find(self, batch_id):
        return None

    def pending(self, sender):
        return []

    def close(self, transaction, receipt) -> None: ...


def test_already_known_is_not_taken_for_mined(stand, node: Node) -> None:
    node.fails = "known"
    with pytest.raises(UnconfirmedError):
        sender(stand, node).send("m", mint(stand))
    assert minted(stand) == 0


def test_what_would_revert_is_neither_signed_nor_sent(stand, node: Node) -> None:
    stranger = Sender(node, stand.settler, stand.journal)
    with pytest.raises(ContractRevertError, match="OwnableUnauthorizedAccount") as caught:
        stranger.send("m", mint(stand))
    assert caught.value.reason.arguments == {"account": stand.settler.address}
    assert stand.journal.find("m") is None
    assert node.broadcasts == 0


def test_a_transaction_that_reverts_on_the_chain_is_told_each_time(stand, node: Node) -> None:
    node.call = lambda call, sender: b""
    bound = mint(stand)
    starved = Call(bound.what, bound.to, bound.data, 30_000)
    for _ in range(2):
        with pytest.raises(TransactionFailedError, match="was mined and reverted"):
            sender(stand, node).send("m", starved)
    assert node.broadcasts == 1
    assert minted(stand) == 0
    assert sender(stand, node).send("n", bound).succeeded


def test_it_waits_for_its_confirmations(stand, node: Node) -> None:
    ticks: list[float] = []

    def sleep(seconds: float) -> None:
        ticks.append(seconds)
        if len(ticks) <= 2:
            stand.contracts.mint(
                stand.sender(stand.operator), f"block/{len(ticks)}", stand.operator.address, 1
            )

    patient = Sender(
        node,
        stand.operator,
        stand.journal,
        Patience(confirmations=3, timeout_s=60, poll_s=0.5),
        sleep=sleep,
        monotonic=lambda: float(len(ticks)),
    )
    receipt = patient.send("m", mint(stand))
    assert ticks == [0.5, 0.5]
    assert stand.chain.block_number() == receipt.block + 2

    impatient = Sender(
        node,
        stand.operator,
        stand.journal,
        Patience(confirmations=3, timeout_s=5, poll_s=1),
        sleep=sleep,
        monotonic=lambda: float(len(ticks)),
    )
    with pytest.raises(UnconfirmedError, match="not confirmed after 5 s"):
        impatient.send("n", mint(stand))


def test_no_transaction_asks_for_more_gas_than_the_protocol_allows(stand, node: Node) -> None:
    call = mint(stand)
    with pytest.raises(ChainError, match="16777217 gas"):
        sender(stand, node).send("m", Call(call.what, call.to, call.data, 2**24 + 1))


def test_a_batch_id_and_a_nonce_are_recorded_once(stand) -> None:
    stand.sender(stand.operator).send("m", mint(stand))
    kept = stand.journal.find("m")
    with pytest.raises(ChainError, match="cannot be recorded"):
        stand.journal.record(kept)
