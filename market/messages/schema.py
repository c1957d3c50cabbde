"""The published form of the messages: a JSON Schema each, and one AsyncAPI document, made from the models.

``x-unit`` names a number's unit. ``x-eip712`` tells what a signature signs: type, the fields of the message
that fill it, and the digest of the example. Both documents are the same for every market.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from market.messages.examples import DOMAIN, MARKET, METER, examples
from market.messages.models import Message
from market.messages.signing import ENCODED_TYPES, message_digest

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TITLES = {
    "gate": "A gate opens or closes: when to send readings and orders",
    "reading": "Registers of a meter at one moment",
    "readings": "Up to 500 readings under one signature, on the same topic as a single one",
    "order": "What a meter will do in one interval",
    "status": "Whether a meter is online",
    "sync": "Asks for what was missed",
    "receipt": "What the market stored or refused",
    "award": "What an order got",
    "clearing": "The public result of an interval",
}
_BY_METER = ("order", "reading", "status", "sync")
_TO_METER = ("receipt", "award")
_PUBLIC = ("gate", "clearing")
_RETAINED = ("gate", "status")
_ALSO_ON = {"reading": ["reading", "readings"]}
_FEEDER_HASH = "feeder: keccak256 of its UTF-8 text"
_CONTENT = (
    "content: keccak256 of the whole message without sig as canonical JSON "
    "(keys sorted, no spaces, UTF-8, every field present)"
)
_HASHED = {
    "order": [_FEEDER_HASH],
    "award": [_CONTENT],
    "clearing": [_FEEDER_HASH, _CONTENT],
    "readings": ["the list's meter is the meter of each Reading"],
}


def eip712_types(name: str) -> dict[str, list[dict[str, str]]]:
    """The ``types`` of an EIP-712 document whose primary type is ``name``, as wallets take them."""
    structs = re.findall(r"(\w+)\(([^)]*)\)", ENCODED_TYPES[name])
    return {
        struct: [dict(zip(("type", "name"), field.split(" "), strict=True)) for field in fields.split(",")]
        for struct, fields in structs
    }


def json_schemas() -> dict[str, dict[str, Any]]:
    """By the message's name."""
    return {name: _schema(name, message) for name, message in examples().items()}


def _schema(name: str, example: Message) -> dict[str, Any]:
    made = _untitled(type(example).model_json_schema())
    made.pop("description", None)
    schema: dict[str, Any] = {
        "$schema": _DIALECT,
        "title": name,
        "description": _TITLES[name],
        **made,
        "examples": [example.model_dump(mode="json")],
    }
    if hasattr(example, "sig"):
        schema["x-eip712"] = {
            "domain": {
                "name": "Peergrid",
                "version": "1",
                "chainId": "the market's chain",
                "verifyingContract": "the market's meter registry",
            },
            "primaryType": type(example).__name__,
            "types": eip712_types(type(example).__name__),
            "fields": "a struct's takenAt is the message's taken_at, and so on",
            "hashed": _HASHED.get(name, []),
            "sig": "r, s, v (27 or 28), 65 bytes in hex",
            "example": {
                "chainId": DOMAIN.chain_id,
                "verifyingContract": DOMAIN.verifying_contract,
                "secret": "0x" + ("22" if name in (*_TO_METER, *_PUBLIC) else "11") * 32,
                "signer": MARKET.address if name in (*_TO_METER, *_PUBLIC) else METER.address,
                "digest": "0x" + message_digest(DOMAIN, example).hex(),
            },
        }
    return schema


def _untitled(schema: Any) -> Any:
    """Without the titles that only repeat a field's name."""
    if isinstance(schema, dict):
        return {
            key: _untitled(value)
            for key, value in schema.items()
            if not (key == "title" and isinstance(value, str))
        }
    return [_untitled(item) for item in schema] if isinstance(schema, list) else schema


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3 document: a firmware author's view, who receives what the market sends."""
    channels, operations = {}, {}
    for channel in (*_BY_METER, *_TO_METER, *_PUBLIC):
        names = _ALSO_ON.get(channel, [channel])
        public = channel in _PUBLIC
        parameters = {"feeder": {"description": "The market's id."}}
        if not public:
            parameters["meter"] = {
                "description": "The meter's id; with TLS it is the CN of the meter's certificate."
            }
        channels[channel] = {
            "address": f"peergrid/v1/{{feeder}}/{'' if public else '{meter}/'}{channel}",
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
            "parameters": parameters,
            "bindings": {"mqtt": {"bindingVersion": "0.2.0"}},
        }
        action = "send" if channel in _BY_METER else "receive"
        operations[f"{action}_{channel}"] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "summary": _TITLES[channel],
            "bindings": {"mqtt": {"qos": 1, "retain": channel in _RETAINED, "bindingVersion": "0.2.0"}},
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Peergrid",
            "version": "1",
            "description": (
                "Messages between meters and a market, over MQTT 3.1.1 or 5, QoS 1, JSON in UTF-8. "
                "The rules that a schema cannot say are in README.md beside this document."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {
                name: {
                    "name": name,
                    "summary": title,
                    "contentType": "application/json",
                    "payload": {
                        "schemaFormat": "application/schema+json;version=draft-2020-12",
                        "schema": {"$ref": f"./{name}.schema.json"},
                    },
                }
                for name, title in _TITLES.items()
            }
        },
    }


def documents() -> Mapping[str, str]:
    """All published files by name, as they are committed in ``docs/messages``."""
    files = {f"{name}.schema.json": schema for name, schema in json_schemas().items()}
    files["asyncapi.json"] = asyncapi()
    return {name: json.dumps(value, indent=2, ensure_ascii=False) + "\n" for name, value in files.items()}
