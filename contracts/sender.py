"""Sends transactions of one key so that each batch is mined once, whatever dies in between.

Sign, keep in the journal, broadcast, wait for the receipt. After a crash the same bytes are broadcast again;
what the node says to that is no proof of anything: only a receipt is. What stays unmined is signed once more
with a higher fee on the same nonce, so that one of the two is mined at most. What a reorganisation took off
the chain is pending again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby

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
    UnfinalError,
)
from contracts.journal import Journal, SignedTransaction
from grid.errors import ChainError
from market.messages.signing import Signer

# What nodes say of a transaction that waits in their pool already, and of one that offers too little.
_KNOWN = ("already known", "already imported", "known transaction")
_TOO_CHEAP = ("underpriced", "less than block base fee", "fee too low", "max fee per gas less than")
# Nodes want a tenth more from a transaction that replaces another; an eighth is more than that.
_BUMP_DIVISOR = 8


@dataclass(frozen=True)
class Patience:
    """How long a transaction may take, and what it may cost.

    ``confirmations`` counts blocks, the transaction's own included; None waits until the node calls the block
    finalized. What has no receipt for ``nudge_s`` is broadcast again, also with a higher fee; ``fee_max_wei``
    is the most that is ever offered for a unit of gas. After ``timeout_s`` the sender gives up for now.
    """

    confirmations: int | None = 1
    timeout_s: float = 60.0
    poll_s: float = 0.2
    nudge_s: float = 15.0
    fee_max_wei: int = 500 * 10**9


class _Answer(Enum):
    """What a node says to a broadcast."""

    TAKEN = "taken"
    KNOWN = "known"
    TOO_CHEAP = "too cheap"
    MINED = "mined"


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

        A batch that was signed before is not signed for another nonce, unless it was mined and reverted: then
        ``call`` is tried anew. Before a signature the call is tried on the node, so that one that would
        revert costs nothing; and what was signed before it is brought to its end, because the call may rest
        on it.

        Raises:
            ContractRevertError: the contract refuses the call; nothing was signed.
            TransactionFailedError: it was mined and reverted there. To send again tries anew.
            UnconfirmedError: not mined and confirmed in time; send again later, under the same batch id.
            UnfinalError: the same, where only the confirmations are missing.
            WrongChainError: the node is not the one that this sender began with.
            ChainError: the node cannot be reached, or the nonce went to another transaction.
        """
        attempts = self._live_attempts(batch_id)
        if not attempts:
            self.resume()
            transaction = self._sign(batch_id, call)
            self._journal.record(transaction)
            attempts = [transaction]
        receipt = self._confirm(attempts[0].nonce, batch_id)
        if not receipt.succeeded:
            raise TransactionFailedError(f"{batch_id}: {receipt.hash} was mined and reverted")
        return receipt

    def has_mined(self, batch_id: str) -> bool:
        """Whether a transaction that was signed here for a batch is on the chain."""
        return self._receipt(self._journal.attempts(batch_id)) is not None

    def resume(self) -> list[Receipt]:
        """Brings what was signed and is not mined and confirmed to its end, in the order of nonces.

        That is what a crash left behind, and what a reorganisation took off the chain.
        """
        self._chain.check_same()
        self._reopen()
        return [
            self._confirm(nonce, attempts[0].batch_id)
            for nonce, attempts in _by_nonce(self._journal.pending(self.address))
        ]

    def _live_attempts(self, batch_id: str) -> list[SignedTransaction]:
        """A batch's transactions on its last nonce; none where that was mined and reverted."""
        attempts = self._journal.attempts(batch_id)
        if not attempts:
            return []
        live = [attempt for attempt in attempts if attempt.nonce == attempts[-1].nonce]
        return [] if any(attempt.succeeded is False for attempt in live) else live

    def _sign(self, batch_id: str, call: Call) -> SignedTransaction:
        if call.gas > TRANSACTION_GAS_MAX:
            raise ChainError(f"{call.what}: {call.gas} gas is more than a transaction may use")
        self._chain.call(call, self.address)
        nonces = [transaction.nonce + 1 for transaction in self._journal.pending(self.address)]
        nonce = max([self._chain.nonce(self.address), *nonces])
        fees = _within(self._chain.fees(), self._patience.fee_max_wei)
        # Whatever the node said above counts only if it still is the same node.
        self._chain.check_same()
        raw = sign_transaction(self._signer, self._chain.chain_id, nonce, fees, call)
        return self._signed(batch_id, nonce, raw)

    def _signed(self, batch_id: str, nonce: int, raw: bytes) -> SignedTransaction:
        return SignedTransaction(batch_id, self.address, nonce, "0x" + keccak(raw).hex(), raw)

    def _confirm(self, nonce: int, batch_id: str) -> Receipt:
        """Waits until the transaction on ``nonce`` is final, and those before it."""
        now = self._monotonic()
        deadline, nudge_at, nudges = now + self._patience.timeout_s, now, 0
        while True:
            self._chain.check_same()
            self._reopen()
            receipt, mined = self._look(nonce, batch_id)
            if receipt is None and not mined and self._monotonic() >= nudge_at:
                self._nudge(nonce, again=nudges > 0)
                nudges += 1
                nudge_at = self._monotonic() + self._patience.nudge_s
                receipt, _ = self._look(nonce, batch_id)
            if receipt is not None:
                return receipt
            if self._monotonic() >= deadline:
                raise (UnfinalError if mined else UnconfirmedError)(
                    f"{batch_id}: nonce {nonce} of {self.address} is not confirmed after "
                    f"{self._patience.timeout_s:g} s"
                )
            self._sleep(self._patience.poll_s)

    def _look(self, nonce: int, batch_id: str) -> tuple[Receipt | None, bool]:
        """The receipt on ``nonce`` where it is final, and whether there is one at all.

        All that is final up to ``nonce`` is closed. Receipts are asked for anew each time: a reorganisation
        can take one away or move it to another block.
        """
        for pending, attempts in _by_nonce(self._journal.pending(self.address)):
            if pending > nonce:
                break
            found = self._receipt(attempts)
            if found is None or found[1].block > self.final_block():
                return None, found is not None and pending == nonce
            self._journal.close(*found)
            if pending == nonce:
                return found[1], True
        # It was closed before, perhaps by another transaction than the one that is on the chain now.
        found = self._receipt([a for a in self._journal.attempts(batch_id) if a.nonce == nonce])
        if found is None:
            raise self._nonce_lost(nonce, batch_id)
        # What succeeded before a reorganisation may have reverted after it.
        self._journal.close(*found)
        return found[1], True

    def _receipt(self, attempts: Sequence[SignedTransaction]) -> tuple[SignedTransaction, Receipt] | None:
        for attempt in reversed(attempts):
            receipt = self._chain.receipt(attempt.hash)
            if receipt is not None:
                return attempt, receipt
        return None

    def final_block(self) -> int:
        """The last block that counts as final."""
        if self._patience.confirmations is None:
            return self._chain.finalized_block()
        return self._chain.block_number() - self._patience.confirmations + 1

    def _reopen(self) -> None:
        """What the journal has as mined and the chain does not count any more is pending again."""
        self._journal.reopen(self.address, self._chain.nonce(self.address))

    def _nudge(self, nonce: int, *, again: bool) -> None:
        """Broadcasts what has no receipt up to ``nonce``; where that does not help, with a higher fee."""
        for pending, attempts in _by_nonce(self._journal.pending(self.address)):
            if pending > nonce:
                return
            if self._receipt(attempts) is not None:
                continue
            answer = self._broadcast(attempts)
            if answer is _Answer.TOO_CHEAP or (again and answer is not _Answer.MINED):
                self._bump(attempts)

    def _broadcast(self, attempts: Sequence[SignedTransaction]) -> _Answer:
        """Broadcasts the newest of a nonce's transactions."""
        transaction = attempts[-1]
        try:
            self._chain.send_raw(transaction.raw)
        except TransactionRefusedError as refusal:
            said = str(refusal).lower()
            if any(words in said for words in _KNOWN):
                return _Answer.KNOWN
            if any(words in said for words in _TOO_CHEAP):
                return _Answer.TOO_CHEAP
            # "Nonce too low" is good news if one of these took the nonce.
            if self._receipt(attempts) is not None:
                return _Answer.MINED
            raise ChainError(f"{transaction.batch_id}: {transaction.hash}: {refusal}") from refusal
        return _Answer.TAKEN

    def _bump(self, attempts: Sequence[SignedTransaction]) -> None:
        """Signs a nonce's transaction once more with a higher fee, as long as that is within the bound."""
        newest = attempts[-1]
        call, offered = read_transaction(newest.raw)
        asked = self._chain.fees()
        fees = Fees(
            fee_max=max(asked.fee_max, _more(offered.fee_max)),
            tip_max=max(asked.tip_max, _more(offered.tip_max)),
        )
        if fees.fee_max > self._patience.fee_max_wei:
            return
        self._chain.check_same()
        raw = sign_transaction(self._signer, self._chain.chain_id, newest.nonce, fees, call)
        bumped = self._signed(newest.batch_id, newest.nonce, raw)
        self._journal.record(bumped)
        self._broadcast([*attempts, bumped])

    def _nonce_lost(self, nonce: int, batch_id: str) -> ChainError:
        return ChainError(f"{batch_id}: nonce {nonce} of {self.address} went to another transaction")


