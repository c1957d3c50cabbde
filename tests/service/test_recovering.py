"""What a lost database's batches paid: until when, and what its ledger comes to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.accounts.ledger import ROUNDING, Kind, chain_positions
from market.service.clock import utc
from market.service.ports import OnChain
from market.service.recovering import RecoveringError, _paid_until, document, recover
from market.service.store import Store, money
from market.service.store.inputs import register
from market.service.store.recovery import _missing, accounts_by_address, shared_addresses
from tests.service.scene import MEMBERS, SECONDS, START, settings

ACCOUNTS = ("household:a", "household:b", "household:c", "imbalance", "network", "retailer")
MONEY = st.integers(-(10**9), 10**9)


def ledger(amounts: list[int]) -> dict[str, int]:
    return dict(zip(ACCOUNTS, [*amounts, -sum(amounts)], strict=True))


@given(known=st.lists(MONEY, min_size=5, max_size=5), lost=st.lists(MONEY, min_size=5, max_size=5))
def test_the_ledger_comes_to_what_the_chain_paid_to_the_unit(known: list[int], lost: list[int]) -> None:
    """Whatever was in the ledger that was lost, of which the chain has the floors."""
    settled = chain_positions(ledger(lost), {})
    before = ledger(known)
    postings = _missing(before, settled)
    assert {posting.kind for posting in postings} <= {Kind.RECOVERED}
    assert sum(posting.amount_neur for posting in postings) == 0
    after = before | {p.account: before[p.account] + p.amount_neur for p in postings}
    assert all(after[name] // 1000 == settled.get(name, 0) for name in ACCOUNTS if name != ROUNDING)
    assert chain_positions(after, settled) == {}, "nothing more is to be paid"


@pytest.mark.parametrize("every", ["interval", "hour"])
def test_number_and_time_of_the_lost_batches_must_tell_the_same(every: Any) -> None:
    of = settings(None, settle_every=every)
    each, known_until = of.settled_every_s, START + 2 * of.settled_every_s

    def paid_until(count: int, at: int, told: int | None = None) -> int:
        lost = [OnChain(number, b"", {}, "", 0, at) for number in range(count)]
        return _paid_until(of, lost, known_until, told)

    assert paid_until(3, known_until + 3 * each + 40) == known_until + 3 * each
    for count, at in ((3, known_until + 3 * each + 20), (3, known_until + 4 * each + 40)):
        with pytest.raises(RecoveringError, match="--paid-until"):
            paid_until(count, at)
        told = known_until + 3 * SECONDS
        assert paid_until(count, at, told) == told
    with pytest.raises(RecoveringError, match=rf"boundary of intervals from {utc(known_until)} on"):
        paid_until(1, known_until, known_until - SECONDS)


def test_a_wallet_with_several_accounts_is_told_of_and_booked_to_its_first_household(tmp_path: Path) -> None:
    of = settings(None)
    first, second = sorted(MEMBERS[:2], key=lambda member: member.meter)
    second = second.model_copy(update={"owner": first.owner})
    both = OnChain(0, b"\1" * 32, {first.owner: -5, MEMBERS[2].owner: 5}, "0x", 1, START + 940)
    with Store(tmp_path / "market.sqlite", of.identity()) as store:
        with store.transaction() as tx:
            register(tx, of, [second, first, *MEMBERS[2:]])
        with store.reading() as connection:
            assert accounts_by_address(connection)[first.owner] == f"household:{first.meter}"
            assert shared_addresses(connection, [both]) == [first.owner]
            assert shared_addresses(connection, [replace(both, positions={MEMBERS[2].owner: 0})]) == []


def test_what_cannot_be_taken_in_is_told_and_nothing_changes(tmp_path: Path) -> None:
    of = settings(None)
    final = OnChain(0, b"\1" * 32, {MEMBERS[0].owner: -5, "0x" + "ee" * 20: 5}, "0x", 1, START + 940)
    asked = {
        "has shown no batch": [],
        "not the next one here": [replace(final, sequence=3)],
        "not final on the chain yet": [replace(final, is_final=False)],
        "enter its member again": [final],
        "do not reach": [replace(final, positions={})],
    }
    with Store(tmp_path / "market.sqlite", of.identity()) as store:
        with store.transaction() as tx:
            register(tx, of, MEMBERS)
        for words, batches in asked.items():
            body = {"batches": [document(batch) for batch in batches], "paid_until": None}
            with store.transaction() as tx, pytest.raises(RecoveringError, match=words):
                recover(tx, of, body, "disk lost", START + 1000)
            with store.reading() as connection:
                assert money.next_sequence(connection) == 0
