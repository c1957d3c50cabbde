"""The chain as Peergrid needs it: what a node does, and how it can fail.

Addresses and hashes are lower-case hex. Gas is in gas units, fees in wei, times in Unix seconds.
Two nodes do this: :class:`contracts.embedded.EmbeddedChain` in this process, and
:class:`contracts.rpc.RpcChain` behind a URL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from contracts.artifacts import RevertReason, revert_reason
from grid.errors import ChainError

# EIP-7825: no transaction may ask for more.
TRANSACTION_GAS_MAX = 2**24


class ContractRevertError(ChainError):
    """A contract refused a call; ``reason`` is its error."""

    def __init__(self, what: str, data: bytes) -> None:
        self.reason: RevertReason = revert_reason(data)
        super().__init__(f"{what}: {self.reason}")


class TransactionRefusedError(ChainError):
    """The node did not take a transaction."""


class TransactionFailedError(ChainError):
    """A transaction was mined, and reverted there."""


class UnconfirmedError(ChainError):
    """A transaction was sent, and is not mined and confirmed yet."""


class UnfinalError(UnconfirmedError):
    """A transaction was mined, and its block is not final yet: nothing is wrong."""


@dataclass(frozen=True)
class Call:
    """What to ask of a contract: ``to`` is its address, or None to create one. ``what`` names it in
    errors.
    """

    what: str
    to: str | None
    data: bytes
    gas: int


@dataclass(frozen=True)
class Receipt:
    """A transaction that was mined."""

    hash: str
    block: int
    gas_used: int
    succeeded: bool


@dataclass(frozen=True)
class Log:
    """An event that a contract recorded; ``topics[0]`` names it."""

    address: str
    topics: tuple[bytes, ...]
    data: bytes
    block: int
    transaction: str
    index: int


@dataclass(frozen=True)
class Fees:
    """What a transaction offers for a unit of gas, wei."""

    fee_max: int
    tip_max: int


class WrongChainError(ChainError):
    """The node is not the one that was connected to: another chain, or another one of the same id."""


class Chain(Protocol):
    """A node. Every method raises :class:`ChainError` where the node cannot be reached or answers
    nonsense.
    """

    @property
    def chain_id(self) -> int: ...

    def check_same(self) -> None:
        """Raises :class:`WrongChainError` where another chain answers now than at the beginning."""

    def block_number(self) -> int:
        """The number of the last mined block."""

    def block_time(self, block: int | None = None) -> int:
        """The time of a mined block, by default the last one, Unix s."""

    def finalized_block(self) -> int:
        """The number of the last block that the node will not give up any more."""

    def code(self, address: str) -> bytes:
        """The contract's code at an address; empty where there is none."""

    def nonce(self, address: str) -> int:
        """How many transactions of ``address`` were mined."""

    def fees(self) -> Fees:
        """What to offer so that a transaction is mined soon."""

    def call(self, call: Call, sender: str) -> bytes:
        """What ``call`` would return if ``sender`` sent it now. Raises :class:`ContractRevertError`."""

    def send_raw(self, raw: bytes) -> None:
        """Broadcasts a signed transaction. Raises :class:`TransactionRefusedError`.

        Whether it was mined, only a receipt tells.
        """

    def receipt(self, transaction_hash: str) -> Receipt | None:
        """The receipt of a mined transaction; None where it is not mined."""

    def logs(self, address: str, topics: Sequence[bytes], from_block: int, to_block: int) -> list[Log]:
        """The events of a contract whose first topics are ``topics``, blocks inclusive, in order."""
