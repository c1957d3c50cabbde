"""Keys follow from the seed, or stay private in their files; the device signs its binding."""

from __future__ import annotations

from pathlib import Path

import pytest

from grid.errors import InputError
from market.messages.signing import Domain, Signer, recover
from meters.identity import derived_secret, derived_signer, read_key, signed_binding, write_key

DOMAIN = Domain(1, "0x" + "11" * 20)


def test_each_role_and_seed_has_its_own_key() -> None:
    secrets = {derived_secret(seed, role) for seed in (0, 7) for role in ("meter:load:1", "owner:load:1")}
    assert len(secrets) == 4
    assert derived_secret(7, "market") == derived_secret(7, "market")


def test_a_key_file_is_private_and_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "meter.key"
    write_key(path, b"\x01" * 32)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_key(path).address == Signer(b"\x01" * 32).address
    with pytest.raises(InputError, match="exists already"):
        write_key(path, b"\x02" * 32)


@pytest.mark.parametrize("content", ["", "zz", "01" * 31, "00" * 32, "é"])
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, content: str) -> None:
    path = tmp_path / "meter.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(InputError, match="is not a key") as refusal:
        read_key(path)
    assert not content or content not in str(refusal.value)


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "meter.key"
    write_key(path, b"\x01" * 32)
    path.chmod(0o640)
    with pytest.raises(InputError, match="chmod 600"):
        read_key(path)


def test_the_device_signs_its_binding() -> None:
    meter, owner = derived_signer(7, "meter:load:1"), derived_signer(7, "owner:load:1")
    binding, signature = signed_binding(meter, DOMAIN, owner.address, b"\x05" * 32, 0, 1_900_000_000)
    assert binding.meter == meter.address
    assert recover(DOMAIN.digest(binding.struct_hash()), signature) == meter.address
