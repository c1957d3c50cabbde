"""The same calls on anvil, a node of its own: same balances, gas and errors as on the embedded chain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from contracts.chain import Call, ContractRevertError, TransactionFailedError, TransactionRefusedError
from contracts.deployment import deploy
from contracts.journal import SqliteJournal
from contracts.market_contracts import MarketContracts
from contracts.registry import SignedBinding
from contracts.rpc import RpcChain
from contracts.sender import Patience, Sender, sign_transaction
from grid.errors import ChainError
from market.messages.signing import Binding, Domain, Signer

from .anvil import Anvil

EUR = 1_000_000

pytestmark = pytest.mark.needs("anvil")


@pytest.fixture
def anvil() -> Iterator[Anvil]:
    node = Anvil()
    yield node
    node.end()


@pytest.fixture
def node(anvil: Anvil) -> RpcChain:
    return RpcChain(anvil.url)


@pytest.fixture
def contracts(stand, node: RpcChain, tmp_path: Path) -> Iterator[tuple[MarketContracts, SqliteJournal]]:
    """The stand's contracts once more, on anvil: same keys, same terms, same credit."""
    for signer in (stand.operator, stand.settler):
        node._ask("anvil_setBalance", signer.address, hex(10**24))
    journal = SqliteJournal(tmp_path / "anvil.sqlite")
    operator = sender(node, stand.operator, journal)
    deployment = deploy(node, operator, journal, stand.terms, stand.settler.address)
    found = MarketContracts(node, deployment)
    found.fund(operator, "fund", {stand.address("rich"): 60 * EUR, stand.address("poor"): EUR})
    yield found, journal
    journal.disconnect()


def sender(node: RpcChain, signer: Signer, journal: SqliteJournal) -> Sender:
    return Sender(node, signer, journal, Patience(timeout_s=10, poll_s=0.01))


def test_anvil_and_the_embedded_chain_agree(stand, node: RpcChain, contracts) -> None:
    on_anvil, journal = contracts
    settler = sender(node, stand.settler, journal)
    for sequence, net in enumerate(
        ({"rich": -9 * EUR, "idle": 9 * EUR}, {"rich": -EUR, "poor": -EUR, "idle": 2 * EUR})
    ):
        positions = {stand.address(name): amount for name, amount in net.items()}
        embedded = stand.settle(net, sequence)
        (receipt,) = on_anvil.settle(settler, stand.market, sequence, stand.root, positions)
        assert receipt.gas_used == embedded.gas_used

    addresses = [signer.address for signer in stand.households.values()]
    assert on_anvil.balances(addresses) == stand.contracts.balances(addresses)
    assert on_anvil.total_supply() == on_anvil.backing() == 61 * EUR
    assert on_anvil.deployment.escrow == stand.deployment.escrow

    def moved(contracts: MarketContracts) -> list[tuple[str, str, int]]:
        return [(t.sender, t.receiver, t.amount_ueur) for t in contracts.transfers()]

    assert moved(on_anvil) == moved(stand.contracts)


def test_a_batch_that_reverts_is_told_by_the_contracts_error(stand, node: RpcChain, contracts) -> None:
    on_anvil, journal = contracts
    positions = {stand.address("poor"): -2 * EUR, stand.address("idle"): 2 * EUR}
    with pytest.raises(ContractRevertError, match=f"GuaranteeExhausted.*missing={EUR}, guarantee=0"):
        on_anvil.settle(sender(node, stand.settler, journal), stand.market, 0, stand.root, positions)


def test_meters_are_registered_and_permits_deposited(stand, node: RpcChain, contracts) -> None:
    on_anvil, journal = contracts
    operator = sender(node, stand.operator, journal)
    meter, idle = stand.key("meter"), stand.households["idle"]
    word = Binding(meter.address, idle.address, b"\7" * 32, 0, 2**63)
    domain = Domain(node.chain_id, on_anvil.deployment.registry)
    signed = SignedBinding(word, meter.sign_digest(domain.digest(word.struct_hash())))
    on_anvil.registry.register(operator, "register", [signed])
    assert on_anvil.registry.meter(meter.address).owner == idle.address

    on_anvil.mint(operator, "mint", idle.address, 7 * EUR)
    permit = on_anvil.permit(idle, 7 * EUR, 2**63)
    on_anvil.deposit_with_permits(operator, "permit", [permit])
    assert on_anvil.balances([idle.address]) == {idle.address: 7 * EUR}


