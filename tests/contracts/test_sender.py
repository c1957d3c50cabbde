"""The sender: signed once, kept before it is broadcast, mined once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest

from contracts.artifacts import load
from contracts.chain import (
    Call,
    ContractRevertError,
    TransactionFailedError,
    TransactionRefusedError,
    UnconfirmedError,
    UnfinalError,
    WrongChainError,
)
from contracts.sender import Patience, Sender, read_transaction
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
    kept = stand.journal.attempts("m")[-1]
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
    # The second may rest on the first: it is not signed before that is mined.
    (kept,) = stand.journal.pending(stand.operator.address)
    assert kept.batch_id == "a"

    node.fails = ""
    (receipt,) = sender(stand, node).resume()

    assert receipt.hash == kept.hash
    assert minted(stand) == EUR
    assert sender(stand, node).resume() == []
    assert sender(stand, node).send("b", mint(stand)).succeeded


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

    def __init__(self) -> None:
        self.kept = []

    def record(self, transaction) -> None:
        self.kept = [transaction]

    def attempts(self, batch_id):
        return self.kept

    def reopen(self, sender, nonce) -> None: ...

    def pending(self, sender):
        return self.kept

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
    assert stand.journal.attempts("m") == []
    assert node.broadcasts == 0


def test_a_batch_that_was_mined_and_reverted_is_tried_anew_on_another_nonce(stand, node: Node) -> None:
    node.call = lambda call, sender: b""
    bound = mint(stand)
    starved = Call(bound.what, bound.to, bound.data, 30_000)
    with pytest.raises(TransactionFailedError, match="was mined and reverted"):
        sender(stand, node).send("m", starved)
    assert minted(stand) == 0
    del node.call

    # As long as it would revert again nothing is signed.
    with pytest.raises(ChainError):
        sender(stand, node).send("m", starved)
    receipt = sender(stand, node).send("m", bound)
    assert minted(stand) == EUR
    first, second = stand.journal.attempts("m")
    assert (first.succeeded, second.succeeded) == (False, True)
    assert second.nonce == first.nonce + 1
    assert sender(stand, node).send("m", bound) == receipt
    assert node.broadcasts == 2


def test_what_stays_in_the_pool_is_signed_again_with_a_higher_fee_up_to_the_bound(stand, node: Node) -> None:
    node.fails = "known"
    ticks: list[float] = []

    def patient(fee_max_wei: int) -> Sender:
        return Sender(
            node,
            stand.operator,
            stand.journal,
            Patience(timeout_s=10, poll_s=1, nudge_s=2, fee_max_wei=fee_max_wei),
            sleep=ticks.append,
            monotonic=lambda: float(len(ticks)),
        )

    first_fee = node.fees().fee_max
    with pytest.raises(UnconfirmedError) as caught:
        patient(fee_max_wei=first_fee * 3 // 2).send("m", mint(stand))
    assert not isinstance(caught.value, UnfinalError), "it is not even mined"
    attempts = stand.journal.attempts("m")
    offers = [read_transaction(attempt.raw)[1] for attempt in attempts]
    assert len({attempt.nonce for attempt in attempts}) == 1
    assert len(attempts) == 4  # 1, 1.125, 1.27 and 1.42 times the first
    for before, after in pairwise(offers):
        assert after.fee_max >= before.fee_max * 9 // 8
        assert after.tip_max > before.tip_max
    assert offers[-1].fee_max <= first_fee * 3 // 2

    # Any of them may be the one that is mined.
    node.fails = ""
    stand.chain.send_raw(attempts[1].raw)
    assert patient(first_fee * 2).send("m", mint(stand)).hash == attempts[1].hash
    assert minted(stand) == EUR


class Reorganised(Node):
    """Says of transactions that were mined that they never were, until they are broadcast again."""

    def __init__(self, chain: object) -> None:
        super().__init__(chain)
        self.undone: set[str] = set()

    def receipt(self, transaction_hash: str):
        return None if transaction_hash in self.undone else self.chain.receipt(transaction_hash)

    def nonce(self, address: str) -> int:
        return self.chain.nonce(address) - len(self.undone)

    def send_raw(self, raw: bytes) -> None:
        self.broadcasts += 1
        self.undone.clear()


def test_what_a_reorganisation_took_off_the_chain_is_pending_again_and_goes_out_again(stand) -> None:
    node = Reorganised(stand.chain)
    receipt = Sender(stand.chain, stand.operator, stand.journal).send("m", mint(stand))
    assert stand.journal.pending(stand.operator.address) == []
    node.undone = {receipt.hash}

    assert sender(stand, node).resume() == [receipt]
    assert node.broadcasts == 1
    assert stand.journal.pending(stand.operator.address) == []

    # To send the batch again notices it too.
    node.undone = {receipt.hash}
    assert sender(stand, node).send("m", mint(stand)) == receipt
    assert node.broadcasts == 2


def test_another_chain_at_the_same_address_is_noticed_before_anything_is_signed(stand, node: Node) -> None:
    def other() -> None:
        raise WrongChainError("the node is of chain 5 now")

    node.check_same = other
    with pytest.raises(WrongChainError):
        sender(stand, node).send("m", mint(stand))
    assert stand.journal.attempts("m") == []
    assert node.broadcasts == 0


def test_it_waits_for_its_confirmations(stand, node: Node) -> None:
    ticks: list[float] = []

    def sleep(seconds: float) -> None:
        ticks.append(seconds)
        if len(ticks) <= 2:
            nothing = Call("nothing", stand.settler.address, b"", 21_000)
            stand.sender(stand.settler).send(f"block/{len(ticks)}", nothing)

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
    with pytest.raises(UnfinalError, match="not confirmed after 5 s"):
        impatient.send("n", mint(stand))


def test_no_transaction_asks_for_more_gas_than_the_protocol_allows(stand, node: Node) -> None:
    call = mint(stand)
    with pytest.raises(ChainError, match="16777217 gas"):
        sender(stand, node).send("m", Call(call.what, call.to, call.data, 2**24 + 1))


def test_a_batch_id_and_a_nonce_are_recorded_once(stand) -> None:
    stand.sender(stand.operator).send("m", mint(stand))
    (kept,) = stand.journal.attempts("m")
    with pytest.raises(ChainError, match="cannot be recorded"):
        stand.journal.record(kept)
    stolen = replace(kept, batch_id="n", hash="0x" + "11" * 32)
    with pytest.raises(ChainError, match=f"nonce {kept.nonce} is that of m"):
        stand.journal.record(stolen)
