"""Merkle trees agree with OpenZeppelin's own library (tests/cases/merkle) and prove what they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.accounts.merkle import Leaf, MerkleTree, climb, salt

TREES = json.loads((Path(__file__).parent.parent / "cases" / "merkle" / "trees.json").read_text())
HASHES = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40, unique=True)


def leaf_of(value: list[Any]) -> Leaf:
    return Leaf(bytes.fromhex(value[0][2:]), value[1], value[2], value[3])


@pytest.mark.parametrize("tree", TREES, ids=[f"{len(tree['leaves'])} leaves" for tree in TREES])
def test_leaves_roots_and_paths_are_those_of_openzeppelin(tree: dict[str, Any]) -> None:
    leaves = [leaf_of(leaf["value"]) for leaf in tree["leaves"]]
    built = MerkleTree(leaf.hash() for leaf in leaves)
    assert "0x" + built.root.hex() == tree["root"]
    for leaf, golden in zip(leaves, tree["leaves"], strict=True):
        assert leaf.value() == golden["value"]
        assert "0x" + leaf.hash().hex() == golden["hash"]
        assert ["0x" + sibling.hex() for sibling in built.path(leaf.hash())] == golden["proof"]


@given(HASHES)
def test_every_path_leads_to_the_root_and_no_other_leaf_does(hashes: list[bytes]) -> None:
    tree = MerkleTree(hashes)
    for leaf in hashes:
        assert climb(leaf, tree.path(leaf)) == tree.root
        stranger = bytes([leaf[0] ^ 1]) + leaf[1:]
        assert climb(stranger, tree.path(leaf)) != tree.root
    assert MerkleTree(reversed(hashes)).root == tree.root


@given(HASHES, HASHES)
def test_a_path_through_an_inner_tree_goes_on_in_the_outer_one(one: list[bytes], other: list[bytes]) -> None:
    inner = [MerkleTree(one), MerkleTree(other)]
    outer = MerkleTree(tree.root for tree in inner)
    path = inner[0].path(one[0]) + outer.path(inner[0].root)
    assert climb(one[0], path) == outer.root


def test_a_salt_has_128_bits_and_depends_on_the_secret_and_the_name() -> None:
    assert len({salt(b"a", "x"), salt(b"b", "x"), salt(b"a", "y")}) == 3
    assert len(salt(b"a", "x")) == 16


def test_a_tree_needs_a_leaf() -> None:
    with pytest.raises(ValueError, match="needs a leaf"):
        MerkleTree([])
