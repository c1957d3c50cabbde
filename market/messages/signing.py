"""EIP-712 digests and signatures of the messages (design section 5).

A digest is ``keccak256(0x1901 ‖ domain separator ‖ struct hash)``. Types and domain are fixed, so
struct hashes are packed by hand and the domain separator is computed once: signing costs tens of µs.
Structs that the chain checks (Binding) and those it does not (Award, Clearing) are made alike.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from coincurve import PrivateKey, PublicKey
from eth_hash.auto import keccak

from market.messages.models import (
    Award,
    Clearing,
    Message,
    Order,
    Reading,
    ReadingEntry,
    Readings,
    Receipt,
    Step,
)

M = TypeVar("M", bound=Message)

UNSIGNED = "0x" + "00" * 65

_READING = (
    "Reading(address meter,uint32 epoch,uint64 seq,uint64 takenAt,uint64 importWh,uint64 exportWh,"
    "int32 powerW,uint8 quality)"
)
_STEP = "Step(uint8 side,uint32 energyWh,int64 limitPrice,uint8 minFillPercent)"
ENCODED_TYPES = {
    "Reading": _READING,
    "Readings": "Readings(Reading[] readings)" + _READING,
    "Step": _STEP,
    "Order": "Order(address meter,bytes32 feeder,uint64 intervalStart,uint32 version,uint32 firmImportWh,"
    "uint32 firmExportWh,int32 firmQVar,Step[] steps)" + _STEP,
    "Receipt": "Receipt(address meter,uint8 kind,uint64 upTo,uint8 result,uint64 receivedAt,bytes32 digest)",
    "Binding": "Binding(address meter,address owner,bytes32 connectionPoint,uint256 nonce,uint64 deadline)",
    "Award": "Award(address meter,uint64 intervalStart,bytes32 content)",
    "Clearing": "Clearing(bytes32 feeder,uint64 intervalStart,bytes32 root,bytes32 content)",
}
"""Each struct as EIP-712 encodes its type."""
_TYPE_HASH = {name: keccak(encoded.encode()) for name, encoded in ENCODED_TYPES.items()}
_DOMAIN_TYPE = keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_NAME = keccak(b"Peergrid")
_VERSION = keccak(b"1")
_READING_TYPE, _READINGS_TYPE = _TYPE_HASH["Reading"], _TYPE_HASH["Readings"]
_STEP_TYPE, _ORDER_TYPE = _TYPE_HASH["Step"], _TYPE_HASH["Order"]
_RECEIPT_TYPE, _BINDING_TYPE = _TYPE_HASH["Receipt"], _TYPE_HASH["Binding"]
_AWARD_TYPE, _CLEARING_TYPE = _TYPE_HASH["Award"], _TYPE_HASH["Clearing"]
# A reading's words at once: the right-aligned integers each behind the zeros of their word.
_READING_WORDS = struct.Struct(">32s12x20s28xI24xQ24xQ24xQ24xQ32s31xB")


def _word(value: int) -> bytes:
    """A 32-byte ABI word, two's complement for negative values."""
    return value.to_bytes(32, "big", signed=value < 0)


def _address(value: str) -> bytes:
    return bytes(12) + bytes.fromhex(value[2:])


def feeder_hash(feeder: str) -> bytes:
    """The bytes32 that stands for a feeder's id in signed structs."""
    return keccak(feeder.encode())


def canonical_json(value: object) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _content(message: Message) -> bytes:
    """keccak256 of the canonical JSON of a message without its signature."""
    return keccak(canonical_json(message.model_dump(mode="json", exclude={"sig"})))


@dataclass(frozen=True)
class Domain:
    """The EIP-712 domain: chain id and the meter registry's address (lower-case hex)."""

    chain_id: int
    verifying_contract: str

    @cached_property
    def separator(self) -> bytes:
        return keccak(
            _DOMAIN_TYPE + _NAME + _VERSION + _word(self.chain_id) + _address(self.verifying_contract)
        )

    def digest(self, struct_hash: bytes) -> bytes:
        return keccak(b"\x19\x01" + self.separator + struct_hash)


