"""Enrolling a meter: its key, its word whose it is and where it stands, its certificate.

The folder that :func:`enrol` writes goes onto the device, but for ``registry.json``: that is for the market's
registrar, who brings it on the chain.
"""

from __future__ import annotations

import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from eth_hash.auto import keccak
from pydantic import Field

from market.messages.models import Address, Bytes32, Signature, UnixTime
from market.messages.signing import Binding, Domain, Signer
from meters.certificates import Authority, Period
from meters.configuration import Part, parsed_json, read_text
from meters.identity import SECRET_BYTES, read_key, signed_binding, write_key
from meters.mqtt import Tls
from meters.secure_broker import SALT, read_salt

KEY = "meter.key"
REGISTRY_ENTRY = "registry.json"
TERMS = "terms.json"


class RegistryEntry(Part):
    """A binding signed by the meter itself, as the registry on the chain takes it."""

    meter: Address
    owner: Address
    connection_point_hash: Bytes32
    nonce: int
    deadline: UnixTime
    signature: Signature
    chain_id: int
    registry: Address

    def binding(self) -> Binding:
        point = bytes.fromhex(self.connection_point_hash[2:])
        return Binding(self.meter, self.owner, point, self.nonce, self.deadline)


class Terms(Part):
    """What the market has on record of a meter's connection: ``fuse_w`` is the most that it may order each
    way.
    """

    fuse_w: Annotated[int, Field(gt=0)]


class Release(Part):
    """An owner's word that ``meter`` takes the place of ``broken``, as the registry on the chain takes it."""

    broken: Address
    meter: Address
    nonce: int
    deadline: UnixTime
    signature: Signature


@dataclass(frozen=True)
class Enrolment:
    """What a meter is told: its market's ``domain``, its ``owner``'s wallet, where it stands, its fuse."""

    domain: Domain
    owner: str
    connection_point: str
    nonce: int
    """0, or how many bindings this key has used up."""
    fuse_w: int


def enrol(folder: Path, authority_folder: Path, what: Enrolment, period: Period) -> RegistryEntry:
    """Writes key, certificate, terms and registry entry into ``folder``; a key that is there is used again.

    The binding has to be brought before the certificate ends. Raises :class:`InputError`.
    """
    authority, salt = Authority(authority_folder), read_salt(authority_folder / SALT)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / KEY).exists():
        write_key(folder / KEY, _new_secret())
    signer = read_key(folder / KEY)
    authority.issue_client(folder, "tls", signer.address, period)
    shutil.copyfile(authority.certificate_path, folder / "ca.crt")
    binding, signature = signed_binding(
        signer,
        what.domain,
        what.owner,
        keccak(salt + what.connection_point.encode()),
        what.nonce,
        int(period.end.timestamp()),
    )
    entry = RegistryEntry(
        meter=signer.address,
        owner=what.owner,
        connection_point_hash="0x" + binding.connection_point.hex(),
        nonce=what.nonce,
        deadline=binding.deadline,
        signature=signature,
        chain_id=what.domain.chain_id,
        registry=what.domain.verifying_contract,
    )
    (folder / REGISTRY_ENTRY).write_text(json.dumps(entry.model_dump(), indent=2) + "\n")
    (folder / TERMS).write_text(json.dumps(Terms(fuse_w=what.fuse_w).model_dump(), indent=2) + "\n")
    return entry


def read_terms(folder: Path) -> Terms | None:
    """What an enrolled meter was told; None for one that was enrolled without. Raises :class:`InputError`."""
    path = folder / TERMS
    return parsed_json(str(path), Terms, read_text(path)) if path.exists() else None


def read_entry(path: Path) -> RegistryEntry:
    """Raises :class:`InputError` where it is none."""
    return parsed_json(str(path), RegistryEntry, read_text(path))


def meter_tls(folder: Path) -> Tls:
    """What an enrolled meter connects with."""
    return Tls(folder / "ca.crt", folder / "tls.crt", folder / "tls.key")


def _new_secret() -> bytes:
    """32 random bytes that are a secp256k1 key (all but one in 2¹²⁸ are)."""
    while True:
        secret = secrets.token_bytes(SECRET_BYTES)
        try:
            Signer(secret)
        except ValueError:
            continue
        return secret