def sign_transaction(signer: Signer, chain_id: int, nonce: int, fees: Fees, call: Call) -> bytes:
    """The bytes of an EIP-1559 transaction: ``0x02 ‖ rlp([…, y parity, r, s])``."""
    to = bytes.fromhex(call.to[2:]) if call.to else b""
    payload = [chain_id, nonce, fees.tip_max, fees.fee_max, call.gas, to, 0, call.data, []]
    signature = bytes.fromhex(signer.sign_digest(keccak(b"\x02" + rlp.encode(payload)))[2:])
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:64]))
    return b"\x02" + bytes(rlp.encode([*payload, signature[64] - 27, r, s]))


def read_transaction(raw: bytes) -> tuple[Call, Fees]:
    """What a transaction of :func:`sign_transaction` calls and offers."""
    _, _, tip, fee, gas, to, _, data, *_ = rlp.decode(raw[1:])
    call = Call(
        what="signed before",
        to="0x" + to.hex() if to else None,
        data=bytes(data),
        gas=int.from_bytes(gas, "big"),
    )
    return call, Fees(fee_max=int.from_bytes(fee, "big"), tip_max=int.from_bytes(tip, "big"))


def contract_address(transaction: SignedTransaction) -> str:
    """The address of the contract that a transaction creates."""
    sender = bytes.fromhex(transaction.sender[2:])
    return "0x" + keccak(rlp.encode([sender, transaction.nonce]))[12:].hex()


def _by_nonce(transactions: Sequence[SignedTransaction]) -> list[tuple[int, list[SignedTransaction]]]:
    """Transactions that are sorted by nonce, grouped by it."""
    return [(nonce, list(group)) for nonce, group in groupby(transactions, key=lambda t: t.nonce)]


def _within(fees: Fees, fee_max: int) -> Fees:
    return Fees(fee_max=min(fees.fee_max, fee_max), tip_max=min(fees.tip_max, fee_max))


def _more(fee: int) -> int:
    return fee + max(1, fee // _BUMP_DIVISOR)
