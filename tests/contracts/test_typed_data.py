"""The signatures of the messages agree with those that ethers makes (tests/cases/eip712)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from market.messages.models import Message, Order, Reading, Readings, Receipt
from market.messages.signing import (
    UNSIGNED,
    Binding,
    Domain,
    Signer,
    is_signed_by,
    message_digest,
    recover,
)

CASES = Path(__file__).parent.parent / "cases" / "eip712"
MODELS: dict[str, type[Message]] = {
    "reading": Reading,
    "readings": Readings,
    "order": Order,
    "receipt": Receipt,
}


def cases(*names: str) -> list[Any]:
    return [
        pytest.param(name, case, id=f"{name}-{number}")
        for name in names
        for number, case in enumerate(json.loads((CASES / f"{name}.json").read_text()))
    ]


@pytest.mark.parametrize(("name", "case"), cases(*MODELS))
def test_a_message_is_signed_as_ethers_signs_it(name: str, case: dict[str, Any]) -> None:
    domain = Domain(**case["domain"])
    signer = Signer(bytes.fromhex(case["signer"]["secret"][2:]))
    unsigned = MODELS[name].model_validate({**case["message"], "sig": UNSIGNED})

    signed = signer.sign(domain, unsigned)

    assert signer.address == case["signer"]["address"]
    assert "0x" + message_digest(domain, unsigned).hex() == case["digest"]
    assert signed.model_dump()["sig"] == case["signature"]
    assert is_signed_by(domain, signed, signer.address)


@pytest.mark.parametrize(("name", "case"), cases("binding"))
def test_a_binding_is_signed_as_ethers_signs_it(name: str, case: dict[str, Any]) -> None:
    fields = case["message"]
    binding = Binding(**{**fields, "connection_point": bytes.fromhex(fields["connection_point"][2:])})
    digest = Domain(**case["domain"]).digest(binding.struct_hash())

    assert "0x" + digest.hex() == case["digest"]
    assert recover(digest, case["signature"]) == binding.meter
    assert Signer(bytes.fromhex(case["signer"]["secret"][2:])).sign_digest(digest) == case["signature"]


def test_a_signature_of_another_domain_does_not_count() -> None:
    case = json.loads((CASES / "order.json").read_text())[0]
    order = Order.model_validate({**case["message"], "sig": case["signature"]})
    domain = Domain(**case["domain"])

    assert is_signed_by(domain, order, order.meter)
    assert not is_signed_by(Domain(domain.chain_id + 1, domain.verifying_contract), order, order.meter)
    assert not is_signed_by(Domain(domain.chain_id, "0x" + "11" * 20), order, order.meter)
