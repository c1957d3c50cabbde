"""Packing of net positions."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.positions import POSITION_BYTES, POSITIONS_MAX, chunks_of, pack_positions, unpack_positions

ACCOUNTS = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
AMOUNTS = st.integers(min_value=-(2**55), max_value=2**55)
ALICE, BOB = "0x" + "aa" * 20, "0x" + "bb" * 20


@st.composite
def nets(draw: st.DrawFn) -> dict[str, int]:
    """Positions that sum to zero; some are zero themselves."""
    net = draw(st.dictionaries(ACCOUNTS, AMOUNTS | st.just(0), max_size=60))
    balancing = draw(ACCOUNTS.filter(lambda account: account not in net))
    return {**net, balancing: -sum(net.values())}


@given(nets())
def test_unpacking_gives_back_what_was_packed_but_for_zeros(net: dict[str, int]) -> None:
    packed = pack_positions(net)
    assert unpack_positions(packed) == {account: amount for account, amount in net.items() if amount}


@given(nets())
def test_debits_come_first_and_accounts_ascend_on_each_side(net: dict[str, int]) -> None:
    unpacked = list(unpack_positions(pack_positions(net)).items())
    assert unpacked == sorted(unpacked, key=lambda position: (position[1] > 0, position[0]))


@given(nets(), st.randoms())
def test_the_order_that_positions_are_given_in_does_not_matter(net: dict[str, int], random: Random) -> None:
    items = list(net.items())
    random.shuffle(items)
    assert pack_positions(dict(items)) == pack_positions(net)


def test_a_position_is_an_address_and_a_signed_64_bit_amount() -> None:
    packed = pack_positions({ALICE: 2, BOB: -2})
    assert packed.hex() == "bb" * 20 + "fffffffffffffffe" + "aa" * 20 + "0000000000000002"
    assert len(packed) == 2 * POSITION_BYTES


@pytest.mark.parametrize(
    ("net", "complaint"),
    [
        ({ALICE: 2, BOB: -1}, "sum to 1"),
        ({ALICE: 2**63, BOB: -(2**63)}, "does not fit"),
        ({"0xaa": 1, BOB: -1}, "no address"),
    ],
)
def test_positions_that_no_batch_can_hold_are_refused(net: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        pack_positions(net)


def test_more_positions_than_a_batch_may_have_are_refused() -> None:
    net = {f"0x{number:040x}": 1 for number in range(1, POSITIONS_MAX + 1)}
    with pytest.raises(ValueError, match="1501 positions"):
        pack_positions({**net, BOB: -POSITIONS_MAX})


@given(nets(), st.integers(min_value=2, max_value=7))
def test_chunks_add_up_to_the_batch_and_each_of_them_to_zero(net: dict[str, int], positions_max: int) -> None:
    chunks = chunks_of(net, positions_max)
    total: dict[str, int] = {}
    for chunk in chunks:
        assert sum(chunk.values()) == 0
        assert sum(amount != 0 for amount in chunk.values()) <= positions_max
        for account, amount in chunk.items():
            total[account] = total.get(account, 0) + amount
    assert {a: v for a, v in total.items() if v} == {a: v for a, v in net.items() if v}
    # Nobody pays in one chunk and earns in another.
    assert all(net[account] * amount > 0 for chunk in chunks for account, amount in chunk.items() if amount)


def test_a_batch_that_fits_stays_whole_and_one_that_does_not_sum_to_zero_is_refused() -> None:
    assert chunks_of({}) == [{}]
    assert chunks_of({ALICE: 2, BOB: -2}) == [{ALICE: 2, BOB: -2}]
    with pytest.raises(ValueError, match="sum to 1"):
        chunks_of({ALICE: 2, BOB: -1})


def test_bytes_that_are_no_whole_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="29 bytes"):
        unpack_positions(bytes(29))
