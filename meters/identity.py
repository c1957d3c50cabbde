"""Keys: those of a demonstration, which follow from its seed, and those in files.

A meter's id is the address of its key. The *device* signs the binding to its owner's wallet, so that
nobody can register a meter without holding it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from eth_hash.auto import keccak

from grid.errors import InputError
from market.messages.signing import Binding, Domain, Signer

SECRET_BYTES = 32
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def derived_secret(seed: int, role: str) -> bytes:
    """The secret of ``role`` (``meter:load:7``, ``owner:load:7``, ``market``…) in a demonstration.

    Anyone who knows the seed knows it: for simulated money only. ``seed`` is from 0 to 2⁶⁴ − 1.
    """
    return keccak(b"peergrid demo" + seed.to_bytes(8, "big") + role.encode())


def derived_signer(seed: int, role: str) -> Signer:
    return Signer(derived_secret(seed, role))


def write_key(path: Path, secret: bytes) -> None:
    """Write a new key file that only its owner can read; an existing file is never replaced."""
    assert len(secret) == SECRET_BYTES
    write_private(path, f"{secret.hex()}\n".encode())


def write_private(path: Path, content: bytes) -> None:
    """Writes a new file that only its owner can read; an existing one is never replaced."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InputError.single(str(path), "", path.name, "exists already: keys are not replaced") from None
    except OSError as error:
        raise InputError.single(str(path), "", error.strerror, "so the key cannot be written") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def check_private(path: Path) -> None:
    """Raises :class:`InputError` where others than its owner may read a secret's file, or there is none."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError.single(str(path), "", None, f"cannot be read: {error.strerror}") from None
    if mode & _OTHERS:
        raise InputError.single(str(path), "mode", oct(mode & 0o777), "lets others read it: chmod 600 it")


def read_key(path: Path) -> Signer:
    """The key in a file made by :func:`write_key`; one that others may read is refused."""
    check_private(path)
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise InputError.single(str(path), "", error.strerror, "so the key cannot be read") from None
    except UnicodeDecodeError:
        text = ""
    try:
        secret = bytes.fromhex(text)
        if len(secret) != SECRET_BYTES:  # a shorter one would be padded
            raise ValueError
        return Signer(secret)
    except ValueError:
        raise InputError.single(str(path), "", "…", "is not a key of 64 hexadecimal digits") from None


def signed_binding(
    meter: Signer, domain: Domain, owner: str, connection_point: bytes, nonce: int, deadline: int
) -> tuple[Binding, str]:
    """The meter's binding to ``owner`` at the hashed ``connection_point`` (32 bytes), and its signature."""
    binding = Binding(meter.address, owner, connection_point, nonce, deadline)
    return binding, meter.sign_digest(domain.digest(binding.struct_hash()))