def _reading_hash(meter: bytes, entry: Reading | ReadingEntry) -> bytes:
    return keccak(
        _READING_WORDS.pack(
            _READING_TYPE,
            meter,
            entry.epoch,
            entry.seq,
            entry.taken_at,
            entry.import_wh,
            entry.export_wh,
            _word(entry.power_w),
            entry.quality,
        )
    )


def _step_hash(step: Step) -> bytes:
    words = map(_word, (step.side, step.energy_wh, step.limit_price, step.min_fill_percent))
    return keccak(_STEP_TYPE + b"".join(words))


def struct_hash(message: Message) -> bytes:
    """The EIP-712 ``hashStruct`` of a signed message; its ``sig`` takes no part."""
    match message:
        case Reading():
            return _reading_hash(bytes.fromhex(message.meter[2:]), message)
        case Readings():
            meter = bytes.fromhex(message.meter[2:])
            entries = b"".join([_reading_hash(meter, entry) for entry in message.readings])
            return keccak(_READINGS_TYPE + keccak(entries))
        case Order():
            words = map(
                _word,
                (
                    message.interval_start,
                    message.version,
                    message.firm_import_wh,
                    message.firm_export_wh,
                    message.firm_q_var,
                ),
            )
            steps = keccak(b"".join(map(_step_hash, message.steps)))
            return keccak(
                _ORDER_TYPE + _address(message.meter) + feeder_hash(message.feeder) + b"".join(words) + steps
            )
        case Receipt():
            words = map(_word, (message.kind, message.up_to, message.result, message.received_at))
            return keccak(
                _RECEIPT_TYPE + _address(message.meter) + b"".join(words) + bytes.fromhex(message.digest[2:])
            )
        case Award():
            return keccak(
                _AWARD_TYPE + _address(message.meter) + _word(message.interval_start) + _content(message)
            )
        case Clearing():
            return keccak(
                _CLEARING_TYPE
                + feeder_hash(message.feeder)
                + _word(message.interval_start)
                + bytes.fromhex(message.root[2:])
                + _content(message)
            )
    raise TypeError(f"{type(message).__name__} messages are not signed")


@dataclass(frozen=True)
class Binding:
    """A meter's word that it belongs to ``owner`` at ``connection_point`` (bytes32, hashed with a salt)."""

    meter: str
    owner: str
    connection_point: bytes
    nonce: int
    deadline: int

    def struct_hash(self) -> bytes:
        return keccak(
            _BINDING_TYPE
            + _address(self.meter)
            + _address(self.owner)
            + self.connection_point
            + _word(self.nonce)
            + _word(self.deadline)
        )


def message_digest(domain: Domain, message: Message) -> bytes:
    """The 32 bytes that a message's signature signs."""
    return domain.digest(struct_hash(message))


class Signer:
    """A secp256k1 key that signs for one address."""

    def __init__(self, secret: bytes) -> None:
        self._key = PrivateKey(secret)
        self.address = address_of(self._key.public_key)

    def sign_digest(self, digest: bytes) -> str:
        """65 bytes r ‖ s ‖ v with v = 27 or 28, as hex."""
        signature = self._key.sign_recoverable(digest, hasher=None)
        raw = bytes(signature)
        return "0x" + raw[:64].hex() + format(raw[64] + 27, "02x")

    def sign(self, domain: Domain, message: M) -> M:
        """The same message with its signature."""
        return message.model_copy(update={"sig": self.sign_digest(message_digest(domain, message))})


def address_of(key: PublicKey) -> str:
    """The lower-case hex address of a public key."""
    return "0x" + keccak(key.format(compressed=False)[1:])[12:].hex()


def recover(digest: bytes, signature: str) -> str | None:
    """The address that signed ``digest``, or None where the signature is none."""
    raw = bytes.fromhex(signature[2:])
    if raw[64] not in (27, 28):
        return None
    try:
        key = PublicKey.from_signature_and_message(raw[:64] + bytes([raw[64] - 27]), digest, hasher=None)
    except Exception:  # coincurve raises bare Exception for points off the curve
        return None
    return address_of(key)


def is_signed_by(domain: Domain, message: Message, signer: str) -> bool:
    """Whether ``message.sig`` is ``signer``'s signature of the message."""
    signature: str = message.sig  # type: ignore[attr-defined]
    return recover(message_digest(domain, message), signature) == signer
