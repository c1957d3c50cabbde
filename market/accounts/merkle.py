"""Merkle trees of salted leaves, as OpenZeppelin's StandardMerkleTree makes them: the chain gets one root,
and whoever is given a leaf and its path can check that the root commits it.

A leaf is ``keccak256(keccak256(abi.encode(…)))`` of (bytes16 salt, string kind, uint64 interval start, string
content); a node is ``keccak256`` of its two children in ascending order. The salt keeps others from guessing
a leaf from its hash. Trees can be nested: a path through the inner tree followed by one through the outer
leads from the leaf to the outer root.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from eth_hash.auto import keccak

LEAF_TYPES = ("bytes16", "string", "uint64", "string")
SALT_BYTES = 16

Kind = Literal["award", "clearing", "posting", "price", "reading"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """One record of an interval: ``content`` is canonical JSON, ``salt`` 16 bytes."""

    salt: bytes
    kind: Kind
    interval_start: int
    content: str

    def value(self) -> list[object]:
        """The leaf as StandardMerkleTree takes it, with the types :data:`LEAF_TYPES`."""
        return ["0x" + self.salt.hex(), self.kind, self.interval_start, self.content]

    def hash(self) -> bytes:
        kind, content = self.kind.encode(), self.content.encode()
        head = 4 * 32
        encoded = (
            self.salt.ljust(32, b"\0")
            + _word(head)
            + _word(self.interval_start)
            + _word(head + 32 + len(_padded(kind)))
            + _word(len(kind))
            + _padded(kind)
            + _word(len(content))
            + _padded(content)
        )
        return keccak(keccak(encoded))


class MerkleTree:
    """A tree over the hashes of leaves, or over the roots of inner trees. At least one; order does not
    matter.
    """

    def __init__(self, hashes: Iterable[bytes]) -> None:
        leaves = sorted(hashes, reverse=True)
        if not leaves:
            raise ValueError("a Merkle tree needs a leaf")
        # The tree lies in a list from the root on; the children of i are at 2 i + 1 and 2 i + 2.
        nodes = [b""] * (len(leaves) - 1) + leaves
        for index in range(len(leaves) - 2, -1, -1):
            nodes[index] = _node(nodes[2 * index + 1], nodes[2 * index + 2])
        self._nodes = nodes
        self._places = {leaf: len(leaves) - 1 + place for place, leaf in enumerate(leaves)}

    @property
    def root(self) -> bytes:
        return self._nodes[0]

    def path(self, leaf: bytes) -> list[bytes]:
        """The siblings between a leaf and the root, from below. KeyError where the tree has no such leaf."""
        index = self._places[leaf]
        path = []
        while index > 0:
            path.append(self._nodes[index + 1 if index % 2 else index - 1])
            index = (index - 1) // 2
        return path


def climb(leaf: bytes, path: Sequence[bytes]) -> bytes:
    """The root that a path leads to."""
    for sibling in path:
        leaf = _node(leaf, sibling)
    return leaf


def salt(secret: bytes, name: str) -> bytes:
    """The salt of the leaf ``name``: who does not know ``secret`` cannot tell it."""
    return keccak(secret + name.encode())[:SALT_BYTES]


def _node(one: bytes, other: bytes) -> bytes:
    return keccak(one + other if one < other else other + one)


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _padded(raw: bytes) -> bytes:
    return raw.ljust(-(-len(raw) // 32) * 32, b"\0")
