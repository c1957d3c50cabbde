"""EIP-712: an owner's word that one of its meters takes the place of a broken one."""

from __future__ import annotations

from dataclasses import dataclass

from eth_abi.abi import encode
from eth_hash.auto import keccak

_REPLACEMENT_TYPE = keccak(b"Replacement(address broken,address meter,uint256 nonce,uint64 deadline)")


@dataclass(frozen=True)
class Replacement:
    """``meter`` takes the owner and connection point of ``broken``; ``nonce`` is the owner's.

    The owner signs :meth:`market.messages.signing.Domain.digest` of :meth:`struct_hash`.
    """

    broken: str
    meter: str
    nonce: int
    deadline: int

    def struct_hash(self) -> bytes:
        fields = (_REPLACEMENT_TYPE, self.broken, self.meter, self.nonce, self.deadline)
        return keccak(encode(("bytes32", "address", "address", "uint256", "uint64"), fields))
