"""What an escrow recorded: settled batches, transfers of its credit, and money in and out.

Amounts are µEUR, blocks inclusive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from eth_abi.abi import decode
from eth_hash.auto import keccak

from contracts.chain import Chain

_TRANSFER = keccak(b"Transfer(address,address,uint256)")
_SETTLED = keccak(b"Settled(bytes32,uint64,uint32,bytes32,uint256,uint256)")
_DEPOSITED = keccak(b"Deposited(address,address,uint256)")
_ANNOUNCED = keccak(b"WithdrawalAnnounced(address,uint256,uint256,uint256)")
_COVERED = keccak(b"ShortfallCovered(address,uint256,uint256,uint256)")
_REPAID = keccak(b"DebtRepaid(address,uint256,uint256)")
_FOLLOWED = keccak(b"Followed(address,address,uint256,uint256,uint256)")
_DRAWN = keccak(b"SuccessorDrawn(address,address,uint256)")


@dataclass(frozen=True)
class Settled:
    """One chunk of a batch, as the chain has it; amounts µEUR."""

    chunk: int
    root: bytes
    positions: int
    volume_ueur: int
    block: int
    transaction: str


@dataclass(frozen=True)
class SettledBatch:
    """A batch as the chain has it, whole: net positions by account, its last transaction, and when."""

    root: bytes
    positions: dict[str, int]
    block: int
    at: int
    transaction: str
    gas: int


@dataclass
class Movements:
    """What accounts got (> 0) and gave up (< 0) other than by settlement, µEUR.

    ``credit_ueur`` is what that made of their credit; ``equity_ueur`` leaves out what the guarantee lent
    them, and ``lost_ueur`` (≤ 0) is the part of it that they took out. ``short`` are those that once owed
    more than their credit. ``successors`` are the wallets that took others' places, by those: what equity
    an account had is its successor's.
    """

    credit_ueur: Counter[str] = field(default_factory=Counter)
    equity_ueur: Counter[str] = field(default_factory=Counter)
    lost_ueur: Counter[str] = field(default_factory=Counter)
    short: set[str] = field(default_factory=set)
    successors: dict[str, str] = field(default_factory=dict)

    def deposited(self, account: str, words: Sequence[int]) -> None:
        self.credit_ueur[account] += words[0]
        self.equity_ueur[account] += words[0]

    def announced(self, account: str, words: Sequence[int]) -> None:
        self.credit_ueur[account] -= words[0]
        self.equity_ueur[account] -= words[0]
        self.lost_ueur[account] -= words[0]

    def covered(self, account: str, words: Sequence[int]) -> None:
        from_withdrawal, from_guarantee, _ = words
        self.credit_ueur[account] += from_withdrawal + from_guarantee
        self.equity_ueur[account] += from_withdrawal
        self.short.add(account)

    def repaid(self, account: str, words: Sequence[int]) -> None:
        self.credit_ueur[account] -= words[0]

    def followed(self, account: str, successor: str, words: Sequence[int]) -> None:
        credit, pending, debt = words
        self.credit_ueur[account] -= credit
        self.credit_ueur[successor] += credit
        self.successors[account] = successor
        if pending:
            self.lost_ueur[successor] += 0  # it has a withdrawal, of what the other one took out
        if debt:
            self.short.add(successor)

    def drawn(self, account: str, successor: str, words: Sequence[int]) -> None:
        self.credit_ueur[successor] -= words[0]
        self.credit_ueur[account] += words[0]

    def add(self, later: Movements) -> None:
        # Counter.update adds, and keeps what is below zero.
        self.credit_ueur.update(later.credit_ueur)
        self.equity_ueur.update(later.equity_ueur)
        self.lost_ueur.update(later.lost_ueur)
        self.short |= later.short
        self.successors |= later.successors


@dataclass(frozen=True)
class Transfer:
    """One ``Transfer`` event of the credit. In a settlement one side is the escrow, as clearing account,
    unless a successor pays for the wallet before it.
    """

    block: int
    transaction: str
    index: int
    sender: str
    receiver: str
    amount_ueur: int


def settled(
    chain: Chain, escrow: str, market: bytes, sequence: int, from_block: int, to_block: int
) -> list[Settled]:
    """What ``escrow`` recorded of a batch in these blocks, both inclusive, by chunk."""
    found = []
    for log in chain.logs(escrow, [_SETTLED, market, sequence.to_bytes(32, "big")], from_block, to_block):
        chunk, root, positions, volume = decode(("uint32", "bytes32", "uint256", "uint256"), log.data)
        found.append(Settled(chunk, root, positions, volume, log.block, log.transaction))
    return sorted(found, key=lambda event: event.chunk)


def settled_batch(
    chain: Chain, escrow: str, market: bytes, sequence: int, from_block: int, to_block: int
) -> SettledBatch | None:
    """All that ``escrow`` recorded of a batch in these blocks; None where that is nothing."""
    chunks = settled(chain, escrow, market, sequence, from_block, to_block)
    if not chunks:
        return None
    positions: Counter[str] = Counter()
    gas = 0
    for chunk in chunks:
        for transfer in transfers(chain, escrow, chunk.block, chunk.block):
            # Without what is made for a debtor that is short: that comes from nobody.
            if transfer.transaction == chunk.transaction and escrow in (transfer.sender, transfer.receiver):
                given = transfer.sender == escrow
                account = transfer.receiver if given else transfer.sender
                positions[account] += transfer.amount_ueur if given else -transfer.amount_ueur
        receipt = chain.receipt(chunk.transaction)
        gas += receipt.gas_used if receipt else 0
    last = max(chunks, key=lambda chunk: chunk.block)
    return SettledBatch(
        last.root, dict(positions), last.block, chain.block_time(last.block), last.transaction, gas
    )


def transfers(chain: Chain, escrow: str, from_block: int, to_block: int) -> list[Transfer]:
    """The credit's ``Transfer`` events of these blocks."""
    return [
        Transfer(
            block=log.block,
            transaction=log.transaction,
            index=log.index,
            sender="0x" + log.topics[1][12:].hex(),
            receiver="0x" + log.topics[2][12:].hex(),
            amount_ueur=int.from_bytes(log.data, "big"),
        )
        for log in chain.logs(escrow, [_TRANSFER], from_block, to_block)
    ]


def movements(chain: Chain, escrow: str, from_block: int, to_block: int) -> Movements:
    """What came to accounts and left them in these blocks other than by settlement."""
    found = Movements()
    for name, apply in (
        (_DEPOSITED, found.deposited),
        (_ANNOUNCED, found.announced),
        (_COVERED, found.covered),
        (_REPAID, found.repaid),
    ):
        for log in chain.logs(escrow, [name], from_block, to_block):
            apply(_account(log.topics[-1]), _words(log.data))
    for name, move in ((_FOLLOWED, found.followed), (_DRAWN, found.drawn)):
        for log in chain.logs(escrow, [name], from_block, to_block):
            move(_account(log.topics[1]), _account(log.topics[2]), _words(log.data))
    return found


def _account(topic: bytes) -> str:
    return "0x" + topic[12:].hex()


def _words(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 32], "big") for at in range(0, len(data), 32)]
