"""One contract at its address: calls of its functions, and what they return."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from contracts.artifacts import load
from contracts.chain import TRANSACTION_GAS_MAX, Call, Chain

T = TypeVar("T")

NOBODY = "0x" + "00" * 20
# Upper bounds of gas have room to spare: what is not used is not paid.
GAS_BASE = 150_000


class Contract:
    """The contract ``name`` of :mod:`contracts.artifacts` at ``address``."""

    def __init__(self, chain: Chain, name: str, address: str) -> None:
        self.artifact = load(name)
        self.address = address
        self._chain = chain

    def write(self, function: str, *arguments: object, gas: int = GAS_BASE) -> Call:
        """A call to be sent."""
        data = self.artifact.call_data(function, *arguments)
        return Call(f"{self.artifact.contract}.{function}", self.address, data, gas)

    def read(self, function: str, *arguments: object) -> tuple[Any, ...]:
        """What a function returns now."""
        call = self.write(function, *arguments, gas=TRANSACTION_GAS_MAX)
        return self.artifact.result(function, self._chain.call(call, NOBODY))

    def integer(self, function: str, *arguments: object) -> int:
        """The same of a function that returns one integer."""
        (value,) = self.read(function, *arguments)
        return int(value)


def parts_of(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """``items`` in order, ``size`` at a time: as many as fit into one transaction."""
    return (items[start : start + size] for start in range(0, len(items), size))
