"""What the ledger and its netting to the chain promise."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.errors import LedgerError
from market.accounts.ledger import ROUNDING, Kind, Posting, chain_positions, combine

ACCOUNTS = ["household:1", "household:2", "network", "retailer"]
batches = st.lists(
    st.lists(
        st.tuples(st.sampled_from(ACCOUNTS), st.sampled_from(ACCOUNTS), st.integers(-(10**12), 10**12)),
        max_size=6,
    ),
    max_size=8,
)


def test_postings_that_do_not_sum_to_zero_are_refused() -> None:
    with pytest.raises(LedgerError, match="sum to 1 nEUR"):
        combine([Posting("a", Kind.AWARD, 3), Posting("b", Kind.AWARD, -2)])


@given(batches)
def test_after_every_batch_the_chain_is_the_floor_of_the_ledger_to_the_unit(batches) -> None:
    ledger: defaultdict[str, int] = defaultdict(int)
    chain: defaultdict[str, int] = defaultdict(int)
    for batch in batches:
        for giver, taker, amount in batch:
            ledger[giver] -= amount
            ledger[taker] += amount
        positions = chain_positions(ledger, chain)
        assert sum(positions.values()) == 0
        for account, amount in positions.items():
            chain[account] += amount
        assert all(chain[account] == ledger[account] // 1000 for account in ACCOUNTS)
        assert 0 <= chain[ROUNDING] < len(ACCOUNTS)
    assert chain_positions(ledger, chain) == {}


def test_a_ledger_out_of_balance_or_with_postings_to_rounding_is_refused() -> None:
    with pytest.raises(LedgerError, match="instead of zero"):
        chain_positions({"a": 1}, {})
    with pytest.raises(LedgerError, match="no postings of its own"):
        chain_positions({ROUNDING: 1, "a": -1}, {})
