"""The meter registry as Python calls: whose a meter is and where it stands.

Addresses are lower-case hex. What changes the chain goes through a :class:`Sender` under a batch id and can
be called again after a crash with the same arguments: nothing happens twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from eth_hash.auto import keccak

from contracts.chain import Chain, Receipt
from contracts.contract import GAS_BASE, NOBODY, Contract, parts_of
from contracts.replacement import Replacement
from contracts.sender import Sender
from market.messages.signing import Binding

_BOUND = keccak(b"MeterBound(address,address,bytes32,uint256)")
_REVOKED = keccak(b"MeterRevoked(address,address,bytes32)")
_GAS_BINDING = 140_000
_GAS_REPLACEMENT = 200_000
_BINDINGS_MAX = 100  # in one transaction


@dataclass(frozen=True)
class SignedBinding:
    """A binding and the meter's signature of it (hex, r ‖ s ‖ v)."""

    binding: Binding
    signature: str


@dataclass(frozen=True)
class SignedReplacement:
    """An owner's word that a meter replaces a broken one, and its signature of that (hex, r ‖ s ‖ v)."""

    replacement: Replacement
    signature: str


@dataclass(frozen=True)
class BoundMeter:
    """Whose a registered meter is, and the salted hash of where it stands."""

    owner: str
    connection_point: bytes


class Registry:
    """The registry at ``address``."""

    def __init__(self, chain: Chain, address: str) -> None:
        self._contract = Contract(chain, "MeterRegistry", address)

    def register(self, sender: Sender, batch_id: str, bindings: Sequence[SignedBinding]) -> list[Receipt]:
        """Binds meters to owners and connection points; ``sender`` must be the registrar."""
        receipts = []
        for number, chunk in enumerate(parts_of(bindings, _BINDINGS_MAX)):
            structs = [
                (b.meter, b.owner, b.connection_point, b.nonce, b.deadline)
                for b in (signed.binding for signed in chunk)
            ]
            signatures = [bytes.fromhex(signed.signature[2:]) for signed in chunk]
            gas = GAS_BASE + _GAS_BINDING * len(chunk)
            call = self._contract.write("register", structs, signatures, gas=gas)
            receipts.append(sender.send(f"{batch_id}/{number}", call))
        return receipts

    def revoke(self, sender: Sender, batch_id: str, meter: str) -> Receipt:
        """Unbinds a meter; ``sender`` must be its owner."""
        return sender.send(batch_id, self._contract.write("revoke", meter))

    def replace(
        self, sender: Sender, batch_id: str, replacement: SignedReplacement, binding: SignedBinding
    ) -> Receipt:
        """Puts a new meter in a broken one's place; ``sender`` must be the registrar."""
        word, device = replacement.replacement, binding.binding
        call = self._contract.write(
            "replace",
            (word.broken, word.meter, word.nonce, word.deadline),
            bytes.fromhex(replacement.signature[2:]),
            (device.meter, device.owner, device.connection_point, device.nonce, device.deadline),
            bytes.fromhex(binding.signature[2:]),
            gas=_GAS_REPLACEMENT,
        )
        return sender.send(batch_id, call)

    def meter(self, meter: str) -> BoundMeter | None:
        """What a meter is bound to; None where it is not."""
        ((owner, connection_point),) = self._contract.read("meterOf", meter)
        return None if owner == NOBODY else BoundMeter(owner, connection_point)

    def nonce(self, signer: str) -> int:
        """The nonce that a meter's next binding, or an owner's next replacement, has to have."""
        return self._contract.integer("nonces", signer)


class RegisteredMeters:
    """Every meter that the registry at ``address`` binds, kept up by its events from ``first_block`` on.

    ``final_block`` is the last block that counts as final. Owners are those of the binding: who has their
    place since is not told here.
    """

    def __init__(self, chain: Chain, address: str, first_block: int, final_block: Callable[[], int]) -> None:
        self._chain = chain
        self._address = address
        self._next_block = first_block
        self._final_block = final_block
        self._final: dict[str, BoundMeter] = {}

    def look(self) -> Mapping[str, BoundMeter]:
        """As of the newest block."""
        final = self._final_block()
        if final >= self._next_block:
            self._count(self._final, self._next_block, final)
            self._next_block = final + 1
        newest = dict(self._final)
        self._count(newest, self._next_block, self._chain.block_number())
        return newest

    def _count(self, meters: dict[str, BoundMeter], from_block: int, to_block: int) -> None:
        logs = [
            log
            for event in (_BOUND, _REVOKED)
            for log in self._chain.logs(self._address, [event], from_block, to_block)
        ]
        for log in sorted(logs, key=lambda log: (log.block, log.index)):
            meter, owner = ("0x" + topic[12:].hex() for topic in log.topics[1:3])
            if log.topics[0] == _BOUND:
                meters[meter] = BoundMeter(owner, log.topics[3])
            else:
                meters.pop(meter, None)
