"""ERC-2612: a holder's signed word that the escrow may take its stablecoin, so that it needs no ether."""

from __future__ import annotations

from dataclasses import dataclass

from eth_abi.abi import encode
from eth_hash.auto import keccak

from market.messages.signing import Signer

_PERMIT_TYPE = keccak(b"Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)")


@dataclass(frozen=True)
class Permit:
    """``owner`` lets the escrow take ``amount_ueur`` until ``deadline``; ``signature`` is r ‖ s ‖ v."""

    owner: str
    amount_ueur: int
    deadline: int
    signature: bytes


def sign_permit(
    signer: Signer, domain_separator: bytes, spender: str, amount_ueur: int, nonce: int, deadline: int
) -> Permit:
    """The permit of ``signer`` for ``spender``; domain separator and nonce are the stablecoin's."""
    fields = (_PERMIT_TYPE, signer.address, spender, amount_ueur, nonce, deadline)
    struct_hash = keccak(encode(("bytes32", "address", "address", "uint256", "uint256", "uint256"), fields))
    signature = signer.sign_digest(keccak(b"\x19\x01" + domain_separator + struct_hash))
    return Permit(signer.address, amount_ueur, deadline, bytes.fromhex(signature[2:]))
