"""The compiled contracts, as ``compile.sh`` wrote them, and the coding of calls and errors by their ABI."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_hash.auto import keccak

NAMES = ("DemoEuro", "MarketEscrow", "MarketTimelock", "MeterRegistry")

# What Solidity itself reverts with: require with a text, and failed checks (division by zero, overflow).
_BUILT_IN: tuple[dict[str, Any], ...] = (
    {"type": "error", "name": "Error", "inputs": [{"name": "message", "type": "string"}]},
    {"type": "error", "name": "Panic", "inputs": [{"name": "code", "type": "uint256"}]},
)


@dataclass(frozen=True)
class Entry:
    """A function, error or constructor of an ABI: its types, and the first four bytes that name it."""

    name: str
    inputs: tuple[str, ...]
    input_names: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def selector(self) -> bytes:
        return keccak(f"{self.name}({','.join(self.inputs)})".encode())[:4]


@dataclass(frozen=True)
class Artifact:
    """One compiled contract. ``bytecode`` creates it, once the constructor's arguments are appended."""

    contract: str
    bytecode: bytes
    functions: Mapping[str, Entry]
    errors: Mapping[bytes, Entry]
    constructor: Entry | None

    def creation(self, *arguments: object) -> bytes:
        """The data of a transaction that creates the contract."""
        types = self.constructor.inputs if self.constructor else ()
        return self.bytecode + encode(types, arguments)

    def call_data(self, function: str, *arguments: object) -> bytes:
        """The data of a transaction or call of ``function``."""
        entry = self.functions[function]
        return entry.selector + encode(entry.inputs, arguments)

    def result(self, function: str, data: bytes) -> tuple[Any, ...]:
        """What ``function`` returned."""
        return tuple(decode(self.functions[function].outputs, data))


@dataclass(frozen=True)
class RevertReason:
    """A custom error that a contract reverted with; addresses are lower-case hex, bytes are hex."""

    name: str
    arguments: Mapping[str, object]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value}' for name, value in self.arguments.items())})"


@cache
def load(contract: str) -> Artifact:
    """The committed artifact of a contract in :data:`NAMES`."""
    document = json.loads(files("contracts").joinpath("artifacts", f"{contract}.json").read_text())
    entries = [(item["type"], _entry(item)) for item in document["abi"] if item["type"] != "event"]
    return Artifact(
        contract=document["contract"],
        bytecode=bytes.fromhex(document["bytecode"][2:]),
        functions={entry.name: entry for kind, entry in entries if kind == "function"},
        errors={entry.selector: entry for kind, entry in entries if kind == "error"},
        constructor=next((entry for kind, entry in entries if kind == "constructor"), None),
    )


def revert_reason(data: bytes) -> RevertReason:
    """The error that ``data`` stands for, among those of all contracts here and of Solidity itself.

    Data of an error that is none of these comes back under the name ``unknown error``.
    """
    entry = _errors().get(data[:4])
    if entry is not None:
        try:
            values = decode(entry.inputs, data[4:])
        except DecodingError:
            pass
        else:
            return RevertReason(entry.name, dict(zip(entry.input_names, map(_readable, values), strict=True)))
    return RevertReason("unknown error", {"data": "0x" + data.hex()})


@cache
def _errors() -> Mapping[bytes, Entry]:
    built_in = {entry.selector: entry for entry in map(_entry, _BUILT_IN)}
    return built_in | {selector: entry for name in NAMES for selector, entry in load(name).errors.items()}


def _entry(item: Mapping[str, Any]) -> Entry:
    inputs: Sequence[Mapping[str, Any]] = item.get("inputs", ())
    return Entry(
        name=item.get("name", item["type"]),
        inputs=tuple(map(_type, inputs)),
        input_names=tuple(parameter["name"] for parameter in inputs),
        outputs=tuple(map(_type, item.get("outputs", ()))),
    )


def _type(parameter: Mapping[str, Any]) -> str:
    """A parameter's type in words of the ABI, with structs written out as tuples."""
    name: str = parameter["type"]
    if not name.startswith("tuple"):
        return name
    return f"({','.join(map(_type, parameter['components']))}){name.removeprefix('tuple')}"


def _readable(value: object) -> object:
    return "0x" + value.hex() if isinstance(value, bytes) else value
