"""Sends transactions of one key so that each is mined at most once, whatever dies in between.

Sign, keep in the journal, broadcast, wait for the receipt. After a crash the same bytes are broadcast again;
what the node says to that is no proof of anything: only a receipt is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import rlp
from eth_hash.auto import keccak

from contracts.chain import (
    TRANSACTION_GAS_MAX,
    Call,
    Chain,
    Fees,
    Receipt,
    TransactionFailedError,
    TransactionRefusedError,
    UnconfirmedError,
)
from contracts.journal import Journal, SignedTransaction
from grid.errors import ChainError
from market.messages.signing import Signer

# What nodes say of a transaction that waits in their pool already.
_KNOWN = ("already known", "already imported", "known transaction")


@dataclass(frozen=True)
class Patience:
    """How long a transaction may take.

    ``confirmations`` counts blocks, the transaction's own included. After ``timeout_s`` the sender gives up
    for now.
    """

    confirmations: int = 1
    timeout_s: float = 60.0
    poll_s: float = 0.2


class Sender:
    """Publishes for one key. There must be only one of it for a key at a time, and one thread in it."""

    def __init__(
        self,
        chain: Chain,
        signer: Signer,
        journal: Journal,
        patience: Patience = Patience(),
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._chain = chain
        self._signer = signer
        self._journal = journal
        self._patience = patience
        self._sleep = sleep
        self._monotonic = monotonic

    @property
    def address(self) -> str:
        return self._signer.address

    def send(self, batch_id: str, call: Call) -> Receipt:
        """Has ``call`` mined once for ``batch_id``, and returns its receipt.

        A batch that was signed before is not signed again: the same bytes go out, and ``call`` is not looked
        at. Before the first signature the call is tried on the node, so that one that would revert costs
        nothing.

        Raises:
            ContractRevertError: the contract refuses the call; nothing was signed.
            TransactionFailedError: it was mined and reverted there. This batch id is used up.
            UnconfirmedError: not mined and confirmed in time; send again later, under the same batch id.
            ChainError: the node cannot be reached, or the nonce went to another transaction.
        """
        transaction = self._journal.find(batch_id)
        if transaction is None:
            transaction = self._sign(batch_id, call)
            self._journal.record(transaction)
        return self._confirm(transaction)

    def resume(self) -> list[Receipt]:
        """Brings what was signed and not confirmed before a crash to its end, in the order of nonces."""
        return [self._confirm(transaction) for transaction in self._journal.pending(self.address)]

    def _sign(self, batch_id: str, call: Call) -> SignedTransaction:
        if call.gas > TRANSACTION_GAS_MAX:
            raise ChainError(f"{call.what}: {call.gas} gas is more than a transaction may use")
        self._chain.call(call, self.address)
        nonces = [transaction.nonce + 1 for transaction in self._journal.pending(self.address)]
        nonce = max([self._chain.nonce(self.address), *nonces])
        raw = sign_transaction(self._signer, self._chain.chain_id, nonce, self._chain.fees(), call)
        return SignedTransaction(batch_id, self.address, nonce, "0x" + keccak(raw).hex(), raw)

    def _confirm(self, transaction: SignedTransaction) -> Receipt:
        if self._chain.receipt(transaction.hash) is None:
            self._broadcast(transaction)
        receipt = self._wait(transaction)
        self._journal.close(transaction, receipt)
        if not receipt.succeeded:
            raise TransactionFailedError(f"{transaction.batch_id}: {transaction.hash} was mined and reverted")
        return receipt

    def _broadcast(self, transaction: SignedTransaction) -> None:
        try:
            self._chain.send_raw(transaction.raw)
        except TransactionRefusedError as refusal:
            if any(words in str(refusal).lower() for words in _KNOWN):
                return
            # "Nonce too low" is good news if this is the transaction that took the nonce.
            if self._chain.receipt(transaction.hash) is None:
                raise ChainError(f"{transaction.batch_id}: {transaction.hash}: {refusal}") from refusal

    def _wait(self, transaction: SignedTransaction) -> Receipt:
        deadline = self._monotonic() + self._patience.timeout_s
        while True:
            # Asked anew each time: a reorganisation can take a receipt away or move it to another block.
            receipt = self._chain.receipt(transaction.hash)
            if receipt is not None:
                depth = self._chain.block_number() - receipt.block + 1
                if depth >= self._patience.confirmations:
                    return receipt
            if self._monotonic() >= deadline:
                raise UnconfirmedError(
                    f"{transaction.batch_id}: {transaction.hash} is not confirmed after "
                    f"{self._patience.timeout_s:g} s"
                )
            self._sleep(self._patience.poll_s)


def sign_transaction(signer: Signer, chain_id: int, nonce: int, fees: Fees, call: Call) -> bytes:
    """The bytes of an EIP-1559 transaction: ``0x02 ‖ rlp([…, y parity, r, s])``."""
    to = bytes.fromhex(call.to[2:]) if call.to else b""
    payload = [chain_id, nonce, fees.tip_max, fees.fee_max, call.gas, to, 0, call.data, []]
    signature = bytes.fromhex(signer.sign_digest(keccak(b"\x02" + rlp.encode(payload)))[2:])
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:64]))
    return b"\x02" + bytes(rlp.encode([*payload, signature[64] - 27, r, s]))


def contract_address(transaction: SignedTransaction) -> str:
    """The address of the contract that a transaction creates."""
    sender = bytes.fromhex(transaction.sender[2:])
    return "0x" + keccak(rlp.encode([sender, transaction.nonce]))[12:].hex()
