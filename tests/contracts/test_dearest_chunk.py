"""The dearest chunk that a batch is cut into, within the gas that a transaction may be sent with (EIP-7825).

What it comes to after refunds is less: only being mined with that limit shows that it fits.
"""

from __future__ import annotations

from contracts.positions import CHUNK_POSITIONS_MAX


def test_every_debtor_is_short_and_every_creditor_is_new(stand) -> None:
    half, operator = CHUNK_POSITIONS_MAX // 2, stand.sender(stand.operator)
    stand.contracts.mint(operator, "mint", stand.operator.address, 10**8)
    stand.contracts.deposit_guarantee(operator, "guarantee", 10**8)
    net = {stand.key(f"debtor {number}").address: -1000 for number in range(half)}
    net |= {stand.key(f"creditor {number}").address: 1000 for number in range(half)}
    receipts = stand.contracts.settle(stand.sender(stand.settler), stand.market, 0, stand.root, net)
    assert [receipt.succeeded for receipt in receipts] == [True]
    assert stand.contracts.guarantee() == 10**8 - half * 1000
    assert set(stand.contracts.debts(net).values()) == {1000}