def test_gas_of_a_thousand_trades_over_a_hundred_accounts(stand, node: RpcChain, contracts) -> None:
    """Lower bound of a touched account: SLOAD 2,100, SSTORE 2,900, LOG3 1,756 and its calldata, about 400."""
    on_anvil, journal = contracts
    accounts = [stand.key(f"account {number}").address for number in range(100)]
    on_anvil.fund(sender(node, stand.operator, journal), "members", dict.fromkeys(accounts, 100 * EUR))
    chance = Random(1)
    used = []
    for sequence in range(2):
        net = dict.fromkeys(accounts, 0)
        for _ in range(1000):
            seller, buyer = chance.sample(accounts, 2)
            amount = chance.randint(1_000, 200_000)
            net[seller] += amount
            net[buyer] -= amount
        assert sum(amount != 0 for amount in net.values()) == 100
        settler = sender(node, stand.settler, journal)
        (receipt,) = on_anvil.settle(settler, stand.market, sequence, stand.root, net)
        used.append(receipt.gas_used)
    # The first batch of 256 also pays for a new slot of the bitmap.
    assert used[1] < used[0] <= 100 * 8_300
    assert used[1] <= 100 * 8_000
    assert used[0] <= 1000 * 870


def test_a_refusal_tells_what_the_node_said(stand, node: RpcChain) -> None:
    call = Call("pay", stand.operator.address, b"", 21_000)
    penniless = sign_transaction(stand.key("penniless"), node.chain_id, 0, node.fees(), call)
    with pytest.raises(TransactionRefusedError, match=r"(?i)insufficient funds"):
        node.send_raw(penniless)
    wrong_chain = sign_transaction(stand.operator, 1, 0, node.fees(), call)
    with pytest.raises(TransactionRefusedError):
        node.send_raw(wrong_chain)


def test_the_contracts_of_another_chain_are_refused(stand, node: RpcChain) -> None:
    with pytest.raises(ChainError, match="the node is of chain 31337"):
        MarketContracts(node, stand.deployment)


def test_it_waits_for_what_the_node_calls_finalized(stand, node: RpcChain, contracts) -> None:
    on_anvil, journal = contracts
    blocks = []

    def sleep(_: float) -> None:
        node._ask("evm_mine")
        blocks.append(node.finalized_block())

    patience = Patience(confirmations=None, timeout_s=60, poll_s=0.01)
    patient = Sender(node, stand.settler, journal, patience, sleep=sleep)
    receipts = on_anvil.settle(patient, stand.market, 0, stand.root, {stand.address("rich"): 0})
    assert blocks
    assert blocks[-1] >= receipts[0].block > blocks[0]


def test_a_node_that_is_gone_is_an_error_at_once(anvil: Anvil, node: RpcChain) -> None:
    anvil.end()
    with pytest.raises(ChainError, match="eth_blockNumber: the node cannot be reached"):
        node.block_number()
    with pytest.raises(ChainError):
        RpcChain(anvil.url)


def test_a_batch_that_reverts_on_the_reorganised_chain_is_sent_anew(stand, node: RpcChain, contracts) -> None:
    """The deposit that it was paid from is not on the new chain yet when the batch is mined there."""
    on_anvil, journal = contracts
    operator, settler = (sender(node, signer, journal) for signer in (stand.operator, stand.settler))
    on_anvil.fund(operator, "late", {stand.address("idle"): 5 * EUR})
    net = {stand.address("idle"): -EUR, stand.address("rich"): EUR}
    on_anvil.settle(settler, stand.market, 0, stand.root, net)
    node._ask("anvil_reorg", 2, [])
    assert on_anvil.unsettled(stand.market, {0: net}) == [0]

    with pytest.raises(TransactionFailedError):
        on_anvil.settle(settler, stand.market, 0, stand.root, net)
    with pytest.raises(ContractRevertError, match="GuaranteeExhausted"):
        on_anvil.settle(settler, stand.market, 0, stand.root, net)
    operator.resume()
    on_anvil.settle(settler, stand.market, 0, stand.root, net)
    assert on_anvil.unsettled(stand.market, {0: net}) == []
    assert on_anvil.balances([stand.address("idle")])[stand.address("idle")] == 4 * EUR
