"""EIP-712: what owners, their recovery addresses and their successors say of a change of wallet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eth_abi.abi import encode
from eth_hash.auto import keccak

from market.messages.signing import Domain, Signer

WordKind = Literal["Recovery", "Succession", "Veto"]
_SUBJECT = {"Recovery": "recovery", "Succession": "successor", "Veto": "successor"}
_TYPES = {
    kind: keccak(f"{kind}(address owner,address {subject},uint256 nonce,uint64 deadline)".encode())
    for kind, subject in _SUBJECT.items()
}


@dataclass(frozen=True)
class Word:
    """Of ``owner``: ``subject`` is its recovery address (``Recovery``), takes its place (``Succession``), or
    does not (``Veto``). ``nonce`` is the signer's next one, ``deadline`` Unix seconds.
    """

    kind: WordKind
    owner: str
    subject: str
    nonce: int
    deadline: int

    def struct_hash(self) -> bytes:
        fields = (_TYPES[self.kind], self.owner, self.subject, self.nonce, self.deadline)
        return keccak(encode(("bytes32", "address", "address", "uint256", "uint64"), fields))

    def signed_by(self, signer: Signer, domain: Domain) -> str:
        """r ‖ s ‖ v as hex; the domain is the escrow's."""
        return signer.sign_digest(domain.digest(self.struct_hash()))
