"""The published schema is what the market checks, and enough to make and read every message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_hash.auto import keccak

from market.messages.examples import DOMAIN, FEEDER, MARKET, METER, examples
from market.messages.schema import asyncapi, documents, json_schemas
from market.messages.signing import canonical_json, is_signed_by

PUBLISHED = Path(__file__).parents[2] / "docs" / "messages"
SIGNED = [name for name, message in examples().items() if hasattr(message, "sig")]


def test_the_committed_files_are_those_that_the_models_make() -> None:
    made = documents()
    committed = {path.name: path.read_text(encoding="utf-8") for path in PUBLISHED.glob("*.json")}
    assert committed == made, "run: peergrid meter schema --out docs/messages"


@pytest.mark.parametrize("name", examples())
def test_every_example_is_a_message_and_unknown_fields_are_none(name: str) -> None:
    schema, example = json_schemas()[name], examples()[name]
    assert type(example).model_validate_json(json.dumps(schema["examples"][0])) == example
    assert schema["additionalProperties"] is False
    for field, described in schema["properties"].items():
        assert described.get("description"), f"{name}.{field} is not described"


@pytest.mark.parametrize("name", SIGNED)
def test_the_types_in_the_schema_are_enough_to_make_the_examples_signature(name: str) -> None:
    """An independent library signs by the published types alone."""
    schema = json_schemas()[name]
    described, message = schema["x-eip712"], schema["examples"][0]
    document = {
        "domain": {
            **described["domain"],
            "chainId": DOMAIN.chain_id,
            "verifyingContract": DOMAIN.verifying_contract,
        },
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            **described["types"],
        },
        "primaryType": described["primaryType"],
        "message": _value(described["types"], described["primaryType"], message, message),
    }
    signed = Account.from_key(described["example"]["secret"]).sign_message(
        encode_typed_data(full_message=document)
    )
    assert "0x" + signed.signature.hex().removeprefix("0x") == message["sig"]
    assert "0x" + signed.message_hash.hex().removeprefix("0x") == described["example"]["digest"]
    signer = METER if described["example"]["signer"] == METER.address else MARKET
    assert is_signed_by(DOMAIN, examples()[name], signer.address)


def _value(types: dict, struct: str, source: dict, message: dict) -> dict:
    """A struct's value by the rule of the schema: camel case is snake case, and what ``hashed`` says."""
    value = {}
    for field in types[struct]:
        name, kind = field["name"], field["type"]
        snake = "".join("_" + c.lower() if c.isupper() else c for c in name)
        if name == "feeder":
            value[name] = keccak(FEEDER.encode())
        elif name == "content":
            value[name] = keccak(canonical_json({k: v for k, v in message.items() if k != "sig"}))
        elif kind.endswith("[]"):
            value[name] = [
                _value(types, kind[:-2], {"meter": message["meter"], **item}, message)
                for item in source[snake]
            ]
        else:
            value[name] = source[snake]
    return value


def test_the_asyncapi_document_names_every_topic_and_leads_to_every_schema() -> None:
    document = asyncapi()
    addresses = {channel["address"] for channel in document["channels"].values()}
    meter = "peergrid/v1/{feeder}/{meter}/"
    assert addresses == {
        *(meter + leaf for leaf in ("order", "reading", "status", "sync", "receipt", "award")),
        "peergrid/v1/{feeder}/gate",
        "peergrid/v1/{feeder}/clearing",
    }
    for message in document["components"]["messages"].values():
        assert message["payload"]["schema"]["$ref"].removeprefix("./") in documents()
    for operation in document["operations"].values():
        assert operation["channel"]["$ref"].rsplit("/", 1)[1] in document["channels"]
