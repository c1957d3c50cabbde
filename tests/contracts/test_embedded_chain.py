"""The embedded chain: durable, one process at a time, and strict about what it takes."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest
from eth_account import Account
from eth_hash.auto import keccak
from trie.hexary import HexaryTrie

from contracts.artifacts import load
from contracts.chain import Call, Fees, TransactionRefusedError
from contracts.embedded import EMBEDDED_CHAIN_ID, EmbeddedChain
from contracts.sender import sign_transaction
from grid.errors import ChainError
from market.messages.signing import Signer

PAYER = Signer(b"\1" * 32)


def payment(nonce: int, chain_id: int = EMBEDDED_CHAIN_ID, signer: Signer = PAYER) -> bytes:
    call = Call("pay", PAYER.address, b"", 21_000)
    return sign_transaction(signer, chain_id, nonce, Fees(fee_max=2 * 10**9, tip_max=0), call)


@pytest.fixture
def chain(tmp_path: Path):
    chain = EmbeddedChain(tmp_path / "chain.sqlite", lambda: 1000, [PAYER.address])
    yield chain
    chain.close()


def test_its_state_is_there_after_a_restart(stand) -> None:
    stand.settle({"rich": -5, "poor": 5})
    balances, transfers = stand.balances(), stand.contracts.transfers()
    block = stand.chain.block_number()
    stand.chain.close()

    again = EmbeddedChain(stand.folder / "chain.sqlite", lambda: stand.clock.now)
    stand.chain = again
    stand.contracts = type(stand.contracts)(again, stand.deployment)
    assert again.block_number() == block
    assert stand.balances() == balances
    assert stand.contracts.transfers() == transfers
    stand.settle({"rich": -5, "poor": 5}, sequence=1)
    assert stand.balances()["poor"] == balances["poor"] + 5


def test_the_same_calls_give_the_same_addresses_and_hashes(tmp_path: Path) -> None:
    hashes = []
    for name in ("one", "two"):
        chain = EmbeddedChain(tmp_path / name, lambda: 1000, [PAYER.address])
        chain.send_raw(payment(0))
        hashes.append(chain._chain.get_canonical_head().hash)
        chain.close()
    assert hashes[0] == hashes[1]


def test_block_time_is_the_clock_and_blocks_follow_each_other_in_time(chain: EmbeddedChain) -> None:
    times = []
    for nonce in range(3):
        chain.send_raw(payment(nonce))
        times.append(chain.block_time())
    assert times == [1001, 1002, 1003]
    chain._clock = lambda: 5000
    chain.send_raw(payment(3))
    assert chain.block_time() == 5000


def test_blocks_that_were_mined_are_not_kept_in_memory(chain: EmbeddedChain) -> None:
    """Caches of py-evm held the whole state of each: a market that ran for days grew by that."""

    def tries() -> int:
        gc.collect()
        return sum(isinstance(one, HexaryTrie) for one in gc.get_objects())

    for nonce in range(2):
        chain.send_raw(payment(nonce))
    known = tries()
    for nonce in range(2, 8):
        chain.send_raw(payment(nonce))
    assert tries() == known


def test_a_transaction_that_cannot_be_mined_is_refused_and_leaves_nothing(chain: EmbeddedChain) -> None:
    chain.send_raw(payment(0))
    penniless = Signer(b"\2" * 32)
    for raw in (
        payment(0),
        payment(2),
        payment(1, chain_id=1),
        payment(0, signer=penniless),
        b"\2garbage",
        b"",
    ):
        with pytest.raises(TransactionRefusedError):
            chain.send_raw(raw)
    assert chain.block_number() == 1
    chain.send_raw(payment(1))
    assert chain.nonce(PAYER.address) == 2


def test_a_signed_transaction_is_what_ethereums_libraries_read(chain: EmbeddedChain) -> None:
    raw = payment(7)
    assert Account.recover_transaction(raw).lower() == PAYER.address


def test_a_transaction_has_a_receipt_once_it_is_mined(chain: EmbeddedChain) -> None:
    assert chain.receipt("0x" + "00" * 32) is None
    raw = payment(0)
    transaction_hash = "0x" + keccak(raw).hex()
    chain.send_raw(raw)
    receipt = chain.receipt(transaction_hash)
    assert receipt is not None
    assert (receipt.hash, receipt.block, receipt.gas_used, receipt.succeeded) == (
        transaction_hash,
        1,
        21_000,
        True,
    )


def test_a_file_of_another_chain_is_refused(tmp_path: Path, chain: EmbeddedChain) -> None:
    chain.close()
    with pytest.raises(ChainError, match=f"is chain {EMBEDDED_CHAIN_ID}, not 5"):
        EmbeddedChain(tmp_path / "chain.sqlite", lambda: 1000, chain_id=5)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear chain, " * 200)
    with pytest.raises(ChainError, match="cannot be opened"):
        EmbeddedChain(path, lambda: 1000)


def test_a_second_process_cannot_open_it(tmp_path: Path, chain: EmbeddedChain) -> None:
    program = (
        "import contracts.chain_store as s; from pathlib import Path; s._LOCK_WAIT_S = 0.1;"
        f"s.ChainStore(Path({str(tmp_path / 'chain.sqlite')!r}))"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert "ChainError" in process.stderr
    assert "database is locked" in process.stderr


def test_a_call_shows_what_would_be_and_changes_nothing(stand) -> None:
    block = stand.chain.block_number()
    data = load("DemoEuro").call_data("mint", stand.operator.address, 5)
    stand.chain.call(Call("mint", stand.deployment.stablecoin, data, 100_000), stand.operator.address)
    assert stand.contracts.stablecoin_balance(stand.operator.address) == 0
    assert stand.chain.block_number() == block
